"""Versions of data sets being made: copied one after the other by whoever does the chores.

As with forks (:mod:`services.portal.copying`) the row says what is to be done, so a portal that ends in the middle
changes nothing: the copy is begun again from nothing. Who deletes the version while it is made cancels it; nothing of
it is left then. The same when files changed meanwhile, which its owner is told.
"""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

from galilean import notices
from galilean.errors import UserError, mark
from galilean.file_threads import beside
from galilean.web.context import Portal
from services.catalog import datasets, versions, volumes
from services.catalog.datasets import Dataset
from services.files import copies
from services.files.progress import Cancelled, Progress
from services.files.root import Root
from services.portal.api.projects import catalogue
from services.portal.binned import remove
from services.portal.copying import told_until_done
from services.portal.storage import room_of

log = logging.getLogger("galilean.portal.versions")


async def go_on(portal: Portal) -> None:
    """Copy what waits until nothing does."""
    while ids := await portal.db.run_read(versions.waiting, 1):
        await make(portal, ids[0])


async def make(portal: Portal, version_id: str) -> None:
    """Copy the files of one version; what goes wrong is told to its owner, and the version is gone."""
    version = await portal.db.run_read(datasets.by_id, version_id, deleted=True)
    if version is None or version.busy != "copying":
        return
    problem = ""
    try:
        if version.deleted_at is not None:  # cancelled while nobody did the chores
            raise Cancelled
        await _copy(portal, version)
        return
    except Cancelled:
        pass
    except UserError as error:
        problem = str(error)
    except OSError as error:
        problem = error.strerror or "error"
    await _discard(portal, version)
    if problem:
        log.warning("version %s of %s: %s", version.id, version.version_of, problem)
        await portal.db.run(
            notices.tell,
            version.owner,
            now=portal.clock(),
            kind="version",
            text=mark("“{name}” could not be made: {problem} Nothing of it is left."),
            address="datasets",
            name=version.name,
            problem=problem,
        )


async def _copy(portal: Portal, version: Dataset) -> None:
    shelf = catalogue(portal)
    origin = await portal.db.run_read(datasets.by_id, version.version_of)
    if origin is None:
        raise UserError(409, mark("The data set was deleted meanwhile."))
    source, lane = await shelf.files(origin), beside(version.volume_id)
    target = await shelf.files(version)
    if (await shelf.run_on(lane, target.list, hidden=True, limit=1)).entries:  # of a copy that was broken off
        await _clear(portal, version, version.path(portal.settings))
        target = await shelf.files(version)
    room = await room_of(portal, version.owner, without=version.id)
    progress = Progress((lambda: room) if room is not None else (lambda: None))
    work = asyncio.ensure_future(shelf.run_on(lane, _copy_all, source, target, progress))
    await told_until_done(
        work,
        progress,
        lambda: portal.db.run(versions.tell, version.id, progress.entries, progress.size_bytes),
    )
    counted = await shelf.run_on(lane, target.usage)
    if not await portal.db.run_serialised(
        "admission",
        versions.arrived,
        version,
        files=counted.files,
        size_bytes=counted.size_bytes,
        now=portal.clock(),
    ):
        raise Cancelled


def _copy_all(source: Root, target: Root, progress: Progress) -> None:
    done = copies.copy_into(source, target, progress=progress)
    if done.left_out:  # what is not whole cannot be what a result was made from
        raise UserError(
            409,
            mark("{count} things of it cannot be copied, such as {example}."),
            count=len(done.left_out),
            example=done.left_out[0],
        )


async def _clear(portal: Portal, version: Dataset, path: Path) -> None:
    volume = version.volume(portal.settings)
    await catalogue(portal).run_on(beside(version.volume_id), remove, volume, version.volume_id, path)


async def _discard(portal: Portal, version: Dataset) -> None:
    """Nothing of it is left: neither where it was, nor in the bin."""
    await _clear(portal, version, version.path(portal.settings))
    await _clear(portal, version, version.volume(portal.settings) / volumes.BIN / version.id)
    await portal.db.run(versions.gone, version.id, portal.clock())
