"""What nodes really use, next to what is booked (AP-22, CR-7).

Each half minute the backend is asked from outside the nodes, so that nobody can say something else. What is new
since the last sample is added to the node's row (``node_use``) and to that of its run and day (``run_use``),
which closes into ``usage_daily`` with the run. A sample belongs to the day in which it was taken.

:func:`advance` is pure. Processor time is a counter that may begin again; memory and GPU are as they were at the
sample, for the time since the one before. A first sample, one after a gap of more than two minutes, and one by a
clock that was set back only say where to count on from: what nobody measured is not guessed. Below which part of
its processors a node is idle stands in the terms of its run; a node with a card that nobody measures is not.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta, tzinfo
from typing import Any

from sqlalchemy import Connection, and_, func, select
from sqlalchemy.dialects import postgresql, sqlite

from services.metering.cells import USE, Calendar
from services.metering.tables import run_use
from spawner.tables import cluster_nodes, clusters, node_use
from spawner.use import NodeUse

#: Of a node's processors, where the terms of its run say nothing else.
IDLE_PERMILLE = 50
LONGEST = timedelta(minutes=2)
SECOND_US = 1_000_000


@dataclass(frozen=True, kw_only=True)
class Metered:
    """A node that is metered, and what its row says.

    Attributes
    ----------
    idle_permille
        Under which part of its processors it counts as idle, as the terms of its run say.
    measured_at, counter_us, used_at
        Of the last sample; ``None`` = there was none.
    """

    run: str
    rank: int
    attempt: int
    cpu_millicores: int
    gpu: int
    idle_permille: int = IDLE_PERMILLE
    measured_at: datetime | None = None
    counter_us: int = 0
    used_at: datetime | None = None


@dataclass(frozen=True, kw_only=True)
class Step:
    """What one sample adds (units as in :mod:`services.metering.tables`), and what it says now."""

    measured_us: int = 0
    cpu_used_us: int = 0
    memory_kib_s: int = 0
    gpu_used_us: int = 0
    idle_us: int = 0
    gpu_idle_us: int = 0
    cpu_permille: int = 0
    counter_us: int = 0
    used_at: datetime


def advance(node: Metered, use: NodeUse) -> Step:
    """What a sample adds to what was measured before.

    Parameters
    ----------
    node
        What it has, and its last sample.
    use
        The sample.
    """
    counter = node.counter_us if use.cpu_us_total is None else use.cpu_us_total
    length = timedelta(0) if node.measured_at is None else use.measured_at - node.measured_at
    if not timedelta(0) < length <= LONGEST or use.cpu_us_total is None:
        return Step(counter_us=counter, used_at=max(filter(None, (node.used_at, use.measured_at))))
    elapsed = length // timedelta(microseconds=1)
    cpu = max(use.cpu_us_total - node.counter_us, 0)  # less than before: it began again
    gpu = use.gpu.permille if use.gpu is not None else 0
    cards = use.gpu.cards if use.gpu is not None else 0
    # Cards that nobody measures may be at work: then the processors alone prove nothing.
    unseen = cards < node.gpu
    idle = cpu * 1000 * 1000 < elapsed * node.cpu_millicores * node.idle_permille and not gpu and not unseen
    return Step(
        measured_us=elapsed,
        cpu_used_us=cpu,
        memory_kib_s=use.memory_bytes * elapsed // (1024 * SECOND_US),
        gpu_used_us=elapsed * gpu // 1000,
        idle_us=elapsed if idle else 0,
        gpu_idle_us=elapsed * cards if not gpu else 0,
        cpu_permille=min(cpu * 1000 // elapsed, 2**31 - 1),
        counter_us=counter,
        used_at=use.measured_at if not idle or node.used_at is None else node.used_at,
    )


def metered(conn: Connection) -> list[Metered]:
    """Every node that is ready and not gone, with its last sample."""
    n, u = cluster_nodes.c, node_use.c
    query = (
        select(
            n.cluster_id, n.rank, n.attempt, clusters.c.cpu_millicores, clusters.c.gpu,
            clusters.c.release_terms, u.measured_at, func.coalesce(u.counter_us, 0), u.used_at,
        )
        .join(clusters, clusters.c.id == n.cluster_id)
        .outerjoin(node_use, and_(u.cluster_id == n.cluster_id, u.rank == n.rank, u.attempt == n.attempt))
        .where(n.gone_at.is_(None), n.ready_at.is_not(None))
    )  # fmt: skip
    return [
        Metered(
            run=run, rank=rank, attempt=attempt, cpu_millicores=cpu, gpu=gpu, idle_permille=_idle_permille(terms),
            measured_at=measured, counter_us=counter, used_at=used,
        )
        for run, rank, attempt, cpu, gpu, terms, measured, counter, used in conn.execute(query)
    ]  # fmt: skip


def _idle_permille(terms: Any) -> int:
    try:
        return int(float(terms["idle_percent"]) * 10)
    except (KeyError, TypeError, ValueError):  # a run without terms, or of another version
        return IDLE_PERMILLE


def note(conn: Connection, samples: Iterable[NodeUse], *, zone: tzinfo) -> int:
    """Write samples down; how many were of nodes that are metered."""
    newest: dict[tuple[str, int], Metered] = {}
    for node in metered(conn):
        key = (node.run, node.rank)
        if key not in newest or newest[key].attempt < node.attempt:
            newest[key] = node
    calendar = Calendar(zone)
    rows: list[dict[str, Any]] = []
    days: dict[tuple[str, int], list[int]] = defaultdict(lambda: [0] * len(USE))
    for use in samples:
        node = newest.get((use.run, use.rank))
        if node is None:
            continue
        step = advance(node, use)
        adds = [getattr(step, name) for name in USE]
        if step.measured_us:
            total = days[node.run, calendar.today(use.measured_at)]
            days[node.run, calendar.today(use.measured_at)] = [
                a + b for a, b in zip(total, adds, strict=True)
            ]
        rows.append(
            {
                "cluster_id": node.run,
                "rank": node.rank,
                "attempt": node.attempt,
                "measured_at": use.measured_at,
                "cpu_permille": step.cpu_permille,
                "memory_bytes": use.memory_bytes,
                "gpu_permille": None if use.gpu is None else use.gpu.permille,
                "gpu_memory_bytes": None if use.gpu is None else use.gpu.memory_bytes,
                "counter_us": step.counter_us,
                "used_at": step.used_at,
                **{name: getattr(step, name) for name in ADDED},
            }
        )
    _add(conn, node_use, rows, ("cluster_id", "rank", "attempt"), ADDED)
    _add(
        conn,
        run_use,
        [
            {"cluster_id": run, "day": day, **dict(zip(USE, total, strict=True))}
            for (run, day), total in days.items()
        ],
        ("cluster_id", "day"),
        USE,
    )
    return len(rows)


def _add(
    conn: Connection, table: Any, rows: list[dict[str, Any]], key: tuple[str, ...], added: tuple[str, ...]
) -> None:
    """Make rows, or add to those there are; what is not in ``added`` is set."""
    if not rows:
        return
    dialect = sqlite if conn.dialect.name == "sqlite" else postgresql
    query = dialect.insert(table)
    changes = {
        name: table.c[name] + query.excluded[name] if name in added else query.excluded[name]
        for name in rows[0]
        if name not in key
    }
    conn.execute(query.on_conflict_do_update(index_elements=list(key), set_=changes), rows)


#: Of ``node_use``: what is added up there.
ADDED = tuple(name for name in USE if name != "measured_us")


@dataclass(frozen=True, kw_only=True)
class Held:
    """What is held and used now in one pool: millicores, bytes, cards; used as last measured."""

    pool: str
    clusters: int
    nodes: int
    cpu_millicores: int
    memory_bytes: int
    gpu: int
    cpu_used_millicores: int
    memory_used_bytes: int
    gpu_used_permille: int


def held_by_pool(conn: Connection) -> list[Held]:
    """What living nodes hold and use, by pool."""
    n, c, u = cluster_nodes.c, clusters.c, node_use.c
    query = (
        select(
            c.pool,
            func.count(c.id.distinct()),
            func.count(),
            func.sum(c.cpu_millicores),
            func.sum(c.memory_bytes),
            func.sum(c.gpu),
            func.coalesce(func.sum(u.cpu_permille), 0),
            func.coalesce(func.sum(u.memory_bytes), 0),
            func.coalesce(func.sum(u.gpu_permille), 0),
        )
        .join(clusters, c.id == n.cluster_id)
        .outerjoin(node_use, and_(u.cluster_id == n.cluster_id, u.rank == n.rank, u.attempt == n.attempt))
        .where(n.gone_at.is_(None), n.ready_at.is_not(None))
        .group_by(c.pool)
    )
    names = [name for name in Held.__dataclass_fields__ if name != "pool"]
    return [
        Held(pool=pool, **dict(zip(names, map(int, values), strict=True)))
        for pool, *values in conn.execute(query)
    ]
