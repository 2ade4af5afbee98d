"""The whole hub as it is wired, in the test's own process; only the nodes and the proxy are in memory."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from traitlets.config import Config

from galilean.db import Database, metadata
from galilean.hubapi import HubAPI
from galilean.settings import Settings, load_settings
from hub_config.hub import GalileanHub
from hub_config.ports import keep_ports
from hub_config.secrets import Secrets, load_secrets
from hub_config.wiring import configure
from tests.spawner.backends import MemoryCluster, World
from tests.spawner.conftest import MemoryProxy


class QuietHub(GalileanHub):
    """Takes its configuration from the test, and no signal."""

    def load_config_file(self, *args: Any, **kwargs: Any) -> None: ...
    def init_signal(self) -> None: ...

    def init_logging(self) -> None:
        super().init_logging()
        self.log.propagate = True
        self.log.handlers.clear()


class Site:
    """A hub that runs, and people's browsers and scripts."""

    def __init__(self, app: Any, settings: Settings, secrets: Secrets) -> None:
        self.app, self.settings, self.secrets = app, settings, secrets
        self.url = app.hub.url.rstrip("/")  # …/hub

    def api(self, token: str) -> HubAPI:
        return HubAPI(f"{self.url}/api", token)

    @property
    def command(self) -> HubAPI:
        return self.api(self.secrets.tokens["command"])

    async def person(self, name: str, *roles: str) -> HubAPI:
        """An account with roles, and the hub with a token of that person."""
        await self.command.request("POST", f"/users/{name}")
        for role in roles:
            await self.command.add_to_group(f"galilean:{role}", name)
        return self.api(await self.token(name))

    async def token(self, name: str) -> str:
        return (await self.command.request("POST", f"/users/{name}/tokens", json={})).json()["token"]

    def browser(self, language: str = "en") -> httpx.AsyncClient:
        return httpx.AsyncClient(
            base_url=self.url.removesuffix("/hub"), headers={"Accept-Language": language}, timeout=90
        )


async def fill(browser: httpx.AsyncClient, path: str, **fields: str) -> httpx.Response:
    """Open a page and send its form, as a browser does."""
    page = await browser.get(path)
    token = re.search(r'name="_xsrf" value="([^"]+)"', page.text)
    assert token, page.text[:500]
    return await browser.post(path, data={"_xsrf": token[1], **fields})


SiteFactory = Callable[..., Awaitable[Site]]


@pytest.fixture
async def site_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[SiteFactory]:
    """Start a site; a second one on the same state is the next start."""
    monkeypatch.setattr(MemoryProxy, "table", {})
    world = World()
    await world.open()
    state = tmp_path / "state"
    apps: list[Any] = []

    async def stop(app: Any) -> None:
        for chore in app._chores:
            chore.cancel()
        app.http_server.stop()
        await app.http_server.close_all_connections()
        app.metrics_collector.stop()
        for callback in app._periodic_callbacks.values():
            callback.stop()
        await app.cleanup()
        app.wiring.database.close()
        app.db.close()
        QuietHub.clear_instance()

    async def make(file: dict[str, Any] | None = None, **environ: str) -> Site:
        while apps:
            await stop(apps.pop())
        for name in ("run", "secrets", "volumes"):
            (state / name).mkdir(parents=True, exist_ok=True, mode=0o700)
        yaml_file = tmp_path / "galilean.yaml"
        yaml_file.write_text(yaml.safe_dump(file or {}))
        env = {"GALILEAN_CONFIG": str(yaml_file), "GALILEAN_STATE": str(state), **environ}
        settings, secrets = load_settings(environ=env), load_secrets(state)
        keep_ports(state)
        database = Database(settings.database_url)
        metadata.create_all(database.engine)
        database.close()
        config = Config()
        configure(config, env)
        config.JupyterHub.spawner_class = MemoryCluster
        config.JupyterHub.proxy_class = MemoryProxy
        config.MemoryCluster.world = world
        # The portal is not here: do not wait for it.
        for service in config.JupyterHub.services:
            service["timeout"] = 0
        QuietHub.clear_instance()
        app: Any = QuietHub.instance(config=config)
        await app.initialize([])
        await app.start()
        apps.append(app)
        return Site(app, settings, secrets)

    yield make
    while apps:
        await stop(apps.pop())
    await world.close()
    await asyncio.sleep(0)
