"""What a person's roles allow (TI-45): the most generous of each number over all of them.

No role, no limits: a new account can look around, not run. Which role grants what stands in
``galilean.yaml``.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, and_, bindparam, case, func, not_, or_, select

from galilean.settings import Limits, Settings
from spawner.plan import ClusterPlan
from spawner.records import PLACED_AGAIN
from spawner.states import Status
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


@dataclass(frozen=True, kw_only=True)
class Sums:
    """All that admission compares, from one look at the open rows.

    Attributes
    ----------
    held
        By the person, besides a run of the same server.
    taken
        Of the machines by everybody: all that starts, runs or is being removed.
    waiting
        How many wait in line for the same pool and GPU model, or are being placed once more after they had to.
    mine
        Id of the run that is open under the same server's name, or empty.
    """

    held: Held
    taken: Held
    waiting: int
    mine: str


def held(conn: Connection, user: str) -> Held:
    """What a person holds over all open runs, waiting ones included."""
    return _held(conn.execute(_HELD, {"b_user": user, "b_server": ""}).one())


def sums_of(conn: Connection, plan: ClusterPlan) -> Sums:
    """Everything that is open, summed for the admission of ``plan``: one statement, a few hundred rows."""
    row: Any = conn.execute(
        _SUMS,
        {
            "b_user": plan.user,
            "b_server": plan.server,
            "b_pool": plan.pool,
            "b_gpu_model": plan.gpu_model,
        },
    ).one()
    return Sums(held=_held(row[0:4]), taken=_held(row[4:8]), waiting=int(row[8]), mine=row[9] or "")


def _held(row: Any) -> Held:
    return Held(clusters=int(row[0]), cpu_millicores=int(row[1]), memory_bytes=int(row[2]), gpu=int(row[3]))


def _amounts(which: ColumnElement[bool]) -> list[ColumnElement[Any]]:
    def total(amount: Any) -> ColumnElement[Any]:
        return func.coalesce(func.sum(case((which, amount), else_=0)), 0)

    return [
        total(1),
        total(clusters.c.nodes * clusters.c.cpu_millicores),
        total(clusters.c.nodes * clusters.c.memory_bytes),
        total(clusters.c.nodes * clusters.c.gpu),
    ]


_OPEN = clusters.c.released_at.is_(None)
_THEIRS = and_(clusters.c.user == bindparam("b_user"), clusters.c.server != bindparam("b_server"))
_WAITS = clusters.c.status == Status.QUEUED.value
_IN_LINE = and_(
    or_(and_(_WAITS, clusters.c.stop_asked_at.is_(None)), PLACED_AGAIN),
    clusters.c.pool == bindparam("b_pool"),
    clusters.c.gpu_model == bindparam("b_gpu_model"),
)
_MINE = and_(clusters.c.user == bindparam("b_user"), clusters.c.server == bindparam("b_server"))
_HELD = select(*_amounts(_THEIRS)).where(_OPEN, clusters.c.user == bindparam("b_user"))
_SUMS = select(
    *_amounts(_THEIRS),
    *_amounts(not_(_WAITS)),
    func.coalesce(func.sum(case((_IN_LINE, 1), else_=0)), 0),
    func.max(case((_MINE, clusters.c.id))),
).where(_OPEN)
