"""Fifty requests of ten people at once, from two processes of which one is killed in the middle.

The limits are of persons (two clusters), of everybody of a role together (twelve) and of one by exception; they
are kept exactly, on both databases, whoever comes first and whatever dies. Both with one thread, as the hub has
it, where starts that are asked for at once share transactions, and with several, where each has its own.
"""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import time
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from extensions.quota import store
from extensions.quota.admission import QuotaAdmission
from extensions.quota.measures import Measure
from extensions.quota.policy import Policy
from extensions.quota.seed import seed
from galilean import centre
from galilean.db import Database
from galilean.errors import UserError
from galilean.settings import Settings
from spawner import records
from spawner.collaborators import Person
from spawner.request import ClusterRequest
from tests.spawner.backends import plan_of

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
PEOPLE = tuple(f"p{number}" for number in range(10))
EACH, TOGETHER, LUCKY = 2, 12, 4
ROOT = Path(__file__).resolve().parents[2]


def decide(db: Database) -> None:
    by: Any = {"actor": store.COMMAND, "now": NOW}
    with db.write() as conn:
        centre.seed(conn, Settings(), NOW)
        seed(conn, Settings(), NOW)
        store.set_limits(
            conn,
            [
                ("student", Measure("clusters"), EACH),
                ("student", Measure("total_cpu"), 10_000),
                ("student", Measure("role_clusters"), TOGETHER),
            ],
            **by,
        )
        store.give(conn, "p0", [(Measure("clusters"), LUCKY)], reason="lucky", **by)


async def ask(db: Database, mine: str) -> Counter[int]:
    """Fifty starts at once; how many were answered how."""
    quota = QuotaAdmission(db, Policy())

    async def one(user: str, number: int) -> int:
        person = Person(name=user, groups=("galilean:student",))
        try:
            await quota.admit(person, plan_of(user, f"{mine}{number}"), ClusterRequest(), ["n0"])
        except UserError as error:
            return error.status
        return 201

    return Counter(await asyncio.gather(*(one(user, number) for number in range(5) for user in PEOPLE)))


def held(db: Database) -> Counter[str]:
    with db.read() as conn:
        return Counter(run.user for run in records.all_open(conn))


def check(found: Counter[str]) -> None:
    assert all(count <= (LUCKY if user == "p0" else EACH) for user, count in found.items()), found
    assert found.total() <= TOGETHER


def another_hub(url: str, threads: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.quota.test_races", url, str(threads)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)


def wait_for_some(db: Database) -> None:
    while held(db).total() < TOGETHER // 3:
        time.sleep(0.01)


async def test_fifty_at_once_of_ten_people_are_exactly_as_many_as_may_be(db: Database) -> None:
    decide(db)
    answers = await ask(db, "a")
    assert answers == {201: TOGETHER, 429: 50 - TOGETHER}
    check(held(db))
    assert held(db).total() == TOGETHER


@pytest.mark.parametrize("threads", [1, 4])
async def test_a_hub_that_is_killed_in_the_middle_leaves_nothing_that_is_too_much(
    db: Database, database_url: str, threads: int
) -> None:
    decide(db)
    hub = another_hub(database_url, threads)
    mine = Database(database_url, threads=threads)
    try:
        assert hub.stdout is not None
        assert hub.stdout.readline() == "begins\n"
        beside = asyncio.ensure_future(ask(mine, "b"))
        await asyncio.to_thread(wait_for_some, db)
        hub.send_signal(signal.SIGKILL)
        answers = await beside
        check(held(db))
        assert answers.keys() <= {201, 429} and answers.total() == 50
        again = await ask(mine, "c")
    finally:
        hub.kill()
        hub.wait(10)
        mine.close()
    check(held(db))
    assert held(db).total() == TOGETHER, "what the dead hub did not take is still to be had"
    assert again[201] + answers[201] <= TOGETHER
    with db.read() as conn:
        runs = records.all_open(conn)
        nodes = records.intervals(conn, [run.id for run in runs])
    assert all(len(nodes[run.id]) == 1 and run.role == "student" for run in runs), "whole or not at all"


async def _be_a_hub(url: str, threads: int) -> None:
    database = Database(url, threads=threads)
    print("begins", flush=True)
    while True:
        await ask(database, "h")
        with database.write() as conn:  # so that there is always something to take
            conn.exec_driver_sql("UPDATE clusters SET released_at = queued_at WHERE server LIKE 'h%'")


if __name__ == "__main__":
    asyncio.run(_be_a_hub(sys.argv[1], int(sys.argv[2])))
