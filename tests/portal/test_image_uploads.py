"""A packed image comes in by pieces, becomes a row in one step, and is refused before its first byte where it must be."""

from __future__ import annotations

import asyncio
import base64
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import select, update
from typer.testing import CliRunner

from extensions.imagebuilder import entries, saved, store
from extensions.imagebuilder.entries import Actor
from extensions.imagebuilder.names import ImageName, Pinned
from extensions.imagebuilder.store import NewVersion
from extensions.imagebuilder.tables import saved_images
from extensions.imagebuilder.uploading import folder_of
from galilean import disk_reserve
from galilean.cli import build_app
from galilean.commands import of_environments
from galilean.errors import UserError
from services.portal import image_uploads
from tests.portal.live import LiveSite

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
DOCKER = """
backend: docker
docker: {image: "localhost/galilean-jupyter:1"}
images: {registry: {upload: 1M, per_person: 2M}}
environments:
  jupyter: {title: JupyterLab}
"""
#: Portal and image service are pods there: archives come in on a volume that both have.
KUBERNETES = """
backend: kubernetes
kubernetes: {namespace: centre, image: "registry.example.edu/galilean/jupyter:1"}
volumes: {default: {kind: claim, claim: projects, path: "VOLUME"}}
images: {registry: {upload: 1M, upload_folder: "VOLUME/.galilean-images"}}
environments:
  jupyter: {title: JupyterLab}
"""
BODY = b"an archive" * 50
TUS = {"Tus-Resumable": "1.0.0"}


def digest(letter: str) -> str:
    return "sha256:" + letter * 64


@pytest.fixture
def site(tmp_path: Path) -> Iterator[LiveSite]:
    """A portal of a site with Docker and an image service, which nobody asks here."""
    live = LiveSite(tmp_path / "state", DOCKER)
    for name, role in (("alice", "researcher"), ("bob", "student"), ("root", "admin")):
        live.hub.add(name, role)
    live.hub.add("nobody")
    with live:
        live.portal.parts["images_url"] = "http://127.0.0.1:9"
        yield live


@pytest.fixture
def sign(site: LiveSite) -> Iterator[Any]:
    clients: list[httpx.Client] = []

    def make(name: str) -> httpx.Client:
        headers = {"Authorization": f"token {site.hub.token(name, None)}", "Accept": "application/json"}
        client = httpx.Client(base_url=site.url + "api/v1", headers=headers, timeout=20)
        clients.append(client)
        return client

    yield make
    for client in clients:
        client.close()


def begin(client: httpx.Client, length: int = len(BODY), **said: str) -> httpx.Response:
    said = {"filename": "x.tar", "name": "tools:1", **said}
    pairs = (f"{key} {base64.b64encode(text.encode()).decode()}" for key, text in said.items())
    metadata = ",".join(pairs).strip()
    return client.post(
        "/images/uploads", headers={**TUS, "Upload-Length": str(length), "Upload-Metadata": metadata}
    )


def go_on(
    site: LiveSite, client: httpx.Client, made: httpx.Response, offset: int, body: bytes
) -> httpx.Response:
    headers = {**TUS, "Upload-Offset": str(offset), "Content-Type": "application/offset+octet-stream"}
    return client.patch(_address(site, made), content=body, headers=headers)


def _address(site: LiveSite, made: httpx.Response) -> str:
    assert made.status_code == 201, made.text
    return str(httpx.URL(site.url).join(made.headers["Location"]))


def archives(site: LiveSite, name: str = "alice") -> list[str]:
    return sorted(path.name for path in folder_of(site.settings, name).glob("*.tar"))


def rows(site: LiveSite) -> list[Any]:
    return site.write(lambda conn: conn.execute(select(saved_images)).all())


def entry(site: LiveSite, slug: str, owner: str) -> entries.Entry:
    first = NewVersion(tag="0", image=f"registry.example.edu/x@{digest('b')}", digest=digest("b"))
    return site.write(
        store.create,
        actor=Actor(name=owner or "root"),
        owner=owner,
        slug=slug,
        title=slug.title(),
        visibility="own" if owner else "public",
        version=first,
        now=NOW,
    )


def test_nothing_is_there_before_the_last_byte_and_then_one_row(site: LiveSite, sign: Any) -> None:
    alice = sign("alice")
    made = begin(alice, description="Heat")
    assert go_on(site, alice, made, 0, BODY[:100]).headers["Upload-Offset"] == "100"
    assert (rows(site), archives(site)) == ([], [])
    answer = go_on(site, alice, made, 100, BODY[100:])
    (row,) = rows(site)
    assert (answer.status_code, answer.headers["Galilean-Path"]) == (204, row.id)
    assert (row.owner, row.name, row.tag, row.description) == ("alice", "tools", "1", "Heat")
    assert (row.state, row.how, archives(site)) == ("saving", "uploaded", [row.archive])
    assert (folder_of(site.settings, "alice") / row.archive).read_bytes() == BODY
    assert alice.get(f"/images/{row.id}").json()["state"] == "saving"


def test_where_nodes_are_pods_it_comes_in_on_the_volume_that_the_image_service_has_too(
    tmp_path: Path,
) -> None:
    volume = tmp_path / "volume"
    volume.mkdir()
    live = LiveSite(tmp_path / "state", KUBERNETES.replace("VOLUME", str(volume)))
    live.hub.add("alice", "researcher")
    headers = {"Authorization": f"token {live.hub.token('alice', None)}", "Accept": "application/json"}
    with live, httpx.Client(base_url=live.url + "api/v1", headers=headers, timeout=20) as alice:
        assert begin(alice).status_code == 501, "no image service"
        live.portal.parts["images_url"] = "http://127.0.0.1:9"
        answer = go_on(live, alice, begin(alice), 0, BODY)
        assert answer.status_code == 204
        (row,) = rows(live)
        place = volume / ".galilean-images"
        assert [path.read_bytes() for path in place.rglob("*.tar")] == [BODY]
        assert folder_of(live.settings, "alice") / row.archive in place.rglob("*.tar")
        assert not (live.settings.state / "image-uploads").exists()


def test_whoever_lost_the_last_answer_is_told_the_same_once_more(site: LiveSite, sign: Any) -> None:
    alice = sign("alice")
    made = begin(alice)
    image = go_on(site, alice, made, 0, BODY).headers["Galilean-Path"]
    again = alice.head(_address(site, made), headers=TUS)
    assert again.headers["Galilean-Path"] == image
    assert len(rows(site)) == 1


def test_an_upload_that_is_asked_for_again_when_its_image_is_gone_begins_nothing(
    site: LiveSite, sign: Any
) -> None:
    alice = sign("alice")
    made = begin(alice)
    image = go_on(site, alice, made, 0, BODY).headers["Galilean-Path"]
    (archive,) = archives(site)
    (folder_of(site.settings, "alice") / archive).unlink()  # as the image service does with what it took up
    site.write(saved.fail, image, error=UserError(422, "no image"), now=NOW)
    # A second of that name takes the place of the one that failed, and is deleted.
    second = go_on(site, alice, begin(alice), 0, BODY).headers["Galilean-Path"]
    site.write(saved.fail, second, error=UserError(422, "no image"), now=NOW)
    assert alice.delete(f"/images/{second}").status_code == 204
    again = alice.head(_address(site, made), headers=TUS)
    assert again.status_code == 410
    assert [row.id for row in rows(site)] == [second], "no row that could only fail"


@pytest.mark.parametrize("name", ["Tools:1", "tools", "tools:latest", "../x:1", "people/bob/x:1", ""])
def test_a_bad_name_is_refused_before_the_first_byte(site: LiveSite, sign: Any, name: str) -> None:
    assert begin(sign("alice"), name=name).status_code == 422
    assert archives(site) == []


def test_a_name_that_was_taken_meanwhile_is_refused_and_the_archive_is_gone(
    site: LiveSite, sign: Any
) -> None:
    alice = sign("alice")
    made = begin(alice)
    site.write(saved.begin, actor=Actor(name="alice"), name=ImageName("tools", "1"), now=NOW)
    assert begin(alice).status_code == 409
    assert go_on(site, alice, made, 0, BODY).status_code == 409
    assert archives(site) == []


def test_what_is_too_large_or_too_much_is_refused_before_the_first_byte(site: LiveSite, sign: Any) -> None:
    alice = sign("alice")
    assert begin(alice, 2 << 20).status_code == 413
    kept = site.write(saved.begin, actor=Actor(name="alice"), name=ImageName("old", "1"), now=NOW)
    site.write(
        saved.finish,
        kept.id,
        image=Pinned("127.0.0.1:5000", "people/alice/old", digest("c")),
        now=NOW,
        changes={"packed_bytes": (2 << 20) - 10},
    )
    assert begin(alice).status_code == 507


@pytest.mark.parametrize("who", ["nobody"])
def test_who_has_no_role_uploads_nothing(site: LiveSite, sign: Any, who: str) -> None:
    assert begin(sign(who)).status_code == 403


def test_an_upload_is_only_its_owners(site: LiveSite, sign: Any) -> None:
    made = begin(sign("alice"))
    assert go_on(site, sign("bob"), made, 0, BODY).status_code == 404


def test_where_nothing_can_be_saved_nothing_is_uploaded(site: LiveSite, sign: Any) -> None:
    site.portal.parts["images_url"] = ""
    assert begin(sign("alice")).status_code == 501


def test_a_new_version_is_uploaded_by_who_may_change_the_entry(site: LiveSite, sign: Any) -> None:
    mine, centres = entry(site, "tools", "alice"), entry(site, "pytorch", "")
    assert begin(sign("bob"), into=mine.id).status_code == 404
    assert begin(sign("alice"), into=centres.id).status_code == 403
    assert begin(sign("alice"), into=mine.id, name="tools:0").status_code == 409
    alice, root = sign("alice"), sign("root")
    assert go_on(site, alice, begin(alice, into=mine.id), 0, BODY).status_code == 204
    assert go_on(site, root, begin(root, into="pytorch", name="pytorch:2"), 0, BODY).status_code == 204
    assert {(row.owner, row.into_id) for row in rows(site)} == {("alice", mine.id), ("root", centres.id)}


def ready(site: LiveSite, sign: Any, name: str) -> str:
    client = sign(name)
    image = go_on(site, client, begin(client), 0, BODY).headers["Galilean-Path"]
    site.write(
        saved.finish,
        image,
        image=Pinned("127.0.0.1:5000", f"people/{name}/tools", digest("c")),
        now=NOW,
        size_bytes=10**6,
        layers=2,
        platform="linux/amd64",
        changes={
            "packed_bytes": 5,
            "told": [{"message": "VOLUME {path}: gone.", "params": {"path": "/data"}}],
        },
    )
    return image


def test_what_does_not_hold_is_kept_with_the_version(site: LiveSite, sign: Any) -> None:
    image = ready(site, sign, "alice")
    added = sign("alice").put(f"/images/{image}/library", json={"visibility": "public"})
    assert added.json()["versions"][0]["told"] == ["VOLUME /data: gone."]


def test_an_administrators_image_becomes_the_centres(site: LiveSite, sign: Any) -> None:
    image = ready(site, sign, "root")
    added = sign("root").put(f"/images/{image}/library", json={"visibility": "public", "centre": True})
    assert (added.json()["name"], added.json()["owner"]) == ("tools", "")
    other = ready(site, sign, "alice")
    refused = sign("alice").put(f"/images/{other}/library", json={"visibility": "public", "centre": True})
    assert refused.status_code == 403


def test_who_manages_no_more_withdraws_nothing_of_the_centre(site: LiveSite, sign: Any) -> None:
    image = ready(site, sign, "root")
    sign("root").put(f"/images/{image}/library", json={"visibility": "public", "centre": True})
    site.write(lambda conn: conn.execute(update(saved_images).values(owner="alice")))
    assert sign("alice").delete(f"/images/{image}/library").status_code == 403


def page(site: LiveSite, name: str, path: str) -> str:
    site.hub.whoever = name
    with httpx.Client(base_url=site.url, follow_redirects=True, timeout=20) as client:
        answer = client.get(path)
    assert answer.status_code == 200, answer.text[:500]
    return answer.text


def test_the_page_offers_what_one_may_do(site: LiveSite, sign: Any) -> None:
    mine, centres = entry(site, "tools", "alice"), entry(site, "pytorch", "")
    text = page(site, "alice", f"images/upload?into={mine.id}")
    assert 'value="tools:"' in text and centres.id not in text
    assert centres.id in page(site, "root", "images/upload")
    assert 'id="image-upload"' not in page(site, "nobody", "images/upload")
    assert "images/upload" in page(site, "alice", "images")
    assert "images/upload?into=" in page(site, "alice", f"environments/{mine.id}/edit")


def test_the_page_of_an_uploaded_image_says_what_it_is(site: LiveSite, sign: Any) -> None:
    alice = sign("alice")
    going = go_on(site, alice, begin(alice, name="other:1"), 0, BODY).headers["Galilean-Path"]
    assert "being taken up" in page(site, "alice", f"images/{going}")
    text = page(site, "alice", f"images/{ready(site, sign, 'alice')}")
    assert "VOLUME /data: gone." in text and "What changed" not in text and "Dockerfile" not in text


def test_the_command_uploads_and_waits(
    site: LiveSite, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    packed = tmp_path / "tools.tar"
    packed.write_bytes(BODY)
    monkeypatch.setenv("GALILEAN_SITE", site.url)
    monkeypatch.setenv("GALILEAN_TOKEN", site.hub.token("alice", None))
    monkeypatch.setenv("LANG", "C.UTF-8")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "home"))

    def fail(_: float) -> None:
        (row,) = rows(site)
        site.write(saved.fail, row.id, error=UserError(422, "no image: {what}", what="{x}"), now=NOW)

    monkeypatch.setattr(of_environments.time, "sleep", fail)
    found = CliRunner().invoke(build_app(), ["environments", "upload", str(packed), "tools:1"])
    assert found.exit_code == 1
    assert "no image: {x}" in found.output + str(found.exception)
    (row,) = rows(site)
    assert (folder_of(site.settings, "alice") / row.archive).read_bytes() == BODY


def test_a_disk_that_fills_up_refuses_the_next_piece_and_goes_on_where_it_was(
    site: LiveSite, sign: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    alice = sign("alice")
    made = begin(alice)
    assert go_on(site, alice, made, 0, BODY[:100]).status_code == 204
    monkeypatch.setattr(disk_reserve, "free_bytes", lambda _: 100)
    for refused in (go_on(site, alice, made, 100, BODY[100:]), begin(alice, name="other:1")):
        assert (refused.status_code, refused.json()["reason"]) == (507, "disk-full")
        assert "nearly full" in refused.text
    assert rows(site) == []
    monkeypatch.undo()
    assert go_on(site, alice, made, 100, BODY[100:]).status_code == 204
    assert len(rows(site)) == 1


def test_two_who_say_at_once_that_it_is_there_are_told_of_one_image_and_it_keeps_its_archive(
    site: LiveSite, sign: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    alice = sign("alice")
    made = begin(alice)
    wished, turns = image_uploads.wished, count()
    entered, both, begun = threading.Event(), threading.Barrier(2), threading.Event()

    async def together(*args: Any) -> image_uploads.Wished:
        turn = next(turns)
        entered.set()
        await asyncio.to_thread(both.wait, 20)  # neither has seen what the other does
        if turn:  # the second finds its name taken: by the first
            await asyncio.to_thread(begun.wait, 20)
        return await wished(*args)

    monkeypatch.setattr(image_uploads, "wished", together)
    with ThreadPoolExecutor(2) as beside:
        last = beside.submit(go_on, site, alice, made, 0, BODY)
        assert entered.wait(20)
        asked = beside.submit(sign("alice").head, _address(site, made), headers=TUS)
        answer = last.result()
        begun.set()
    (row,) = rows(site)
    assert (answer.status_code, answer.headers["Galilean-Path"]) == (204, row.id)
    assert (asked.result().status_code, asked.result().headers["Galilean-Path"]) == (200, row.id)
    assert archives(site) == [row.archive]
