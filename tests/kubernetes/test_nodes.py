"""Making and removing clusters of pods, against an API server in memory that fails where a test says."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Mapping
from typing import Any

import pytest

from spawner.backend import NodeFailed
from spawner.kubernetes import names, nodes
from spawner.kubernetes.api import APIError
from spawner.kubernetes.inventory import KubeInventory
from spawner.kubernetes.nodes import PodNodes
from spawner.kubernetes.watch import PodWatch
from tests.kubernetes.test_manifests import spec

KINDS = ["Secret", "NetworkPolicy", "Service", "Pod"]


class Cluster:
    """API server, collector, scheduler and kubelet: pods become ready at once unless held."""

    namespace = "people"

    def __init__(self) -> None:
        self.objects: dict[tuple[str, str], dict[str, Any]] = {}
        self.writes: list[str] = []
        self.refusals: list[tuple[str, Exception]] = []
        self.streams: list[asyncio.Queue[Any]] = []
        self.slow: asyncio.Event | None = None
        self.hold = False
        self.collector = True
        self._numbers = itertools.count(1)

    def refuse(self, kind: str, error: Exception, times: int = 1) -> None:
        self.refusals += [(kind, error)] * times

    def of(self, kind: str) -> list[str]:
        return sorted(name for which, name in self.objects if which == kind)

    async def until(self, pods: int) -> None:
        while len(self.of("Pod")) < pods:  # noqa: ASYNC110 - its own doing is what is waited for
            await asyncio.sleep(0)

    async def create(self, body: Mapping[str, Any]) -> dict[str, Any]:
        kind, name = body["kind"], body["metadata"]["name"]
        self.writes.append(f"create {kind}")
        if self.slow is not None:
            await self.slow.wait()
        for index, (which, error) in enumerate(self.refusals):
            if which == kind:
                del self.refusals[index]
                raise error
        if (kind, name) in self.objects:
            raise APIError(409, "already exists")
        uid = f"u-{next(self._numbers)}"
        made = {**body, "metadata": {**body["metadata"], "uid": uid, "resourceVersion": uid[2:]}}
        self.objects[kind, name] = made
        if kind == "Pod":
            owner = body["metadata"]["ownerReferences"][0]["uid"]
            self.tell("ADDED", made)
            if owner not in {
                item["metadata"]["uid"] for (which, _), item in self.objects.items() if which == "Secret"
            }:
                asyncio.get_running_loop().call_soon(self.collect, owner)
            elif not self.hold:
                self.be(name, phase="Running")
        return made

    def be(self, name: str, **status: Any) -> None:
        pod = self.objects["Pod", name]
        if status.get("phase") == "Running":
            status |= {"podIP": "10.0.0.1", "conditions": [{"type": "Ready", "status": "True"}]}
            pod["spec"] = {**pod["spec"], "nodeName": "m1"}
        pod["status"] = status
        pod["metadata"]["resourceVersion"] = str(next(self._numbers))
        self.tell("MODIFIED", pod)

    def vanish(self, kind: str, name: str) -> None:
        gone = self.objects.pop((kind, name), None)
        if gone is not None and kind == "Pod":
            self.tell("DELETED", gone)

    def collect(self, uid: str) -> None:
        for (kind, name), item in list(self.objects.items()):
            if uid in [owner["uid"] for owner in item["metadata"].get("ownerReferences", ())]:
                self.vanish(kind, name)

    async def delete(self, kind: str, name: str, *, uid: str = "", grace_seconds: int | None = None) -> bool:
        self.writes.append(f"delete {kind}")
        item = self.objects.get((kind, name))
        if item is None or (uid and item["metadata"]["uid"] != uid):
            return False
        self.vanish(kind, name)
        if kind == "Secret" and self.collector:
            asyncio.get_running_loop().call_soon(self.collect, item["metadata"]["uid"])
        return True

    async def list(
        self, kind: str, selector: str, *, only_metadata: bool = False
    ) -> tuple[list[dict[str, Any]], str]:
        key, _, value = selector.partition("=")
        found = [item for (which, _), item in self.objects.items() if which == kind]
        return [
            item
            for item in found
            if key in item["metadata"]["labels"] and value in ("", item["metadata"]["labels"][key])
        ], str(next(self._numbers))

    async def watch(self, kind: str, selector: str, version: str, **_: Any) -> Any:
        queue: asyncio.Queue[Any] = asyncio.Queue()
        self.streams.append(queue)
        yield {"type": "OPEN"}
        while True:
            yield await queue.get()

    def tell(self, kind: str, item: dict[str, Any]) -> None:
        for queue in self.streams:
            queue.put_nowait({"type": kind, "object": {**item, "metadata": dict(item["metadata"])}})


class Progress:
    def __init__(self) -> None:
        self.told: list[Any] = []
        self.urls: dict[int, str] = {}

    def placed(self, rank: int, *, host: str = "") -> None:
        self.told.append(("placed", rank))

    def ready(self, rank: int, *, url: str, host: str = "") -> None:
        self.urls[rank] = url

    def trouble(self, rank: int, message: str, **params: Any) -> None:
        self.told.append(message.format(rank=rank, **params))


@pytest.fixture
async def world(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(nodes, "PAUSES_SECONDS", (0.001,))
    cluster = Cluster()
    watch = PodWatch(cluster)
    made = PodNodes(cluster, watch)  # type: ignore[arg-type]
    yield cluster, made
    await watch.stop()


BASE = spec().base


async def test_a_cluster_costs_nodes_plus_three_writes_and_one_delete(world: Any) -> None:
    cluster, made = world
    progress = Progress()
    await made.create(spec(), progress)
    assert cluster.writes[:2] == ["create Secret", "create NetworkPolicy"]
    assert sorted(cluster.writes[2:]) == ["create Pod"] * 3 + ["create Service"]
    assert progress.urls == dict.fromkeys(range(3), "http://10.0.0.1:8888")
    assert (await made.look(BASE, spec().run)).keys() == {0, 1, 2}
    ends = await made.remove(BASE)
    assert cluster.writes[6:] == ["delete Secret"]
    assert {rank: end.exit_reason for rank, end in ends.items()} == dict.fromkeys(range(3), "released")
    assert all(end.at for end in ends.values())
    assert not cluster.objects


async def test_removing_what_is_not_there_is_success(world: Any) -> None:
    _, made = world
    assert await made.remove(BASE) == {}


@pytest.mark.parametrize("kind", KINDS)
async def test_a_leftover_of_any_kind_goes_first(world: Any, kind: str) -> None:
    cluster, made = world
    await made.create(spec(), Progress())
    for (which, name), item in list(cluster.objects.items()):
        if which == kind:
            item["metadata"].pop("ownerReferences", None)
        else:
            cluster.vanish(which, name)
    await made.create(spec(run="01K0000000000000000000000B"), Progress())
    runs = {item["metadata"]["labels"][names.RUN] for item in cluster.objects.values()}
    assert runs == {"01K0000000000000000000000B"}
    assert len(cluster.of("Pod")) == 3


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "error", [ConnectionResetError(), TimeoutError(), APIError(429, "busy", 0), APIError(503, "etcd")]
)
async def test_an_api_server_that_is_away_or_busy_is_asked_again(
    world: Any, kind: str, error: Exception
) -> None:
    cluster, made = world
    cluster.refuse(kind, error, times=3)
    progress = Progress()
    await made.create(spec(), progress)
    assert set(progress.urls) == {0, 1, 2}


async def test_a_start_while_the_api_server_is_away_waits_for_it(
    world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster, made = world
    away = [ConnectionRefusedError()] * 3
    listed = cluster.list

    async def list_later(*args: Any, **more: Any) -> Any:
        if away:
            raise away.pop()
        return await listed(*args, **more)

    monkeypatch.setattr(cluster, "list", list_later)
    progress = Progress()
    await made.create(spec(), progress)
    assert set(progress.urls) == {0, 1, 2}


@pytest.mark.parametrize("kind", KINDS)
async def test_a_quota_of_the_namespace_is_told_and_leaves_nothing(world: Any, kind: str) -> None:
    cluster, made = world
    cluster.refuse(kind, APIError(403, 'pods "x" is forbidden: exceeded quota: people, requested: cpu=2'))
    with pytest.raises(NodeFailed) as failed:
        await made.create(spec(), Progress())
    assert failed.value.params["why"] == "people, requested: cpu=2"
    await made.remove(BASE)
    assert not cluster.objects


async def test_another_refusal_is_not_asked_again(world: Any) -> None:
    cluster, made = world
    cluster.refuse("Pod", APIError(403, "violates PodSecurity"), times=3)
    with pytest.raises(APIError):
        await made.create(spec(), Progress())
    await made.remove(BASE)
    await asyncio.sleep(0)  # the collector's turn
    assert not cluster.objects


@pytest.mark.parametrize("turns", range(1, 40, 2))
async def test_a_start_cancelled_at_any_moment_leaves_nothing(world: Any, turns: int) -> None:
    """Also when what it asked for arrives only after the cancellation."""
    cluster, made = world
    cluster.hold = turns % 4 == 1
    start = asyncio.create_task(made.create(spec(), Progress()))
    for _ in range(turns):
        await asyncio.sleep(0)
    cluster.slow = asyncio.Event()
    await asyncio.sleep(0)
    start.cancel()
    await asyncio.wait({start})
    removal = asyncio.create_task(made.remove(BASE))
    for _ in range(5):
        await asyncio.sleep(0)
    cluster.slow.set()
    await removal
    assert not cluster.objects


async def test_a_node_that_fails_ends_the_start(world: Any) -> None:
    cluster, made = world
    cluster.hold = True
    start = asyncio.create_task(made.create(spec(), Progress()))
    await cluster.until(3)
    cluster.be(
        f"{BASE}-1",
        phase="Failed",
        containerStatuses=[
            {"name": "notebook", "state": {"terminated": {"exitCode": 3, "message": "no such module"}}}
        ],
    )
    with pytest.raises(NodeFailed) as failed:
        await start
    assert failed.value.rank == 1
    assert failed.value.params["log"] == "no such module"


async def test_a_node_that_somebody_removes_ends_the_start(world: Any) -> None:
    cluster, made = world
    cluster.hold = True
    start = asyncio.create_task(made.create(spec(), Progress()))
    await cluster.until(3)
    await asyncio.sleep(0.01)
    cluster.vanish("Pod", f"{BASE}-2")
    with pytest.raises(NodeFailed) as failed:
        await start
    assert failed.value.rank == 2


async def test_a_trouble_is_told_once_and_waited_out(world: Any) -> None:
    cluster, made = world
    cluster.hold = True
    progress = Progress()
    start = asyncio.create_task(made.create(spec(nodes=1), progress))
    await cluster.until(1)
    condition = {"type": "PodScheduled", "status": "False", "message": "0/1: 1 Insufficient cpu."}
    for _ in range(3):
        cluster.be(f"{BASE}-0", phase="Pending", conditions=[condition])
        await asyncio.sleep(0.001)
    cluster.be(f"{BASE}-0", phase="Running")
    await start
    assert progress.told == ["Node 0 waits for a place: no machine has enough CPU free.", ("placed", 0)]


async def test_a_collector_that_does_not_come_is_not_waited_for(
    world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nodes, "COLLECT_SECONDS", 0.0)
    cluster, made = world
    await made.create(spec(), Progress())
    cluster.collector = False
    monkeypatch.setattr(nodes, "_within", lambda event, seconds: _soon(event))
    await made.remove(BASE)
    assert not cluster.objects


async def _soon(event: Any) -> bool:
    event.close()
    await asyncio.sleep(0)
    return False


async def test_a_secret_deleted_as_an_orphan_means_removal_by_name(world: Any) -> None:
    cluster, made = world
    await made.create(spec(), Progress())
    del cluster.objects["Secret", BASE]
    await made.remove(BASE)
    assert not cluster.objects


async def test_a_node_that_ended_before_keeps_its_own_end(world: Any) -> None:
    cluster, made = world
    await made.create(spec(), Progress())
    at = "2026-11-22T10:00:00Z"
    state = {"terminated": {"exitCode": 137, "reason": "OOMKilled", "finishedAt": at}}
    cluster.be(f"{BASE}-1", phase="Failed", containerStatuses=[{"name": "notebook", "state": state}])
    await asyncio.sleep(0.001)
    seen = await made.look(BASE, spec().run)
    assert [seen[rank].alive for rank in range(3)] == [True, False, True]
    assert seen[1].exit_reason == "out of memory"
    ends = await made.remove(BASE)
    assert ends[1].exit_reason == "out of memory"
    assert ends[1].at is not None
    assert ends[1].at.isoformat() == "2026-11-22T10:00:00+00:00"


async def test_pods_of_another_run_are_not_this_runs_nodes(world: Any) -> None:
    _, made = world
    await made.create(spec(), Progress())
    assert await made.look(BASE, "another") == {}


# ----------------------------------------------------------------------------------------------- inventory


async def test_the_inventory_tells_every_node_and_what_a_cut_off_start_left(world: Any) -> None:
    cluster, made = world
    await made.create(spec(), Progress())
    await made.create(spec(user="bob", run="01K0000000000000000000000B"), Progress())
    for name in cluster.of("Pod"):
        if name.startswith("bob"):
            cluster.vanish("Pod", name)
    inventory = KubeInventory(cluster)  # type: ignore[arg-type]
    found = await inventory.inventory()
    assert [(item.user, item.rank, item.state) for item in found] == [
        ("ada", 0, "alive"),
        ("ada", 1, "alive"),
        ("ada", 2, "alive"),
        ("bob", -1, "ended"),
    ]
    await inventory.remove(found[3])
    await inventory.remove(found[3])
    assert {name.partition("--")[0] for _, name in cluster.objects} == {"ada"}
    for item in found[:3]:
        await inventory.remove(item)
    assert not cluster.objects


@pytest.mark.parametrize(
    "forged",
    [
        {"labels": {names.RANK: "7"}},
        {"annotations": {names.USER: "bob"}},
        {"labels": {names.CLUSTER: "another"}},
        {"ownerReferences": []},
        {"name": "mine"},
        {"labels": {names.RANK: "x"}},
    ],
)
async def test_a_pod_that_is_not_what_its_labels_say_is_told_of_and_left_alone(
    world: Any, forged: dict[str, Any]
) -> None:
    cluster, made = world
    await made.create(spec(nodes=1), Progress())
    pod = cluster.objects["Pod", f"{BASE}-0"]
    for key, value in forged.items():
        old = pod["metadata"][key]
        pod["metadata"][key] = {**old, **value} if isinstance(value, dict) else value
    inventory = KubeInventory(cluster, leftovers=False)  # type: ignore[arg-type]
    assert await inventory.inventory() == []
    assert inventory.foreign == (pod["metadata"]["name"],)
