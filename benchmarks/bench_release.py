"""What a round of the release service costs with ten thousand running clusters: reading, deciding, writing.

*Quiet*: nobody is there and nothing is due. *Moving*: everybody is there, so that presence of all of them has
moved since the last round and their ends with it. *Warning*: all of them are told at once that they go back soon.
The round is everything between the question to the hub and the answer that nothing is left to finish. While people are
warned, somebody else's page writes that they are there and asks what they are to be told, again and again: what that
waits for is told, too.
"""

from __future__ import annotations

import asyncio
import random
import statistics
import threading
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
from sqlalchemy import delete, func, insert, select, update

import services.catalog.tables
import services.metering.tables  # noqa: F401 - registers the tables
from benchmarks.bench_admission import row_of
from benchmarks.harness import Figure, Report, percentile
from galilean.clock import utcnow
from galilean.db import Database, metadata
from galilean.hubapi import HubAPI
from galilean.notices import unread
from galilean.settings import parse_settings
from galilean.tables import notices
from services.portal.budgets import budgets
from services.release.__main__ import LeftToTheSweeper
from services.release.releaser import Releaser
from services.release.store import seen_on_platform
from services.release.tables import presence
from services.release.terms import Terms
from services.release.watch import Watch
from spawner.tables import cluster_nodes, clusters, node_use
from tests.postgres import PostgresServer

CLUSTERS, PEOPLE, TIMES = 10_000, 6000, 7
MOST_SECONDS = 1.0
POLICIES = ("auto", "auto", "auto", "auto-when-done", "2h", "24h", "7d", "manual")


class Hub(HubAPI):
    """A hub that is there and has nothing to say."""

    async def request(self, method: str, path: str, **more: Any) -> httpx.Response:
        return httpx.Response(200, content=b"[]")


def fill(db: Database, now: datetime) -> None:
    metadata.create_all(db.engine)
    draw = random.Random(3)
    rows, nodes, uses = [], [], []
    for number in range(CLUSTERS):
        policy = draw.choice(POLICIES)
        row = row_of(f"u{number % PEOPLE}", f"s{number}", now - timedelta(minutes=1), None)
        row |= {
            "release_policy": policy,
            "release_terms": Terms(policy=policy, most_seconds=30 * 86400, idle_seconds=86400).to_json(),
            "proxy_seen_at": now,
            "node_seen_at": now,
        }
        rows.append(row)
        for rank in (0, 1):
            nodes.append(
                {"cluster_id": row["id"], "rank": rank, "name": f"n{rank}", "ready_at": row["ready_at"]}
            )
            uses.append(
                {
                    "cluster_id": row["id"],
                    "rank": rank,
                    "measured_at": now,
                    "used_at": now,
                    "busy": {"kernels": 1, "processes": 0},
                    "busy_at": now,
                    "told_at": now,
                }
            )
    with db.write() as conn:
        conn.execute(insert(clusters), rows)
        conn.execute(insert(cluster_nodes), nodes)
        conn.execute(insert(node_use), uses)
        conn.execute(
            insert(presence), [{"user": f"u{number}", "platform_seen_at": now} for number in range(PEOPLE)]
        )
    if not db.is_sqlite:
        with db.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as conn:
            conn.exec_driver_sql("VACUUM ANALYZE")


async def rounds(db: Database, directory: Path) -> dict[str, list[tuple[float, float]]]:
    """Seconds of each round, and of the processor's in this process, by what it had to do."""
    settings = parse_settings("", environ={"GALILEAN_STATE": str(directory / "state")})
    now = utcnow()
    fill(db, now)
    service = Releaser(
        settings,
        db,
        Hub("http://hub.invalid", ""),
        LeftToTheSweeper(),
        budgets=budgets(settings),
        clock=lambda: now,
        monotonic=lambda: 0.0,
    )
    service.watch = Watch(settle_seconds=0)
    await service.tick()
    found: dict[str, list[tuple[float, float]]] = {"quiet": [], "moving": [], "warning": []}

    async def measure(what: str, before: Callable[[Any], Any] | None = None) -> None:
        if before is not None:
            with db.write() as conn:
                before(conn)
        began, worked = time.perf_counter(), time.process_time()
        await service.tick()
        found[what].append((time.perf_counter() - began, time.process_time() - worked))

    for _ in range(TIMES):
        await measure("quiet")
    for _ in range(TIMES):
        now += timedelta(minutes=1)
        await measure("moving", seen_at(now))
    page = Page(db)
    for _ in range(TIMES):
        now += timedelta(minutes=1)
        began = time.perf_counter()
        page.watch()
        await measure("warning", all_leave(now))
        page.stop()
        found.setdefault("page", []).extend((waited, 0.0) for at, waited in page.taken if at >= began)
        with db.read() as conn:
            told = conn.execute(select(func.count()).select_from(notices)).scalar_one()
        assert told == CLUSTERS, told
        with db.write() as conn:
            conn.execute(delete(notices))
    return found


class Page:
    """A page of somebody who holds nothing: notes that they are there, and asks for their notices, twenty times a second."""

    def __init__(self, db: Database) -> None:
        self.db = Database(db.engine.url.render_as_string(hide_password=False))
        self.taken: list[tuple[float, float]] = []

    def watch(self) -> None:
        self.taken.clear()
        self._ends = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def stop(self) -> None:
        self._ends.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._ends.wait(0.05):
            began = time.perf_counter()
            with self.db.write() as conn:
                seen_on_platform(conn, "visitor", utcnow())
            with self.db.read() as conn:
                unread(conn, "visitor")
            self.taken.append((began, time.perf_counter() - began))


def all_leave(now: datetime) -> Callable[[Any], Any]:
    """Everybody left so long ago that all clusters go back in five minutes, and nobody was told."""
    terms = Terms(policy="2h", most_seconds=30 * 86400)
    seen = now - timedelta(hours=2) + timedelta(minutes=5)

    def leave(conn: Any) -> None:
        conn.execute(
            update(clusters).values(
                ready_at=seen - timedelta(hours=1),
                proxy_seen_at=seen,
                node_seen_at=seen,
                warned_at=None,
                release_policy=terms.policy,
                release_terms=terms.to_json(),
            )
        )
        conn.execute(update(presence).values(platform_seen_at=seen))

    return leave


def seen_at(now: datetime) -> Callable[[Any], Any]:
    """Everybody was seen by both witnesses."""
    return lambda conn: conn.execute(update(clusters).values(proxy_seen_at=now, node_seen_at=now))


def run(report: Report, directory: Path, count: int) -> None:
    directory.chmod(0o755)
    place = directory / "postgres"
    place.mkdir()
    postgres = PostgresServer(place)
    postgres.start()
    try:
        for kind in ("PostgreSQL", "SQLite"):
            url = (
                postgres.create_database("bench")
                if kind == "PostgreSQL"
                else f"sqlite:///{directory}/b.sqlite"
            )
            db = Database(url, threads=2)
            try:
                found = asyncio.run(rounds(db, directory))
            finally:
                db.close()
            for what, measured in found.items():
                seconds = [wall for wall, _ in measured]
                if what == "page":
                    report.add(
                        Figure(
                            name=f"somebody's page while {CLUSTERS} are warned: a write and a read, {kind}",
                            ours=seconds,
                            note=f"p95 {1000 * percentile(seconds, 0.95):.0f} ms",
                        )
                    )
                    continue
                report.add(
                    Figure(
                        name=f"round of release decisions, {CLUSTERS} clusters, {what}, {kind}",
                        ours=seconds,
                        bound="" if what == "warning" else f"≤ {MOST_SECONDS:g} s",
                        met=None if what == "warning" else max(seconds) <= MOST_SECONDS,
                        note=f"processor {statistics.median(cpu for _, cpu in measured):.2f} s",
                    )
                )
    finally:
        postgres.stop()
