"""What stays free on a disk whatever people bring: the database, the keys and the logs lie on it too.

Packed images, files of builds in line and layers on their way all wait below the state directory, brought by anybody who
may. A disk that they filled to the last byte would stop the product for everybody. So each of them asks here before it
begins and now and then while it writes, and is refused while a reserve is still free; the kernel's own refusal, for
whoever else fills the disk meanwhile, is told in the same words.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from galilean.errors import UserError, mark

RESERVE_BYTES = 1 << 30
#: After how much that was written the disk is looked at again.
ASK_EVERY_BYTES = 64 << 20
FULL = frozenset({errno.ENOSPC, errno.EDQUOT})

_FULL = mark(
    "The disk of this site is nearly full: {needed} MB are needed, {free} MB can be used. Nothing was kept. Ask the "
    "administrators to make room, then try again."
)


def free_bytes(folder: Path) -> int:
    """What people's files may still take of a folder's disk; never below 0."""
    place = os.statvfs(folder)
    return max(0, place.f_bavail * place.f_frsize - RESERVE_BYTES)


def refused(needed_bytes: int, free: int) -> UserError:
    """The refusal of what does not fit."""
    return UserError(507, _FULL, reason="disk-full", needed=-(-needed_bytes >> 20), free=free >> 20)


def need(folder: Path, needed_bytes: int) -> None:
    """Refuse what would take of the reserve.

    Raises
    ------
    UserError
        507.
    """
    free = free_bytes(folder)
    if needed_bytes > free:
        raise refused(needed_bytes, free)


def watch(folder: Path) -> Callable[[int], None]:
    """Is called with the bytes that were written so far, often; raises as :func:`need` when the reserve is reached."""
    asked_at = 0

    def at(written_bytes: int) -> None:
        nonlocal asked_at
        if written_bytes - asked_at >= ASK_EVERY_BYTES:
            asked_at = written_bytes
            need(folder, ASK_EVERY_BYTES)

    return at


@contextmanager
def in_words(folder: Path) -> Iterator[None]:
    """Turn the kernel's "no space left" into :func:`refused`; other errors pass as they are."""
    try:
        yield
    except OSError as error:
        if error.errno not in FULL:
            raise
        raise refused(ASK_EVERY_BYTES, free_bytes(folder)) from error
