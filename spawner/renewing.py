"""Carries out in the hub what was asked of single nodes (:mod:`spawner.renewal`); the others go on.

In this order, each step written down before the next: look whether the node can be made again (if not, nothing is
ended; once something was, nobody looks again), end what there is of it, make it anew, let the routes follow. Each step may be repeated, so a hub that was
killed in the middle needs no memory: the row still says that it was asked for, and the next hub begins anew
with ending whatever there is of that rank. So there are never two of a rank, and nothing is left over.

A node that does not come back is told in its row with the reason, and may be asked for again; until then the
cluster goes on without it, also without node 0, whatever ``on_node_loss`` says: somebody chose this. A stop of the
cluster ends what is under way and waits for it (:meth:`Renewals.settle`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from galilean.db import Database
from galilean.errors import UserError, mark
from spawner import attempts, renewal
from spawner.backend import NodeFailed
from spawner.proxy import node_spec
from spawner.records import NodeInterval, Run
from spawner.steps import NodeEnd

if TYPE_CHECKING:
    from spawner.cluster import VirtualCluster

_NOT_NOW = mark("The node was left as it is: what runs the nodes does not answer just now.")
_LATE = mark("Node {rank} did not answer in {seconds} s.")
_NO_PLACE = mark("There was no place for node {rank} within {seconds} s ({why}).")
_WRONG = mark("Something went wrong; an administrator finds more in the hub's log.")


class NodeBack:
    """What a backend tells of the node that it makes; implements :class:`spawner.backend.NodeProgress`.

    Parameters
    ----------
    placed
        Called once, with the host.
    """

    def __init__(self, placed: Callable[[str], None]) -> None:
        self._placed = placed
        self.host: str | None = None
        self.url = ""
        self.short = ""

    def placed(self, rank: int, *, host: str = "") -> None:
        if self.host is None:
            self.host = host
            self._placed(host)

    def ready(self, rank: int, *, url: str, host: str = "") -> None:
        self.placed(rank, host=host)
        self.url, self.host = url, host or self.host

    def trouble(self, rank: int, message: str, **params: object) -> None:
        self.short = str(params.get("short") or self.short)


class Renewals:
    """The nodes of one cluster that are being made anew."""

    def __init__(self, cluster: VirtualCluster) -> None:
        self._cluster = cluster
        self._tasks: dict[int, asyncio.Task[None]] = {}

    @property
    def ranks(self) -> frozenset[int]:
        """Which are."""
        return frozenset(self._tasks)

    def begin(self, run: Run, node: NodeInterval) -> None:
        """Make a node anew that was asked for; one that is under way stays so."""
        if node.rank in self._tasks or not self._cluster.goes_on(run):
            return
        task = asyncio.ensure_future(self._renew(run, node))
        self._tasks[node.rank] = task
        task.add_done_callback(lambda over: self._over(node, over))

    def _over(self, node: NodeInterval, task: asyncio.Task[None]) -> None:
        self._tasks.pop(node.rank, None)
        if not task.cancelled() and task.exception() is not None:
            self._cluster.log.error(
                "%s: node %d was not made anew, it will be tried again",
                self._cluster._log_name, node.rank, exc_info=task.exception(),
            )  # fmt: skip

    async def finished(self, rank: int) -> None:
        """Wait until a node is no longer under way."""
        task = self._tasks.get(rank)
        if task is not None:
            await asyncio.wait({task})

    async def settle(self) -> None:
        """End what is under way and wait for it: what it was about to write is then written."""
        tasks = set(self._tasks.values())
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    async def _renew(self, run: Run, node: NodeInterval) -> None:
        cluster, rank = self._cluster, node.rank
        log, name = cluster.log, cluster._log_name
        database, clock = cluster.collaborators.database, cluster.collaborators.clock
        log.info("%s: node %d is made anew (%s, asked by %s)", name, rank, node.asked_as, node.asked_by)
        if not await database.run_read(attempts.begun, node):  # else a hub before this one has ended it
            try:
                await cluster.check_node(run, rank, node.asked_as)
            except Exception as error:
                explanation = self._why(rank, error, otherwise=_NOT_NOW)
                await database.run(attempts.refuse, node, explanation)
                return
        await cluster.node_away(rank)
        end = await cluster.insist(f"end node {rank}", lambda: cluster.end_node(run, rank))
        told = end or NodeEnd(exit_reason="disappeared", seen_at=cluster.seen_at(rank))
        if not told.exit_reason:
            told = NodeEnd(at=told.at, exit_reason=renewal.ENDED_AS[node.asked_as])
        goes_on = await cluster.insist(
            "write an end", lambda: database.run(attempts.begin, node, told, now=clock())
        )
        if not goes_on:
            return
        try:
            back = await self._make(run, node)
        except Exception as error:
            explanation = self._why(rank, error, otherwise=_WRONG)
            await cluster.insist(f"end node {rank}", lambda: cluster.end_node(run, rank))
            await cluster.insist(
                "write a loss", lambda: database.run(attempts.fail, node, explanation, now=clock())
            )
            log.warning("%s: node %d did not come back: %s", name, rank, error)
            return
        written = await cluster.insist(
            "write that a node is back",
            lambda: database.run(attempts.ready, node, url=back.url, host=back.host or "", now=clock()),
        )
        if written:
            await cluster.node_back(rank, back.url)
            log.info("%s: node %d answers again", name, rank)

    async def _make(self, run: Run, node: NodeInterval) -> NodeBack:
        cluster = self._cluster
        database, clock = cluster.collaborators.database, cluster.collaborators.clock
        writing: list[asyncio.Future[None]] = []
        loop = asyncio.get_running_loop()
        end = loop.time() + max(1.0, cluster.start_timeout)
        try:
            async with asyncio.timeout_at(min(end, loop.time() + cluster.gang_timeout)) as limit:

                def placed(host: str) -> None:
                    writing.append(
                        asyncio.ensure_future(database.run(attempts.placed, node, host=host, now=clock()))
                    )
                    if not limit.expired():
                        limit.reschedule(end)

                back = NodeBack(placed)
                await cluster.make_node(run, node.rank, node.asked_as, back)
        except TimeoutError as error:
            if not limit.expired():
                raise
            if back.host is None:
                raise NodeFailed(
                    node.rank, _NO_PLACE, seconds=round(cluster.gang_timeout), why=back.short or "-"
                ) from error
            raise NodeFailed(node.rank, _LATE, seconds=round(cluster.start_timeout)) from error
        finally:
            await asyncio.gather(*writing, return_exceptions=True)
        if not back.url:
            raise RuntimeError(f"run {run.id}: node {node.rank} was made, but never reported")
        return back

    def _why(self, rank: int, error: Exception, *, otherwise: str) -> Mapping[str, Any]:
        """The sentence for the run's owner, as it is stored."""
        if isinstance(error, NodeFailed):
            return {"message": error.message, "params": {"rank": rank, **error.params}}
        if isinstance(error, UserError):
            return error.as_dict()
        self._cluster.log.error("%s: node %d: %r", self._cluster._log_name, rank, error, exc_info=error)
        return {"message": otherwise, "params": {"rank": rank}}


async def follow(cluster: VirtualCluster, rank: int, url: str) -> None:
    """Let the proxy's routes lead to where a node answers now."""
    user: Any = cluster.user
    server: Any = cluster.server
    if server is None:
        return
    if rank == 0:
        parts = urlsplit(url)
        server.proto, server.ip = parts.scheme, parts.hostname
        server.port = parts.port or (443 if parts.scheme == "https" else 80)
        cluster.db.commit()
    proxy = user.settings.get("proxy")
    if proxy is not None:
        await proxy.add_user(user, cluster.name)


async def unroute(cluster: VirtualCluster, rank: int) -> None:
    """Take away the proxy's route to a node other than node 0."""
    user: Any = cluster.user
    proxy = user.settings.get("proxy")
    if proxy is not None:
        await proxy.delete_route(node_spec(cluster.proxy_spec, rank))


async def attend_all(hub: Any, database: Database) -> None:
    """Begin whatever was asked of single nodes of the clusters that this hub knows."""
    for user_name, server, node in await database.run_read(attempts.asked):
        user = hub.users.get(user_name)
        spawner = user.spawners.get(server) if user is not None else None
        renewals: Renewals | None = getattr(spawner, "renewals", None)
        run = getattr(spawner, "run", None)
        if renewals is not None and run is not None and run.id == node.cluster_id:
            renewals.begin(run, node)
