"""The rows of nodes that are made anew: asked for, begun, answering, or not come back (:mod:`spawner.renewal`).

Plain SQL functions on a connection, each a piece of somebody's transaction. Whoever asks calls :func:`ask`; the
rest is the lifecycle's. An attempt that was refused before anything was ended never was a node: its row goes, and
the node that goes on says why.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, delete, insert, select, update
from sqlalchemy.exc import IntegrityError

from galilean.errors import UserError, mark
from spawner import records, renewal
from spawner.records import NodeInterval, present
from spawner.shared_ports import forget_guarded, note_guarded
from spawner.states import Status, Target
from spawner.steps import NodeEnd, end_rows
from spawner.tables import cluster_nodes, clusters

_C = cluster_nodes.c


def ask(conn: Connection, run_id: str, rank: int, how: str, *, by: str, now: datetime) -> NodeInterval:
    """Ask for a node to be made anew; its row.

    Raises
    ------
    UserError
        404 for a run or a node that is not there, 400 or 409 with the reason when it may not be now
        (:func:`spawner.renewal.refusal`).
    """
    # Locked: a stop that begins meanwhile comes before or after, never in between.
    conn.execute(select(clusters.c.id).where(clusters.c.id == run_id).with_for_update())
    run = records.get(conn, run_id)
    if run is None:
        raise UserError(404, mark("There is no such cluster."))
    nodes = records.intervals(conn, [run_id])[run_id]
    refused = renewal.refusal(run, nodes, rank, how)
    if refused is not None:
        raise refused
    last = next(node for node in present(nodes) if node.rank == rank)
    row = NodeInterval(
        cluster_id=run_id,
        rank=rank,
        attempt=last.attempt + 1,
        name=last.name,
        asked_at=now,
        asked_as=how,
        asked_by=by,
    )
    values = {
        name: getattr(row, name)
        for name in ("cluster_id", "rank", "attempt", "name", "asked_at", "asked_as", "asked_by")
    }
    try:
        conn.execute(insert(cluster_nodes).values(values))
    except IntegrityError as error:
        raise UserError(
            409, mark("Node {rank} is being made anew already."), reason="under_way", rank=rank
        ) from error
    conn.execute(update(cluster_nodes).where(*_of(last)).values(explanation=None))
    return row


def asked(conn: Connection, *, run_id: str | None = None) -> list[tuple[str, str, NodeInterval]]:
    """User, server and row of every node that waits to be made anew, of runs that go on."""
    query = (
        select(clusters.c.user, clusters.c.server, *cluster_nodes.c)
        .join(clusters, clusters.c.id == _C.cluster_id)
        .where(
            _C.asked_at.is_not(None),
            _C.ready_at.is_(None),
            _C.gone_at.is_(None),
            clusters.c.status == Status.RUNNING.value,
            clusters.c.target == Target.RUNNING.value,
        )
        .order_by(_C.asked_at)
    )
    if run_id is not None:
        query = query.where(_C.cluster_id == run_id)
    found = []
    for row in conn.execute(query).mappings():
        values = dict(row)
        found.append((values.pop("user"), values.pop("server"), NodeInterval(**values)))
    return found


def begun(conn: Connection, node: NodeInterval) -> bool:
    """Whether the attempt before it was ended for it already, or it had its place: there is nothing to go back to."""
    if node.placed_at is not None:
        return True
    ended = conn.execute(
        select(_C.gone_at).where(
            _C.cluster_id == node.cluster_id, _C.rank == node.rank, _C.attempt == node.attempt - 1
        )
    ).scalar()
    return ended is not None and node.asked_at is not None and ended >= node.asked_at


def refuse(conn: Connection, node: NodeInterval, explanation: Mapping[str, Any]) -> None:
    """It cannot be made anew, and nothing was ended: it goes on as it is, and says why."""
    conn.execute(delete(cluster_nodes).where(*_of(node), _C.ready_at.is_(None), _C.placed_at.is_(None)))
    before = (_C.cluster_id == node.cluster_id, _C.rank == node.rank, _C.attempt == node.attempt - 1)
    conn.execute(update(cluster_nodes).where(*before).values(explanation=dict(explanation)))


def begin(conn: Connection, node: NodeInterval, end: NodeEnd, *, now: datetime) -> bool:
    """The attempt before it has ended; ``False`` when the run is no longer to go on."""
    wanted = select(clusters.c.id).where(
        clusters.c.id == node.cluster_id,
        clusters.c.status == Status.RUNNING.value,
        clusters.c.target == Target.RUNNING.value,
    )
    end_rows(conn, node.cluster_id, {node.rank: end}, now, ready_only=True)
    forget_guarded(conn, node.cluster_id, node.rank)
    return conn.execute(wanted).first() is not None


def placed(conn: Connection, node: NodeInterval, *, host: str, now: datetime) -> None:
    """It has its place and is being started."""
    conn.execute(
        update(cluster_nodes).where(*_of(node), _C.placed_at.is_(None)).values(host=host, placed_at=now)
    )


def ready(conn: Connection, node: NodeInterval, *, url: str, host: str, now: datetime) -> bool:
    """It answers, and is counted from where the one before it ended; ``False`` when it has an end already."""
    ended = conn.execute(
        select(_C.gone_at).where(
            _C.cluster_id == node.cluster_id,
            _C.rank == node.rank,
            _C.attempt < node.attempt,
            _C.gone_at.is_not(None),
        )
    ).scalars()
    since = renewal.held_from(node.asked_at or now, list(ended), now)
    values = {"url": url, "host": host, "ready_at": since}
    done = conn.execute(update(cluster_nodes).where(*_of(node), _C.gone_at.is_(None)).values(values))
    return done.rowcount == 1


def fail(conn: Connection, node: NodeInterval, explanation: Mapping[str, Any], *, now: datetime) -> None:
    """It did not come back; the others go on, also with the ports that are shared: nobody is led to this one."""
    failed = conn.execute(
        update(cluster_nodes)
        .where(*_of(node), _C.ready_at.is_(None), _C.gone_at.is_(None))
        .values(gone_at=now, exit_reason="did not come back", explanation=dict(explanation))
    )
    if failed.rowcount:
        note_guarded(conn, node.cluster_id, node.rank)


def _of(node: NodeInterval) -> tuple[Any, ...]:
    return (_C.cluster_id == node.cluster_id, _C.rank == node.rank, _C.attempt == node.attempt)
