"""How something that is whole gets its name.

Whatever is made (an upload, a copy, an unpacked archive) is made in the tree's hidden folder and moved to its
name in one step. What happens when the name is taken is said before, by one word; in no case is anything lost
that its owner did not say goes.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from typing import Literal

from services.files import trees
from services.files.faults import already_there, looks_like
from services.files.paths import NAME_BYTES, join

#: ``refuse`` what is there stays and ours is refused; ``replace`` a file there goes (a folder never does);
#: ``keep`` both stay, ours under a name with a number.
Taken = Literal["refuse", "replace", "keep"]
_ENDING = re.compile(r"(?<=[^.])(\.tar)?\.[^. ]{1,12}$")
_MOST_NUMBERS = 1000


def numbered(name: str, number: int) -> str:
    """``plot.png`` → ``plot (2).png``, never more than 255 bytes."""
    found = _ENDING.search(name)
    stem, ending = (name[: found.start()], found[0]) if found else (name, "")
    mark = f" ({number}){ending}"
    while len(os.fsencode(stem + mark)) > NAME_BYTES:
        stem = stem[:-1]
    return stem + mark


def check_free(parent: int, parts: tuple[str, ...], taken: Taken) -> None:
    """Refuse early what :func:`place` would refuse now.

    Raises
    ------
    UserError
        409.
    """
    if taken == "keep":
        return
    name = parts[-1]
    there = trees.lstat(parent, name)
    if there is None:
        twin = trees.lookalike(parent, name)
        if twin is None:
            return
        if taken == "refuse":
            raise looks_like(join(parts))
        there = trees.lstat(parent, twin)
    if there is not None and (taken == "refuse" or stat.S_ISDIR(there.st_mode)):
        raise already_there(join(parts))


def place(source: int, temporary: str, parent: int, parts: tuple[str, ...], taken: Taken) -> tuple[str, ...]:
    """Move ``temporary`` from the folder ``source`` to the last of ``parts`` in ``parent``; answers where it is.

    Raises
    ------
    UserError
        409 as ``taken`` says.
    OSError
        What the disk says.
    """
    check_free(parent, parts, taken)
    name = trees.lookalike(parent, parts[-1]) or parts[-1]
    if taken == "replace":
        trees.rename_over(source, temporary, parent, name)
        return (*parts[:-1], name)
    if taken == "refuse":
        trees.rename_new(source, temporary, parent, name)
        return parts
    for number in range(1, _MOST_NUMBERS):
        name = parts[-1] if number == 1 else numbered(parts[-1], number)
        if trees.lookalike(parent, name):
            continue
        try:
            trees.rename_new(source, temporary, parent, name)
        except FileExistsError:
            continue
        return (*parts[:-1], name)
    raise OSError(errno.EEXIST, os.strerror(errno.EEXIST), parts[-1])
