"""The home page and messages over HTTP: whose it is, and that it can do nothing to who reads it."""

from __future__ import annotations

import re

import httpx
import pytest

from tests.portal.conftest import Sign
from tests.portal.live import LiveSite

BODY = '<section class="container"><h1 id="own">Our centre</h1></section>'


@pytest.fixture
def admin(sign: Sign) -> httpx.Client:
    return sign("root")


def frame(site: LiveSite, query: str = "", **headers: str) -> httpx.Response:
    return httpx.get(site.url + "welcome/page" + query, headers=headers)


def test_a_visitor_sees_the_default_page_in_both_languages(site: LiveSite) -> None:
    assert httpx.get(site.url + "welcome").status_code == 200
    english, chinese = frame(site), frame(site, **{"Accept-Language": "zh-CN"})
    assert "A cluster in a minute" in english.text
    assert "一分钟拥有集群" in chinese.text


def test_what_an_administrator_writes_has_an_opaque_origin_and_no_network(
    site: LiveSite, admin: httpx.Client
) -> None:
    assert (
        admin.put("/site/home", json={"body": BODY, "script": "fetch('/');</script><b>"}).status_code == 200
    )
    answer = frame(site)
    policy = answer.headers["Content-Security-Policy"]
    assert policy.startswith("sandbox allow-scripts")
    assert "allow-same-origin" not in policy
    assert "connect-src" not in policy
    assert "default-src 'none'" in policy
    assert BODY in answer.text
    assert "</script><b>" not in answer.text
    assert "A cluster in a minute" not in answer.text
    # In the page around it there is nothing of it.
    assert "Our centre" not in httpx.get(site.url + "welcome").text


def test_nothing_of_it_is_loaded_from_elsewhere(site: LiveSite) -> None:
    text = frame(site).text
    addresses = re.findall(r'(?:src|href)="([^"]+)"', text)
    assert addresses
    assert all(not address.startswith(("http", "//")) for address in addresses)
    for address in addresses:
        if "/static/" in address:
            answer = httpx.get(httpx.URL(site.url).join(address))
            assert answer.status_code == 200, address
            assert answer.headers["Access-Control-Allow-Origin"] == "*"


def test_empty_restores_the_default(site: LiveSite, admin: httpx.Client) -> None:
    admin.put("/site/home", json={"title": "Ours", "body": BODY}).raise_for_status()
    assert "<title>Ours</title>" in frame(site).text
    assert admin.delete("/site/home").status_code == 204
    assert "A cluster in a minute" in frame(site).text


def test_it_can_be_kept_off_the_sign_in_page(site: LiveSite, admin: httpx.Client) -> None:
    assert "postMessage" in frame(site, "?beside=1").text
    admin.put("/site/home", json={"beside_sign_in": False}).raise_for_status()
    assert frame(site, "?beside=1").text == ""
    assert "postMessage" in frame(site).text


def test_only_who_may_changes_it(site: LiveSite, sign: Sign) -> None:
    alice = sign("alice")
    for method, path, body in (
        ("PUT", "/site/home", {"body": "x"}),
        ("DELETE", "/site/home", None),
        ("PATCH", "/site/messages", {"today": "x"}),
        ("POST", "/site/announcements", {"text": "x"}),
        ("GET", "/site/messages", None),
    ):
        assert alice.request(method, path, json=body).status_code == 403, path


def test_announcements_stand_on_pages_as_text(site: LiveSite, sign: Sign, admin: httpx.Client) -> None:
    made = admin.post("/site/announcements", json={"text": "<b>Bold</b> news", "visitors": True})
    assert made.status_code == 201
    assert sign("alice").get("/announcements").json()["announcements"][0]["text"] == "<b>Bold</b> news"
    assert "&lt;b&gt;Bold&lt;/b&gt; news" in frame(site).text
    one = made.json()["id"]
    assert admin.put(f"/site/announcements/{one}", json={"text": "Inside"}).status_code == 200
    assert "Inside" not in frame(site).text
    assert admin.delete(f"/site/announcements/{one}").status_code == 204
    assert admin.delete(f"/site/announcements/{one}").status_code == 404
    assert admin.patch("/site/messages", json={"ticket_url": "javascript:1"}).status_code == 400


def test_the_page_of_the_administration_keeps_what_is_typed(site: LiveSite, sign: Sign) -> None:
    root = sign("root")
    root.base_url = httpx.URL(site.url)
    assert "New announcement" in root.get("admin/site").text
    sent = root.post(
        "admin/site/announcements",
        data={"text": "Hall 2 is serviced", "starts_at": "2026-01-01T08:00", "tone": "warn", "visitors": "1"},
    )
    assert "Hall 2 is serviced" in sent.text
    assert "Hall 2 is serviced" in root.get("home").text
    assert "Soup" in root.post("admin/site/links", data={"today": "Soup", "ticket_url": "/desk"}).text
    assert "Soup" in root.get("home").text
    assert "Our centre" in root.post("admin/site/home", data={"do": "save", "body": BODY}).text
    preview = root.post("admin/site/preview", data={"body": "<p>Only looked at</p>"})
    assert "Only looked at" in preview.text
    assert preview.headers["Content-Security-Policy"].startswith("sandbox")
    assert "Only looked at" not in frame(site).text
    assert "Our centre" not in root.post("admin/site/home", data={"do": "restore"}).text
    one = re.search(r'name="id" value="([0-9A-Z]{26})"', root.get("admin/site").text)
    assert one
    gone = root.post("admin/site/announcements", data={"do": "delete", "id": one[1]})
    assert "Hall 2" not in gone.text
    alice = sign("alice")
    assert alice.get(site.url + "admin/site").status_code == 403
