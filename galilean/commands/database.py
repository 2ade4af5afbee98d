"""``galilean db wait``; ``galilean db upgrade`` is added by who knows what a site begins with."""

from __future__ import annotations

import time
from typing import Annotated

import typer

from galilean.errors import UserError, mark
from galilean.migrate import missing
from galilean.settings import load_settings
from galilean.terminal import say

LOOK_SECONDS = 1.0

NAME = "db"


def register(root: typer.Typer) -> None:
    """Add the commands."""
    app = typer.Typer(help="Our own database.", no_args_is_help=True)
    app.callback()(database)
    app.command()(wait)
    root.add_typer(app, name=NAME)


def database() -> None:
    """Our own database."""


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
