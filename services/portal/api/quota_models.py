"""Limits as the API shows and takes them (CG-28, CG-29, TI-14).

A measure is written as everywhere: ``cpu``, ``total_gpu(a100)``, ``clusters@college``, ``gpu_hours/week``.
An amount is a whole number in ``unit`` (``count``, ``cpu`` = milli-cores, ``bytes``, ``hours`` =
milli-hours, ``flag`` = 0 or 1); ``null`` is no limit. What is sent may also be written as people write it:
``"48 GB"``, ``"no limit"``, ``true``, ``0.5`` cores.
"""

from __future__ import annotations

from datetime import date, datetime, tzinfo

from pydantic import Field

from extensions.quota.limits import Granted
from services.portal.api.models import Amounts, AmountsPerNode, Incoming, Outgoing
from services.portal.quotas import last_day

Amount = int | float | bool | str | None
_AMOUNT = "As people write it: 4, 0.5, “48 GB”, “no limit” (or null), true."


class QuotaWish(Incoming):
    role: str = Field(min_length=1, max_length=64)
    measure: str = Field(min_length=1, max_length=200, description="Such as cpu, gpu(a100), gpu_hours/week.")
    amount: Amount = Field(description=_AMOUNT)
    was: Amount = Field(
        default=None,
        description="What it was when you looked; where sent, another value there is refused (409).",
    )


class QuotaChanges(Incoming):
    changes: list[QuotaWish] = Field(max_length=1000)
    dry_run: bool = Field(default=False, description="Only say what it would come to.")
    reason: str = Field(default="", max_length=300, description="For the audit log.")


class QuotaChange(Outgoing):
    role: str
    measure: str
    unit: str
    before: int | None
    after: int | None


class QuotaDifference(Outgoing):
    applied: bool
    changes: list[QuotaChange] = Field(description="What is so already is left out.")
    people: int = Field(description="How many people have one of the roles.")
    at_limit: dict[str, int] = Field(description="By role: who holds all that the limit before allows.")


class QuotaRole(Outgoing):
    name: str
    title: str
    people: int


class Quota(Outgoing):
    role: str
    measure: str
    resource: str
    pool: str
    gpu_model: str
    period: str
    unit: str
    amount: int | None
    text: str


class Quotas(Outgoing):
    version: int = Field(description="Moves with every change of anything that administrators decide.")
    roles: list[QuotaRole]
    items: list[Quota]


class NewException(Incoming):
    user: str = Field(min_length=1, max_length=255)
    measure: str = Field(min_length=1, max_length=200)
    amount: Amount = Field(description=_AMOUNT)
    reason: str = Field(min_length=1, max_length=300)
    until: str = Field(
        default="", max_length=10, description="The last day, by the site's days; empty = no end."
    )


class ExceptionChange(Incoming):
    """Only the keys that are sent are changed."""

    amount: Amount = Field(default=None, description=_AMOUNT)
    reason: str | None = Field(default=None, min_length=1, max_length=300)
    until: str | None = Field(default=None, max_length=10)


class QuotaException(Outgoing):
    id: str
    user: str
    measure: str
    unit: str
    amount: int | None
    reason: str
    given_by: str
    given_at: datetime | None
    until: date | None = Field(description="The last day.")
    expires_at: datetime | None
    ended_at: datetime | None
    ended_by: str
    holds: bool


class LimitEntry(Outgoing):
    """One limit of a person, and what of it is left."""

    measure: str
    unit: str
    amount: int | None
    held: int | None = Field(description="What counts for it now; null = it is of one request.")
    remaining: int | None = Field(description="null = no limit.")
    renews_on: str | None = Field(description="The day on which a budget begins anew.")
    role: str = Field(description="The role that gives it; empty where an exception does.")
    exception: QuotaException | None


class PersonLimits(Outgoing):
    user: str
    roles: list[str]
    items: list[LimitEntry]
    releases: list[str] = Field(description="Release policies that may be picked.")


class MyLimits(Outgoing):
    roles: list[str]
    per_node: AmountsPerNode
    together: Amounts = Field(description="The most that may be held at once, over all clusters.")
    held: Amounts
    remaining: Amounts
    upload_bytes: int | None
    releases: list[str] = Field(description="Release policies that may be picked.")
    items: list[LimitEntry] = Field(description="Limit by limit, also narrower ones and budgets.")


def exception_model(granted: Granted, zone: tzinfo, now: datetime) -> QuotaException:
    """An exception as the API shows it."""
    return QuotaException(
        id=granted.id,
        user=granted.user,
        measure=str(granted.measure),
        unit=granted.measure.unit,
        amount=granted.amount,
        reason=granted.reason,
        given_by=granted.given_by,
        given_at=granted.given_at,
        until=last_day(granted.expires_at, zone),
        expires_at=granted.expires_at,
        ended_at=granted.ended_at,
        ended_by=granted.ended_by,
        holds=granted.holds_at(now),
    )


class ReleaseValues(Incoming):
    """Values of a role; ``null`` = as everybody. Only the keys that are sent are changed."""

    offered: list[str] | None = None
    default: str | None = None
    most_seconds: int | None = Field(
        default=None, description="Hard maximum; 0 = none although everybody has one."
    )
    idle_seconds: int | None = Field(default=None, description="Goes back when idle for so long; 0 = never.")
    idle_percent: int | None = Field(
        default=None, description="Idle is below so many percent of what it holds."
    )


class SiteReleaseValues(ReleaseValues):
    """Values of everybody whose role says nothing else; ``null`` of a time = none."""

    grace_seconds: int | None = None
    extend_seconds: int | None = None


class ReleaseRuleChanges(Incoming):
    everybody: SiteReleaseValues | None = None
    roles: dict[str, ReleaseValues] = Field(default_factory=dict)
    dry_run: bool = False
    reason: str = Field(default="", max_length=300)


class RoleRelease(Outgoing):
    offered: list[str] | None
    default: str | None
    most_seconds: int | None
    idle_seconds: int | None
    idle_percent: int | None


class SiteRelease(Outgoing):
    offered: list[str]
    default: str
    most_seconds: int | None
    idle_seconds: int | None
    idle_percent: int
    grace_seconds: int
    extend_seconds: int | None


class ReleaseRules(Outgoing):
    everybody: SiteRelease
    roles: dict[str, RoleRelease]


class ReleaseRuleChange(Outgoing):
    role: str = Field(description="A role, or * for everybody.")
    field: str
    before: list[str] | str | int | None
    after: list[str] | str | int | None


class ReleaseDifference(Outgoing):
    applied: bool
    changes: list[ReleaseRuleChange]
    people: int
