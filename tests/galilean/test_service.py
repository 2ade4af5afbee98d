from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from tornado.httpclient import AsyncHTTPClient
from tornado.httpserver import HTTPServer
from tornado.testing import bind_unused_port

from galilean.db import Database, metadata
from galilean.service import (
    Beside,
    Lease,
    LeaseRow,
    Service,
    application,
    may_take,
    next_tick_at,
    pause_after,
    read_lease,
)

T0 = datetime(2026, 3, 2, tzinfo=UTC)


class Clocks:
    """A wall clock and a monotonic clock that go together until one of them is moved."""

    def __init__(self) -> None:
        self.wall, self.seconds = T0, 1000.0

    def now(self) -> datetime:
        return self.wall

    def monotonic(self) -> float:
        return self.seconds

    def pass_(self, seconds: float) -> None:
        self.wall += timedelta(seconds=seconds)
        self.seconds += seconds


def lease(db: Database, clocks: Clocks, holder: str) -> Lease:
    return Lease(
        db, "metering", clock=clocks.now, monotonic=clocks.monotonic, lease_seconds=10, holder=holder
    )


def service(db: Database, clocks: Clocks, tick, **more) -> Service:
    return Service(
        "metering", db, tick, interval_seconds=5, clock=clocks.now, monotonic=clocks.monotonic, **more
    )


@pytest.mark.parametrize(
    ("row", "unchanged", "may"),
    [
        (None, 0, True),
        (LeaseRow("a", T0 + timedelta(seconds=1)), 0, False),
        (LeaseRow("a", T0), 0, True),
        (LeaseRow("a", T0 + timedelta(days=900)), 9, False),
        (LeaseRow("a", T0 + timedelta(days=900)), 11, True),
    ],
)
def test_who_may_take_a_lease(row: LeaseRow | None, unchanged: float, may: bool) -> None:
    assert may_take(row, now=T0, unchanged_seconds=unchanged, lease_seconds=10) is may


async def test_only_one_of_many_holds_the_lease(db: Database) -> None:
    clocks = Clocks()
    many = [lease(db, clocks, f"h{number}") for number in range(6)]
    held = await asyncio.gather(*(one.keep() for one in many))
    assert sum(held) == 1
    clocks.pass_(4)
    assert await asyncio.gather(*(one.keep() for one in many)) == held


async def test_a_lease_that_ran_out_is_taken_over_and_its_old_holder_knows(db: Database) -> None:
    clocks = Clocks()
    old, new = lease(db, clocks, "old"), lease(db, clocks, "new")
    assert await old.keep() and not await new.keep()
    clocks.pass_(10.5)
    assert not old.held  # by itself, before it could ask
    assert await new.keep()
    assert not await old.keep()
    await new.let_go()
    assert await old.keep()  # at once


async def test_a_row_dated_years_ahead_locks_nobody_out(db: Database) -> None:
    clocks = Clocks()
    clocks.wall += timedelta(days=3650)
    assert await lease(db, clocks, "old").keep()
    clocks.wall -= timedelta(days=3650)
    new = lease(db, clocks, "new")
    assert not await new.keep()
    clocks.pass_(6)
    assert not await new.keep()
    clocks.pass_(6)
    assert await new.keep()


async def test_a_clock_that_jumps_back_does_not_cost_the_holder_its_lease(db: Database) -> None:
    clocks = Clocks()
    holder, other = lease(db, clocks, "holder"), lease(db, clocks, "other")
    assert await holder.keep()
    for _ in range(8):
        clocks.pass_(4)
        clocks.wall -= timedelta(hours=1)
        assert await holder.keep()
        assert not await other.keep()
    with db.read() as conn:
        row = read_lease(conn, "metering")
    assert row is not None and row.holder == "holder"


def test_ticks_are_at_whole_multiples_and_missed_ones_are_left_out() -> None:
    assert next_tick_at(100, 100, 5) == 105
    assert next_tick_at(100, 104.9, 5) == 105
    assert next_tick_at(100, 105, 5) == 110
    assert next_tick_at(100, 131, 5) == 135


def test_pauses_grow_up_to_a_minute_and_stay_there() -> None:
    assert [pause_after(n, 5) for n in range(6)] == [0, 5, 10, 20, 40, 60]
    assert pause_after(10**6, 5) == 60
    assert pause_after(3, 600) == 600


async def test_a_tick_that_raises_is_told_in_health_and_does_not_end_the_loop(db: Database) -> None:
    clocks, ticks = Clocks(), []

    async def tick() -> None:
        ticks.append(1)
        if len(ticks) < 3:
            raise RuntimeError("the backend is away")

    one = service(db, clocks, tick)
    for failures in (1, 2):
        await one.step()
        fine, words = one.report()
        assert not fine
        assert words["failures_in_a_row"] == failures
        assert "the backend is away" in words["problem"]
    await one.step()
    fine, words = one.report()
    assert fine and words["role"] == "working" and words["problem"] == ""


async def test_a_tick_that_hangs_is_given_up_and_told(db: Database) -> None:
    async def tick() -> None:
        await asyncio.Event().wait()

    one = service(db, Clocks(), tick, tick_limit_seconds=0.05)
    await one.step()
    fine, words = one.report()
    assert not fine and "took longer" in words["problem"]


async def test_who_stands_by_does_not_tick_and_is_well(db: Database) -> None:
    clocks, ticks = Clocks(), []

    async def tick() -> None:
        ticks.append(1)

    first, second = service(db, clocks, tick), service(db, clocks, tick)
    await first.step()
    await second.step()
    assert len(ticks) == 1
    assert second.report()[0] and second.report()[1]["role"] == "standby"
    clocks.pass_(11)
    await second.step()
    await first.step()
    assert len(ticks) == 2
    assert (first.report()[1]["role"], second.report()[1]["role"]) == ("standby", "working")


async def test_a_loop_that_stands_still_is_not_well(db: Database) -> None:
    clocks = Clocks()

    async def tick() -> None:
        pass

    one = service(db, clocks, tick)
    await one.step()
    assert one.report()[0]
    clocks.pass_(100)
    fine, words = one.report()
    assert not fine and "no tick went well for 100 seconds" in words["problem"]


async def test_a_database_that_is_away_is_told_and_waited_for(db: Database) -> None:
    class Away(Lease):
        away = True

        async def keep(self) -> bool:
            if self.away:
                raise OSError("the database is away")
            return await super().keep()

    clocks, ticks = Clocks(), []

    async def tick() -> None:
        ticks.append(1)

    one = service(db, clocks, tick)
    one.lease = away = Away(db, "metering", clock=clocks.now, monotonic=clocks.monotonic)
    await one.step()
    assert not one.report()[0] and ticks == []
    away.away = False
    await one.step()
    assert one.report()[0] and ticks == [1]


async def test_stop_ends_the_loop_after_the_tick_and_lets_the_lease_go(db: Database) -> None:
    async def tick() -> None:
        one.stop()

    one = Service("metering", db, tick, interval_seconds=60)
    await asyncio.wait_for(one.run(), 10)
    other = Lease(db, "metering")
    assert await other.keep()


class Hanging:
    """Work beside the ticks that never comes to an end by itself."""

    def __init__(self) -> None:
        self.begun, self.ended = asyncio.Event(), asyncio.Event()

    async def work(self) -> None:
        self.begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)  # it may take a moment to end cleanly
            self.ended.set()


async def test_what_hangs_beside_the_ticks_holds_up_none_and_ends_with_the_service(db: Database) -> None:
    hanging, ticks = Hanging(), 0

    async def tick() -> None:
        nonlocal ticks
        ticks += 1
        if ticks > 2 and hanging.begun.is_set():
            one.stop()

    beside = [Beside(name="mail", work=hanging.work, interval_seconds=0.01)]
    one = Service("metering", db, tick, interval_seconds=0.02, beside=beside)
    await asyncio.wait_for(one.run(), 60)
    assert ticks > 2
    assert hanging.ended.is_set()
    assert await Lease(db, "metering").keep(), "let go after the work had ended"


async def test_work_beside_the_ticks_stops_when_the_lease_is_lost_and_what_it_raises_is_told(
    db: Database, caplog: pytest.LogCaptureFixture
) -> None:
    clocks, hanging = Clocks(), Hanging()

    async def nothing() -> None:
        pass

    one = service(db, clocks, nothing, lease_seconds=0.1)
    assert await one.lease.keep()
    round_ = asyncio.create_task(one._one_round(Beside(name="mail", work=hanging.work, interval_seconds=1)))
    await hanging.begun.wait()
    clocks.pass_(11)
    await asyncio.wait_for(round_, 60)
    assert hanging.ended.is_set()

    async def broken() -> None:
        raise RuntimeError("no")

    assert await one.lease.keep()
    await one._one_round(Beside(name="mail", work=broken, interval_seconds=1))
    assert "RuntimeError: no" in caplog.text


async def test_health_and_metrics_answer(db: Database) -> None:
    clocks = Clocks()

    async def tick() -> None:
        raise RuntimeError("no")

    one = service(db, clocks, tick)
    sock, port = bind_unused_port()
    server = HTTPServer(application(one))
    server.add_sockets([sock])
    client = AsyncHTTPClient()
    try:
        answer = await client.fetch(f"http://127.0.0.1:{port}/health", raise_error=False)
        assert (answer.code, json.loads(answer.body)["role"]) == (200, "starting")
        await one.step()
        answer = await client.fetch(f"http://127.0.0.1:{port}/health", raise_error=False)
        assert answer.code == 503
        answer = await client.fetch(f"http://127.0.0.1:{port}/metrics")
        assert b"galilean_tick_fail_total 1.0" in answer.body
    finally:
        server.stop()


@pytest.mark.parametrize("name", ["metering", "release", "queue"])
def test_each_service_is_a_small_process_that_stops_when_told(name: str, tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path / 'galilean.sqlite'}")
    import spawner.tables  # noqa: F401

    metadata.create_all(database.engine)
    database.close()
    sock, port = bind_unused_port()
    sock.close()
    process = subprocess.Popen(
        [sys.executable, "-m", f"services.{name}"],
        env={
            "PATH": os.environ["PATH"],
            "GALILEAN_STATE": str(tmp_path),
            "GALILEAN_SERVICE_PORT": str(port),
            "JUPYTERHUB_API_URL": "http://127.0.0.1:9/hub/api",  # nobody there
            "JUPYTERHUB_API_TOKEN": "secret-token",
        },
        cwd=Path(__file__).parents[2],
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        for _ in range(3000):
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=30) as answer:
                    words = json.load(answer)
            except urllib.error.HTTPError as error:
                words = json.load(error)
            except OSError:
                words = {"role": "not there"}
            if words["role"] == "working" or words.get("problem"):
                break
            assert process.poll() is None
            asyncio.run(asyncio.sleep(0.05))
        assert words["role"] == "working", words
        maps = Path(f"/proc/{process.pid}/status").read_text()
        resident_kb = int(next(line for line in maps.splitlines() if line.startswith("VmRSS")).split()[1])
        assert resident_kb < 120_000
    finally:
        process.send_signal(signal.SIGTERM)
        _, told = process.communicate(timeout=120)
    assert process.returncode == 0, told
    assert "secret-token" not in told
