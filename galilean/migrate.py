"""Bringing our database to the schema of this version.

Alembic, without an ini file. ``galilean up`` and ``galilean db upgrade`` call :func:`upgrade`: one
serialised transaction, so that several processes may do so at once and a failure leaves what was. What
the tables look like is said in each room's ``tables.py``; a test holds migrations and tables together.
"""

from __future__ import annotations

import logging
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection

from galilean.db import Database, plain_words
from galilean.errors import UserError, mark

MIGRATIONS = Path(__file__).parent / "migrations"


def alembic_config(connection: Connection | None = None) -> Config:
    """Alembic's configuration, made in memory."""
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    return config


def newest() -> str:
    """The revision that this version of the product works with."""
    return _scripts().get_current_head() or ""


def _scripts() -> ScriptDirectory:
    return ScriptDirectory.from_config(alembic_config())


def _newer(revision: str) -> UserError:
    return UserError(
        409,
        mark(
            "The database is at revision {revision}, which this version does not know: a newer Galilean has "
            "used it. Install that one, or restore a backup."
        ),
        revision=revision,
    )


def present(connection: Connection) -> str:
    """The revision that the database is at; empty = no tables of ours yet."""
    return MigrationContext.configure(connection).get_current_revision() or ""


def upgrade(url: str) -> tuple[str, str]:
    """Bring the database at ``url`` to the newest schema; nothing happens when it is.

    Returns
    -------
    tuple
        Revision before, revision after.

    Raises
    ------
    UserError
        409 when a newer version of the product has been here; 503 or 507 when the database cannot be
        reached or its disk is full.
    """
    database = Database(url)
    try:
        with plain_words(), database.serialised("migrate", patient=True) as connection:
            before = present(connection)
            if before and before not in {script.revision for script in _scripts().walk_revisions()}:
                raise _newer(before)
            logging.getLogger("alembic").setLevel(logging.WARNING)
            command.upgrade(alembic_config(connection), "head")
            after = present(connection)
        return before, after
    finally:
        database.close()


def missing(url: str) -> str:
    """What keeps this version of the product from working with the database at ``url``; empty when nothing.

    Raises
    ------
    UserError
        409 when a newer version of the product has been here: waiting would not help.
    """
    database = Database(url)
    try:
        with plain_words(), database.read() as connection:
            found = present(connection)
    except Exception as error:
        return str(error).splitlines()[0]
    finally:
        database.close()
    if found and found not in {script.revision for script in _scripts().walk_revisions()}:
        raise _newer(found)
    return "" if found == newest() else f"it is at revision {found or 'none'}, and {newest()} is needed"
