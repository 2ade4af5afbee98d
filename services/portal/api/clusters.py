"""What one may do with clusters: look, start, release (design §4, §10).

Starting and releasing are the visitor's own acts: the hub is asked with the visitor's own token, so that
its RBAC decides. What is *shown* comes from our rows, which tell the truth also while the hub is down.

A start answers as soon as the run is admitted: the hub's own answer may take ten seconds and says less
than the row. A release is written into the row first (who, why), so that a hub that is down delays it and
never loses it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from galilean import notices
from galilean.errors import UserError, mark, render
from galilean.hubapi import HubAPI
from galilean.web.context import Portal
from galilean.web.handlers import APIHandler
from galilean.web.visitor import Visitor
from services.catalog.store import Project
from services.portal.api import models
from services.portal.api.projects import need_role, write_audit
from services.portal.doors import node_url as node_url
from services.portal.doors import ways
from services.portal.online import Use, row_of, uses_of
from services.portal.pages.endings import explanation_of
from services.portal.pages.progress import progress
from services.portal.said import Translate
from spawner import licences, records, renewal
from spawner.records import NodeInterval, Run
from spawner.states import Status

log = logging.getLogger("galilean.portal")

ROW_WAIT_SECONDS = 15.0
ROW_LOOK_SECONDS = 0.04


def no_such_cluster() -> UserError:
    """What is told of a cluster that is not there, or not there for this person."""
    return UserError(404, mark("There is no such cluster."))


async def cluster_for(portal: Portal, person: Visitor, run_id: str) -> Run:
    """The run of this id, if it is there for this person.

    Raises
    ------
    UserError
        404 otherwise.
    """
    run = await portal.db.run_read(records.get, run_id)
    if run is None or not (run.user == person.name or person.may("clusters:read-all")):
        raise no_such_cluster()
    return run


async def list_clusters(
    portal: Portal,
    person: Visitor,
    *,
    open_only: bool = True,
    user: str | None = None,
    limit: int = 50,
    before: str | None = None,
) -> list[Run]:
    """Runs, newest first: one's own, everybody's with the right; ``limit + 1`` tells whether there are more."""
    if user is not None and user != person.name and not person.may("clusters:read-all"):
        raise UserError(403, mark("You see your own clusters only."))
    if user is None and not person.may("clusters:read-all"):
        user = person.name
    return await portal.db.run_read(
        records.list_runs, user=user, open_only=open_only, limit=limit + 1, before=before
    )


async def start_cluster(
    portal: Portal,
    person: Visitor,
    hub: HubAPI,
    project: Project,
    options: Mapping[str, Any],
    *,
    language: str = "",
) -> tuple[Run, bool]:
    """Ask the hub for a cluster of a project, as the visitor; come back when it is admitted.

    Returns
    -------
    The run, and whether it is new: one that is already there is success (its options stay as they are).

    Raises
    ------
    UserError
        The hub's refusal: 400, 403, 429 with reason ``quota`` … A run that waits for room is no refusal.
    """
    need_role(person)
    server = project.server(person.name)
    there = await portal.db.run_read(records.open_run, person.name, server)
    if there is not None:
        return there, False
    wanted = {key: value for key, value in options.items() if value is not None}
    wanted["project"] = f"{project.owner}/{project.slug}"
    asked_at = portal.clock()
    call = asyncio.create_task(hub.start(person.name, server, wanted, language=language))
    deadline = asyncio.get_running_loop().time() + ROW_WAIT_SECONDS
    while True:
        done, _ = await asyncio.wait({call}, timeout=ROW_LOOK_SECONDS)
        run = await portal.db.run_read(records.open_run, person.name, server)
        if run is not None:
            _let_go(portal, call)
            return run, True
        if done:
            error = call.exception()
            if error is not None and not _says_queued(error):
                raise error
            run = await _latest(portal, person.name, project.id, asked_at)
            if run is not None:
                return run, True
            raise UserError(503, mark("The hub took the request, but no cluster came of it. Try again."))
        # What the hub said while the row was looked for is its answer, however late it is.
        if asyncio.get_running_loop().time() > deadline and not call.done():
            _let_go(portal, call)
            raise UserError(
                503, mark("The hub has not answered for {seconds} seconds. Look again in a moment."),
                seconds=int(ROW_WAIT_SECONDS),
            )  # fmt: skip


def _says_queued(error: BaseException) -> bool:
    return isinstance(error, UserError) and error.status == 503 and error.reason == "queued"


async def _latest(portal: Portal, user: str, project_id: str, since: datetime) -> Run | None:
    runs = await portal.db.run_read(
        records.list_runs, user=user, project_id=project_id, open_only=False, limit=1
    )
    return runs[0] if runs and runs[0].queued_at >= since else None


def _let_go(portal: Portal, call: asyncio.Task[int]) -> None:
    """The run is in its row from here on; the hub's answer is of no further interest."""
    calls: set[asyncio.Task[int]] = portal.parts.setdefault("starts", set())
    calls.add(call)

    def over(task: asyncio.Task[int]) -> None:
        calls.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.info("a start that was admitted ended with: %s", error)

    call.add_done_callback(over)


async def release_cluster(
    portal: Portal,
    person: Visitor,
    hub: HubAPI,
    run: Run,
    *,
    why: str = "",
    address: str = "",
) -> Run:
    """Release a cluster: one's own, anybody's with the right (CG-27), then with a line in the audit log.

    A run that is closed already is success. The row is told first; should the hub not carry it out now,
    the release service does.
    """
    if not run.is_open:
        return run
    others = run.user != person.name
    if others and not person.may("clusters:release-all"):
        raise UserError(403, mark("You may release your own clusters only."))
    now = portal.clock()
    await portal.db.run(note_release, run, by=person.name, others=others, why=why, address=address, now=now)
    if run.status != Status.QUEUED:
        try:
            await hub.stop(run.user, run.server)
        except UserError as error:
            log.info("run %s: the hub did not release it now (%s); the release service will", run.id, error)
    return await portal.db.run_read(records.get, run.id) or run


_RELEASED = mark("{project} was released by an administrator ({person}). Its files stay.")
_RELEASED_WHY = mark("{project} was released by an administrator ({person}): {why}. Its files stay.")


def note_release(
    conn: Any, run: Run, *, by: str, others: bool, why: str = "", address: str = "", now: datetime
) -> None:
    """Ask for the end of a run in its row; of somebody else's, tell its person who did, and why, and keep it.

    Parameters
    ----------
    conn, run, now
        A transaction, an open run, UTC.
    by, address
        Who asks, and from where.
    others
        Whether the run is somebody else's.
    why
        What its person is told.
    """
    reason = "admin" if others else "user"
    explanation = None
    if others:
        message = mark("An administrator ({person}) released this cluster: {why}") if why else mark(
            "An administrator ({person}) released this cluster."
        )  # fmt: skip
        explanation = {"message": message, "params": {"person": by, "why": why}}
        write_audit(
            conn,
            at=now,
            actor=by,
            address=address,
            action="cluster.release",
            subject=f"{run.user}/{run.server}",
            before={"run": run.id, "status": run.status},
            reason=why,
        )
        notices.tell(
            conn,
            run.user,
            now=now,
            kind="released",
            text=_RELEASED_WHY if why else _RELEASED,
            cluster_id=run.id,
            mail=True,
            project=run.project_name,
            person=by,
            why=why,
        )
    if run.status == Status.QUEUED and records.cancel_waiting(
        conn, run.id, reason=reason, asked_by=by, now=now
    ):
        return
    records.ask_stop(conn, run.id, reason=reason, asked_by=by, now=now, explanation=explanation)


# ------------------------------------------------------------------------------------------------ addresses


def doors(portal: Portal, run: Run, rank: int, translate: Translate = str) -> list[models.Door]:
    """The ways into a node, as the API tells them."""
    return [
        models.Door(
            name=way.name,
            title=translate(way.door.title).format(port=way.door.port),
            url=way.url,
            listens=way.door.when == "listens",
        )
        for way in ways(portal, run, rank)
    ]


# --------------------------------------------------------------------------------------------------- models


def held_seconds(run: Run, now: datetime) -> int:
    """Wall time held so far: from ready to the release."""
    if run.ready_at is None:
        return 0
    return max(0, int(((run.released_at or now) - run.ready_at).total_seconds()))


def cluster_values(
    portal: Portal,
    run: Run,
    *,
    now: datetime,
    translate: Translate,
    place: int | None = None,
    use: Use | None = None,
) -> dict[str, Any]:
    told = explanation_of(run)
    row = row_of(run, use, now)
    return {
        "id": run.id,
        "user": run.user,
        "server": run.server,
        "project": models.ProjectOfCluster(
            id=run.project_id, owner=run.project_owner, slug=run.project_slug, name=run.project_name
        ),
        "environment": run.environment,
        "pool": run.pool,
        "backend": run.backend,
        "nodes": run.nodes,
        "cpu": run.cpu_millicores / 1000,
        "memory_bytes": run.memory_bytes,
        "gpu": run.gpu,
        "gpu_model": run.gpu_model,
        "storage_bytes": run.storage_bytes,
        "datasets": [models.DatasetOfCluster.model_validate(one) for one in run.datasets or ()],
        "release": run.release_policy,
        "on_node_loss": run.on_node_loss,
        "status": run.word,
        "reason": run.reason,
        "explanation": told.text(translate) if told else "",
        "asked_by": run.asked_by,
        "queued_at": run.queued_at,
        "ready_at": run.ready_at,
        "released_at": run.released_at,
        "seconds": held_seconds(run, now),
        "place_in_line": place,
        "url": node_url(portal, run.user, run.server) if run.word == "running" else None,
        "use": None
        if row.cpu_now is None or use is None
        else models.ClusterUse(
            measured_at=use.measured_at,
            cpu_percent=round(100 * row.cpu_now, 1),
            gpu_percent=None if row.gpu_now is None else round(100 * row.gpu_now, 1),
            idle_since=row.idle_since,
        ),
        "last_seen_at": row.seen_at,
        "release_at": run.release_at if run.is_open else None,
        "release_why": run.release_why if run.is_open else "",
    }


def cluster_model(portal: Portal, run: Run, **said: Any) -> models.Cluster:
    """A run as the lists of the API show it."""
    return models.Cluster(**cluster_values(portal, run, **said))


def node_state(node: NodeInterval) -> str:
    """``waiting``, ``starting``, ``ready``, ``restarting`` or ``gone``."""
    if node.coming_back:
        return "restarting"
    if node.gone_at:
        return "gone"
    if node.ready_at:
        return "ready"
    return "starting" if node.placed_at else "waiting"


def may_ask(run: Run, node: NodeInterval) -> tuple[str, ...]:
    """What its owner may ask of a node now: ``restart``, ``reset``."""
    return tuple(
        how for how in renewal.offered(run.backend) if renewal.refusal(run, [node], node.rank, how) is None
    )


def why_of(node: NodeInterval, translate: Translate) -> str:
    """Why a node that was to be made anew did not come back, or was left as it is; empty otherwise."""
    said = node.explanation or {}
    message = said.get("message")
    return render(str(message), dict(said.get("params") or {}), translate) if message else ""


def detail_model(
    portal: Portal,
    run: Run,
    intervals: Sequence[NodeInterval],
    *,
    now: datetime,
    translate: Translate,
    place: int | None = None,
    use: Use | None = None,
) -> models.ClusterDetail:
    """A run with its nodes, their doors, and the steps of its start."""
    running = run.word == "running"
    nodes = [
        models.Node(
            rank=node.rank,
            name=f"node-{node.rank}",
            state=node_state(node),  # type: ignore[arg-type]
            host=node.host,
            placed_at=node.placed_at,
            ready_at=node.ready_at,
            gone_at=node.gone_at,
            exit_reason=node.exit_reason,
            attempt=node.attempt,
            explanation=why_of(node, translate),
            can=list(may_ask(run, node)),
            doors=doors(portal, run, node.rank, translate)
            if running and not node.gone_at and node.ready_at
            else [],
        )
        for node in records.present(intervals)
    ]
    steps = [
        models.StartStep(
            key=step.key,
            title=step.title.text(translate),
            state=step.state,  # type: ignore[arg-type]
            took=step.took.text(translate) if step.took else "",
        )
        for step in progress(run, intervals, now=now).steps
    ]
    return models.ClusterDetail(
        **cluster_values(portal, run, now=now, translate=translate, place=place, use=use),
        licences=list(licences.kept(run.state)),
        node_list=nodes,
        steps=steps,
    )


def place_in_line(conn: Any, run: Run) -> int | None:
    """1 = next, for a run that waits."""
    if run.status != Status.QUEUED:
        return None
    return records.waits_longer(conn, pool=run.pool, gpu_model=run.gpu_model, run=run) + 1


@dataclass(frozen=True, kw_only=True)
class Detail:
    """A run with all that is told of it, in one read."""

    run: Run
    intervals: list[NodeInterval]
    place: int | None
    use: Use | None


def with_nodes(conn: Any, run_id: str) -> Detail | None:
    """A run, its node intervals, its place in line and what it uses; ``None`` when it is not there."""
    run = records.get(conn, run_id)
    if run is None:
        return None
    return Detail(
        run=run,
        intervals=records.intervals(conn, [run.id])[run.id],
        place=place_in_line(conn, run),
        use=uses_of(conn, [run.id]).get(run.id),
    )


async def detail_of(handler: APIHandler, run_id: str) -> models.ClusterDetail:
    """A run with its nodes as the API shows it."""
    found = await handler.portal.db.run_read(with_nodes, run_id)
    if found is None:
        raise no_such_cluster()
    return detail_model(
        handler.portal,
        found.run,
        found.intervals,
        now=handler.portal.clock(),
        translate=handler.translate,
        place=found.place,
        use=found.use,
    )
