"""Directories for sockets in ``/tmp``, where paths are short enough for them: none is left by whoever was killed.

The address of a unix socket has some hundred bytes, fewer than many a person's directory. So a desktop has a
directory of its own in ``/tmp`` for as long as it lives. Its maker holds a lock on it that ends with
the process, however that happens; whoever makes the next one removes those of the same account that nobody holds.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from pathlib import Path

PREFIX = "galilean-desktop-"
_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class ShortPlace:
    """A directory with a short path, for this account alone, held by this process."""

    def __init__(self) -> None:
        remove_abandoned()
        while True:
            self.path = Path(tempfile.mkdtemp(prefix=PREFIX))  # 0700
            try:
                self._fd = os.open(self.path, _FLAGS)
            except FileNotFoundError:  # somebody took it for abandoned before it was held
                continue
            fcntl.flock(self._fd, fcntl.LOCK_EX)
            if self._is_there():
                return
            os.close(self._fd)

    def _is_there(self) -> bool:
        try:
            return os.path.samestat(os.fstat(self._fd), os.stat(self.path))
        except FileNotFoundError:
            return False

    def remove(self) -> None:
        """Remove it with all that is in it; the second time nothing."""
        if self._fd >= 0:
            shutil.rmtree(self.path, ignore_errors=True)
            os.close(self._fd)
            self._fd = -1


def remove_abandoned() -> None:
    """Remove those of this account that nobody holds any more."""
    for path in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        try:
            fd = os.open(path, _FLAGS)
        except OSError:  # gone meanwhile, another account's, or no directory
            continue
        try:
            if os.fstat(fd).st_uid == os.geteuid():
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(path, ignore_errors=True)
        except OSError:  # somebody holds it
            pass
        finally:
            os.close(fd)
