"""Building an image from a project: what is offered, to whom, and what the image service is told."""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from extensions.imagebuilder import saved, store
from extensions.imagebuilder.changes import Changes
from extensions.imagebuilder.entries import Actor
from extensions.imagebuilder.names import ImageName, Pinned
from extensions.imagebuilder.summary import as_record
from galilean import disk_reserve
from galilean.errors import UserError
from services.portal import building
from services.portal.building import contexts
from tests.portal.conftest import made
from tests.portal.live import LiveSite
from tests.portal.test_environments import NOW, digest, version

ALLOWED = """
backend: docker
docker: {image: "localhost/galilean-jupyter:1"}
environments:
  jupyter: {title: JupyterLab}
  desk: {title: Desk, image: "localhost/desk:1"}
images: {builds: {allowed: true, files: 1M}}
"""


def started(tmp_path: Path, text: str) -> LiveSite:
    live = LiveSite(tmp_path / "state", text)
    for name, role in (("alice", "researcher"), ("bob", "student")):
        live.hub.add(name, role)
    live.hub.add("nobody")
    return live


@pytest.fixture
def site(tmp_path: Path) -> Iterator[LiveSite]:
    with started(tmp_path, ALLOWED) as live:
        live.portal.parts["images_url"] = "http://127.0.0.1:9"
        yield live  # type: ignore[misc]


@pytest.fixture
def sign(site: LiveSite) -> Iterator[Any]:
    clients: list[httpx.Client] = []

    def make(name: str) -> httpx.Client:
        client = httpx.Client(
            base_url=site.url + "api/v1",
            headers={"Authorization": f"token {site.hub.token(name, None)}"},
            timeout=90,
        )
        clients.append(client)
        return client

    yield make
    for client in clients:
        client.close()


def project(client: httpx.Client, owner: str = "alice", **files: str) -> str:
    """A project with these files (``__`` for a slash, ``_`` for a full stop); its address."""
    place = f"/projects/{owner}/{made(client)['slug']}"
    for name, text in files.items():
        path = name.replace("__", "/").replace("_", ".")
        if "/" in path:
            client.post(f"{place}/files", json={"path": path.rpartition("/")[0], "kind": "folder"})
        answer = client.put(f"{place}/files/{path}", content=text.encode())
        assert answer.status_code == 201, answer.text
    return place


def row(site: LiveSite, image_id: str) -> saved.SavedImage:
    with site.portal.db.read() as conn:
        return saved.get(conn, "alice", image_id)


def folder_of(site: LiveSite, place: str) -> Path:
    (found,) = [
        path for path in (site.settings.state / "volumes").rglob("Dockerfile") if path.is_file()
    ]  # fmt: skip
    return found.parent


def packed(site: LiveSite, image_id: str) -> dict[str, tarfile.TarInfo]:
    build = row(site, image_id).build
    assert build is not None
    with tarfile.open(contexts(site.settings) / build["context"]) as archive:
        return {one.name: one for one in archive}


def test_a_dockerfile_of_a_project_is_handed_on_with_its_files(site: LiveSite, sign: Any) -> None:
    alice = sign("alice")
    place = project(
        alice,
        Dockerfile="FROM desk\nCOPY a.txt /\n",
        a_txt="a",
        secret_env="x",
        _dockerignore="*.env\n/logs\n",
    )
    shown = alice.get(f"{place}/build").json()
    assert shown["files"] == ["Dockerfile"] and shown["environment"] == "desk"
    answer = alice.post(f"{place}/build", json={"name": "mine:1"})
    assert answer.status_code == 202, answer.text
    assert answer.json()["how"] == "built" and answer.json()["state"] == "saving"
    image = row(site, answer.json()["id"])
    assert image.build is not None and image.build["images"] == {"desk": "localhost/desk:1"}
    assert image.dockerfile == "FROM desk\nCOPY a.txt /\n" and image.environment == "desk"
    assert set(packed(site, image.id)) == {"Dockerfile", "a.txt", ".dockerignore"}
    assert alice.post(f"{place}/build", json={"name": "mine:1"}).status_code == 409


class Top:
    """A project's top with one file."""

    def __init__(self, text: str) -> None:
        self._text = text

    def open(self, _: str) -> io.BytesIO:
        return io.BytesIO(self._text.encode())


@pytest.mark.parametrize(
    "line",
    [
        "*a*a*a*a*a*b",
        "!x/*a*a*b",
        "*a*/*a*/*a*/z",
        "**a",
        "a**/b",
        "**/**/**/x",
        "*a[^/]*a[^/]*a[^/]b",
        "*a[]/x]*a[]/x]*a",
        "*[!x][!x]/*a*",
        "[b-a]",
        "a" * 300,
        "a\n" * 101,
    ],
    ids=lambda line: ascii(line)[1:20],
)
def test_patterns_that_take_long_or_are_none_are_refused_before_one_is_tried(line: str) -> None:
    root: Any = Top(f"*.pyc\n{line}\n")
    with pytest.raises(UserError) as refused:
        building._ignored(root)
    assert refused.value.status == 422 and refused.value.reason == "recipe"


def test_common_patterns_are_taken() -> None:
    lines = ["**/__pycache__/**", "**/*.pyc", "*/*/temp*", "!*keep*.md", "data[0-9].csv", "a/**/b", "~*"]
    root: Any = Top("# why\n" + "\n".join(lines) + "\n")
    assert building._ignored(root) == lines


def test_lists_of_packages_take_nothing_else_along(site: LiveSite, sign: Any) -> None:
    alice = sign("alice")
    place = project(
        alice, binder__requirements_txt="numpy\n", binder__apt_txt="vim\n", large_bin="x" * 2_000_000
    )
    shown = alice.get(f"{place}/build", params={"environment": "desk"}).json()
    assert shown["files"] == ["binder/apt.txt", "binder/requirements.txt"]
    assert shown["dockerfile"].startswith("FROM desk\n")
    answer = alice.post(f"{place}/build", json={"name": "mine:1", "environment": "jupyter"})
    assert answer.status_code == 202, answer.text
    image = row(site, answer.json()["id"])
    assert image.build is not None and image.build["images"] == {"jupyter": "localhost/galilean-jupyter:1"}
    assert set(packed(site, image.id)) == {"binder/apt.txt", "binder/requirements.txt"}
    assert alice.post(f"{place}/build", json={"name": "mine:2", "environment": "none"}).status_code == 400


def test_more_files_than_allowed_are_refused_and_nothing_is_left(site: LiveSite, sign: Any) -> None:
    alice = sign("alice")
    place = project(alice, Dockerfile="FROM desk\n", large_bin="x" * 2_000_000)
    assert alice.post(f"{place}/build", json={"name": "mine:1"}).status_code == 413
    assert not list(contexts(site.settings).glob("*"))
    assert alice.get("/images").json()["items"] == []


def test_where_the_disk_has_no_room_beside_those_in_line_it_is_said_and_nothing_waits(
    site: LiveSite, sign: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    alice = sign("alice")
    place = project(alice, Dockerfile="FROM desk\nCOPY . /x\n", data_bin="x" * 5000)
    monkeypatch.setattr(disk_reserve, "free_bytes", lambda _: 4000)
    refused = alice.post(f"{place}/build", json={"name": "mine:1"})
    assert (refused.status_code, refused.json()["reason"]) == (507, "disk-full")
    assert list(contexts(site.settings).glob("*")) == []


def test_no_link_is_followed(site: LiveSite, sign: Any, tmp_path: Path) -> None:
    alice = sign("alice")
    place = project(alice, Dockerfile="FROM desk\n", a_txt="a")
    folder = folder_of(site, place)
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "other").write_text("somebody else's")
    (folder / "d").symlink_to(tmp_path / "outside")
    (folder / "f").symlink_to(tmp_path / "outside" / "other")
    answer = alice.post(f"{place}/build", json={"name": "mine:1"})
    assert answer.status_code == 202, answer.text
    found = packed(site, answer.json()["id"])
    assert found["d"].issym() and found["f"].issym() and "d/other" not in found
    os.unlink(folder / "Dockerfile")
    (tmp_path / "outside" / "Dockerfile").write_text("FROM desk\n")
    (folder / "Dockerfile").symlink_to(tmp_path / "outside" / "Dockerfile")
    assert alice.get(f"{place}/build").status_code == 409, "a recipe that is a link is none"


def test_only_what_somebody_may_start_is_built_on(site: LiveSite, sign: Any) -> None:
    bob = Actor(name="bob")
    site.write(
        store.create,
        actor=bob,
        owner="bob",
        slug="paint",
        now=NOW,
        title="Paint",
        version=version("b"),
        visibility="own",
    )
    alice = sign("alice")
    for text in ("bob/paint", version("b").image, "bob/paint:1", "docker.io/library/debian:12"):
        place = project(alice, Dockerfile=f"FROM {text}\n")
        answer = alice.post(f"{place}/build", json={"name": "mine:1"})
        assert answer.status_code == 422, answer.text
        assert "Line 1" in answer.text
    place = project(sign("bob"), "bob", Dockerfile="FROM bob/paint:1\n")
    assert sign("bob").post(f"{place}/build", json={"name": "mine:1"}).status_code == 202


def test_a_project_of_somebody_elses_is_not_there(site: LiveSite, sign: Any) -> None:
    place = project(sign("alice"), Dockerfile="FROM desk\n")
    for method in ("get", "post"):
        options = {"json": {"name": "mine:1"}} if method == "post" else {}
        assert getattr(sign("bob"), method)(f"{place}/build", **options).status_code == 404
    assert sign("nobody").get(f"{place}/build").status_code == 403


def test_a_project_without_a_recipe_says_what_it_needs(site: LiveSite, sign: Any) -> None:
    alice = sign("alice")
    place = project(alice, notes_txt="x")
    answer = alice.post(f"{place}/build", json={"name": "mine:1"})
    assert answer.status_code == 409 and "requirements.txt" in answer.text


def recorded(site: LiveSite, dockerfile: str = "FROM localhost/desk:1\nUSER root\n") -> str:
    image = Pinned("127.0.0.1:5000", "people/alice/tools", digest("a"))
    changes = as_record(Changes({}, {}, {}, [], [])) | {"packed_bytes": 5}

    def put(conn: Any) -> str:
        made = saved.begin(
            conn, actor=Actor(name="alice"), name=ImageName("tools", "1"), now=NOW, environment="desk"
        )
        saved.finish(conn, made.id, image=image, now=NOW, dockerfile=dockerfile, changes=changes)
        return made.id

    return site.write(put)


def test_what_was_recorded_of_a_saved_image_is_built_anew(site: LiveSite, sign: Any) -> None:
    alice, image_id = sign("alice"), recorded(site)
    answer = alice.post(f"/images/{image_id}/build", json={"name": "tools:2"})
    assert answer.status_code == 202, answer.text
    image = row(site, answer.json()["id"])
    assert image.build is not None and image.build["of"] == "tools:1" and image.build["context"] == ""
    assert sign("bob").post(f"/images/{image_id}/build", json={"name": "tools:2"}).status_code == 404
    on_it = project(alice, Dockerfile="FROM alice/tools:1\n")
    assert alice.post(f"{on_it}/build", json={"name": "tools:3"}).status_code == 202


def page(site: LiveSite, name: str, path: str) -> httpx.Response:
    site.hub.whoever = name
    with httpx.Client(base_url=site.url, follow_redirects=True, timeout=20) as client:
        return client.get(path)


def test_the_pages_offer_it_where_there_is_something_to_build(site: LiveSite, sign: Any) -> None:
    alice = sign("alice")
    with_recipe = project(alice, requirements_txt="numpy\n", postBuild="x").lstrip("/")
    without = project(alice, notes_txt="x").lstrip("/")
    assert "/build?offer=1" in page(site, "alice", with_recipe).text
    assert "Build image" in page(site, "alice", f"{with_recipe}/build?offer=1").text
    assert "Build image" not in page(site, "alice", f"{without}/build?offer=1").text
    shown = page(site, "alice", f"{with_recipe}/build").text
    assert "Stands on the environment" in shown and "JupyterLab (jupyter)" in shown
    looked = page(site, "alice", f"{with_recipe}/build?look=1").text
    assert "pip install" in looked and "postBuild" in looked
    image_id = recorded(site)
    assert f"images/{image_id}/build" in page(site, "alice", f"images/{image_id}").text
    assert "FROM localhost/desk:1" in page(site, "alice", f"images/{image_id}/build?look=1").text
    begun = alice.post(f"/{with_recipe}/build", json={"name": "mine:1"}).json()["id"]
    going = page(site, "alice", f"images/{begun}").text
    assert "Built step by step" in going and "Cancel building" in going and "From the files of" in going
    assert "with 2 CPU and" in shown

    def fail(conn: Any) -> None:
        saved.fail(
            conn, begun, error=UserError(422, "No {what}.", what="compiler"), now=NOW, log="cc: not found"
        )

    site.write(fail)
    failed = page(site, "alice", f"images/{begun}").text
    assert "No compiler." in failed and "cc: not found" in failed and "Build again" in failed
    assert "What changed" not in failed


def test_where_it_is_not_allowed_nothing_offers_it(tmp_path: Path) -> None:
    with started(tmp_path, ALLOWED.replace("allowed: true", "allowed: false")) as live:
        live.portal.parts["images_url"] = "http://127.0.0.1:9"
        headers = {"Authorization": f"token {live.hub.token('alice', None)}"}
        with httpx.Client(base_url=live.url + "api/v1", headers=headers, timeout=60) as alice:
            place = project(alice, Dockerfile="FROM desk\n")
            assert alice.post(f"{place}/build", json={"name": "mine:1"}).status_code == 501
        assert "/build?offer" not in page(live, "alice", place.lstrip("/")).text  # type: ignore[arg-type]
