"""What the Run drawer offers, and what a choice comes to (CG-3, CG-4, CG-30, CG-32, TI-15, BX-20).

The drawer never lets somebody press a button that then fails: what cannot be had is disabled with the
reason beside it. So the same rules that admission applies are applied here, to be *shown*; admission stays
the one that decides, because two tabs may press at once.

Everything is per node except the number of nodes. The sum below the form ("Together …") is computed again
in the page while somebody changes it; the numbers and the sentences for that come from here, so there is
one source for both. Pure: settings, limits and what is held are handed in.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from typing import Any

from extensions.quota.limits import ABOVE_ALL, Granted, Held, Limits
from extensions.quota.measures import BUDGETS, Measure
from extensions.quota.rules import Spent, decide
from galilean.amounts import GIB, MIB, parse_bytes, parse_millicores, plain_number
from galilean.errors import UserError, mark
from galilean.settings import Settings
from services.portal.measures_said import amount_with_unit, name_of
from services.portal.quotas import day_said
from services.portal.said import Said, cards, cores, memory, nodes, say, size_of_node

CUSTOM = "custom"
CORE_STEP_MILLICORES = 500
#: Where the person has no limit the fields still end somewhere.
NODES_MOST, CARDS_MOST = 1000, 64


@dataclass(frozen=True, kw_only=True)
class Choice:
    """What is filled in; amounts per node."""

    nodes: int
    cpu_millicores: int
    memory_bytes: int
    gpu: int
    environment: str
    release: str
    on_node_loss: str = "release"
    pool: str = ""
    gpu_model: str = ""

    @property
    def release_policy(self) -> str:
        return self.release

    @property
    def storage_bytes(self) -> int:
        """The drawer asks for no storage of its own; the site's default is looked at by admission."""
        return 0

    def as_options(self) -> dict[str, Any]:
        """The choice as ``user_options`` of the hub's start call (design §10), without the project."""
        return {
            "nodes": self.nodes,
            "cpu": self.cpu_millicores / 1000,
            "memory": self.memory_bytes,
            "gpu": self.gpu,
            "environment": self.environment,
            "release": self.release,
            "on_node_loss": self.on_node_loss,
            **({"pool": self.pool} if self.pool else {}),
            **({"gpu_model": self.gpu_model} if self.gpu and self.gpu_model else {}),
        }


@dataclass(frozen=True, kw_only=True)
class PoolOption:
    """A pool to pick, with what is free in it now."""

    name: str
    title: str
    free: Said
    reason: Said | None = None


@dataclass(frozen=True, kw_only=True)
class ModelOption:
    """A model of GPU card to pick, with how many are free now; ``reason`` is why it cannot be had."""

    name: str
    title: str
    free: int
    reason: Said | None = None

    @property
    def words(self) -> Said:
        if self.reason is not None:
            return say(mark("{title}: {reason}"), title=self.title, reason=self.reason)
        return say(mark("{title} ({n} free)"), title=self.title, n=self.free)


@dataclass(frozen=True, kw_only=True)
class SizeOption:
    """A size of node to pick. ``reason`` is why it cannot be had, ``None`` when it can."""

    key: str
    title: str
    cpu_millicores: int
    memory_bytes: int
    reason: Said | None = None

    @property
    def amounts(self) -> Said:
        return size_of_node(self.cpu_millicores, self.memory_bytes)


@dataclass(frozen=True, kw_only=True)
class EnvironmentOption:
    """An environment to pick; ``gpu`` says that it is made for GPUs."""

    name: str
    title: str
    description: str
    gpu: bool


@dataclass(frozen=True, kw_only=True)
class Bar:
    """One limit: what is held now, what this start adds, and the most. ``unit`` stands once."""

    key: str
    label: Said
    held: float
    adds: float
    limit: float
    unit: str = ""
    note: Said | None = None

    @property
    def numbers(self) -> str:
        """``8 + 8`` of ``8 + 8 of 24``; what a start adds to a budget only time can tell."""
        if self.key.startswith(BUDGETS):
            return plain_number(self.held)
        return f"{plain_number(self.held)} + {plain_number(self.adds)}"

    @property
    def limit_text(self) -> str:
        """``24``, ``96 GB``: the unit stands once."""
        return plain_number(self.limit) + (f"\u00a0{self.unit}" if self.unit else "")

    @property
    def held_percent(self) -> float:
        return _percent(self.held, self.limit)

    @property
    def adds_percent(self) -> float:
        return min(_percent(self.adds, self.limit), 100 - self.held_percent)

    @property
    def level(self) -> str:
        """``""``, ``warn`` from 80 %, ``bad`` above the limit."""
        used = self.held + self.adds
        if used > self.limit:
            return "bad"
        return "warn" if self.limit and used >= 0.8 * self.limit and used > 0 else ""


@dataclass(frozen=True, kw_only=True)
class RunForm:
    """All that the drawer shows."""

    choice: Choice
    size: str
    sizes: tuple[SizeOption, ...]
    nodes_most: int
    nodes_reason: Said | None
    cpu_most_millicores: int
    cpu_reason: Said | None
    memory_most_bytes: int
    memory_reason: Said | None
    gpu_most: int
    gpu_reason: Said | None
    gpu_any: Said | None
    gpu_models: tuple[ModelOption, ...]
    pools: tuple[PoolOption, ...]
    environments: tuple[EnvironmentOption, ...]
    releases: tuple[str, ...]
    bars: tuple[Bar, ...]
    together: Said
    refusal: Said | None
    clamped: bool

    @property
    def size_table(self) -> dict[str, dict[str, float]]:
        """Sizes by key, as the request takes them, for the page's script."""
        return {
            size.key: {"cpu": size.cpu_millicores / 1000, "memory": size.memory_bytes} for size in self.sizes
        }


def last_choice(settings: Settings, environment: str, request: Mapping[str, Any] | None) -> Choice:
    """The choice to begin with: the last request of the project, else the site's defaults.

    Parameters
    ----------
    settings
        The site's.
    environment
        The project's default environment; empty or gone means the site's.
    request
        ``clusters.request`` of the last run or ``projects.default_request``; either spelling of the keys.
    """
    defaults = settings.defaults
    known = environment if environment in settings.environments else defaults.environment
    choice = Choice(
        nodes=defaults.nodes,
        cpu_millicores=defaults.cpu,
        memory_bytes=defaults.memory,
        gpu=defaults.gpu,
        environment=known,
        release=defaults.release,
    )
    if not request:
        return choice
    values: dict[str, Any] = {}
    keys = (
        "nodes",
        "gpu",
        "environment",
        "release",
        "on_node_loss",
        "pool",
        "gpu_model",
        "cpu_millicores",
        "memory_bytes",
    )
    for key in keys:
        if request.get(key) is not None:
            values[key] = request[key]
    if request.get("cpu") is not None:
        values["cpu_millicores"] = parse_millicores(request["cpu"])
    if request.get("memory") is not None:
        values["memory_bytes"] = parse_bytes(request["memory"])
    if values.get("environment") not in settings.environments:
        values.pop("environment", None)
    if values.get("gpu_model") not in settings.gpu_models:
        values.pop("gpu_model", None)
    return replace(choice, **values)


def clamp(choice: Choice, limits: Limits, offered: Sequence[str], default: str) -> Choice:
    """The choice cut down to what one cluster of this person may be; never below one node.

    Parameters
    ----------
    choice, limits
        The wish, and the person's limits.
    offered, default
        Release policies that the person may pick, and the one of them that is filled in.
    """
    return replace(
        choice,
        nodes=max(1, min(choice.nodes, limits.nodes)),
        cpu_millicores=min(choice.cpu_millicores, limits.cpu) or choice.cpu_millicores,
        memory_bytes=min(choice.memory_bytes, limits.memory) or choice.memory_bytes,
        gpu=min(choice.gpu, cards_most(limits, (choice.gpu_model,))),
        release=choice.release if choice.release in offered else default,
    )


def cards_most(limits: Limits, models: Sequence[str]) -> int:
    """The most cards that one node may have, of whichever of these models (empty = any) gives most."""
    return max(
        (min(_least(limits, "gpu", model), _least(limits, "total_gpu", model)) for model in models), default=0
    )


def _least(limits: Limits, resource: str, model: str) -> int:
    amount = limits.at_most(resource, "", model)
    return CARDS_MOST if amount is None else amount


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


def bars_of(
    choice: Choice,
    limits: Limits,
    held: Held,
    spent: Mapping[Measure, Spent] | None = None,
    today: date | None = None,
) -> tuple[Bar, ...]:
    """The bars of the foot: held solid, what this start adds hatched; then budgets that it would use.

    What has no limit has no bar.
    """
    kinds = (
        ("total_cpu", mark("Cores"), 1000, "", choice.cpu_millicores),
        ("total_memory", mark("Memory"), GIB, "GB", choice.memory_bytes),
        ("total_gpu", mark("GPUs"), 1, "", choice.gpu),
    )
    choice = replace(choice, pool=choice.pool or "default")
    bars = []
    for resource, label, unit, unit_name, per_node in kinds:
        for entry in limits.of(resource):
            measure, amount = entry.measure, entry.amount
            counts = measure.holds_for(choice.pool, choice.gpu_model)
            if amount is None or (resource == "total_gpu" and not (amount and (limits.gpu or choice.gpu))):
                continue
            if measure.narrowed and not (counts and per_node):
                continue
            name = say(label) if not measure.narrowed else name_of(measure)
            apart = limits.apart(measure)
            adds = choice.nodes * per_node if counts else 0
            if any(own.holds_for(choice.pool, choice.gpu_model) for own in apart):
                adds = 0
            bars.append(
                Bar(
                    key={"total_cpu": "cpu", "total_memory": "memory", "total_gpu": "gpu"}[resource],
                    label=name,
                    held=round(held.counts(measure, apart) / unit, 3 if resource == "total_cpu" else 1),
                    adds=round(adds / unit, 3 if resource == "total_cpu" else 1),
                    limit=round(amount / unit, 3 if resource == "total_cpu" else 1),
                    unit=unit_name,
                )
            )
    for measure in limits.budgets:
        if measure.resource == "gpu_hours" and not choice.gpu:
            continue
        if measure.holds_for(choice.pool, choice.gpu_model):
            bars.append(budget_bar(measure, limits.amount(measure) or 0, (spent or {}).get(measure), today))
    return tuple(bars)


def budget_bar(measure: Measure, amount: int, spent: Spent | None, today: date | None = None) -> Bar:
    """A budget: used, of how much, and when it begins anew."""
    return Bar(
        key=str(measure),
        label=name_of(measure, now=True),
        held=round((spent.used if spent else 0) / 1000, 1),
        adds=0,
        limit=amount / 1000,
        note=begins_anew(spent.renews_on if spent else "", today),
    )


def begins_anew(renews_on: str, today: date | None = None) -> Said | None:
    """``begins anew on Monday`` within a week, else with the date."""
    if not renews_on:
        return None
    day = day_said(date.fromisoformat(renews_on), today) if today else renews_on
    return say(mark("begins anew on {day}"), day=day)


def together(choice: Choice) -> Said:
    """``Together 8 cores, 32 GB``: the sum over the nodes."""
    sums = {
        "cores": cores(choice.nodes * choice.cpu_millicores),
        "memory": memory(choice.nodes * choice.memory_bytes),
    }
    if choice.gpu:
        return say(mark("Together {cores}, {memory}, {gpus}"), gpus=cards(choice.nodes * choice.gpu), **sums)
    return say(mark("Together {cores}, {memory}"), **sums)


def pool_of(wanted: str, pools: Sequence[PoolOption]) -> str:
    """The pool that is filled in; empty where there is nothing to choose."""
    if len(pools) < 2:
        return ""
    names = [pool.name for pool in pools]
    return next((name for name in (wanted, "default") if name in names), names[0])


def run_form(
    settings: Settings,
    limits: Limits,
    held: Held,
    wanted: Choice,
    pools: Sequence[PoolOption] = (),
    gpu_models: Sequence[ModelOption] = (),
    never: Said | None = None,
    *,
    offered: Sequence[str],
    default: str,
    spent: Mapping[Measure, Spent] | None = None,
    today: date | None = None,
    until: Callable[[Granted], Said] | None = None,
) -> RunForm:
    """The drawer for a wish: cut down to what may be had, every limit with its reason.

    Parameters
    ----------
    settings, limits, held
        The site's, and the person's.
    wanted
        What is filled in at first.
    pools
        Those that the person may use; shown when there is more than one.
    gpu_models
        Those that can be chosen by name.
    never
        Why the machines could never hold the wish; ``None`` when they could.
    offered, default
        Release policies that the person may pick, and the one of them that is filled in.
    spent
        Of each budget.
    today
        The site's day, for the names of days.
    until
        Says how long an exception lasts.
    """
    choice = clamp(replace(wanted, pool=pool_of(wanted.pool, pools)), limits, offered, default)
    sizes = tuple(
        SizeOption(
            key=key,
            title=size.title,
            cpu_millicores=size.cpu,
            memory_bytes=size.memory,
            reason=_too_large(size.cpu, size.memory, limits),
        )
        for key, size in settings.sizes.items()
    )
    picked = next(
        (
            size.key
            for size in sizes
            if not size.reason
            and (size.cpu_millicores, size.memory_bytes) == (choice.cpu_millicores, choice.memory_bytes)
        ),
        CUSTOM,
    )
    models = tuple(replace(model, reason=_no_card(limits, model.name)) for model in gpu_models)
    gpu_most = cards_most(limits, ("", *(model.name for model in models)))
    return RunForm(
        choice=choice,
        size=picked,
        sizes=sizes,
        nodes_most=max(min(limits.nodes, NODES_MOST), 1),
        nodes_reason=bound_said(limits, "nodes", until),
        cpu_most_millicores=min(limits.cpu, 10**9),
        cpu_reason=bound_said(limits, "cpu", until),
        memory_most_bytes=min(limits.memory, 2**50),
        memory_reason=bound_said(limits, "memory", until),
        gpu_most=gpu_most,
        gpu_reason=_cards_said(limits, gpu_most, until)
        if gpu_most or limits.gpu or settings.gpu_models
        else None,
        gpu_any=_no_card(limits, "") if gpu_most else None,
        gpu_models=models if gpu_most else (),
        pools=tuple(replace(pool, reason=_no_pool(limits, pool.name)) for pool in pools)
        if len(pools) > 1
        else (),
        environments=tuple(
            EnvironmentOption(
                name=name, title=entry.title, description=entry.description, gpu=entry.gpu or entry.needs_gpu
            )
            for name, entry in settings.environments.items()
        ),
        releases=tuple(offered) or (default,),
        bars=bars_of(choice, limits, held, spent, today),
        together=together(choice),
        refusal=refusal_of(choice, limits, held, spent) or never,
        clamped=replace(choice, pool="") != replace(wanted, pool=""),
    )


_BOUND_WORDS = {"nodes": nodes, "cpu": cores, "memory": memory, "gpu": cards, "total_gpu": cards}


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


_AT_MOST = (mark("at most {limit} per node"), mark("at most {limit}"))


def _cards_said(limits: Limits, most: int, until: Callable[[Granted], Said] | None) -> Said | None:
    if not most:
        return say(mark("Your role: no GPUs"))
    own = next((e.exception for e in limits.of("gpu") if e.exception is not None and e.amount != 0), None)
    if own is None and most >= CARDS_MOST:
        return None
    return _whose(own, say(_AT_MOST[0], limit=cards(most)), until)


def _no_card(limits: Limits, model: str) -> Said | None:
    """Why no card of a model (empty = any kind) can be had."""
    return None if cards_most(limits, (model,)) else say(mark("not for your role"))


def _no_pool(limits: Limits, pool: str) -> Said | None:
    for resource in ("clusters", "nodes", "total_cpu", "total_memory", "cpu", "memory"):
        if limits.amount(Measure(resource, pool)) == 0:
            return say(mark("not for your role"))
    return None


def _too_large(cpu_millicores: int, memory_bytes: int, limits: Limits) -> Said | None:
    if cpu_millicores > limits.cpu:
        return bound_said(limits, "cpu")
    if memory_bytes > limits.memory:
        return bound_said(limits, "memory")
    return None


def _percent(part: float, whole: float) -> float:
    if whole <= 0:
        return 100.0 if part > 0 else 0.0
    return round(min(100.0 * part / whole, 100.0), 1)


def gigabytes_text(size_bytes: int) -> str:
    """What a field of gigabytes holds, exact to the megabyte, because it is sent back: ``8``, ``0.0625``."""
    return f"{round(size_bytes / MIB) / 1024:.10f}".rstrip("0").rstrip(".")


_HOURS = {"2h": 2, "4h": 4, "8h": 8, "16h": 16, "24h": 24}
_DAYS = {"2d": 2, "3d": 3, "4d": 4, "5d": 5, "6d": 6, "7d": 7}


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
