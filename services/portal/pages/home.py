"""The home page: what runs, what to go on with, what is left, what it has cost.

Few queries, whatever the number of projects: the open runs with their nodes, one page of projects with
their last runs, one sum over this month's node intervals.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta, tzinfo
from typing import Any

from sqlalchemy import Connection, exists, select

from galilean.errors import mark
from galilean.web.handlers import PageHandler
from services.catalog import store
from services.catalog.store import Project
from services.metering.report import Window, report
from services.portal.addresses import project_path
from services.portal.api.projects import last_started
from services.portal.frame import meter_values, mine_for
from services.portal.my_limits import given_to, limits_and_rest, lines_of
from services.portal.pages.endings import failure_of, how_it_ended
from services.portal.port_shares import shared_with
from services.portal.quotas import models_of, pools_of
from spawner import records
from spawner.records import Run
from spawner.tables import clusters

PROJECTS_SHOWN = 6
ENDED_SHOWN = 3
TOLD_FOR = timedelta(hours=12)
#: Reasons of an end that nobody expects who was working.
UNASKED = frozenset({"node_lost", "head_lost", "hub_lost", "orphan", "admin", "shutdown", "machine_out"})


@dataclass(frozen=True, kw_only=True)
class Month:
    """Machine time of one person in a month: seconds of each day so far, and sums."""

    start: datetime
    day_seconds: tuple[int, ...]
    cpu_core_minutes: float
    gpu_card_minutes: float

    @property
    def seconds(self) -> int:
        return sum(self.day_seconds)


@dataclass(frozen=True, kw_only=True)
class Steps:
    """The three steps of a first visit; which are done."""

    project: bool
    run: bool
    files: bool

    @property
    def done(self) -> bool:
        return self.project and self.run and self.files

    @property
    def now(self) -> int:
        """Number of the step to take next."""
        return 1 if not self.project else 2 if not self.run else 3


def month_start(now: datetime, zone: tzinfo) -> datetime:
    """The first moment of the site's month that ``now`` is in."""
    return now.astimezone(zone).replace(day=1, hour=0, minute=0, second=0, microsecond=0)


def month_of(conn: Connection, user: str, now: datetime, zone: tzinfo) -> Month:
    """Machine time from the first of the month until now."""
    start = month_start(now, zone)
    today = now.astimezone(zone).date()
    window = Window(first=start.date(), last=today)
    found = report(conn, by="day", user=user, window=window, now=now, zone=zone)
    rows = {line.key: line for line in found.lines}
    days = [start.date() + timedelta(days=n) for n in range((today - start.date()).days + 1)]
    return Month(
        start=start,
        day_seconds=tuple(int(rows[str(day)].seconds) if str(day) in rows else 0 for day in days),
        cpu_core_minutes=found.total.cpu_core_minutes,
        gpu_card_minutes=found.total.gpu_card_minutes,
    )


def steps_of(conn: Connection, user: str, project_count: int) -> Steps:
    """What a newcomer has done already."""
    ran = exists().where(clusters.c.user == user, clusters.c.ready_at.is_not(None))
    back = exists().where(
        clusters.c.user == user, clusters.c.ready_at.is_not(None), clusters.c.released_at.is_not(None)
    )
    did_run, did_return = conn.execute(select(ran, back)).one()
    return Steps(project=project_count > 0 or bool(did_run), run=bool(did_run), files=bool(did_return))


def ran_last(conn: Connection, user: str) -> Project | None:
    """The project whose cluster was ready last: where a newcomer's files are."""
    found = conn.execute(
        select(clusters.c.project_id)
        .where(clusters.c.user == user, clusters.c.ready_at.is_not(None))
        .order_by(clusters.c.id.desc())
        .limit(1)
    ).scalar()
    return store.by_id(conn, found) if found else None


def ended_lately(conn: Connection, user: str, now: datetime) -> list[Run]:
    """Runs of the last hours that came to an end their person did not ask for, newest first.

    Only the last run of a project counts: whoever ran it again knows. (A cluster never vanishes without a word.)
    """
    last: dict[str, Run] = {}
    for run in records.list_runs(conn, user=user, open_only=False, limit=30):
        last.setdefault(run.project_id, run)
    return [run for run in last.values() if is_told(run) and now - run.released_at < TOLD_FOR][:ENDED_SHOWN]  # type: ignore[operator]


def is_told(run: Run) -> bool:
    """Whether the end of a run is news to its person."""
    if run.released_at is None:
        return False
    return run.reason in UNASKED if run.ready_at else not failure_of(run).cancelled


def home_rows(conn: Connection, user: str, now: datetime, zone: tzinfo) -> dict[str, Any]:
    """Everything of the page that does not change by itself, in one read."""
    recent, _ = store.list_for(conn, user, limit=PROJECTS_SHOWN)
    count = len(recent) if len(recent) < PROJECTS_SHOWN else store.count_for(conn, user)
    steps = steps_of(conn, user, count)
    return {
        "recent": recent,
        "ended": ended_lately(conn, user, now),
        "ran_last": ran_last(conn, user) if steps.now == 3 and not steps.done else None,
        "project_count": count,
        "last_runs": last_started(conn, user, [project.id for project in recent]),
        "steps": steps,
        "month": month_of(conn, user, now, zone),
    }


def greeting(hour: int) -> str:
    """Message id of the greeting at this hour of the site."""
    if 5 <= hour < 12:
        return mark("Good morning, {name}")
    if 12 <= hour < 18:
        return mark("Good afternoon, {name}")
    return mark("Good evening, {name}")


def said_name(name: str) -> str:
    """How a person is greeted: ``alice`` as Alice, everything else as it is written."""
    return name.capitalize() if name.isascii() and name.isalpha() and name.islower() else name


class Home(PageHandler):
    """The page."""

    async def get(self) -> None:
        settings, now = self.portal.settings, self.portal.clock()
        if not self.person.has_role:
            await self.render_page(
                "home_waiting.html",
                admins=settings.signup.admins,
                name=said_name(self.person.name),
                shared_ports=await shared_with(self.portal, self.person.name),
            )
            return
        rows = await self.portal.db.run_read(home_rows, self.person.name, now, settings.site.zone)
        first = not rows["steps"].done
        hello = mark("Welcome, {name}") if first else greeting(now.astimezone(settings.site.zone).hour)
        await self.render_page(
            "home.html",
            **rows,
            **words_of(self) | await may_hold(self),
            shared_ports=await shared_with(self.portal, self.person.name),
            greeting=self.translate(hello).format(name=said_name(self.person.name)),
            default_environment=settings.defaults.environment,
            backend=settings.backend,
        )


class Running(PageHandler):
    """The cards of running clusters again, after something changed."""

    async def get(self) -> None:
        settings = self.portal.settings
        rows = await self.portal.db.run_read(
            home_rows, self.person.name, self.portal.clock(), settings.site.zone
        )
        await self.render_fragment(
            "home_now.html", **rows, **words_of(self), **await meter_values(self, await mine_for(self))
        )


async def may_hold(handler: PageHandler) -> dict[str, Any]:
    """What ``home_may_hold.html`` shows."""
    portal = handler.portal
    mine = await limits_and_rest(portal, handler.person.name, handler.person.roles)
    return {
        "may_hold": lines_of(
            mine,
            pools_of(portal),
            models_of(portal),
            today=portal.clock().astimezone(portal.settings.site.zone).date(),
            used_too=bool(mine.held.clusters),
        ),
        "exceptions": given_to(mine, portal.clock(), portal.settings.site.zone),
        "nodes_most": mine.limits.amount("nodes"),
        "said": lambda told: told.text(handler.translate) if told else "",
        "role_titles": await role_titles(handler),
    }


class MayHold(PageHandler):
    """The bars of what one may hold again."""

    async def get(self) -> None:
        await self.render_fragment(
            "home_may_hold.html",
            **await may_hold(self),
            **await meter_values(self, await mine_for(self)),
        )


def words_of(handler: PageHandler) -> dict[str, Any]:
    """What the templates of this page speak with."""

    def project_url(project: Project) -> str:
        return handler.portal.prefix + project_path(project.owner, project.slug)

    return {
        "project_url": project_url,
        "run_url": lambda run: handler.portal.prefix + project_path(run.project_owner, run.project_slug),
        "first_size": handler.portal.settings.defaults,
        "how_it_ended": how_it_ended,
        "failure_of": failure_of,
        "said": lambda told: told.text(handler.translate) if told else "",
    }


async def role_titles(handler: PageHandler) -> list[str]:
    """The visitor's roles as people call them."""
    titles = (await handler.portal.rights.get()).titles()
    return [handler.translate(titles.get(role, role)) for role in handler.person.roles]


def routes() -> list[tuple[str, type[Any]]]:
    """Addresses of this module, relative to the portal's prefix."""
    return [(r"/?", Home), (r"/home", Home), (r"/home/running", Running), (r"/home/may-hold", MayHold)]
