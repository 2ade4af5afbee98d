"""What the operating system says about files, in words for people."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from galilean.errors import UserError, mark
from services.files.paths import not_found, shown

FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
#: What disks say that cannot be used, those of a network among them.
_AWAY = frozenset(
    {
        errno.EIO, errno.EROFS, errno.EAGAIN, errno.ENODEV, errno.ENXIO, errno.ESTALE, errno.ETIMEDOUT, errno.EHOSTDOWN,
        errno.EHOSTUNREACH, errno.ENOTCONN, errno.ECONNABORTED, errno.ECONNREFUSED, errno.ECONNRESET,
    }
)  # fmt: skip


@contextmanager
def plain_words(path: str) -> Iterator[None]:
    """Turn an :class:`OSError` into a :class:`UserError` about ``path``; unexpected ones pass as they are."""
    try:
        yield
    except OSError as error:
        known = in_words(error, path)
        if known is None:
            raise
        raise known from error


def in_words(error: OSError, path: str) -> UserError | None:
    """The refusal that stands for an error of the operating system; ``None`` for a fault of ours."""
    name = shown(path)
    code = error.errno
    if code == errno.ENOENT:
        return not_found(path)
    if code in (errno.ENOTDIR, errno.ELOOP):
        return UserError(
            400, mark("“{path}” leads through a link or a file. Links are not followed here."), path=name
        )
    if code in (errno.EACCES, errno.EPERM):
        return UserError(
            403,
            mark(
                "“{path}” may not be read or changed: its permissions forbid it. Change them in a terminal."
            ),
            path=name,
        )
    if code == errno.EEXIST:
        return already_there(path)
    if code == errno.EISDIR:
        return UserError(409, mark("“{path}” is a folder."), path=name)
    if code == errno.ENOTEMPTY:
        return UserError(409, mark("The folder “{path}” is not empty."), path=name)
    if code == errno.ENAMETOOLONG:
        return UserError(400, mark("The name “{path}” is too long for this disk."), path=name)
    if code in (errno.EILSEQ, errno.EINVAL):
        return UserError(400, mark("This disk does not take “{path}”. Choose another name."), path=name)
    if code in (errno.EXDEV, errno.EBUSY):
        return UserError(409, mark("“{path}” is in use or lies on another disk."), path=name)
    if code in FULL:
        return disk_full(path)
    if code == errno.EFBIG:
        return UserError(413, mark("“{path}” is larger than this disk takes."), path=name)
    if code in _AWAY:
        return UserError(
            503,
            mark("The disk with these files cannot be used just now. Try again in a few minutes."),
        )
    return None


def already_there(path: str) -> UserError:
    """What is said when something of this name is there and was not to be replaced."""
    return UserError(
        409, mark("There is a “{path}” already. Choose another name, or replace it."), path=shown(path)
    )


def looks_like(path: str) -> UserError:
    """What is said when a name that reads the same is taken, though it is spelled otherwise."""
    return UserError(
        409,
        mark(
            "There is a “{path}” already that looks the same, written with other characters. Choose another."
        ),
        path=shown(path),
        reason="lookalike",
    )


def disk_full(path: str) -> UserError:
    """What is said when the volume or the person's space on it is full."""
    return UserError(
        507,
        mark("The disk is full: “{path}” was not saved, what was there before is untouched. Delete files."),
        path=shown(path),
    )


def not_a_file(path: str) -> UserError:
    """What is said of a pipe, a socket, a device, or a link that should be read."""
    return UserError(
        400, mark("“{path}” is a link, a pipe or a device, not a file that can be shown."), path=shown(path)
    )
