"""What stands around running nodes is put back when somebody takes it away: the policy and the Service.

Nodes go on without them, and nothing else notices: without its policy a cluster is open to everybody's
nodes, without its Service nodes have no names. Once a minute both are compared with the living pods; what
is missing is made anew from the labels and annotations of a pod, owned by the Secret that owns the pod.
So nothing of it outlives the cluster, whenever that ends meanwhile.
"""

from __future__ import annotations

import asyncio
import logging

from spawner.kubernetes import manifests, names, troubles
from spawner.kubernetes.api import APIError, KubeAPI, is_passing
from spawner.kubernetes.spec import ClusterFrame, Isolation
from spawner.kubernetes.watch import Pod, PodWatch

EVERY_SECONDS = 60.0


class Mender:
    """Puts back what is missing around the clusters of one namespace.

    Parameters
    ----------
    api
        The namespace.
    watch
        What is known of its pods.
    log
        Told of what is put back.
    """

    def __init__(self, api: KubeAPI, watch: PodWatch, *, log: logging.Logger | None = None) -> None:
        self._api = api
        self._watch = watch
        self._log = log or logging.getLogger(__name__)
        self._task: asyncio.Task[None] | None = None

    def start(self, isolation: Isolation) -> None:
        """Look from now on, again and again; called again it costs nothing."""
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._run(isolation))

    async def stop(self) -> None:
        """Look no more."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})

    async def _run(self, isolation: Isolation) -> None:
        while True:
            await asyncio.sleep(EVERY_SECONDS)
            try:
                await self.mend(isolation)
            except Exception as error:
                if not is_passing(error):
                    self._log.warning("What stands around clusters could not be looked after: %r", error)

    async def mend(self, isolation: Isolation) -> list[str]:
        """Put back what is missing now; what it was, as kind and name."""
        await self._watch.look()
        # First the nodes, then what should be around them: a policy is always there before its nodes.
        living = [pod for pods in self._watch.clusters() if (pod := _a_living(pods)) is not None]
        missing = []
        for kind, make in (("NetworkPolicy", manifests.network_policy), ("Service", manifests.service)):
            found, _ = await self._api.list(kind, names.RUN, only_metadata=True)
            there = {item["metadata"]["name"] for item in found}
            for pod in living:
                if pod["metadata"]["labels"][names.CLUSTER] in there:
                    continue  # thousands of clusters, and the hub is one thread
                owner = _owner(pod)
                if owner is not None:
                    missing.append(make(frame_of(pod, self._api.namespace, isolation), owner))
        done = []
        for body in missing:
            try:
                await self._api.create(body)
            except APIError as error:
                if error.status != 409:  # its own start was quicker
                    raise
                continue
            done.append(f"{body['kind']} {body['metadata']['name']}")
            self._log.warning("%s was missing around a running cluster and is put back", done[-1])
        return done


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


def _a_living(pods: dict[str, Pod]) -> Pod | None:
    told = (
        pod
        for pod in pods.values()
        if {names.USER, names.SERVER} <= (pod["metadata"].get("annotations") or {}).keys()
    )
    return next((pod for pod in told if troubles.ended(pod) is None), None)


def _owner(pod: Pod) -> manifests.Manifest | None:
    """The Secret of its cluster; ``None`` for what is not made as we make it."""
    metadata = pod["metadata"]
    base = names.base_name(metadata["annotations"][names.USER], metadata["annotations"][names.SERVER])
    owners = metadata.get("ownerReferences") or ()
    ours = (dict(one) for one in owners if one.get("kind") == "Secret" and one.get("name") == base)
    return next(ours, None) if metadata["labels"][names.CLUSTER] == base else None
