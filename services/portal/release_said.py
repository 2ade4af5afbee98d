"""Release policies and their rules in words, and as administrators type them (CG-30).

Beside each policy stands what it does, in the same words for whoever offers it and whoever picks it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from galilean.amounts import plain_number
from galilean.errors import UserError, mark
from galilean.settings import RELEASE_POLICIES
from services.portal.said import Said, counted, say
from services.release.terms import WITNESS_LAG_SECONDS

#: The column of what holds for everybody whose role says nothing else.
EVERYBODY = "*"
#: As a value of a role: as everybody.
AS_EVERYBODY = "site"
FIELDS = ("offered", "default", "most_seconds", "idle_seconds", "idle_percent")
SITE_FIELDS = ("grace_seconds", "extend_seconds")
NAMES = {
    "offered": mark("Offered"),
    "default": mark("Filled in at first"),
    "most_seconds": mark("Goes back at the latest after"),
    "idle_seconds": mark("Goes back when idle for"),
    "idle_percent": mark("Idle means less than"),
    "grace_seconds": mark("Automatic waits after leaving"),
    "extend_seconds": mark("Extended by at most"),
}
#: Somebody who is there may be known so late, and whoever left so much later: no moment is left for a warning.
WARNS_NOBODY_SECONDS = 2 * WITNESS_LAG_SECONDS
_HOURS, _DAYS = re.compile(r"(\d+)h"), re.compile(r"(\d+)d")
_DURATION = re.compile(
    r"(\d{1,9}(?:\.\d{1,3})?)\s*(s|sec|seconds?|秒|min|minutes?|m|分钟|h|hours?|小时|d|days?|天)?", re.ASCII
)
_SECONDS = {"s": 1, "秒": 1, "m": 60, "分": 60, "h": 3600, "小": 3600, "d": 86400, "天": 86400}
_NONE_TYPED = frozenset({"none", "no", "never", "0", "-", "–", "no limit", "无", "不", "不限", "没有"})
_SITE_TYPED = frozenset({AS_EVERYBODY, "as everybody", "everybody", "与所有人相同", "同所有人"})


def hint(field: str) -> Said | None:
    """What stands small beside a rule's name; ``None`` = nothing."""
    if field == "grace_seconds":
        return say(mark("Up to {grace} nobody is warned before"), grace=duration(WARNS_NOBODY_SECONDS))
    return None


def short_name(policy: str) -> Said:
    """``automatic``, ``2 h``, ``by hand``: a policy in a table."""
    if policy == "auto":
        return say(mark("automatic"))
    if policy == "auto-when-done":
        return say(mark("automatic when done"))
    if policy == "manual":
        return say(mark("by hand"))
    if found := _HOURS.fullmatch(policy):
        return say(mark("{n}\u00a0h"), n=found[1])
    if found := _DAYS.fullmatch(policy):
        return say(mark("{n}\u00a0d"), n=found[1])
    return say("{policy}", policy=policy)


def explained(policy: str, grace_seconds: int) -> Said:
    """What a policy does, in a sentence or two."""
    if policy == "auto" and grace_seconds <= WARNS_NOBODY_SECONDS:
        return say(
            mark(
                "Goes back {grace} after the last page of the cluster was closed, without a warning: the wait is too "
                "short for one. Somebody who only looks away, or whose page is open in another tab, stays."
            ),
            grace=duration(grace_seconds),
        )
    if policy == "auto":
        return say(
            mark(
                "Goes back {grace} after the last page of the cluster was closed. Somebody who only looks "
                "away, or whose page is open in another tab, stays."
            ),
            grace=duration(grace_seconds),
        )
    if policy == "auto-when-done":
        return say(
            mark(
                "When the pages are closed, cells and commands that run go on and write their output into "
                "the notebook. It goes back as soon as nothing runs any more."
            )
        )
    if policy == "manual":
        return say(
            mark(
                "Stays until its person presses Release. Only for those whose role or an exception allows it."
            )
        )
    return say(
        mark(
            "Goes back so long after its person left the platform: closed all its pages, or signed out. Whoever "
            "comes back before keeps it."
        )
    )


def duration(seconds: int) -> Said:
    """``5 min``, ``8 h``, ``2 d``: whole where it is whole."""
    if seconds >= 86400 and seconds % 86400 == 0:
        return counted(seconds // 86400, mark("{n}\u00a0day"), mark("{n}\u00a0days"))
    if seconds >= 3600 and seconds % 1800 == 0:
        return say(mark("{n}\u00a0h"), n=plain_number(seconds / 3600))
    if seconds >= 60 and seconds % 60 == 0:
        return say(mark("{n}\u00a0min"), n=seconds // 60)
    return say(mark("{n}\u00a0s"), n=seconds)


def policies_said(policies: Sequence[str]) -> Said:
    """Several policies: ``automatic, 2 h``; all of them, or the number where there are many."""
    if set(policies) == set(RELEASE_POLICIES):
        return say(mark("all"))
    if not policies:
        return say("–")
    if len(policies) > 5:
        return say(mark("{n} of {all}"), n=len(policies), all=len(RELEASE_POLICIES))
    found = short_name(policies[0])
    for policy in policies[1:]:
        found = say(mark("{one}, {other}"), one=found, other=short_name(policy))
    return found


def value_said(field: str, value: Any, *, role: bool) -> Said:
    """A value as it stands in the table."""
    if value is None and role:
        return say(mark("as everybody"))
    if field == "offered":
        return policies_said(value or ())
    if field == "default":
        return short_name(str(value))
    if field == "idle_percent":
        return say(mark("{n}\u00a0% of what it holds"), n=value)
    if field == "extend_seconds" and value is None:
        return say(mark("the longest that is offered"))
    if not value:
        return say(mark("never") if field == "idle_seconds" else mark("no maximum"))
    return duration(value)


def value_typed(field: str, value: Any, *, role: bool) -> str:
    """What a cell holds when somebody begins to change it."""
    if value is None and role:
        return AS_EVERYBODY if field in ("offered", "default") else "as everybody"
    if field == "offered":
        return ",".join(value or ())
    if field == "default":
        return str(value)
    if field == "idle_percent":
        return f"{value} %"
    if not value:
        return "none"
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if value % size == 0:
            return f"{value // size} {unit}"
    return f"{value} s"


def parse_value(field: str, text: str, *, role: bool) -> Any:
    """A value as people type it.

    Parameters
    ----------
    field
        One of :data:`FIELDS` or :data:`SITE_FIELDS`.
    text
        What was typed.
    role
        Whether it is of a role, which may be as everybody.

    Raises
    ------
    UserError
        400 with what may be typed instead.
    """
    typed = " ".join(text.replace("\u00a0", " ").split()).casefold()
    if field not in FIELDS and (role or field not in SITE_FIELDS):
        raise UserError(400, mark("There is no rule of release called “{name}”."), name=field[:60])
    if role and typed in _SITE_TYPED:
        return None
    if field == "offered":
        names = [name.strip() for name in typed.split(",") if name.strip()]
        return tuple(names)
    if field == "default":
        return typed
    if field == "idle_percent":
        if found := re.fullmatch(r"(\d{1,3})\s*%?", typed, re.ASCII):
            return int(found[1])
        raise UserError(400, mark("Say a percentage such as 5."))
    if typed in _NONE_TYPED and field != "grace_seconds":
        return 0 if role else None
    found = _DURATION.fullmatch(typed)
    if found is None:
        raise UserError(400, mark("Say a time such as 30 min, 8 h or 2 d, or “none”."))
    unit = found[2] or "min"
    seconds = float(found[1]) * next(size for start, size in _SECONDS.items() if unit.startswith(start))
    return round(seconds)
