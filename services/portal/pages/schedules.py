"""Schedules and the calendar (BX-2, BX-11): what of mine starts and goes back when; everybody's for admins."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any
from zoneinfo import ZoneInfo, available_timezones

from galilean.errors import UserError, mark
from galilean.web.handlers import PageHandler
from services.portal import releases
from services.portal.api import projects
from services.portal.api import release_models as said
from services.portal.releases import Entry
from services.release import rules, schedules

WEEKDAYS = (
    mark("Monday"),
    mark("Tuesday"),
    mark("Wednesday"),
    mark("Thursday"),
    mark("Friday"),
    mark("Saturday"),
    mark("Sunday"),
)
PROJECTS_MOST = 200


@dataclass(frozen=True)
class Day:
    """One day of the calendar, with what happens on it."""

    day: date
    entries: list[Entry]


def by_day(entries: list[Entry], zone: Any) -> list[Day]:
    """Entries in their order, under the days of the site."""
    days: dict[date, list[Entry]] = {}
    for entry in entries:
        days.setdefault(entry.at.astimezone(zone).date(), []).append(entry)
    return [Day(day, found) for day, found in sorted(days.items())]


def clock_at(at: datetime, zone: str) -> str:
    """``08:00`` in a zone."""
    return f"{at.astimezone(ZoneInfo(zone)):%H:%M}"


def moment_at(at: datetime, zone: str) -> str:
    """``2026-03-02 08:00`` in a zone."""
    return f"{at.astimezone(ZoneInfo(zone)):%Y-%m-%d %H:%M}"


WORDS = {"clock_at": clock_at, "moment_at": moment_at}


class Page(PageHandler):
    async def values(self) -> dict[str, Any]:
        """What the whole page and its part need."""
        portal, now = self.portal, self.portal.clock()
        zone = portal.settings.site.zone
        found, known = await portal.db.run_read(
            lambda conn: (schedules.list_all(conn, user=self.person.name), rules.read(conn))
        )
        entries = await releases.read_calendar(portal, user=self.person.name)
        return {
            "schedules": [
                releases.schedule_model(one, now, known.site.holidays, self.translate, zone) for one in found
            ],
            "days": by_day(entries, zone),
            "why": lambda word: releases.why_in_words(word, self.translate),
            "weekdays": [self.translate(name) for name in WEEKDAYS],
            "zones": sorted(available_timezones()),
            "site_zone": portal.settings.site.timezone,
            "everybody": False,
            **WORDS,
        }


class Schedules(Page):
    async def get(self) -> None:
        items, _ = await projects.list_projects(
            self.portal, self.person, query="", sort="name", limit=PROJECTS_MOST, cursor=None, owner=None
        )
        await self.render_page(
            "schedules.html",
            projects=items,
            chosen=self.get_query_argument("project", ""),
            **await self.values(),
        )

    async def post(self) -> None:
        await releases.make_schedule(
            self.portal, self.person, said.NewSchedule(**self.sent(), project=self.text("project"))
        )
        self.toast(self.translate(mark("The schedule is kept from now on.")))
        await self.render_fragment("schedules_list.html", **await self.values())

    def text(self, name: str) -> str:
        return self.get_body_argument(name, "").strip()

    def sent(self) -> dict[str, Any]:
        """What the form says of times and days, short enough for the models."""
        days = [int(day) for day in self.get_body_arguments("weekday") if day in tuple("0123456")]
        if not self.text("ready"):
            raise UserError(400, mark("Say at what time it is to be ready."))
        return {
            "ready": self.text("ready")[:8],
            "release": self.text("release")[:8] or None,
            "weekdays": days[:7],
            "zone": self.text("zone")[:64] or self.portal.settings.site.timezone,
            "first_day": self.text("first_day")[:10],
            "last_day": self.text("last_day")[:10],
            "holidays": self.get_body_argument("holidays", "") != "",
        }


class Schedule(Schedules):
    async def get(self) -> None:  # its page is the list
        self.redirect(self.portal.prefix + "schedules")

    async def post(self, schedule_id: str) -> None:  # type: ignore[override]
        what = self.text("do")
        done: Mapping[str, str] = {
            "pause": mark("Paused. Nothing starts until you go on with it."),
            "resume": mark("The schedule is kept from now on."),
            "save": mark("Saved."),
            "delete": mark("The schedule is deleted. What runs goes by its release policy."),
        }
        if what not in done:
            raise UserError(400, mark("This button is not known."))
        if what == "delete":
            await self.portal.db.run(schedules.remove, schedule_id, self.person.name)
        else:
            change = (
                said.ScheduleChange(**self.sent())
                if what == "save"
                else said.ScheduleChange(enabled=what == "resume")
            )
            await releases.change_schedule(self.portal, self.person, schedule_id, change)
        self.toast(self.translate(done[what]))
        await self.render_fragment("schedules_list.html", **await self.values())


class Calendar(PageHandler):
    """Everybody's."""

    right = "clusters:read-all"

    async def get(self) -> None:
        zone = self.portal.settings.site.zone
        entries = await releases.read_calendar(self.portal, user=None)
        await self.render_page(
            "admin_calendar.html",
            days=by_day(entries, zone),
            why=lambda word: releases.why_in_words(word, self.translate),
            everybody=True,
            site_zone=self.portal.settings.site.timezone,
            **WORDS,
        )


def routes() -> list[tuple[str, type[Any]]]:
    """Addresses of this module, relative to the portal's prefix."""
    return [
        (r"/schedules", Schedules),
        (r"/schedules/([0-9A-Z]{26})", Schedule),
        (r"/admin/calendar", Calendar),
    ]
