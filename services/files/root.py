"""The files of one tree, safe against everything that can stand in a path or in the directory.

A page acts on a directory into which the person's own nodes write at the same time, so looking first and
acting later is not enough: every step opens one name below an open directory and follows no link
(:mod:`services.files.trees`). Links are listed, renamed and deleted, never followed. Hard links are plain
files: a node can only make them to files it could read anyway, and we never write into an existing file.

A file gets its final name only when it is complete and on the disk: of two writers the one that ends last
has it, nothing is ever mixed. All methods block and raise :class:`galilean.errors.UserError`; call them in
a thread.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from operator import itemgetter
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Literal, Self

from galilean.errors import UserError, mark
from galilean.web.paging import Cursor
from services.files import paths, trees
from services.files.faults import looks_like, not_a_file, plain_words
from services.files.incoming import Upload
from services.files.paths import HIDDEN, folded, join, natural, not_found, shown, split, split_new
from services.files.placing import Taken, check_free
from services.files.trees import Usage, opened

Kind = Literal["folder", "file", "link", "other"]
SortFiles = Literal["name", "size", "changed"]
# (0 for a folder, 1 for anything else), (value, natural name), name
#: 0 for folders, what else it is sorted by before its name, the name as people sort it, the name.
_Rank = tuple[int, int, str, str]
LIST_MOST = 1000
COUNT_MOST = 200_000


@dataclass(frozen=True, kw_only=True)
class Entry:
    """Something in a tree.

    Attributes
    ----------
    path
        Relative to the top, see :mod:`services.files.paths`; may hold surrogates.
    kind
        ``link`` is a symbolic one, ``other`` a pipe, socket or device.
    """

    path: str
    kind: Kind
    size_bytes: int
    changed_at: datetime

    @property
    def name(self) -> str:
        """The last part as text for people; not for finding it again."""
        return shown(self.path.rpartition("/")[2])

    @property
    def address(self) -> str:
        """The path as it stands in a URL."""
        return paths.address(self.path)

    @property
    def hidden(self) -> bool:
        """Whether the name begins with a dot."""
        return self.path.rpartition("/")[2].startswith(".")


@dataclass(frozen=True, kw_only=True)
class Listing:
    """One page of a folder; ``next`` is the cursor of the next page, ``total`` counts all pages."""

    entries: list[Entry]
    next: str | None
    total: int


class OpenFile:
    """A regular file opened for reading; close it, or use it in a ``with``.

    Attributes
    ----------
    stream
        Positioned at the start; a plain file object.
    entry
        What it was when it was opened.
    etag
        Changes when the content does (a strong HTTP entity tag with its quotes).
    """

    def __init__(self, stream: BinaryIO, entry: Entry, etag: str) -> None:
        self.stream, self.entry, self.etag = stream, entry, etag

    def read(self, size_bytes: int = -1) -> bytes:
        """Read on, at most ``size_bytes``."""
        with plain_words(self.entry.path):
            return self.stream.read(size_bytes)

    def seek(self, offset_bytes: int) -> None:
        """Go to a place, for a range."""
        with plain_words(self.entry.path):
            self.stream.seek(offset_bytes)

    def close(self) -> None:
        """Let go of the file; twice does no harm."""
        self.stream.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Root:
    """The files below one directory.

    Parameters
    ----------
    root
        The tree's top directory; must exist. What leads to it is ours and trusted.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def list(
        self,
        path: str = "",
        *,
        sort: SortFiles = "name",
        descending: bool = False,
        hidden: bool = False,
        contains: str = "",
        limit: int = 200,
        cursor: str | None = None,
    ) -> Listing:
        """One page of a folder, folders first.

        By name only the page's own entries are looked at, so that ten thousand cost little. ``hidden``
        shows names that begin with a dot; ``contains`` leaves those out that have it not, in any letter
        case. ``cursor`` is what the page before gave; what was added or deleted meanwhile shifts nothing.

        Raises
        ------
        UserError
            400 for a bad path or cursor, 404 when the folder is not there.
        """
        limit = max(1, min(limit, LIST_MOST))
        parts = split(path)
        with plain_words(path), self.folder(parts) as directory:
            with os.scandir(directory) as found:
                names = [
                    (entry.name, entry.is_dir(follow_symlinks=False))
                    for entry in found
                    if (hidden or not entry.name.startswith(".")) and not (not parts and entry.name == HIDDEN)
                ]
            if contains:
                wanted = folded(contains)
                names = [found for found in names if wanted in folded(found[0])]
            ranked = _rank(directory, names, sort)
            ranked.sort(key=itemgetter(2) if sort == "name" else itemgetter(1, 2), reverse=descending)
            ranked.sort(key=itemgetter(0))
            if cursor:
                ranked = _after(ranked, cursor, sort, descending)
            entries: list[Entry] = []
            taken = 0
            for _, _, _, name in ranked:
                taken += 1
                status = trees.lstat(directory, name)
                if status is not None:
                    entries.append(_entry((*parts, name), status))
                if len(entries) == limit:
                    break
            following = _cursor(ranked[taken - 1], sort) if taken < len(ranked) else None
        return Listing(entries=entries, next=following, total=len(names))

    def stat(self, path: str) -> Entry:
        """What is at a path; of a link itself.

        Raises
        ------
        UserError
            404 when there is nothing.
        """
        parts = split(path)
        with plain_words(path), self.folder(parts[:-1]) as parent:
            status = os.fstat(parent) if not parts else trees.lstat(parent, parts[-1])
        if status is None:
            raise not_found(path)
        return _entry(parts, status)

    def open(self, path: str) -> OpenFile:
        """Open a regular file for reading.

        The name is first opened as a mere handle, which has no effect on a pipe or device; the content is
        opened through the handle only when it is a regular file, so nothing can be put in its place.

        Raises
        ------
        UserError
            404 when it is not there; 400 for a folder, link, pipe, socket or device; 403 without the right.
        """
        parts = split(path)
        if not parts:
            raise UserError(400, mark("“{path}” is a folder."), path="/")
        flags = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
        with plain_words(path), self.folder(parts[:-1]) as parent:
            with opened(os.open(parts[-1], flags, dir_fd=parent)) as handle:
                status = os.fstat(handle)
                if stat.S_ISDIR(status.st_mode):
                    raise UserError(400, mark("“{path}” is a folder."), path=shown(path))
                if not stat.S_ISREG(status.st_mode):
                    raise not_a_file(path)
                descriptor = os.open(
                    f"/proc/self/fd/{handle}", os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
                )
        etag = f'"{status.st_ino:x}-{status.st_mtime_ns:x}-{status.st_size:x}"'
        return OpenFile(os.fdopen(descriptor, "rb"), _entry(parts, status), etag)

    def upload(
        self,
        path: str,
        *,
        overwrite: bool = False,
        parents: bool = False,
        limit_bytes: int | None = None,
        expected_bytes: int | None = None,
    ) -> Upload:
        """Begin to write a file; see :class:`services.files.incoming.Upload`."""
        return Upload(
            self.root,
            path,
            overwrite=overwrite,
            parents=parents,
            limit_bytes=limit_bytes,
            expected_bytes=expected_bytes,
        )

    def write(
        self,
        path: str,
        data: bytes,
        *,
        overwrite: bool = False,
        parents: bool = False,
        limit_bytes: int | None = None,
    ) -> Entry:
        """Write a whole small file at once; the rules are those of :meth:`upload`."""
        with self.upload(
            path,
            overwrite=overwrite,
            parents=parents,
            limit_bytes=limit_bytes,
            expected_bytes=len(data),
        ) as upload:
            upload.write(data)
            upload.finish()
            return self.stat(upload.path)

    def make_folder(self, path: str, *, parents: bool = False) -> Entry:
        """Make a folder.

        Raises
        ------
        UserError
            409 when something of this name is there; 404 when its parent is not, unless ``parents``.
        """
        parts = split_new(path)
        with plain_words(path), opened(os.open(self.root, trees.OPEN_DIRECTORY)) as root:
            with opened(trees.open_below(root, parts[:-1], make=parents)) as parent:
                if trees.lookalike(parent, parts[-1]):
                    raise looks_like(path)
                os.mkdir(parts[-1], 0o777, dir_fd=parent)
                trees.belong(parent, parts[-1])
        return self.stat(path)

    def rename(self, path: str, new_path: str, *, overwrite: bool = False) -> Entry:
        """Give something another name or another folder; a link is moved, not what it points to.

        Raises
        ------
        UserError
            404 when it is not there; 409 when the new name is taken (a folder is never replaced).
        """
        parts, new_parts = split(path), split_new(new_path)
        if not parts:
            raise UserError(400, mark("The top folder itself cannot be moved here."))
        if new_parts[: len(parts)] == parts and len(new_parts) > len(parts):
            raise UserError(400, mark("“{path}” cannot be moved into itself."), path=shown(path))
        if new_parts == parts:
            return self.stat(path)
        with plain_words(path), self.folder(parts[:-1]) as parent:
            if trees.lstat(parent, parts[-1]) is None:
                raise not_found(path)
            with plain_words(join(new_parts[:-1]) or new_path), self.folder(new_parts[:-1]) as new_parent:
                taken: Taken = "replace" if overwrite else "refuse"
                # Another spelling of its own name is no other file.
                twin = trees.lookalike(new_parent, new_parts[-1])
                name = new_parts[-1]
                if (*new_parts[:-1], twin) != parts:
                    check_free(new_parent, new_parts, taken)
                    name = twin or name
                with plain_words(new_path):
                    move = trees.rename_over if overwrite else trees.rename_new
                    move(parent, parts[-1], new_parent, name)
                    new_path = join((*new_parts[:-1], name))
        return self.stat(new_path)

    def delete(self, path: str, *, recursive: bool = False) -> None:
        """Delete a file, a link (itself), or a folder; nothing outside can be reached by it.

        Raises
        ------
        UserError
            404 when it is not there; 409 for a folder with something in it, unless ``recursive``.
        """
        parts = split(path)
        if not parts:
            raise UserError(400, mark("The top folder itself cannot be deleted here."))
        with plain_words(path), opened(os.open(self.root, trees.OPEN_DIRECTORY)) as root:
            with opened(trees.open_below(root, parts[:-1])) as parent:
                status = trees.lstat(parent, parts[-1])
                if status is None:
                    raise not_found(path)
                if not stat.S_ISDIR(status.st_mode):
                    os.unlink(parts[-1], dir_fd=parent)
                elif recursive:
                    trees.take_away(root, parent, parts[-1])
                else:
                    os.rmdir(parts[-1], dir_fd=parent)

    def usage(self, *, most: int = COUNT_MOST) -> Usage:
        """How much the tree holds, counted up to ``most`` entries."""
        with plain_words(""), self.folder(()) as directory:
            return trees.usage(directory, most)

    @contextmanager
    def folder(self, parts: tuple[str, ...] = ()) -> Iterator[int]:
        """A descriptor of a folder, for what is not in this class; no link is followed on the way."""
        with opened(os.open(self.root, trees.OPEN_DIRECTORY)) as root:
            with opened(trees.open_below(root, parts)) as directory:
                yield directory


def _entry(parts: tuple[str, ...], status: os.stat_result) -> Entry:
    mode = status.st_mode
    kind: Kind = "other"
    if stat.S_ISDIR(mode):
        kind = "folder"
    elif stat.S_ISREG(mode):
        kind = "file"
    elif stat.S_ISLNK(mode):
        kind = "link"
    return Entry(
        path=join(parts),
        kind=kind,
        size_bytes=status.st_size if kind == "file" else 0,
        changed_at=_time(status.st_mtime),
    )


def _time(seconds: float) -> datetime:
    """A file's time; one that no calendar has (a node may set any) becomes the epoch."""
    try:
        return datetime.fromtimestamp(seconds, UTC)
    except (ValueError, OverflowError, OSError):
        return datetime.fromtimestamp(0, UTC)


def _rank(directory: int, names: list[tuple[str, bool]], sort: SortFiles) -> list[_Rank]:
    """Each name with what it is sorted by: folders first, then the key."""
    if sort == "name":
        return [(int(not folder), 0, natural(name), name) for name, folder in names]
    ranked: list[_Rank] = []
    for name, folder in names:
        status = trees.lstat(directory, name)
        if status is not None:
            value = status.st_mtime_ns if sort == "changed" else 0 if folder else status.st_size
            ranked.append((int(not folder), value, natural(name), name))
    return ranked


def _cursor(last: _Rank, sort: SortFiles) -> str:
    group, value, _, name = last
    return Cursor.encode(sort, group, value, paths.address(name))


def _after(ranked: list[_Rank], cursor: str, sort: SortFiles, descending: bool) -> list[_Rank]:
    """What comes after the last entry of the page before, be that still there or not."""
    kind, group, value, address = Cursor.decode(cursor, 4)
    if kind != sort or group not in (0, 1) or not isinstance(value, int) or not isinstance(address, str):
        raise UserError(400, mark("This page of the list cannot be found. Begin at the first page."))
    key = (value, natural(paths.from_address(address)))

    def later(rank: _Rank) -> bool:
        if rank[0] != group:
            return rank[0] > group
        return rank[1:3] < key if descending else rank[1:3] > key

    return [rank for rank in ranked if later(rank)]
