"""What an installation has besides its databases: secrets, settings, and volumes that are only listed."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from sqlalchemy import func, select
from sqlalchemy.exc import SQLAlchemyError

import spawner.tables as runs
from galilean.db import Database
from galilean.errors import UserError
from galilean.settings import Settings
from hub_config.backup.archive import VolumeNote
from hub_config.secrets import given_directory
from services.catalog.tables import projects, volumes
from services.catalog.volumes import MARK

T = TypeVar("T")
SECRETS, SETTINGS = "secrets", "settings"
LOOK_SECONDS = 10.0


def secret_files(state: Path, environ: Mapping[str, str]) -> dict[str, Path]:
    """Every file with a secret, by its name in a backup: also passwords of accounts that wait for the hub.

    In a directory that Kubernetes mounts, the names that begin with a dot are its own.
    """
    directory = given_directory(environ) or state / "secrets"
    found = {f"{SECRETS}/{path.name}": path for path in _files(directory)}
    accounts = _files(state / "secrets" / "accounts")
    return found | {f"{SECRETS}/accounts/{path.name}": path for path in accounts}


def settings_files(config: Path | None) -> dict[str, Path]:
    """``galilean.yaml`` and what lies in ``jupyterhub_config.d`` beside it, by their names in a backup."""
    if config is None:
        return {}
    beside = config.parent / "jupyterhub_config.d"
    found = {f"{SETTINGS}/galilean.yaml": config}
    return found | {f"{SETTINGS}/jupyterhub_config.d/{path.name}": path for path in _files(beside, "*.py")}


def _files(directory: Path, pattern: str = "*") -> list[Path]:
    if not directory.is_dir():
        return []
    return sorted(
        path for path in directory.glob(pattern) if path.is_file() and not path.name.startswith(".")
    )


def volume_notes(database: Database, settings: Settings) -> list[VolumeNote]:
    """Every volume that is registered or configured, with its size where it can be looked at."""
    with database.read() as conn:
        rows = {row.id: row for row in conn.execute(select(volumes))}
        counts = {
            row[0]: int(row[1])
            for row in conn.execute(
                select(projects.c.volume_id, func.count())
                .where(projects.c.deleted_at.is_(None))
                .group_by(projects.c.volume_id)
            )
        }
    notes: list[VolumeNote] = []
    for volume_id in sorted(rows.keys() | settings.volumes.keys()):
        row, configured = rows.get(volume_id), settings.volumes.get(volume_id)
        path = settings.volume_path(volume_id) if configured else Path(row.path if row is not None else "")
        size = patiently(lambda path=path: os.statvfs(path))
        notes.append(
            VolumeNote(
                id=volume_id,
                kind=configured.kind if configured else str(row.kind if row is not None else ""),
                path=str(path),
                claim=configured.claim if configured else "",
                total_bytes=size.f_blocks * size.f_frsize if size else None,
                used_bytes=(size.f_blocks - size.f_bfree) * size.f_frsize if size else None,
                projects=counts.get(volume_id, 0),
            )
        )
    return notes


@dataclass(frozen=True, kw_only=True)
class VolumeCheck:
    """How a volume fits a restored database.

    Attributes
    ----------
    there
        Whether it is mounted and marked as a volume of ours.
    projects, missing
        How many projects the database has there, and how many of their directories are not.
    """

    id: str
    path: str
    there: bool
    projects: int
    missing: int


def check_volumes(database: Database, settings: Settings) -> list[VolumeCheck]:
    """Look for every project's directory."""
    with database.read() as conn:
        rows = {row.id: row.path for row in conn.execute(select(volumes))}
        directories: dict[str, list[str]] = {}
        for row in conn.execute(
            select(projects.c.volume_id, projects.c.directory).where(projects.c.deleted_at.is_(None))
        ):
            directories.setdefault(row[0], []).append(row[1])
    checks: list[VolumeCheck] = []
    for volume_id in sorted(rows.keys() | directories.keys()):
        path = settings.volume_path(volume_id) if volume_id in settings.volumes else Path(rows[volume_id])
        wanted = directories.get(volume_id, [])
        missing = patiently(
            lambda path=path, wanted=wanted: sum(not (path / directory).is_dir() for directory in wanted),
            seconds=60,
        )
        there = patiently(lambda path=path: (path / MARK).is_file())
        checks.append(
            VolumeCheck(
                id=volume_id,
                path=str(path),
                there=bool(there),
                projects=len(wanted),
                missing=len(wanted) if missing is None else missing,
            )
        )
    return checks


def count_open_runs(database: Database) -> int:
    """How many runs are not released."""
    with database.read() as conn:
        query = select(func.count()).select_from(runs.clusters).where(runs.clusters.c.released_at.is_(None))
        return int(conn.execute(query).scalar_one())


def patiently(look: Callable[[], T], seconds: float = LOOK_SECONDS) -> T | None:
    """What ``look`` answers; ``None`` when it cannot or takes too long.

    A network disk whose server is gone keeps everybody who asks for it waiting, without end. A backup must
    not wait with them.
    """
    found: list[T] = []

    def work() -> None:
        try:
            found.append(look())
        except (OSError, UserError, SQLAlchemyError):
            pass

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(seconds)
    return found[0] if found else None
