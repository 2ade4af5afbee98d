"""Budgets over time: what a person used in a day, week, month or term, and when it runs out (BX-10).

What counts is machine time as it is metered: each node from ready to gone, its cores and its cards. Who
knows that at once is handed in (:class:`UsageOf`: the roll-up of machine time). For a budget of one pool or
GPU model, and without anybody else, the person's node intervals themselves are added up, which is as exact
and costs as much as the person's runs of the period are.

The budgets that held when a run was admitted are written into its release terms, so that lowering one
touches nothing that runs; :func:`runs_out_at` says when such a run has to end.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, tzinfo
from typing import Any, Protocol

from sqlalchemy import Connection, bindparam, or_, select

from extensions.quota.limits import Limits
from extensions.quota.measures import Measure
from extensions.quota.periods import Calendar, span
from extensions.quota.rules import Spent
from galilean.db import UTCDateTime
from spawner.tables import cluster_nodes, clusters

_MICROSECOND = timedelta(microseconds=1)
#: Milli-core-microseconds, and card-microseconds, of a milli-hour.
_CORE_UNIT, _CARD_UNIT = 3_600_000_000, 3_600_000


@dataclass(frozen=True, kw_only=True)
class UsedPart:
    """Machine time in one pool with cards of one model: milli-cores and cards times microseconds."""

    pool: str
    gpu_model: str
    cpu_millicore_us: int
    gpu_card_us: int


class UsageOf(Protocol):
    """Who knows what a person used."""

    def __call__(self, conn: Connection, user: str, start: datetime, now: datetime) -> Iterable[UsedPart]:
        """All machine time of ``user`` from ``start`` until ``now``, open nodes included.

        Asked only for budgets that are not narrowed: the parts may leave pool and model empty.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class Along:
    """A question about what one person used, to be put along with another one.

    Attributes
    ----------
    query
        The same object each time that it is the same but for its values; of the person ``b_user``, with columns
        ``part``, ``cpu_millicores``, ``gpu``, ``node_us`` (null where a node's life is told), ``ready_at``, ``gone_at``.
    values
        Its parameters, but for the person.
    answer
        Makes of its rows, their columns in this order, what was used since each start.
    """

    query: Any
    values: Mapping[str, Any]
    answer: Callable[[Sequence[tuple[Any, ...]]], Mapping[datetime, list[UsedPart]]]


class AlongOf(Protocol):
    """A :class:`UsageOf` whose question can be put along with another one."""

    def along(self, starts: Sequence[datetime], now: datetime) -> Along:
        """What a person used since each of these moments, until ``now``."""
        ...


@dataclass(frozen=True, kw_only=True)
class Budget:
    """A budget as it is frozen into a run: amount in milli-hours, and what does not count for it."""

    measure: Measure
    amount: int
    apart: tuple[Measure, ...] = ()

    def as_value(self) -> dict[str, Any]:
        return {
            "measure": str(self.measure),
            "amount": self.amount,
            "apart": [str(measure) for measure in self.apart],
        }

    @classmethod
    def of(cls, value: Mapping[str, Any]) -> Budget:
        return cls(
            measure=Measure.parse(value["measure"]),
            amount=int(value["amount"]),
            apart=tuple(Measure.parse(text) for text in value.get("apart", ())),
        )

    def counts(self, pool: str, gpu_model: str) -> bool:
        """Whether time in this pool, with cards of this model, is of this budget."""
        return self.measure.holds_for(pool, gpu_model) and not any(
            other.holds_for(pool, gpu_model) for other in self.apart
        )

    @property
    def plain(self) -> bool:
        """Whether it is of everything, whatever the pool and the model."""
        return not self.measure.narrowed and not self.apart

    def used(self, parts: Iterable[UsedPart]) -> int:
        """Milli-hours of these parts, begun ones not counted."""
        of = [part for part in parts if self.counts(part.pool, part.gpu_model)]
        if self.measure.resource == "gpu_hours":
            return sum(part.gpu_card_us for part in of) // _CARD_UNIT
        return sum(part.cpu_millicore_us for part in of) // _CORE_UNIT


def budgets_of(limits: Limits) -> list[Budget]:
    """The budgets among somebody's limits."""
    return [
        Budget(measure=measure, amount=limits[measure] or 0, apart=limits.apart(measure))
        for measure in limits.budgets
    ]


def used_by_intervals(conn: Connection, user: str, start: datetime, now: datetime) -> list[UsedPart]:
    """What the node intervals add up to; a :class:`UsageOf`."""
    sums: dict[tuple[str, str], list[int]] = {}
    for row in conn.execute(_INTERVALS, {"b_user": user, "b_start": start}):
        end = min(row.gone_at or now, now)
        time = max((end - max(row.ready_at, start)) // _MICROSECOND, 0)
        part = sums.setdefault((row.pool, row.gpu_model), [0, 0])
        part[0] += time * row.cpu_millicores
        part[1] += time * row.gpu
    return [
        UsedPart(pool=pool, gpu_model=model, cpu_millicore_us=cpu, gpu_card_us=gpu)
        for (pool, model), (cpu, gpu) in sums.items()
    ]


def along_for(
    usage_of: UsageOf, budgets: Iterable[Budget], now: datetime, zone: tzinfo, calendar: Calendar
) -> Along | None:
    """What these budgets ask of ``usage_of``, to be put along with another question; ``None`` = nothing, or it cannot."""
    along = getattr(usage_of, "along", None)
    periods = {budget.measure.period for budget in budgets if budget.plain}
    if along is None or not periods:
        return None
    return along(sorted({span(period, now, zone, calendar)[0] for period in periods}), now)


def spent_by(
    conn: Connection,
    user: str,
    budgets: Sequence[Budget],
    now: datetime,
    *,
    zone: tzinfo,
    calendar: Calendar,
    usage_of: UsageOf = used_by_intervals,
    known: Mapping[datetime, list[UsedPart]] | None = None,
) -> dict[Measure, Spent]:
    """How much of each budget is used in its present period; a question for each period.

    What is ``known`` of everything since a start (by :func:`along_for`) is not asked again.
    """
    asked = _Asked(conn, user, now, zone, calendar, usage_of, known)
    found: dict[Measure, Spent] = {}
    for budget in budgets:
        parts, end = asked.of(budget)
        renews_on = end.astimezone(zone).date().isoformat()
        found[budget.measure] = Spent(used=budget.used(parts), renews_on=renews_on)
    return found


class _Asked:
    """What one person used in each period, each asked once."""

    def __init__(
        self,
        conn: Connection,
        user: str,
        now: datetime,
        zone: tzinfo,
        calendar: Calendar,
        usage_of: UsageOf,
        known: Mapping[datetime, list[UsedPart]] | None = None,
    ) -> None:
        self._conn, self._user, self._now = conn, user, now
        self._known = known or {}
        self._zone, self._calendar, self._usage_of = zone, calendar, usage_of
        self._found: dict[tuple[str, bool], list[UsedPart]] = {}

    def of(self, budget: Budget) -> tuple[list[UsedPart], datetime]:
        """Parts of the budget's present period, and its end."""
        start, end = span(budget.measure.period, self._now, self._zone, self._calendar)
        if budget.plain and start in self._known:
            return self._known[start], end
        key = budget.measure.period, budget.plain
        if key not in self._found:
            usage_of = self._usage_of if budget.plain else used_by_intervals
            self._found[key] = list(usage_of(self._conn, self._user, start, self._now))
        return self._found[key], end


class Running(Protocol):
    """A run that uses something, such as :class:`spawner.records.Run`; amounts per node."""

    @property
    def nodes(self) -> int: ...
    @property
    def cpu_millicores(self) -> int: ...
    @property
    def gpu(self) -> int: ...
    @property
    def gpu_model(self) -> str: ...
    @property
    def pool(self) -> str: ...


def runs_out_at(
    budget: Budget, used: int, running: Iterable[Running], now: datetime, renews_at: datetime
) -> datetime | None:
    """When a budget is used up if everything that runs goes on; ``None`` = not in this period.

    ``used`` are milli-hours until ``now``, ``running`` all clusters of the person that use something at this
    moment, ``renews_at`` is the end of the period.
    """
    left = budget.amount - used
    if left <= 0:
        return now
    gpu = budget.measure.resource == "gpu_hours"
    rate = sum(  # milli-units, so that milli-hours divided by them are thousandths of an hour
        run.nodes * (run.gpu * 1000 if gpu else run.cpu_millicores)
        for run in running
        if budget.counts(run.pool, run.gpu_model)
    )
    if rate <= 0:
        return None
    seconds = left * 3600 / rate
    if seconds >= (renews_at - now).total_seconds():
        return None
    return now + timedelta(seconds=seconds)


def ends_by_budget(
    conn: Connection,
    runs: Sequence[Any],
    now: datetime,
    *,
    zone: tzinfo,
    calendar: Calendar,
    usage_of: UsageOf = used_by_intervals,
) -> dict[str, tuple[datetime, str]]:
    """When running clusters have to end because a budget of theirs runs out: by run id, with the measure.

    ``runs`` are open ones of all people (:class:`spawner.records.Run`); those without a budget in their
    ``release_terms`` cost nothing.
    """
    by_user: dict[str, list[Any]] = {}
    for run in runs:
        if run.ready_at is not None:
            by_user.setdefault(run.user, []).append(run)
    found: dict[str, tuple[datetime, str]] = {}
    for user, theirs in by_user.items():
        asked = _Asked(conn, user, now, zone, calendar, usage_of)
        for run in theirs:
            for value in (run.release_terms or {}).get("budgets", ()):
                budget = Budget.of(value)
                gpu = budget.measure.resource == "gpu_hours"
                if not budget.counts(run.pool, run.gpu_model) or (gpu and not run.gpu):
                    continue
                parts, end = asked.of(budget)
                at = runs_out_at(budget, budget.used(parts), theirs, now, end)
                if at is not None and (run.id not in found or at < found[run.id][0]):
                    found[run.id] = at, str(budget.measure)
    return found


_START = bindparam("b_start", type_=UTCDateTime())
_INTERVALS = (
    select(
        clusters.c.pool,
        clusters.c.gpu_model,
        clusters.c.cpu_millicores,
        clusters.c.gpu,
        cluster_nodes.c.ready_at,
        cluster_nodes.c.gone_at,
    )
    .select_from(clusters.join(cluster_nodes, cluster_nodes.c.cluster_id == clusters.c.id))
    .where(
        clusters.c.user == bindparam("b_user"),
        or_(clusters.c.released_at.is_(None), clusters.c.released_at > _START),
        cluster_nodes.c.ready_at.is_not(None),
        or_(cluster_nodes.c.gone_at.is_(None), cluster_nodes.c.gone_at > _START),
    )
)
