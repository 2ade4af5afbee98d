"""Whether an archive that is about to be made would be taken by an import: told before its first byte goes out.

The limits are those that :mod:`services.catalog.archives.reading` holds an archive against, one object for both. How
far the bytes of an archive may be packed is held while it is written.
"""

from __future__ import annotations

import stat
from collections.abc import Iterator

from galilean.amounts import format_bytes
from galilean.errors import UserError, mark
from services.catalog.archives.reading import PROJECTS_MOST
from services.catalog.archives.writing import Packed
from services.files import packing
from services.files.unpacking import Limits

#: Looked at in one step: a disk that hangs is seen by the step that does not end.
STEP = 1_000


def check_count(count: int) -> None:
    """Refuse more projects than one archive takes.

    Raises
    ------
    UserError
        400.
    """
    if count > PROJECTS_MOST:
        raise UserError(
            400,
            mark("{count} projects are more than one archive takes: {most}. Export them in parts, by owner."),
            count=count,
            most=PROJECTS_MOST,
        )


def check(one: Packed, limits: Limits | None = None) -> Iterator[None]:
    """Count a project, in steps. Blocks.

    Raises
    ------
    UserError
        413 for one that an import would refuse.
    """
    limits = limits or Limits()
    entries = size_bytes = 0
    with one.root.folder() as top:
        for found in packing.walk(top, (), "", [], read=False):
            entries += 1
            size_bytes += found.status.st_size if stat.S_ISREG(found.status.st_mode) else 0
            if entries > limits.entries:
                raise _too_large(
                    one,
                    mark(
                        "“{project}” holds more than {most} files and folders, the most that an import takes of one "
                        "project. Pack folders of many small files into one file each (in the file manager: Pack), "
                        "delete those folders, and export again."
                    ),
                    most=limits.entries,
                )
            if size_bytes > limits.size_bytes:
                raise _too_large(
                    one,
                    mark(
                        "“{project}” holds more than {most}, the most that an import takes of one project. Keep its "
                        "large files in a data set, or move some of them to another project, and export again."
                    ),
                    most=format_bytes(limits.size_bytes),
                )
            if entries % STEP == 0:
                yield


def _too_large(one: Packed, message: str, *, most: object) -> UserError:
    return UserError(413, message, project=f"{one.meta.owner}/{one.meta.slug}", most=most, reason="import")
