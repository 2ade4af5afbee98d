"""``galilean people import FILE``: a table of people from the command line, like the page (AP-33, SC-25).

Acts with the command's own token, which the rules take for whoever runs the machine. Passwords that are
made are printed once, as the table that the page hands out.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import quote

import typer

from galilean.errors import UserError, mark
from galilean.terminal import Progress, say_aside

if TYPE_CHECKING:  # other commands need none of it
    from galilean.hubapi import HubAPI
    from services.people.importing import Line

people_app = typer.Typer(help="People.", no_args_is_help=True)


@people_app.callback()
def people() -> None:
    """People."""


@people_app.command("import")
def people_import(
    file: Annotated[Path, typer.Argument(help="CSV with the columns name, role, groups, full name, mail.")],
    role: Annotated[str, typer.Option(help="Role of those without one in the table.")] = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what it would do.")] = False,
) -> None:
    """Make accounts from a table. Prints the result with the passwords that were made. Exit code 1: faults."""
    try:
        raw = file.read_bytes()
    except OSError as error:
        raise UserError(400, mark("{file} cannot be read: {why}"), file=str(file), why=str(error)) from error
    if asyncio.run(_import(raw, role, dry_run)):
        raise typer.Exit(1)


async def _import(raw: bytes, role: str, dry_run: bool) -> int:
    from galilean import rights
    from galilean.db import Database
    from galilean.settings import load_settings
    from hub_config.start import command_hub
    from services.people.importing import decode, read

    settings = load_settings()
    hub = command_hub(settings)
    database = Database(settings.database_url)
    try:
        known = await database.run_read(rights.read)
        lines = read(decode(raw), known, {model["name"] for model in await hub.users()}, role)
        return await work(hub, lines, dry_run=dry_run)
    finally:
        await hub.close()
        database.close()


async def work(hub: HubAPI, lines: Sequence[Line], *, dry_run: bool = False) -> int:
    """Make the accounts, several at once; how many lines came to nothing.

    The result is printed in the order of the table, also when it is broken off: a password that was made must not
    be lost with it.
    """
    from services.people.importing import AT_ONCE, results_csv

    rows: list[dict[str, Any]] = [
        {"name": line.name, "full_name": line.full_name, "outcome": "left out", "problem": ""}
        for line in lines
    ]
    passwords: dict[str, str] = {}
    turns = asyncio.Semaphore(AT_ONCE)
    progress = Progress(say_aside, mark("{done} of {total} people"), amount=str)
    done = 0

    async def one(line: Line, row: dict[str, Any]) -> None:
        nonlocal done
        async with turns:
            await _line(hub, line, row, passwords)
            done += 1
            progress.at(done, len(lines))

    for line, row in zip(lines, rows, strict=True):
        if line.good:
            row["outcome"] = "exists" if line.exists else "new"
        else:
            row["problem"] = "; ".join(text.format(**values) for text, values in line.problems)
            say_aside(mark("line {line}: {problem}"), line=line.number, problem=row["problem"])
    good = [(line, row) for line, row in zip(lines, rows, strict=True) if line.good]
    try:
        if not dry_run:
            await asyncio.gather(*(one(line, row) for line, row in good))
    finally:
        typer.echo(results_csv(rows, passwords).lstrip("\ufeff"), nl=False)
    bad = sum(row["outcome"] in ("left out", "failed") for row in rows)
    say_aside(mark("{good} of {all} lines are good."), good=len(rows) - bad, all=len(rows))
    return bad


async def _line(hub: HubAPI, line: Line, row: dict[str, Any], passwords: dict[str, str]) -> None:
    from galilean.rights import GROUP_PREFIX, ROLE_PREFIX
    from services.portal.people import new_password

    groups = [*(ROLE_PREFIX + r for r in line.roles), *(GROUP_PREFIX + g for g in line.groups)]
    try:
        if line.exists:
            path = f"/galilean/people/{quote(line.name, safe='')}"
            await hub.request("PATCH", path, json={"add": groups})
            return
        password = line.password or new_password()
        body = {
            "name": line.name,
            "groups": groups,
            "full_name": line.full_name,
            "mail": line.mail,
            "password": password,
        }
        await hub.request("POST", "/galilean/people", json=body)
        row["outcome"] = "made"
        if not line.password:
            passwords[line.name] = password
    except UserError as error:
        row["outcome"], row["problem"] = "failed", str(error)
