"""For every current image and every machine there is one word, and what is missing is brought there."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from extensions.imagebuilder import distribution, store
from extensions.imagebuilder.distribution import AGAIN, Distributor, Spot, next_of
from extensions.imagebuilder.entries import Actor
from galilean.db import Database
from galilean.errors import UserError
from tests.imagebuilder.test_store import NOW, version

ROOT = Actor(name="root")


class FakeMachine:
    """Has what it fetched."""

    name = "host"

    def __init__(self) -> None:
        self.there: set[str] = set()
        self.fetched: list[str] = []
        self.then: Callable[[Callable[[int, int], None]], None] = lambda _: None

    def has(self, image: str) -> bool:
        return image in self.there

    def fetch(self, image: str, progress: Callable[[int, int], None]) -> None:
        self.fetched.append(image)
        self.then(progress)
        self.there.add(image)


class Clock:
    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> Any:
        return self.now


def add(db: Database, letter: str, slug: str = "", **more: Any) -> str:
    image = version(letter, **more)
    with db.write() as conn:
        store.create(
            conn,
            actor=ROOT,
            owner="",
            slug=slug or f"e{letter}",
            title="E",
            visibility="public",
            version=image,
            now=NOW,
        )
    return image.image


def of(db: Database, machine: FakeMachine, clock: Clock | None = None) -> Distributor:
    async def do(function: Any) -> Any:
        return await db_thread(function)

    import asyncio

    db_thread = asyncio.to_thread
    return Distributor(db, machine, clock or Clock(), do=do)


def states(db: Database) -> dict[str, str]:
    with db.read() as conn:
        return {one.image: one.state for one in distribution.spots(conn)}


async def test_what_is_added_is_fetched_one_at_a_time(sqlite_db: Database) -> None:
    first, second = add(sqlite_db, "a"), add(sqlite_db, "b")
    machine = FakeMachine()
    keeper = of(sqlite_db, machine)
    await keeper.tick()
    assert machine.fetched == [first]
    assert states(sqlite_db) == {first: "present", second: "absent"}
    await keeper.tick()
    await keeper.tick()
    assert machine.fetched == [first, second]
    assert set(states(sqlite_db).values()) == {"present"}


async def test_bytes_are_told_as_they_come(sqlite_db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distribution, "TELL_SECONDS", 0.01)
    image, told = add(sqlite_db, "a"), threading.Event()
    machine = FakeMachine()
    seen: list[Spot] = []

    def slowly(progress: Callable[[int, int], None]) -> None:
        progress(3, 10)
        for _ in range(2000):
            with sqlite_db.read() as conn:
                (spot,) = distribution.spots(conn)
            if spot.done_bytes:
                seen.append(spot)
                return
            told.wait(0.01)

    machine.then = slowly
    await of(sqlite_db, machine).tick()
    assert [(one.state, one.done_bytes, one.total_bytes) for one in seen] == [("pulling", 3, 10)]
    assert states(sqlite_db) == {image: "present"}


async def test_why_it_failed_is_told_and_it_is_tried_again_later_or_when_asked(sqlite_db: Database) -> None:
    image = add(sqlite_db, "a")
    machine, clock = FakeMachine(), Clock()

    def refuse(_: Any) -> None:
        raise UserError(507, "full of {what}", what="x")

    machine.then = refuse
    keeper = of(sqlite_db, machine, clock)
    await keeper.tick()
    await keeper.tick()
    with sqlite_db.read() as conn:
        (spot,) = distribution.spots(conn)
    assert (spot.state, str(spot.error), machine.fetched) == ("failed", "full of x", [image])
    clock.now += AGAIN
    await keeper.tick()
    assert len(machine.fetched) == 2
    machine.then = lambda _: None
    with sqlite_db.write() as conn:
        assert distribution.ask(conn, image=image, now=clock.now) == 1
    await keeper.tick()
    assert states(sqlite_db) == {image: "present"}


async def test_a_fault_of_ours_shows_nobody_its_stack(sqlite_db: Database) -> None:
    add(sqlite_db, "a")
    machine = FakeMachine()

    def burst(_: Any) -> None:
        raise RuntimeError("/etc/shadow")

    machine.then = burst
    await of(sqlite_db, machine).tick()
    with sqlite_db.read() as conn:
        (spot,) = distribution.spots(conn)
    assert spot.state == "failed" and spot.why and "shadow" not in spot.why


async def test_what_only_a_runs_own_key_fetches_is_looked_for_and_left(sqlite_db: Database) -> None:
    image = add(sqlite_db, "a", key_id="01HKKKKKKKKKKKKKKKKKKKKKKK")
    machine = FakeMachine()
    keeper = of(sqlite_db, machine)
    await keeper.tick()
    assert (states(sqlite_db), machine.fetched) == ({image: "absent"}, [])
    with sqlite_db.write() as conn:
        assert distribution.ask(conn, now=NOW) == 0
    machine.there.add(image)
    await keeper.tick()
    assert states(sqlite_db) == {image: "present"}


async def test_what_somebody_removed_is_absent_and_comes_back(sqlite_db: Database) -> None:
    image = add(sqlite_db, "a")
    machine = FakeMachine()
    keeper = of(sqlite_db, machine)
    await keeper.tick()
    machine.there.clear()
    await keeper.tick()
    assert machine.fetched == [image, image]


async def test_an_old_version_and_a_retired_entry_are_forgotten_and_not_removed(sqlite_db: Database) -> None:
    old = add(sqlite_db, "a")
    machine = FakeMachine()
    keeper = of(sqlite_db, machine)
    await keeper.tick()
    with sqlite_db.write() as conn:
        entry = store.by_name(conn, "ea")
        assert entry is not None
        store.add_version(conn, entry.id, version("b", "2"), actor=ROOT, now=NOW)
    await keeper.tick()
    new = version("b").image
    assert states(sqlite_db) == {new: "present"}
    assert machine.there == {old, new}
    with sqlite_db.write() as conn:
        store.retire(conn, entry.id, True, actor=ROOT, now=NOW)
    await keeper.tick()
    assert states(sqlite_db) == {}


async def test_what_a_killed_service_was_fetching_is_fetched_anew(sqlite_db: Database) -> None:
    image = add(sqlite_db, "a")
    machine = FakeMachine()
    await of(sqlite_db, machine).tick()
    machine.there.clear()
    with sqlite_db.write() as conn:
        distribution.set_state(conn, image, "host", "pulling", now=NOW)
    await of(sqlite_db, machine).tick()
    assert machine.fetched == [image, image]
    assert states(sqlite_db) == {image: "present"}


def test_what_was_asked_for_comes_first() -> None:
    def spot(image: str, state: str, **more: Any) -> Spot:
        return Spot(image=image, machine="m", state=state, **{"changed_at": NOW, **more})

    absent, failed = spot("a", "absent"), spot("b", "failed", asked_at=NOW)
    assert next_of([absent, failed], NOW) == failed
    assert next_of([spot("b", "failed")], NOW) is None
    assert next_of([spot("b", "failed", changed_at=NOW - AGAIN - timedelta(seconds=1))], NOW) is not None
    assert next_of([spot("c", "present"), spot("d", "absent", private=True)], NOW) is None
