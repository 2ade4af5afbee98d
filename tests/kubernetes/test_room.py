"""What has no place: told what is short, holds nothing, and starts in its turn. Two large ones never deadlock."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from galilean.db import Database
from galilean.hubapi import HubAPI
from services.queue.starter import Starter
from tests.kubernetes.hub import LIGHT, QUEUE_TOKEN, KubeHub, Namespace
from tests.lab.kubernetes import Kubernetes
from tests.lab.lab import MACHINE
from tests.lab.waiting import eventually

pytestmark = [pytest.mark.kubernetes, pytest.mark.timeout(1200)]
SMALL: dict[str, Any] = {"cpu": 0.1, "memory": "64M"}
SEAT = "galilean.lab/seat"
SEATS = 2


@pytest.fixture(scope="module")
def seats(kubernetes: Kubernetes) -> Iterator[None]:
    """A resource that this machine has two of, whatever else runs on it."""
    path = "/status/capacity/" + SEAT.replace("/", "~1")

    def patch(operation: dict[str, str]) -> None:
        kubernetes.kubectl(
            "patch", "node", MACHINE, "--subresource=status", "--type=json", "-p", json.dumps([operation])
        )

    def allocatable() -> str:
        return json.loads(kubernetes.kubectl("get", "node", MACHINE, "-o", "json"))["status"][
            "allocatable"
        ].get(SEAT, "")

    patch({"op": "add", "path": path, "value": str(SEATS)})
    try:
        eventually(lambda: allocatable() == str(SEATS), 30, "the kubelet tells of the seats")
        yield
    finally:
        patch({"op": "remove", "path": path})


@pytest.fixture(scope="module")
def hub(seats: None, hub_of: Callable[..., KubeHub]) -> KubeHub:
    """A hub that does not wait long for a place."""
    return hub_of(light=LIGHT, gang_timeout=6, gpu_resource=SEAT)


@pytest.fixture(autouse=True)
def afterwards(hub: KubeHub) -> Iterator[None]:
    yield
    hub.end_all()
    hub.sweep()
    hub.fits()


@pytest.fixture
def serve(hub: KubeHub) -> Iterator[Callable[[], None]]:
    """One round of the queue service, with the rights that it has."""
    database = Database(f"sqlite:///{hub.state}/galilean.sqlite", threads=1)
    with asyncio.Runner() as runner:
        api = HubAPI(f"{hub.url}/hub/api", QUEUE_TOKEN)
        starter = Starter(database, api)
        yield lambda: runner.run(starter.tick())
        runner.run(api.close())
    database.close()


def status(hub: KubeHub, server: str) -> str:
    return hub.row(server)["status"]


def test_what_finds_no_place_in_time_waits_in_line_and_holds_nothing(
    hub: KubeHub, namespace: Namespace
) -> None:
    hub.post("crowd", nodes=SEATS + 1, gpu=1, **SMALL)
    said = " ".join(hub.progress("crowd"))
    assert "no machine has enough galilean.lab/seat free" in said
    assert f"{SEATS} of {SEATS + 1} nodes found a place" in said
    eventually(lambda: status(hub, "crowd") == "queued", 20, "the run waits")
    assert json.loads(hub.row("crowd")["explanation"])["params"]["short"] == SEAT
    namespace.nothing_left(hub.base("crowd"))
    hub.cancel("crowd")


def test_a_wait_for_places_can_be_cancelled(hub: KubeHub, namespace: Namespace) -> None:
    hub.post("large", nodes=2, cpu=1.9)
    base = hub.base("large")
    eventually(lambda: len(namespace.pods(base)) == 2, 20, "both pods are asked for")
    hub.delete("large")
    assert hub.closed("large")["reason"] == "cancelled"
    namespace.nothing_left(base)


def test_a_quota_of_the_namespace_in_the_middle_of_a_start_leaves_nothing(
    hub: KubeHub, namespace: Namespace
) -> None:
    namespace.apply(
        {
            "apiVersion": "v1",
            "kind": "ResourceQuota",
            "metadata": {"name": "few"},
            "spec": {"hard": {"pods": "1"}},
        }
    )
    try:
        hub.post("quota", nodes=2, **SMALL)
        assert "a quota of the namespace is used up" in " ".join(hub.progress("quota"))
        assert hub.closed("quota")["status"] == "failed"
        namespace.nothing_left(hub.base("quota"))
    finally:
        namespace.delete("resourcequota", "few")


def test_two_that_together_need_more_than_there_is_never_deadlock(
    hub: KubeHub, namespace: Namespace, serve: Callable[[], None]
) -> None:
    """Each is let take one of the two seats first, so that both wait for the other's."""
    both = ["one", "other"]
    second_pods = [f"before create Pod {hub.base(server)}-1" for server in both]
    for step in second_pods:
        hub.faults.set(step)
    for server in both:
        hub.post(server, nodes=2, gpu=1, **SMALL)
    for step in second_pods:
        hub.faults.reached(step)
    seated = [namespace.pods(hub.base(server)) for server in both]
    assert [len(pods) for pods in seated] == [1, 1]
    hub.faults.clear()
    eventually(lambda: {status(hub, name) for name in both} <= {"queued", "running"}, 40, "half is not kept")
    if status(hub, "one") == status(hub, "other"):  # else the first to give up made room for the other
        namespace.nothing_left()
        serve()
    first = eventually(lambda: [name for name in both if hub.ready(name)], 40, "one of them runs")[0]
    second = "one" if first == "other" else "other"
    assert status(hub, second) == "queued"
    assert "before it: 1" in hub.post_refused("younger", 503, nodes=1, gpu=1, **SMALL)
    serve()  # the first has all: the second looks for places, finds none, and waits on
    eventually(lambda: status(hub, second) == "starting", 10, "the next in line is tried")
    eventually(lambda: status(hub, second) == "queued", 40, "and turned away")
    assert hub.ready(first)
    serve()
    hub.release(first)
    serve()
    hub.runs(second)
    serve()  # as before, for who came last
    eventually(lambda: status(hub, "younger") == "queued", 40, "the youngest waits on")
    assert hub.ready(second)
    hub.release(second)
    serve()
    hub.runs("younger")
    hub.release("younger")
    namespace.nothing_left()


def test_whoever_waits_is_told_how_many_are_before(hub: KubeHub) -> None:
    for server in ("first", "second"):
        hub.post(server, nodes=SEATS + 1, gpu=1, **SMALL)
        time.sleep(0.2)
    eventually(lambda: status(hub, "first") == status(hub, "second") == "queued", 30, "both wait")
    answer = hub.post_refused("third", 503, nodes=1, gpu=1, **SMALL)
    assert "before it: 2" in answer
    for server in ("first", "second", "third"):
        hub.cancel(server)
