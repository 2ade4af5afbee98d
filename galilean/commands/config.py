"""``galilean config check`` and ``galilean config schema``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from galilean.errors import mark
from galilean.settings import json_schema, load_settings
from galilean.terminal import say

app = typer.Typer(help="The file galilean.yaml.", no_args_is_help=True)


def register(root: typer.Typer) -> None:
    """Add the commands."""
    root.add_typer(app, name="config")


@app.command()
def check(
    file: Annotated[
        Path | None, typer.Argument(help="Default: GALILEAN_CONFIG, else ./galilean.yaml.")
    ] = None,
) -> None:
    """Read the settings and say what is wrong, line by line."""
    settings = load_settings(file)
    say(
        mark(
            "The settings are good: backend {backend}, {roles} roles, {environments} environments, state in "
            "{state}."
        ),
        backend=settings.backend,
        roles=len(settings.roles),
        environments=len(settings.environments),
        state=settings.state,
    )


@app.command()
def schema() -> None:
    """Print the JSON Schema of the file, for editors."""
    typer.echo(json.dumps(json_schema(), indent=2, ensure_ascii=False))
