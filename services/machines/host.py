"""The one machine of the process and the Docker backend: this one, with the CPUs and the memory that it really has."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from datetime import datetime

from galilean.clock import Clock, utcnow
from galilean.settings import Process, Settings
from galilean.settings_docker import Docker
from services.machines.rules import Machine
from services.machines.world import Ticket, View, cannot


def overcommit_of(settings: Settings) -> Process | Docker:
    """How far the backend of one machine gives it away more than once."""
    return settings.docker if settings.backend == "docker" else settings.process


def this_machine(settings: Process | Docker, now: datetime) -> Machine:
    """The machine that this process runs on.

    Parameters
    ----------
    settings
        Of the backend: how far CPUs and memory may be given away more than once.
    now
        UTC.
    """
    cpu_millicores = len(os.sched_getaffinity(0)) * 1000
    memory_bytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    system = os.uname()
    return Machine(
        name=system.nodename,  # what nodes of this backend call their host
        control_plane=True,
        cpu_millicores=int(cpu_millicores * settings.cpu_overcommit),
        memory_bytes=int(memory_bytes * settings.memory_overcommit),
        cpu_capacity_millicores=cpu_millicores,
        memory_capacity_bytes=memory_bytes,
        version=f"{system.sysname} {system.release}",
        heartbeat_at=now,
        seen_at=now,
    )


class ThisMachine:
    """Implements :class:`services.machines.world.World` for the machine that everything runs on.

    Parameters
    ----------
    settings
        Of the backend: how far CPUs and memory may be given away more than once.
    clock
        The time.
    """

    def __init__(self, settings: Process | Docker, clock: Clock = utcnow) -> None:
        self._settings = settings
        self._clock = clock

    async def look(self, watched: Collection[str] = ()) -> View:
        """What the operating system says."""
        return View(machines=(this_machine(self._settings, self._clock()),))

    async def cordon(self, name: str, cordoned: bool) -> None:
        raise cannot()

    async def label(self, name: str, labels: Mapping[str, str]) -> None:
        raise cannot()

    async def reserve(self, name: str, reserved: bool) -> None:
        raise cannot()

    async def move_others(self, name: str, *, spare: Collection[str] = ()) -> None:
        raise cannot()

    async def remove(self, name: str) -> None:
        raise cannot()

    async def ticket(self, name: str, *, now: datetime, minutes: int) -> Ticket:
        raise cannot()

    async def close(self) -> None:
        """Nothing to let go of."""
