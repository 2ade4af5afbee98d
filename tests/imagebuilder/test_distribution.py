"""For every current image and every machine there is one word, and what is missing is brought there."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from extensions.imagebuilder import distributing, distribution, store
from extensions.imagebuilder.distributing import Distributor
from extensions.imagebuilder.distribution import AGAIN, LAG, SURE, Room, Sight, Spot, next_of
from extensions.imagebuilder.entries import Actor
from galilean.db import Database
from galilean.errors import UserError
from galilean.settings_distribution import Distribution
from tests.imagebuilder.test_store import NOW, version

ROOT = Actor(name="root")


class FakeMachines:
    """Machines that have what they fetched, and disks of a size."""

    tidy = True

    def __init__(self, *names: str) -> None:
        self.there: dict[str, set[str]] = {name: set() for name in names or ("host",)}
        self.fetched: list[str] = []
        self.places: list[tuple[str, str]] = []
        self.whole, self.takes = True, True
        self.disk = Room(free_bytes=1 << 50, disk_bytes=1 << 50)
        self.then: Callable[[Callable[[int, int], None]], Any] = lambda _: None

    async def begin(self) -> None:
        self.begun = True

    async def look(self, images: Any) -> list[Sight]:
        return [
            Sight(machine=name, present=frozenset(there & set(images)), whole=self.whole, takes=self.takes)
            for name, there in self.there.items()
        ]

    async def room(self, machine: str) -> Room:
        return self.disk

    async def fetch(self, machine: str, image: str, progress: Callable[[int, int], None]) -> None:
        self.fetched.append(image)
        self.places.append((machine, image))
        said = self.then(progress)
        if asyncio.iscoroutine(said):
            await said
        self.there[machine].add(image)


class Clock:
    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> Any:
        return self.now


def add(
    db: Database, letter: str, slug: str = "", *, owner: str = "", visibility: str = "public", **more: Any
) -> str:
    image = version(letter, **more)
    with db.write() as conn:
        store.create(
            conn,
            actor=Actor(name=owner) if owner else ROOT,
            owner=owner,
            slug=slug or f"e{letter}",
            title="E",
            visibility=visibility,
            version=image,
            now=NOW,
        )
    return image.image


class Keeper(Distributor):
    """Whose round is over when what it began is."""

    async def tick(self) -> None:
        await super().tick()
        await self.idle()


def of(db: Database, machines: FakeMachines, clock: Clock | None = None, **limits: Any) -> Keeper:
    return Keeper(db, machines, clock or Clock(), limits=Distribution(**limits))


def states(db: Database) -> dict[str, str]:
    with db.read() as conn:
        return {one.image: one.state for one in distribution.spots(conn)}


async def test_what_is_added_is_fetched_one_at_a_time(sqlite_db: Database) -> None:
    first, second = add(sqlite_db, "a"), add(sqlite_db, "b")
    machine = FakeMachines()
    keeper = of(sqlite_db, machine)
    await keeper.tick()
    assert machine.fetched == [first]
    assert states(sqlite_db) == {first: "present", second: "absent"}
    await keeper.tick()
    await keeper.tick()
    assert machine.fetched == [first, second]
    assert set(states(sqlite_db).values()) == {"present"}


async def test_bytes_are_told_as_they_come(sqlite_db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distributing, "TELL_SECONDS", 0.01)
    image = add(sqlite_db, "a")
    machine = FakeMachines()
    seen: list[Spot] = []

    async def slowly(progress: Callable[[int, int], None]) -> None:
        progress(3, 10)
        for _ in range(2000):
            with sqlite_db.read() as conn:
                (spot,) = distribution.spots(conn)
            if spot.done_bytes:
                seen.append(spot)
                return
            await asyncio.sleep(0.01)

    machine.then = slowly
    await of(sqlite_db, machine).tick()
    assert [(one.state, one.done_bytes, one.total_bytes) for one in seen] == [("pulling", 3, 10)]
    assert states(sqlite_db) == {image: "present"}


async def test_why_it_failed_is_told_and_it_is_tried_again_later_or_when_asked(sqlite_db: Database) -> None:
    image = add(sqlite_db, "a")
    machine, clock = FakeMachines(), Clock()

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
    machine = FakeMachines()

    def burst(_: Any) -> None:
        raise RuntimeError("/etc/shadow")

    machine.then = burst
    await of(sqlite_db, machine).tick()
    with sqlite_db.read() as conn:
        (spot,) = distribution.spots(conn)
    assert spot.state == "failed" and spot.why and "shadow" not in spot.why


async def test_what_only_a_runs_own_key_fetches_is_looked_for_and_left(sqlite_db: Database) -> None:
    image = add(sqlite_db, "a", key_id="01HKKKKKKKKKKKKKKKKKKKKKKK")
    machine = FakeMachines()
    keeper = of(sqlite_db, machine)
    await keeper.tick()
    assert (states(sqlite_db), machine.fetched) == ({image: "absent"}, [])
    with sqlite_db.write() as conn:
        assert distribution.ask(conn, now=NOW) == 0
    machine.there["host"].add(image)
    await keeper.tick()
    assert states(sqlite_db) == {image: "present"}


async def test_what_somebody_removed_is_absent_and_comes_back(sqlite_db: Database) -> None:
    image = add(sqlite_db, "a")
    machine, clock = FakeMachines(), Clock()
    keeper = of(sqlite_db, machine, clock)
    await keeper.tick()
    machine.there["host"].clear()
    clock.now += LAG
    await keeper.tick()
    # Whatever removed it, a machine's own tidying perhaps, is not fought with.
    assert (states(sqlite_db), machine.fetched) == ({image: "absent"}, [image])
    clock.now += AGAIN
    await keeper.tick()
    assert (states(sqlite_db), machine.fetched) == ({image: "present"}, [image, image])


async def test_an_old_version_and_a_retired_entry_are_forgotten_and_not_removed(sqlite_db: Database) -> None:
    old = add(sqlite_db, "a")
    machine = FakeMachines()
    keeper = of(sqlite_db, machine)
    await keeper.tick()
    with sqlite_db.write() as conn:
        entry = store.by_name(conn, "ea")
        assert entry is not None
        store.add_version(conn, entry.id, version("b", "2"), actor=ROOT, now=NOW)
    await keeper.tick()
    new = version("b").image
    assert states(sqlite_db) == {new: "present"}
    assert machine.there["host"] == {old, new}
    with sqlite_db.write() as conn:
        store.retire(conn, entry.id, True, actor=ROOT, now=NOW)
    await keeper.tick()
    assert states(sqlite_db) == {}


async def test_what_a_killed_service_was_fetching_is_fetched_anew(sqlite_db: Database) -> None:
    image = add(sqlite_db, "a")
    machine, clock = FakeMachines(), Clock()
    await of(sqlite_db, machine, clock).tick()
    machine.there["host"].clear()
    clock.now += AGAIN
    with sqlite_db.write() as conn:
        distribution.set_state(conn, image, "host", "pulling", now=clock.now)
    await of(sqlite_db, machine, clock).tick()
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


# ------------------------------------------------------------------------------------------------ several machines


async def test_machines_take_turns_and_so_many_fetch_at_once(sqlite_db: Database) -> None:
    image = add(sqlite_db, "a")
    machines = FakeMachines("m1", "m2", "m3")
    going, most, over = 0, 0, asyncio.Event()

    async def count(_: Any) -> None:
        nonlocal going, most
        going += 1
        most = max(most, going)
        await over.wait()
        going -= 1

    machines.then = count
    keeper = Distributor(sqlite_db, machines, Clock(), limits=Distribution(at_once=2))
    for _ in range(3):
        await keeper.tick()
        await asyncio.sleep(0.01)
    assert (most, len(machines.fetched)) == (2, 2)
    over.set()
    await keeper.idle()
    await keeper.tick()
    await keeper.idle()
    assert sorted(machines.places) == [(name, image) for name in ("m1", "m2", "m3")]


async def test_on_average_no_more_comes_than_the_settings_say(sqlite_db: Database) -> None:
    add(sqlite_db, "a", size_bytes=100)
    add(sqlite_db, "b", size_bytes=100)
    machine, clock = FakeMachines(), Clock()
    keeper = of(sqlite_db, machine, clock, bytes_per_second=10)
    await keeper.tick()
    clock.now += timedelta(seconds=9)
    await keeper.tick()
    assert len(machine.fetched) == 1
    clock.now += timedelta(seconds=1)
    await keeper.tick()
    assert len(machine.fetched) == 2


async def test_a_machine_that_is_gone_has_no_rows_and_a_new_one_gets_its_images(sqlite_db: Database) -> None:
    image = add(sqlite_db, "a")
    machines = FakeMachines("old")
    keeper = of(sqlite_db, machines)
    await keeper.tick()
    machines.there = {"new": set()}
    await keeper.tick()
    with sqlite_db.read() as conn:
        found = [(one.machine, one.image, one.state) for one in distribution.spots(conn)]
    assert found == [("new", image, "present")]


async def test_a_machine_that_takes_nothing_now_waits(sqlite_db: Database) -> None:
    image = add(sqlite_db, "a")
    machine = FakeMachines()
    machine.takes = False
    await of(sqlite_db, machine).tick()
    assert (states(sqlite_db), machine.fetched) == ({image: "absent"}, [])


async def test_what_a_machine_cannot_name_is_believed_for_hours_after_it_was_fetched(
    sqlite_db: Database,
) -> None:
    image = add(sqlite_db, "a")
    machine, clock = FakeMachines(), Clock()
    machine.whole = False
    keeper = of(sqlite_db, machine, clock)
    await keeper.tick()
    machine.there["host"].clear()  # it is there, and not among those that the machine names
    clock.now += SURE - timedelta(seconds=1)
    await keeper.tick()
    assert (states(sqlite_db), len(machine.fetched)) == ({image: "present"}, 1)
    clock.now += timedelta(seconds=1)
    await keeper.tick()
    assert (states(sqlite_db), len(machine.fetched)) == ({image: "present"}, 2)


async def test_whoever_ends_in_the_middle_leaves_it_to_the_next(sqlite_db: Database) -> None:
    image = add(sqlite_db, "a")
    machine = FakeMachines()
    begun = asyncio.Event()

    async def never(_: Any) -> None:
        begun.set()
        await asyncio.sleep(3600)

    machine.then = never
    work = asyncio.create_task(Distributor(sqlite_db, machine, Clock()).run())
    await begun.wait()
    assert states(sqlite_db) == {image: "pulling"}
    work.cancel()
    await asyncio.gather(work, return_exceptions=True)
    assert states(sqlite_db) == {image: "absent"}


# ---------------------------------------------------------------------------------------------- nobody fills a disk


async def test_what_only_its_owner_sees_is_not_fetched_until_an_administrator_says_so(
    sqlite_db: Database,
) -> None:
    image = add(sqlite_db, "a", owner="ada", visibility="own")
    machine = FakeMachines()
    keeper = of(sqlite_db, machine)
    await keeper.tick()
    with sqlite_db.write() as conn:
        assert distribution.ask(conn, now=NOW) == 0  # with all others it is not asked for
    await keeper.tick()
    assert (states(sqlite_db), machine.fetched) == ({image: "absent"}, [])
    with sqlite_db.write() as conn:
        assert distribution.mark_beforehand(conn, image, True) == 1
    await keeper.tick()
    assert (states(sqlite_db), machine.fetched) == ({image: "present"}, [image])


async def test_what_a_run_could_not_fetch_itself_is_kept_there_whoever_sees_it(sqlite_db: Database) -> None:
    image = add(sqlite_db, "a", owner="ada", visibility="own")
    machine = FakeMachines()
    registry = image.partition("/")[0]
    keeper = Keeper(sqlite_db, machine, Clock(), ours=registry)
    await keeper.tick()
    assert machine.fetched == [image]


async def test_a_disk_keeps_its_reserve_and_the_reason_names_the_numbers(sqlite_db: Database) -> None:
    add(sqlite_db, "a", size_bytes=100 << 20)
    machine, clock = FakeMachines(), Clock()
    machine.disk = Room(free_bytes=599 << 20, disk_bytes=1000 << 20)
    keeper = of(sqlite_db, machine, clock, reserve_percent=20)
    await keeper.tick()
    with sqlite_db.read() as conn:
        (spot,) = distribution.spots(conn)
    assert (spot.state, machine.fetched) == ("failed", [])
    assert "400 MB" in str(spot.error) and "599 MB" in str(spot.error) and "200 MB" in str(spot.error)
    machine.disk = Room(free_bytes=600 << 20, disk_bytes=1000 << 20)
    clock.now += AGAIN
    await keeper.tick()
    assert len(machine.fetched) == 1


@pytest.mark.parametrize(
    ("disk_gb", "tidy", "kept_gb"), [(50, False, 10), (1000, False, 20), (1000, True, 200)]
)
def test_the_reserve_of_a_large_disk_is_bounded_where_nothing_removes_images_by_percent(
    disk_gb: int, tidy: bool, kept_gb: int
) -> None:
    room = Room(free_bytes=0, disk_bytes=disk_gb << 30)
    assert distribution.reserve_bytes(room, Distribution(), tidy=tidy) == kept_gb << 30


async def test_where_only_people_remove_images_one_that_is_to_be_there_comes_back_at_once(
    sqlite_db: Database,
) -> None:
    image = add(sqlite_db, "a")
    machine, clock = FakeMachines(), Clock()
    machine.tidy = False
    keeper = of(sqlite_db, machine, clock)
    await keeper.tick()
    machine.there["host"].clear()
    clock.now += LAG
    await keeper.tick()
    assert (states(sqlite_db), machine.fetched) == ({image: "present"}, [image, image])
    with sqlite_db.read() as conn:
        (spot,) = distribution.spots(conn)
    assert spot.fetched_at == clock.now


async def test_what_nobody_else_could_fetch_comes_though_it_is_switched_off(sqlite_db: Database) -> None:
    image = add(sqlite_db, "a")
    keeper = Keeper(
        sqlite_db,
        machine := FakeMachines(),
        Clock(),
        limits=Distribution(beforehand=False),
        ours=image.partition("/")[0],
    )
    await keeper.tick()
    assert machine.fetched == [image]


async def test_even_an_administrator_does_not_fill_a_disk(sqlite_db: Database) -> None:
    image = add(sqlite_db, "a", size_bytes=1 << 30)
    machine = FakeMachines()
    machine.disk = Room(free_bytes=1 << 30, disk_bytes=1 << 40)
    keeper = of(sqlite_db, machine)
    await keeper.tick()
    with sqlite_db.write() as conn:
        assert distribution.ask(conn, image=image, now=NOW) == 1
    await keeper.tick()
    assert machine.fetched == []


async def test_where_it_is_switched_off_only_what_was_asked_for_comes(sqlite_db: Database) -> None:
    image = add(sqlite_db, "a")
    machine = FakeMachines()
    keeper = of(sqlite_db, machine, beforehand=False)
    await keeper.tick()
    assert machine.fetched == []
    with sqlite_db.write() as conn:
        distribution.ask(conn, image=image, now=NOW, actor="root")
    await keeper.tick()
    assert machine.fetched == [image]


async def test_the_log_of_an_image_tells_what_happened_to_it(sqlite_db: Database) -> None:
    image = add(sqlite_db, "a")
    machine, clock = FakeMachines(), Clock()

    async def later(_: Any) -> None:
        clock.now += timedelta(seconds=7)
        if len(machine.fetched) == 1:
            raise UserError(502, "no")

    machine.then = later
    keeper = of(sqlite_db, machine, clock)
    await keeper.tick()
    with sqlite_db.write() as conn:
        distribution.ask(conn, image=image, now=clock.now, actor="root")
    await keeper.tick()
    with sqlite_db.read() as conn:
        told = [
            (one.what, one.seconds, one.actor, one.why) for one in reversed(distribution.events(conn, image))
        ]
    assert told == [
        ("begun", None, "", ""),
        ("failed", 7, "", "no"),
        ("asked", None, "root", ""),
        ("begun", None, "", ""),
        ("present", 7, "", ""),
    ]
