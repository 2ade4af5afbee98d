"""Claims of disks that were deleted: the hub takes them away, for it is the part that may make them (TI-10).

The row says which, and stays until Kubernetes took the word: whoever is killed in between begins again, and a claim that is
gone already is success. Kubernetes itself waits until no pod has one.
"""

from __future__ import annotations

from galilean.clock import Clock
from galilean.db import Database
from services.catalog import disk_store

SECONDS = 15.0


async def purge(database: Database, namespace: str, clock: Clock) -> None:
    """Delete what is to be deleted; where there is nothing, Kubernetes is not asked.

    Raises
    ------
    Exception
        When Kubernetes does not answer or refuses; what was deleted until then is noted.
    """
    ids = await database.run_read(disk_store.to_purge)
    if not ids:
        return
    from kubespawner.clients import load_config

    from spawner.kubernetes import disks
    from spawner.kubernetes.api import KubeAPI

    load_config()
    api = KubeAPI(namespace)
    try:
        for disk_id in ids:
            await disks.remove(api, disk_id)
            await database.run(disk_store.purged, disk_id, now=clock())
    finally:
        await api.close()
