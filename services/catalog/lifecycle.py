"""Publishing, taking down, the bin: what happens to projects and data sets alike, in the database.

Each act is one transaction with its line in the audit log and the card made anew. What is said of files (to
the bin, back, gone for good) the caller does with the files, the row first.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any

from sqlalchemy import Connection, and_, case, delete, func, select, update

from galilean import audit
from galilean.errors import UserError, mark
from services.catalog import cards, disk_store, shares
from services.catalog.access import Kind, no_such_thing, visibility_with
from services.catalog.publication import check_publish, check_unpublish
from services.catalog.shares import Actor, table_of
from services.catalog.tables import counted

BIN_DAYS = 30
REASON_MOST = 1000


def publish(conn: Connection, kind: Kind, item_id: str, *, actor: Actor, now: datetime) -> None:
    """Let everybody see it. Public already is success; a data set stays so for ever.

    Raises
    ------
    UserError
        404 when it is not there, 403 when it was taken down, 409 in the bin.
    """
    row = _row(conn, kind, item_id)
    check_publish(row)
    if row.visibility == "public":
        return
    _set(conn, kind, item_id, visibility="public", published_at=row.published_at or now)
    _note(conn, kind, row, "publish", actor, now, before=row.visibility, after="public")


def unpublish(conn: Connection, kind: Kind, item_id: str, *, actor: Actor, now: datetime) -> None:
    """Make a public project private again, or shared with whom it was. Forks stay.

    Raises
    ------
    UserError
        404 when it is not there, 409 for a data set.
    """
    row = _row(conn, kind, item_id)
    if row.visibility != "public":
        return
    check_unpublish(kind)
    word = visibility_with("private", shares.of(conn, kind, item_id))
    _set(conn, kind, item_id, visibility=word)
    _note(conn, kind, row, "unpublish", actor, now, before="public", after=word)


def take_down(
    conn: Connection, kind: Kind, item_id: str, *, reason: str, actor: Actor, now: datetime
) -> None:
    """Hide it from everybody but its owner and administrators, until :func:`put_back`.

    Raises
    ------
    UserError
        400 without a reason, 404 when it is not there.
    """
    row = _row(conn, kind, item_id)
    reason = reason.strip()
    if not reason or len(reason) > REASON_MOST:
        raise UserError(400, mark("Say why, in at most {most} characters."), most=REASON_MOST)
    _set(
        conn,
        kind,
        item_id,
        taken_down_at=row.taken_down_at or now,
        taken_down_by=actor.name,
        taken_down_reason=reason,
    )
    _note(conn, kind, row, "take-down", actor, now, reason=reason)


def put_back(conn: Connection, kind: Kind, item_id: str, *, actor: Actor, now: datetime) -> None:
    """Undo :func:`take_down`: who could see it sees it again.

    Raises
    ------
    UserError
        404 when it is not there.
    """
    row = _row(conn, kind, item_id)
    if row.taken_down_at is None:
        return
    _set(conn, kind, item_id, taken_down_at=None, taken_down_by="", taken_down_reason="")
    _note(conn, kind, row, "put-back", actor, now, before=row.taken_down_reason)


# ----------------------------------------------------------------------------------------------- the bin


def kept_until(deleted_at: datetime) -> datetime:
    """Until when something in the bin can be restored."""
    return deleted_at + timedelta(days=BIN_DAYS)


def check_restorable(row: Any, now: datetime) -> None:
    """Refuse to restore what is no longer kept.

    Raises
    ------
    UserError
        404 in words.
    """
    if row.purged_at is not None or now >= kept_until(row.deleted_at):
        raise UserError(
            404,
            mark("“{name}” was deleted more than {days} days ago: its files are gone."),
            name=row.name,
            days=BIN_DAYS,
        )


def in_bin(conn: Connection, kind: Kind, owner: str, *, now: datetime) -> list[Any]:
    """What somebody deleted and can restore, the last deleted first; rows of the table."""
    table = table_of(kind)
    rows = conn.execute(
        select(table)
        .where(
            table.c.owner == owner,
            table.c.deleted_at > now - timedelta(days=BIN_DAYS),
            table.c.purged_at.is_(None),
            table.c.busy == "",  # a fork that was cancelled is no more
        )
        .order_by(table.c.deleted_at.desc(), table.c.id.desc())
    )
    return list(rows)


@dataclass(frozen=True, kw_only=True)
class Over:
    """Something whose files are to go for good."""

    kind: Kind
    id: str
    volume_id: str


def to_purge(
    conn: Connection, *, now: datetime, most: int = 100, without: Collection[str] = ()
) -> list[Over]:
    """What has lain in the bin for its time, oldest first; ``without`` are ids that were tried."""
    left = list(without)
    found: list[Over] = []
    kinds: Sequence[Kind] = ("project", "dataset")
    for kind in kinds:
        table = table_of(kind)
        rows = conn.execute(
            select(table.c.id, table.c.volume_id)
            .where(
                table.c.deleted_at <= now - timedelta(days=BIN_DAYS),
                table.c.purged_at.is_(None),
                table.c.busy == "",  # else its files are at two places
                *(table.c.id.not_in(left[at : at + 500]) for at in range(0, len(left), 500)),
            )
            .order_by(table.c.deleted_at, table.c.id)
            .limit(most - len(found))
        )
        found += [Over(kind=kind, id=row.id, volume_id=row.volume_id) for row in rows]
    return found


def purged(conn: Connection, kind: Kind, item_id: str, *, now: datetime) -> None:
    """Note that its files are gone. What lives is not touched."""
    table = table_of(kind)
    conn.execute(
        update(table)
        .where(table.c.id == item_id, table.c.deleted_at.is_not(None), table.c.purged_at.is_(None))
        .values(purged_at=now)
    )


# ------------------------------------------------------------------------------------- files, from outside


def begin(conn: Connection, kind: Kind, item_id: str, what: str) -> None:
    """Note that something is done to its files (``copying``, ``moving``, ``importing``): it is not run meanwhile.

    Raises
    ------
    UserError
        404 when it is not there; 409 when something is done already, or a cluster of it is held.
    """
    row = _row(conn, kind, item_id)
    if row.busy or (kind == "project" and shares.open_runs(conn, item_id)):
        raise UserError(
            409,
            mark("“{name}” is running, or its files are being copied or moved. Try again when that is done."),
            reason="busy",
            name=row.name,
        )
    _set(conn, kind, item_id, busy=what)


def end(conn: Connection, kind: Kind, item_id: str, *, volume_id: str | None = None) -> None:
    """Note that it is done; ``volume_id`` is where its files are now."""
    table = table_of(kind)
    values = {"busy": ""} | ({"volume_id": volume_id} if volume_id else {})
    conn.execute(update(table).where(table.c.id == item_id).values(values))


def measured(
    conn: Connection, kind: Kind, item_id: str, *, size_bytes: int, file_count: int, now: datetime
) -> None:
    """Note how much it holds."""
    table = table_of(kind)
    conn.execute(
        update(table)
        .where(table.c.id == item_id)
        .values(size_bytes=size_bytes, file_count=file_count, measured_at=now)
    )


def used_bytes(conn: Connection, owner: str, *, without: str = "") -> int:
    """How much somebody stores: projects and data sets as last counted, those in the bin included; disks as a whole.

    What is being copied counts as what it is a copy of, what is being imported as what its archive holds of it. ``without`` is the id of one that is left out.
    """
    total = disk_store.kept_bytes(conn, owner)
    kinds: Sequence[Kind] = ("project", "dataset")
    for kind in kinds:
        table = table_of(kind)
        origin, size = table.alias(), func.coalesce(table.c.size_bytes, 0)
        copied = and_(
            table.c.busy == "copying",
            origin.c.id == (table.c.forked_from if kind == "project" else table.c.version_of),
        )
        total += int(
            conn.execute(
                select(
                    func.coalesce(
                        func.sum(case((origin.c.size_bytes > size, origin.c.size_bytes), else_=size)), 0
                    )
                )
                .select_from(table.outerjoin(origin, copied))
                .where(table.c.owner == owner, table.c.purged_at.is_(None), table.c.id != without)
            ).scalar_one()
        )
    return total


def forget_counted(conn: Connection, before: date) -> int:
    """Drop what was counted on days that are over; how many rows. The counts stay."""
    return conn.execute(delete(counted).where(counted.c.day < before)).rowcount


def _row(conn: Connection, kind: Kind, item_id: str) -> Any:
    table = table_of(kind)
    row = conn.execute(select(table).where(table.c.id == item_id).with_for_update()).first()
    if row is None:
        raise no_such_thing()
    return row


def _set(conn: Connection, kind: Kind, item_id: str, **values: Any) -> None:
    table = table_of(kind)
    conn.execute(update(table).where(table.c.id == item_id).values(values))
    cards.put(conn, kind, item_id)


def _note(
    conn: Connection, kind: str, row: Any, action: str, actor: Actor, now: datetime, **more: Any
) -> None:
    audit.write(
        conn,
        at=now,
        actor=actor.name,
        address=actor.address,
        action=f"{kind}.{action}",
        subject=f"{row.owner}/{row.slug}",
        **more,
    )
