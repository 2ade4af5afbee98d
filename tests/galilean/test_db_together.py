"""Transactions that share one: the order is kept, each fails alone, and nobody is answered before the commit."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import Connection, event, insert, select
from sqlalchemy.exc import IntegrityError

from galilean.db import TOGETHER_MOST, Database, metadata, together
from galilean.errors import UserError
from galilean.tables import leases

AT = datetime(2026, 11, 23, tzinfo=UTC)


@pytest.fixture
def sole(database_url: str) -> Iterator[Database]:
    """Our database with one thread, as the hub has it."""
    database = Database(database_url, threads=1)
    metadata.create_all(database.engine)
    yield database
    database.close()


def plain_add(conn: Connection, name: str) -> str:
    conn.execute(insert(leases).values(name=name, holder="t", expires_at=AT))
    return name


add = together(plain_add)


@together
def refuse(conn: Connection, name: str) -> None:
    raise UserError(429, "No {name}.", name=name)


@together
def add_once(conn: Connection, name: str) -> str:
    try:
        return plain_add(conn, name)
    except IntegrityError as error:
        raise UserError(409, "There is one.") from error


@together
def break_down(conn: Connection) -> None:
    plain_add(conn, "half")
    raise LookupError("broken")


def names(conn: Connection) -> set[str]:
    return set(conn.execute(select(leases.c.name)).scalars())


class Busy:
    """Keeps the only thread at work until it is let go, and counts the commits that come after."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._go = threading.Event()
        self.commits = 0

    async def __aenter__(self) -> Busy:
        begun = threading.Event()

        def hold(conn: Connection) -> None:
            begun.set()
            self._go.wait(30)

        self._held = asyncio.ensure_future(self._database.run_read(hold))
        await asyncio.to_thread(begun.wait, 30)
        event.listen(self._database.engine, "commit", self._count)
        return self

    def _count(self, _conn: Any) -> None:
        self.commits += 1

    async def let_go(self, *asked: Any) -> list[Any]:
        """What those who asked meanwhile are answered."""
        waiting = asyncio.gather(*asked, return_exceptions=True)
        await asyncio.sleep(0)  # all of them have asked
        self._go.set()
        return list(await waiting)

    async def __aexit__(self, *_: object) -> None:
        self._go.set()
        await self._held
        event.remove(self._database.engine, "commit", self._count)


async def test_what_is_asked_for_while_the_thread_works_is_one_transaction(sole: Database) -> None:
    async with Busy(sole) as busy:
        assert await busy.let_go(*(sole.run(add, f"n{i}") for i in range(5))) == [f"n{i}" for i in range(5)]
        assert busy.commits == 1
    assert len(await sole.run_read(names)) == 5


async def test_a_transaction_is_shared_by_so_many_and_no_more(sole: Database) -> None:
    async with Busy(sole) as busy:
        await busy.let_go(*(sole.run(add, f"n{i}") for i in range(TOGETHER_MOST + 1)))
        assert busy.commits == 2


async def test_a_refusal_is_of_one_and_the_others_are_written(sole: Database) -> None:
    async with Busy(sole) as busy:
        first, refused, last = await busy.let_go(
            sole.run(add, "a"), sole.run(refuse, "b"), sole.run_serialised("x", add, "c")
        )
        assert busy.commits == 1
    assert (first, last) == ("a", "c")
    assert isinstance(refused, UserError)
    assert await sole.run_read(names) == {"a", "c"}


@pytest.mark.parametrize("spoiler", ["breaks down", "is refused by the database"])
async def test_who_spoils_the_transaction_fails_alone(sole: Database, spoiler: str) -> None:
    await sole.run(plain_add, "there")
    async with Busy(sole) as busy:
        wrong = sole.run(break_down) if spoiler == "breaks down" else sole.run(add_once, "there")
        first, failed, last = await busy.let_go(sole.run(add, "a"), wrong, sole.run(add, "c"))
    assert (first, last) == ("a", "c")
    assert isinstance(failed, LookupError if spoiler == "breaks down" else UserError)
    assert await sole.run_read(names) == {"there", "a", "c"}


async def test_what_is_not_marked_comes_in_its_turn(sole: Database) -> None:
    """A marked one that is asked for last joins nobody who was before the other."""
    order: list[str] = []

    def note(conn: Connection, word: str) -> None:
        order.append(word)

    marked = together(lambda conn, word: note(conn, word))
    async with Busy(sole) as busy:
        await busy.let_go(sole.run(marked, "first"), sole.run(note, "second"), sole.run(marked, "third"))
    assert order == ["first", "second", "third"]


async def test_nobody_is_answered_before_the_commit_and_all_hear_of_one_that_fails(sole: Database) -> None:
    def fail(_conn: Any) -> None:
        raise LookupError("no commit")

    async with Busy(sole) as busy:
        event.listen(sole.engine, "commit", fail)
        answers = await busy.let_go(sole.run(add, "a"), sole.run(add, "b"))
        event.remove(sole.engine, "commit", fail)
    assert [type(answer) for answer in answers] == [LookupError, LookupError]
    assert await sole.run_read(names) == set()


async def test_who_does_not_wait_any_more_is_written_all_the_same(sole: Database) -> None:
    async with Busy(sole) as busy:
        impatient = asyncio.ensure_future(sole.run(add, "a"))
        await asyncio.sleep(0)
        impatient.cancel()
        await busy.let_go(sole.run(add, "b"))
    assert impatient.cancelled()
    assert await sole.run_read(names) == {"a", "b"}


async def test_a_single_question_leaves_no_transaction_behind(sole: Database) -> None:
    await sole.run(plain_add, "a")
    begun: list[object] = []
    with sole.read_once() as conn:
        assert names(conn) == {"a"}
        await sole.run(plain_add, "b")  # it holds up no writer, and sees what was written since
        assert names(conn) == {"a", "b"}
        driver: Any = conn.connection.driver_connection
        begun.append(driver.in_transaction if sole.is_sqlite else driver.info.transaction_status.name)
    assert begun == [False if sole.is_sqlite else "IDLE"]


async def test_a_level_that_is_asked_for_holds_and_is_gone_afterwards(sole: Database) -> None:
    if sole.is_sqlite:
        return
    with sole.read() as conn:
        strict = conn.execution_options(isolation_level="REPEATABLE READ")
        assert names(strict) == set()
        await sole.run(plain_add, "a")
        assert names(strict) == set()
    with sole.read() as conn:
        assert names(conn) == {"a"}
        await sole.run(plain_add, "b")
        assert names(conn) == {"a", "b"}
