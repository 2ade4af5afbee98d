"""Admission on both databases: exactly what the limit allows, waiting in turn, one row for one server."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from ulid import ULID

from extensions.quota.admission import Fixed, QuotaAdmission
from extensions.quota.held import held
from extensions.quota.limits import Limits
from extensions.quota.room import HostRoom
from extensions.quota.rules import decide
from galilean.amounts import GIB
from galilean.db import Database
from galilean.errors import UserError
from galilean.settings import Limits as SettingsLimits
from spawner import records, steps
from spawner.collaborators import Person
from spawner.records import Run
from spawner.request import ClusterRequest
from tests.spawner.backends import plan_of

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
ADA = Person(name="ada", groups=("galilean:student",), asked_by="ada")
TWO = Limits.from_settings(
    SettingsLimits.model_validate(
        {"clusters": 2, "nodes": 4, "cpu": 8, "memory": "8G", "total_cpu": 100, "total_memory": "100G"}
    )
)


def run_of(run_id: str, **changes: Any) -> Run:
    run = Run(
        id=run_id,
        user="ada",
        server="heat",
        project_id="p",
        project_owner="ada",
        project_slug="heat",
        project_name="Heat",
        environment="jupyter",
        backend="memory",
        nodes=1,
        cpu_millicores=1000,
        memory_bytes=GIB,
        release_policy="auto",
        request={},
        status="running",
        asked_by="ada",
        queued_at=NOW,
    )
    return replace(run, **changes)


def admission(db: Database, limits: Limits | None = TWO, room: HostRoom | None = None) -> QuotaAdmission:
    return QuotaAdmission(db, Fixed(limits), room)


async def admit(
    quota: QuotaAdmission, server: str, request: ClusterRequest | None = None, **plan: Any
) -> str:
    made = plan_of(server=server, **plan)
    names = [f"n{rank}" for rank in range(made.nodes)]
    return (await quota.admit(ADA, made, request or ClusterRequest(nodes=made.nodes), names)).run_id


async def outcome(quota: QuotaAdmission, server: str, **plan: Any) -> int:
    try:
        await admit(quota, server, **plan)
    except UserError as error:
        return error.status
    return 201


async def test_ten_at_once_under_a_limit_of_two_are_exactly_two(db: Database):
    quota = admission(db)
    answers = await asyncio.gather(*(outcome(quota, f"p{i}") for i in range(10)))
    assert sorted(answers) == [201, 201] + [429] * 8
    assert await db.run_read(records.count_open, user="ada") == 2


async def test_ten_threads_at_once_are_exactly_two_also_without_the_hubs_one_thread(db: Database):
    quota = admission(db)
    barrier = threading.Barrier(10)

    def start(number: int) -> bool:
        barrier.wait(10)
        try:
            with db.serialised("admission") as conn:
                quota.admit_now(conn, ADA, plan_of(server=f"p{number}"), ClusterRequest(), ["n0"])
        except UserError:
            return False
        return True

    with ThreadPoolExecutor(10) as pool:
        done = list(pool.map(start, range(10)))
    assert sum(done) == 2
    assert await db.run_read(records.count_open, user="ada") == 2


async def test_the_naive_admission_lets_all_through(db: Database):
    """Sum, compare, insert in a plain transaction: what :class:`QuotaAdmission` is there against."""
    everybody = 4 if not db.is_sqlite else 1
    barrier = threading.Barrier(everybody)

    def naive(number: int) -> bool:
        plan = plan_of(server=f"p{number}")
        with db.engine.connect() as conn, conn.begin():
            refusal = decide(plan, held(conn, "ada"), TWO.with_amounts(clusters=1))
            barrier.wait(10)
            if refusal is not None:
                return False
            steps.reserve(
                conn,
                run_id=str(ULID()),
                plan=plan,
                request=ClusterRequest(),
                backend="memory",
                asked_by="ada",
                now=NOW,
            )
            return True

    done = await asyncio.gather(*(asyncio.to_thread(naive, i) for i in range(everybody)))
    assert sum(done) == everybody
    if not db.is_sqlite:
        assert await db.run_read(records.count_open, user="ada") > 1


async def test_a_naive_count_await_insert_lets_ten_through_on_both(db: Database):
    async def naive(number: int) -> None:
        plan = plan_of(server=f"p{number}")
        holds = await db.run_read(held, "ada")
        if decide(plan, holds, TWO) is None:
            await db.run(
                steps.reserve,
                run_id=str(ULID()),
                plan=plan,
                request=ClusterRequest(),
                backend="memory",
                asked_by="ada",
                now=NOW,
            )

    await asyncio.gather(*(naive(i) for i in range(10)))
    assert await db.run_read(records.count_open, user="ada") > 2


async def test_one_server_has_one_open_run_even_when_the_first_lock_is_missing(db: Database):
    quota = admission(db)
    await admit(quota, "heat")
    with pytest.raises(UserError) as refused:
        await admit(quota, "heat")
    assert refused.value.status == 409

    def behind_its_back(conn):
        steps.reserve(
            conn,
            run_id=str(ULID()),
            plan=plan_of(server="heat"),
            request=ClusterRequest(),
            backend="memory",
            asked_by="ada",
            now=NOW,
        )

    with pytest.raises(UserError) as refused:
        await db.run(behind_its_back)
    assert refused.value.status == 409


async def test_without_a_role_nobody_gets_in(db: Database):
    with pytest.raises(UserError) as refused:
        await admit(admission(db, None), "heat")
    assert refused.value.status == 403
    assert await db.run_read(records.count_open) == 0


async def test_what_waits_is_held_and_what_is_closed_is_not(db: Database):
    quota = admission(db, room=HostRoom(cpu_millicores=2000, memory_bytes=100 * GIB))
    await admit(quota, "one", nodes=2)
    assert await outcome(quota, "two") == 503
    holds = await db.run_read(held, "ada")
    assert (holds.clusters, holds.cpu_millicores, holds.memory_bytes) == (2, 3000, 3 * GIB)
    assert await outcome(quota, "three") == 429
    run = await db.run_read(records.open_run, "ada", "one")
    stopping = await db.run(steps.begin_stop, "ada", "one", reason="asked")
    assert run and stopping
    assert (await db.run_read(held, "ada")).clusters == 2, "being removed is held still"
    assert await db.run(steps.close, stopping, ends={}, now=NOW)
    assert (await db.run_read(held, "ada")).clusters == 1


async def test_nobody_younger_of_the_same_kind_overtakes(db: Database):
    limits = TWO.with_amounts(clusters=20, gpu=1, total_gpu=9)
    quota = admission(db, limits, HostRoom(cpu_millicores=4000, memory_bytes=100 * GIB))
    first = await admit(quota, "first", nodes=3)
    assert await outcome(quota, "big", nodes=4) == 503
    assert await outcome(quota, "small") == 503, "there is room, but somebody waits for it"
    assert await outcome(quota, "other", gpu_model="a100", gpu=1) == 201, "another kind of machine"
    assert [run.server for run in await db.run_read(records.waiting)] == ["big", "small"]
    stopping = await db.run(steps.begin_stop, "ada", "first", reason="asked")
    assert stopping is not None
    assert stopping.id == first
    await db.run(steps.close, stopping, ends={}, now=NOW)
    stopping = await db.run(steps.begin_stop, "ada", "other", reason="asked")
    assert stopping
    await db.run(steps.close, stopping, ends={}, now=NOW)
    assert await outcome(quota, "small") == 503
    big = await db.run_read(records.open_run, "ada", "big")
    assert big is not None
    assert await admit(quota, "big", nodes=4) == big.id, "the waiting row is taken up"
    taken = await db.run_read(records.get, big.id)
    assert taken is not None
    assert (taken.status, taken.reason) == ("starting", "")


async def test_who_asks_for_something_else_goes_to_the_end_of_the_line(db: Database):
    limits = TWO.with_amounts(clusters=20)
    quota = admission(db, limits, HostRoom(cpu_millicores=4000, memory_bytes=100 * GIB))
    await admit(quota, "first", nodes=4)
    for server in ("second", "third"):
        assert await outcome(quota, server) == 503
    assert await outcome(quota, "second") == 503
    assert [run.server for run in await db.run_read(records.waiting)] == ["second", "third"]
    assert await outcome(quota, "second", nodes=2) == 503
    assert [run.server for run in await db.run_read(records.waiting)] == ["third", "second"]


async def test_what_could_never_fit_is_refused_not_queued(db: Database):
    quota = admission(db, room=HostRoom(cpu_millicores=4000, memory_bytes=100 * GIB))
    with pytest.raises(UserError) as refused:
        await admit(quota, "heat", nodes=4, cpu_millicores=2000)
    assert refused.value.status == 400
    assert "8 CPUs" in str(refused.value)
    assert await db.run_read(records.count_open) == 0


def test_the_room_of_this_machine_is_its_cpus_times_the_overcommit():
    from galilean.settings import Process

    one = HostRoom.of_this_machine(Process(cpu_overcommit=1))
    four = HostRoom.of_this_machine(Process(cpu_overcommit=4))
    assert four.cpu_millicores == 4 * one.cpu_millicores > 0
    assert one.memory_bytes > GIB


async def test_who_is_placed_once_more_is_before_everybody_until_it_has_its_places(db: Database) -> None:
    """Else two that together need more than there is would take the places of one another, for ever."""
    quota = admission(db, replace_limits(clusters=9))
    first, second = await admit(quota, "first"), await admit(quota, "second")

    def back(conn: Any, run_id: str) -> None:
        run = records.get(conn, run_id)
        assert run is not None
        steps.begin_stop(conn, run.user, run.server, reason="not_placed")
        stopping = records.get(conn, run_id)
        assert stopping is not None
        assert steps.back_to_queue(conn, stopping, ends={}, now=NOW)

    for run_id in (first, second):
        await db.run(back, run_id)
    assert await admit(quota, "first") == first
    assert await outcome(quota, "second") == 503
    assert await outcome(quota, "third") == 503
    assert await outcome(quota, "card", gpu_model="H100") == 201
    run = await db.run_read(records.get, first)
    assert run is not None
    await db.run(steps.mark_placed, run, [steps.NodeStart(rank=0)], now=NOW)
    assert await outcome(quota, "third") == 503
    assert await admit(quota, "second") == second


def replace_limits(**more: int) -> Limits:
    return TWO.with_amounts(**more)
