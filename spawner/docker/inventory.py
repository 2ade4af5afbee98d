"""What really exists of the Docker backend, told from outside the hub (design §4).

Every container of the instance by a direct list, never from the watch; besides, networks whose run has no
container, and volumes: a start that was cut off leaves them, or a container that somebody else removed; nothing of
them computes. What carries our labels but is
not called after them was made by somebody else: it is left alone.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from galilean.settings_docker import Docker
from spawner.docker import names, scratch, troubles
from spawner.docker.api import Client, DockerAPI, NotFound
from spawner.docker.nodes import _container_ids, _end, _remove_networks
from spawner.inventory import Sighting

#: Rank of a sighting that is no node: a network or a volume that nodes had.
NO_NODE = -1


class DockerInventory:
    """Lists and removes what exists of one instance; implements :class:`spawner.inventory.Inventory`.

    Parameters
    ----------
    api
        The daemon.
    instance
        Whose objects.
    directory
        Where the clusters' keys are.
    """

    def __init__(self, api: DockerAPI, instance: str, directory: Path) -> None:
        self._api, self._instance, self._directory = api, instance, Path(directory)

    async def inventory(self) -> list[Sighting]:
        """Everything that exists.

        Raises
        ------
        Exception
            When any part of it cannot be read.
        """
        return await self._api.ask(self._look)

    async def remove(self, sighting: Sighting) -> None:
        """Remove what was sighted, and what belongs to its run alone; gone already is success.

        Raises
        ------
        Exception
            When it cannot be sure that it is gone.
        """
        await self._api.ask(lambda client: self._remove(client, sighting))

    async def close(self) -> None:
        """Let go of the connections."""
        self._api.close()

    def _look(self, client: Client) -> list[Sighting]:
        ours = {"label": f"{names.INSTANCE}={self._instance}"}
        networks = client.networks(filters=ours)  # first: what is made meanwhile then has its containers
        volumes = client.volumes(filters=ours).get("Volumes") or []
        found: list[Sighting] = []
        for item in client.containers(all=True, filters=ours):
            try:
                sighting = sighting_of(client.inspect_container(item["Id"]), self._instance)
            except NotFound:
                continue
            if sighting is not None:
                found.append(sighting)
        living = {item.run for item in found}
        left = [
            *(leftover_of(network, self._instance) for network in networks),
            *(scratch_of(volume, self._instance) for volume in volumes),
        ]
        for sighting in left:
            if sighting is not None and sighting.run not in living:
                found.append(sighting)
                living.add(sighting.run)  # one for all that its run left
        return found

    def _remove(self, client: Client, sighting: Sighting) -> None:
        told = names.told(sighting.handle["labels"], self._instance)
        if told is None:
            raise ValueError("not a sighting of this instance")
        if sighting.rank != NO_NODE:
            _end(client, sighting.handle["id"], self._instance)
        if _container_ids(client, self._instance, told.base):
            return  # its network goes with the last of them
        _remove_networks(client, self._instance, told.base)
        scratch.remove_volumes(client, self._instance, told.base)
        shutil.rmtree(self._directory / told.base, ignore_errors=True)


def sighting_of(inspected: dict[str, Any], instance: str) -> Sighting | None:
    """The node that a container is; ``None`` when it is not what it says."""
    item = troubles.container(inspected, instance)
    labels = inspected.get("Config", {}).get("Labels") or {}
    told = names.told(labels, instance)
    if item is None or told is None:
        return None
    state = inspected.get("State", {})
    return Sighting(
        user=told.user,
        server=told.server,
        run=item.run,
        rank=item.rank,
        state="ended" if item.over else "alive",
        started_at=troubles.moment(state.get("StartedAt")) or troubles.moment(inspected.get("Created")),
        finished_at=item.ended_at,
        handle={"id": item.id, "labels": dict(labels)},
    )


def leftover_of(network: dict[str, Any], instance: str) -> Sighting | None:
    """A network without a node; ``None`` when it is not ours."""
    labels = network.get("Labels") or {}
    told = names.told(labels, instance)
    if told is None or network.get("Name") != names.network_name(instance, told.base):
        return None
    return _left(told, labels, network.get("Created"))


def scratch_of(volume: dict[str, Any], instance: str) -> Sighting | None:
    """A volume that nodes had; ``None`` when it is not ours."""
    labels = volume.get("Labels") or {}
    told = names.told(labels, instance)
    return None if told is None else _left(told, labels, volume.get("CreatedAt"))


def _left(told: names.Told, labels: dict[str, str], created: str | None) -> Sighting:
    return Sighting(
        user=told.user,
        server=told.server,
        run=told.run,
        rank=NO_NODE,
        state="ended",
        started_at=troubles.moment(created),
        handle={"labels": dict(labels)},
    )


def docker_inventory(settings: Docker, state: Path) -> DockerInventory:
    """The inventory of the settings' daemon and instance; keys of clusters are below the state directory."""
    return DockerInventory(DockerAPI(settings.url), settings.instance, state / "clusters")
