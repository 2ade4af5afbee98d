"""What somebody may hold, holds, and has left, limit by limit: for their own page and for administrators."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, tzinfo

from sqlalchemy import Connection

from extensions.quota.budgets import UsageOf, budgets_of, spent_by, used_by_intervals
from extensions.quota.held import held as held_of
from extensions.quota.limits import HELD_AS, Granted, Held, Limits
from extensions.quota.measures import RESOURCES, Measure
from extensions.quota.periods import Calendar
from extensions.quota.rules import Spent


@dataclass(frozen=True, kw_only=True)
class Standing:
    """One limit of a person.

    Attributes
    ----------
    amount
        ``None`` = no limit.
    used
        What counts for it now, or in the present period; ``None`` where nothing adds up (per node, uploads).
    left
        What may still be had; ``None`` = no limit.
    role, exception
        Where the amount comes from.
    renews_on
        ISO day on which a budget begins anew, or empty.
    """

    measure: Measure
    amount: int | None
    used: int | None = None
    left: int | None = None
    role: str = ""
    exception: Granted | None = None
    renews_on: str = ""


def standing(
    conn: Connection,
    user: str,
    limits: Limits,
    now: datetime,
    *,
    zone: tzinfo,
    calendar: Calendar,
    usage_of: UsageOf = used_by_intervals,
) -> list[Standing]:
    """All limits of a person, in the order of resources, with what is left of them."""
    budgets = budgets_of(limits)
    spent = spent_by(conn, user, budgets, now, zone=zone, calendar=calendar, usage_of=usage_of)
    return stand(limits, held_of(conn, user), spent)


def stand(limits: Limits, held: Held, spent: dict[Measure, Spent]) -> list[Standing]:
    """The same of what is known already. Pure."""
    found: list[Standing] = []
    for measure, entry in limits.entries.items():
        used: int | None = None
        if measure.resource in HELD_AS:
            used = held.counts(measure, limits.apart(measure))
        elif RESOURCES[measure.resource].budget:
            used = spent[measure].used if measure in spent else None
        left = None if entry.amount is None else max(entry.amount - (used or 0), 0)
        found.append(
            Standing(
                measure=measure,
                amount=entry.amount,
                used=used,
                left=left,
                role=entry.role,
                exception=entry.exception,
                renews_on=spent[measure].renews_on if measure in spent else "",
            )
        )
    return found
