"""``galilean backup`` and ``galilean restore``."""

from __future__ import annotations

import os
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Annotated

import typer

from galilean.amounts import format_bytes
from galilean.clock import utcnow
from galilean.errors import UserError, mark
from galilean.settings import Settings, load_settings
from galilean.terminal import Say, say, say_aside

STREAM = "-"


def register(root: typer.Typer) -> None:
    """Add the commands."""
    root.command()(backup)
    root.command()(restore)


def backup(
    file: Annotated[str, typer.Argument(metavar="FILE", help="The file to write; - is standard output.")],
) -> None:
    """Write databases, secrets, settings and the list of volumes into one file, while the product runs.

    What lies on the volumes (people's files) is not in it.
    """
    from hub_config.backup.archive import NOT_INCLUDED
    from hub_config.backup.make import make_backup
    from hub_config.start import config_file

    if file == STREAM and sys.stdout.isatty():
        raise UserError(
            400, mark("A backup is not for the screen. Name a file, or lead the output into one.")
        )
    environ = dict(os.environ)
    made = make_backup(
        load_settings(),
        None if file == STREAM else Path(file).absolute(),
        environ=environ,
        config=config_file(environ),
        say=say_aside,
        now=utcnow(),
    )
    tell: Say = say_aside if file == STREAM else say
    tell(
        mark(
            "The backup is written: {file}, {size}. It has passwords and keys in it: keep it as you keep those."
        ),
        file=file,
        size=format_bytes(made.size_bytes),
    )
    tell(NOT_INCLUDED)
    for volume in made.manifest.volumes:
        tell(
            mark("  volume {id}: {place}, {used} in use, {projects} projects"),
            id=volume.id,
            place=f"{volume.path} ({volume.claim})" if volume.claim else volume.path,
            used=format_bytes(volume.used_bytes) if volume.used_bytes is not None else "?",
            projects=volume.projects,
        )


def restore(
    file: Annotated[str, typer.Argument(metavar="FILE", help="A backup; - is standard input.")],
    replace: Annotated[
        bool, typer.Option("--replace", help="Put aside the installation that is here and take its place.")
    ] = False,
) -> None:
    """Make this installation what a backup says. Galilean must not run.

    What was here before is kept in the state directory, below replaced/.
    """
    from hub_config.backup.restore import restore_backup
    from hub_config.start import config_file

    environ = dict(os.environ)
    with ExitStack() as stack:
        source = _source(file, stack)
        done = restore_backup(
            load_settings(),
            source,
            environ=environ,
            config=config_file(environ),
            say=say_aside,
            now=utcnow(),
            replace=replace,
            alive=hub_answers,
        )
    say(
        mark("Restored: what Galilean {version} was on {made_at} UTC."),
        version=done.manifest.version,
        made_at=f"{done.manifest.made_at:%Y-%m-%d %H:%M:%S}",
    )
    if done.upgraded:
        say(mark("The tables were those of another version and are now those of this one."))
    if done.aside is not None:
        say(
            mark("What was here before is kept in {path}. Remove it when you no longer need it."),
            path=done.aside,
        )
    if done.secrets_given:
        say(
            mark(
                "Secrets are given by GALILEAN_SECRETS and were left alone: people may have to sign in again."
            )
        )
    if done.settings_kept:
        say(mark("The settings in use are not those of the backup, which are in the file as settings/."))
    for volume in done.volumes:
        _tell_volume(volume)
    if done.manifest.open_runs:
        say(
            mark(
                "{runs} clusters were held then; the next start looks which of them are left and closes the rest."
            ),
            runs=done.manifest.open_runs,
        )


def _source(file: str, stack: ExitStack) -> IO[bytes]:
    if file == STREAM:
        return sys.stdin.buffer
    try:
        return stack.enter_context(Path(file).open("rb"))
    except OSError as error:
        raise UserError(
            404, mark("{path} cannot be read: {why}."), path=file, why=error.strerror or str(error)
        ) from error


def _tell_volume(volume: object) -> None:
    from hub_config.backup.contents import VolumeCheck

    assert isinstance(volume, VolumeCheck)
    if not volume.there:
        say(
            mark(
                "  volume {id}: {path} is not there. Bring its {projects} projects back before people come."
            ),
            id=volume.id,
            path=volume.path,
            projects=volume.projects,
        )
    elif volume.missing:
        say(
            mark("  volume {id}: {path}, the files of {missing} of {projects} projects are not there"),
            id=volume.id,
            path=volume.path,
            missing=volume.missing,
            projects=volume.projects,
        )
    else:
        say(
            mark("  volume {id}: {path}, all {projects} projects are there"),
            id=volume.id,
            path=volume.path,
            projects=volume.projects,
        )


def hub_answers(settings: Settings) -> str:
    """Where a hub of this installation answers; empty when none does."""
    import httpx

    from hub_config.addresses import Addresses
    from hub_config.ports import read_ports

    addresses = Addresses(settings, read_ports(settings.state))
    if "hub" not in addresses:
        return ""
    url = addresses.url("hub")
    try:
        found = httpx.get(f"{url}{settings.web.base_url}hub/api/", timeout=5, trust_env=False)
    except httpx.HTTPError:
        return ""
    return url if "x-jupyterhub-version" in found.headers else ""
