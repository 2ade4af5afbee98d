"""Nobody but the owner gets anything from a node, by HTTP or by websocket, nor keeps it present."""

from __future__ import annotations

import time
from datetime import datetime

import httpx
import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from tests.product.product import Person, Product, wait_for

PATHS = [
    "lab", "api/contents", "api/kernels", "terminals/1", "files/work/x", "tree",
    "proxy/8050/", "proxy/absolute/8050/", "galilean/terminal", "galilean/ssh", "galilean/apps/vscode",
    "galilean/api/status", "desktop/", "desktop/api/status", "desktop/api/file?path=work/x",
]  # fmt: skip
WEBSOCKETS = [
    "api/events/subscribe", "terminals/websocket/1", "api/kernels/x/channels", "galilean/ssh", "desktop/vnc",
    "proxy/8050/ws",
]  # fmt: skip


@pytest.fixture(scope="module")
def owner(product: Product) -> Person:
    """Somebody who holds a cluster of two nodes."""
    somebody = product.person("owner")
    somebody.running("Mine", nodes=2)
    return somebody


@pytest.fixture(scope="module")
def stranger(product: Product) -> Person:
    """Somebody else."""
    return product.person("stranger")


@pytest.fixture(scope="module")
def browser(stranger: Person) -> httpx.Client:
    """Somebody else's browser, signed in."""
    return stranger.sign_in()


@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize("path", PATHS)
def test_a_stranger_gets_nothing(
    product: Product, owner: Person, stranger: Person, browser: httpx.Client, rank: int, path: str
):
    assert owner.node("mine", rank).status_code == 200
    url = f"/user/{owner.name}/mine/" + (f"node-{rank}/" if rank else "") + path
    for headers in ({}, {"Authorization": "token nonsense"}, {"Authorization": f"token {stranger.token}"}):
        answer = httpx.get(product.url + url, headers=headers, timeout=120)
        assert answer.status_code in (302, 401, 403, 404, 405), (
            headers,
            answer.status_code,
            answer.text[:200],
        )
    answer = browser.get(url)
    assert answer.status_code in (403, 404), answer.status_code
    assert "jupyter-config-data" not in answer.text


@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize("path", WEBSOCKETS)
def test_a_stranger_gets_no_websocket(
    product: Product, owner: Person, stranger: Person, rank: int, path: str
):
    url = f"ws://127.0.0.1:{product.port}/user/{owner.name}/mine/" + (f"node-{rank}/" if rank else "") + path
    for headers in (
        {},
        {"Authorization": f"token {stranger.token}"},
        {"Cookie": "jupyterhub-user-owner-mine=x"},
    ):
        with pytest.raises(InvalidStatus) as caught:
            connect(url, additional_headers=headers)
        assert caught.value.response.status_code in (401, 403, 404)


def test_a_strangers_knocking_does_not_keep_a_cluster_present(product: Product, ada: Person, grace: Person):
    slug = ada.running("Nobody here", nodes=2)

    def seen() -> tuple[datetime | None, datetime | None]:
        (run,) = [run for run in product.open_runs() if run.user == ada.name]
        return run.proxy_seen_at, run.node_seen_at

    for _ in range(10):
        for rank in ("", "node-1/"):
            base = f"{product.url}/user/{ada.name}/{slug}/{rank}"
            for headers in ({}, {"Authorization": f"token {grace.token}"}):
                httpx.get(base + "api", headers=headers)
                httpx.post(base + "api/contents", json={}, headers=headers)
    lie = {"server": slug, "run": "x", "rank": 0, "seen_at": "2030-01-01T00:00:00Z", "open": 1}
    for headers in ({}, {"Authorization": f"token {grace.token}"}):
        answer = httpx.post(
            f"{product.url}/services/portal/api/v1/presence", json=lie, headers=headers, timeout=120
        )
        assert answer.status_code in (401, 403, 404, 422), answer.text
    # The proxy takes any request for activity; a node tells at once of its first visitor.
    wait_for(lambda: seen()[0], "the proxy's word is taken")
    time.sleep(3)
    assert seen()[1] is None, "no node has seen anybody"
    assert ada.node(slug, 1, "api/contents").status_code == 200
    wait_for(lambda: seen()[1], "the owner is seen")


def test_the_portal_shows_one_persons_things_to_nobody_else(product: Product, owner: Person, grace: Person):
    assert grace.clusters("all") == []
    assert "mine" not in [item["slug"] for item in grace.portal("GET", "/projects").json()["items"]]
    (cluster,) = owner.clusters()
    assert grace.portal("DELETE", f"/clusters/{cluster['id']}").status_code in (403, 404)
    assert owner.is_ready("mine")
    assert httpx.get(f"{product.url}/services/portal/api/v1/clusters").status_code in (401, 403)
    assert grace.portal("GET", "/usage", params={"by": "user"}).json()["items"] == []
