"""The inventory: every node and what a cut-off start left, and nothing that only says it is ours."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from spawner.kubernetes import names
from spawner.kubernetes.inventory import KubeInventory
from tests.kubernetes.memory import Progress, forge
from tests.kubernetes.test_manifests import spec

BASE = spec().base


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


async def test_a_long_inventory_lets_others_have_their_turn(world: Any) -> None:
    cluster, made = world
    await made.create(spec(nodes=450), Progress())
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    task = asyncio.ensure_future(other())
    found = await KubeInventory(cluster, leftovers=False).inventory()  # type: ignore[arg-type]
    task.cancel()
    assert len(found) == 450
    assert turns >= 4


@pytest.mark.parametrize(
    "forged",
    [
        {"labels": {names.RANK: "7"}},
        {"annotations": {names.USER: "bob"}},
        {"labels": {names.CLUSTER: "another"}},
        {"ownerReferences": [{"kind": "ReplicaSet", "name": BASE, "uid": "u"}]},
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


@pytest.mark.parametrize("kind", ["Pod", "Service"])
async def test_what_nothing_owns_counts_but_is_removed_at_an_administrators_word_alone(
    world: Any, kind: str
) -> None:
    """A Secret that somebody deleted and left its pods behind, or a pod that somebody made in our form."""
    cluster, made = world
    await made.create(spec(nodes=1), Progress())
    for which, name in list(cluster.objects):
        if which == kind:
            cluster.objects[which, name]["metadata"]["ownerReferences"] = []
        else:
            cluster.vanish(which, name)
    (seen,) = await KubeInventory(cluster).inventory()  # type: ignore[arg-type]
    assert (seen.user, seen.state) == ("ada", "alive" if kind == "Pod" else "ended")
    with pytest.raises(PermissionError, match="sweep --remove"):
        await KubeInventory(cluster).remove(seen)  # type: ignore[arg-type]
    assert cluster.objects
    await KubeInventory(cluster, by_hand=True).remove(seen)  # type: ignore[arg-type]
    assert not cluster.objects


async def test_a_pod_that_nothing_owns_beside_nodes_that_are_owned_is_told_of_and_left_alone(
    world: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """Else it would be metered as a node that the run never had, and keep a run alive that is gone."""
    cluster, made = world
    await made.create(spec(nodes=2), Progress())
    forge(cluster, f"{BASE}-7", f"{BASE}-0", rank="7", phase="Running")
    inventory = KubeInventory(cluster)  # type: ignore[arg-type]
    assert [item.rank for item in await inventory.inventory()] == [0, 1]
    assert inventory.foreign == (f"{BASE}-7",)
    assert f"{BASE}-7" in caplog.text
    for item in await inventory.inventory():
        await inventory.remove(item)
    assert list(cluster.objects) == [("Pod", f"{BASE}-7")]
    (left,) = await inventory.inventory()
    with pytest.raises(PermissionError, match="sweep --remove"):
        await inventory.remove(left)


async def test_what_others_called_ours_stays_when_a_run_is_swept(world: Any) -> None:
    cluster, made = world
    await made.create(spec(nodes=1), Progress())
    ours = cluster.objects["Secret", BASE]
    cluster.objects["Secret", "theirs"] = {**ours, "metadata": {**ours["metadata"], "name": "theirs"}}
    inventory = KubeInventory(cluster)  # type: ignore[arg-type]
    for item in await inventory.inventory():
        await inventory.remove(item)
    assert list(cluster.objects) == [("Secret", "theirs")]
