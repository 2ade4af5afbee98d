"""The node's own API, through a real hub and proxy: who may ask, a portal that is away, a restart that is asked for."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest
from websockets.sync.client import connect

from spawner.node.standing import language_of
from spawner.process.layout import ClusterDirectory
from tests.process.conftest import FakePortal
from tests.process.hub import Hub, eventually

BASE = "/user/nora/desk/"
API = f"{BASE}galilean/api/"


@pytest.fixture(scope="module")
def browser(hub: Hub) -> httpx.Client:
    """Somebody with their JupyterLab open."""
    hub.user("nora")
    hub.run("nora", "desk")
    client = hub.browser("nora")
    assert client.get(f"{BASE}lab").status_code == 200
    return client


def xsrf(client: httpx.Client) -> dict[str, str]:
    found = [cookie.value for cookie in client.cookies.jar if cookie.name == "_xsrf" and cookie.path == BASE]
    return {"X-XSRFToken": str(found[0])}


@pytest.mark.process
def test_without_the_portal_a_node_still_tells_where_one_is(browser: httpx.Client) -> None:
    said = browser.get(f"{API}status", headers={"Accept-Language": "zh-CN"}).json()
    assert said["portal_away"]
    assert (said["language"], said["node"]) == ("zh-CN", {"rank": 0, "name": "node-0"})
    assert [item["lab_url"] for item in said["nodes"]] == [f"{BASE}lab"]
    assert said["can"] == {"when_done": False, "release": False}
    refused = browser.post(f"{API}extend", json={}, headers={**xsrf(browser), "Accept-Language": "zh-CN"})
    assert (refused.status_code, refused.json()["reason"]) == (503, "portal-away")
    assert "门户" in refused.json()["message"]


@pytest.mark.process
def test_only_the_person_may_act_and_not_by_a_page_of_somebody_else(hub: Hub, browser: httpx.Client) -> None:
    for what in ("extend", "when-done", "release", "restart-node", "reset-node"):
        assert browser.post(f"{API}{what}", json={}).status_code == 403, f"{what} without XSRF"
    hub.user("eve")
    eve = hub.browser("eve")
    eve.get(f"{BASE}lab")
    assert eve.get(f"{API}status").status_code == 403
    nobody = httpx.Client(base_url=hub.url)
    assert nobody.get(f"{API}status").status_code in (302, 403)
    assert nobody.post(f"{API}release", json={}).status_code == 403


@pytest.mark.process
def test_a_restart_is_asked_of_the_portal_and_told_to_pages_and_the_node_ends_nothing_itself(
    hub: Hub, browser: httpx.Client, portal: FakePortal
) -> None:
    directory = ClusterDirectory.of(hub.state / "clusters", "nora", "desk")
    before = directory.nodes()[0]
    kernel: Any = browser.post(f"{BASE}api/kernels", json={}, headers=xsrf(browser))
    assert kernel.status_code == 201, kernel.text
    cookies = "; ".join(
        f"{cookie.name}={cookie.value}" for cookie in browser.cookies.jar if cookie.path == BASE
    )
    address = f"{hub.url.replace('http', 'ws', 1)}{API}live"
    with connect(address, additional_headers={"Cookie": cookies, "Origin": hub.url}) as page:
        assert json.loads(page.recv(timeout=120))["type"] == "status"
        told = len(portal.told)
        eventually(lambda: any(said["open"] for said in portal.told[told:]), 40, "an open page is somebody")
        answer = browser.post(f"{API}restart-node", json={}, headers=xsrf(browser))
        assert answer.status_code == 202, answer.text
        while json.loads(page.recv(timeout=120))["type"] != "restarting":
            pass
    assert browser.post(f"{API}reset-node", json={"rank": 3}, headers=xsrf(browser)).status_code == 202
    for rank in (-1, 4097, "0", True, None):
        bad = browser.post(f"{API}reset-node", json={"rank": rank}, headers=xsrf(browser))
        assert bad.status_code == 400, rank
    asked = [said for said in portal.asked if said["path"].endswith(("/node/restart", "/node/reset"))]
    assert [(said["path"].rpartition("/")[2], said["rank"], said["node"]) for said in asked] == [
        ("restart", 0, 0),
        ("reset", 0, 3),
    ]
    assert {(said["server"], said["token"].partition(" ")[0]) for said in asked} == {("desk", "token")}
    assert [item["id"] for item in browser.get(f"{BASE}api/kernels").json()] == [kernel.json()["id"]]
    assert directory.nodes()[0] == before
    assert directory.exit_of(0) is None
    assert hub.ready("nora", "desk")


@pytest.mark.process
def test_what_would_be_lost_is_asked_of_the_portal_by_its_person_alone(
    hub: Hub, browser: httpx.Client, portal: FakePortal
) -> None:
    portal.losses = {
        "nodes": [],
        "parts": [{"name": "", "lines": ["2 files"], "save_url": ""}],
        "nothing": "",
    }
    assert browser.get(f"{API}losses").json() == portal.losses
    assert browser.get(f"{API}losses?rank=3").json() == portal.losses
    asked = [said["path"].partition("?")[2] for said in portal.asked if "/node/losses" in said["path"]]
    assert "node=" not in asked[0] and asked[0].startswith("server=desk&run=")
    assert asked[1].endswith("&rank=0&node=3")
    for rank in ("x", "-1", "99999", "١"):
        assert browser.get(f"{API}losses", params={"rank": rank}).status_code == 400, rank
    hub.user("mallory")
    mallory = hub.browser("mallory")
    mallory.get(f"{BASE}lab")
    assert mallory.get(f"{API}losses").status_code == 403
    assert httpx.get(f"{hub.url}{API}losses").status_code in (302, 403)


@pytest.mark.parametrize(
    ("cookie", "header", "started", "language"),
    [
        ("zh_CN", "en", "en", "zh_CN"),
        ("", "fr, zh-TW;q=0.8, en;q=0.5", "en", "zh_CN"),
        ("", "en-GB,en", "zh_CN", "en"),
        ("xx", "", "zh_CN", "zh_CN"),
        ("", "", "", "en"),
    ],
)
def test_the_node_speaks_as_the_portal_does(cookie: str, header: str, started: str, language: str) -> None:
    assert language_of(cookie, header, started) == language
