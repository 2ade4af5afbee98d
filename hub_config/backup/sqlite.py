"""A SQLite database: copied by its own online backup, from a connection that holds a read transaction.

So the copy is of one moment, however long it takes and whoever writes meanwhile. Putting one in place is a
rename.
"""

from __future__ import annotations

import errno
import os
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from galilean.db import LOCK_WAIT_SECONDS
from galilean.errors import UserError, mark
from hub_config.backup.archive import Told, cannot_write
from hub_config.backup.databases import Moment, Store

_BESIDE = ("-wal", "-shm", "-journal")
PAGES = 2000  # of some 4 KB: between two looks at the clock


class SQLiteStore(Store):
    """A file."""

    kind = "sqlite"
    suffix = "sqlite"
    moves = True

    @property
    def path(self) -> Path:
        return Path(self.url.database or "")

    def is_there(self) -> bool:
        return self.path.exists() and self.path.stat().st_size > 0

    @contextmanager
    def moment(self) -> Iterator[Moment]:
        connection = None
        try:
            connection = _open(self.path)
            connection.execute("BEGIN")
            connection.execute(
                "SELECT count(*) FROM sqlite_master"
            ).fetchone()  # from here on it stands still
            yield SQLiteMoment(self, connection)
        except sqlite3.Error as error:
            raise _sqlite_trouble(self, error) from error
        finally:
            if connection is not None:
                connection.close()

    def put_aside(self, folder: Path, told: Told) -> None:
        # Moved, not read: a damaged file is kept too. The file itself goes last and comes back last.
        for file, kept in reversed(self._files(folder)):
            _move(file, kept)

    def take_back(self, folder: Path) -> None:
        if (folder / f"{self.name}.sqlite").exists():
            self.clear()
        for file, kept in reversed(self._files(folder)):
            _move(kept, file)

    def clear(self) -> None:
        for suffix in ("", *_BESIDE):
            self.path.with_name(self.path.name + suffix).unlink(missing_ok=True)

    def load(self, file: Path, told: Told) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        for suffix in _BESIDE:  # of another file: they would be read into this one
            self.path.with_name(self.path.name + suffix).unlink(missing_ok=True)
        with file.open("rb") as stream:
            os.fsync(stream.fileno())
        _move(file, self.path)

    def _files(self, folder: Path) -> list[tuple[Path, Path]]:
        return [
            (self.path.with_name(self.path.name + suffix), folder / f"{self.name}.sqlite{suffix}")
            for suffix in ("", *_BESIDE)
        ]


def _move(source: Path, target: Path) -> None:
    """Give a file another place, whole or not at all; not there is success."""
    beside = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        source.replace(target)
    except FileNotFoundError:
        return
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise cannot_write(target, error) from error
        try:
            shutil.copy2(source, beside)
            beside.replace(target)
            source.unlink()
        except OSError as failed:
            beside.unlink(missing_ok=True)
            raise cannot_write(target, failed) from failed


class SQLiteMoment(Moment):
    """A connection with an open read transaction."""

    def __init__(self, store: SQLiteStore, connection: sqlite3.Connection) -> None:
        self._store, self._connection = store, connection
        self.revision = _sqlite_revision(connection)

    def copy_to(self, target: Path, told: Told) -> None:
        page = int(self._connection.execute("PRAGMA page_size").fetchone()[0])
        os.close(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        copy = sqlite3.connect(target)
        try:
            self._connection.backup(
                copy,
                pages=PAGES,
                progress=lambda _status, left, total: told((total - left) * page, total * page),
            )
            check_whole(self._store.name, copy)
            copy.execute("PRAGMA journal_mode=DELETE")  # one file, whoever opens it
        except sqlite3.Error as error:
            raise _sqlite_trouble(self._store, error) from error
        finally:
            copy.close()


def check_whole(name: str, connection: sqlite3.Connection) -> None:
    """Refuse a database whose pages do not fit together: a backup of it would be worth nothing.

    Raises
    ------
    UserError
        503 with SQLite's own word.
    """
    (word,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    if word != "ok":
        raise UserError(
            503,
            mark("The database {name} is damaged: {why}. Restore an earlier backup."),
            name=name,
            why=str(word)[:300],
        )


def sqlite_revision(path: Path) -> str:
    """Revision of the tables in a file; empty when it has none."""
    connection = _open(path)
    try:
        return _sqlite_revision(connection)
    finally:
        connection.close()


def _open(path: Path) -> sqlite3.Connection:
    if not path.exists():
        raise sqlite3.OperationalError(f"{path} is not there")
    return sqlite3.connect(path, timeout=LOCK_WAIT_SECONDS, isolation_level=None)


def _sqlite_revision(connection: sqlite3.Connection) -> str:
    try:
        row = connection.execute("SELECT version_num FROM alembic_version").fetchone()
    except sqlite3.OperationalError as error:
        if "no such table" in str(error):
            return ""
        raise
    return str(row[0]) if row else ""


def _sqlite_trouble(store: Store, error: sqlite3.Error) -> UserError:
    if getattr(error, "sqlite_errorcode", 0) in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        return UserError(
            503,
            mark("The database {name} is damaged: {why}. Restore an earlier backup."),
            name=store.name,
            why=str(error),
        )
    full = getattr(error, "sqlite_errorcode", 0) == sqlite3.SQLITE_FULL
    return UserError(
        507 if full else 503,
        mark("The database {name} cannot be copied: {why}."),
        name=store.name,
        why=str(error),
    )
