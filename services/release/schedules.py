"""Schedules as rows (BX-11): made, changed, paused and deleted by their person, kept by the release service."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from datetime import date, datetime
from functools import cache
from typing import Any
from zoneinfo import available_timezones

from sqlalchemy import Connection, delete, func, insert, select, update
from ulid import ULID

from galilean.errors import UserError, mark
from services.release.calendar import DAY_MINUTES, Schedule, window_of
from services.release.tables import schedules

MOST = 20  #: of one person
_s = schedules.c
#: What their person may change.
CHANGEABLE = frozenset(
    {
        "weekdays",
        "ready_minute",
        "release_minute",
        "zone",
        "first_day",
        "last_day",
        "holidays",
        "enabled",
        "request",
    }
)
#: A change of these means other windows: what was dealt with before says nothing about them.
WINDOW = ("ready_minute", "weekdays", "zone", "first_day", "last_day")


def create(conn: Connection, schedule: Schedule) -> Schedule:
    """Keep a new one; its ``id`` is made here.

    Raises
    ------
    UserError
        400 for values that cannot be; 409 when the person has too many.
    """
    check(schedule)
    count = conn.execute(select(func.count()).where(_s.user == schedule.user)).scalar_one()
    if count >= MOST:
        raise UserError(409, mark("One person can have {n} schedules. Delete one first."), n=MOST)
    made = replace(schedule, id=str(ULID()))
    conn.execute(insert(schedules).values(**_values(made)))
    return made


def get(conn: Connection, schedule_id: str, user: str, *, to_change: bool = False) -> Schedule:
    """A schedule of this person; ``to_change``: nobody else changes it until the transaction ends.

    Raises
    ------
    UserError
        404.
    """
    query = select(schedules).where(_s.id == schedule_id, _s.user == user)
    row = conn.execute(query.with_for_update() if to_change else query).mappings().first()
    if row is None:
        raise UserError(404, mark("There is no such schedule."))
    return _schedule(row)


def list_all(conn: Connection, *, user: str | None = None, enabled_only: bool = False) -> list[Schedule]:
    """Schedules of one person or of everybody, oldest first; without those that cannot be read."""
    return rows(conn, user=user, enabled_only=enabled_only)[0]


def rows(
    conn: Connection, *, user: str | None = None, enabled_only: bool = False
) -> tuple[list[Schedule], dict[str, Exception]]:
    """The same, and why others cannot be read, by their ids."""
    query = select(schedules).order_by(_s.id)
    if user is not None:
        query = query.where(_s.user == user)
    if enabled_only:
        query = query.where(_s.enabled)
    found: list[Schedule] = []
    unreadable: dict[str, Exception] = {}
    for row in conn.execute(query).mappings():
        try:
            one = _schedule(row)
            window_of(one, date(2000, 1, 3))
            one.request.get("project")
        except Exception as error:  # such as a zone that this machine does not know
            unreadable[row["id"]] = error
        else:
            found.append(one)
    return found, unreadable


def change(
    conn: Connection, schedule_id: str, user: str, changes: Mapping[str, Any], *, now: datetime
) -> Schedule:
    """Change values of one; it holds from now on, not for what is over.

    Raises
    ------
    UserError
        404; 400 for values that cannot be.
    """
    old = get(
        conn, schedule_id, user, to_change=True
    )  # the release service may note at this moment that it is done
    new = replace(old, **{key: value for key, value in changes.items() if key in CHANGEABLE})
    check(new)
    if new == old:
        return old
    if any(getattr(new, key) != getattr(old, key) for key in WINDOW):
        new = replace(new, done_day="", run_id="")
    if new.enabled and (not old.enabled or not new.done_day):
        new = replace(new, created_at=now)
    new = replace(new, problem=None)
    conn.execute(update(schedules).where(_s.id == schedule_id).values(**_values(new)))
    return new


def remove(conn: Connection, schedule_id: str, user: str) -> None:
    """Delete one; a cluster that it started goes by its release policy from then on.

    Raises
    ------
    UserError
        404.
    """
    get(conn, schedule_id, user)
    conn.execute(delete(schedules).where(_s.id == schedule_id))


def note_done(
    conn: Connection, schedule_id: str, day: date, *, run_id: str = "", problem: dict[str, Any] | None = None
) -> bool:
    """Note that a day was dealt with; ``False`` when it was already."""
    text = day.isoformat()
    done = conn.execute(
        update(schedules)
        .where(_s.id == schedule_id, _s.done_day < text)
        .values(done_day=text, run_id=run_id, problem=problem)
    )
    return done.rowcount == 1


def check(schedule: Schedule) -> None:
    """Refuse what cannot be.

    Raises
    ------
    UserError
        400 with the sentence.
    """
    s = schedule
    days = s.weekdays
    if not days or len(set(days)) != len(days) or not all(type(day) is int and 0 <= day <= 6 for day in days):
        raise UserError(400, mark("Choose at least one day of the week."))
    for minute in (s.ready_minute, s.release_minute):
        if minute is not None and (type(minute) is not int or not 0 <= minute < DAY_MINUTES):
            raise UserError(400, mark("A time of day is between 00:00 and 23:59."))
    if s.release_minute == s.ready_minute:
        raise UserError(400, mark("A schedule must end at another time than it begins."))
    if s.zone not in _zones():
        raise UserError(
            400, mark("There is no time zone “{zone}”. Write it like Asia/Shanghai."), zone=s.zone[:60]
        )
    for day in (s.first_day, s.last_day):
        if day:
            _day(day)
    if s.first_day and s.last_day and s.first_day > s.last_day:
        raise UserError(400, mark("The last day must not be before the first."))


def minute_of(text: str) -> int:
    """``08:00`` as minutes of the day.

    Raises
    ------
    UserError
        400.
    """
    found = re.fullmatch(r"([01]?\d|2[0-3]):([0-5]\d)(?::00)?", text.strip(), re.ASCII)
    if found is None:
        raise UserError(400, mark("A time of day is between 00:00 and 23:59."))
    return int(found[1]) * 60 + int(found[2])


def clock_of(minute: int) -> str:
    """Minutes of the day as ``08:00``."""
    return f"{minute // 60:02d}:{minute % 60:02d}"


@cache
def _zones() -> frozenset[str]:
    return frozenset(available_timezones())


def _day(value: str) -> None:
    try:
        if not re.fullmatch(r"\d{4}-\d\d-\d\d", value, re.ASCII):
            raise ValueError(value)
        date.fromisoformat(value)
    except ValueError:
        raise UserError(
            400, mark("“{value}” is not a date. Write it like 2026-10-01."), value=value[:40]
        ) from None


def _values(schedule: Schedule) -> dict[str, Any]:
    values = dict(vars(schedule))
    values["weekdays"] = sorted(schedule.weekdays)
    return values


def _schedule(row: Mapping[Any, Any]) -> Schedule:
    return Schedule(**{**row, "weekdays": tuple(row["weekdays"])})
