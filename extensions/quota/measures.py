"""What a limit can be of, in which unit, and how people write it (CG-28, BX-10).

A *measure* is a resource, and where it is narrower a pool, a GPU model or a period: ``cpu``,
``total_gpu(a100)``, ``clusters@college``, ``core_hours/week``. That form is the same in files, in the API
and in the audit log; pages have words of their own.

Amounts are whole numbers in the resource's unit: counts, milli-cores, bytes, milli-hours, or 0 and 1 for
yes and no. ``None`` is "no limit", which is said and never just left out: an empty field is refused.
Resources that begin with ``total_`` are of one person over all clusters, those that begin with ``role_`` of
all people of a role together.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Any, Literal

from galilean.amounts import GIB, KIB, MIB, TIB, parse_bytes
from galilean.errors import UserError, mark

Unit = Literal["count", "cpu", "bytes", "hours", "flag"]
PERIODS = ("day", "week", "month", "term")
NO_LIMIT_WORDS = frozenset({"no limit", "unlimited", "none", "没有限制", "不限", "无限制"})
_YES = frozenset({"yes", "true", "on", "1", "是"})
_NO = frozenset({"no", "false", "off", "0", "否"})


@dataclass(frozen=True)
class Resource:
    """What can be limited.

    Attributes
    ----------
    unit
        Of its amounts.
    by_pool, by_model
        Whether a limit may be of one pool, of one GPU model only.
    budget
        Whether it is used up over a period, which a measure of it must name.
    default
        What a role that says nothing about it has (TI-45); ``None`` = no limit.
    """

    name: str
    unit: Unit
    by_pool: bool = True
    by_model: bool = False
    budget: bool = False
    default: int | None = None

    @property
    def most(self) -> int:
        """The largest amount that can be written; a typing mistake beyond it is refused."""
        return {
            "count": 100_000,
            "cpu": 1000 * 1_000_000,
            "bytes": 1024 * 1024 * TIB,
            "hours": 1000 * 1_000_000_000,
            "flag": 1,
        }[self.unit]


RESOURCES: dict[str, Resource] = {
    resource.name: resource
    for resource in (
        Resource("clusters", "count", default=1),
        Resource("total_cpu", "cpu", default=4000),
        Resource("total_memory", "bytes", default=16 * GIB),
        Resource("total_gpu", "count", by_model=True, default=0),
        Resource("total_storage", "bytes"),
        Resource("nodes", "count", default=2),
        Resource("cpu", "cpu", default=2000),
        Resource("memory", "bytes", default=8 * GIB),
        Resource("gpu", "count", by_model=True, default=0),
        Resource("storage", "bytes", default=20 * GIB),
        Resource("kept", "bytes", by_pool=False),
        Resource("upload", "bytes", by_pool=False, default=GIB),
        Resource("manual_release", "flag", by_pool=False, default=0),
        Resource("core_hours", "hours", budget=True),
        Resource("gpu_hours", "hours", by_model=True, budget=True),
        Resource("role_clusters", "count"),
        Resource("role_cpu", "cpu"),
        Resource("role_memory", "bytes"),
        Resource("role_gpu", "count", by_model=True),
    )
}
#: Units by resource; resources with a budget; per node; over all clusters of a person; of a role together.
UNITS: dict[str, Unit] = {name: resource.unit for name, resource in RESOURCES.items()}
BUDGETS = tuple(name for name, resource in RESOURCES.items() if resource.budget)
PER_NODE = ("cpu", "memory", "gpu", "storage")
TOTALS = ("clusters", "total_cpu", "total_memory", "total_gpu", "total_storage")
TOGETHER = ("role_clusters", "role_cpu", "role_memory", "role_gpu")
_ORDER = {name: place for place, name in enumerate(RESOURCES)}
_NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}"
_MEASURE = re.compile(rf"([a-z_]+)(?:\(({_NAME})\))?(?:@({_NAME}))?(?:/([a-z]+))?", re.ASCII)
_UNITS = (("T", TIB), ("G", GIB), ("M", MIB), ("K", KIB))


@dataclass(frozen=True)
class Measure:
    """A resource, narrowed to a pool, a GPU model or a period where these are not empty."""

    resource: str
    pool: str = ""
    gpu_model: str = ""
    period: str = ""

    def __str__(self) -> str:
        model = f"({self.gpu_model})" if self.gpu_model else ""
        pool = f"@{self.pool}" if self.pool else ""
        period = f"/{self.period}" if self.period else ""
        return f"{self.resource}{model}{pool}{period}"

    def __lt__(self, other: Measure) -> bool:
        return self._place < other._place

    @property
    def _place(self) -> tuple[Any, ...]:
        period = PERIODS.index(self.period) if self.period in PERIODS else -1
        return _ORDER.get(self.resource, len(_ORDER)), period, self.pool, self.gpu_model

    @property
    def narrowed(self) -> bool:
        """Whether it is of one pool or one GPU model only."""
        return bool(self.pool or self.gpu_model)

    @property
    def unit(self) -> Unit:
        return RESOURCES[self.resource].unit

    def holds_for(self, pool: str, gpu_model: str) -> bool:
        """Whether something in this pool, with cards of this model, counts for it."""
        return self.pool in ("", pool) and self.gpu_model in ("", gpu_model)

    def contains(self, other: Measure) -> bool:
        """Whether ``other`` is the same or a narrower part of this."""
        return (
            (self.resource, self.period) == (other.resource, other.period)
            and self.pool in ("", other.pool)
            and self.gpu_model in ("", other.gpu_model)
        )

    @classmethod
    def parse(cls, text: str) -> Measure:
        """The measure that ``str()`` wrote.

        Raises
        ------
        UserError
            400 in words.
        """
        found = _MEASURE.fullmatch(text.strip()) if isinstance(text, str) else None
        if found is None:
            raise UserError(
                400,
                mark(
                    "“{text}” is not something to limit. It is written like cpu, gpu(a100) or core_hours/week."
                ),
                text=str(text)[:60],
            )
        return check(cls(found[1], found[3] or "", found[2] or "", found[4] or ""))


def check(
    measure: Measure, *, pools: Collection[str] | None = None, models: Collection[str] | None = None
) -> Measure:
    """The measure, when there can be a limit of it.

    ``pools`` and ``models`` are those of the site; ``None`` = not looked at.

    Raises
    ------
    UserError
        400 in words.
    """
    resource = RESOURCES.get(measure.resource)
    if resource is None:
        raise UserError(
            400,
            mark("There is nothing to limit called “{name}”. There are: {known}."),
            name=measure.resource[:60],
            known=", ".join(RESOURCES),
        )
    if resource.budget and measure.period not in PERIODS:
        raise UserError(
            400,
            mark("“{name}” is a budget over time: say which, such as {example}. There are: {known}."),
            name=measure.resource,
            example=f"{measure.resource}/week",
            known=", ".join(PERIODS),
        )
    if measure.period and not resource.budget:
        raise UserError(400, mark("“{name}” has no period: it is of a moment."), name=measure.resource)
    if measure.pool and not resource.by_pool:
        raise UserError(400, mark("“{name}” cannot be of one pool."), name=measure.resource)
    if measure.gpu_model and not resource.by_model:
        raise UserError(400, mark("“{name}” cannot be of one GPU model."), name=measure.resource)
    if measure.pool and pools is not None and measure.pool not in pools:
        raise UserError(400, mark("There is no pool “{pool}”."), pool=measure.pool)
    if measure.gpu_model and models is not None and measure.gpu_model not in models:
        raise UserError(400, mark("There is no GPU model “{model}”."), model=measure.gpu_model)
    return measure


def check_amount(measure: Measure, amount: int | None) -> int | None:
    """The amount, when it can be one of this measure.

    Raises
    ------
    UserError
        400 in words.
    """
    if amount is None:
        return None
    if isinstance(amount, bool) or not isinstance(amount, int):
        raise _not_an_amount(measure.resource)
    resource = RESOURCES[measure.resource]
    if amount < 0:
        raise UserError(400, mark("“{name}”: a limit cannot be negative."), name=str(measure))
    if amount > resource.most:
        raise UserError(
            400,
            mark("“{name}”: at most {most}. For more, say “no limit”."),
            name=str(measure),
            most=written(measure.resource, resource.most),
        )
    return amount


def parse_amount(resource: str, value: Any) -> int | None:
    """An amount as people write it: ``4``, ``"48 GB"``, ``0.5``, ``"no limit"``, ``true``.

    Raises
    ------
    UserError
        400 in words: empty, negative, huge, finer than the unit, or something else.
    """
    measure = Measure(resource)
    unit = RESOURCES[resource].unit
    if value is None or (isinstance(value, str) and value.strip().casefold() in NO_LIMIT_WORDS):
        return None
    if isinstance(value, str) and not value.strip():
        raise UserError(
            400, mark("“{name}”: nothing is said. Give an amount, or say “no limit”."), name=resource
        )
    if unit == "flag":
        return _flag(resource, value)
    if isinstance(value, bool):
        raise _not_an_amount(resource)
    if unit == "bytes":
        text = value.strip() if isinstance(value, str) else value
        if _number(text) is not None and _number(text) < 0:  # type: ignore[operator]
            raise UserError(400, mark("“{name}”: a limit cannot be negative."), name=resource)
        try:
            return check_amount(measure, parse_bytes(int(text) if _digits(text) else text))
        except ValueError:
            raise _not_an_amount(resource) from None
    number = _number(value)
    if number is None:
        raise _not_an_amount(resource)
    if number < 0:
        raise UserError(400, mark("“{name}”: a limit cannot be negative."), name=resource)
    amount = number * (1 if unit == "count" else 1000)
    if amount > RESOURCES[resource].most:
        return check_amount(measure, RESOURCES[resource].most + 1)
    if amount != int(amount):
        raise UserError(
            400,
            mark("“{name}” takes a whole number.")
            if unit == "count"
            else mark("“{name}” takes thousandths at the finest."),
            name=resource,
        )
    return check_amount(measure, int(amount))


def written(resource: str, amount: int | None) -> str | int | float | bool | None:
    """The amount as files and the API write it, exactly; :func:`parse_amount` reads it back."""
    if amount is None:
        return None
    unit = RESOURCES[resource].unit
    if unit == "flag":
        return bool(amount)
    if unit == "bytes":
        return next(
            (f"{amount // size}{letter}" for letter, size in _UNITS if amount and amount % size == 0), amount
        )
    if unit == "count":
        return amount
    return amount // 1000 if amount % 1000 == 0 else amount / 1000


def _flag(resource: str, value: Any) -> int:
    if isinstance(value, bool) or (isinstance(value, int) and value in (0, 1)):
        return int(value)
    word = value.strip().casefold() if isinstance(value, str) else ""
    if word not in _YES | _NO:
        raise UserError(400, mark("“{name}” takes yes or no."), name=resource)
    return int(word in _YES)


def _digits(value: Any) -> bool:
    return isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= 20


def _number(value: Any) -> Decimal | None:
    if isinstance(value, bool):
        return None
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, int | float):
        return Decimal(repr(value)) if abs(value) < 10**30 else Decimal(10**30 if value > 0 else -1)
    if (
        isinstance(value, str)
        and len(value) <= 40
        and re.fullmatch(r"[+-]?\d+(\.\d+)?", value.strip(), re.ASCII)
    ):
        try:
            return Decimal(value.strip())
        except InvalidOperation:
            return None
    return None


def _not_an_amount(resource: str) -> UserError:
    examples = {"bytes": "8G", "flag": "yes"}
    return UserError(
        400,
        mark("“{name}” takes an amount such as {example}, or “no limit”."),
        name=resource,
        example=examples.get(RESOURCES[resource].unit, "4"),
    )
