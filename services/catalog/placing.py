"""Looking at the volumes and choosing one for something new, from wherever something is made (CG-36).

Every disk is looked at in a thread with a time limit of its own: one that hangs is noted as away and costs
nobody more than that. What is seen is noted, so that the administration's page shows it without asking disks.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from sqlalchemy import Connection

from galilean.clock import Clock, utcnow
from galilean.db import Database
from galilean.errors import UserError
from galilean.settings import Settings
from services.catalog import placement, volume_store, volumes
from services.catalog.placement import VolumeRow

LOOK_SECONDS = 5.0


@dataclass(frozen=True, kw_only=True)
class Seen:
    """A volume as its disk was seen just now; ``problem`` in the system's words when it could not be."""

    total_bytes: int | None = None
    free_bytes: int | None = None
    problem: str = ""


def look(path: Path, volume_id: str) -> Seen:
    """Look at a volume's disk. Blocks."""
    try:
        volumes.check_mounted(path, volume_id)
        status = os.statvfs(path)
    except UserError:
        return Seen(problem="its mark is not there: most likely the disk is not mounted")
    except OSError as error:
        return Seen(problem=error.strerror or "error")
    return Seen(total_bytes=status.f_blocks * status.f_frsize, free_bytes=status.f_bavail * status.f_frsize)


class Looker:
    """Looks at volumes without waiting for one that hangs.

    Parameters
    ----------
    db, settings, clock
        Of the site.
    seconds
        How long a disk may take to answer.
    """

    def __init__(
        self, db: Database, settings: Settings, clock: Clock = utcnow, *, seconds: float = LOOK_SECONDS
    ) -> None:
        self._db, self._settings, self._clock, self._seconds = db, settings, clock, seconds
        self._looking: dict[str, tuple[asyncio.Future[Seen], float]] = {}
        # A disk that hangs keeps its thread; no other volume shall wait for it.
        self._threads = ThreadPoolExecutor(32, thread_name_prefix="galilean-volumes")

    async def look(self) -> list[VolumeRow]:
        """All volumes as they are now, noted in the database."""
        now = self._clock()
        rows = await self._db.run(self._registered, now)
        seen = dict(zip(rows, await asyncio.gather(*(self._one(row) for row in rows.values())), strict=True))
        await self._db.run(_note, seen, now)
        return [replace(row, **vars(seen[row.id]), looked_at=now) for row in rows.values()]

    async def place(self, kind: str, *, size_bytes: int = 0) -> str:
        """The volume for something new (:func:`services.catalog.placement.place`).

        Raises
        ------
        UserError
            503, 507.
        """
        return placement.place(await self.look(), kind, size_bytes=size_bytes)

    def _registered(self, conn: Connection, now: datetime) -> dict[str, VolumeRow]:
        volumes.ensure_volumes(conn, self._settings, now)
        return {row.id: row for row in volume_store.all_volumes(conn)}

    async def _one(self, row: VolumeRow) -> Seen:
        gone = row.id not in self._settings.volumes and not row.registered_by
        if gone:
            return Seen(problem="galilean.yaml does not name it any more")
        # A disk that hangs is asked once, and waited for by whoever came first.
        loop = asyncio.get_running_loop()
        asked, since = self._looking.get(row.id, (None, 0.0))
        if asked is None or asked.done():
            path = volumes.directory_of(self._settings, row.id, row.path)
            asked, since = loop.run_in_executor(self._threads, look, path, row.id), loop.time()
            self._looking[row.id] = asked, since
        left = max(0.01, since + self._seconds - loop.time())
        try:
            return await asyncio.wait_for(asyncio.shield(asked), left)
        except TimeoutError:
            return Seen(problem="does not answer")

    def close(self) -> None:
        """Let go of the threads."""
        self._threads.shutdown(wait=False, cancel_futures=True)


def _note(conn: Connection, seen: Mapping[str, Seen], now: datetime) -> None:
    for volume_id, one in seen.items():
        volume_store.looked(conn, volume_id, now=now, **vars(one))
