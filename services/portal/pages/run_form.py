"""What the Run drawer offers, and what a choice comes to (CG-3, CG-4, CG-30, CG-32, TI-15, BX-20).

The drawer never lets somebody press a button that then fails: what cannot be had is disabled with the
reason beside it. So the same rules that admission applies are applied here, to be *shown*; admission stays
the one that decides, because two tabs may press at once.

Everything is per node except the number of nodes. The sum below the form ("Together …") is computed again
in the page while somebody changes it; the numbers and the sentences for that come from here, so there is
one source for both. Pure: settings, limits and what is held are handed in.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from extensions.quota.limits import Held, Limits
from galilean.amounts import GIB, MIB, parse_bytes, parse_millicores, plain_number
from galilean.errors import mark
from galilean.settings import Settings
from services.portal.said import Said, cards, cores, memory, nodes, say, size_of_node

CUSTOM = "custom"
CORE_STEP_MILLICORES = 500


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


@dataclass(frozen=True, kw_only=True)
class ModelOption:
    """A model of GPU card to pick, with how many are free now."""

    name: str
    title: str
    free: int

    @property
    def words(self) -> Said:
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
    label: str
    held: float
    adds: float
    limit: float
    unit: str = ""

    @property
    def numbers(self) -> str:
        """``8 + 8 of 24``, without unit."""
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
    nodes_reason: Said
    cpu_most_millicores: int
    cpu_reason: Said
    memory_most_bytes: int
    memory_reason: Said
    gpu_most: int
    gpu_reason: Said | None
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


def allowed_releases(settings: Settings, limits: Limits) -> tuple[str, ...]:
    """The offered release policies that this person may pick (CG-30, CG-32)."""
    return tuple(name for name in settings.release.offered if name != "manual" or limits.manual_release) or (
        settings.defaults.release,
    )


def clamp(choice: Choice, settings: Settings, limits: Limits) -> Choice:
    """The choice cut down to what one cluster of this person may be; never below one node."""
    releases = allowed_releases(settings, limits)
    release = choice.release
    if release not in releases:
        release = settings.defaults.release if settings.defaults.release in releases else releases[0]
    return replace(
        choice,
        nodes=max(1, min(choice.nodes, limits.nodes)),
        cpu_millicores=min(choice.cpu_millicores, limits.cpu) or choice.cpu_millicores,
        memory_bytes=min(choice.memory_bytes, limits.memory) or choice.memory_bytes,
        gpu=min(choice.gpu, limits.gpu),
        release=release,
    )


def refusal_of(choice: Choice, limits: Limits, held: Held) -> Said | None:
    """Why this choice would not be admitted now, with the numbers; ``None`` when it would (TI-15)."""
    if held.clusters + 1 > limits.clusters:
        if limits.clusters == 0:
            return say(mark("Your role may not run clusters. Ask the centre for more."))
        return say(
            mark("You hold {held} of {limit} clusters. Release one to start another."),
            held=held.clusters,
            limit=limits.clusters,
        )
    checks = (
        (choice.nodes, limits.nodes, nodes, mark("Your role: at most {limit}.")),
        (choice.cpu_millicores, limits.cpu, cores, mark("Your role: at most {limit} per node.")),
        (choice.memory_bytes, limits.memory, memory, mark("Your role: at most {limit} per node.")),
        (choice.gpu, limits.gpu, cards, mark("Your role: at most {limit} per node.")),
    )
    for asked, limit, words, message in checks:
        if asked > limit:
            return say(message, limit=words(limit))
    sums = (
        (held.cpu_millicores, choice.nodes * choice.cpu_millicores, limits.total_cpu, cores),
        (held.memory_bytes, choice.nodes * choice.memory_bytes, limits.total_memory, memory),
        (held.gpu, choice.nodes * choice.gpu, limits.total_gpu, cards),
    )
    for has, adds, limit, words in sums:
        if adds and has + adds > limit:
            return say(
                mark("Together {asked}, but {free} of your {limit} are free."),
                asked=words(adds),
                free=words(max(limit - has, 0)),
                limit=words(limit),
            )
    return None


def bars_of(choice: Choice, limits: Limits, held: Held) -> tuple[Bar, ...]:
    """The bars of the foot: held solid, what this start adds hatched."""
    bars = [
        Bar(
            key="cpu",
            label=mark("Cores"),
            held=held.cpu_millicores / 1000,
            adds=choice.nodes * choice.cpu_millicores / 1000,
            limit=limits.total_cpu / 1000,
        ),
        Bar(
            key="memory",
            label=mark("Memory"),
            held=round(held.memory_bytes / GIB, 1),
            adds=round(choice.nodes * choice.memory_bytes / GIB, 1),
            limit=round(limits.total_memory / GIB, 1),
            unit="GB",
        ),
    ]
    if limits.gpu:
        bars.append(
            Bar(
                key="gpu",
                label=mark("GPUs"),
                held=held.gpu,
                adds=choice.nodes * choice.gpu,
                limit=limits.total_gpu,
            )
        )
    return tuple(bars)


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
    """
    choice = clamp(replace(wanted, pool=pool_of(wanted.pool, pools)), settings, limits)
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
    gpu_reason = None
    if limits.gpu and not limits.total_gpu:
        gpu_reason = say(mark("Your role: no GPUs at the moment"))
    elif limits.gpu:
        gpu_reason = say(mark("Your role: at most {limit} per node"), limit=cards(limits.gpu))
    return RunForm(
        choice=choice,
        size=picked,
        sizes=sizes,
        nodes_most=max(limits.nodes, 1),
        nodes_reason=say(mark("Your role: at most {limit}"), limit=nodes(limits.nodes)),
        cpu_most_millicores=limits.cpu,
        cpu_reason=say(mark("Your role: at most {limit} per node"), limit=cores(limits.cpu)),
        memory_most_bytes=limits.memory,
        memory_reason=say(mark("Your role: at most {limit} per node"), limit=memory(limits.memory)),
        gpu_most=limits.gpu if limits.total_gpu else 0,
        gpu_reason=gpu_reason,
        gpu_models=tuple(gpu_models),
        pools=tuple(pools) if len(pools) > 1 else (),
        environments=tuple(
            EnvironmentOption(name=name, title=entry.title, description=entry.description, gpu=entry.gpu)
            for name, entry in settings.environments.items()
        ),
        releases=allowed_releases(settings, limits),
        bars=bars_of(choice, limits, held),
        together=together(choice),
        refusal=refusal_of(choice, limits, held) or never,
        clamped=replace(choice, pool="") != replace(wanted, pool=""),
    )


def _too_large(cpu_millicores: int, memory_bytes: int, limits: Limits) -> Said | None:
    if cpu_millicores > limits.cpu:
        return say(mark("Your role: at most {limit} per node"), limit=cores(limits.cpu))
    if memory_bytes > limits.memory:
        return say(mark("Your role: at most {limit} per node"), limit=memory(limits.memory))
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
