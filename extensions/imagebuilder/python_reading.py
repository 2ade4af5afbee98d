"""What somebody installed into the Python of a node: read from its files, without running any of it.

The folder is its owner's to write: it may hold links to elsewhere, pipes on which a reader would wait for ever, lists
that name files outside of it. So names are looked at and plain files are read, and nothing is followed. What another
machine could not install is told by name and reason: whatever came from a folder, a file, a repository or an
address of its owner's own, instead of from the package index.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import re
import stat
from base64 import urlsafe_b64encode
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from galilean.errors import UserError, mark
from spawner.process.lock import Pin, normal
from spawner.process.overlay import BELOW
from spawner.process.pythons import read_text

FILES_MOST = 500_000
_INFO = re.compile(r"([A-Za-z0-9._]+)-([^-/]+)\.dist-info")
#: What an installer writes by itself, differently each time, beside what the wheel brings.
_OWN = ("INSTALLER", "REQUESTED", "RECORD", "direct_url.json", "uv_cache.json", "uv_build.json")

#: Why a package cannot be saved, the most telling first; each takes ``names``.
REFUSALS: dict[str, str] = {
    "editable": mark(
        "Installed so that its source can be edited, which only this node has: {names}. Install a release of it from "
        "the package index, or uninstall it."
    ),
    "path": mark(
        "Installed from a file or folder of this node: {names}. Install it from the package index, or uninstall it."
    ),
    "repository": mark(
        "Installed from a source repository: {names}. Install a release of it from the package index, or uninstall it."
    ),
    "address": mark(
        "Installed from an address instead of the package index: {names}. Install it from the index, or uninstall it."
    ),
    "broken": mark("Not installed as packages are any more: {names}. Install it anew, or delete its folder."),
}


@dataclass(frozen=True)
class Found:
    """One package.

    Attributes
    ----------
    files
        Its own files with their digests, as its list says; without what an installer writes by itself.
    size_bytes
        Of all its files.
    refused
        A key of :data:`REFUSALS`; empty = it can be saved.
    edited
        How many of its files are not any more what was installed.
    """

    name: str
    version: str
    files: frozenset[tuple[str, str]] = frozenset()
    size_bytes: int = 0
    refused: str = ""
    edited: int = 0

    @property
    def said(self) -> str:
        return f"{self.name} {self.version}".strip()


@dataclass(frozen=True)
class Reading:
    """All of it.

    Attributes
    ----------
    loose
        Paths of files that belong to no package.
    """

    packages: tuple[Found, ...] = ()
    loose: tuple[str, ...] = ()
    size_bytes: int = 0

    @property
    def versions(self) -> dict[str, str]:
        return {one.name: one.version for one in self.packages}

    @property
    def edited(self) -> tuple[Found, ...]:
        return tuple(one for one in self.packages if one.edited)

    def refusals(self) -> list[UserError]:
        """Why it cannot be saved; empty when it can."""
        found: list[UserError] = []
        for key, message in REFUSALS.items():
            names = [one.said for one in self.packages if one.refused == key]
            if names:
                found.append(UserError(422, message, names=", ".join(names[:20]), reason=f"python-{key}"))
        return found


def read(packages: Path, *, contents: bool) -> Reading:
    """What is in a folder of packages.

    Parameters
    ----------
    packages
        The folder.
    contents
        Whether files are compared with what was installed, which reads all of them; else their sizes are.

    Raises
    ------
    UserError
        422 when it has more files than anybody installs.
    """
    sizes = _files(packages)
    listed: set[str] = set()
    found: list[Found] = []
    infos = sorted(
        name for name in _names(packages) if name.endswith((".dist-info", ".egg-info", ".egg-link"))
    )
    for info in infos:
        one, own = _package(packages, info, sizes, contents)
        found.append(one)
        listed |= own
        listed |= {path for path in sizes if path.startswith(info + "/")}
    loose = sorted(
        _shown(path)
        for path in sizes
        if path not in listed and path != BELOW and "/__pycache__/" not in f"/{path}"
    )
    return Reading(tuple(found), tuple(loose), sum(sizes.values()))


def _package(packages: Path, info: str, sizes: Mapping[str, int], contents: bool) -> tuple[Found, set[str]]:
    match = _INFO.fullmatch(info)
    if match is None or not stat.S_ISDIR(os.lstat(packages / info).st_mode):
        return Found(_shown(info.rpartition(".")[0])[:80], "", refused="broken"), set()
    name, version = normal(match[1]), match[2]
    try:
        Pin(name, version)
    except ValueError:
        return Found(name[:80], _shown(version)[:80], refused="broken"), set()
    rows = _record(read_text(packages / info / "RECORD"))
    refused = _refused(read_text(packages / info / "direct_url.json"))
    if not rows and not refused:
        refused = "broken"
    own = {path for path, _, _ in rows if path in sizes}
    edited = 0
    kept: set[tuple[str, str]] = set()
    for path, digest, size in rows:
        if path.startswith("../") or not digest or path.endswith(".pyc"):
            continue
        if not (path.startswith(info + "/") and path.rpartition("/")[2] in _OWN):
            kept.add((path, digest))
        there = sizes.get(path)
        other = there is None or (size is not None and there != size)
        if other or (contents and digest != _digest(packages / path)):
            edited += 1
    size_bytes = sum(sizes[path] for path in own)
    return Found(name, version, frozenset(kept), size_bytes, refused, edited), own


def _record(text: str) -> list[tuple[str, str, int | None]]:
    """Path, ``sha256=…`` and bytes of each file; nothing absolute, nothing that climbs but programs."""
    rows: list[tuple[str, str, int | None]] = []
    try:
        for row in csv.reader(io.StringIO(text)):
            if len(row) >= 3 and not row[0].startswith("/"):
                path = os.path.normpath(row[0])
                size = int(row[2]) if row[2].isdecimal() and len(row[2]) < 20 else None
                rows.append((path, row[1], size))
    except csv.Error:
        return []
    return rows


def _refused(text: str) -> str:
    """By what :pep:`610` has written."""
    if not text:
        return ""
    try:
        said = json.loads(text)
        if "dir_info" in said:
            return "editable" if (said["dir_info"] or {}).get("editable") else "path"
        if "vcs_info" in said:
            return "repository"
        return "path" if str(said.get("url", "")).startswith("file:") else "address"
    except (ValueError, AttributeError, TypeError, RecursionError):
        return "broken"


def _digest(path: Path) -> str:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except (OSError, ValueError):  # a list may name what no file can be called
        return ""
    with open(fd, "rb") as file:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            return ""
        return "sha256=" + urlsafe_b64encode(hashlib.file_digest(file, "sha256").digest()).decode().rstrip(
            "="
        )


def _shown(name: str) -> str:
    """A file's name as it can be written and kept: names on disk are bytes of any kind."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def _names(folder: Path) -> Iterable[str]:
    try:
        return os.listdir(folder)
    except OSError:
        return []


def _files(root: Path) -> dict[str, int]:
    """Plain files and links below a folder, with the bytes of the files."""
    found: dict[str, int] = {}
    for folder, _, names in os.walk(root):
        below = os.path.relpath(folder, root)
        for name in names:
            try:
                said = os.lstat(os.path.join(folder, name))
            except OSError:
                continue
            path = name if below == "." else f"{below}/{name}"
            found[path] = said.st_size if stat.S_ISREG(said.st_mode) else 0
        if len(found) > FILES_MOST:
            raise UserError(
                422,
                mark("More than {most} files were installed, which is more than can be saved."),
                most=FILES_MOST,
                reason="too-many-files",
            )
    return found


def others(mine: Reading, index: Reading) -> list[str]:
    """Packages of which the index has other files under the same version than were installed here."""
    theirs = {one.name: one.files for one in index.packages}
    return [one.said for one in mine.packages if one.name in theirs and theirs[one.name] != one.files]
