"""Where data sets are found in nodes: ``~/datasets/<mount directory>`` (CG-11).

The author of a data set chooses its directory; two of one name in a project are refused with an alias that
would do. Names are kept to what every backend, shell and file system takes, and no two in a project differ by
case alone. Which data sets a run gets is decided anew at each start, by what the person who runs may read at
that moment: neither a share that was withdrawn, nor a fork, nor a request brings in another.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import datetime
from pathlib import PurePosixPath

from galilean.errors import UserError, mark
from services.catalog.access import Access, Share, Viewer, access, may_see
from spawner.plan import DataUsed, Mount

BELOW = "datasets"
MOUNT_MOST = 64
_MOUNT = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,62}[A-Za-z0-9_-])?", re.ASCII)
_DEVICES = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.ASCII)  # of clients that fetch the files


def is_mount(text: str) -> bool:
    """Whether it may be a mount directory."""
    return _MOUNT.fullmatch(text) is not None and not _DEVICES.fullmatch(text.lower())


def check_mount(text: str) -> str:
    """``text`` when it may be a mount directory.

    Raises
    ------
    UserError
        400 with the rule in words.
    """
    if not is_mount(text):
        raise UserError(
            400,
            mark(
                "“{mount}” cannot be the directory of a data set: start with a letter or digit, then letters, "
                "digits, “.”, “-” and “_”, at most {most} characters."
            ),
            mount=text[:80],
            most=MOUNT_MOST,
        )
    return text


def mount_key(mount: str) -> str:
    """What must differ between the data sets of a project."""
    return mount.lower()


def alias(mount: str, owner: str, taken: Collection[str]) -> str:
    """A mount directory that is free in a project, made from the one that is taken.

    ``taken`` are :func:`mount_key` of those there are. First with the owner's name, which tells two data sets
    of one name apart, then numbered.
    """
    tail = re.sub(r"[^a-z0-9]+", "-", owner.lower(), flags=re.ASCII).strip("-")[:30]
    for number in range(1, len(taken) + 3):
        end = "".join(f"-{part}" for part in (tail, "" if number == 1 else str(number)) if part)
        if not end:
            continue
        candidate = mount[: MOUNT_MOST - len(end)] + end
        if is_mount(candidate) and mount_key(candidate) not in taken:
            return candidate
    raise AssertionError("more names than are taken were tried")


class MountTaken(UserError):
    """A second data set in one directory; ``errors`` is how a problem document carries the way out."""

    @property
    def errors(self) -> list[dict[str, str]]:
        return [{"field": "mount", "detail": str(self.params["alias"])}]


def mount_taken(mount: str, free: str) -> UserError:
    """The refusal of a second data set in one directory; it carries the way out (``params["alias"]``)."""
    return MountTaken(
        409,
        mark(
            "This project has a data set at ~/datasets/{mount} already. It can be at ~/datasets/{alias} instead."
        ),
        reason="mount-taken",
        mount=mount,
        alias=free,
    )


@dataclass(frozen=True, kw_only=True)
class Linked:
    """A data set of a project, with what decides whether somebody's run gets it.

    Attributes
    ----------
    path
        Where its files are, as the backend mounts it.
    registered
        Whether its volume was registered online.
    version_of, version
        Of which data set it is which version; empty and 0 = of none, its files change.
    """

    id: str
    owner: str
    slug: str
    name: str
    mount: str
    writable: bool
    visibility: str
    deleted_at: datetime | None
    taken_down_at: datetime | None
    busy: str
    path: str
    shares: tuple[Share, ...] = ()
    registered: bool = False
    version_of: str = ""
    version: int = 0


@dataclass(frozen=True, kw_only=True)
class RunMounts:
    """What a run gets besides ``~/work``.

    Attributes
    ----------
    mounts
        In the order of their directories.
    missing
        Mount directories of data sets that the person may not read (now), or that are deleted or on their way
        to another volume: told at the start, for a program will miss them.
    registered
        Whether one of them is on a volume that was registered online.
    """

    mounts: tuple[Mount, ...]
    missing: tuple[str, ...] = ()
    registered: bool = False


def run_mounts(viewer: Viewer, links: Iterable[Linked]) -> RunMounts:
    """The data sets of a project that somebody may read now, as mounts of their run.

    Read-only but for the data set's owner, who chose to write it in this project. An administrator reads all
    and writes none: they run as themselves, not as the owner. A version nobody writes.

    Raises
    ------
    ValueError
        For a path or directory that would leave its place: a row that nothing of ours has written.
    """
    mounts: list[Mount] = []
    missing: list[str] = []
    for link in sorted(links, key=lambda link: link.mount):
        if not is_mount(link.mount) or ".." in PurePosixPath(link.path).parts:
            raise ValueError(f"data set {link.id} has a place that cannot be: {link.mount!r}, {link.path!r}")
        level = access(viewer, link, link.shares, kind="dataset")
        if not may_see(level) or link.deleted_at is not None or link.busy:
            missing.append(link.mount)
            continue
        writes = link.writable and level is Access.OWN and viewer.name == link.owner and not link.version_of
        data = DataUsed(id=link.id, address=f"{link.owner}/{link.slug}", version=link.version)
        mounts.append(
            Mount(source=link.path, target=f"{BELOW}/{link.mount}", read_only=not writes, data=data)
        )
    return RunMounts(mounts=tuple(mounts), missing=tuple(missing))
