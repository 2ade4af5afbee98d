"""A real web server with the handlers of files, and nothing else of the portal."""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from tornado.httpserver import HTTPServer
from tornado.testing import bind_unused_port
from tornado.web import Application

from galilean.clock import utcnow
from galilean.errors import UserError
from galilean.file_threads import FileThreads
from services.files.root import Root
from services.files.tus import Place, Tus, routes


class OpenTus(Tus):
    """Whoever says a name is that person."""

    async def _identify(self) -> None:
        self.person: Any = SimpleNamespace(
            name=self.request.headers.get("X-Who", "alice"), node=None, may_change=True
        )


class ADesk:
    """Lets everybody but mallory write into one tree."""

    def __init__(self, root: Path, **more: Any) -> None:
        self.root, self.more, self.arrived = root, more, []

    async def admit(self, handler: Any) -> Place:
        if handler.person.name == "mallory":
            raise UserError(403, "Not you.")
        return Place(
            root=Root(self.root), by=handler.person.name, address="/up", came_in=self.came_in, **self.more
        )

    async def came_in(self, path: str) -> None:
        self.arrived.append(path)


class Server:
    """Where it listens, and what it was given."""

    def __init__(self, desk: ADesk, more: list[Any], handler: type[Tus]) -> None:
        self.desk = desk
        self.files = FileThreads()
        self.portal: Any = SimpleNamespace(
            settings=SimpleNamespace(site=SimpleNamespace(language="en")),
            hub_host="",
            files=self.files,
            clock=utcnow,
            parts={},
            prefix="/",
        )
        self.app = Application([*routes("/up", desk, handler), *more], portal=self.portal)
        sock, self.port = bind_unused_port()
        self.http = HTTPServer(self.app)
        self.http.add_socket(sock)
        self.url = f"http://127.0.0.1:{self.port}"

    async def close(self) -> None:
        self.http.stop()
        await self.http.close_all_connections()
        await asyncio.gather(*self.portal.parts.get("abandoned", ()), return_exceptions=True)
        self.files.shutdown(wait=True)


@asynccontextmanager
async def serving(
    root: Path, *, more: list[Any] | None = None, handler: type[Tus] = OpenTus, **place: Any
) -> AsyncIterator[Server]:
    """The server, in this loop."""
    server = Server(ADesk(root, **place), more or [], handler)
    try:
        yield server
    finally:
        await server.close()


async def _main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("root", type=Path)
    async with serving(parser.parse_args().root) as server:
        print(server.port, flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(_main())
