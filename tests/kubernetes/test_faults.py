"""What goes wrong around clusters of pods: hubs that die, an API server that is away, quotas, no room."""

from __future__ import annotations

import json
import time
from collections.abc import Callable

import httpx
import pytest

from tests.kubernetes.conftest import Kubernetes
from tests.kubernetes.hub import KubeHub, Namespace
from tests.process.hub import eventually

pytestmark = [pytest.mark.kubernetes, pytest.mark.timeout(400)]


@pytest.fixture(scope="module")
def hub(hub_of: Callable[..., KubeHub]) -> KubeHub:
    """A hub that does not wait long for a place."""
    return hub_of(gang_timeout=12)


@pytest.mark.parametrize("seconds", [0.05, 0.4, 2.0])
def test_a_hub_killed_in_the_middle_of_a_start_leaves_nothing(
    hub: KubeHub, namespace: Namespace, seconds: float
) -> None:
    server = f"mid-{seconds}".replace(".", "-")
    hub.post(server, nodes=2)
    time.sleep(seconds)
    hub.kill()
    hub.start()
    row = hub.closed(server)
    assert row["reason"] == "hub_lost"
    namespace.nothing_left(hub.base(server))
    assert not hub.routes()


def test_a_hub_killed_while_a_cluster_runs_finds_it_again(hub: KubeHub, namespace: Namespace) -> None:
    hub.run("running", nodes=2)
    base = hub.base("running")
    before = {name: pod["metadata"]["uid"] for name, pod in namespace.pods(base).items()}
    hub.kill()
    hub.start()
    eventually(lambda: hub.ready("running"), 30, "the next hub knows the cluster")
    assert {name: pod["metadata"]["uid"] for name, pod in namespace.pods(base).items()} == before
    assert hub.routes() == {"/user/ada/running", "/user/ada/running/node-1"}
    namespace.kubectl("delete", "pod", "-n", namespace.name, f"{base}-1", "--wait=false")
    assert hub.closed("running")["reason"] == "node_lost"
    namespace.nothing_left(base)


def test_a_hub_killed_in_the_middle_of_a_stop_finishes_it_when_it_is_back(
    hub: KubeHub, namespace: Namespace
) -> None:
    hub.run("stopping")
    with pytest.raises(httpx.TimeoutException):
        hub.api.delete("/users/ada/servers/stopping", timeout=0.3)
    hub.kill()
    hub.start()
    hub.closed("stopping")
    namespace.nothing_left(hub.base("stopping"))


def test_what_finds_no_place_in_time_waits_in_line_and_holds_nothing(
    hub: KubeHub, namespace: Namespace
) -> None:
    hub.post("crowd", nodes=2, cpu=1.4)
    said = " ".join(hub.progress("crowd"))
    assert "1 of 2 nodes found a place" in said
    assert "short of CPU" in said
    eventually(lambda: hub.row("crowd")["status"] == "queued", 20, "the run waits")
    assert json.loads(hub.row("crowd")["explanation"])["params"]["short"] == "CPU"
    namespace.nothing_left(hub.base("crowd"))


def test_a_quota_of_the_namespace_in_the_middle_of_a_start_leaves_nothing(
    hub: KubeHub, namespace: Namespace
) -> None:
    quota = "apiVersion: v1\nkind: ResourceQuota\nmetadata: {name: few}\nspec: {hard: {pods: '1'}}\n"
    namespace.kubectl("apply", "-n", namespace.name, "-f", "-", stdin=quota)
    try:
        hub.post("quota", nodes=2, cpu=0.3)
        assert "a quota of the namespace is used up" in " ".join(hub.progress("quota"))
        assert hub.closed("quota")["status"] == "failed"
        namespace.nothing_left(hub.base("quota"))
    finally:
        namespace.kubectl("delete", "resourcequota", "few", "-n", namespace.name)


def test_an_api_server_that_is_away_ends_no_cluster_and_delays_a_start(
    hub: KubeHub, namespace: Namespace, kubernetes: Kubernetes
) -> None:
    hub.run("survivor")
    base = hub.base("survivor")
    before = namespace.pods(base)
    with kubernetes.away():
        time.sleep(25)
        assert hub.row("survivor")["status"] == "running"
        assert hub.ready("survivor")
    assert {pod["metadata"]["uid"] for pod in namespace.pods(base).values()} == {
        pod["metadata"]["uid"] for pod in before.values()
    }
    namespace.kubectl("delete", "pod", "-n", namespace.name, f"{base}-0", "--wait=false")
    assert hub.closed("survivor")["reason"] == "node_lost"
    namespace.nothing_left(base)


def test_a_stop_while_the_api_server_is_away_is_finished_when_it_is_back(
    hub: KubeHub, namespace: Namespace, kubernetes: Kubernetes
) -> None:
    hub.run("patient")
    with kubernetes.away():
        hub.delete("patient")
        time.sleep(3)
        assert hub.row("patient")["released_at"] is None
    hub.closed("patient", seconds=60)
    namespace.nothing_left(hub.base("patient"))
