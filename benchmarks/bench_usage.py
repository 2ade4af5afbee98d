"""Machine time out of ten million node intervals of one year, on SQLite and PostgreSQL.

A centre of a thousand people with three projects each, who come on most days, mostly for one project a day,
about seven runs each time, of four nodes; the youngest run still. What is measured is what the
pages and the API ask, each through the functions that they call. And the roll-up itself, made anew from a
ledger of a million intervals. There is no plain side: nothing else keeps such rows.
"""

from __future__ import annotations

import random
import tempfile
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from sqlalchemy import text

import services.catalog.tables  # noqa: F401 - registers the tables
from benchmarks.harness import Figure, Report, percentile, timed
from galilean.db import Database, metadata
from galilean.settled import settle
from services.metering.rebuild import rebuild
from services.metering.report import Window, name_projects, report
from services.metering.rollup import used_since
from spawner import records
from tests.postgres import PostgresServer

USERS, NODES, DAYS = 1000, 4, 365
NOW = datetime(2026, 3, 2, 9, tzinfo=UTC)
ZONE = ZoneInfo("Asia/Shanghai")
MOST_MS, MOST_REBUILD_S = 50.0, 5.0

#: SQL for a number from 0 to 1 that depends on ``n`` and a salt: the same on both databases.
DRAW = "(((n * 2654435761 + {salt} * 40503) % 4294967291 * 48271) % 2147483647 / 2147483647.0)"


def fill(db: Database, intervals: int) -> None:
    """The ledger, made by the database itself: of ten million rows the other way takes minutes."""
    runs = intervals // NODES
    lite = db.is_sqlite
    series = (
        "WITH RECURSIVE s(n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM s WHERE n + 1 < {count}) SELECT {what} FROM s"
        if lite
        else "SELECT {what} FROM generate_series(0::bigint, {count} - 1) AS s(n)"
    )
    whole = "CAST({0} AS INTEGER)" if lite else "floor({0})::bigint"
    draw = [DRAW.format(salt=salt) for salt in range(8)]
    day = f"(n * {DAYS} / {runs})"
    #: Of a person who is there on this day; the project depends on person and day, mostly.
    user = f"(({whole.format(draw[0] + ' * 170')} * 6 + {day} * 7) % {USERS})"
    project = f"(CASE WHEN {draw[1]} < 0.85 THEN ({user} + {day} / 3) % 3 ELSE 2 END)"
    size = f"({user} % 3 + CASE WHEN {draw[2]} < 0.1 THEN 1 ELSE 0 END)"
    began = NOW - timedelta(days=DAYS)

    def moment(seconds: str) -> str:
        if lite:
            base = int(began.timestamp())
            return (
                f"strftime('%Y-%m-%dT%H:%M:%S', {base} + {whole.format(seconds)}, 'unixepoch') || '.' || "
                f"printf('%06d', n * 7919 % 1000000)"
            )
        return f"timestamptz '{began.isoformat()}' + ({seconds}) * interval '1 second' + n * 7919 % 1000000 * interval '1 microsecond'"

    start = f"(n * {DAYS * 86400.0} / {runs})"
    length = f"(60 + {draw[3]} * CASE WHEN {draw[4]} < 0.01 THEN 400000 ELSE 5000 END)"
    number = "printf('R%025d', n)" if lite else "'R' || lpad(n::text, 25, '0')"
    p_id = (
        f"printf('P%025d', {user} * 3 + {project})"
        if lite
        else f"'P' || lpad(({user} * 3 + {project})::text, 25, '0')"
    )
    over = f"{start} + {length} < {DAYS * 86400}"
    columns = {
        "id": number,
        '"user"': f"'user' || {user}",
        "server": "'s' || n",
        "project_id": p_id,
        "project_owner": f"'user' || {user}",
        "project_slug": f"'p' || {project}",
        "project_name": f"'Project ' || {project}",
        "environment": f"CASE {user} % 4 WHEN 0 THEN 'torch' WHEN 1 THEN 'mpi' ELSE 'jupyter' END",
        "pool": f"CASE WHEN {size} = 3 THEN 'gpu' ELSE 'default' END",
        "role": f"CASE {user} % 10 WHEN 0 THEN 'teacher' WHEN 1 THEN 'researcher' ELSE 'student' END",
        "backend": "'process'",
        "nodes": str(NODES),
        "cpu_millicores": f"CASE {size} WHEN 0 THEN 1000 WHEN 1 THEN 2000 WHEN 2 THEN 4000 ELSE 8000 END",
        "memory_bytes": f"CASE {size} WHEN 0 THEN 2 WHEN 1 THEN 8 WHEN 2 THEN 16 ELSE 32 END * CAST(1073741824 AS BIGINT)",
        "gpu": f"CASE WHEN {size} = 3 THEN 1 ELSE 0 END",
        "release_policy": "'auto'",
        "request": "'{}'",
        "status": f"CASE WHEN {over} THEN 'released' ELSE 'running' END",
        "asked_by": f"'user' || {user}",
        "queued_at": moment(start),
        "ready_at": moment(start),
        "released_at": f"CASE WHEN {over} THEN {moment(f'{start} + {length}')} END",
    }
    with db.write() as conn:
        conn.exec_driver_sql(
            f"INSERT INTO clusters ({', '.join(columns)}) "
            + series.format(count=runs, what=", ".join(columns.values())).replace(
                "%", "%%" if not lite else "%"
            )
        )
        ranks = " UNION ALL ".join(f"SELECT {rank} AS r" for rank in range(NODES))
        conn.execute(
            text(
                "INSERT INTO cluster_nodes (cluster_id, rank, name, placed_at, ready_at, gone_at) "
                "SELECT id, r, 'n', ready_at, ready_at, released_at FROM clusters "
                f"CROSS JOIN ({ranks}) ranks ORDER BY id, r"
            )
        )
    with db.engine.connect() as conn:
        conn = conn.execution_options(isolation_level="AUTOCOMMIT") if not lite else conn
        conn.execute(text("ANALYZE"))
        if lite:
            conn.commit()


def measure(report_of: Report, name: str, db: Database, intervals: int) -> None:
    """What the pages ask: one's own, a project's, everybody's; in the windows that they offer."""
    rng = random.Random(2)
    today = NOW.astimezone(ZONE).date()

    def somebody() -> str:
        return f"user{rng.randrange(USERS)}"

    def last(days: int) -> Window:
        return Window(first=today - timedelta(days=days - 1), last=today)

    def any_window() -> Window:
        first = today - timedelta(days=rng.randrange(1, DAYS))
        return Window(first=first, last=min(first + timedelta(days=rng.randrange(1, 200)), today))

    def asked(**what: Any) -> Callable[[Any], Any]:
        def ask(conn: Any) -> Any:
            said = {key: value() if callable(value) else value for key, value in what.items()}
            found = report(conn, zone=ZONE, now=NOW, named=False, **said)
            if said["by"] == "project":  # as the page does: the lines that it shows
                name_projects(conn, found.lines[:50])
            return found

        return ask

    project = lambda: f"P{rng.randrange(USERS * 3):025}"  # noqa: E731
    asks: dict[str, Callable[[Any], Any]] = {
        "one's own, by project, 30 days": asked(by="project", user=somebody, window=last(30)),
        "one's own, by project, all time": asked(by="project", user=somebody),
        "one's own, by day, a year": asked(by="day", user=somebody, window=last(365)),
        "a project, by day, 30 days": asked(by="day", project_id=project, window=last(30)),
        "everybody, by person, 30 days": asked(by="user", window=last(30)),
        "everybody, by person, any days": asked(by="user", window=any_window),
        "everybody, by person, all time": asked(by="user"),
        "everybody, by project, 30 days": asked(by="project", window=last(30)),
        "everybody, by project, any days": asked(by="project", window=any_window),
        "everybody, by project, all time": asked(by="project"),
        "everybody, by day, a year": asked(by="day", window=last(365)),
        "everybody, by month, all time": asked(by="month"),
        "everybody, by role, any days": asked(by="role", window=any_window),
        "everybody, by environment, all time": asked(by="environment"),
        "one pool, by person, a year": asked(by="user", pool="gpu", window=last(365)),
        "a budget: one's own since the month began": lambda conn: used_since(
            conn, somebody(), date(today.year, today.month, 1), zone=ZONE, now=NOW
        ),
        "the page of runs: one's own latest 50": lambda conn: records.list_runs(
            conn, user=somebody(), open_only=False, limit=51
        ),
    }
    settle()  # as the portal has when it begins to serve
    for what, ask in asks.items():
        taken: list[float] = []
        for turn in range(33):
            with db.read() as conn:
                conn.execute(text("SELECT 1"))
                took = 1000 * timed(lambda: ask(conn))  # noqa: B023
            if turn >= 3:  # statements are built and connections made by then
                taken.append(took)
        p95 = percentile(taken, 0.95)
        report_of.add(
            Figure(
                name=f"usage out of {intervals:,} intervals, {name}: {what}",
                ours=taken,
                unit="ms",
                bound=f"p95 ≤ {MOST_MS:g} ms",
                met=p95 <= MOST_MS,
                note=f"p95 {p95:.1f} ms",
            )
        )


def measure_rebuild(report_of: Report, name: str, db: Database, intervals: int, bound: float | None) -> None:
    """The roll-up anew, where nothing differs; the first time also marks every run, as an upgrade does once.

    And by the days of another zone, which changes every row.
    """
    first = timed(lambda: rebuild(db, zone=ZONE, now=NOW))
    taken = [timed(lambda: rebuild(db, zone=ZONE, now=NOW)) for _ in range(3 if bound else 1)]
    elsewhere = timed(lambda: rebuild(db, zone=ZoneInfo("America/New_York"), now=NOW))
    rebuild(db, zone=ZONE, now=NOW)
    with db.read() as conn:
        rows = conn.execute(text("SELECT count(*) FROM usage_daily")).scalar()
        live = conn.execute(text("SELECT count(*) FROM clusters WHERE NOT rolled_up")).scalar()
    report_of.add(
        Figure(
            name=f"roll-up of {intervals:,} intervals made anew, {name}",
            ours=taken,
            unit="s",
            bound="" if bound is None else f"≤ {bound:g} s",
            met=None if bound is None else min(taken) <= bound,
            note=f"{rows:,} rows, {live:,} runs live; the first time, marking all runs, {first:.1f} s; by another zone "
            f"{elsewhere:.1f} s",
        )
    )


def both(report_of: Report, name: str, make: Callable[[str], Database]) -> None:
    """A million intervals for the rebuild, ten million for the reports."""
    for intervals in (1_000_000, 10_000_000):
        db = make(f"usage{intervals}")
        metadata.create_all(db.engine)
        fill(db, intervals)
        small = intervals == 1_000_000
        measure_rebuild(report_of, name, db, intervals, MOST_REBUILD_S if small else None)
        with db.engine.connect() as conn:
            conn = conn.execution_options(isolation_level="AUTOCOMMIT") if not db.is_sqlite else conn
            conn.execute(text("ANALYZE" if db.is_sqlite else "VACUUM ANALYZE"))
            if db.is_sqlite:
                conn.commit()
        if not small:
            measure(report_of, name, db, intervals)
        db.close()


def run(report: Report, directory: Path, _count: int) -> None:
    """Both databases, one after the other."""
    both(report, "SQLite", lambda name: Database(f"sqlite:///{directory / name}.sqlite"))
    with tempfile.TemporaryDirectory(prefix="galilean-bench-postgres-") as place:
        server = PostgresServer(Path(place))
        server.start()
        try:
            both(report, "PostgreSQL", lambda name: Database(server.create_database(name)))
        finally:
            server.stop()
