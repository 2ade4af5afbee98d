"""What goes into the API of files and comes out of it (see :mod:`services.portal.api.models`).

A ``path`` stands as in an address: below the top folder, percent-encoded, ``/`` between the parts. So what a
program named in no encoding can be asked for, too. Names that people give are plain text.
"""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from pydantic import ConfigDict, Field

from services.portal.api.models import File, Incoming, Outgoing

PATHS_MOST = 1000
TEXT_MOST = 2 << 20


class FileList(Outgoing):
    """A page of a folder; ``next`` is the cursor of the next one, ``total`` counts all pages."""

    items: list[File]
    next: str | None = None
    total: int


class Exact(Incoming):
    """What is sent is taken as it is: a space at the end of a name or a line feed at the end of a text counts."""

    model_config = ConfigDict(extra="forbid", strict=True, str_strip_whitespace=False)


class NewEntry(Exact):
    kind: Literal["folder", "file"] = "folder"
    parents: bool = Field(
        default=False, description="Make the folders that lead to it; there already is fine."
    )


class Rename(Exact):
    """Either of the two."""

    to: str | None = Field(
        default=None, min_length=1, max_length=4096, description="The new path, in plain text."
    )
    name: str | None = Field(
        default=None, min_length=1, max_length=1024, description="A new name in the same folder."
    )


class TextFile(Outgoing):
    """A text and what is needed to save it as it was."""

    path: str
    text: str = Field(description="Lines end by a line feed alone.")
    version: str = Field(description="Of what was read; to be handed back when it is saved.")
    crlf: bool = Field(description="Whether lines end as on Windows.")
    bom: bool = Field(description="Whether a mark of UTF-8 stands at the front.")


class SaveText(Exact):
    text: str = Field(max_length=TEXT_MOST)
    version: str | None = Field(
        default=None,
        max_length=64,
        description="What was read; null = there must be nothing of this name yet.",
    )
    crlf: bool = False
    bom: bool = False


class NewFileJob(Exact):
    do: Literal["copy", "move", "delete", "pack", "unpack", "checksum"]
    paths: list[str] = Field(min_length=1, max_length=PATHS_MOST)
    to: str = Field(default="", max_length=16384, description="The folder it goes to; empty = the top.")
    name: str = Field(
        default="",
        max_length=1024,
        description="What it is to be called there (one path, or the archive); empty = as it is.",
    )
    taken: Literal["refuse", "replace", "keep"] = Field(
        default="refuse", description="When a name is taken: refuse, replace files, or keep both."
    )
    form: Literal["zip", "tar", "tar.gz"] = "zip"
    algorithm: Literal["sha256", "sha512", "sha1", "md5"] = "sha256"


class FileProblem(Outgoing):
    path: str
    detail: str
    reason: str = ""
    status: int


class LeftOut(Outgoing):
    name: str
    why: str = Field(description="name, link, kind, twice, deep, unreadable or taken.")


class FileJob(Outgoing):
    """Long work on files, as far as it is."""

    id: str
    do: str
    state: Literal["waiting", "working", "done", "cancelled"]
    paths: int = Field(description="How many it is asked to do.")
    done: int = Field(description="How many of them are over.")
    entries: int = Field(description="Files and folders gone through.")
    size_bytes: int = Field(description="Bytes gone through.")
    total_bytes: int | None = Field(default=None, description="How many there will be, where that is known.")
    made: list[str] = Field(description="What came of each: where it is now, or its checksum.")
    problems: list[FileProblem]
    left_out: list[LeftOut] = Field(description="What was not copied or unpacked; the first hundred.")
    began_at: datetime
    ended_at: datetime | None
