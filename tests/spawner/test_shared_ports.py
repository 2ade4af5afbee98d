"""Ports of a run that are shared with named people: who has what, until when (AP-11)."""

from __future__ import annotations

from datetime import timedelta

import pytest

from galilean.db import Database
from galilean.errors import UserError
from services.people import store
from spawner import attempts, ports, records, shared_ports, steps
from tests.spawner.test_records import NOW, start
from tests.spawner.test_records import reserve as reserve_only


def reserve(db: Database, ports: tuple[int, ...]) -> str:
    """A run whose nodes have said that they look at who comes."""
    run_id = reserve_only(db, ports=ports)
    with db.write() as conn:
        shared_ports.tell_guarded(conn, run_id, 0)
    return run_id


def of(db: Database, run_id: str) -> shared_ports.Shared:
    with db.read() as conn:
        run = records.get(conn, run_id)
    assert run is not None
    return shared_ports.shared_of(run)


def give(db: Database, run_id: str, port: int, person: str) -> bool:
    with db.write() as conn:
        return shared_ports.share(conn, run_id, port, person, by="ada", now=NOW)


def refused(db: Database, run_id: str, port: int, person: str) -> int:
    with pytest.raises(UserError) as caught:
        give(db, run_id, port, person)
    assert "{" not in caught.value.text()
    return caught.value.status


def test_a_port_is_shared_and_taken_back_and_again_is_success(db: Database) -> None:
    run_id = reserve(db, ports=(8050, 9000))
    assert of(db, run_id) == {}
    assert give(db, run_id, 8050, "eve") and not give(db, run_id, 8050, "eve")
    assert give(db, run_id, 8050, "bob") and give(db, run_id, 9000, "eve")
    assert of(db, run_id) == {8050: ("bob", "eve"), 9000: ("eve",)}
    with db.write() as conn:
        for _ in range(2):
            shared_ports.withdraw(conn, run_id, 8050, "eve", by="ada", now=NOW)
        assert shared_ports.all_shared(conn) == {("ada", "heat"): {"bob", "eve"}}
        assert [run.id for run in shared_ports.shared_with(conn, "eve")] == [run_id]
        assert shared_ports.shared_with(conn, "zoe") == []
        shared_ports.withdraw(conn, run_id, 9000, "eve", by="ada", now=NOW)
        assert shared_ports.shared_with(conn, "eve") == []
    assert of(db, run_id) == {8050: ("bob",)}


def test_what_cannot_be_shared_is_refused_in_words(db: Database) -> None:
    run_id = reserve(db, ports=(8050,))
    assert refused(db, run_id, 8050, "ada") == 400
    assert refused(db, run_id, 9000, "eve") == 404
    assert refused(db, "0" * 26, 8050, "eve") == 409
    for number in range(shared_ports.PEOPLE_MOST):
        give(db, run_id, 8050, f"p{number}")
    assert refused(db, run_id, 8050, "eve") == 409


def test_nodes_of_an_older_image_share_nothing(db: Database) -> None:
    """They would let whoever comes into all of it."""
    run_id = reserve_only(db, ports=(8050,))
    assert refused(db, run_id, 8050, "eve") == 409 and of(db, run_id) == {}
    with db.write() as conn:
        for _ in range(2):
            shared_ports.tell_guarded(conn, run_id, 0)
    assert give(db, run_id, 8050, "eve")


def given_away(db: Database, run_id: str) -> tuple[tuple[int, ...], bool]:
    """What eve has of it, and whether the hub lets her come."""
    with db.read() as conn:
        run = records.get(conn, run_id)
        assert run is not None
        everybody, hers = shared_ports.all_shared(conn), shared_ports.shared_with(conn, "eve")
    assert bool(everybody) is bool(hers)
    return shared_ports.ports_for(run, "eve"), bool(everybody)


def test_every_node_must_look_at_who_comes(db: Database) -> None:
    """The hub's share leads to all nodes of a run, and their machines may hold images of different age."""
    run_id = reserve_only(db, nodes=2, ports=(8050,))
    with db.write() as conn:
        shared_ports.tell_guarded(conn, run_id, 1)
    assert refused(db, run_id, 8050, "eve") == 409
    with db.write() as conn:
        shared_ports.tell_guarded(conn, run_id, 0)
    assert give(db, run_id, 8050, "eve")
    assert given_away(db, run_id) == ((8050,), True)


def test_a_node_that_is_made_anew_says_it_again(db: Database) -> None:
    run_id = reserve_only(db, nodes=2, ports=(8050,))
    with db.write() as conn:
        for rank in range(2):
            shared_ports.tell_guarded(conn, run_id, rank)
    give(db, run_id, 8050, "eve")
    node = records.NodeInterval(cluster_id=run_id, rank=1, attempt=2, name="node-1")
    with db.write() as conn:
        attempts.begin(conn, node, steps.NodeEnd(at=NOW, exit_reason="restarted"), now=NOW)
    assert given_away(db, run_id) == ((), False) and of(db, run_id) == {8050: ("eve",)}
    with db.write() as conn:
        shared_ports.tell_guarded(conn, run_id, 1)
    assert given_away(db, run_id) == ((8050,), True)


def said(db: Database, run_id: str, after: timedelta) -> str:
    with db.write() as conn, pytest.raises(UserError) as caught:
        shared_ports.share(conn, run_id, 8050, "eve", by="ada", now=NOW + after)
    return caught.value.reason


def test_a_node_that_is_only_starting_is_not_called_too_old(db: Database) -> None:
    run_id = reserve_only(db, nodes=2, ports=(8050,))
    start(db, run_id)
    with db.write() as conn:
        shared_ports.tell_guarded(conn, run_id, 0)
    assert said(db, run_id, timedelta(seconds=30)) == "starting"
    assert said(db, run_id, timedelta(minutes=30)) != "starting"
    with db.write() as conn:
        shared_ports.tell_guarded(conn, run_id, 1)
        node = attempts.ask(conn, run_id, 1, "restart", by="ada", now=NOW + timedelta(hours=1))
        attempts.begin(conn, node, steps.NodeEnd(exit_reason="restarted"), now=NOW + timedelta(hours=1))
    assert said(db, run_id, timedelta(hours=2)) == "starting"


def test_a_node_that_does_not_come_back_keeps_nobody_from_the_ports_of_the_others(db: Database) -> None:
    run_id = reserve_only(db, nodes=2, ports=(8050,))
    start(db, run_id)
    with db.write() as conn:
        for rank in range(2):
            shared_ports.tell_guarded(conn, run_id, rank)
    give(db, run_id, 8050, "eve")
    with db.write() as conn:
        node = attempts.ask(conn, run_id, 1, "restart", by="ada", now=NOW)
        attempts.begin(conn, node, steps.NodeEnd(exit_reason="restarted"), now=NOW)
    assert given_away(db, run_id) == ((), False)
    with db.write() as conn:
        attempts.fail(conn, node, {"message": "gone", "params": {}}, now=NOW)
    assert given_away(db, run_id) == ((8050,), True)


def test_a_run_that_waits_for_other_machines_shares_nothing(db: Database) -> None:
    run_id = reserve(db, ports=(8050,))
    give(db, run_id, 8050, "eve")
    with db.write() as conn:
        stopping = steps.begin_stop(conn, "ada", "heat", reason="not_placed")
        assert stopping is not None
        assert steps.back_to_queue(conn, stopping, ends={}, now=NOW)
    assert given_away(db, run_id) == ((), False)


def test_a_port_that_is_shown_no_more_is_nobodys_and_so_it_stays_when_it_comes_back(db: Database) -> None:
    run_id = reserve(db, ports=(8050, 9000))
    give(db, run_id, 8050, "eve")
    give(db, run_id, 9000, "bob")
    with db.write() as conn:
        ports.change_ports(conn, run_id, drop=8050)
        ports.change_ports(conn, run_id, add=8050)
    assert of(db, run_id) == {9000: ("bob",)}


def test_who_gets_the_name_of_somebody_who_is_gone_gets_none_of_their_ports(db: Database) -> None:
    run_id = reserve(db, ports=(8050, 9000))
    for port, person in ((8050, "eve"), (8050, "bob"), (9000, "eve")):
        give(db, run_id, port, person)
    with db.write() as conn:
        store.forget(conn, "eve")
        assert shared_ports.all_shared(conn) == {("ada", "heat"): {"bob"}}
    assert of(db, run_id) == {8050: ("bob",)}


def test_with_the_run_all_of_it_ends(db: Database) -> None:
    run_id = reserve(db, ports=(8050,))
    give(db, run_id, 8050, "eve")
    with db.write() as conn:
        run = records.get(conn, run_id)
        assert run is not None
        stopping = steps.begin_stop(conn, run.user, run.server, reason="user")
        assert stopping is not None
        steps.close(conn, stopping, ends={}, now=NOW)
        run = records.get(conn, run_id)
        assert run is not None and shared_ports.ports_for(run, "eve") == ()
        assert shared_ports.all_shared(conn) == {} and shared_ports.shared_with(conn, "eve") == []
