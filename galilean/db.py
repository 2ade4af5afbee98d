"""Our database: synchronous SQLAlchemy Core behind one hop to a thread.

Why synchronous: inside the hub's busy event loop an asynchronous transaction holds SQLite's write lock
for as long as the loop takes to come round (half a second was seen), a thread holds it for milliseconds.
So a whole transaction is one function, run in one hop: ``await db.run(function, …)``.

Why our own file: with the hub's database and ours in one SQLite file, a writer of ours freezes the hub.

SQLite: WAL, foreign keys on, the driver's implicit transactions off; a write begins with
``BEGIN IMMEDIATE`` so that it is serialised from its first statement. PostgreSQL: plain transactions;
``serialised(name)`` first takes ``pg_advisory_xact_lock``, because sum-compare-insert in a plain
transaction lets everybody through.

Where fifty people start at once, the threads' wish for Python's lock and each way to the database count.
So BEGIN is ours on both databases (with the lock, one message), a single question goes without it
(:meth:`Database.read_once`), and what is asked for while the only thread is at work shares the next
transaction, where a function is marked as fit for that (:func:`together`).
"""

from __future__ import annotations

import asyncio
import sqlite3
import threading
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Concatenate, ParamSpec, TypeVar

from sqlalchemy import (
    Connection,
    DateTime,
    Engine,
    MetaData,
    String,
    TypeDecorator,
    create_engine,
    event,
    make_url,
)
from sqlalchemy.exc import DataError, DBAPIError, DisconnectionError, OperationalError

from galilean.errors import UserError, mark

P = ParamSpec("P")
R = TypeVar("R")

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
        "pk": "pk_%(table_name)s",
    }
)

LOCK_WAIT_SECONDS = 5.0
IDLE_SECONDS = 10.0
#: How many calls share a transaction at most: whoever else wants to write waits for all of them.
TOGETHER_MOST = 16
_TEXT_LENGTH = len("2026-01-01T00:00:00.000000")


class UTCDateTime(TypeDecorator[datetime]):
    """An aware UTC time. PostgreSQL keeps ``timestamptz``, SQLite fixed-width text that sorts by time."""

    impl = DateTime
    cache_ok = True

    def load_dialect_impl(self, dialect: Any) -> Any:
        if dialect.name == "postgresql":
            return dialect.type_descriptor(DateTime(timezone=True))
        return dialect.type_descriptor(String(32))

    def process_bind_param(self, value: datetime | None, dialect: Any) -> Any:
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("a time without a zone")
        value = value.astimezone(UTC)
        if dialect.name == "postgresql":
            return value
        return value.isoformat(timespec="microseconds")[:_TEXT_LENGTH]

    def process_result_value(self, value: Any, dialect: Any) -> datetime | None:
        if value is None:
            return None
        if isinstance(value, str):
            return datetime.fromisoformat(value + "+00:00")  # a third of the time of .replace()
        return value.astimezone(UTC)


def together(function: Callable[P, R]) -> Callable[P, R]:
    """Mark a function for :meth:`Database.run` as fit to share its transaction with others of the kind.

    It writes nothing before it refuses (raises ``UserError``), and can be called again after a rollback: when
    anything else goes wrong, all are rolled back and each is called again in a transaction of its own.
    """
    function.galilean_together = True  # type: ignore[attr-defined]
    return function


@dataclass
class _Call:
    """A function that waits for its transaction, and who waits for its answer."""

    lock: str
    function: Callable[[Connection], Any]
    answer: asyncio.Future[Any]


@dataclass
class _Party:
    """Calls of one hop and one transaction."""

    loop: asyncio.AbstractEventLoop
    calls: list[_Call] = field(default_factory=list)
    lock: str = ""

    def takes(self, call: _Call) -> bool:
        """Take one more, if it can be of this party."""
        fits = len(self.calls) < TOGETHER_MOST and (not call.lock or self.lock in ("", call.lock))
        if fits and self.loop is call.answer.get_loop():
            self.lock = self.lock or call.lock
            self.calls.append(call)
            return True
        return False


class _SpoiledError(Exception):
    """One of several calls failed in a way that leaves its transaction of no use to the others."""


class Database:
    """One database and the threads that talk to it.

    Parameters
    ----------
    url
        ``sqlite:////path/file.sqlite`` or ``postgresql+psycopg://…`` (plain ``postgresql://`` is taken so).
    threads
        How many transactions may be under way at once. One in the hub, where those that are marked
        (:func:`together`) share one; a few in a service.
    """

    def __init__(self, url: str, *, threads: int = 1) -> None:
        parsed = make_url(url)
        if parsed.drivername in ("postgresql", "postgres"):
            parsed = parsed.set(drivername="postgresql+psycopg")
        self.is_sqlite = parsed.get_backend_name() == "sqlite"
        self.engine = _sqlite_engine(parsed) if self.is_sqlite else _postgresql_engine(parsed, threads)
        self._executor = ThreadPoolExecutor(threads, thread_name_prefix="galilean-db")
        self._sole = threads == 1
        self._guard = threading.Lock()
        self._last: _Party | None = None  # what was asked for last, while nobody has taken it up

    @contextmanager
    def read_once(self) -> Iterator[Connection]:
        """A connection for questions of which each is answered by itself: there is no transaction around them."""
        with self.engine.connect() as conn:
            yield conn.execution_options(galilean_bare=True)

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A connection for reading; what it sees is one snapshot on SQLite."""
        with self.engine.connect() as conn:
            yield conn

    @contextmanager
    def write(self, *, often: bool = False) -> Iterator[Connection]:
        """One transaction that writes: committed at the end, rolled back on any exception.

        ``often``: its statements are the same few, by index, again and again, so that PostgreSQL plans each once.
        """
        options = {"galilean_immediate": True} if self.is_sqlite else {"galilean_often": often}
        with self.engine.connect() as conn:
            conn = conn.execution_options(**options)
            with conn.begin():
                yield conn

    @contextmanager
    def serialised(self, name: str, *, often: bool = False, patient: bool = False) -> Iterator[Connection]:
        """A writing transaction of which only one of this ``name`` is under way at a time, anywhere.

        Whoever is ``patient`` waits as long as the one before takes (PostgreSQL), as the upgrade of a schema does.
        """
        if self.is_sqlite:
            with self.write() as conn:
                yield conn
            return
        key = zlib.crc32(f"galilean:{name}".encode())
        with self.engine.connect() as conn:
            conn = conn.execution_options(galilean_lock=key, galilean_often=often, galilean_patient=patient)
            with conn.begin():
                yield conn

    async def run(
        self, function: Callable[Concatenate[Connection, P], R], *args: P.args, **kwargs: P.kwargs
    ) -> R:
        """Run ``function(conn, …)`` as one writing transaction in a thread.

        It may be shared with others where the function is marked (:func:`together`). Whatever was asked for
        first is done first, in any case.

        Raises
        ------
        UserError
            503 when the database cannot be reached or stays locked; 507 when its disk is full.
        """
        if self._sole and getattr(function, "galilean_together", False):
            return await self._share("", function, *args, **kwargs)
        return await self._hop(self.write, function, *args, **kwargs)

    async def run_read(
        self, function: Callable[Concatenate[Connection, P], R], *args: P.args, **kwargs: P.kwargs
    ) -> R:
        """Run ``function(conn, …)`` for reading in a thread."""
        return await self._hop(self.read, function, *args, **kwargs)

    async def run_serialised(
        self, name: str, function: Callable[Concatenate[Connection, P], R], *args: P.args, **kwargs: P.kwargs
    ) -> R:
        """Run ``function(conn, …)`` in a thread inside :meth:`serialised`; shared as by :meth:`run`."""
        if self._sole and getattr(function, "galilean_together", False):
            return await self._share(name, function, *args, **kwargs)
        return await self._hop(lambda: self.serialised(name), function, *args, **kwargs)

    async def _hop(
        self, begin: Callable[[], Any], function: Callable[..., R], *args: Any, **kwargs: Any
    ) -> R:
        def transaction() -> R:
            with plain_words(), begin() as conn:
                return function(conn, *args, **kwargs)

        with self._guard:
            self._last = None  # nobody joins those who were before it
        # Shielded: a transaction whose caller was cancelled still runs to its end, in one piece.
        return await asyncio.shield(asyncio.get_running_loop().run_in_executor(self._executor, transaction))

    async def _share(self, lock: str, function: Callable[..., R], *args: Any, **kwargs: Any) -> R:
        loop = asyncio.get_running_loop()
        call = _Call(lock, lambda conn: function(conn, *args, **kwargs), loop.create_future())
        with self._guard:
            if self._last is None or not self._last.takes(call):
                party = _Party(loop)
                party.takes(call)
                self._executor.submit(self._take_up, party)
                self._last = party
        # A caller who was cancelled takes the future along, not the transaction.
        return await call.answer

    def _take_up(self, party: _Party) -> None:
        with self._guard:
            if self._last is party:
                self._last = None
        try:
            answers = self._answers(party)
        except BaseException as error:
            answers = [(None, error)] * len(party.calls)
        with suppress(RuntimeError):  # the loop is closed: nobody waits
            party.loop.call_soon_threadsafe(_tell, party.calls, answers)

    def _answers(self, party: _Party) -> list[tuple[Any, BaseException | None]]:
        if len(party.calls) > 1:
            with suppress(_SpoiledError):
                return self._in_one(party.lock, party.calls)
        return [answer for call in party.calls for answer in self._alone(call)]

    def _begun(self, lock: str) -> Any:
        return self.serialised(lock, often=True) if lock else self.write(often=True)

    def _in_one(self, lock: str, calls: Sequence[_Call]) -> list[tuple[Any, BaseException | None]]:
        answers: list[tuple[Any, BaseException | None]] = []
        try:
            with plain_words(), self._begun(lock) as conn:
                for call in calls:
                    try:
                        answers.append((call.function(conn), None))
                    except Exception as error:
                        if not isinstance(error, UserError) or error.__cause__ is not None:
                            raise _SpoiledError from error
                        answers.append((None, error))
        except _SpoiledError:
            raise
        except Exception as error:  # of its beginning or its end: the same for all of them
            return [(None, error)] * len(calls)
        return answers

    def _alone(self, call: _Call) -> list[tuple[Any, BaseException | None]]:
        try:
            with plain_words(), self._begun(call.lock) as conn:
                answer = call.function(conn)
        except Exception as error:
            return [(None, error)]
        return [(answer, None)]

    def close(self) -> None:
        """Wait for what is under way, then let go of the connections."""
        self._executor.shutdown(wait=True)
        self.engine.dispose()


def _tell(calls: Sequence[_Call], answers: Sequence[tuple[Any, BaseException | None]]) -> None:
    for call, (answer, error) in zip(calls, answers, strict=True):
        if call.answer.done():  # cancelled
            continue
        if error is None:
            call.answer.set_result(answer)
        else:
            call.answer.set_exception(error)


@contextmanager
def plain_words() -> Iterator[None]:
    """Turn the database's own troubles into words for people."""
    try:
        yield
    except OperationalError as error:
        detail = str(error.orig).lower()
        if "full" in detail or "no space" in detail:
            raise UserError(
                507, mark("The disk of the platform's database is full. An administrator must free space.")
            ) from error
        if "locked" in detail or "busy" in detail or "lock timeout" in detail:
            raise UserError(
                503, mark("The platform's database is busy. Try again in a few seconds.")
            ) from error
        if error.connection_invalidated or "connect" in detail or "connection" in detail:
            raise UserError(
                503, mark("The platform's database cannot be reached. Your running clusters go on.")
            ) from error
        raise
    except (UnicodeEncodeError, OverflowError) as error:  # the drivers', before anything is sent
        if isinstance(error, OverflowError) and "SQLite" not in str(error):
            raise
        raise _unstorable() from error
    except DBAPIError as error:
        if error.connection_invalidated:
            raise UserError(
                503, mark("The platform's database cannot be reached. Your running clusters go on.")
            ) from error
        if isinstance(error, DataError):
            raise _unstorable() from error
        raise


def _unstorable() -> UserError:
    return UserError(
        400, mark("The request has a number that is too large, or text with characters that cannot be kept.")
    )


def _use_wal(cursor: sqlite3.Cursor) -> None:
    """Switch to the write-ahead log: the one statement for which SQLite itself does not wait for a lock."""
    until = time.monotonic() + LOCK_WAIT_SECONDS
    while True:
        try:
            cursor.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > until:
                raise
            time.sleep(0.01)


def _sqlite_engine(url: Any) -> Engine:
    # NullPool would reopen the file (and its WAL index) for each transaction; the default pool keeps it.
    engine = create_engine(url, connect_args={"timeout": LOCK_WAIT_SECONDS, "check_same_thread": False})

    @event.listens_for(engine, "connect")
    def connect(driver: sqlite3.Connection, _record: Any) -> None:
        driver.isolation_level = None  # BEGIN is ours; the driver's own comes too late
        cursor = driver.cursor()
        _use_wal(cursor)
        cursor.execute("PRAGMA synchronous=NORMAL")
        cursor.execute("PRAGMA foreign_keys=ON")
        cursor.close()

    @event.listens_for(engine, "begin")
    def begin(conn: Connection) -> None:
        options = conn.get_execution_options()
        if options.get("galilean_bare"):
            return
        immediate = options.get("galilean_immediate")
        statement = "BEGIN IMMEDIATE" if immediate else "BEGIN"
        driver: Any = conn.connection.driver_connection
        try:  # straight to the driver: a tenth of the time, five times in each start
            driver.execute(statement)
        except sqlite3.OperationalError as error:
            raise OperationalError(statement, None, error) from error

    return engine


def _postgresql_engine(url: Any, threads: int) -> Engine:
    engine = create_engine(
        url,
        # Four for those who read in threads of their own (the resolver, before it looks at a disk). As overflow
        # they would be closed and made again all the time.
        pool_size=threads + 4,
        max_overflow=0,
        connect_args={"connect_timeout": 5, "options": "-c timezone=UTC -c lock_timeout=5000"},
    )

    @event.listens_for(engine, "begin")
    def begin(conn: Connection) -> None:
        options = conn.get_execution_options()
        driver: Any = conn.connection.driver_connection
        if options.get("galilean_bare") or options.get(
            "isolation_level"
        ):  # the driver begins, or nobody does
            return
        key = options.get("galilean_lock")
        statement = "BEGIN"
        if options.get("galilean_often"):
            # Else admission's question is planned for each person anew, which takes twice as long as answering it.
            statement += "; SET LOCAL plan_cache_mode TO force_generic_plan"
        if key is not None:
            # One message, but statements of their own: what follows sees what those have written who had the lock
            # before.
            lock = f"SELECT pg_advisory_xact_lock({int(key)})"
            if options.get("galilean_patient"):
                lock = f"SET LOCAL lock_timeout TO 0; {lock}; SET LOCAL lock_timeout TO DEFAULT"
            statement += f"; {lock}"
        try:
            driver.execute(statement, prepare=False)
        except engine.dialect.loaded_dbapi.Error as error:
            gone = engine.dialect.is_disconnect(error, driver, None)
            if gone:
                engine.dispose()  # the others are no better; this one is thrown away when it is given back
            raise OperationalError(statement, None, error, connection_invalidated=gone) from error

    @event.listens_for(engine, "checkin")
    def used(_driver: Any, record: Any) -> None:
        record.info["used_at"] = time.monotonic()

    @event.listens_for(engine, "checkout")
    def ask_when_idle(driver: Any, record: Any, _proxy: Any) -> None:
        if not driver.autocommit:  # new, or somebody asked for a level: BEGIN is ours again
            driver.autocommit = True
        # Asked before every transaction, a round trip each, it is felt at thirty starts a second.
        if time.monotonic() - record.info.get("used_at", 0.0) > IDLE_SECONDS:
            try:
                engine.dialect.do_ping(driver)
            except DBAPIError as error:
                raise DisconnectionError from error
            except engine.dialect.loaded_dbapi.Error as error:
                raise DisconnectionError from error

    return engine
