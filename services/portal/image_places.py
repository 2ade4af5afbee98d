"""Images on machines, as pages and API tell it (CG-34, CG-38): who carries which image of the catalogue, and *Redistribute*.

What is known stands in rows that the image service keeps true (:mod:`extensions.imagebuilder.distribution`); the portal
reads them, with the environments that each image is of, and leaves a mark where somebody wants one fetched anew.
"""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection, and_, select

from extensions.imagebuilder import distribution
from extensions.imagebuilder.distribution import Spot
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


@dataclass(frozen=True, kw_only=True)
class EntryOf:
    """An environment whose new runs get an image."""

    id: str
    name: str
    title: str
    tag: str
    size_bytes: int | None


@dataclass(frozen=True, kw_only=True)
class Carried:
    """One image on one machine, with what it is of."""

    spot: Spot
    entries: tuple[EntryOf, ...]

    @property
    def size_bytes(self) -> int | None:
        """As its registry keeps it."""
        return next((one.size_bytes for one in self.entries if one.size_bytes), None)


def known(portal: Portal) -> bool:
    """Whether it is known here: with Docker, beside the image service."""
    return saving.offered(portal) and portal.settings.backend == "docker"


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
                "Which image is on which machine is told where nodes are Docker containers and images are kept. "
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
            found = EntryOf(id=row.id, name=row.name, title=row.title, tag=row.tag, size_bytes=row.size_bytes)
            of.setdefault(row.image, []).append(found)
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
        count = distribution.ask(conn, image=image, machine=machine, now=now)
        if count:
            audit.write(
                conn,
                at=now,
                actor=person.name,
                address=address,
                action="images.redistribute",
                subject=image or machine or "*",
                after={"image": image, "machine": machine, "places": count},
            )
        return count

    return await portal.db.run(write)
