"""What pages and API do about release: extending, notices, schedules, the calendar. One function each for both."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from pydantic import ValidationError
from sqlalchemy import Connection

from galilean import notices
from galilean.errors import UserError, mark, render
from galilean.notices import Notice
from galilean.web.context import Portal
from galilean.web.problems import BodyError
from galilean.web.visitor import Visitor
from services.catalog.store import Project
from services.portal.api import models
from services.portal.api import release_models as said
from services.portal.api.projects import need_role, project_for
from services.portal.longer import budget_seconds
from services.portal.said import Translate
from services.release import ask, rules, schedules
from services.release.calendar import Schedule, coming
from spawner import records
from spawner.records import Run

CALENDAR_DAYS = 14
STARTS_SHOWN = 3

# ------------------------------------------------------------------------------------------------ extending


def moment(value: str | None) -> datetime | None:
    """A moment as the API takes it.

    Raises
    ------
    UserError
        400.
    """
    if value is None:
        return None
    try:
        at = datetime.fromisoformat(value)
    except ValueError:
        at = None
    if at is None or at.tzinfo is None:
        raise UserError(400, mark("“until” takes a time with its zone, such as 2026-10-01T18:00:00Z."))
    return at.astimezone(UTC)


async def outlook(portal: Portal, run: Run, translate: Translate) -> said.ReleaseOutlook:
    """When a cluster goes back, and what its holder may ask for."""
    now, left = portal.clock(), budget_seconds(portal)

    def read(conn: Connection) -> tuple[ask.Extension, int, bool]:
        grace = ask.terms_of(run, grace_seconds=rules.read(conn).site.grace_seconds).grace_seconds
        seconds = left(conn, [run.id], now).get(run.id) if run.word == "running" else None
        more = ask.extension_of(run, now, grace_seconds=grace, budget_seconds=seconds)
        return more, grace, bool(ask.telling(conn, [run.id]))

    extension, grace_seconds, tells = await portal.db.run_read(read)
    return said.ReleaseOutlook(
        id=run.id,
        release=run.release_policy,
        words=ask.policy_words(run.release_policy, translate, grace_seconds=grace_seconds),
        release_at=run.release_at if run.is_open else None,
        release_why=run.release_why,
        warned_at=run.warned_at,
        extended_until=run.extended_until,
        extend_until=extension.until,
        extend_most=extension.most,
        extend_bound=extension.reason,
        may_when_done=ask.may_when_done(run, tells=tells),
    )


# -------------------------------------------------------------------------------------------------- notices


@dataclass(frozen=True, kw_only=True)
class About:
    """The open runs that notices are about, and the ids of those whose nodes tell what runs there."""

    runs: Mapping[str, Run]
    tells: frozenset[str]


async def notices_for(
    portal: Portal, person: Visitor, *, unread_only: bool, limit: int, before: str
) -> tuple[list[Notice], About]:
    """What somebody was told, and the open runs that it is about."""

    def read(conn: Connection) -> tuple[list[Notice], About]:
        if unread_only:
            found = notices.unread(conn, person.name)
        else:
            found = notices.list_for(conn, person.name, limit=limit + 1, before=before)
        runs = {run.id: run for run in records.list_runs(conn, user=person.name, limit=200)}
        warned = [one.cluster_id for one in found if one.kind == "warning" and one.cluster_id in runs]
        return found, About(runs=runs, tells=ask.telling(conn, warned))

    return await portal.db.run_read(read)


def notice_model(
    portal: Portal, notice: Notice, about: About, translate: Translate, zone: Any
) -> said.Notice:
    """A notice in the visitor's language and zone."""
    now = portal.clock()
    run = about.runs.get(notice.cluster_id)
    # Only the last warning of a cluster is about what comes.
    live = run is not None and notice.kind == "warning" and run.stop_asked_at is None
    return said.Notice(
        id=notice.id,
        kind=notice.kind,
        at=notice.at,
        text=notices.words(notice, translate, zone, now),
        cluster=notice.cluster_id,
        address=notice.address,
        url=portal.prefix + notice.address,
        params=dict(notice.params),
        read_at=notice.read_at,
        when_done=bool(live and run and ask.may_when_done(run, tells=run.id in about.tells)),
        extend=bool(live and run and ask.may_extend(run, now)),
    )


# ------------------------------------------------------------------------------------------------ schedules


async def make_schedule(portal: Portal, person: Visitor, body: said.NewSchedule) -> Schedule:
    """A new schedule for a project.

    Raises
    ------
    UserError
        403 without a role; 404 for a project that is not there; 400 for values that cannot be.
    """
    need_role(person)
    owner, _, slug = body.project.rpartition("/")
    project = await project_for(portal, person, owner or person.name, slug)
    schedule = Schedule(
        id="",
        user=person.name,
        project_id=project.id,
        request=_request(project, person, body.options),
        weekdays=tuple(body.weekdays),
        ready_minute=schedules.minute_of(body.ready),
        release_minute=None if body.release is None else schedules.minute_of(body.release),
        zone=body.zone or portal.settings.site.timezone,
        first_day=body.first_day,
        last_day=body.last_day,
        holidays=body.holidays,
        enabled=body.enabled,
        created_at=portal.clock(),
    )
    return await portal.db.run_serialised("schedules", schedules.create, schedule)


def _request(project: Project, person: Visitor, options: Mapping[str, Any]) -> dict[str, Any]:
    try:
        checked = models.StartCluster.model_validate(dict(options)).model_dump(exclude_none=True)
    except ValidationError as error:
        raise BodyError(error) from error
    return {
        "project": f"{project.owner}/{project.slug}",
        "name": project.name,
        "server": project.server(person.name),
        "options": checked,
    }


async def change_schedule(
    portal: Portal, person: Visitor, schedule_id: str, body: said.ScheduleChange
) -> Schedule:
    """Change one of one's own.

    Raises
    ------
    UserError
        404, 400.
    """
    sent = body.model_dump(exclude_unset=True)
    changes: dict[str, Any] = {
        key: sent[key]
        for key in ("zone", "first_day", "last_day", "holidays", "enabled")
        if sent.get(key) is not None
    }
    if sent.get("weekdays") is not None:
        changes["weekdays"] = tuple(sent["weekdays"])
    if sent.get("ready") is not None:
        changes["ready_minute"] = schedules.minute_of(sent["ready"])
    if "release" in sent:
        changes["release_minute"] = None if sent["release"] is None else schedules.minute_of(sent["release"])
    if sent.get("options") is not None:
        try:
            checked = models.StartCluster.model_validate(sent["options"]).model_dump(exclude_none=True)
        except ValidationError as error:
            raise BodyError(error) from error
        old = await portal.db.run_read(schedules.get, schedule_id, person.name)
        changes["request"] = {**old.request, "options": checked}
    return await portal.db.run(
        lambda conn: schedules.change(conn, schedule_id, person.name, changes, now=portal.clock())
    )


def schedule_model(
    schedule: Schedule, now: datetime, holidays: Sequence[str], translate: Translate, zone: Any
) -> said.Schedule:
    """A schedule with its next times."""
    following = []
    for window in coming(schedule, now, holidays):
        following.append(said.ScheduleWindow(ready_at=window.ready_at, release_at=window.release_at))
        if len(following) == STARTS_SHOWN:
            break
    return said.Schedule(
        id=schedule.id,
        project=str(schedule.request.get("project", "")),
        project_name=str(schedule.request.get("name", "")),
        ready=schedules.clock_of(schedule.ready_minute),
        release=None if schedule.release_minute is None else schedules.clock_of(schedule.release_minute),
        weekdays=list(schedule.weekdays),
        zone=schedule.zone,
        first_day=schedule.first_day,
        last_day=schedule.last_day,
        holidays=schedule.holidays,
        enabled=schedule.enabled,
        options=dict(schedule.request.get("options") or {}),
        next=following,
        problem=_problem(schedule, translate, zone, now),
    )


def _problem(schedule: Schedule, translate: Translate, zone: Any, now: datetime) -> str:
    problem = schedule.problem
    if not problem:
        return ""
    as_notice = Notice(
        id="", user="", at=now, kind="", text=problem["message"], params=problem.get("params") or {}
    )
    return notices.words(as_notice, translate, zone, now)


# ------------------------------------------------------------------------------------------------- calendar


@dataclass(frozen=True, kw_only=True)
class Entry:
    """Something that starts or goes back."""

    at: datetime
    what: str
    user: str
    project: str
    cluster: str = ""
    schedule: str = ""
    why: str = ""


def calendar_of(
    runs: Sequence[Run],
    found: Sequence[Schedule],
    now: datetime,
    holidays: Sequence[str],
    *,
    days: int = CALENDAR_DAYS,
) -> list[Entry]:
    """What starts and what goes back in the next days, in the order of time."""
    until = now + timedelta(days=days)
    entries = [
        Entry(
            at=run.release_at,
            what="release",
            user=run.user,
            project=run.project_name,
            cluster=run.id,
            why=run.release_why,
        )
        for run in runs
        if run.release_at is not None and run.stop_asked_at is None and run.release_at < until
    ]
    for one in found:
        project = str(one.request.get("name") or one.request.get("project") or "")
        for window in coming(one, now, holidays, until=until):
            entries.append(
                Entry(at=window.ready_at, what="start", user=one.user, project=project, schedule=one.id)
            )
            if window.release_at is not None and window.release_at < until:
                entries.append(
                    Entry(
                        at=window.release_at,
                        what="release",
                        user=one.user,
                        project=project,
                        schedule=one.id,
                        why="schedule",
                    )
                )
    return sorted(entries, key=lambda entry: (entry.at, entry.what, entry.user, entry.project))


async def read_calendar(portal: Portal, *, user: str | None, days: int = CALENDAR_DAYS) -> list[Entry]:
    """The calendar of one person, or of everybody."""
    now = portal.clock()

    def read(conn: Connection) -> list[Entry]:
        runs = records.list_runs(conn, user=user, limit=10_000)
        found = schedules.list_all(conn, user=user, enabled_only=True)
        return calendar_of(runs, found, now, rules.read(conn).site.holidays, days=days)

    return await portal.db.run_read(read)


def why_in_words(why: str, translate: Translate) -> str:
    """Why something goes back, in few words."""
    return render(_WHY.get(why, ""), {}, translate) if _WHY.get(why) else ""


_WHY = {
    "left": mark("left"),
    "signed_out": mark("signed out"),
    "idle": mark("hardly used"),
    "schedule": mark("as scheduled"),
    "most": mark("longest time reached"),
    "budget": mark("budget used up"),
    "done": mark("nothing runs any more"),
}
