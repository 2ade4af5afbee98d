"""The steps of a run's life, as the lifecycle (and only it) writes them into the rows.

Every step names the status that it leaves, and tells whether it found it: two hubs, or a start that was
cancelled a moment ago and the stop that follows, can never both take a step. Which steps there are stands
in :data:`spawner.states.STEPS`.

A start costs two transactions after admission, which begins it (placed, running), a stop two (begin, close); the
statements are built once, because a hub that starts thirty clusters a second feels each millisecond.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, and_, bindparam, case, func, insert, or_, update
from sqlalchemy.exc import IntegrityError

from galilean.db import together
from galilean.errors import UserError, mark
from spawner import licences
from spawner.doors import to_keep
from spawner.plan import ClusterPlan
from spawner.records import NODE_IS, Run
from spawner.request import ClusterRequest
from spawner.shared_ports import GUARDED
from spawner.states import Status, Target
from spawner.tables import cluster_nodes, clusters

#: Reasons of an end that nobody asked for: a run that ends so before it ran has *failed*.
FAILURES = frozenset({"start_failed", "not_placed", "hub_lost", "node_lost"})
#: What an interval says whose end nobody knows.
UNSEEN = "counted until last seen"


@dataclass(frozen=True, kw_only=True)
class NodeStart:
    """What is known of one node once it answers.

    ``url`` is scheme, host and port without a path, as the proxy and the hub reach it.
    """

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
        The last moment the node lived, by the backend's word; ``None`` = nobody knows: the node counts until
        it was last seen, and its interval says so.
    exit_reason
        ``released``, ``exited 1``, ``killed`` … as the backend tells it.
    seen_at
        When the hub itself last saw the node alive; ``None`` = only the metering's sightings are known.
    """

    at: datetime | None = None
    exit_reason: str = ""
    seen_at: datetime | None = None


# ------------------------------------------------------------------------------------------------ beginning


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
    names: Sequence[str] = (),
    role: str = "",
    release_terms: Mapping[str, Any] | None = None,
) -> Run:
    """Insert the row of an admitted plan: ``reserved``, or ``queued`` when it waits for room.

    With ``names`` of nodes the start is begun in the same stroke, as by :func:`begin_start`. ``role`` is the
    one by which it was admitted, ``release_terms`` are frozen into it.

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
        "role": role,
        "release_terms": release_terms,
        "status": _first_status(queued, names).value,
        "target": Target.RUNNING.value,
    }
    state = {**to_keep(plan.environment), **licences.to_keep(plan.environment.licences)}
    if plan.ports and not request.ports:  # the project's own, which the request does not name
        state["ports"] = list(plan.ports)
    if state:
        values["state"] = state
    try:
        conn.execute(_INSERT_RUN, values)
    except IntegrityError as error:
        raise already_open(plan.project_name) from error
    run = Run(**values)
    if run.status == Status.STARTING:
        _insert_nodes(conn, run, names)
    return run


def _first_status(queued: bool, names: Sequence[str]) -> Status:
    if queued:
        return Status.QUEUED
    return Status.STARTING if names else Status.RESERVED


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
    role: str = "",
    release_terms: Mapping[str, Any] | None = None,
) -> bool:
    """Take a waiting row for a start, or let it wait on with what is asked for now.

    A request that is another one than before goes to the end of the line.
    """
    values: dict[str, Any] = {**_of_plan(plan, request), "role": role, "release_terms": release_terms}
    if values["request"] != run.request:
        values["queued_at"] = now
    if not queued:
        values |= {"status": Status.RESERVED.value, "reserved_at": now, "reason": "", "explanation": None}
    statement = update(clusters).where(
        clusters.c.id == run.id,
        clusters.c.status == Status.QUEUED.value,
        clusters.c.stop_asked_at.is_(None),
    )
    return conn.execute(statement.values(**values)).rowcount == 1


def begin_start(conn: Connection, run_id: str, *, names: Sequence[str]) -> Run | None:
    """``reserved`` → ``starting``, with a row for each node; ``None`` when somebody wants it released."""
    row = conn.execute(_BEGIN_START, {"b_id": run_id}).mappings().first()
    if row is None:
        return None
    run = Run(**row)
    _insert_nodes(conn, run, names)
    return run


def _insert_nodes(conn: Connection, run: Run, names: Sequence[str]) -> None:
    _execute(
        conn,
        _INSERT_NODE,
        [
            {"cluster_id": run.id, "rank": rank, "attempt": run.attempt, "name": name}
            for rank, name in enumerate(names)
        ],
    )


def _execute(conn: Connection, statement: Any, rows: list[dict[str, Any]]) -> None:
    # For many rows the driver does things that cost more than a single one: most clusters have one node.
    conn.execute(statement, rows[0] if len(rows) == 1 else rows)


def mark_placed(conn: Connection, run: Run, nodes: Iterable[NodeStart], *, now: datetime) -> None:
    """All nodes have their place; they do not answer yet."""
    conn.execute(_PLACED, {"b_id": run.id, "b_now": now})
    conn.execute(
        _PLACE_NODE,
        [{**_key(run, node.rank), "b_host": node.host, "b_placed": node.placed_at or now} for node in nodes],
    )


def mark_answering(conn: Connection, run: Run, nodes: Iterable[NodeStart]) -> None:
    """Some nodes of a start answer already; whoever waits for the others sees it. Counts nothing."""
    answering = [{**_key(run, node.rank), "b_url": node.url} for node in nodes if node.url]
    if answering:
        conn.execute(_ANSWERING_NODE, answering)


@together
def begin_running(conn: Connection, run: Run, nodes: Sequence[NodeStart], *, now: datetime) -> bool:
    """``starting`` → ``running``: all nodes answer. Usage counts from here, the same for every node.

    ``False`` when the row is no longer starting, or somebody wants it released: then it never ran.
    """
    placed = max((node.placed_at for node in nodes if node.placed_at), default=now)
    if conn.execute(_BEGIN_RUNNING, {"b_id": run.id, "b_now": now, "b_placed": placed}).rowcount != 1:
        return False
    _execute(
        conn,
        _READY_NODE,
        [
            {
                **_key(run, node.rank),
                "b_host": node.host,
                "b_url": node.url,
                "b_placed": node.placed_at or now,
                "b_ready": now,
            }
            for node in nodes
        ],
    )
    return True


# ------------------------------------------------------------------------------------------------- ending


@together
def begin_stop(
    conn: Connection,
    user: str,
    server: str,
    *,
    reason: str,
    explanation: Mapping[str, Any] | None = None,
    run_id: str | None = None,
) -> Run | None:
    """Whatever is open under this server's name, but for a run that waits → ``stopping``.

    The target becomes ``released`` before anything is removed. What was asked for before
    (:func:`spawner.records.ask_stop`) or was found out first stays the reason. ``None`` when there is
    nothing to stop. With ``run_id`` only if it is that run.
    """
    row = conn.execute(_BEGIN_STOP, {"b_user": user, "b_server": server, "b_reason": reason[:64]})
    found = row.mappings().first()
    if found is None:
        return None
    run = Run(**found)
    if run_id is not None and run.id != run_id:
        raise LookupError(f"{user}/{server} is open as run {run.id}, not {run_id}")
    if explanation and run.explanation is None and run.reason == reason[:64]:
        told = dict(explanation)
        conn.execute(update(clusters).where(clusters.c.id == run.id).values(explanation=told))
        run = replace(run, explanation=told)
    return run


@together
def close(conn: Connection, run: Run, *, ends: Mapping[int, NodeEnd], now: datetime) -> bool:
    """``stopping`` → ``released``, or ``failed`` when it never ran and nobody asked for the end.

    Nothing of the run exists any more. Intervals still open end when the backend says they did, else where
    their nodes were last seen.
    """
    failed = run.ready_at is None and run.reason in FAILURES
    status = Status.FAILED if failed else Status.RELEASED
    done = conn.execute(_CLOSE, {"b_id": run.id, "b_status": status.value, "b_now": now}).rowcount == 1
    if done:
        _end_nodes(conn, run, ends, now)
    return done


def back_to_queue(conn: Connection, run: Run, *, ends: Mapping[int, NodeEnd], now: datetime) -> bool:
    """``stopping`` → ``queued``: there was no place for all nodes in time; the run waits for its turn.

    Not when somebody asked for its end meanwhile.
    """
    state = {**(run.state or {}), "attempt": run.attempt + 1}
    state.pop(GUARDED, None)  # its nodes are others then, perhaps on other machines
    done = conn.execute(_BACK_TO_QUEUE, {"b_id": run.id, "b_state": state}).rowcount == 1
    if done:
        _end_nodes(conn, run, ends, now)
    return done


def end_node(conn: Connection, run: Run, rank: int, end: NodeEnd, *, now: datetime) -> None:
    """One node is no more while the others go on; an end that is written already stays.

    An attempt that was asked for and has not begun stays asked for.
    """
    end_rows(conn, run.id, {rank: end}, now, ready_only=True)


def end_rows(
    conn: Connection, run_id: str, ends: Mapping[int, NodeEnd], now: datetime, *, ready_only: bool = False
) -> None:
    """End what is open of these ranks, whichever attempts; ``ready_only`` leaves those that never answered."""
    told = [
        {"b_run": run_id, "b_rank": rank, "b_at": end.at, "b_why": (end.exit_reason or "ended")[:128]}
        for rank, end in ends.items()
        if end.at is not None
    ]
    unseen = [
        {
            "b_run": run_id,
            "b_rank": rank,
            "b_now": now,
            "b_why": f"{end.exit_reason[:100] or 'lost'}, {UNSEEN}",
        }
        for rank, end in ends.items()
        if end.at is None
    ]
    if told:
        conn.execute(_GONE_TOLD.where(_EVER_READY) if ready_only else _GONE_TOLD, told)
    if unseen:
        seen = [
            {"b_run": run_id, "b_rank": rank, "b_at": end.seen_at}
            for rank, end in ends.items()
            if end.at is None and end.seen_at is not None
        ]
        if seen:
            conn.execute(_SIGHTED, seen)
        conn.execute(_GONE_UNSEEN.where(_EVER_READY) if ready_only else _GONE_UNSEEN, unseen)


# ------------------------------------------------------------------------------------------------- inside


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
        "datasets": [one.data.told(one) for one in plan.mounts if one.data is not None],
        "work_read_only": next((one.read_only for one in plan.mounts if one.target == "work"), None),
    }


def _key(run: Run, rank: int) -> dict[str, Any]:
    return {"b_run": run.id, "b_rank": rank, "b_attempt": run.attempt}


def _end_nodes(conn: Connection, run: Run, ends: Mapping[int, NodeEnd], now: datetime) -> None:
    end_rows(conn, run.id, ends, now)
    if len(ends) < run.nodes:
        conn.execute(_GONE_REST, {"b_run": run.id, "b_now": now})


_ID = clusters.c.id == bindparam("b_id")
_WANTED = and_(clusters.c.target == Target.RUNNING.value, clusters.c.stop_asked_at.is_(None))

_INSERT_RUN = insert(clusters)
_INSERT_NODE = insert(cluster_nodes)
_BEGIN_START = (
    update(clusters)
    .where(_ID, clusters.c.status == Status.RESERVED.value, _WANTED)
    .values(status=Status.STARTING.value)
    .returning(clusters)
)
_PLACED = update(clusters).where(_ID).values(placed_at=bindparam("b_now"))
_PLACE_NODE = (
    update(cluster_nodes).where(*NODE_IS).values(host=bindparam("b_host"), placed_at=bindparam("b_placed"))
)
_ANSWERING_NODE = (
    update(cluster_nodes)
    .where(*NODE_IS, cluster_nodes.c.ready_at.is_(None), cluster_nodes.c.gone_at.is_(None))
    .values(url=bindparam("b_url"))
)
_BEGIN_RUNNING = (
    update(clusters)
    .where(_ID, clusters.c.status == Status.STARTING.value, _WANTED)
    .values(status=Status.RUNNING.value, ready_at=bindparam("b_now"), placed_at=bindparam("b_placed"))
)
_READY_NODE = (
    update(cluster_nodes)
    .where(*NODE_IS)
    .values(
        host=bindparam("b_host"),
        url=bindparam("b_url"),
        placed_at=bindparam("b_placed"),
        ready_at=bindparam("b_ready"),
    )
)
_BEGIN_STOP = (
    update(clusters)
    .where(
        clusters.c.user == bindparam("b_user"),
        clusters.c.server == bindparam("b_server"),
        clusters.c.released_at.is_(None),
        clusters.c.status != Status.QUEUED.value,
    )
    .values(
        status=Status.STOPPING.value,
        target=Target.RELEASED.value,
        reason=func.coalesce(func.nullif(clusters.c.reason, ""), bindparam("b_reason")),
    )
    .returning(clusters)
)
_CLOSE = (
    update(clusters)
    .where(_ID, clusters.c.status == Status.STOPPING.value)
    .values(status=bindparam("b_status"), released_at=bindparam("b_now"))
)
_BACK_TO_QUEUE = (
    update(clusters)
    .where(_ID, clusters.c.status == Status.STOPPING.value, clusters.c.stop_asked_at.is_(None))
    .values(
        status=Status.QUEUED.value,
        target=Target.RUNNING.value,
        reserved_at=None,
        placed_at=None,
        state=bindparam("b_state", type_=clusters.c.state.type),
    )
)
# A node that never was ready costs nothing; its end is only a mark.
_NEVER_READY = cluster_nodes.c.ready_at.is_(None)
_LAST_SEEN = case(
    (_NEVER_READY, bindparam("b_now", type_=cluster_nodes.c.gone_at.type)),
    (cluster_nodes.c.sighted_at > cluster_nodes.c.ready_at, cluster_nodes.c.sighted_at),
    else_=cluster_nodes.c.ready_at,
)
_EVER_READY = cluster_nodes.c.ready_at.is_not(None)
_OPEN_OF_RANK = (
    cluster_nodes.c.cluster_id == bindparam("b_run"),
    cluster_nodes.c.rank == bindparam("b_rank"),
    cluster_nodes.c.gone_at.is_(None),
)
_AT = bindparam("b_at", type_=cluster_nodes.c.gone_at.type)
_GONE_TOLD = (
    update(cluster_nodes)
    .where(*_OPEN_OF_RANK)
    .values(
        gone_at=case((cluster_nodes.c.ready_at > _AT, cluster_nodes.c.ready_at), else_=_AT),
        exit_reason=bindparam("b_why"),
    )
)
_GONE_UNSEEN = (
    update(cluster_nodes).where(*_OPEN_OF_RANK).values(gone_at=_LAST_SEEN, exit_reason=bindparam("b_why"))
)
_SIGHTED = (
    update(cluster_nodes)
    .where(
        *_OPEN_OF_RANK,
        _EVER_READY,
        or_(cluster_nodes.c.sighted_at.is_(None), cluster_nodes.c.sighted_at < _AT),
    )
    .values(sighted_at=_AT)
)
_GONE_REST = (
    update(cluster_nodes)
    .where(cluster_nodes.c.cluster_id == bindparam("b_run"), cluster_nodes.c.gone_at.is_(None))
    .values(gone_at=_LAST_SEEN, exit_reason=case((_NEVER_READY, "released"), else_=f"lost, {UNSEEN}"))
)
