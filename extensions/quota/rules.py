"""May this plan be held besides what is held already? Pure functions, no I/O (AP-2, TI-12, TI-15, BX-10)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from extensions.quota.limits import HELD_AS, Held, Limits
from extensions.quota.measures import BUDGETS, PER_NODE, TOTALS, Measure, written
from galilean.amounts import TIB, format_bytes, plain_number
from galilean.errors import UserError, mark

#: Where there is no limit, there is still a largest cluster, so that no sum ever leaves 64 bits.
BYTES_MOST = 1024 * TIB

_PER_NODE = {
    "cpu": mark("You may ask for at most {limit} CPUs per node; this asks for {asked}."),
    "memory": mark("You may ask for at most {limit} of memory per node; this asks for {asked}."),
    "gpu": mark("You may ask for at most {limit} GPU card(s) per node; this asks for {asked}."),
    "storage": mark("You may ask for at most {limit} of storage per node; this asks for {asked}."),
}
_TOTAL = {
    "clusters": mark(
        "You may hold {limit} cluster(s) at once and hold {used}. Release one, or wait until one is released."
    ),
    "total_cpu": mark(
        "You may hold {limit} CPUs at once and hold {used}; this asks for {asked} more. Ask for less, or "
        "release a cluster."
    ),
    "total_memory": mark(
        "You may hold {limit} of memory at once and hold {used}; this asks for {asked} more. Ask for less, or "
        "release a cluster."
    ),
    "total_gpu": mark(
        "You may hold {limit} GPU card(s) at once and hold {used}; this asks for {asked} more. Ask for less, "
        "or release a cluster."
    ),
    "total_storage": mark(
        "You may hold {limit} of storage at once and hold {used}; this asks for {asked} more. Ask for less, "
        "or release a cluster."
    ),
}
_NARROWER = mark(
    "The limit “{which}” is {limit}; you hold {used} of it and ask for {asked}. Ask for less or for something "
    "else, or release a cluster."
)
_BUDGET = {
    "day": mark("Your {limit} {what} of this day are used up ({used}). They begin anew on {day}."),
    "week": mark("Your {limit} {what} of this week are used up ({used}). They begin anew on {day}."),
    "month": mark("Your {limit} {what} of this month are used up ({used}). They begin anew on {day}."),
    "term": mark("Your {limit} {what} of this term are used up ({used}). They begin anew on {day}."),
}
_BUDGET_NONE = mark("Your limit “{which}” is 0: nothing that uses it can be started.")
_HOURS = {"core_hours": "core-h", "gpu_hours": "GPU-h"}
_TOGETHER = mark(
    "All people of your role together may hold {limit} ({which}) and hold {used}; this asks for {asked}. Ask for "
    "less, or try again when somebody has released a cluster."
)
_NODES = mark("You may ask for at most {limit} nodes in a cluster; this asks for {asked}.")
_MANUAL = mark(
    "Your role may not keep a cluster until it is released by hand. Choose another release policy."
)
_WAITING_ACCOUNT = mark(
    "Your account waits for a role. Until an administrator gives it one, it cannot run anything."
)
_LARGEST = mark("No cluster is as large as this: it asks for {asked} in all, and {limit} is the most.")


class Asked(Protocol):
    """What is asked for, such as :class:`spawner.plan.ClusterPlan`; amounts per node."""

    @property
    def nodes(self) -> int: ...
    @property
    def cpu_millicores(self) -> int: ...
    @property
    def memory_bytes(self) -> int: ...
    @property
    def gpu(self) -> int: ...
    @property
    def gpu_model(self) -> str: ...
    @property
    def storage_bytes(self) -> int: ...
    @property
    def pool(self) -> str: ...
    @property
    def release_policy(self) -> str: ...


@dataclass(frozen=True, kw_only=True)
class Spent:
    """How much of a budget is used up in its present period, in milli-hours, and the day it begins anew."""

    used: int
    renews_on: str = ""


def no_role() -> UserError:
    """The refusal of somebody whose account waits for a role."""
    return UserError(403, _WAITING_ACCOUNT, reason="no-role")


def decide(
    plan: Asked, held: Held, limits: Limits, spent: Mapping[Measure, Spent] | None = None
) -> UserError | None:
    """The refusal with its numbers (which, used, asked, limit), or ``None`` when the plan fits.

    Parameters
    ----------
    plan
        Amounts per node.
    held
        What the person holds besides this plan.
    limits
        Of the person.
    spent
        Of each budget among the limits; one that is missing counts as unused.
    """
    for check in (_of_one_cluster, _at_once):
        refusal = check(plan, held, limits)
        if refusal is not None:
            return refusal
    return _over_time(plan, limits, spent or {})


def decide_together(plan: Asked, held: Held, bounds: Mapping[Measure, int]) -> UserError | None:
    """The same for all people of a role together; ``held`` is what was admitted by that role."""
    for measure, limit in bounds.items():
        asked = _asked(plan, measure)
        used = held.counts(measure)
        if asked and used + asked > limit:
            return _refuse(_TOGETHER, measure, used=used, asked=asked, limit=limit)
    return None


def _of_one_cluster(plan: Asked, held: Held, limits: Limits) -> UserError | None:
    for measure, limit in _bounds(plan, limits, "nodes"):
        if plan.nodes > limit:
            return _refuse(_NODES, measure, used=0, asked=plan.nodes, limit=limit)
    for resource in PER_NODE:
        asked = int(getattr(plan, _PLAN_AS[resource]))
        for measure, limit in _bounds(plan, limits, resource):
            if asked > limit:
                return _refuse(_PER_NODE[resource], measure, used=0, asked=asked, limit=limit)
    for asked in (plan.nodes * plan.memory_bytes, plan.nodes * plan.storage_bytes):
        if asked > BYTES_MOST:
            return UserError(400, _LARGEST, asked=format_bytes(asked), limit=format_bytes(BYTES_MOST))
    if plan.release_policy == "manual" and not limits.manual_release:
        return UserError(403, _MANUAL, reason="forbidden")
    return None


def _at_once(plan: Asked, held: Held, limits: Limits) -> UserError | None:
    for resource in TOTALS:
        for measure, limit in _bounds(plan, limits, resource):
            asked = _asked(plan, measure)
            used = held.counts(measure, limits.apart(measure))
            if asked and used + asked > limit:
                return _refuse(_TOTAL[resource], measure, used=used, asked=asked, limit=limit)
    return None


def _over_time(plan: Asked, limits: Limits, spent: Mapping[Measure, Spent]) -> UserError | None:
    for resource in BUDGETS:
        if resource == "gpu_hours" and not plan.gpu:
            continue
        rate = plan.nodes * (plan.gpu * 1000 if resource == "gpu_hours" else plan.cpu_millicores)
        for measure, limit in _bounds(plan, limits, resource):
            found = spent.get(measure, Spent(used=0))
            if found.used >= limit:
                return UserError(
                    429,
                    _BUDGET[measure.period] if limit else _BUDGET_NONE,
                    reason="quota",
                    which=str(measure),
                    what=_HOURS[resource],
                    used=plain_number(found.used / 1000),
                    asked=plain_number(rate / 1000),
                    limit=plain_number(limit / 1000),
                    day=found.renews_on,
                )
    return None


def _bounds(plan: Asked, limits: Limits, resource: str) -> list[tuple[Measure, int]]:
    """The bounds of a resource that hold for the plan: not those that an exception takes it out of."""
    return [
        (entry.measure, entry.amount)
        for entry in limits.of(resource)
        if entry.amount is not None
        and entry.measure.holds_for(plan.pool, plan.gpu_model)
        and not any(own.holds_for(plan.pool, plan.gpu_model) for own in limits.apart(entry.measure))
    ]


_PLAN_AS = {"cpu": "cpu_millicores", "memory": "memory_bytes", "gpu": "gpu", "storage": "storage_bytes"}


def _asked(plan: Asked, measure: Measure) -> int:
    name = HELD_AS[measure.resource]
    if not measure.holds_for(plan.pool, plan.gpu_model):
        return 0
    return 1 if name == "clusters" else plan.nodes * int(getattr(plan, name))


def _refuse(message: str, measure: Measure, *, used: int, asked: int, limit: int) -> UserError:
    return UserError(
        429,
        _NARROWER if measure.narrowed and message is not _TOGETHER else message,
        reason="quota",
        which=str(measure),
        used=in_words(measure, used),
        asked=in_words(measure, asked),
        limit=in_words(measure, limit),
    )


def in_words(measure: Measure, amount: int) -> str | int:
    """An amount for a sentence: ``24``, ``8.0 GB``."""
    if measure.unit in ("cpu", "hours"):
        return plain_number(amount / 1000)
    if measure.unit == "bytes":
        return format_bytes(amount)
    return str(written(measure.resource, amount)) if measure.unit == "flag" else amount
