"""Machine time out of a million node intervals: two years of a centre, on SQLite and PostgreSQL.

What people see all the time is their own (by project, and a project's last days); what administrators see
is everybody's, of a month or of all time. There is no plain side: nothing else keeps such rows.
"""

from __future__ import annotations

import random
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from sqlalchemy import insert, text

import services.catalog.tables  # noqa: F401 - registers the tables
from benchmarks.harness import Figure, Report, percentile, timed
from galilean.amounts import GIB
from galilean.db import Database, metadata
from services.metering.usage import usage
from spawner.tables import cluster_nodes, clusters
from tests.postgres import PostgresServer

INTERVALS, USERS, PROJECTS_EACH, DAYS = 1_000_000, 1000, 3, 730
NOW = datetime(2026, 3, 2, 9, tzinfo=UTC)
ZONE = ZoneInfo("Asia/Shanghai")
MOST_OWN_MS = 50.0
CHUNK = 20_000


def fill(db: Database) -> None:
    """Half a million runs of two nodes, most of an hour, some of a week, the youngest still running."""
    rng = random.Random(1)
    runs = INTERVALS // 2
    for first in range(0, runs, CHUNK):
        rows: list[dict[str, Any]] = []
        nodes: list[dict[str, Any]] = []
        for number in range(first, min(first + CHUNK, runs)):
            user = rng.randrange(USERS)
            project = rng.randrange(PROJECTS_EACH)
            ready = NOW - timedelta(days=DAYS * (1 - number / runs), seconds=-rng.random() * 60)
            gone = ready + timedelta(hours=168 if rng.random() < 0.01 else rng.random() * 2)
            run_id = f"R{number:025}"
            closed = gone < NOW
            rows.append(
                {
                    "id": run_id,
                    "user": f"user{user}",
                    "server": f"s{number}",
                    "project_id": f"P{user * PROJECTS_EACH + project:025}",
                    "project_owner": f"user{user}",
                    "project_slug": f"p{project}",
                    "project_name": f"Project {project}",
                    "environment": "jupyter",
                    "backend": "process",
                    "nodes": 2,
                    "cpu_millicores": rng.choice([1000, 2000, 4000, 8000]),
                    "memory_bytes": rng.choice([2, 4, 8, 16]) * GIB,
                    "gpu": rng.choice([0, 0, 0, 1]),
                    "release_policy": "auto",
                    "request": {},
                    "status": "released" if closed else "running",
                    "asked_by": f"user{user}",
                    "queued_at": ready,
                    "ready_at": ready,
                    "released_at": gone if closed else None,
                }
            )
            nodes += [
                {
                    "cluster_id": run_id,
                    "rank": rank,
                    "name": f"n{rank}",
                    "placed_at": ready,
                    "ready_at": ready,
                    "gone_at": gone if closed else None,
                }
                for rank in (0, 1)
            ]
        with db.write() as conn:
            conn.execute(insert(clusters), rows)
            conn.execute(insert(cluster_nodes), nodes)
    with db.engine.connect() as conn:
        conn = conn.execution_options(isolation_level="AUTOCOMMIT") if not db.is_sqlite else conn
        conn.execute(text("ANALYZE"))
        if db.is_sqlite:
            conn.commit()


def measure(report: Report, name: str, db: Database) -> None:
    rng = random.Random(2)

    def somebody() -> str:
        return f"user{rng.randrange(USERS)}"

    def a_project() -> str:
        return f"P{rng.randrange(USERS * PROJECTS_EACH):025}"

    month = NOW - timedelta(days=30)
    asks: list[tuple[str, int, float | None, Any]] = [
        ("one's own, by project, all time", 100, MOST_OWN_MS, lambda: {"by": "project", "user": somebody()}),
        (
            "a project's last 30 days, by day",
            100,
            MOST_OWN_MS,
            lambda: {"by": "day", "project_id": a_project(), "start": month},
        ),
        ("everybody's last 30 days, by person", 5, None, lambda: {"by": "user", "start": month}),
        ("everybody's last 30 days, by day", 5, None, lambda: {"by": "day", "start": month}),
        ("everybody's of all time, by project", 3, None, lambda: {"by": "project"}),
    ]
    for what, times, most, ask in asks:
        taken: list[float] = []
        for _ in range(times):
            asked = ask()
            with db.read() as conn:
                taken.append(1000 * timed(lambda: usage(conn, zone=ZONE, now=NOW, **asked)))  # noqa: B023
        p95 = percentile(taken, 0.95)
        report.add(
            Figure(
                name=f"usage out of {INTERVALS:,} intervals, {name}: {what}",
                ours=taken,
                unit="ms",
                bound="" if most is None else f"p95 ≤ {most:g} ms",
                met=None if most is None else p95 <= most,
                note=f"p95 {p95:.1f} ms",
            )
        )


def run(report: Report, directory: Path, _count: int) -> None:
    """Both databases, one after the other."""
    sqlite = Database(f"sqlite:///{directory / 'galilean.sqlite'}")
    metadata.create_all(sqlite.engine)
    fill(sqlite)
    measure(report, "SQLite", sqlite)
    sqlite.close()
    with tempfile.TemporaryDirectory(prefix="galilean-bench-postgres-") as place:
        server = PostgresServer(Path(place))
        server.start()
        try:
            postgresql = Database(server.create_database("usage"))
            metadata.create_all(postgresql.engine)
            fill(postgresql)
            measure(report, "PostgreSQL", postgresql)
            postgresql.close()
        finally:
            server.stop()
