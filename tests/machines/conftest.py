"""A portal of a Kubernetes site, the machines service's own address beside it, and visitors."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client import CollectorRegistry
from tornado.httpserver import HTTPServer
from tornado.testing import bind_unused_port
from tornado.web import Application

from galilean.hubapi import HubAPI
from galilean.service import Context
from services.machines import store
from services.machines.__main__ import routes
from services.machines.keeper import Keeper
from services.machines.rules import Machine
from services.machines.the_settings import pools_in
from tests.machines.machines import Air, machine
from tests.web.conftest import Visitor
from tests.web.site import Site, now

YAML = """
site: {{name: Campus, timezone: Asia/Shanghai}}
backend: kubernetes
addresses: {{hub: "http://10.0.0.1:8081", portal: "http://10.0.0.1:8080"}}
volumes: {{default: {{kind: claim, claim: projects, path: {work}}}}}
kubernetes: {{image: "galilean.example/jupyter:1"}}
machines: {{add: {add}}}
pools:
  default: {{title: Centre}}
  gpu: {{title: GPU machines, node_selector: {{pool: gpu}}, open_to: [researcher, admin]}}
"""


@dataclass
class Park:
    """A site, and the machines that its service sees."""

    site: Site
    air: Air

    def look(self) -> None:
        """One round of the machines service."""
        site = self.site

        async def round_() -> None:
            await Keeper(site.portal.db, self.air, pools_in(site.settings)).tick()

        asyncio.run_coroutine_threadsafe(round_(), site.loop).result(20)

    def rounds(self, number: int = 4) -> None:
        for _ in range(number):
            self.look()

    def history(self, name: str) -> list[Any]:
        with self.site.portal.db.read() as conn:
            return store.history(conn, name)

    def run(self, user: str, *hosts: str, name: str = "Heat flow", **more: Any) -> str:
        """A running cluster with a node on each of these machines."""
        from spawner.tables import cluster_nodes

        run_id = self.site.cluster(user, name, nodes=len(hosts), **more)
        with self.site.portal.db.write() as conn:
            for rank, host in enumerate(hosts):
                conn.execute(
                    cluster_nodes.update()
                    .where(cluster_nodes.c.cluster_id == run_id, cluster_nodes.c.rank == rank)
                    .values(host=host)
                )
        return run_id


MakePark = Callable[..., Park]


@pytest.fixture
def make_park(tmp_path: Path) -> Iterator[MakePark]:
    """``make_park(*machines, add=True)``: a Kubernetes site."""
    sites: list[Site] = []

    def make(*machines: Machine, add: bool = True, look: bool = True) -> Park:
        site = Site(tmp_path / "state", YAML.format(work=tmp_path / "work", add=str(add).lower()))
        site.hub.add("alice", "researcher")
        site.hub.add("bob", "student")
        site.hub.add("maria", "admin")
        site.hub.people["portal"] = {"kind": "service", "name": "portal"}
        site.__enter__()
        sites.append(site)
        park = Park(site, Air(*machines))
        asyncio.run_coroutine_threadsafe(_serve(park), site.loop).result(20)
        if look:
            park.look()
        return park

    yield make
    for site in sites:
        site.__exit__()


async def _serve(park: Park) -> None:
    portal = park.site.portal
    context = Context(
        settings=park.site.settings,
        db=portal.db,
        hub=HubAPI(portal.hub.api_url, "token-of-the-machines-service"),
        registry=CollectorRegistry(),
        environ={},
        clock=now,
        parts={"world": park.air},
    )
    sock, port = bind_unused_port()
    HTTPServer(Application(routes(context))).add_socket(sock)
    portal.parts["machines_url"] = f"http://127.0.0.1:{port}"


@pytest.fixture
def park(make_park: MakePark) -> Park:
    """Three machines, one of them with cards, one the control plane's."""
    from tests.machines.machines import RESERVED

    return make_park(
        machine("front", control_plane=True, taints=(RESERVED,), cpu=8, memory=32),
        machine("m1", cpu=16, memory=64, address="192.0.2.11"),
        machine("m2", cpu=64, memory=256, gpu=4, labels={"pool": "gpu"}),
    )


@pytest.fixture
def maria(park: Park) -> Iterator[Visitor]:
    with Visitor(park.site, "maria") as visitor:
        visitor.get("")
        yield visitor


@pytest.fixture
def client(park: Park) -> Iterator[Callable[..., httpx.Client]]:
    """``client("alice")`` is a script with a token; relative addresses are the API's."""
    clients: list[httpx.Client] = []

    def make(name: str, **more: Any) -> httpx.Client:
        made = httpx.Client(
            base_url=park.site.url + "api/v1",
            headers={"Authorization": f"token {park.site.hub.token(name)}", **more},
            timeout=90,
        )
        clients.append(made)
        return made

    yield make
    for made in clients:
        made.close()
