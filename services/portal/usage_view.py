"""What somebody asks of machine time, as pages and the API say it: by what, of whom, which days (CG-25, AP-22).

The address says everything, so that a view can be sent as a link. One's own, and everybody's with the right;
whoever lacks it never sees a line of somebody else, whatever the address says.
"""

from __future__ import annotations

import time as clocks
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, timedelta
from typing import Any
from urllib.parse import urlencode

from galilean.errors import UserError, mark
from galilean.web.context import Portal
from galilean.web.visitor import Visitor
from services.metering.report import KINDS, Line, Report, Window, name_projects, report
from services.portal.shelf import titles

RIGHT = "usage:read-all"
SPANS = {
    "7": mark("7 days"),
    "30": mark("30 days"),
    "90": mark("90 days"),
    "365": mark("A year"),
    "month": mark("This month"),
    "last-month": mark("Past month"),
    "all": mark("All time"),
}
FILTERS = ("user", "project", "environment", "role", "pool")
PAGE_SIZE = 50
PEOPLE_SECONDS = 60.0

#: How lines can be put in order; days and months also by themselves (``key``).
SORTS: dict[str, Callable[[Line], Any]] = {
    "key": lambda line: line.key,
    "name": lambda line: (line.label.casefold(), line.key),
    "time": lambda line: line.wall_us,
    "cpu": lambda line: line.cpu,
    "memory": lambda line: line.memory,
    "gpu": lambda line: line.gpu,
    "nodes": lambda line: line.node_us,
    "idle": lambda line: line.idle_us,
    "idle_percent": lambda line: -1.0 if line.idle_percent is None else line.idle_percent,
    "used": lambda line: -1.0 if line.cpu_percent is None else line.cpu_percent,
}


@dataclass(frozen=True, kw_only=True)
class UsageView:
    """A view; unknown values fall back to what shows more.

    Attributes
    ----------
    days
        A key of :data:`SPANS`, or empty where ``first`` and ``last`` say which days (both included).
    """

    by: str = "project"
    days: str = "30"
    first: date | None = None
    last: date | None = None
    user: str = ""
    project: str = ""
    environment: str = ""
    role: str = ""
    pool: str = ""
    text: str = ""
    sort: str = ""
    descending: bool = True
    offset: int = 0

    @classmethod
    def parse(cls, query: dict[str, str], *, by: str = "project") -> UsageView:
        """A view from the query of an address; ``by`` where it says nothing."""
        order = query.get("sort", "")
        sort, descending = order.removeprefix("-"), order.startswith("-")
        asked = query.get("by", by)
        first, last = _day(query.get("from", "")), _day(query.get("to", ""))
        if first and last and first > last:
            first, last = last, first
        days = query.get("days", "30")
        start = query.get("start", "0")
        return cls(
            by=asked if asked in KINDS else by,
            days="" if first or last else days if days in SPANS else "30",
            first=first,
            last=last,
            **{name: query.get(name, "")[:255] for name in FILTERS},  # type: ignore[arg-type]
            text=query.get("q", "").strip()[:100],
            sort=sort if sort in SORTS else "",
            descending=descending,
            offset=min(int(start), 1_000_000) if start.isascii() and start.isdigit() else 0,
        )

    @property
    def timed(self) -> bool:
        """Whether lines are days or months."""
        return self.by in ("day", "month")

    @property
    def order(self) -> tuple[str, bool]:
        """Column and whether from large to small: time held until asked otherwise, the latest day first."""
        return (self.sort, self.descending) if self.sort else ("key" if self.timed else "time", True)

    def window(self, today: date) -> Window:
        """The days that it means."""
        if self.first or self.last:
            return Window(first=self.first, last=self.last)
        if self.days == "all":
            return Window()
        if self.days == "month":
            return Window(first=today.replace(day=1), last=today)
        if self.days == "last-month":
            last = today.replace(day=1) - timedelta(days=1)
            return Window(first=last.replace(day=1), last=last)
        return Window(first=today - timedelta(days=int(self.days) - 1), last=today)

    def filters(self) -> dict[str, str]:
        """What is filtered by, as the query names it."""
        return {name: value for name in FILTERS if (value := getattr(self, name))}

    def query(self, **changes: Any) -> str:
        """The query of this view with some things changed; goes back to the top."""
        if changes.get("days"):
            changes |= {"first": None, "last": None}
        view = replace(self, **{"offset": 0, **changes})
        values = {
            "by": view.by,
            "days": "" if view.first or view.last else view.days,
            "from": view.first.isoformat() if view.first else "",
            "to": view.last.isoformat() if view.last else "",
            **view.filters(),
            "q": view.text,
            "sort": ("-" if view.descending else "") + view.sort if view.sort else "",
            "start": str(view.offset) if view.offset else "",
        }
        return urlencode({key: value for key, value in values.items() if value})

    def sorted_by(self, key: str) -> str:
        """The query after a click on a column's head."""
        sort, descending = self.order
        return self.query(sort=key, descending=not descending if key == sort else key != "name")


def _day(text: str) -> date | None:
    try:
        return date.fromisoformat(text) if len(text) == 10 else None
    except ValueError:
        return None


@dataclass(frozen=True, kw_only=True)
class Seen:
    """A report as somebody sees it: the lines of a view in its order, and what they add up to."""

    lines: list[Line]
    report: Report


async def see(
    portal: Portal, person: Visitor, view: UsageView, *, everybody: bool, whole: bool = False
) -> Seen:
    """The report of a view; of projects, only the lines of its page have names, unless the ``whole`` is wanted.

    Raises
    ------
    UserError
        400 for too many days, 403 for somebody else's without the right.
    """
    found = await read(
        portal,
        person,
        view.by,
        view.window(today_of(portal)),
        view.filters(),
        everybody=everybody,
        named=(first_named := whole or bool(view.text) or view.sort == "name"),
    )
    lines = arranged(found.lines, view)
    if view.by == "project" and not first_named:
        shown = lines[view.offset : view.offset + PAGE_SIZE]
        await portal.db.run_read(name_projects, shown)
    return Seen(lines=lines, report=found)


async def read(
    portal: Portal,
    person: Visitor,
    by: str,
    window: Window,
    filters: dict[str, str],
    *,
    everybody: bool,
    named: bool = True,
) -> Report:
    """A report, with names that people know; one's own only unless ``everybody``.

    Raises
    ------
    UserError
        400 for too many days, 403 for somebody else's without the right.
    """
    user = filters.get("user")
    if not person.may(RIGHT):
        if everybody or (user and user != person.name):
            raise UserError(403, mark("You see your own machine time only."))
        user = person.name
    elif not everybody:
        user = user or person.name
    settings = portal.settings
    try:
        found = await portal.db.run_read(
            report,
            by=by,  # type: ignore[arg-type]
            window=window,
            zone=settings.site.zone,
            now=portal.clock(),
            named=named,
            user=user,
            project_id=filters.get("project"),
            environment=filters.get("environment"),
            role=filters.get("role"),
            pool=filters.get("pool"),
        )
    except (ValueError, OverflowError):  # or days of before the calendar
        raise UserError(400, mark("At most ten years of days can be shown at once.")) from None
    if by == "pool":
        _title(found.lines, {name: pool.title for name, pool in settings.pools.items()})
    elif by == "environment":
        known = await titles(portal)
        _title(found.lines, known)
        for line in found.lines:
            line.deleted = line.key not in known
    elif by == "user" and found.lines:
        there = await people(portal)
        for line in found.lines:
            line.deleted = bool(there) and line.key not in there
    return found


def _title(lines: Sequence[Line], titles: Mapping[str, str]) -> None:
    for line in lines:
        line.label = titles.get(line.key) or line.label


async def people(portal: Portal) -> frozenset[str]:
    """Names of all who have an account, some seconds ago; empty while the hub is away."""
    known: tuple[float, frozenset[str]] | None = portal.parts.get("people_there")
    if known is None or clocks.monotonic() - known[0] > PEOPLE_SECONDS:
        try:
            names = frozenset(str(user["name"]) for user in await portal.hub.users())
        except UserError:
            return known[1] if known else frozenset()
        known = portal.parts["people_there"] = (clocks.monotonic(), names)
    return known[1]


def today_of(portal: Portal) -> date:
    """The site's day."""
    return portal.clock().astimezone(portal.settings.site.zone).date()


def arranged(lines: Sequence[Line], view: UsageView) -> list[Line]:
    """The lines that a search leaves, in the order of the view; equals by key, so that they stay in place."""
    words = view.text.casefold().split()
    fitting = [
        line for line in lines if all(word in f"{line.label}\n{line.owner}".casefold() for word in words)
    ]
    sort, descending = view.order
    fitting.sort(key=lambda line: line.key)
    fitting.sort(key=SORTS[sort], reverse=descending)
    return fitting
