"""A tree that is written thing by thing, as they come out of an archive of another kind.

The same care as for what people upload (:mod:`services.files.unpacking`): no name that may not be here, nothing
through a link, links last and only those that stay inside, devices never, bytes and entries counted as they come.
The tree must be new and nobody's yet: what is broken off is the caller's to remove.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from services.files.faults import plain_words
from services.files.progress import Progress
from services.files.root import Root
from services.files.unpacking import Limits, _Unpacking


class Members:
    """Writes into a tree; see :func:`writing`.

    Attributes
    ----------
    left_out
        What was not made, and why in one word, as of :class:`services.files.unpacking.Unpacked`.
    """

    def __init__(self, work: _Unpacking) -> None:
        self._work = work
        self.left_out = work.left_out

    def folder(self, name: str, mode: int) -> None:
        """Make a folder."""
        parts = self._work.place_of(name)
        if parts is not None:
            self._work.directory(parts, mode)

    def file(self, name: str, mode: int, changed: float, source: Any) -> None:
        """Make a file from what ``source.read`` gives; what is left out is read, too."""
        parts = self._work.place_of(name)
        if parts is not None:
            self._work.file(parts, mode, changed, source)

    def link(self, name: str, to: str) -> None:
        """Make a link, at the end, if it stays inside."""
        parts = self._work.place_of(name)
        if parts is not None:
            self._work.link(parts, to)


@contextmanager
def writing(
    root: Root, *, packed_bytes: int, limits: Limits | None = None, progress: Progress | None = None
) -> Iterator[Members]:
    """Write into a new tree. Blocks.

    Parameters
    ----------
    root
        The tree, empty.
    packed_bytes
        What it all comes from, against which what it becomes is held.
    limits
        Against bombs.
    progress
        Counts, room, cancelling.

    Raises
    ------
    UserError
        413 beyond a limit; 507 without room.
    Cancelled
        When somebody asked for the end.
    """
    with plain_words(""), root.folder() as top:
        work = _Unpacking(top, top, "", packed_bytes, limits or Limits(), progress or Progress())
        mode = os.fstat(top).st_mode
        yield Members(work)
        work.finish()
        os.fchmod(top, mode & 0o777)  # the tree's own is not the archive's to say
