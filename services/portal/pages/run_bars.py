"""The bars at the foot of the Run drawer: what is held, what a start adds, of how much (CG-32, BX-20); pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import date

from extensions.quota.limits import Held, Limits
from extensions.quota.measures import BUDGETS, Measure
from extensions.quota.rules import Spent
from galilean.amounts import GIB, plain_number
from galilean.errors import mark
from services.portal.measures_said import name_of
from services.portal.pages.run_choice import Choice
from services.portal.quotas import day_said
from services.portal.said import Said, say


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


def _percent(part: float, whole: float) -> float:
    if whole <= 0:
        return 100.0 if part > 0 else 0.0
    return round(min(100.0 * part / whole, 100.0), 1)
