"""``galilean export`` and ``galilean apply``: what administrators decided, by file (BX-13).

They work on the database itself, so that they do when nothing else runs; a hub that runs is told of the
change of roles, and finds it out by itself where it cannot be.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from galilean.clock import utcnow
from galilean.db import Database, plain_words
from galilean.errors import UserError, mark
from galilean.settings import Settings, load_settings
from galilean.terminal import say, say_aside, sentence

MOST_BYTES = 20 * 2**20


class _LookedOnly(Exception):
    """Undoes the transaction in which it was found out what a file would change."""


def register(root: typer.Typer) -> None:
    """Add the commands."""
    root.command("export")(export)
    root.command("apply")(apply)


def export() -> None:
    """Print roles, rights, limits, exceptions, groups and release rules as a file for `galilean apply`."""
    from hub_config import decided

    database = _database(load_settings())
    try:
        with plain_words(), database.read() as conn:
            text = decided.export(conn, utcnow())
    finally:
        database.close()
    sys.stdout.write(text)


def apply(
    file: Annotated[
        Path, typer.Option("-f", "--file", help="As `galilean export` writes it; - = standard input.")
    ],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would change.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    reason: Annotated[str, typer.Option(help="For the audit log.")] = "",
) -> None:
    """Make roles, rights, limits, exceptions, groups and release rules as a file says.

    What would change is shown first. What runs is not touched.
    """
    settings = load_settings()
    source = _read(file)
    database = _database(settings)
    try:
        changes, version = _try(database, settings, source, str(file), reason)
        for change in changes:
            typer.echo(f"{change.path}: {_shown(change.before)} → {_shown(change.after)}")
        if not changes:
            say(mark("Everything is as the file says."))
            return
        if dry_run:
            say(mark("{count} would change. Nothing was changed."), count=len(changes))
            return
        if not yes:
            if not sys.stdin.isatty():
                raise UserError(400, mark("Nothing was changed: say --yes to change it without being asked."))
            typer.confirm(sentence(mark("Change these {count}?"), count=len(changes)), abort=True)
        _do(database, settings, source, str(file), reason, version)
    finally:
        database.close()
    say(mark("{count} changed."), count=len(changes))
    asyncio.run(_tell_hub(settings))


def _read(file: Path) -> str:
    try:
        raw = sys.stdin.buffer.read(MOST_BYTES + 1) if str(file) == "-" else file.read_bytes()
        if len(raw) > MOST_BYTES:
            raise UserError(413, mark("{file} is too large to be such a file."), file=str(file))
        return raw.decode("utf-8")
    except OSError as error:
        raise UserError(
            404, mark("{file} cannot be read: {why}."), file=str(file), why=error.strerror or str(error)
        ) from error
    except UnicodeDecodeError as error:
        raise UserError(400, mark("{file} is not UTF-8 text."), file=str(file)) from error


def _try(
    database: Database, settings: Settings, source: str, name: str, reason: str
) -> tuple[list[Any], int]:
    from galilean import centre
    from hub_config import decided

    changes: list[Any] = []
    version = 0
    with contextlib.suppress(_LookedOnly), plain_words(), database.serialised("seed") as conn:
        version = centre.version(conn)
        changes = _apply(decided, conn, settings, source, name, reason)
        raise _LookedOnly
    return changes, version


def _do(database: Database, settings: Settings, source: str, name: str, reason: str, version: int) -> None:
    from galilean import centre
    from hub_config import decided

    with plain_words(), database.serialised("seed") as conn:
        if centre.version(conn) != version:
            raise UserError(
                409, mark("Somebody has changed something meanwhile. Nothing was changed; begin anew.")
            )
        _apply(decided, conn, settings, source, name, reason)


def _apply(decided: Any, conn: Any, settings: Settings, source: str, name: str, reason: str) -> list[Any]:
    from extensions.quota.store import COMMAND

    file = decided.File(source, name)
    return decided.apply(conn, file, settings, actor=COMMAND, now=utcnow(), reason=reason)


def _shown(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, dict):
        return ", ".join(f"{key} {_shown(item)}" for key, item in value.items() if item not in (None, ""))
    if isinstance(value, list):
        return "[" + ", ".join(_shown(item) for item in value) + "]"
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if value != "" else "“”"


async def _tell_hub(settings: Settings) -> None:
    from hub_config.start import command_hub

    try:
        hub = command_hub(settings)
    except UserError:
        return
    try:
        await hub.request("POST", "/galilean/roles")
    except UserError as error:
        if error.status != 503:
            say_aside(
                mark("The hub was not told ({why}); it looks by itself within a minute."), why=str(error)
            )
    finally:
        await hub.close()


def _database(settings: Settings) -> Database:
    file = settings.state / "galilean.sqlite"
    if not settings.database.url and not file.exists():
        raise UserError(
            503, mark("Galilean was never started on {state}. Start it: make up."), state=str(settings.state)
        )
    return Database(settings.database_url)
