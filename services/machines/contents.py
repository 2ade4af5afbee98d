"""What is on a machine of a Kubernetes: the machine itself, the pods of this installation, and how many others (CG-35).

Pods of the installation's namespaces are told one by one: nodes with whose they are, parts of the platform, agents, pods
that have images fetched. Of everybody else's only numbers are told, and nothing more is known: they are counted in what
the machine's kubelet measures, which names pods and nothing of them, so that no right to read other namespaces is needed.
It is looked at when somebody asks, never kept.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol, runtime_checkable

from spawner.kubernetes.names import RANK, RUN, SERVER, USER

PAGE_SIZE = 50
_PART = "app.kubernetes.io/component"
_AGENT_OF, _IMAGES_OF = "galilean.io/agent-of", "galilean.io/images-of"


@dataclass(frozen=True, kw_only=True)
class Condition:
    """What a machine says of itself in one respect."""

    type: str
    status: str
    reason: str = ""
    message: str = ""
    since: str | None = None


@dataclass(frozen=True, kw_only=True)
class Details:
    """The machine as it describes itself; amounts are the whole machine's."""

    system: str = ""
    kernel: str = ""
    architecture: str = ""
    runtime: str = ""
    kubelet: str = ""
    addresses: tuple[str, ...] = ()
    pod_ranges: tuple[str, ...] = ()
    disk_bytes: int | None = None
    pods_most: int | None = None
    images: int = 0
    conditions: tuple[Condition, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Pod:
    """A pod of this installation.

    Attributes
    ----------
    what
        ``node`` of a cluster, ``part`` of the platform, ``agent``, ``image`` (has one fetched), or ``other``.
    part
        Which part.
    """

    namespace: str
    name: str
    what: str
    user: str = ""
    server: str = ""
    run: str = ""
    rank: int | None = None
    part: str = ""
    phase: str = ""
    reason: str = ""
    ready: bool = False
    restarts: int = 0
    cpu_millicores: int = 0
    memory_bytes: int = 0
    address: str = ""
    made_at: str | None = None


@dataclass(frozen=True, kw_only=True)
class Others:
    """What runs there of other namespaces, counted."""

    namespaces: int
    pods: int


@dataclass(frozen=True, kw_only=True)
class Contents:
    """One look at a machine; ``others`` is None where nobody could count."""

    details: Details
    pods: tuple[Pod, ...]
    others: Others | None


@runtime_checkable
class HasContents(Protocol):
    """A backend whose machines can be looked into."""

    @property
    def namespaces(self) -> tuple[str, ...]:
        """Those of this installation."""
        ...

    async def contents(self, name: str) -> Contents:
        """What is on a machine.

        Raises
        ------
        UserError
            404 when there is no such machine.
        """
        ...


# ------------------------------------------------------------------------------------------------------------ rules


def details_of(node: Mapping[str, Any], bytes_of: Any) -> Details:
    """From the API server's words; ``bytes_of`` reads a quantity."""
    spec, status = node.get("spec") or {}, node.get("status") or {}
    told, whole = status.get("nodeInfo") or {}, status.get("capacity") or {}
    ranges = spec.get("podCIDRs") or ([spec["podCIDR"]] if spec.get("podCIDR") else [])
    return Details(
        system=str(told.get("osImage", "")),
        kernel=str(told.get("kernelVersion", "")),
        architecture=str(told.get("architecture", "")),
        runtime=str(told.get("containerRuntimeVersion", "")),
        kubelet=str(told.get("kubeletVersion", "")),
        addresses=tuple(f"{one['type']} {one['address']}" for one in status.get("addresses") or ()),
        pod_ranges=tuple(map(str, ranges)),
        disk_bytes=int(bytes_of(whole["ephemeral-storage"])) if "ephemeral-storage" in whole else None,
        pods_most=int(bytes_of(whole["pods"])) if "pods" in whole else None,
        images=len(status.get("images") or ()),
        conditions=tuple(
            Condition(
                type=str(one["type"]),
                status=str(one["status"]),
                reason=str(one.get("reason") or ""),
                message=str(one.get("message") or ""),
                since=one.get("lastTransitionTime"),
            )
            for one in status.get("conditions") or ()
        ),
    )


def pod_of(pod: Mapping[str, Any], cpu_millicores: int, memory_bytes: int) -> Pod:
    """A pod of this installation, from the API server's words."""
    metadata, status = pod["metadata"], pod.get("status") or {}
    labels, told = metadata.get("labels") or {}, metadata.get("annotations") or {}
    boxes = status.get("containerStatuses") or ()
    waiting = [((one.get("state") or {}).get("waiting") or {}).get("reason") for one in boxes]
    what = "other"
    if RUN in labels:
        what = "node"
    elif _AGENT_OF in labels:
        what = "agent"
    elif _IMAGES_OF in labels:
        what = "image"
    elif _PART in labels:
        what = "part"
    rank = str(labels.get(RANK, ""))
    return Pod(
        namespace=metadata["namespace"],
        name=metadata["name"],
        what=what,
        user=str(told.get(USER, "")) if what == "node" else "",
        server=str(told.get(SERVER, "")) if what == "node" else "",
        run=str(labels.get(RUN, "")),
        rank=int(rank) if what == "node" and rank.isdecimal() else None,
        part=str(labels.get(_PART, "")) if what == "part" else "",
        phase="Terminating" if metadata.get("deletionTimestamp") else str(status.get("phase", "")),
        reason=next((str(one) for one in waiting if one), str(status.get("reason") or "")),
        ready=bool(boxes) and all(one.get("ready") for one in boxes),
        restarts=sum(int(one.get("restartCount") or 0) for one in boxes),
        cpu_millicores=cpu_millicores,
        memory_bytes=memory_bytes,
        address=str(status.get("podIP") or ""),
        made_at=metadata.get("creationTimestamp"),
    )


def others_in(told: Iterable[tuple[str, str]], ours: Collection[str]) -> Others:
    """Those of other namespaces among the pods that a kubelet measures: (namespace, name)."""
    found = {one for one in told if one[0] not in ours}
    return Others(namespaces=len({namespace for namespace, _ in found}), pods=len(found))


def fits(pod: Pod, text: str, namespace: str) -> bool:
    """Whether a pod is among what is asked for: words in its name, its person, its part and its state."""
    if namespace and pod.namespace != namespace:
        return False
    said = "\n".join((pod.name, pod.user, pod.server, pod.part, pod.what, pod.phase, pod.reason)).casefold()
    return all(word in said for word in text.casefold().split())


def said(
    found: Contents,
    namespaces: Sequence[str],
    *,
    text: str,
    namespace: str,
    offset: int,
    limit: int = PAGE_SIZE,
) -> dict[str, Any]:
    """What the portal is answered: all of the machine, one page of the pods that were asked for."""
    order = {name: place for place, name in enumerate(namespaces)}
    pods = sorted(
        found.pods,
        key=lambda one: (
            one.what != "node",
            order.get(one.namespace, len(order)),
            one.user,
            one.server,
            one.rank or 0,
            one.name,
        ),
    )
    fitting = [one for one in pods if fits(one, text, namespace)]
    return {
        "details": asdict(found.details),
        "namespaces": [
            {"name": name, "pods": sum(one.namespace == name for one in pods)} for name in namespaces
        ],
        "others": asdict(found.others) if found.others else None,
        "pods": [asdict(one) for one in fitting[offset : offset + limit]],
        "fitting": len(fitting),
    }
