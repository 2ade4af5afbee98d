"""The rows of runs and of their nodes: what is read from them, and what others than the lifecycle write.

Plain SQL functions on a connection, each a piece of somebody's transaction; no clock in them, ``now`` is
handed in. Each field has one writer (design §4): the lifecycle writes ``status`` and ``target``
(:mod:`spawner.steps`), whoever wants a cluster to end writes ``stop_asked_at`` by :func:`ask_stop`, and
``gone_at`` is set only where it is null, so that usage once written stays.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import (
    Connection,
    and_,
    bindparam,
    case,
    func,
    or_,
    select,
    update,
)

from spawner.states import Status, Target, public_word
from spawner.tables import cluster_nodes, clusters


@dataclass(frozen=True, kw_only=True)
class Run:
    """One life of a cluster: a row of ``clusters``. Amounts are per node; times are aware UTC."""

    id: str
    user: str
    server: str
    project_id: str
    project_owner: str
    project_slug: str
    project_name: str
    environment: str
    environment_digest: str = ""
    account: str | None = None
    pool: str = "default"
    backend: str
    nodes: int
    cpu_millicores: int
    memory_bytes: int
    gpu: int = 0
    gpu_model: str = ""
    storage_bytes: int = 0
    on_node_loss: str = "release"
    release_policy: str
    request: dict[str, Any]
    status: str
    target: str = "running"
    reason: str = ""
    explanation: dict[str, Any] | None = None
    asked_by: str
    queued_at: datetime
    reserved_at: datetime | None = None
    placed_at: datetime | None = None
    ready_at: datetime | None = None
    proxy_seen_at: datetime | None = None
    node_seen_at: datetime | None = None
    stop_asked_at: datetime | None = None
    stop_asked_by: str = ""
    released_at: datetime | None = None
    warned_at: datetime | None = None
    extended_until: datetime | None = None
    release_terms: dict[str, Any] | None = None
    release_at: datetime | None = None
    release_why: str = ""
    role: str = ""
    rolled_up: bool = False
    state: dict[str, Any] | None = None
    note: str = ""
    work_read_only: bool | None = None
    datasets: list[dict[str, Any]] | None = None

    @property
    def word(self) -> str:
        """The public word of the run's state: waiting, starting, running, releasing, released, failed."""
        return public_word(self.status, self.target)

    @property
    def is_open(self) -> bool:
        return self.released_at is None

    @property
    def attempt(self) -> int:
        """Which placing of the run this is: 1, then one more each time it went back into the queue."""
        return int((self.state or {}).get("attempt", 1))

    def together(self, field: str) -> int:
        """An amount of the whole cluster: ``together("memory_bytes")`` is nodes × memory per node."""
        return self.nodes * int(getattr(self, field))


@dataclass(frozen=True, kw_only=True)
class NodeInterval:
    """One node's life: a row of ``cluster_nodes``. Usage counts from ``ready_at`` to ``gone_at``.

    One with ``asked_at`` was asked for while the run went on (:mod:`spawner.renewal`).
    """

    cluster_id: str
    rank: int
    attempt: int = 1
    name: str
    host: str = ""
    url: str = ""
    placed_at: datetime | None = None
    ready_at: datetime | None = None
    gone_at: datetime | None = None
    sighted_at: datetime | None = None
    exit_reason: str = ""
    asked_at: datetime | None = None
    asked_as: str = ""
    asked_by: str = ""
    explanation: dict[str, Any] | None = None

    @property
    def run_id(self) -> str:
        return self.cluster_id

    @property
    def coming_back(self) -> bool:
        """Whether somebody asked for it and it does not answer yet."""
        return self.asked_at is not None and self.ready_at is None and self.gone_at is None


def present(nodes: Iterable[NodeInterval]) -> list[NodeInterval]:
    """The newest attempt of each rank, by rank."""
    newest: dict[int, NodeInterval] = {}
    for node in nodes:
        known = newest.get(node.rank)
        if known is None or node.attempt > known.attempt:
            newest[node.rank] = node
    return [newest[rank] for rank in sorted(newest)]


# ----------------------------------------------------------------------------------------------- reading


def get(conn: Connection, run_id: str) -> Run | None:
    """The run of this id."""
    return _one(conn, _BY_ID, {"b_id": run_id})


def by_ids(conn: Connection, run_ids: Sequence[str]) -> list[Run]:
    """The runs of these ids, in no order."""
    found: list[Run] = []
    for start in range(0, len(run_ids), 500):
        query = select(clusters).where(clusters.c.id.in_(run_ids[start : start + 500]))
        found += [_run(row) for row in conn.execute(query).mappings()]
    return found


def open_run(conn: Connection, user: str, server: str) -> Run | None:
    """The run that is open under this server's name; there is at most one."""
    return _one(conn, _BY_SERVER, {"b_user": user, "b_server": server})


def list_runs(
    conn: Connection,
    *,
    user: str | None = None,
    project_id: str | None = None,
    open_only: bool = True,
    limit: int = 50,
    before: str | None = None,
) -> list[Run]:
    """Runs, newest first; ``before`` is the id of the last run of the page before (ids sort by time)."""
    query = select(clusters).order_by(clusters.c.id.desc()).limit(limit)
    if user is not None:
        query = query.where(clusters.c.user == user)
    if project_id is not None:
        query = query.where(clusters.c.project_id == project_id)
    if open_only:
        query = query.where(clusters.c.released_at.is_(None))
    if before is not None:
        query = query.where(clusters.c.id < before)
    return [_run(row) for row in conn.execute(query).mappings()]


def all_open(conn: Connection) -> list[Run]:
    """Every open run, oldest first; what the sweeper and the metering compare with the world."""
    query = select(clusters).where(clusters.c.released_at.is_(None)).order_by(clusters.c.id)
    return [_run(row) for row in conn.execute(query).mappings()]


def waiting(conn: Connection, *, pool: str | None = None, gpu_model: str | None = None) -> list[Run]:
    """Runs that wait for room, in the order of their turn."""
    query = select(clusters).where(*_waits(pool, gpu_model)).order_by(clusters.c.queued_at, clusters.c.id)
    return [_run(row) for row in conn.execute(query).mappings()]


def waits_longer(conn: Connection, *, pool: str, gpu_model: str, run: Run | None = None) -> int:
    """How many of the same pool and GPU model are before ``run`` in line (before a newcomer: all).

    Who is being placed once more (:data:`PLACED_AGAIN`) is before everybody.
    """
    waits = and_(*_waits(None, None))
    if run is not None:
        waits &= or_(
            clusters.c.queued_at < run.queued_at,
            and_(clusters.c.queued_at == run.queued_at, clusters.c.id < run.id),
        )
    query = select(func.count()).where(
        or_(waits, PLACED_AGAIN), clusters.c.pool == pool, clusters.c.gpu_model == gpu_model
    )
    return int(conn.execute(query).scalar_one())


def count_open(conn: Connection, *, user: str | None = None) -> int:
    """How many runs are open, of one person or of all."""
    query = select(func.count()).select_from(clusters).where(clusters.c.released_at.is_(None))
    if user is not None:
        query = query.where(clusters.c.user == user)
    return int(conn.execute(query).scalar_one())


def intervals(conn: Connection, run_ids: Iterable[str]) -> dict[str, list[NodeInterval]]:
    """Node intervals of these runs, by run id, in the order of rank and attempt."""
    ids = list(run_ids)
    found: dict[str, list[NodeInterval]] = {run_id: [] for run_id in ids}
    for start in range(0, len(ids), 500):
        query = (
            select(cluster_nodes)
            .where(cluster_nodes.c.cluster_id.in_(ids[start : start + 500]))
            .order_by(cluster_nodes.c.cluster_id, cluster_nodes.c.rank, cluster_nodes.c.attempt)
        )
        for row in conn.execute(query).mappings():
            found[row["cluster_id"]].append(NodeInterval(**row))
    return found


def open_cluster(conn: Connection, user: str, server: str) -> tuple[Run, list[NodeInterval]] | None:
    """The open run of a server with the present attempt of each of its nodes, by rank."""
    run = open_run(conn, user, server)
    if run is None:
        return None
    return run, present(intervals(conn, [run.id])[run.id])


def open_intervals(conn: Connection) -> list[NodeInterval]:
    """Every interval that is ready and not gone."""
    query = select(cluster_nodes).where(
        cluster_nodes.c.gone_at.is_(None), cluster_nodes.c.ready_at.is_not(None)
    )
    return [NodeInterval(**row) for row in conn.execute(query).mappings()]


# --------------------------------------------------------------------------- what others write into the rows


def cancel_waiting(conn: Connection, run_id: str, *, reason: str, asked_by: str, now: datetime) -> bool:
    """Close a run that waits for room: nothing of it exists, so there is nothing to remove."""
    done = conn.execute(
        update(clusters)
        .where(clusters.c.id == run_id, clusters.c.status == Status.QUEUED.value)
        .values(
            status=Status.RELEASED.value,
            target=Target.RELEASED.value,
            reason=reason[:64],
            stop_asked_at=now,
            stop_asked_by=asked_by,
            released_at=now,
        )
    )
    return done.rowcount == 1


def ask_stop(
    conn: Connection,
    run_id: str,
    *,
    reason: str,
    asked_by: str,
    now: datetime,
    explanation: Mapping[str, Any] | None = None,
) -> bool:
    """Note that somebody wants the run to end, and why; only while it is open and nobody did before.

    The nodes are removed by the hub (DELETE on the server), which finds the reason here.
    """
    done = conn.execute(
        update(clusters)
        .where(clusters.c.id == run_id, clusters.c.released_at.is_(None), clusters.c.stop_asked_at.is_(None))
        .values(
            stop_asked_at=now,
            stop_asked_by=asked_by,
            reason=reason[:64],
            explanation=dict(explanation) if explanation else None,
        )
    )
    return done.rowcount == 1


def mark_node_gone(
    conn: Connection, run_id: str, rank: int, attempt: int, *, at: datetime, exit_reason: str
) -> bool:
    """End a node's interval, only where it has no end yet; never before it was ready."""
    return (
        conn.execute(
            GONE_NODE,
            {"b_run": run_id, "b_rank": rank, "b_attempt": attempt, "b_at": at, "b_why": exit_reason[:128]},
        ).rowcount
        == 1
    )


def sight_nodes(conn: Connection, sightings: Iterable[tuple[str, int, int]], at: datetime) -> None:
    """Note that these nodes (run id, rank, attempt) were seen alive; only forward."""
    rows = [
        {"b_run": run_id, "b_rank": rank, "b_attempt": attempt, "b_at": at}
        for run_id, rank, attempt in sightings
    ]
    if rows:
        conn.execute(
            update(cluster_nodes)
            .where(
                *NODE_IS,
                cluster_nodes.c.gone_at.is_(None),
                or_(cluster_nodes.c.sighted_at.is_(None), cluster_nodes.c.sighted_at < _AT),
            )
            .values(sighted_at=_AT),
            rows,
        )


def saw(
    conn: Connection,
    user: str,
    server: str,
    *,
    proxy_at: datetime | None = None,
    node_at: datetime | None = None,
) -> None:
    """Move presence of the open run forward, never back (design §6)."""
    for column, at in ((clusters.c.proxy_seen_at, proxy_at), (clusters.c.node_seen_at, node_at)):
        if at is not None:
            conn.execute(
                update(clusters)
                .where(_open_of(user, server), or_(column.is_(None), column < at))
                .values({column: at})
            )


def saw_at_proxy(conn: Connection, seen: Iterable[tuple[str, str, datetime]]) -> None:
    """Presence by the proxy's word for many (user, server, time) at once; only forward."""
    rows = [{"b_user": user, "b_server": server, "b_at": at} for user, server, at in seen]
    if rows:
        conn.execute(_SAW_AT_PROXY, rows)


# ------------------------------------------------------------------------------------------------- inside


def _run(row: Mapping[Any, Any]) -> Run:
    return Run(**row)


def _one(conn: Connection, query: Any, values: dict[str, Any]) -> Run | None:
    row = conn.execute(query, values).mappings().first()
    return None if row is None else _run(row)


def _open_of(user: str, server: str) -> Any:
    return and_(clusters.c.user == user, clusters.c.server == server, clusters.c.released_at.is_(None))


def _waits(pool: str | None, gpu_model: str | None) -> list[Any]:
    wanted = [
        clusters.c.released_at.is_(None),
        clusters.c.status == Status.QUEUED.value,
        clusters.c.stop_asked_at.is_(None),
    ]
    if pool is not None:
        wanted.append(clusters.c.pool == pool)
    if gpu_model is not None:
        wanted.append(clusters.c.gpu_model == gpu_model)
    return wanted


#: There was no place for all nodes of this run before, and it looks for one again. Two that do so at once
#: would take the places of one another, and for ever; so the next in line begins when this one has its own.
PLACED_AGAIN = and_(
    clusters.c.released_at.is_(None),
    clusters.c.status.in_((Status.RESERVED.value, Status.STARTING.value)),
    clusters.c.placed_at.is_(None),
    clusters.c.state["attempt"].as_integer() > 1,
)
_BY_ID = select(clusters).where(clusters.c.id == bindparam("b_id"))
_BY_SERVER = select(clusters).where(
    clusters.c.user == bindparam("b_user"),
    clusters.c.server == bindparam("b_server"),
    clusters.c.released_at.is_(None),
)
NODE_IS = (
    cluster_nodes.c.cluster_id == bindparam("b_run"),
    cluster_nodes.c.rank == bindparam("b_rank"),
    cluster_nodes.c.attempt == bindparam("b_attempt"),
)
_AT = bindparam("b_at", type_=cluster_nodes.c.gone_at.type)
GONE_NODE = (
    update(cluster_nodes)
    .where(*NODE_IS, cluster_nodes.c.gone_at.is_(None))
    .values(
        gone_at=case((cluster_nodes.c.ready_at > _AT, cluster_nodes.c.ready_at), else_=_AT),
        exit_reason=bindparam("b_why"),
    )
)
_SEEN_AT = bindparam("b_at", type_=clusters.c.proxy_seen_at.type)
_SAW_AT_PROXY = (
    update(clusters)
    .where(
        clusters.c.user == bindparam("b_user"),
        clusters.c.server == bindparam("b_server"),
        clusters.c.released_at.is_(None),
        or_(clusters.c.proxy_seen_at.is_(None), clusters.c.proxy_seen_at < _SEEN_AT),
    )
    .values(proxy_seen_at=_SEEN_AT)
)
