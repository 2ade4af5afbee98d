"""How long budgets last for what runs: put together for whoever decides about release.

Limits know what a budget is, machine time knows what was used, release knows what ends; they do not know one
another. The release service is handed :func:`budgets` by name, the portal uses it for extensions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import date, datetime, tzinfo
from typing import Any

from sqlalchemy import Connection, select

from extensions.quota.budgets import Along, UsedPart, ends_by_budget
from extensions.quota.periods import CALENDAR, Calendar
from galilean import centre
from galilean.settings import Settings
from services.metering.rollup import Used, UsedQuestion, used_since
from spawner.records import Run
from spawner.states import Status
from spawner.tables import clusters

BATCH = 500
SecondsLeft = Callable[[Connection, Sequence[str], datetime], Mapping[str, float]]


class UsedByDays:
    """What a person used, out of the roll-up and what is live; an :class:`extensions.quota.budgets.UsageOf`.

    Parameters
    ----------
    zone
        The site's.
    """

    def __init__(self, zone: tzinfo) -> None:
        self._zone = zone

    def __call__(self, conn: Connection, user: str, start: datetime, now: datetime) -> list[UsedPart]:
        return _parts(used_since(conn, user, self._day(start), zone=self._zone, now=now))

    def along(self, starts: Sequence[datetime], now: datetime) -> Along:
        """See :class:`extensions.quota.budgets.AlongOf`."""
        asked = UsedQuestion([self._day(start) for start in starts], zone=self._zone, now=now)

        def answer(rows: Sequence[tuple[Any, ...]]) -> Mapping[datetime, list[UsedPart]]:
            return {start: _parts(used) for start, used in zip(starts, asked.answer(rows), strict=True)}

        return Along(query=asked.query, values=asked.values, answer=answer)

    def _day(self, start: datetime) -> date:
        return start.astimezone(self._zone).date()


def _parts(used: Used) -> list[UsedPart]:
    return [UsedPart(pool="", gpu_model="", cpu_millicore_us=used.core_us_milli, gpu_card_us=used.gpu_us)]


def budgets(settings: Settings) -> SecondsLeft:
    """Who knows how many seconds the budgets of runs last: ``left(conn, run_ids, now)``, by run id."""
    zone = settings.site.zone
    usage_of = UsedByDays(zone)

    def left(conn: Connection, run_ids: Sequence[str], now: datetime) -> Mapping[str, float]:
        calendar = Calendar.parse(centre.value(conn, CALENDAR))
        runs = _with_neighbours(conn, run_ids)
        ends = ends_by_budget(conn, runs, now, zone=zone, calendar=calendar, usage_of=usage_of)
        wanted = set(run_ids)
        return {
            run_id: max((at - now).total_seconds(), 0.0)
            for run_id, (at, _) in ends.items()
            if run_id in wanted
        }

    return left


def _with_neighbours(conn: Connection, run_ids: Sequence[str]) -> list[Run]:
    """These runs and all else that their people hold: a budget is used up by all of it."""
    users: set[str] = set()
    for start in range(0, len(run_ids), BATCH):
        rows = conn.execute(select(clusters.c.user).where(clusters.c.id.in_(run_ids[start : start + BATCH])))
        users.update(row.user for row in rows)
    found: list[Run] = []
    names = sorted(users)
    for start in range(0, len(names), BATCH):
        query = select(clusters).where(
            clusters.c.released_at.is_(None),
            clusters.c.status == Status.RUNNING.value,
            clusters.c.user.in_(names[start : start + BATCH]),
        )
        found += [Run(**row) for row in conn.execute(query).mappings()]
    return found
