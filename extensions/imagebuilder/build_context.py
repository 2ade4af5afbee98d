"""The files that a build gets to see, from the archive that the portal packed to the one that the daemon takes.

Both are hostile: somebody's project was packed while they could change it. So every member is looked at again: a name
that leaves the tree and a link that leads out of it are left out and told, and our own two names are ours, whatever the
project calls its files. The Dockerfile that is built is the one that was checked (:mod:`…recipes`), not the project's.
"""

from __future__ import annotations

import io
import posixpath
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from galilean.errors import UserError, mark

OURS, IGNORED = ".galilean-build", ".dockerignore"
MEMBERS_MOST = 100_000


def inside(name: str) -> bool:
    """Whether a relative path stays in its tree."""
    normal = posixpath.normpath(name)
    return not name.startswith("/") and normal != ".." and not normal.startswith("../")


def leads_inside(name: str, target: str) -> bool:
    """Whether a link leads to a place in its tree."""
    return not target.startswith("/") and inside(posixpath.join(posixpath.dirname(name), target))


def _good(member: tarfile.TarInfo) -> bool:
    name = posixpath.normpath(member.name)
    if not inside(name) or name.partition("/")[0] in (OURS, IGNORED):
        return False
    if member.issym():
        return leads_inside(name, member.linkname)
    return member.isfile() or member.isdir()


def _members(source: Path | None, most_bytes: int) -> Iterator[tuple[tarfile.TarInfo, BinaryIO | None, bool]]:
    if source is None:
        return
    size = 0
    with tarfile.open(source, "r:") as archive:
        for count, member in enumerate(archive):
            size += member.size
            if size > most_bytes or count >= MEMBERS_MOST:
                raise too_large(most_bytes)
            yield member, archive.extractfile(member) if member.isfile() else None, _good(member)  # type: ignore[misc]


def rewrite(source: Path | None, out: BinaryIO, dockerfile: str, *, most_bytes: int) -> list[str]:
    """Write the archive for the daemon; the names that were left out.

    Raises
    ------
    UserError
        413 when there is more in it than a build may see.
    """
    left_out: list[str] = []
    with tarfile.open(
        fileobj=out, mode="w", format=tarfile.PAX_FORMAT, encoding="utf-8", errors="surrogateescape"
    ) as made:
        for member, content, good in _members(source, most_bytes):
            if not good:
                left_out.append(member.name)
                continue
            kept = tarfile.TarInfo(posixpath.normpath(member.name))
            kept.type, kept.size, kept.linkname = member.type, member.size, member.linkname
            kept.mode, kept.mtime = member.mode & 0o777, member.mtime
            made.addfile(kept, content)
        # The daemon takes both away again before the first step, so that no COPY brings them in.
        for name, text in ((OURS, dockerfile), (IGNORED, f"{OURS}\n{IGNORED}\n")):
            body = text.encode()
            ours = tarfile.TarInfo(name)
            ours.size, ours.mode = len(body), 0o644
            made.addfile(ours, io.BytesIO(body))
    return left_out


def too_large(most_bytes: int) -> UserError:
    """For more files than a build may see."""
    return UserError(
        413,
        mark(
            "The project's files are more than the {most} MB that a build may see. Name what it does not need in "
            ".dockerignore, or keep data in a data set."
        ),
        reason="files-large",
        most=most_bytes >> 20,
    )
