"""The catalogue of environments: pages and API, those of the file and those that are kept online."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import select
from typer.testing import CliRunner

from extensions.imagebuilder import entries, looks, saved, store
from extensions.imagebuilder.entries import Actor
from extensions.imagebuilder.names import ImageName, Pinned
from extensions.imagebuilder.store import NewVersion
from galilean.cli import build_app
from galilean.errors import UserError
from galilean.tables import audit_log
from tests.portal.conftest import made
from tests.portal.live import LiveSite

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
DOCKER = """
backend: docker
docker: {image: "localhost/galilean-jupyter:1"}
environments:
  jupyter: {title: JupyterLab}
  desk: {title: Desk, interfaces: [desktop]}
"""


def digest(letter: str) -> str:
    return "sha256:" + letter * 64


def version(letter: str = "a", tag: str = "1") -> NewVersion:
    return NewVersion(tag=tag, image=f"registry.example.edu/x@{digest(letter)}", digest=digest(letter))


@pytest.fixture
def docker(tmp_path: Path) -> Iterator[LiveSite]:
    """A portal of a site whose nodes are containers."""
    live = LiveSite(tmp_path / "state", DOCKER)
    for name, role in (("alice", "researcher"), ("bob", "student"), ("root", "admin")):
        live.hub.add(name, role)
    live.hub.add("nobody")
    with live:
        yield live


@pytest.fixture
def sign(docker: LiveSite) -> Iterator[Any]:
    clients: list[httpx.Client] = []

    def make(name: str, language: str = "en") -> httpx.Client:
        client = httpx.Client(
            base_url=docker.url + "api/v1",
            headers={"Authorization": f"token {docker.hub.token(name, None)}", "Accept-Language": language},
            timeout=90,
        )
        clients.append(client)
        return client

    yield make
    for client in clients:
        client.close()


def entry(docker: LiveSite, slug: str = "pytorch", owner: str = "", **more: Any) -> entries.Entry:
    values = {"title": slug.title(), "version": version(), "visibility": "own" if owner else "public", **more}
    return docker.write(
        store.create, actor=Actor(name=owner or "root"), owner=owner, slug=slug, now=NOW, **values
    )


def page(docker: LiveSite, name: str, path: str, status: int = 200) -> str:
    docker.hub.whoever = name
    with httpx.Client(base_url=docker.url, follow_redirects=True, timeout=120) as client:
        answer = client.get(path)
    assert answer.status_code == status, answer.text[:500]
    return answer.text


def names(answer: httpx.Response) -> list[str]:
    assert answer.status_code == 200, answer.text
    return [one["name"] for one in answer.json()["items"]]


@pytest.fixture
def found(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A registry that has every image; what it is asked for."""
    asked: list[str] = []

    async def look(settings: Any, address: str, credentials: Any = None, **more: Any) -> looks.Look:
        asked.append(f"{credentials.username}:{credentials.password}@{address}" if credentials else address)
        reference = looks.parse(address)
        letter = "bcdef"[len(asked) % 5]
        return looks.Look(
            reference=reference,
            image=Pinned(reference.registry, reference.repository, digest(letter)),
            size_bytes=10**9,
            layers=5,
            platform="linux/amd64",
            told=({"message": "VOLUME {path}: gone.", "params": {"path": "/data"}},),
        )

    monkeypatch.setattr(looks, "look", look)
    return asked


# ---- the list


def test_entries_of_the_file_stand_beside_those_kept_online(docker: LiveSite, sign: Any) -> None:
    entry(docker)
    entry(docker, "paint", "alice", version=version("b"))
    assert names(sign("bob").get("/environments")) == ["jupyter", "desk", "pytorch"]
    assert names(sign("alice").get("/environments")) == ["jupyter", "desk", "alice/paint", "pytorch"]
    assert names(sign("alice").get("/environments?scope=own")) == ["alice/paint"]
    assert names(sign("alice").get("/environments?interface=desktop")) == ["desk"]
    assert names(sign("alice").get("/environments?q=PYTO")) == ["pytorch"]
    first = sign("alice").get("/environments").json()["items"][0]
    assert (first["from_file"], first["default"], first["id"]) == (True, True, "jupyter")


def test_the_list_goes_on_where_it_ended(docker: LiveSite, sign: Any) -> None:
    for i in range(5):
        entry(docker, f"e{i}", version=version(str(i)))
    seen, cursor = [], ""
    while True:
        answer = sign("bob").get(f"/environments?limit=2&cursor={cursor}")
        seen += names(answer)
        cursor = answer.json()["next"]
        if not cursor:
            break
    assert seen == ["jupyter", "desk", "e0", "e1", "e2", "e3", "e4"]


def test_what_is_not_shared_is_not_there(docker: LiveSite, sign: Any) -> None:
    paint = entry(docker, "paint", "alice")
    for path in (f"/environments/{paint.id}", "/environments/alice%2Fpaint"):
        assert sign("alice").get(path).status_code == 200
        answer = sign("bob").get(path)
        assert answer.status_code == 404
        assert "paint" not in answer.text
    page(docker, "bob", f"environments/{paint.id}", 404)
    assert "Paint" not in page(docker, "bob", "environments")


def test_the_page_shows_versions_and_who_still_has_an_old_one(docker: LiveSite) -> None:
    made = entry(docker, documentation="# Read me <script>alert(1)</script>")
    docker.write(store.add_version, made.id, version("b", "2"), actor=Actor(name="root"), now=NOW)
    docker.cluster("bob", "Old flow", environment_digest=digest("a"))
    with docker.portal.db.write() as conn:
        conn.exec_driver_sql("UPDATE clusters SET environment = 'pytorch'")
    shown = page(docker, "root", f"environments/{made.id}")
    assert "1 cluster is of an older version" in shown
    assert "Old flow" in shown
    assert "Old flow" not in page(docker, "alice", f"environments/{made.id}"), "other people's clusters"
    text = page(docker, "alice", f"environments/{made.id}/documentation")
    assert "<h1" in text
    assert "<script>alert" not in text
    page(docker, "alice", f"environments/{made.id}/edit", 403)


def test_values_of_variables_are_told_to_whoever_may_change_them(docker: LiveSite, sign: Any) -> None:
    made = entry(docker, start={"variables": {"LICENCE": "27000@lic"}})
    assert sign("bob").get(f"/environments/{made.id}").json()["start"]["variables"] == {"LICENCE": ""}
    assert sign("root").get(f"/environments/{made.id}").json()["start"]["variables"] == {
        "LICENCE": "27000@lic"
    }
    assert "27000" not in page(docker, "bob", f"environments/{made.id}")


def test_where_nodes_are_processes_the_page_says_so_and_offers_no_buttons(site: LiveSite) -> None:
    site.hub.whoever = "root"
    with httpx.Client(base_url=site.url, follow_redirects=True) as client:
        text = client.get("environments").text
        token = {"Authorization": f"token {site.hub.token('root', None)}"}
        answer = client.post(
            "api/v1/environments",
            json={"title": "X", "image": {"address": "x"}, "centre": True},
            headers=token,
        )
    assert "processes of one machine" in text
    assert "environments/new" not in text
    assert (answer.status_code, answer.json()["reason"]) == (409, "no-images")


# ---- made and changed


def test_an_image_is_registered_by_its_address_and_kept_by_its_digest(
    docker: LiveSite, sign: Any, found: list[str]
) -> None:
    body = {
        "title": "PyTorch 训练",
        "image": {"address": "quay.io/site/torch:2.9"},
        "start": {"needs_gpu": True, "least_memory": 4 * 2**30},
        "field": "ai",
        "centre": True,
    }
    assert sign("alice").post("/environments", json=body).status_code == 403
    answer = sign("root").post("/environments", json=body)
    assert answer.status_code == 201, answer.text
    one = answer.json()
    assert (one["name"], one["version"], one["visibility"]) == ("pytorch", "2.9", "public")
    assert one["versions"][0]["image"].startswith("quay.io/site/torch@sha256:")
    assert one["versions"][0]["told"] == ["VOLUME /data: gone."]
    assert found == ["quay.io/site/torch:2.9"]
    with docker.portal.db.read() as conn:
        line = conn.execute(select(audit_log).where(audit_log.c.action == "environment.create")).one()
    assert line.subject == "pytorch"
    own = sign("alice").post("/environments", json={**body, "centre": False}).json()
    assert (own["name"], own["visibility"]) == ("alice/pytorch", "own")
    assert sign("nobody").post("/environments", json={**body, "centre": False}).status_code == 403
    assert sign("root").post("/environments", json={**body, "name": "jupyter"}).status_code == 409


def test_a_centre_may_keep_environments_to_its_administrators(tmp_path: Path, found: list[str]) -> None:
    live = LiveSite(tmp_path / "closed", DOCKER + "images: {own: false}\n")
    live.hub.add("alice", "researcher")
    with live:
        answer = httpx.post(
            live.url + "api/v1/environments",
            json={"title": "X", "image": {"address": "x"}},
            headers={"Authorization": f"token {live.hub.token('alice', None)}"},
        )
    assert answer.status_code == 403
    assert found == []


def test_what_is_said_is_changed_in_place_and_a_new_version_leaves_the_old(
    docker: LiveSite, sign: Any, found: list[str]
) -> None:
    made = entry(docker, "paint", "alice")
    alice = sign("alice")
    answer = alice.patch(
        f"/environments/{made.id}",
        json={"documentation": "# Hello", "visibility": "group", "shared_with": [{"person": "bob"}]},
    )
    assert answer.status_code == 200, answer.text
    assert answer.json()["shared_with"] == ["person:bob"]
    assert "alice/paint" in names(sign("bob").get("/environments?scope=shared"))
    assert (
        alice.patch(
            f"/environments/{made.id}", json={"visibility": "group", "shared_with": [{"person": "ghost"}]}
        ).status_code
        == 404
    )
    assert sign("bob").patch(f"/environments/{made.id}", json={"title": "Mine"}).status_code == 403
    answer = alice.post(
        f"/environments/{made.id}/versions", json={"image": {"address": "quay.io/a/b:2"}, "note": "New"}
    )
    assert answer.status_code == 201
    assert [one["tag"] for one in answer.json()["versions"]] == ["2", "1"]
    assert answer.json()["version"] == "2"
    back = alice.put(f"/environments/{made.id}/versions/1/current").json()
    assert back["version"] == "1"


def test_a_desktop_with_a_vnc_server_of_its_own_is_registered_and_its_password_told_to_nobody_else(
    docker: LiveSite, sign: Any, found: list[str]
) -> None:
    start = {
        "interfaces": ["desktop"],
        "command": "/opt/start-vnc.sh",
        "vnc": {"port": 5901, "password": "hush-hush"},
        "display": {"width": 1280, "height": 720, "dpi": 120},
        "hostname": "lab",
        "needs_gpu": True,
        "least_memory": 2**30,
    }
    body = {"title": "MATLAB", "image": {"address": "quay.io/site/matlab:1"}, "start": start, "centre": True}
    made_ = sign("root").post("/environments", json=body)
    assert made_.status_code == 201, made_.text
    one = made_.json()
    vnc = one["start"].pop("vnc")
    assert (vnc["port"], vnc["password"]) == (5901, "hush-hush")
    assert one["start"] == {key: value for key, value in start.items() if key != "vnc"}
    seen = sign("alice").get(f"/environments/{one['id']}")
    assert seen.json()["start"]["vnc"]["password"] == "…" and "hush-hush" not in seen.text
    page = sign("alice").get(f"{docker.url}environments/{one['id']}").text
    assert "the image's own, port 5901" in page and "hush-hush" not in page
    settings = sign("root").get(f"{docker.url}environments/{one['id']}/edit").text
    assert 'name="vnc_port"' in settings and 'value="hush-hush"' in settings and 'value="1280"' in settings
    with docker.portal.db.read() as conn:
        lines = conn.execute(select(audit_log)).all()
    assert "hush-hush" not in str(lines) and "matlab" in str(lines)
    with docker.portal.db.read() as conn:
        kept = store.by_name(conn, "matlab")
    assert kept is not None and kept.settings.vnc is not None and kept.settings.vnc.password == "hush-hush"
    wrong = {**body, "name": "other", "start": {**start, "interfaces": ["jupyter"]}}
    refused = sign("root").post("/environments", json=wrong)
    assert refused.status_code == 400 and "vnc needs the interface desktop" in refused.json()["detail"]


def test_an_entry_of_the_file_is_changed_in_the_file(docker: LiveSite, sign: Any) -> None:
    answer = sign("root").patch("/environments/jupyter", json={"title": "Mine"})
    assert (answer.status_code, answer.json()["reason"]) == (403, "from-file")


def test_a_retired_environment_takes_no_new_runs(docker: LiveSite, sign: Any) -> None:
    made_ = entry(docker)
    alice = sign("alice")
    project = made(alice, environment="pytorch")
    path = f"/projects/alice/{project['slug']}/clusters"
    sign("root").put(f"/environments/{made_.id}/retired")
    answer = alice.post(path, json={"cpu": 1, "memory": "2G"})
    assert answer.status_code == 409
    assert "is retired" in answer.text
    assert names(alice.get("/environments")) == ["jupyter", "desk"]
    sign("root").delete(f"/environments/{made_.id}/retired")
    answer = alice.post(path, json={"cpu": 1, "memory": "2G"})
    assert answer.status_code in (200, 202), answer.text
    run = answer.json()
    with docker.portal.db.read() as conn:
        row = conn.exec_driver_sql(f"SELECT * FROM clusters WHERE id = '{run['id']}'").mappings().one()
    assert (row["environment"], row["environment_digest"]) == ("pytorch", digest("a"))
    assert sign("root").delete(f"/environments/{made_.id}").status_code == 409


def test_a_project_may_have_what_its_owner_finds_and_nothing_else(docker: LiveSite, sign: Any) -> None:
    entry(docker, "paint", "alice")
    assert (
        sign("alice").post("/projects", json={"name": "A", "environment": "alice/paint"}).status_code == 201
    )
    assert sign("bob").post("/projects", json={"name": "A", "environment": "alice/paint"}).status_code == 400
    project = made(sign("bob"))
    answer = sign("bob").post(
        f"/projects/bob/{project['slug']}/clusters",
        json={"cpu": 1, "memory": "2G", "environment": "alice/paint"},
    )
    assert answer.status_code == 400
    assert "alice/paint" in page(docker, "alice", "projects/new?environment=alice%2Fpaint")
    assert "alice/paint" not in page(docker, "bob", "projects/new")


def test_doors_are_those_that_the_environment_had_when_the_run_was_asked_for(
    docker: LiveSite, sign: Any
) -> None:
    made_ = entry(docker, start={"interfaces": ["desktop"], "ports": [8080]})
    alice = sign("alice")
    project = made(alice, environment="pytorch")
    run = alice.post(f"/projects/alice/{project['slug']}/clusters", json={"cpu": 1, "memory": "2G"}).json()
    sign("root").patch(f"/environments/{made_.id}", json={"start": {}})
    doors = alice.get(f"/clusters/{run['id']}").json()["node_list"][0]["doors"]
    assert {"desktop", "port-8080"} <= {door["name"] for door in doors}
    assert "lab" not in {door["name"] for door in doors}


# ---- names and passwords


def test_a_password_goes_to_its_own_registry_and_is_never_shown(
    docker: LiveSite, sign: Any, found: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    alice, secret = sign("alice"), "hunter2-very-secret"
    answer = alice.post(
        "/registry-keys", json={"registry": "registry.example.edu", "username": "ada", "password": secret}
    )
    assert answer.status_code == 201, answer.text
    key = answer.json()["id"]
    seen = [answer.text, alice.get("/registry-keys").text, page(docker, "alice", "environments/keys")]
    other = alice.post("/image-looks", json={"address": "evil.example.org/x:1", "key": key})
    assert (other.status_code, other.json()["reason"]) == (400, "key-other")
    assert found == []
    assert (
        sign("bob").post("/image-looks", json={"address": "registry.example.edu/x:1", "key": key}).status_code
        == 404
    )
    good = alice.post("/image-looks", json={"address": "registry.example.edu/x:1", "key": key})
    assert good.status_code == 200
    assert found == [f"ada:{secret}@registry.example.edu/x:1"]
    with docker.portal.db.read() as conn:
        rows = [*conn.exec_driver_sql("SELECT * FROM registry_keys").all()]
        rows += conn.exec_driver_sql("SELECT * FROM audit_log").all()
    seen += [str(rows), good.text, caplog.text]
    assert not any(secret in text for text in seen)
    assert alice.delete(f"/registry-keys/{key}").status_code == 204
    assert alice.get("/registry-keys").json()["items"] == []


def test_nobody_looks_at_images_without_end(docker: LiveSite, sign: Any, found: list[str]) -> None:
    alice = sign("alice")
    answers = [alice.post("/image-looks", json={"address": "x:1"}).status_code for _ in range(22)]
    assert answers[0] == 200
    assert answers[-1] == 429
    assert sign("nobody").post("/image-looks", json={"address": "x:1"}).status_code == 403


# ---- the library


def save(
    docker: LiveSite, owner: str = "alice", name: str = "tools", tag: str = "1", letter: str = "d"
) -> str:
    def make(conn: Any) -> str:
        begun = saved.begin(
            conn,
            actor=Actor(name=owner),
            name=ImageName(name, tag),
            environment="desk",
            now=NOW,
            description="Mine",
        )
        saved.finish(
            conn,
            begun.id,
            image=Pinned("registry.example.edu", "people/x", digest(letter)),
            size_bytes=9,
            now=NOW,
        )
        return begun.id

    return docker.write(make)


def test_a_saved_image_is_added_for_chosen_people_and_run_by_them_at_once(
    docker: LiveSite, sign: Any
) -> None:
    image = save(docker)
    assert "Add tools:1 to the library" in page(docker, "alice", f"environments/add?saved={image}")
    page(docker, "bob", f"environments/add?saved={image}", 404)
    body = {"visibility": "group", "shared_with": [{"person": "bob"}], "title": "Tools"}
    assert sign("bob").put(f"/images/{image}/library", json=body).status_code == 404
    answer = sign("alice").put(f"/images/{image}/library", json=body)
    assert answer.status_code == 200, answer.text
    assert (answer.json()["name"], answer.json()["interfaces"]) == ("alice/tools", ["desktop"])
    bob = sign("bob")
    project = made(bob)
    run = bob.post(
        f"/projects/bob/{project['slug']}/clusters",
        json={"cpu": 1, "memory": "2G", "environment": "alice/tools"},
    )
    assert run.status_code in (200, 202), run.text
    second = save(docker, tag="2", letter="e")
    assert "new version of “Tools”" in page(docker, "alice", f"environments/add?saved={second}")
    assert sign("alice").delete(f"/images/{image}/library").status_code == 204
    assert "alice/tools" not in names(bob.get("/environments"))
    assert bob.get(f"/clusters/{run.json()['id']}").json()["released_at"] is None, "those that are held go on"


def test_my_images_are_their_owners_and_one_comes_there_from_the_environments(docker: LiveSite) -> None:
    image = save(docker)
    text = page(docker, "alice", "images")
    assert "tools:1" in text and "Add to library" in text
    assert "My images" in page(docker, "alice", "environments")
    assert "tools:1" not in page(docker, "bob", "images")
    page(docker, "bob", f"images/{image}", 404)


# ---- by command


def test_the_catalogue_is_kept_by_commands_as_by_pages(
    docker: LiveSite, found: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GALILEAN_SITE", docker.url)
    monkeypatch.setenv("LANG", "C.UTF-8")

    def run(name: str, *words: str, text: str = "") -> Any:
        monkeypatch.setenv("GALILEAN_TOKEN", docker.hub.token(name))
        return CliRunner().invoke(build_app(), ["environments", *words], input=text)

    assert "kept" in run("alice", "login", "quay.io", "ada", text="hunter2\n").output
    assert run(
        "alice", "register", "quay.io/a/b:1", "--title", "Paint", "--login", "quay.io"
    ).output.startswith("alice/paint\n")
    assert found == ["ada:hunter2@quay.io/a/b:1"]
    assert "version 2" in run("alice", "version", "alice/paint", "quay.io/a/b:2").output
    assert "alice/paint\t2\town\tPaint" in run("alice", "list").output
    assert "alice/paint" not in run("bob", "list").output
    refused = run("bob", "delete", "alice/paint")
    assert isinstance(refused.exception, UserError)
    assert refused.exception.status == 404
    assert run("alice", "retire", "alice/paint").exit_code == 0
    assert "alice/paint" in run("alice", "list", "--scope", "retired").output


# ---- licence servers

FLEX = {"licences": [{"host": "flex.example.edu", "ports": [27000, 27001]}]}


def test_administrators_name_licence_servers_and_everybody_sees_them(docker: LiveSite, sign: Any) -> None:
    mine = entry(docker, "cae", "alice", visibility="public")
    refused = sign("alice").patch(f"/environments/{mine.id}", json={"start": FLEX})
    assert refused.status_code == 403, refused.text
    assert "licence servers" in refused.text
    given = sign("root").patch(f"/environments/{mine.id}", json={"start": FLEX})
    assert given.status_code == 200, given.text
    kept = sign("alice").patch(f"/environments/{mine.id}", json={"start": {**FLEX, "ports": [8080]}})
    assert kept.status_code == 200, kept.text
    assert kept.json()["start"]["licences"] == FLEX["licences"]
    shown = page(docker, "bob", f"environments/{mine.id}")
    assert "flex.example.edu:27000,27001" in shown
    two = [*FLEX["licences"], {"host": "10.20.30.41", "ports": [1947], "protocol": "udp"}]
    sign("root").patch(f"/environments/{mine.id}", json={"start": {"licences": two}})
    fields = page(docker, "root", f"environments/{mine.id}/edit")
    assert "flex.example.edu 27000 27001\n10.20.30.41 1947 udp\n" in fields, "one in a line, as it is read"
    form = page(docker, "alice", f"environments/{mine.id}/edit")
    assert 'name="licences"' not in form
    assert "flex.example.edu" in form, "what the owner's form has no field for is sent back as it is"


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "169.254.169.254",
        "10.213.0.1",
        "localhost",
        "::ffff:127.0.0.1",
        "2130706433",
        "hub.galilean.svc",
    ],
)
def test_nobody_opens_a_way_inward(docker: LiveSite, sign: Any, host: str) -> None:
    made = entry(docker)
    body = {"start": {"licences": [{"host": host, "ports": [27000]}]}}
    answer = sign("root").patch(f"/environments/{made.id}", json=body)
    assert answer.status_code == 400, answer.text
    assert "licences" not in sign("root").get(f"/environments/{made.id}").json()["start"]


def test_licence_servers_are_set_by_a_script(
    docker: LiveSite, sign: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry(docker, start={"ports": [8080]})
    monkeypatch.setenv("GALILEAN_TOKEN", docker.hub.token("root", None))
    monkeypatch.setenv("GALILEAN_SITE", docker.url)
    monkeypatch.setenv("LANG", "C.UTF-8")
    app = build_app()
    words = ["--server", "flex.example.edu:27000,27001", "--server", "[2001:db8::7]:1947/udp"]
    done = CliRunner().invoke(app, ["environments", "licences", "pytorch", *words])
    assert done.exit_code == 0, done.output
    assert done.output.split() == ["flex.example.edu:27000,27001", "[2001:db8::7]:1947/udp"]
    start = sign("root").get("/environments/pytorch").json()["start"]
    assert (start["ports"], len(start["licences"])) == ([8080], 2)
    done = CliRunner().invoke(app, ["environments", "licences", "pytorch", "--server", "flex"])
    assert done.exit_code != 0
    done = CliRunner().invoke(app, ["environments", "licences", "pytorch", "--none"])
    assert (done.exit_code, done.output) == (0, "")
    assert "licences" not in sign("root").get("/environments/pytorch").json()["start"]
