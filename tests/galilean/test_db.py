"""The database: times, transactions, serialisation, plain words."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from sqlalchemy import func, insert, select, text

from galilean.db import Database
from galilean.errors import UserError
from galilean.tables import audit_log, leases


def add(conn, name: str, at: datetime | None = None) -> None:
    conn.execute(insert(leases).values(name=name, holder="t", expires_at=at or datetime.now(UTC)))


def count(conn) -> int:
    return conn.execute(select(func.count()).select_from(leases)).scalar_one()


async def test_a_time_comes_back_as_it_was_whatever_its_zone(db: Database):
    at = datetime(2026, 3, 29, 1, 59, 59, 123456, tzinfo=timezone(timedelta(hours=8)))
    await db.run(add, "x", at)
    assert await db.run_read(lambda c: c.execute(select(leases.c.expires_at)).scalar_one()) == at


async def test_a_time_without_a_zone_is_refused(db: Database):
    with pytest.raises(Exception, match="without a zone"):
        await db.run(add, "x", datetime(2026, 1, 1))


async def test_an_exception_rolls_the_whole_transaction_back(db: Database):
    def twice(conn):
        add(conn, "a")
        raise LookupError

    with pytest.raises(LookupError):
        await db.run(twice)
    assert await db.run_read(count) == 0


async def test_a_plain_sum_and_insert_lets_everybody_through_but_a_serialised_one_does_not(db: Database):
    """The naive admission: ten at once under a limit of two (design §4)."""

    def naive(name: str) -> None:
        with db.engine.connect() as conn, conn.begin():
            held = count(conn)
            barrier.wait(10)
            if held < 2:
                add(conn, name)

    if not db.is_sqlite:  # on SQLite the plain transactions do not even get that far: they fail as locked
        barrier = threading.Barrier(4)
        await asyncio.gather(*(asyncio.to_thread(naive, f"n{i}") for i in range(4)))
        assert await db.run_read(count) == 4
        await db.run(lambda c: c.execute(leases.delete()))

    def admit(conn, name: str) -> bool:
        if count(conn) >= 2:
            return False
        add(conn, name)
        return True

    done = await asyncio.gather(*(db.run_serialised("admission", admit, f"s{i}") for i in range(10)))
    assert sum(done) == 2
    assert await db.run_read(count) == 2


async def test_a_locked_sqlite_database_is_told_in_words(sqlite_db: Database, monkeypatch):
    with sqlite_db.engine.connect() as blocker:
        blocker.exec_driver_sql("PRAGMA busy_timeout=1")
        raw = blocker.connection.driver_connection
        raw.execute("COMMIT") if raw.in_transaction else None
        raw.execute("BEGIN IMMEDIATE")
        other = Database(str(sqlite_db.engine.url))
        with other.engine.connect() as conn:
            conn.exec_driver_sql("PRAGMA busy_timeout=1")
        with pytest.raises(UserError) as refused:
            await other.run(add, "x")
        raw.execute("ROLLBACK")
        other.close()
    assert refused.value.status == 503
    assert "busy" in str(refused.value)


async def test_an_unreachable_postgresql_is_told_in_words():
    gone = Database("postgresql://galilean@127.0.0.1:1/none")
    with pytest.raises(UserError) as refused:
        await gone.run(count)
    gone.close()
    assert refused.value.status == 503


@pytest.mark.parametrize("wrong", ["a\x00b", "half of \ud83d", 10**30], ids=["NUL", "surrogate", "huge"])
async def test_what_no_database_can_keep_is_the_requests_fault_and_said_so(db: Database, wrong: object):
    def look(conn) -> int:
        table = leases.c.name if isinstance(wrong, str) else audit_log.c.id
        return len(conn.execute(select(table).where(table == wrong)).all())

    if db.is_sqlite and wrong == "a\x00b":  # which it can
        assert await db.run_read(look) == 0
        return
    with pytest.raises(UserError, match="cannot be kept") as refused:
        await db.run_read(look)
    assert refused.value.status == 400


def test_several_may_open_a_new_sqlite_file_at_once(tmp_path: Path):
    """Without waiting, one in five of these rounds ends with a refusal."""

    def open_it(file: Path, together: threading.Barrier) -> str:
        database = Database(f"sqlite:///{file}")
        try:
            together.wait(60)
            with database.write() as conn:
                return str(conn.execute(text("PRAGMA journal_mode")).scalar())
        finally:
            database.close()

    with ThreadPoolExecutor(4) as pool:
        for number in range(40):
            together = threading.Barrier(4)
            found = pool.map(open_it, [tmp_path / f"{number}.sqlite"] * 4, [together] * 4)
            assert list(found) == ["wal"] * 4
