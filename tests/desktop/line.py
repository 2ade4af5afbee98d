"""A line between a browser and a node that is long, or breaks: a proxy of the tests' own for TCP."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Iterator


class Line:
    """Carries bytes to ``127.0.0.1:port``, each way ``delay_seconds`` late, in order, however many there are.

    Parameters
    ----------
    port
        Where it leads.
    delay_seconds
        One way; a question and its answer take twice that.
    """

    def __init__(self, port: int, delay_seconds: float = 0.0) -> None:
        self._port, self._delay = port, delay_seconds
        self._loop = asyncio.new_event_loop()
        self._open: set[asyncio.StreamWriter] = set()
        self._cut = False
        started = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(started,), daemon=True)
        self._thread.start()
        assert started.wait(10)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def cut(self) -> None:
        """Break every connection, and let nobody through."""
        self._ask(self._break)

    def mend(self) -> None:
        """Let people through again."""
        self._cut = False

    def close(self) -> None:
        self._ask(self._break)
        self._ask(self._server.close)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)

    def _ask(self, act: object) -> None:
        done = threading.Event()
        self._loop.call_soon_threadsafe(lambda: (act(), done.set()))  # type: ignore[operator]
        assert done.wait(10)

    def _break(self) -> None:
        self._cut = True
        for writer in self._open:
            with contextlib.suppress(Exception):
                writer.transport.abort()
        self._open.clear()

    def _run(self, started: threading.Event) -> None:
        asyncio.set_event_loop(self._loop)
        self._server = self._loop.run_until_complete(asyncio.start_server(self._serve, "127.0.0.1", 0))
        self.port: int = self._server.sockets[0].getsockname()[1]
        started.set()
        self._loop.run_forever()
        left = asyncio.all_tasks(self._loop)
        for task in left:
            task.cancel()
        self._loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
        self._loop.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._cut:
            writer.transport.abort()
            return
        there, out = await asyncio.open_connection("127.0.0.1", self._port)
        self._open |= {writer, out}
        with contextlib.suppress(OSError):
            await asyncio.gather(self._carry(reader, out), self._carry(there, writer))

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        def put(data: bytes) -> None:
            with contextlib.suppress(Exception):
                writer.write(data) if data else writer.close()

        while True:
            data = await reader.read(2**16)
            self._loop.call_later(self._delay, put, data)
            if not data:
                return


@contextlib.contextmanager
def line(port: int, delay_seconds: float = 0.0) -> Iterator[Line]:
    made = Line(port, delay_seconds)
    try:
        yield made
    finally:
        made.close()
