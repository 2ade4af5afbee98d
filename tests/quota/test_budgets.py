"""Budgets over time: periods of the site's calendar, what counts, when it runs out."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extensions.quota.admission import QuotaAdmission
from extensions.quota.budgets import Budget, ends_by_budget, runs_out_at, spent_by, used_by_intervals
from extensions.quota.limits import Granted, combine
from extensions.quota.measures import PERIODS, Measure
from extensions.quota.periods import Calendar, days_of, span
from extensions.quota.policy import Snapshot
from galilean.db import Database
from galilean.errors import UserError
from spawner import records, steps
from spawner.collaborators import Person
from spawner.request import ClusterRequest
from spawner.steps import NodeEnd, NodeStart
from tests.spawner.backends import plan_of

BERLIN = ZoneInfo("Europe/Berlin")
NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)  # a Wednesday
HOUR = timedelta(hours=1)
WEEK = Measure("core_hours", period="week")
GPU_WEEK = Measure("gpu_hours", period="week")
PLENTY = dict.fromkeys(
    (
        Measure(name)
        for name in ("clusters", "nodes", "cpu", "memory", "gpu", "total_cpu", "total_memory", "total_gpu")
    ),
    None,
)
TERMS = Calendar.parse(
    {
        "week_starts": "sunday",
        "terms": [
            {"name": "Spring", "first_day": "2027-02-15", "last_day": "2027-06-30"},
            {"name": "Autumn", "first_day": "2026-09-01", "last_day": "2026-12-20"},
        ],
    }
)


class Told:
    """Limits as a test says, for everybody."""

    def __init__(self, *exceptions: Granted, **said: int | None) -> None:
        amounts = {
            **PLENTY,
            **{Measure.parse(name.replace("__", "/")): amount for name, amount in said.items()},
        }
        self.limits = combine([("student", amounts)], exceptions)

    def limits_of(self, conn: Any, user: str, roles: Any, now: datetime) -> Any:
        return self.limits, Snapshot(roles={"student": {}})


@pytest.mark.parametrize(
    ("period", "day", "calendar", "days"),
    [
        ("day", "2026-11-25", Calendar(), ("2026-11-25", "2026-11-26")),
        ("week", "2026-11-25", Calendar(), ("2026-11-23", "2026-11-30")),
        ("week", "2026-11-22", TERMS, ("2026-11-22", "2026-11-29")),
        ("week", "2026-11-28", TERMS, ("2026-11-22", "2026-11-29")),
        ("month", "2026-12-31", Calendar(), ("2026-12-01", "2027-01-01")),
        ("term", "2026-11-25", Calendar(), ("2026-07-01", "2027-01-01")),
        ("term", "2026-06-30", Calendar(), ("2026-01-01", "2026-07-01")),
        ("term", "2026-12-20", TERMS, ("2026-09-01", "2026-12-21")),
        ("term", "2027-01-01", TERMS, ("2026-12-21", "2027-02-15")),
        ("term", "2027-07-01", TERMS, ("2027-07-01", "2029-01-01")),
    ],
)
def test_periods(period: str, day: str, calendar: Calendar, days: tuple[str, str]) -> None:
    first, following = days_of(period, date.fromisoformat(day), calendar)
    assert (first.isoformat(), following.isoformat()) == days


@given(st.dates(date(2001, 1, 1), date(2090, 1, 1)), st.sampled_from(PERIODS), st.booleans())
def test_periods_tile_time(day: date, period: str, own: bool) -> None:
    calendar = TERMS if own else Calendar()
    first, following = days_of(period, day, calendar)
    assert first <= day < following
    if not (own and period == "term"):  # outside of all terms that are said, time is cut at years
        assert days_of(period, following, calendar)[0] == following
        assert days_of(period, following - timedelta(days=1), calendar) == (first, following)


def test_a_day_of_summer_time_has_23_hours_and_one_of_winter_time_25() -> None:
    for day, hours in (
        (datetime(2026, 3, 29, 10, tzinfo=UTC), 23),
        (datetime(2026, 10, 25, 10, tzinfo=UTC), 25),
    ):
        start, end = span("day", day, BERLIN, Calendar())
        assert end - start == hours * HOUR


@pytest.mark.parametrize(
    "value",
    [
        [],
        {"weeks": 1},
        {"week_starts": "noday"},
        {"terms": [{"name": "x", "first_day": "2026-13-01", "last_day": "2026-12-01"}]},
        {"terms": [{"name": "x", "first_day": "2026-12-01", "last_day": "2026-11-01"}]},
        {
            "terms": [
                {"name": "x", "first_day": "2026-01-01", "last_day": "2026-03-01"},
                {"name": "y", "first_day": "2026-03-01", "last_day": "2026-04-01"},
            ]
        },
    ],
)
def test_a_calendar_that_cannot_be_is_refused(value: Any) -> None:
    with pytest.raises(UserError):
        Calendar.parse(value)


async def ran(db: Database, server: str, start: datetime, hours: float | None, **plan: Any) -> None:
    """A run of lena's that was ready at ``start`` and, unless ``hours`` is ``None``, ended."""
    quota = QuotaAdmission(db, Told(), clock=lambda: start)
    made = plan_of("lena", server, **plan)
    names = [f"n{rank}" for rank in range(made.nodes)]
    run = (
        await quota.admit(Person(name="lena", groups=("galilean:student",)), made, ClusterRequest(), names)
    ).run
    assert run is not None
    nodes = [NodeStart(rank=rank) for rank in range(run.nodes)]
    assert await db.run(steps.begin_running, run, nodes, now=start)
    if hours is not None:
        end = start + timedelta(hours=hours)
        stopping = await db.run(steps.begin_stop, "lena", server, reason="asked")
        assert stopping is not None
        await db.run(
            steps.close, stopping, ends={rank: NodeEnd(at=end) for rank in range(run.nodes)}, now=end
        )


async def test_what_counts_is_node_time_of_the_period_open_nodes_included(db: Database) -> None:
    start, _ = span("week", NOW, BERLIN, Calendar())
    await ran(db, "before", start - 9 * HOUR, 8)
    await ran(db, "over", start - 2 * HOUR, 5, nodes=2, cpu_millicores=1500)  # 3 h of 5, on 2 nodes
    await ran(
        db, "now", NOW - HOUR, None, nodes=1, cpu_millicores=500, gpu=2, gpu_model="a100", pool="college"
    )
    with db.read() as conn:
        parts = {(part.pool, part.gpu_model): part for part in used_by_intervals(conn, "lena", start, NOW)}
        spent = spent_by(
            conn,
            "lena",
            [Budget(measure=m, amount=1) for m in (WEEK, GPU_WEEK, replace(WEEK, pool="college"))],
            NOW,
            zone=BERLIN,
            calendar=Calendar(),
        )
        assert used_by_intervals(conn, "otto", start, NOW) == []
    assert len(parts) == 2
    assert spent[WEEK].used == 9000 + 500
    assert spent[GPU_WEEK].used == 2000
    assert spent[replace(WEEK, pool="college")].used == 500
    assert spent[WEEK].renews_on == "2026-11-30"


async def test_who_has_used_it_up_starts_nothing_until_the_period_is_over(db: Database) -> None:
    await ran(db, "long", NOW - 10 * HOUR, 10)
    clock = [NOW]
    quota = QuotaAdmission(db, Told(core_hours__week=10_000), clock=lambda: clock[0], zone=BERLIN)
    person = Person(name="lena", groups=("galilean:student",))
    with pytest.raises(UserError) as refused:
        await quota.admit(person, plan_of("lena"), ClusterRequest(), ["a"])
    assert (refused.value.status, refused.value.params["which"]) == (429, "core_hours/week")
    assert "2026-11-30" in str(refused.value)
    clock[0] = datetime(2026, 11, 29, 23, 30, tzinfo=UTC)  # Monday in Berlin
    assert (await quota.admit(person, plan_of("lena"), ClusterRequest(), ["a"])).run is not None


async def test_a_running_cluster_ends_when_the_budget_of_its_start_is_used_up(db: Database) -> None:
    friday = Granted(id="x", user="lena", measure=replace(WEEK, pool="college"), amount=None)
    quota = QuotaAdmission(db, Told(friday, core_hours__week=4000), clock=lambda: NOW, zone=BERLIN)
    person = Person(name="lena", groups=("galilean:student",))
    for server, more in (("one", {"nodes": 2}), ("free", {"pool": "college"})):
        plan = plan_of("lena", server, **more)
        run = (await quota.admit(person, plan, ClusterRequest(), [f"n{r}" for r in range(plan.nodes)])).run
        assert run is not None
        assert await db.run(steps.begin_running, run, [NodeStart(rank=r) for r in range(plan.nodes)], now=NOW)
    with db.read() as conn:
        runs = records.all_open(conn)
        for later in (timedelta(), HOUR):
            ends = ends_by_budget(conn, runs, NOW + later, zone=BERLIN, calendar=Calendar())
            assert {run.server: ends.get(run.id) for run in runs} == {
                "one": (NOW + 2 * HOUR, "core_hours/week"),  # 2 cores use 4 core hours in 2 hours
                "free": None,  # its pool does not count
            }
        late = ends_by_budget(conn, runs, NOW + 3 * HOUR, zone=BERLIN, calendar=Calendar())
        assert [at for at, _ in late.values()] == [NOW + 3 * HOUR]


@given(
    st.integers(0, 10**7),
    st.integers(0, 10**7),
    st.lists(st.tuples(st.integers(1, 64), st.integers(1, 10**5)), max_size=4),
)
def test_a_budget_runs_out_exactly_when_the_rate_has_used_what_is_left(
    amount: int, used: int, sizes: Any
) -> None:
    running = [plan_of(nodes=nodes, cpu_millicores=cpu) for nodes, cpu in sizes]
    at = runs_out_at(Budget(measure=WEEK, amount=amount), used, running, NOW, NOW + timedelta(days=7))
    rate = sum(plan.nodes * plan.cpu_millicores for plan in running)
    if used >= amount:
        assert at == NOW
    elif at is None:
        assert rate * 7 * 24 <= amount - used or not rate
    else:
        assert abs((at - NOW).total_seconds() * rate / 3600 - (amount - used)) <= rate / 3600 * 1e-5 + 1e-6
