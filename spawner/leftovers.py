"""Open rows of which the hub knows nothing: found, and brought to their end by the only way there is.

A hub that is told to go in the middle of a stop writes the server out of its own database on its way down,
and the next hub will not ask for it; the hub's database may be lost or restored from yesterday. Then our
row is still open and nodes may still live. So at the hub's start, and with each sweep, every open row
without anything active in the hub is handed to the :meth:`VirtualCluster.stop` of its own name.
"""

from __future__ import annotations

import asyncio
from typing import Any

from galilean.db import Database
from spawner import records
from spawner.cluster import VirtualCluster
from spawner.states import Status


async def finish_leftovers(hub: Any, database: Database) -> list[str]:
    """Release every open run that the hub has nothing active for; their ids.

    To be called inside the hub, after it has looked at its own servers. Runs that wait in line stay.
    """
    left: list[tuple[str, VirtualCluster]] = []
    for run in await database.run_read(records.all_open):
        user = hub.users.get(run.user)
        if run.status == Status.QUEUED or user is None:
            continue
        spawner = user.get_or_create_spawner(run.server, "")
        user.spawners.setdefault(run.server, spawner)
        # A server that the hub has in its database is polled by it; our row may just not be readable yet.
        if isinstance(spawner, VirtualCluster) and not spawner.active and spawner.server is None:
            left.append((run.id, spawner))
    await asyncio.gather(*(spawner.release_leftover() for _, spawner in left))
    return [run_id for run_id, _ in left]
