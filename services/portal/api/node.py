"""What a node may ask of the portal for its own cluster: how it stands, more time, to go on alone, an end.

The front end in JupyterLab speaks to the server extension of its node, which asks here with the node's *own*
token: it never acts as the person. A request is bound as a presence report is (:mod:`services.portal.api.presence`):
the token must be that server's, the server must have an open run, and the run must be the one that is named.

People's programs in the node hold that token too and can ask the same. So nothing here goes beyond the one
cluster, and nothing beats a limit: an extension reaches as far as the release rules let its owner, who would
get it by one press; *when done* is the stricter policy; to release one's own cluster harms nobody else.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any, Literal

from pydantic import ConfigDict, Field
from sqlalchemy import Connection

from galilean.errors import UserError, mark
from galilean.web.context import Portal
from galilean.web.jinja import portal_public_url
from galilean.web.visitor import Visitor
from services.portal import saving
from services.portal.addresses import project_path
from services.portal.api import models
from services.portal.api.base import Handler
from services.portal.api.clusters import held_seconds, node_state, why_of
from services.portal.api.operation import Operation
from services.portal.api.presence import check_token
from services.portal.doors import ways
from services.portal.longer import budget_seconds
from services.portal.my_limits import site_grace_seconds
from services.portal.pages.endings import explanation_of
from services.portal.said import Translate
from services.release import ask
from spawner import records, renewal, use
from spawner.records import NodeInterval, Run

ACTOR = "node"


class NodeAsks(models.Incoming):
    """Which node asks, and for what."""

    model_config = ConfigDict(extra="forbid", strict=True)

    server: str = Field(max_length=64)
    run: str = Field(min_length=26, max_length=26)
    rank: int = Field(ge=0, le=4096)
    seconds: int | None = Field(default=None, description="Extend: by so much.")
    until: str | None = Field(default=None, max_length=40, description="Extend: until then, ISO 8601.")


class NodeStatus(models.Outgoing):
    """How a cluster stands, as its own nodes show it."""

    run: str
    state: str
    project: dict[str, str]
    portal_url: str
    nodes: list[dict[str, Any]]
    size: dict[str, Any]
    since: datetime | None
    held_seconds: int
    release: dict[str, Any]
    extend: dict[str, Any] | None
    can: dict[str, bool]
    loses: dict[str, dict[str, Any]] = Field(default_factory=dict)
    warning: dict[str, Any] | None
    use: dict[str, Any]
    ended: dict[str, Any] | None = None


class NodeHandler(Handler):
    """Lets nodes in, and nobody else."""

    nodes_enter = True

    async def prepare(self) -> None:
        await super().prepare()
        if not self._finished and not self.person.node:  # before anything is looked at
            check_token(self.person, "")

    async def answer(self, asks: NodeAsks, change: Callable[[Connection, Run], None] | None = None) -> None:
        """Change something, if anything is asked for, and tell how things stand then."""
        check_token(self.person, asks.server)
        portal, now = self.portal, self.portal.clock()

        def look(conn: Connection) -> NodeStatus:
            run = own_run(conn, self.person, asks, ended=change is None)
            if change is not None:
                change(conn, run)
                run = records.get(conn, run.id) or run
            intervals = records.intervals(conn, [run.id]).get(run.id, [])
            kept = use.use_of(conn, run, asks.rank)
            left = budget_seconds(portal)(conn, [run.id], now).get(run.id)
            return status_of(
                portal,
                run,
                intervals,
                kept,
                now=now,
                translate=self.translate,
                budget_left=left,
                grace_seconds=site_grace_seconds(conn, portal),
                tells=bool(ask.telling(conn, [run.id])),
            )

        go = portal.db.run_read if change is None else portal.db.run
        said = await go(look)
        if change is not None:
            portal.parts["watcher"].tell(self.person.name, "clusters")
        self.write_json(said)


class Status(NodeHandler):
    async def get(self) -> None:
        rank = self.query("rank") or "0"
        if not rank.isascii() or not rank.isdigit() or len(rank) > 4:
            raise UserError(400, mark("There is no such node."))
        await self.answer(
            NodeAsks(server=self.query("server")[:64], run=self.query("run")[:26].ljust(26), rank=int(rank))
        )


class Extend(NodeHandler):
    async def post(self) -> None:
        body = self.body(NodeAsks)
        until = _moment(body.until)
        now = self.portal.clock()

        def extend(conn: Connection, run: Run) -> None:
            left = budget_seconds(self.portal)(conn, [run.id], now).get(run.id)
            ask.extend(conn, run, now=now, seconds=body.seconds, until=until, by=ACTOR, budget_seconds=left)

        await self.answer(body, extend)


class WhenDone(NodeHandler):
    async def post(self) -> None:
        now = self.portal.clock()
        await self.answer(
            self.body(NodeAsks), lambda conn, run: _ignore(ask.when_done(conn, run, now=now, by=ACTOR))
        )


class Release(NodeHandler):
    """The row is told; the release service carries it out within seconds."""

    async def post(self) -> None:
        now = self.portal.clock()
        await self.answer(
            self.body(NodeAsks),
            lambda conn, run: _ignore(
                records.ask_stop(conn, run.id, reason="user", asked_by=run.user, now=now)
            ),
        )


def own_run(conn: Connection, person: Visitor, asks: NodeAsks, *, ended: bool = False) -> Run:
    """The open run of the node that asks.

    Parameters
    ----------
    conn, person, asks
        The transaction, who asks, and what for.
    ended
        Whether also a run that has ended may be told of, as long as it is the server's last.

    Raises
    ------
    UserError
        409 when it is not the open run of that server, 400 for a node that it does not have.
    """
    run = records.open_run(conn, person.name, asks.server)
    if (run is None or run.id != asks.run) and ended:
        last = records.get(conn, asks.run)
        if last is not None and (last.user, last.server) == (person.name, asks.server):
            run = last
    if run is None or run.id != asks.run:
        raise UserError(409, mark("This run has ended."), reason="ended")
    if asks.rank >= run.nodes:
        raise UserError(
            400,
            mark("This cluster has {nodes} nodes; there is no node-{rank}."),
            nodes=run.nodes,
            rank=asks.rank,
        )
    return run


def status_of(
    portal: Portal,
    run: Run,
    intervals: list[NodeInterval],
    kept: Any,
    *,
    now: datetime,
    translate: Translate,
    budget_left: float | None = None,
    grace_seconds: int = 300,
    tells: bool = False,
) -> NodeStatus:
    """How a run stands, from its rows; ``grace_seconds`` of the centre, for a row without terms."""
    site = portal_public_url(portal.settings) if portal.settings.web.subdomain_host else portal.prefix
    terms = ask.terms_of(run, grace_seconds=grace_seconds)
    more = ask.extension_of(run, now, grace_seconds=grace_seconds, budget_seconds=budget_left)
    told = explanation_of(run)
    return NodeStatus(
        run=run.id,
        state=run.word,
        project={
            "name": run.project_name,
            "owner": run.project_owner,
            "slug": run.project_slug,
            "url": site + project_path(run.project_owner, run.project_slug),
        },
        portal_url=site,
        nodes=[_node(portal, run, item, translate) for item in records.present(intervals)],
        size={
            "nodes": run.nodes,
            "cpu_millicores": run.cpu_millicores,
            "memory_bytes": run.memory_bytes,
            "gpus": run.gpu,
            "gpu_model": run.gpu_model or None,
        },
        since=run.ready_at,
        held_seconds=held_seconds(run, now),
        release={
            "policy": run.release_policy,
            "words": ask.policy_words(run.release_policy, translate, grace_seconds=terms.grace_seconds),
            "grace_seconds": terms.grace_seconds,
            "at": _iso(run.release_at),
            "why": run.release_why or None,
            "kept_until": _iso(run.extended_until),
            "when_done": run.release_policy == "auto-when-done",
        },
        extend={"until": _iso(more.until), "until_most": _iso(more.most)} if more.until else None,
        can={
            "when_done": ask.may_when_done(run, tells=tells),
            "release": run.is_open and run.stop_asked_at is None,
            **dict.fromkeys(renewal.offered(run.backend), run.is_open and run.stop_asked_at is None),
        },
        loses={
            how: {
                "goes": [translate(line) for line in loss.goes],
                "stays": translate(loss.stays) if loss.stays else "",
            }
            for how, loss in renewal.LOSES.get(run.backend, {}).items()
        },
        warning=_warning(run, terms, kept, now),
        use=_use(run, kept),
        ended=None
        if run.is_open and run.stop_asked_at is None
        else {
            "at": _iso(run.released_at or run.stop_asked_at),
            "why": run.reason,
            "by": run.stop_asked_by if run.stop_asked_by not in ("", run.user) else None,
            "explanation": told.text(translate) if told else None,
        },
    )


def _node(portal: Portal, run: Run, item: NodeInterval, translate: Translate) -> dict[str, Any]:
    found = ways(portal, run, item.rank)
    urls = {way.key: way.url for way in found}
    state: Literal["ready", "starting", "restarting", "lost"] = "starting"
    known = {"ready": "ready", "gone": "lost", "restarting": "restarting"}
    state = known.get(node_state(item), state)  # type: ignore[assignment]
    return {
        "rank": item.rank,
        "name": f"node-{item.rank}",
        "state": state,
        "attempt": item.attempt,
        "why": why_of(item, translate),
        "lab_url": urls.get("lab", found[0].url),
        "terminal_url": urls["terminal"],
        "desktop_url": urls.get("desktop"),
        "more": [
            {"title": translate(way.door.title).format(port=way.door.port), "url": way.url}
            for way in found
            if way.key not in ("lab", "terminal", "desktop")
        ],
        "save_url": saving.address(portal, run, item.rank) if state == "ready" else None,
    }


def _warning(run: Run, terms: Any, kept: Any, now: datetime) -> dict[str, Any] | None:
    """The warning that holds now; one whose end has moved away since, because somebody came back, does not."""
    if run.warned_at is None or run.release_at is None or not run.is_open:
        return None
    before = terms.warn_seconds
    if run.release_why in ("left", "signed_out"):
        try:
            before = min(before, (terms.wait_seconds or before * 2) // 2)
        except ValueError:
            return None
    if run.release_at - run.warned_at > timedelta(seconds=before * 1.5) or now > run.release_at + timedelta(
        minutes=10
    ):
        return None
    return {
        "id": f"{run.id}-{int(run.warned_at.timestamp())}",
        "at": _iso(run.release_at),
        "why": run.release_why,
        "busy": bool(kept and kept.get("busy") and any(kept["busy"].values())),
    }


def _use(run: Run, kept: Any) -> dict[str, Any]:
    measured = kept if kept and kept.get("measured_at") else None
    return {
        "measured_at": _iso(measured["measured_at"]) if measured else None,
        "cpu_percent": round(measured["cpu_permille"] * 100 / max(1, run.cpu_millicores))
        if measured
        else None,
        "memory_bytes": measured["memory_bytes"] if measured else None,
        "memory_limit_bytes": run.memory_bytes,
        "gpu_percent": round(measured["gpu_permille"] / 10 / max(1, run.gpu))
        if measured and measured["gpu_permille"] is not None
        else None,
    }


def _moment(text: str | None) -> datetime | None:
    if not text:
        return None
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        at = None
    if at is None or at.tzinfo is None:
        raise UserError(400, mark("An extension must end in the future."))
    return at


def _iso(at: datetime | None) -> str | None:
    return at.isoformat() if at else None


def _ignore(_: object) -> None:
    return None


OPERATIONS: tuple[Operation, ...] = (
    Operation(
        method="get",
        path="/node/status",
        summary="How a node's own cluster stands (a node's own token)",
        query={"server": "The hub's server.", "run": "Id of the run.", "rank": "Which node asks."},
        answers={200: NodeStatus},
    ),
    Operation(
        method="post",
        path="/node/extend",
        summary="Hold a node's own cluster longer (a node's own token)",
        takes=NodeAsks,
        answers={200: NodeStatus},
    ),
    Operation(
        method="post",
        path="/node/when-done",
        summary="Let a node's own cluster go on until nothing runs on it (a node's own token)",
        takes=NodeAsks,
        answers={200: NodeStatus},
    ),
    Operation(
        method="post",
        path="/node/release",
        summary="Release a node's own cluster (a node's own token)",
        takes=NodeAsks,
        answers={200: NodeStatus},
    ),
)


def routes() -> list[tuple[str, type[Handler]]]:
    """Addresses, relative to the portal's prefix."""
    return [
        (r"/api/v1/node/status", Status),
        (r"/api/v1/node/extend", Extend),
        (r"/api/v1/node/when-done", WhenDone),
        (r"/api/v1/node/release", Release),
    ]
