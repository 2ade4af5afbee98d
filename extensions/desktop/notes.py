"""The note beside the desktop: ``~/work/notes.md``, a Markdown file kept with the project (CG-21).

Several tabs and JupyterLab may write it. Whoever writes says what they had read; when that is not what is there,
nothing is written and both texts are left to the person.
"""

from __future__ import annotations

import hashlib
import os
import secrets
from pathlib import Path

from spawner.node.plain_files import plain

NAME = "notes.md"
MOST_BYTES = 2**20


class Changed(Exception):
    """Somebody else wrote meanwhile; nothing was written."""


def path_of(home: Path) -> Path:
    """Where the note is."""
    work = home / "work"
    return (work if work.is_dir() else home) / NAME


def seen(content: bytes | None) -> str:
    """What a text is known by; empty for no file."""
    return "" if content is None else hashlib.sha256(content).hexdigest()


def read(home: Path) -> tuple[str, str]:
    """The text and what it is known by; no file reads as an empty text.

    Raises
    ------
    OSError
        When it cannot be read, or is no plain file.
    ValueError
        When it is no text, or longer than a mebibyte.
    """
    content = _content(path_of(home))
    if content is not None and len(content) > MOST_BYTES:
        raise ValueError("too long")
    return (content or b"").decode("utf-8"), seen(content)


def write(home: Path, text: str, known: str) -> str:
    """Write the text if the file still is what ``known`` says; what the new one is known by.

    Raises
    ------
    Changed
        When it is not.
    OSError, ValueError
        When it cannot be written, or is too long.
    """
    content = text.encode("utf-8")
    if len(content) > MOST_BYTES:
        raise ValueError("too long")
    path = path_of(home)
    present = _content(path)
    if present == content:
        return seen(content)
    if seen(present) != known:
        raise Changed
    part = path.with_name(f".{NAME}.{secrets.token_hex(8)}")
    try:
        part.write_bytes(content)
        if present is not None:
            os.chmod(part, path.stat().st_mode & 0o777)
        os.replace(part, Path(os.path.realpath(path)))
    finally:
        part.unlink(missing_ok=True)
    return seen(content)


def _content(path: Path) -> bytes | None:
    try:
        with open(path, "rb", opener=plain) as file:
            return file.read(MOST_BYTES + 1)
    except FileNotFoundError:
        return None
