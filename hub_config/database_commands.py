"""``galilean db upgrade``: the schema, and what a new site begins with."""

from __future__ import annotations

import typer

from galilean.commands.database import NAME
from galilean.errors import mark
from galilean.migrate import upgrade as upgrade_database
from galilean.settings import load_settings
from galilean.terminal import say


def register(root: typer.Typer) -> None:
    """Add the command to those of the database."""
    group = next(one.typer_instance for one in root.registered_groups if one.name == NAME)
    assert group is not None
    group.command()(upgrade)


def upgrade() -> None:
    """Bring the database to the schema of this version, and begin a new one with the settings' roles, limits and rules.

    `galilean up` does it too.
    """
    from hub_config.seeding import seed_database

    settings = load_settings()
    settings.state.mkdir(parents=True, exist_ok=True, mode=0o700)
    before, after = upgrade_database(settings.database_url)
    say(
        mark("The database is at revision {revision} already.")
        if before == after
        else mark("The database is at revision {revision} now."),
        revision=after,
    )
    if seed_database(settings):
        say(mark("It begins with the roles, limits and release rules of the settings."))
