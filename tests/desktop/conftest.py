"""A Jupyter server with the desktop in it, real X server included, for processes and Chromium to visit."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import Browser, sync_playwright

from tests.browser.conftest import ARGUMENTS, CHROMIUM
from tests.jupyterlab.conftest import status
from tests.product.product import wait_for

ROOT = Path(__file__).resolve().parents[2]
TOKEN = "of-this-test-only"
APPLICATIONS = {
    "paper": {"title": "Paper", "command": "exec xmessage -geometry 600x400+100+100 -bg '#cc2244' paper"},
    "broken": {"title": "Broken", "command": "echo 'no licence was found' >&2; exit 3"},
    "short": {"title": "Short", "command": "sleep 1"},
    "keys": {"title": "Keys", "command": "exec stdbuf -oL xev -event keyboard > ~/keys.log"},
}


class Node:
    """The server: its address, its HOME, and a client that is signed in."""

    def __init__(self, url: str, home: Path, process: subprocess.Popen[bytes]) -> None:
        self.url, self.home, self.process = url, home, process
        self.http = httpx.Client(
            base_url=f"{url}/desktop/", headers={"Authorization": f"token {TOKEN}"}, timeout=60
        )

    def status(self, app: str = "") -> dict[str, Any]:
        return self.http.get("api/status", params={"app": app}).raise_for_status().json()

    def start(self, app: str = "") -> httpx.Response:
        return self.http.post("api/start", params={"app": app}, json={})

    def folder(self, app: str = "") -> Path:
        return self.home / ".cache/galilean" / f"desktop-{app or '_'}"

    def display(self, app: str = "") -> dict[str, str]:
        """Variables by which a program finds the screen."""
        for line in self.log().splitlines()[::-1]:
            name, _, number = line.partition(" on display ")
            if number and name.endswith(f"Desktop {app or 'whole'}"):
                return {"DISPLAY": number.strip(), "XAUTHORITY": str(self.folder(app) / "xauthority")}
        raise AssertionError("no display in the log")

    def log(self) -> str:
        return (self.home / "log").read_text(errors="replace")


@contextlib.contextmanager
def node(folder: Path, *, variables: Mapping[str, str] | None = None) -> Iterator[Node]:
    """A server for the time of a ``with``; its desktops end with it."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    home = folder / "home"
    (home / "work").mkdir(parents=True)
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("JUPYTER", "GALILEAN"))}
    environment |= {
        "HOME": str(home),
        "PYTHONPATH": str(ROOT),
        "GALILEAN_RANK": "0",
        "GALILEAN_DESKTOP_APPLICATIONS": json.dumps(APPLICATIONS),
        **(variables or {}),
    }
    extensions = {"tests.jupyterlab.node_double": True, "extensions.desktop": True, "jupyterlab": False}
    with (home / "log").open("w") as log:
        process = subprocess.Popen(
            [
                sys.executable, "-m", "jupyter_server", "--no-browser", "--allow-root", f"--port={port}",
                f"--IdentityProvider.token={TOKEN}", f"--ServerApp.root_dir={home / 'work'}",
                f"--ServerApp.jpserver_extensions={extensions}",
            ],
            cwd=ROOT,
            env=environment,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )  # fmt: skip
    made = Node(f"http://127.0.0.1:{port}", home, process)
    try:
        wait_for(
            lambda: made.http.get(f"{made.url}/api/status").status_code == 200,
            "the node answers",
            seconds=150,
        )
        made.http.post(f"{made.url}/double", json={"status": status(), "answers": {}}).raise_for_status()
        yield made
    finally:
        made.http.close()
        process.send_signal(signal.SIGTERM)
        process.wait(90)


def processes_of(home: Path) -> list[str]:
    """Names of the processes whose HOME is that of a test's node."""
    found = []
    wanted = f"HOME={home}".encode()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                if wanted in (entry / "environ").read_bytes().split(b"\0"):
                    found.append((entry / "comm").read_text().strip())
    return found


@pytest.fixture(scope="module")
def desktop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """A node whose desktop is a bare window manager, which is up in a moment."""
    with node(
        tmp_path_factory.mktemp("desktop"), variables={"GALILEAN_DESKTOP_COMMAND": "exec openbox"}
    ) as made:
        yield made


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield browser
        browser.close()
