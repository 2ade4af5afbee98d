"""Registered volumes in the database: register, look at, edit, drain, delete (CG-36, CG-37).

What is on a disk is looked at apart (:func:`services.catalog.placing.look`), by whoever can see it, and
noted here; so a volume that is away is a row with a problem and costs nobody a wait. What may be done is
decided by :mod:`services.catalog.placement`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, func, insert, select, update
from sqlalchemy import delete as sql_delete

from galilean import audit
from galilean.errors import UserError, mark
from services.catalog import mounted
from services.catalog.access import Kind
from services.catalog.lifecycle import Over
from services.catalog.placement import VolumeRow, check_delete, check_drain, check_volume
from services.catalog.shares import Actor, table_of
from services.catalog.tables import datasets, projects, volumes
from spawner.tables import clusters

_COLUMNS = [volumes.c[field.name] for field in fields(VolumeRow)]
_KINDS: Sequence[Kind] = ("project", "dataset")


def all_volumes(conn: Connection) -> list[VolumeRow]:
    """Every volume, by name."""
    return [VolumeRow(**row._mapping) for row in conn.execute(select(*_COLUMNS).order_by(volumes.c.id))]


def get(conn: Connection, volume_id: str) -> VolumeRow:
    """One volume.

    Raises
    ------
    UserError
        404 when there is none.
    """
    found = next((volume for volume in all_volumes(conn) if volume.id == volume_id), None)
    if found is None:
        raise UserError(404, mark("There is no volume “{volume}”."), volume=volume_id[:64])
    return found


def claims(conn: Connection) -> dict[str, str]:
    """Claims of Kubernetes that were registered online, by where hub and portal have them mounted."""
    rows = conn.execute(
        select(volumes.c.path, volumes.c.claim).where(
            volumes.c.kind == "claim", volumes.c.registered_by != ""
        )
    )
    return {row.path: row.claim for row in rows}


@dataclass(frozen=True, kw_only=True)
class Holding:
    """What a volume has.

    Attributes
    ----------
    projects, datasets
        How many live there.
    binned
        How many lie in its bin.
    size_bytes
        Of all of them, as last counted.
    """

    projects: int = 0
    datasets: int = 0
    binned: int = 0
    size_bytes: int = 0

    @property
    def items(self) -> int:
        """Everything with files there."""
        return self.projects + self.datasets + self.binned


def holdings(conn: Connection) -> dict[str, Holding]:
    """What each volume has, by its name; volumes with nothing are not there."""
    found: dict[str, Holding] = {}
    for kind in _KINDS:
        table = table_of(kind)
        rows = conn.execute(
            select(
                table.c.volume_id,
                table.c.deleted_at.is_(None).label("living"),
                func.count(),
                func.coalesce(func.sum(table.c.size_bytes), 0),
            )
            .where(table.c.purged_at.is_(None))
            .group_by(table.c.volume_id, table.c.deleted_at.is_(None))
        )
        for volume_id, living, count, size in rows:
            old = found.get(volume_id, Holding())
            name = f"{kind}s" if living else "binned"
            found[volume_id] = replace(
                old, **{name: getattr(old, name) + int(count)}, size_bytes=old.size_bytes + int(size)
            )
    return found


def register(conn: Connection, volume: VolumeRow, *, actor: Actor, now: datetime) -> VolumeRow:
    """Register a volume online. Its directory is looked at and marked before, by who can see it.

    Raises
    ------
    UserError
        400 for what it cannot be, 409 when its name or place is another's.
    """
    check_volume(volume, all_volumes(conn))
    made = replace(volume, registered_by=actor.name, created_at=now, state="open", drains_to="")
    conn.execute(insert(volumes).values(**asdict(made)))
    _note(conn, "register", made, actor, now, before=None)
    return made


def edit(
    conn: Connection,
    volume_id: str,
    *,
    actor: Actor,
    now: datetime,
    holds: str | None = None,
    state: str | None = None,
) -> VolumeRow:
    """Change what new things a volume is for, close it or open it again; opening ends a drain.

    Its place never changes: files would not be where rows say.

    Raises
    ------
    UserError
        400 for what it cannot be, 404 when there is none, 409 when nothing would be left for new things.
    """
    old = get(conn, volume_id)
    others = [volume for volume in all_volumes(conn) if volume.id != volume_id]
    if state not in (None, "open", "closed"):
        raise UserError(400, mark("A volume is opened or closed."))
    new = replace(old, holds=holds or old.holds, state=state or old.state)
    if new.state != "draining":
        new = replace(new, drains_to="")
    check_volume(new, others)
    for kind in _KINDS:
        if not any(volume.takes(kind) for volume in (new, *others)):
            raise _last(volume_id)
    _set(conn, new)
    _note(conn, "edit", new, actor, now, before=old)
    return new


def drain(conn: Connection, volume_id: str, target_id: str, *, actor: Actor, now: datetime) -> VolumeRow:
    """Let everything on a volume move to another; it takes nothing new from now on.

    Raises
    ------
    UserError
        404 when there is none, 409 or 507 when the target cannot take it all.
    """
    old, target = get(conn, volume_id), get(conn, target_id)
    holding = holdings(conn).get(volume_id, Holding())
    check_drain(old, target, size_bytes=holding.size_bytes)
    new = replace(old, state="draining", drains_to=target_id)
    others = [volume for volume in all_volumes(conn) if volume.id != volume_id]
    if not all(any(volume.takes(kind) for volume in others) for kind in _KINDS):
        raise _last(volume_id)
    _set(conn, new)
    _note(conn, "drain", new, actor, now, before=old)
    return new


def next_to_move(conn: Connection, volume_id: str, *, most: int = 1) -> list[Over]:
    """What of a volume that drains may move now: not what runs, nor what is busy; the smallest first.

    A data set waits for the clusters that have it, and for those of all projects that use it.
    """
    running = select(clusters.c.project_id).where(clusters.c.released_at.is_(None))
    found: list[Over] = []
    for kind, table, held in (
        ("project", projects, running),
        ("dataset", datasets, mounted.held(conn)),
    ):
        rows = conn.execute(
            select(table.c.id)
            .where(
                table.c.volume_id == volume_id,
                table.c.purged_at.is_(None),
                table.c.busy == "",
                table.c.id.not_in(held),
            )
            .order_by(func.coalesce(table.c.size_bytes, 0), table.c.id)
            .limit(most - len(found))
        )
        found += [Over(kind=kind, id=row.id, volume_id=volume_id) for row in rows]  # type: ignore[arg-type]
        if len(found) >= most:
            break
    return found


def looked(
    conn: Connection,
    volume_id: str,
    *,
    total_bytes: int | None,
    free_bytes: int | None,
    now: datetime,
    problem: str = "",
) -> None:
    """Note what was seen of a volume; ``problem`` = why it could not be looked at."""
    conn.execute(
        update(volumes)
        .where(volumes.c.id == volume_id)
        .values(total_bytes=total_bytes, free_bytes=free_bytes, looked_at=now, problem=problem[:255])
    )


def delete(conn: Connection, volume_id: str, *, configured: bool, actor: Actor, now: datetime) -> None:
    """Forget a volume that is empty; its directory stays. ``configured`` = galilean.yaml names it.

    Rows of what was purged there keep their files' former place in the audit log alone.

    Raises
    ------
    UserError
        404 when there is none, 409 while it has files, is the last, or is configured.
    """
    old = get(conn, volume_id)
    others = [volume for volume in all_volumes(conn) if volume.id != volume_id]
    holding = holdings(conn).get(volume_id, Holding())
    check_delete(old, others, items=holding.items, configured=configured)
    # Rows of what is gone for good still name a volume, as they must: any that stays will do.
    for kind in _KINDS:
        table = table_of(kind)
        conn.execute(
            update(table)
            .where(table.c.volume_id == volume_id, table.c.purged_at.is_not(None))
            .values(volume_id=others[0].id)
        )
    conn.execute(sql_delete(volumes).where(volumes.c.id == volume_id))
    _note(conn, "delete", old, actor, now, before=old, after=False)


def _last(volume_id: str) -> UserError:
    return UserError(
        409,
        mark("“{volume}” is the last volume for new projects or data sets. Register another first."),
        volume=volume_id,
    )


def _set(conn: Connection, volume: VolumeRow) -> None:
    conn.execute(
        update(volumes)
        .where(volumes.c.id == volume.id)
        .values(holds=volume.holds, state=volume.state, drains_to=volume.drains_to)
    )


def _note(
    conn: Connection,
    action: str,
    volume: VolumeRow,
    actor: Actor,
    now: datetime,
    *,
    before: VolumeRow | None,
    after: bool = True,
) -> None:
    def told(one: VolumeRow) -> dict[str, Any]:
        return {name: getattr(one, name) for name in ("kind", "path", "claim", "holds", "state", "drains_to")}

    audit.write(
        conn,
        at=now,
        actor=actor.name,
        address=actor.address,
        action=f"volume.{action}",
        subject=volume.id,
        before=told(before) if before else None,
        after=told(volume) if after else None,
    )
