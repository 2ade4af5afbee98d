"""Who waits for an image is told so, by the kubelets' events."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from spawner.kubernetes import pulls
from spawner.kubernetes.api import APIError
from tests.kubernetes.memory import Cluster, Progress
from tests.kubernetes.test_manifests import spec

BASE = spec().base
CREATING = {
    "containerStatuses": [{"name": "notebook", "state": {"waiting": {"reason": "ContainerCreating"}}}]
}


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pulls, "AFTER_SECONDS", 0.0)
    monkeypatch.setattr(pulls, "AGAIN_SECONDS", 0.001)


def event(
    cluster: Cluster, rank: int, image: str, at: str = "2026-11-24T03:00:00Z", reason: str = "Pulling"
) -> None:
    uid = cluster.objects["Pod", f"{BASE}-{rank}"]["metadata"]["uid"]
    cluster.put(
        "Event", f"{BASE}-{rank}.{reason}.{at}", reason=reason, involvedObject={"uid": uid}, lastTimestamp=at,
        message=f'{reason} image "{image}"',
    )  # fmt: skip


async def placed(cluster: Cluster) -> None:
    """Both nodes have their machine, and no container yet."""
    await cluster.until(2)
    for rank in (0, 1):
        pod = cluster.objects["Pod", f"{BASE}-{rank}"]
        pod["spec"] = {**pod["spec"], "nodeName": "m1"}
        cluster.be(f"{BASE}-{rank}", phase="Pending", **CREATING)


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not true():  # noqa: ASYNC110 - what the API server in memory does is waited for
            await asyncio.sleep(0.001)


async def test_a_node_whose_image_is_fetched_says_so_once_and_its_neighbour_does_not(world: Any) -> None:
    cluster, made = world
    cluster.hold = True
    progress = Progress()
    start = asyncio.create_task(made.create(spec(nodes=2), progress))
    await placed(cluster)
    event(cluster, 1, "r/first-part:1", "2026-11-24T02:59:00Z")
    event(cluster, 1, "r/tools:1")
    event(cluster, 0, "r/tools:1", reason="Pulled")
    await until(lambda: any("r/tools:1" in str(one) for one in progress.told))
    for rank in (0, 1):
        cluster.be(f"{BASE}-{rank}", phase="Running")
    await start
    (said,) = [one for one in progress.told if "being fetched" in str(one)]
    assert said.startswith("Node 1 waits for the image r/tools:1")
    assert {one.partition(",")[0] for one in cluster.fields} == {
        f"involvedObject.uid={cluster.objects['Pod', f'{BASE}-{rank}']['metadata']['uid']}" for rank in (0, 1)
    }


async def test_a_start_that_is_quick_asks_for_no_events(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pulls, "AFTER_SECONDS", 3.0)
    cluster, made = world
    await made.create(spec(nodes=2), Progress())
    assert cluster.fields == []


@pytest.mark.parametrize(
    "error", [APIError(403, "may not list events"), APIError(500, "busy"), ConnectionResetError()]
)
async def test_whoever_may_not_or_cannot_read_events_starts_all_the_same(
    world: Any, error: Exception
) -> None:
    cluster, made = world
    cluster.hold = True
    cluster.refuse("list Event", error, times=2)
    progress = Progress()
    start = asyncio.create_task(made.create(spec(nodes=2), progress))
    await placed(cluster)
    event(cluster, 1, "r/tools:1")
    passing = not (isinstance(error, APIError) and error.status == 403)
    await until(lambda: not cluster.refusals)
    if passing:
        await until(lambda: any("r/tools:1" in str(one) for one in progress.told))
    for rank in (0, 1):
        cluster.be(f"{BASE}-{rank}", phase="Running")
    await start
    assert any("r/tools:1" in str(one) for one in progress.told) is passing
