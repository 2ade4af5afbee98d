"""A project for a whole class: one press, a fork for each, and what is told of those who got none."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import update

from galilean import notices
from services.catalog import lifecycle
from services.catalog.tables import projects
from services.portal import for_group
from services.portal.api import life
from tests.portal.conftest import Sign, made
from tests.portal.live import LiveSite
from tests.portal.test_gallery import copied, put_file

FORKS = "/projects/root/heat-flow/forks-for/course"


@pytest.fixture
def course(site: LiveSite, sign: Sign) -> dict[str, Any]:
    """A group of alice, bob, root and nobody (who has no role); root owns a project with a file."""
    root = sign("root")
    answer = root.post("/groups", json={"title": "Course", "slug": "course"})
    assert answer.status_code == 201, answer.text
    for name in ("alice", "bob", "root", "nobody"):
        site.hub.people[name]["groups"].append("galilean-group:course")
    for name in ("alice", "bob", "root", "nobody"):
        site.portal.people.forget(name)
    project = made(root)
    put_file(root, project, "a.txt", "for all")
    return project


def states(answer: Any) -> dict[str, str]:
    return {item["person"]: item["state"] for item in answer.json()["items"]}


def test_each_member_gets_one_fork_and_who_may_not_is_told(
    site: LiveSite, sign: Sign, course: dict[str, Any]
) -> None:
    root = sign("root")
    refused = root.post(FORKS)
    assert states(refused) == {"alice": "refused", "bob": "refused", "nobody": "refused"}
    why = {item["person"]: item["why"] for item in refused.json()["items"]}
    assert "May not see" in why["bob"], "it is private: by themselves they could not fork it either"
    assert "no role" in why["nobody"]
    root.put("/projects/root/heat-flow/shares", json={"group": "course", "access": "read"})
    assert states(root.get(FORKS)) == {"alice": "none", "bob": "none", "nobody": "none"}
    given = root.post(FORKS)
    assert given.status_code == 202
    assert states(given) == {"alice": "copying", "bob": "copying", "nobody": "refused"}
    copied(site, sign("alice"), {"owner": "alice", "slug": "heat-flow"})
    assert sign("bob").get("/projects/bob/heat-flow/files/a.txt").text == "for all"
    again = root.post(FORKS)
    assert states(again) == {"alice": "there", "bob": "there", "nobody": "refused"}
    assert len(sign("bob").get("/projects").json()["items"]) == 1, "who has one keeps the one"
    with site.portal.db.read() as conn:
        told = notices.list_for(conn, "bob")
        assert any("gave you a copy" in notice.text for notice in told)


def test_only_its_owner_with_the_right_gives_a_project_away(sign: Sign, course: dict[str, Any]) -> None:
    alice = sign("alice")
    made(alice, "Mine")
    sign("root").put("/projects/root/heat-flow/publication")
    assert alice.post(FORKS).status_code == 403, "not hers"
    assert alice.post("/projects/alice/mine/forks-for/course").status_code == 403, "no right over groups"
    assert alice.get("/projects/alice/mine/forks-for/course").status_code == 403, "nor who is in them"
    assert sign("root").post("/projects/root/heat-flow/forks-for/none").status_code == 404


def test_a_quota_is_each_members_own_and_what_is_left_of_it_theirs_to_know(
    site: LiveSite, sign: Sign, course: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    root = sign("root")
    root.put("/projects/root/heat-flow/publication")
    with site.portal.db.write() as conn:
        lifecycle.measured(conn, "project", course["id"], size_bytes=7, file_count=1, now=site.portal.clock())

    async def room(_: Any, owner: str) -> int | None:
        return 5 if owner == "bob" else None

    monkeypatch.setattr(for_group, "room_of", room)
    given = root.post(FORKS)
    assert states(given) == {"alice": "copying", "bob": "refused", "nobody": "refused"}
    why = next(item["why"] for item in given.json()["items"] if item["person"] == "bob")
    assert why == "It has 7\N{NO-BREAK SPACE}B, which is more than they may still keep.", (
        "not how much bob has left"
    )


def test_the_page_offers_it_to_who_may_and_shows_how_far_it_is(
    site: LiveSite, sign: Sign, course: dict[str, Any]
) -> None:
    root = sign("root")
    root.put("/projects/root/heat-flow/publication")
    tab = site.url + "projects/root/heat-flow/forks"
    assert "A copy for everybody in a group" in root.get(tab).text
    assert "A copy for everybody in a group" not in sign("alice").get(tab).text
    shown = root.post(tab + "-for", data={"group": "course"}).text
    assert "every 2s" in shown
    copied(site, sign("alice"), {"owner": "alice", "slug": "heat-flow"})
    after = root.get(tab + "-for", params={"group": "course"}).text
    assert "2 of 3 have their copy" in after
    assert "every 2s" not in after
    assert sign("alice").post(tab + "-for", data={"group": "course"}).status_code == 403


def test_copies_that_are_on_their_way_are_ended_together_and_whole_ones_stay(
    site: LiveSite, sign: Sign, course: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    root, alice = sign("root"), sign("alice")
    root.put("/projects/root/heat-flow/publication")
    monkeypatch.setattr(for_group, "wake", lambda *_: None)  # nobody copies
    root.post(FORKS)
    with site.portal.db.write() as conn:
        conn.execute(update(projects).where(projects.c.owner == "alice").values(busy=""))
    assert alice.delete(FORKS).status_code == 403
    ended = root.delete(FORKS)
    assert ended.status_code == 202
    assert states(ended) == {"alice": "there", "bob": "none", "nobody": "none"}
    assert sign("bob").get("/projects").json()["items"] == []
    with site.portal.db.read() as conn:
        assert any("took the copy" in notice.text for notice in notices.list_for(conn, "bob"))
        assert not any("took the copy" in notice.text for notice in notices.list_for(conn, "alice"))
    assert states(root.post(FORKS))["bob"] == "copying", "it can be given again"


def test_a_fork_that_a_member_made_is_not_taken_from_them(
    site: LiveSite, sign: Sign, course: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    root = sign("root")
    root.put("/projects/root/heat-flow/publication")
    monkeypatch.setattr(life, "wake", lambda *_: None)
    assert sign("bob").post("/projects/root/heat-flow/forks").status_code == 202
    assert states(root.get(FORKS))["bob"] == "copying"
    assert states(root.delete(FORKS))["bob"] == "copying"
