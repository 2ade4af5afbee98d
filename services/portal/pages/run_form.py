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

from extensions.quota.limits import Granted, Held, Limits
from extensions.quota.measures import Measure
from extensions.quota.rules import Spent
from galilean.errors import mark
from galilean.settings import EnvironmentSettings, Settings
from services.portal.pages.run_bars import Bar, bars_of
from services.portal.pages.run_choice import NODES_MOST, Choice, cards_most, clamp
from services.portal.pages.run_words import (
    bound_said,
    cards_said,
    no_card,
    no_pool,
    refusal_of,
    together,
    too_large,
)
from services.portal.said import Said, say, size_of_node

CUSTOM = "custom"
CORE_STEP_MILLICORES = 500


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
class RunForm:
    """All that the drawer shows; for storage it asks where so much of it can be kept to."""

    choice: Choice
    size: str
    sizes: tuple[SizeOption, ...]
    nodes_most: int
    nodes_reason: Said | None
    cpu_most_millicores: int
    cpu_reason: Said | None
    memory_most_bytes: int
    memory_reason: Said | None
    storage_most_bytes: int
    storage_reason: Said | None
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
    storage_asked: bool = False

    @property
    def size_table(self) -> dict[str, dict[str, float]]:
        """Sizes by key, as the request takes them, for the page's script."""
        return {
            size.key: {"cpu": size.cpu_millicores / 1000, "memory": size.memory_bytes} for size in self.sizes
        }


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
    environments: Mapping[str, EnvironmentSettings] | None = None,
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
    environments
        That the person may pick; left out = those of the settings.
    """
    choice = clamp(replace(wanted, pool=pool_of(wanted.pool, pools)), limits, offered, default)
    sizes = tuple(
        SizeOption(
            key=key,
            title=size.title,
            cpu_millicores=size.cpu,
            memory_bytes=size.memory,
            reason=too_large(size.cpu, size.memory, limits),
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
    models = tuple(replace(model, reason=no_card(limits, model.name)) for model in gpu_models)
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
        storage_most_bytes=min(limits.storage, 2**50),
        storage_reason=bound_said(limits, "storage", until),
        storage_asked=settings.limits_storage,
        gpu_most=gpu_most,
        gpu_reason=cards_said(limits, gpu_most, until)
        if gpu_most or limits.gpu or settings.gpu_models
        else None,
        gpu_any=no_card(limits, "") if gpu_most else None,
        gpu_models=models if gpu_most else (),
        pools=tuple(replace(pool, reason=no_pool(limits, pool.name)) for pool in pools)
        if len(pools) > 1
        else (),
        environments=tuple(
            EnvironmentOption(
                name=name, title=entry.title, description=entry.description, gpu=entry.gpu or entry.needs_gpu
            )
            for name, entry in (environments or settings.environments).items()
        ),
        releases=tuple(offered) or (default,),
        bars=bars_of(choice, limits, held, spent, today),
        together=together(choice),
        refusal=refusal_of(choice, limits, held, spent) or never,
        clamped=replace(choice, pool="") != replace(wanted, pool=""),
    )
