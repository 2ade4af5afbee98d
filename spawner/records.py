"""The rows of runs and of their nodes: every read and write of ``clusters`` and ``cluster_nodes``.

Plain SQL functions on a connection, each a piece of somebody's transaction; no clock in them, ``now`` is
handed in. Each field has one writer (design §4): the lifecycle writes ``status``, :func:`begin_stop` sets
``target=released`` before anything is removed, whoever wants a cluster to end writes ``stop_asked_at`` by
:func:`ask_stop`, and ``gone_at`` is set only where it is null, so that usage once written stays.

Every step of the lifecycle names the status that it leaves, and tells whether it found it: two hubs, or a
start that was cancelled a moment ago, can never both take a step.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import (
    Connection,
    and_,
    bindparam,
    func,
    insert,
    or_,
    select,
    update,
)
from sqlalchemy.exc import IntegrityError

from galilean.errors import UserError, mark
from spawner.plan import ClusterPlan
from spawner.request import ClusterRequest
from spawner.states import Status, Target, public_word
from spawner.tables import cluster_nodes, clusters

#: Reasons of a run that ended before it ran although nobody asked for the end: the run has *failed*.
FAILURES = frozenset({"start_failed", "not_placed", "hub_lost"})


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
    state: dict[str, Any] | None = None
    note: str = ""

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
    """One node's life: a row of ``cluster_nodes``. Usage counts from ``ready_at`` to ``gone_at``."""

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

    @property
    def run_id(self) -> str:
        return self.cluster_id


@dataclass(frozen=True, kw_only=True)
class NodeStart:
    """What is known of one node once it answers."""

    rank: int
    host: str = ""
    url: str = ""
    placed_at: datetime | None = None


@dataclass(frozen=True, kw_only=True)
class NodeEnd:
    """The end of one node.

    Attributes
    ----------
    at
        The last moment the node lived, by the backend's word; ``None`` = now.
    exit_reason
        ``released``, ``exited 1``, ``killed`` … as the backend tells it.
    """

    at: datetime | None = None
    exit_reason: str = ""


# ----------------------------------------------------------------------------------------------- reading


def get(conn: Connection, run_id: str) -> Run | None:
    """The run of this id."""
    return _one(conn, clusters.c.id == run_id)


def open_run(conn: Connection, user: str, server: str) -> Run | None:
    """The run that is open under this server's name; there is at most one."""
    return _one(conn, _open_of(user, server))


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
    """How many of the same pool and GPU model are before ``run`` in line (before a newcomer: all)."""
    query = select(func.count()).select_from(clusters).where(*_waits(pool, gpu_model))
    if run is not None:
        query = query.where(
            or_(
                clusters.c.queued_at < run.queued_at,
                and_(clusters.c.queued_at == run.queued_at, clusters.c.id < run.id),
            )
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


def open_intervals(conn: Connection) -> list[NodeInterval]:
    """Every interval that is ready and not gone."""
    query = select(cluster_nodes).where(
        cluster_nodes.c.gone_at.is_(None), cluster_nodes.c.ready_at.is_not(None)
    )
    return [NodeInterval(**row) for row in conn.execute(query).mappings()]


# ------------------------------------------------------------------------------------------- the lifecycle


def reserve(
    conn: Connection,
    *,
    run_id: str,
    plan: ClusterPlan,
    request: ClusterRequest,
    backend: str,
    asked_by: str,
    now: datetime,
    queued: bool = False,
) -> None:
    """Insert the row of an admitted plan: ``reserved``, or ``queued`` when it waits for room.

    Raises
    ------
    UserError
        409 when a run of this (user, server) is open already (the unique index, the second lock).
    """
    values = {
        **_of_plan(plan, request),
        "id": run_id,
        "user": plan.user,
        "server": plan.server,
        "backend": backend,
        "asked_by": asked_by,
        "queued_at": now,
        "reserved_at": None if queued else now,
        "status": Status.QUEUED.value if queued else Status.RESERVED.value,
        "target": Target.RUNNING.value,
    }
    try:
        conn.execute(_INSERT_RUN, values)
    except IntegrityError as error:
        raise already_open(plan.project_name) from error


def already_open(project: str) -> UserError:
    """The refusal of a second run under one server's name."""
    return UserError(409, mark("“{project}” is already running or on its way."), project=project)


def take_up(
    conn: Connection,
    run: Run,
    *,
    plan: ClusterPlan,
    request: ClusterRequest,
    now: datetime,
    queued: bool = False,
) -> bool:
    """Take a waiting row for a start, or let it wait on with what is asked for now.

    A request that is another one than before goes to the end of the line.
    """
    values: dict[str, Any] = _of_plan(plan, request)
    if values["request"] != run.request:
        values["queued_at"] = now
    if not queued:
        values |= {"status": Status.RESERVED.value, "reserved_at": now, "reason": "", "explanation": None}
    return _step(conn, run.id, (Status.QUEUED,), target=Target.RUNNING, **values)


def begin_start(conn: Connection, run_id: str, *, names: Sequence[str], now: datetime) -> Run | None:
    """``reserved`` → ``starting``, with a row for each node; ``None`` when somebody wants it released."""
    row = conn.execute(_BEGIN_START, {"b_id": run_id}).mappings().first()
    if row is None:
        return None
    run = _run(row)
    conn.execute(
        _INSERT_NODE,
        [
            {"cluster_id": run_id, "rank": rank, "attempt": run.attempt, "name": name}
            for rank, name in enumerate(names)
        ],
    )
    return run


def mark_placed(conn: Connection, run: Run, nodes: Iterable[NodeStart], *, now: datetime) -> None:
    """All nodes have their place; they do not answer yet."""
    conn.execute(update(clusters).where(clusters.c.id == run.id).values(placed_at=now))
    conn.execute(_PLACE_NODE, [_node_values(run, node, now) for node in nodes])


def begin_running(conn: Connection, run: Run, nodes: Iterable[NodeStart], *, now: datetime) -> bool:
    """``starting`` → ``running``: all nodes answer. Usage counts from here, the same for every node.

    ``False`` when the row is no longer starting, or somebody wants it released: then it never ran.
    """
    starts = list(nodes)
    placed = max((node.placed_at for node in starts if node.placed_at), default=now)
    if conn.execute(_BEGIN_RUNNING, {"b_id": run.id, "b_now": now, "b_placed": placed}).rowcount != 1:
        return False
    conn.execute(_READY_NODE, [_node_values(run, node, now) | {"b_ready": now} for node in starts])
    return True


def begin_stop(
    conn: Connection,
    run_id: str,
    *,
    reason: str,
    now: datetime,
    explanation: Mapping[str, Any] | None = None,
) -> Run | None:
    """Any open status → ``stopping``, target ``released``. ``None`` when the row is closed already.

    What was asked for before (:func:`ask_stop`) or was found out first stays the reason.
    """
    row = (
        conn.execute(
            _BEGIN_STOP,
            {"b_id": run_id, "b_reason": reason[:64], "b_explanation": dict(explanation or {}) or None},
        )
        .mappings()
        .first()
    )
    return None if row is None else _run(row)


def close(conn: Connection, run: Run, *, ends: Mapping[int, NodeEnd], now: datetime) -> bool:
    """``stopping`` → ``released``, or ``failed`` when it never ran and nobody asked for the end.

    Nothing of the run exists any more. Intervals still open end now, or when the backend says they did.
    """
    failed = run.ready_at is None and run.reason in FAILURES
    status = Status.FAILED if failed else Status.RELEASED
    done = _step(conn, run.id, (Status.STOPPING,), status=status.value, released_at=now)
    if done:
        _end_nodes(conn, run, ends, now)
    return done


def back_to_queue(conn: Connection, run: Run, *, ends: Mapping[int, NodeEnd], now: datetime) -> bool:
    """``stopping`` → ``queued``: there was no place for all nodes in time; the run waits for its turn.

    Not when somebody asked for its end meanwhile.
    """
    done = conn.execute(
        update(clusters)
        .where(
            clusters.c.id == run.id,
            clusters.c.status == Status.STOPPING.value,
            clusters.c.stop_asked_at.is_(None),
        )
        .values(
            status=Status.QUEUED.value,
            target=Target.RUNNING.value,
            reserved_at=None,
            placed_at=None,
            state={**(run.state or {}), "attempt": run.attempt + 1},
        )
    )
    if done.rowcount == 1:
        _end_nodes(conn, run, ends, now)
    return done.rowcount == 1


def cancel_waiting(conn: Connection, run_id: str, *, reason: str, asked_by: str, now: datetime) -> bool:
    """Close a run that waits for room: nothing of it exists, so there is nothing to remove."""
    return _step(
        conn,
        run_id,
        (Status.QUEUED,),
        status=Status.RELEASED.value,
        target=Target.RELEASED.value,
        reason=reason[:64],
        stop_asked_at=now,
        stop_asked_by=asked_by,
        released_at=now,
    )


# --------------------------------------------------------------------------- what others write into the rows


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
            _GONE_NODE,
            {"b_run": run_id, "b_rank": rank, "b_attempt": attempt, "b_at": at, "b_why": exit_reason[:128]},
        ).rowcount
        == 1
    )


def sight_nodes(conn: Connection, sightings: Iterable[tuple[str, int, int]], at: datetime) -> None:
    """Note that these nodes (run id, rank, attempt) were seen alive."""
    rows = [
        {"b_run": run_id, "b_rank": rank, "b_attempt": attempt, "b_at": at}
        for run_id, rank, attempt in sightings
    ]
    if rows:
        conn.execute(
            update(cluster_nodes)
            .where(*_NODE_IS, cluster_nodes.c.gone_at.is_(None))
            .values(sighted_at=bindparam("b_at")),
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


# ------------------------------------------------------------------------------------------------- inside


def _run(row: Mapping[Any, Any]) -> Run:
    return Run(**row)


def _one(conn: Connection, condition: Any) -> Run | None:
    row = conn.execute(select(clusters).where(condition)).mappings().first()
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


def _of_plan(plan: ClusterPlan, request: ClusterRequest) -> dict[str, Any]:
    return {
        "project_id": plan.project_id,
        "project_owner": plan.project_owner,
        "project_slug": plan.project_slug,
        "project_name": plan.project_name,
        "environment": plan.environment.name,
        "environment_digest": plan.environment.digest,
        "account": plan.account,
        "pool": plan.pool,
        "nodes": plan.nodes,
        "cpu_millicores": plan.cpu_millicores,
        "memory_bytes": plan.memory_bytes,
        "gpu": plan.gpu,
        "gpu_model": plan.gpu_model,
        "storage_bytes": plan.storage_bytes,
        "on_node_loss": plan.on_node_loss,
        "release_policy": plan.release_policy,
        "request": request.as_dict(),
    }


def _step(
    conn: Connection,
    run_id: str,
    leaves: Collection[Status],
    *,
    target: Target | str | None = None,
    **values: Any,
) -> bool:
    where = [clusters.c.id == run_id, clusters.c.status.in_([status.value for status in leaves])]
    if isinstance(target, Target):
        where.append(clusters.c.target == target.value)
    elif target is not None:
        values["target"] = target
    return conn.execute(update(clusters).where(*where).values(**values)).rowcount == 1


def _node_values(run: Run, node: NodeStart, now: datetime) -> dict[str, Any]:
    return {
        "b_run": run.id,
        "b_rank": node.rank,
        "b_attempt": run.attempt,
        "b_host": node.host,
        "b_url": node.url,
        "b_placed": node.placed_at or now,
    }


def _end_nodes(conn: Connection, run: Run, ends: Mapping[int, NodeEnd], now: datetime) -> None:
    told = [
        {
            "b_run": run.id,
            "b_rank": rank,
            "b_attempt": run.attempt,
            "b_at": end.at or now,
            "b_why": end.exit_reason[:128],
        }
        for rank, end in ends.items()
        if end.at is not None or end.exit_reason
    ]
    if told:
        conn.execute(_GONE_NODE, told)
    conn.execute(_GONE_REST, {"b_run": run.id, "b_at": now})


_NODE_IS = (
    cluster_nodes.c.cluster_id == bindparam("b_run"),
    cluster_nodes.c.rank == bindparam("b_rank"),
    cluster_nodes.c.attempt == bindparam("b_attempt"),
)
_INSERT_RUN = insert(clusters)
_INSERT_NODE = insert(cluster_nodes)
_BEGIN_START = (
    update(clusters)
    .where(
        clusters.c.id == bindparam("b_id"),
        clusters.c.status == Status.RESERVED.value,
        clusters.c.target == Target.RUNNING.value,
        clusters.c.stop_asked_at.is_(None),
    )
    .values(status=Status.STARTING.value)
    .returning(clusters)
)
_BEGIN_RUNNING = (
    update(clusters)
    .where(
        clusters.c.id == bindparam("b_id"),
        clusters.c.status == Status.STARTING.value,
        clusters.c.target == Target.RUNNING.value,
        clusters.c.stop_asked_at.is_(None),
    )
    .values(status=Status.RUNNING.value, ready_at=bindparam("b_now"), placed_at=bindparam("b_placed"))
)
_BEGIN_STOP = (
    update(clusters)
    .where(clusters.c.id == bindparam("b_id"), clusters.c.released_at.is_(None))
    .values(
        status=Status.STOPPING.value,
        target=Target.RELEASED.value,
        reason=func.coalesce(func.nullif(clusters.c.reason, ""), bindparam("b_reason")),
        explanation=func.coalesce(
            clusters.c.explanation, bindparam("b_explanation", type_=clusters.c.explanation.type)
        ),
    )
    .returning(clusters)
)
_PLACE_NODE = (
    update(cluster_nodes)
    .where(*_NODE_IS)
    .values(host=bindparam("b_host"), url=bindparam("b_url"), placed_at=bindparam("b_placed"))
)
_READY_NODE = (
    update(cluster_nodes)
    .where(*_NODE_IS)
    .values(
        host=bindparam("b_host"),
        url=bindparam("b_url"),
        placed_at=bindparam("b_placed"),
        ready_at=bindparam("b_ready"),
    )
)
_GONE_NODE = (
    update(cluster_nodes)
    .where(*_NODE_IS, cluster_nodes.c.gone_at.is_(None))
    .values(gone_at=bindparam("b_at"), exit_reason=bindparam("b_why"))
)
_GONE_REST = (
    update(cluster_nodes)
    .where(cluster_nodes.c.cluster_id == bindparam("b_run"), cluster_nodes.c.gone_at.is_(None))
    .values(gone_at=bindparam("b_at"), exit_reason="released")
)
