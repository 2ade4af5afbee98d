"""Text that is edited in a page: read with its version, saved only over that version.

Between reading and saving, somebody else (another tab, a node) may have saved. Who saves says which version they
changed; when another lies there by now, nothing is written and they are told. The look and the saving are one step
for everybody who saves here, by a lock on the folder; a node that writes at that very moment is not bound by it, and
keeps its bytes as a file that was replaced as a whole.
"""

from __future__ import annotations

import codecs
import fcntl
import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass

from galilean.amounts import format_bytes
from galilean.errors import UserError, mark
from services.files import trees
from services.files.faults import plain_words
from services.files.paths import shown, split
from services.files.root import Entry, Root
from services.files.trees import opened

MOST_BYTES = 2 << 20
PIECE_BYTES = 1 << 20
#: The algorithms of :func:`checksum`.
ALGORITHMS = ("sha256", "sha512", "sha1", "md5")


@dataclass(frozen=True, kw_only=True)
class Text:
    """A text and what is needed to save it as it was.

    Attributes
    ----------
    text
        Lines end by a line feed alone.
    version
        Of its bytes; handed back when it is saved.
    crlf, bom
        Whether lines end as on Windows, and whether a mark of UTF-8 stands at the front: both are kept.
    """

    text: str
    version: str
    crlf: bool = False
    bom: bool = False


def read_text(root: Root, path: str, *, most_bytes: int = MOST_BYTES) -> Text:
    """A text to be edited.

    Raises
    ------
    UserError
        413 when it is larger, 415 when it is not UTF-8 text, else as :meth:`Root.open`.
    """
    with root.open(path) as file:
        data = file.read(most_bytes + 1)
    if len(data) > most_bytes:
        raise UserError(
            413,
            mark("“{path}” is larger than {most} and cannot be edited here. Edit it in JupyterLab."),
            path=shown(path),
            most=format_bytes(most_bytes),
        )
    bom = data.startswith(codecs.BOM_UTF8)
    try:
        text = data[len(codecs.BOM_UTF8) if bom else 0 :].decode("utf-8")
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text:
        raise UserError(
            415, mark("“{path}” is no text in UTF-8 and cannot be edited here."), path=shown(path)
        )
    # Only when all of them do: saving must not change lines that nobody touched.
    crlf = text.count("\r\n") == text.count("\n") == text.count("\r") > 0
    return Text(text=text.replace("\r\n", "\n") if crlf else text, version=_version(data), crlf=crlf, bom=bom)


def write_text(
    root: Root, path: str, text: str, *, version: str | None, crlf: bool = False, bom: bool = False
) -> Text:
    """Save a text, whole or not at all.

    Parameters
    ----------
    root, path
        Where.
    text
        Lines end by a line feed alone.
    version
        What was read; ``None`` = there must be nothing of this name yet.
    crlf, bom
        As they were read.

    Raises
    ------
    UserError
        409 with reason ``version`` when it was changed or deleted meanwhile, 409 when a new one is there already.
    """
    if "\0" in text:
        raise UserError(
            400, mark("“{path}” is no text in UTF-8 and cannot be edited here."), path=shown(path)
        )
    try:
        data = (codecs.BOM_UTF8 if bom else b"") + (text.replace("\n", "\r\n") if crlf else text).encode(
            "utf-8"
        )
    except UnicodeEncodeError:
        raise UserError(
            400, mark("“{path}” is no text in UTF-8 and cannot be edited here."), path=shown(path)
        ) from None
    parts = split(path)
    with plain_words(path), root.folder(parts[:-1]) as folder:
        with opened(os.open(".", trees.OPEN_DIRECTORY, dir_fd=folder)) as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if version is not None and _now(root, path) != version:
                raise UserError(
                    409,
                    mark(
                        "“{path}” was changed by somebody else meanwhile. Yours was not saved; compare first."
                    ),
                    path=shown(path),
                    reason="version",
                )
            root.write(path, data, overwrite=version is not None)
    return Text(text=text, version=_version(data), crlf=crlf, bom=bom)


def make_file(root: Root, path: str) -> Entry:
    """A new empty file.

    Raises
    ------
    UserError
        409 when there is something of that name.
    """
    return root.write(path, b"")


def checksum(
    root: Root, path: str, algorithm: str = "sha256", *, step: Callable[[int], None] = lambda _: None
) -> str:
    """The checksum of a file, in hexadecimal.

    Parameters
    ----------
    root, path
        The file.
    algorithm
        One of :data:`ALGORITHMS`.
    step
        Called with the bytes of each piece; may raise to end it.

    Raises
    ------
    UserError
        400 for another algorithm, else as :meth:`Root.open`.
    """
    if algorithm not in ALGORITHMS:
        raise UserError(400, mark("Checksums are taken by {known}."), known=", ".join(ALGORITHMS))
    total = hashlib.new(algorithm, usedforsecurity=False)
    with root.open(path) as file:
        while piece := file.read(PIECE_BYTES):
            total.update(piece)
            step(len(piece))
    return total.hexdigest()


def _now(root: Root, path: str) -> str:
    try:
        with root.open(path) as file:
            return _version(file.read())
    except UserError as error:
        if error.status == 404:
            return ""
        raise


def _version(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:32]
