"""Machine time and limits, as pages and the API ask for them (CG-25, CG-26, TI-14).

One's own; everybody's with the right. ``from`` and ``to`` are days of the site (both included) or moments
with a zone.
"""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta, tzinfo
from typing import Literal, get_args

from galilean.amounts import GIB
from galilean.errors import UserError, mark
from galilean.settings import Settings
from galilean.web.context import Portal
from galilean.web.visitor import Visitor
from services.metering.cells import us_of
from services.metering.report import KINDS, MINUTE, Line, Window
from services.metering.usage import UsageRow, usage
from services.portal.my_limits import limits_of
from services.portal.usage_view import RIGHT, read

__all__ = ["limits_of"]

LedgerBy = Literal["project", "user", "day", "pool"]


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
) -> list[Line]:
    """Machine time per project, person, day …, from one moment to another; whole days cost least.

    Raises
    ------
    UserError
        400 for an unknown ``by`` or an empty span of time, 403 for somebody else's without the right.
    """
    if user is not None and user != person.name and not person.may(RIGHT):
        raise UserError(403, mark("You see your own machine time only."))
    if user is None and not person.may(RIGHT):
        user = person.name
    if start and end and start >= end:
        raise UserError(400, mark("“from” must be before “to”."))
    zone = portal.settings.site.zone
    first, after = _first_of(start, zone), _first_of(end, zone)
    if (start is None or first) and (end is None or after):
        if by not in KINDS:
            raise UserError(400, mark("“by” is one of: {known}."), known=", ".join(KINDS))
        last = after - timedelta(days=1) if after else None
        filters = {"user": user, "project": project_id, "pool": pool}
        found = await read(
            portal,
            person,
            by,
            Window(first=first, last=last),
            {name: value for name, value in filters.items() if value},
            everybody=person.may(RIGHT),
        )
        return [line for line in found.lines if line.node_us]
    if by not in get_args(LedgerBy):
        known = ", ".join(get_args(LedgerBy))
        raise UserError(400, mark("With times of day, “by” is one of: {known}."), known=known)
    try:
        rows = await portal.db.run_read(
            usage,
            by=by,  # type: ignore[arg-type]
            user=user,
            project_id=project_id,
            pool=pool,
            start=start,
            end=end,
            zone=zone,
            now=portal.clock(),
        )
    except (ValueError, OverflowError):  # or days of before the calendar
        raise UserError(400, mark("At most ten years of days can be shown at once.")) from None
    return [_line(row) for row in rows]


def _first_of(at: datetime | None, zone: tzinfo) -> date | None:
    """The day that begins at a moment, if one does."""
    if at is None:
        return None
    try:
        day = at.astimezone(zone).date()
        return day if datetime.combine(day, time(), zone).astimezone(UTC) == at.astimezone(UTC) else None
    except OverflowError:  # of before the calendar
        return None


def _line(row: UsageRow) -> Line:
    """A row out of the ledger, between two moments: without node time and real use, which are kept by day."""
    return Line(
        key=row.key,
        label=row.label,
        owner=row.owner,
        slug=row.slug,
        deleted=row.deleted,
        first_us=us_of(row.first_start),
        wall_us=row.seconds * 1_000_000,
        cpu=round(row.cpu_core_minutes * 1000 * MINUTE),
        memory=round(row.memory_gb_minutes * GIB * MINUTE),
        gpu=round(row.gpu_card_minutes * MINUTE),
    )
