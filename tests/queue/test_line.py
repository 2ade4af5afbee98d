from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from galilean.errors import UserError
from services.queue.line import Verdict, line_of, next_to_start, options_of, verdict
from spawner.request import ClusterRequest

T0 = datetime(2026, 3, 2, tzinfo=UTC)


@dataclass(frozen=True)
class Wait:
    id: str
    pool: str = "default"
    gpu_model: str = ""
    queued_at: datetime = T0


def wait(name: str, minute: int, **more: Any) -> Wait:
    return replace(Wait(name, queued_at=T0 + timedelta(minutes=minute)), **more)


def test_the_oldest_of_each_line_is_next_and_the_oldest_head_first() -> None:
    runs = [
        wait("c", 3),
        wait("a", 1, gpu_model="H100"),
        wait("b", 2),
        wait("d", 0, pool="physics"),
        wait("e", 2, gpu_model="H100"),
    ]
    assert [run.id for run in next_to_start(runs, lambda run: True)] == ["d", "a", "b"]


def test_nobody_younger_overtakes_a_head_without_room() -> None:
    runs = [wait("large", 0), wait("small", 1), wait("other", 2, gpu_model="H100")]
    assert [run.id for run in next_to_start(runs, lambda run: run.id != "large")] == ["other"]


def test_nobody_waits_nobody_starts() -> None:
    assert next_to_start([], lambda run: True) == []


waits = st.lists(
    st.builds(
        wait,
        st.uuids().map(str),
        st.integers(0, 5),
        pool=st.sampled_from(["default", "physics"]),
        gpu_model=st.sampled_from(["", "H100"]),
    ),
    max_size=12,
    unique_by=lambda run: run.id,
)


@given(waits, st.sets(st.integers(0, 11)))
def test_whoever_is_next_has_nobody_before_in_line(runs: list[Wait], without_room: set[int]) -> None:
    full = {runs[number].id for number in without_room if number < len(runs)}
    found = next_to_start(runs, lambda run: run.id not in full)
    assert len({line_of(run) for run in found}) == len(found)
    for run in found:
        before = [
            one
            for one in runs
            if line_of(one) == line_of(run) and (one.queued_at, one.id) < (run.queued_at, run.id)
        ]
        assert before == [] and run.id not in full


@pytest.mark.parametrize(
    ("status", "reason", "text", "expected"),
    [
        (503, "queued", "There is no room", Verdict.NO_ROOM),
        (503, "", "The hub does not answer", Verdict.AWAY),
        (502, "", "Bad gateway", Verdict.AWAY),
        (507, "", "disk full", Verdict.AWAY),
        (429, "", "Too many users trying to log in", Verdict.AWAY),
        (429, "quota", "You hold 2 of 2", Verdict.NEVER),
        (
            403,
            "",
            "Action is not authorized with current scopes; requires any of [start:servers]",
            Verdict.AWAY,
        ),
        (403, "", "Your account waits for a role", Verdict.NEVER),
        (404, "", "No such project", Verdict.NEVER),
        (404, "", "No access to resources or resources not found", Verdict.LATER),
        (400, "", "“gpu” takes a whole number", Verdict.NEVER),
        (400, "", "alice:heat is pending stop", Verdict.BUSY),
        (400, "", "alice:heat is already running", Verdict.BUSY),
        (409, "", "“Heat” is already running or on its way.", Verdict.BUSY),
        (500, "start_failed", "node-1 ended", Verdict.LATER),
    ],
)
def test_what_an_answer_of_the_hub_means(status: int, reason: str, text: str, expected: Verdict) -> None:
    assert verdict(UserError(status, "{text}", reason=reason, text=text)) is expected


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"project": "alice/heat", "nodes": 2, "cpu": 0.5, "memory": "8G", "storage": "20G"},
        {"cpu": 1.333, "memory": 123456789, "gpu": 1, "gpu_model": "H100", "ports": [8080, 9000]},
        {"release": "2h", "on_node_loss": "keep", "pool": "physics", "environment": "jupyter", "storage": 0},
    ],
)
def test_a_kept_request_is_sent_again_as_the_same_request(options: dict[str, Any]) -> None:
    kept = ClusterRequest.parse(options).as_dict()
    assert ClusterRequest.parse(options_of(kept)).as_dict() == kept


@given(st.integers(1, 10**6))
def test_no_amount_of_cpu_changes_on_the_way(millicores: int) -> None:
    again = ClusterRequest.parse(options_of({"cpu_millicores": millicores}))
    assert again.cpu_millicores == millicores
