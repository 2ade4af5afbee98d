"""A real registry of a test's own, and a way to it that can be cut."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import yaml


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class RegistryServer:
    """Debian's docker-registry on a free port, its data in ``directory / "data"``."""

    def __init__(
        self, directory: Path, auth: dict[str, Any] | None = None, *, host: str = "127.0.0.1"
    ) -> None:
        program = shutil.which("docker-registry")
        if not program:
            raise RuntimeError("docker-registry is missing: install Debian's package docker-registry")
        self._program = program
        self.directory = directory
        self.data = directory / "data"
        self.data.mkdir(parents=True, exist_ok=True)
        self.host, self.port = host, free_port()
        settings: dict[str, Any] = {
            "version": 0.1,
            "storage": {"filesystem": {"rootdirectory": str(self.data)}, "delete": {"enabled": True}},
            "http": {"addr": f"{self.host}:{self.port}", "secret": "the same after a restart"},
        }
        if auth:
            settings["auth"] = auth
        self.settings = directory / "config.yml"
        self.settings.write_text(yaml.safe_dump(settings))
        self._server: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        return f"http://{self.host}:{self.port}"

    def start(self) -> None:
        with (self.directory / "log").open("ab") as log:
            self._server = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", self._program, "serve", str(self.settings)],
                stdout=log, stderr=log, start_new_session=True, env={"PATH": os.environ["PATH"]},
            )  # fmt: skip
        ends = time.monotonic() + 60
        while True:
            with suppress(httpx.TransportError):
                httpx.get(f"{self.address}/v2/", trust_env=False)
                return
            if self._server.poll() is not None or time.monotonic() > ends:
                raise RuntimeError((self.directory / "log").read_text()[-2000:])
            time.sleep(0.05)

    def stop(self) -> None:
        if self._server:
            self._server.send_signal(signal.SIGKILL)
            self._server.wait()
            self._server = None

    def half_sent(self) -> list[Path]:
        """Bytes of uploads that nobody finished; the registry leaves an empty folder of each."""
        return list(self.data.rglob("_uploads/*/data"))


class Way:
    """A TCP proxy: ``cut_after`` bytes towards the registry it drops the connection, once."""

    def __init__(self, port: int) -> None:
        self._port = port
        self.cut_after: int | None = None
        self.passed = 0
        self.cuts = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    @property
    def address(self) -> str:
        assert self._server
        return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def __aenter__(self) -> Way:
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server
        self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        there, to = await asyncio.open_connection("127.0.0.1", self._port)

        async def up() -> None:
            while data := await reader.read(65536):
                if self.cut_after is not None and self.passed + len(data) > self.cut_after:
                    to.write(data[: max(0, self.cut_after - self.passed)])
                    await to.drain()
                    self.cut_after = None
                    self.cuts += 1
                    return
                self.passed += len(data)
                to.write(data)
                await to.drain()

        async def down() -> None:
            while data := await there.read(65536):
                writer.write(data)
                await writer.drain()

        both = [asyncio.create_task(up()), asyncio.create_task(down())]
        try:
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for one in both:
                one.cancel()
            await asyncio.gather(*both, return_exceptions=True)
            writer.close()
            to.close()
