"""Paths inside a tree: what one may look like, how one is shown, how one is written in an address.

A path is relative, its parts joined by ``/``, as the operating system's bytes decoded by :func:`os.fsdecode`:
names that are not UTF-8 carry surrogates and come back as the same bytes. Nothing is normalised, because a
composed and a decomposed ``é`` are two files on Linux; but nothing new is made whose name reads the same as one
that is there (:func:`services.files.trees.lookalike`). Letter cases are told apart, as on the disk. What *exists* may have any name a node gave it, so
that it can be listed, read and deleted; what is *new* must have a name that people can read and type.
"""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Sequence
from urllib.parse import quote, unquote_to_bytes

from galilean.errors import UserError, mark

#: Holds uploads under way and what is being deleted; on the same file system as the tree, never listed.
HIDDEN = ".galilean-upload"
NAME_BYTES = 255
PATH_BYTES = 4096
DEPTH = 100

# Marks that make a name read other than it is (photo‮gpj.exe); right-to-left scripts need none of them.
_BIDI = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
# What os.fsdecode makes of a byte that is not UTF-8, and what stands for it in an address.
_STOOD_FOR = {0x10FF00 + byte: 0xDC00 + byte for byte in range(0x80, 0x100)}
_STAND_INS: dict[int, int | str] = {lone: stand_in for stand_in, lone in _STOOD_FOR.items()}
# A name that has such a character itself is written by its bytes.
_STAND_INS |= {own: "".join(chr(0x10FF00 + byte) for byte in chr(own).encode()) for own in _STOOD_FOR}
_DIGITS = re.compile(r"(\d+)")


def split(path: str) -> tuple[str, ...]:
    """The parts of a path to something that may exist; the top itself is ``()``.

    Raises
    ------
    UserError
        400 for an absolute path, ``..``, an empty part, NUL, or a path that is too long; 404 for our own
        hidden folder.
    """
    if path == "":
        return ()
    parts = tuple(path.removesuffix("/").split("/"))
    if any(part in ("", ".", "..") or "\0" in part for part in parts):
        raise UserError(
            400,
            mark("“{path}” is not a path here: it must be relative, without “..”."),
            path=shown(path),
        )
    try:
        size = len(os.fsencode(path))
        longest = max(len(os.fsencode(part)) for part in parts)
    except UnicodeEncodeError:  # a surrogate that stands for no byte
        raise _unreadable(path) from None
    if longest > NAME_BYTES or size > PATH_BYTES or len(parts) > DEPTH:
        raise UserError(
            400,
            mark("The path “{path}” is too long: at most {bytes} bytes a name and {depth} folders deep."),
            path=shown(path),
            bytes=NAME_BYTES,
            depth=DEPTH,
        )
    if is_hidden(parts[0]):
        raise not_found(path)
    return parts


def split_new(path: str) -> tuple[str, ...]:
    """The parts of a path to something that is to be made, at least one.

    Only the last name is held to the rules for new names, because the folders may be there already.

    Raises
    ------
    UserError
        400 as :func:`split`, and for a name that :func:`check_name` refuses.
    """
    parts = split(path)
    if not parts:
        raise UserError(400, mark("Give it a name."))
    check_name(parts[-1])
    return parts


def check_name(name: str) -> str:
    """``name`` when a new file or folder may be called so: any script, emoji too.

    Raises
    ------
    UserError
        400 for a blank name, control characters, marks that turn the reading direction, text that is not
        UTF-8, more than 255 bytes, or our own hidden folder's name.
    """
    if name.strip() == "":
        raise UserError(400, mark("Give it a name."))
    if name in (".", "..") or is_hidden(name) or "/" in name:
        raise UserError(400, mark("“{path}” cannot be a name here. Choose another."), path=shown(name))
    if any(unicodedata.category(char) in ("Cc", "Cs", "Zl", "Zp") for char in name) or _BIDI & set(name):
        raise _unreadable(name)
    if len(name.encode()) > NAME_BYTES:
        raise UserError(
            400,
            mark("The name “{path}” has {length} bytes; at most {most} fit."),
            path=shown(name),
            length=len(name.encode()),
            most=NAME_BYTES,
        )
    return name


def is_hidden(name: str) -> bool:
    """Whether a name means our hidden folder, also on a disk that does not tell letter cases apart."""
    return unicodedata.normalize("NFKC", name).casefold() == HIDDEN


def _unreadable(path: str) -> UserError:
    return UserError(
        400, mark("The name “{path}” has characters that cannot be seen. Choose another."), path=shown(path)
    )


def not_found(path: str) -> UserError:
    """What is said of something that is not there."""
    return UserError(404, mark("There is no “{path}” here (any more)."), path=shown(path))


def shown(path: str) -> str:
    """A path as text for people: what cannot be shown becomes ``�``, the middle of a long one ``…``."""
    text = "".join(
        "\ufffd" if char in _BIDI or unicodedata.category(char) in ("Cc", "Cs", "Zl", "Zp") else char
        for char in path
    )
    return text if len(text) <= 120 else f"{text[:70]}…{text[-45:]}"


def address(path: str) -> str:
    """A path as it stands in a URL: percent-encoded UTF-8, slashes kept.

    A byte that is not UTF-8 is written as a character of the last private plane: the proxy refuses addresses
    that are not UTF-8, and the file could be neither read nor deleted.
    """
    return quote(path.translate(_STAND_INS))


def from_address(text: str) -> str:
    """A path from a URL's still percent-encoded part; the reverse of :func:`address`."""
    path = os.fsdecode(unquote_to_bytes(text)).translate(_STOOD_FOR)
    return os.fsdecode(os.fsencode(path))


def join(parts: Sequence[str]) -> str:
    """A path from its parts."""
    return "/".join(parts)


def folded(name: str) -> str:
    """A name without the differences that nobody means who looks for one."""
    return name.lower() if name.isascii() else unicodedata.normalize("NFKC", name).casefold()


def natural(name: str) -> str:
    """A sort key that people expect: letter case does not matter, ``run9`` comes before ``run10``.

    One text, because ten thousand of them are compared four times as fast as tuples: a number begins with NUL, which
    is in no name, and how many digits it has; the name itself decides between those that read the same.
    """
    return f"{_DIGITS.sub(_number, folded(name))}\0\0{name}"


def _number(match: re.Match[str]) -> str:
    digits = str(int(match[0]))
    return f"\0{chr(len(digits))}{digits}"
