"""Where disks are: for processes and containers a directory each, below a place of their own.

The place has a mark, as volumes have (:mod:`services.catalog.volumes`): a disk of the machine that is not mounted leaves
an empty directory behind, and neither may work be written below it, nor may what it held be taken for deleted.
A directory is made before the row that names it and taken away after that row was deleted, so that a row never
promises what is not there; one without a row is empty.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from galilean.errors import UserError, mark
from services.catalog.volumes import MARK, make_directory
from services.files import trees
from services.files.root import COUNT_MOST, Root

NAME = "disks"


def check_there(place: Path) -> None:
    """Refuse to work where the place is not. Blocks.

    Raises
    ------
    UserError
        503.
    """
    try:
        there = (place / MARK).is_file()
    except OSError:
        there = False
    if not there:
        raise UserError(
            503, mark("The storage of disks is not there just now. An administrator must look at it.")
        )


def make(place: Path, disk_id: str, *, first: bool) -> None:
    """Make the directory of a disk; ``first`` = there is no disk yet, so the place may be a new one. Blocks.

    Raises
    ------
    UserError
        503 when the place is not there, 507 when it is full.
    """
    if first:
        make_directory(place, NAME)
        with contextlib.suppress(FileExistsError), open(place / MARK, "x", encoding="utf-8") as file:
            file.write(f"{NAME}\n")
    check_there(place)
    make_directory(place / disk_id, NAME)


def unmake(place: Path, disk_id: str) -> None:
    """Take back a directory that no row came to name; what is in use is not empty and stays. Blocks."""
    with contextlib.suppress(OSError):
        (place / disk_id).rmdir()


def remove(place: Path, disk_id: str) -> None:
    """Delete a disk's files; gone already is success, and no link is followed. Blocks.

    Raises
    ------
    OSError, UserError
        When they cannot be, or the place is not there.
    """
    check_there(place)
    with trees.opened(os.open(place, trees.OPEN_DIRECTORY)) as folder:
        if trees.lstat(folder, disk_id) is not None:
            trees.take_away(folder, folder, disk_id)


def used_bytes(place: Path, disk_id: str) -> int | None:
    """How much lies on a disk; ``None`` when it cannot be counted. Blocks."""
    try:
        return Root(place / disk_id).usage(most=COUNT_MOST).size_bytes
    except (OSError, UserError):
        return None
