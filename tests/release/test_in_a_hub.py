"""The release service against a real hub, with the token that it gets in the product and no more."""

from __future__ import annotations

from datetime import timedelta

import pytest
from jupyterhub import orm

from galilean.clock import utcnow
from galilean.hubapi import HubAPI
from galilean.settings import Settings
from hub_config.roles import SERVICE_SCOPES
from services.release.entries import EntryCleaner
from services.release.releaser import Releaser
from services.release.watch import Watch
from spawner import records
from tests.release.worlds import Backend
from tests.spawner.conftest import Hub

pytestmark = pytest.mark.hub


def api(hub: Hub, service: str) -> HubAPI:
    """The hub by a token that may exactly what the service may."""
    boss = hub.app.db.query(orm.User).filter(orm.User.name == "boss").one()
    # This hub has no scopes of the product's own; test_post.py mails with them.
    scopes = [scope for scope in SERVICE_SCOPES[service] if not scope.startswith("custom:")]
    token = boss.new_api_token(scopes=scopes)
    return HubAPI(f"{hub.app.hub.url.rstrip('/')}/api", token)


async def test_a_left_cluster_is_stopped_through_the_hub_with_its_reason(hub: Hub) -> None:
    await hub.post(options={"nodes": 2})
    seconds = 0.0
    began = utcnow()
    service = Releaser(
        Settings(),
        hub.db,
        api(hub, "release"),
        Backend(),
        clock=lambda: began + timedelta(seconds=seconds),
        monotonic=lambda: seconds,
    )
    service.watch = Watch(gap_seconds=1000)
    await service.tick()
    assert (await hub.run()).word == "running"
    seconds = 400
    await service.tick()
    run = await hub.closed()
    assert (run.reason, run.stop_asked_by) == ("left", "service:release")
    assert not hub.world.nodes
    assert await hub.model() is None
    await service.hub.close()


async def test_the_entries_of_refused_and_ended_servers_go_and_others_stay(hub: Hub) -> None:
    assert (await hub.post("refused", options={"nodes": 99})).status_code == 429
    await hub.post("ended")
    await hub.delete("ended")
    await hub.post("runs")
    release = api(hub, "release")
    cleaner = EntryCleaner(hub.db, release)
    assert [await cleaner.clean(), await cleaner.clean()] == [0, 2]
    answer = await hub.request("GET", "/users/ada?include_stopped_servers=1", name="boss")
    assert {name for name in answer.json()["servers"] if name} == {"runs"}
    assert (await hub.run("runs")).word == "running"
    assert (await hub.post("refused")).status_code == 201  # can be started again
    await release.close()


async def test_a_stop_that_nobody_sent_to_the_hub_is_carried_out(hub: Hub) -> None:
    await hub.post()
    run = await hub.run()
    await hub.db.run(records.ask_stop, run.id, reason="user", asked_by="ada", now=utcnow())
    seconds = 0.0
    release = api(hub, "release")
    service = Releaser(Settings(), hub.db, release, Backend(), monotonic=lambda: seconds)
    await service.tick()
    seconds = 6
    await service.tick()
    assert (await hub.closed()).reason == "user"
    await release.close()
