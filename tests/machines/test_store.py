"""Rows of machines and orders, on both databases."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from galilean.db import Database
from galilean.errors import UserError
from services.machines import store
from services.machines.rules import Amounts
from spawner import records
from tests.machines.machines import RESERVED, T0, machine, run_on
from tests.metering.rows import GIB


def seen(db: Database, *machines: object, at: object = T0) -> None:
    with db.write() as conn:
        store.sync(conn, machines, at)  # type: ignore[arg-type]


def test_the_table_is_what_was_seen_last(db: Database) -> None:
    first = machine("m1", gpu=2, labels={"a": "b"}, taints=(RESERVED,), other=Amounts(cpu_millicores=5))
    seen(db, first, machine("m2"))
    later = T0 + timedelta(seconds=5)
    seen(db, replace(first, cordoned=True), machine("m3"), at=later)
    with db.read() as conn:
        found = store.all_machines(conn)
        assert store.seen_at(conn) == later
    assert [item.name for item in found] == ["m1", "m3"]
    assert replace(found[0], taints=tuple(found[0].taints)) == replace(first, cordoned=True, seen_at=later)


def test_who_holds_what_is_summed_over_the_nodes_on_that_machine(db: Database) -> None:
    run_on(db, "R1", "m1", "m1", "m2", user="alice")
    run_on(db, "R2", "m1", user="bob", stop_asked_at=T0)
    run_on(db, "R3", "m1", user="eve", released_at=T0)
    with db.read() as conn:
        found = store.holdings(conn)
        assert [(item.machine, item.run_id, item.nodes) for item in found] == [
            ("m1", "R1", 2),
            ("m2", "R1", 1),
            ("m1", "R2", 1),
        ]
        assert store.taken_by_machine(found)["m1"] == Amounts(cpu_millicores=6000, memory_bytes=24 * GIB)
        assert [item.run_id for item in store.holdings(conn, "m2")] == ["R1"]
        assert [item.run_id for item in store.holdings(conn, user="bob", hosts=["m1"])] == ["R2"]
        assert store.holdings(conn, user="bob", hosts=["m2"]) == []


def test_one_order_at_a_time_for_a_machine(db: Database) -> None:
    seen(db, machine("m1"))
    with db.write() as conn:
        placed = store.place_order(conn, machine="m1", action="cordon", asked_by="root", now=T0)
    with db.write() as conn, pytest.raises(UserError) as refused:
        store.place_order(conn, machine="m1", action="out", asked_by="root", now=T0)
    assert refused.value.status == 409
    with db.write() as conn:
        store.close_order(conn, placed.id, outcome="done", now=T0)
        store.place_order(conn, machine="m1", action="out", asked_by="root", now=T0)
        assert [item.action for item in store.history(conn, "m1")] == ["out", "cordon"]


def test_orders_are_for_machines_that_are_and_additions_for_those_that_are_not(db: Database) -> None:
    seen(db, machine("m1"))
    for action, name, status in (("out", "m2", 404), ("add", "m1", 409)):
        with db.write() as conn, pytest.raises(UserError) as refused:
            store.place_order(conn, machine=name, action=action, asked_by="root", now=T0)
        assert refused.value.status == status


def test_an_order_is_taken_back_once_and_only_while_it_is_open(db: Database) -> None:
    seen(db, machine("m1"))
    with db.write() as conn:
        placed = store.place_order(conn, machine="m1", action="out", asked_by="root", now=T0)
        assert store.withdraw(conn, placed.id, by="maria", now=T0)
        assert not store.withdraw(conn, placed.id, by="root", now=T0)
        found = store.get_order(conn, placed.id)
        assert found is not None
        assert (found.withdrawn_by, found.leaves) == ("maria", False)
        store.close_order(conn, placed.id, outcome="withdrawn", now=T0)
        assert store.open_orders(conn) == []


def test_emptying_a_machine_asks_every_run_there_to_end_and_says_why(db: Database) -> None:
    seen(db, machine("m1"))
    run_on(db, "R1", "m1", "m2")
    run_on(db, "R2", "m2")
    with db.write() as conn:
        placed = store.place_order(
            conn, machine="m1", action="out", asked_by="root", now=T0, why="new memory"
        )
        assert store.release_all(conn, placed, T0) == ["R1"]
        assert store.release_all(conn, placed, T0) == []
        asked, other = records.get(conn, "R1"), records.get(conn, "R2")
    assert asked is not None
    assert other is not None
    assert (asked.reason, asked.stop_asked_by, asked.stop_asked_at) == ("machine_out", "root", T0)
    assert asked.explanation == {
        "message": "The machine {machine} was taken out: {why}",
        "params": {"machine": "m1", "why": "new memory"},
    }
    assert other.stop_asked_at is None


def test_everybody_is_told_once_for_each_cluster(db: Database) -> None:
    seen(db, machine("m1"))
    run_on(db, "R1", "m1", user="alice")
    with db.write() as conn:
        placed = store.place_order(conn, machine="m1", action="out", asked_by="root", now=T0)
        found = store.untold(conn, placed)
        assert [item.run_id for item in found] == ["R1"]
        store.note_told(conn, placed, found, mailed=["alice"], now=T0)
        assert store.untold(conn, placed) == []
    run_on(db, "R2", "m1", user="alice")
    with db.read() as conn:
        assert [item.run_id for item in store.untold(conn, placed)] == ["R2"]


def test_notices_are_for_those_who_hold_something_there(db: Database) -> None:
    seen(db, machine("m1"), machine("m2"))
    run_on(db, "R1", "m1", user="alice", project_name="Heat")
    run_on(db, "R2", "m2", user="bob")
    with db.write() as conn:
        store.place_order(
            conn, machine="m1", action="out", asked_by="root", now=T0, due_at=T0 + timedelta(hours=1), why="x"
        )
        orders = store.open_orders(conn)
        (notice,) = store.notices_for(store.holdings(conn, user="alice"), orders)
        assert (notice.machine, notice.projects, notice.why) == ("m1", ("Heat",), "x")
        assert store.notices_for(store.holdings(conn, user="bob"), orders) == []
        store.withdraw(conn, orders[0].id, by="root", now=T0)
        assert store.notices_for(store.holdings(conn, user="alice"), store.open_orders(conn)) == []
