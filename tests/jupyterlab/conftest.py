"""A real JupyterLab with our extension, in Chromium, on a server that says what a test wants said."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

from tests.browser.conftest import ARGUMENTS, CHROMIUM, PATIENCE_MS
from tests.product.product import wait_for

ROOT = Path(__file__).resolve().parents[2]
LABEXTENSIONS = ROOT / "extensions" / "lab" / "labextensions"
TOKEN = "of-this-test-only"
GIB = 2**30


def status(**changes: Any) -> dict[str, Any]:
    """What a node says in the picture: Galaxy classifier, kept for 2 h 14 min more."""
    now = datetime.now(UTC)
    ends = (now + timedelta(hours=2, minutes=14, seconds=30)).isoformat()
    said: dict[str, Any] = {
        "now": now.isoformat(),
        "language": "en",
        "run": "01JD00000000000000000000AA",
        "project": {"name": "Galaxy classifier", "url": "/project/page", "owner": "ada"},
        "portal_url": "/home",
        "node": {"rank": 0, "name": "node-0"},
        "nodes": [{"rank": 0, "name": "node-0", "lab_url": "/lab", "terminal_url": "/t", "state": "ready"}],
        "size": {"nodes": 1, "cpu_millicores": 4000, "memory_bytes": 16 * GIB, "gpus": 1, "gpu_model": "A100"},
        "since": (now - timedelta(seconds=8020)).isoformat(),
        "held_seconds": 8020,
        "release": {
            "policy": "auto", "grace_seconds": 300, "at": ends, "why": "kept", "kept_until": ends,
            "when_done": False,
        },
        "extend": {"until": (now + timedelta(hours=4)).isoformat(), "until_most": None},
        "can": {"when_done": True, "release": True, "restart": True, "reset": True},
        "loses": {
            "restart": {"goes": ["Programs of this node end."], "stays": "Files stay."},
            "reset": {"goes": ["Programs of this node end.", "Its home is emptied."], "stays": ""},
        },
        "warning": None,
        "use": {
            "cpu_percent": 38, "memory_bytes": int(11.2 * GIB), "memory_limit_bytes": 16 * GIB, "gpu_percent": 94,
        },
        "busy": {"kernels": 1, "terminals": 0, "batch": 0},
        "headless": [],
        "portal_away": False,
    }  # fmt: skip
    return said | changes


class Double:
    """The server: tell it what to say, hear what it was asked."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.http = httpx.Client(headers={"Authorization": f"token {TOKEN}"}, timeout=90)

    def __call__(self, **body: Any) -> dict[str, Any]:
        return self.http.post(f"{self.url}/double", json=body).raise_for_status().json()

    def setting(self, plugin: str, **values: str) -> None:
        """A setting of JupyterLab's, as the person's own."""
        address = f"{self.url}/lab/api/settings/{plugin}"
        self.http.put(address, json={"raw": json.dumps(values)}).raise_for_status()

    def says(self, **changes: Any) -> None:
        self(status=status(**changes), answers={})


def pytest_configure() -> None:
    # A test run that is ended by SIGTERM takes its server along, as one that is ended by Ctrl-C.
    signal.signal(signal.SIGTERM, signal.default_int_handler)


@contextlib.contextmanager
def jupyterlab(folder: Path, *, extension: bool = True) -> Iterator[Double]:
    """A Jupyter server with JupyterLab, with or without ours in it, for the time of a ``with``."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    (folder / "work").mkdir(parents=True)
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("JUPYTER", "GALILEAN"))}
    with (folder / "log").open("w") as log:
        server = subprocess.Popen(
            [
                sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", f"--port={port}",
                f"--IdentityProvider.token={TOKEN}", f"--ServerApp.root_dir={folder / 'work'}",
                "--ServerApp.jpserver_extensions={'tests.jupyterlab.node_double': True}",
                *([f"--LabApp.extra_labextensions_path={LABEXTENSIONS}"] if extension else []),
                f"--LabApp.user_settings_dir={folder / 'settings'}",
                f"--LabApp.workspaces_dir={folder / 'workspaces'}",
                "--LabApp.news_url=None", "--LabApp.extension_manager=readonly",
                "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",
            ],
            cwd=ROOT,
            env=environment | {"HOME": str(folder), "PYTHONPATH": str(ROOT)},
            stdout=log,
            stderr=log,
            start_new_session=True,
        )  # fmt: skip
    made = Double(f"http://127.0.0.1:{port}")
    try:
        wait_for(
            lambda: made.http.get(f"{made.url}/api/status").status_code == 200, "Jupyter answers", seconds=60
        )
        made.setting("@jupyterlab/apputils-extension:notification", fetchNews="false")
        yield made
    finally:
        made.http.close()
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(90)


@pytest.fixture(scope="module")
def double(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Double]:
    with jupyterlab(tmp_path_factory.mktemp("jupyter") / "lab") as made:
        yield made


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield browser
        browser.close()


OpenLab = Callable[..., Page]


@pytest.fixture
def lab(chromium: Browser, double: Double) -> Iterator[OpenLab]:
    """``lab(width=, locale=, dark=)``: JupyterLab, usable, with the item in it."""
    contexts: list[BrowserContext] = []

    def opener(*, width: int = 1400, locale: str = "", dark: bool = False, item: bool = True) -> Page:
        double.setting("@jupyterlab/translation-extension:plugin", locale=locale or "default")
        theme = f"JupyterLab {'Dark' if dark else 'Light'}"
        double.setting("@jupyterlab/apputils-extension:themes", theme=theme)
        context = chromium.new_context(
            viewport={"width": width, "height": 860},
            timezone_id="Europe/Berlin",
            locale="en-GB",
            reduced_motion="reduce",
        )
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(PATIENCE_MS)
        page.goto(f"{double.url}/lab?token={TOKEN}&reset")
        page.locator("#jp-top-panel").wait_for()
        if item:
            page.locator(".galilean-pill").wait_for()
        page.locator(".jp-LauncherCard").first.wait_for()  # it takes the focus when it comes
        return page

    yield opener
    for context in contexts:
        context.close()
