"""Rules about machines, on plain data: no I/O, no clock.

A CPU is what the operating system counts, a hardware thread. Amounts of a machine are what it can give to
nodes (Kubernetes: *allocatable*), not what stands on the box.

A pool has the machines whose labels are its selector's and whose taints its tolerations stand. A pool
without a selector has every machine that is open to all; a machine may be in several pools.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

CONTROL_PLANE = "node-role.kubernetes.io/control-plane"
DEFAULT_POOL = "default"
#: Taints that tell of a state, which is shown by itself and passes.
_PASSING = "node.kubernetes.io/"


@dataclass(frozen=True, kw_only=True)
class Pool:
    """A named set of machines.

    Attributes
    ----------
    name, title
        For requests, and for people.
    node_selector, tolerations
        Labels that its machines carry, taints that they may have.
    open_to
        Roles that may run there; empty = everybody who may run.
    """

    name: str
    title: str = ""
    node_selector: Mapping[str, str] = field(default_factory=dict)
    tolerations: Sequence[Mapping[str, Any]] = ()
    open_to: Collection[str] = ()

    @property
    def shown(self) -> str:
        """What people read."""
        return self.title or self.name

    def is_open_to(self, roles: Collection[str]) -> bool:
        return not self.open_to or bool(set(self.open_to) & set(roles))


@dataclass(frozen=True, kw_only=True)
class GpuModel:
    """A kind of GPU card: the resource that counts it, and the labels of machines that have it."""

    resource: str
    node_selector: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Gpus:
    """What the settings call GPU cards: the resource when no model is asked for, and the models."""

    resource: str = "nvidia.com/gpu"
    models: Mapping[str, GpuModel] = field(default_factory=dict)

    @property
    def resources(self) -> frozenset[str]:
        return frozenset({self.resource, *(model.resource for model in self.models.values())})

    def of(self, model: str) -> GpuModel:
        """Where cards of a model are; a model without an entry is looked for by NVIDIA's own label."""
        if not model:
            return GpuModel(resource=self.resource)
        known = self.models.get(model)
        return known or GpuModel(resource=self.resource, node_selector={"nvidia.com/gpu.product": model})


@dataclass(frozen=True, kw_only=True)
class Amounts:
    """Some of a machine, or of many."""

    cpu_millicores: int = 0
    memory_bytes: int = 0
    gpu: int = 0

    def __add__(self, other: Amounts) -> Amounts:
        return Amounts(
            cpu_millicores=self.cpu_millicores + other.cpu_millicores,
            memory_bytes=self.memory_bytes + other.memory_bytes,
            gpu=self.gpu + other.gpu,
        )

    def without(self, other: Amounts) -> Amounts:
        """What is left, never below zero."""
        return Amounts(
            cpu_millicores=max(0, self.cpu_millicores - other.cpu_millicores),
            memory_bytes=max(0, self.memory_bytes - other.memory_bytes),
            gpu=max(0, self.gpu - other.gpu),
        )


@dataclass(frozen=True, kw_only=True)
class Machine:
    """A machine as it was seen last.

    Attributes
    ----------
    ready, problem
        Whether it works; what is wrong as a word: ``silent``, ``not-ready``, ``disk``, ``memory``,
        ``processes``, ``network`` or empty.
    cordoned
        Whether it takes no new nodes.
    control_plane
        Whether parts of the platform itself run there.
    labels, taints
        As Kubernetes has them; empty on the process backend.
    cpu_millicores, memory_bytes, gpu
        What can be given to nodes; ``gpu`` counts cards by resource.
    cpu_capacity_millicores, memory_capacity_bytes
        What the machine has.
    other
        What the platform's own parts ask for there.
    heartbeat_at
        Its last word, UTC.
    """

    name: str
    ready: bool = True
    problem: str = ""
    cordoned: bool = False
    control_plane: bool = False
    labels: Mapping[str, str] = field(default_factory=dict)
    taints: Sequence[Mapping[str, Any]] = ()
    cpu_millicores: int = 0
    memory_bytes: int = 0
    gpu: Mapping[str, int] = field(default_factory=dict)
    cpu_capacity_millicores: int = 0
    memory_capacity_bytes: int = 0
    other: Amounts = field(default_factory=Amounts)
    other_pods: int = 0
    address: str = ""
    version: str = ""
    heartbeat_at: datetime | None = None
    joined_at: datetime | None = None
    seen_at: datetime | None = None

    @property
    def takes_nodes(self) -> bool:
        """Whether new nodes may come."""
        return self.ready and not self.cordoned

    @property
    def cards(self) -> int:
        return sum(self.gpu.values())

    @property
    def amounts(self) -> Amounts:
        """What can be given to nodes."""
        return Amounts(cpu_millicores=self.cpu_millicores, memory_bytes=self.memory_bytes, gpu=self.cards)

    @property
    def reserved(self) -> bool:
        """Whether it is kept for the control plane alone."""
        return any(taint.get("key") == CONTROL_PLANE for taint in self.taints)


@dataclass(frozen=True, kw_only=True)
class Order:
    """What an administrator wanted of a machine: a row of ``machine_orders``."""

    id: str
    machine: str
    action: str
    pool: str = ""
    remove: bool = False
    why: str = ""
    asked_by: str
    asked_at: datetime
    due_at: datetime
    drained_at: datetime | None = None
    withdrawn_at: datetime | None = None
    withdrawn_by: str = ""
    closed_at: datetime | None = None
    outcome: str = ""
    problem: str = ""

    @property
    def leaves(self) -> bool:
        """Whether it takes the machine out and nobody thought better of it."""
        return self.action == "out" and self.withdrawn_at is None and self.closed_at is None


# ------------------------------------------------------------------------------------------------- pools


def tolerated(taint: Mapping[str, Any], tolerations: Iterable[Mapping[str, Any]]) -> bool:
    """Whether one of the tolerations stands a taint, by Kubernetes' rules."""
    for toleration in tolerations:
        if toleration.get("effect") and toleration["effect"] != taint.get("effect"):
            continue
        exists = toleration.get("operator", "Equal") == "Exists"
        key = toleration.get("key") or ""
        if not key:
            if exists:
                return True
            continue
        if key == taint.get("key") and (
            exists or (toleration.get("value") or "") == (taint.get("value") or "")
        ):
            return True
    return False


def carries(machine: Machine, selector: Mapping[str, str]) -> bool:
    """Whether a machine has all labels of a selector."""
    return all(machine.labels.get(key) == value for key, value in selector.items())


def in_pool(machine: Machine, pool: Pool) -> bool:
    """Whether a pool's nodes may be on a machine, whatever its state is now."""
    return carries(machine, pool.node_selector) and all(
        tolerated(taint, pool.tolerations)
        for taint in machine.taints
        if taint.get("effect") in ("NoSchedule", "NoExecute")
        and not str(taint.get("key", "")).startswith(_PASSING)
    )


def pools_of(machine: Machine, pools: Iterable[Pool]) -> list[Pool]:
    """The pools that a machine is in."""
    return [pool for pool in pools if in_pool(machine, pool)]


def labels_for(pool: Pool, machine: Machine) -> dict[str, str]:
    """Labels that a machine lacks to be in a pool."""
    return {key: value for key, value in pool.node_selector.items() if machine.labels.get(key) != value}


@dataclass(frozen=True, kw_only=True)
class Free:
    """What of a pool is free now, of what it can give while all its machines work."""

    free: Amounts
    all: Amounts
    machines: int


def free_in(pool: Pool, machines: Iterable[Machine], taken: Mapping[str, Amounts]) -> Free:
    """What a pool has and has left.

    Parameters
    ----------
    pool
        Which.
    machines
        All machines.
    taken
        What clusters hold, by the machine's name.
    """
    free = whole = Amounts()
    number = 0
    for machine in machines:
        if not machine.takes_nodes or not in_pool(machine, pool):
            continue
        number += 1
        whole += machine.amounts
        free += left_on(machine, taken)
    return Free(free=free, all=whole, machines=number)


def left_on(machine: Machine, taken: Mapping[str, Amounts]) -> Amounts:
    """What of one machine is not given away."""
    return machine.amounts.without(taken.get(machine.name, Amounts()) + machine.other)


# -------------------------------------------------------------------------------------- what can never be


@dataclass(frozen=True, kw_only=True)
class Size:
    """What is asked for: so many nodes, each of this size."""

    nodes: int
    cpu_millicores: int
    memory_bytes: int
    gpu: int = 0
    gpu_model: str = ""


@dataclass(frozen=True, kw_only=True)
class Never:
    """Why a request can never be: no machine is large enough, or all of them together are not.

    Attributes
    ----------
    largest
        The machine that comes nearest to one node, ``None`` when no machine has such GPU cards.
    most_nodes
        How many such nodes there could ever be at once.
    """

    largest: Machine | None
    most_nodes: int = 0


def places(machine: Machine, size: Size, resource: str) -> int:
    """How many nodes of a size an empty machine holds."""
    counts = [
        has // asks
        for has, asks in (
            (machine.cpu_millicores, size.cpu_millicores),
            (machine.memory_bytes, size.memory_bytes),
            (machine.gpu.get(resource, 0), size.gpu),
        )
        if asks > 0
    ]
    return min(counts, default=size.nodes)


def never_fits(size: Size, pool: Pool, machines: Iterable[Machine], gpus: Gpus) -> Never | None:
    """Whether a request can never be met, also when everybody else has gone.

    Machines that are cordoned or silent count: they may come back. Where nothing is known of the pool's
    machines nothing is refused.
    """
    model = gpus.of(size.gpu_model if size.gpu else "")
    known = [machine for machine in machines if in_pool(machine, pool)]
    if not known:
        return None
    able = [machine for machine in known if carries(machine, model.node_selector)]
    if size.gpu:
        able = [machine for machine in able if machine.gpu.get(model.resource, 0)]
    if not able:
        return Never(largest=None)
    fits = sum(places(machine, size, model.resource) for machine in able)
    if fits >= size.nodes:
        return None

    def near(machine: Machine) -> float:
        shares = [
            machine.cpu_millicores / max(size.cpu_millicores, 1),
            machine.memory_bytes / max(size.memory_bytes, 1),
        ]
        if size.gpu:
            shares.append(machine.gpu.get(model.resource, 0) / size.gpu)
        return min(shares)

    return Never(largest=max(able, key=lambda machine: (near(machine), machine.name)), most_nodes=fits)


# ------------------------------------------------------------------------------------------------- states


class State(StrEnum):
    """What a machine is, in one word."""

    READY = "ready"
    SILENT = "silent"  # does not work, or is not heard of
    CLOSED = "closed"  # takes no new nodes
    LEAVING = "leaving"  # is taken out at a date
    EMPTYING = "emptying"  # the date has come
    RESERVED = "reserved"  # for the control plane alone
    EXPECTED = "expected"  # was given a token, has not come yet


def state_of(machine: Machine | None, order: Order | None, now: datetime) -> State:
    """The state of a machine, with the order that is open for it."""
    if machine is None:
        return State.EXPECTED
    if not machine.ready:
        return State.SILENT
    if order is not None and order.leaves:
        return State.EMPTYING if now >= order.due_at else State.LEAVING
    if machine.cordoned:
        return State.CLOSED
    return State.RESERVED if machine.reserved else State.READY


def possible(machine: Machine | None, order: Order | None) -> tuple[str, ...]:
    """What an administrator may want of a machine now: actions of orders, and ``withdraw``."""
    if order is not None:
        taken_back = order.withdrawn_at is not None
        return ("withdraw",) if order.action in ("add", "out") and not taken_back else ()
    if machine is None:
        return ()
    actions = ["uncordon" if machine.cordoned else "cordon", "out"]
    if machine.control_plane:
        actions.append("compute" if machine.reserved else "keep")
    return tuple(actions)


# ------------------------------------------------------------------------------------------- orders' steps


class Step(StrEnum):
    """What the service does next for an order."""

    WAIT = "wait"
    CORDON = "cordon"
    UNCORDON = "uncordon"
    EMPTY = "empty"  # release the runs there, move the platform's own parts
    REMOVE = "remove"
    LABEL = "label"
    RESERVE = "reserve"
    UNRESERVE = "unreserve"
    DONE = "done"
    WITHDRAWN = "withdrawn"
    EXPIRED = "expired"
    GONE = "gone"


#: Steps that close an order; the word is its outcome.
CLOSING = frozenset({Step.DONE, Step.WITHDRAWN, Step.EXPIRED, Step.GONE})


def next_step(
    order: Order, machine: Machine | None, *, occupied: bool, now: datetime, missing_labels: bool = False
) -> Step:
    """The next step of an open order. Every step may be repeated.

    Parameters
    ----------
    order
        An order that is not closed.
    machine
        The machine as it is now; ``None`` when there is none of this name.
    occupied
        Whether anything of ours is still on it.
    now
        UTC.
    missing_labels
        Of a machine that was expected: whether it lacks its pool's labels.
    """
    if order.action == "add":
        if machine is not None:
            return Step.LABEL if missing_labels else Step.DONE
        if order.withdrawn_at is not None:
            return Step.WITHDRAWN
        return Step.EXPIRED if now >= order.due_at else Step.WAIT
    if machine is None:
        return Step.DONE if order.remove and order.withdrawn_at is None else Step.GONE
    if order.action == "out":
        return _next_of_taking_out(order, machine, occupied=occupied, now=now)
    if order.action == "cordon":
        return Step.DONE if machine.cordoned else Step.CORDON
    if order.action == "uncordon":
        return Step.UNCORDON if machine.cordoned else Step.DONE
    if order.action == "compute":
        return Step.UNRESERVE if machine.reserved else Step.DONE
    if order.action == "keep":
        return Step.DONE if machine.reserved else Step.RESERVE
    raise ValueError(f"no such action: {order.action!r}")


def _next_of_taking_out(order: Order, machine: Machine, *, occupied: bool, now: datetime) -> Step:
    if order.withdrawn_at is not None:
        return Step.UNCORDON if machine.cordoned else Step.WITHDRAWN
    if not machine.cordoned:
        return Step.CORDON
    if now < order.due_at:
        return Step.WAIT
    if occupied:
        return Step.EMPTY
    return Step.REMOVE if order.remove else Step.DONE
