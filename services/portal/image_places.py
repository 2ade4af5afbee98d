"""Images on machines, as pages and API tell it (CG-34, CG-38): who carries which image of the catalogue, and *Redistribute*.

What is known stands in rows that the image service keeps true (:mod:`extensions.imagebuilder.distribution`); the portal
reads them, with the environments that each image is of, and leaves a mark where somebody wants one fetched anew.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, and_, select

from extensions.imagebuilder import distribution
from extensions.imagebuilder.distribution import Event, Spot
from extensions.imagebuilder.tables import environment_versions, environments
from galilean import audit
from galilean.errors import UserError, mark
from galilean.web.context import Portal
from galilean.web.visitor import Visitor
from services.portal import saving

#: What the states are called.
TITLES = {
    "present": mark("Present"),
    "pulling": mark("Being fetched"),
    "failed": mark("Failed"),
    "absent": mark("Absent"),
}
#: What the log says.
EVENTS = {
    "asked": mark("Wanted anew"),
    "begun": mark("Being fetched"),
    "present": mark("Present"),
    "failed": mark("Failed"),
    "gone": mark("Vanished from the machine"),
}


@dataclass(frozen=True, kw_only=True)
class EntryOf:
    """An environment whose new runs get an image.

    Attributes
    ----------
    own
        Nobody but its owner sees it.
    beforehand
        An administrator has it everywhere all the same.
    """

    id: str
    name: str
    title: str
    tag: str
    size_bytes: int | None
    own: bool = False
    beforehand: bool = False


@dataclass(frozen=True, kw_only=True)
class Carried:
    """One image on one machine, with what it is of."""

    spot: Spot
    entries: tuple[EntryOf, ...]

    @property
    def size_bytes(self) -> int | None:
        """As its registry keeps it."""
        return next((one.size_bytes for one in self.entries if one.size_bytes), None)

    @property
    def marked(self) -> bool:
        """Whether it is on every machine only because an administrator said so."""
        return any(one.beforehand for one in self.entries) and all(one.own for one in self.entries)

    @property
    def missing(self) -> bool:
        """Whether it is not there, and *Redistribute* would change that."""
        return (
            self.spot.state in (distribution.ABSENT, distribution.FAILED)
            and self.spot.beforehand
            and not self.spot.private
        )


def needle(one: Carried) -> str:
    """What a search looks through."""
    words = [one.spot.image, one.spot.machine, *(f"{entry.name} {entry.title}" for entry in one.entries)]
    return "\n".join(words).casefold()


def fits(one: Carried, text: str, state: str) -> bool:
    """Whether a place is among what is asked for: words in its image, machine and environments."""
    found = needle(one)
    return (not state or one.spot.state == state) and all(word in found for word in text.casefold().split())


def known(portal: Portal) -> bool:
    """Whether it is known here: with Docker, or with Kubernetes and a namespace for it, beside the image service."""
    settings = portal.settings
    there = settings.backend == "docker" or (
        settings.backend == "kubernetes" and bool(settings.kubernetes.images_namespace)
    )
    return saving.offered(portal) and there


def need_known(portal: Portal) -> None:
    """Refuse where nobody looks.

    Raises
    ------
    UserError
        501.
    """
    if not known(portal):
        raise UserError(
            501,
            mark(
                "Which image is on which machine is told where images are kept and machines are looked at for them. "
                "Elsewhere a machine fetches an image when the first node of it starts there."
            ),
            reason="not-here",
        )


async def carried(portal: Portal, *, image: str = "", machine: str = "") -> list[Carried]:
    """What is known, by the environments' titles.

    Raises
    ------
    UserError
        501.
    """
    need_known(portal)

    def look(conn: Connection) -> list[Carried]:
        of: dict[str, list[EntryOf]] = {}
        rows = conn.execute(
            select(
                environments.c.id,
                environments.c.name,
                environments.c.title,
                environment_versions.c.tag,
                environment_versions.c.size_bytes,
                environment_versions.c.image,
                (environments.c.visibility == "own").label("own"),
                environments.c.beforehand,
            )
            .join(
                environment_versions,
                and_(
                    environment_versions.c.environment_id == environments.c.id,
                    environment_versions.c.number == environments.c.version,
                ),
            )
            .where(environments.c.deleted_at.is_(None), environments.c.retired_at.is_(None))
            .order_by(environments.c.sort_name)
        )
        for row in rows:
            values = dict(row._mapping)
            of.setdefault(values.pop("image"), []).append(EntryOf(**values))
        for name, said in portal.settings.environments.items():
            entry = EntryOf(id=name, name=name, title=said.title, tag="", size_bytes=None)
            of.setdefault(said.image or portal.settings.kubernetes.image, []).append(entry)
        spots = distribution.spots(conn, image=image, machine=machine)
        return [Carried(spot=one, entries=tuple(of.get(one.image, ()))) for one in spots]

    found = await portal.db.run_read(look)
    return sorted(
        found, key=lambda one: (one.entries[0].title.casefold() if one.entries else "", one.spot.machine)
    )


async def redistribute(
    portal: Portal, person: Visitor, *, image: str = "", machine: str = "", address: str = ""
) -> int:
    """Have what is missing fetched now; how many places that are.

    Raises
    ------
    UserError
        501.
    """
    need_known(portal)
    now = portal.clock()

    def write(conn: Connection) -> int:
        count = distribution.ask(conn, image=image, machine=machine, now=now, actor=person.name)
        if count:
            after = {"image": image, "machine": machine, "places": count}
            _note(conn, portal, person, "images.redistribute", image or machine or "*", after, address)
        return count

    return await portal.db.run(write)


async def beforehand(portal: Portal, person: Visitor, *, image: str, wanted: bool, address: str = "") -> None:
    """Have an image on every machine though nobody but its owner sees it, or no more.

    Raises
    ------
    UserError
        501; 409 for an image that everybody's machines get anyway, or that nobody keeps.
    """
    need_known(portal)

    def write(conn: Connection) -> None:
        if not distribution.mark_beforehand(conn, image, wanted):
            raise UserError(
                409,
                mark(
                    "There is nothing to say of this image: no environment of its own shows it to its owner alone."
                ),
                reason="not-own",
            )
        _note(conn, portal, person, "images.beforehand", image, {"beforehand": wanted}, address)

    await portal.db.run(write)


async def events(portal: Portal, *, image: str, machine: str = "", most: int = 200) -> list[Event]:
    """The log of an image's distribution, the newest first.

    Raises
    ------
    UserError
        501.
    """
    need_known(portal)
    return await portal.db.run_read(lambda conn: distribution.events(conn, image, machine=machine, most=most))


def _note(
    conn: Connection,
    portal: Portal,
    person: Visitor,
    action: str,
    subject: str,
    after: Mapping[str, Any],
    address: str,
) -> None:
    audit.write(
        conn,
        at=portal.clock(),
        actor=person.name,
        address=address,
        action=action,
        subject=subject,
        after=dict(after),
    )
