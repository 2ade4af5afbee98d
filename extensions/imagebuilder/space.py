"""How much of a node's changes is copied, and that there is room for it, before anybody is held and while it is copied.

A file counts by its length, not by what it takes on the node's disk: read, its empty stretches are zeros, and a file
of ten terabytes that takes nothing there would fill the disk that it is copied to, for everybody on that machine. What can
never be saved is told to the person, who can do something about it; what only does not fit just now, as a full disk.

Files grow while they are copied, and several nodes are saved at once. So what each may take is put aside when it
begins, and the disk is looked at while it goes on.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from extensions.imagebuilder.tarstream import LIMIT_BYTES
from galilean import disk_reserve
from galilean.errors import UserError, mark

#: The copy and the packed layer lie side by side for a moment.
COPIES = 2

_LARGE = mark(
    "This node changed {size} MB of its image, empty stretches of files included; at most {most} MB can be saved. "
    "“find / -xdev -size +1G” lists its large files: move data to “work”, delete what is not needed, then save again."
)


def too_large(size_bytes: int, most_bytes: int) -> UserError:
    """The refusal of what can never be saved here."""
    return UserError(413, _LARGE, reason="save-large", size=-(-size_bytes >> 20), most=most_bytes >> 20)


class Space:
    """The room for what is on its way, below one directory.

    Parameters
    ----------
    directory
        Each save has a folder in it.
    most_bytes
        All of them together; None: as much as the disk has.
    """

    def __init__(self, directory: Path, most_bytes: int | None = None) -> None:
        self.directory = directory
        self._all = most_bytes
        self._lock = threading.Lock()
        self._aside: dict[Path, int] = {}

    @property
    def most_bytes(self) -> int:
        """The most that one node may have changed."""
        return LIMIT_BYTES if self._all is None else min(LIMIT_BYTES, self._all // COPIES)

    @contextmanager
    def aside(self, folder: Path, size_bytes: int) -> Iterator[Callable[[int], None]]:
        """Put aside what the copy of so many bytes takes.

        Given is what is to be called with the bytes that were copied or written so far, often: it raises, too.

        Raises
        ------
        UserError
            413 when it is more than can be saved; 507 when the disk has no room for it.
        """
        self.need(size_bytes)
        with self._lock:
            self._require(folder, COPIES * size_bytes)
            self._aside[folder] = COPIES * size_bytes
        try:
            yield self._watch(folder)
        finally:
            with self._lock:
                del self._aside[folder]

    def need(self, size_bytes: int) -> None:
        """Refuse what is more than can be saved.

        Raises
        ------
        UserError
            413.
        """
        if size_bytes > self.most_bytes:
            raise too_large(size_bytes, self.most_bytes)

    def _watch(self, folder: Path) -> Callable[[int], None]:
        asked_at = 0

        def at(done_bytes: int) -> None:
            nonlocal asked_at
            self.need(done_bytes)
            if not 0 <= done_bytes - asked_at < disk_reserve.ASK_EVERY_BYTES:
                asked_at = done_bytes
                with self._lock:
                    self._require(folder, disk_reserve.ASK_EVERY_BYTES)

        return at

    def _require(self, folder: Path, needed_bytes: int) -> None:
        """Refuse what others have put aside or the disk has not."""
        others = held = 0
        for one in self.directory.iterdir():
            there = _bytes_in(one)
            held += there
            if one != folder:
                others += max(0, self._aside.get(one, 0) - there)
        free = disk_reserve.free_bytes(self.directory)
        if self._all is not None:
            free = min(free, self._all - held)
        if needed_bytes > (free := max(0, free - others)):
            raise disk_reserve.refused(needed_bytes, free)


def _bytes_in(folder: Path) -> int:
    size = 0
    try:
        with os.scandir(folder) as listed:
            for entry in listed:
                size += entry.stat(follow_symlinks=False).st_size
    except OSError:  # it goes away meanwhile
        pass
    return size
