"""What stands around running nodes is kept as it has to be: the policy and the Service.

Nodes go on without them, and nothing else notices: without its policy a cluster is open to everybody's
nodes, without its Service nodes have no names. Once a minute, and a second after somebody touched a policy,
both are compared with the living pods; what is missing is made anew from the labels and annotations of a pod, owned by the Secret that owns the pod.
So nothing of it outlives the cluster, whenever that ends meanwhile.

A policy that says something else than it has to is put in order: somebody edited it, a machine with an address of
its own came or went, or the settings are others since the hub was started again. It is replaced in one step, for a
cluster without a policy would be open, and only while that very pod is there by the API server's own word: under
the same name a younger run may have made its own by now.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from typing import Any

from spawner.kubernetes import manifests, names, troubles
from spawner.kubernetes.api import APIError, KubeAPI, is_passing
from spawner.kubernetes.own_addresses import Network, OwnAddresses
from spawner.kubernetes.policies import has_marks, in_place_of, says
from spawner.kubernetes.policy_watch import follow_policies
from spawner.kubernetes.spec import ClusterFrame, Isolation
from spawner.kubernetes.watch import Pod, PodWatch
from spawner.labels import rank_in

EVERY_SECONDS = 60.0
#: A release takes the policy along: a moment later its pods are ending, and nothing is wrong.
SETTLE_SECONDS = 1.0
#: Who edits policies again and again does not keep us at it.
LEAST_SECONDS = 5.0
_TURN = 100


class Mender:
    """Puts in order what stands around the clusters of one namespace.

    Parameters
    ----------
    api
        The namespace.
    watch
        What is known of its pods.
    own
        What is known of the addresses of Kubernetes itself.
    log
        Told of what is put back.
    """

    def __init__(
        self, api: KubeAPI, watch: PodWatch, own: OwnAddresses, *, log: logging.Logger | None = None
    ) -> None:
        self._api = api
        self._watch = watch
        self._own = own
        self._log = log or logging.getLogger(__name__)
        self._tasks: list[asyncio.Task[None]] = []
        self._touched: set[str] = set()
        self._touch = asyncio.Event()
        #: By name: the generation that the API server gave to what we wrote, and what that was.
        self._written: dict[str, tuple[int, Any]] = {}

    def start(self, isolation: Isolation) -> None:
        """Look from now on, again and again; called again it costs nothing."""
        if self._tasks and not any(task.done() for task in self._tasks):
            return
        for task in self._tasks:
            task.cancel()
        loop = asyncio.get_running_loop()
        self._tasks = [
            loop.create_task(self._run(isolation)),
            loop.create_task(follow_policies(self._api, self._is_touched, log=self._log)),
        ]

    async def stop(self) -> None:
        """Look no more."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    def _is_touched(self, name: str) -> None:
        self._touched.add(name)
        self._touch.set()

    async def _run(self, isolation: Isolation) -> None:
        loop = asyncio.get_running_loop()
        last = float("-inf")
        due = loop.time() + EVERY_SECONDS
        while True:
            try:
                async with asyncio.timeout_at(due):
                    await self._touch.wait()
            except TimeoutError:
                pass
            else:
                await asyncio.sleep(max(SETTLE_SECONDS, last + LEAST_SECONDS - loop.time()))
                touched, self._touched = self._touched, set()
                self._touch.clear()
                living = any(_a_living(self._watch.pods(name)) for name in touched)
                if not living and loop.time() < due:  # many releases do not keep us from looking in turn
                    continue
            last = loop.time()
            due = last + EVERY_SECONDS
            try:
                await self.mend(isolation)
            except Exception as error:
                if is_passing(error):
                    due = last + min(EVERY_SECONDS, LEAST_SECONDS)
                else:
                    self._log.warning("What stands around clusters could not be looked after: %r", error)

    async def mend(self, isolation: Isolation) -> list[str]:
        """Put in order what is not now; what it was, as kind and name."""
        own: frozenset[Network] = await self._own.read() if isolation.outside else frozenset()
        await self._watch.look()
        # First the nodes, then what should be around them: a policy is always there before its nodes.
        living = {
            pod["metadata"]["labels"][names.CLUSTER]: (pod, owner)
            for pods in self._watch.clusters()
            if (pod := _a_living(pods)) is not None and (owner := _owner(pod)) is not None
        }
        return [
            *await self._policies(living, isolation, own),
            *await self._services(living, isolation),
        ]

    async def _services(
        self, living: Mapping[str, tuple[Pod, manifests.Manifest]], isolation: Isolation
    ) -> list[str]:
        found, _ = await self._api.list("Service", names.RUN, only_metadata=True)
        there = {item["metadata"]["name"] for item in found}
        done = []
        for base, (pod, owner) in living.items():
            if base not in there:
                body = manifests.service(frame_of(pod, self._api.namespace, isolation), owner)
                done += await self._make(body)
        return done

    async def _policies(
        self,
        living: Mapping[str, tuple[Pod, manifests.Manifest]],
        isolation: Isolation,
        own: frozenset[Network],
    ) -> list[str]:
        # All of the namespace: whoever edits one may take its labels away.
        found, _ = await self._api.list("NetworkPolicy", "")
        there = {item["metadata"]["name"]: item for item in found}
        self._written = {name: told for name, told in self._written.items() if name in living}
        done = []
        for number, (base, (pod, owner)) in enumerate(living.items()):
            if number % _TURN == 0:
                await asyncio.sleep(0)  # thousands of clusters, and the hub is one thread
            frame = frame_of(pod, self._api.namespace, isolation)
            wanted = manifests.network_policy(frame, owner, own=own)
            if base not in there:
                done += await self._make(wanted)
            elif not self._is_right(there[base], wanted) and await self._is_there(base, pod):
                done += await self._replace(there[base], wanted)
        return done

    def _is_right(self, there: Mapping[str, Any], wanted: manifests.Manifest) -> bool:
        if not has_marks(there, wanted):
            return False
        if says(there["spec"]) == says(wanted["spec"]):
            return True
        # What the API server made of the very same: it may fill in what we do not know.
        generation = there["metadata"].get("generation")
        return self._written.get(there["metadata"]["name"]) == (generation, wanted["spec"])

    async def _is_there(self, base: str, pod: Pod) -> bool:
        """Whether a pod is there by the API server's own word, since its policy was read."""
        found, _ = await self._api.list("Pod", f"{names.CLUSTER}={base}", only_metadata=True)
        return pod["metadata"]["uid"] in {item["metadata"]["uid"] for item in found}

    async def _make(self, body: manifests.Manifest) -> list[str]:
        try:
            await self._api.create(body)
        except APIError as error:
            if error.status != 409:  # its own start was quicker
                raise
            return []
        what = f"{body['kind']} {body['metadata']['name']}"
        self._log.warning("%s was missing around a running cluster and is put back", what)
        return [what]

    async def _replace(self, there: Mapping[str, Any], wanted: manifests.Manifest) -> list[str]:
        name = wanted["metadata"]["name"]
        try:
            made = await self._api.replace(in_place_of(there, wanted))
        except APIError as error:
            if error.status not in (404, 409):  # another one by now: it is looked at again
                raise
            return []
        self._written[name] = (made["metadata"].get("generation"), wanted["spec"])
        what = f"NetworkPolicy {name}"
        self._log.warning("%s did not say what it has to around a running cluster and is put in order", what)
        return [what]


def frame_of(pod: Pod, namespace: str, isolation: Isolation) -> ClusterFrame:
    """The cluster that a pod is a node of."""
    metadata = pod["metadata"]
    return ClusterFrame(
        user=metadata["annotations"][names.USER],
        server=metadata["annotations"][names.SERVER],
        run=metadata["labels"][names.RUN],
        namespace=namespace,
        isolation=isolation,
        ways=manifests.ways_in(metadata["annotations"]),
    )


def _a_living(pods: Mapping[str, Pod]) -> Pod | None:
    """The living node of the least rank: names are given once, and the head's is taken while it lives."""
    told = (
        (rank, pod)
        for pod in pods.values()
        if {names.USER, names.SERVER} <= (pod["metadata"].get("annotations") or {}).keys()
        and (rank := rank_in(pod["metadata"]["labels"].get(names.RANK, ""))) is not None
        and pod["metadata"]["name"] == names.pod_name(pod["metadata"]["labels"][names.CLUSTER], rank)
        and troubles.ended(pod) is None
    )
    return min(told, key=lambda one: one[0], default=(0, None))[1]


def _owner(pod: Pod) -> manifests.Manifest | None:
    """The Secret of its cluster; ``None`` for what is not made as we make it."""
    metadata = pod["metadata"]
    base = names.base_name(metadata["annotations"][names.USER], metadata["annotations"][names.SERVER])
    owners = metadata.get("ownerReferences") or ()
    ours = (dict(one) for one in owners if one.get("kind") == "Secret" and one.get("name") == base)
    return next(ours, None) if metadata["labels"][names.CLUSTER] == base else None
