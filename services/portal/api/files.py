"""A project's files by their addresses: ``…/files/<path>``.

GET lists a folder or downloads a file, PUT streams a file in, POST makes a folder, PATCH renames, DELETE
deletes. Rights, XSRF and the limit of one upload are checked before the first byte is kept; a file
appears under its name only when all of it has arrived. What people wrote is never served as a page of
ours: downloads are attachments of opaque origin.

What is still on its way after a refusal is dropped (:mod:`galilean.web.streamed`).

The path is read from the address as bytes, because files that a program made may have names in no
encoding.
"""

from __future__ import annotations

import asyncio
from typing import Any

from galilean.amounts import format_bytes
from galilean.errors import UserError, mark
from galilean.web.streamed import StreamedHandler, content_length
from services.catalog.store import Project
from services.files.downloads import send_file
from services.files.incoming import Upload
from services.files.root import Entry, Root
from services.portal.api import models
from services.portal.api.base import Handler
from services.portal.api.projects import catalogue, need_role, path_after, project_for
from services.portal.api.usage import limits_of

SMALL_BODY_BYTES = 64 << 10


def file_model(entry: Entry) -> models.File:
    """An entry as the API shows it."""
    return models.File(
        name=entry.name,
        path=entry.address,
        kind=entry.kind,
        size_bytes=entry.size_bytes if entry.kind == "file" else None,
        changed_at=entry.changed_at,
    )


class Files(Handler, StreamedHandler):
    """See the module. The body streams in for PUT; for the other methods it is small JSON."""

    project: Project
    files: Root
    path: str
    _upload: Upload | None = None
    _created = True
    _small: bytearray

    async def begin(self) -> None:
        self._small = bytearray()
        self._turn = asyncio.Lock()  # an upload takes one thread at a time
        await super().begin()
        if self._finished:
            return
        owner, slug = self.path_args[0], self.path_args[1]
        self.path = path_after(self.request.path, "files")
        self.project = await project_for(self.portal, self.person, owner, slug)
        self.files = await catalogue(self.portal).files(self.project)
        if self.request.method in ("POST", "PUT", "PATCH", "DELETE"):
            need_role(self.person)
        if self.request.method == "PUT":
            await self._begin_upload()

    async def _blocking(self, function: Any, *args: Any, **kwargs: Any) -> Any:
        return await catalogue(self.portal).run(function, *args, **kwargs)

    async def _begin_upload(self) -> None:
        most = (await limits_of(self.portal, self.person)).upload
        length = content_length(self.request)
        expected = length if "Content-Length" in self.request.headers else None
        if expected is not None and expected > most:
            raise UserError(
                413,
                mark("This file has {size}; you may upload {most} at once."),
                size=format_bytes(expected),
                most=format_bytes(most),
            )
        connection: Any = self.request.connection
        connection.set_body_timeout(24 * 3600)
        overwrite = self.word("overwrite", "true", "false") == "true"
        self._created = not overwrite or not await self._exists()
        self._upload = await self._blocking(
            self.files.upload,
            self.path,
            overwrite=overwrite,
            parents=True,
            limit_bytes=most,
            expected_bytes=expected,
        )

    async def _exists(self) -> bool:
        try:
            await self._blocking(self.files.stat, self.path)
        except UserError as error:
            if error.status == 404:
                return False
            raise
        return True

    async def body_piece(self, piece: bytes) -> None:
        if self._upload is not None:
            try:
                async with self._turn:
                    await self._blocking(self._upload.write, piece)
            except BaseException:
                self._upload = None  # it is over and left nothing
                raise
        elif len(self._small) + len(piece) > SMALL_BODY_BYTES:
            raise UserError(413, mark("The request is larger than what is taken here."))
        else:
            self._small += piece

    def on_connection_close(self) -> None:
        self._abandon()
        super().on_connection_close()

    def on_finish(self) -> None:
        self._abandon()
        super().on_finish()

    def _abandon(self) -> None:
        upload, self._upload = self._upload, None
        if upload is not None:
            task = asyncio.ensure_future(self._give_up(upload))
            pending: set[Any] = self.portal.parts.setdefault("abandoned", set())
            pending.add(task)
            task.add_done_callback(pending.discard)

    async def _give_up(self, upload: Upload) -> None:
        async with self._turn:
            await self._blocking(upload.abandon)

    def _json(self, model: type[Any]) -> Any:
        self.request.body = bytes(self._small)
        return self.body(model)

    async def get(self, owner: str, slug: str, path: str | None = None) -> None:
        self.admitted()
        if self.path and not self.path.endswith("/"):
            entry = await self._blocking(self.files.stat, self.path)
            if entry.kind != "folder":
                await send_file(self, await self._blocking(self.files.open, self.path))
                return
        listing = await self._blocking(
            self.files.list,
            self.path,
            sort=self.word("sort", "name", "size", "changed"),
            hidden=self.word("hidden", "false", "true") == "true",
            limit=self.limit(default=200, most=1000),
            cursor=self.query("cursor") or None,
        )
        self.write_json(
            models.ListOf[models.File](
                items=[file_model(entry) for entry in listing.entries], next=listing.next
            )
        )

    async def put(self, owner: str, slug: str, path: str | None = None) -> None:
        self.admitted()
        upload = self._upload
        assert upload is not None
        async with self._turn:
            await self._blocking(upload.finish)
        self._upload = None
        await catalogue(self.portal).touch(self.project)
        entry = await self._blocking(self.files.stat, upload.path)
        self.write_json(file_model(entry), 201 if self._created else 200)

    async def post(self, owner: str, slug: str, path: str | None = None) -> None:
        self.admitted()
        self._json(models.NewFolder)
        entry = await self._blocking(self.files.make_folder, self.path)
        await catalogue(self.portal).touch(self.project)
        self.write_json(file_model(entry), 201)

    async def patch(self, owner: str, slug: str, path: str | None = None) -> None:
        self.admitted()
        body = self._json(models.Rename)
        entry = await self._blocking(self.files.rename, self.path, body.to)
        await catalogue(self.portal).touch(self.project)
        self.write_json(file_model(entry))

    async def delete(self, owner: str, slug: str, path: str | None = None) -> None:
        self.admitted()
        await self._blocking(self.files.delete, self.path, recursive=True)
        await catalogue(self.portal).touch(self.project)
        self.set_status(204)
