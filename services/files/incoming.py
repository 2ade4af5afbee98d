"""A file on its way into a tree.

Pieces go into a file of a random name in the tree's hidden folder, on the same file system; only when
all is there and on the disk does it get its final name, in one step. So a file under its own name is always
whole, whatever breaks: the browser, the portal, the machine. Two uploads to one name never meet; the one
that ends last has it, or is refused when it did not ask to replace.
"""

from __future__ import annotations

import os
import stat
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Self

from galilean.amounts import format_bytes
from galilean.errors import UserError, mark
from services.files import paths, trees
from services.files.faults import disk_full, plain_words
from services.files.paths import shown, split_new
from services.files.placing import Taken, check_free, place
from services.files.trees import opened


class Upload:
    """Write in pieces, then :meth:`finish`; leaving a ``with`` before that abandons it.

    One thread at a time may use it.

    Parameters
    ----------
    root
        The tree's top directory.
    path
        Where the file is to be.
    overwrite
        Replace a file (or link) that is there; a folder is never replaced.
    parents
        Make the folders that lead to it.
    limit_bytes
        The most that the person may upload at once; ``None`` = no limit (CG-13).
    expected_bytes
        How much will come, when that is known: what cannot fit is refused before the first byte, and what
        did not come whole is refused at the end.

    Raises
    ------
    UserError
        400 for a bad path, 404 for a missing folder, 409 when something is there, 413 over the limit, 507
        without room.
    """

    def __init__(
        self,
        root: Path,
        path: str,
        *,
        overwrite: bool = False,
        parents: bool = False,
        limit_bytes: int | None = None,
        expected_bytes: int | None = None,
    ) -> None:
        self.path = path
        self.received_bytes = 0
        self._parts = split_new(path)
        if parents:
            for part in self._parts[:-1]:
                paths.check_name(part)
        self._taken: Taken = "replace" if overwrite else "refuse"
        self._parents = parents
        self._limit, self._expected = limit_bytes, expected_bytes
        self._open = False
        self._check_limit(expected_bytes or 0)
        with plain_words(path):
            self._root = os.open(root, trees.OPEN_DIRECTORY)
            try:
                self._begin()
            except BaseException:
                trees.close_hidden(self._root)
                os.close(self._root)
                raise

    def _begin(self) -> None:
        try:
            with opened(trees.open_below(self._root, self._parts[:-1])) as parent:
                check_free(parent, self._parts, self._taken)
        except FileNotFoundError:
            if not self._parents:
                raise
        self._hidden, self._file, self._temporary = trees.create_hidden(
            self._root, ".part", os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC
        )
        self._open = True
        try:
            trees.belong_open(self._root, self._file)
            trees.clean(self._root, self._hidden)
            room = os.fstatvfs(self._file)
            if self._expected is not None and self._expected > room.f_bavail * room.f_frsize:
                raise disk_full(self.path)
        except BaseException:
            self._let_go()
            raise

    def write(self, piece: bytes) -> None:
        """Add a piece. After a refusal the upload is over and nothing of it is left.

        Raises
        ------
        UserError
            413 when it gets larger than allowed, 507 when the disk is full.
        """
        if not self._open:
            raise ValueError("the upload is over")
        try:
            self._check_limit(self.received_bytes + len(piece))
            with plain_words(self.path):
                view = memoryview(piece)
                while view:
                    written = os.write(self._file, view)
                    self.received_bytes += written
                    view = view[written:]
        except BaseException:
            self.abandon()
            raise

    def finish(self, *, changed_at: datetime | None = None) -> None:
        """Give the file its name, once all of it is on the disk; ``changed_at`` is what it says of its last change.

        Raises
        ------
        UserError
            400 when less came than was announced, 409 when something is there by now, 404 when the folder
            is gone; then nothing is left of it.
        """
        if not self._open:
            raise ValueError("the upload is over")
        try:
            if self._expected is not None and self.received_bytes != self._expected:
                raise UserError(
                    400,
                    mark("“{path}” did not come whole: {received} of {expected} bytes. Upload it again."),
                    path=shown(self.path),
                    received=self.received_bytes,
                    expected=self._expected,
                )
            with plain_words(self.path):
                if changed_at is not None:
                    os.utime(self._file, (changed_at.timestamp(), changed_at.timestamp()))
                os.fsync(self._file)
                parent = trees.open_below(self._root, self._parts[:-1], make=self._parents)
                with opened(parent):
                    self._name(parent)
                    os.fsync(parent)
        finally:
            self.abandon()

    def _name(self, parent: int) -> None:
        name = self._parts[-1]
        ours = os.fstat(self._file)
        lying = trees.lstat(self._hidden, self._temporary)
        if lying is None or (lying.st_dev, lying.st_ino) != (ours.st_dev, ours.st_ino):
            raise UserError(
                409, mark("“{path}” was taken away while it came in. Upload it again."), path=shown(self.path)
            )
        there = trees.lstat(parent, trees.lookalike(parent, name) or name)
        if there is not None and stat.S_ISREG(there.st_mode):
            os.fchmod(self._file, stat.S_IMODE(there.st_mode) & 0o777)
        self.path = paths.join(place(self._hidden, self._temporary, parent, self._parts, self._taken))

    def _check_limit(self, size_bytes: int) -> None:
        if self._limit is not None and size_bytes > self._limit:
            raise UserError(
                413,
                mark("“{path}” is larger than {most}, the most that you may upload at once."),
                path=shown(self.path),
                most=format_bytes(self._limit),
            )

    def abandon(self) -> None:
        """End it and leave nothing behind; after :meth:`finish`, or a second time, nothing happens."""
        if not self._open:
            return
        self._let_go()
        trees.close_hidden(self._root)
        os.close(self._root)

    def _let_go(self) -> None:
        self._open = False
        os.close(self._file)
        try:
            os.unlink(self._temporary, dir_fd=self._hidden)
        except OSError:
            pass
        os.close(self._hidden)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.abandon()
