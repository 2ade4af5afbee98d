from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import pytest
from sqlalchemy import select

from galilean.amounts import GIB
from galilean.db import Database
from services.metering.reconcile import (
    ENDED,
    LAST_SEEN,
    Close,
    Reconciler,
    compare,
)
from services.metering.usage import usage
from spawner import records, steps
from spawner.inventory import Sighting
from spawner.plan import ClusterPlan, EnvironmentChoice, Mount
from spawner.records import NodeInterval
from spawner.request import ClusterRequest
from spawner.steps import NodeStart
from spawner.tables import cluster_nodes
from tests.metering.rows import add_node, add_run, at


def life(rank: int = 0, attempt: int = 1, *, ready: float = 0, sighted: float | None = None) -> NodeInterval:
    return NodeInterval(
        cluster_id="R1",
        rank=rank,
        attempt=attempt,
        name=f"n{rank}",
        ready_at=at(ready),
        sighted_at=None if sighted is None else at(sighted),
    )


def sighting(
    rank: int = 0, *, state: str = "alive", finished: float | None = None, run: str = "R1"
) -> Sighting:
    return Sighting(
        user="alice",
        server="heat",
        run=run,
        rank=rank,
        state=state,
        finished_at=None if finished is None else at(finished),
    )


KEY = ("R1", 0, 1)


@pytest.mark.parametrize(
    ("lives", "sightings", "absences", "sighted", "closes", "missed"),
    [
        pytest.param([life()], [sighting()], {}, [KEY], [], {}, id="there"),
        pytest.param([life()], [sighting()], {KEY: 1}, [KEY], [], {}, id="there again"),
        pytest.param([life()], [], {}, [], [], {KEY: 1}, id="missed once is left"),
        pytest.param(
            [life()], [], {KEY: 1}, [], [(KEY, 0, LAST_SEEN)], {KEY: 2}, id="never seen since ready"
        ),
        pytest.param(
            [life(sighted=7)], [], {KEY: 1}, [], [(KEY, 7, LAST_SEEN)], {KEY: 2}, id="last sighting"
        ),
        pytest.param(
            [life(sighted=7)],
            [sighting(state="ended", finished=8)],
            {},
            [],
            [(KEY, 8, ENDED)],
            {},
            id="the backend's word",
        ),
        pytest.param(
            [life(sighted=7)],
            [sighting(state="ended")],
            {},
            [],
            [],
            {KEY: 1},
            id="ended a moment ago: who stops it may write when",
        ),
        pytest.param(
            [life(sighted=7)],
            [sighting(state="ended")],
            {KEY: 1},
            [],
            [(KEY, 7, LAST_SEEN)],
            {KEY: 2},
            id="ended, and nobody said when",
        ),
        pytest.param(
            [life(ready=5)],
            [sighting(state="ended", finished=4)],
            {},
            [],
            [(KEY, 5, ENDED)],
            {},
            id="not before it was ready",
        ),
        pytest.param(
            [life()],
            [sighting(state="ended", finished=90)],
            {},
            [],
            [(KEY, 10, ENDED)],
            {},
            id="not after now",
        ),
        pytest.param(
            [life()],
            [sighting(state="ended", finished=3), sighting()],
            {},
            [KEY],
            [],
            {},
            id="a leftover beside the living one",
        ),
        pytest.param(
            [life(sighted=4), life(attempt=2, ready=6)],
            [sighting()],
            {KEY: 1},
            [("R1", 0, 2)],
            [(KEY, 4, LAST_SEEN)],
            {KEY: 2},
            id="a sighting is of the newest attempt",
        ),
        pytest.param(
            [life()], [sighting(1), sighting(run="R2")], {}, [], [], {KEY: 1}, id="others do not count"
        ),
    ],
)
def test_compare(lives, sightings, absences, sighted, closes, missed) -> None:
    found = compare(lives, sightings, absences, at(10))
    assert list(found.sighted) == sighted
    assert list(found.closes) == [Close(key=key, at=at(when), exit_reason=why) for key, when, why in closes]
    assert found.absences == missed
    assert set(found.difference.missing) == set(missed)


def test_nodes_without_an_interval_are_told() -> None:
    found = compare([life()], [sighting(), sighting(1), sighting(2, state="ended")], {}, at(10))
    assert found.difference.strays == (sighting(1),)
    assert (found.difference.nodes, found.difference.sighted) == (1, 1)


@dataclass
class World:
    """A backend for tests: what exists, and how looking at it goes wrong."""

    there: dict[tuple[str, int], Sighting] = field(default_factory=dict)
    broken: bool = False

    async def inventory(self) -> list[Sighting]:
        if self.broken:
            raise ConnectionError("half of the answer came")
        return list(self.there.values())

    async def remove(self, sighting: Sighting) -> None:
        self.there.pop((sighting.run, sighting.rank), None)


class Now:
    def __init__(self) -> None:
        self.minutes = 0.0

    def __call__(self) -> datetime:
        return at(self.minutes)


def _node(db: Database) -> tuple[datetime | None, datetime | None, str]:
    with db.read() as conn:
        row = conn.execute(
            select(cluster_nodes.c.sighted_at, cluster_nodes.c.gone_at, cluster_nodes.c.exit_reason)
        ).one()
    return row.sighted_at, row.gone_at, row.exit_reason


async def test_a_lost_node_is_counted_until_it_was_last_seen(db: Database) -> None:
    with db.write() as conn:
        add_node(conn, add_run(conn, "R1"), 0, at(0))
    world, now = World({("R1", 0): sighting()}), Now()
    metering = Reconciler(db, world, clock=now)
    now.minutes = 1
    await metering.tick()
    assert _node(db) == (at(1), None, "")
    world.there.clear()
    for minute in (2, 3):
        assert _node(db)[1] is None
        now.minutes = minute
        await metering.tick()
    assert _node(db) == (at(1), at(1), LAST_SEEN)
    with db.read() as conn:
        (row,) = usage(conn, by="user", now=at(50))
    assert row.seconds == 60


async def test_a_look_that_failed_changes_nothing_and_counts_as_no_absence(db: Database) -> None:
    with db.write() as conn:
        add_node(conn, add_run(conn, "R1"), 0, at(0))
    world, now = World(), Now()
    metering = Reconciler(db, world, clock=now)
    now.minutes = 1
    await metering.tick()  # one absence
    world.broken = True
    for _ in range(5):
        now.minutes += 1
        with pytest.raises(ConnectionError):
            await metering.tick()
    assert _node(db) == (None, None, "")
    world.broken, world.there[("R1", 0)] = False, sighting()
    now.minutes += 1
    await metering.tick()
    assert _node(db) == (at(7), None, "")
    world.there.clear()
    await metering.tick()
    assert _node(db)[1] is None  # the absence before was forgotten when it was seen


async def test_an_end_that_the_hub_wrote_is_not_rewritten(db: Database) -> None:
    class HubIsQuicker(World):
        async def inventory(self) -> list[Sighting]:
            with db.write() as conn:
                records.mark_node_gone(conn, "R1", 0, 1, at=at(5), exit_reason="released")
            return [sighting(state="ended", finished=9)]

    with db.write() as conn:
        add_node(conn, add_run(conn, "R1"), 0, at(0))
    now = Now()
    now.minutes = 10
    metering = Reconciler(db, HubIsQuicker(), clock=now)
    await metering.tick()
    assert _node(db) == (None, at(5), "released")


async def test_nodes_on_their_way_are_left_to_the_hub(db: Database) -> None:
    with db.write() as conn:
        add_node(conn, add_run(conn, "R1", status="starting", ready_at=None), 0, None)
    now = Now()
    metering = Reconciler(db, World(), clock=now)
    for _ in range(3):
        now.minutes += 1
        await metering.tick()
    assert _node(db) == (None, None, "")
    assert metering.difference is not None and metering.difference.nodes == 0


# ----------------------------------------------------- a month of troubles against a log that knows the truth


@dataclass
class TrueLife:
    """What the world itself knows of a node; kept apart from everything that is tested."""

    run: str
    began: float
    seen: float
    ended: float | None = None


class Simulation:
    """Starts, releases, kills and crashes at random seconds; the hub and metering are down now and then."""

    def __init__(self, db: Database, seed: int) -> None:
        self.db, self.rng, self.now = db, random.Random(seed), Now()
        self.world = World()
        self.metering = self._metering()
        self.lives: dict[tuple[str, int], TrueLife] = {}
        self.open: dict[str, records.Run] = {}
        self.hub_down_until = self.metering_down_until = -1.0
        self.seconds = 0
        self.runs = 0

    def _metering(self) -> Reconciler:
        return Reconciler(self.db, self.world, clock=self.now)

    def start(self) -> None:
        self.runs += 1
        run_id, nodes = f"R{self.runs:05}", self.rng.randrange(1, 4)
        plan = ClusterPlan(
            user="alice",
            server=f"s{self.runs}",
            project_id="P1",
            project_owner="alice",
            project_slug="heat",
            project_name="Heat",
            environment=EnvironmentChoice(name="jupyter"),
            mounts=(Mount(source="/x", target="work"),),
            nodes=nodes,
            cpu_millicores=1000,
            memory_bytes=GIB,
            gpu=1,
        )
        request, now = ClusterRequest(), self.now()
        with self.db.write() as conn:
            steps.reserve(
                conn, run_id=run_id, plan=plan, request=request, backend="process", asked_by="alice", now=now
            )
            run = steps.begin_start(conn, run_id, names=[f"n{i}" for i in range(nodes)])
            assert run is not None
            assert steps.begin_running(conn, run, [NodeStart(rank=i) for i in range(nodes)], now=now)
        self.open[run_id] = run
        for rank in range(nodes):
            self.world.there[(run_id, rank)] = Sighting(
                user="alice", server=plan.server, run=run_id, rank=rank
            )
            self.lives[(run_id, rank)] = TrueLife(run_id, self.seconds, self.seconds)

    def kill(self) -> None:
        """A node dies; either its backend object tells when, or nothing of it is left."""
        alive = [key for key, seen in self.world.there.items() if seen.alive]
        if not alive:
            return
        key = self.rng.choice(alive)
        true = self.lives[key]
        if self.rng.random() < 0.5:
            seen = self.world.there[key]
            self.world.there[key] = Sighting(
                user=seen.user,
                server=seen.server,
                run=seen.run,
                rank=seen.rank,
                state="ended",
                finished_at=self.now(),
            )
            true.ended = self.seconds
        else:
            del self.world.there[key]
            true.ended = true.seen

    def release(self) -> None:
        """The hub stops a run: what lives ends now, what died before ends as the backend says or when last seen."""
        if not self.open or self.seconds < self.hub_down_until:
            return
        run_id = self.rng.choice(list(self.open))
        now = self.now()
        found = {key[1]: seen for key, seen in self.world.there.items() if key[0] == run_id}
        ends = {
            rank: steps.NodeEnd(at=now if seen.alive else seen.finished_at, exit_reason="released")
            for rank, seen in found.items()
        }
        with self.db.write() as conn:
            run = steps.begin_stop(conn, "alice", self.open[run_id].server, reason="asked", run_id=run_id)
            assert run is not None
            assert steps.close(conn, run, ends=ends, now=now)
        del self.open[run_id]
        for key in [key for key in self.world.there if key[0] == run_id]:
            del self.world.there[key]
            true = self.lives[key]
            true.ended = self.seconds if true.ended is None else true.ended

    def lose_hub(self) -> None:
        self.hub_down_until = self.seconds + self.rng.randrange(120)

    def lose_metering(self) -> None:
        self.metering_down_until = self.seconds + self.rng.randrange(90)
        self.metering = self._metering()  # what it remembered is gone

    def break_inventory(self) -> None:
        self.world.broken = not self.world.broken

    async def run_for(self, seconds: int) -> None:
        deeds: list[Callable[[], None]] = [
            self.start, self.start, self.kill, self.kill, self.release, self.lose_hub, self.lose_metering,
            self.break_inventory,
        ]  # fmt: skip
        for _ in range(seconds):
            self.seconds += 1
            self.now.minutes = self.seconds / 60
            if self.rng.random() < 0.2:
                self.rng.choice(deeds)()
            if self.seconds % 5 == 0:
                await self.look()

    async def look(self) -> None:
        if self.seconds < self.metering_down_until:
            return
        if self.world.broken:
            with pytest.raises(ConnectionError):
                await self.metering.tick()
            return
        await self.metering.tick()
        for key, seen in self.world.there.items():
            if seen.alive:
                self.lives[key].seen = self.seconds

    async def settle(self) -> None:
        self.world.broken, self.metering_down_until = False, -1
        for _ in range(3):
            self.seconds += 5
            self.now.minutes = self.seconds / 60
            await self.look()


@pytest.mark.parametrize("seed", range(3))
async def test_usage_is_what_the_world_says_to_the_second_after_any_troubles(db: Database, seed: int) -> None:
    world = Simulation(db, seed)
    await world.run_for(1200)
    await world.settle()
    expected_nodes = sum(
        (world.seconds if true.ended is None else true.ended) - true.began for true in world.lives.values()
    )
    expected_wall = 0
    for run in {true.run for true in world.lives.values()}:
        seconds: set[int] = set()
        for true in world.lives.values():
            if true.run == run:
                until = world.seconds if true.ended is None else true.ended
                seconds.update(range(int(true.began), int(until)))
        expected_wall += len(seconds)
    with db.read() as conn:
        (row,) = usage(conn, by="project", now=world.now(), live=lambda conn, ids: set(ids))
    assert round(row.gpu_card_minutes * 60) == expected_nodes
    assert row.seconds == expected_wall
    assert world.runs > 20
    assert timedelta(minutes=world.now.minutes) > timedelta(minutes=20)
