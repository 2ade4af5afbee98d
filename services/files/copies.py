"""Copies of files and whole trees, within a tree or from one to another (a fork).

A copy is made in the hidden folder of where it goes and gets its name when all of it is there: nobody sees half a
copy, and one that is cancelled or finds no room leaves nothing. Blocks are shared where the file system can
(reflink), else the kernel copies them. Links are copied as links, names of one file as names of one file, holes as
holes; times and permissions stay; pipes and devices are left out.

It is not waited for until all is on the disk, as `cp` does not: the original is still there.
"""

from __future__ import annotations

import errno
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from galilean.errors import UserError, mark
from services.files import kernel, trees
from services.files.faults import disk_full, plain_words
from services.files.paths import DEPTH, HIDDEN, is_hidden, join, not_found, shown, split, split_new
from services.files.placing import Taken, check_free, place
from services.files.progress import Progress, too_many
from services.files.root import Root
from services.files.trees import opened

MOST_ENTRIES = 1_000_000
SMALL_BYTES = 256 << 10
PIECE_BYTES = 8 << 20
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(kw_only=True)
class Copied:
    """What became of a copy.

    Attributes
    ----------
    path
        Where it is.
    left_out
        What was not copied: pipes, devices, what may not be read, what lies too deep.
    """

    path: str = ""
    left_out: list[str] = field(default_factory=list)


def copy(
    source: Root,
    path: str,
    target: Root,
    new_path: str,
    *,
    taken: Taken = "refuse",
    progress: Progress | None = None,
) -> Copied:
    """Copy a file, a link or a folder. Blocks.

    Raises
    ------
    UserError
        404 when it is not there, 409 as ``taken`` says, 413 for too many entries, 507 without room.
    Cancelled
        When somebody asked for the end.
    """
    parts, new_parts = split(path), split_new(new_path)
    if source.root == target.root and new_parts[: len(parts)] == parts and len(new_parts) > len(parts):
        raise UserError(400, mark("“{path}” cannot be copied into itself."), path=shown(path))
    copied = Copied()
    with plain_words(new_path), target.folder() as top:
        with opened(trees.open_below(top, new_parts[:-1])) as parent:
            check_free(parent, new_parts, taken)
        with making(top) as (hidden, name):
            with plain_words(path), source.folder(parts[:-1]) as from_folder:
                work = _Copying(progress or Progress(), copied, new_path)
                if not parts:
                    work.tree(from_folder, ".", hidden, name, at_top=True)
                elif not work.anything(from_folder, parts[-1], hidden, name):
                    raise not_found(path) if trees.lstat(from_folder, parts[-1]) is None else _no_file(path)
            with plain_words(new_path), opened(trees.open_below(top, new_parts[:-1])) as parent:
                copied.path = join(place(hidden, name, parent, new_parts, taken))
    return copied


def copy_into(source: Root, target: Root, *, progress: Progress | None = None) -> Copied:
    """Copy all that is in one tree into another that is empty, as a fork does.

    Whoever has the target shows it to nobody before this is done; what breaks off is removed with the target.

    Raises
    ------
    UserError
        409 when something is there; 413, 507 as :func:`copy`.
    Cancelled
        When somebody asked for the end.
    """
    copied = Copied()
    with plain_words(""), source.folder() as from_folder, target.folder() as top:
        with os.scandir(top) as entries:
            if any(entry.name != HIDDEN for entry in entries):
                raise UserError(409, mark("There are files here already; only into an empty tree is copied."))
        _Copying(progress or Progress(), copied, "").inside(from_folder, top, (), at_top=True)
    return copied


@contextmanager
def making(top: int) -> Iterator[tuple[int, str]]:
    """A name in the hidden folder to make something under; what is still there at the end is removed."""
    name = secrets.token_hex(16) + ".gone"
    # Something of ours in it keeps others from removing the folder because it is empty.
    hidden, file, guard = trees.create_hidden(top, ".guard", os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    os.close(file)
    try:
        with opened(hidden):
            try:
                yield hidden, name
            finally:
                if trees.lstat(hidden, name) is not None:
                    trees.remove_made(hidden, name)
                os.unlink(guard, dir_fd=hidden)
    finally:
        trees.close_hidden(top)


def _no_file(path: str) -> UserError:
    return UserError(400, mark("“{path}” is a pipe or a device and cannot be copied."), path=shown(path))


class _Copying:
    """One copy: what it has met so far."""

    def __init__(self, progress: Progress, copied: Copied, said: str) -> None:
        self._progress, self._copied, self._said = progress, copied, said
        self._linked: dict[tuple[int, int], tuple[str, ...]] = {}
        self._clones = True
        self._umask = _umask()
        self._owner: tuple[int, int] | None = None
        self._top = -1

    def anything(self, source: int, name: str, target: int, new_name: str) -> bool:
        """Copy one thing by its kind; ``False`` when it is not there or of no kind that is copied."""
        status = trees.lstat(source, name)
        if status is None:
            return False
        if stat.S_ISDIR(status.st_mode):
            self.tree(source, name, target, new_name, at_top=False)
        elif stat.S_ISLNK(status.st_mode):
            self._link(source, name, target, new_name)
        elif stat.S_ISREG(status.st_mode):
            self._owner_of(target)
            self._file(source, name, target, new_name, None)
        else:
            return False
        return True

    def tree(self, source: int, name: str, target: int, new_name: str, *, at_top: bool) -> None:
        """Copy a folder with all that is in it to a name that is free."""
        with opened(os.open(name, trees.OPEN_DIRECTORY, dir_fd=source)) as from_folder:
            os.mkdir(new_name, 0o700, dir_fd=target)
            with opened(os.open(new_name, trees.OPEN_DIRECTORY, dir_fd=target)) as to_folder:
                self._owner_of(target)
                self.inside(from_folder, to_folder, (), at_top=at_top)
                self._like(to_folder, os.fstat(from_folder))

    def inside(self, source: int, target: int, parts: tuple[str, ...], *, at_top: bool) -> None:
        """Copy what is in a folder into another that is empty."""
        if self._top < 0:
            self._top = target
            self._owner_of(target)
        with os.scandir(source) as entries:
            found = [
                (entry.name, entry.is_dir(follow_symlinks=False), entry.is_symlink()) for entry in entries
            ]
        self._progress.add(0, 1)
        for name, folder, link in found:
            if at_top and is_hidden(name):
                continue
            try:
                if folder:
                    if len(parts) + 1 >= DEPTH:
                        self._copied.left_out.append(join((*parts, name)))
                        continue
                    with opened(os.open(name, trees.OPEN_DIRECTORY, dir_fd=source)) as from_folder:
                        os.mkdir(name, 0o700, dir_fd=target)
                        with opened(os.open(name, trees.OPEN_DIRECTORY, dir_fd=target)) as to_folder:
                            self.inside(from_folder, to_folder, (*parts, name), at_top=False)
                            self._like(to_folder, os.fstat(from_folder))
                elif link:
                    self._link(source, name, target, name)
                else:
                    self._file(source, name, target, name, (*parts, name))
            except (PermissionError, FileNotFoundError, NotADirectoryError):
                self._copied.left_out.append(join((*parts, name)))
            except OSError as error:
                if error.errno not in (errno.ELOOP, errno.ENXIO):
                    raise
                self._copied.left_out.append(join((*parts, name)))
        if self._progress.entries > MOST_ENTRIES:
            raise too_many(MOST_ENTRIES)

    def _file(
        self, source: int, name: str, target: int, new_name: str, parts: tuple[str, ...] | None
    ) -> None:
        file = os.open(name, _READ, dir_fd=source)
        try:
            status = os.fstat(file)
            if not stat.S_ISREG(status.st_mode):
                self._copied.left_out.append(join(parts or (name,)))
                return
            if (
                status.st_nlink > 1
                and parts is not None
                and self._same_again(status, target, new_name, parts)
            ):
                return
            self._progress.add(min(status.st_size, status.st_blocks * 512), 1)
            mode = stat.S_IMODE(status.st_mode) & 0o777
            copy = os.open(new_name, _NEW, mode, dir_fd=target)
            try:
                if status.st_size:
                    self._bytes(file, copy, status)
                if mode & self._umask:
                    os.fchmod(copy, mode)
                if self._owner is not None:
                    os.fchown(copy, *self._owner)
                os.utime(copy, ns=(status.st_atime_ns, status.st_mtime_ns))
            finally:
                os.close(copy)
        finally:
            os.close(file)

    def _same_again(self, status: os.stat_result, target: int, name: str, parts: tuple[str, ...]) -> bool:
        """Whether it is another name of a file that was copied, and now is one of its copy."""
        known = self._linked.setdefault((status.st_dev, status.st_ino), parts)
        if known == parts:
            return False
        with opened(trees.open_below(self._top, known[:-1])) as folder:
            os.link(known[-1], name, src_dir_fd=folder, dst_dir_fd=target, follow_symlinks=False)
        self._progress.add(0, 1)
        return True

    def _bytes(self, file: int, copy: int, status: os.stat_result) -> None:
        if self._clones:
            self._clones = kernel.clone(file, copy)
            if self._clones:
                return
        if status.st_size <= SMALL_BYTES:
            data = os.read(file, SMALL_BYTES + 1)
            if len(data) <= SMALL_BYTES:  # else it grew meanwhile
                view = memoryview(data)
                while view:
                    view = view[os.write(copy, view) :]
                return
            os.lseek(file, 0, os.SEEK_SET)
        disk = os.fstatvfs(copy)
        if status.st_blocks * 512 > disk.f_bavail * disk.f_frsize:
            raise disk_full(self._said)
        for first, last in _written_parts(file, status.st_size):
            offset = first
            while offset < last:
                self._progress.add(0)
                offset += _some(file, copy, offset, min(PIECE_BYTES, last - offset))
        os.ftruncate(copy, status.st_size)

    def _link(self, source: int, name: str, target: int, new_name: str) -> None:
        self._progress.add(0, 1)
        os.symlink(os.readlink(name, dir_fd=source), new_name, dir_fd=target)
        if self._owner is not None:
            os.chown(new_name, *self._owner, dir_fd=target, follow_symlinks=False)

    def _like(self, folder: int, status: os.stat_result) -> None:
        if self._owner is not None:
            os.fchown(folder, *self._owner)
        os.fchmod(folder, stat.S_IMODE(status.st_mode) & 0o777)
        os.utime(folder, ns=(status.st_atime_ns, status.st_mtime_ns))

    def _owner_of(self, folder: int) -> None:
        if os.geteuid() == 0:
            status = os.fstat(folder)
            self._owner = (status.st_uid, status.st_gid) if status.st_uid or status.st_gid else None


def _written_parts(file: int, size: int) -> Iterator[tuple[int, int]]:
    """Where a file has bytes and no holes."""
    offset = 0
    while offset < size:
        try:
            first = os.lseek(file, offset, os.SEEK_DATA)
        except OSError as error:
            if error.errno != errno.ENXIO:  # nothing but a hole from here on
                yield offset, size
            return
        offset = min(os.lseek(file, first, os.SEEK_HOLE), size)
        yield first, offset


def _some(file: int, copy: int, offset: int, most: int) -> int:
    try:
        done = os.copy_file_range(file, copy, most, offset, offset)
    except OSError as error:
        if error.errno not in kernel.ABSENT:
            raise
        data = os.pread(file, min(most, 1 << 20), offset)
        done = os.pwrite(copy, data, offset) if data else 0
    return done or most  # it got shorter meanwhile: the rest is a hole


def _umask() -> int:
    """The process's mask, without changing it for a moment."""
    with open("/proc/self/status", encoding="ascii", errors="replace") as lines:
        for line in lines:
            if line.startswith("Umask:"):
                return int(line.split()[1], 8)
    return 0o777  # unknown: every file is given its permissions
