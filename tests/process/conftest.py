"""A hub and a zygote for the tests with real nodes; each test has clusters of its own."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.process.hub import Hub, Zygote


class FakePortal(ThreadingHTTPServer):
    """Takes presence reports (``told``) and what else nodes ask and tell (``asked``); knows of restarts and resets alone."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Reports)
        self.told: list[dict[str, Any]] = []
        self.asked: list[dict[str, Any]] = []
        self.losses: dict[str, Any] = {"nodes": [], "parts": [], "nothing": "Nothing."}
        self.url = f"http://127.0.0.1:{self.server_port}/services/portal"
        threading.Thread(target=self.serve_forever, daemon=True).start()


class _Reports(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        portal: Any = self.server
        presence, renewal = self.path.endswith("/presence"), self.path.endswith(("/restart", "/reset"))
        kept = portal.told if presence else portal.asked
        kept.append({**body, "path": self.path, "token": self.headers["Authorization"]})
        self.send_response(200 if renewal else 204)
        if renewal:
            self.send_header("Content-Length", "2")
        self.end_headers()
        if renewal:
            self.wfile.write(b"{}")

    def do_GET(self) -> None:
        """What would be lost, and nothing else: nodes are to go on without the rest."""
        portal: Any = self.server
        known = "/node/losses?" in self.path
        if known:
            portal.asked.append({"path": self.path, "token": self.headers["Authorization"]})
        told = json.dumps(portal.losses).encode() if known else b""
        self.send_response(200 if known else 501)
        self.send_header("Content-Length", str(len(told)))
        self.end_headers()
        self.wfile.write(told)

    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture(scope="module")
def portal() -> Iterator[FakePortal]:
    server = FakePortal()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def zygote(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Zygote]:
    running = Zygote(tmp_path_factory.mktemp("run") / "zygote.sock")
    yield running
    running.stop()


@pytest.fixture(scope="module")
def config_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Jupyter configuration that lets every node write down what it is made of."""
    path = tmp_path_factory.mktemp("config")
    folder = path / "jupyter_server_config.d"
    folder.mkdir()
    (folder / "said.json").write_text('{"ServerApp": {"jpserver_extensions": {"tests.process.said": true}}}')
    return path


@pytest.fixture(scope="module")
def hub(
    tmp_path_factory: pytest.TempPathFactory, zygote: Zygote, portal: FakePortal, config_path: Path
) -> Iterator[Hub]:
    running = Hub(
        tmp_path_factory.mktemp("hub") / "state",
        zygote=zygote.path,
        portal=portal.url,
        variables={"JUPYTER_CONFIG_PATH": str(config_path), "SAID": "by environment"},
    )
    yield running
    for model in running.api.get("/users").json():
        for name, server in model["servers"].items():
            if server["ready"] or server["pending"]:
                running.release(model["name"], name)
    running.stop()
