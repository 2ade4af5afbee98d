"""The watch on pods: believed only while it is current, renewed when it breaks, silent for strangers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from spawner.kubernetes import names, watch
from spawner.kubernetes.api import APIError
from spawner.kubernetes.watch import PodWatch


def pod(name: str, cluster: str = "c", version: int = 1, **status: Any) -> dict[str, Any]:
    return {
        "metadata": {
            "name": name,
            "resourceVersion": str(version),
            "labels": {names.CLUSTER: cluster, names.RUN: "r"},
            "managedFields": [{"much": "of it"}],
        },
        "spec": {"nodeName": "m", "containers": [{"env": "much"}]},
        "status": status,
    }


class Server:
    """An API server in memory: a list, and streams that a test feeds, breaks and ends."""

    def __init__(self, *pods: dict[str, Any]) -> None:
        self.pods = {item["metadata"]["name"]: item for item in pods}
        self.down = False
        self.lists = 0
        self.from_versions: list[str] = []
        self.events: asyncio.Queue[Any] = asyncio.Queue()

    async def list(self, kind: str, selector: str) -> tuple[list[dict[str, Any]], str]:
        self.lists += 1
        if self.down:
            raise ConnectionError("the API server is down")
        return list(self.pods.values()), "100"

    async def watch(
        self, kind: str, selector: str, version: str, *, seconds: int, silence_seconds: float
    ) -> AsyncIterator[dict[str, Any]]:
        self.from_versions.append(version)
        if self.down:
            raise ConnectionError("the API server is down")
        yield {"type": "OPEN"}
        while True:
            event = await self.events.get()
            if event is None:
                return
            if isinstance(event, BaseException):
                raise event
            yield event

    def say(self, kind: str, item: dict[str, Any]) -> None:
        self.events.put_nowait({"type": kind, "object": item})


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "FIRST_PAUSE_SECONDS", 0.001)
    monkeypatch.setattr(watch, "LONGEST_PAUSE_SECONDS", 0.002)


async def settle() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


async def test_it_knows_what_was_there_and_what_comes() -> None:
    server = Server(pod("a-0", "a"))
    seen = PodWatch(server)
    await seen.look()
    assert set(seen.pods("a")) == {"a-0"}
    server.say("ADDED", pod("a-1", "a", 101))
    server.say("MODIFIED", pod("a-0", "a", 102, phase="Running"))
    await settle()
    assert seen.pods("a")["a-0"]["status"] == {"phase": "Running"}
    server.say("DELETED", pod("a-1", "a", 103))
    await settle()
    assert set(seen.pods("a")) == {"a-0"}
    assert server.lists == 1
    await seen.stop()


async def test_only_what_is_asked_of_pods_is_kept() -> None:
    seen = PodWatch(Server(pod("a-0", "a")))
    await seen.look()
    kept = seen.pods("a")["a-0"]
    assert "managedFields" not in kept["metadata"]
    assert kept["spec"] == {"nodeName": "m"}
    await seen.stop()


async def test_a_stream_that_ends_is_continued_without_a_new_list() -> None:
    server = Server()
    seen = PodWatch(server)
    await seen.look()
    server.say("BOOKMARK", {"metadata": {"resourceVersion": "140"}})
    server.events.put_nowait(None)
    await settle()
    server.say("ADDED", pod("a-0", "a", 141))
    await settle()
    assert set(seen.pods("a")) == {"a-0"}
    assert server.from_versions == ["100", "140"]
    assert server.lists == 1
    await seen.stop()


@pytest.mark.parametrize(
    "event",
    [
        ConnectionResetError(),
        TimeoutError(),
        {"type": "ERROR", "object": {"code": 410, "message": "too old resource version"}},
        APIError(500, "etcd"),
    ],
)
async def test_a_broken_watch_reads_everything_again(event: Any) -> None:
    server = Server(pod("a-0", "a"))
    seen = PodWatch(server)
    await seen.look()
    server.pods = {"b-0": pod("b-0", "b")}
    server.events.put_nowait(event)
    while server.lists < 2:  # noqa: ASYNC110 - what is waited for is the watch's own doing
        await asyncio.sleep(0.001)
    await seen.look()
    assert not seen.pods("a")
    assert set(seen.pods("b")) == {"b-0"}
    await seen.stop()


async def test_while_the_server_is_down_nothing_missing_is_gone() -> None:
    server = Server(pod("a-0", "a"))
    seen = PodWatch(server)
    await seen.look()
    server.down = True
    server.events.put_nowait(ConnectionResetError())
    await settle()
    assert not seen.current
    for _ in range(3):
        with pytest.raises(ConnectionError):
            await seen.look()
    server.down, server.pods = False, {}
    await seen.look()
    assert seen.current
    assert not seen.pods("a")
    await seen.stop()


async def test_a_first_look_without_a_server_says_so_and_a_later_one_works() -> None:
    server = Server(pod("a-0", "a"))
    server.down = True
    seen = PodWatch(server)
    with pytest.raises(ConnectionError):
        await seen.look()
    server.down = False
    await seen.look()
    assert set(seen.pods("a")) == {"a-0"}
    await seen.stop()


async def test_a_silence_that_is_too_long_is_not_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "LOOK_SECONDS", 0.05)
    clock = Clock()
    seen = PodWatch(Server(), clock=clock)
    await seen.look()
    clock.now = watch.SILENCE_SECONDS + 1
    assert not seen.current
    with pytest.raises(TimeoutError):
        await seen.look()
    await seen.stop()


async def test_a_watch_that_died_is_started_again() -> None:
    server = Server(pod("a-0", "a"))
    seen = PodWatch(server)
    await seen.look()
    await seen.stop()
    server.pods = {}
    await seen.look()
    assert not seen.pods("a")
    await seen.stop()


async def test_whoever_gives_up_waiting_for_a_look_breaks_it_for_nobody() -> None:
    server = Server()
    server.down = True
    seen = PodWatch(server)
    impatient = asyncio.create_task(seen.look())
    patient = asyncio.create_task(seen.look())
    await asyncio.sleep(0)
    impatient.cancel()
    with pytest.raises(ConnectionError):
        await patient
    server.down = False
    await seen.look()
    await seen.stop()


async def test_followers_are_woken_by_their_own_cluster_alone() -> None:
    server = Server()
    seen = PodWatch(server)
    await seen.look()
    with seen.follow("a") as ours, seen.follow("b") as theirs:
        server.say("ADDED", pod("a-0", "a", 101))
        await asyncio.wait_for(ours.changed(), 1)
        other = asyncio.create_task(theirs.changed())
        await settle()
        assert not other.done()
        other.cancel()
        server.say("DELETED", pod("a-0", "a", 102, phase="Failed"))
        await asyncio.wait_for(ours.changed(), 1)
        assert not ours.pods
        assert ours.last["a-0"]["status"] == {"phase": "Failed"}
    await seen.stop()


async def test_followers_are_woken_by_a_new_list() -> None:
    server = Server(pod("a-0", "a"))
    seen = PodWatch(server)
    await seen.look()
    with seen.follow("a") as ours:
        server.pods = {}
        server.events.put_nowait(ConnectionResetError())
        await asyncio.wait_for(ours.changed(), 1)
        assert not ours.pods
        assert set(ours.last) == {"a-0"}
    await seen.stop()


async def test_how_a_pod_went_is_remembered_for_a_while() -> None:
    server, clock = Server(pod("c-0"), pod("c-1"), pod("d-0", "d")), Clock()
    one = PodWatch(server, clock=clock)
    await one.look()
    server.say("DELETED", pod("c-1", version=101, phase="Failed"))
    await settle()
    clock.now = watch.GONE_SECONDS / 2
    server.say("DELETED", pod("c-0", version=102, phase="Succeeded"))
    await settle()
    assert [item["status"]["phase"] for item in one.gone("c")] == ["Failed", "Succeeded"]
    clock.now = watch.GONE_SECONDS + 1
    assert [item["status"]["phase"] for item in one.gone("c")] == ["Succeeded"]
    clock.now = 2 * watch.GONE_SECONDS
    server.say("DELETED", pod("d-0", "d", version=103))
    await settle()
    assert one.gone("c") == []
    assert list(one._gone) == ["d"]
    await one.stop()
