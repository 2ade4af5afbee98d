"""Files of projects and data sets by their addresses: ``…/files/<path>``.

GET lists a folder or downloads a file, PUT takes a whole file in one request, POST makes a folder or an empty
file, PATCH renames, DELETE deletes. Who may is asked of :mod:`services.portal.desks` before the first byte is kept.
Bytes come in by one way only, :class:`services.files.tus.Tus`: a PUT is an upload that nobody can go on with, so it
is dropped when it breaks off. What people wrote is never served as a page of ours: downloads are attachments of
opaque origin.

The path is read from the address as bytes, because files that a program made may have names in no encoding.
"""

from __future__ import annotations

import re
from typing import Any

from galilean.errors import UserError, mark
from galilean.web.handlers import APIHandler
from galilean.web.streamed import StreamedHandler, content_length
from services.files import paths
from services.files.downloads import send_file
from services.files.paths import from_address
from services.files.root import Entry
from services.files.shelf import Shelf
from services.files.texts import make_file
from services.files.tus import Place, Tus
from services.portal.api import models
from services.portal.api.base import Handler
from services.portal.api.file_models import FileList, NewEntry, Rename
from services.portal.desks import IDENT, KINDS, Desk, desk_of

SMALL_BODY_BYTES = 64 << 10
#: Kind and item in an address of the API; what follows is its ending.
ITEM = rf"/api/v1/(projects|datasets)/({IDENT})"


def file_model(entry: Entry) -> models.File:
    """An entry as the API shows it."""
    return models.File(
        name=entry.name,
        path=entry.address,
        kind=entry.kind,
        size_bytes=entry.size_bytes if entry.kind == "file" else None,
        changed_at=entry.changed_at,
    )


def path_in(address: str, word: str) -> str:
    """The path that follows ``…/<item>/<word>/`` in a request's address.

    Taken from the address itself, because names need not be UTF-8; owner and slug may be ``word``, too.
    """
    found = re.search(rf"{ITEM}/{word}(?:/(.*))?\Z", address, re.DOTALL)
    return from_address(found[3] or "") if found else ""


class FilesHandler(Handler):
    """A handler of one tree; ``ending`` is the word after the item in its address."""

    ending = ""
    desk: Desk
    path: str

    async def at_desk(self, *, write: bool) -> Desk:
        """Find the tree and the path of this request."""
        plural, ident = self.path_args[0], self.path_args[1]
        self.path = path_in(self.request.path, self.ending)
        self.desk = await desk_of(self.portal, self.person, KINDS[plural], ident, write=write)
        self.volume = self.desk.item.volume_id
        return self.desk


class Files(FilesHandler, Tus):
    """See the module. The body streams in for PUT; for the other methods it is small JSON."""

    ending = "files"
    _created = True
    _small: bytearray

    def initialize(self) -> None:  # type: ignore[override]
        super().initialize(desk=self, new=True)  # type: ignore[arg-type]

    def set_default_headers(self) -> None:
        APIHandler.set_default_headers(self)

    async def begin(self) -> None:
        self._small = bytearray()
        await StreamedHandler.begin(self)
        if self._finished:
            return
        await self.at_desk(write=self.request.method in ("POST", "PUT", "PATCH", "DELETE"))
        if self.request.method == "PUT":
            await self._begin_put()

    async def _begin_put(self) -> None:
        length = content_length(self.request)
        if "Transfer-Encoding" in self.request.headers or length is None:
            raise UserError(
                411, mark("“{header}” is missing: say how much will come."), header="Content-Length"
            )
        overwrite = self.word("overwrite", "true", "false") == "true"
        self._place = self.desk.place()
        self._shelf = Shelf(self._place.root, clock=self.portal.clock)
        self._created = not overwrite or not await self._exists()
        await self._begin_upload(self.path, length, "replace" if overwrite else "refuse")
        if self._made.placed is None:
            await self._first_bytes(check_type=False)

    async def _exists(self) -> bool:
        try:
            await self.ask_files(self.desk.root.stat, self.path)
        except UserError as error:
            if error.status == 404:
                return False
            raise
        return True

    async def body_piece(self, piece: bytes) -> None:
        if self._writing is not None:
            await super().body_piece(piece)
        elif len(self._small) + len(piece) > SMALL_BODY_BYTES:
            raise UserError(413, mark("The request is larger than what is taken here."))
        else:
            self._small += piece

    async def _let_go(self) -> None:
        writing = self._writing
        await super()._let_go()
        if writing is not None and writing.record.placed is None:
            # Nobody was told its id.
            await self.in_files(self._forget_upload, writing.record.id)

    def _forget_upload(self, upload_id: str) -> None:
        try:
            self._shelf.remove(upload_id, by=self._place.by)
        except UserError:
            pass  # it is gone already

    def _json(self, model: type[Any]) -> Any:
        self.request.body = bytes(self._small)
        return self.body(model)

    async def get(self, *_: str) -> None:
        self.admitted()
        root = self.desk.root
        if self.path and not self.path.endswith("/"):
            entry = await self.ask_files(root.stat, self.path)
            if entry.kind != "folder":
                await send_file(self, await self.ask_files(root.open, self.path))
                return
        listing = await self.ask_files(
            root.list,
            self.path,
            sort=self.word("sort", "name", "size", "changed"),  # type: ignore[arg-type]
            descending=self.word("order", "up", "down") == "down",
            hidden=self.word("hidden", "false", "true") == "true",
            contains=self.query("q")[:255],
            limit=self.limit(default=200, most=1000),
            cursor=self.query("cursor") or None,
        )
        self.set_header("Cache-Control", "private, no-store")
        self.write_json(
            FileList(
                items=[file_model(entry) for entry in listing.entries],
                next=listing.next,
                total=listing.total,
            )
        )

    async def head(self, *_: str) -> None:
        self.admitted()
        await send_file(self, await self.ask_files(self.desk.root.open, self.path))

    async def put(self, *_: str) -> None:
        await self._admitted()
        standing = self._made
        if self._writing is not None:
            standing = await self._end_of_body()
        elif standing.placed is not None:
            await self._tell(standing)
        assert standing.placed is not None
        entry = await self.ask_files(self.desk.root.stat, standing.placed)
        self.write_json(file_model(entry), 201 if self._created else 200)

    async def post(self, *_: str) -> None:
        self.admitted()
        body = self._json(NewEntry)
        root = self.desk.root
        await self.in_files(self.desk.check_room, self.path, 0)
        if body.kind == "folder":
            entry = await self.in_files(root.make_folder, self.path, parents=body.parents)
        else:
            entry = await self.in_files(make_file, root, self.path)
        await self.desk.changed()
        self.write_json(file_model(entry), 201)

    async def patch(self, *_: str) -> None:
        self.admitted()
        body = self._json(Rename)
        if (body.to is None) == (body.name is None):
            raise UserError(400, mark("Say either “to” or “name”."))
        to = body.to
        if to is None:
            folder = self.path.rpartition("/")[0]
            to = paths.join((*((folder,) if folder else ()), paths.check_name(body.name)))
        entry = await self.in_files(self.desk.root.rename, self.path, to)
        await self.desk.changed()
        self.write_json(file_model(entry))

    async def delete(self, *_: str) -> None:
        self.admitted()
        await self.in_files(self.desk.root.delete, self.path, recursive=True)
        await self.desk.changed()
        self.set_status(204)


class Uploads(Tus):
    """Where a resumable upload into a tree begins; see :mod:`services.files.tus`."""

    def initialize(self) -> None:  # type: ignore[override]
        super().initialize(desk=AddressDesk(), new=True)


class Upload(Tus):
    """One resumable upload."""

    def initialize(self) -> None:  # type: ignore[override]
        super().initialize(desk=AddressDesk(), new=False)


class AddressDesk:
    """Finds the tree of an upload by the address of its request."""

    async def admit(self, handler: Any) -> Place:
        plural, ident = handler.path_args[0], handler.path_args[1]
        desk = await desk_of(handler.portal, handler.person, KINDS[plural], ident, write=True)
        handler.volume = desk.item.volume_id
        return desk.place()
