from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from sqlalchemy import select, update

import services.catalog.tables  # noqa: F401 - registers the tables
from galilean.amounts import GIB
from galilean.db import Database
from services.metering.reconcile import Reconciler
from services.metering.report import report
from services.metering.sampling import Metered, Step, advance, note
from services.metering.tables import run_use
from services.metering.work import Metering, difference
from spawner.inventory import Sighting
from spawner.tables import cluster_nodes, clusters, node_use
from spawner.use import GpuUse, NodeUse
from tests.metering.rows import T0, add_node, add_run, at

S = 1_000_000


def node(**values: Any) -> Metered:
    return Metered(
        **{
            "run": "R1", "rank": 0, "attempt": 1, "cpu_millicores": 2000, "gpu": 1, "measured_at": at(0),
            "counter_us": 100 * S, "used_at": at(-5), **values,
        }
    )  # fmt: skip


def use(total: int | None, *, gpu: int | None = None, seconds: float = 30, memory: int = GIB) -> NodeUse:
    cards = None if gpu is None else GpuUse(cards=1, permille=gpu, memory_bytes=5)
    return NodeUse(
        run="R1",
        rank=0,
        cpu_us_total=total,
        memory_bytes=memory,
        gpu=cards,
        measured_at=at(0, seconds=seconds),
    )


@pytest.mark.parametrize(
    ("before", "sample", "wanted"),
    [
        pytest.param(
            node(), use(130 * S),
            {"measured_us": 30 * S, "cpu_used_us": 30 * S, "memory_kib_s": 30 * 2**20, "idle_us": 0,
             "cpu_permille": 1000, "used_at": at(0, seconds=30)},
            id="one of two processors",
        ),
        pytest.param(
            node(gpu=0), use(102 * S), {"cpu_used_us": 2 * S, "idle_us": 30 * S, "used_at": at(-5)},
            id="under five percent",
        ),
        pytest.param(node(gpu=0), use(103 * S), {"idle_us": 0}, id="five percent of two processors is not idle"),
        pytest.param(
            node(gpu=0, idle_permille=100), use(103 * S), {"idle_us": 30 * S}, id="unless ten percent are idle"
        ),
        pytest.param(
            node(), use(100 * S), {"idle_us": 0, "gpu_idle_us": 0, "used_at": at(0, seconds=30)},
            id="a card that nobody measures may be at work",
        ),
        pytest.param(node(gpu=2), use(100 * S, gpu=0), {"idle_us": 0}, id="one of two cards is not measured"),
        pytest.param(
            node(), use(100 * S, gpu=0), {"idle_us": 30 * S, "gpu_idle_us": 30 * S, "gpu_used_us": 0}, id="card idle"
        ),
        pytest.param(
            node(), use(100 * S, gpu=500), {"idle_us": 0, "gpu_idle_us": 0, "gpu_used_us": 15 * S}, id="card at half"
        ),
        pytest.param(node(), use(7 * S), {"cpu_used_us": 0, "counter_us": 7 * S}, id="the counter began again"),
        pytest.param(
            node(measured_at=None, counter_us=0, used_at=None), use(55 * S),
            {"measured_us": 0, "cpu_used_us": 0, "counter_us": 55 * S, "used_at": at(0, seconds=30)},
            id="the first sample",
        ),
        pytest.param(node(), use(500 * S, seconds=121), {"measured_us": 0, "cpu_used_us": 0}, id="after a gap"),
        pytest.param(node(), use(500 * S, seconds=-30), {"measured_us": 0, "counter_us": 500 * S}, id="clock set back"),
        pytest.param(node(), use(None), {"measured_us": 0, "counter_us": 100 * S}, id="not measured this time"),
    ],
)  # fmt: skip
def test_a_sample_adds_what_is_new(before: Metered, sample: NodeUse, wanted: dict[str, Any]) -> None:
    step: Step = advance(before, sample)
    assert {name: getattr(step, name) for name in wanted} == wanted


def test_real_use_is_added_up_by_node_and_by_day_and_closes_into_the_reports(db: Database) -> None:
    midnight = datetime(2026, 3, 3, tzinfo=UTC)
    with db.write() as conn:
        add_run(conn, "R1", gpu=0)
        add_node(conn, "R1", 0, T0, at(1), attempt=1)
        add_node(conn, "R1", 0, at(2), attempt=2)
        for step, total in ((-60, 10), (-30, 40), (0, 40), (30, 45)):
            moment = midnight + timedelta(seconds=step)
            sample = NodeUse(run="R1", rank=0, cpu_us_total=total * S, memory_bytes=GIB, measured_at=moment)
            assert note(conn, [sample, NodeUse(**{**vars(sample), "run": "gone"})], zone=UTC) == 1
        row = conn.execute(select(node_use)).mappings().one()
        assert (row["attempt"], row["cpu_used_us"], row["idle_us"], row["cpu_permille"]) == (
            2,
            35 * S,
            30 * S,
            166,
        )
        assert row["used_at"] == midnight + timedelta(seconds=30)
        days = {row.day: (row.measured_us, row.cpu_used_us) for row in conn.execute(select(run_use))}
        second = midnight.toordinal()
        assert days == {second - 1: (30 * S, 30 * S), second: (60 * S, 5 * S)}
    now = midnight + timedelta(hours=1)
    live = _by_day(db, now)
    with db.write() as conn:
        conn.execute(update(clusters).values(released_at=now, status="released"))
        conn.execute(update(cluster_nodes).where(cluster_nodes.c.gone_at.is_(None)).values(gone_at=now))
    metering = Metering(db, Reconciler(db, Nothing(), clock=lambda: now), zone=UTC, clock=lambda: now)
    await_(metering.tick())
    assert _by_day(db, now) == live
    assert live["2026-03-03"][1:] == (60 * S, 5 * S, 30 * S)
    with db.read() as conn:
        total = report(conn, by="user", zone=UTC, now=now).total
    assert total.idle_percent == pytest.approx(100 * 30 / 90)
    assert total.cpu_percent == pytest.approx(100 * 35 / (90 * 2), rel=0.01)


class Nothing:
    async def inventory(self) -> list[Sighting]:
        return []

    async def remove(self, sighting: Sighting) -> None:
        raise AssertionError


def await_(what: Any) -> Any:
    import asyncio

    return asyncio.run(what)


def _by_day(db: Database, now: datetime) -> dict[str, tuple[int, ...]]:
    with db.read() as conn:
        return {
            line.key: (line.wall_us, line.measured_us, line.cpu_used_us, line.idle_us)
            for line in report(conn, by="day", zone=UTC, now=now).lines
        }


class World:
    def __init__(self, *sightings: Sighting) -> None:
        self.sightings = list(sightings)

    async def inventory(self) -> list[Sighting]:
        return self.sightings

    async def remove(self, sighting: Sighting) -> None:
        raise AssertionError


class Broken:
    async def measure(self) -> Sequence[NodeUse]:
        raise OSError("no metrics")

    async def close(self) -> None:
        """Nothing to close."""


async def test_metrics_tell_what_is_held_and_used_by_pool_and_administrators_the_difference(
    db: Database,
) -> None:
    stray = Sighting(
        user="eve",
        server="x",
        run="STRAY",
        rank=0,
        state="alive",
        started_at=None,
        finished_at=None,
        handle={},
    )
    with db.write() as conn:
        add_run(conn, "R1", nodes=2, pool="big")
        add_node(conn, "R1", 0, T0)
        add_node(conn, "R1", 1, T0)
        add_run(conn, "R2", user="bob")
        add_node(conn, "R2", 0, T0)
        conn.execute(
            node_use.insert().values(cluster_id="R1", rank=1, attempt=1, cpu_permille=1500, memory_bytes=GIB)
        )
    registry = CollectorRegistry()
    details: dict[str, Any] = {}
    reconciler = Reconciler(db, World(stray), clock=lambda: at(1), registry=registry, details=details)
    metering = Metering(
        db, reconciler, zone=UTC, meter=Broken(), clock=lambda: at(1), registry=registry, details=details
    )
    await metering.tick()
    value = registry.get_sample_value
    assert value("galilean_cluster_hold_count", {"pool": "big"}) == 1
    assert value("galilean_node_hold_count", {"pool": "big"}) == 2
    assert value("galilean_cpu_hold_cores", {"pool": "big"}) == 4
    assert value("galilean_cpu_use_cores", {"pool": "big"}) == 1.5
    assert value("galilean_memory_use_bytes", {"pool": "default"}) == 0
    assert value("galilean_gpu_hold_count", {"pool": "default"}) == 1
    assert details["measured"]["error"] == "OSError"
    with db.read() as conn:
        found = difference(conn)
    assert found is not None
    assert (found["nodes"], found["sighted"], len(found["missing"])) == (3, 0, 3)
    assert found["strays"] == [{"run": "STRAY", "rank": 0}]


def test_what_counts_as_idle_stands_in_the_terms_of_the_run(db: Database) -> None:
    with db.write() as conn:
        for run, terms in (
            ("R1", {"idle_percent": 40}),
            ("R2", {}),
            ("R3", None),
            ("R4", {"idle_percent": "?"}),
        ):
            add_run(conn, run, gpu=0, release_terms=terms)
            add_node(conn, run, 0, T0)
        for seconds, total in ((0, 0), (30, 15)):  # half of one of two processors
            note(
                conn, [replace(use(total * S, seconds=seconds), run=f"R{n}") for n in (1, 2, 3, 4)], zone=UTC
            )
        rows = conn.execute(select(node_use.c.cluster_id, node_use.c.idle_us).order_by(node_use.c.cluster_id))
        assert [tuple(row) for row in rows] == [("R1", 30 * S), ("R2", 0), ("R3", 0), ("R4", 0)]


async def test_it_is_measured_as_often_as_the_settings_say(sqlite_db: Database) -> None:
    class Counting:
        times = 0

        async def measure(self) -> Sequence[NodeUse]:
            self.times += 1
            return []

        async def close(self) -> None:
            """Nothing to close."""

    meter, seconds = Counting(), 0.0
    metering = Metering(
        sqlite_db, Reconciler(sqlite_db, Nothing(), clock=lambda: T0), zone=UTC, meter=meter, sample_seconds=10,
        clock=lambda: T0, monotonic=lambda: seconds,
    )  # fmt: skip
    for _ in range(12):
        await metering.tick()
        seconds += 5
    assert meter.times == 6
