"""Changing limits: what is refused, what is noted, what it means for whoever runs something."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import select

from extensions.quota import store
from extensions.quota.admission import QuotaAdmission
from extensions.quota.measures import Measure
from extensions.quota.policy import Policy, limits_of
from extensions.quota.seed import seed
from extensions.quota.store import REMOVE, Actor
from galilean import centre
from galilean.db import Database
from galilean.errors import UserError
from galilean.settings import Settings
from galilean.tables import audit_log
from spawner import records
from spawner.collaborators import Person
from spawner.request import ClusterRequest
from tests.spawner.backends import plan_of

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
BOSS = Actor(name="boss", address="10.0.0.1", roles=("admin",))
HEAD = Actor(name="head", roles=("teacher",))
BY: Any = {"actor": BOSS, "now": NOW}


def begin(conn: Any) -> None:
    centre.seed(conn, Settings(), NOW)
    seed(conn, Settings(), NOW)


@pytest.fixture
def site(db: Database) -> Database:
    with db.write() as conn:
        begin(conn)
    return db


def limit(db: Database, measure: str, user: str = "lena", role: str = "student", now: datetime = NOW) -> Any:
    with db.read() as conn:
        limits = limits_of(conn, user, (role,), now)
    assert limits is not None
    return limits.amount(Measure.parse(measure))


def lines(db: Database) -> list[tuple[str, str, str]]:
    with db.read() as conn:
        query = select(audit_log.c.actor, audit_log.c.action, audit_log.c.subject).order_by(audit_log.c.id)
        return [tuple(row) for row in conn.execute(query)]


async def test_what_the_settings_say_is_where_a_site_begins_and_no_more(site: Database) -> None:
    assert limit(site, "nodes") == 2
    await site.run(store.set_limits, [("student", Measure("nodes"), 7)], **BY)
    with site.write() as conn:
        begin(conn)
    assert limit(site, "nodes") == 7


async def test_all_changes_or_none(site: Database) -> None:
    with pytest.raises(UserError):
        await site.run(
            store.set_limits, [("student", Measure("nodes"), 7), ("student", Measure("cpu"), -1)], **BY
        )
    assert limit(site, "nodes") == 2
    assert lines(site) == []


async def test_a_change_is_noted_with_before_and_after_and_moves_the_version(site: Database) -> None:
    policy = Policy()
    with site.read() as conn:
        before = policy.limits_of(conn, "lena", ("student",), NOW)[1].version
    count = await site.run(
        store.set_limits,
        [
            ("student", Measure("memory"), 48 * 2**30),
            ("student", Measure("nodes"), 2),
            ("student", Measure("gpu"), REMOVE),
        ],
        **BY,
        reason="new term",
    )
    assert count == 2, "what is as it was is no change"
    with site.read() as conn:
        limits, snapshot = policy.limits_of(conn, "lena", ("student",), NOW)
        row = (
            conn.execute(select(audit_log).where(audit_log.c.action == "quota.set").limit(1)).mappings().one()
        )
    assert limits is not None
    assert (limits.memory, snapshot.version > before) == (48 * 2**30, True)
    assert (row["actor"], row["address"], row["subject"], row["reason"]) == (
        "boss",
        "10.0.0.1",
        "student",
        "new term",
    )
    assert row["before"] == {"measure": "memory", "amount": "8G"}
    assert row["after"] == {"measure": "memory", "amount": "48G"}


@pytest.mark.parametrize(
    ("role", "measure", "status"),
    [
        ("emperor", Measure("nodes"), 404),
        ("student", Measure("nodes", period="week"), 400),
        ("student", Measure("cpu", pool="nowhere"), 400),
        ("student", Measure("gpu", gpu_model="nothing"), 400),
    ],
)
async def test_limits_that_cannot_be_are_refused(
    site: Database, role: str, measure: Measure, status: int
) -> None:
    with pytest.raises(UserError) as refused:
        await site.run(store.set_limits, [(role, measure, 1)], **BY, pools=["default"], models=["a100"])
    assert refused.value.status == status


async def test_who_manages_limits_cannot_raise_their_own_and_the_try_is_noted(site: Database) -> None:
    by: Any = {"actor": HEAD, "now": NOW}
    nodes = Measure("nodes")
    for try_it in (
        store.changed(site, store.set_limits, [("student", nodes, 9), ("teacher", nodes, 99)], **by),
        store.changed(site, store.set_limits, [("teacher", nodes, None)], **by),
        store.changed(site, store.give, "head", [(nodes, 99)], reason="me", **by),
    ):
        with pytest.raises(UserError) as refused:
            await try_it
        assert (refused.value.status, refused.value.reason) == (403, "own-limit")
    assert (limit(site, "nodes"), limit(site, "nodes", "head", "teacher")) == (2, 4)
    assert lines(site) == [
        ("head", "quota.refused", "teacher"),
        ("head", "quota.refused", "teacher"),
        ("head", "quota.refused", "head"),
    ]
    assert (
        await store.changed(site, store.set_limits, [("teacher", nodes, 3), ("student", nodes, 9)], **by) == 2
    )


async def test_nobody_changes_an_own_exception_upwards(site: Database) -> None:
    given = await site.run(store.give, "head", [(Measure("gpu"), 1)], reason="course", **BY)
    with pytest.raises(UserError):
        await store.changed(site, store.change, given[0].id, amount=8, actor=HEAD, now=NOW)
    assert limit(site, "gpu", "head", "teacher") == 1
    assert lines(site)[-1] == ("head", "quota.refused", "head")


async def test_nobody_ends_an_own_exception_that_gives_less_than_the_roles(site: Database) -> None:
    given = await site.run(store.give, "head", [(Measure("gpu"), 0)], reason="Too many", **BY)
    with pytest.raises(UserError) as refused:
        await store.changed(site, store.end, given[0].id, actor=HEAD, now=NOW)
    assert (refused.value.status, refused.value.reason) == (403, "own-limit")
    assert limit(site, "gpu", "head", "teacher") == 0
    assert lines(site)[-1] == ("head", "quota.refused", "head")
    await store.changed(site, store.end, given[0].id, **BY)


async def test_an_exception_holds_until_it_ends_by_itself(site: Database) -> None:
    friday = NOW + timedelta(days=5)
    await site.run(
        store.give,
        "lena",
        [(Measure("gpu"), 1), (Measure("total_gpu"), 1)],
        reason="Thesis",
        expires_at=friday,
        **BY,
    )
    assert limit(site, "gpu") == limit(site, "total_gpu") == 1
    assert limit(site, "gpu", "otto") == 0
    assert limit(site, "gpu", now=friday - timedelta(seconds=1)) == 1
    assert limit(site, "gpu", now=friday) == 0
    with site.read() as conn:
        assert store.exceptions(conn, open_at=friday)[1] == 0
        assert store.exceptions(conn, user="lena")[1] == 2


async def test_an_exception_is_ended_and_never_deleted(site: Database) -> None:
    first = (await site.run(store.give, "lena", [(Measure("nodes"), 8)], reason="Team", **BY))[0]
    second = (await site.run(store.give, "lena", [(Measure("nodes"), 4)], reason="Less", **BY))[0]
    assert limit(site, "nodes") == 4
    await site.run(store.end, second.id, **BY, reason="over")
    assert limit(site, "nodes") == 2
    with site.read() as conn:
        rows, count = store.exceptions(conn, user="lena")
    assert count == 2
    assert {row.id: row.ended_by for row in rows} == {first.id: "boss", second.id: "boss"}
    with pytest.raises(UserError) as refused:
        await site.run(store.change, second.id, amount=9, **BY)
    assert refused.value.status == 409
    assert [line[1] for line in lines(site)] == ["exception.give", "exception.give", "exception.end"]


async def test_one_that_ran_out_makes_room_for_a_new_one(site: Database) -> None:
    soon = NOW + timedelta(hours=1)
    old = (await site.run(store.give, "lena", [(Measure("nodes"), 8)], reason="Team", expires_at=soon, **BY))[
        0
    ]
    later = NOW + timedelta(days=1)
    await site.run(store.give, "lena", [(Measure("nodes"), 9)], reason="Again", actor=BOSS, now=later)
    assert limit(site, "nodes", now=later) == 9
    with site.read() as conn:
        assert store.exception(conn, old.id).ended_at == soon


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"reason": " "}, "has a reason"),
        ({"reason": "x" * 1001}, "too long"),
        ({"expires_at": NOW}, "later end"),
        ({"items": []}, "exception is of"),
        ({"items": [(Measure("nodes"), -1)]}, "negative"),
        ({"items": [(Measure("nodes"), 10**12)]}, "at most"),
        ({"items": [(Measure("role_gpu"), 1)]}, "whole role"),
        ({"user": ""}, "whose"),
    ],
)
async def test_exceptions_that_cannot_be_are_refused_in_words(
    site: Database, values: Any, words: str
) -> None:
    given = {"user": "lena", "items": [(Measure("nodes"), 4)], "reason": "why", **BY, **values}
    with pytest.raises(UserError, match=words):
        await site.run(store.give, given.pop("user"), given.pop("items"), **given)
    with site.read() as conn:
        assert store.exceptions(conn)[1] == 0


async def test_searching_takes_text_as_it_is(site: Database) -> None:
    await site.run(store.give, "lena", [(Measure("nodes"), 4)], reason="50% more", **BY)
    with site.read() as conn:
        assert [store.exceptions(conn, text=text)[1] for text in ("LEN", "50%", "node", "_", "5%m")] == [
            1,
            1,
            1,
            0,
            0,
        ]


async def test_lowering_a_limit_touches_nothing_that_runs(site: Database) -> None:
    quota = QuotaAdmission(site, Policy())
    person = Person(name="lena", groups=("galilean:student",))
    await quota.admit(person, plan_of("lena", nodes=2), ClusterRequest(), ["a", "b"])
    await site.run(
        store.set_limits, [("student", Measure("nodes"), 0), ("student", Measure("clusters"), 0)], **BY
    )
    run = await site.run_read(records.open_run, "lena", "heat")
    assert run is not None
    assert (run.status, run.nodes, run.stop_asked_at) == ("starting", 2, None)
    with pytest.raises(UserError) as refused:
        await quota.admit(person, plan_of("lena", "more"), ClusterRequest(), ["a"])
    assert refused.value.status == 429


async def test_an_exception_that_ends_while_its_cluster_runs_leaves_it_alone(site: Database) -> None:
    clock = [NOW]
    quota = QuotaAdmission(site, Policy(), clock=lambda: clock[0])
    person = Person(name="lena", groups=("galilean:student",))
    await site.run(
        store.give, "lena", [(Measure("nodes"), 3)], reason="Team", expires_at=NOW + timedelta(hours=1), **BY
    )
    await quota.admit(person, plan_of("lena", nodes=3), ClusterRequest(), ["a", "b", "c"])
    clock[0] = NOW + timedelta(hours=2)
    run = await site.run_read(records.open_run, "lena", "heat")
    assert run is not None
    assert run.stop_asked_at is None
    await site.run(store.set_limits, [("student", Measure("clusters"), 5)], **BY)
    with pytest.raises(UserError) as refused:
        await quota.admit(person, plan_of("lena", "again", nodes=3), ClusterRequest(), ["a", "b", "c"])
    assert refused.value.params["which"] == "nodes"


async def test_the_role_that_admitted_is_kept_and_known_as_a_use(site: Database) -> None:
    quota = QuotaAdmission(site, Policy())
    both = Person(name="lena", groups=("galilean:teacher", "galilean:student"))
    await quota.admit(both, plan_of("lena", "small"), ClusterRequest(), ["a"])
    await quota.admit(both, plan_of("lena", "large", nodes=4), ClusterRequest(), list("abcd"))
    with site.read() as conn:
        roles = {run.server: run.role for run in records.list_runs(conn, user="lena")}
        uses = {use.kind: use.count for use in store.uses_of_role(conn, "student")}
    assert roles == {"small": "student", "large": "teacher"}
    assert uses["clusters"] == 1
    assert uses["limits"] > 5


def test_two_changes_at_once_never_move_the_version_to_the_same_number(site: Database) -> None:
    with site.read() as conn:
        before = centre.version(conn)
    barrier = threading.Barrier(4)

    def change(_number: int) -> int:
        barrier.wait(10)
        with site.write() as conn:
            return centre.bump(conn, NOW)

    with ThreadPoolExecutor(4) as pool:
        moved = list(pool.map(change, range(4)))
    assert sorted(moved) == [before + step for step in range(1, 5)]
