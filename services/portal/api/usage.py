"""Machine time and limits, as pages and the API ask for them (CG-25, CG-26, TI-14).

One's own; everybody's with the right. ``from`` and ``to`` are days of the site (both included) or moments
with a zone.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime, time, timedelta
from typing import Literal, get_args

from sqlalchemy import Connection

from extensions.quota.held import held as held_of
from extensions.quota.limits import Held, Limits
from extensions.quota.policy import Policy
from galilean.errors import UserError, mark
from galilean.settings import Limits as SettingsLimits
from galilean.settings import Settings
from galilean.web.context import Portal
from galilean.web.visitor import Visitor
from services.metering.usage import UsageRow, usage
from services.portal.api import models
from services.portal.pages.run_form import allowed_releases

By = Literal["project", "user", "day", "pool"]


def moment(text: str, settings: Settings, *, key: str, end: bool = False) -> datetime | None:
    """A moment from ``2026-11-22`` (a day of the site) or ``2026-11-22T10:00:00Z``; empty = ``None``.

    Raises
    ------
    UserError
        400 naming the key.
    """
    if not text:
        return None
    wrong = UserError(
        400, mark("“{key}” takes a day such as 2026-11-22, or a time such as 2026-11-22T10:00:00Z."), key=key
    )
    try:
        if len(text) <= 10:
            day = date.fromisoformat(text)
            if end:
                day += timedelta(days=1)
            return datetime.combine(day, time(), settings.site.zone).astimezone(UTC)
        found = datetime.fromisoformat(text)
        if found.tzinfo is None:
            raise wrong
        return found.astimezone(UTC)
    except (ValueError, OverflowError):
        raise wrong from None


async def usage_for(
    portal: Portal,
    person: Visitor,
    *,
    by: str,
    user: str | None = None,
    project_id: str | None = None,
    pool: str | None = None,
    start: datetime | None = None,
    end: datetime | None = None,
) -> list[UsageRow]:
    """Usage per project, person, day or pool; a pool is called by its title.

    Raises
    ------
    UserError
        400 for an unknown ``by`` or an empty span of time, 403 for somebody else's without the right.
    """
    if by not in get_args(By):
        raise UserError(400, mark("“by” is one of: {known}."), known=", ".join(get_args(By)))
    if user is not None and user != person.name and not person.may("usage:read-all"):
        raise UserError(403, mark("You see your own machine time only."))
    if user is None and not person.may("usage:read-all"):
        user = person.name
    if start and end and start >= end:
        raise UserError(400, mark("“from” must be before “to”."))
    try:
        rows = await portal.db.run_read(
            usage,
            by=by,  # type: ignore[arg-type]
            user=user,
            project_id=project_id,
            pool=pool,
            start=start,
            end=end,
            zone=portal.settings.site.zone,
            now=portal.clock(),
        )
    except (ValueError, OverflowError):  # or days of before the calendar
        raise UserError(400, mark("At most ten years of days can be shown at once.")) from None
    if by != "pool":
        return rows
    pools = portal.settings.pools
    titles = {name: pool.title for name, pool in pools.items() if pool.title}
    return [replace(row, label=titles.get(row.key, row.label)) for row in rows]


def usage_item(row: UsageRow) -> models.UsageItem:
    """A row as the API shows it."""
    return models.UsageItem(
        key=row.key,
        label=row.label,
        seconds=row.seconds,
        cpu_core_minutes=row.cpu_core_minutes,
        memory_gb_minutes=row.memory_gb_minutes,
        gpu_card_minutes=row.gpu_card_minutes,
        deleted=row.deleted,
        first_start=row.first_start,
    )


# --------------------------------------------------------------------------------------------------- limits

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


def held_by(conn: Connection, user: str) -> Held:
    """What a person holds now, over all clusters."""
    return held_of(conn, user)


async def my_limits(portal: Portal, person: Visitor) -> models.MyLimits:
    """What one may hold, holds, and has left."""
    limits = await limits_of(portal, person)
    held = await portal.db.run_read(held_by, person.name)
    return models.MyLimits(
        roles=list(person.roles),
        per_node=models.AmountsPerNode(
            nodes=limits.nodes,
            cpu=limits.cpu / 1000,
            memory_bytes=limits.memory,
            gpu=limits.gpu,
            storage_bytes=limits.storage,
        ),
        together=models.Amounts(
            clusters=limits.clusters,
            cpu=limits.total_cpu / 1000,
            memory_bytes=limits.total_memory,
            gpu=limits.total_gpu,
        ),
        held=models.Amounts(
            clusters=held.clusters,
            cpu=held.cpu_millicores / 1000,
            memory_bytes=held.memory_bytes,
            gpu=held.gpu,
        ),
        remaining=models.Amounts(
            clusters=max(limits.clusters - held.clusters, 0),
            cpu=max(limits.total_cpu - held.cpu_millicores, 0) / 1000,
            memory_bytes=max(limits.total_memory - held.memory_bytes, 0),
            gpu=max(limits.total_gpu - held.gpu, 0),
        ),
        upload_bytes=limits.upload,
        releases=list(allowed_releases(portal.settings, limits)) if person.has_role else [],
    )
