"""When a budget's period begins and ends: days, weeks, months and terms of the site's zone.

On which day a week begins and when terms are is the centre's to say (its value ``calendar``); where it says
nothing, weeks begin on Monday and a term is half a year. The time between two terms is a period of its
own, so that a budget per term holds on every day.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from itertools import pairwise
from typing import Any

from galilean.errors import UserError, mark

CALENDAR = "calendar"
WEEKDAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")


@dataclass(frozen=True)
class Term:
    """A term; both days are part of it."""

    name: str
    first_day: date
    last_day: date


@dataclass(frozen=True)
class Calendar:
    """How the centre divides time; ``week_starts`` is 0 for Monday."""

    week_starts: int = 0
    terms: tuple[Term, ...] = field(default=())

    @classmethod
    def parse(cls, value: Any) -> Calendar:
        """The calendar of a JSON value; ``None`` = the product's own.

        Raises
        ------
        UserError
            400 in words.
        """
        if value is None:
            return cls()
        wrong = UserError(
            400,
            mark(
                "The calendar is written like {example}.",
            ),
            example='{"week_starts": "monday", "terms": [{"name": "Autumn", "first_day": "2026-09-01", '
            '"last_day": "2027-01-31"}]}',
        )
        if not isinstance(value, dict) or not set(value) <= {"week_starts", "terms"}:
            raise wrong
        starts = value.get("week_starts", "monday")
        if starts not in WEEKDAYS:
            raise wrong
        try:
            terms = [
                Term(
                    str(term["name"])[:64],
                    date.fromisoformat(str(term["first_day"])),
                    date.fromisoformat(str(term["last_day"])),
                )
                for term in value.get("terms") or []
            ]
        except (KeyError, TypeError, ValueError):
            raise wrong from None
        terms.sort(key=lambda term: term.first_day)
        for term in terms:
            if term.last_day < term.first_day:
                raise UserError(400, mark("The term “{name}” ends before it begins."), name=term.name)
        for term, following in pairwise(terms):
            if following.first_day <= term.last_day:
                raise UserError(
                    400,
                    mark("The terms “{name}” and “{other}” overlap."),
                    name=term.name,
                    other=following.name,
                )
        return cls(WEEKDAYS.index(starts), tuple(terms))

    def as_value(self) -> dict[str, Any]:
        """The JSON value that :meth:`parse` reads."""
        return {
            "week_starts": WEEKDAYS[self.week_starts],
            "terms": [
                {
                    "name": term.name,
                    "first_day": term.first_day.isoformat(),
                    "last_day": term.last_day.isoformat(),
                }
                for term in self.terms
            ],
        }


def span(period: str, now: datetime, zone: tzinfo, calendar: Calendar) -> tuple[datetime, datetime]:
    """Beginning and end, in UTC, of the period in which ``now`` lies."""
    first, following = days_of(period, now.astimezone(zone).date(), calendar)
    return _midnight(first, zone), _midnight(following, zone)


def days_of(period: str, today: date, calendar: Calendar) -> tuple[date, date]:
    """First day of the period, and first day of the next."""
    if period == "day":
        return today, today + timedelta(days=1)
    if period == "week":
        first = today - timedelta(days=(today.weekday() - calendar.week_starts) % 7)
        return first, first + timedelta(days=7)
    if period == "month":
        first = today.replace(day=1)
        return first, (first + timedelta(days=31)).replace(day=1)
    if period == "term":
        return _term(today, calendar)
    raise ValueError(period)


def _term(today: date, calendar: Calendar) -> tuple[date, date]:
    begin, end = date(today.year, 1, 1), date(today.year, 7, 1)
    if today >= end:
        begin, end = end, date(today.year + 1, 1, 1)
    if not calendar.terms:
        return begin, end
    begin, end = date(today.year - 1, 1, 1), date(today.year + 2, 1, 1)
    for term in calendar.terms:
        after = term.last_day + timedelta(days=1)
        if term.first_day <= today < after:
            return term.first_day, after
        if after <= today:
            begin = after
        elif term.first_day > today:
            end = min(end, term.first_day)
    return begin, end


def _midnight(day: date, zone: tzinfo) -> datetime:
    # Where clocks jump over midnight, the old offset gives the moment of the jump: the day's first.
    return datetime.combine(day, time(), tzinfo=zone).astimezone(UTC)
