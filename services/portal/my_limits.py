"""What one person may hold, holds, and has left, and which release policies they may pick (TI-14, BX-10).

One read for the Run form, the home page and the API, so that all three say the same. The limits and rules
themselves are kept as long as nobody changes them; what is held is looked up each time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, tzinfo

from sqlalchemy import Connection

from extensions.quota.budgets import budgets_of, spent_by
from extensions.quota.held import held as held_of
from extensions.quota.limits import Held, Limits
from extensions.quota.measures import BUDGETS, TOTALS, Measure
from extensions.quota.policy import Policy
from extensions.quota.rules import Spent
from extensions.quota.standing import Standing, stand
from galilean.centre import Kept
from galilean.errors import mark
from galilean.settings import Limits as SettingsLimits
from galilean.web.context import Portal
from galilean.web.visitor import Visitor
from services.catalog import lifecycle
from services.portal.budgets import UsedByDays
from services.portal.measures_said import amount_said, amount_text, amount_with_unit, is_budget, name_of
from services.portal.quotas import day_said, until_said
from services.portal.said import Said, say
from services.release import rules as release
from services.release.rules import Rules

NOTHING = Limits.from_settings(
    SettingsLimits(
        clusters=0,
        nodes=0,
        cpu=0,
        memory=0,
        gpu=0,
        storage=0,
        total_cpu=0,
        total_memory=0,
        total_gpu=0,
        upload=0,
    )
)


async def limits_of(portal: Portal, person: Visitor) -> Limits:
    """What the person's roles and exceptions allow now; nothing without a role (AP-2)."""
    policy: Policy = portal.parts.setdefault("quota_policy", Policy())
    limits, _ = await portal.db.run_read(policy.limits_of, person.name, person.roles, portal.clock())
    return limits or NOTHING


@dataclass(frozen=True, kw_only=True)
class Mine:
    """Everything about one person's limits at one moment.

    Attributes
    ----------
    spent
        Of each budget, in its present period.
    standing
        Limit by limit, with what is left.
    offered, default
        Release policies that the person may pick, and the one that is filled in.
    grace_seconds
        Of the automatic policies.
    most_seconds
        After so long a cluster goes back in any case; ``None`` = no such end.
    """

    limits: Limits
    held: Held
    spent: Mapping[Measure, Spent]
    standing: Sequence[Standing]
    offered: tuple[str, ...]
    default: str
    grace_seconds: int
    most_seconds: int | None


def rules_kept(portal: Portal) -> Kept[Rules]:
    """The rules of release; one reader for each portal."""
    return portal.parts.setdefault("release_rules", release.kept())


def site_grace_seconds(conn: Connection, portal: Portal) -> int:
    """How long the automatic policies wait after leaving, as the centre decided: for runs without terms."""
    return rules_kept(portal).get(conn).site.grace_seconds


async def limits_and_rest(portal: Portal, user: str, roles: Sequence[str]) -> Mine:
    """What somebody of these roles may hold, holds, and has left."""
    policy: Policy = portal.parts.setdefault("quota_policy", Policy())
    return await portal.db.run_read(_read, portal, policy, user, tuple(roles), portal.clock())


def _read(
    conn: Connection, portal: Portal, policy: Policy, user: str, roles: tuple[str, ...], now: datetime
) -> Mine:
    zone = portal.settings.site.zone
    found, snapshot = policy.limits_of(conn, user, roles, now)
    limits = found or NOTHING
    held = held_of(conn, user)
    spent = spent_by(
        conn, user, budgets_of(limits), now, zone=zone, calendar=snapshot.calendar, usage_of=UsedByDays(zone)
    )
    rules = rules_kept(portal).get(conn, snapshot.version)
    manual = found is not None and found.manual_release
    default = release.default_for(rules, roles, manual)
    return Mine(
        limits=limits,
        held=held,
        spent=spent,
        standing=with_kept(stand(limits, held, spent), lifecycle.used_bytes(conn, user)),
        offered=release.offered_to(rules, roles, manual) if found is not None else (),
        default=default,
        grace_seconds=rules.site.grace_seconds,
        most_seconds=release.terms_for(rules, roles, default, manual).most_seconds,
    )


def with_kept(standing: Sequence[Standing], kept_bytes: int) -> list[Standing]:
    """The same with what somebody keeps in files, which the room of quotas does not know."""
    return [
        replace(item, used=kept_bytes, left=None if item.amount is None else max(0, item.amount - kept_bytes))
        if item.measure.resource == "kept"
        else item
        for item in standing
    ]


@dataclass(frozen=True, kw_only=True)
class Line:
    """One limit as the home page shows it: ``8 of 24``, with a bar where something adds up."""

    name: Said
    text: Said
    used: int
    amount: int | None
    note: Said | None = None

    @property
    def adds_up(self) -> bool:
        return self.amount is not None


def lines_of(
    mine: Mine,
    pools: Mapping[str, str],
    models: Mapping[str, str],
    *,
    today: date,
    used_too: bool = True,
) -> list[Line]:
    """What stands in "What you may hold": sums at a time, then budgets with the day on which they begin anew.

    Parameters
    ----------
    mine
        One person's limits.
    pools, models
        What pools and models of GPU are called.
    today
        The site's day, for the names of days.
    used_too
        Whether what is held is said; where nothing is, the limit alone is shorter.
    """
    found = []
    for item in mine.standing:
        measure, amount, used = item.measure, item.amount, item.used or 0
        budget = is_budget(measure)
        if not (
            measure.resource in TOTALS or (amount is not None and (budget or measure.resource == "kept"))
        ):
            continue
        if not used and (
            not amount if measure.resource in ("total_gpu", "total_storage") else amount is None
        ):
            continue
        found.append(
            Line(
                name=name_of(measure, now=True, pools=pools, models=models),
                text=held_of_said(measure, used, amount)
                if used_too or budget
                else amount_said(measure, amount),
                used=used,
                amount=amount,
                note=say(
                    mark("begins anew on {day}"), day=day_said(date.fromisoformat(item.renews_on), today)
                )
                if item.renews_on
                else None,
            )
        )
    return found


def held_of_said(measure: Measure, used: int, amount: int | None) -> Said:
    """``8 of 24``, ``32 of 96 GB``: the unit stands once."""
    if amount is None:
        return say(mark("{held}, no limit"), held=amount_said(measure, used))
    held = amount_text(measure, round(used, -2) if is_budget(measure) else used)
    whole = amount_text(measure, amount)
    if "\u00a0" in held and held.partition("\u00a0")[2] == whole.partition("\u00a0")[2]:
        held = held.partition("\u00a0")[0]
    return say(mark("{held} of {most}"), held=held, most=whole)


@dataclass(frozen=True, kw_only=True)
class Given:
    """An exception in words: ``1 GPU until Friday, by maria``."""

    text: Said
    reason: str


def given_to(mine: Mine, now: datetime, zone: tzinfo) -> list[Given]:
    """The exceptions of a person, with their end and who gave them."""
    return [
        Given(
            text=say(
                mark("{what} {until}, by {giver}"),
                what=_what(item),
                until=until_said(item.exception, now, zone),
                giver=item.exception.given_by,
            ),
            reason=item.exception.reason,
        )
        for item in mine.standing
        if item.exception is not None
    ]


def _what(item: Standing) -> Said:
    measure = item.measure
    plain = measure.resource in ("clusters", "nodes", "cpu", "total_cpu", "gpu", "total_gpu", *BUDGETS)
    if plain and not measure.narrowed and item.amount is not None:
        return amount_with_unit(measure, item.amount)
    return say(
        mark("{name}: {amount}"), name=name_of(measure, full=True), amount=amount_said(measure, item.amount)
    )
