"""A real hub with a real proxy for the process tests, and a browser-like client for it."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx

HERE = Path(__file__).parent
TOKEN = "test-token-of-the-service"


def free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [item.getsockname()[1] for item in sockets]
    for item in sockets:
        item.close()
    return ports


#: How much slower than a quiet machine one may be that does other work, too.
BUSY = 4


def eventually(condition: Callable[[], Any], seconds: float = 20, what: str = "") -> Any:
    """Wait for something true, ``seconds`` as a quiet machine may take; fails with what it was."""
    seconds *= BUSY
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        value = condition()
        if value:
            return value
        time.sleep(0.05)
    raise AssertionError(f"did not happen within {seconds} s: {what or condition}")


class Zygote:
    """A zygote process of a test's own."""

    def __init__(self, path: Path, **environment: str) -> None:
        self.path = path
        self.environment = environment
        self.start()

    def start(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "spawner.process.zygote", "--socket", str(self.path)],
            env={**clean_environment(), **self.environment},
        )
        eventually(self.listens, 60, "the zygote listens")

    def listens(self) -> bool:
        assert self.process.poll() is None, "the zygote ended"
        folder = os.open(self.path.parent, os.O_RDONLY)
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as probe:
                probe.connect(f"/proc/self/fd/{folder}/{self.path.name}")
                return True
        except OSError:
            return False
        finally:
            os.close(folder)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.terminate()
            self.process.wait(10)


def clean_environment() -> dict[str, str]:
    return {name: os.environ[name] for name in ("PATH", "LANG", "LC_ALL", "TMPDIR") if name in os.environ} | {
        "HOME": os.environ.get("HOME", "/tmp"),
    }


class Hub:
    """A hub of a test's own."""

    def __init__(
        self,
        state: Path,
        spawner: str = "cluster",
        *,
        zygote: Path | None = None,
        portal: str = "",
        variables: dict[str, str] | None = None,
    ) -> None:
        self.state = state
        state.mkdir(exist_ok=True)
        self.ports = free_ports(3)
        self.url = f"http://127.0.0.1:{self.ports[0]}"
        self.environment = clean_environment() | {
            "TEST_STATE": str(state),
            "TEST_PORTS": " ".join(map(str, self.ports)),
            "TEST_SPAWNER": spawner,
            "TEST_TOKEN": TOKEN,
            "TEST_ZYGOTE": str(zygote or ""),
            "TEST_PORTAL": portal,
            "TEST_VARIABLES": json.dumps(variables or {}),
        }
        self.api = httpx.Client(
            base_url=f"{self.url}/hub/api", headers={"Authorization": f"token {TOKEN}"}, timeout=120
        )
        self.start()

    def start(self) -> None:
        with open(self.state / "hub.log", "ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "jupyterhub", "-f", str(HERE / "hub_config.py")],
                env=self.environment,
                cwd=HERE.parents[1],
                stdout=log,
                stderr=log,
            )
        eventually(self.answers, 60, "the hub answers")

    def answers(self) -> bool:
        assert self.process.poll() is None, (self.state / "hub.log").read_text()[-3000:]
        try:
            return self.api.get("/").status_code == 200
        except httpx.HTTPError:
            return False

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            self.process.wait(30)
        self.api.close()

    def user(self, name: str) -> None:
        answer = self.api.post(f"/users/{name}")
        assert answer.status_code in (201, 409), answer.text

    def run(self, user: str, server: str, **options: Any) -> float:
        """Start and wait until ready; seconds from the request to ready."""
        begun = time.monotonic()
        answer = self.api.post(f"/users/{user}/servers/{server}", json={"user_options": options})
        assert answer.status_code in (201, 202), (answer.text, (self.state / "hub.log").read_text()[-3000:])
        while not self.ready(user, server):
            assert time.monotonic() < begun + 90
            time.sleep(0.02)
        return time.monotonic() - begun

    def ready(self, user: str, server: str) -> bool:
        model = self.api.get(f"/users/{user}").json()["servers"].get(server)
        return bool(model and model["ready"])

    def release(self, user: str, server: str) -> float:
        begun = time.monotonic()
        answer = self.api.delete(f"/users/{user}/servers/{server}")
        assert answer.status_code in (202, 204), answer.text
        eventually(lambda: not self.api.get(f"/users/{user}").json()["servers"].get(server, {}).get("ready"))
        return time.monotonic() - begun

    def token(self, user: str) -> str:
        answer = self.api.post(f"/users/{user}/tokens", json={"note": "test"})
        return answer.json()["token"]

    def browser(self, user: str | None = None) -> httpx.Client:
        """A client with cookies that follows redirects; signed in at the hub as ``user``."""
        client = httpx.Client(base_url=self.url, follow_redirects=True, timeout=60)
        if user:
            client.get("/hub/login")
            xsrf = client.cookies.get("_xsrf", path="/hub/")
            answer = client.post("/hub/login", data={"username": user, "password": "x", "_xsrf": xsrf})
            assert answer.status_code < 500
        return client
