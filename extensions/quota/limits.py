"""What a person's roles allow (TI-45): the most generous of each number over all of them.

No role, no limits: a new account can look around, not run. Which role grants what stands in
``galilean.yaml``.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from sqlalchemy import Connection, bindparam, func, select

from galilean.settings import Limits, Settings
from spawner.tables import clusters

__all__ = ["Held", "Limits", "Remaining", "held", "limits_for", "remaining"]


@dataclass(frozen=True, kw_only=True)
class Held:
    """What a person holds at this moment: everything that waits, starts, runs or is being removed."""

    clusters: int = 0
    cpu_millicores: int = 0
    memory_bytes: int = 0
    gpu: int = 0


@dataclass(frozen=True, kw_only=True)
class Remaining:
    """What may still be asked for, never below zero; per node where it says so.

    Attributes
    ----------
    clusters
        Further clusters.
    nodes
        Nodes of one cluster.
    cpu_millicores, memory_bytes, gpu
        Over all nodes of a further cluster together.
    node_cpu_millicores, node_memory_bytes, node_gpu, node_storage_bytes
        Largest amounts of one node.
    """

    clusters: int
    nodes: int
    cpu_millicores: int
    memory_bytes: int
    gpu: int
    node_cpu_millicores: int
    node_memory_bytes: int
    node_gpu: int
    node_storage_bytes: int


def limits_for(settings: Settings, roles: Iterable[str]) -> Limits | None:
    """The limits of somebody with these roles; ``None`` without any role that the settings know."""
    known = [settings.roles[role].limits for role in roles if role in settings.roles]
    if not known:
        return None
    return Limits.model_construct(
        **{name: max(getattr(limits, name) for limits in known) for name in Limits.model_fields}
    )


def remaining(limits: Limits, holds: Held) -> Remaining:
    """What the Run panel may still offer."""
    cpu = max(0, limits.total_cpu - holds.cpu_millicores)
    memory = max(0, limits.total_memory - holds.memory_bytes)
    gpu = max(0, limits.total_gpu - holds.gpu)
    return Remaining(
        clusters=max(0, limits.clusters - holds.clusters),
        nodes=limits.nodes,
        cpu_millicores=cpu,
        memory_bytes=memory,
        gpu=gpu,
        node_cpu_millicores=min(limits.cpu, cpu),
        node_memory_bytes=min(limits.memory, memory),
        node_gpu=min(limits.gpu, gpu),
        node_storage_bytes=limits.storage,
    )


def held(conn: Connection, user: str, *, but_run: str = "") -> Held:
    """What a person holds over all open runs, waiting ones included; ``but_run`` is left out."""
    row = conn.execute(_HELD, {"b_user": user, "b_but": but_run}).one()
    return Held(clusters=int(row[0]), cpu_millicores=int(row[1]), memory_bytes=int(row[2]), gpu=int(row[3]))


_HELD = select(
    func.count(),
    func.coalesce(func.sum(clusters.c.nodes * clusters.c.cpu_millicores), 0),
    func.coalesce(func.sum(clusters.c.nodes * clusters.c.memory_bytes), 0),
    func.coalesce(func.sum(clusters.c.nodes * clusters.c.gpu), 0),
).where(
    clusters.c.user == bindparam("b_user"),
    clusters.c.released_at.is_(None),
    clusters.c.id != bindparam("b_but"),
)
