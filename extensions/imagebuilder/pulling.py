"""Having the machines of a Kubernetes fetch images: short pods that are given to a machine by name and never run anything.

A pod names the image and a program that no image has. The kubelet fetches the image by the rules and the pull Secrets of
runs, cannot start the program, and says so; not one line of the image is ever executed. The pod goes then. It passes by
the scheduler, asks for nothing, and is in a namespace of its own that admits *restricted* pods alone, where there is
nothing to be mounted and no account worth having. So this service may make pods without being able to make one beside the
hub's Secrets. The agents are not the ones who fetch: for that they would need the runtime's socket, which is root on
their machine. They say one thing, how much room there is on the disk that images are on.

What a machine has is in its own status, as names of images. A kubelet names so many and no more (50 unless told
otherwise, the largest first): where the list is full, what it does not name may be there all the same. Then the pod finds
out: of an image that is there it says so at once, and that is believed for some hours.

A machine's status tells no bytes of a fetch, and neither does this: only since when, and how large the image is.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import httpx

from extensions.imagebuilder.distribution import Room, Sight
from extensions.imagebuilder.pods import AGENT_OF, agent_on, asked
from galilean.errors import UserError, mark
from spawner.kubernetes import names
from spawner.kubernetes.api import PAGE, APIError, KubeAPI

log = logging.getLogger("galilean.imagebuilder")

#: On what is made here: the namespace of the installation, and which image on which machine it is.
IMAGES_OF = "galilean.io/images-of"
PLACE = "galilean.io/image-place"
#: So many images a kubelet names, unless it was told otherwise.
NAMED_MOST = 50
POLL_SECONDS = 1.0
ASK_SECONDS = 10.0
#: No image has it.
NOTHING = "/galilean/is-only-fetched"
_NOBODY = 65534
_SECRET_TYPES = ("kubernetes.io/dockerconfigjson", "kubernetes.io/dockercfg")
_PULLED = (
    "CreateContainerConfigError",
    "CreateContainerError",
    "RunContainerError",
    "PreCreateHookError",
    "PreStartHookError",
    "PostStartHookError",
    "CrashLoopBackOff",
)
_REFUSED = (
    "ErrImagePull",
    "ImagePullBackOff",
    "InvalidImageName",
    "ImageInspectError",
    "ErrImageNeverPull",
    "RegistryUnavailable",
    "SignatureValidationFailed",
)

_FULL = mark("The machine's disk is full.")
_LOGIN = mark(
    "The registry wants a name and password that the machines do not have, or has no such image ({said})."
)
_UNKNOWN = mark("The registry has no such image ({said}).")
_PLAIN = mark(
    "The registry speaks without TLS and the machine asks it with TLS. Give the registry a certificate, or tell the container "
    "runtime of every machine that it has none (in the installation on Kubernetes, “A registry”)."
)
_NO_NAME = mark(
    "The machine does not find the registry by its name. Names of Services are known to pods alone: take one that machines "
    "find, too ({said})."
)
_FAILED = mark("The machine could not fetch it: {said}")
_TURNED_AWAY = mark("The machine takes no pod for it now: {said}")
_GONE = mark("The pod that had the machine fetch it was deleted by somebody.")


# ------------------------------------------------------------------------------------------------------------ rules


def full_name(image: str) -> str:
    """An image's name as a kubelet writes it: with its registry, and a tag where there is no digest."""
    first, slash, _ = image.partition("/")
    if not slash:
        image = f"docker.io/library/{image}"
    elif not ("." in first or ":" in first or first == "localhost"):
        image = f"docker.io/{image}"
    last = image.rpartition("/")[2]
    return image if ":" in last or "@" in last else f"{image}:latest"


def sight_of(node: Mapping[str, Any], images: Collection[str], *, agent: bool) -> Sight:
    """What a machine's status says of images."""
    spec, status = node.get("spec") or {}, node.get("status") or {}
    named = status.get("images") or ()
    there = {name for one in named for name in one.get("names") or ()}
    conditions = {one["type"]: one["status"] for one in status.get("conditions") or ()}
    return Sight(
        machine=node["metadata"]["name"],
        present=frozenset(image for image in images if full_name(image) in there),
        whole=len(named) < NAMED_MOST,
        takes=agent
        and not spec.get("unschedulable")
        and conditions.get("Ready") == "True"
        and conditions.get("DiskPressure") != "True"
        and not node["metadata"].get("deletionTimestamp"),
    )


def pod_for(image: str, machine: str, *, namespace: str, of: str, secrets: Collection[str]) -> dict[str, Any]:
    """The pod that has a machine fetch an image, by the name that this one place always has."""
    place = hashlib.sha256(f"{machine}\n{image}".encode()).hexdigest()[:32]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": f"image-{place}",
            "namespace": namespace,
            "labels": {IMAGES_OF: of, PLACE: place},
            "annotations": {"galilean.io/image": image},
        },
        "spec": {
            "nodeName": machine,
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": 0,
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "tolerations": [{"operator": "Exists"}],
            "imagePullSecrets": [{"name": name} for name in secrets],
            "securityContext": {
                "runAsNonRoot": True,
                "runAsUser": _NOBODY,
                "runAsGroup": _NOBODY,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "containers": [
                {
                    "name": "image",
                    "image": image,
                    "imagePullPolicy": "IfNotPresent",
                    "command": [NOTHING],
                    "terminationMessagePolicy": "File",
                    "securityContext": {
                        "allowPrivilegeEscalation": False,
                        "readOnlyRootFilesystem": True,
                        "capabilities": {"drop": ["ALL"]},
                    },
                }
            ],
        },
    }


@dataclass(frozen=True)
class Verdict:
    """What a pod says of its fetch; nothing yet when it is neither."""

    fetched: bool = False
    error: UserError | None = None


def verdict(pod: Mapping[str, Any]) -> Verdict:
    """Whether a pod's image is there by now, or why it will not be."""
    status = pod.get("status") or {}
    for one in status.get("containerStatuses") or ():
        state = one.get("state") or {}
        waiting = state.get("waiting") or {}
        reason = str(waiting.get("reason") or "")
        if reason in _REFUSED:
            return Verdict(error=refused(str(waiting.get("message") or reason)))
        if one.get("imageID") or reason in _PULLED or state.get("terminated") or state.get("running"):
            return Verdict(fetched=True)
    if status.get("phase") in ("Failed", "Succeeded"):
        said = " ".join(str(status.get(key) or "") for key in ("reason", "message")).strip()
        return Verdict(error=UserError(503, _TURNED_AWAY, reason="turned-away", said=_short(said)))
    return Verdict()


def refused(said: str) -> UserError:
    """A kubelet's words about a fetch, in ours where we have any."""
    folded = said.casefold()
    if "no space left" in folded:
        return UserError(507, _FULL, reason="disk-full")
    if "server gave http response to https client" in folded:
        return UserError(502, _PLAIN, reason="registry-plain")
    if "no such host" in folded:
        return UserError(502, _NO_NAME, reason="registry-name", said=_end(said))
    if "not found" in folded or "manifest unknown" in folded:
        return UserError(404, _UNKNOWN, reason="image-unknown", said=_short(said))
    if any(word in folded for word in ("unauthorized", "forbidden", "denied", "authorization failed")):
        return UserError(403, _LOGIN, reason="image-login", said=_short(said))
    return UserError(502, _FAILED, reason="image-failed", said=_short(said))


def _short(said: str) -> str:
    """For a page: addresses of registries may carry signatures behind a question mark."""
    return re.sub(r"\?[^\s\"']+", "?…", " ".join(said.split()))[:400]


def _end(said: str) -> str:
    """What a chain of errors ends with; before it stands the image's name, three times."""
    return _short(said.rpartition(": dial tcp: ")[2])


def secret_of(found: Mapping[str, Any], *, namespace: str, of: str) -> dict[str, Any] | None:
    """A pull Secret of the installation, for the namespace of these pods; None for any other Secret."""
    if found.get("type") not in _SECRET_TYPES:
        return None
    metadata = {"name": found["metadata"]["name"], "namespace": namespace, "labels": {IMAGES_OF: of}}
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": metadata,
        "type": found["type"],
        "data": dict(found.get("data") or {}),
    }


# --------------------------------------------------------------------------------------------------------- the world


class NodesAPI(KubeAPI):
    """Besides the objects of a namespace the machines, to read."""

    async def machines(self) -> list[dict[str, Any]]:
        """All of them."""
        found: list[dict[str, Any]] = []
        more = ""
        while True:
            query = [("limit", str(PAGE)), *([("continue", more)] if more else [])]
            page = await self._ask("GET", "/api/v1/nodes", query=query)
            found += page["items"] or ()
            more = page["metadata"].get("continue", "")
            if not more:
                return found


class KubeMachines:
    """The machines of a Kubernetes that have an agent; implements :class:`distribution.Machines`.

    Parameters
    ----------
    nodes, agents, images
        The installation's namespace (its pull Secrets), that of its agents, and that of the pods made here.
    secrets
        Names of pull Secrets that runs have, too.
    speak
        A client of an agent by its address, with the key that it wants.
    """

    tidy = True

    def __init__(
        self,
        nodes: KubeAPI,
        agents: KubeAPI,
        images: NodesAPI,
        *,
        secrets: Collection[str] = (),
        speak: Callable[[str, float], httpx.AsyncClient],
    ) -> None:
        self._nodes, self._agents, self._images = nodes, agents, images
        self._secrets, self._speak = tuple(secrets), speak

    async def begin(self) -> None:
        """Take away pods of a service that was killed; what is fetched by then the machines keep."""
        pods, _ = await self._images.list("Pod", self._ours, only_metadata=True)
        for pod in pods:
            await self._images.delete("Pod", pod["metadata"]["name"], grace_seconds=0)

    async def look(self, images: Collection[str]) -> Sequence[Sight]:
        """The machines with an agent, which are those that the centre lets nodes run on."""
        agents = await self._of_agents()
        with_one = {str(pod["spec"].get("nodeName", "")) for pod in agents}
        ready = set()
        for machine in with_one:
            try:
                agent_on(agents, machine)
            except UserError:
                continue
            ready.add(machine)
        return [
            sight_of(node, images, agent=node["metadata"]["name"] in ready)
            for node in await self._images.machines()
            if node["metadata"]["name"] in with_one
        ]

    async def room(self, machine: str) -> Room:
        """As its agent sees the disk of containerd's snapshots."""
        async with self._speak(agent_on(await self._of_agents(), machine), ASK_SECONDS) as agent:
            told = await asked(agent, "GET", "/room")
        return Room(free_bytes=int(told["free_bytes"]), disk_bytes=int(told["disk_bytes"]))

    async def fetch(self, machine: str, image: str, progress: Callable[[int, int], None]) -> None:
        """Have the kubelet fetch it; comes back when it is there.

        Raises
        ------
        UserError
            What the kubelet says.
        """
        await self._bring_secrets()
        body = pod_for(
            image, machine, namespace=self._images.namespace, of=self._nodes.namespace, secrets=self._secrets
        )
        name = body["metadata"]["name"]
        try:
            await self._create(body)
            while True:
                await asyncio.sleep(POLL_SECONDS)
                pods, _ = await self._images.list("Pod", f"{PLACE}={body['metadata']['labels'][PLACE]}")
                if not pods:
                    raise UserError(409, _GONE, reason="pod-gone")
                said = verdict(pods[0])
                if said.error is not None:
                    raise said.error
                if said.fetched:
                    return
        finally:
            await asyncio.shield(self._images.delete("Pod", name, grace_seconds=0))

    async def close(self) -> None:
        """Let go of the connections."""
        for api in (self._nodes, self._agents, self._images):
            await api.close()

    @property
    def _ours(self) -> str:
        return f"{IMAGES_OF}={self._nodes.namespace}"

    async def _of_agents(self) -> list[dict[str, Any]]:
        found, _ = await self._agents.list("Pod", f"{AGENT_OF}={self._nodes.namespace}")
        return found

    async def _create(self, body: Mapping[str, Any]) -> None:
        """An object of ours; one that is there by its name is an older one."""
        try:
            await self._images.create(body)
        except APIError as error:
            if error.status != 409:
                raise
            await self._images.delete(body["kind"], body["metadata"]["name"], grace_seconds=0)
            await self._images.create(body)

    async def _bring_secrets(self) -> None:
        """Have the pull Secrets of runs in the namespace of these pods, as they are now, and no others."""
        if not self._secrets:
            return
        mine, _ = await self._images.list("Secret", self._ours)
        there = {one["metadata"]["name"]: (one.get("type"), one.get("data") or {}) for one in mine}
        wanted = {}
        for name in self._secrets:
            one = await self._nodes.get("Secret", name)
            if one is None or names.RUN in (one["metadata"].get("labels") or {}):  # not there, or a run's own
                continue
            copy = secret_of(one, namespace=self._images.namespace, of=self._nodes.namespace)
            if copy is not None:
                wanted[copy["metadata"]["name"]] = copy
        for name in there.keys() - wanted.keys():
            await self._images.delete("Secret", name)
        for name, copy in wanted.items():
            if there.get(name) != (copy["type"], copy["data"]):
                await self._create(copy)
