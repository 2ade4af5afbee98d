"""Administrators see which image is on which machine, and have what is missing fetched."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from sqlalchemy import select
from typer.testing import CliRunner

from extensions.imagebuilder import distribution, store
from extensions.imagebuilder.distribution import Image, Sight
from extensions.imagebuilder.entries import Actor
from galilean.cli import build_app
from galilean.errors import UserError
from galilean.tables import audit_log
from tests.imagebuilder.test_store import NOW, version
from tests.portal.live import LiveSite

DOCKER = """
backend: docker
docker: {image: "localhost/galilean-jupyter:1"}
environments:
  jupyter: {title: JupyterLab}
"""
FIRST, SECOND = version("a").image, version("b").image


@pytest.fixture
def site(tmp_path: Path) -> Iterator[LiveSite]:
    """Two environments: the image of one is here, that of the other could not be fetched."""
    live = LiveSite(tmp_path / "state", DOCKER)
    for name, role in (("alice", "researcher"), ("root", "admin")):
        live.hub.add(name, role)
    with live:
        live.portal.parts["images_url"] = "http://127.0.0.1:9"
        for letter, title in (("a", "Paint"), ("b", "Quartz")):
            live.write(
                store.create,
                actor=Actor(name="root"),
                owner="",
                slug=title.lower(),
                title=title,
                visibility="public",
                version=version(letter, size_bytes=5 << 20),
                now=NOW,
            )
        found = {one: Image(image=one) for one in (FIRST, SECOND)}
        sights = [Sight(machine="host-1", present=frozenset({FIRST}))]
        live.write(distribution.note, sights, found, now=NOW)
        error = UserError(502, "The registry says: {what}", what="no")
        live.write(distribution.set_state, SECOND, "host-1", "failed", now=NOW, error=error)
        yield live


def client(site: LiveSite, name: str) -> httpx.Client:
    headers = {"Authorization": f"token {site.hub.token(name, None)}"}
    return httpx.Client(base_url=site.url + "api/v1", headers=headers, timeout=20)


def page(site: LiveSite, name: str, path: str, status: int = 200) -> str:
    site.hub.whoever = name
    with httpx.Client(base_url=site.url, follow_redirects=True, timeout=20) as browser:
        answer = browser.get(path)
    assert answer.status_code == status, answer.text[:500]
    return answer.text


def places(site: LiveSite) -> dict[str, Any]:
    with client(site, "root") as root:
        return {one["image"]: one for one in root.get("/image-places").json()["items"]}


def test_every_image_and_machine_has_a_word(site: LiveSite) -> None:
    found = places(site)
    assert found[FIRST]["state"] == "present" and found[FIRST]["environments"] == ["paint"]
    assert (found[SECOND]["state"], found[SECOND]["why"]) == ("failed", "The registry says: no")


def test_only_administrators_of_machines_look_and_ask(site: LiveSite) -> None:
    with client(site, "alice") as alice:
        assert alice.get("/image-places").status_code == 403
        assert alice.post("/image-places", json={}).status_code == 403
    page(site, "alice", "admin/machine-images", 403)


def test_what_is_missing_is_asked_for_and_noted(site: LiveSite) -> None:
    with client(site, "root") as root:
        assert root.post("/image-places", json={"machine": "other"}).json() == {"places": 0}
        answer = root.post("/image-places", json={"image": SECOND})
        assert (answer.status_code, answer.json()) == (202, {"places": 1})
    assert places(site)[SECOND]["asked"]
    actions = site.write(lambda conn: conn.execute(select(audit_log.c.action, audit_log.c.subject)).all())
    assert ("images.redistribute", SECOND) in [tuple(row) for row in actions]


def test_the_pages_say_it_too(site: LiveSite) -> None:
    text = page(site, "root", "admin/machine-images")
    assert "The registry says: no" in text and "Paint" in text and "1 missing" in text
    assert "host-1" in page(site, "root", "environments/paint")
    assert "host-1" not in page(site, "alice", "environments/paint")
    assert "machine-images" in page(site, "root", "admin/machines")


def test_where_nobody_looks_the_page_says_so(site: LiveSite) -> None:
    site.portal.parts["images_url"] = ""
    assert "Nothing is fetched beforehand here" in page(site, "root", "admin/machine-images")
    with client(site, "root") as root:
        assert root.get("/image-places").status_code == 501


def test_what_is_searched_for_is_shown(site: LiveSite) -> None:
    text = page(site, "root", "admin/machine-images?q=quartz+host-1")
    assert "Quartz" in text and "Paint" not in text
    text = page(site, "root", "admin/machine-images?state=present")
    assert "Paint" in text and "Quartz" not in text
    assert "No image fits" in page(site, "root", "admin/machine-images?q=nothing-like-it")


def test_the_log_of_an_image_tells_who_wanted_it_and_why_it_failed(site: LiveSite) -> None:
    error = UserError(502, "The registry says: {what}", what="<no>")
    site.write(
        distribution.set_state, SECOND, "host-1", "failed", now=NOW, error=error, what="failed", seconds=7
    )
    with client(site, "root") as root:
        root.post("/image-places", json={"image": SECOND})
        (last, first) = root.get("/image-places/log", params={"image": SECOND}).json()["items"]
    assert (last["what"], last["actor"]) == ("asked", "root")
    assert (first["what"], first["seconds"], first["why"]) == ("failed", 7, "The registry says: <no>")
    text = page(site, "root", f"admin/machine-images/log?image={quote(SECOND)}")
    assert "The registry says: &lt;no&gt;" in text and "Wanted anew" in text and "Quartz" in text
    with client(site, "alice") as alice:
        assert alice.get("/image-places/log", params={"image": SECOND}).status_code == 403
    page(site, "alice", f"admin/machine-images/log?image={quote(SECOND)}", 403)


def test_what_only_its_owner_sees_goes_to_every_machine_when_an_administrator_says_so(site: LiveSite) -> None:
    image = version("c")
    site.write(
        store.create,
        actor=Actor(name="alice"),
        owner="alice",
        slug="mine",
        title="Mine",
        version=image,
        now=NOW,
    )
    site.write(
        distribution.note,
        [Sight(machine="host-1")],
        {image.image: Image(image=image.image, beforehand=False)},
        now=NOW,
    )
    text = page(site, "root", "admin/machine-images")
    assert "nobody but its owner sees it" in text and "0 missing" in text
    with client(site, "root") as root:
        assert root.post("/image-places", json={"image": image.image, "beforehand": True}).json() == {
            "places": 1
        }
        assert places(site)[image.image]["beforehand"]
        assert root.post("/image-places", json={"image": image.image, "beforehand": False}).status_code == 202
        assert not places(site)[image.image]["beforehand"]
        # One that everybody sees is everybody's: there is nothing to mark.
        site.write(distribution.note, [Sight(machine="host-1")], {FIRST: Image(image=FIRST)}, now=NOW)
        assert root.post("/image-places", json={"image": FIRST, "beforehand": True}).status_code == 409


def test_the_command_tells_and_asks(site: LiveSite, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GALILEAN_SITE", site.url)
    monkeypatch.setenv("LANG", "C.UTF-8")
    monkeypatch.setenv("GALILEAN_TOKEN", site.hub.token("root"))
    told = CliRunner().invoke(build_app(), ["environments", "places", "--redistribute"]).output
    assert f"host-1\tpresent\tpaint\t{FIRST}" in told
    assert f"host-1\tfailed\tquartz\t{SECOND}\tThe registry says: no" in told
    assert places(site)[SECOND]["asked"]
