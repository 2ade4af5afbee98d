"""A desktop that the image brings itself: its own VNC server, or one behind noVNC, with its own password (CG-39).

The page is ours, and so is the way to it: behind the sign-in, at ``desktop/``. What stands between is a socket in a
directory of the account's own. Whoever connects there is connected to the image's server, and *this side* signs in with
the password that the environment names. So the password is in no address, no page and no browser; to the page the
server seems to ask for none.

The image's server listens at the node's loopback, or at all addresses of the node: on the container backends nobody
else reaches those. It is started by the environment's start command, and is waited for. On the process backend the
loopback is the machine's, and the same port of the same environment may be somebody else's desktop by then: only a
program of this very node is connected to (:mod:`spawner.node.listening`).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from cryptography.hazmat.decrepit.ciphers.algorithms import TripleDES
from cryptography.hazmat.primitives.ciphers import Cipher, modes

from extensions.desktop.session import NotUp
from extensions.desktop.short_place import ShortPlace
from spawner.node.listening import Who

#: What the environment says: see ``vnc`` in its settings.
PORT, PASSWORD, WEB_PATH = "GALILEAN_VNC_PORT", "GALILEAN_VNC_PASSWORD", "GALILEAN_VNC_WEB_PATH"
VERSION = b"RFB 003.008\n"
NONE, VNC_AUTH = 1, 2
#: How long the image's server may take until it answers, and each step of a sign-in.
START_SECONDS, STEP_SECONDS = 60.0, 15.0
PIECE_BYTES = 64 * 1024
SAID_MOST = 4096


@dataclass(frozen=True)
class Foreign:
    """Where an image has its own VNC server.

    Attributes
    ----------
    port
        Of the server, or of its noVNC.
    password
        Empty = it asks for none. VNC looks at eight characters.
    web_path
        Path of noVNC's websocket, such as ``websockify``; empty = the port speaks VNC itself.
    """

    port: int
    password: str = ""
    web_path: str = ""

    @classmethod
    def read(cls, environ: Mapping[str, str]) -> Foreign | None:
        """What the node's environment says; ``None`` when its desktop is ours."""
        port = environ.get(PORT, "")
        if not (port.isascii() and port.isdigit() and 1024 <= int(port) <= 65535):
            return None
        return cls(int(port), environ.get(PASSWORD, ""), environ.get(WEB_PATH, "").strip("/"))


def answer_to(challenge: bytes, password: str) -> bytes:
    """What a VNC server expects as the answer to its challenge of 16 bytes (RFC 6143, 7.2.2)."""
    key = password.encode("latin-1", "replace")[:8].ljust(8, b"\0")
    turned = bytes(int(f"{byte:08b}"[::-1], 2) for byte in key)  # bits of each byte the other way round
    encryptor = Cipher(TripleDES(turned * 3), modes.ECB()).encryptor()  # noqa: S305 - the protocol says so
    return encryptor.update(challenge) + encryptor.finalize()


class Line(Protocol):
    """Bytes in both directions."""

    async def read(self, size: int) -> bytes:
        """Exactly so many bytes; raises ``EOFError`` at the end."""
        ...

    async def some(self) -> bytes:
        """What comes next; empty at the end."""
        ...

    async def write(self, content: bytes) -> None: ...

    def close(self) -> None: ...


class Refused(Exception):
    """The image's server does not let us in."""


async def sign_in(line: Line, password: str) -> None:
    """Sign in at a VNC server, up to where a client says whether others may stay.

    Raises
    ------
    Refused
        When the password is wrong, or the server wants something that is no password.
    EOFError, OSError
        When it goes away.
    """
    version = await line.read(12)
    if not version.startswith(b"RFB 003."):
        raise Refused("What answers there does not speak VNC.")
    old = version < b"RFB 003.007\n"
    await line.write(b"RFB 003.003\n" if old else VERSION if version >= VERSION else b"RFB 003.007\n")
    if old:
        (kind,) = struct.unpack("!I", await line.read(4))
        offered = bytes([kind]) if kind else b""
    else:
        offered = await line.read((await line.read(1))[0])
    if not offered:
        (size,) = struct.unpack("!I", await line.read(4))
        said = await line.read(min(size, SAID_MOST))
        raise Refused(f"The server says: {said.decode(errors='replace')}")
    kind = VNC_AUTH if password and VNC_AUTH in offered else NONE if NONE in offered else VNC_AUTH
    if kind not in offered:
        raise Refused("The server wants a kind of sign-in that is no VNC password.")
    if not old:
        await line.write(bytes([kind]))
    if kind == VNC_AUTH:
        await line.write(answer_to(await line.read(16), password))
    if kind == VNC_AUTH or version >= VERSION:
        (result,) = struct.unpack("!I", await line.read(4))
        if result:
            raise Refused("The server does not take the password of the environment.")


async def greet(line: Line) -> None:
    """Be a VNC server that asks for nothing, up to the same place.

    Raises
    ------
    Refused, EOFError, OSError
        When the other side is no client.
    """
    await line.write(VERSION)
    if (await line.read(12)) != VERSION:
        raise Refused("What connects there is no page of ours.")
    await line.write(bytes([1, NONE]))
    if (await line.read(1)) != bytes([NONE]):
        raise Refused("What connects there is no page of ours.")
    await line.write(struct.pack("!I", 0))


class StreamLine:
    """A line over asyncio's streams."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    async def read(self, size: int) -> bytes:
        return await asyncio.wait_for(self._reader.readexactly(size), STEP_SECONDS)

    async def some(self) -> bytes:
        return await self._reader.read(PIECE_BYTES)

    async def write(self, content: bytes) -> None:
        self._writer.write(content)
        await self._writer.drain()

    def close(self) -> None:
        self._writer.close()


class WebLine:
    """A line over noVNC's websocket."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self._rest = b""

    @classmethod
    async def open(cls, host: str, port: int, path: str) -> WebLine:
        """Connect to it.

        Raises
        ------
        OSError
            When it does not answer as one.
        """
        from tornado.httpclient import HTTPClientError
        from tornado.websocket import WebSocketError, websocket_connect

        try:
            connected = websocket_connect(
                f"ws://{host}:{port}/{path}",
                subprotocols=["binary"],
                connect_timeout=STEP_SECONDS,
                max_message_size=64 * 2**20,
            )
            return cls(await connected)
        except (HTTPClientError, WebSocketError) as error:
            raise ConnectionError(str(error)) from error

    async def read(self, size: int) -> bytes:
        while len(self._rest) < size:
            more = await asyncio.wait_for(self._next(), STEP_SECONDS)
            if not more:
                raise EOFError
            self._rest += more
        found, self._rest = self._rest[:size], self._rest[size:]
        return found

    async def some(self) -> bytes:
        if self._rest:
            found, self._rest = self._rest, b""
            return found
        return await self._next()

    async def _next(self) -> bytes:
        while True:
            message = await self._connection.read_message()
            if message is None:
                return b""
            if isinstance(message, bytes) and message:
                return message

    async def write(self, content: bytes) -> None:
        from tornado.websocket import WebSocketClosedError

        try:
            await self._connection.write_message(content, binary=True)
        except WebSocketClosedError as error:
            raise ConnectionError("closed") from error

    def close(self) -> None:
        self._connection.close()


class ForeignSession:
    """The image's own desktop, as the pages of a desktop know one (:class:`extensions.desktop.session.Session`).

    Parameters
    ----------
    foreign
        Where it is.
    look
        Says whose a port is, and the address at which it is reached (:meth:`spawner.node.listening.Ports.look`).
    """

    application = None
    #: It is the image's: we come and go, and end nothing on it.
    restarts = False

    def __init__(
        self,
        foreign: Foreign,
        *,
        log: logging.Logger,
        look: Callable[[int], tuple[Who, str]],
        language: str = "en",
    ) -> None:
        self._foreign, self._log, self._look = foreign, log, look
        self.language = language
        self.state = "new"
        self.why: NotUp | None = None
        self._lock = asyncio.Lock()
        self._place: ShortPlace | None = None
        self._server: asyncio.Server | None = None

    @property
    def socket(self) -> str:
        """Path of the socket that our page is led to."""
        return str(self._place.path / "vnc") if self._place is not None else ""

    def status(self) -> dict[str, Any]:
        """How it stands, as of a desktop of ours."""
        said: dict[str, Any] = {"state": self.state, "reason": None, "log": []}
        if self.state == "down" and self.why is not None:
            said |= {"reason": self.why.reason, "log": self.why.log}
        return said

    async def ensure(self) -> None:
        """Come back when the image's server lets us in.

        Raises
        ------
        NotUp
            When it does not answer in time, or takes the password not.
        """
        async with self._lock:
            if self.state == "running" and self._server is not None:
                return
            self.state, self.why = "starting", None
            try:
                await self._try()
                if self._server is None:
                    self._place = self._place or ShortPlace()
                    self._server = await asyncio.start_unix_server(self._serve, self.socket)
            except (Refused, OSError, EOFError, TimeoutError) as error:
                said = str(error) or "The VNC server of this environment does not answer."
                self.state, self.why = "down", NotUp("server", [said])
                self._log.warning("The desktop of the image is not there: %s", said)
                raise self.why from error
            self.state = "running"

    async def _try(self) -> None:
        """Sign in once, waiting until somebody answers."""
        loop = asyncio.get_running_loop()
        end = loop.time() + START_SECONDS
        while True:
            try:
                line = await self._dial()
            except OSError:
                if loop.time() >= end:
                    raise
                await asyncio.sleep(0.5)
                continue
            try:
                await sign_in(line, self._foreign.password)
            finally:
                line.close()
            return

    async def _dial(self) -> Line:
        foreign = self._foreign
        who, host = await asyncio.to_thread(self._look, foreign.port)
        if who is Who.NOBODY:
            raise ConnectionRefusedError
        if who is not Who.PERSON:
            raise Refused(f"What listens at port {foreign.port} is no program of this node.")
        if foreign.web_path:
            return await WebLine.open(host, foreign.port, foreign.web_path)
        return StreamLine(*await asyncio.open_connection(host.strip("[]"), foreign.port))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Join a page with the image's server."""
        page: Line = StreamLine(reader, writer)
        there: Line | None = None
        try:
            there = await self._dial()
            await sign_in(there, self._foreign.password)
            await greet(page)
            await _join(page, there)
        except (Refused, OSError, EOFError, TimeoutError) as error:
            self._log.info("A desktop's connection ended: %s", error or type(error).__name__)
            if there is None:  # the next page asks how it stands, and waits for it
                self.state = "new"
        finally:
            page.close()
            if there is not None:
                there.close()

    async def restart(self) -> None:
        """Look for it anew; it is the image's to restart."""
        await self.stop()
        await self.ensure()

    async def stop(self) -> None:
        """Let go of it."""
        async with self._lock:
            self._let_go()
            self.state = "new"

    def end(self) -> None:
        """Let go of it, at the end of the Jupyter server."""
        self._let_go()

    def _let_go(self) -> None:
        server, self._server = self._server, None
        if server is not None:
            with contextlib.suppress(RuntimeError):  # the loop has ended
                server.close()
        if self._place is not None:
            self._place.remove()
            self._place = None

    async def run(self, *arguments: str, seconds: float = 10.0) -> tuple[int, str]:
        """There is no display of ours to run anything on."""
        del arguments, seconds
        return 1, "the image's own desktop"


async def _join(one: Line, other: Line) -> None:
    """Hand on bytes both ways until either side ends."""

    async def hand_on(source: Line, to: Line) -> None:
        while content := await source.some():
            await to.write(content)

    tasks = [asyncio.create_task(hand_on(one, other)), asyncio.create_task(hand_on(other, one))]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
