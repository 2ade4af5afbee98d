"""Limits as the API shows and takes them (CG-28, CG-29, TI-14).

A measure is written as everywhere: ``cpu``, ``total_gpu(a100)``, ``clusters@college``, ``gpu_hours/week``.
An amount is a whole number in ``unit`` (``count``, ``cpu`` = milli-cores, ``bytes``, ``hours`` =
milli-hours, ``flag`` = 0 or 1); ``null`` is no limit. What is sent may also be written as people write it:
``"48 GB"``, ``"no limit"``, ``true``, ``0.5`` cores.
"""

from __future__ import annotations

from datetime import date, datetime

from pydantic import Field

from services.portal.api.models import Incoming, Outgoing

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
    role_says: int | None
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
    resets_at: datetime | None = Field(description="When a budget begins anew.")
    role: str = Field(description="The role that gives it; empty where an exception does.")
    exception: QuotaException | None


class PersonLimits(Outgoing):
    user: str
    roles: list[str]
    items: list[LimitEntry]
    releases: list[str] = Field(description="Release policies that may be picked.")
