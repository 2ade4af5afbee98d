"""What a node's own token may do: its own open run, and nothing else."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import httpx
import pytest
from sqlalchemy import select, update

from galilean.clock import utcnow
from spawner import ports, records
from spawner.tables import clusters, node_use
from tests.portal.conftest import Sign, made
from tests.portal.live import LiveSite
from tests.portal.test_api import _until

NODE = ["access:services!service=portal"]


class OwnNode:
    """A node of alice's running cluster, as its server extension speaks."""

    def __init__(self, site: LiveSite, sign: Sign) -> None:
        alice = sign("alice")
        made(alice)
        run = alice.post("/projects/alice/heat-flow/clusters", json={"nodes": 2}).json()
        self.site = site
        self.run: str = run["id"]
        _until(lambda: alice.get(f"/clusters/{self.run}").json(), lambda c: c["status"] == "running")
        self.alice = alice
        self.client = sign("alice", scopes=["access:servers!server=alice/heat-flow", *NODE])
        self.asks: dict[str, Any] = {"server": "heat-flow", "run": self.run, "rank": 1}

    def post(self, what: str, **more: Any) -> httpx.Response:
        return self.client.post(f"/node/{what}", json={**self.asks, **more})

    def status(self) -> dict[str, Any]:
        answer = self.client.get("/node/status", params=self.asks)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def tell(self, busy: dict[str, int]) -> None:
        """Say what runs in it."""
        assert self.client.post("/presence", json={**self.asks, "busy": busy}).status_code == 204

    def change(self, **values: Any) -> None:
        with self.site.portal.db.write() as conn:
            conn.execute(update(clusters).where(clusters.c.id == self.run).values(values))


@pytest.fixture
def node(site: LiveSite, sign: Sign) -> OwnNode:
    return OwnNode(site, sign)


def test_a_node_learns_how_its_cluster_stands(node: OwnNode) -> None:
    said = node.status()
    assert said["project"]["name"] == "Heat flow"
    assert said["project"]["url"].endswith("/services/portal/projects/alice/heat-flow")
    assert [(item["name"], item["state"]) for item in said["nodes"]] == [
        ("node-0", "ready"),
        ("node-1", "ready"),
    ]
    assert said["nodes"][1]["lab_url"] == "/user/alice/heat-flow/node-1/lab"
    assert said["nodes"][1]["more"] == []
    with node.site.portal.db.write() as conn:
        assert ports.change_ports(conn, node.run, add=8080)
    (opened,) = node.status()["nodes"][1]["more"]
    assert opened == {"title": "Port 8080", "url": "/user/alice/heat-flow/node-1/proxy/8080/"}
    assert (said["state"], said["release"]["policy"]) == ("running", "auto")
    begins = {"restart": True, "reset": True}
    assert said["can"] == {"when_done": False, "release": True, **begins}, "it has not said yet what runs"
    node.tell({})
    assert node.status()["can"] == {"when_done": True, "release": True, **begins}
    assert said["use"]["cpu_percent"] is None
    assert said["warning"] is None


def test_a_node_extends_as_far_as_one_press_and_no_further(node: OwnNode) -> None:
    offered = node.status()["extend"]
    after = node.post("extend").json()
    assert after["release"]["kept_until"][:16] == offered["until"][:16]
    refused = node.post("extend", seconds=300 * 86400)
    assert (refused.status_code, refused.json()["reason"]) == (409, "extend")
    assert node.post("extend", until="soon").status_code == 400
    assert node.post("extend", seconds=-5).status_code == 400


def test_a_node_goes_on_when_done_and_releases_itself(node: OwnNode) -> None:
    assert node.post("when-done").json()["reason"] == "untold"
    node.tell({})
    after = node.post("when-done").json()
    assert (after["release"]["policy"], after["release"]["when_done"]) == ("auto-when-done", True)
    released = node.post("release")
    assert released.status_code == 200
    assert released.json()["ended"]["why"] == "user"
    with node.site.portal.db.read() as conn:
        run = records.get(conn, node.run)
    assert run is not None
    assert run.stop_asked_at is not None
    assert node.post("extend").status_code == 409, "what ends is not extended"


@pytest.mark.parametrize("what", ["extend", "when-done", "release", "status"])
def test_only_the_token_of_that_server_and_only_its_open_run(node: OwnNode, sign: Sign, what: str) -> None:
    def ask(client: httpx.Client, **asks: Any) -> httpx.Response:
        asks = {**node.asks, **asks}
        if what == "status":
            return client.get("/node/status", params=asks)
        return client.post(f"/node/{what}", json=asks)

    assert ask(sign("alice")).status_code == 403, "the person is no node"
    assert ask(sign("bob", scopes=["access:servers!server=bob/heat-flow", *NODE])).status_code == 409
    other = sign("alice", scopes=["access:servers!server=alice/other", *NODE])
    assert ask(other).status_code == 403, "another server's token"
    assert ask(node.client, server="other").status_code == 403
    assert ask(node.client, run="0" * 26).status_code == 409
    assert ask(node.client, rank=2).status_code == 400, "there is no such node"
    assert node.client.get("/clusters").status_code == 403, "and nothing else of the API"
    node.alice.delete(f"/clusters/{node.run}")
    _until(lambda: node.alice.get(f"/clusters/{node.run}").json(), lambda c: c["released_at"])
    assert ask(node.client).status_code == (200 if what == "status" else 409), "the run has ended"


def test_a_warning_holds_until_its_end_moves_away(node: OwnNode) -> None:
    now = utcnow()
    node.change(release_at=now + timedelta(seconds=120), release_why="left", warned_at=now)
    said = node.status()["warning"]
    assert (said["why"], said["busy"]) == ("left", False)
    node.change(release_at=now + timedelta(seconds=300), warned_at=now - timedelta(seconds=200))
    assert node.status()["warning"] is None


def test_a_node_tells_what_runs_in_it_whether_or_not_somebody_is_there(node: OwnNode) -> None:
    busy = {"kernels": 1, "queued": 3, "terminals": 0, "processes": 0}
    answer = node.client.post("/presence", json={**node.asks, "busy": busy})
    assert answer.status_code == 204, answer.text
    assert node.client.post("/presence", json={**node.asks, "busy": {"kernels": -1}}).status_code == 400
    with node.site.portal.db.read() as conn:
        first = conn.execute(select(node_use)).mappings().one()
        run = records.get(conn, node.run)
    assert run is not None
    assert run.node_seen_at is None, "nobody was seen"
    assert first["busy"] == busy
    assert first["busy_at"] == first["told_at"]
    node.client.post("/presence", json={**node.asks, "seen_at": utcnow().isoformat(), "busy": {}})
    with node.site.portal.db.read() as conn:
        last = conn.execute(select(node_use)).mappings().one()
    assert not any(last["busy"].values())
    assert first["busy_at"] <= last["busy_at"] < last["told_at"], "it ran until just now, and does no more"
    assert last["told_at"] > first["told_at"]
