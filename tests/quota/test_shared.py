"""Starts that are asked for at once share transactions in the hub, whose database has one thread: no limit gives way."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from extensions.quota import store
from extensions.quota.admission import QuotaAdmission
from extensions.quota.measures import Measure
from extensions.quota.policy import Policy
from galilean.db import Database, metadata
from galilean.errors import UserError
from spawner.collaborators import Person
from spawner.request import ClusterRequest
from tests.quota.test_races import NOW, TOGETHER, ask, check, decide, held
from tests.spawner.backends import plan_of


@pytest.fixture
def sole(database_url: str) -> Iterator[Database]:
    """Our database with one thread, as the hub has it."""
    database = Database(database_url, threads=1)
    metadata.create_all(database.engine)
    yield database
    database.close()


async def test_fifty_at_once_are_exactly_as_many_as_may_be(sole: Database) -> None:
    decide(sole)
    assert await ask(sole, "a") == {201: TOGETHER, 429: 50 - TOGETHER}
    check(held(sole))
    assert held(sole).total() == TOGETHER


async def test_the_same_server_twice_at_once_is_admitted_once(sole: Database) -> None:
    decide(sole)
    quota = QuotaAdmission(sole, Policy())
    person = Person(name="p1", groups=("galilean:student",))

    async def one() -> int:
        try:
            await quota.admit(person, plan_of("p1", "same"), ClusterRequest(), ["n0"])
        except UserError as error:
            return error.status
        return 201

    assert sorted(await asyncio.gather(*(one() for _ in range(5)))) == [201, 409, 409, 409, 409]


async def test_what_is_decided_holds_for_the_next_start_with_nothing_open_and_with_something(
    sole: Database,
) -> None:
    decide(sole)
    quota = QuotaAdmission(sole, Policy())

    async def start(server: str) -> int:
        person = Person(name="p2", groups=("galilean:student",))
        try:
            await quota.admit(person, plan_of("p2", server), ClusterRequest(), ["n0"])
        except UserError as error:
            return error.status
        return 201

    def limit(amount: int) -> None:
        with sole.write() as conn:
            store.set_limits(conn, [("student", Measure("clusters"), amount)], actor=store.COMMAND, now=NOW)

    limit(0)
    assert await start("a") == 429
    limit(1)
    assert await start("a") == 201
    assert await start("b") == 429
    with sole.write() as conn:
        store.give(conn, "p2", [(Measure("clusters"), 2)], reason="more", actor=store.COMMAND, now=NOW)
    assert await start("b") == 201
    assert await start("c") == 429
