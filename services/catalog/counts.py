"""Views and favourites: counted once per person and day, and never for one's own.

The first look of a day is a row; that it is there already is no fault, whoever was first. What is counted
stands on the card, moved in the same transaction, so that a list need not count anything.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date, datetime

from sqlalchemy import Connection, delete, exists, insert, select
from sqlalchemy.exc import IntegrityError

from services.catalog import cards
from services.catalog.access import Kind
from services.catalog.tables import cards as cards_table
from services.catalog.tables import counted, favourites

#: What is counted, and the count of the card that it moves.
WHAT = {"view": "views", "use": "uses"}


def once(conn: Connection, kind: Kind, item_id: str, *, what: str, person: str, day: date) -> bool:
    """Count something that a person did today, if it is the first time today; whether it was.

    Parameters
    ----------
    conn
        A transaction that writes.
    kind, item_id
        The project or data set.
    what
        ``view``: opened it. ``use``: forked it, or took it into a project.
    person
        Who. Whether it is their own is the caller's to know: owners are not counted.
    day
        Of the site's zone.
    """
    key = {"kind": kind, "item_id": item_id, "what": what, "person": person, "day": day}
    if conn.execute(
        select(exists().where(*(counted.c[name] == value for name, value in key.items())))
    ).scalar():
        return False
    try:
        with conn.begin_nested():
            conn.execute(insert(counted).values(**key))
    except IntegrityError:  # in another page of theirs, a moment ago
        return False
    cards.count(conn, kind, item_id, WHAT[what], 1)
    return True


def favour(conn: Connection, kind: Kind, item_id: str, person: str, *, now: datetime) -> bool:
    """Make it somebody's favourite; whether it was not before."""
    key = {"person": person, "kind": kind, "item_id": item_id}
    try:
        with conn.begin_nested():
            conn.execute(insert(favourites).values(**key, at=now))
    except IntegrityError:
        return False
    cards.count(conn, kind, item_id, "favourites", 1)
    return True


def unfavour(conn: Connection, kind: Kind, item_id: str, person: str) -> bool:
    """The way back; whether it was one."""
    done = conn.execute(
        delete(favourites).where(
            favourites.c.person == person, favourites.c.kind == kind, favourites.c.item_id == item_id
        )
    ).rowcount
    if done:
        cards.count(conn, kind, item_id, "favourites", -1)
    return bool(done)


def favourites_of(conn: Connection, kind: Kind, item_id: str) -> int:
    """How many people's favourite it is."""
    found = conn.execute(
        select(cards_table.c.favourites).where(cards_table.c.kind == kind, cards_table.c.item_id == item_id)
    ).scalar()
    return int(found or 0)


def favourites_among(conn: Connection, kind: Kind, item_ids: Iterable[str], person: str) -> set[str]:
    """Which of these are somebody's favourites: the filled stars of a page."""
    return set(
        conn.execute(
            select(favourites.c.item_id).where(
                favourites.c.person == person,
                favourites.c.kind == kind,
                favourites.c.item_id.in_(list(item_ids)),
            )
        ).scalars()
    )


def forget_person(conn: Connection, person: str) -> int:
    """Take back the favourites of somebody who is deleted; how many."""
    rows = conn.execute(
        select(favourites.c.kind, favourites.c.item_id).where(favourites.c.person == person)
    ).all()
    return sum(unfavour(conn, kind, item_id, person) for kind, item_id in rows)
