"""Descriptors that the backend hands to a node, taken out of the environment before people's code runs.

They are named by environment variables (:mod:`spawner.node.place`), made non-inheritable at once, and can
be taken once each. A node that was started without them works as well: the server binds its port itself.
"""

from __future__ import annotations

import os
from collections.abc import MutableMapping

from spawner.node import place

_NAMES = {"ready": place.READY_FD, "listen": place.LISTEN_FD, "ssh": place.SSH_FD}
_held: dict[str, int] = {}


def collect(environ: MutableMapping[str, str]) -> None:
    """Take all of them out of the environment."""
    _held.clear()
    for name, variable in _NAMES.items():
        value = environ.pop(variable, "")
        if value.isdigit():
            os.set_inheritable(int(value), False)
            _held[name] = int(value)


def take(name: str) -> int | None:
    """The descriptor of that name, once."""
    return _held.pop(name, None)


def tell_ready() -> None:
    """One byte means "listens"; the end of the pipe without a byte means "died"."""
    fd = take("ready")
    if fd is None:
        return
    try:
        os.write(fd, b"r")
    except OSError:
        pass  # who waited has gone away; the node is found again by its directory
    finally:
        os.close(fd)
