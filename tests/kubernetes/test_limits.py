"""What was asked for is what there is: nothing that runs in a node gets beyond its limits (CR-9)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.kubernetes.hub import LIGHT, KubeHub, Namespace

pytestmark = [pytest.mark.kubernetes, pytest.mark.timeout(1200)]
SMALL: dict[str, Any] = {"cpu": 0.1, "memory": "64M"}


@pytest.fixture(scope="module")
def hub(hub_of: Callable[..., KubeHub]) -> KubeHub:
    return hub_of(light=LIGHT)


@pytest.fixture(scope="module")
def node(hub: KubeHub) -> Iterator[str]:
    hub.run("limited", **SMALL)
    yield f"{hub.base('limited')}-0"
    hub.release("limited")


def tried(namespace: Namespace, pod: str, command: str) -> str:
    """What a command prints, and how it ended."""
    return namespace.execute(pod, "sh", "-c", f"({command}) 2>&1; echo ended $?")


def test_memory_beyond_the_limit_ends_what_asks_for_it(hub: KubeHub, namespace: Namespace, node: str) -> None:
    assert "ended 137" in tried(namespace, node, "python3 -c 'x = bytearray(2**28)'")
    assert hub.ready("limited")


def test_shared_memory_has_its_size(namespace: Namespace, node: str) -> None:
    said = tried(namespace, node, "head -c 40000000 /dev/zero >/dev/shm/x; rm -f /dev/shm/x")
    assert "No space left" in said


def test_processor_time_is_what_was_asked_for(namespace: Namespace, node: str) -> None:
    files = "/sys/fs/cgroup/cpu.max /sys/fs/cgroup/cpu/cpu.cfs_quota_us /sys/fs/cgroup/cpu/cpu.cfs_period_us"
    said = namespace.execute(node, "sh", "-c", f"cat {files} 2>/dev/null || true").split()
    assert [int(word) for word in said] == [10_000, 100_000]


def test_more_local_storage_than_asked_for_ends_the_cluster_and_says_why(
    hub: KubeHub, namespace: Namespace
) -> None:
    hub.run("large", **SMALL)
    tried(namespace, f"{hub.base('large')}-0", "head -c 200000000 /dev/zero >/tmp/large")
    row = hub.closed("large", seconds=90)
    assert row["reason"] == "node_lost"
    (node,) = hub.nodes("large")
    assert node["exit_reason"].startswith("evicted")
    assert "evicted" in row["explanation"]
    namespace.nothing_left(hub.base("large"))


def test_scratch_is_written_by_its_node_and_its_size_ends_the_cluster(
    hub: KubeHub, namespace: Namespace
) -> None:
    hub.run("scratch", **SMALL, storage="100M")
    pod = f"{hub.base('scratch')}-0"
    assert "ended 0" in tried(namespace, pod, "echo x >/home/jovyan/scratch/x")
    tried(namespace, pod, "head -c 200000000 /dev/zero >/home/jovyan/scratch/large")
    row = hub.closed("scratch", seconds=90)
    assert row["reason"] == "node_lost"
    (node,) = hub.nodes("scratch")
    assert node["exit_reason"].startswith("evicted")
    namespace.nothing_left(hub.base("scratch"))
