"""Kubernetes' machines: its nodes, which we never call so.

What it needs of the API server is little, and all of it is named in the docs: nodes get, list, patch, delete;
pods of our own namespaces list, and their eviction; what kubelets measure, for counting others; to add machines also to create Secrets in ``kube-system``
(a role of its own, only where that is switched on). Other namespaces' pods are not looked at: whoever takes
a machine out for good drains those with kubectl, or lets the controller collect them when it is removed.

Joining is kubeadm's way: a bootstrap token that lives for minutes, and the hash of the cluster's CA, so that
the machine knows whom it joins. The token is made, put into one command, and forgotten here.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import secrets
import string
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote

import yaml
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509 import load_pem_x509_certificates

from galilean.amounts import quantity
from galilean.errors import UserError, mark
from services.machines.contents import Contents, Others, details_of, others_in, pod_of
from services.machines.rules import CONTROL_PLANE, Amounts, Machine
from services.machines.world import Ticket, View, cannot
from spawner.kubernetes.api import PAGE, REQUEST_SECONDS, APIError, KubeAPI
from spawner.kubernetes.names import RUN
from spawner.kubernetes.use import Source, pods_named

log = logging.getLogger("galilean.machines")
KUBELET_SECONDS = 5.0
_ONLY_METADATA = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
_MERGE = {"Content-Type": "application/merge-patch+json"}
_TROUBLES = {
    "DiskPressure": "disk",
    "MemoryPressure": "memory",
    "PIDPressure": "processes",
    "NetworkUnavailable": "network",
}
#: The group that kubeadm's own role bindings are made for.
_JOINERS = "system:bootstrappers:kubeadm:default-node-token"


def amounts_of(resources: Mapping[str, str]) -> Amounts:
    """CPU and memory of a set of resources."""
    return Amounts(
        cpu_millicores=int(quantity(resources.get("cpu", "0")) * 1000),
        memory_bytes=int(quantity(resources.get("memory", "0"))),
    )


def machine_of(node: Mapping[str, Any], gpu_resources: Collection[str]) -> Machine:
    """A machine from the API server's words."""
    metadata, spec, status = node["metadata"], node.get("spec") or {}, node.get("status") or {}
    conditions = {item["type"]: item for item in status.get("conditions") or ()}
    ready = conditions.get("Ready", {})
    given, whole = status.get("allocatable") or {}, status.get("capacity") or {}
    can_give, has = amounts_of(given), amounts_of(whole)
    labels = dict(metadata.get("labels") or {})
    addresses = {item["type"]: item["address"] for item in status.get("addresses") or ()}
    return Machine(
        name=metadata["name"],
        ready=ready.get("status") == "True",
        problem=_problem(ready, conditions),
        cordoned=bool(spec.get("unschedulable")),
        control_plane=CONTROL_PLANE in labels,
        labels=labels,
        taints=tuple(dict(taint) for taint in spec.get("taints") or ()),
        cpu_millicores=can_give.cpu_millicores,
        memory_bytes=can_give.memory_bytes,
        gpu={
            name: int(quantity(number))
            for name, number in sorted(given.items())
            if name in gpu_resources and quantity(number) > 0
        },
        cpu_capacity_millicores=has.cpu_millicores,
        memory_capacity_bytes=has.memory_bytes,
        address=addresses.get("InternalIP", ""),
        version=(status.get("nodeInfo") or {}).get("kubeletVersion", ""),
        heartbeat_at=_moment(ready.get("lastHeartbeatTime")),
        joined_at=_moment(metadata.get("creationTimestamp")),
    )


def _problem(ready: Mapping[str, Any], conditions: Mapping[str, Mapping[str, Any]]) -> str:
    if ready.get("status") in (None, "Unknown"):
        return "silent"
    for kind, word in _TROUBLES.items():
        if conditions.get(kind, {}).get("status") == "True":
            return word
    return "" if ready["status"] == "True" else "not-ready"


def _moment(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text.replace("Z", "+00:00")) if text else None


def movable(pod: Mapping[str, Any]) -> bool:
    """Whether a pod that is no node of a run has to go before its machine can: what a drain moves."""
    metadata = pod["metadata"]
    owners = {owner.get("kind") for owner in metadata.get("ownerReferences") or ()}
    return not (
        "DaemonSet" in owners
        or "kubernetes.io/config.mirror" in (metadata.get("annotations") or {})
        or _over(pod)
    )


def _lost(pod: Mapping[str, Any], working: Collection[str], place: str) -> bool:
    """Whether a pod was told to end on a machine that can no longer say that it has."""
    return place not in working and bool(pod["metadata"].get("deletionTimestamp"))


def _over(pod: Mapping[str, Any]) -> bool:
    return (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed")


def asks(pod: Mapping[str, Any]) -> Amounts:
    """What a pod's containers ask for together."""
    total = Amounts()
    for container in pod["spec"].get("containers") or ():
        total += amounts_of((container.get("resources") or {}).get("requests") or {})
    return total


def ca_hash(pem: bytes) -> str:
    """The hash of a CA's public key, as kubeadm wants it: ``sha256:…``."""
    key = load_pem_x509_certificates(pem)[0].public_key()
    return (
        "sha256:"
        + hashlib.sha256(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).hexdigest()
    )


def token_secret(token_id: str, token: str, *, name: str, expires_at: datetime) -> dict[str, Any]:
    """The Secret that is a bootstrap token."""
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": f"bootstrap-token-{token_id}", "namespace": "kube-system"},
        "type": "bootstrap.kubernetes.io/token",
        "stringData": {
            "token-id": token_id,
            "token-secret": token,
            "description": f"Galilean: for the machine {name} to join",
            "expiration": expires_at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "usage-bootstrap-authentication": "true",
            "usage-bootstrap-signing": "true",
            "auth-extra-groups": _JOINERS,
        },
    }


class MachineAPI(KubeAPI):
    """The API server's verbs for machines, besides those for the objects of our namespace."""

    async def machines(self) -> list[dict[str, Any]]:
        """All of them."""
        return await self._all("/api/v1/nodes")

    async def pods(self, *, labels: str = "", machine: str = "", only_metadata: bool = False) -> list[Any]:
        """Pods of our namespace, by label or by the machine that they are on."""
        query = [("labelSelector", labels)] if labels else []
        if machine:
            query.append(("fieldSelector", f"spec.nodeName={machine}"))
        return await self._all(self._path("Pod"), query, only_metadata=only_metadata)

    async def _all(
        self, path: str, query: Sequence[tuple[str, str]] = (), *, only_metadata: bool = False
    ) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        more = ""
        headers = {"Accept": _ONLY_METADATA} if only_metadata else None
        while True:
            asked = [*query, ("limit", str(PAGE)), *([("continue", more)] if more else [])]
            page = await self._ask("GET", path, query=asked, headers=headers)
            found += page["items"] or ()
            more = page["metadata"].get("continue", "")
            if not more:
                return found

    async def machine(self, name: str) -> dict[str, Any]:
        return await self._ask("GET", f"/api/v1/nodes/{name}")

    async def change(self, name: str, patch: Mapping[str, Any]) -> None:
        """Merge into a machine's object."""
        await self._ask("PATCH", f"/api/v1/nodes/{name}", body=patch, headers=dict(_MERGE))

    async def remove_machine(self, name: str) -> None:
        """Take it out; gone already is success."""
        try:
            await self._ask("DELETE", f"/api/v1/nodes/{name}", body={})
        except APIError as error:
            if error.status != 404:
                raise

    async def evict(self, pod: str) -> None:
        """Ask a pod to go elsewhere; gone already is success.

        Raises
        ------
        APIError
            429 when a disruption budget forbids it now.
        """
        body = {
            "apiVersion": "policy/v1",
            "kind": "Eviction",
            "metadata": {"name": pod, "namespace": self.namespace},
        }
        try:
            await self._ask("POST", f"{self._path('Pod')}/{pod}/eviction", body=body)
        except APIError as error:
            if error.status != 404:
                raise

    async def make_secret(self, body: Mapping[str, Any]) -> None:
        """Create a Secret in the namespace that it names."""
        await self._ask("POST", f"/api/v1/namespaces/{body['metadata']['namespace']}/secrets", body=body)

    async def cluster_info(self) -> dict[str, Any]:
        """What kubeadm publishes for those who join: a kubeconfig without a user; empty when there is none.

        Asked without our account: kubeadm lets those read it who have none.
        """
        path = "/api/v1/namespaces/kube-public/configmaps/cluster-info"
        try:
            found = await self._ask("GET", path, anonymous=True)
        except APIError as error:
            if error.status in (401, 403, 404):
                return {}
            raise
        return yaml.safe_load((found.get("data") or {}).get("kubeconfig", "")) or {}

    async def _send(self, method: str, path: str, *, anonymous: bool = False, **more: Any) -> Any:
        if not anonymous:
            return await super()._send(method, path, **more)
        if self._client is None:
            self._client = self._make()
        return await self._client.call_api(
            path,
            method,
            header_params={"Accept": "application/json"},
            auth_settings=[],
            _preload_content=False,
            _request_timeout=REQUEST_SECONDS,
        )


class KubeMachines:
    """Implements :class:`services.machines.world.World` for a Kubernetes.

    Parameters
    ----------
    api
        Our namespace and the machines.
    gpu_resources
        Extended resources that are GPU cards.
    adds
        Whether machines can be added from here.
    server
        ``host:port`` at which machines that join reach the API server; empty = as the cluster says.
    command
        How a machine joins; ``{server}``, ``{token}``, ``{ca_hash}`` and ``{name}`` are filled in.
    ca
        The cluster's CA certificate, PEM.
    choose
        Randomness: a text of so many characters, small letters and digits.
    beside
        The installation's other namespaces.
    figures
        Where kubelets are asked what they measure; None = nowhere.
    """

    def __init__(
        self,
        api: MachineAPI,
        *,
        gpu_resources: Collection[str] = (),
        adds: bool = False,
        server: str = "",
        command: str = "",
        ca: Callable[[], bytes] = lambda: b"",
        choose: Callable[[int], str] | None = None,
        beside: Sequence[MachineAPI] = (),
        figures: Source | None = None,
    ) -> None:
        self._api = api
        self._beside, self._figures = tuple(beside), figures
        self._gpu_resources = frozenset(gpu_resources)
        self._adds, self._server, self._command, self._ca = adds, server, command, ca
        self._choose = choose or _letters

    async def look(self, watched: Collection[str] = ()) -> View:
        """See :class:`services.machines.world.World`."""
        machines = [machine_of(node, self._gpu_resources) for node in await self._api.machines()]
        working = {machine.name for machine in machines if machine.ready}
        ours = await self._api.pods(labels=f"!{RUN}")
        others: dict[str, Amounts] = {}
        number: dict[str, int] = {}
        occupied: set[str] = set()
        runs: dict[str, frozenset[str]] = {}
        for pod in ours:
            place = pod["spec"].get("nodeName", "")
            if not place or _over(pod):
                continue
            others[place] = others.get(place, Amounts()) + asks(pod)
            number[place] = number.get(place, 0) + 1
            if place in watched and movable(pod) and not _lost(pod, working, place):
                occupied.add(place)
        for name in watched:
            nodes = await self._api.pods(labels=RUN, machine=name, only_metadata=True)
            there = [pod for pod in nodes if not _lost(pod, working, name)]
            runs[name] = frozenset(pod["metadata"]["labels"][RUN] for pod in there)
            if there:
                occupied.add(name)
        return View(
            machines=tuple(
                replace(machine, other=others[machine.name], other_pods=number[machine.name])
                if machine.name in others
                else machine
                for machine in machines
            ),
            occupied=frozenset(occupied),
            runs=runs,
        )

    async def cordon(self, name: str, cordoned: bool) -> None:
        await self._api.change(name, {"spec": {"unschedulable": True if cordoned else None}})

    async def label(self, name: str, labels: Mapping[str, str]) -> None:
        await self._api.change(name, {"metadata": {"labels": dict(labels)}})

    async def reserve(self, name: str, reserved: bool) -> None:
        node = await self._api.machine(name)
        taints = [taint for taint in (node["spec"].get("taints") or []) if taint.get("key") != CONTROL_PLANE]
        if reserved:
            taints.append({"key": CONTROL_PLANE, "effect": "NoSchedule"})
        # With the version that was read: whoever tainted it meanwhile is not overwritten.
        version = node["metadata"]["resourceVersion"]
        await self._api.change(
            name, {"metadata": {"resourceVersion": version}, "spec": {"taints": taints or None}}
        )

    async def move_others(self, name: str, *, spare: Collection[str] = ()) -> None:
        held_up: APIError | None = None
        pods = await self._api.pods(machine=name)
        for pod in pods:
            if (pod["metadata"].get("labels") or {}).get(RUN) in spare:
                continue
            if not movable(pod) or pod["metadata"].get("deletionTimestamp"):
                continue
            try:
                await self._api.evict(pod["metadata"]["name"])
            except APIError as error:
                held_up = error
        if held_up is not None:
            raise held_up

    async def remove(self, name: str) -> None:
        await self._api.remove_machine(name)

    async def ticket(self, name: str, *, now: datetime, minutes: int) -> Ticket:
        """See :class:`services.machines.world.World`."""
        if not self._adds:
            raise cannot()
        server = self._server or await self._published_server()
        if not server:
            raise UserError(
                503,
                mark(
                    "It is not known where machines reach the API server. Say it in the settings: "
                    "machines.api_server."
                ),
            )
        expires_at = now + timedelta(minutes=minutes)
        token_id, token = self._choose(6), self._choose(16)
        await self._api.make_secret(token_secret(token_id, token, name=name, expires_at=expires_at))
        command = self._command.format(
            server=server, token=f"{token_id}.{token}", ca_hash=ca_hash(self._ca()), name=name
        )
        return Ticket(command=command, expires_at=expires_at)

    async def _published_server(self) -> str:
        clusters = (await self._api.cluster_info()).get("clusters") or []
        url = str(clusters[0]["cluster"]["server"]) if clusters else ""
        return url.removeprefix("https://").rstrip("/")

    @property
    def namespaces(self) -> tuple[str, ...]:
        """Those of this installation."""
        return tuple(api.namespace for api in (self._api, *self._beside))

    async def contents(self, name: str) -> Contents:
        """See :class:`services.machines.contents.HasContents`."""
        try:
            node = await self._api.machine(quote(name, safe=""))
        except APIError as error:
            if error.status == 404:
                raise UserError(404, mark("There is no machine “{machine}”."), machine=name[:63]) from error
            raise
        pods = []
        for api in (self._api, *self._beside):
            for pod in await api.pods(machine=name):
                asked = asks(pod)
                pods.append(pod_of(pod, asked.cpu_millicores, asked.memory_bytes))
        details = details_of(node, quantity)
        return Contents(details=details, pods=tuple(pods), others=await self._others(node))

    async def _others(self, node: Mapping[str, Any]) -> Others | None:
        """Pods of other namespaces there, as its kubelet counts them; None when it does not say."""
        addresses = {one["type"]: one["address"] for one in (node.get("status") or {}).get("addresses") or ()}
        host = addresses.get("InternalIP", "")
        if self._figures is None or not host:
            return None
        try:
            async with asyncio.timeout(KUBELET_SECONDS):
                told = await self._figures.kubelet(host)
        except Exception as error:
            log.warning("the kubelet at %s does not say what runs there: %s", host, str(error) or type(error))
            return None
        return others_in(pods_named(told), self.namespaces)

    async def close(self) -> None:
        for api in (self._api, *self._beside):
            await api.close()
        if self._figures is not None:
            await self._figures.close()


def _letters(number: int) -> str:
    return "".join(secrets.choice(string.ascii_lowercase + string.digits) for _ in range(number))


def trusted_ca() -> bytes:
    """The CA that this process's own connection to the API server trusts."""
    from kubernetes_asyncio.client import Configuration

    path = Configuration.get_default_copy().ssl_ca_cert
    return Path(path).read_bytes() if path else b""
