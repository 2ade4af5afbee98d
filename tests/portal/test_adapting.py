"""*Adapt* on an environment's page and by the API: who may, which versions, two at once; what the page says."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from extensions.imagebuilder import entries, looks, saved, store
from extensions.imagebuilder.entries import Actor
from extensions.imagebuilder.names import Pinned, parse_typed
from extensions.imagebuilder.store import NewVersion
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
    assert sign("root").post(place, json={"name": "other:1"}).json()["reason"] == "adapting"
    assert "It is being adapted" in page(site, "alice", found.id)
    pinned = Pinned("registry.local", "people/alice/torch", "sha256:" + "b" * 64)
    site.write(saved.finish, image["id"], image=pinned, now=NOW, changes={"told": []})
    site.write(saved.into_entry, image["id"], now=NOW)
    detail = sign("alice").get(f"/environments/{found.id}").json()
    assert [one["image"] for one in detail["versions"] if one["current"]] == [str(pinned)]
    assert "What this image lacks" not in page(site, "alice", found.id)
    again = sign("alice").post(f"/environments/{found.id}/versions/2/adapted", json={})
    assert again.json()["reason"] == "image-whole"


def test_one_behind_a_password_is_refused_with_what_to_do(site: LiveSite, sign: Any) -> None:
    found = entry(site, key_id="01J0000000000000000000KEY0")
    answer = sign("alice").post(f"/environments/{found.id}/versions/1/adapted", json={})
    assert (answer.status_code, answer.json()["reason"]) == (409, "image-private")
    assert "Upload it packed instead" in page(site, "alice", found.id)


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
