"""Machine time and limits, as pages and the API ask for them (CG-25, CG-26, TI-14).

One's own; everybody's with the right. ``from`` and ``to`` are days of the site (both included) or moments
with a zone.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime, time, timedelta
from typing import Literal, get_args

from galilean.errors import UserError, mark
from galilean.settings import Settings
from galilean.web.context import Portal
from galilean.web.visitor import Visitor
from services.metering.usage import UsageRow, usage
from services.portal.api import models
from services.portal.my_limits import limits_of

__all__ = ["limits_of"]

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
