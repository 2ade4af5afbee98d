"""Measures of limits in words, and amounts as administrators type them (CG-28, CG-29).

One place says what a row of the matrix is called, in which order rows stand, how an amount reads ("48 GB",
"no limit", "yes"), and what somebody may type into a cell. The same words stand in the matrix, in the
difference, beside an exception, on the home page and in the Run form.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from typing import Any

from extensions.quota.measures import RESOURCES, TOGETHER, UNITS, Measure, check_amount
from galilean.amounts import GIB, MIB, TIB, parse_bytes, plain_number
from galilean.errors import UserError, mark
from services.portal.said import Said, Translate, counted, say

#: Groups of the matrix with the resources that always stand in them.
AT_A_TIME = ("clusters", "total_cpu", "total_memory", "total_gpu", "total_storage")
IN_ONE = ("nodes", "cpu", "memory", "gpu", "storage")
OTHERWISE = ("kept", "upload", "manual_release")
#: Limits of one person; those of a role together have a group of their own.
PERSONAL = tuple(name for name in RESOURCES if name not in TOGETHER)

_NAMES = {
    "clusters": mark("Clusters"),
    "total_cpu": mark("Cores"),
    "total_memory": mark("Memory"),
    "total_gpu": mark("GPUs"),
    "total_storage": mark("Storage"),
    "nodes": mark("Nodes"),
    "cpu": mark("Cores per node"),
    "memory": mark("Memory per node"),
    "gpu": mark("GPUs per node"),
    "storage": mark("Storage per node"),
    "kept": mark("Files kept"),
    "upload": mark("One upload"),
    "manual_release": mark("Keep until released by hand"),
    "role_clusters": mark("Clusters"),
    "role_cpu": mark("Cores"),
    "role_memory": mark("Memory"),
    "role_gpu": mark("GPUs"),
}
_FULL_NAMES = _NAMES | {
    "clusters": mark("Clusters at a time"),
    "total_cpu": mark("Cores at a time"),
    "total_memory": mark("Memory at a time"),
    "total_gpu": mark("GPUs at a time"),
    "total_storage": mark("Storage in all"),
    "nodes": mark("Nodes in one cluster"),
    "role_clusters": mark("Clusters of all together"),
    "role_cpu": mark("Cores of all together"),
    "role_memory": mark("Memory of all together"),
    "role_gpu": mark("GPUs of all together"),
}
_BUDGET_NAMES = {
    ("gpu_hours", "day"): mark("GPU hours per day"),
    ("gpu_hours", "week"): mark("GPU hours per week"),
    ("gpu_hours", "month"): mark("GPU hours per month"),
    ("gpu_hours", "term"): mark("GPU hours per term"),
    ("core_hours", "day"): mark("Core hours per day"),
    ("core_hours", "week"): mark("Core hours per week"),
    ("core_hours", "month"): mark("Core hours per month"),
    ("core_hours", "term"): mark("Core hours per term"),
}
_NOW_NAMES = {
    ("gpu_hours", "day"): mark("GPU hours today"),
    ("gpu_hours", "week"): mark("GPU hours this week"),
    ("gpu_hours", "month"): mark("GPU hours this month"),
    ("gpu_hours", "term"): mark("GPU hours this term"),
    ("core_hours", "day"): mark("Core hours today"),
    ("core_hours", "week"): mark("Core hours this week"),
    ("core_hours", "month"): mark("Core hours this month"),
    ("core_hours", "term"): mark("Core hours this term"),
}
NO_LIMIT = mark("no limit")
YES, NO = mark("yes"), mark("no")
_NO_LIMIT_TYPED = frozenset(
    {"no limit", "unlimited", "none", "any", "∞", "-", "–", "—", "*", "无限制", "不限", "不限制", "无"}
)
_YES_TYPED = frozenset({"yes", "y", "1", "true", "on", "是", "可以", "允许"})
_NO_TYPED = frozenset({"no", "n", "0", "false", "off", "否", "不", "不可以", "不允许"})
_NUMBER = re.compile(r"(\d{1,15}(?:\.\d{1,6})?)\s*(\D*)", re.ASCII)


def is_budget(measure: Measure) -> bool:
    """Whether it is used up over a period."""
    return RESOURCES[measure.resource].budget


def _narrowed(name: Said, measure: Measure, pools: Mapping[str, str], models: Mapping[str, str]) -> Said:
    if measure.gpu_model:
        model = models.get(measure.gpu_model, measure.gpu_model)
        name = say(mark("{name}, {model}"), name=name, model=model)
    if measure.pool:
        name = say(mark("{name}, pool {pool}"), name=name, pool=pools.get(measure.pool, measure.pool))
    return name


def name_of(
    measure: Measure,
    *,
    full: bool = False,
    now: bool = False,
    pools: Mapping[str, str] | None = None,
    models: Mapping[str, str] | None = None,
) -> Said:
    """What a measure is called.

    Parameters
    ----------
    measure
        Which.
    full
        Where no heading of a group stands above it ("GPUs at a time").
    now
        Of a budget: in the present period ("GPU hours this week").
    pools, models
        What pools and models of GPU are called.
    """
    if is_budget(measure):
        names = _NOW_NAMES if now else _BUDGET_NAMES
        name = say(names[(measure.resource, measure.period)])
    else:
        name = say((_FULL_NAMES if full else _NAMES)[measure.resource])
    return _narrowed(name, measure, pools or {}, models or {})


def amount_said(measure: Measure, amount: int | None) -> Said:
    """An amount as it reads: ``12``, ``48 GB``, ``no limit``, ``yes``."""
    if measure.resource == "manual_release":
        return say(YES if amount is None or amount else NO)
    if amount is None:
        return say(NO_LIMIT)
    return say("{amount}", amount=amount_text(measure, amount))


def amount_with_unit(measure: Measure, amount: int | None) -> Said:
    """An amount that stands alone in a sentence: ``1 GPU``, ``40 GPU hours``, ``48 GB``."""
    if amount is None or measure.resource == "manual_release":
        return amount_said(measure, amount)
    number = amount / 1000 if UNITS[measure.resource] in ("cpu", "hours") else amount
    words = {
        "clusters": (mark("{n}\u00a0cluster"), mark("{n}\u00a0clusters")),
        "nodes": (mark("{n}\u00a0node"), mark("{n}\u00a0nodes")),
        "cpu": (mark("{n}\u00a0core per node"), mark("{n}\u00a0cores per node")),
        "total_cpu": (mark("{n}\u00a0core"), mark("{n}\u00a0cores")),
        "gpu": (mark("{n}\u00a0GPU per node"), mark("{n}\u00a0GPUs per node")),
        "total_gpu": (mark("{n}\u00a0GPU"), mark("{n}\u00a0GPUs")),
        "gpu_hours": (mark("{n}\u00a0GPU hour"), mark("{n}\u00a0GPU hours")),
        "core_hours": (mark("{n}\u00a0core hour"), mark("{n}\u00a0core hours")),
    }
    if measure.resource in words:
        return counted(number, *words[measure.resource])
    return amount_said(measure, amount)


def amount_text(measure: Measure, amount: int) -> str:
    """A number with its unit, the same in every language: ``12``, ``0.5``, ``48 GB``, ``40``."""
    unit = UNITS[measure.resource]
    if unit == "bytes":
        if amount >= TIB and amount % TIB == 0:
            return f"{amount // TIB}\u00a0TB"
        if amount >= GIB or not amount:
            return f"{plain_number(amount / GIB)}\u00a0GB"
        if amount >= MIB:
            return f"{plain_number(amount / MIB)}\u00a0MB"
        return f"{amount}\u00a0B"
    if unit in ("cpu", "hours"):
        return plain_number(amount / 1000)
    return str(amount)


def amount_typed(measure: Measure, amount: int | None, translate: Translate = str) -> str:
    """What a field holds when somebody begins to change an amount: ``48 GB``, ``no limit``."""
    return amount_said(measure, amount).text(translate).replace("\u00a0", " ")


def parse_amount(measure: Measure, value: Any) -> int | None:
    """An amount as people type it; ``None`` = no limit.

    A bare number of memory is GB, as text; a whole number (of the API) is bytes. Numbers may be grouped
    (``1 200``, ``1,200``).

    Raises
    ------
    UserError
        400 with what may be typed instead.
    """
    if value is None:
        return None
    if isinstance(value, bool):
        text = "yes" if value else "no"
    elif isinstance(value, float):
        text = f"{value:.6f}".rstrip("0").rstrip(".")
    else:
        text = str(value)
    typed = " ".join(text.replace("\u00a0", " ").replace("\u202f", " ").split()).casefold()
    unit = UNITS[measure.resource]
    if unit == "flag":
        if typed in _YES_TYPED or typed in _NO_TYPED:
            return int(typed in _YES_TYPED)
        raise UserError(400, mark("Say yes or no."))
    if typed in _NO_LIMIT_TYPED:
        return None
    wrong = UserError(400, _EXAMPLES[unit])
    plain = re.sub(r"(?<=\d)[ ,](?=\d{3}(?!\d))", "", typed)
    found = _NUMBER.fullmatch(plain)
    if found is None:
        raise wrong
    number, word = found[1], found[2].strip()
    try:
        if unit == "bytes":
            amount = parse_bytes(number + (word or ("g" if isinstance(value, str) else "b")))
        else:
            words = {
                "cpu": ("", "core", "cores", "cpu", "cpus", "核"),
                "hours": ("", "h", "hours", "hour", "小时"),
            }
            if word not in words.get(unit, ("",)):
                raise wrong
            exact = Decimal(number) * (1000 if unit in ("cpu", "hours") else 1)
            if exact != exact.to_integral_value():
                raise wrong
            amount = int(exact)
    except (ValueError, InvalidOperation):
        raise wrong from None
    if amount > RESOURCES[measure.resource].most:
        raise UserError(400, mark("That is more than can be counted. Say “no limit” instead."))
    return check_amount(measure, amount)


_EXAMPLES = {
    "count": mark("Say a whole number such as 4, or “no limit”."),
    "cpu": mark("Say a number of cores such as 8 or 0.5, or “no limit”."),
    "bytes": mark("Say an amount such as 48 GB, or “no limit”."),
    "hours": mark("Say a number of hours such as 40, or “no limit”."),
}
