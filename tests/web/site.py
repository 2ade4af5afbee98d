"""A portal with a fake hub beside it, on real sockets, in a loop and thread of their own.

The front is one origin, as behind the proxy: the portal's server also passes ``/hub`` and ``/user`` on to
the fake hub's handlers.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import insert
from tornado.httpserver import HTTPServer
from tornado.testing import bind_unused_port
from ulid import ULID

import services.catalog.tables
import services.people.tables
import spawner.tables
from galilean.db import Database, metadata
from galilean.settings import Settings, parse_settings
from galilean.web.context import Portal
from hub_config.seeding import seed
from services.catalog import store
from services.catalog.volumes import ensure_volumes
from services.portal.app import make_app, make_portal
from spawner.tables import cluster_nodes, clusters
from tests.web.fake_hub import PORTAL_TOKEN, FakeHub

GIB = 2**30


class Site:
    """The portal at ``url``, the fake hub as ``hub``, and helpers that put rows into the database."""

    def __init__(self, state: Path, yaml: str = "") -> None:
        self.settings: Settings = parse_settings(yaml, environ={"GALILEAN_STATE": str(state)})
        state.mkdir(parents=True, exist_ok=True)
        self.hub = FakeHub()
        self.portal: Portal
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._problem: BaseException | None = None

    def __enter__(self) -> Site:
        database = Database(self.settings.database_url)
        metadata.create_all(database.engine)
        with database.write() as conn:
            ensure_volumes(conn, self.settings, datetime.now(UTC))
            seed(conn, self.settings, datetime.now(UTC))
        database.close()
        self._thread.start()
        self._ready.wait(120)
        if self._problem:
            raise self._problem
        return self

    def __exit__(self, *_: Any) -> None:
        self.loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(60)

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except BaseException as error:
            self._problem = error
            self._ready.set()
            raise

    async def _serve(self) -> None:
        self.loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        hub_port = self.hub.start()
        self.portal = make_portal(
            self.settings,
            {
                "JUPYTERHUB_API_URL": f"http://127.0.0.1:{hub_port}/hub/api",
                "JUPYTERHUB_API_TOKEN": PORTAL_TOKEN,
                "JUPYTERHUB_CLIENT_ID": "service-portal",
            },
        )
        self.app = make_app(self.portal, cookie_secret=b"0" * 32)
        # One origin for the browser, as behind the proxy.
        self.app.settings["hub"] = self.hub
        for rule in reversed(self.hub.application().default_router.rules[0].target.rules):
            self.app.wildcard_router.rules.insert(0, rule)
        sock, self.port = bind_unused_port()
        self.url = f"http://127.0.0.1:{self.port}/services/portal/"
        server = HTTPServer(self.app)
        server.add_socket(sock)
        watching = asyncio.create_task(self.portal.parts["watcher"].run())
        self._ready.set()
        await self._stop.wait()
        watching.cancel()
        self.portal.parts["watcher"].close()
        server.stop()
        self.hub.server.stop()
        await self.portal.hub.close()
        self.portal.files.shutdown(wait=False)
        self.portal.db.close()

    def write(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Run ``function(conn, …)`` on the site's database."""
        with self.portal.db.write() as conn:
            return function(conn, *args, **kwargs)

    def project(self, owner: str, name: str, **more: Any) -> store.Project:
        """A project, without a directory."""
        return self.write(
            store.create, owner=owner, name=name, volume_id="default", now=more.pop("now", now()), **more
        )

    def cluster(self, user: str, name: str = "Heat flow", **more: Any) -> str:
        """An open run with its nodes; answers its id."""
        return self.write(add_cluster, user, name, **more)


def now() -> datetime:
    return datetime.now(UTC)


def add_cluster(
    conn: Any,
    user: str,
    name: str = "Heat flow",
    *,
    slug: str = "",
    nodes: int = 1,
    status: str = "running",
    held: timedelta = timedelta(minutes=41, seconds=12),
    cpu_millicores: int = 2000,
    memory_bytes: int = 8 * GIB,
    gpu: int = 0,
    release_policy: str = "auto",
    released: bool = False,
    project_id: str = "",
    ready_at: datetime | None = None,
    **more: Any,
) -> str:
    run_id = str(ULID())
    begin = ready_at or now() - held
    running = status in ("running", "stopping", "released")
    slug = slug or store.slugify(name)
    conn.execute(
        insert(clusters).values(
            id=run_id, user=user, server=f"{slug}-{run_id[-6:].lower()}"[:30], project_id=project_id or str(ULID()),
            project_owner=user, project_slug=slug, project_name=name, environment="jupyter",
            backend="process", nodes=nodes, cpu_millicores=cpu_millicores, memory_bytes=memory_bytes, gpu=gpu,
            release_policy=release_policy, request={}, status=status, asked_by=user, queued_at=begin,
            reserved_at=begin, ready_at=begin if running else None,
            released_at=begin + held if released else None, **more,
        )
    )  # fmt: skip
    for rank in range(nodes):
        conn.execute(
            insert(cluster_nodes).values(
                cluster_id=run_id, rank=rank, attempt=1, name=f"node-{rank}", placed_at=begin,
                ready_at=begin if running else None, gone_at=begin + held if released else None,
            )
        )  # fmt: skip
    return run_id


__all__ = ["Site", "add_cluster", "services", "spawner"]
