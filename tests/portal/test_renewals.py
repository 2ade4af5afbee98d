"""Restart and reset of one node in the API, on the project's page and for the cluster's own nodes (CG-20, CG-21)."""

from __future__ import annotations

import httpx
import pytest

from galilean.clock import utcnow
from spawner import attempts, records
from spawner.records import NodeInterval, present
from spawner.steps import NodeEnd
from tests.portal.conftest import Sign
from tests.portal.live import LiveSite
from tests.portal.test_doors import alice, running  # noqa: F401 - a fixture
from tests.portal.test_node import OwnNode, node  # noqa: F401 - a fixture


def nodes(site: LiveSite, run: str) -> list[NodeInterval]:
    with site.portal.db.read() as conn:
        return records.intervals(conn, [run])[run]


def came_back(site: LiveSite, run: str, rank: int) -> None:
    """What the hub writes."""
    (asked,) = [item for item in present(nodes(site, run)) if item.rank == rank]
    with site.portal.db.write() as conn:
        attempts.begin(conn, asked, NodeEnd(at=utcnow(), exit_reason="restarted"), now=utcnow())
        attempts.ready(conn, asked, url="http://127.0.0.1:1", host="here", now=utcnow())


def shown(client: httpx.Client, run: str, rank: int) -> dict[str, object]:
    return client.get(f"/clusters/{run}").json()["node_list"][rank]


def test_its_owner_restarts_a_node_and_sees_it_come_back(site: LiveSite, alice: httpx.Client) -> None:  # noqa: F811
    run = running(alice, nodes=2)
    assert shown(alice, run, 1)["can"] == ["restart", "reset"]
    answer = alice.post(f"/clusters/{run}/nodes/1/restart")
    assert answer.status_code == 202, answer.text
    told = answer.json()["node_list"][1]
    assert (told["state"], told["attempt"], told["can"], told["doors"]) == ("restarting", 2, [], [])
    assert answer.json()["node_list"][0]["state"] == "ready"
    again = alice.post(f"/clusters/{run}/nodes/1/reset")
    assert (again.status_code, again.json()["reason"]) == (409, "under_way")
    came_back(site, run, 1)
    back = shown(alice, run, 1)
    assert (back["state"], back["attempt"], back["can"]) == ("ready", 2, ["restart", "reset"])
    assert back["doors"]


def test_a_node_that_did_not_come_back_says_why_in_the_readers_language(
    site: LiveSite,
    alice: httpx.Client,  # noqa: F811
    sign: Sign,
) -> None:
    run = running(alice, nodes=2)
    alice.post(f"/clusters/{run}/nodes/1/reset")
    asked = present(nodes(site, run))[1]
    why = {"message": "Node {rank} did not answer in {seconds} s.", "params": {"rank": 1, "seconds": 60}}
    with site.portal.db.write() as conn:
        attempts.begin(conn, asked, NodeEnd(at=utcnow(), exit_reason="reset"), now=utcnow())
        attempts.fail(conn, asked, why, now=utcnow())
    told = shown(alice, run, 1)
    assert (told["state"], told["can"]) == ("gone", ["restart", "reset"]), "it is offered again"
    assert told["explanation"] == "Node 1 did not answer in 60 s."
    assert "60 秒" in str(shown(sign("alice", language="zh-CN"), run, 1)["explanation"])
    page = alice.get(site.url + "projects/alice/heat-flow/run").text
    assert "did not come back: Node 1 did not answer in 60 s." in page


def test_nobody_else_makes_a_node_anew_and_none_of_what_does_not_run(
    site: LiveSite,
    alice: httpx.Client,  # noqa: F811
    sign: Sign,
) -> None:
    run = running(alice)
    for how in ("restart", "reset"):
        assert sign("bob").post(f"/clusters/{run}/nodes/0/{how}").status_code == 404
        assert sign("root").post(f"/clusters/{run}/nodes/0/{how}").status_code == 403
        assert alice.post(f"/clusters/{run}/nodes/1/{how}").status_code == 404
    assert alice.post(f"/clusters/{run}/nodes/0/melt").status_code in (404, 405)
    assert sign("bob").get(site.url + f"clusters/{run}/nodes/0/restart").status_code == 404
    assert sign("root").get(site.url + f"clusters/{run}/nodes/0/restart").status_code == 403
    assert len(nodes(site, run)) == 1
    alice.delete(f"/clusters/{run}")
    assert alice.post(f"/clusters/{run}/nodes/0/restart").status_code == 409


def test_the_page_names_what_is_lost_before_it_asks(site: LiveSite, alice: httpx.Client) -> None:  # noqa: F811
    run = running(alice, nodes=2)
    page = alice.get(site.url + "projects/alice/heat-flow/run").text
    for how in ("restart", "reset"):
        assert f"clusters/{run}/nodes/1/{how}" in page
    dialog = alice.get(site.url + f"clusters/{run}/nodes/1/reset").text
    assert "The node&#39;s home is emptied" in dialog
    assert "The other node goes on." in dialog
    answer = alice.post(site.url + f"clusters/{run}/nodes/1/reset", headers={"HX-Request": "true"})
    assert answer.status_code < 300, answer.text
    assert present(nodes(site, run))[1].asked_as == "reset"
    assert "data-node-moving" in alice.get(site.url + "projects/alice/heat-flow/run").text


def test_a_node_asks_for_itself_or_another_of_its_cluster(site: LiveSite, node: OwnNode) -> None:  # noqa: F811
    said = node.status()
    assert (said["can"]["restart"], said["can"]["reset"]) == (True, True)
    assert said["loses"]["reset"]["goes"]
    answer = node.post("reset", node=0)
    assert answer.status_code == 200, answer.text
    assert [item["state"] for item in answer.json()["nodes"]] == ["restarting", "ready"]
    assert present(nodes(site, node.run))[0].asked_by == "alice"
    assert node.post("restart", node=7).status_code == 404
    assert node.post("restart").status_code == 400
    assert node.client.post(f"/clusters/{node.run}/nodes/1/restart").status_code in (401, 403, 404)


@pytest.mark.parametrize("how", ["restart", "reset"])
def test_a_node_of_another_cluster_asks_for_nothing_here(
    site: LiveSite,
    node: OwnNode,  # noqa: F811
    sign: Sign,
    how: str,
) -> None:
    other = sign("bob", scopes=["access:servers!server=bob/heat-flow", "access:services!service=portal"])
    assert other.post(f"/node/{how}", json={**node.asks, "node": 0}).status_code in (403, 409)
    assert len(nodes(site, node.run)) == 2
