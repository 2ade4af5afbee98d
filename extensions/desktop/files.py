"""Files of the node's HOME, for the page's upload and download (CG-21): where they may be, and under which name.

Kept inside HOME, ``~/work``, ``~/datasets`` and ``~/disks``, wherever these lead. That is order, not a wall: whoever is here has a
terminal in the same node. Nothing is overwritten: a second ``a.txt`` becomes ``a (2).txt``. What
arrives is complete or not there.
"""

from __future__ import annotations

import os
import re
import secrets
from pathlib import Path
from typing import Any

MOST_ENTRIES = 1000
MOST_BYTES = 2**40
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


class NotThere(Exception):
    """No such file or folder that one may see here."""


def roots(home: Path) -> list[Path]:
    """The real directories that files may be in."""
    found = [Path(os.path.realpath(home))]
    for link in (home / "work", *_children(home / "datasets"), *_children(home / "disks")):
        if link.is_dir():
            found.append(Path(os.path.realpath(link)))
    return found


def _children(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except OSError:
        return []


def inside(home: Path, path: str) -> Path:
    """The file that ``path`` names, as seen from HOME (``work/Desktop/a.txt``).

    Raises
    ------
    NotThere
        When it is outside, or no path at all.
    """
    if "\x00" in path or path.startswith(("/", "~")):
        raise NotThere(path)
    seen = Path(os.path.normpath(home / path))
    real = Path(os.path.realpath(seen))
    if not any(real == root or root in real.parents for root in roots(home)):
        raise NotThere(path)
    return seen


def relative(home: Path, seen: Path) -> str:
    """The path of a file as pages name it; empty for HOME itself."""
    name = os.path.relpath(seen, home)
    return "" if name == "." else name


def listing(home: Path, path: str) -> dict[str, Any]:
    """A folder with its entries, folders first; hidden ones are left out.

    Raises
    ------
    NotThere
        When it is no folder inside.
    """
    folder = inside(home, path)
    entries: list[dict[str, Any]] = []
    more = False
    try:
        with os.scandir(folder) as found:
            for entry in found:
                if entry.name.startswith("."):
                    continue
                if len(entries) >= MOST_ENTRIES:
                    more = True
                    break
                try:
                    is_folder = entry.is_dir()
                    if not is_folder and not entry.is_file():
                        continue
                    about = entry.stat()
                except OSError:
                    continue
                entries.append(
                    {
                        "name": entry.name.encode(errors="replace").decode(),
                        "folder": is_folder,
                        "bytes": None if is_folder else about.st_size,
                        "changed_at": about.st_mtime,
                    }
                )
    except OSError as error:
        raise NotThere(path) from error
    entries.sort(key=lambda entry: (not entry["folder"], entry["name"].casefold()))
    return {"path": relative(home, folder), "entries": entries, "more": more}


def clean_name(name: str) -> str:
    """A name that a file may have, near to the one it had.

    Raises
    ------
    NotThere
        When nothing is left of it.
    """
    kept = _CONTROL.sub("", name.replace("\\", "/").rsplit("/", 1)[-1]).strip().lstrip(".")
    while len(kept.encode()) > 200:
        stem, dot, ending = kept.rpartition(".")
        kept = stem[:-1] + dot + ending if stem and len(ending) < 20 else kept[:-1]
    if not kept:
        raise NotThere(name)
    return kept


def numbered(name: str, number: int) -> str:
    """The name of the given try: ``a.txt``, ``a (2).txt``, …"""
    if number < 2:
        return name
    stem, dot, ending = name.rpartition(".")
    return f"{stem} ({number}){dot}{ending}" if stem else f"{name} ({number})"


class Arriving:
    """A file that is being uploaded: written under a hidden name, seen when complete.

    Raises
    ------
    NotThere
        When the folder is none that one may write to here.
    OSError
        When it cannot be written, as with a full disk.
    """

    def __init__(self, home: Path, folder: str, name: str) -> None:
        self._folder = inside(home, folder)
        if not self._folder.is_dir():
            raise NotThere(folder)
        self._name = clean_name(name)
        self._part = self._folder / f".{secrets.token_hex(8)}.part"
        self._file = open(self._part, "xb")  # noqa: SIM115
        self.bytes = 0

    def write(self, chunk: bytes) -> None:
        self._file.write(chunk)
        self.bytes += len(chunk)

    def finish(self) -> str:
        """Give it its name; which one that became."""
        self._file.close()
        for number in range(1, 10_000):
            name = numbered(self._name, number)
            try:
                os.link(self._part, self._folder / name)
            except FileExistsError:
                continue
            except OSError:  # a file system without hard links
                if (self._folder / name).exists():
                    continue
                os.rename(self._part, self._folder / name)
                return name
            self._part.unlink()
            return name
        raise FileExistsError(17, "Too many files of this name", self._name)

    def give_up(self) -> None:
        """Leave nothing behind."""
        self._file.close()
        self._part.unlink(missing_ok=True)
