"""When a schedule is due (BX-11): pure, on the days of its own time zone.

A schedule says minutes of a day, such as 480 for 8:00. On the two days a year on which clocks change a minute of
the day may come twice or not at all: the first of two counts, and one that is left out comes as much later as
the clock jumps (8:00 is still eight hours after midnight *by the clock on the wall*).

A window begins at ``ready_minute`` of a day and ends at ``release_minute``, of the next day where that is not
later. It can be begun until it is half over, or for an hour where it has no end: a machine that was off at eight
starts the cluster at nine, not at five to six.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

DAY_MINUTES = 24 * 60
OPEN_END_SECONDS = 3600
AHEAD_DAYS = 370


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """A cluster that is to be there at certain hours: a row of ``schedules``.

    Attributes
    ----------
    request
        What is asked for: the keys of a request (design §10) without ``project``.
    weekdays
        0 = Monday.
    ready_minute, release_minute
        Of the day in ``zone``; ``release_minute`` ``None`` = by its release policy alone.
    first_day, last_day
        ISO dates between which it holds; empty = without bound.
    holidays
        Whether it rests on the site's holidays.
    done_day
        The last day that was dealt with.
    run_id
        The run that it started last.
    problem
        Why it could not be kept the last time: ``{"message", "params"}``.
    """

    id: str
    user: str
    project_id: str
    request: dict[str, Any]
    weekdays: tuple[int, ...]
    ready_minute: int
    release_minute: int | None = None
    zone: str = "UTC"
    first_day: str = ""
    last_day: str = ""
    holidays: bool = True
    enabled: bool = True
    created_at: datetime
    done_day: str = ""
    run_id: str = ""
    problem: dict[str, Any] | None = None


@dataclass(frozen=True)
class Window:
    """One day of a schedule: from when to when the cluster is to be there."""

    day: date
    ready_at: datetime
    release_at: datetime | None

    @property
    def begin_until(self) -> datetime:
        """After this moment it is not worth beginning any more."""
        if self.release_at is None:
            return self.ready_at + timedelta(seconds=OPEN_END_SECONDS)
        return self.ready_at + (self.release_at - self.ready_at) / 2


def moment_of(day: date, minute: int, zone: str) -> datetime:
    """The moment at which the clock on the wall shows this minute of this day, UTC.

    Parameters
    ----------
    day
        In ``zone``.
    minute
        Of the day.
    zone
        Name of a time zone.
    """
    wall = datetime(day.year, day.month, day.day, minute // 60, minute % 60, tzinfo=ZoneInfo(zone), fold=0)
    return wall.astimezone(UTC)


def release_of(day: date, ready_minute: int, release_minute: int, zone: str) -> datetime:
    """When the window of a day ends: on the next day where the minute is not a later one."""
    last = day if release_minute > ready_minute else day + timedelta(days=1)
    return moment_of(last, release_minute, zone)


def window_of(schedule: Schedule, day: date) -> Window:
    """The window of a day, whether or not the schedule holds on it."""
    s = schedule
    ready_at = moment_of(day, s.ready_minute, s.zone)
    if s.release_minute is None:
        return Window(day, ready_at, None)
    return Window(day, ready_at, release_of(day, s.ready_minute, s.release_minute, s.zone))


def holds_on(schedule: Schedule, day: date, holidays: Collection[str]) -> bool:
    """Whether the schedule is kept on a day."""
    text = day.isoformat()
    return (
        schedule.enabled
        and day.weekday() in schedule.weekdays
        and (not schedule.first_day or text >= schedule.first_day)
        and (not schedule.last_day or text <= schedule.last_day)
        and not (schedule.holidays and text in holidays)
    )


def due(
    schedule: Schedule, now: datetime, holidays: Collection[str] = (), *, lead_seconds: float = 60
) -> Window | None:
    """The window to begin now, if there is one.

    Parameters
    ----------
    schedule
        What was asked for.
    now
        UTC.
    holidays
        ISO dates of the site.
    lead_seconds
        How long a start takes: it begins so much earlier.
    """
    today = (now + timedelta(seconds=lead_seconds)).astimezone(ZoneInfo(schedule.zone)).date()
    for day in (today, today - timedelta(days=1)):
        window = window_of(schedule, day)
        if (
            holds_on(schedule, day, holidays)
            and day.isoformat() > schedule.done_day
            and window.ready_at - timedelta(seconds=lead_seconds) <= now < window.begin_until
            # What somebody writes down at nine is not begun for eight o'clock of the same day.
            and window.ready_at >= schedule.created_at - timedelta(seconds=lead_seconds)
        ):
            return window
    return None


def missed(schedule: Schedule, now: datetime, holidays: Collection[str] = ()) -> Window | None:
    """A window of the last day that nobody began and that is not worth beginning any more."""
    today = now.astimezone(ZoneInfo(schedule.zone)).date()
    for day in (today - timedelta(days=1), today):
        window = window_of(schedule, day)
        if (
            holds_on(schedule, day, holidays)
            and day.isoformat() > schedule.done_day
            and window.ready_at >= schedule.created_at
            and window.begin_until <= now < window.begin_until + timedelta(days=1)
        ):
            return window
    return None


def coming(
    schedule: Schedule, now: datetime, holidays: Collection[str] = (), *, until: datetime | None = None
) -> Iterator[Window]:
    """The windows that begin from now on, in their order; at most a year ahead."""
    day = now.astimezone(ZoneInfo(schedule.zone)).date()
    for _ in range(AHEAD_DAYS):
        if holds_on(schedule, day, holidays):
            window = window_of(schedule, day)
            if until is not None and window.ready_at >= until:
                return
            if window.ready_at >= now and day.isoformat() > schedule.done_day:
                yield window
        day += timedelta(days=1)
