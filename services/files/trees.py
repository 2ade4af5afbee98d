"""Low steps on directory trees, by file descriptors only.

A person's nodes write into the same tree at the same time, so a path that was checked may be another
thing a moment later. Nothing here trusts a path: each step opens one name below an open directory and
never follows a link. Trees may be deeper than a call stack and than the number of open files: removal
flattens them, counting stops at :data:`DEPTH`.
"""

from __future__ import annotations

import errno
import os
import secrets
import stat
import time
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from services.files import kernel
from services.files.paths import DEPTH, HIDDEN, PATH_BYTES

OPEN_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
LEFTOVER_SECONDS = 24 * 3600
#: What the shelf of resumable uploads keeps in the hidden folder, and sweeps itself.
SHELVED = (".tus", ".unsure", ".json")
_TRIES = 10


@contextmanager
def opened(descriptor: int) -> Iterator[int]:
    """Close a descriptor at the end."""
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def lstat(directory: int, name: str) -> os.stat_result | None:
    """What is at a name, itself and not what it points to; ``None`` when there is nothing."""
    try:
        return os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return None


def belong(directory: int, name: str) -> None:
    """Give what we just made to whoever has the folder, so that the person's nodes may change it.

    Only where we are root, as on a server whose nodes run as somebody else; otherwise it is theirs already.
    """
    if os.geteuid() == 0:
        above = os.fstat(directory)
        if above.st_uid != 0 or above.st_gid != 0:
            os.chown(name, above.st_uid, above.st_gid, dir_fd=directory, follow_symlinks=False)


def belong_open(directory: int, file: int) -> None:
    """The same for a file of ours that is open."""
    if os.geteuid() == 0:
        above = os.fstat(directory)
        if above.st_uid != 0 or above.st_gid != 0:
            os.fchown(file, above.st_uid, above.st_gid)


def lookalike(directory: int, name: str) -> str | None:
    """The name of something that reads the same but is written with other code points, else ``None``.

    A composed and a decomposed ``é`` are two names to the disk and one to people, and which of the two a
    browser sends depends on the system it runs on.
    """
    for form in ("NFC", "NFD"):
        other = unicodedata.normalize(form, name)
        if other != name and lstat(directory, other) is not None and lstat(directory, name) is None:
            return other
    return None


def open_hidden(root: int) -> int:
    """A descriptor of the tree's hidden folder, made when it is missing.

    The folder is removed when it gets empty, maybe by another thread just now, hence the tries.
    """
    for _ in range(_TRIES):
        try:
            os.mkdir(HIDDEN, 0o700, dir_fd=root)
            belong(root, HIDDEN)
        except FileExistsError:
            pass
        try:
            return os.open(HIDDEN, OPEN_DIRECTORY, dir_fd=root)
        except FileNotFoundError:
            continue
    raise OSError(errno.EBUSY, os.strerror(errno.EBUSY), HIDDEN)


def close_hidden(root: int) -> None:
    """Remove the hidden folder when nothing is in it."""
    try:
        os.rmdir(HIDDEN, dir_fd=root)
    except OSError:
        pass


def create_hidden(root: int, suffix: str, flags: int) -> tuple[int, int, str]:
    """A new file in the hidden folder: the folder's descriptor, the file's, and its name."""
    for _ in range(_TRIES):
        hidden = open_hidden(root)
        name = secrets.token_hex(16) + suffix
        try:
            return hidden, os.open(name, flags | os.O_CREAT | os.O_EXCL, 0o666, dir_fd=hidden), name
        except FileNotFoundError:  # the folder was removed after we opened it
            os.close(hidden)
        except BaseException:
            os.close(hidden)
            raise
    raise OSError(errno.EBUSY, os.strerror(errno.EBUSY), HIDDEN)


def rename_new(source: int, name: str, target: int, new_name: str) -> None:
    """Rename, refusing to replace anything: in one step where the file system can.

    NFS and some others cannot (EINVAL); there a file is linked first, which refuses as well, and only a
    folder is left to a look before the step.

    Raises
    ------
    OSError
        ``EEXIST`` when something is there.
    """
    if not kernel.rename_noreplace(source, name, target, new_name):
        _rename_new_in_steps(source, name, target, new_name)


def _rename_new_in_steps(source: int, name: str, target: int, new_name: str) -> None:
    status = lstat(source, name)
    if status is not None and stat.S_ISREG(status.st_mode):
        try:
            os.link(name, new_name, src_dir_fd=source, dst_dir_fd=target, follow_symlinks=False)
        except OSError as error:
            if error.errno not in (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK):
                raise
        else:
            os.unlink(name, dir_fd=source)
            return
    if lstat(target, new_name) is not None:
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), new_name)
    os.rename(name, new_name, src_dir_fd=source, dst_dir_fd=target)


def rename_over(source: int, name: str, target: int, new_name: str) -> None:
    """Rename in one step, replacing a file that is there."""
    os.rename(name, new_name, src_dir_fd=source, dst_dir_fd=target)


def take_away(root: int, parent: int, name: str) -> None:
    """Make a folder vanish at once, then remove what was in it.

    The first step is one rename into the hidden folder: nobody sees a half-deleted tree. What cannot be
    removed after it (a file that another machine holds open on NFS) is left to :func:`clean`.
    """
    for _ in range(_TRIES):
        with opened(open_hidden(root)) as hidden:
            gone = secrets.token_hex(16) + ".gone"
            try:
                _rename_granted(parent, name, hidden, gone)
            except FileNotFoundError:
                if lstat(parent, name) is None:
                    raise
                continue  # the hidden folder was removed after we opened it
            _remove(hidden, gone)
        close_hidden(root)
        return
    raise OSError(errno.EBUSY, os.strerror(errno.EBUSY), name)


def remove_made(hidden: int, name: str) -> None:
    """Remove something unfinished from the hidden folder, a tree or a file."""
    status = lstat(hidden, name)
    if status is not None and stat.S_ISDIR(status.st_mode):
        _remove(hidden, name)
    elif status is not None:
        os.unlink(name, dir_fd=hidden)


def _remove(hidden: int, gone: str) -> None:
    """Remove a folder below the hidden one with all that is in it, as far as possible."""
    waiting, count = [gone], 0
    while waiting:
        folder = waiting.pop()
        for _ in range(_TRIES):  # a node may still be writing into it
            try:
                _grant(hidden, folder)
                with opened(os.open(folder, OPEN_DIRECTORY, dir_fd=hidden)) as directory:
                    with os.scandir(directory) as entries:
                        names = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries]
                    for name, is_folder in names:
                        if is_folder:
                            count += 1
                            _rename_granted(directory, name, hidden, f"{gone}.{count}")
                            waiting.append(f"{gone}.{count}")
                        else:
                            os.unlink(name, dir_fd=directory)
                os.rmdir(folder, dir_fd=hidden)
                break
            except OSError as error:
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOENT):
                    break
                if lstat(hidden, folder) is None:
                    break


def _rename_granted(source: int, name: str, target: int, new_name: str) -> None:
    """Rename a folder; moving one to another parent needs the right to write into it."""
    try:
        os.rename(name, new_name, src_dir_fd=source, dst_dir_fd=target)
    except PermissionError:
        _grant(source, name)
        os.rename(name, new_name, src_dir_fd=source, dst_dir_fd=target)


def _grant(directory: int, name: str) -> None:
    """Give ourselves all rights on a folder of ours; never on what a link points to."""
    try:
        handle = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=directory)
    except OSError:
        return
    with opened(handle):
        mode = os.fstat(handle).st_mode
        if mode & 0o700 != 0o700:
            try:
                os.chmod(f"/proc/self/fd/{handle}", stat.S_IMODE(mode) | 0o700)
            except OSError:
                pass


def clean(root: int, hidden: int) -> None:
    """Remove what uploads and deletions that broke off left more than a day ago."""
    before = time.time() - LEFTOVER_SECONDS
    with os.scandir(hidden) as entries:
        names = [entry.name for entry in entries]
    for name in names:
        status = lstat(hidden, name)
        if status is None or status.st_mtime > before or name.endswith(SHELVED):
            continue
        if stat.S_ISDIR(status.st_mode):
            _remove(hidden, name)
        else:
            try:
                os.unlink(name, dir_fd=hidden)
            except OSError:
                pass


@dataclass(frozen=True, kw_only=True)
class Usage:
    """What a tree holds.

    Attributes
    ----------
    size_bytes
        Sum of the files' sizes, a file with several names once.
    files, folders
        How many there are; links and others count as files.
    complete
        False when the tree was too large or too deep to be counted to the end.
    """

    size_bytes: int
    files: int
    folders: int
    complete: bool


def usage(root: int, most: int) -> Usage:
    """Count a tree, up to ``most`` entries and :data:`DEPTH` levels; folders that cannot be read are skipped."""
    size = files = folders = 0
    complete = True
    linked: set[tuple[int, int]] = set()
    waiting: list[tuple[str, ...]] = [()]
    while waiting:
        parts = waiting.pop()
        try:
            directory = open_below(root, parts)
        except OSError:
            complete = complete and not parts
            continue
        with opened(directory), os.scandir(directory) as entries:
            for entry in entries:
                if not parts and entry.name == HIDDEN:
                    continue
                if files + folders >= most:
                    return Usage(size_bytes=size, files=files, folders=folders, complete=False)
                if entry.is_dir(follow_symlinks=False):
                    folders += 1
                    if len(parts) + 1 < DEPTH:
                        waiting.append((*parts, entry.name))
                    else:
                        complete = False
                    continue
                files += 1
                status = lstat(directory, entry.name)
                if status is None or not stat.S_ISREG(status.st_mode):
                    continue
                if status.st_nlink > 1:
                    key = (status.st_dev, status.st_ino)
                    if key in linked:
                        continue
                    linked.add(key)
                size += status.st_size
    return Usage(size_bytes=size, files=files, folders=folders, complete=complete)


def open_below(root: int, parts: tuple[str, ...], *, make: bool = False) -> int:
    """A new descriptor of the folder at ``parts`` below an open one, no link followed on the way.

    With ``make``, folders that are missing are made.
    """
    if parts and not make and kernel.OPENS_BENEATH:
        path = "/".join(parts)
        if len(os.fsencode(path)) < PATH_BYTES:
            return kernel.open_beneath(root, path, OPEN_DIRECTORY)
    directory = os.open(".", OPEN_DIRECTORY, dir_fd=root)
    try:
        for part in parts:
            if make:
                try:
                    os.mkdir(part, 0o777, dir_fd=directory)
                    belong(directory, part)
                except FileExistsError:
                    pass
            below = os.open(part, OPEN_DIRECTORY, dir_fd=directory)
            os.close(directory)
            directory = below
    except BaseException:
        os.close(directory)
        raise
    return directory
