"""What really exists of the Kubernetes backend, told from outside the hub (design §4).

Every pod of every run by a direct list, never from a watch; besides, Secrets, Services and policies whose
run has no pod left: a start that was cut off leaves them, and nothing of them computes. Contents of Secrets
are not asked for, only what they are called.

Only what is consistent is taken for ours: a pod is named after the user, the server and the rank that its
annotations tell, and a Secret of that name owns it. Anything else that carries our labels was made by
somebody who may make pods: it is told of (:attr:`KubeInventory.foreign`), and neither metered nor removed.
So is a pod without an owner beside others of its run that have theirs: whoever deletes a Secret and keeps the rest takes
the owner from all. What is consistent but has no owner at all lost it to somebody's hand, or was made by one: it counts as
what it says, and is removed only at an administrator's word (``by_hand``), never by a loop.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, TypeVar

from kubespawner.clients import load_config

from spawner.inventory import Sighting
from spawner.kubernetes import names, troubles
from spawner.kubernetes.api import KubeAPI
from spawner.kubernetes.nodes import FORCE_SECONDS
from spawner.kubernetes.watch import Pod
from spawner.labels import rank_in

T = TypeVar("T")

_TURN = 100
_OWNED = ("Service", "NetworkPolicy")
#: Rank of a sighting that is no node: objects that a node had.
NO_NODE = -1


class KubeInventory:
    """Lists and removes what exists in one namespace; implements :class:`spawner.inventory.Inventory`.

    Parameters
    ----------
    api
        The namespace.
    leftovers
        Whether to tell of objects without pods, too. The metering need not, and needs fewer rights.
    by_hand
        Whether an administrator asks: then what has no owner of ours is removed, too.
    log
        Told of foreign pods.

    Attributes
    ----------
    foreign
        Names of the pods with our labels that are not ours, as the last look found them.
    """

    def __init__(
        self,
        api: KubeAPI,
        *,
        leftovers: bool = True,
        by_hand: bool = False,
        log: logging.Logger | None = None,
    ) -> None:
        self._api = api
        self._leftovers = leftovers
        self._by_hand = by_hand
        self._log = log or logging.getLogger(__name__)
        self.foreign: tuple[str, ...] = ()

    async def inventory(self) -> list[Sighting]:
        """Everything that exists.

        Raises
        ------
        Exception
            When any part of it cannot be read.
        """
        others: list[tuple[str, Mapping[str, Any]]] = []
        if self._leftovers:  # first: what is made meanwhile then has its pods in the list that follows
            for kind in ("Secret", *_OWNED):
                found, _ = await self._api.list(kind, names.RUN, only_metadata=True)
                others += [(kind, item) for item in found]
        pods, _ = await self._api.list("Pod", names.RUN)
        found_nodes: list[Sighting] = []
        foreign: list[str] = []
        async for pod in _in_turns(pods):
            sighting = sighting_of(pod)
            if sighting is None:
                foreign.append(pod["metadata"]["name"])
            else:
                found_nodes.append(sighting)
        whole = {item.run for item in found_nodes if item.handle["owned"]}
        sightings = [item for item in found_nodes if item.handle["owned"] or item.run not in whole]
        foreign += [
            item.handle["name"] for item in found_nodes if not item.handle["owned"] and item.run in whole
        ]
        if set(foreign) - set(self.foreign):
            self._log.warning("Pods that carry our labels and are not ours: %s", ", ".join(foreign[:20]))
        self.foreign = tuple(foreign)
        living = {item.run for item in sightings}
        seen: set[str] = set()
        async for kind, item in _in_turns(others):
            if item["metadata"]["labels"][names.RUN] in living:
                continue
            left = leftover_of(kind, item)
            if left is not None and left.run not in seen:
                seen.add(left.run)
                sightings.append(left)
        return sightings

    async def remove(self, sighting: Sighting) -> None:
        """Remove what was sighted, and what belongs to its run alone; gone already is success.

        Raises
        ------
        PermissionError
            When nothing of ours owns it, and no administrator asks.
        TimeoutError, Exception
            When it cannot be sure that it is gone.
        """
        handle = sighting.handle
        if not handle["owned"] and not self._by_hand:
            raise PermissionError(
                f"{handle['kind']} {handle['name']} says that it is ours, but no Secret of ours owns it; "
                "galilean sweep --remove removes it"
            )
        base = names.base_name(sighting.user, sighting.server)
        selector = f"{names.RUN}={sighting.run}"
        for kind in ("Secret", *_OWNED):
            for item in (await self._api.list(kind, selector, only_metadata=True))[0]:
                metadata = item["metadata"]
                if metadata["name"] == base:
                    await self._api.delete(kind, base, uid=metadata["uid"])
        if handle["kind"] != "Pod":
            return
        await self._api.delete("Pod", handle["name"], uid=handle["uid"])
        loop = asyncio.get_running_loop()
        end = loop.time() + FORCE_SECONDS
        while handle["uid"] in {pod["metadata"]["uid"] for pod in await self._pods(selector)}:
            if loop.time() > end:
                raise TimeoutError(f"{handle['name']} does not end")
            await asyncio.sleep(0.5)

    async def close(self) -> None:
        """Let go of the connections."""
        await self._api.close()

    async def _pods(self, selector: str) -> list[dict[str, Any]]:
        return (await self._api.list("Pod", selector, only_metadata=True))[0]


async def _in_turns(items: Sequence[T]) -> AsyncIterator[T]:
    """Thousands of things, on a loop that others wait for."""
    for number, item in enumerate(items):
        if number % _TURN == 0:
            await asyncio.sleep(0)
        yield item


def kube_inventory(namespace: str, *, leftovers: bool = True, by_hand: bool = False) -> KubeInventory:
    """The inventory of a namespace, by the process's own account in the cluster, else by a kubeconfig."""
    load_config()
    return KubeInventory(KubeAPI(namespace), leftovers=leftovers, by_hand=by_hand)


def sighting_of(pod: Pod) -> Sighting | None:
    """The node that a pod is; ``None`` when it is not what it says."""
    told = _told(pod)
    if told is None:
        return None
    user, server, run, base = told
    metadata = pod["metadata"]
    rank = rank_in(metadata["labels"].get(names.RANK, ""))
    if rank is None or metadata["name"] != names.pod_name(base, rank):
        return None
    owned = _owned(metadata, base)
    if owned is None:
        return None
    end = troubles.ended(pod)
    over = troubles.is_over(pod)
    return Sighting(
        user=user,
        server=server,
        run=run,
        rank=rank,
        state="alive" if not over else "going" if troubles.is_put_away(pod) else "ended",
        started_at=troubles.moment(metadata.get("creationTimestamp")),
        finished_at=end.at if over and end is not None else None,
        handle={"kind": "Pod", "name": metadata["name"], "uid": metadata["uid"], "owned": owned},
    )


def leftover_of(kind: str, item: Mapping[str, Any]) -> Sighting | None:
    """An object without a node; ``None`` when it is not ours."""
    told = _told(item)
    metadata = item["metadata"]
    if told is None or metadata["name"] != told[3]:
        return None
    user, server, run, base = told
    owned = True if kind == "Secret" else _owned(metadata, base)
    if owned is None:
        return None
    return Sighting(
        user=user,
        server=server,
        run=run,
        rank=NO_NODE,
        state="ended",
        started_at=troubles.moment(metadata.get("creationTimestamp")),
        handle={"kind": kind, "name": metadata["name"], "uid": metadata["uid"], "owned": owned},
    )


def _told(item: Mapping[str, Any]) -> tuple[str, str, str, str] | None:
    """User, server, run and base name that an object tells, when they agree."""
    labels = item["metadata"].get("labels") or {}
    annotations = item["metadata"].get("annotations") or {}
    user, server = annotations.get(names.USER), annotations.get(names.SERVER)
    if user is None or server is None or not labels.get(names.RUN):
        return None
    base = names.base_name(user, server)
    if labels.get(names.CLUSTER) != base:
        return None
    return user, server, labels[names.RUN], base


def _owned(metadata: Mapping[str, Any], base: str) -> bool | None:
    """Whether a Secret of ours owns an object, or nothing does; ``None`` when something else does."""
    owners = metadata.get("ownerReferences") or ()
    if any(owner.get("kind") == "Secret" and owner.get("name") == base for owner in owners):
        return True
    return None if owners else False
