"""Volumes: where the directories of projects lie, and which one a new project gets (CG-36).

A volume is named in the settings and registered in the database when it is first used. It is marked with
a small file at its top: a network disk that is not mounted leaves an empty directory behind, and without
the mark new work would be written below the mount point and vanish when the disk comes back.

Layout of a volume: ``projects/<project id>`` and ``datasets/<data set id>`` for what lives, ``bin/<id>`` for
what was deleted.
The id is never used twice, so neither a project nor a person of the same name meets old files.
"""

from __future__ import annotations

import errno
import os
from datetime import datetime
from pathlib import Path

from sqlalchemy import Connection, Label, Table, func, insert, select, update
from sqlalchemy.exc import IntegrityError

from galilean.errors import UserError, mark
from galilean.settings import Settings
from services.catalog.tables import volumes

MARK = ".galilean-volume"
PROJECTS = "projects"
DATASETS = "datasets"
BIN = "bin"


def ensure_volumes(conn: Connection, settings: Settings, now: datetime) -> None:
    """Register the volumes of the settings and make sure that each is there and marked.

    A volume that was registered before at the same place is not marked again: there, a missing mark
    means a disk that is not mounted.

    Raises
    ------
    UserError
        503 when a directory cannot be made or written.
    """
    known = {row.id: row for row in conn.execute(select(volumes))}
    for volume_id, volume in settings.volumes.items():
        path = settings.volume_path(volume_id)
        row = known.get(volume_id)
        values = {"kind": volume.kind, "path": str(path), "claim": volume.claim}
        if row is not None and row.path == str(path):
            if (row.kind, row.claim) != (volume.kind, volume.claim):
                conn.execute(update(volumes).where(volumes.c.id == volume_id).values(values))
            continue
        prepare_volume(path, volume_id)
        if row is None:
            try:
                with conn.begin_nested():
                    conn.execute(insert(volumes).values(id=volume_id, created_at=now, **values))
            except IntegrityError:  # somebody registered it a moment ago
                continue
        else:
            conn.execute(update(volumes).where(volumes.c.id == volume_id).values(values))


def prepare_volume(path: Path, volume_id: str) -> None:
    """Make a volume's directory, its folders and its mark; there already is success."""
    try:
        for folder in (path, path / PROJECTS, path / DATASETS, path / BIN):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not (path / MARK).exists():
            (path / MARK).write_text(f"{volume_id}\n", encoding="utf-8")
    except OSError as error:
        raise UserError(
            503,
            mark("The volume “{volume}” cannot be used: {problem}. An administrator must look at it."),
            volume=volume_id,
            problem=error.strerror or "error",
        ) from error


def check_place(path: Path, volume_id: str) -> None:
    """Look at the directory of a new volume, and mark it. Blocks.

    Raises
    ------
    UserError
        400 when it is not there, is no directory, or is another volume's; 409 when something else is in it.
    """
    try:
        if path.is_symlink() or path.resolve() != path:
            raise UserError(400, mark("“{path}” leads elsewhere. Give the directory itself."), path=str(path))
        marked = path / MARK
        if marked.is_file():
            known = marked.read_text(encoding="utf-8", errors="replace").strip()
            if known != volume_id:
                raise UserError(
                    409,
                    mark("“{path}” is marked as the volume “{volume}”. Register it under that name."),
                    path=str(path),
                    volume=known[:64],
                )
        elif any(entry.name != "lost+found" for entry in os.scandir(path)):
            raise UserError(409, mark("“{path}” is not empty. Give an empty directory."), path=str(path))
    except OSError as error:
        raise UserError(
            400,
            mark("“{path}” cannot be used here: {problem}."),
            path=str(path),
            problem=error.strerror or "error",
        ) from error
    prepare_volume(path, volume_id)


def check_mounted(path: Path, volume_id: str) -> None:
    """Refuse to work on a volume whose mark is not there.

    Raises
    ------
    UserError
        503: most likely a network disk that is not mounted.
    """
    try:
        there = (path / MARK).is_file()
    except OSError:  # a network disk whose server is gone says so, each in its own way
        there = False
    if not there:
        raise UserError(
            503,
            mark(
                "The volume “{volume}” is not there just now. Your files are not lost; an administrator must "
                "mount it."
            ),
            volume=volume_id,
        )


def make_directory(path: Path, volume_id: str) -> None:
    """Make a project's directory; there already is success.

    Raises
    ------
    UserError
        507 when the volume is full, 503 when it cannot be written.
    """
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise UserError(
                507,
                mark("The volume “{volume}” is full. Delete files, or ask an administrator for space."),
                volume=volume_id,
            ) from error
        raise UserError(
            503,
            mark("The volume “{volume}” cannot be used: {problem}. An administrator must look at it."),
            volume=volume_id,
            problem=error.strerror or "error",
        ) from error


def root_column(table: Table) -> Label[str]:
    """Where the volume of a row of ``table`` is, if it was registered online; else empty."""
    found = (
        select(volumes.c.path)
        .where(volumes.c.id == table.c.volume_id, volumes.c.registered_by != "")
        .scalar_subquery()
    )
    return func.coalesce(found, "").label("volume_root")


def directory_of(settings: Settings, volume_id: str, root: str) -> Path:
    """Where a volume is: as the settings say, else as it was registered online (``root``).

    Raises
    ------
    UserError
        503 when neither knows it.
    """
    if volume_id in settings.volumes:
        return settings.volume_path(volume_id)
    if root:
        return Path(root)
    raise UserError(
        503,
        mark("The volume “{volume}” is not set up any more. An administrator must look at it."),
        volume=volume_id,
    )
