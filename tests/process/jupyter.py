"""A real Jupyter server with a node's own parts and no hub, and a page that speaks to it as JupyterLab does."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import uuid
from pathlib import Path
from typing import Any

import httpx
from websockets.sync.client import ClientConnection, connect

from spawner.node.place import Place
from tests.process.hub import clean_environment, eventually, free_ports

TOKEN = "a-token-of-the-test"


class Jupyter:
    """Started for a test module; ``root`` is the person's ``~/work``."""

    def __init__(
        self, folder: Path, *, portal: str = "", language: str = "", more: dict[str, str] | None = None
    ) -> None:
        self.root = folder / "work"
        self.root.mkdir(parents=True)
        (port,) = free_ports(1)
        self.place = Place(
            run="0" * 26, server="heat", nodes=2, rank=0, prefix="/user/ada/heat/", portal_url=portal
        )
        self.url = f"http://127.0.0.1:{port}{self.place.prefix}"
        self.log = folder / "log"
        environment = {
            **clean_environment(),
            **self.place.variables(),
            "HOME": str(folder),
            "GALILEAN_LANGUAGE": language,
            "JUPYTER_RUNTIME_DIR": str(folder / "runtime"),
            **(more or {}),
        }
        command = [
            sys.executable, "-m", "jupyter_server", "--no-browser", "--allow-root", f"--port={port}",
            "--ServerApp.jpserver_extensions=spawner.node=True",
            "--ServerApp.jpserver_extensions=jupyter_server_proxy=False",
            "--ServerApp.kernel_manager_class=spawner.node.kernels.NodeKernelManager",
            "--ServerApp.kernel_websocket_connection_class=spawner.node.kernels.NodeKernelConnection",
            f"--ServerApp.base_url={self.place.prefix}", f"--ServerApp.root_dir={self.root}",
            f"--IdentityProvider.token={TOKEN}", "--ServerApp.port_retries=0",
        ]  # fmt: skip
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(command, env=environment, cwd=folder, stdout=log, stderr=log)
        self.client = httpx.Client(
            base_url=self.url, headers={"Authorization": f"token {TOKEN}"}, timeout=120
        )
        eventually(self._answers, 60, "the server answers")

    def _answers(self) -> bool:
        assert self.process.poll() is None, self.log.read_text()[-3000:]
        try:
            return self.client.get("galilean/api/status").status_code == 200
        except httpx.HTTPError:
            return False

    def stop(self) -> None:
        self.client.close()
        if self.process.poll() is None:
            os.kill(self.process.pid, signal.SIGTERM)
            self.process.wait(20)

    def notebook(self, name: str, *cells: str, ids: bool = True) -> None:
        """A notebook with these code cells; their ids are ``c0``, ``c1`` …"""
        made = []
        for number, code in enumerate(cells):
            cell: dict[str, Any] = {
                "cell_type": "code", "execution_count": None, "metadata": {}, "outputs": [], "source": code,
            }  # fmt: skip
            if ids:
                cell["id"] = f"c{number}"
            made.append(cell)
        (self.root / name).write_text(
            json.dumps({"cells": made, "metadata": {}, "nbformat": 4, "nbformat_minor": 5 if ids else 4})
        )

    def cells(self, name: str) -> list[dict[str, Any]]:
        return json.loads((self.root / name).read_text())["cells"]

    def text(self, name: str, cell: int = 0) -> str:
        """What a cell printed, as it is in the file."""
        return "".join("".join(item["text"]) for item in self.cells(name)[cell]["outputs"] if "text" in item)

    def session(self, name: str) -> dict[str, Any]:
        answer = self.client.post(
            "api/sessions",
            json={"path": name, "name": name, "type": "notebook", "kernel": {"name": "python3"}},
        )
        assert answer.status_code == 201, answer.text
        return answer.json()

    def busy(self) -> dict[str, int]:
        return self.client.get("galilean/api/status").json()["busy"]


class Page:
    """One open notebook of JupyterLab: a websocket with a session id of its own."""

    def __init__(self, jupyter: Jupyter, kernel: str, session: str = "") -> None:
        self.session = session or uuid.uuid4().hex
        address = f"{jupyter.url.replace('http', 'ws', 1)}api/kernels/{kernel}/channels"
        self.socket: ClientConnection = connect(
            f"{address}?session_id={self.session}&token={TOKEN}", max_size=None, open_timeout=60
        ).__enter__()

    def send(self, kind: str, content: dict[str, Any], channel: str = "shell", **metadata: Any) -> str:
        key = uuid.uuid4().hex
        self.socket.send(
            json.dumps(
                {
                    "header": {
                        "msg_id": key, "msg_type": kind, "username": "", "session": self.session,
                        "date": "2026-03-01T12:00:00Z", "version": "5.4",
                    },
                    "parent_header": {}, "metadata": metadata, "content": content, "buffers": [],
                    "channel": channel,
                }
            )
        )  # fmt: skip
        return key

    def run(self, code: str, cell: int = 0, **more: Any) -> str:
        """Execute a cell as JupyterLab does."""
        content = {
            "code": code, "silent": False, "store_history": True, "user_expressions": {},
            "allow_stdin": True, "stop_on_error": True, **more,
        }  # fmt: skip
        return self.send("execute_request", content, cellId=f"c{cell}", deletedCells=[])

    def until(self, kind: str, parent: str = "", **content: Any) -> dict[str, Any]:
        """The next message of a kind."""
        while True:
            said = json.loads(self.socket.recv(timeout=60))
            if (
                said["header"]["msg_type"] == kind
                and (not parent or said["parent_header"].get("msg_id") == parent)
                and content.items() <= said["content"].items()
            ):
                return said

    def close(self) -> None:
        """As a page does that goes."""
        self.socket.close(1001)

    def lose(self) -> None:
        """As a connection does that breaks."""
        self.socket.socket.shutdown(2)
