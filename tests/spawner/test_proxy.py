"""Routes of nodes: kept, repaired, taken away; with a proxy in memory and with the real one."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest

from galilean.clock import utcnow
from spawner import records
from spawner.proxy import ClusterProxy, last_activity, node_spec
from tests.spawner.conftest import Hub, HubFactory

CHP = Path(__file__).parents[2] / "node_modules" / ".bin" / "configurable-http-proxy"


@pytest.fixture
async def running(hub: Hub) -> Hub:
    assert (await hub.post(options={"nodes": 3})).status_code == 201
    return hub


def specs(hub: Hub) -> set[str]:
    spec = hub.spawner().proxy_spec
    return {hub.app.hub.routespec, spec, node_spec(spec, 1), node_spec(spec, 2)}


async def check(hub: Hub, **kwargs) -> None:
    await hub.app.proxy.check_routes(hub.app.users, hub.app._service_map, **kwargs)


async def test_a_check_of_what_is_right_changes_nothing(running: Hub):
    before = dict(running.app.proxy.table)
    await check(running)
    await check(running, routes=await running.app.proxy.get_all_routes())
    assert running.app.proxy.table == before
    assert set(before) == specs(running)


async def test_a_proxy_that_came_back_empty_is_filled_nodes_too(running: Hub):
    running.app.proxy.table.clear()
    await check(running)
    assert set(running.app.proxy.table) == specs(running)


async def test_a_proxy_with_nothing_but_routes_of_nodes_keeps_them(running: Hub):
    table = running.app.proxy.table
    for spec in list(table):
        if "node" not in table[spec]["data"]:
            del table[spec]
    assert len(table) == 2
    await check(running)
    assert set(table) == specs(running)


async def test_missing_stale_and_wrong_routes_of_nodes_are_put_right(running: Hub):
    table = running.app.proxy.table
    spec = running.spawner().proxy_spec
    del table[node_spec(spec, 1)]
    table[node_spec(spec, 2)]["target"] = "http://127.0.0.1:1"
    table[node_spec(spec, 7)] = {
        "routespec": node_spec(spec, 7),
        "target": "http://127.0.0.1:1",
        "data": {"user": "ada", "server_name": "heat", "node": 7},
    }
    await check(running)
    assert set(table) == specs(running)
    assert table[node_spec(spec, 2)]["target"] == running.world.url


async def test_routes_of_a_cluster_on_its_way_are_left_alone(running: Hub):
    spawner = running.spawner()
    spec = spawner.proxy_spec
    del running.app.proxy.table[node_spec(spec, 1)]
    spawner._check_pending = True
    await check(running)
    assert node_spec(spec, 2) in running.app.proxy.table
    assert node_spec(spec, 1) not in running.app.proxy.table
    spawner._check_pending = False
    await check(running)
    assert set(running.app.proxy.table) == specs(running)


async def test_routes_of_nodes_that_nobody_runs_go(running: Hub):
    spec = running.spawner().proxy_spec
    await running.delete()
    running.app.proxy.table[node_spec(spec, 1)] = {
        "routespec": node_spec(spec, 1),
        "target": running.world.url,
        "data": {"user": "ada", "server_name": "heat", "node": 1},
    }
    await check(running)
    assert set(running.app.proxy.table) == {running.app.hub.routespec}


async def test_a_proxy_that_is_away_does_not_keep_nodes_from_being_removed(running: Hub, monkeypatch):
    async def away(*args):
        raise TimeoutError("the proxy does not answer")

    with monkeypatch.context() as patch:
        patch.setattr(running.app.proxy, "delete_route", away)
        assert (await running.delete()).status_code == 204
    assert running.world.nodes == {}
    assert (await running.run()).word == "released"
    await check(running)
    assert set(running.app.proxy.table) == {running.app.hub.routespec}


async def test_presence_is_the_latest_of_all_routes_and_only_moves_forward(running: Hub):
    proxy = running.app.proxy
    spec = running.spawner().proxy_spec
    seen = utcnow()
    proxy.table[node_spec(spec, 2)]["data"]["last_activity"] = seen.isoformat()
    assert await proxy.sample_presence(running.db) == 1
    assert (await running.run()).proxy_seen_at == seen
    assert await proxy.sample_presence(running.db) == 0
    for route in proxy.table.values():
        route["data"]["last_activity"] = "2020-01-01T00:00:00.000Z"
    proxy._sampled.clear()
    await proxy.sample_presence(running.db)
    assert (await running.run()).proxy_seen_at == seen


def test_last_activity_is_read_in_the_proxys_own_form():
    routes = {
        "/": {"data": {"hub": True, "last_activity": "2026-11-22T12:00:00.000Z"}},
        "/user/ada/": {"data": {"user": "ada", "server_name": "", "last_activity": "2026-11-22T12:00:00Z"}},
        "a": {"data": {"user": "ada", "server_name": "heat", "last_activity": "2026-11-22T12:00:01.500Z"}},
        "b": {
            "data": {
                "user": "ada",
                "server_name": "heat",
                "node": 1,
                "last_activity": "2026-11-22T14:00:00+02:00",
            }
        },
        "c": {"data": {"user": "bob", "server_name": "heat"}},
    }
    assert last_activity(routes) == {("ada", "heat"): datetime(2026, 11, 22, 12, 0, 1, 500000, UTC)}


@pytest.fixture
def real_proxy(tmp_path: Path) -> Iterator[tuple[str, str]]:
    """A configurable-http-proxy of this test's own: its public URL and its API's."""
    ports = []
    for _ in range(2):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            ports.append(probe.getsockname()[1])
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(
            [CHP, "--ip=127.0.0.1", f"--port={ports[0]}", "--api-ip=127.0.0.1", f"--api-port={ports[1]}"],
            env={**os.environ, "CONFIGPROXY_AUTH_TOKEN": "t"},
            stdout=log,
            stderr=log,
        )
    yield f"http://127.0.0.1:{ports[0]}", f"http://127.0.0.1:{ports[1]}"
    process.terminate()
    process.wait(10)


@pytest.mark.process
async def test_the_real_proxy_carries_every_node_behind_an_awkward_base_url(
    hub_of: HubFactory, real_proxy: tuple[str, str]
):
    class RealProxy(ClusterProxy):
        api_url = real_proxy[1]

    hub = await hub_of(proxy_class=RealProxy)
    assert (await hub.post(options={"nodes": 2})).status_code == 201
    spec = hub.spawner().proxy_spec
    assert "%20" in spec
    async with httpx.AsyncClient(base_url=real_proxy[0]) as client:
        for path in (f"{spec}api", f"{spec}node-1/api"):
            assert (await client.get(path)).text == "{}"
    routes = await hub.app.proxy.get_all_routes()
    assert routes[node_spec(spec, 1)]["data"]["node"] == 1
    await hub.app.proxy.delete_route(node_spec(spec, 1))
    await hub.app.update_last_activity()
    assert node_spec(spec, 1) in await hub.app.proxy.get_all_routes()
    assert not await hub.app.proxy.refill()
    for lost in list(await hub.app.proxy.get_all_routes()):  # what a killed and restarted proxy has
        await hub.app.proxy.delete_route(lost)
    assert await hub.app.proxy.refill()
    assert set(await hub.app.proxy.get_all_routes()) == {hub.app.hub.routespec, spec, node_spec(spec, 1)}
    assert await hub.app.proxy.sample_presence(hub.db) == 1
    run = await hub.run()
    assert run.proxy_seen_at is not None
    await hub.delete()
    assert (await hub.db.run_read(records.count_open)) == 0
    assert set(await hub.app.proxy.get_all_routes()) == {hub.app.hub.routespec}
