"""*Adapt* on an environment's page and by the API: who may, which versions, two at once; what the page says."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import httpx
import pytest
from sqlalchemy import select

from extensions.imagebuilder import entries, keys, looks, saved, store
from extensions.imagebuilder.entries import Actor
from extensions.imagebuilder.names import Pinned, parse_typed
from extensions.imagebuilder.registry.access import Credentials
from extensions.imagebuilder.store import NewVersion
from galilean.tables import audit_log
from services.portal import adapting, new_versions, shelf
from services.portal.adapting import proposed
from tests.portal.live import LiveSite

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
DOCKER = """
backend: docker
docker: {image: "localhost/galilean-jupyter:1"}
images: {adapter: "localhost/galilean-adapter:1"}
environments:
  jupyter: {title: JupyterLab}
"""
LACKS: tuple[dict[str, Any], ...] = ({"message": looks._STOCK, "params": {}, "lacks": looks.NODE},)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[LiveSite]:
    """A portal of a site with Docker and an image service, which nobody asks here."""
    live = LiveSite(tmp_path / "state", DOCKER)
    for name, role in (("alice", "researcher"), ("bob", "student"), ("root", "admin")):
        live.hub.add(name, role)
    with live:
        live.portal.parts["images_url"] = "http://127.0.0.1:9"
        yield live


@pytest.fixture
def sign(site: LiveSite) -> Iterator[Any]:
    clients: list[httpx.Client] = []

    def make(name: str) -> httpx.Client:
        headers = {"Authorization": f"token {site.hub.token(name, None)}", "Accept": "application/json"}
        clients.append(httpx.Client(base_url=site.url + "api/v1", headers=headers, timeout=90))
        return clients[-1]

    yield make
    for client in clients:
        client.close()


def entry(site: LiveSite, **more: Any) -> entries.Entry:
    digest = "sha256:" + "a" * 64
    version = NewVersion(
        **{
            "tag": "2.9_X",
            "image": f"registry.example.edu/x@{digest}",
            "digest": digest,
            "told": LACKS,
            **more,
        }
    )
    return site.write(
        store.create, actor=Actor(name="alice"), owner="alice", slug="torch", title="Torch", now=NOW,
        version=version, visibility="public",
    )  # fmt: skip


def page(site: LiveSite, name: str, key: str) -> str:
    site.hub.whoever = name
    with httpx.Client(base_url=site.url, follow_redirects=True, timeout=90) as client:
        answer = client.get(f"environments/{key}")
    assert answer.status_code == 200, answer.text[:500]
    return answer.text


def test_an_image_that_lacks_something_is_adapted_into_a_new_version(site: LiveSite, sign: Any) -> None:
    found = entry(site)
    assert found.settings.as_is
    place = f"/environments/{found.id}/versions/1/adapted"
    assert "What this image lacks" in page(site, "alice", found.id)
    assert "What this image lacks" not in page(site, "bob", found.id), (
        "who may not change it cannot do anything"
    )
    assert sign("bob").post(place, json={}).status_code == 403
    assert sign("alice").post(place.replace("/1/", "/7/"), json={}).status_code == 404
    begun = sign("alice").post(place, json={})
    assert begun.status_code == 202, begun.text
    image = begun.json()
    assert (image["name"], image["tag"], image["how"]) == ("torch", "2.9_x-adapted", "adapted")
    lines = site.write(lambda conn: conn.execute(select(audit_log.c.actor, audit_log.c.action)).all())
    assert [tuple(line) for line in lines if line.action.startswith("image.")] == [("alice", "image.adapt")]
    assert sign("root").post(place, json={"name": "other:1"}).json()["reason"] == "adapting"
    assert "It is being adapted" in page(site, "alice", found.id)
    pinned = Pinned("registry.local", "people/alice/torch", "sha256:" + "b" * 64)
    site.write(saved.finish, image["id"], image=pinned, now=NOW, changes={"told": []})
    assert sign("root").post(place, json={"name": "other:1"}).json()["reason"] == "adapting"
    asyncio.run_coroutine_threadsafe(new_versions.go_on(site.portal), site.loop).result(60)
    detail = sign("alice").get(f"/environments/{found.id}").json()
    assert [one["image"] for one in detail["versions"] if one["current"]] == [str(pinned)]
    assert "What this image lacks" not in page(site, "alice", found.id)
    again = sign("alice").post(f"/environments/{found.id}/versions/2/adapted", json={})
    assert again.json()["reason"] == "image-whole"


class Service(BaseHTTPRequestHandler):
    """What the image service is asked, and by whom."""

    asked: ClassVar[list[tuple[str, str, dict[str, Any]]]] = []

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.asked.append((self.path, self.headers["Authorization"], body))
        answer = json.dumps({"ticket": "01HTTTTTTTTTTTTTTTTTTTTTTT"}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_: object) -> None:
        """Nothing."""


@pytest.fixture
def service(site: LiveSite) -> Iterator[list[tuple[str, str, dict[str, Any]]]]:
    Service.asked.clear()
    server = ThreadingHTTPServer(("127.0.0.1", 0), Service)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    site.portal.parts["images_url"] = f"http://127.0.0.1:{server.server_port}"
    yield Service.asked
    server.shutdown()
    server.server_close()


def locked(site: LiveSite) -> entries.Entry:
    """An entry whose image is behind a name and password of its owner's."""
    key = site.write(
        keys.keep, shelf.seal(site.portal), actor=Actor(name="alice"), owner="alice",
        registry="registry.example.edu", credentials=Credentials("robot", "hunter2-of-alice"), now=NOW,
    )  # fmt: skip
    return entry(site, key_id=key.id)


def test_what_one_behind_a_password_is_fetched_with_goes_to_the_image_service_alone(
    site: LiveSite, sign: Any, service: list[tuple[str, str, dict[str, Any]]]
) -> None:
    found = locked(site)
    place = f"/environments/{found.id}/versions/1/adapted"
    assert sign("bob").post(place, json={}).status_code == 403 and not service
    begun = sign("alice").post(place, json={})
    assert begun.status_code == 202, begun.text
    ((path, token, body),) = service
    assert (path, token) == ("/logins", f"token {site.portal.parts['machines_token']}")
    assert body == {
        "registry": "registry.example.edu", "username": "robot", "password": "hunter2-of-alice",
    }  # fmt: skip
    (row,) = site.write(saved.saving)
    assert (row.build or {})["ticket"] == "01HTTTTTTTTTTTTTTTTTTTTTTT"
    assert "hunter2" not in str(row) + begun.text + page(site, "alice", found.id)


def test_without_an_image_service_that_answers_nothing_is_begun(site: LiveSite, sign: Any) -> None:
    found = locked(site)
    answer = sign("alice").post(f"/environments/{found.id}/versions/1/adapted", json={})
    assert answer.status_code == 503
    assert not site.write(saved.saving)


@pytest.mark.parametrize("names", [("one:1", "two:1"), ("one:1", "one:1")])
def test_two_who_adapt_one_entry_at_once_begin_it_once(
    site: LiveSite, sign: Any, monkeypatch: pytest.MonkeyPatch, names: tuple[str, str]
) -> None:
    """Both have looked, and see nothing, before either writes."""
    found, both = entry(site), threading.Barrier(2, timeout=60)
    met = adapting._ticket

    async def at_once(*words: Any) -> str:
        await asyncio.to_thread(both.wait)
        return await met(*words)

    monkeypatch.setattr(adapting, "_ticket", at_once)
    place = f"/environments/{found.id}/versions/1/adapted"
    clients = sign("alice"), sign("root")
    with ThreadPoolExecutor(2) as threads:
        answers = list(
            threads.map(
                lambda one: one[0].post(place, json={"name": one[1]}), zip(clients, names, strict=True)
            )
        )
    assert sorted(one.status_code for one in answers) == [202, 409]
    (refused,) = (one for one in answers if one.status_code == 409)
    assert refused.json()["reason"] == "adapting" and "Wait for it, or cancel it" in refused.text
    assert len(site.write(saved.saving)) == 1


@pytest.mark.parametrize("name", ["Torch:1", "torch:latest", "torch:2.9_X", "torch:" + "x" * 61, "../x:1"])
def test_a_name_that_cannot_be_is_refused(site: LiveSite, sign: Any, name: str) -> None:
    found = entry(site)
    answer = sign("alice").post(f"/environments/{found.id}/versions/1/adapted", json={"name": name})
    assert answer.status_code in (409, 422), answer.text
    assert not site.write(saved.saving)


def test_the_proposed_name_is_one_that_may_be(site: LiveSite) -> None:
    found = entry(site)
    for tag in ("LATEST", "...", "x" * 128, "_", "2026-11-02"):
        version = entries.Version(
            environment_id="", number=3, tag=tag, image="", digest="", added_at=NOW, added_by=""
        )
        text = proposed(found, version)
        assert str(parse_typed(text)) == text
