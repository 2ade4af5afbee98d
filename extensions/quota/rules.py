"""May this plan be held besides what is held already? One pure function, no I/O (AP-2, TI-45)."""

from __future__ import annotations

from dataclasses import dataclass

from extensions.quota.limits import Held
from galilean.amounts import format_bytes, plain_number
from galilean.errors import UserError, mark
from galilean.settings import Limits
from spawner.plan import ClusterPlan

_PER_NODE = {
    "cpu": mark("You may ask for at most {limit} CPUs per node; this asks for {asked}."),
    "memory": mark("You may ask for at most {limit} of memory per node; this asks for {asked}."),
    "gpu": mark("You may ask for at most {limit} GPU card(s) per node; this asks for {asked}."),
    "storage": mark("You may ask for at most {limit} of storage per node; this asks for {asked}."),
}
_TOTAL = {
    "cpu": mark(
        "You may hold {limit} CPUs at once and hold {used}; this asks for {asked} more. Ask for less, or "
        "release a cluster."
    ),
    "memory": mark(
        "You may hold {limit} of memory at once and hold {used}; this asks for {asked} more. Ask for less, or "
        "release a cluster."
    ),
    "gpu": mark(
        "You may hold {limit} GPU card(s) at once and hold {used}; this asks for {asked} more. Ask for less, "
        "or release a cluster."
    ),
}
_NODES = mark("You may ask for at most {limit} nodes in a cluster; this asks for {asked}.")
_CLUSTERS = mark(
    "You may hold {limit} cluster(s) at once and hold {used}. Release one, or wait until one is released."
)
_MANUAL = mark(
    "Your role may not keep a cluster until it is released by hand. Choose another release policy."
)
_WAITING_ACCOUNT = mark(
    "Your account waits for a role. Until an administrator gives it one, it cannot run anything."
)


@dataclass(frozen=True)
class _Measure:
    which: str
    asked: int
    per_node: int
    used: int
    total: int


def no_role() -> UserError:
    """The refusal of somebody whose account waits for a role."""
    return UserError(403, _WAITING_ACCOUNT, reason="no-role")


def decide(plan: ClusterPlan, held: Held, limits: Limits) -> UserError | None:
    """The refusal with its numbers (which, used, asked, limit), or ``None`` when the plan fits.

    Parameters
    ----------
    plan
        Amounts per node.
    held
        What the person holds besides this plan.
    limits
        Of the person.
    """
    if plan.nodes > limits.nodes:
        return _refuse(_NODES, which="nodes", used=0, asked=plan.nodes, limit=limits.nodes)
    measures = (
        _Measure("cpu", plan.cpu_millicores, limits.cpu, held.cpu_millicores, limits.total_cpu),
        _Measure("memory", plan.memory_bytes, limits.memory, held.memory_bytes, limits.total_memory),
        _Measure("gpu", plan.gpu, limits.gpu, held.gpu, limits.total_gpu),
    )
    for item in measures:
        if item.asked > item.per_node:
            return _refuse(
                _PER_NODE[item.which],
                which=item.which,
                used=0,
                asked=_words(item.which, item.asked),
                limit=_words(item.which, item.per_node),
            )
    if plan.storage_bytes > limits.storage:
        return _refuse(
            _PER_NODE["storage"],
            which="storage",
            used=0,
            asked=format_bytes(plan.storage_bytes),
            limit=format_bytes(limits.storage),
        )
    if plan.release_policy == "manual" and not limits.manual_release:
        return UserError(403, _MANUAL, reason="forbidden")
    if held.clusters + 1 > limits.clusters:
        return _refuse(_CLUSTERS, which="clusters", used=held.clusters, asked=1, limit=limits.clusters)
    for item in measures:
        asked = item.asked * plan.nodes
        if asked and item.used + asked > item.total:
            return _refuse(
                _TOTAL[item.which],
                which=item.which,
                used=_words(item.which, item.used),
                asked=_words(item.which, asked),
                limit=_words(item.which, item.total),
            )
    return None


def _refuse(message: str, **params: object) -> UserError:
    return UserError(429, message, reason="quota", **params)


def _words(which: str, amount: int) -> str:
    if which == "cpu":
        return plain_number(amount / 1000)
    if which == "memory":
        return format_bytes(amount)
    return str(amount)
