"""A proxy route for every node, and the proxy's own word on when somebody was there (design §4, §6).

``/user/U/S/`` leads to node 0, as the hub has it; ``/user/U/S/node-i/`` leads straight to node i, with no
hop through node 0. Specs are built from ``spawner.proxy_spec`` (right with and without subdomains), targets
from our row, never from the hub's ``server.base_url`` or from what a watch happens to know.

The hub deletes every route that it does not know, and fetches all of them again when it is handed none: so
its check is given all routes but ours, and never nothing; a proxy that came back empty is filled, nodes too.

**Presence.** A route's last activity moves on request bodies (also of a refused, anonymous POST), on what a
browser sends over a websocket (pongs too), on finished 2xx answers, and when the route is added. It does
not move on answers from 300 on, nor on what a node sends. So it is one witness of two.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

from aiohttp import ClientResponseError
from dateutil.parser import isoparse
from jupyterhub.proxy import ConfigurableHTTPProxy
from jupyterhub.utils import url_path_join
from tornado.ioloop import PeriodicCallback
from traitlets import Any as AnyTrait
from traitlets import Float

from galilean.db import Database
from spawner import records
from spawner.collaborators import Collaborators


class ClusterProxy(ConfigurableHTTPProxy):
    """The hub's proxy class with node routes; their data carry user, server name and rank."""

    collaborators = AnyTrait(
        help="A spawner.collaborators.Collaborators; its database takes the sampled presence."
    ).tag(config=True)
    presence_seconds = Float(30, help="How often the proxy's last activity is sampled; 0 = never.").tag(
        config=True
    )

    watch_seconds = Float(
        2, help="How often to see whether the proxy has come back empty and must be filled; 0 = never."
    ).tag(config=True)

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._checking: asyncio.Lock | None = None
        self._ranks: dict[str, int] = {}
        self._sampled: dict[tuple[str, str], datetime] = {}
        self._periodic: list[PeriodicCallback] = []

    # ------------------------------------------------------------------------------------------- routes

    async def add_user(self, user: Any, server_name: str = "") -> None:
        """Add the server's route and one for each further node."""
        spawner = user.spawners[server_name]
        wanted = node_routes(spawner)
        self._ranks[spawner.proxy_spec] = max((rank for rank, _ in wanted.values()), default=0)
        await asyncio.gather(
            super().add_user(user, server_name),
            *(
                self._add_node(user.name, server_name, spec, rank, target)
                for spec, (rank, target) in wanted.items()
            ),
        )

    async def delete_user(self, user: Any, server_name: str = "") -> None:
        """Delete the server's route and its nodes'; ranks this process never added are found by the check."""
        spec = user.proxy_spec
        if server_name:
            spec = url_path_join(spec, server_name, "/")
        ranks = self._ranks.pop(spec, 0)
        if server_name in user.spawners:
            ranks = max(ranks, *getattr(user.spawners[server_name], "node_urls", {}), 0)
        self._sampled.pop((user.name, server_name), None)
        try:
            await asyncio.gather(
                super().delete_user(user, server_name),
                *(self.delete_route(node_spec(spec, rank)) for rank in range(1, ranks + 1)),
            )
        except Exception as error:  # raised, it would keep the hub from stopping the nodes
            self.log.warning("Routes of %s are left to the next check, the proxy is away: %s", spec, error)

    async def check_routes(
        self, user_dict: Any, service_dict: Any, routes: Mapping[str, Any] | None = None
    ) -> None:
        """The hub's check for its own routes, then ours for the nodes'."""
        async with self._one_check():
            if not routes:
                routes = await self.get_all_routes()
            nodes = {spec: route for spec, route in routes.items() if "node" in route["data"]}
            others = {spec: route for spec, route in routes.items() if spec not in nodes}
            if not others:  # handed nothing, the parent would fetch all and delete ours
                hub = self.app.hub
                await self.add_hub_route(hub)
                others = {
                    hub.routespec: {"routespec": hub.routespec, "target": hub.host, "data": {"hub": True}}
                }
            await super().check_routes(user_dict, service_dict, others)
            await self._check_nodes(user_dict, nodes)
        self._keep_looking()

    async def _check_nodes(self, user_dict: Any, have: Mapping[str, Any]) -> None:
        wanted: dict[str, tuple[str, str, int, str]] = {}
        pending: list[str] = []
        for user, name, spawner in _spawners(user_dict):
            if spawner.pending:  # on its way up, down or into memory: judged once that is over
                pending.append(spawner.proxy_spec)
            elif spawner.ready:
                for spec, (rank, target) in node_routes(spawner).items():
                    wanted[spec] = (user.name, name, rank, target)
        changes: list[Any] = []
        for spec, (user_name, name, rank, target) in wanted.items():
            if spec not in have or have[spec]["target"] != target:
                self.log.warning("Adding missing or changed route of a node: %s", spec)
                changes.append(self._add_node(user_name, name, spec, rank, target))
        for spec in have:
            if spec not in wanted and not any(spec.startswith(prefix) for prefix in pending):
                self.log.warning("Deleting stale route of a node: %s", spec)
                changes.append(self.delete_route(spec))
        await asyncio.gather(*changes)

    async def _add_node(self, user: str, server: str, spec: str, rank: int, target: str) -> None:
        await self.add_route(spec, target, {"user": user, "server_name": server, "node": rank})

    @asynccontextmanager
    async def _one_check(self) -> AsyncIterator[None]:
        if self._checking is None:
            self._checking = asyncio.Lock()
        async with self._checking:
            yield

    async def refill(self) -> bool:
        """Fill a proxy that lost its routes, as one does that was killed; whether it had.

        The hub itself notices only at its next check, minutes later. One route stands for all.
        """
        known = next(iter(self._ranks), None)
        try:
            if known is None:
                empty = not await self.get_all_routes()
            else:
                empty = not await self.has_route(known)
            if empty:
                self.log.warning("The proxy has lost its routes, filling it again")
                await self.check_routes(self.app.users, self.app._service_map)
        except Exception as error:
            self.log.warning("The proxy cannot be asked: %s", error)
            return False
        return empty

    async def has_route(self, spec: str) -> bool:
        """Whether the proxy has this very route."""
        try:
            await self.api_request(self._routespec_to_chp_path(spec))
        except ClientResponseError as error:
            if error.status == 404:
                return False
            raise
        return True

    # ----------------------------------------------------------------------------------------- presence

    async def sample_presence(self, database: Database | None = None) -> int:
        """Write the proxy's last activity of each cluster into its row, only forward; how many moved."""
        ours: Database = database or self.collaborators.database
        latest = last_activity(await self.get_all_routes())
        moved = [
            (user, server, at)
            for (user, server), at in latest.items()
            if self._sampled.get((user, server), _NEVER) < at
        ]
        if moved:
            await ours.run(records.saw_at_proxy, moved)
        self._sampled = latest
        return len(moved)

    def _keep_looking(self) -> None:
        if self._periodic:
            return
        if self.watch_seconds > 0:
            self._periodic.append(PeriodicCallback(self.refill, 1000 * self.watch_seconds))
        if self.presence_seconds > 0 and isinstance(self.collaborators, Collaborators):
            self._periodic.append(PeriodicCallback(self._sample_or_tell, 1000 * self.presence_seconds))
        for periodic in self._periodic:
            periodic.start()

    async def _sample_or_tell(self) -> None:
        try:
            await self.sample_presence()
        except Exception as error:
            self.log.warning("Presence could not be sampled at the proxy: %s", error)


_NEVER = datetime.min.replace(tzinfo=UTC)


def node_spec(spec: str, rank: int) -> str:
    """The route of a node below the server's own route."""
    return f"{spec.rstrip('/')}/node-{rank}/"


def node_routes(spawner: Any) -> dict[str, tuple[int, str]]:
    """The routes that a spawner's nodes should have: spec → (rank, target); node 0 has the server's own."""
    urls: Mapping[int, str] = getattr(spawner, "node_urls", {})
    return {
        node_spec(spawner.proxy_spec, rank): (rank, url.rstrip("/")) for rank, url in urls.items() if rank
    }


def last_activity(routes: Mapping[str, Any]) -> dict[tuple[str, str], datetime]:
    """When each cluster was last active at the proxy: the latest of its routes, by (user, server)."""
    latest: dict[tuple[str, str], datetime] = {}
    for route in routes.values():
        data = route["data"]
        if not data.get("server_name") or not data.get("user") or not data.get("last_activity"):
            continue
        at = isoparse(data["last_activity"])
        at = at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)
        key = (data["user"], data["server_name"])
        latest[key] = max(latest.get(key, _NEVER), at)
    return latest


def _spawners(user_dict: Any) -> Iterator[tuple[Any, str, Any]]:
    for user in user_dict.values():
        for name, spawner in list(user.spawners.items()):
            yield user, name, spawner
