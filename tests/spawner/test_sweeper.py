"""The sweeper on a world in memory: it looks, reports, and removes only when told to."""

from __future__ import annotations

from datetime import timedelta

import pytest

from galilean.clock import utcnow
from galilean.db import Database
from spawner import records
from spawner.sweeper import Sweeper
from tests.spawner.backends import Node, World
from tests.spawner.test_records import reserve, start


def long_ago() -> float:
    from tests.spawner.test_records import NOW

    return (utcnow() - NOW).total_seconds() - 600


async def test_a_dry_run_reports_and_touches_nothing(sqlite_db: Database):
    world = World()
    world.nodes["ada", "lost", 0] = Node("R", started_at=utcnow() - timedelta(hours=1))
    start(sqlite_db, reserve(sqlite_db, at=long_ago()), at=long_ago())
    sweeper = Sweeper(sqlite_db, world)
    for _ in range(2):
        report = await sweeper.sweep()
        assert report.as_dict()["orphans"] == [{"user": "ada", "server": "lost", "run": "R", "rank": 0}]
        assert len(report.ghosts) == 1
        assert not report.clean
        assert (report.removed, report.closed) == (0, ())
    assert world.nodes
    assert await sqlite_db.run_read(records.count_open) == 1


async def test_orphans_are_removed_at_once_and_ghosts_after_two_absences(sqlite_db: Database):
    world = World()
    world.nodes["ada", "lost", 0] = Node("R", started_at=utcnow() - timedelta(hours=1))
    run = start(sqlite_db, reserve(sqlite_db, at=long_ago()), at=long_ago())
    sweeper = Sweeper(sqlite_db, world)
    first = await sweeper.sweep(remove=True)
    assert (first.removed, first.closed) == (1, ())
    assert world.nodes == {}
    second = await sweeper.sweep(remove=True)
    assert second.closed == (run.id,)
    assert (await sweeper.sweep(remove=True)).clean
    closed = await sqlite_db.run_read(records.get, run.id)
    assert closed is not None
    assert (closed.word, closed.reason) == ("released", "disappeared")


async def test_what_is_young_may_be_on_its_way(sqlite_db: Database):
    world = World()
    world.nodes["ada", "lost", 0] = Node("R", started_at=utcnow() - timedelta(seconds=10))
    assert (await Sweeper(sqlite_db, world).sweep(remove=True)).clean
    assert (await Sweeper(sqlite_db, world, young=timedelta(seconds=5)).sweep(remove=True)).removed == 1
    assert world.nodes == {}


async def test_what_cannot_be_looked_at_is_neither(sqlite_db: Database):
    world = World()
    start(sqlite_db, reserve(sqlite_db, at=long_ago()), at=long_ago())
    sweeper = Sweeper(sqlite_db, world)
    await sweeper.sweep(remove=True)
    world.unreachable = True
    with pytest.raises(ConnectionError):
        await sweeper.sweep(remove=True)
    assert await sqlite_db.run_read(records.count_open) == 1


async def test_one_orphan_that_cannot_be_removed_does_not_keep_the_others(sqlite_db: Database):
    class Stubborn(World):
        async def remove(self, sighting):
            if sighting.rank == 0:
                raise OSError("busy")
            await super().remove(sighting)

    world = Stubborn()
    for rank in range(2):
        world.nodes["ada", "lost", rank] = Node("R", started_at=utcnow() - timedelta(hours=1))
    report = await Sweeper(sqlite_db, world).sweep(remove=True)
    assert report.removed == 1
    assert report.errors == ("ada/lost node 0: busy",)
