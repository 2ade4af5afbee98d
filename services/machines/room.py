"""What admission is told of machines: whether a request can ever be met (CG-33, BX-14).

On Kubernetes the scheduler has the word on room *now*, and a cluster that finds none waits in line. What no
machine could ever hold would wait for ever, so it is refused at once, with the largest machine named. The
table of machines is read beside the admission, never in it, and kept: an answer costs a look into memory.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from galilean.amounts import format_bytes, plain_number
from galilean.db import Database
from galilean.errors import UserError, mark
from galilean.settings import Settings
from services.machines.rules import Gpus, Machine, Never, Pool, Size, never_fits
from services.machines.store import all_machines
from services.machines.the_settings import gpus_in, pools_in
from spawner.plan import ClusterPlan

_TOO_LARGE = mark(
    "No machine of the pool “{pool}” holds a node of {cpu} CPUs and {memory}. The largest, {machine}, has "
    "{all_cpu} CPUs and {all_memory}. Ask for less per node."
)
_TOO_LARGE_GPU = mark(
    "No machine of the pool “{pool}” holds a node of {cpu} CPUs, {memory} and {gpu} GPU card(s). The largest, "
    "{machine}, has {all_cpu} CPUs, {all_memory} and {all_gpu} card(s). Ask for less per node."
)
_NO_CARDS = mark("No machine of the pool “{pool}” has GPU cards of the kind {model}. Choose another pool.")
_NO_CARDS_AT_ALL = mark("No machine of the pool “{pool}” has GPU cards. Choose another pool, or none.")
_TOO_MANY = mark(
    "All machines of the pool “{pool}” together hold {most} nodes of this size when nobody else is there; this "
    "asks for {nodes}. Ask for fewer or smaller nodes."
)


class MachineRoom:
    """The Kubernetes backend's word on room; has the shape of ``extensions.quota.room.RoomCheck``.

    Parameters
    ----------
    settings
        Of pools, GPU models, and whether machines come by themselves.
    machines
        Those known at first; :meth:`learn` renews them.
    """

    def __init__(self, settings: Settings, machines: Iterable[Machine] = ()) -> None:
        self._pools = {pool.name: pool for pool in pools_in(settings)}
        self._gpus = gpus_in(settings)
        self._autoscaled = settings.machines.autoscaled
        self._machines = tuple(machines)

    async def learn(self, database: Database) -> None:
        """Read the table of machines; to be done again and again beside the hub."""
        self._machines = tuple(await database.run_read(all_machines))

    def fits(self, plan: ClusterPlan, taken: Any) -> bool:
        """See ``RoomCheck``: always true, for the scheduler says so, or an error when it can never be.

        Raises
        ------
        UserError
            400 naming the largest machine.
        """
        if not self._autoscaled:
            pool = self._pools.get(plan.pool)
            refusal = refusal_of(size_of(plan), pool, self._machines, self._gpus) if pool else None
            if refusal is not None:
                raise refusal
        return True


def size_of(plan: ClusterPlan) -> Size:
    """The part of a plan that machines are asked for."""
    return Size(
        nodes=plan.nodes,
        cpu_millicores=plan.cpu_millicores,
        memory_bytes=plan.memory_bytes,
        gpu=plan.gpu,
        gpu_model=plan.gpu_model,
    )


def refusal_of(size: Size, pool: Pool, machines: Iterable[Machine], gpus: Gpus) -> UserError | None:
    """Why a request can never be met, in words; ``None`` when it may be."""
    never = never_fits(size, pool, machines, gpus)
    return None if never is None else _in_words(never, size, pool, gpus)


def _in_words(never: Never, size: Size, pool: Pool, gpus: Gpus) -> UserError:
    machine = never.largest
    if machine is None:
        message = _NO_CARDS if size.gpu_model else _NO_CARDS_AT_ALL
        return UserError(400, message, reason="never", pool=pool.shown, model=size.gpu_model)
    if never.most_nodes:
        return UserError(
            400, _TOO_MANY, reason="never", pool=pool.shown, most=never.most_nodes, nodes=size.nodes
        )
    cards = machine.gpu.get(gpus.of(size.gpu_model).resource, 0)
    return UserError(
        400,
        _TOO_LARGE_GPU if size.gpu else _TOO_LARGE,
        reason="never",
        pool=pool.shown,
        machine=machine.name,
        cpu=plain_number(size.cpu_millicores / 1000),
        memory=format_bytes(size.memory_bytes),
        gpu=size.gpu,
        all_cpu=plain_number(machine.cpu_millicores / 1000),
        all_memory=format_bytes(machine.memory_bytes),
        all_gpu=cards,
    )
