"""Disks in the database: who has which, and which runs have them.

All functions take a connection first and run inside the caller's transaction. What decides between several at once
is meant for ``db.serialised("admission")``: a run begins, a disk is deleted, and what somebody keeps is summed one after
the other.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Connection, and_, delete, exists, func, insert, or_, select, update
from sqlalchemy.exc import IntegrityError

from galilean import audit
from galilean.errors import UserError, mark
from services.catalog import disks as rules
from services.catalog.disks import Disk, Use
from services.catalog.shares import Actor
from services.catalog.tables import disk_uses, disks
from spawner.plan import ClusterPlan
from spawner.states import public_word
from spawner.tables import clusters

#: Counted again after so long: while a run has it, and in any case.
COUNTED_HELD, COUNTED_ANEW = timedelta(minutes=5), timedelta(days=1)
_LIVING = disks.c.deleted_at.is_(None)
_OPEN = clusters.c.released_at.is_(None)
_COLUMNS = [column for column in disks.c if column.name != "purged_at"]


def _with_uses(conn: Connection, rows: Iterable[Any], *, without: str = "") -> list[Disk]:
    found = [Disk(**row._mapping) for row in rows]
    uses = uses_of(conn, [disk.id for disk in found], without=without)
    return [replace(disk, uses=tuple(uses[disk.id])) for disk in found]


def uses_of(conn: Connection, disk_ids: Collection[str], *, without: str = "") -> dict[str, list[Use]]:
    """The open runs that have these disks, the oldest first; ``without`` a run."""
    found: dict[str, list[Use]] = {disk_id: [] for disk_id in disk_ids}
    if not found:
        return found
    rows = conn.execute(
        select(
            disk_uses.c.disk_id,
            disk_uses.c.writes,
            clusters.c.id,
            clusters.c.user,
            clusters.c.project_name,
            clusters.c.status,
            clusters.c.target,
        )
        .join(clusters, clusters.c.id == disk_uses.c.run_id)
        .where(disk_uses.c.disk_id.in_(found), _OPEN, clusters.c.id != without)
        .order_by(clusters.c.id)
    )
    for row in rows:
        found[row.disk_id].append(
            Use(
                run_id=row.id,
                user=row.user,
                project=row.project_name,
                writes=row.writes,
                word=public_word(row.status, row.target),
            )
        )
    return found


# ------------------------------------------------------------------------------------------------ reading


def get(conn: Connection, owner: str, disk_id: str) -> Disk:
    """A living disk of somebody's.

    Raises
    ------
    UserError
        404 when there is none of theirs.
    """
    rows = conn.execute(select(*_COLUMNS).where(disks.c.id == disk_id, disks.c.owner == owner, _LIVING))
    found = _with_uses(conn, rows)
    if not found:
        raise rules.no_such_disk()
    return found[0]


def named(conn: Connection, owner: str, names: Collection[str]) -> dict[str, Disk]:
    """Living disks of somebody's by name; what is not there is missing."""
    rows = conn.execute(select(*_COLUMNS).where(disks.c.owner == owner, disks.c.name.in_(names), _LIVING))
    return {disk.name: disk for disk in _with_uses(conn, rows)}


def listed(
    conn: Connection, *, owner: str | None = None, text: str = "", after: str = "", limit: int = 50
) -> list[Disk]:
    """Living disks by owner and name, of one person or of everybody; ``after`` is the last one's id."""
    query = select(*_COLUMNS).where(_LIVING).order_by(disks.c.owner, disks.c.name).limit(limit)
    if owner is not None:
        query = query.where(disks.c.owner == owner)
    if text:
        query = query.where(disks.c.name.contains(text.lower(), autoescape=True))
    if after:
        last = conn.execute(select(disks.c.owner, disks.c.name).where(disks.c.id == after)).first()
        if last is not None:
            query = query.where(
                or_(disks.c.owner > last.owner, and_(disks.c.owner == last.owner, disks.c.name > last.name))
            )
    return _with_uses(conn, conn.execute(query))


def any_kept(conn: Connection) -> bool:
    """Whether there is any disk of anybody whose files are there."""
    return conn.execute(select(disks.c.id).where(disks.c.purged_at.is_(None)).limit(1)).first() is not None


def kept_bytes(conn: Connection, owner: str) -> int:
    """Sizes of somebody's disks together, of those too whose files are still being deleted."""
    return int(
        conn.execute(
            select(func.coalesce(func.sum(disks.c.size_bytes), 0)).where(
                disks.c.owner == owner, disks.c.purged_at.is_(None)
            )
        ).scalar_one()
    )


# ---------------------------------------------------------------------------------------------- changing


def create(
    conn: Connection,
    *,
    disk_id: str,
    owner: str,
    name: str,
    size_gib: int,
    pool: str,
    kept: int,
    most: int | None,
    actor: Actor,
    now: datetime,
) -> Disk:
    """Make the row of a disk; call it in turn (``serialised``).

    Parameters
    ----------
    conn, now
        A transaction that writes, and when.
    disk_id, owner, name, size_gib, pool
        Which, whose, called what, how large, where.
    kept, most
        Bytes that the owner keeps now, and may keep (``None`` = no limit).
    actor
        For the audit log.

    Raises
    ------
    UserError
        400 for a name or size that cannot be; 409 when they have one of this name, or too many; 507 when it is more than
        they may keep.
    """
    size = rules.check_size(size_gib)
    rules.check_name(name)
    many = conn.execute(select(func.count()).where(disks.c.owner == owner, _LIVING)).scalar_one()
    if many >= rules.DISKS_OF_PERSON_MOST:
        raise UserError(409, mark("A person has at most {most} disks."), most=rules.DISKS_OF_PERSON_MOST)
    if named(conn, owner, [name]):
        raise _taken(name)
    rules.check_room(size, kept, most)
    disk = Disk(id=disk_id, owner=owner, name=name, size_bytes=size, pool=pool, created_at=now)
    values = {column.name: getattr(disk, column.name) for column in _COLUMNS}
    try:
        with conn.begin_nested():
            conn.execute(insert(disks).values(values))
    except IntegrityError as error:
        raise _taken(name) from error
    _note(conn, disk, "create", actor, now, after={"size_gib": size_gib, "pool": pool})
    return disk


def _taken(name: str) -> UserError:
    return UserError(409, mark("You have a disk “{disk}” already. Choose another name."), disk=name)


def grow(
    conn: Connection,
    owner: str,
    disk_id: str,
    *,
    size_gib: int,
    kept: int,
    most: int | None,
    actor: Actor,
    now: datetime,
) -> Disk:
    """Make a disk larger; call it in turn. The same size is success.

    Raises
    ------
    UserError
        400, 404, 507 as :func:`create`; 409 for a smaller one.
    """
    size = rules.check_size(size_gib)
    disk = get(conn, owner, disk_id)
    rules.check_larger(disk, size)
    rules.check_room(size - disk.size_bytes, kept, most)
    conn.execute(update(disks).where(disks.c.id == disk_id).values(size_bytes=size))
    _note(conn, disk, "grow", actor, now, before={"size_gib": disk.size_gib}, after={"size_gib": size_gib})
    return replace(disk, size_bytes=size)


def remove(conn: Connection, owner: str, disk_id: str, *, actor: Actor, now: datetime) -> Disk:
    """Delete a disk that no run has; its files follow. Call it in turn with admissions.

    Raises
    ------
    UserError
        404, or 409 while a run has it.
    """
    disk = get(conn, owner, disk_id)
    rules.check_unused(disk)
    conn.execute(update(disks).where(disks.c.id == disk_id).values(deleted_at=now))
    _note(conn, disk, "delete", actor, now, before={"size_gib": disk.size_gib, "id": disk.id})
    return disk


def leave(conn: Connection, owner: str, nobody: str, *, now: datetime) -> None:
    """Delete all disks of somebody who goes, and let the name go, too. In turn, with none of their runs open."""
    conn.execute(update(disks).where(disks.c.owner == owner, _LIVING).values(deleted_at=now))
    conn.execute(update(disks).where(disks.c.owner == owner).values(owner=nobody))


# ------------------------------------------------------------------------------------------------- leases


class Leases:
    """Hands disks to runs, in the transaction that admits them; implements :class:`extensions.quota.admission.Leases`."""

    def check(self, conn: Connection, plan: ClusterPlan, run_id: str) -> None:
        """Refuse a plan whose disks another run has, or that are there no more; ``run_id`` is the plan's own, if any.

        Raises
        ------
        UserError
            404, 409.
        """
        wanted = {mount.disk.id: mount for mount in plan.disks if mount.disk is not None}
        if not wanted:
            return
        there = set(conn.execute(select(disks.c.id).where(disks.c.id.in_(wanted), _LIVING)).scalars())
        uses = uses_of(conn, wanted.keys(), without=run_id)
        for disk_id, mount in wanted.items():
            name = mount.target.removeprefix(f"{rules.BELOW}/")
            if disk_id not in there:
                raise rules.no_such_disk(name)
            rules.check_free(name, not mount.read_only, uses[disk_id])

    def take(self, conn: Connection, plan: ClusterPlan, run_id: str, *, anew: bool) -> None:
        """Write down that the run has the plan's disks; ``anew`` = it may have had others while it waited."""
        if anew:
            conn.execute(delete(disk_uses).where(disk_uses.c.run_id == run_id))
        rows = [
            {"run_id": run_id, "disk_id": mount.disk.id, "writes": not mount.read_only}
            for mount in plan.disks
            if mount.disk is not None
        ]
        if rows:
            conn.execute(insert(disk_uses), rows)


# ----------------------------------------------------------------------------------------- what lies on them


def to_purge(conn: Connection) -> list[str]:
    """Ids of deleted disks whose files are still there, the first deleted first."""
    query = select(disks.c.id).where(disks.c.deleted_at.is_not(None), disks.c.purged_at.is_(None))
    return list(conn.execute(query.order_by(disks.c.deleted_at, disks.c.id)).scalars())


def purged(conn: Connection, disk_id: str, *, now: datetime) -> None:
    """Its files are gone: it counts no more."""
    conn.execute(
        update(disks)
        .where(disks.c.id == disk_id, disks.c.deleted_at.is_not(None), disks.c.purged_at.is_(None))
        .values(purged_at=now)
    )


def to_measure(conn: Connection, now: datetime, most: int = 20) -> list[str]:
    """Ids of living disks that are to be counted: never counted, had by a run since, or long ago."""
    had: ColumnElement[bool] = exists().where(
        disk_uses.c.disk_id == disks.c.id,
        clusters.c.id == disk_uses.c.run_id,
        or_(
            and_(_OPEN, disks.c.measured_at < now - COUNTED_HELD),
            clusters.c.released_at >= disks.c.measured_at,
        ),
    )
    query = (
        select(disks.c.id)
        .where(_LIVING, or_(disks.c.measured_at.is_(None), disks.c.measured_at < now - COUNTED_ANEW, had))
        .order_by(func.coalesce(disks.c.measured_at, disks.c.created_at), disks.c.id)
        .limit(most)
    )
    return list(conn.execute(query).scalars())


def measured(conn: Connection, disk_id: str, used_bytes: int | None, *, now: datetime) -> None:
    """Keep what was counted; ``None`` = it could not be, and what was known stays."""
    values: dict[str, Any] = {"measured_at": now}
    if used_bytes is not None:
        values["used_bytes"] = used_bytes
    conn.execute(update(disks).where(disks.c.id == disk_id).values(values))


def living(conn: Connection, disk_ids: Sequence[str]) -> set[str]:
    """Those of these that are not deleted."""
    return set(conn.execute(select(disks.c.id).where(disks.c.id.in_(disk_ids), _LIVING)).scalars())


def _note(conn: Connection, disk: Disk, action: str, actor: Actor, now: datetime, **more: Any) -> None:
    audit.write(
        conn,
        at=now,
        actor=actor.name,
        address=actor.address,
        action=f"disk.{action}",
        subject=f"{disk.owner}/{disk.name}",
        **more,
    )
