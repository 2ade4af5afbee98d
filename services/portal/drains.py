"""Volumes that are drained: everything on them moves to another, one after the other, while people work (CG-37).

What a running cluster has is left until it ends; what is moved cannot be started or changed meanwhile. A thing is
marked first, then nothing happens for longer than a start takes between its look at the catalogue and its
admission, so that no run begins with the old place. Then it is copied, the row changed, and only then the old
files go: whoever is broken off anywhere begins that thing again.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from sqlalchemy import Connection, func, select

from galilean.errors import UserError
from galilean.file_threads import beside
from galilean.web.context import Portal
from services.catalog import lifecycle, mounted, shares, volume_store, volumes
from services.catalog.access import Kind
from services.catalog.lifecycle import Over
from services.catalog.placement import VolumeRow
from services.catalog.shares import table_of
from services.catalog.tables import datasets, projects
from services.files import copies
from services.files.root import Root
from services.portal.binned import remove
from spawner.tables import clusters

log = logging.getLogger("galilean.portal.drains")

AT_ONCE = 50
#: Longer than a start may take between resolving and admission (``VirtualCluster.admission_timeout``).
SETTLE_SECONDS = 25.0
KINDS: tuple[Kind, ...] = ("project", "dataset")


@dataclass(frozen=True, kw_only=True)
class Course:
    """How far a drain is.

    Attributes
    ----------
    left, left_bytes
        What is still on the volume, the bin included.
    waiting
        How many of these have clusters that run.
    moving
        Names of what is moved just now.
    """

    left: int
    left_bytes: int
    waiting: int
    moving: str


def course(conn: Connection, volume_id: str) -> Course:
    """How far the drain of a volume is."""
    holding = volume_store.holdings(conn).get(volume_id, volume_store.Holding())
    running = select(clusters.c.project_id).where(clusters.c.released_at.is_(None))
    held = {
        "project": projects.c.id.in_(running),
        "dataset": datasets.c.id.in_(mounted.held(conn)),
    }
    waiting, moving = 0, []
    for kind in KINDS:
        table = table_of(kind)
        there = (table.c.volume_id == volume_id, table.c.purged_at.is_(None))
        waiting += conn.execute(select(func.count()).where(*there, held[kind])).scalar_one()
        moving += conn.execute(
            select(table.c.name).where(*there, table.c.busy == "moving").order_by(table.c.id).limit(3)
        ).scalars()
    return Course(
        left=holding.items, left_bytes=holding.size_bytes, waiting=waiting, moving=", ".join(moving)
    )


def problems(portal: Portal) -> dict[str, str]:
    """What went wrong last, by volume."""
    return portal.parts.setdefault("drain_problems", {})


async def go_on(
    portal: Portal,
    *,
    settle_seconds: float = SETTLE_SECONDS,
    pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> None:
    """Move what may move of volumes that are drained."""
    for volume in await portal.db.run_read(volume_store.all_volumes):
        if volume.state != "draining":
            continue
        while True:
            # Whatever is marked and was not begun by us was begun by somebody who has ended.
            left_over = await portal.db.run_read(_marked, volume.id)
            begun = left_over + await portal.db.run_serialised("admission", _begin, volume.id)
            if not begun:
                break
            await pause(settle_seconds)
            moved = 0
            for over in begun:
                moved += await _move_one(portal, volume, over)
            if not moved:
                break


def _marked(conn: Connection, volume_id: str) -> list[Over]:
    found: list[Over] = []
    for kind in KINDS:
        table = table_of(kind)
        rows = conn.execute(
            select(table.c.id).where(
                table.c.volume_id == volume_id, table.c.busy == "moving", table.c.purged_at.is_(None)
            )
        )
        found += [Over(kind=kind, id=row.id, volume_id=volume_id) for row in rows]
    return found


def _begin(conn: Connection, volume_id: str) -> list[Over]:
    if volume_store.get(conn, volume_id).state != "draining":
        return []
    found = volume_store.next_to_move(conn, volume_id, most=AT_ONCE)
    for over in found:
        lifecycle.begin(conn, over.kind, over.id, "moving")
    return found


async def _move_one(portal: Portal, volume: VolumeRow, over: Over) -> bool:
    """Move one thing; whether it is at its new place."""
    rows = {row.id: row for row in await portal.db.run_read(volume_store.all_volumes)}
    now = rows.get(volume.id)
    target = rows.get(now.drains_to) if now is not None and now.state == "draining" else None
    try:
        if target is None:  # opened again
            raise _Stays("")
        deleted, directory = await portal.db.run_read(_place, over)
        below = f"{volumes.BIN}/{over.id}" if deleted else directory
        source, copy = Path(volume.path) / below, Path(target.path) / below
        began_at = portal.clock()
        lane = beside(volume.id)
        for one in (volume, target):
            await portal.files.ask(one.id, volumes.check_mounted, Path(one.path), one.id)
        await portal.files.run(lane, _copy, volume, source, target, copy)
        if not await portal.db.run_serialised("admission", _arrive, over, target.id, deleted, began_at):
            await portal.files.run(lane, remove, Path(target.path), target.id, copy)
            raise _Stays("")
        await portal.files.run(lane, remove, Path(volume.path), volume.id, source)
    except (_Stays, UserError, OSError) as error:
        if str(error):
            problems(portal)[volume.id] = str(error)
            log.warning("volume %s: %s %s stays: %s", volume.id, over.kind, over.id, error)
        await portal.db.run(lifecycle.end, over.kind, over.id)
        return False
    problems(portal).pop(volume.id, None)
    return True


class _Stays(Exception):
    """Something is not moved now, and why."""


def _place(conn: Connection, over: Over) -> tuple[bool, str]:
    table = table_of(over.kind)
    row = conn.execute(select(table.c.deleted_at, table.c.directory).where(table.c.id == over.id)).one()
    return row.deleted_at is not None, row.directory


def _copy(volume: VolumeRow, source: Path, target: VolumeRow, copy: Path) -> None:
    volumes.check_mounted(Path(volume.path), volume.id)
    volumes.check_mounted(Path(target.path), target.id)
    remove(Path(target.path), target.id, copy)  # what an earlier attempt left
    if not source.is_dir():
        return
    volumes.make_directory(copy, target.id)
    done = copies.copy_into(Root(source), Root(copy))
    if done.left_out:
        raise _Stays(f"{len(done.left_out)} files cannot be copied, among them {done.left_out[0]}")
    os.sync()  # the originals go next


def _arrive(conn: Connection, over: Over, volume_id: str, deleted: bool, began_at: datetime) -> bool:
    """Write the new place, unless somebody runs it after all, or it went to the bin or out of it.

    Nor when files changed since the copy began: a request that came before the mark may have written after it.
    """
    if _place(conn, over)[0] is not deleted:
        return False
    table = table_of(over.kind)
    if conn.execute(select(table.c.changed_at).where(table.c.id == over.id)).scalar_one() > began_at:
        return False
    if over.kind == "project":
        held = bool(shares.open_runs(conn, over.id))
    else:
        held = over.id in conn.execute(mounted.held(conn)).scalars().all()
    if not held:
        lifecycle.end(conn, over.kind, over.id, volume_id=volume_id)
    return not held
