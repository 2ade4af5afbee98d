"""Backends without a world: one that does nothing (for benchmarks), one in memory with faults to inject.

``World`` is what exists besides the hub; several hubs, one after another, may share one. Its nodes all
answer on one small HTTP server. Gates hold a start or a stop at a step until a test opens them.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from tornado.httpserver import HTTPServer
from tornado.httputil import HTTPServerRequest, ResponseStartLine
from tornado.netutil import bind_sockets
from traitlets import Any as AnyTrait

from galilean.amounts import GIB
from galilean.clock import utcnow
from galilean.errors import UserError
from spawner.backend import NodeFailed, NodeLook, NodeProgress
from spawner.cluster import VirtualCluster
from spawner.collaborators import Person
from spawner.inventory import Sighting
from spawner.plan import ClusterPlan, EnvironmentChoice, Mount
from spawner.records import Run
from spawner.request import ClusterRequest
from spawner.steps import NodeEnd


@dataclass
class Node:
    run: str
    alive: bool = True
    started_at: datetime | None = None
    ended_at: datetime | None = None
    exit_reason: str = ""
    how: str = ""


class World:
    """What exists, and what goes wrong there."""

    def __init__(self) -> None:
        self.nodes: dict[tuple[str, str, int], Node] = {}
        self.calls: Counter[str] = Counter()
        self.gates: dict[str, asyncio.Event] = {}
        self.reached: dict[str, asyncio.Event] = {}
        self.broken_ranks: set[int] = set()
        self.slow_ranks: set[int] = set()
        #: What keeps a node that has its place, in the registry's or the machine's words.
        self.kept_by: dict[int, str] = {}
        self.remove_failures = 0
        self.unreachable = False
        self.imageless_ranks: set[int] = set()
        self.url = ""
        self.moved_url = ""
        self._server: HTTPServer | None = None

    def __deepcopy__(self, memo: Any) -> World:
        return self

    async def open(self) -> None:
        sockets = bind_sockets(0, "127.0.0.1")
        self.url = f"http://127.0.0.1:{sockets[0].getsockname()[1]}"
        self._server = HTTPServer(_answer)
        self._server.add_sockets(sockets)

    async def close(self) -> None:
        if self._server:
            self._server.stop()
            await self._server.close_all_connections()

    def hold(self, step: str) -> asyncio.Event:
        """Nobody passes ``step`` until the returned event is set."""
        self.reached[step] = asyncio.Event()
        self.gates[step] = asyncio.Event()
        return self.gates[step]

    async def at(self, step: str) -> None:
        """Wait until somebody is held at ``step``."""
        await asyncio.wait_for(self.reached[step].wait(), 10)

    async def pass_(self, step: str) -> None:
        self.calls[step] += 1
        if step in self.gates:
            self.reached[step].set()
            await self.gates[step].wait()

    def of(self, server: str) -> dict[int, Node]:
        return {rank: node for (_, name, rank), node in self.nodes.items() if name == server}

    def kill(self, server: str, rank: int, why: str = "killed by signal 9") -> datetime:
        node = self.of(server)[rank]
        node.alive, node.ended_at, node.exit_reason = False, utcnow(), why
        return node.ended_at

    # The inventory, from outside the hub.
    async def inventory(self) -> list[Sighting]:
        if self.unreachable:
            raise ConnectionError("the backend does not answer")
        return [
            Sighting(
                user=user,
                server=server,
                run=node.run,
                rank=rank,
                state="alive" if node.alive else "ended",
                started_at=node.started_at,
                finished_at=node.ended_at,
                handle=(user, server, rank),
            )
            for (user, server, rank), node in self.nodes.items()
        ]

    async def remove(self, sighting: Sighting) -> None:
        self.nodes.pop(sighting.handle, None)


def _answer(request: HTTPServerRequest) -> None:
    connection = request.connection
    assert connection is not None
    from tornado.httputil import HTTPHeaders

    connection.write_headers(
        ResponseStartLine("HTTP/1.1", 200, "OK"),
        HTTPHeaders({"Content-Length": "2", "Content-Type": "application/json", "X-JupyterHub-Version": ""}),
        b"{}",
    )
    connection.finish()


class MemoryCluster(VirtualCluster):
    """Nodes are entries of a :class:`World`."""

    backend_name = "memory"
    world = AnyTrait().tag(config=True)

    def node_name(self, rank: int) -> str:
        return f"{self.user.name}-{self.name}-{rank}"

    async def create_nodes(self, run: Run, plan: ClusterPlan, progress: NodeProgress) -> None:
        async def one(rank: int) -> None:
            await self.world.pass_("create")
            if rank in self.world.broken_ranks:
                raise NodeFailed(rank, "Node {rank} ended before it answered ({why}).", why="exited 1")
            self.world.nodes[self.user.name, self.name, rank] = Node(run.id, started_at=utcnow())
            progress.placed(rank, host="here")
            if rank in self.world.kept_by:
                progress.trouble(rank, "Node {rank}: {why}", why=self.world.kept_by[rank])
            await self.world.pass_("answer")
            if rank in self.world.slow_ranks:
                await self.world.pass_("slow")
            progress.ready(rank, url=self.world.url)

        await asyncio.gather(*(one(rank) for rank in range(plan.nodes)))

    async def look_at_nodes(self, run: Run) -> Mapping[int, NodeLook]:
        if self.world.unreachable:
            raise ConnectionError("the backend does not answer")
        return {
            rank: NodeLook(alive=node.alive, ended_at=node.ended_at, exit_reason=node.exit_reason)
            for rank, node in self.world.of(self.name).items()
        }

    async def remove_nodes(self, run: Run) -> Mapping[int, NodeEnd]:
        await self.world.pass_("remove")
        if self.world.unreachable:
            raise ConnectionError("the backend does not answer")
        if self.world.remove_failures:
            self.world.remove_failures -= 1
            raise OSError("not now")
        ends = {}
        for rank, node in self.world.of(self.name).items():
            del self.world.nodes[self.user.name, self.name, rank]
            ended_at = utcnow() if node.alive else node.ended_at
            ends[rank] = NodeEnd(at=ended_at, exit_reason=node.exit_reason or "released")
        return ends

    async def check_node(self, run: Run, rank: int, how: str) -> None:
        await self.world.pass_("check")
        if self.world.unreachable:
            raise ConnectionError("the backend does not answer")
        if rank in self.world.imageless_ranks:
            raise NodeFailed(rank, "The image of node {rank} is not there any more.")

    async def end_node(self, run: Run, rank: int) -> NodeEnd | None:
        await self.world.pass_("end")
        node = self.world.nodes.pop((self.user.name, self.name, rank), None)
        if node is None:
            return None
        return NodeEnd(at=utcnow() if node.alive else node.ended_at, exit_reason=node.exit_reason)

    async def make_node(self, run: Run, rank: int, how: str, progress: NodeProgress) -> None:
        await self.world.pass_("again")
        if rank in self.world.broken_ranks:
            raise NodeFailed(rank, "Node {rank} ended before it answered ({why}).", why="exited 1")
        key = (self.user.name, self.name, rank)
        assert key not in self.world.nodes, "two of a rank"
        self.world.nodes[key] = Node(run.id, started_at=utcnow(), how=how)
        progress.placed(rank, host="there")
        await self.world.pass_("answer again")
        progress.ready(rank, url=self.world.moved_url or self.world.url)


class NoopCluster(MemoryCluster):
    """Makes nothing, at once: what is left of a start is the hub and the rules. ``world`` answers for it."""

    backend_name = "noop"

    async def create_nodes(self, run: Run, plan: ClusterPlan, progress: NodeProgress) -> None:
        for rank in range(plan.nodes):
            progress.ready(rank, url=self.world.url)

    async def look_at_nodes(self, run: Run) -> Mapping[int, NodeLook]:
        return {rank: NodeLook(alive=True) for rank in range(run.nodes)}

    async def remove_nodes(self, run: Run) -> Mapping[int, NodeEnd]:
        return {}


def plan_of(user: str = "ada", server: str = "heat", **changes: Any) -> ClusterPlan:
    """A small plan; ``changes`` are fields of :class:`ClusterPlan`."""
    plan = ClusterPlan(
        user=user,
        server=server,
        project_id="0" * 26,
        project_owner=user,
        project_slug=server,
        project_name=server.capitalize(),
        environment=EnvironmentChoice(name="jupyter"),
        mounts=(Mount(source="/nowhere", target="work"),),
        nodes=1,
        cpu_millicores=1000,
        memory_bytes=GIB,
    )
    return replace(plan, **changes)


class PlainResolver:
    """Every server name is a project; somebody else's is not found."""

    async def resolve(self, person: Person, server: str, request: ClusterRequest) -> ClusterPlan:
        if request.project and request.project not in (server, f"{person.name}/{server}"):
            raise UserError(404, "There is no project “{project}”.", project=request.project)
        plan = plan_of(person.name, server)
        return replace(
            plan,
            nodes=request.nodes or plan.nodes,
            cpu_millicores=request.cpu_millicores or plan.cpu_millicores,
            memory_bytes=request.memory_bytes or plan.memory_bytes,
            gpu=request.gpu or 0,
            on_node_loss=request.on_node_loss or plan.on_node_loss,
            release_policy=request.release or plan.release_policy,
        )
