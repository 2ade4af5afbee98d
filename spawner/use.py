"""What nodes really use, next to what was booked (AP-22, BX-3, SC-17).

Measured from *outside* the node, by a process that people's programs cannot reach: what a node says of itself
(:mod:`spawner.node.busy`) may keep a cluster a little longer, and never makes it look used. Each backend has a
meter beside its inventory. A meter only looks; who calls it again and again sums up (``services.metering``).

``cpu_us_total`` counts since the node began, as Linux and the kubelet do, and goes on while nobody looks. It
begins anew only with another attempt of the node, hence a smaller value than before means: add nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Protocol

from sqlalchemy import Connection, case, func, insert, literal, select, update
from sqlalchemy.exc import IntegrityError

from spawner.records import Run
from spawner.tables import cluster_nodes, node_use

BUSY = ("kernels", "queued", "terminals", "processes")


@dataclass(frozen=True, kw_only=True)
class GpuUse:
    """The cards of one node.

    Attributes
    ----------
    cards
        How many were measured.
    permille
        Utilisation, summed up over the cards: 1000 = one card at work all the time.
    memory_bytes
        In use, summed up over the cards.
    """

    cards: int
    permille: int
    memory_bytes: int


@dataclass(frozen=True, kw_only=True)
class NodeUse:
    """One node at one moment.

    Attributes
    ----------
    run, rank
        Which node.
    cpu_us_total
        Processor time since the node began, microseconds; ``None`` = not measured this time.
    memory_bytes
        In use now.
    gpu
        Of its cards; ``None`` = it has none, or nobody measures them.
    measured_at
        UTC.
    """

    run: str
    rank: int
    cpu_us_total: int | None
    memory_bytes: int
    gpu: GpuUse | None = None
    measured_at: datetime


class UseMeter(Protocol):
    """Measures the nodes of one backend."""

    async def measure(self) -> Sequence[NodeUse]:
        """All nodes that could be measured; one that is missing was not.

        Raises
        ------
        Exception
            When nothing can be measured at all.
        """
        ...

    async def close(self) -> None:
        """Let go of connections."""
        ...


def tell_busy(conn: Connection, run: Run, rank: int, busy: Mapping[str, int], now: datetime) -> None:
    """Keep a node's own word on what runs in it: ``kernels``, ``queued``, ``terminals``, ``processes``.

    It says at once that nothing runs any more, and only now and then that something still does: work that it
    told of last went on until now.
    """
    said = {name: int(busy.get(name, 0)) for name in BUSY}
    values: dict[str, Any] = {"busy": said, "told_at": now}
    if any(said.values()):
        values["busy_at"] = now
    else:
        just_now = literal(now - timedelta(microseconds=1), node_use.c.busy_at.type)
        worked = node_use.c.busy_at == node_use.c.told_at
        values["busy_at"] = case((worked, just_now), else_=node_use.c.busy_at)
    key = {"cluster_id": run.id, "rank": rank, "attempt": _attempt(conn, run, rank)}
    row = [node_use.c[name] == value for name, value in key.items()]
    if conn.execute(update(node_use).where(*row).values(values)).rowcount:
        return
    try:
        with conn.begin_nested():
            conn.execute(
                insert(node_use).values(**key, **{**values, "busy_at": now if any(said.values()) else None})
            )
    except IntegrityError:  # somebody measured it just now
        conn.execute(update(node_use).where(*row).values(values))


def use_of(conn: Connection, run: Run, rank: int) -> Mapping[str, Any] | None:
    """The row of a node as last measured and told; ``None`` when there is none yet."""
    found = conn.execute(
        select(node_use).where(
            node_use.c.cluster_id == run.id,
            node_use.c.rank == rank,
            node_use.c.attempt == _attempt(conn, run, rank),
        )
    ).mappings()
    row = found.first()
    return None if row is None else {str(name): value for name, value in row.items()}


def _attempt(conn: Connection, run: Run, rank: int) -> int:
    """The newest attempt of a node that ever answered; before that, the run's."""
    n = cluster_nodes.c
    query = select(func.max(n.attempt)).where(n.cluster_id == run.id, n.rank == rank, n.ready_at.is_not(None))
    return conn.execute(query).scalar() or run.attempt
