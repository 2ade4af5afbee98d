"""Making and removing clusters of pods, against an API server in memory that fails where a test says."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from spawner.backend import NodeFailed
from spawner.cluster import VirtualCluster
from spawner.kubernetes import manifests, mender, names, nodes
from spawner.kubernetes.api import APIError
from spawner.kubernetes.cluster import KubeCluster
from tests.kubernetes.memory import KINDS, Progress, forge
from tests.kubernetes.test_manifests import OWNER, kubespawners_pod, spec

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
async def test_a_request_whose_answer_was_lost_makes_nothing_twice(world: Any, kind: str) -> None:
    cluster, made = world
    cluster.lose(kind, times=2)
    progress = Progress()
    await made.create(spec(), progress)
    assert set(progress.urls) == {0, 1, 2}
    assert [len(cluster.of(which)) for which in KINDS] == [1, 1, 1, 3]
    assert cluster.writes.count("delete Pod") == 0
    owner = cluster.objects["Secret", BASE]["metadata"]["uid"]
    owners = [item["metadata"].get("ownerReferences", ()) for item in cluster.objects.values()]
    assert sorted(one["uid"] for some in owners for one in some) == [owner] * 5


async def test_a_removal_whose_answer_was_lost_still_knows_when_the_nodes_ended(world: Any) -> None:
    cluster, made = world
    await made.create(spec(), Progress())
    cluster.lose("delete Secret")
    ends = await made.remove(BASE)
    assert not cluster.objects
    assert all(end.at for end in ends.values())
    assert ends.keys() == {0, 1, 2}


async def test_news_of_an_older_pod_of_the_same_name_is_not_taken_for_the_new_one(world: Any) -> None:
    """The watch may tell of the end of a leftover after the new pod was made."""
    cluster, made = world
    await made.create(spec(nodes=1), Progress())
    old = cluster.objects["Pod", f"{BASE}-0"]
    cluster.hold = True
    removed = asyncio.Event()
    delete, told = cluster.delete, cluster.tell

    async def delete_later(kind: str, name: str, **more: Any) -> bool:
        if kind == "Secret":
            cluster.tell = lambda kind, item: None  # type: ignore[method-assign]
        done = await delete(kind, name, **more)
        if kind == "Secret":
            asyncio.get_running_loop().call_soon(removed.set)
        return done

    cluster.delete = delete_later  # type: ignore[method-assign]
    progress = Progress()
    made.watch._pods.clear()  # as if it had not heard of it: the Secret's name is what is met first
    start = asyncio.create_task(made.create(spec(nodes=1, run="01K0000000000000000000000B"), progress))
    await removed.wait()
    await cluster.until(1)
    cluster.tell = told  # type: ignore[method-assign]
    going = {**old, "metadata": {**old["metadata"], "deletionTimestamp": "2026-11-22T10:00:00Z"}}
    cluster.tell("MODIFIED", going)
    cluster.tell("DELETED", going)
    await asyncio.sleep(0.01)
    assert not start.done()
    cluster.be(f"{BASE}-0", phase="Running")
    await start
    assert set(progress.urls) == {0}


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


async def test_pods_whose_machine_does_not_answer_are_removed_by_force(
    world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("COLLECT_SECONDS", "FORCE_SECONDS"):
        monkeypatch.setattr(nodes, name, 0.0)
    monkeypatch.setattr(nodes, "_within", lambda event, seconds: _soon(event))
    cluster, made = world
    await made.create(spec(), Progress())
    cluster.collector = False
    delete = cluster.delete
    asked: list[int | None] = []

    async def nobody_ends_it(kind: str, name: str, *, grace_seconds: int | None = None, **more: Any) -> bool:
        if kind == "Pod":
            asked.append(grace_seconds)
            if grace_seconds is None:
                return True
        return await delete(kind, name, **more)

    monkeypatch.setattr(cluster, "delete", nobody_ends_it)
    ends = await made.remove(BASE)
    assert asked == [None] * 3 + [0] * 3
    assert not cluster.of("Pod")
    assert {end.exit_reason for end in ends.values()} == {"released"}


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


async def test_how_a_node_ended_is_known_also_when_its_pod_went_before_anybody_looked(world: Any) -> None:
    cluster, made = world
    await made.create(spec(), Progress())
    name = f"{BASE}-1"
    cluster.objects["Pod", name]["metadata"]["deletionTimestamp"] = "2026-11-22T10:00:00Z"
    evicted = {"type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI"}
    cluster.be(name, phase="Failed", conditions=[evicted])
    cluster.vanish("Pod", name)
    await asyncio.sleep(0.001)
    seen = await made.look(BASE, spec().run)
    assert [seen[rank].alive for rank in range(3)] == [True, False, True]
    assert seen[1].exit_reason == "drained"
    cluster.vanish("Pod", f"{BASE}-2")  # by force: it looked alive to the last
    await asyncio.sleep(0.001)
    seen = await made.look(BASE, spec().run)
    assert (seen[2].alive, seen[2].exit_reason) == (False, "deleted")
    await made.remove(BASE)
    await made.create(spec(run="01K0000000000000000000000B"), Progress())
    assert set(await made.look(BASE, "01K0000000000000000000000B")) == {0, 1, 2}


async def test_a_pod_that_carries_a_clusters_labels_is_no_node_of_it(world: Any) -> None:
    """Neither its end nor its life counts, and nobody removes it."""
    cluster, made = world
    await made.create(spec(), Progress())
    forge(cluster, "mine", f"{BASE}-0", phase="Failed")
    forge(cluster, f"{BASE}-01", f"{BASE}-1", phase="Failed")
    await asyncio.sleep(0.001)
    seen = await made.look(BASE, spec().run)
    assert {rank: node.alive for rank, node in seen.items()} == {0: True, 1: True, 2: True}
    del cluster.objects["Secret", BASE]  # so that the removal goes by name
    assert (await made.remove(BASE)).keys() == {0, 1, 2}
    assert cluster.of("Pod") == [f"{BASE}-01", "mine"]
    await made.create(spec(run="01K0000000000000000000000B"), Progress())
    assert set(await made.look(BASE, "01K0000000000000000000000B")) == {0, 1, 2}


@pytest.mark.parametrize("secret", ["there", "deleted and its pods kept"])
async def test_a_pod_of_a_rank_that_the_run_has_not_is_told_of_and_left_alone(
    world: Any, secret: str, caplog: pytest.LogCaptureFixture
) -> None:
    """It is called like a node and has every label of one; nothing of ours owns it."""
    cluster, made = world
    run = spec().run
    await made.create(spec(), Progress())
    forge(cluster, f"{BASE}-7", f"{BASE}-0", rank="7", phase="Running")
    await asyncio.sleep(0.001)
    assert set(await made.look(BASE, run, 3)) == {0, 1, 2}
    if secret != "there":
        del cluster.objects["Secret", BASE]
        for name in cluster.of("Pod"):
            cluster.objects["Pod", name]["metadata"].pop("ownerReferences", None)
            cluster.be(name, phase="Running")
        await asyncio.sleep(0.001)
        assert set(await made.look(BASE, run, 3)) == {0, 1, 2}
    async with asyncio.timeout(5):  # nobody waits for it, either
        ends = await made.remove(BASE, nodes=3)
    assert set(ends) == {0, 1, 2}
    assert cluster.of("Pod") == [f"{BASE}-7"]
    assert f"{BASE}-7" in caplog.text
    async with asyncio.timeout(5):
        await made.create(spec(run="01K0000000000000000000000B"), Progress())
    assert cluster.of("Pod") == [f"{BASE}-{rank}" for rank in (0, 1, 2, 7)]
    assert "delete Pod" not in cluster.writes or secret != "there"


async def test_a_pod_that_something_else_owns_is_no_node_whatever_it_is_called(world: Any) -> None:
    cluster, made = world
    await made.create(spec(), Progress())
    forge(cluster, f"{BASE}-3", f"{BASE}-0", rank="3", phase="Running")
    owner = {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": BASE, "uid": "x"}
    cluster.objects["Pod", f"{BASE}-3"]["metadata"]["ownerReferences"] = [owner]
    cluster.be(f"{BASE}-3", phase="Running")
    await asyncio.sleep(0.001)
    del cluster.objects["Secret", BASE]
    assert set(await made.remove(BASE)) == {0, 1, 2}
    assert cluster.of("Pod") == [f"{BASE}-3"]


@pytest.mark.parametrize("kind", ["NetworkPolicy", "Service"])
async def test_what_somebody_takes_from_around_running_nodes_is_put_back(world: Any, kind: str) -> None:
    cluster, made = world
    await made.create(spec(), Progress())
    await made.create(spec(user="bob", run="01K0000000000000000000000B"), Progress())
    assert await made.mender.mend(spec().isolation) == []
    before = cluster.objects[kind, BASE]
    cluster.vanish(kind, BASE)
    assert await made.mender.mend(spec().isolation) == [f"{kind} {BASE}"]
    after = cluster.objects[kind, BASE]
    assert (after["spec"], after["metadata"]["ownerReferences"]) == (
        before["spec"],
        before["metadata"]["ownerReferences"],
    )
    await made.remove(BASE)
    await asyncio.sleep(0)
    assert not [name for _, name in cluster.objects if name.startswith(BASE)]


def opened(cluster: Any) -> None:
    cluster.edit("NetworkPolicy", BASE, {"podSelector": {}, "ingress": [{}], "egress": [{}]})


def unlabelled(cluster: Any) -> None:
    opened(cluster)
    cluster.touch("NetworkPolicy", BASE, labels={}, annotations={"theirs": "x"}, ownerReferences=[])


def somebody_elses(cluster: Any) -> None:
    owner = {"apiVersion": "v1", "kind": "Secret", "name": BASE, "uid": "another"}
    cluster.touch("NetworkPolicy", BASE, ownerReferences=[owner])


@pytest.mark.parametrize("edit", [opened, unlabelled, somebody_elses])
async def test_a_policy_that_somebody_edits_is_put_in_order_in_one_step(world: Any, edit: Any) -> None:
    cluster, made = world
    await made.create(spec(), Progress())
    before = cluster.objects["NetworkPolicy", BASE]
    edit(cluster)
    assert await made.mender.mend(spec().isolation) == [f"NetworkPolicy {BASE}"]
    after = cluster.objects["NetworkPolicy", BASE]
    assert after["spec"] == before["spec"]
    assert after["metadata"]["labels"] == spec_labels()
    assert after["metadata"]["ownerReferences"] == [{**OWNER, "name": BASE, "uid": secret_uid(cluster)}]
    assert after["metadata"]["annotations"].get("theirs") == ("x" if edit is unlabelled else None)
    assert cluster.writes[-1] == "replace NetworkPolicy"
    assert await made.mender.mend(spec().isolation) == []


def spec_labels() -> Any:
    return manifests.network_policy(spec(), OWNER)["metadata"]["labels"]


def secret_uid(cluster: Any) -> str:
    return cluster.objects["Secret", BASE]["metadata"]["uid"]


@pytest.mark.parametrize("how", ["deleted", "edited", "labels taken"])
async def test_a_policy_that_somebody_touches_is_put_in_order_at_once(
    world: Any, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mender, "SETTLE_SECONDS", 0.001)
    cluster, made = world
    await made.create(spec(), Progress())
    before = cluster.objects["NetworkPolicy", BASE]["spec"]
    made.mender.start(spec().isolation)
    await cluster.watched("NetworkPolicy")
    if how == "deleted":
        cluster.vanish("NetworkPolicy", BASE)
    elif how == "edited":
        opened(cluster)
    else:
        unlabelled(cluster)
    async with asyncio.timeout(5):
        while cluster.objects.get(("NetworkPolicy", BASE), {}).get("spec") != before:  # noqa: ASYNC110
            await asyncio.sleep(0.001)
    await made.mender.stop()


async def test_a_release_is_no_reason_to_look(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mender, "SETTLE_SECONDS", 0.001)
    cluster, made = world
    looks = 0

    async def mend(_: Any) -> list[str]:
        nonlocal looks
        looks += 1
        return []

    monkeypatch.setattr(made.mender, "mend", mend)
    made.mender.start(spec().isolation)
    made.mender.start(spec().isolation)
    await cluster.watched("NetworkPolicy")
    assert len([kind for kind, _ in cluster.streams if kind == "NetworkPolicy"]) == 1
    await made.create(spec(), Progress())
    await made.remove(BASE)
    await asyncio.sleep(0.05)
    assert looks == 0
    await made.create(spec(), Progress())
    opened(cluster)
    await asyncio.sleep(0.05)
    opened(cluster)  # again at once: it is not looked at without a pause
    await asyncio.sleep(0.05)
    assert looks == 1
    await made.mender.stop()


async def test_a_policy_of_a_younger_run_of_the_same_name_is_not_written_over(world: Any) -> None:
    """The watch may still tell of the pods of the run before."""
    cluster, made = world
    await made.create(spec(), Progress())
    await made.watch.look()
    for name in cluster.of("Pod"):
        del cluster.objects["Pod", name]  # nobody has heard of it
    somebody_elses(cluster)
    opened(cluster)
    assert await made.mender.mend(spec().isolation) == []
    assert "replace NetworkPolicy" not in cluster.writes


async def test_what_the_api_server_makes_of_a_policy_is_not_written_again_and_again(world: Any) -> None:
    cluster, made = world
    await made.create(spec(), Progress())
    opened(cluster)
    cluster.served = lambda body: {**body, "spec": {**body["spec"], "of a newer Kubernetes": True}}
    assert await made.mender.mend(spec().isolation) == [f"NetworkPolicy {BASE}"]
    assert await made.mender.mend(spec().isolation) == []
    opened(cluster)
    assert await made.mender.mend(spec().isolation) == [f"NetworkPolicy {BASE}"]


async def test_nothing_is_put_around_nodes_that_nothing_owns_or_that_ended(world: Any) -> None:
    cluster, made = world
    await made.create(spec(nodes=1), Progress())
    await made.create(spec(user="bob", nodes=1, run="01K0000000000000000000000B"), Progress())
    bob = spec(user="bob").base
    for base in (BASE, bob):
        cluster.vanish("NetworkPolicy", base)
    cluster.objects["Pod", f"{BASE}-0"]["metadata"]["ownerReferences"] = []
    cluster.be(f"{BASE}-0", phase="Running")
    cluster.be(f"{bob}-0", phase="Failed")
    await asyncio.sleep(0.001)
    assert await made.mender.mend(spec().isolation) == []


async def test_who_is_called_alike_never_meets_an_object_of_another(world: Any) -> None:
    cluster, made = world
    users = ["al", "alice", "a-b", "a_b", "a--b", "A-B", "王", "王五", "é", "x" * 255, "x" * 254, "$(A)", "-"]
    pairs = [(user, server) for user in users for server in ("b", "ice-b", "x" * 30)]
    specs = [
        spec(user=user, server=server, nodes=1, run=f"{number:026}")
        for number, (user, server) in enumerate(pairs)
    ]
    await asyncio.gather(*(made.create(one, Progress()) for one in specs))
    assert [len(cluster.of(kind)) for kind in KINDS] == [len(pairs)] * 4
    for done, one in enumerate(specs, 1):
        await made.remove(one.base)
        await asyncio.sleep(0)
        runs = {item["metadata"]["labels"][names.RUN] for item in cluster.objects.values()}
        assert runs == {left.run for left in specs[done:]}


async def test_pods_of_another_run_are_not_this_runs_nodes(world: Any) -> None:
    _, made = world
    await made.create(spec(), Progress())
    assert await made.look(BASE, "another") == {}


def test_the_life_of_a_pod_is_ours_and_never_kubespawners() -> None:
    """So nothing of it can call a stop of its own in the middle of ours."""
    for name in ("start", "stop", "poll", "progress", "get_url", "delete_forever"):
        assert getattr(KubeCluster, name) is getattr(VirtualCluster, name), name


# ---------------------------------------------------------------------------------- asked, and put away


async def test_a_node_is_ready_when_it_answers_the_hub_whatever_the_kubelet_says(
    world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster, made = world
    cluster.hold = True
    asked: list[str] = []
    answers = asyncio.Event()

    async def ask(url: str) -> bool:
        asked.append(url)
        await answers.wait()
        return True

    monkeypatch.setattr(made, "_ask", ask)
    progress = Progress()
    start = asyncio.create_task(made.create(spec(nodes=2), progress))
    await cluster.until(2)
    for rank in (0, 1):
        cluster.be(f"{BASE}-{rank}", phase="Running")
        not_yet = [{"type": "Ready", "status": "False"}]
        cluster.objects["Pod", f"{BASE}-{rank}"]["status"]["conditions"] = not_yet
    await asyncio.sleep(0.001)
    assert asked == [f"http://10.0.0.1:8888{spec().prefix}{path}api" for path in ("", "node-1/")]
    assert not progress.urls
    answers.set()
    await start
    assert set(progress.urls) == {0, 1}


async def test_where_the_hub_reaches_no_node_the_kubelets_word_counts(
    world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster, made = world
    cluster.hold = True

    async def ask(url: str) -> bool:
        return False

    monkeypatch.setattr(made, "_ask", ask)
    progress = Progress()
    start = asyncio.create_task(made.create(spec(nodes=1), progress))
    await cluster.until(1)
    cluster.be(f"{BASE}-0", phase="Running")
    cluster.objects["Pod", f"{BASE}-0"]["status"]["conditions"] = []
    await asyncio.sleep(0.001)
    assert not start.done()
    cluster.be(f"{BASE}-0", phase="Running")
    await start
    assert set(progress.urls) == {0}


async def test_nobody_is_asked_any_more_when_a_start_is_cancelled(
    world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster, made = world
    cluster.hold = True
    ended = asyncio.Event()

    async def ask(url: str) -> bool:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()
        return True

    monkeypatch.setattr(made, "_ask", ask)
    start = asyncio.create_task(made.create(spec(nodes=1), Progress()))
    await cluster.until(1)
    cluster.be(f"{BASE}-0", phase="Running")
    cluster.objects["Pod", f"{BASE}-0"]["status"]["conditions"] = []
    await asyncio.sleep(0.001)
    start.cancel()
    await asyncio.wait({start})
    await asyncio.wait_for(ended.wait(), 5)


async def test_a_release_is_over_when_nothing_runs_and_a_new_start_waits_until_nothing_is_there(
    world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kubelet puts an ended pod away only when it next looks at its containers."""
    cluster, made = world
    await made.create(spec(nodes=1), Progress())
    name = f"{BASE}-0"
    pod = cluster.objects["Pod", name]

    def begins_to_end(_: str) -> None:
        pod["metadata"]["deletionTimestamp"] = "2026-11-22T10:00:00Z"
        cluster.be(name, phase="Running")

    delete = cluster.delete

    async def delete_later(kind: str, name: str, **more: Any) -> bool:
        return True if kind == "Pod" else await delete(kind, name, **more)

    monkeypatch.setattr(cluster, "collect", begins_to_end)
    monkeypatch.setattr(cluster, "delete", delete_later)
    removal = asyncio.create_task(made.remove(BASE))
    await asyncio.sleep(0.01)
    assert not removal.done()
    at = "2026-11-22T10:00:01Z"
    state = {"terminated": {"exitCode": 143, "finishedAt": at}}
    cluster.be(name, phase="Failed", containerStatuses=[{"name": "notebook", "state": state}])
    ends = await removal
    assert ends[0].exit_reason == "released"
    assert ends[0].at is not None
    assert ends[0].at.isoformat() == "2026-11-22T10:00:01+00:00"
    assert cluster.of("Pod") == [name]
    again = asyncio.create_task(made.create(spec(nodes=1, run="01K0000000000000000000000B"), Progress()))
    await asyncio.sleep(0.01)
    assert "create Secret" not in cluster.writes[cluster.writes.index("delete Secret") :]
    cluster.vanish("Pod", name)
    await again
    assert cluster.objects["Pod", name]["metadata"]["labels"][names.RUN] == "01K0000000000000000000000B"


async def test_no_entrypoint_of_an_image_runs_before_a_node() -> None:
    """Kubernetes gives an image's ENTRYPOINT whatever is only said as arguments."""

    class Some:
        image, home_dir = "example.edu/jupyter:1", "/home/jovyan"

        async def get_pod_manifest(self) -> Any:
            return kubespawners_pod()

    for as_is, program in ((False, "/opt/galilean/bin/python"), (True, "jupyterhub-singleuser")):
        plan = SimpleNamespace(environment=SimpleNamespace(name="x", image="", as_is=as_is))
        pod = await KubeCluster._pod_of(Some(), plan)  # type: ignore[arg-type]
        (main,) = manifests.pod(replace(spec(), pod=pod), 0, OWNER)["spec"]["containers"]
        assert main["command"][0] == program
        assert "args" not in main
