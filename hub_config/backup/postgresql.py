"""A PostgreSQL database: ``pg_dump`` with a snapshot that we export; ``pg_restore`` and ``psql`` in one transaction.

So the copy is of one moment, and a database is the old one or the new one and never a mixture. The password
reaches those programs by their environment, never by their arguments.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql
from psycopg.conninfo import make_conninfo
from sqlalchemy import URL

from galilean.db import LOCK_WAIT_SECONDS
from galilean.errors import UserError, mark
from hub_config.backup.archive import Told
from hub_config.backup.databases import Moment, Store

WATCH_SECONDS = 0.2


class PostgreSQLStore(Store):
    """A schema of a database of a server: the one that our tables are in."""

    kind = "postgresql"
    suffix = "pgdump"
    moves = False

    def __init__(self, name: str, url: URL) -> None:
        super().__init__(name, url.set(drivername="postgresql+psycopg"))

    @contextmanager
    def connected(self) -> Iterator[psycopg.Connection[Any]]:
        """A connection with ``autocommit``."""
        try:
            with psycopg.connect(self.conninfo(), connect_timeout=10, autocommit=True) as connection:
                yield connection
        except psycopg.OperationalError as error:
            raise UserError(
                503,
                mark("The database {name} cannot be reached: {why}"),
                name=self.name,
                why=" ".join(str(error).split())[:300],
            ) from error

    def conninfo(self, *, password: bool = True) -> str:
        """For libpq; without the password it may stand where others can read it."""
        query = {key: value for key, value in self.url.query.items() if isinstance(value, str)}
        secret = self.url.password if password else None
        return make_conninfo(
            host=self.url.host,
            port=self.url.port,
            user=self.url.username,
            dbname=self.url.database,
            password=str(secret) if secret else None,
            **query,
        )

    def is_there(self) -> bool:
        with self.connected() as connection:
            return bool(_things(connection))

    @contextmanager
    def moment(self) -> Iterator[Moment]:
        with self.connected() as connection:
            connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
            yield PostgreSQLMoment(self, connection)

    def put_aside(self, folder: Path, told: Told) -> None:
        with self.moment() as moment:
            moment.copy_to(folder / f"{self.name}.{self.suffix}", told)

    def take_back(self, folder: Path) -> None:
        self.load(folder / f"{self.name}.{self.suffix}", lambda _done, _total: None)

    def clear(self) -> None:
        with self.connected() as connection, connection.transaction():
            for statement in _drop(connection):
                connection.execute(statement)

    def load(self, file: Path, told: Told) -> None:
        with tempfile.TemporaryDirectory(prefix=".load-", dir=file.parent) as place:
            drop, script = Path(place) / "drop.sql", Path(place) / "load.sql"
            with self.connected() as connection:
                schema = _schema(connection)
                drop.write_text("\n".join(s.as_string(connection) for s in _drop(connection)) + "\n", "utf-8")
            self.program(
                "pg_restore",
                "--no-owner",
                "--no-privileges",
                f"--schema={schema}",
                f"--file={script}",
                str(file),
            )
            hide_unknown_settings(script)
            total = script.stat().st_size
            # Waiting for a lock means that somebody works with these tables: refused, not waited for.
            self.program(
                "psql",
                "--no-psqlrc",
                "--quiet",
                "--set=ON_ERROR_STOP=1",
                "--single-transaction",
                f"--dbname={self.conninfo(password=False)}",
                f"--file={drop}",
                f"--file={script}",
                told=lambda: told(0, total),
                PGOPTIONS=f"-c lock_timeout={int(LOCK_WAIT_SECONDS * 1000)} -c client_min_messages=warning",
            )

    def program(self, name: str, *arguments: str, told: Any = None, **environment: str) -> None:
        """Run a program of PostgreSQL's.

        Raises
        ------
        UserError
            503 when it is not installed, 502 with its own words when it fails.
        """
        found = shutil.which(name)
        if not found:
            raise UserError(
                503,
                mark(
                    "{program} is not installed here: for databases on PostgreSQL it must be, in the server's "
                    "version or a newer one (Debian's package postgresql-client)."
                ),
                program=name,
            )
        env = {**os.environ, "LC_ALL": "C", **environment}
        if self.url.password:
            env["PGPASSWORD"] = str(self.url.password)
        code, words = _run([found, *arguments], env, told)
        if code:
            raise UserError(
                502,
                mark("{program} failed for the database {name}: {why}"),
                program=name,
                name=self.name,
                why=words or f"exit code {code}",
            )


class PostgreSQLMoment(Moment):
    """A transaction whose snapshot other connections can take part in."""

    def __init__(self, store: PostgreSQLStore, connection: psycopg.Connection[Any]) -> None:
        self._store, self._schema = store, _schema(connection)
        self._snapshot = _one(connection, "SELECT pg_export_snapshot()")
        there = _one(connection, "SELECT to_regclass('alembic_version') IS NOT NULL")
        self.revision = (_one(connection, "SELECT version_num FROM alembic_version") or "") if there else ""
        self._bytes = int(_one(connection, "SELECT pg_database_size(current_database())"))

    def copy_to(self, target: Path, told: Told) -> None:
        os.close(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        self._store.program(
            "pg_dump",
            "--format=custom",
            "--no-owner",
            "--no-privileges",
            f"--schema={self._schema}",
            f"--snapshot={self._snapshot}",
            f"--file={target}",
            f"--dbname={self._store.conninfo(password=False)}",
            # It is compressed: the size of the database is only the upper end.
            told=lambda: told(target.stat().st_size, self._bytes),
        )


def hide_unknown_settings(script: Path) -> None:
    """Make a script that a newer ``pg_restore`` wrote fit for an older server.

    Version 17 sets ``transaction_timeout``, which older servers do not know, and there is no option
    against it. Changed in place, for the rest of the file may be large.
    """
    with script.open("r+b") as stream:
        place = stream.read(1 << 14).find(b"\nSET transaction_timeout")
        if place >= 0:
            stream.seek(place + 1)
            stream.write(b"-- ")


def _run(command: Sequence[str], env: dict[str, str], told: Any) -> tuple[int, str]:
    with tempfile.TemporaryFile() as errors:  # not a pipe: nobody reads while it is watched
        process = subprocess.Popen(
            command, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=errors
        )
        try:
            while process.poll() is None:
                if told is not None:
                    told()
                with suppress(subprocess.TimeoutExpired):
                    process.wait(WATCH_SECONDS)
        except BaseException:
            process.kill()
            process.wait()
            raise
        errors.seek(0)
        words = errors.read(1 << 20).decode("utf-8", "replace")
    lines = [line for line in words.splitlines() if line.strip()]
    return process.returncode, " ".join(" ".join(lines[-4:]).split())[:600]


def _one(connection: psycopg.Connection[Any], query: Any) -> Any:
    row = connection.execute(query).fetchone()
    return row[0] if row else None


def _schema(connection: psycopg.Connection[Any]) -> str:
    return _one(connection, "SELECT current_schema()") or "public"


def _things(connection: psycopg.Connection[Any]) -> list[tuple[str, str]]:
    """(what it is, name) of everything in the schema that a backup would bring."""
    return connection.execute(
        """
        SELECT CASE relkind WHEN 'v' THEN 'VIEW' WHEN 'm' THEN 'MATERIALIZED VIEW' WHEN 'S' THEN 'SEQUENCE'
               ELSE 'TABLE' END, relname
        FROM pg_class WHERE relnamespace = current_schema()::regnamespace AND relkind IN ('r', 'p', 'v', 'm', 'S')
        AND NOT EXISTS (SELECT 1 FROM pg_depend WHERE objid = pg_class.oid AND deptype IN ('e', 'i', 'a')
                        AND classid = 'pg_class'::regclass)
        UNION ALL
        SELECT 'TYPE', typname FROM pg_type
        WHERE typnamespace = current_schema()::regnamespace AND typtype IN ('e', 'd')
        UNION ALL
        SELECT 'ROUTINE', proname FROM pg_proc WHERE pronamespace = current_schema()::regnamespace
        AND NOT EXISTS (SELECT 1 FROM pg_depend WHERE objid = pg_proc.oid AND deptype = 'e'
                        AND classid = 'pg_proc'::regclass)
        """
    ).fetchall()


def _drop(connection: psycopg.Connection[Any]) -> list[sql.Composed]:
    schema = _schema(connection)
    return [
        sql.SQL("DROP {} IF EXISTS {} CASCADE;").format(sql.SQL(what), sql.Identifier(schema, name))  # type: ignore[arg-type]
        for what, name in _things(connection)
    ]
