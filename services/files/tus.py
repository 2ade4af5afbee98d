"""The tus protocol 1.0.0: uploads that go on where they broke off (SC-2).

Core, creation, creation-with-upload, checksum, termination and expiration, over :mod:`services.files.shelf`.
Two addresses: ``…/uploads`` makes one, ``…/uploads/<id>`` is one. Who may write where is the business of the
:class:`Desk` that is handed in. Bytes go to the disk in pieces of a megabyte in the file threads, the next
piece coming in meanwhile only into that one buffer, so memory is flat and the loop is free.

A connection that says nothing (a laptop that was shut) keeps an upload locked for a short while only: the next
request for it takes over.

https://tus.io/protocols/resumable-upload
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Protocol

from galilean.amounts import format_bytes
from galilean.errors import UserError, mark
from galilean.web.streamed import StreamedHandler, content_length
from services.files import paths
from services.files.paths import shown
from services.files.placing import Taken
from services.files.root import Root
from services.files.shelf import ASK_EVERY_BYTES, Shelf, Standing, Writing, no_room, too_long
from services.files.tus_headers import (
    ALGORITHMS,
    Checksum,
    hasher,
    parse_bytes,
    parse_checksum,
    parse_metadata,
    wished_path,
    wished_taken,
)

VERSION = "1.0.0"
EXTENSIONS = "creation,creation-with-upload,checksum,termination,expiration"
CONTENT_TYPE = "application/offset+octet-stream"
PIECE_BYTES = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a visitor's uploads of this address go.

    Attributes
    ----------
    root
        The tree.
    by
        Who it is; an upload is found by who began it only.
    address
        Absolute path of the address that makes uploads, without a slash at the end.
    limit_bytes
        The most that one upload may have (CG-13); ``None`` = no limit.
    room_bytes
        How much more this person may keep, asked in a thread, before and during; ``None`` = no limit.
    came_in
        Called when a file got its name, with its path.
    """

    root: Root
    by: str
    address: str
    limit_bytes: int | None = None
    room_bytes: Callable[[], int | None] = lambda: None
    came_in: Callable[[str], Awaitable[None]] | None = None


class Desk(Protocol):
    """Who decides whether a visitor may write here."""

    async def admit(self, handler: StreamedHandler) -> Place:
        """Where this request may write; raises :class:`UserError` when it may not."""
        ...


class Tus(StreamedHandler):
    """Both addresses; the second hands the upload's id in as the last group of its pattern."""

    #: A writer that has said nothing for so long gives way to the next request for the same upload.
    silent_seconds = 5.0
    #: A connection that says nothing for so long is given up anyway.
    idle_seconds = 60.0

    def initialize(self, desk: Desk, new: bool) -> None:
        self._desk, self._new = desk, new
        self._turn = asyncio.Lock()
        self._buffer = bytearray()
        self._writing: Writing | None = None
        self._checksum: Checksum | None = None
        self._idle: asyncio.TimerHandle | None = None
        self._ending: asyncio.Future[None] | None = None
        self._heard = 0.0

    @property
    def _writers(self) -> dict[str, Tus]:
        return self.application.settings.setdefault("tus_writers", {})

    def set_default_headers(self) -> None:
        super().set_default_headers()
        self.set_header("Tus-Resumable", VERSION)

    # ---- before the body

    async def begin(self) -> None:
        override = self.request.headers.get("X-HTTP-Method-Override", "").upper()
        if self.request.method == "POST" and override in ("PATCH", "DELETE", "HEAD"):
            self.request.method = override
        if self.request.method == "OPTIONS":
            return
        await super().begin()
        if self._finished:
            return
        if self.request.headers.get("Tus-Resumable") != VERSION:
            self.set_header("Tus-Version", VERSION)
            raise UserError(412, mark("Uploads here speak tus {version}."), version=VERSION)
        self._place = await self._desk.admit(self)
        self._shelf = Shelf(self._place.root, clock=self.portal.clock)
        if self._new and self.request.method == "POST":
            await self._create()
        elif not self._new and self.request.method == "PATCH":
            self._check_type()
            offset = parse_bytes("Upload-Offset", self.request.headers.get("Upload-Offset", ""))
            await self._go_on(self.path_args[-1], offset)

    def _check_type(self) -> None:
        kind = self.request.headers.get("Content-Type", "").partition(";")[0].strip().lower()
        if kind != CONTENT_TYPE:
            raise UserError(415, mark("The bytes must be sent as {kind}."), kind=CONTENT_TYPE)

    async def _create(self) -> None:
        headers = self.request.headers
        if "Upload-Length" not in headers:
            raise UserError(
                400, mark("“{header}” is missing: say how much will come."), header="Upload-Length"
            )
        length = parse_bytes("Upload-Length", headers["Upload-Length"])
        metadata = parse_metadata(headers.get("Upload-Metadata", ""))
        path = wished_path(metadata, paths.from_address(self.query("folder")))
        await self._begin_upload(path, length, wished_taken(metadata), headers.get("Upload-Metadata", ""))
        announced = content_length(self.request) != 0 or "Transfer-Encoding" in headers
        if announced and self._made.placed is None:
            await self._first_bytes(check_type=True)

    async def _begin_upload(self, path: str, length: int, taken: Taken, metadata: str = "") -> None:
        place = self._place
        if place.limit_bytes is not None and length > place.limit_bytes:
            raise UserError(
                413,
                mark("“{path}” is larger than {most}, the most that you may upload at once."),
                path=shown(path),
                most=format_bytes(place.limit_bytes),
            )

        def make() -> Standing:
            return self._shelf.begin(
                path, length, by=place.by, taken=taken, metadata=metadata, room_bytes=place.room_bytes()
            )

        self._made = await self.in_files(make)

    async def _first_bytes(self, *, check_type: bool) -> None:
        """Take what comes with the request that makes the upload."""
        try:
            if check_type:
                self._check_type()
            await self._go_on(self._made.record.id, 0)
        except BaseException:
            await self.in_files(self._shelf.remove, self._made.record.id, by=self._place.by)
            raise

    async def _go_on(self, upload_id: str, offset: int) -> None:
        self._checksum = parse_checksum(self.request.headers.get("Upload-Checksum", ""))
        connection: Any = self.request.connection
        connection.set_body_timeout(24 * 3600)
        if self._new or (await self._look(upload_id)).placed is None:
            self._writing = await self._open(upload_id)
        else:
            self._check_offset((await self._look(upload_id)).offset_bytes, offset)
            return
        try:
            self._check_offset(self._writing.offset_bytes, offset)
            record, coming = self._writing.record, content_length(self.request) or 0
            if offset + coming > record.length_bytes:
                raise too_long(self._writing.path, record.length_bytes)
            self._asked_at, self._room = offset, await self.in_files(self._place.room_bytes)
            self._check_room(coming)
            if self._checksum is not None:
                self._hash = hasher(self._checksum.algorithm)
                await self.in_files(self._writing.verify_later)
        except BaseException:
            await self._let_go()
            raise
        self._writers[upload_id] = self
        self._heard = asyncio.get_running_loop().time()
        self._wait()

    async def _look(self, upload_id: str) -> Standing:
        return await self.in_files(self._shelf.look, upload_id, by=self._place.by)

    async def _open(self, upload_id: str) -> Writing:
        try:
            return await self.in_files(self._shelf.open, upload_id, by=self._place.by)
        except UserError as error:
            other = self._writers.get(upload_id)
            if error.status != 423 or other is None or not other.is_silent:
                raise
            await other.give_up()
            return await self.in_files(self._shelf.open, upload_id, by=self._place.by)

    @property
    def is_silent(self) -> bool:
        """Whether nothing has come for so long that somebody else may take over."""
        return asyncio.get_running_loop().time() - self._heard >= self.silent_seconds

    async def give_up(self) -> None:
        """Keep what came in, let go of the upload and end the connection."""
        await self._let_go()
        connection: Any = self.request.connection
        if connection is not None and connection.stream is not None:
            connection.stream.close()

    def _check_offset(self, is_at: int, offset: int) -> None:
        if offset != is_at:
            raise UserError(
                409,
                mark("The upload is at {is_at}, not at {offset}. Ask where it is, then go on there."),
                is_at=is_at,
                offset=offset,
                reason="offset",
            )

    def _check_room(self, coming: int) -> None:
        if self._writing is not None and self._room is not None and coming > self._room:
            raise no_room(self._writing.path, coming, max(0, self._room))

    # ---- the body

    async def body_piece(self, piece: bytes) -> None:
        self._heard = asyncio.get_running_loop().time()
        self._buffer += piece
        if len(self._buffer) >= PIECE_BYTES:
            await self._store()

    async def _store(self) -> None:
        async with self._turn:
            data, self._buffer = self._buffer, bytearray()
            writing = self._writing
            if not data:
                return
            if writing is None:  # it came in whole before
                raise too_long("", 0)
            try:
                await self.in_files(self._write, writing, data)
            except UserError as error:
                if error.status == 413:  # what came of this request cannot be trusted
                    await self.in_files(writing.take_back)
                raise

    def _write(self, writing: Writing, data: bytearray) -> None:
        if writing.offset_bytes - self._asked_at >= ASK_EVERY_BYTES:
            self._asked_at, self._room = writing.offset_bytes, self._place.room_bytes()
        if self._room is not None and writing.offset_bytes + len(data) - self._asked_at > self._room:
            raise no_room(writing.path, len(data), 0)
        writing.write(data)
        if self._checksum is not None:
            self._hash.update(data)

    def _wait(self) -> None:
        """Give up when nothing came for long; asked now and then rather than put off with each of many pieces."""
        loop = asyncio.get_running_loop()
        left = self._heard + self.idle_seconds - loop.time()
        if left <= 0:
            self._ending = asyncio.ensure_future(self.give_up())
        else:
            self._idle = loop.call_later(left, self._wait)

    # ---- after it

    def options(self, *_: str) -> None:
        self.set_status(204)
        self.set_header("Tus-Version", VERSION)
        self.set_header("Tus-Extension", EXTENSIONS)
        self.set_header("Tus-Checksum-Algorithm", ",".join(ALGORITHMS))

    async def post(self, *_: str) -> None:
        await self._admitted()
        if not self._new:
            raise UserError(405, mark("This address takes no such request."))
        standing = self._made
        self.set_header("Location", f"{self._place.address}/{standing.record.id}")
        if self._writing is not None:
            standing = await self._end_of_body()
        elif standing.placed is not None:
            await self._tell(standing)
        self._say(standing)
        self.set_status(201)

    async def patch(self, *args: str) -> None:
        await self._admitted()
        standing = await self._end_of_body() if self._writing else await self._look(args[-1])
        self._say(standing)
        self.set_status(204)

    async def _admitted(self) -> None:
        if self._refusal is not None:
            await self._let_go()
        self.admitted()

    async def _end_of_body(self) -> Standing:
        writing = self._writing
        assert writing is not None

        def end() -> Standing:
            if self._checksum is not None and self._hash.digest() != self._checksum.digest:
                writing.take_back()
                raise UserError(
                    460, mark("What came in is not what was sent: the checksum differs. Send it again.")
                )
            writing.keep()
            if writing.offset_bytes == writing.record.length_bytes:
                return writing.finish()
            return Standing(record=writing.record, offset_bytes=writing.offset_bytes)

        try:
            await self._store()
            async with self._turn:
                if self._writing is not writing:  # given up meanwhile; whoever took over goes on
                    raise UserError(
                        423, mark("This upload is going on from somewhere else just now."), reason="locked"
                    )
                standing = await self.in_files(end)
        finally:
            await self._let_go()  # before the answer, also a refusal: who has it may go on at once
        if standing.placed is not None:
            await self._tell(standing)
        return standing

    async def _tell(self, standing: Standing) -> None:
        if self._place.came_in is not None and standing.placed is not None:
            await self._place.came_in(standing.placed)

    async def head(self, *args: str) -> None:
        self.admitted()
        standing = await self._look(args[-1])
        self._say(standing)
        self.set_header("Upload-Length", str(standing.record.length_bytes))
        if standing.record.metadata:
            self.set_header("Upload-Metadata", standing.record.metadata)
        self.set_header("Cache-Control", "no-store")
        self.set_status(200)

    async def delete(self, *args: str) -> None:
        self.admitted()
        await self.in_files(self._shelf.remove, args[-1], by=self._place.by)
        self.set_status(204)

    async def get(self, *_: str) -> None:
        self.admitted()
        raise UserError(405, mark("This address takes no such request."))

    def _say(self, standing: Standing) -> None:
        self.set_header("Upload-Offset", str(standing.offset_bytes))
        self.set_header("Upload-Expires", standing.record.expires_at.strftime("%a, %d %b %Y %H:%M:%S GMT"))
        if standing.record.placed is not None:
            self.set_header("Galilean-Path", standing.record.placed)

    # ---- whatever happens

    async def _let_go(self) -> None:
        """Keep what can be kept and unlock; twice does no harm."""
        if self._idle is not None:
            self._idle.cancel()
        writing = self._writing
        if writing is None:
            return
        async with self._turn:
            if self._writing is None:
                return
            self._writing = None
            data, self._buffer = self._buffer, bytearray()
            await self.in_files(self._save, writing, data)
            if self._writers.get(writing.record.id) is self:
                del self._writers[writing.record.id]

    def _save(self, writing: Writing, data: bytearray) -> None:
        try:
            if self._checksum is not None:
                writing.take_back()
            elif self._refusal is None and data:
                self._write(writing, data)
            writing.keep()
        except UserError:
            pass  # what is there counts, by its size
        finally:
            writing.close()

    def _later_let_go(self) -> None:
        if self._writing is not None:
            task = asyncio.ensure_future(self._let_go())
            pending: set[Any] = self.portal.parts.setdefault("abandoned", set())
            pending.add(task)
            task.add_done_callback(pending.discard)

    def on_connection_close(self) -> None:
        self._later_let_go()
        super().on_connection_close()

    def on_finish(self) -> None:
        if self._idle is not None:
            self._idle.cancel()
        self._later_let_go()
        super().on_finish()


def routes(pattern: str, desk: Desk, handler: type[Tus] = Tus) -> list[tuple[str, type[Tus], dict[str, Any]]]:
    """Both addresses below ``pattern`` (a regular expression without an end, such as ``…/uploads``)."""
    return [
        (pattern + "/?", handler, {"desk": desk, "new": True}),
        (pattern + "/([0-9a-f]{32})", handler, {"desk": desk, "new": False}),
    ]
