"""The service's rounds on a world of thin air: orders go on step by step, whatever happens in between."""

from __future__ import annotations

from collections.abc import Collection
from datetime import timedelta
from typing import Any

import pytest

from galilean.db import Database
from galilean.errors import UserError
from services.machines import store
from services.machines.keeper import Keeper, add_machine
from services.machines.notify import Letter, in_words, letters
from services.machines.rules import Order, Pool
from spawner import records
from spawner.tables import cluster_nodes, clusters
from tests.machines.machines import RESERVED, Air, Clock, machine, run_on

POOLS = [Pool(name="default"), Pool(name="gpu", node_selector={"pool": "gpu"})]


class Post:
    def __init__(self) -> None:
        self.letters: list[Letter] = []
        self.fails = False

    async def __call__(self, post: list[Letter]) -> Collection[str]:
        if self.fails:
            raise OSError("no mail server")
        self.letters += post
        return [letter.user for letter in post]


def keeper(db: Database, world: Air, clock: Clock, post: Post | None = None) -> Keeper:
    return Keeper(db, world, POOLS, post=post or Post(), clock=clock)


def place(db: Database, clock: Clock, action: str, name: str = "m1", **more: Any) -> Order:
    with db.write() as conn:
        return store.place_order(conn, machine=name, action=action, asked_by="root", now=clock.now, **more)


def closed(db: Database, order: Order) -> str:
    with db.read() as conn:
        found = store.get_order(conn, order.id)
    assert found is not None
    return found.outcome if found.closed_at else ""


def release(db: Database, run_id: str, clock: Clock) -> None:
    """What the release service and the hub do for a run that was asked to end."""
    with db.write() as conn:
        run = records.get(conn, run_id)
        assert run is not None
        assert run.stop_asked_at is not None
        conn.execute(clusters.update().where(clusters.c.id == run_id).values(released_at=clock.now))
        conn.execute(
            cluster_nodes.update().where(cluster_nodes.c.cluster_id == run_id).values(gone_at=clock.now)
        )


async def test_a_machine_is_taken_out_at_its_date_and_not_before(sqlite_db: Database) -> None:
    db, clock, world, post = sqlite_db, Clock(), Air(machine("m1"), machine("m2")), Post()
    service = keeper(db, world, clock, post)
    await service.tick()
    run_on(db, "R1", "m1", "m2", user="alice", project_name="Heat")
    order = place(db, clock, "out", due_at=clock.now + timedelta(hours=2), remove=True, why="new disks")
    for _ in range(3):
        await service.tick()
    assert world.did == [("cordon", "m1")]
    assert [(letter.user, letter.projects) for letter in post.letters] == [("alice", ("Heat",))]
    with db.read() as conn:
        run = records.get(conn, "R1")
        assert run is not None
        assert run.stop_asked_at is None

    clock.pass_(hours=2)
    world.occupied = {"m1"}
    await service.tick()
    await service.tick()
    with db.read() as conn:
        run = records.get(conn, "R1")
        assert run is not None
        assert run.reason == "machine_out"
    assert "m1" in world.machines  # held still: the run has not gone back yet

    release(db, "R1", clock)
    world.occupied = set()
    await service.tick()
    assert "m1" not in world.machines
    await service.tick()
    assert closed(db, order) == "done"
    with db.read() as conn:
        assert [item.name for item in store.all_machines(conn)] == ["m2"]


async def test_another_service_goes_on_where_one_was_killed(sqlite_db: Database) -> None:
    db, clock, world = sqlite_db, Clock(), Air(machine("m1"))
    await keeper(db, world, clock).tick()
    order = place(db, clock, "out", remove=True)
    for _ in range(4):  # each round by a new process
        await keeper(db, world, clock).tick()
    assert (closed(db, order), world.machines) == ("done", {})
    assert world.did == [("cordon", "m1"), ("remove", "m1")]


async def test_taking_an_order_back_lets_the_machine_take_nodes_again(sqlite_db: Database) -> None:
    db, clock, world = sqlite_db, Clock(), Air(machine("m1"))
    service = keeper(db, world, clock)
    await service.tick()
    order = place(db, clock, "out", due_at=clock.now + timedelta(days=1))
    await service.tick()
    with db.write() as conn:
        store.withdraw(conn, order.id, by="root", now=clock.now)
    await service.tick()
    await service.tick()
    assert not world.machines["m1"].cordoned
    assert closed(db, order) == "withdrawn"


async def test_what_is_kept_empty_takes_nodes_again_by_one_order(sqlite_db: Database) -> None:
    db, clock, world = sqlite_db, Clock(), Air(machine("m1"))
    service = keeper(db, world, clock)
    await service.tick()
    out = place(db, clock, "out")
    for _ in range(3):
        await service.tick()
    assert (closed(db, out), world.machines["m1"].cordoned) == ("done", True)
    back = place(db, clock, "uncordon")
    for _ in range(2):
        await service.tick()
    assert (closed(db, back), world.machines["m1"].cordoned) == ("done", False)


async def test_parts_of_the_platform_are_moved_and_nodes_of_open_runs_are_left_to_their_rows(
    sqlite_db: Database,
) -> None:
    db, clock, world = sqlite_db, Clock(), Air(machine("m1", cordoned=True))
    service = keeper(db, world, clock)
    await service.tick()
    run_on(db, "R1", "m1")
    place(db, clock, "out")
    world.occupied = {"m1"}
    await service.tick()
    release(db, "R1", clock)
    await service.tick()
    assert world.did == [("move", "m1", {"R1"}), ("move", "m1", set())]


async def test_a_run_that_is_only_starting_there_is_released_as_a_whole_too(sqlite_db: Database) -> None:
    """Its row does not say yet where its nodes are: they are seen."""
    db, clock, world = sqlite_db, Clock(), Air(machine("m1", cordoned=True))
    service = keeper(db, world, clock)
    await service.tick()
    run_on(db, "R1", "", status="starting")
    place(db, clock, "out")
    world.occupied, world.runs = {"m1"}, {"m1": {"R1", "unknown"}}
    await service.tick()
    with db.read() as conn:
        run = records.get(conn, "R1")
    assert run is not None
    assert run.reason == "machine_out"
    assert world.did == [("move", "m1", {"R1"})]


async def test_an_order_that_does_not_get_on_says_why_and_holds_up_no_other(sqlite_db: Database) -> None:
    db, clock, world = sqlite_db, Clock(), Air(machine("m1"), machine("m2", taints=(RESERVED,)))
    service = keeper(db, world, clock)
    await service.tick()
    first, second = place(db, clock, "cordon"), place(db, clock, "compute", "m2")
    world.fails = RuntimeError("the API server is away")
    await service.tick()
    with db.read() as conn:
        problems = [item.problem for item in store.open_orders(conn)]
    assert all("is away" in problem for problem in problems)
    assert service.details["stuck"] == 2
    world.fails = None
    for _ in range(2):
        await service.tick()
    assert (closed(db, first), closed(db, second)) == ("done", "done")
    assert world.machines["m2"].taints == ()


async def test_a_mail_server_that_is_away_keeps_nobody_from_being_told_in_pages(sqlite_db: Database) -> None:
    db, clock, world, post = sqlite_db, Clock(), Air(machine("m1")), Post()
    post.fails = True
    service = keeper(db, world, clock, post)
    await service.tick()
    run_on(db, "R1", "m1", user="alice")
    order = place(db, clock, "out", due_at=clock.now + timedelta(hours=1))
    await service.tick()
    with db.read() as conn:
        assert store.untold(conn, order) == []
        assert len(store.notices_for(store.holdings(conn, user="alice"), store.open_orders(conn))) == 1


async def test_a_machine_that_joins_gets_its_pool_s_labels(db: Database) -> None:
    clock, world = Clock(), Air()
    made = await add_machine(db, world, name="m9", pool="gpu", asked_by="root", minutes=30, clock=clock)
    assert made["command"] == "join m9"
    service = keeper(db, world, clock)
    await service.tick()
    with pytest.raises(UserError) as again:
        await add_machine(db, world, name="m9", pool="gpu", asked_by="root", minutes=30, clock=clock)
    assert again.value.status == 409
    world.machines["m9"] = machine("m9")
    for _ in range(2):
        await service.tick()
    assert world.machines["m9"].labels == {"pool": "gpu"}
    with db.read() as conn:
        assert store.open_orders(conn) == []
        assert [item.outcome for item in store.history(conn, "m9")] == ["done"]


async def test_a_machine_that_does_not_come_is_expected_no_longer(sqlite_db: Database) -> None:
    db, clock, world = sqlite_db, Clock(), Air()
    await add_machine(db, world, name="m9", pool="default", asked_by="root", minutes=30, clock=clock)
    clock.pass_(minutes=31)
    await keeper(db, world, clock).tick()
    with db.read() as conn:
        assert [item.outcome for item in store.history(conn, "m9")] == ["expired"]


async def test_a_ticket_that_is_refused_leaves_nothing_expected(sqlite_db: Database) -> None:
    db, clock, world = sqlite_db, Clock(), Air()
    world.fails = UserError(400, "no")
    with pytest.raises(UserError):
        await add_machine(db, world, name="m9", pool="default", asked_by="root", minutes=30, clock=clock)
    with db.read() as conn:
        assert store.open_orders(conn) == []


def test_a_letter_is_in_both_languages_and_names_date_machine_and_projects(sqlite_db: Database) -> None:
    from galilean.settings import parse_settings

    settings = parse_settings("site: {name: Campus, timezone: Asia/Shanghai, language: zh_CN}")
    clock = Clock()
    run_on(sqlite_db, "R1", "m1", user="alice", project_name="Heat")
    run_on(sqlite_db, "R2", "m1", user="alice", project_name="Tides")
    with sqlite_db.write() as conn:
        store.sync(conn, [machine("m1")], clock.now)
        order = store.place_order(
            conn, machine="m1", action="out", asked_by="root", now=clock.now, why="new disks"
        )
        (letter,) = letters(order, store.holdings(conn, "m1"))
    subject, text = in_words(letter, settings)
    assert subject.startswith("Campus：机器 m1")
    for word in ("2026-03-02 17:00 (Asia/Shanghai)", "Heat, Tides", "new disks", "goes back", "撤出"):
        assert word in text
