"""Is there room on the machine? The word of the backends of one machine: its CPUs and memory, times an overcommit.

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
from galilean.settings_docker import Docker
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
    node_cpu_millicores, node_memory_bytes
        What one node may have at most, where that is enforced: no more than the machine has. 0 = no bound.
    gpu
        Cards; ``None`` = not counted.
    clusters
        How many there may be at once; 0 = any number.
    """

    cpu_millicores: int
    memory_bytes: int
    node_cpu_millicores: int = 0
    node_memory_bytes: int = 0
    gpu: int | None = None
    clusters: int = 0

    @classmethod
    def of_this_machine(cls, settings: Process) -> HostRoom:
        """The CPUs and memory of this machine, times the overcommit of the settings."""
        cpu_millicores, memory_bytes = _this_machine()
        return cls(
            cpu_millicores=int(cpu_millicores * settings.cpu_overcommit),
            memory_bytes=max(GIB, int(memory_bytes * settings.memory_overcommit)),
        )

    @classmethod
    def of_containers(cls, settings: Docker, *, clusters: int) -> HostRoom:
        """The same for containers, whose limits hold: Docker makes none that is larger than the machine."""
        cpu_millicores, memory_bytes = _this_machine()
        memory_bytes = max(GIB, int(memory_bytes * settings.memory_overcommit))
        return cls(
            cpu_millicores=int(cpu_millicores * settings.cpu_overcommit),
            memory_bytes=memory_bytes,
            node_cpu_millicores=cpu_millicores,
            node_memory_bytes=memory_bytes,
            gpu=len(settings.gpus),
            clusters=clusters,
        )

    def fits(self, plan: ClusterPlan, taken: Held) -> bool:
        """See :class:`RoomCheck`."""
        self._check_node(plan)
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
        gpu = plan.nodes * plan.gpu
        if self.gpu is not None and gpu > self.gpu:
            raise UserError(
                400,
                mark("This asks for {gpu} GPU card(s) in all; this machine has {all_gpu}. Ask for less."),
                gpu=gpu,
                all_gpu=self.gpu,
            )
        if self.clusters and taken.clusters >= self.clusters:
            return False
        if self.gpu is not None and taken.gpu + gpu > self.gpu:
            return False
        return (
            taken.cpu_millicores + cpu <= self.cpu_millicores
            and taken.memory_bytes + memory <= self.memory_bytes
        )

    def _check_node(self, plan: ClusterPlan) -> None:
        most_cpu, most_memory = self.node_cpu_millicores, self.node_memory_bytes
        if (most_cpu and plan.cpu_millicores > most_cpu) or (most_memory and plan.memory_bytes > most_memory):
            raise UserError(
                400,
                mark(
                    "No node can have {cpu} CPUs and {memory}: this machine has {all_cpu} CPUs and {all_memory} "
                    "for nodes. Ask for less per node."
                ),
                cpu=plain_number(plan.cpu_millicores / 1000),
                memory=format_bytes(plan.memory_bytes),
                all_cpu=plain_number(most_cpu / 1000),
                all_memory=format_bytes(most_memory),
            )


def _this_machine() -> tuple[int, int]:
    """CPUs in milli-cores and memory in bytes."""
    return len(os.sched_getaffinity(0)) * 1000, os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
