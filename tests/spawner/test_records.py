"""Rows of runs and nodes, on both databases."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from ulid import ULID

from galilean.db import Database
from galilean.errors import UserError
from spawner import records, steps
from spawner.request import ClusterRequest
from spawner.steps import NodeEnd, NodeStart
from spawner.sweeper import close_ghost
from tests.spawner.backends import plan_of

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)


def later(seconds: float) -> datetime:
    return NOW + timedelta(seconds=seconds)


def reserve(db: Database, server: str = "heat", user: str = "ada", at: float = 0, **plan) -> str:
    run_id = str(ULID.from_timestamp(later(at).timestamp()))
    with db.serialised("admission") as conn:
        steps.reserve(
            conn,
            run_id=run_id,
            plan=plan_of(user, server, **plan),
            request=ClusterRequest(nodes=2),
            backend="memory",
            asked_by=user,
            now=later(at),
        )
    return run_id


def start(db: Database, run_id: str, nodes: int = 2, at: float = 10) -> records.Run:
    with db.write() as conn:
        run = steps.begin_start(conn, run_id, names=[f"n{rank}" for rank in range(nodes)])
        assert run
        assert steps.begin_running(
            conn, run, [NodeStart(rank=rank, url="http://h:1") for rank in range(nodes)], now=later(at)
        )
        found = records.get(conn, run_id)
        assert found
        return found


def test_a_life_is_written_step_by_step(db: Database):
    run = start(db, reserve(db, nodes=2))
    assert (run.word, run.together("memory_bytes")) == ("running", 2 * run.memory_bytes)
    with db.write() as conn:
        stopping = steps.begin_stop(conn, "ada", "heat", reason="asked")
        assert stopping is not None
        assert (stopping.status, stopping.target, stopping.word) == ("stopping", "released", "releasing")
        ends = {
            0: NodeEnd(at=later(58), exit_reason="released"),
            1: NodeEnd(at=later(50), exit_reason="exited 1"),
        }
        assert steps.close(conn, stopping, ends=ends, now=later(60))
    with db.read() as conn:
        closed = records.get(conn, run.id)
        nodes = records.intervals(conn, [run.id])[run.id]
    assert closed is not None
    assert (closed.word, closed.released_at) == ("released", later(60))
    assert [(node.gone_at, node.exit_reason) for node in nodes] == [
        (later(58), "released"),
        (later(50), "exited 1"),
    ]


@pytest.mark.parametrize(
    ("end", "sighted", "gone", "why"),
    [
        pytest.param(None, 40, 40, "lost, counted until last seen", id="not told of"),
        pytest.param(NodeEnd(), 40, 40, "lost, counted until last seen", id="told without a moment"),
        pytest.param(NodeEnd(exit_reason="disappeared"), None, 10, "disappeared, counted until last seen", id="never seen"),
        pytest.param(NodeEnd(exit_reason="ended", seen_at=later(45)), 40, 45, "ended, counted until last seen", id="seen by the hub"),
        pytest.param(NodeEnd(exit_reason="ended", seen_at=later(30)), 40, 40, "ended, counted until last seen", id="seen later by others"),
        pytest.param(NodeEnd(at=later(50), exit_reason="killed", seen_at=later(45)), 40, 50, "killed", id="the backend knows"),
    ],
)  # fmt: skip
def test_a_node_whose_end_nobody_knows_counts_until_it_was_last_seen(
    db: Database, end: NodeEnd | None, sighted: int | None, gone: int, why: str
):
    run = start(db, reserve(db), at=10)
    with db.write() as conn:
        if sighted:
            records.sight_nodes(conn, [(run.id, 0, 1)], later(sighted))
        stopping = steps.begin_stop(conn, "ada", "heat", reason="node_lost")
        assert stopping is not None
        assert steps.close(conn, stopping, ends={} if end is None else {0: end}, now=later(99))
        node = records.intervals(conn, [run.id])[run.id][0]
    assert (node.gone_at, node.exit_reason) == (later(gone), why)


def test_a_node_that_never_was_ready_needs_no_last_sighting(db: Database):
    run_id = reserve(db)
    with db.write() as conn:
        steps.begin_start(conn, run_id, names=["n0"])
        stopping = steps.begin_stop(conn, "ada", "heat", reason="cancelled")
        assert stopping is not None
        assert steps.close(conn, stopping, ends={}, now=later(60))
        node = records.intervals(conn, [run_id])[run_id][0]
    assert (node.ready_at, node.gone_at, node.exit_reason) == (None, later(60), "released")


def test_a_step_is_taken_once_and_only_from_where_it_leaves(db: Database):
    run_id = reserve(db)
    with db.write() as conn:
        run = steps.begin_start(conn, run_id, names=["n0"])
        assert run is not None
        assert steps.begin_start(conn, run_id, names=["n0"]) is None
        stopping = steps.begin_stop(conn, "ada", "heat", reason="cancelled")
        assert stopping is not None
        assert not steps.begin_running(conn, run, [NodeStart(rank=0, url="u")], now=NOW)
        assert steps.close(conn, stopping, ends={}, now=NOW)
        assert not steps.close(conn, stopping, ends={}, now=later(9))
        assert steps.begin_stop(conn, "ada", "heat", reason="asked") is None


def test_what_somebody_wants_released_does_not_start(db: Database):
    run_id = reserve(db)
    with db.write() as conn:
        assert records.ask_stop(conn, run_id, reason="user", asked_by="ada", now=NOW)
        assert not records.ask_stop(conn, run_id, reason="late", asked_by="bob", now=NOW)
        assert steps.begin_start(conn, run_id, names=["n0"]) is None


@pytest.mark.parametrize(
    ("ran", "reason", "word"),
    [
        (True, "asked", "released"),
        (True, "node_lost", "released"),
        (False, "cancelled", "released"),
        (False, "asked", "released"),
        (False, "start_failed", "failed"),
        (False, "hub_lost", "failed"),
    ],
)
def test_failed_is_what_never_ran_though_nobody_asked_for_its_end(sqlite_db: Database, ran, reason, word):
    run_id = reserve(sqlite_db)
    if ran:
        start(sqlite_db, run_id)
    with sqlite_db.write() as conn:
        stopping = steps.begin_stop(
            conn, "ada", "heat", reason=reason, explanation={"message": "m", "params": {}}
        )
        assert stopping
        steps.close(conn, stopping, ends={}, now=later(99))
        closed = records.get(conn, run_id)
    assert closed is not None
    assert (closed.word, closed.reason, closed.explanation) == (word, reason, {"message": "m", "params": {}})


def test_an_end_once_written_stays_and_is_never_before_the_beginning(db: Database):
    run = start(db, reserve(db), at=10)
    with db.write() as conn:
        assert records.mark_node_gone(conn, run.id, 0, 1, at=later(30), exit_reason="killed")
        assert not records.mark_node_gone(conn, run.id, 0, 1, at=later(40), exit_reason="again")
        assert records.mark_node_gone(conn, run.id, 1, 1, at=later(-5), exit_reason="clock")
        nodes = records.intervals(conn, [run.id])[run.id]
        assert records.open_intervals(conn) == []
    assert (nodes[0].gone_at, nodes[0].exit_reason) == (later(30), "killed")
    assert nodes[1].gone_at == nodes[1].ready_at == later(10)


def test_lists_are_newest_first_and_go_on_where_the_page_before_ended(db: Database):
    ids = [reserve(db, f"p{i}", at=i) for i in range(5)]
    reserve(db, "other", user="bob", at=9)
    with db.read() as conn:
        page = records.list_runs(conn, user="ada", limit=2)
        rest = records.list_runs(conn, user="ada", limit=9, before=page[-1].id)
        assert [run.id for run in page + rest] == ids[::-1]
        assert records.count_open(conn) == 6
        assert records.count_open(conn, user="bob") == 1
        assert records.intervals(conn, []) == {}


def test_presence_only_moves_forward_and_only_on_the_open_run(db: Database):
    run = start(db, reserve(db))
    with db.write() as conn:
        records.saw(conn, "ada", "heat", proxy_at=later(20), node_at=later(21))
        records.saw(conn, "ada", "heat", proxy_at=later(15), node_at=later(25))
        records.saw_at_proxy(conn, [("ada", "heat", later(19)), ("ada", "none", later(99))])
        seen = records.get(conn, run.id)
        assert seen is not None
        assert (seen.proxy_seen_at, seen.node_seen_at) == (later(20), later(25))
        records.saw_at_proxy(conn, [("ada", "heat", later(30))])
        records.sight_nodes(conn, [(run.id, 0, 1), (run.id, 7, 1)], later(40))
        records.sight_nodes(conn, [(run.id, 0, 1)], later(35))
        seen = records.get(conn, run.id)
        assert seen is not None
        assert seen.proxy_seen_at == later(30)
        assert [node.sighted_at for node in records.intervals(conn, [run.id])[run.id]] == [later(40), None]


def test_a_run_that_waits_can_be_cancelled_and_only_that(db: Database):
    run = start(db, reserve(db))
    with db.write() as conn:
        assert not records.cancel_waiting(conn, run.id, reason="user", asked_by="ada", now=NOW)
        stopping = steps.begin_stop(conn, "ada", "heat", reason="not_placed")
        assert stopping is not None
        assert steps.back_to_queue(conn, stopping, ends={}, now=later(20))
        assert steps.begin_stop(conn, "ada", "heat", reason="asked") is None, "nothing of it exists"
        waiting = records.waiting(conn)
        assert [(item.id, item.word, item.attempt) for item in waiting] == [(run.id, "waiting", 2)]
        assert records.cancel_waiting(conn, run.id, reason="user", asked_by="ada", now=later(30))
        closed = records.get(conn, run.id)
        assert closed is not None
        assert (closed.word, closed.stop_asked_by) == ("released", "ada")


def test_who_asked_for_an_end_does_not_wait_in_line_again(db: Database):
    run_id = reserve(db)
    with db.write() as conn:
        steps.begin_start(conn, run_id, names=["n0"])
        stopping = steps.begin_stop(conn, "ada", "heat", reason="not_placed")
        records.ask_stop(conn, run_id, reason="user", asked_by="ada", now=NOW)
        assert stopping is not None
        assert not steps.back_to_queue(conn, stopping, ends={}, now=NOW)
        assert steps.close(conn, stopping, ends={}, now=NOW)


def test_a_second_open_row_is_refused(db: Database):
    reserve(db)
    with pytest.raises(UserError) as refused:
        reserve(db, at=1)
    assert refused.value.status == 409


def test_a_ghost_is_closed_where_it_was_last_seen(db: Database):
    run = start(db, reserve(db), at=10)
    with db.write() as conn:
        records.sight_nodes(conn, [(run.id, 0, 1)], later(100))
    with db.write() as conn:
        assert close_ghost(conn, run, later(500))
        assert not close_ghost(conn, run, later(600))
        nodes = records.intervals(conn, [run.id])[run.id]
    assert [node.gone_at for node in nodes] == [later(100), later(10)]
