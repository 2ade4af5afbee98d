"""``galilean backup``: the installation, as it is now, into one file."""

from __future__ import annotations

import contextlib
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import IO

from galilean.db import Database
from galilean.errors import UserError, mark
from galilean.settings import Settings
from galilean.terminal import Progress, Say
from hub_config.backup import contents
from hub_config.backup.archive import (
    DatabaseCopy,
    Manifest,
    cannot_write,
    write_archive,
    write_whole,
)
from hub_config.backup.databases import Store, store_of
from hub_config.backup.half import refuse_half_restored

COPYING = {
    "galilean": mark("Galilean's database: {done} of at most {total}."),
    "hub": mark("The hub's database: {done} of at most {total}."),
}


@dataclass(frozen=True, kw_only=True)
class Made:
    """What a backup is: its manifest and how large it got."""

    manifest: Manifest
    size_bytes: int


def make_backup(
    settings: Settings,
    target: Path | None,
    *,
    environ: Mapping[str, str],
    config: Path | None,
    say: Say,
    now: datetime,
    out: IO[bytes] | None = None,
) -> Made:
    """Write a backup while the product runs or while it does not.

    Parameters
    ----------
    settings, config
        Of the installation, and the file that they were read from.
    target
        The file to be; ``None`` = write to ``out``, where others read it from.
    environ
        Where the secrets are (``GALILEAN_SECRETS``).
    say
        Told how far it is, when it takes longer than a second.
    now
        The time that it bears.
    out
        Standard output, or what stands for it.

    Raises
    ------
    UserError
        503 when there is nothing to back up, or a database cannot be read; 400 or 507 when the file cannot be
        written.
    """
    if target is not None and target.is_dir():
        raise UserError(
            400, mark("{path} is a directory. Say which file in it the backup shall be."), path=str(target)
        )
    stores = [store_of("galilean", settings.database_url), store_of("hub", settings.hub_database_url)]
    refuse_half_restored(settings.state)
    for store in stores:
        if not store.is_there():
            raise UserError(
                503,
                mark("There is nothing to back up: Galilean was never started on {state}."),
                state=str(settings.state),
            )
    with _workplace(target) as place:
        files: dict[str, Path] = {}
        databases = _copy(stores, place, files, say)
        database = Database(settings.database_url)
        try:
            manifest = Manifest(
                version=version("galilean"),
                made_at=now,
                site=settings.site.name,
                backend=settings.backend,
                state=str(settings.state),
                databases=databases,
                volumes=contents.volume_notes(database, settings),
                open_runs=contents.count_open_runs(database),
            )
        finally:
            database.close()
        files |= contents.secret_files(settings.state, environ) | contents.settings_files(config)
        packing = Progress(say, mark("Packing: {done} of {total}."))
        if target is None:
            counted = _Counting(out or sys.stdout.buffer)
            write_archive(counted, manifest, files, packing.at)  # type: ignore[arg-type]
            counted.flush()
            return Made(manifest=manifest, size_bytes=counted.size_bytes)
        write_whole(target, lambda stream: write_archive(stream, manifest, files, packing.at))
        return Made(manifest=manifest, size_bytes=target.stat().st_size)


def _copy(stores: list[Store], place: Path, files: dict[str, Path], say: Say) -> dict[str, DatabaseCopy]:
    """Hold both databases, ours first; then copy the hub's first, whose writers SQLite lets wait meanwhile."""
    copies: dict[str, DatabaseCopy] = {}
    with contextlib.ExitStack() as stack:
        held = [(store, stack.enter_context(store.moment())) for store in stores]
        for store, moment in reversed(held):
            name = f"{store.name}.{store.suffix}"
            files[name] = place / name
            progress = Progress(say, COPYING[store.name])
            try:
                moment.copy_to(place / name, progress.at)
            except OSError as error:
                raise cannot_write(place / name, error) from error
            copies[store.name] = DatabaseCopy(kind=store.kind, revision=moment.revision, file=name)
    return copies


@contextlib.contextmanager
def _workplace(target: Path | None) -> Iterator[Path]:
    """A private directory for the copies: beside the file, where there is room for it, else where the system says."""
    try:
        place = Path(tempfile.mkdtemp(prefix=".galilean-backup-", dir=target.parent if target else None))
    except OSError as error:
        raise cannot_write(target or Path(tempfile.gettempdir()), error) from error
    try:
        yield place
    finally:
        shutil.rmtree(place, ignore_errors=True)


class _Counting:
    """A stream that counts what goes through."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream, self.size_bytes = stream, 0

    def write(self, piece: bytes) -> int:
        self._stream.write(piece)
        self.size_bytes += len(piece)
        return len(piece)

    def flush(self) -> None:
        self._stream.flush()
