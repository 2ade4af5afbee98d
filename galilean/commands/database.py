"""``galilean db upgrade``."""

from __future__ import annotations

import typer

from galilean.migrate import upgrade as upgrade_database
from galilean.settings import load_settings

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
    typer.echo(
        f"The database is at revision {after} already."
        if before == after
        else f"The database is at revision {after} now."
    )
