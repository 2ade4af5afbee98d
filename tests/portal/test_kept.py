"""What somebody may keep, wherever files are made: at a fork, at an import, at an upload, and when it is less later."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest

from galilean.errors import UserError
from galilean.web.visitor import Visitor
from services.portal import copying, storage
from services.portal.api import life
from tests.portal.conftest import Sign, made
from tests.portal.live import LiveSite
from tests.portal.test_archives import brought, settled
from tests.portal.test_datasets import now
from tests.portal.test_gallery import path_of, put_file

Client = httpx.Client


def may_keep(root: Client, user: str, amount: int) -> None:
    """An exception for one person, in the place of any that there is."""
    for one in root.get("/quota-exceptions").json()["items"]:
        if one["user"] == user:
            assert root.delete(f"/quota-exceptions/{one['id']}").status_code in (200, 204)
    said: dict[str, Any] = {"user": user, "measure": "kept", "amount": amount, "reason": "a test"}
    answer = root.post("/quota-exceptions", json=said)
    assert answer.status_code in (200, 201), answer.text


@pytest.fixture
def project(site: LiveSite, sign: Sign) -> dict[str, str]:
    """A public project of alice's with 5000 bytes, counted."""
    alice = sign("alice")
    found = made(alice)
    put_file(alice, found, "big.bin", "x" * 5000)
    assert alice.put(path_of(found) + "/publication").status_code == 204
    now(site, storage.count_sizes(site.portal))
    return found


def test_a_fork_that_does_not_fit_is_refused_with_the_numbers_and_leaves_nothing(
    site: LiveSite, sign: Sign, project: dict[str, str]
) -> None:
    bob, root = sign("bob"), sign("root")
    may_keep(root, "bob", 2048)
    answer = bob.post(path_of(project) + "/forks")
    assert (answer.status_code, answer.json()["reason"]) == (507, "quota")
    assert "It has 4.9\u00a0KB; you may keep 2.0\u00a0KB more." in answer.json()["detail"]
    assert bob.get("/projects").json()["items"] == []
    may_keep(root, "bob", 5000)
    assert bob.post(path_of(project) + "/forks").status_code in (201, 202)


def test_a_fork_that_is_not_copied_yet_takes_its_room_from_the_next(
    site: LiveSite, sign: Sign, project: dict[str, str]
) -> None:
    bob, root = sign("bob"), sign("root")
    may_keep(root, "bob", 8000)
    viewer = Visitor(name="bob", roles=("student",))

    async def both() -> list[Any]:
        asked = (life.fork(site.portal, viewer, "alice", project["slug"]) for _ in range(2))
        return await asyncio.gather(*asked, return_exceptions=True)

    refused = [one for one in now(site, both()) if isinstance(one, UserError)]
    assert [(one.status, one.reason) for one in refused] == [(507, "quota")]
    answer = bob.post(path_of(project) + "/forks")
    assert "you may keep 2.9\u00a0KB more" in answer.json()["detail"]
    now(site, copying.go_on(site.portal))
    (fork,) = bob.get("/projects").json()["items"]
    assert (fork["busy"], fork["size_bytes"]) == ("", 5000)


def test_a_fork_that_grew_while_it_waited_is_ended_at_the_limit_and_its_person_is_told(
    site: LiveSite, sign: Sign, project: dict[str, str]
) -> None:
    alice, bob, root = sign("alice"), sign("bob"), sign("root")
    may_keep(root, "bob", 6000)
    assert bob.post(path_of(project) + "/forks").status_code in (201, 202)
    put_file(alice, project, "more.bin", "y" * 5000)
    now(site, copying.go_on(site.portal))
    assert bob.get("/projects").json()["items"] == []
    assert (
        "There is room for 5.9\u00a0KB, and the files have more."
        in bob.get("/notices").json()["items"][0]["text"]
    )
    copies = (site.settings.volume_path("default") / "projects").rglob("more.bin")
    assert len(list(copies)) == 1, "the original alone"


def test_an_import_stops_at_what_its_owner_may_keep_and_says_so(
    site: LiveSite, sign: Sign, project: dict[str, str]
) -> None:
    root = sign("root")
    other = made(sign("alice"), "Small")
    archive = root.post("/projects/export", json={"ids": [project["id"], other["id"]]})
    may_keep(root, "bob", 4999)
    job = brought(root, archive.content)
    ready = settled(root, job, "ready", "refused")
    choices = [{"number": one["number"], "owner": "bob"} for one in ready["projects"]]
    root.post(f"/archives/{job}", json={"choices": choices})
    outcomes = {one["name"]: one["problem"] for one in settled(root, job, "done")["projects"]}
    assert "There is room for 4.9\u00a0KB, and the files have more." in outcomes["Heat flow"]
    assert outcomes["Small"] == ""
    assert [one["name"] for one in sign("bob").get("/projects").json()["items"]] == ["Small"]


def test_a_limit_that_is_lowered_later_touches_nothing_that_is_there(
    site: LiveSite, sign: Sign, project: dict[str, str]
) -> None:
    alice, root = sign("alice"), sign("root")
    may_keep(root, "alice", 10_000)
    may_keep(root, "alice", 100)
    now(site, storage.count_sizes(site.portal))
    assert now(site, storage.room_of(site.portal, "alice")) == 0
    files = path_of(project) + "/files"
    assert alice.get(f"{files}/big.bin").content == b"x" * 5000
    assert alice.get(path_of(project)).json()["size_bytes"] == 5000
    assert alice.put(f"{files}/more.bin", content=b"y").status_code == 507
    kept = next(item for item in alice.get("/limits").json()["items"] if item["measure"] == "kept")
    assert (kept["held"], kept["remaining"]) == (5000, 0)
    # Less is always possible, and makes room.
    assert alice.patch(f"{files}/big.bin", json={"name": "old.bin"}).status_code == 200
    assert alice.delete(f"{files}/old.bin").status_code == 204
    now(site, storage.count_sizes(site.portal))
    assert alice.put(f"{files}/more.bin", content=b"y").status_code == 201
