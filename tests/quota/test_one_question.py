"""Admission puts one question, and what it does not ask of everybody never lets anybody through."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import event, update

from extensions.quota import store
from extensions.quota.admission import QuotaAdmission
from extensions.quota.measures import Measure
from extensions.quota.policy import Policy
from galilean.db import Database
from galilean.errors import UserError
from services.metering.rollup import roll_up
from services.portal.budgets import UsedByDays
from spawner.collaborators import Person
from spawner.request import ClusterRequest
from spawner.tables import cluster_nodes, clusters
from tests.quota.test_races import decide
from tests.spawner.backends import plan_of

#: A Wednesday.
NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)
WEEK, MONTH = Measure("core_hours", period="week"), Measure("core_hours", period="month")


@pytest.fixture
def quota(db: Database) -> QuotaAdmission:
    decide(db)
    limit(db, Measure("role_clusters"), None)
    return QuotaAdmission(db, Policy(), clock=lambda: NOW, usage_of=UsedByDays(UTC), zone=UTC)


def limit(db: Database, measure: Measure, amount: int | None) -> None:
    with db.write() as conn:
        store.set_limits(conn, [("student", measure, amount)], actor=store.COMMAND, now=NOW)


async def start(quota: QuotaAdmission, user: str, server: str = "heat") -> str:
    """How a start is answered: ``201``, or status and text of the refusal."""
    person = Person(name=user, groups=("galilean:student",))
    try:
        await quota.admit(person, plan_of(user, server), ClusterRequest(), ["n0"])
    except UserError as error:
        return f"{error.status} {error}"
    return "201"


def used(db: Database, user: str, hours: int) -> None:
    """One core for so many hours until an hour ago."""
    gone = NOW - timedelta(hours=1)
    with db.write() as conn:
        of_theirs = clusters.c.user == user
        conn.execute(update(clusters).where(of_theirs).values(status="released", released_at=gone))
        mine = cluster_nodes.c.cluster_id.in_(
            clusters.select().with_only_columns(clusters.c.id).where(of_theirs)
        )
        times = {"ready_at": gone - timedelta(hours=hours), "gone_at": gone}
        conn.execute(update(cluster_nodes).where(mine).values(**times))


@contextmanager
def questions(db: Database) -> Iterator[list[str]]:
    asked: list[str] = []

    def note(_conn: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if statement.startswith("SELECT"):
            asked.append(statement)

    event.listen(db.engine, "before_cursor_execute", note)
    try:
        yield asked
    finally:
        event.remove(db.engine, "before_cursor_execute", note)


async def test_budgets_are_asked_for_along_with_everything_else(db: Database, quota: QuotaAdmission) -> None:
    limit(db, WEEK, 10_000)
    limit(db, MONTH, 100_000)
    assert await start(quota, "ada") == "201"  # reads what is decided
    with questions(db) as asked:
        assert await start(quota, "bob") == "201"
    assert len(asked) == 1


async def test_a_budget_counts_what_is_live_and_what_is_rolled_up_of_its_own_period(
    db: Database, quota: QuotaAdmission
) -> None:
    limit(db, WEEK, 10_000)
    limit(db, MONTH, 100_000)
    assert await start(quota, "ada") == "201"
    used(db, "ada", hours=9)
    assert await start(quota, "ada", "second") == "201"
    used(db, "ada", hours=5)  # both: ten hours
    for _ in range(2):
        refused = await start(quota, "ada", "third")
        assert refused.startswith("429") and "of this week are used up (10)" in refused
        assert await start(quota, "bob", f"his{_}") == "201"
        with db.write() as conn:
            roll_up(conn, zone=UTC, now=NOW)
    limit(db, WEEK, None)
    limit(db, MONTH, 10_000)
    assert "of this month are used up (10)" in await start(quota, "ada", "third")


async def test_a_bound_of_all_people_together_holds_for_the_start_after_it_is_set(
    db: Database, quota: QuotaAdmission
) -> None:
    assert await start(quota, "ada") == "201"
    limit(db, Measure("role_clusters"), 1)
    assert "All people of your role together" in await start(quota, "bob")
    limit(db, Measure("role_clusters"), None)
    assert await start(quota, "bob") == "201"


async def test_a_budget_holds_for_the_start_after_it_is_set(db: Database, quota: QuotaAdmission) -> None:
    assert await start(quota, "ada") == "201"
    used(db, "ada", hours=5)
    limit(db, WEEK, 5_000)
    assert "of this week are used up (5)" in await start(quota, "ada", "second")


async def test_one_who_is_being_placed_once_more_is_before_everybody_also_where_there_is_always_room(
    db: Database, quota: QuotaAdmission
) -> None:
    assert await start(quota, "ada") == "201"
    with db.write() as conn:
        conn.execute(update(clusters).values(state={"attempt": 2}))
    assert "before it: 1" in await start(quota, "bob")
