"""One watch on all pods of all runs: what exists now, who is told of a change, and whether it can be believed.

KubeSpawner's own reflectors are not used: they list everything again every ten seconds, give up for ever
after a minute without an API server, keep showing what was, and tell nobody of a change. This one

* belongs to the hub, not to somebody's start: a task of its own, started once, never cancelled by a person;
* never gives up, and is started anew should it ever die;
* takes for a node only what is called as that node is, whatever labels others put on their pods;
* knows whether it is *current*: connected, and heard of within the silence that the server cannot exceed
  (it ends each stream after a minute, and the next one continues where it ended, without a new list);
* :meth:`PodWatch.look` answers only when it is current; in doubt it reads directly, and raises when it cannot.

Who waits for a cluster is woken by changes of that cluster alone: a thousand waiting starts cost no more
than their own events.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import aclosing, contextmanager
from typing import Any, Protocol

from spawner.kubernetes import names
from spawner.kubernetes.api import APIError
from spawner.requests import NextLook

STREAM_SECONDS = 60
SILENCE_SECONDS = 75.0
LOOK_SECONDS = 10.0
FIRST_PAUSE_SECONDS = 0.2
LONGEST_PAUSE_SECONDS = 3.0
#: How long is remembered how a pod looked when it went: longer than anybody who looks at times takes to look.
GONE_SECONDS = 120.0

Pod = Mapping[str, Any]


class Source(Protocol):
    """What a watch needs of :class:`spawner.kubernetes.api.KubeAPI`."""

    async def list(self, kind: str, selector: str) -> tuple[list[dict[str, Any]], str]: ...

    def watch(
        self, kind: str, selector: str, version: str, *, seconds: int, silence_seconds: float
    ) -> Any: ...


def slim(pod: Pod) -> dict[str, Any]:
    """What we ever ask of a pod; the rest of thousands of them need not be kept."""
    metadata = pod["metadata"]
    kept = (
        "name",
        "uid",
        "labels",
        "annotations",
        "creationTimestamp",
        "deletionTimestamp",
        "ownerReferences",
    )
    return {
        "metadata": {key: metadata[key] for key in kept if key in metadata},
        "spec": {"nodeName": pod.get("spec", {}).get("nodeName", "")},
        "status": pod.get("status", {}),
    }


class Follower:
    """The pods of one cluster, for somebody who waits for something to happen to them.

    Attributes
    ----------
    last
        Every pod that was seen while following, by name, as it was last seen, also when it is gone now.
    """

    def __init__(self, watch: PodWatch, cluster: str) -> None:
        self._watch = watch
        self._cluster = cluster
        self._news = asyncio.Event()
        self.last: dict[str, Pod] = dict(watch.pods(cluster))

    @property
    def pods(self) -> Mapping[str, Pod]:
        return self._watch.pods(self._cluster)

    def tell(self, pod: Pod | None = None) -> None:
        """Something changed; ``pod`` is how it looks now, or looked when it went."""
        if pod is not None:
            self.last[pod["metadata"]["name"]] = pod
        self._news.set()

    async def changed(self) -> None:
        """Wait for the next change; one that happened since the last call counts."""
        await self._news.wait()
        self._news.clear()


class PodWatch:
    """The watch.

    Parameters
    ----------
    source
        The API server.
    log
        Told of outages, once each.
    clock
        Monotonic seconds.
    """

    def __init__(
        self,
        source: Source,
        *,
        log: logging.Logger | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._source = source
        self._log = log or logging.getLogger(__name__)
        self._clock = clock
        self._pods: dict[str, dict[str, Pod]] = {}
        self._gone: dict[str, dict[str, tuple[float, Pod]]] = {}
        self._followers: dict[str, set[Follower]] = {}
        self._task: asyncio.Task[None] | None = None
        self._connected = False
        self._heard_at = float("-inf")
        self._wake = asyncio.Event()
        self._next_look = NextLook(self._wake.set)

    # ------------------------------------------------------------------------------------ what others read

    @property
    def current(self) -> bool:
        """Whether what is known is what is, but for the last moments."""
        return self._connected and self._clock() - self._heard_at < SILENCE_SECONDS

    def pods(self, cluster: str) -> Mapping[str, Pod]:
        """The pods of a cluster (by its base name) as last heard of, by name."""
        return self._pods.get(cluster, {})

    def gone(self, cluster: str) -> list[Pod]:
        """Pods of a cluster that went a short while ago, as they looked then: how they ended is told by them only."""
        since = self._clock() - GONE_SECONDS
        return [pod for at, pod in self._gone.get(cluster, {}).values() if at >= since]

    def clusters(self) -> list[dict[str, Pod]]:
        """The pods of every cluster, each by name, as they are at this moment."""
        return [dict(pods) for pods in self._pods.values()]

    async def look(self) -> None:
        """Come back when what is known can be believed.

        Raises
        ------
        Exception
            When the API server cannot be asked: nothing that is missing is then gone.
        """
        self.start()
        if self.current:
            return
        await self._next_look.wait(LOOK_SECONDS)

    @contextmanager
    def follow(self, cluster: str) -> Iterator[Follower]:
        """Be told of every change of a cluster's pods from now on."""
        follower = Follower(self, cluster)
        self._followers.setdefault(cluster, set()).add(follower)
        try:
            yield follower
        finally:
            followers = self._followers[cluster]
            followers.discard(follower)
            if not followers:
                del self._followers[cluster]

    # -------------------------------------------------------------------------------------------- its life

    def start(self) -> None:
        """Begin to watch if nobody does; called again it costs nothing."""
        if self._task is not None and not self._task.done():
            return
        if self._task is not None and not self._task.cancelled():
            self._log.error("The watch on pods had died and is started again: %s", self._task.exception())
        self._connected = False
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def stop(self) -> None:
        """End the watch."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})

    async def _run(self) -> None:
        pause = FIRST_PAUSE_SECONDS
        out = False
        while True:
            try:
                version = await self._load()
                self._next_look.came()
                if out:
                    self._log.info("The API server answers again; %d clusters have pods", len(self._pods))
                pause, out = FIRST_PAUSE_SECONDS, False
                await self._stay(version)
            except Exception as error:
                self._connected = False
                self._next_look.came(error)
                if isinstance(error, APIError) and error.status == 410:
                    continue
                if not out:
                    self._log.warning("The watch on pods is interrupted: %r", error)
                out = True
                await self._rest(pause)
                pause = min(pause * 2, LONGEST_PAUSE_SECONDS)

    async def _rest(self, seconds: float) -> None:
        """Pause, unless somebody asks meanwhile; even then not at once, for a thousand may ask."""
        await asyncio.sleep(min(seconds, FIRST_PAUSE_SECONDS))
        self._wake.clear()
        try:
            async with asyncio.timeout(seconds):
                await self._wake.wait()
        except TimeoutError:
            pass

    async def _load(self) -> str:
        """Read everything, and tell everybody who waits."""
        found, version = await self._source.list("Pod", names.RUN)
        pods: dict[str, dict[str, Pod]] = {}
        for pod in found:
            cluster = _cluster_of(pod)
            if cluster:
                kept = slim(pod)
                pods.setdefault(cluster, {})[kept["metadata"]["name"]] = kept
        self._pods = pods
        self._connected, self._heard_at = True, self._clock()
        for cluster, followers in self._followers.items():
            for follower in followers:
                for pod in pods.get(cluster, {}).values():
                    follower.tell(pod)
                follower.tell()
        return version

    async def _stay(self, version: str) -> None:
        """Follow the server's events, stream after stream."""
        while True:
            events = self._source.watch(
                "Pod", names.RUN, version, seconds=STREAM_SECONDS, silence_seconds=SILENCE_SECONDS
            )
            async with aclosing(events):
                async for event in events:
                    self._connected, self._heard_at = True, self._clock()
                    kind = event["type"]
                    if kind == "OPEN":
                        continue
                    if kind == "ERROR":
                        said = event["object"]
                        raise APIError(int(said.get("code", 500)), str(said.get("message", "")))
                    version = event["object"]["metadata"]["resourceVersion"]
                    if kind != "BOOKMARK":
                        self._take(kind, slim(event["object"]))

    def _take(self, kind: str, pod: Pod) -> None:
        cluster, name = _cluster_of(pod), pod["metadata"]["name"]
        if not cluster:
            return
        if kind == "DELETED":
            pods = self._pods.get(cluster, {})
            pods.pop(name, None)
            if not pods:
                self._pods.pop(cluster, None)
            self._remember(cluster, pod)
        else:
            self._pods.setdefault(cluster, {})[name] = pod
        for follower in self._followers.get(cluster, ()):
            follower.tell(pod)

    def _remember(self, cluster: str, pod: Pod) -> None:
        now = self._clock()
        while self._gone:  # in the order of their last loss
            oldest, pods = next(iter(self._gone.items()))
            if max(at for at, _ in pods.values()) >= now - GONE_SECONDS:
                break
            del self._gone[oldest]
        self._gone[cluster] = {**self._gone.pop(cluster, {}), pod["metadata"]["name"]: (now, pod)}


def _cluster_of(pod: Pod) -> str:
    """The base name of the cluster that a pod is a node of; empty for one that only carries the labels."""
    metadata = pod["metadata"]
    cluster = (metadata.get("labels") or {}).get(names.CLUSTER, "")
    return "" if names.rank_of(cluster, metadata["name"]) is None else cluster
