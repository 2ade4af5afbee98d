"""Disks as pages, API and chores ask for them: make, list, grow, delete, count (TI-3, TI-10).

The rules are the catalogue's (:mod:`services.catalog.disks`). Here stands what needs to know a person's limits and touches
the disk. Whoever comes with a node's token reaches none: a program in a run must not delete what its person keeps.
"""

from __future__ import annotations

import logging

from sqlalchemy import Connection
from ulid import ULID

from galilean.errors import UserError, mark
from galilean.file_threads import beside
from galilean.web.context import Portal
from galilean.web.visitor import Visitor
from services.catalog import disk_places, disk_store, disks, lifecycle
from services.catalog.disks import Disk
from services.catalog.places import choose_pool, open_pools
from services.catalog.shares import Actor
from services.portal.api.projects import need_role
from services.portal.storage import limit_of

log = logging.getLogger("galilean.portal.disks")

SHOWN = 50


def offered(portal: Portal) -> bool:
    """Whether there are disks here."""
    return portal.settings.disks_offered


def grows(portal: Portal) -> bool:
    """Whether disks can be made larger: a claim keeps its size."""
    return portal.settings.backend != "kubernetes"


def pools(portal: Portal, person: Visitor) -> dict[str, str]:
    """The pools that a new disk may be in, with their titles; empty where there is only one."""
    known = portal.settings.pools
    if len(known) < 2:
        return {}
    return {name: known[name].title or name for name in open_pools(portal.settings, person.roles)}


def pool_title(portal: Portal, name: str) -> str:
    """What a pool is called; empty where there is only one."""
    known = portal.settings.pools
    if len(known) < 2:
        return ""
    return (known[name].title if name in known else "") or name


async def list_for(
    portal: Portal, person: Visitor, *, text: str = "", after: str = "", limit: int = SHOWN
) -> tuple[list[Disk], str | None]:
    """The person's own by name, and after which the next page begins."""
    if person.node is not None:
        return [], None
    found = await portal.db.run_read(
        disk_store.listed, owner=person.name, text=text, after=after, limit=limit + 1
    )
    return found[:limit], found[limit - 1].id if len(found) > limit else None


async def reach(portal: Portal, person: Visitor, disk_id: str) -> Disk:
    """A disk of the person's own.

    Raises
    ------
    UserError
        404 otherwise.
    """
    if person.node is not None:
        raise disks.no_such_disk()
    return await portal.db.run_read(disk_store.get, person.name, disk_id)


async def make(
    portal: Portal, person: Visitor, *, name: str, size_gib: int, pool: str | None = None, address: str = ""
) -> Disk:
    """Make a disk.

    Raises
    ------
    UserError
        400 for what it cannot be; 403 without a role, or for a pool that is closed to it; 404 where there are no disks; 409
        for a name that is taken; 503, 507 when there is no room, on the disk or of the person's.
    """
    need_role(person)
    if not offered(portal):
        raise disks.not_offered()
    if person.node is not None:
        raise disks.no_such_disk()
    disks.check_name(name)
    disks.check_size(size_gib)
    chosen = choose_pool(portal.settings, person.roles, pool, None)
    most = await limit_of(portal, person.name)
    disk_id, now = str(ULID()), portal.clock()
    place = portal.settings.disks_directory
    first = not await portal.db.run_read(disk_store.any_kept)
    claims = portal.settings.backend == "kubernetes"  # made by the first run that mounts it

    def begin(conn: Connection) -> Disk:
        return disk_store.create(
            conn,
            disk_id=disk_id,
            owner=person.name,
            name=name,
            size_gib=size_gib,
            pool=chosen,
            kept=lifecycle.used_bytes(conn, person.name),
            most=most,
            actor=Actor(name=person.name, address=address),
            now=now,
        )

    if claims:
        return await portal.db.run_serialised("admission", begin)
    await portal.files.ask(disk_places.NAME, disk_places.make, place, disk_id, first=first)
    try:
        return await portal.db.run_serialised("admission", begin)
    except BaseException:
        await portal.files.ask(disk_places.NAME, disk_places.unmake, place, disk_id)
        raise


async def grow(portal: Portal, person: Visitor, disk_id: str, size_gib: int, *, address: str = "") -> Disk:
    """Make a disk larger.

    Raises
    ------
    UserError
        400, 403, 404, 507 as :func:`make`; 409 for a smaller size.
    """
    need_role(person)
    await reach(portal, person, disk_id)
    if not grows(portal):
        raise UserError(
            409, mark("Disks cannot be made larger here. Make another one and copy what you need.")
        )
    most = await limit_of(portal, person.name)

    def change(conn: Connection) -> Disk:
        return disk_store.grow(
            conn,
            person.name,
            disk_id,
            size_gib=size_gib,
            kept=lifecycle.used_bytes(conn, person.name),
            most=most,
            actor=Actor(name=person.name, address=address),
            now=portal.clock(),
        )

    return await portal.db.run_serialised("admission", change)


async def delete(portal: Portal, person: Visitor, disk_id: str, *, address: str = "") -> None:
    """Delete a disk that no run has, for good; its files follow.

    Raises
    ------
    UserError
        403 without a role, 404, 409 while a run has it.
    """
    need_role(person)
    await reach(portal, person, disk_id)
    actor = Actor(name=person.name, address=address)
    await portal.db.run_serialised(
        "admission",
        lambda conn: disk_store.remove(conn, person.name, disk_id, actor=actor, now=portal.clock()),
    )
    if "chores" in portal.parts:
        portal.parts["chores"].wake("disks")


# ------------------------------------------------------------------------------------------------- chores


async def purge(portal: Portal) -> None:
    """Delete the files of what was deleted, then count what changed. What cannot be deleted is tried again.

    Claims of Kubernetes are the hub's: no other part may delete them.
    """
    if portal.settings.backend == "kubernetes":
        return
    place = portal.settings.disks_directory
    for disk_id in await portal.db.run_read(disk_store.to_purge):
        try:
            await portal.files.run(beside(disk_places.NAME), disk_places.remove, place, disk_id)
        except (OSError, UserError) as error:
            log.warning("files of disk %s stay: %s", disk_id, error)
            continue
        await portal.db.run(disk_store.purged, disk_id, now=portal.clock())
    for disk_id in await portal.db.run_read(disk_store.to_measure, portal.clock()):
        now = portal.clock()
        used = await portal.files.run(beside(disk_places.NAME), disk_places.used_bytes, place, disk_id)
        await portal.db.run(disk_store.measured, disk_id, used, now=now)
