"""Imports that are under way, so that what one left whose process ended is found at once.

A process that imports holds a lock on a small file that names what it began. The system lets go of a lock when its
process ends, however that ends. So a file that can be locked is of an import that nobody goes on with: the projects
that it names and that are importing still never were.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from galilean.settings import Settings

ENDING = ".going"


@dataclass(frozen=True, kw_only=True)
class Going:
    """An import: who began it, from which archive, and the projects it began to make."""

    by: str
    name: str
    ids: list[str] = field(default_factory=list)


class Mark:
    """The file of an import under way; a context. Blocks.

    Parameters
    ----------
    folder
        Where such files are.
    import_id
        Of the import.
    by, name
        As in :class:`Going`.
    """

    def __init__(self, folder: Path, import_id: str, *, by: str, name: str) -> None:
        self._path, self._said = folder / f"{import_id}{ENDING}", {"by": by, "name": name}

    def begins(self, project_id: str) -> None:
        """Note a project before its row is there for anybody."""
        os.write(self._file, f"{project_id}\n".encode())

    def __enter__(self) -> Mark:
        self._path.parent.mkdir(mode=0o700, exist_ok=True)
        self._file = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._file, fcntl.LOCK_EX)
        os.write(self._file, json.dumps(self._said).encode() + b"\n")
        return self

    def __exit__(self, *_: object) -> None:
        self._path.unlink(missing_ok=True)
        os.close(self._file)


@contextmanager
def _lock(path: Path) -> Iterator[int | None]:
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield None
        else:
            yield file
    finally:
        os.close(file)


def left(folder: Path) -> Iterator[Going]:
    """Imports that nobody goes on with, each forgotten when the next is asked for. Blocks."""
    for path in sorted(folder.glob(f"*{ENDING}")) if folder.is_dir() else ():
        try:
            with _lock(path) as file:
                lines = path.read_text(encoding="utf-8").splitlines() if file is not None else []
                if not lines:  # somebody is at work, or made it just now
                    continue
                said = json.loads(lines[0])
                yield Going(by=str(said["by"]), name=str(said["name"]), ids=lines[1:])
                path.unlink(missing_ok=True)
        except (FileNotFoundError, ValueError, KeyError):
            continue


def folder_of(settings: Settings) -> Path:
    """Where archives that came in, and such files, are."""
    return settings.state / "imports"
