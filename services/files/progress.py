"""How far a long piece of work on files is, and a way to end it.

One thread works and counts, others look and may ask it to end; numbers are only ever added to, so a look needs no
lock.
"""

from __future__ import annotations

from collections.abc import Callable

from galilean.errors import UserError, mark
from services.files.shelf import ASK_EVERY_BYTES, no_room


class Cancelled(Exception):
    """Somebody asked the work to end; nothing of it is left."""


class Progress:
    """Counts, asked for by whoever shows them.

    Parameters
    ----------
    room_bytes
        How much more may be kept, asked before and every 64 MB; ``None`` = no limit. What is written meanwhile is
        counted there late or not at all, so neither all of it may be more than was ever said, nor what was
        written since the last answer more than that.

    Attributes
    ----------
    entries, size_bytes
        What is done.
    total_bytes
        How much there will be, where that is known.
    """

    def __init__(self, room_bytes: Callable[[], int | None] = lambda: None) -> None:
        self.entries = self.size_bytes = 0
        self.total_bytes: int | None = None
        self._asked_at = 0
        self._room_bytes = room_bytes
        self._room: int | None = None
        self._most = 0
        self._cancelled = self._asked = False

    def cancel(self) -> None:
        """Ask the work to end, from any thread."""
        self._cancelled = True

    def add(self, size_bytes: int, entries: int = 0) -> None:
        """Count what is about to be written.

        Raises
        ------
        Cancelled
            When somebody asked for the end.
        UserError
            507 when there is no room for it.
        """
        if self._cancelled:
            raise Cancelled
        self.entries += entries
        self.size_bytes += size_bytes
        if not self._asked or self.size_bytes - self._asked_at >= ASK_EVERY_BYTES:
            self._asked, self._asked_at = True, self.size_bytes - size_bytes
            self._room = self._room_bytes()
            self._most = max(self._most, self._room or 0)
        if self._room is None:
            return
        if self.size_bytes > self._most or self.size_bytes - self._asked_at > self._room:
            raise no_room("", size_bytes, max(0, self._room))


def too_many(most: int) -> UserError:
    """What is said of more entries than one piece of work takes."""
    return UserError(
        413, mark("These are more than {most} files and folders; take fewer at once."), most=most
    )
