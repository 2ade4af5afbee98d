"""What letting a cluster in costs: ten thousand people, a thousand running clusters, a year of finished ones.

Everything that admission does counts, from the hop to the thread to the commit: limits by their version,
exceptions, what is held by everybody, what was used of a budget, the terms of release, the row and its
nodes. In *budgets* every person has one per week; with *bounds of roles* what everybody holds is added up, too, as it
is for a backend that has the word on room. The share is of a real start of one node of the process backend on this
machine, from POST to ready.
"""

from __future__ import annotations

import asyncio
import random
import statistics
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import delete, insert
from ulid import ULID

import services.catalog.tables
import services.metering.tables
import services.release.tables  # noqa: F401 - registers the tables
from benchmarks.bench_start import ours as started
from benchmarks.harness import Figure, Report, percentile
from extensions.quota import store
from extensions.quota.measures import Measure
from galilean.clock import utcnow
from galilean.db import Database, metadata
from galilean.settings import Settings, parse_settings
from hub_config.decisions import collaborators
from hub_config.seeding import seed
from spawner.collaborators import Person
from spawner.request import ClusterRequest
from spawner.tables import cluster_nodes, clusters
from tests.postgres import PostgresServer
from tests.product.conftest import SETTINGS
from tests.product.product import running_product
from tests.spawner.backends import plan_of

PEOPLE, RUNNING, FINISHED, EXCEPTIONS, TIMES = 10_000, 1000, 50_000, 2000, 500
MOST_MS, MOST_SHARE = 5.0, 0.02
ROLES = ("student", "student", "student", "researcher", "teacher")


def row_of(user: str, server: str, at: Any, released_at: Any) -> dict[str, Any]:
    return {
        "id": str(ULID()),
        "user": user,
        "server": server,
        "project_id": "p" * 26,
        "project_owner": user,
        "project_slug": server,
        "project_name": server,
        "environment": "jupyter",
        "backend": "process",
        "nodes": 2,
        "cpu_millicores": 1000,
        "memory_bytes": 2**30,
        "release_policy": "auto",
        "request": {},
        "status": "running" if released_at is None else "released",
        "asked_by": user,
        "queued_at": at,
        "ready_at": at,
        "released_at": released_at,
        "role": "student",
    }


def fill(db: Database, settings: Settings, budgets: bool, together: bool = False) -> None:
    """The centre: limits, exceptions, what runs and what ran."""
    metadata.create_all(db.engine)
    draw, now = random.Random(7), utcnow()
    with db.write() as conn:
        seed(conn, settings, now)
        generous = [(role, Measure("clusters"), 50) for role in settings.roles]
        generous += [
            (role, Measure(name), None) for role in settings.roles for name in ("total_cpu", "total_memory")
        ]
        if budgets:
            generous += [(role, Measure("core_hours", period="week"), 10**9) for role in settings.roles]
        if together:
            generous += [(role, Measure("role_clusters"), 10**5) for role in settings.roles]
        store.set_limits(conn, generous, actor=store.COMMAND, now=now)
        for number in range(EXCEPTIONS):
            store.give(
                conn, f"u{number * 5}", [(Measure("nodes"), 8)], reason="bench", actor=store.COMMAND, now=now
            )
        rows = []
        for number in range(FINISHED):
            at = now - timedelta(seconds=draw.randrange(3600, 365 * 86400))
            rows.append(row_of(f"u{draw.randrange(PEOPLE)}", f"f{number}", at, at + timedelta(hours=1)))
        at = now - timedelta(hours=1)
        rows += [row_of(f"u{number * 10}", "r", at, None) for number in range(RUNNING)]
        conn.execute(insert(clusters), rows)
        conn.execute(
            insert(cluster_nodes),
            [
                {
                    "cluster_id": row["id"],
                    "rank": rank,
                    "name": f"n{rank}",
                    "ready_at": row["ready_at"],
                    "gone_at": row["released_at"],
                }
                for row in rows
                for rank in (0, 1)
            ],
        )
    if not db.is_sqlite:
        with db.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as conn:
            conn.exec_driver_sql("VACUUM ANALYZE")


async def admit(db: Database, settings: Settings) -> tuple[list[float], list[float]]:
    """Milliseconds of each admission, and of the processor's in this process."""
    given = collaborators(db, settings)
    draw = random.Random(11)
    wall: list[float] = []
    cpu: list[float] = []
    for number in range(TIMES + 20):
        user = f"u{draw.randrange(PEOPLE)}"
        person = Person(name=user, groups=(f"galilean:{draw.choice(ROLES)}",))
        plan = plan_of(user, "bench")
        begin, worked = time.perf_counter(), time.process_time()
        admitted = await given.admission.admit(person, plan, ClusterRequest(nodes=1), ["node-0"])
        if number >= 20:
            wall.append((time.perf_counter() - begin) * 1000)
            cpu.append((time.process_time() - worked) * 1000)
        with db.write() as conn:
            conn.execute(delete(cluster_nodes).where(cluster_nodes.c.cluster_id == admitted.run_id))
            conn.execute(delete(clusters).where(clusters.c.id == admitted.run_id))
    return wall, cpu


def run(report: Report, directory: Path, count: int) -> None:
    settings = parse_settings("", environ={"GALILEAN_STATE": str(directory / "state")})
    directory.chmod(0o755)
    place = directory / "postgres"
    place.mkdir()
    postgres = PostgresServer(place)
    postgres.start()
    medians: dict[str, float] = {}
    try:
        for kind in ("PostgreSQL", "SQLite"):
            for number, what in enumerate(
                ("no budgets", "a budget per week", "a budget and bounds of roles")
            ):
                name = f"{kind}, {what}"
                url = (
                    postgres.create_database(f"bench_{number}")
                    if kind == "PostgreSQL"
                    else f"sqlite:///{directory}/{number}.sqlite"
                )
                db = Database(url, threads=1)
                try:
                    fill(db, settings, number > 0, number > 1)
                    wall, cpu = asyncio.run(admit(db, settings))
                finally:
                    db.close()
                medians[name] = statistics.median(wall)
                p95 = percentile(wall, 0.95)
                report.add(
                    Figure(
                        name=f"admission, {name}",
                        ours=wall,
                        unit="ms",
                        bound=f"p95 ≤ {MOST_MS:g} ms",
                        met=p95 <= MOST_MS,
                        note=f"p95 {p95:.2f} ms; processor {statistics.median(cpu):.2f} ms",
                    )
                )
    finally:
        postgres.stop()
    (directory / "product").mkdir()
    with running_product(directory / "product", SETTINGS) as product:
        person = product.person("bench")
        start = started(person, person.project("Bench"), 1)
        seconds = [start() for _ in range(count + 1)][1:]
    for name, middle in medians.items():
        share = middle / (statistics.median(seconds) * 1000)
        report.add(
            Figure(
                name=f"admission's share of a start of one node, {name}",
                ours=[share * 100],
                unit="%",
                bound=f"≤ {MOST_SHARE:.0%}",
                met=share <= MOST_SHARE,
                note=f"of {statistics.median(seconds):.3f} s",
            )
        )
