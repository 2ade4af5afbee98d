"""What was copied from and to object stores, kept so that it outlives the process that copied.

A row is made before the first byte and says at the end what came of it. A process that is told to end says of its copies that
they were broken off; of one that was killed the next one says so, after some minutes without a sign: whoever asked for it is told, and begins it again, which goes on where it was.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal

from sqlalchemy import Connection, delete, insert, select, update
from ulid import ULID

from galilean.errors import UserError, mark
from services.object_stores.tables import object_transfers

State = Literal["working", "done", "cancelled", "broken"]
KEEP = timedelta(days=7)
#: A copy is seen every few seconds, and a store that hangs is given up after some minutes.
LOST_AFTER = timedelta(minutes=5)
SHOWN_MOST = 20


@dataclass(frozen=True, kw_only=True)
class Transfer:
    """One copy.

    Attributes
    ----------
    asked
        What was asked for, to be asked for again.
    problem
        Why it did not go as it was to (message and params), if so.
    """

    id: str
    by: str
    store_id: str
    store_name: str
    asked: dict[str, Any]
    state: State
    job_id: str
    objects: int
    size_bytes: int
    problem: dict[str, Any] | None
    upload: list[str] | None
    began_at: datetime
    ended_at: datetime | None


def begin(
    conn: Connection,
    *,
    by: str,
    place: tuple[str, str],
    store: tuple[str, str],
    asked: dict[str, Any],
    process: str,
    now: datetime,
) -> str:
    """Note that a copy begins; its id. What ended long ago is forgotten, and what this one goes on with."""
    kind, item_id = place
    conn.execute(
        delete(object_transfers).where(
            object_transfers.c.ended_at.is_not(None), object_transfers.c.ended_at < now - KEEP
        )
    )
    for other in of(conn, by=by, item_id=item_id):
        if other.state == "broken" and other.asked == asked and other.upload is None:
            conn.execute(delete(object_transfers).where(object_transfers.c.id == other.id))
    made = str(ULID())
    conn.execute(
        insert(object_transfers).values(
            id=made,
            by=by,
            kind=kind,
            item_id=item_id,
            store_id=store[0],
            store_name=store[1],
            asked=asked,
            state="working",
            process=process,
            job_id="",
            objects=0,
            size_bytes=0,
            began_at=now,
            seen_at=now,
        )
    )
    return made


def note(conn: Connection, transfer_id: str, **values: Any) -> None:
    """Keep what is known of it by now."""
    conn.execute(update(object_transfers).where(object_transfers.c.id == transfer_id).values(**values))


def of(conn: Connection, *, by: str, item_id: str) -> list[Transfer]:
    """One's own at a project or data set, the newest first."""
    rows = conn.execute(
        select(object_transfers)
        .where(object_transfers.c.item_id == item_id, object_transfers.c.by == by)
        .order_by(object_transfers.c.id.desc())
        .limit(SHOWN_MOST)
    )
    return [_transfer(row) for row in rows]


def get(conn: Connection, transfer_id: str, *, by: str, item_id: str) -> Transfer:
    """One of them.

    Raises
    ------
    UserError
        404.
    """
    found = next((one for one in of(conn, by=by, item_id=item_id) if one.id == transfer_id), None)
    if found is None:
        raise UserError(404, mark("There is no such copy (any more). See the files for what came of it."))
    return found


def forget(conn: Connection, transfer: Transfer) -> None:
    """Take one that is over off the list.

    Raises
    ------
    UserError
        409 while it is going on, or while parts of it lie at the store.
    """
    if transfer.state == "working" or transfer.upload is not None:
        raise UserError(409, mark("This copy is not over yet. Cancel it first."))
    conn.execute(delete(object_transfers).where(object_transfers.c.id == transfer.id))


def break_off(conn: Connection, process: str, now: datetime) -> list[Transfer]:
    """Say of what other processes had under way that it was broken off; answers those with parts at a store."""
    lost = (
        (object_transfers.c.state == "working")
        & (object_transfers.c.process != process)
        & (object_transfers.c.seen_at < now - LOST_AFTER)
    )
    conn.execute(update(object_transfers).where(lost).values(state="broken", ended_at=now))
    rows = conn.execute(
        select(object_transfers).where(
            object_transfers.c.state == "broken", object_transfers.c.upload.is_not(None)
        )
    )
    return [_transfer(row) for row in rows]


def _transfer(row: Any) -> Transfer:
    return Transfer(
        id=row.id,
        by=row.by,
        store_id=row.store_id,
        store_name=row.store_name,
        asked=row.asked,
        state=row.state,
        job_id=row.job_id,
        objects=row.objects,
        size_bytes=row.size_bytes,
        problem=row.problem,
        upload=row.upload,
        began_at=row.began_at,
        ended_at=row.ended_at,
    )
