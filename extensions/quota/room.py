"""Is there room on the machine? The process backend's answer: its CPUs and memory, times an overcommit.

A plan that could never fit is refused at once; one that does not fit *now* waits in line.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Protocol

from extensions.quota.limits import Held
from galilean.amounts import GIB, format_bytes, plain_number
from galilean.errors import UserError, mark
from galilean.settings import Process
from spawner.plan import ClusterPlan


class RoomCheck(Protocol):
    """A backend's word on room; asked inside the admission's transaction, so no I/O."""

    def fits(self, plan: ClusterPlan, taken: Held) -> bool:
        """Whether the plan fits besides ``taken``: everything that starts, runs or is being removed.

        Raises
        ------
        UserError
            400 when it could never fit.
        """
        ...


@dataclass(frozen=True)
class HostRoom:
    """Room on one machine.

    Attributes
    ----------
    cpu_millicores, memory_bytes
        What may be held at once over all people.
    """

    cpu_millicores: int
    memory_bytes: int

    @classmethod
    def of_this_machine(cls, settings: Process) -> HostRoom:
        """The CPUs and memory of this machine, times the overcommit of the settings."""
        cpus = len(os.sched_getaffinity(0))
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        return cls(
            cpu_millicores=int(cpus * 1000 * settings.cpu_overcommit),
            memory_bytes=max(GIB, int(memory * settings.memory_overcommit)),
        )

    def fits(self, plan: ClusterPlan, taken: Held) -> bool:
        """See :class:`RoomCheck`."""
        cpu, memory = plan.nodes * plan.cpu_millicores, plan.nodes * plan.memory_bytes
        if cpu > self.cpu_millicores or memory > self.memory_bytes:
            raise UserError(
                400,
                mark(
                    "This asks for {cpu} CPUs and {memory} in all; the whole platform has {all_cpu} CPUs and "
                    "{all_memory}. Ask for less."
                ),
                cpu=plain_number(cpu / 1000),
                memory=format_bytes(memory),
                all_cpu=plain_number(self.cpu_millicores / 1000),
                all_memory=format_bytes(self.memory_bytes),
            )
        return (
            taken.cpu_millicores + cpu <= self.cpu_millicores
            and taken.memory_bytes + memory <= self.memory_bytes
        )
