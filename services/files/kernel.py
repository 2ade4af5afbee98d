"""Calls of the kernel that Python has no name for.

Each is found once and answers plainly when this kernel, this file system or this container's filter does not
have it; every caller has another way, slower but as safe.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
from collections.abc import Callable

_OPENAT2 = 437  # the same number on every architecture
_RESOLVE_NO_SYMLINKS, _RESOLVE_BENEATH = 0x04, 0x08
_NOREPLACE = 1
_FICLONE = 0x40049409
_TRIES = 5
#: What a call says that is not there, or not for this file system or this pair of files.
ABSENT = frozenset({errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP, errno.ENOTTY, errno.EXDEV, errno.EPERM})

_libc = ctypes.CDLL(None, use_errno=True)


class _How(ctypes.Structure):
    _fields_ = [("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64)]


def _failed(name: str) -> OSError:
    code = ctypes.get_errno()
    return OSError(code, os.strerror(code), name)


def open_beneath(directory: int, path: str, flags: int) -> int:
    """Open ``path`` in one step, never through a link and never above ``directory``.

    Raises
    ------
    OSError
        ``ELOOP`` for a link on the way, ``EXDEV`` for what leads out, ``EAGAIN`` when folders are renamed under
        the call all the time.
    """
    how = _How(flags, 0, _RESOLVE_BENEATH | _RESOLVE_NO_SYMLINKS)
    for attempt in range(_TRIES):
        descriptor = _libc.syscall(
            _OPENAT2, directory, os.fsencode(path), ctypes.byref(how), ctypes.c_size_t(ctypes.sizeof(how))
        )
        if descriptor >= 0:
            return descriptor
        error = _failed(path)
        if error.errno != errno.EAGAIN or attempt == _TRIES - 1:
            raise error
    raise AssertionError


def _can_open_beneath() -> bool:
    top = os.open("/", os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.close(open_beneath(top, ".", os.O_RDONLY | os.O_CLOEXEC))
    except OSError:
        return False
    finally:
        os.close(top)
    return True


def rename_noreplace(source: int, name: str, target: int, new_name: str) -> bool:
    """Rename unless something is there, in one step; ``False`` where that cannot be had.

    Raises
    ------
    OSError
        ``EEXIST`` when something is there, and what else a rename says.
    """
    if _renameat2 is None:
        return False
    if _renameat2(source, os.fsencode(name), target, os.fsencode(new_name), _NOREPLACE) == 0:
        return True
    error = _failed(new_name)
    if error.errno in (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP):
        return False
    raise error


def clone(source: int, target: int) -> bool:
    """Let a whole file share the blocks of another (reflink); ``False`` where the file system cannot.

    Raises
    ------
    OSError
        When the disk is full.
    """
    try:
        fcntl.ioctl(target, _FICLONE, source)
    except OSError as error:
        if error.errno in ABSENT:
            return False
        raise
    return True


def sync_all(descriptor: int) -> None:
    """Have all that was written to the file system of ``descriptor`` on the disk.

    Raises
    ------
    OSError
        When it cannot be written.
    """
    if _libc.syncfs(descriptor) != 0:
        raise _failed("")


def start_writing(descriptor: int, offset: int, size_bytes: int) -> None:
    """Have the disk begin with what was written there, without waiting for it.

    What is synchronised at the end is then on its way already. No promise: where there is no such call, nothing
    happens.
    """
    function = getattr(_libc, "sync_file_range", None)
    if function is not None:
        function(descriptor, ctypes.c_int64(offset), ctypes.c_int64(size_bytes), ctypes.c_uint(2))


def _find_renameat2() -> Callable[..., int] | None:
    function = getattr(_libc, "renameat2", None)
    if function is not None:
        function.argtypes = [ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint]
        function.restype = ctypes.c_int
    return function


_renameat2 = _find_renameat2()
#: Whether :func:`open_beneath` is there: old kernels and some containers' filters do not have it.
OPENS_BENEATH = _can_open_beneath()
