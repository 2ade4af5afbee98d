"""Release by the API: extend, when done, notices, schedules, the calendar (BX-2, BX-11, BX-15)."""

from __future__ import annotations

from typing import Any
from zoneinfo import ZoneInfo, available_timezones

from galilean import notices
from galilean.errors import UserError, mark
from galilean.web.handlers import APIHandler
from services.portal import releases
from services.portal.api import release_models as models
from services.portal.api.base import Handler
from services.portal.api.clusters import cluster_for
from services.portal.api.models import ListOf
from services.portal.api.operation import PAGED, Operation
from services.portal.longer import extend_cluster, go_on_without
from services.release import rules, schedules

ZONE = {"zone": "In whose hours texts are written, such as Asia/Shanghai; left out = the site's."}


class ReleaseHandler(Handler):
    def zone(self) -> ZoneInfo:
        """``?zone=``: the reader's time zone."""
        name = self.query("zone")
        return ZoneInfo(name) if name in available_timezones() else self.portal.settings.site.zone

    async def answer(self, run_id: str) -> None:
        run = await cluster_for(self.portal, self.person, run_id)
        self.write_json(await releases.outlook(self.portal, run, self.translate))


class Outlook(ReleaseHandler):
    async def get(self, run_id: str) -> None:
        await self.answer(run_id)


class Extend(ReleaseHandler):
    async def post(self, run_id: str) -> None:
        body = self.body(models.ExtendCluster) if self.request.body else models.ExtendCluster()
        run = await cluster_for(self.portal, self.person, run_id)
        await extend_cluster(
            self.portal, self.person, run, seconds=body.seconds, until=releases.moment(body.until)
        )
        await self.answer(run_id)


class WhenDone(ReleaseHandler):
    async def post(self, run_id: str) -> None:
        run = await cluster_for(self.portal, self.person, run_id)
        await go_on_without(self.portal, self.person, run)
        await self.answer(run_id)


class Notices(ReleaseHandler):
    async def get(self) -> None:
        unread, limit = self.word("state", "unread", "all") == "unread", self.limit()
        found, about = await releases.notices_for(
            self.portal, self.person, unread_only=unread, limit=limit, before=self.query("cursor")
        )
        zone = self.zone()
        self.write_json(
            ListOf[models.Notice](
                items=[
                    releases.notice_model(self.portal, notice, about, self.translate, zone)
                    for notice in found[:limit]
                ],
                next=found[limit - 1].id if not unread and len(found) > limit else None,
            )
        )


class NoticesRead(ReleaseHandler):
    async def post(self) -> None:
        body = self.body(models.NoticesRead)
        await self.portal.db.run(notices.mark_read, self.person.name, body.ids, self.portal.clock())
        self.set_status(204)


class Schedules(ReleaseHandler):
    async def get(self) -> None:
        found, known = await self.portal.db.run_read(
            lambda conn: (schedules.list_all(conn, user=self.person.name), rules.read(conn))
        )
        self.write_json(ListOf[models.Schedule](items=[self.model(one, known) for one in found]))

    async def post(self) -> None:
        made = await releases.make_schedule(self.portal, self.person, self.body(models.NewSchedule))
        self.set_header("Location", f"{self.portal.prefix}api/v1/schedules/{made.id}")
        self.write_json(self.model(made, await self.portal.db.run_read(rules.read)), 201)

    def model(self, schedule: Any, known: rules.Rules) -> models.Schedule:
        return releases.schedule_model(
            schedule, self.portal.clock(), known.site.holidays, self.translate, self.zone()
        )


class Schedule(Schedules):
    async def get(self, schedule_id: str) -> None:  # type: ignore[override]
        found = await self.portal.db.run_read(schedules.get, schedule_id, self.person.name)
        self.write_json(self.model(found, await self.portal.db.run_read(rules.read)))

    async def patch(self, schedule_id: str) -> None:
        body = self.body(models.ScheduleChange)
        found = await releases.change_schedule(self.portal, self.person, schedule_id, body)
        self.write_json(self.model(found, await self.portal.db.run_read(rules.read)))

    async def delete(self, schedule_id: str) -> None:
        await self.portal.db.run(schedules.remove, schedule_id, self.person.name)
        self.set_status(204)


class Calendar(ReleaseHandler):
    async def get(self) -> None:
        everybody = self.word("of", "me", "everybody") == "everybody"
        if everybody and not self.person.may("clusters:read-all"):
            raise UserError(403, mark("You see your own clusters only."))
        found = await releases.read_calendar(self.portal, user=None if everybody else self.person.name)
        self.write_json(
            ListOf[models.CalendarEntry](items=[models.CalendarEntry(**vars(entry)) for entry in found])
        )


ID = "/clusters/{id}"
OPERATIONS: tuple[Operation, ...] = (
    Operation(
        method="get",
        path=ID + "/release",
        summary="When a cluster goes back, and how far it may be extended",
        answers={200: models.ReleaseOutlook},
    ),
    Operation(
        method="post",
        path=ID + "/extend",
        summary="Hold one's own cluster longer, within what is allowed",
        takes=models.ExtendCluster,
        answers={200: models.ReleaseOutlook},
    ),
    Operation(
        method="post",
        path=ID + "/when-done",
        summary="Go on without me: it goes back when it is left and nothing runs any more",
        answers={200: models.ReleaseOutlook},
    ),
    Operation(
        method="get",
        path="/notices",
        summary="What one is told: warnings, releases, schedules that were not kept",
        query={"state": "unread (default) or all.", **PAGED, **ZONE},
        answers={200: ListOf[models.Notice]},
    ),
    Operation(
        method="post",
        path="/notices/read",
        summary="Note that one has seen them",
        takes=models.NoticesRead,
        answers={204: None},
    ),
    Operation(
        method="get",
        path="/schedules",
        summary="One's own schedules with their next times",
        query=ZONE,
        answers={200: ListOf[models.Schedule]},
    ),
    Operation(
        method="post",
        path="/schedules",
        summary="Have a cluster ready at certain hours",
        takes=models.NewSchedule,
        answers={201: models.Schedule},
    ),
    Operation(
        method="get", path="/schedules/{id}", summary="Look at a schedule", answers={200: models.Schedule}
    ),
    Operation(
        method="patch",
        path="/schedules/{id}",
        summary="Change or pause a schedule",
        takes=models.ScheduleChange,
        answers={200: models.Schedule},
    ),
    Operation(
        method="delete",
        path="/schedules/{id}",
        summary="Delete a schedule; its cluster goes by its policy then",
        answers={204: None},
    ),
    Operation(
        method="get",
        path="/calendar",
        summary="What starts and what goes back in the next fourteen days",
        query={"of": "me (default) or everybody, with the right."},
        answers={200: ListOf[models.CalendarEntry]},
    ),
)


def routes() -> list[tuple[str, type[APIHandler]]]:
    """Addresses, relative to the portal's prefix."""
    cluster = r"/api/v1/clusters/([0-9A-Z]{26})"
    return [
        (cluster + "/release", Outlook),
        (cluster + "/extend", Extend),
        (cluster + "/when-done", WhenDone),
        (r"/api/v1/notices", Notices),
        (r"/api/v1/notices/read", NoticesRead),
        (r"/api/v1/schedules", Schedules),
        (r"/api/v1/schedules/([0-9A-Z]{26})", Schedule),
        (r"/api/v1/calendar", Calendar),
    ]
