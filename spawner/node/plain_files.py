"""Files that a person's programs may have put where we read or write: only plain ones are opened, and nothing is waited for.

Opening a named pipe waits until somebody opens its other end, for ever if need be, and keeps the thread that does it;
a few of them keep all threads of a server. A look before opening does not help, for the name may lead elsewhere
by then. So it is opened without waiting and looked at afterwards. Links are followed: whoever made them
could have opened where they lead.
"""

from __future__ import annotations

import errno
import os
import stat


def plain(path: str, flags: int) -> int:
    """An opener for :func:`open`: the file if it is a plain one.

    Raises
    ------
    OSError
        When it is not, or cannot be opened.
    """
    # What is no plain file is not emptied either, so that goes after the look.
    fd = os.open(path, (flags & ~os.O_TRUNC) | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC, 0o666)
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise OSError(errno.EINVAL, "This is no plain file", path)
        if flags & os.O_TRUNC:
            os.ftruncate(fd, 0)
        os.set_blocking(fd, True)
    except BaseException:
        os.close(fd)
        raise
    return fd
