"""How much somebody keeps and may keep: projects and data sets together, those in the bin too (TI-11, TI-13).

The limit is a measure of quotas, ``kept``, decided by role and by exception. It is asked before and during
whatever makes files: an upload, a fork, an import. Lowering it touches nothing that is there. What somebody
keeps is what was last counted; whatever changed is counted again within seconds (:func:`count_sizes`), and what
runs write, at every round of a few minutes. Files in somebody's project are its owner's, whoever put them there.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from sqlalchemy import Connection, and_, exists, func, or_, select

from extensions.quota.policy import Policy
from galilean.amounts import format_apart
from galilean.errors import UserError, mark
from galilean.file_threads import beside
from galilean.web.context import Portal
from services.catalog import datasets, lifecycle, store
from services.catalog.access import Kind
from services.catalog.datasets import Dataset
from services.catalog.shares import table_of
from services.catalog.store import Project
from services.files.root import Root, Usage
from spawner.tables import clusters

log = logging.getLogger("galilean.portal.storage")

KINDS: tuple[Kind, ...] = ("project", "dataset")
#: Counted again in any case after so long; while it runs, after a few minutes.
COUNTED_ANEW, COUNTED_RUNNING = timedelta(days=1), timedelta(minutes=5)
COUNT_AT_ONCE = 20
FILES_MOST = 10_000_000
ASKED_SECONDS = 1.0


async def limit_of(portal: Portal, owner: str) -> int | None:
    """Bytes that somebody may keep; ``None`` = no limit, as of what nobody owns."""
    try:
        groups = await portal.people.groups(owner)
    except UserError as error:
        if error.status != 404:
            raise
        return None
    roles = (await portal.rights.get()).roles_of(groups)
    policy: Policy = portal.parts.setdefault("quota_policy", Policy())
    limits, _ = await portal.db.run_read(policy.limits_of, owner, roles, portal.clock())
    return limits.amount("kept") if limits is not None else None


async def room_of(portal: Portal, owner: str, *, without: str = "") -> int | None:
    """Bytes that somebody may still add to their projects and data sets; ``None`` = no limit.

    ``without`` is the id of one whose own bytes are not counted, because it is being made.
    """
    most = await limit_of(portal, owner)
    if most is None:
        return None
    return max(0, most - await portal.db.run_read(lifecycle.used_bytes, owner, without=without))


async def kept_room(
    portal: Portal, owner: str, *, monotonic: Callable[[], float] = time.monotonic
) -> Callable[[], int | None]:
    """The same as a function to be called in a thread, often: what is kept is asked once a second at most."""
    most = await limit_of(portal, owner)
    if most is None:
        return lambda: None
    known: list[tuple[float, int]] = []

    def room() -> int:
        now = monotonic()
        if not known or now - known[0][0] >= ASKED_SECONDS:
            with portal.db.read() as conn:
                known[:] = [(now, max(0, most - lifecycle.used_bytes(conn, owner)))]
        return known[0][1]

    return room


def check_room(conn: Connection, owner: str, size_bytes: int, most: int | None) -> None:
    """Refuse what does not fit any more into what :func:`limit_of` answered; under admission's lock, so that of two
    at once the second sees the first.

    Raises
    ------
    UserError
        507 with reason ``quota`` and the numbers (TI-15).
    """
    room = None if most is None else max(0, most - lifecycle.used_bytes(conn, owner))
    if room is not None and size_bytes > room:
        size, left = format_apart(size_bytes, room)
        raise UserError(
            507,
            mark("It has {size}; you may keep {room} more. Delete something, or ask an administrator."),
            reason="quota",
            size=size,
            room=left,
        )


# ---------------------------------------------------------------------------------------------- counting


async def count_sizes(portal: Portal) -> None:
    """Count anew what changed since it was counted, what runs, and what was not counted for a day."""
    for kind in KINDS:
        for item_id in await portal.db.run_read(to_count, kind, portal.clock()):
            await count(portal, kind, item_id)


def to_count(conn: Connection, kind: Kind, now: Any, most: int = COUNT_AT_ONCE) -> list[str]:
    """Ids of what is to be counted, what was never counted first."""
    table = table_of(kind)
    counted = table.c.measured_at
    stale = [counted.is_(None), counted < table.c.changed_at, counted < now - COUNTED_ANEW]
    if kind == "project":
        held = exists().where(clusters.c.project_id == table.c.id, clusters.c.released_at.is_(None))
        stale.append(and_(counted < now - COUNTED_RUNNING, held))
    rows = conn.execute(
        select(table.c.id)
        .where(table.c.deleted_at.is_(None), table.c.busy == "", or_(*stale))
        .order_by(func.coalesce(counted, table.c.created_at), table.c.id)
        .limit(most)
    )
    return list(rows.scalars())


async def count(portal: Portal, kind: Kind, item_id: str) -> None:
    """Count one; a volume that is away leaves what was known."""
    now = portal.clock()
    item: Project | Dataset | None
    if kind == "project":
        item = await portal.db.run_read(store.by_id, item_id)
    else:
        item = await portal.db.run_read(datasets.by_id, item_id)
    if item is None:
        return
    found: Usage | None = None
    try:
        await portal.files.ask(item.volume_id, os.path.isdir, item.path(portal.settings))
        found = await portal.files.run(beside(item.volume_id), _count, portal, item)
    except UserError as error:
        log.warning("%s %s cannot be counted: %s", kind, item_id, error)
    size, files = (found.size_bytes, found.files) if found else (item.size_bytes or 0, item.file_count or 0)
    await portal.db.run(lifecycle.measured, kind, item_id, size_bytes=size, file_count=files, now=now)


def _count(portal: Portal, item: Project | Dataset) -> Usage | None:
    try:
        path = item.path(portal.settings)
        return Root(path).usage(most=FILES_MOST) if path.is_dir() else None
    except (OSError, UserError):
        return None
