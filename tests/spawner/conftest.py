"""Real hubs with a backend in memory, one after another on the same databases, and a proxy in memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest
from jupyterhub import orm
from jupyterhub.tests.mocking import MockHub
from traitlets.config import Config

from extensions.quota.admission import Fixed, QuotaAdmission
from extensions.quota.limits import Limits as Bounds
from galilean.clock import utcnow
from galilean.db import Database
from galilean.settings import Limits
from spawner import records
from spawner.collaborators import Collaborators
from spawner.proxy import ClusterProxy
from spawner.records import NodeInterval, Run
from tests.spawner.backends import MemoryCluster, PlainResolver, World

GENEROUS = Limits.model_validate(
    {"clusters": 20, "nodes": 8, "cpu": 8, "memory": "8G", "total_cpu": 100, "total_memory": "100G"}
)


class MemoryProxy(ClusterProxy):
    """Routes in a dictionary that outlives the hub, as a proxy of its own process does."""

    table: dict[str, dict[str, Any]] = {}

    async def add_route(self, routespec: str, target: str, data: Any) -> None:
        data = {**data, "jupyterhub": True, "last_activity": utcnow().isoformat()}
        self.table[routespec] = {"routespec": routespec, "target": target, "data": data}

    async def delete_route(self, routespec: str) -> None:
        self.table.pop(routespec, None)

    async def has_route(self, spec: str) -> bool:
        return spec in self.table

    async def get_all_routes(self) -> dict[str, dict[str, Any]]:
        return {spec: {**route, "data": dict(route["data"])} for spec, route in self.table.items()}


@dataclass
class Hub:
    """A hub in this process, and a person's requests to it."""

    app: Any
    world: World
    db: Database
    tokens: dict[str, str] = field(default_factory=dict)

    def token(self, name: str) -> str:
        if name not in self.tokens:
            user = self.app.db.query(orm.User).filter(orm.User.name == name).one()
            self.tokens[name] = user.new_api_token()
        return self.tokens[name]

    async def request(
        self, method: str, path: str, body: Any = None, *, name: str = "ada", **headers: str
    ) -> httpx.Response:
        async with httpx.AsyncClient(timeout=120) as client:
            return await client.request(
                method,
                f"{self.app.hub.url.rstrip('/')}/api{path}",
                json=body,
                headers={
                    "Authorization": f"token {self.token(name)}",
                    "Accept": "application/json",
                    **headers,
                },
            )

    async def post(self, server: str = "heat", options: Any = None, **kwargs: Any) -> httpx.Response:
        user = kwargs.pop("user", "ada")
        body = None if options is None else {"user_options": options}
        return await self.request("POST", f"/users/{user}/servers/{server}", body, **kwargs)

    async def delete(self, server: str = "heat", **kwargs: Any) -> httpx.Response:
        return await self.request("DELETE", f"/users/ada/servers/{server}", **kwargs)

    async def model(self, server: str = "heat") -> dict[str, Any] | None:
        answer = await self.request("GET", "/users/ada")
        return answer.json()["servers"].get(server)

    def spawner(self, server: str = "heat") -> Any:
        user = self.app.users["ada"]
        return user.spawners[server]

    async def run(self, server: str = "heat") -> Run:
        """The newest run of the server, open or closed."""
        runs = await self.db.run_read(records.list_runs, user="ada", open_only=False)
        return next(run for run in runs if run.server == server)

    async def intervals(self, run: Run) -> list[NodeInterval]:
        return (await self.db.run_read(records.intervals, [run.id]))[run.id]

    async def until(self, true: Callable[[], Awaitable[Any]], what: str = "it") -> Any:
        """Wait until ``true`` answers something; 15 s is what a person would wait at most."""
        end = asyncio.get_running_loop().time() + 15
        while asyncio.get_running_loop().time() < end:
            found = await true()
            if found:
                return found
            await asyncio.sleep(0.02)
        raise AssertionError(f"{what} did not happen")

    async def closed(self, server: str = "heat") -> Run:
        """The newest run once its row is closed."""

        async def look() -> Run | None:
            run = await self.run(server)
            return run if run.released_at else None

        return await self.until(look, "closing the row")

    async def die(self, *, politely: bool = False) -> None:
        """What kill -9 leaves: no request is answered, no task goes on, nothing more is written.

        ``politely`` is what SIGTERM leaves: the hub's own clean-up of what was under way is written.
        """
        self.app.http_server.stop()
        for user in list(self.app.users.values()):
            for spawner in list(user.spawners.values()):
                spawner.stop_polling()

        def too_late() -> None:
            raise RuntimeError("the hub is dead")

        if not politely:
            self.app.db.commit = too_late
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()
        for _ in range(5):
            await asyncio.sleep(0)
        self.app.db.rollback()
        self.app.db.close()
        # Nor does what comes to its end later hold the database's lock against the next hub.
        self.app.db.flush = self.app.db.commit = too_late
        MockHub.clear_instance()


HubFactory = Callable[..., Awaitable[Hub]]


@pytest.fixture
async def world() -> AsyncIterator[World]:
    world = World()
    await world.open()
    yield world
    for gate in world.gates.values():
        gate.set()
    await world.close()


@pytest.fixture
async def hub_of(
    tmp_path: Any, world: World, sqlite_db: Database, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[HubFactory]:
    """Make a hub; a second one on the same databases comes up as the next hub does after a crash."""
    monkeypatch.setenv("JUPYTERHUB_TEST_DB_URL", f"sqlite:///{tmp_path / 'hub.sqlite'}")
    monkeypatch.setattr(MockHub, "test_clean_db", False)
    monkeypatch.setattr(MemoryProxy, "table", {})
    hubs: list[Hub] = []

    async def make(limits: Limits | None = GENEROUS, room: Any = None, **traits: Any) -> Hub:
        MockHub.clear_instance()
        database = Database(str(sqlite_db.engine.url), threads=1)
        spawner = traits.pop("spawner_class", MemoryCluster)
        resolver = traits.pop("resolver", PlainResolver())
        admission = traits.pop("admission", None) or QuotaAdmission(
            database, Fixed(Bounds.from_settings(limits) if limits else None), room, backend="memory"
        )
        config = Config()
        config.JupyterHub.update(
            {
                "spawner_class": spawner,
                "proxy_class": traits.pop("proxy_class", MemoryProxy),
                "allow_named_servers": True,
                "cleanup_servers": False,
                "init_spawners_timeout": 1,
                "last_activity_interval": 3600,
                "cookie_secret": b"c" * 32,  # none is left in the working directory
                # On a busy machine everything takes its time, and a test that waits for the end of a start shall have it.
                "tornado_settings": {"slow_spawn_timeout": 60, "slow_stop_timeout": 60},
                "load_roles": [
                    {"name": "boss", "users": ["boss"], "scopes": ["admin:users", "admin:servers", "tokens"]},
                    {"name": "starts", "services": ["queue"], "scopes": ["servers", "read:users"]},
                ],
                "services": [{"name": "queue", "api_token": "queue-" + "q" * 30}],
            }
        )
        config.ConfigurableHTTPProxy.should_start = False
        config.ClusterProxy.watch_seconds = 0  # tests look by hand
        config.ConfigurableHTTPProxy.auth_token = "t"
        config.Authenticator.allowed_users = {"ada", "bob", "boss"}
        config.VirtualCluster.collaborators = Collaborators(
            database=database, resolver=resolver, admission=admission
        )
        config.MemoryCluster.world = world
        config.VirtualCluster.poll_interval = 3600  # tests poll by hand
        config.VirtualCluster.stop_patience = 2.0
        for name, value in traits.items():
            config.VirtualCluster[name] = value
        app: Any = MockHub.instance(config=config)
        await app.initialize()
        app.log.setLevel("INFO")
        await app.start()
        hub = Hub(app, world, database)
        hub.tokens["service:queue"] = "queue-" + "q" * 30
        hubs.append(hub)
        return hub

    yield make
    for gate in world.gates.values():
        gate.set()
    world.unreachable, world.remove_failures = False, 0
    for hub in hubs:
        hub.app.log.handlers = []
        hub.app.http_server.stop()
        for user in list(hub.app.users.values()):
            for spawner in list(user.spawners.values()):
                spawner.stop_polling()
    await hubs[-1].app.shutdown_cancel_tasks() if hubs else None
    for hub in hubs:
        hub.db.close()
    MockHub.clear_instance()


@pytest.fixture
async def hub(hub_of: HubFactory) -> Hub:
    return await hub_of()
