"""What the Run drawer says: why something cannot be had, whose limit it is, and when a cluster goes back (TI-15).

Pure: an answer is what is to be said, and becomes a sentence in the visitor's language where it is shown.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from extensions.quota.limits import ABOVE_ALL, Granted, Held, Limits
from extensions.quota.measures import BUDGETS, Measure
from extensions.quota.rules import Spent, decide
from galilean.amounts import MIB
from galilean.errors import UserError, mark
from services.portal.measures_said import amount_with_unit, name_of
from services.portal.pages.run_choice import CARDS_MOST, Choice, cards_most
from services.portal.said import Said, cards, cores, memory, nodes, say

_BOUND_WORDS = {
    "nodes": nodes,
    "cpu": cores,
    "memory": memory,
    "storage": memory,
    "gpu": cards,
    "total_gpu": cards,
}
_AT_MOST = (mark("at most {limit} per node"), mark("at most {limit}"))
_HOURS = {"2h": 2, "4h": 4, "8h": 8, "16h": 16, "24h": 24}
_DAYS = {"2d": 2, "3d": 3, "4d": 4, "5d": 5, "6d": 6, "7d": 7}


def refusal_of(
    choice: Choice, limits: Limits, held: Held, spent: Mapping[Measure, Spent] | None = None
) -> Said | None:
    """Why this choice would not be admitted now, with the numbers; ``None`` when it would (TI-15).

    What is most usual is said in words of the drawer; for all that is narrower, the rule of admission itself
    is asked.
    """
    if held.clusters + 1 > limits.clusters:
        if limits.clusters == 0:
            return say(mark("Your role may not run clusters. Ask the centre for more."))
        return say(
            mark("You hold {held} of {limit} clusters. Release one to start another."),
            held=held.clusters,
            limit=limits.clusters,
        )
    choice = replace(choice, pool=choice.pool or "default")
    refusal = decide(choice, held, limits, spent)
    if refusal is None or "which" not in refusal.params:
        return None if refusal is None else Said(refusal.message, refusal.params)
    return _in_words(refusal, choice, limits, held)


def _in_words(refusal: UserError, choice: Choice, limits: Limits, held: Held) -> Said:
    measure = Measure.parse(str(refusal.params["which"]))
    limit = limits.amount(measure) or 0
    resource = measure.resource
    if resource in BUDGETS:
        return Said(refusal.message, refusal.params)
    words = {"nodes": nodes, "cpu": cores, "memory": memory, "gpu": cards}.get(resource)
    if words is not None and not measure.narrowed:
        if resource == "nodes":
            return say(mark("Your role: at most {limit}."), limit=words(limit))
        return say(mark("Your role: at most {limit} per node."), limit=words(limit))
    asked = {
        "total_cpu": choice.nodes * choice.cpu_millicores,
        "total_memory": choice.nodes * choice.memory_bytes,
        "total_gpu": choice.nodes * choice.gpu,
    }.get(resource)
    if asked is not None:
        free = max(limit - held.counts(measure, limits.apart(measure)), 0)
        general = {"total_cpu": cores, "total_memory": memory, "total_gpu": cards}[resource]
        if not measure.narrowed:
            return say(
                mark("Together {asked}, but {free} of your {limit} are free."),
                asked=general(asked),
                free=general(free),
                limit=general(limit),
            )
        return say(
            mark("{name}: together {asked}, but {free} of your {limit} are free."),
            name=name_of(measure, full=True),
            asked=general(asked),
            free=general(free),
            limit=general(limit),
        )
    return say(
        mark("{name}: at most {limit}."),
        name=name_of(measure, full=True),
        limit=amount_with_unit(measure, limit),
    )


def bound_said(limits: Limits, resource: str, until: Callable[[Granted], Said] | None = None) -> Said | None:
    """``Your role: at most 4 nodes``, or whose exception it is; ``None`` where there is no limit."""
    entry = limits.entries.get(Measure(resource))
    if entry is None or entry.amount is None or entry.amount >= ABOVE_ALL:
        return None
    limit = _BOUND_WORDS[resource](entry.amount)
    at_most = say(_AT_MOST[resource == "nodes"], limit=limit)
    return _whose(entry.exception, at_most, until)


def _whose(granted: Granted | None, at_most: Said, until: Callable[[Granted], Said] | None) -> Said:
    if granted is None:
        return say(mark("Your role: {what}"), what=at_most)
    if until is None:
        return say(mark("Your exception, by {giver}: {what}"), giver=granted.given_by, what=at_most)
    return say(
        mark("Your exception {until}, by {giver}: {what}"),
        until=until(granted),
        giver=granted.given_by,
        what=at_most,
    )


def cards_said(limits: Limits, most: int, until: Callable[[Granted], Said] | None) -> Said | None:
    if not most:
        return say(mark("Your role: no GPUs"))
    own = next((e.exception for e in limits.of("gpu") if e.exception is not None and e.amount != 0), None)
    if own is None and most >= CARDS_MOST:
        return None
    return _whose(own, say(_AT_MOST[0], limit=cards(most)), until)


def no_card(limits: Limits, model: str) -> Said | None:
    """Why no card of a model (empty = any kind) can be had."""
    return None if cards_most(limits, (model,)) else say(mark("not for your role"))


def no_pool(limits: Limits, pool: str) -> Said | None:
    for resource in ("clusters", "nodes", "total_cpu", "total_memory", "cpu", "memory"):
        if limits.amount(Measure(resource, pool)) == 0:
            return say(mark("not for your role"))
    return None


def too_large(cpu_millicores: int, memory_bytes: int, limits: Limits) -> Said | None:
    if cpu_millicores > limits.cpu:
        return bound_said(limits, "cpu")
    if memory_bytes > limits.memory:
        return bound_said(limits, "memory")
    return None


def together(choice: Choice) -> Said:
    """``Together 8 cores, 32 GB``: the sum over the nodes."""
    sums = {
        "cores": cores(choice.nodes * choice.cpu_millicores),
        "memory": memory(choice.nodes * choice.memory_bytes),
    }
    if choice.gpu:
        return say(mark("Together {cores}, {memory}, {gpus}"), gpus=cards(choice.nodes * choice.gpu), **sums)
    return say(mark("Together {cores}, {memory}"), **sums)


def gigabytes_text(size_bytes: int) -> str:
    """What a field of gigabytes holds, exact to the megabyte, because it is sent back: ``8``, ``0.0625``."""
    return f"{round(size_bytes / MIB) / 1024:.10f}".rstrip("0").rstrip(".")


def release_in_words(policy: str, grace_seconds: int) -> Said:
    """A release policy as one picks it, in the first person."""
    if policy == "auto":
        return say(
            mark("Automatically, {minutes} min after I leave"), minutes=max(1, round(grace_seconds / 60))
        )
    if policy == "auto-when-done":
        return say(mark("Automatically, when I have left and nothing runs any more"))
    if policy == "manual":
        return say(mark("Only when I press Release"))
    if policy in _HOURS:
        return say(mark("{hours} hours after I leave"), hours=_HOURS[policy])
    if policy in _DAYS:
        return say(mark("{days} days after I leave"), days=_DAYS[policy])
    return say("{policy}", policy=policy)


def release_as_fate(policy: str, grace_seconds: int) -> Said:
    """The same as it stands beside a running cluster."""
    if policy == "auto":
        return say(mark("Goes back {minutes} min after you leave"), minutes=max(1, round(grace_seconds / 60)))
    if policy == "auto-when-done":
        return say(mark("Goes back when you have left and nothing runs any more"))
    if policy == "manual":
        return say(mark("Kept until you release it"))
    if policy in _HOURS:
        return say(mark("Goes back {hours} hours after you leave"), hours=_HOURS[policy])
    if policy in _DAYS:
        return say(mark("Goes back {days} days after you leave"), days=_DAYS[policy])
    return say("{policy}", policy=policy)
