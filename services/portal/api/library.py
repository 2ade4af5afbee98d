"""Saved images in and out of the library: what somebody saved becomes an environment that others find at once (CG-19)."""

from __future__ import annotations

from typing import Any

from pydantic import Field
from sqlalchemy import Connection

from extensions.imagebuilder import entries, saved, store
from extensions.imagebuilder.entries import Entry
from galilean.errors import UserError, mark
from galilean.web.context import Portal
from galilean.web.handlers import APIHandler
from galilean.web.visitor import Visitor
from services.portal import shelf
from services.portal.api import environment_models as models
from services.portal.api.environments import OneHandler, grantees_of, reach
from services.portal.api.models import Incoming
from services.portal.api.operation import Operation

PLACE = "/images/{id}/library"


class ToLibrary(Incoming):
    """Who shall find it, and what it is called; what is left out comes from the saved image."""

    visibility: models.Visibility = "own"
    shared_with: list[models.Grantee] = Field(default=[], max_length=200)
    title: str = Field(default="", max_length=200)
    description: str = Field(default="", max_length=2000)
    field: str = Field(default="", max_length=64)
    centre: bool = Field(default=False, description="Make it the centre's; for administrators.")


async def start_of(portal: Portal, person: Visitor, image: saved.SavedImage) -> dict[str, Any]:
    """Start options of the environment that it was saved from, as far as the person may give them."""
    known = portal.settings.environments.get(image.environment)
    if known is None and image.environment:
        found = await portal.db.run_read(store.by_name, image.environment)
        known = found.settings if found is not None else None
    if known is None:
        return {}
    start = known.model_dump(mode="json", include={*entries.START} - {*entries.GIVEN}, exclude_defaults=True)
    return entries.check_start(start, portal.settings, shelf.viewer(person))


async def add(portal: Portal, person: Visitor, image_id: str, body: ToLibrary, *, address: str = "") -> Entry:
    """Add one's own saved image to the library.

    Raises
    ------
    UserError
        403 for whoever may not keep environments; 404, 409 as :func:`extensions.imagebuilder.saved.to_library`.
    """
    entries.need_keep(shelf.viewer(person), portal.settings, centre=body.centre)
    entries.check_field(body.field, portal.settings)
    image = await portal.db.run_read(saved.get, person.name, image_id)
    if not entries.slug_of(image.name):
        raise UserError(400, mark("Give the image a name with letters or digits."))
    shared = await grantees_of(portal, body.shared_with)
    entries.check_visibility(body.visibility, "" if body.centre else person.name, shared)
    entry = await portal.db.run(
        saved.to_library,
        image_id,
        actor=shelf.actor(person, address),
        now=portal.clock(),
        visibility=body.visibility,
        shared_with=shared if body.visibility == "group" else [],
        title=body.title,
        description=body.description,
        field=body.field,
        start=await start_of(portal, person, image),
        centre=body.centre,
        reserved=tuple(portal.settings.environments),
    )
    shelf.forget(portal)
    return entry


async def withdraw(portal: Portal, person: Visitor, image_id: str, *, address: str = "") -> None:
    """Take one's own image out of the library again.

    Raises
    ------
    UserError
        404, 409 as :func:`extensions.imagebuilder.saved.withdraw`; 403 when the entry is no longer theirs to change.
    """

    def change(conn: Connection) -> None:
        image = saved.get(conn, person.name, image_id)
        entry = store.entry(conn, image.environment_id) if image.environment_id else None
        if entry is not None and entry.deleted_at is None:
            entries.need_change(shelf.viewer(person), entry)
        saved.withdraw(conn, image_id, actor=shelf.actor(person, address), now=portal.clock())

    await portal.db.run(change)
    shelf.forget(portal)


class Library(OneHandler):
    async def put(self, image_id: str) -> None:
        entry = await add(self.portal, self.person, image_id, self.body(ToLibrary), address=self.address)
        await self.answer(await reach(self.portal, self.person, entry.id))

    async def delete(self, image_id: str) -> None:
        await withdraw(self.portal, self.person, image_id, address=self.address)
        self.set_status(204)


_DETAIL: dict[int, Any] = {200: models.EnvironmentDetail}

OPERATIONS: tuple[Operation, ...] = (
    Operation(
        method="put",
        path=PLACE,
        summary="Add one's saved image to the library: those who shall find it find it at once",
        takes=ToLibrary,
        answers=_DETAIL,
    ),
    Operation(
        method="delete",
        path=PLACE,
        summary="Withdraw it: new runs get the version before it, or none; clusters that are held go on",
        answers={204: None},
    ),
)


def routes() -> list[tuple[str, type[APIHandler]]]:
    """Addresses of this module, relative to the portal's prefix."""
    return [(r"/api/v1/images/([^/]+)/library", Library)]
