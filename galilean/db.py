"""Our database: synchronous SQLAlchemy Core behind one hop to a thread.

Why synchronous: inside the hub's busy event loop an asynchronous transaction holds SQLite's write lock
for as long as the loop takes to come round (half a second was seen), a thread holds it for milliseconds.
So a whole transaction is one function, run in one hop: ``await db.run(function, …)``.

Why our own file: with the hub's database and ours in one SQLite file, a writer of ours freezes the hub.

SQLite: WAL, foreign keys on, the driver's implicit transactions off; a write begins with
``BEGIN IMMEDIATE`` so that it is serialised from its first statement. PostgreSQL: plain transactions;
``serialised(name)`` first takes ``pg_advisory_xact_lock``, because sum-compare-insert in a plain
transaction lets everybody through.
"""

from __future__ import annotations

import asyncio
import sqlite3
import time
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
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
    text,
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
            return datetime.fromisoformat(value).replace(tzinfo=UTC)
        return value.astimezone(UTC)


class Database:
    """One database and the threads that talk to it.

    Parameters
    ----------
    url
        ``sqlite:////path/file.sqlite`` or ``postgresql+psycopg://…`` (plain ``postgresql://`` is taken so).
    threads
        How many transactions may be under way at once. One in the hub, a few in a service.
    """

    def __init__(self, url: str, *, threads: int = 1) -> None:
        parsed = make_url(url)
        if parsed.drivername in ("postgresql", "postgres"):
            parsed = parsed.set(drivername="postgresql+psycopg")
        self.is_sqlite = parsed.get_backend_name() == "sqlite"
        self.engine = _sqlite_engine(parsed) if self.is_sqlite else _postgresql_engine(parsed, threads)
        self._executor = ThreadPoolExecutor(threads, thread_name_prefix="galilean-db")

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A connection for reading; what it sees is one snapshot on SQLite."""
        with self.engine.connect() as conn:
            yield conn

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """One transaction that writes: committed at the end, rolled back on any exception."""
        with self.engine.connect() as conn:
            if self.is_sqlite:
                conn = conn.execution_options(galilean_immediate=True)
            with conn.begin():
                yield conn

    @contextmanager
    def serialised(self, name: str) -> Iterator[Connection]:
        """A writing transaction of which only one of this ``name`` is under way at a time, anywhere."""
        with self.write() as conn:
            if not self.is_sqlite:
                key = zlib.crc32(f"galilean:{name}".encode())
                conn.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": key})
            yield conn

    async def run(
        self, function: Callable[Concatenate[Connection, P], R], *args: P.args, **kwargs: P.kwargs
    ) -> R:
        """Run ``function(conn, …)`` as one writing transaction in a thread.

        Raises
        ------
        UserError
            503 when the database cannot be reached or stays locked; 507 when its disk is full.
        """
        return await self._hop(self.write, function, *args, **kwargs)

    async def run_read(
        self, function: Callable[Concatenate[Connection, P], R], *args: P.args, **kwargs: P.kwargs
    ) -> R:
        """Run ``function(conn, …)`` for reading in a thread."""
        return await self._hop(self.read, function, *args, **kwargs)

    async def run_serialised(
        self, name: str, function: Callable[Concatenate[Connection, P], R], *args: P.args, **kwargs: P.kwargs
    ) -> R:
        """Run ``function(conn, …)`` in a thread inside :meth:`serialised`."""
        return await self._hop(lambda: self.serialised(name), function, *args, **kwargs)

    async def _hop(
        self, begin: Callable[[], Any], function: Callable[..., R], *args: Any, **kwargs: Any
    ) -> R:
        def transaction() -> R:
            with plain_words(), begin() as conn:
                return function(conn, *args, **kwargs)

        # Shielded: a transaction whose caller was cancelled still runs to its end, in one piece.
        return await asyncio.shield(asyncio.get_running_loop().run_in_executor(self._executor, transaction))

    def close(self) -> None:
        """Wait for what is under way, then let go of the connections."""
        self._executor.shutdown(wait=True)
        self.engine.dispose()


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


def _sqlite_engine(url: Any) -> Engine:
    # NullPool would reopen the file (and its WAL index) for each transaction; the default pool keeps it.
    engine = create_engine(url, connect_args={"timeout": LOCK_WAIT_SECONDS, "check_same_thread": False})

    @event.listens_for(engine, "connect")
    def connect(driver: sqlite3.Connection, _record: Any) -> None:
        driver.isolation_level = None  # BEGIN is ours; the driver's own comes too late
        cursor = driver.cursor()
        cursor.execute("PRAGMA journal_mode=WAL")
        cursor.execute("PRAGMA synchronous=NORMAL")
        cursor.execute("PRAGMA foreign_keys=ON")
        cursor.close()

    @event.listens_for(engine, "begin")
    def begin(conn: Connection) -> None:
        immediate = conn.get_execution_options().get("galilean_immediate")
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
        pool_size=threads,
        max_overflow=4,  # whoever reads in a thread of its own (the resolver, before it looks at a disk)
        connect_args={"connect_timeout": 5, "options": "-c timezone=UTC -c lock_timeout=5000"},
    )

    @event.listens_for(engine, "checkin")
    def used(_driver: Any, record: Any) -> None:
        record.info["used_at"] = time.monotonic()

    @event.listens_for(engine, "checkout")
    def ask_when_idle(driver: Any, record: Any, _proxy: Any) -> None:
        # Asked before every transaction, a round trip each, it is felt at thirty starts a second.
        if time.monotonic() - record.info.get("used_at", 0.0) > IDLE_SECONDS:
            try:
                engine.dialect.do_ping(driver)
            except DBAPIError as error:
                raise DisconnectionError from error
            except engine.dialect.loaded_dbapi.Error as error:
                raise DisconnectionError from error

    return engine
