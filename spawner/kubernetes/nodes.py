"""Clusters as pods: made together, looked at, removed as a whole.

:class:`PodNodes` knows nothing of the hub, of rows or of rules; :class:`~spawner.kubernetes.cluster.KubeCluster`
glues it to them. One of it serves all clusters of an installation.

Making is Secret, then policy, then Service and all pods at once: nodes + 3 writes. Removing is one DELETE of
the Secret, for the collector does the rest; where there is no Secret any more, by name. Every request is
sent to its end even when its start is cancelled, and a removal first waits for those that are on their
way: so nothing appears after it.

By name goes what the run's Secret owns, and what nothing owns where a node of the run may be: somebody who deletes
a Secret and keeps the rest takes its owner from every pod. What nothing owns under a rank that the run has not was
made by somebody: it is no node, is told of and left alone.
"""

from __future__ import annotations

import asyncio
import base64
import itertools
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, TypeVar

from galilean.errors import mark
from spawner.backend import NodeFailed, NodeLook, NodeProgress
from spawner.keys import ClusterKeys
from spawner.kubernetes import manifests, names, troubles
from spawner.kubernetes.answers import Answers, answered
from spawner.kubernetes.api import REQUEST_SECONDS, APIError, KubeAPI, is_passing
from spawner.kubernetes.mender import Mender
from spawner.kubernetes.own_addresses import Network, OwnAddresses
from spawner.kubernetes.pulls import Pulls
from spawner.kubernetes.spec import ClusterSpec, spec_from
from spawner.kubernetes.watch import Follower, Pod, PodWatch
from spawner.requests import OnTheWay, all_at_once
from spawner.steps import NodeEnd

R = TypeVar("R")

#: How long the collector and the kubelets may take before a removal goes by name, and then by force.
COLLECT_SECONDS = 20.0
FORCE_SECONDS = 40.0
PAUSES_SECONDS = (0.2, 0.5, 1.0, 2.0, 3.0)

_QUOTA = mark("Kubernetes refused the cluster: a quota of the namespace is used up ({why}).")
_NO_RECIPE = mark(
    "Node {rank} was made by an older version, which did not write down from what. Release the cluster and run it again."
)
_KUEUE = mark(
    "Nodes of this cluster were admitted together by Kueue and cannot be made anew singly. Release the cluster and run "
    "it again."
)
_NOT_SEEN = mark(
    "The hub may not read the addresses of Kubernetes itself, and nodes must not reach them. An administrator must let it "
    "(“Rights in Kubernetes”), or close the outside (kubernetes.network.outside). Kubernetes says: {why}"
)
_GONE = mark("Node {rank} was removed from outside before it answered ({how}).")


class PodNodes:
    """The nodes of all clusters of one namespace.

    Parameters
    ----------
    api
        The namespace.
    watch
        What is known of its pods.
    ask
        Waits until the node at an address answers; ``False`` = it cannot be reached from here.
    log
        Told of what goes unusual ways.
    """

    def __init__(
        self,
        api: KubeAPI,
        watch: PodWatch,
        *,
        ask: Callable[[str], Awaitable[bool]] = answered,
        log: logging.Logger | None = None,
    ) -> None:
        self._api = api
        self.watch = watch
        self._ask = ask
        self._own = OwnAddresses(api)
        self.mender = Mender(api, watch, self._own, log=log)
        self._log = log or logging.getLogger(__name__)
        self._on_the_way = OnTheWay()

    @property
    def namespace(self) -> str:
        return self._api.namespace

    def addresses(self) -> list[str]:
        """Where the API server, all clusters' nodes and the machines that carry them are."""
        found = set(self._api.servers())
        for pods in self.watch.clusters():
            for pod in pods.values():
                status = pod.get("status") or {}
                found |= {status[key] for key in ("podIP", "hostIP") if status.get(key)}
        return sorted(found)

    def __deepcopy__(self, memo: Any) -> PodNodes:
        return self  # traitlets copies what is configured; connections must not be

    # -------------------------------------------------------------------------------------------- making

    async def create(self, spec: ClusterSpec, progress: NodeProgress) -> None:
        """Make all nodes; come back when every one answers.

        What is left of an older life under the same name is removed first. Cancelled, it lets go at once.

        Raises
        ------
        NodeFailed
            As soon as one node cannot be, or a quota forbids it.
        APIError
            When the API server refuses for another reason.
        """
        await self._insist(spec.base, self.watch.look)
        if any(_is_node(spec.base, pod, spec.nodes) for pod in self.watch.pods(spec.base).values()):
            await self._insist(spec.base, lambda: self.remove(spec.base, nodes=spec.nodes, wholly=True))
        own = await self._own_addresses(spec)
        with self.watch.follow(spec.base) as follower:
            owner = manifests.owner_reference(await self._make_secret(spec))
            await self._fresh(spec.base, manifests.network_policy(spec, owner, own=own))
            pods = [manifests.pod(spec, rank, owner) for rank in range(spec.nodes)]
            _, *uids = await all_at_once(
                self._fresh(spec.base, body) for body in [manifests.service(spec, owner), *pods]
            )
            await self._until_ready(spec, dict(enumerate(uids)), follower, progress)

    async def _own_addresses(self, spec: ClusterSpec) -> frozenset[Network]:
        if not spec.isolation.outside:
            return frozenset()
        try:
            return await self._insist(spec.base, self._own.known)
        except APIError as error:
            if error.status == 403:
                raise NodeFailed(0, _NOT_SEEN, why=error.message[:300]) from error
            raise

    async def make_claims(self, base: str, bodies: Iterable[Mapping[str, Any]]) -> None:
        """Make the claims of disks that are not there yet, asking again while the API server is away.

        Raises
        ------
        NodeFailed, APIError
            When a quota of the namespace or a right forbids it.
        """
        for body in bodies:
            try:
                await self._create(base, body)
            except APIError as error:
                if error.status != 409:
                    raise

    async def _make_secret(self, spec: ClusterSpec) -> Mapping[str, Any]:
        body = manifests.secret(spec, ClusterKeys.new())
        tries = itertools.count()
        while True:
            try:
                return await self._create(spec.base, body)
            except APIError as error:
                if error.status != 409:
                    raise
            # An older life, one that is being collected, or a request of ours whose answer was lost.
            await self._insist(spec.base, lambda: self.remove(spec.base, nodes=spec.nodes, wholly=True))
            await asyncio.sleep(_pause(next(tries)))

    async def _fresh(self, base: str, body: Mapping[str, Any]) -> str:
        """Create an object; its uid. One of this name that the run does not own is a leftover, and goes first."""
        kind, name = body["kind"], body["metadata"]["name"]
        tries = itertools.count()
        while True:
            try:
                return (await self._create(base, body))["metadata"]["uid"]
            except APIError as error:
                if error.status != 409:
                    raise
            there = await self._insist(base, lambda: self._is_there(body))
            if there:
                return there
            self._log.info("%s: a leftover %s is removed first", name, kind)
            await self._insist(base, lambda: self._on_the_way.send(base, self._api.delete(kind, name)))
            await asyncio.sleep(_pause(next(tries)))

    async def _is_there(self, body: Mapping[str, Any]) -> str:
        """The uid of an object that is there as it was asked for, by a request whose answer was lost; or empty."""
        asked = body["metadata"]
        found, _ = await self._api.list(
            body["kind"], f"{names.RUN}={asked['labels'][names.RUN]}", only_metadata=True
        )
        owners = {owner["uid"] for owner in asked["ownerReferences"]}
        for item in (item["metadata"] for item in found):
            theirs = {owner["uid"] for owner in item.get("ownerReferences") or ()}
            if item["name"] == asked["name"] and owners & theirs and "deletionTimestamp" not in item:
                return item["uid"]
        return ""

    async def _create(self, base: str, body: Mapping[str, Any]) -> Mapping[str, Any]:
        """Create an object, asking again while the API server is away or busy."""
        try:
            return await self._insist(base, lambda: self._on_the_way.send(base, self._api.create(body)))
        except APIError as error:
            if error.status == 403 and "exceeded quota" in error.message:
                why = error.message.partition("exceeded quota:")[2].strip()
                raise NodeFailed(0, _QUOTA, why=why[:300]) from error
            raise

    async def _insist(self, base: str, ask: Callable[[], Awaitable[R]]) -> R:
        """Ask again as long as it may help; the limit is the caller's."""
        tries = itertools.count()
        while True:
            try:
                return await ask()
            except Exception as error:
                if not is_passing(error):
                    raise
                pause = max(_pause(next(tries)), min(getattr(error, "retry_after", 0.0), 5.0))
                self._log.warning("%s: the API server is away or busy, again in %s s: %r", base, pause, error)
            await asyncio.sleep(pause)

    async def _until_ready(
        self, spec: ClusterSpec, uids: Mapping[int, str], follower: Follower, progress: NodeProgress
    ) -> None:
        """Wait for these pods, by rank; the watch may still tell of an older one of the same name."""
        waiting = set(uids)
        told: dict[str, troubles.Trouble] = {}
        answers = Answers(self._ask, follower.tell)
        pulls = Pulls(self._api, follower.tell, log=self._log)
        try:
            while True:
                for rank in sorted(waiting):
                    name = names.pod_name(spec.base, rank)
                    pod, last = follower.pods.get(name), follower.last.get(name)
                    if pod is not None and pod["metadata"]["uid"] == uids[rank]:
                        if troubles.is_up(pod):
                            pulls.over(rank)
                        elif troubles.is_placed(pod):
                            pulls.want(rank, uids[rank])
                        if troubles.is_up(pod) and not troubles.is_ready(pod):
                            prefix = manifests.node_prefix(spec.prefix, rank)
                            answers.want(rank, f"{troubles.url(pod)}{prefix}api")
                        image, seen = pulls.image(rank), rank in answers
                        if self._report(pod, rank, progress, told, answers=seen, pulls=image):
                            waiting.discard(rank)
                    elif last is not None and last["metadata"]["uid"] == uids[rank] and self.watch.current:
                        how = (troubles.ended(last) or troubles.Ended("deleted")).reason
                        raise NodeFailed(rank, _GONE, how=how)
                if not waiting:
                    return
                await follower.changed()
        finally:
            answers.close()
            pulls.close()

    @staticmethod
    def _report(
        pod: Pod,
        rank: int,
        progress: NodeProgress,
        told: dict[str, troubles.Trouble],
        *,
        answers: bool,
        pulls: str = "",
    ) -> bool:
        """Tell what is new of a pod; whether it answers, as the hub or the kubelet asked it. ``pulls``: an image."""
        if troubles.is_placed(pod):
            progress.placed(rank, host=troubles.machine(pod))
        if troubles.is_ready(pod) or (answers and troubles.is_up(pod)):
            progress.ready(rank, url=troubles.url(pod), host=troubles.machine(pod))
            return True
        name = pod["metadata"]["name"]
        trouble = troubles.trouble(pod, told.get(name))
        if trouble is None and pulls and name not in told:
            trouble = troubles.Trouble(troubles.PULLING, {"image": pulls})
        if trouble is not None and trouble.final:
            raise NodeFailed(rank, trouble.message, **trouble.params)
        if trouble is not None and told.get(name) != trouble:
            told[name] = trouble
            progress.trouble(rank, trouble.message, **trouble.params)
        return False

    # ------------------------------------------------------------------------------- one node of a cluster

    async def check(self, base: str, run: str, rank: int) -> None:
        """Whether a node can be made again.

        Raises
        ------
        NodeFailed
            When nobody wrote down what it was made from, or Kueue admitted the cluster as a whole.
        """
        spec, _, _ = await self._recipe(base, run, rank)
        if spec.placement.queue:
            raise NodeFailed(rank, _KUEUE)

    async def end(self, base: str, run: str, rank: int) -> NodeEnd | None:
        """Delete a node's pod and come back when it is gone; how it ended, ``None`` when there was none.

        Raises
        ------
        Exception
            When it cannot be sure that it is gone.
        """
        await self._on_the_way.landed(base, seconds=REQUEST_SECONDS + 1)
        await self.watch.look()
        name = names.pod_name(base, rank)
        with self.watch.follow(base) as follower:
            before = follower.pods.get(name)
            was_over = before is not None and troubles.is_over(before)
            loop = asyncio.get_running_loop()
            begun = loop.time()
            await self._insist(base, lambda: self._api.delete("Pod", name))
            forced = False
            while name in {pod["metadata"]["name"] for pod in await self._left(base)}:
                if not forced and loop.time() - begun > FORCE_SECONDS:
                    forced = True  # its machine does not answer: nobody else can say that it is gone
                    self._log.warning("%s does not end; it is removed by force", name)
                    await self._insist(base, lambda: self._api.delete("Pod", name, grace_seconds=0))
                await _within(follower.changed(), 1)
            pod = follower.last.get(name)
            if pod is None or _label(pod, names.RUN) != run:
                return None
            end = troubles.ended(pod)
            if was_over:
                return NodeEnd(
                    at=end.at if end is not None else None,
                    exit_reason=(end.reason if end is not None else "") or "ended",
                )
            return NodeEnd(at=(end.at if end is not None else None) or datetime.now(UTC))

    async def make(self, base: str, run: str, rank: int, progress: NodeProgress) -> None:
        """Make a node's pod again; come back when it answers.

        Raises
        ------
        NodeFailed
            When it cannot be.
        """
        spec, owner, keys = await self._recipe(base, run, rank)
        body = manifests.pod(spec, rank, owner, vnc_key=manifests.VNC_KEY in keys)
        with self.watch.follow(base) as follower:
            uid = await self._fresh(base, body)
            await self._until_ready(spec, {rank: uid}, follower, progress)

    async def _recipe(
        self, base: str, run: str, rank: int
    ) -> tuple[ClusterSpec, manifests.Manifest, frozenset[str]]:
        """What the pods of a run were made from, the Secret that owns them, and that Secret's keys."""
        found, _ = await self._insist(base, lambda: self._api.list("Secret", f"{names.RUN}={run}"))
        for item in found:
            if item["metadata"]["name"] == base:
                try:
                    recipe = base64.b64decode(item["data"][manifests.RECIPE_KEY]).decode()
                    return spec_from(recipe), manifests.owner_reference(item), frozenset(item["data"])
                except (KeyError, ValueError, TypeError) as error:
                    raise NodeFailed(rank, _NO_RECIPE) from error
        raise NodeFailed(rank, _NO_RECIPE)

    # ------------------------------------------------------------------------------------------- looking

    async def look(self, base: str, run: str, nodes: int | None = None) -> dict[int, NodeLook]:
        """The nodes of a run by rank, as the watch knows them while it can be believed.

        ``nodes`` is how many it has; ``None`` = not known.

        Raises
        ------
        Exception
            When it cannot look.
        """
        await self.watch.look()
        gone = [(pod, troubles.ended(pod) or troubles.Ended("deleted")) for pod in self.watch.gone(base)]
        here = [(pod, troubles.ended(pod)) for pod in self.watch.pods(base).values()]
        found: dict[int, NodeLook] = {}
        for pod, end in [*gone, *here]:
            if _label(pod, names.RUN) == run and _is_node(base, pod, nodes):
                found[_rank(base, pod)] = (
                    NodeLook(alive=True)
                    if end is None
                    else NodeLook(alive=False, ended_at=end.at, exit_reason=end.reason)
                )
        return found

    # ------------------------------------------------------------------------------------------ removing

    async def remove(
        self, base: str, *, nodes: int | None = None, wholly: bool = False
    ) -> dict[int, NodeEnd]:
        """Remove everything under a base name, whichever run made it; how its nodes ended, by rank.

        ``nodes`` is how many there may be; ``None`` = not known.

        It is done when nothing runs any more and all that is left is being deleted: a kubelet puts an ended
        node away a second or two later, when it next looks. ``wholly`` waits for that, too.

        Raises
        ------
        Exception
            When it cannot be sure that nothing is left; to be called again.
        """
        await self._on_the_way.landed(base, seconds=REQUEST_SECONDS + 1)
        await self.watch.look()
        with self.watch.follow(base) as follower:
            over = {name for name, pod in follower.pods.items() if troubles.is_over(pod)}
            others = [name for name, pod in follower.pods.items() if not _is_node(base, pod, nodes)]
            if others:
                self._log.warning(
                    "Pods that are called like nodes of %s and are none are left alone: %s",
                    base, ", ".join(sorted(others)[:20]),
                )  # fmt: skip
            # Asked again in here: whoever begins anew has not seen how the nodes ended.
            owned = await self._insist(base, lambda: self._api.delete("Secret", base))
            if not owned:
                await self._by_name(base, nodes)
            gone_at = await self._until_nothing(base, nodes, follower, wholly)
            return _ends(base, _nodes(base, follower.last, nodes), over, gone_at)

    async def _until_nothing(
        self, base: str, nodes: int | None, follower: Follower, wholly: bool
    ) -> dict[str, datetime]:
        """Wait until no pod of the cluster runs, or is there; when each was seen to have ended."""
        gone_at: dict[str, datetime] = {}
        loop = asyncio.get_running_loop()
        begun = loop.time()
        by_name = doubtful = False
        while True:
            now = datetime.now(UTC)
            here = _nodes(base, follower.pods, nodes)
            ended = set() if wholly else {name for name, pod in here.items() if troubles.is_put_away(pod)}
            for name in follower.last:
                if name not in here or name in ended:
                    gone_at.setdefault(name, now)
            if doubtful or not here.keys() - ended:
                left = await self._left(base, nodes)
                if not {pod["metadata"]["uid"] for pod in left} - _uids(here, ended):
                    return {name: gone_at.get(name, now) for name in follower.last}
            late = loop.time() - begun
            if late > COLLECT_SECONDS and not by_name:
                by_name = True
                self._log.warning("%s: the collector is late; its objects are removed by name", base)
                await self._by_name(base, nodes)
            if late > FORCE_SECONDS:
                # Their machine does not answer: nobody else can say that they are gone.
                self._log.warning("%s: its pods do not end; they are removed by force", base)
                await self._by_name(base, nodes, grace_seconds=0)
            doubtful = not await _within(follower.changed(), 5 if here else 1)

    async def _left(self, base: str, nodes: int | None = None) -> list[dict[str, Any]]:
        """The cluster's nodes by the API server's own word: the watch may be a moment behind."""
        found, _ = await self._insist(
            base, lambda: self._api.list("Pod", f"{names.CLUSTER}={base}", only_metadata=True)
        )
        return [pod for pod in found if _is_node(base, pod, nodes)]

    async def _by_name(self, base: str, nodes: int | None, grace_seconds: int | None = None) -> None:
        def delete(kind: str, name: str, grace: int | None = None) -> Awaitable[bool]:
            return self._insist(base, lambda: self._api.delete(kind, name, grace_seconds=grace))

        pods = [pod["metadata"]["name"] for pod in await self._left(base, nodes)]
        await all_at_once(
            [
                delete("NetworkPolicy", base),
                delete("Service", base),
                *(delete("Pod", name, grace_seconds) for name in pods),
            ]
        )


def _is_node(base: str, pod: Pod, nodes: int | None) -> bool:
    """Whether a pod is a node of the cluster, which may have lost its owner, and not somebody's pod of such a name."""
    rank = names.rank_of(base, pod["metadata"]["name"])
    if rank is None:
        return False
    owners = pod["metadata"].get("ownerReferences") or ()
    if owners:
        return any(owner.get("kind") == "Secret" and owner.get("name") == base for owner in owners)
    return nodes is None or rank < nodes


def _nodes(base: str, pods: Mapping[str, Pod], nodes: int | None) -> dict[str, Pod]:
    return {name: pod for name, pod in pods.items() if _is_node(base, pod, nodes)}


def _pause(tries: int) -> float:
    return PAUSES_SECONDS[min(tries, len(PAUSES_SECONDS) - 1)]


async def _within(event: Any, seconds: float) -> bool:
    """Whether something came within some seconds."""
    try:
        async with asyncio.timeout(seconds):
            await event
    except TimeoutError:
        return False
    return True


def _ends(
    base: str, last: Mapping[str, Pod], over: set[str], gone_at: Mapping[str, datetime]
) -> dict[int, NodeEnd]:
    """How nodes ended: what was over before by its own word, the others now, as they were released."""
    ends: dict[int, NodeEnd] = {}
    for name, pod in last.items():
        end = troubles.ended(pod)
        at = end.at if end is not None else None
        if name in over:
            ends[_rank(base, pod)] = NodeEnd(at=at, exit_reason=end.reason if end is not None else "")
        else:
            ends[_rank(base, pod)] = NodeEnd(at=at or gone_at.get(name), exit_reason="released")
    return ends


def _uids(pods: Mapping[str, Pod], of: set[str]) -> set[str]:
    return {pods[name]["metadata"]["uid"] for name in of if name in pods}


def _label(pod: Pod, name: str) -> str:
    return (pod["metadata"].get("labels") or {}).get(name, "")


def _rank(base: str, pod: Pod) -> int:
    return names.rank_of(base, pod["metadata"]["name"]) or 0
