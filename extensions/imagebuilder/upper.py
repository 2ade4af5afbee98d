"""A container's own changes, as overlayfs keeps them, turned into a layer of an image.

Docker keeps what a container changed of its image in one directory (overlayfs calls it *upper*): new and changed
files whole, and in place of what was deleted a device of number 0:0. Read as an archive, that directory is the
layer, but for the deletions, which an image says by empty files named ``.wh.…``. Reading it takes one pass over
the changed bytes; ``docker commit`` reads and writes them, and freezes the container for as long as that takes.

What was deleted is asked of Docker besides (``GET …/changes``), just before the reading begins: a directory that was
deleted and made anew hides what the image had there, and no archive tells so. So: deleted and there as a directory =
it hides all below; deleted and there as something else = replaced; deleted and not there = gone.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import BinaryIO

from extensions.imagebuilder.strip import WHITEOUT, pax_header, set_size
from extensions.imagebuilder.tarstream import (
    BLOCK,
    DIRECTORY,
    LIMIT_BYTES,
    Entry,
    Source,
    data,
    entries,
    number,
)

OPAQUE = ".wh..wh..opq"
_CHARACTER_DEVICE = b"3"


def is_deleted(entry: Entry) -> bool:
    """Whether an entry of *upper* says that the image's file of this name is gone."""
    return (
        entry.kind == _CHARACTER_DEVICE
        and number(entry.header[329:337]) == 0
        and number(entry.header[337:345]) == 0
    )


def empty_file(path: str) -> bytes:
    """The headers of an empty file of root's."""
    name = path.encode("utf-8", "surrogateescape")
    header = bytearray(BLOCK)
    header[:100] = name[:100].ljust(100, b"\0")
    header[100:108], header[108:116], header[116:124] = b"0000644\0", b"0000000\0", b"0000000\0"
    header[136:148], header[156:157], header[257:265] = b"00000000000\0", b"0", b"ustar\x0000"
    set_size(header, 0)
    return (pax_header({b"path": name}) if len(name) > 100 else b"") + bytes(header)


def _whiteout(path: str) -> bytes:
    folder, _, name = path.rpartition("/")
    return empty_file(f"{folder}/{WHITEOUT}{name}" if folder else WHITEOUT + name)


def layer_of(upper: BinaryIO, deleted: Iterable[str], *, limit_bytes: int = LIMIT_BYTES) -> Iterator[bytes]:
    """The layer, unpacked, in blocks; every entry that is kept has its own bytes.

    Parameters
    ----------
    upper
        Archive of the directory, names relative to it.
    deleted
        Paths relative to the root that Docker calls deleted.
    limit_bytes
        Most that is read.

    Raises
    ------
    UserError
        The archive cannot be read, or broke off: a file in it became shorter while it was read.
    """
    gone = frozenset(path.strip("/") for path in deleted) - {""}
    there: dict[str, bool] = {}
    source = Source(upper, limit_bytes=limit_bytes)
    for entry in entries(source):
        name = entry.path.rpartition("/")[2]
        if entry.path in gone:
            there[entry.path] = entry.kind == DIRECTORY
        if not entry.path or (name.startswith(WHITEOUT) and not is_deleted(entry)):
            yield entry.shared  # nobody's file may say that another is gone
        elif is_deleted(entry):
            yield entry.shared
            yield _whiteout(entry.path)
        else:
            yield entry.before
            yield entry.header
            yield from data(source, entry)
            yield bytes(entry.padding)
    for path in sorted(gone):
        found = there.get(path)
        if found is None:
            yield _whiteout(path)
        elif found:
            yield empty_file(f"{path}/{OPAQUE}")
    yield bytes(2 * BLOCK)
