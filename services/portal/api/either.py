"""What is done with a project as with a data set: its cover, its owner, taking it down, what lies in the bin.

The handlers are bases: a kind says how one of it is reached and shown, and which addresses it has.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection

from galilean import notices
from galilean.errors import UserError, mark
from galilean.web.context import Portal
from galilean.web.visitor import Visitor
from services.catalog import collection, covers, datasets, lifecycle, owners, store
from services.catalog.access import Access, Kind
from services.catalog.datasets import Dataset
from services.catalog.store import Project
from services.portal import of_another
from services.portal.api import models
from services.portal.api.base import Handler
from services.portal.api.gallery import item_path
from services.portal.api.projects import catalogue, need_role
from services.portal.viewers import actor_of, viewer_of

Item = Project | Dataset
IMAGES = ("image/png", "image/jpeg")


@dataclass(frozen=True, kw_only=True)
class _Ways:
    """How a kind's rows are changed, and what is said to who may not."""

    update: Callable[..., Any]
    give_to: Callable[..., Any]
    not_manager: str


_WAYS: dict[Kind, _Ways] = {
    "project": _Ways(
        update=store.update,
        give_to=owners.give_to,
        not_manager=mark("Only those who manage all projects may do this."),
    ),
    "dataset": _Ways(
        update=datasets.update,
        give_to=collection.give_to,
        not_manager=mark("Only those who manage all data sets may do this."),
    ),
}


def kind_of(item: Item) -> Kind:
    """Which of the two it is."""
    return "project" if isinstance(item, Project) else "dataset"


def need_manager(person: Visitor, kind: Kind) -> None:
    """Refuse whoever does not manage everybody's things of a kind."""
    if not viewer_of(person).manages(kind):
        raise UserError(403, _WAYS[kind].not_manager)


async def read_image(portal: Portal, image: bytes, kind: str) -> bytes:
    """A picture that was sent, with nothing but the picture in it.

    Raises
    ------
    UserError
        415 for what is not said to be an image, 400 and 413 as :func:`services.catalog.covers.clean`.
    """
    if kind.partition(";")[0].strip().lower() not in IMAGES:
        raise UserError(415, mark("A cover is a PNG or JPEG image."))
    cleaned, _ = await catalogue(portal).run_on("", covers.clean, image)
    return cleaned


async def set_cover(
    portal: Portal, person: Visitor, item: Item, image: bytes, kind: str, *, address: str = ""
) -> str:
    """Give it a cover; the name of the image. The caller knows that the person may.

    Raises
    ------
    UserError
        As :func:`read_image`.
    """
    need_role(person)
    cleaned = await read_image(portal, image, kind)
    now = portal.clock()

    def change(conn: Connection) -> str:
        name = covers.keep(conn, cleaned, now=now)
        changed = _WAYS[kind_of(item)].update(conn, item, now=now, cover=name)
        of_another.note_change(
            conn, person, kind_of(item), item, changed, ["cover"], now=now, address=address
        )
        return name

    return await portal.db.run(change)


async def drop_cover(portal: Portal, person: Visitor, item: Item, *, address: str = "") -> None:
    """Show the drawn cover again."""
    need_role(person)
    now = portal.clock()

    def change(conn: Connection) -> None:
        changed = _WAYS[kind_of(item)].update(conn, item, now=now, cover="")
        of_another.note_change(
            conn, person, kind_of(item), item, changed, ["cover"], now=now, address=address
        )

    await portal.db.run(change)


async def change_owner(portal: Portal, person: Visitor, item: Item, owner: str, *, address: str = "") -> Any:
    """Give it to somebody else; for those who manage everybody's. It, as it is then.

    Raises
    ------
    UserError
        403, 404 for nobody of this name, 409 for a project while it runs.
    """
    kind = kind_of(item)
    need_manager(person, kind)
    try:
        await portal.hub.user(owner)
    except UserError as error:
        if error.status != 404:
            raise
        raise UserError(404, mark("There is no account “{name}” here."), name=owner[:60]) from error
    return await portal.db.run_serialised(
        "admission",
        _WAYS[kind].give_to,
        item,
        owner,
        actor=actor_of(person, address),
        now=portal.clock(),
    )


async def take_down(portal: Portal, person: Visitor, item: Item, reason: str, *, address: str = "") -> None:
    """Hide it from everybody but its owner and administrators, with a reason that the owner is told.

    Runs of a project that are others' go back after a while; those that have a data set go on, the next ones do
    not get it.
    """
    kind = kind_of(item)
    need_manager(person, kind)
    actor, now = actor_of(person, address), portal.clock()

    def change(conn: Connection) -> None:
        lifecycle.take_down(conn, kind, item.id, reason=reason, actor=actor, now=now)
        notices.tell(
            conn,
            item.owner,
            now=now,
            kind="taken-down",
            text=mark("An administrator took “{name}” down: {reason}"),
            address=item_path(kind, item.owner, item.slug),
            mail=True,
            name=item.name,
            reason=reason.strip(),
        )

    await portal.db.run(change)


async def put_back(portal: Portal, person: Visitor, item: Item, *, address: str = "") -> None:
    """Undo :func:`take_down`."""
    kind = kind_of(item)
    need_manager(person, kind)
    await portal.db.run(
        lifecycle.put_back, kind, item.id, actor=actor_of(person, address), now=portal.clock()
    )


# ------------------------------------------------------------------------------------------------ handlers


class OfEither(Handler):
    """One thing of a kind, at ``<owner>/<slug>``."""

    async def reach(self, owner: str, slug: str, least: Access = Access.READ) -> tuple[Any, Access]:
        """It, and what the person may do with it; raises as the kind's own."""
        raise NotImplementedError

    def answer(self, found: Any, level: Access = Access.OWN, status: int = 200) -> None:
        """It, as the API shows it."""
        raise NotImplementedError

    async def owned(self, owner: str, slug: str) -> Any:
        """It, if it is the person's own."""
        return (await self.reach(owner, slug, Access.OWN))[0]


class CoverOf(OfEither):
    async def put(self, owner: str, slug: str) -> None:
        found = await self.owned(owner, slug)
        kind = self.request.headers.get("Content-Type", "")
        name = await set_cover(self.portal, self.person, found, self.request.body, kind, address=self.address)
        self.write_json(models.Cover(cover=f"{self.portal.prefix}covers/{name}"))

    async def delete(self, owner: str, slug: str) -> None:
        await drop_cover(self.portal, self.person, await self.owned(owner, slug), address=self.address)
        self.set_status(204)


class Owner(OfEither):
    async def put(self, owner: str, slug: str) -> None:
        body = self.body(models.NewOwner)
        found, level = await self.reach(owner, slug)
        self.answer(
            await change_owner(self.portal, self.person, found, body.owner, address=self.address), level
        )


class TakenDown(OfEither):
    async def put(self, owner: str, slug: str) -> None:
        body = self.body(models.TakeDown)
        found, _ = await self.reach(owner, slug)
        await take_down(self.portal, self.person, found, body.reason, address=self.address)
        self.set_status(204)

    async def delete(self, owner: str, slug: str) -> None:
        found, _ = await self.reach(owner, slug)
        await put_back(self.portal, self.person, found, address=self.address)
        self.set_status(204)


class Bin(Handler):
    """What somebody deleted and can restore."""

    kind: Kind

    async def get(self) -> None:
        rows: list[Any] = await self.portal.db.run_read(
            lambda conn: lifecycle.in_bin(conn, self.kind, self.person.name, now=self.portal.clock())
        )
        self.write_json(
            models.ListOf[models.Binned](
                items=[
                    models.Binned(
                        id=row.id,
                        slug=row.slug,
                        name=row.name,
                        deleted_at=row.deleted_at,
                        kept_until=lifecycle.kept_until(row.deleted_at),
                        size_bytes=row.size_bytes,
                    )
                    for row in rows
                ]
            )
        )
