"""Keeping schedules (BX-11): starting clusters in time, as their people, and holding them until the end.

The hub is asked as the queue service asks it, with a token that may ``start:servers``; admission decides as for
anybody, by the person's own roles. It is asked as early as the project's last start took (a minute where there
was none). What cannot be is told to the person by notice, once; a hub that is away is asked again until the
window is half over.

A cluster that is there already is taken as the schedule's: it goes back at the schedule's end. Nobody needs to
be there while the schedule holds it, within what an extension may do: never past the hard maximum, and no
further ahead than the person might extend themselves.

A schedule that cannot be read (a zone that this machine does not know, a row that somebody wrote by hand) is
left out and told of in the log, once; everybody else's are kept.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any

from sqlalchemy import Connection, select, update
from sqlalchemy.exc import SQLAlchemyError

from galilean import notices
from galilean.clock import Clock
from galilean.db import Database
from galilean.errors import UserError, mark
from galilean.hubapi import HubAPI
from services.release import schedules
from services.release.ask import terms_of
from services.release.calendar import OPEN_END_SECONDS, Schedule, Window, due, missed, window_of
from services.release.rules import Rules
from services.release.terms import allowed_until
from spawner import records
from spawner.states import Status
from spawner.tables import clusters

log = logging.getLogger("galilean.release")

LEAD_SECONDS = 60.0
LEAD_MOST_SECONDS = 600.0
#: A start is a little longer at eight, when everybody starts.
MARGIN_SECONDS = 15.0
AT_ONCE = 8


@dataclass(frozen=True)
class Due:
    """A schedule to begin now."""

    schedule: Schedule
    window: Window


def is_final(error: UserError) -> bool:
    """Whether asking again in a moment would bring the same answer."""
    if error.status == 429:
        return error.reason == "quota"
    text = str(error)
    if error.status == 400 and ("is pending" in text or "already running" in text):
        return False
    if error.status == 403 and "scopes" in text:
        return False  # our own token may not: that is nobody's schedule's fault
    return error.status in (400, 403, 404)


class Keeper:
    """The part of the release service that keeps schedules; :meth:`keep` is one round.

    Parameters
    ----------
    db, hub, clock
        Handed in.
    """

    def __init__(self, db: Database, hub: HubAPI, *, clock: Clock) -> None:
        self.db, self.hub, self.clock = db, hub, clock
        self._slots = asyncio.Semaphore(AT_ONCE)
        self._under_way: dict[str, asyncio.Task[None]] = {}
        self._unreadable: set[str] = set()

    async def keep(self, rules: Rules) -> None:
        """Begin what is due, hold what was begun, tell of what was missed. Starts go on beside the round."""
        now = self.clock()
        wanted = await self.db.run_read(self._wanted, rules.site.holidays, now)
        if wanted.nothing:
            return
        if wanted.missed or wanted.there or wanted.to_hold:
            await self.db.run(_write, wanted, now)
        for one in wanted.due:
            if one.schedule.id not in self._under_way:
                task = asyncio.create_task(self._begin(one))
                self._under_way[one.schedule.id] = task
                task.add_done_callback(lambda _, key=one.schedule.id: self._under_way.pop(key, None))

    async def settle(self) -> None:
        """Wait for the starts that are under way."""
        await asyncio.gather(*self._under_way.values())

    def _wanted(self, conn: Connection, holidays: Sequence[str], now: datetime) -> Wanted:
        found = Wanted()
        rows, unreadable = schedules.rows(conn, enabled_only=True)
        for schedule in rows:
            try:
                self._look(conn, schedule, holidays, now, found)
            except SQLAlchemyError:
                raise
            except Exception as error:
                unreadable[schedule.id] = error
        for schedule_id in unreadable.keys() - self._unreadable:
            log.error("schedule %s cannot be kept: %r", schedule_id, unreadable[schedule_id])
        self._unreadable = set(unreadable)
        return found

    def _look(
        self, conn: Connection, schedule: Schedule, holidays: Sequence[str], now: datetime, found: Wanted
    ) -> None:
        lead = _lead_seconds(conn, schedule, now) if _soon(schedule, now, holidays) else LEAD_SECONDS
        window = due(schedule, now, holidays, lead_seconds=lead)
        if window is not None:
            _params(
                Due(schedule, window)
            )  # what is told of it must not fail later, when others are written, too
            run = records.open_run(conn, schedule.user, str(schedule.request.get("server", "")))
            if run is None or run.stop_asked_at is not None:
                found.due.append(Due(schedule, window))
            else:
                found.there.append((Due(schedule, window), run.id))
        elif (over := missed(schedule, now, holidays)) is not None:
            _params(Due(schedule, over))
            found.missed.append(Due(schedule, over))
        elif schedule.run_id:
            found.to_hold += _to_hold(conn, schedule, now)

    async def _begin(self, one: Due) -> None:
        schedule = one.schedule
        request = schedule.request
        options = {**(request.get("options") or {}), "project": request.get("project")}
        async with self._slots:
            try:
                await self.hub.start(schedule.user, str(request.get("server", "")), options)
            except UserError as error:
                if error.status == 503 and error.reason == "queued":
                    await self.db.run(_waits, one, self.clock())
                elif is_final(error):
                    await self.db.run(_refused, one, error, self.clock())
                    log.info("schedule %s of %s was not kept: %s", schedule.id, schedule.user, error)
                else:
                    log.warning("schedule %s of %s: %s; asked again", schedule.id, schedule.user, error)
                return
            except Exception:
                log.exception("schedule %s of %s", schedule.id, schedule.user)
                return
        log.info("schedule %s started %s/%s", schedule.id, schedule.user, request.get("server"))
        await self.db.run(_begun, one)


@dataclass
class Wanted:
    """What a round has to do."""

    due: list[Due]
    there: list[tuple[Due, str]]
    missed: list[Due]
    to_hold: list[tuple[str, datetime]]

    def __init__(self) -> None:
        self.due, self.there, self.missed, self.to_hold = [], [], [], []

    @property
    def nothing(self) -> bool:
        return not (self.due or self.there or self.missed or self.to_hold)


def _soon(schedule: Schedule, now: datetime, holidays: Sequence[str]) -> bool:
    return due(schedule, now, holidays, lead_seconds=LEAD_MOST_SECONDS) is not None


def _lead_seconds(conn: Connection, schedule: Schedule, now: datetime) -> float:
    """How long the last start of this project took its person."""
    c = clusters.c
    row = conn.execute(
        select(c.reserved_at, c.queued_at, c.ready_at)
        .where(c.project_id == schedule.project_id, c.user == schedule.user, c.ready_at.is_not(None))
        .order_by(c.queued_at.desc())
        .limit(1)
    ).first()
    if row is None:
        return LEAD_SECONDS
    took = (row.ready_at - (row.reserved_at or row.queued_at)).total_seconds()
    return min(max(took, 0.0) + MARGIN_SECONDS, LEAD_MOST_SECONDS)


def _to_hold(conn: Connection, schedule: Schedule, now: datetime) -> list[tuple[str, datetime]]:
    """Until when the schedule holds its cluster, once it is ready and nobody has extended it."""
    run = records.get(conn, schedule.run_id)
    if run is None or run.status != Status.RUNNING or run.ready_at is None or run.extended_until is not None:
        return []
    end = _end_of(schedule)
    if end is None or end <= now:
        return []
    most, _ = allowed_until(terms_of(run), held_since=run.ready_at, now=now)
    return [(run.id, min(end, most))]


def _end_of(schedule: Schedule) -> datetime | None:
    if not schedule.done_day:
        return None
    window = window_of(schedule, date.fromisoformat(schedule.done_day))
    return window.release_at or window.ready_at + timedelta(seconds=OPEN_END_SECONDS)


def _write(conn: Connection, wanted: Wanted, now: datetime) -> None:
    for run_id, until in wanted.to_hold:
        conn.execute(
            update(clusters)
            .where(clusters.c.id == run_id, clusters.c.extended_until.is_(None))
            .values(extended_until=until)
        )
    for one, run_id in wanted.there:
        schedules.note_done(conn, one.schedule.id, one.window.day, run_id=run_id)
    for one in wanted.missed:
        _not_kept(conn, one, _AWAY, {}, now)


def _begun(conn: Connection, one: Due) -> None:
    run = records.open_run(conn, one.schedule.user, str(one.schedule.request.get("server", "")))
    schedules.note_done(conn, one.schedule.id, one.window.day, run_id=run.id if run else "")


def _waits(conn: Connection, one: Due, now: datetime) -> None:
    run = records.open_run(conn, one.schedule.user, str(one.schedule.request.get("server", "")))
    if schedules.note_done(conn, one.schedule.id, one.window.day, run_id=run.id if run else ""):
        _tell(conn, one, _IN_LINE, {}, now, cluster_id=run.id if run else "")


def _refused(conn: Connection, one: Due, error: UserError, now: datetime) -> None:
    _not_kept(conn, one, _NOT_STARTED, {"why": str(error)[:500]}, now)


def _not_kept(conn: Connection, one: Due, text: str, params: dict[str, Any], now: datetime) -> None:
    problem = {"message": text, "params": {**params, **_params(one)}}
    if schedules.note_done(conn, one.schedule.id, one.window.day, problem=problem):
        _tell(conn, one, text, params, now)


def _params(one: Due) -> dict[str, Any]:
    return {
        "project": str(one.schedule.request.get("name") or one.schedule.request.get("project") or ""),
        "wanted_at": one.window.ready_at.isoformat(),
    }


def _tell(
    conn: Connection, one: Due, text: str, params: dict[str, Any], now: datetime, *, cluster_id: str = ""
) -> None:
    notices.tell(
        conn,
        one.schedule.user,
        now=now,
        kind="schedule",
        text=text,
        cluster_id=cluster_id,
        address="schedules",
        mail=True,
        **{**params, **_params(one)},
    )


_IN_LINE = mark("{project} was to be ready at {wanted_at}, and there is no room now. It waits in line.")
_NOT_STARTED = mark("{project} was to be ready at {wanted_at} and was not started: {why}")
_AWAY = mark("{project} was to be ready at {wanted_at}, and the platform was away then. It was not started.")
