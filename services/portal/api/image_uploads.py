"""Uploading a packed image: resumable, named before its first byte; see :mod:`services.portal.image_uploads`."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from ulid import ULID

from galilean.errors import UserError
from services.files.placing import Taken
from services.files.shelf import Standing
from services.files.tus import Place, Tus
from services.files.tus_headers import parse_metadata
from services.portal import image_uploads
from services.portal.api.operation import Operation

PLACE = "/images/uploads"
PATTERN = r"/api/v1/images/uploads"


class Archives:
    """Finds the folder of an upload by who asks."""

    async def admit(self, handler: Any) -> Place:
        portal, person = handler.portal, handler.person
        image_uploads.need_upload(portal, person)
        root = await handler.in_files(image_uploads.root_of, portal, person)

        def room() -> None:
            image_uploads.keep_reserve(portal)

        return Place(root=root, by=person.name, address=f"{portal.prefix}api/v1{PLACE}", room_bytes=room)


class _Archive(Tus):
    """One archive on its way; the answer to its last byte says which image it becomes."""

    image = ""
    volume = image_uploads.LANE

    async def _begin_upload(self, path: str, length: int, taken: Taken, metadata: str = "") -> None:
        await image_uploads.check_room(self.portal, self.person, length)
        await image_uploads.wished(self.portal, self.person, parse_metadata(metadata))
        await super()._begin_upload(f"{ULID()}.tar", length, "refuse", metadata)

    async def _tell(self, standing: Standing) -> None:
        if standing.placed is None:
            return
        said = parse_metadata(standing.record.metadata)
        try:
            image = await image_uploads.take_up(
                self.portal, self.person, standing.placed, said, address=self.address
            )
        except UserError:
            with suppress(UserError):
                await self.in_files(self._place.root.delete, standing.placed)
            raise
        self.image = image.id

    async def head(self, *args: str) -> None:
        self.admitted()
        await self._tell(await self._look(args[-1]))
        await super().head(*args)

    def _say(self, standing: Standing) -> None:
        super()._say(standing)
        if self.image:
            self.set_header("Galilean-Path", self.image)


class Uploads(_Archive):
    """Where an upload begins."""

    def initialize(self) -> None:  # type: ignore[override]
        super().initialize(desk=Archives(), new=True)


class Upload(_Archive):
    """One that goes on."""

    def initialize(self) -> None:  # type: ignore[override]
        super().initialize(desk=Archives(), new=False)


OPERATIONS: tuple[Operation, ...] = (
    Operation(
        method="post",
        path=PLACE,
        summary="Begin to upload a packed image (tus 1.0.0); Upload-Metadata has filename, name (name:tag), description, "
        "into (an environment that it becomes a version of). The answer to the last byte has its id in Galilean-Path",
        raw_body=True,
        answers={201: None},
    ),
    Operation(
        method="patch",
        path=PLACE + "/{id}",
        summary="Go on with an upload where it is (tus)",
        raw_body=True,
        answers={204: None},
    ),
    Operation(
        method="delete",
        path=PLACE + "/{id}",
        summary="End an upload and forget it (tus)",
        answers={204: None},
    ),
)


def routes() -> list[tuple[str, type[Any]]]:
    """Addresses, relative to the portal's prefix."""
    return [(PATTERN + r"/?", Uploads), (PATTERN + r"/([0-9a-f]{32})", Upload)]
