"""``galilean db upgrade`` and ``galilean db wait``."""

from __future__ import annotations

import time
from typing import Annotated

import typer

from galilean.errors import UserError, mark
from galilean.migrate import missing
from galilean.migrate import upgrade as upgrade_database
from galilean.settings import load_settings
from galilean.terminal import say

LOOK_SECONDS = 1.0

app = typer.Typer(help="Our own database.", no_args_is_help=True)


def register(root: typer.Typer) -> None:
    """Add the commands."""
    root.add_typer(app, name="db")


@app.callback()
def database() -> None:
    """Our own database."""


@app.command()
def upgrade() -> None:
    """Bring the database to the schema of this version. `galilean up` does it too."""
    settings = load_settings()
    settings.state.mkdir(parents=True, exist_ok=True, mode=0o700)
    before, after = upgrade_database(settings.database_url)
    say(
        mark("The database is at revision {revision} already.")
        if before == after
        else mark("The database is at revision {revision} now."),
        revision=after,
    )


@app.command()
def wait(
    seconds: Annotated[int, typer.Option(help="Give up after so long, with exit code 1.", min=0)] = 300,
) -> None:
    """Wait until the database is at the schema of this version; somebody else upgrades it."""
    url = load_settings().database_url
    until = time.monotonic() + seconds
    told = ""
    while why := missing(url):
        if time.monotonic() >= until:
            raise UserError(
                503, mark("The database is not ready after {seconds} s: {why}"), seconds=seconds, why=why
            )
        if why != told:
            say(mark("Waiting: {why}"), why=why)
            told = why
        time.sleep(LOOK_SECONDS)
    say(mark("The database is ready."))
