"""What Docker says, in words."""

from __future__ import annotations

from datetime import UTC, datetime
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

import pytest

from spawner.backend import NodeFailed
from spawner.docker import containers, troubles
from spawner.docker.inventory import leftover_of, sighting_of
from spawner.docker.spec import Given
from spawner.docker.use import cgroups_of, cpu_us, memory_bytes
from tests.docker.test_containers import spec_of

PLACE = Given(network=IPv4Network("10.213.0.32/27"))


def inspected(rank: int = 0, **state: Any) -> dict[str, Any]:
    spec = spec_of()
    return {
        "Id": "c1",
        "Name": "/" + spec.name(rank),
        "Created": "2026-11-23T08:00:00.123456789Z",
        "Config": {"Labels": containers.container(spec, rank, PLACE)["Labels"]},
        "State": {
            "Status": "running",
            "Running": True,
            "ExitCode": 0,
            "OOMKilled": False,
            "Error": "",
            "StartedAt": "2026-11-23T08:00:01.5Z",
            "FinishedAt": "0001-01-01T00:00:00Z",
            **state,
        },
    }


OVER = {"Status": "exited", "Running": False, "FinishedAt": "2026-11-23T09:00:00.987654321Z"}


@pytest.mark.parametrize(
    ("state", "reason"),
    [
        ({"ExitCode": 0}, "exited 0"),
        ({"ExitCode": 3}, "exited 3"),
        ({"ExitCode": 137}, "killed by signal 9"),
        ({"ExitCode": 137, "OOMKilled": True}, "out of memory"),
        ({"ExitCode": 127, "Error": "exec: python: not found"}, "exec: python: not found"),
    ],
)
def test_an_end_has_its_moment_and_its_reason(state: dict[str, Any], reason: str) -> None:
    found = troubles.container(inspected(**OVER, **state), "galilean")
    assert found is not None
    assert found.over
    assert found.reason == reason
    assert found.ended_at == datetime(2026, 11, 23, 9, 0, 0, 987654, tzinfo=UTC)


def test_what_was_made_and_not_started_yet_has_not_ended() -> None:
    found = troubles.container(inspected(Status="created", Running=False), "galilean")
    assert found is not None
    assert not found.over
    assert not found.running
    assert found.ended_at is None


def test_a_container_that_is_not_called_after_its_labels_is_not_ours() -> None:
    assert troubles.container({**inspected(), "Name": "/mine"}, "galilean") is None
    assert sighting_of({**inspected(), "Name": "/mine"}, "galilean") is None
    assert troubles.container(inspected(), "another") is None


def test_a_sighting_says_whose_node_it_is() -> None:
    found = sighting_of(inspected(1), "galilean")
    assert found is not None
    assert (found.user, found.server, found.rank, found.state) == ("ada@example.edu", "heat", 1, "alive")
    assert found.started_at == datetime(2026, 11, 23, 8, 0, 1, 500000, tzinfo=UTC)
    ended = sighting_of(inspected(1, **OVER), "galilean")
    assert ended is not None
    assert ended.state == "ended"
    assert ended.finished_at is not None


def test_a_network_of_ours_is_a_leftover_and_another_is_not() -> None:
    body = containers.network(spec_of(), PLACE)
    network = {"Id": "n1", "Name": body["name"], "Labels": body["labels"], "Created": "2026-11-23T08:00:00Z"}
    found = leftover_of(network, "galilean")
    assert found is not None
    assert (found.user, found.rank, found.state) == ("ada@example.edu", -1, "ended")
    assert leftover_of({**network, "Name": "bridge"}, "galilean") is None
    assert leftover_of({**network, "Labels": None}, "galilean") is None


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ("mkdir /var/lib/docker/overlay2/x: no space left on device", troubles.NO_SPACE),
        ('could not select device driver "" with capabilities: [[gpu]]', troubles.NO_GPU),
        ("invalid mount config for type bind: bind source path does not exist: /x", troubles.NO_WORK),
        ("something else", troubles.NOT_MADE),
    ],
)
def test_why_a_node_could_not_be_made_is_said_in_words(said: str, message: str) -> None:
    found, params = troubles.why_not_made(said)
    assert found == message
    assert str(NodeFailed(1, found, **params))
    found.format(rank=1, **params)


def test_both_forms_of_cgroups_are_read(tmp_path: Path) -> None:
    first, second = tmp_path / "one", tmp_path / "two"
    for controller in ("cpu,cpuacct", "memory"):
        (first / controller / "docker/c1").mkdir(parents=True)
    (first / "cpu,cpuacct/docker/c1/cpuacct.usage").write_text("5000000\n")
    (first / "memory/docker/c1/memory.usage_in_bytes").write_text("1000\n")
    (first / "memory/docker/c1/memory.stat").write_text("cache 700\ntotal_inactive_file 400\n")
    found = cgroups_of("4:memory:/docker/c1\n3:cpu,cpuacct:/docker/c1\n0::/\n", first)
    assert (cpu_us(found), memory_bytes(found)) == (5000, 600)
    (second / "system.slice/docker-c1.scope").mkdir(parents=True)
    (second / "system.slice/docker-c1.scope/cpu.stat").write_text("usage_usec 77\nuser_usec 7\n")
    (second / "system.slice/docker-c1.scope/memory.current").write_text("900\n")
    (second / "system.slice/docker-c1.scope/memory.stat").write_text("anon 1\ninactive_file 100\n")
    found = cgroups_of("0::/system.slice/docker-c1.scope\n", second)
    assert (cpu_us(found), memory_bytes(found)) == (77, 800)


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (FileNotFoundError(2, "No such file", "/work"), troubles.NO_WORK),
        (OSError(28, "No space left on device"), troubles.NO_SPACE),
        (PermissionError(13, "Permission denied"), troubles.NOT_MADE),
    ],
)
def test_what_cannot_be_prepared_is_said_in_words(error: OSError, message: str) -> None:
    found, params = troubles.why_not_prepared(error)
    assert found == message
    assert NodeFailed(0, found, **params).params["rank"] == 0
    found.format(rank=0, **params)
