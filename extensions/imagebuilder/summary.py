"""What a node has changed of its image, told before it is saved and recorded when it is.

Before, there are only names: Docker tells which paths were added, changed and deleted, and from the names that
package tools give their files one sees which packages they are. That takes a second and no reading of contents.
When the changes have been read, sizes are known, and Debian's list of packages before and after.

What never goes into an image (:mod:`extensions.imagebuilder.strip`) is not counted as a change.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO, Literal

from extensions.imagebuilder.changes import DPKG, TEXT_MOST_BYTES, Changes, Package, Tree
from extensions.imagebuilder.strip import Rules
from extensions.imagebuilder.tarstream import DIRECTORY, HARD_LINK, Source, data, entries
from extensions.imagebuilder.upper import is_deleted

Kind = Literal[0, 1, 2]
CHANGED, ADDED, DELETED = 0, 1, 2
#: Of files and packages that are kept with an image; a row of the database is no inventory.
FILES_MOST, PACKAGES_MOST = 200, 1000
_DPKG_LIST = re.compile(r"var/lib/dpkg/info/([a-z0-9][a-z0-9.+-]*)(?::[a-z0-9-]+)?\.list")
_DIST = re.compile(r"(?:(.*)/)?([A-Za-z0-9._]+)-([^-/]+)\.dist-info")
_CONDA = re.compile(r"(?:(.*)/)?conda-meta/(.+)-([^-/]+)-([^-/]+)\.json")


@dataclass(frozen=True)
class Path:
    """One path that Docker names."""

    path: str
    kind: int

    @classmethod
    def told(cls, item: Mapping[str, Any]) -> Path:
        """As ``GET /containers/…/changes`` says it."""
        return cls(str(item["Path"]).strip("/"), int(item["Kind"]))


@dataclass(frozen=True)
class Preview:
    """What is known before: packages by their files, how many paths."""

    apt: tuple[str, ...]
    pip: tuple[str, ...]
    conda: tuple[str, ...]
    added: int
    changed: int
    deleted: int

    @property
    def empty(self) -> bool:
        """Whether nothing worth an image was changed."""
        return not (self.added or self.changed or self.deleted)


def preview(paths: Iterable[Path], rules: Rules) -> Preview:
    """What the names of the changed paths tell.

    Directories that changed only because something in them did are not counted, be it something that is left out: a node
    that nobody touched has changed nothing.
    """
    named = [item for item in paths if item.path]
    kept = [item for item in named if rules.why(item.path) is None]
    parents: set[str] = set()
    for item in named:
        at = item.path.rfind("/")
        while at > 0 and (folder := item.path[:at]) not in parents:
            parents.add(folder)
            at = item.path.rfind("/", 0, at)
    hollow = rules.mounted | {"run", "tmp", "var/tmp", "dev", "proc", "sys"} | _above(rules.mounted)
    apt, pip, conda = set[str](), set[str](), set[str]()
    counts = [0, 0, 0]
    for item in kept:
        if item.kind != ADDED:
            pass
        elif match := _DPKG_LIST.fullmatch(item.path):
            apt.add(match[1])
        elif match := _DIST.fullmatch(item.path):
            if not (match[1] or "").startswith("usr/lib/python3/"):
                pip.add(f"{match[2].lower().replace('_', '-')} {match[3]}")
        elif match := _CONDA.fullmatch(item.path):
            conda.add(f"{match[2]} {match[3]}")
        if item.path not in parents and item.path not in hollow:
            counts[item.kind] += 1
    of_conda = {name.partition(" ")[0] for name in conda}
    pip = {name for name in pip if name.partition(" ")[0] not in of_conda}
    return Preview(
        tuple(sorted(apt)),
        tuple(sorted(pip)),
        tuple(sorted(conda)),
        counts[ADDED],
        counts[CHANGED],
        counts[DELETED],
    )


def _above(paths: Iterable[str]) -> set[str]:
    return {path[:at] for path in paths for at, sign in enumerate(path) if sign == "/"}


def difference(upper: BinaryIO, paths: Iterable[Path], parent_status: str, rules: Rules) -> Changes:
    """What the changes that were read are, with sizes.

    Parameters
    ----------
    upper
        The archive of the changes, at its beginning; skipped over where it can be.
    paths
        As Docker tells them.
    parent_status
        The parent image's ``/var/lib/dpkg/status``; empty where it has none.
    rules
        What does not go into the image is not told.
    """
    before, after = Tree(), Tree()
    if parent_status:
        before.texts[DPKG] = parent_status
    deleted: dict[str, int] = {}
    changed: set[str] = set()
    for item in paths:
        if rules.why(item.path) is not None:
            continue
        if item.kind == CHANGED:
            changed.add(item.path)
        elif item.kind == DELETED:
            deleted[item.path] = 0
            name = f"{item.path}/METADATA" if item.path.endswith(".dist-info") else item.path
            before.sizes[name] = 0
    after.texts |= before.texts
    for entry in entries(source := Source(upper)):
        if entry.kind == DIRECTORY or is_deleted(entry) or rules.why(entry.path) is not None:
            continue
        size = after.sizes.get(entry.link, 0) if entry.kind == HARD_LINK else entry.size
        after.sizes[entry.path] = size
        if entry.path in changed:
            before.sizes[entry.path] = size
        told = entry.path == DPKG or entry.path.endswith(".dist-info/INSTALLER")
        if told and entry.is_file and entry.size <= TEXT_MOST_BYTES:
            after.texts[entry.path] = b"".join(data(source, entry)).decode("utf-8", "replace")

    def sized(names: Iterable[str], sizes: Mapping[str, int]) -> dict[str, int]:
        return {path: sizes[path] for path in sorted(names, key=lambda path: (-sizes[path], path))}

    had, has = before.packages(), after.packages()
    return Changes(
        sized(after.sizes.keys() - changed, after.sizes),
        sized(after.sizes.keys() & changed, after.sizes),
        sized(deleted.keys() - after.sizes.keys(), deleted),
        sorted(has - had),
        sorted(had - has),
    )


def stacked(layers: Iterable[BinaryIO], parent_status: str, rules: Rules) -> Changes:
    """The same of several layers, the lowest first: what a build added. What it changed counts as added.

    Raises
    ------
    UserError
        A layer cannot be read.
    """
    before, after = Tree(), Tree()
    if parent_status:
        before.texts[DPKG] = after.texts[DPKG] = parent_status
    gone: set[str] = set()
    for layer in layers:
        for entry in entries(source := Source(layer)):
            if is_deleted(entry):
                below = entry.path + "/"
                for path in [one for one in after.sizes if one == entry.path or one.startswith(below)]:
                    del after.sizes[path]
                    after.texts.pop(path, None)
                gone.add(entry.path)
            elif entry.kind != DIRECTORY and rules.why(entry.path) is None:
                gone.discard(entry.path)
                after.sizes[entry.path] = (
                    after.sizes.get(entry.link, 0) if entry.kind == HARD_LINK else entry.size
                )
                told = entry.path == DPKG or entry.path.endswith(".dist-info/INSTALLER")
                if told and entry.is_file and entry.size <= TEXT_MOST_BYTES:
                    after.texts[entry.path] = b"".join(data(source, entry)).decode("utf-8", "replace")
    sizes = after.sizes
    had, has = before.packages(), after.packages()
    return Changes(
        {path: sizes[path] for path in sorted(sizes, key=lambda path: (-sizes[path], path))},
        {},
        dict.fromkeys(sorted(path for path in gone if rules.why(path) is None), 0),
        sorted(has - had),
        sorted(had - has),
    )


def as_record(changes: Changes) -> dict[str, Any]:
    """The changes as they are kept with an image: packages, how many files, and the largest of them."""

    def packages(found: list[Package]) -> list[dict[str, str]]:
        return [
            {"manager": one.manager, "name": one.name, "version": one.version, "prefix": one.prefix}
            for one in found[:PACKAGES_MOST]
        ]

    def files(found: Mapping[str, int]) -> dict[str, Any]:
        largest = list(found.items())[:FILES_MOST]
        return {
            "count": len(found),
            "bytes": sum(found.values()),
            "largest": [[path.encode("utf-8", "replace").decode(), size] for path, size in largest],
        }

    return {
        "packages_added": packages(changes.packages_added),
        "packages_removed": packages(changes.packages_removed),
        "added": files(changes.added),
        "changed": files(changes.changed),
        "deleted": files(changes.deleted),
    }
