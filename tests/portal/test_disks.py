"""Disks by API, pages and command: only one's own, one writer or many readers, deleted for good."""

from __future__ import annotations

import asyncio
import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
from typer.testing import CliRunner

from galilean.cli import build_app
from galilean.errors import UserError
from services.portal import disks as chores
from tests.portal.conftest import Sign, made
from tests.portal.live import Course, LiveSite
from tests.portal.test_kept import may_keep

SMALL = {"nodes": 1, "cpu": 1, "memory": "1G"}


def disk(client: httpx.Client, name: str = "data", size_gib: int = 2, **more: Any) -> dict[str, Any]:
    answer = client.post("/disks", json={"name": name, "size_gib": size_gib, **more})
    assert answer.status_code == 201, answer.text
    return answer.json()


def run(client: httpx.Client, project: dict[str, str], **disks: str) -> httpx.Response:
    path = f"/projects/{project['owner']}/{project['slug']}/clusters"
    return client.post(path, json={**SMALL, "disks": disks})


def page(site: LiveSite, name: str, path: str, status: int = 200, **how: Any) -> str:
    site.hub.whoever = name
    with httpx.Client(base_url=site.url, follow_redirects=True, timeout=90) as client:
        answer = client.get(path, **how)
    assert answer.status_code == status, answer.text[:500]
    return answer.text


def purge(site: LiveSite) -> None:
    asyncio.run_coroutine_threadsafe(chores.purge(site.portal), site.loop).result(60)


def test_a_disk_is_made_mounted_released_and_deleted(site: LiveSite, sign: Sign) -> None:
    site.hub.course = Course(ready=0.0)
    alice = sign("alice")
    one, two = made(alice, "One"), made(alice, "Two")
    data = disk(alice)
    place = site.portal.settings.disks_directory / data["id"]
    assert place.is_dir()
    started = run(alice, one, data="write")
    assert started.status_code in (200, 202), started.text
    (use,) = alice.get(f"/disks/{data['id']}").json()["uses"]
    assert (use["project"], use["mode"], use["cluster"]) == ("One", "write", started.json()["id"])
    for mode in ("read", "write"):
        answer = run(alice, two, data=mode)
        assert answer.status_code == 409
        assert "Your run of “One” writes to the disk “data”" in answer.json()["detail"]
    answer = alice.delete(f"/disks/{data['id']}")
    assert (answer.status_code, answer.json()["reason"]) == (409, "disk-held")
    text = page(site, "alice", "disks")
    assert "One writes it" in text
    assert "ask=delete" not in text
    drawer = page(site, "alice", f"projects/{two['owner']}/{two['slug']}/run")
    assert 'value="data:read" disabled' in drawer
    assert alice.delete(f"/clusters/{started.json()['id']}").status_code in (202, 204)
    assert run(alice, two, data="read").status_code in (200, 202)
    assert run(alice, one, data="read").status_code in (200, 202)
    for cluster in alice.get("/clusters").json()["items"]:
        alice.delete(f"/clusters/{cluster['id']}")
    (place / "file").write_bytes(b"x" * 1000)
    purge(site)
    assert alice.get(f"/disks/{data['id']}").json()["used_bytes"] == 1000
    assert alice.delete(f"/disks/{data['id']}").status_code == 204
    assert alice.get("/disks").json()["items"] == []
    purge(site)
    assert not place.exists()
    assert run(alice, one, data="read").status_code == 404


def test_of_two_who_start_at_once_one_writes(site: LiveSite, sign: Sign) -> None:
    alice = sign("alice")
    projects = [made(alice, f"P{n}") for n in range(3)]
    disk(alice)
    with ThreadPoolExecutor(3) as pool:
        answers = list(pool.map(lambda one: run(sign("alice"), one, data="write").status_code, projects))
    assert sorted(status == 409 for status in answers) == [False, True, True], answers


def test_nobody_else_sees_uses_grows_or_deletes_it(site: LiveSite, sign: Sign) -> None:
    data = disk(sign("alice"))
    path = f"/disks/{data['id']}"
    for name in ("bob", "root", "nobody"):
        client = sign(name)
        assert client.get("/disks").json()["items"] == []
        assert client.get(path).status_code == 404
        for method, body in (("PATCH", {"size_gib": 9}), ("DELETE", None)):
            assert client.request(method, path, json=body).status_code in (403, 404)
        page(site, name, path.removeprefix("/") + "?ask=delete", 404)
    bob = sign("bob")
    assert run(bob, made(bob), data="read").status_code == 404
    assert disk(bob)["id"] != data["id"]  # the name is his, too
    assert sign("alice").get(path).json()["size_gib"] == 2


def test_what_no_disk_can_be_is_refused_and_leaves_no_directory(site: LiveSite, sign: Sign) -> None:
    alice = sign("alice")
    disk(alice)
    before = sorted(site.portal.settings.disks_directory.iterdir())
    for body in (
        {"name": "../x", "size_gib": 1},
        {"name": "data", "size_gib": 1},
        {"name": "b", "size_gib": 0},
        {"name": "b", "size_gib": -5},
        {"name": "b", "size_gib": 10**30},
        {"name": "b", "size_gib": 1.5},
        {"name": "b", "size_gib": 1, "pool": "nowhere"},
        {"name": "b"},
        {"name": "b", "size_gib": 1, "owner": "bob"},
    ):
        assert 400 <= alice.post("/disks", json=body).status_code < 500, body
    assert sign("nobody").post("/disks", json={"name": "b", "size_gib": 1}).status_code == 403
    assert sorted(site.portal.settings.disks_directory.iterdir()) == before
    assert [one["name"] for one in alice.get("/disks").json()["items"]] == ["data"]


def test_it_counts_as_a_whole_and_is_refused_beyond_the_limit(site: LiveSite, sign: Sign) -> None:
    alice = sign("alice")
    may_keep(sign("root"), "alice", 5 * 2**30)
    data = disk(alice, size_gib=4)
    answer = alice.post("/disks", json={"name": "more", "size_gib": 2})
    assert (answer.status_code, answer.json()["reason"]) == (507, "quota")
    assert alice.patch(f"/disks/{data['id']}", json={"size_gib": 5}).json()["size_gib"] == 5
    assert alice.patch(f"/disks/{data['id']}", json={"size_gib": 6}).status_code == 507
    assert alice.patch(f"/disks/{data['id']}", json={"size_gib": 4}).status_code == 409


def test_the_list_is_paged_and_searched(site: LiveSite, sign: Sign) -> None:
    alice = sign("alice")
    for name in ("a1", "a2", "b1"):
        disk(alice, name, 1)
    first = alice.get("/disks", params={"limit": 2}).json()
    assert [one["name"] for one in first["items"]] == ["a1", "a2"]
    rest = alice.get("/disks", params={"limit": 2, "cursor": first["next"]}).json()
    assert ([one["name"] for one in rest["items"]], rest["next"]) == (["b1"], None)
    assert [one["name"] for one in alice.get("/disks", params={"q": "b"}).json()["items"]] == ["b1"]
    assert "No disk fits" in page(site, "alice", "disks?q=zzz")


def test_the_drawer_says_why_a_disk_cannot_be_had(site: LiveSite, sign: Sign) -> None:
    alice = sign("alice")
    one, two = made(alice, "One"), made(alice, "Two")
    disk(alice)
    assert run(alice, one, data="write").status_code in (200, 202)
    where = f"projects/{two['owner']}/{two['slug']}/run/sum"
    small = {"nodes": "1", "cpu": "1", "memory_gb": "1"}
    text = page(site, "alice", where, params={**small, "disk": "data:read"})
    assert "writes to the disk" in text
    assert "data-refused" in text
    assert "data-refused" not in page(site, "alice", where, params=small)
    assert "You have no disk" in page(site, "alice", where, params={**small, "disk": "other:read"})


def test_an_administrator_lists_and_deletes_on_the_machine(
    site: LiveSite, sign: Sign, monkeypatch: Any
) -> None:
    data = disk(sign("alice"), size_gib=3)
    monkeypatch.setenv("GALILEAN_STATE", str(site.portal.settings.state))
    runner, app = CliRunner(), build_app()
    listed = runner.invoke(app, ["disk", "list", "--json"])
    assert json.loads(listed.stdout)["id"] == data["id"], listed.output
    assert runner.invoke(app, ["disk", "list", "--owner", "bob"]).stdout == ""
    missing = runner.invoke(app, ["disk", "delete", "bob/data", "--yes"])
    assert isinstance(missing.exception, UserError)
    assert runner.invoke(app, ["disk", "delete", "alice/data", "--yes"]).exit_code == 0
    assert sign("alice").get("/disks").json()["items"] == []
