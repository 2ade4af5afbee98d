"""What people are to be told: a warning before a release, a release, a role, a schedule that was not kept.

Written in the transaction of what it tells of. Pages show it at once (the portal's event stream), and what
is marked for mail is mailed by the release service while no page of the person is open. Texts are message
ids with their values, so that each reader gets their own language.

They are no record (that is the audit log): what was read is kept for 30 days, what was not for 90.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, tzinfo
from typing import Any

from sqlalchemy import Connection, and_, delete, insert, or_, select, text, update
from ulid import ULID

from galilean.errors import render
from galilean.tables import notices

READ_KEPT = timedelta(days=30)
UNREAD_KEPT = timedelta(days=90)
#: So many are deleted in one transaction.
AT_ONCE = 1000


@dataclass(frozen=True, kw_only=True)
class Notice:
    """One thing that somebody is told.

    Attributes
    ----------
    kind
        ``warning``, ``released``, ``role``, ``schedule`` …
    cluster_id
        The run that it is about, or empty.
    text, params
        Message id and its values.
    address
        Where to go, relative to the portal's prefix; or empty.
    mail
        Also by mail while no page is open.
    """

    id: str
    user: str
    at: datetime
    kind: str
    cluster_id: str = ""
    text: str
    params: Mapping[str, Any]
    address: str = ""
    mail: bool = False
    mailed_at: datetime | None = None
    read_at: datetime | None = None


def words(notice: Notice, translate: Callable[[str], str], zone: tzinfo, now: datetime) -> str:
    """The sentence in somebody's language; values that are moments (``…_at``) by the clock of ``zone``."""
    filled = {
        key: _clock(value, zone, now) if key.endswith("_at") else value
        for key, value in notice.params.items()
    }
    return render(notice.text, filled, translate)


def _clock(value: Any, zone: tzinfo, now: datetime) -> str:
    try:
        at = datetime.fromisoformat(str(value)).astimezone(zone)
    except ValueError:
        return str(value)
    today = at.date() == now.astimezone(zone).date()
    return f"{at:%H:%M}" if today else f"{at:%Y-%m-%d %H:%M}"


def tell(conn: Connection, user: str, *, now: datetime, kind: str, text: str, **more: Any) -> str:
    """Tell somebody something; its id. ``more`` as for :func:`notice`."""
    told = notice(user, now=now, kind=kind, text=text, **more)
    tell_all(conn, [told])
    return told.id


def notice(
    user: str,
    *,
    now: datetime,
    kind: str,
    text: str,
    cluster_id: str = "",
    address: str = "",
    mail: bool = False,
    **params: Any,
) -> Notice:
    """Something that somebody is to be told, not yet written."""
    return Notice(
        id=str(ULID()), user=user, at=now, kind=kind, cluster_id=cluster_id, text=text, params=params,
        address=address, mail=mail,
    )  # fmt: skip


def tell_all(conn: Connection, told: Sequence[Notice]) -> None:
    """Tell many people at once: a thousand warnings are one statement, not a thousand."""
    if told:
        conn.execute(insert(notices), [vars(one) for one in told])


def list_for(conn: Connection, user: str, *, limit: int = 50, before: str = "") -> list[Notice]:
    """What somebody was told, newest first; ``before`` is the id of the last one already seen."""
    query = select(notices).where(notices.c.user == user).order_by(notices.c.id.desc()).limit(limit)
    if before:
        query = query.where(notices.c.id < before)
    return [Notice(**row) for row in conn.execute(query).mappings()]


def unread(conn: Connection, user: str) -> list[Notice]:
    """What somebody has not seen yet, oldest first; at most 50."""
    query = (
        select(notices)
        .where(notices.c.user == user, notices.c.read_at.is_(None))
        .order_by(notices.c.id.desc())
        .limit(50)
    )
    return [Notice(**row) for row in reversed(conn.execute(query).mappings().all())]


def mark_read(conn: Connection, user: str, ids: Sequence[str], now: datetime) -> int:
    """Note that the person has seen them; how many were new."""
    if not ids:
        return 0
    return conn.execute(
        update(notices)
        .where(notices.c.user == user, notices.c.id.in_(list(ids)), notices.c.read_at.is_(None))
        .values(read_at=now)
    ).rowcount


def to_mail(conn: Connection, *, limit: int = 1000, but: Collection[str] = ()) -> list[Notice]:
    """What is to be mailed, oldest first; without those whose ids are in ``but``."""
    query = select(notices).where(_TO_MAIL).order_by(notices.c.at).limit(limit)
    if but:
        query = query.where(notices.c.id.not_in(list(but)))
    return [Notice(**row) for row in conn.execute(query).mappings()]


def mark_mailed(conn: Connection, notice_id: str, now: datetime) -> None:
    """Note that it was handed to the mail server, or is not to be mailed any more."""
    conn.execute(update(notices).where(notices.c.id == notice_id).values(mailed_at=now))


def outdated(conn: Connection, now: datetime) -> list[str]:
    """Ids of notices that nobody needs any more, at most :data:`AT_ONCE`."""
    old = or_(
        notices.c.at < now - UNREAD_KEPT, and_(notices.c.at < now - READ_KEPT, notices.c.read_at.is_not(None))
    )
    return list(conn.execute(select(notices.c.id).where(old).limit(AT_ONCE)).scalars())


def remove(conn: Connection, ids: Sequence[str]) -> int:
    """Delete notices; how many there were."""
    return conn.execute(delete(notices).where(notices.c.id.in_(list(ids)))).rowcount


#: In the words of the partial index, or SQLite would not use that.
_TO_MAIL = text("notices.mail AND notices.mailed_at IS NULL")
