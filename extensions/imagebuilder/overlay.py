"""What a container of containerd changed of its image, read from outside of it: overlayfs' own directories.

containerd mounts a container's root at a place of the machine that has the container's id in it, and the kernel tells
of each such mount which directory holds the changes (*upper*) and which ones the image (*lower*). The machine's own
table of mounts is asked, never that of a process in the container: with a user namespace of their own people mount
whatever they like there, and would have us read somebody else's directory.

Everything that is read belongs to people who go on working, so each name is opened below its directory and without
following links. Attributes that say "this directory hides the image's" can be read with the rights of root over the
whole machine alone (*trusted*), which we do not have. So the mounted root is looked at as well: what the image has, the
mount does not show and *upper* does not hold was deleted. That is exact, whatever hid it.
"""

from __future__ import annotations

import io
import logging
import os
import re
import stat
import tarfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from extensions.imagebuilder.space import too_large
from extensions.imagebuilder.summary import ADDED, CHANGED, DELETED
from extensions.imagebuilder.summary import Path as Changed
from extensions.imagebuilder.tarstream import LIMIT_BYTES
from galilean.errors import UserError, mark

log = logging.getLogger("galilean.agent")

#: Deeper directories are refused: two of our files are open for each step.
DEPTH_MOST = 400
#: More changed names are refused: they are held in memory, some 400 bytes each, to tell what changed.
NAMES_MOST = 400_000
CHUNK_BYTES = 1 << 20
_ESCAPED = re.compile(r"\\([0-7]{3})")
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_PARAMETERS = Path("/sys/module/overlay/parameters")

_UNKNOWN = mark(
    "The machine of this node keeps changes in a way that cannot be read ({what}). Images can be saved with containerd's "
    "overlayfs as it sets it up by itself."
)
_MANY = mark(
    "This node changed more than {most} files of its image. Keep data in “work”, or delete what is not needed (caches of "
    "packages, sources), then save again."
)
_DEEP = mark("A directory of this node is more than {most} levels deep: {path}. It cannot be saved.")


class Shorter(Exception):
    """A file became shorter while it was read."""

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self.path = path


@dataclass(frozen=True)
class Overlay:
    """Where the root of a container is made of: its changes, the image's layers from the top, and the mount of both."""

    upper: Path
    lowers: tuple[Path, ...]
    merged: Path


def unknown(what: str) -> UserError:
    """The refusal of a storage that cannot be read; ``what`` is a technical word, not translated."""
    log.warning("the storage of a node cannot be read: %s", what)
    return UserError(501, _UNKNOWN, reason="driver", what=what[:300])


def defaults(parameters: Path = _PARAMETERS) -> dict[str, bool]:
    """How the kernel mounts where a mount does not say."""
    found: dict[str, bool] = {}
    for name in ("redirect_dir", "metacopy"):
        try:
            found[name] = (parameters / name).read_text().strip() in ("Y", "1")
        except OSError:
            found[name] = False
    return found


def overlay_at(mounts: str, merged: Path, snapshots: Path, by_default: Mapping[str, bool]) -> Overlay:
    """The overlay that is mounted at a place.

    Parameters
    ----------
    mounts
        ``/proc/self/mountinfo`` of a namespace in which nobody but the machine mounts.
    merged
        Where.
    snapshots
        Directory of the machine that all its parts lie in.
    by_default
        :func:`defaults`.

    Raises
    ------
    UserError
        409 when nothing is mounted there; 501 when it is nothing that can be read, with what it is instead.
    """
    options: str | None = None
    for line in mounts.splitlines():
        before, _, after = line.partition(" - ")
        words, kind = before.split(" "), after.split(" ")
        if len(words) > 4 and len(kind) > 2 and _plain(words[4]) == str(merged):
            options = _plain(kind[2]) if kind[0] == "overlay" else f"={kind[0]}"
    if options is None:
        raise UserError(
            409,
            mark("This node does not run any more, so nothing of it can be saved."),
            reason="node-gone",
        )
    if options.startswith("=") or "\\" in options:
        raise unknown(
            f"storage {options[1:]}" if options.startswith("=") else "overlay: a name with a backslash"
        )
    told: dict[str, list[str]] = {}
    for word in options.split(","):
        name, _, value = word.partition("=")
        told.setdefault(name.rstrip("+"), []).append(value)
    for name, usual in by_default.items():
        said = told.get(name, ["on" if usual else "off"])[-1]
        if said not in ("off", "nofollow"):
            raise unknown(f"{name}={said}")
    (upper,) = told.get("upperdir", [""])[-1:]
    folder = os.path.dirname(
        os.path.dirname(upper)
    )  # of relative ones, which containerd uses for very many layers
    lowers = [
        os.path.join(folder, one) for value in told.get("lowerdir", []) for one in value.split(":") if one
    ]
    if not upper or not lowers:
        raise unknown("overlay: no upperdir" if lowers else "overlay: no lowerdir")
    for one in (upper, *lowers):
        if os.path.normpath(one) != one or not one.startswith(f"{snapshots}/"):
            raise unknown(f"overlay: {one} is not below {snapshots}")
    return Overlay(Path(upper), tuple(map(Path, lowers)), merged)


def _plain(word: str) -> str:
    return _ESCAPED.sub(lambda found: chr(int(found[1], 8)), word)


# ------------------------------------------------------------------------------------------------------- reading


@dataclass(frozen=True)
class Seen:
    """One name of *upper*: where, what it is, and whether the image has something there."""

    path: str
    stat: os.stat_result
    known: bool
    folder: int
    name: str

    @property
    def deleted(self) -> bool:
        """Whether it only says that the image's is gone."""
        return stat.S_ISCHR(self.stat.st_mode) and self.stat.st_rdev == 0


@dataclass(frozen=True)
class Hidden:
    """A path of the image that is not to be seen any more, though nothing of this name says so."""

    path: str


@dataclass
class _Level:
    path: str
    upper: int
    merged: int | None
    lowers: Sequence[Path]
    names: list[str]
    below: Mapping[str, bool]

    def close(self) -> None:
        os.close(self.upper)
        if self.merged is not None:
            os.close(self.merged)


def walk(overlay: Overlay) -> Iterator[Seen | Hidden]:
    """Everything in *upper*, directories before what is in them; what goes away meanwhile is left out.

    Raises
    ------
    UserError
        422 when a directory lies too deep.
    """
    levels: list[_Level] = []
    try:
        level, hidden = _level(
            "", os.open(overlay.upper, _DIRECTORY), _opened(overlay.merged), overlay.lowers
        )
        levels.append(level)
        yield from hidden
        while levels:
            level = levels[-1]
            if not level.names:
                levels.pop().close()
                continue
            name = level.names.pop()
            try:
                found = os.stat(name, dir_fd=level.upper, follow_symlinks=False)
            except FileNotFoundError:
                continue
            path = f"{level.path}/{name}" if level.path else name
            yield Seen(path, found, name in level.below, level.upper, name)
            if not stat.S_ISDIR(found.st_mode):
                continue
            if len(levels) >= DEPTH_MOST:
                raise UserError(422, _DEEP, reason="deep", most=DEPTH_MOST, path=f"/{path[:80]}…")
            upper = _opened(name, level.upper)
            if upper is None:
                continue
            merged = _opened(name, level.merged) if level.merged is not None else None
            lowers = _below(level.lowers, name)
            made, hidden = _level(path, upper, merged, lowers)
            levels.append(made)
            yield from hidden
    finally:
        for level in levels:
            level.close()


def _opened(name: str | Path, folder: int | None = None) -> int | None:
    try:
        return os.open(name, _DIRECTORY, dir_fd=folder)
    except OSError:
        return None


def _below(lowers: Sequence[Path], name: str) -> list[Path]:
    """Which of the image's layers have a directory of this name, down to the first that has something else."""
    found: list[Path] = []
    for lower in lowers:
        try:
            kind = os.lstat(lower / name).st_mode
        except (FileNotFoundError, NotADirectoryError):
            continue
        if not stat.S_ISDIR(kind):
            break
        found.append(lower / name)
    return found


def _level(path: str, upper: int, merged: int | None, lowers: Sequence[Path]) -> tuple[_Level, list[Hidden]]:
    below: dict[str, bool] = {}
    for lower in lowers:
        with os.scandir(lower) as listed:
            for entry in listed:
                if entry.name not in below:
                    below[entry.name] = not _is_whiteout(entry)
    below = {name: True for name, there in below.items() if there}
    # First what is to be seen, then what *upper* holds: who deletes a file in between leaves a mark there.
    seen = set(os.listdir(merged)) if merged is not None and below else None
    names = sorted(os.listdir(upper), reverse=True)
    hidden: list[Hidden] = []
    if seen is not None:
        gone = below.keys() - seen - set(names)
        hidden = [Hidden(f"{path}/{name}" if path else name) for name in sorted(gone)]
    return _Level(path, upper, merged, lowers, names, below), hidden


def _is_whiteout(entry: os.DirEntry[str]) -> bool:
    if entry.is_symlink() or entry.is_file(follow_symlinks=False) or entry.is_dir(follow_symlinks=False):
        return False
    found = entry.stat(follow_symlinks=False)
    return stat.S_ISCHR(found.st_mode) and found.st_rdev == 0


def image_file(overlay: Overlay, path: str, *, most: int) -> bytes:
    """A file of the image; empty when it has none, or one that is larger than ``most`` bytes."""
    *folders, name = path.strip("/").split("/")
    lowers: Sequence[Path] = overlay.lowers
    for folder in folders:
        lowers = _below(lowers, folder)
    for lower in lowers:
        try:
            with open(os.open(lower / name, _FILE), "rb") as file:
                found = os.fstat(file.fileno())
                if not stat.S_ISREG(found.st_mode) or found.st_size > most:
                    return b""
                return file.read(most)
        except FileNotFoundError:
            continue
        except OSError:
            return b""
    return b""


def changed(overlay: Overlay) -> tuple[list[Changed], int]:
    """Which paths were added, changed and deleted, and the bytes that are read of the files among them: what a file is long,
    not only what it takes on the disk.

    Raises
    ------
    UserError
        422 when they are more than ``NAMES_MOST``.
    """
    found: list[Changed] = []
    links: set[int] = set()
    size = 0
    for one in walk(overlay):
        if len(found) >= NAMES_MOST:
            raise UserError(422, _MANY, reason="many", most=NAMES_MOST)
        if isinstance(one, Hidden) or one.deleted:
            found.append(Changed(one.path, DELETED))
            continue
        found.append(Changed(one.path, CHANGED if one.known else ADDED))
        if stat.S_ISREG(one.stat.st_mode) and one.stat.st_ino not in links:
            size += max(one.stat.st_size, one.stat.st_blocks * 512)
            if one.stat.st_nlink > 1:
                links.add(one.stat.st_ino)
    return found, size


def archive(
    overlay: Overlay,
    out: BinaryIO,
    *,
    most_bytes: int = LIMIT_BYTES,
    progress: Callable[[int], None] = lambda _: None,
) -> int:
    """Write *upper* as an archive, as Docker hands it out: whiteouts as devices of number 0:0.

    Owners, modes and times are kept; attributes are not, which nobody without root's rights can set on programs. Sockets
    and devices are left out.

    Returns
    -------
    int
        Bytes written.

    Raises
    ------
    Shorter
        When a file became shorter while it was read.
    UserError
        413 before it would be longer than ``most_bytes``: somebody may make a file longer at any time.
    """
    links: dict[int, str] = {}
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT, encoding="utf-8") as made:
        for one in walk(overlay):
            if isinstance(one, Hidden):
                continue
            info = _header(one, links)
            if info is None:
                continue
            if not info.isreg():
                made.addfile(info)
            elif _add_file(made, info, one, most_bytes, progress) and one.stat.st_nlink > 1:
                links.setdefault(one.stat.st_ino, one.path)
            made.members.clear()  # type: ignore[attr-defined]  # it would keep each of them
            progress(made.offset)
    return out.tell()


def _header(one: Seen, links: dict[int, str]) -> tarfile.TarInfo | None:
    info = tarfile.TarInfo(one.path)
    found = one.stat
    info.mode, info.uid, info.gid, info.mtime = (
        stat.S_IMODE(found.st_mode),
        found.st_uid,
        found.st_gid,
        int(found.st_mtime),
    )
    if one.deleted:
        info.type = tarfile.CHRTYPE
    elif stat.S_ISDIR(found.st_mode):
        info.type = tarfile.DIRTYPE
    elif stat.S_ISLNK(found.st_mode):
        info.type = tarfile.SYMTYPE
        try:
            info.linkname = os.readlink(one.name, dir_fd=one.folder)
        except OSError:
            return None
    elif stat.S_ISFIFO(found.st_mode):
        info.type = tarfile.FIFOTYPE
    elif not stat.S_ISREG(found.st_mode):
        return None
    elif found.st_nlink > 1 and (first := links.get(found.st_ino)):
        info.type, info.linkname = tarfile.LNKTYPE, first
    else:
        info.type = tarfile.REGTYPE
    return info


def _add_file(
    made: tarfile.TarFile,
    info: tarfile.TarInfo,
    one: Seen,
    most_bytes: int,
    progress: Callable[[int], None],
) -> bool:
    try:
        descriptor = os.open(one.name, _FILE, dir_fd=one.folder)
    except FileNotFoundError:
        return False
    except OSError as error:  # a link came in its place
        raise Shorter(one.path) from error
    with os.fdopen(descriptor, "rb", buffering=0) as file:
        now = os.fstat(descriptor)
        if not stat.S_ISREG(now.st_mode):
            raise Shorter(one.path)
        if made.offset + now.st_size > most_bytes:
            raise too_large(made.offset + now.st_size, most_bytes)
        info.size = now.st_size
        made.addfile(info, _Whole(file, one.path, made.offset, progress))  # type: ignore[arg-type]
    return True


class _Whole:
    """A file that is read to the size that its header tells, or not at all."""

    def __init__(self, file: io.RawIOBase, path: str, offset: int, progress: Callable[[int], None]) -> None:
        self._file, self._path, self._at, self._progress = file, path, offset, progress

    def read(self, most: int) -> bytes:
        parts: list[bytes] = []
        while most:
            if not (part := self._file.read(min(most, CHUNK_BYTES))):
                raise Shorter(self._path)
            parts.append(part)
            most -= len(part)
            self._at += len(part)
            self._progress(self._at)
        return b"".join(parts)
