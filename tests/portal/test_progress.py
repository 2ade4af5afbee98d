"""The steps of a start, read from the rows."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from services.portal.pages.endings import failure_of, how_it_ended
from services.portal.pages.home import is_told
from services.portal.pages.progress import progress, typical_seconds
from spawner.records import NodeInterval, Run
from spawner.records import present as latest_attempt

T0 = datetime(2026, 11, 22, 10, 0, tzinfo=UTC)


def at(seconds: float) -> datetime:
    return T0 + timedelta(seconds=seconds)


def run(**changes: Any) -> Run:
    values: dict[str, Any] = {
        "id": "01" + "A" * 24,
        "user": "alice",
        "server": "heat",
        "project_id": "P",
        "project_owner": "alice",
        "project_slug": "heat",
        "project_name": "Heat",
        "environment": "jupyter",
        "backend": "process",
        "nodes": 4,
        "cpu_millicores": 2000,
        "memory_bytes": 2**33,
        "release_policy": "auto",
        "request": {},
        "status": "starting",
        "asked_by": "alice",
        "queued_at": T0,
        "reserved_at": at(0.1),
    }
    return Run(**{**values, **changes})


def node(rank: int, **changes: Any) -> NodeInterval:
    return NodeInterval(**{"cluster_id": "01" + "A" * 24, "rank": rank, "name": f"n{rank}", **changes})


def states(run_: Run, nodes: list[NodeInterval], now: float) -> dict[str, str]:
    return {step.key: step.state for step in progress(run_, nodes, now=at(now)).steps}


@pytest.mark.parametrize(
    ("run_", "nodes", "expected"),
    [
        (
            run(status="queued", reserved_at=None),
            [],
            {"admitted": "now", "room": "todo", "nodes": "todo", "open": "todo"},
        ),
        (run(status="reserved"), [], {"admitted": "done", "room": "now", "nodes": "todo", "open": "todo"}),
        (
            run(placed_at=at(1.5)),
            [node(rank, placed_at=at(1.5)) for rank in range(4)],
            {"admitted": "done", "room": "done", "nodes": "now", "open": "todo"},
        ),
        (
            run(status="running", placed_at=at(1.5), ready_at=at(6)),
            [node(rank, placed_at=at(1.5), ready_at=at(6)) for rank in range(4)],
            {"admitted": "done", "room": "done", "nodes": "done", "open": "now"},
        ),
        (
            run(status="failed", reason="not_placed", released_at=at(9)),
            [node(0, placed_at=at(1))],
            {"admitted": "done", "room": "failed", "nodes": "todo"},
        ),
        (
            run(status="failed", placed_at=at(1.5), released_at=at(112)),
            [node(rank, placed_at=at(1.5)) for rank in range(4)],
            {"admitted": "done", "room": "done", "nodes": "failed"},
        ),
    ],
)
def test_each_phase_has_its_steps(run_: Run, nodes: list[NodeInterval], expected: dict[str, str]) -> None:
    assert states(run_, nodes, 10) == expected


def test_steps_carry_their_seconds_and_the_current_one_goes_on() -> None:
    nodes = [node(rank, placed_at=at(1.5)) for rank in range(4)]
    steps = {step.key: step for step in progress(run(placed_at=at(1.5)), nodes, now=at(6.7)).steps}
    assert [str(steps[key].took) for key in ("admitted", "room", "nodes")] == [
        "0.1\u00a0s",
        "1.4\u00a0s",
        "5.2\u00a0s",
    ]


def test_room_counts_the_nodes_that_have_a_place() -> None:
    found = progress(run(), [node(0, placed_at=at(1)), node(1)], now=at(2))
    assert str(found.steps[1].title) == "Room found for 1 of 4 nodes"


def test_each_node_has_a_tile_and_those_that_answer_are_counted() -> None:
    nodes = [node(rank, placed_at=at(1), url="http://127.0.0.1:1" if rank else "") for rank in range(4)]
    found = progress(run(placed_at=at(1)), nodes, now=at(6))
    assert [tile.state for tile in found.tiles] == ["starting", "ready", "ready", "ready"]
    assert (found.answered, found.total) == (3, 4)
    assert 0.7 < found.fraction < 0.8


def test_time_left_is_a_promise_made_only_when_it_is_known() -> None:
    assert progress(run(), [], now=at(2)).seconds_left is None
    assert progress(run(), [], now=at(2.1), typical=8).seconds_left == 6
    assert progress(run(), [], now=at(9), typical=8).seconds_left == 1
    assert progress(run(), [], now=at(60), typical=8).seconds_left is None


def test_typical_time_is_the_median_of_starts_of_the_same_width() -> None:
    done = [run(ready_at=at(0.1 + took)) for took in (3, 5, 60)] + [run(nodes=1, ready_at=at(400))]
    assert typical_seconds(done, 4) == pytest.approx(5)
    assert typical_seconds(done, 2) is None


def test_only_the_latest_placing_counts() -> None:
    rows = [node(0, attempt=1, gone_at=at(1)), node(0, attempt=2), node(1, attempt=2)]
    assert [(n.rank, n.attempt) for n in latest_attempt(rows)] == [(0, 2), (1, 2)]


def test_the_node_that_failed_is_the_one_red_tile() -> None:
    broken = run(
        status="failed",
        reason="start_failed",
        placed_at=at(1),
        released_at=at(112),
        explanation={"message": "node-{rank} ended with code {code}", "params": {"rank": 3, "code": 1}},
    )
    found = progress(broken, [node(rank, placed_at=at(1)) for rank in range(4)], now=at(200))
    assert [tile.state for tile in found.tiles] == ["back", "back", "back", "failed"]
    assert str(found.steps[-1].took) == "1\u00a0min 51\u00a0s"
    failure = failure_of(broken)
    assert str(failure.cause) == "node-3 did not come up"
    assert str(failure.chain) == (
        "node-3 ended with code 1 A cluster starts as a whole, so the other nodes went back too (4 in all)."
    )


def test_a_cancelled_start_is_no_failure() -> None:
    gone = run(status="released", target="released", reason="user", released_at=at(3))
    assert failure_of(gone).cancelled
    assert str(how_it_ended(gone)) == "Cancelled before it was ready"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"reason": "user", "ready_at": at(5)}, "Released by you"),
        ({"reason": "admin", "ready_at": at(5)}, "Released by an administrator"),
        ({"reason": "node_lost", "ready_at": at(5)}, "Ended because a node was lost"),
        ({"reason": "start_failed", "status": "failed"}, "Did not start"),
        ({"reason": "something_new", "ready_at": at(5)}, "Ended"),
        ({"reason": "something_new", "status": "failed"}, "Did not start"),
    ],
)
def test_every_end_is_told_in_words_and_never_as_a_code(changes: dict[str, Any], words: str) -> None:
    values = {"status": "released", "released_at": at(60), **changes}
    assert str(how_it_ended(run(**values))) == words


def test_an_open_run_has_not_ended() -> None:
    assert how_it_ended(run()) is None


def test_a_node_that_could_not_be_started_did_not_fail_for_want_of_room() -> None:
    told = progress(
        run(
            nodes=1,
            status="failed",
            reason="start_failed",
            explanation={"message": "No program.", "params": {"rank": 0}},
            released_at=at(1),
        ),
        [],
        now=at(9),
    )
    assert [(step.key, step.state) for step in told.steps] == [
        ("admitted", "done"),
        ("room", "done"),
        ("nodes", "failed"),
    ]
    assert told.tiles[0].state == "failed"


@pytest.mark.parametrize(
    ("changes", "news"),
    [
        ({"ready_at": at(2), "released_at": at(9), "status": "released", "reason": "node_lost"}, True),
        ({"ready_at": at(2), "released_at": at(9), "status": "released", "reason": "user"}, False),
        ({"released_at": at(9), "status": "failed", "reason": "start_failed"}, True),
        ({"released_at": at(9), "status": "released", "reason": "cancelled"}, False),
        ({}, False),
    ],
)
def test_only_an_end_that_nobody_asked_for_is_news(changes: dict[str, Any], news: bool) -> None:
    assert is_told(run(**changes)) is news
