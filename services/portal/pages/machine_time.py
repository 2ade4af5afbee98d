"""Machine time: the runs of a project, one's own total, and everybody's (CG-23 … CG-26, AP-22, SC-24).

What a run used comes from its node intervals by the same arithmetic as every report. CSV carries exactly
what is shown, with plain numbers and UTC times.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any

from sqlalchemy import Connection

from galilean.errors import UserError, mark
from galilean.web.handlers import PageHandler
from galilean.web.paging import Cursor
from services.catalog.access import Access
from services.metering.report import Figures, project_name, report
from services.metering.usage import Usage, usage_of
from services.metering.work import difference
from services.portal.addresses import project_path
from services.portal.pages.endings import explanation_of, how_it_ended
from services.portal.pages.project_frame import ProjectPage, said
from services.portal.said import Said, size_of_node
from services.portal.shelf import titles
from services.portal.usage_csv import csv_text, send_csv, stamp, stream_usage
from services.portal.usage_view import PAGE_SIZE, SPANS, Seen, UsageView, read, see, today_of
from spawner import records
from spawner.records import NodeInterval, Run

RUNS_SHOWN = 50
VIEWS = {
    "project": mark("By project"),
    "day": mark("By day"),
    "month": mark("By month"),
    "user": mark("By person"),
    "role": mark("By role"),
    "environment": mark("By environment"),
    "pool": mark("By pool"),
}
HEADS = {
    "project": mark("Project"),
    "day": mark("Day"),
    "month": mark("Month"),
    "user": mark("Person"),
    "role": mark("Role"),
    "environment": mark("Environment"),
    "pool": mark("Pool"),
}
GRAPH_MOST_DAYS = 92


@dataclass(frozen=True, kw_only=True)
class RunRow:
    """One line of the table."""

    run: Run
    used: Usage
    size: Said
    end: Said | None
    detail: Said | None


@dataclass(frozen=True, kw_only=True)
class DayBar:
    """One bar of the graph; ``height`` in percent of the highest."""

    day: str
    seconds: int
    height: float


def run_row(run: Run, nodes: Sequence[NodeInterval], now: datetime) -> RunRow:
    """A run with what it used until now."""
    shows_detail = run.reason in (
        "admin",
        "node_lost",
        "start_failed",
        "not_placed",
        "hub_lost",
        "machine_out",
    )
    return RunRow(
        run=run,
        used=usage_of(nodes, run, now),
        size=size_of_node(run.cpu_millicores, run.memory_bytes, run.gpu, run.gpu_model),
        end=how_it_ended(run),
        detail=explanation_of(run) if shows_detail else None,
    )


def together(lines: Iterable[Figures]) -> Figures:
    """The sum of some lines."""
    total = Figures()
    for line in lines:
        total.add(line)
    return total


def together_of_runs(rows: Iterable[RunRow]) -> Usage:
    """The sum of the runs of a page."""
    lines = [row.used for row in rows]
    return Usage(
        seconds=sum(line.seconds for line in lines),
        cpu_core_minutes=sum(line.cpu_core_minutes for line in lines),
        memory_gb_minutes=sum(line.memory_gb_minutes for line in lines),
        gpu_card_minutes=sum(line.gpu_card_minutes for line in lines),
    )


def day_bars(rows: Sequence[Figures], first: date, last: date) -> list[DayBar]:
    """A bar for each day from ``first`` to ``last``, used or not."""
    by_day = {str(getattr(row, "key", "")): row.seconds for row in rows}
    most = max(by_day.values(), default=0) or 1
    bars: list[DayBar] = []
    day = first
    while day <= last:
        seconds = by_day.get(day.isoformat(), 0)
        height = max(100.0 * seconds / most, 2.0 if seconds else 0.8)
        bars.append(DayBar(day=day.isoformat(), seconds=seconds, height=height))
        day += timedelta(days=1)
    return bars


class Runs(ProjectPage):
    """The runs of a project: the visitor's own, everybody's with the right."""

    tab = "runs"
    least = Access.RUN

    async def rows(self) -> tuple[list[RunRow], str | None, Figures]:
        """A page of the table, the cursor of the next, and the total of all runs."""
        cursor = self.get_query_argument("cursor", "")
        before = None
        if cursor:
            (before,) = Cursor.decode(cursor, 1)
            if not isinstance(before, str):
                raise UserError(400, mark("This page of the list cannot be found. Begin at the first page."))
        now = self.portal.clock()
        user = None if self.person.may("usage:read-all") else self.person.name
        return await self.portal.db.run_read(self._read, user, before, now)

    def _read(
        self, conn: Connection, user: str | None, before: str | None, now: datetime
    ) -> tuple[list[RunRow], str | None, Figures]:
        runs = records.list_runs(
            conn, user=user, project_id=self.project.id, open_only=False, limit=RUNS_SHOWN + 1, before=before
        )
        following = Cursor.encode(runs[RUNS_SHOWN - 1].id) if len(runs) > RUNS_SHOWN else None
        runs = runs[:RUNS_SHOWN]
        nodes = records.intervals(conn, [run.id for run in runs])
        zone = self.portal.settings.site.zone
        total = report(conn, by="user", user=user, project_id=self.project.id, zone=zone, now=now).total
        return [run_row(run, nodes[run.id], now) for run in runs], following, total

    async def get(self, owner: str, slug: str) -> None:
        frame = await self.enter(owner, slug)
        rows, following, total = await self.rows()
        await self.render_page(
            "project_runs.html",
            **frame,
            rows=rows,
            next_cursor=following,
            cursor=self.get_query_argument("cursor", ""),
            total=total,
            sum=together_of_runs(rows),
            everybody=self.person.may("usage:read-all"),
        )


class RunsCSV(Runs):
    """The same as a file."""

    async def get(self, owner: str, slug: str) -> None:
        await self.enter(owner, slug)
        rows, _, _ = await self.rows()
        head = [
            "cluster", "person", "asked_at", "ready_at", "released_at", "nodes", "cpu_per_node",
            "memory_bytes_per_node", "gpu_per_node", "wall_seconds", "cpu_core_minutes", "memory_gb_minutes",
            "gpu_card_minutes", "end",
        ]  # fmt: skip
        lines = [
            (
                row.run.id, row.run.user, stamp(row.run.queued_at), stamp(row.run.ready_at),
                stamp(row.run.released_at), row.run.nodes, row.run.cpu_millicores / 1000, row.run.memory_bytes,
                row.run.gpu, row.used.seconds, row.used.cpu_core_minutes, row.used.memory_gb_minutes,
                row.used.gpu_card_minutes, said(row.end) if row.end else row.run.word,
            )
            for row in rows
        ]  # fmt: skip
        send_csv(self, f"{slug}-runs.csv", csv_text(head, lines))


class MachineTime(PageHandler):
    """One's own machine time over all projects."""

    everybody = False
    place = "machine-time"

    @property
    def views(self) -> dict[str, str]:
        """By what machine time can be shown: by pool where there are several."""
        return {
            key: title
            for key, title in VIEWS.items()
            if (key != "pool" or len(self.portal.settings.pools) > 1)
            and (self.everybody or key not in ("user", "role"))
        }

    def asked(self) -> UsageView:
        """What the address says."""
        query = {key: self.get_query_argument(key) for key in self.request.query_arguments}
        view = UsageView.parse(query)
        return view if view.by in self.views else UsageView.parse({**query, "by": "project"})

    async def get(self) -> None:
        view = self.asked()
        seen = await see(self.portal, self.person, view, everybody=self.everybody)
        today = today_of(self.portal)
        window = view.window(today)
        last = window.last or today
        graph: list[DayBar] = []
        if window.first is not None and seen.lines and 0 <= (last - window.first).days < GRAPH_MOST_DAYS:
            if view.by == "day" and not view.text:
                days = seen.report.lines
            else:
                daily = await read(
                    self.portal, self.person, "day", window, view.filters(), everybody=self.everybody
                )
                days = daily.lines
            graph = day_bars(days, window.first, last)
        await self.render_page(
            "admin_machine_time.html" if self.everybody else "machine_time.html",
            project_path=project_path,
            address=f"{self.portal.prefix}{self.place}",
            view=view,
            everybody=self.everybody,
            rows=seen.lines[view.offset : view.offset + PAGE_SIZE],
            count=len(seen.lines),
            page_size=PAGE_SIZE,
            first_day=window.first or _day_of(seen.report.first),
            last_day=last,
            views=self.views,
            spans=SPANS,
            heads=HEADS,
            graph=graph,
            most=max((bar.seconds for bar in graph), default=0),
            total=seen.report.total if not view.text else together(seen.lines),
            filters=await self.filter_names(view, seen),
            choices=self.choices(await titles(self.portal)) if self.everybody else {},
            difference=await self.difference() if self.everybody else None,
            zone=self.portal.settings.site.timezone,
            said=said,
        )

    async def filter_names(self, view: UsageView, seen: Seen) -> list[tuple[str, str, str]]:
        """What is filtered by: name in the query, what it is called, its value in words."""
        settings = self.portal.settings
        found: list[tuple[str, str, str]] = []
        for name, value in view.filters().items():
            words = value
            if name == "project":
                words = await self.portal.db.run_read(project_name, value) or value
            elif name == "pool" and value in settings.pools:
                words = settings.pools[value].title or value
            elif name == "environment":
                words = (await titles(self.portal)).get(value) or value
            found.append((name, self.translate(HEADS[name]), words))
        return found

    async def difference(self) -> dict[str, Any] | None:
        """How ledger and backend differed when last looked."""
        found = await self.portal.db.run_read(difference)
        return found and {**found, "looked_at": datetime.fromisoformat(found["looked_at"])}

    def choices(self, environments: Mapping[str, str]) -> dict[str, dict[str, str]]:
        """What can be filtered by, without a line to press: query's name → values and their titles."""
        settings = self.portal.settings
        return {
            "role": {name: role.title or name for name, role in settings.roles.items()},
            "environment": dict(environments),
            **(
                {"pool": {name: pool.title or name for name, pool in settings.pools.items()}}
                if len(settings.pools) > 1
                else {}
            ),
        }


class MachineTimeCSV(MachineTime):
    """The same as a file: every line of the view, in its order, as it goes."""

    async def get(self) -> None:
        view = self.asked()
        seen = await see(self.portal, self.person, view, everybody=self.everybody, whole=True)
        await stream_usage(self, view.by, seen.lines)


class AdminMachineTime(MachineTime):
    """Everybody's (AP-22)."""

    right = "usage:read-all"
    everybody = True
    place = "admin/machine-time"


class AdminMachineTimeCSV(MachineTimeCSV):
    """The same as a file."""

    right = "usage:read-all"
    everybody = True
    place = "admin/machine-time"


def _day_of(ordinal: int) -> date:
    return date.fromordinal(max(ordinal, 1))


def routes() -> list[tuple[str, type[Any]]]:
    """Addresses of this module, relative to the portal's prefix."""
    project = r"/projects/([^/]+)/([^/]+)"
    return [
        (project + r"/runs", Runs),
        (project + r"/runs\.csv", RunsCSV),
        (r"/machine-time", MachineTime),
        (r"/machine-time\.csv", MachineTimeCSV),
        (r"/admin/machine-time", AdminMachineTime),
        (r"/admin/machine-time\.csv", AdminMachineTimeCSV),
    ]


ROUTES = routes()
