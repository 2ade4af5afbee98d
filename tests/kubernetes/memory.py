"""An API server in memory that fails where a test says, with the collector, scheduler and kubelet behind it."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Mapping
from copy import deepcopy
from typing import Any

from spawner.kubernetes import names
from spawner.kubernetes.api import APIError

KINDS = ["Secret", "NetworkPolicy", "Service", "Pod"]


class Cluster:
    """API server, collector, scheduler and kubelet: pods become ready at once unless held."""

    namespace = "people"

    def __init__(self) -> None:
        self.objects: dict[tuple[str, str], dict[str, Any]] = {}
        self.writes: list[str] = []
        #: The field selectors that were asked for.
        self.fields: list[str] = []
        self.refusals: list[tuple[str, Exception]] = []
        self.lost: list[str] = []
        self.streams: list[tuple[str, asyncio.Queue[Any]]] = []
        self.slow: asyncio.Event | None = None
        self.hold = False
        self.collector = True
        #: Where it is known to be.
        self.at: list[str] = []
        #: How it hands out what was put into it.
        self.served: Callable[[dict[str, Any]], dict[str, Any]] = dict
        self._numbers = itertools.count(1)

    def refuse(self, kind: str, error: Exception, times: int = 1) -> None:
        self.refusals += [(kind, error)] * times

    def lose(self, kind: str, times: int = 1) -> None:
        """What is asked for is done, and nobody hears of it."""
        self.lost += [kind] * times

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
        made = {
            **body,
            "metadata": {**body["metadata"], "uid": uid, "resourceVersion": uid[2:], "generation": 1},
        }
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
        if kind in self.lost:
            self.lost.remove(kind)
            raise ConnectionResetError
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
        if gone is not None:
            self.tell("DELETED", gone)

    def collect(self, uid: str) -> None:
        for (kind, name), item in list(self.objects.items()):
            if uid in [owner["uid"] for owner in item["metadata"].get("ownerReferences", ())]:
                self.vanish(kind, name)

    async def replace(self, body: Mapping[str, Any]) -> dict[str, Any]:
        kind, name = body["kind"], body["metadata"]["name"]
        self.writes.append(f"replace {kind}")
        there = self.objects.get((kind, name))
        if there is None:
            raise APIError(404, "not found")
        if body["metadata"]["resourceVersion"] != there["metadata"]["resourceVersion"]:
            raise APIError(409, "the object has been modified")
        made = deepcopy({**body, "metadata": {**body["metadata"], "uid": there["metadata"]["uid"]}})
        self.objects[kind, name] = self.served(made)
        self.touch(kind, name, generation=there["metadata"]["generation"] + 1)
        return self.objects[kind, name]

    def touch(self, kind: str, name: str, **metadata: Any) -> None:
        """Another version of an object."""
        metadata["resourceVersion"] = str(next(self._numbers))
        self.objects[kind, name]["metadata"] |= metadata
        self.tell("MODIFIED", self.objects[kind, name])

    def edit(self, kind: str, name: str, spec: dict[str, Any]) -> None:
        """Somebody says something else in an object."""
        there = self.objects[kind, name]
        self.objects[kind, name] = {**there, "spec": spec}
        self.touch(kind, name, generation=there["metadata"]["generation"] + 1)

    def put(self, kind: str, name: str, **content: Any) -> None:
        """An object that is not ours."""
        self.objects[kind, name] = {
            "metadata": {"name": name, "labels": content.pop("labels", {})},
            **content,
        }

    def servers(self) -> list[str]:
        return list(self.at)

    async def delete(self, kind: str, name: str, *, uid: str = "", grace_seconds: int | None = None) -> bool:
        self.writes.append(f"delete {kind}")
        item = self.objects.get((kind, name))
        if item is None or (uid and item["metadata"]["uid"] != uid):
            return False
        self.vanish(kind, name)
        if kind == "Secret" and self.collector:
            asyncio.get_running_loop().call_soon(self.collect, item["metadata"]["uid"])
        if f"delete {kind}" in self.lost:
            self.lost.remove(f"delete {kind}")
            raise ConnectionResetError
        return True

    async def list(
        self, kind: str, selector: str, *, fields: str = "", only_metadata: bool = False
    ) -> tuple[list[dict[str, Any]], str]:
        key, _, value = selector.partition("=")
        found = [item for (which, _), item in self.objects.items() if which == kind]
        if fields:
            self.fields.append(fields)
            wanted = dict(part.split("=", 1) for part in fields.split(","))
            found = [
                item
                for item in found
                if item["reason"] == wanted["reason"]
                and item["involvedObject"]["uid"] == wanted["involvedObject.uid"]
            ]
        for index, (which, error) in enumerate(self.refusals):
            if which == f"list {kind}":
                del self.refusals[index]
                raise error
        return [
            item
            for item in found
            if not key or (key in (has := item["metadata"]["labels"]) and value in ("", has[key]))
        ], str(next(self._numbers))

    async def watch(self, kind: str, selector: str, version: str, **_: Any) -> Any:
        queue: asyncio.Queue[Any] = asyncio.Queue()
        self.streams.append((kind, queue))
        yield {"type": "OPEN"}
        while True:
            yield await queue.get()

    async def watched(self, kind: str) -> None:
        """Wait until somebody watches a kind."""
        while kind not in [of for of, _ in self.streams]:  # noqa: ASYNC110
            await asyncio.sleep(0)

    def tell(self, kind: str, item: dict[str, Any]) -> None:
        for of, queue in self.streams:
            if of != item.get("kind"):
                continue
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


def forge(cluster: Cluster, name: str, like: str, *, rank: str = "", **status: Any) -> None:
    """A pod of somebody else's with all labels and annotations of ours, but for the rank where one is said."""
    ours = cluster.objects["Pod", like]["metadata"]
    metadata = {"name": name, "uid": f"forged-{name}", "resourceVersion": "1"}
    metadata |= {key: dict(ours[key]) for key in ("labels", "annotations")}
    metadata["labels"] |= {names.RANK: rank} if rank else {}
    pod = {"kind": "Pod", "metadata": metadata, "spec": {}, "status": status}
    cluster.objects["Pod", name] = pod
    cluster.tell("ADDED", pod)
