"""Machine time: the runs of a project, and one's own total by project and by day (CG-23, CG-26, SC-24).

What a run used comes from its node intervals by the same arithmetic as every report. CSV carries exactly
what is shown, with plain numbers and UTC times.
"""

from __future__ import annotations

import asyncio
import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from typing import Any

from sqlalchemy import Connection

from galilean.errors import UserError, mark
from galilean.web.handlers import PageHandler
from galilean.web.paging import Cursor
from services.metering.usage import Usage, UsageRow, usage, usage_of
from services.portal.addresses import project_path
from services.portal.api.usage import usage_for
from services.portal.pages.endings import explanation_of, how_it_ended
from services.portal.pages.project_frame import ProjectPage, said
from services.portal.said import Said, size_of_node
from spawner import records
from spawner.records import NodeInterval, Run

RUNS_SHOWN = 50
VIEWS = {"project": mark("By project"), "day": mark("By day"), "pool": mark("By pool")}
HEADS = {"project": mark("Project"), "day": mark("Day"), "pool": mark("Pool")}
SPANS = {"30": mark("30 days"), "90": mark("90 days"), "365": mark("A year"), "all": mark("All time")}
GRAPH_MOST_DAYS = 92
LINES_SHOWN = 100


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


def together(items: Iterable[Usage]) -> Usage:
    """The sum of some lines."""
    lines = list(items)
    return Usage(
        seconds=sum(line.seconds for line in lines),
        cpu_core_minutes=sum(line.cpu_core_minutes for line in lines),
        memory_gb_minutes=sum(line.memory_gb_minutes for line in lines),
        gpu_card_minutes=sum(line.gpu_card_minutes for line in lines),
    )


def day_bars(rows: Sequence[UsageRow], first: datetime, last: datetime) -> list[DayBar]:
    """A bar for each day from ``first`` to ``last`` (moments in the site's zone), used or not."""
    by_day = {row.key: row.seconds for row in rows}
    most = max(by_day.values(), default=0) or 1
    bars: list[DayBar] = []
    day = first.date()
    while day <= last.date():
        seconds = by_day.get(day.isoformat(), 0)
        height = max(100.0 * seconds / most, 2.0 if seconds else 0.8)
        bars.append(DayBar(day=day.isoformat(), seconds=seconds, height=height))
        day += timedelta(days=1)
    return bars


def csv_text(head: Sequence[str], lines: Iterable[Sequence[Any]]) -> str:
    """CSV that spreadsheets read as text and numbers, never as formulas."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\r\n")
    writer.writerow(head)
    for line in lines:
        writer.writerow([_harmless(value) for value in line])
    return out.getvalue()


def _harmless(value: Any) -> Any:
    """A text that begins like a formula gets an apostrophe in front."""
    if isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t", "\r"):
        return "'" + value
    return value


def _stamp(at: datetime | None) -> str:
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ") if at else ""


class Runs(ProjectPage):
    """The runs of a project: the visitor's own, everybody's with the right."""

    tab = "runs"

    async def rows(self) -> tuple[list[RunRow], str | None, Usage]:
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
    ) -> tuple[list[RunRow], str | None, Usage]:
        runs = records.list_runs(
            conn, user=user, project_id=self.project.id, open_only=False, limit=RUNS_SHOWN + 1, before=before
        )
        following = Cursor.encode(runs[RUNS_SHOWN - 1].id) if len(runs) > RUNS_SHOWN else None
        runs = runs[:RUNS_SHOWN]
        nodes = records.intervals(conn, [run.id for run in runs])
        zone = self.portal.settings.site.zone
        all_of_it = usage(conn, by="project", user=user, project_id=self.project.id, zone=zone, now=now)
        total = all_of_it[0] if all_of_it else Usage()
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
            sum=together(row.used for row in rows),
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
                row.run.id, row.run.user, _stamp(row.run.queued_at), _stamp(row.run.ready_at),
                _stamp(row.run.released_at), row.run.nodes, row.run.cpu_millicores / 1000, row.run.memory_bytes,
                row.run.gpu, row.used.seconds, row.used.cpu_core_minutes, row.used.memory_gb_minutes,
                row.used.gpu_card_minutes, said(row.end) if row.end else row.run.word,
            )
            for row in rows
        ]  # fmt: skip
        send_csv(self, f"{slug}-runs.csv", csv_text(head, lines))


class MachineTime(PageHandler):
    """One's own machine time over all projects."""

    @property
    def views(self) -> dict[str, str]:
        """By what machine time can be shown: by pool where there are several."""
        return {
            key: title for key, title in VIEWS.items() if key != "pool" or len(self.portal.settings.pools) > 1
        }

    def asked(self) -> tuple[str, str, datetime | None]:
        """By what, which days, and since when."""
        by = self.get_query_argument("by", "project")
        days = self.get_query_argument("days", "30")
        by = by if by in self.views else "project"
        days = days if days in SPANS else "30"
        if days == "all":
            return by, days, None
        zone = self.portal.settings.site.zone
        today = self.portal.clock().astimezone(zone).date()
        return by, days, datetime.combine(today - timedelta(days=int(days) - 1), time(), zone)

    async def of(self, by: str, since: datetime | None) -> list[UsageRow]:
        return await usage_for(self.portal, self.person, by=by, user=self.person.name, start=since)

    async def get(self) -> None:
        by, days, since = self.asked()
        graph: list[DayBar] = []
        if by == "day" or since is None or int(days) > GRAPH_MOST_DAYS:
            rows = daily = await self.of(by, since)
        else:  # two sums over the same rows, side by side
            rows, daily = await asyncio.gather(self.of(by, since), self.of("day", since))
        if rows and since is not None and int(days) <= GRAPH_MOST_DAYS:
            now = self.portal.clock().astimezone(self.portal.settings.site.zone)
            graph = day_bars(daily, since, now)
        if by == "day":
            rows = rows[::-1]
        await self.render_page(
            "machine_time.html",
            project_path=project_path,
            rows=rows,
            lines=LINES_SHOWN,
            by=by,
            days=days,
            views=self.views,
            spans=SPANS,
            heads=HEADS,
            graph=graph,
            most=max((bar.seconds for bar in graph), default=0),
            total=together(rows),
            zone=self.portal.settings.site.timezone,
            said=said,
        )


class MachineTimeCSV(MachineTime):
    """The same as a file."""

    async def get(self) -> None:
        by, _, since = self.asked()
        rows = await self.of(by, since)
        head = [by, "name", "first_start", "wall_seconds", "cpu_core_minutes", "memory_gb_minutes",
                "gpu_card_minutes", "deleted"]  # fmt: skip
        lines = [
            (row.key, row.label, _stamp(row.first_start), row.seconds, row.cpu_core_minutes,
             row.memory_gb_minutes, row.gpu_card_minutes, "yes" if row.deleted else "")
            for row in rows
        ]  # fmt: skip
        send_csv(self, f"machine-time-by-{by}.csv", csv_text(head, lines))


def send_csv(handler: PageHandler, name: str, text: str) -> None:
    """Answer with a file; the mark in front tells spreadsheets that it is UTF-8."""
    handler.set_header("Content-Type", "text/csv; charset=utf-8")
    handler.set_header("Content-Disposition", f'attachment; filename="{name}"')
    handler.finish("\ufeff" + text)


def routes() -> list[tuple[str, type[Any]]]:
    """Addresses of this module, relative to the portal's prefix."""
    project = r"/projects/([^/]+)/([^/]+)"
    return [
        (project + r"/runs", Runs),
        (project + r"/runs\.csv", RunsCSV),
        (r"/machine-time", MachineTime),
        (r"/machine-time\.csv", MachineTimeCSV),
    ]


ROUTES = routes()
