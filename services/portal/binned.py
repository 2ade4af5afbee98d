"""The bin, emptied: what has lain in it for its time goes for good, files first, then the note that they are gone.

A file that cannot be deleted is tried again the next time; what is broken off between the two is, too.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path

from galilean.file_threads import beside
from galilean.web.context import Portal
from services.catalog import lifecycle, volume_store, volumes
from services.catalog.access import Kind
from services.files import trees

log = logging.getLogger("galilean.portal.bin")


async def empty(portal: Portal) -> None:
    """Delete what is over. What cannot be deleted keeps nothing else in the bin."""
    now, stays = portal.clock(), set[str]()
    while overs := await portal.db.run_read(lifecycle.to_purge, now=now, without=stays):
        for over in overs:
            if not await purge(portal, over.kind, over.id, over.volume_id):
                stays.add(over.id)


async def purge(portal: Portal, kind: Kind, item_id: str, volume_id: str) -> bool:
    """Delete the files of one thing that lies in the bin, and note it; whether they are gone."""
    known = {row.id: row for row in await portal.db.run_read(volume_store.all_volumes)}
    row = known.get(volume_id)
    if row is None:
        log.warning("volume %s is not there: files of %s %s stay", volume_id, kind, item_id)
        return False
    path = Path(row.path) / volumes.BIN / item_id
    try:
        await portal.files.ask(volume_id, volumes.check_mounted, Path(row.path), volume_id)
        await portal.files.run(beside(volume_id), remove, Path(row.path), volume_id, path)
    except Exception as error:
        log.warning("files of %s %s stay in the bin: %s", kind, item_id, error)
        return False
    await portal.db.run(lifecycle.purged, kind, item_id, now=portal.clock())
    return True


def remove(volume: Path, volume_id: str, path: Path) -> None:
    """Delete a tree of a volume that is there; a tree that is not is no fault. No link is followed."""
    volumes.check_mounted(volume, volume_id)
    try:
        with trees.opened(os.open(path.parent, trees.OPEN_DIRECTORY)) as folder:
            if trees.lstat(folder, path.name) is not None:
                trees.take_away(folder, folder, path.name)
    except FileNotFoundError:
        pass
