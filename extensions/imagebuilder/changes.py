"""What a saved image has that its parent has not: files by size, packages of apt, pip and conda.

The parent's layers and the new one are read once each, as streams. Packages are told by what their tools leave
in the tree (dpkg's status, ``*.dist-info``, ``conda-meta``), not by asking the tools, so that nothing of a
person's image is ever run for it. A package that conda brought is told as conda's alone, though pip sees it, too.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import BinaryIO, Literal

from extensions.imagebuilder.tarstream import DIRECTORY, HARD_LINK, Source, data, entries

DPKG = "var/lib/dpkg/status"
#: Of a file that is read for its content; a longer one is not looked into.
TEXT_MOST_BYTES = 64 << 20
_DIST = re.compile(r"(?:(.*)/)?([A-Za-z0-9._]+)-([^-/]+)\.dist-info/(?:METADATA|INSTALLER)")
_CONDA = re.compile(r"(?:(.*)/)?conda-meta/(.+)-([^-/]+)-([^-/]+)\.json")

Manager = Literal["apt", "pip", "conda"]


@dataclass(frozen=True, order=True)
class Package:
    """A package; ``prefix`` is where it is: the directory of a ``site-packages`` or of conda's environment."""

    manager: Manager
    prefix: str
    name: str
    version: str


@dataclass
class Tree:
    """Files of an image: path → bytes, with what tells of packages."""

    sizes: dict[str, int] = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=dict)

    def apply(self, layer: BinaryIO) -> set[str]:
        """Put a layer on top; the paths of files and links that it holds."""
        touched: dict[str, int] = {}
        texts: dict[str, str] = {}
        gone: list[str] = []
        source = Source(layer)
        for entry in entries(source):
            folder, _, name = entry.path.rpartition("/")
            if name == ".wh..wh..opq":
                gone.append(folder + "/" if folder else "")
            elif name.startswith(".wh."):
                path = f"{folder}/{name[4:]}" if folder else name[4:]
                gone += [path + "/", path]
            elif entry.kind != DIRECTORY:
                touched[entry.path] = entry.size
                if entry.kind == HARD_LINK:
                    touched[entry.path] = touched.get(entry.link, self.sizes.get(entry.link, 0))
                told = entry.path == DPKG or entry.path.endswith(".dist-info/INSTALLER")
                if told and entry.is_file and entry.size <= TEXT_MOST_BYTES:
                    texts[entry.path] = b"".join(data(source, entry)).decode("utf-8", "replace")
        single = {path for path in gone if not path.endswith("/")}
        below = {path for path in gone if path.endswith("/") or not path}
        if gone:
            for path in [p for p in self.sizes if p in single or not below.isdisjoint(_folders(p))]:
                del self.sizes[path]
                self.texts.pop(path, None)
        self.sizes |= touched
        self.texts |= texts
        return set(touched)

    def packages(self) -> set[Package]:
        """All packages that the tree tells of."""
        found = set(_dpkg(self.texts.get(DPKG, "")))
        for path in self.sizes:
            if match := _CONDA.fullmatch(path):
                found.add(Package("conda", match[1] or "", match[2], f"{match[3]}={match[4]}"))
            elif (match := _DIST.fullmatch(path)) and not (match[1] or "").startswith("usr/lib/python3/"):
                installer = self.texts.get(f"{path.rpartition('/')[0]}/INSTALLER", "").strip()
                if installer not in ("conda", "debian"):
                    found.add(Package("pip", match[1] or "", match[2].lower().replace("_", "-"), match[3]))
        return found


def _folders(path: str) -> list[str]:
    return ["", *(path[: at + 1] for at, sign in enumerate(path) if sign == "/")]


def _dpkg(status: str) -> Iterable[Package]:
    for paragraph in status.split("\n\n"):
        fields = dict(
            line.split(": ", 1) for line in paragraph.splitlines() if ": " in line and line[0] != " "
        )
        if fields.get("Status", "").endswith(" installed") and "Package" in fields:
            yield Package("apt", "", fields["Package"], fields.get("Version", ""))


@dataclass(frozen=True)
class Changes:
    """Difference of an image to its parent; files with their bytes, the largest first."""

    added: Mapping[str, int]
    changed: Mapping[str, int]
    deleted: Mapping[str, int]
    packages_added: list[Package]
    packages_removed: list[Package]


def changes(parent: Tree, layer: BinaryIO) -> Changes:
    """What the layer changes of the parent.

    Raises
    ------
    UserError
        The layer cannot be read.
    """
    after = Tree(dict(parent.sizes), dict(parent.texts))
    touched = after.apply(layer)

    def sized(paths: Iterable[str], sizes: Mapping[str, int]) -> dict[str, int]:
        return {path: sizes[path] for path in sorted(paths, key=lambda path: (-sizes[path], path))}

    before, now = parent.packages(), after.packages()
    return Changes(
        sized(touched - parent.sizes.keys(), after.sizes),
        sized(touched & parent.sizes.keys(), after.sizes),
        sized(parent.sizes.keys() - after.sizes.keys(), parent.sizes),
        sorted(now - before),
        sorted(before - now),
    )
