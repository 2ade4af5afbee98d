"""Doors of a running cluster in the API and on the pages, and ports that are added while it runs (AP-11)."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from sqlalchemy import update

from spawner.tables import clusters
from tests.portal.conftest import Sign, made
from tests.portal.live import LiveSite
from tests.portal.test_api import _until


@pytest.fixture
def alice(sign: Sign) -> httpx.Client:
    client = sign("alice")
    made(client)
    return client


def running(client: httpx.Client, **options: Any) -> str:
    run = client.post("/projects/alice/heat-flow/clusters", json=options).json()
    _until(lambda: client.get(f"/clusters/{run['id']}").json(), lambda c: c["status"] == "running")
    return run["id"]


def doors(client: httpx.Client, run: str) -> list[list[tuple[str, str]]]:
    nodes = client.get(f"/clusters/{run}").json()["node_list"]
    return [[(door["name"], door["url"]) for door in node["doors"]] for node in nodes]


def test_every_node_tells_its_doors_with_the_ports_of_the_start(alice: httpx.Client) -> None:
    run = running(alice, nodes=2, ports=[8050])
    base = "/user/alice/heat-flow/"
    assert doors(alice, run) == [
        [
            ("lab", base + "lab"),
            ("terminal", base + "galilean/terminal"),
            ("port-8050", base + "proxy/8050/"),
        ],
        [
            ("lab", base + "node-1/lab"),
            ("terminal", base + "node-1/galilean/terminal"),
            ("port-8050", base + "node-1/proxy/8050/"),
        ],
    ]
    node = alice.get(f"/clusters/{run}", headers={"Accept-Language": "zh-CN"}).json()["node_list"][0]
    assert [door["title"] for door in node["doors"]] == ["Lab", "终端", "端口 8050"]
    assert [door["listens"] for door in node["doors"]] == [False, False, True]


def test_a_port_is_added_and_taken_away_while_it_runs(alice: httpx.Client, sign: Sign) -> None:
    run = running(alice)
    for _ in range(2):  # again is success
        assert alice.post(f"/clusters/{run}/ports", json={"port": 9000}).status_code == 200
    assert [name for name, _ in doors(alice, run)[0]] == ["lab", "terminal", "port-9000"]
    for _ in range(2):
        assert alice.delete(f"/clusters/{run}/ports/9000").status_code == 204
    assert [name for name, _ in doors(alice, run)[0]] == ["lab", "terminal"]


@pytest.mark.parametrize("port", [0, 22, 1023, 65536, 8888, 2222, -1, 10**9])
def test_what_is_no_port_of_a_program_is_refused(alice: httpx.Client, port: int) -> None:
    run = running(alice)
    assert alice.post(f"/clusters/{run}/ports", json={"port": port}).status_code == 400
    assert len(doors(alice, run)[0]) == 2


def test_nobody_else_changes_ports_and_none_of_what_does_not_run(alice: httpx.Client, sign: Sign) -> None:
    run = running(alice)
    assert sign("bob").post(f"/clusters/{run}/ports", json={"port": 9000}).status_code == 404
    assert sign("root").post(f"/clusters/{run}/ports", json={"port": 9000}).status_code in (403, 404)
    assert alice.delete(f"/clusters/{run}").status_code in (202, 204)
    _until(lambda: alice.get(f"/clusters/{run}").json(), lambda c: c["status"] == "released")
    assert alice.post(f"/clusters/{run}/ports", json={"port": 9000}).status_code == 409


def test_a_cluster_shows_so_many_ports_and_no_more(alice: httpx.Client) -> None:
    run = running(alice, ports=list(range(3000, 3032)))
    answer = alice.post(f"/clusters/{run}/ports", json={"port": 4000})
    assert answer.status_code == 409 and "at most 32" in answer.json()["detail"]
    assert alice.post(f"/clusters/{run}/ports", json={"port": 3000}).status_code == 200


def test_pages_show_the_doors_of_each_node(site: LiveSite, alice: httpx.Client) -> None:
    run = running(alice, nodes=2, ports=[8050])
    for path in ("", "projects/alice/heat-flow/run"):
        shown = alice.get(site.url + path)
        assert shown.status_code == 200
        assert "/user/alice/heat-flow/node-1/proxy/8050/" in shown.text, path
        assert "Port 8050" in shown.text
    assert f"{run}/ports" in alice.get(site.url + "projects/alice/heat-flow/run").text


def test_what_an_image_that_runs_as_it_is_cannot_serve_is_not_offered(
    site: LiveSite, alice: httpx.Client
) -> None:
    run = running(alice)
    page = site.url + "projects/alice/heat-flow/run"
    assert "ssh heat-flow.galilean" in alice.get(page).text
    kept = {"doors": {"interfaces": ["jupyter", "desktop"], "ports": [8050], "as_is": True}}
    site.write(
        lambda conn: conn.execute(
            update(clusters).where(clusters.c.id == run).values(environment="alice/stock", state=kept)
        )
    )
    assert [name for name, _ in doors(alice, run)[0]] == ["lab"]
    shown = alice.get(page).text
    assert "ssh heat-flow.galilean" not in shown and f"{run}/ports" not in shown
    refused = alice.post(f"/clusters/{run}/ports", json={"port": 9000})
    assert (refused.status_code, refused.json()["reason"]) == (409, "as-is")
    assert "Adapt it" in refused.json()["detail"]
