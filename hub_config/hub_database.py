"""The hub's own database: which tables it has, and bringing them to those of the JupyterHub that is installed.

JupyterHub refuses to start on tables of an older version of it. Its migrations are Alembic's and are run in a
process of their own, because they set up logging and read files as if they were a program.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from jupyterhub.dbutil import ALEMBIC_DIR, write_alembic_ini
from sqlalchemy import create_engine, inspect, make_url
from sqlalchemy.pool import NullPool

from galilean.db import plain_words
from galilean.errors import UserError, mark

SECONDS_MOST = 3600


def _scripts() -> ScriptDirectory:
    config = Config()
    config.set_main_option("script_location", ALEMBIC_DIR)
    config.set_main_option("path_separator", "os")
    return ScriptDirectory.from_config(config)


def newest() -> str:
    """The revision that the installed JupyterHub works with."""
    return _scripts().get_current_head() or ""


def known() -> frozenset[str]:
    """Every revision that it can come from."""
    return frozenset(script.revision for script in _scripts().walk_revisions())


def present(url: str) -> str:
    """The revision of a database; empty = the hub has not made its tables yet."""
    engine = create_engine(_with_our_driver(url), poolclass=NullPool)
    try:
        with plain_words(), engine.connect() as connection:
            if not inspect(connection).has_table("alembic_version"):
                return ""
            return MigrationContext.configure(connection).get_current_revision() or ""
    finally:
        engine.dispose()


def upgrade(url: str) -> tuple[str, str]:
    """Bring the hub's tables to the installed JupyterHub; a database without any is left to the hub.

    Returns
    -------
    tuple
        Revision before, revision after.

    Raises
    ------
    UserError
        409 when a newer JupyterHub has been here, 503 when the database cannot be reached, 500 when a
        migration fails.
    """
    before, head = present(url), newest()
    if not before or before == head:
        return before, before
    if before not in known():
        raise UserError(
            409,
            mark(
                "The hub's database is at revision {revision}, which this version does not know: a newer "
                "JupyterHub has used it. Install that one, or restore a backup."
            ),
            revision=before,
        )
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "alembic.ini"  # the address in it may have a password; the folder is private
        write_alembic_ini(str(file), _with_our_driver(url))
        done = subprocess.run(
            [sys.executable, "-m", "alembic", "-c", str(file), "upgrade", "head"],
            capture_output=True,
            text=True,
            timeout=SECONDS_MOST,
            check=False,
        )
    if done.returncode:
        raise UserError(
            500,
            mark("The hub's database could not be brought to this version: {why}"),
            why=" ".join(done.stderr.splitlines()[-1:])[:300],
        )
    return before, present(url)


def _with_our_driver(url: str) -> str:
    parsed = make_url(url)
    if parsed.get_backend_name() in ("postgresql", "postgres"):
        parsed = parsed.set(drivername="postgresql+psycopg")
    return parsed.render_as_string(hide_password=False)
