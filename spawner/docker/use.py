"""What nodes that are containers really use, from their cgroups (AP-22).

A node is its container, and a container is a cgroup: what the kernel counts there holds against people,
whatever they start, hide or leave behind. Docker is asked which process is the first of each container, once;
the figures are read from ``/sys/fs/cgroup`` directly, both in its first form and in its second. Memory is what
cannot be given back without loss, as the kubelet counts it: without the files that are merely cached.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from galilean.settings_docker import Docker
from spawner.docker import names, troubles
from spawner.docker.api import Client, DockerAPI, NotFound
from spawner.use import NodeUse

PROC = Path("/proc")
CGROUPS = Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class Place:
    """A node, and where the kernel counts it: directories by controller, ``""`` = the unified one."""

    run: str
    rank: int
    directories: dict[str, Path]


class DockerUseMeter:
    """Measures the nodes of one instance; implements :class:`spawner.use.UseMeter`."""

    def __init__(
        self, api: DockerAPI, instance: str, *, clock: Callable[[], datetime] = lambda: datetime.now(UTC)
    ) -> None:
        self._api, self._instance, self._clock = api, instance, clock
        self._places: dict[str, Place] = {}

    async def measure(self) -> list[NodeUse]:
        """All nodes that run.

        Raises
        ------
        Exception
            When Docker does not answer.
        """
        await self._api.ask(self._find)
        return await asyncio.to_thread(self._read, dict(self._places), self._clock())

    async def close(self) -> None:
        """Let go of the connections."""
        self._api.close()

    def _find(self, client: Client) -> None:
        running = {
            item["Id"]: item.get("Labels") or {}
            for item in client.containers(filters={"label": f"{names.INSTANCE}={self._instance}"})
        }
        for gone in self._places.keys() - running.keys():
            del self._places[gone]
        for container_id in running.keys() - self._places.keys():
            try:
                inspected = client.inspect_container(container_id)
            except NotFound:
                continue
            item = troubles.container(inspected, self._instance)
            pid = int(inspected.get("State", {}).get("Pid") or 0)
            if item is None or not pid:
                continue
            try:
                text = (PROC / str(pid) / "cgroup").read_text()
            except OSError:  # it ended meanwhile
                continue
            self._places[container_id] = Place(item.run, item.rank, cgroups_of(text))

    @staticmethod
    def _read(places: dict[str, Place], at: datetime) -> list[NodeUse]:
        found: list[NodeUse] = []
        for place in places.values():
            try:
                found.append(
                    NodeUse(
                        run=place.run,
                        rank=place.rank,
                        cpu_us_total=cpu_us(place.directories),
                        memory_bytes=memory_bytes(place.directories),
                        measured_at=at,
                    )
                )
            except OSError:  # it ended meanwhile
                continue
        return found


def cgroups_of(text: str, root: Path = CGROUPS) -> dict[str, Path]:
    """Where a process is counted, by ``/proc/<pid>/cgroup``: a directory for each controller."""
    found: dict[str, Path] = {}
    for line in text.splitlines():
        _, controllers, path = line.split(":", 2)
        below = path.lstrip("/")
        if not controllers:
            found[""] = root / below
            continue
        for controller in controllers.split(","):
            together, alone = root / controllers, root / controller
            found[controller] = (together if together.is_dir() else alone) / below
    return found


def cpu_us(directories: dict[str, Path]) -> int:
    """Processor time since the container began, microseconds.

    Raises
    ------
    OSError
        When the cgroup is gone.
    """
    first = directories.get("cpuacct")
    if first is not None:
        return int((first / "cpuacct.usage").read_text()) // 1000
    return _figures(directories[""] / "cpu.stat")["usage_usec"]


def memory_bytes(directories: dict[str, Path]) -> int:
    """Memory in use without files that are merely cached.

    Raises
    ------
    OSError
        When the cgroup is gone.
    """
    first = directories.get("memory")
    if first is not None:
        used = int((first / "memory.usage_in_bytes").read_text())
        return max(0, used - _figures(first / "memory.stat").get("total_inactive_file", 0))
    used = int((directories[""] / "memory.current").read_text())
    return max(0, used - _figures(directories[""] / "memory.stat").get("inactive_file", 0))


def _figures(path: Path) -> dict[str, int]:
    return {name: int(value) for name, value in (line.split() for line in path.read_text().splitlines())}


def docker_use_meter(settings: Docker) -> DockerUseMeter:
    """The meter of the settings' daemon and instance."""
    return DockerUseMeter(DockerAPI(settings.url), settings.instance)
