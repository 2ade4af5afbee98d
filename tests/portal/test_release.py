"""Extending, notices, schedules, the calendar and signing out, by page and API."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from sqlalchemy import select, update

from galilean import notices
from services.release import messages, rules
from services.release.tables import presence
from spawner import records, use
from spawner.tables import clusters, node_use
from tests.portal.conftest import Sign, made
from tests.portal.live import LiveSite


def running(site: LiveSite, client: httpx.Client, **options: Any) -> str:
    """A cluster of the client's person that runs; its id."""
    project = made(client)
    answer = client.post(f"/projects/{project['owner']}/{project['slug']}/clusters", json=options)
    assert answer.status_code in (200, 202), answer.text
    run_id = answer.json()["id"]
    for _ in range(200):
        if client.get(f"/clusters/{run_id}").json()["status"] == "running":
            return run_id
    raise AssertionError("it did not start")


def telling(site: LiveSite, run_id: str) -> None:
    """Its node says what runs there: nothing."""
    with site.portal.db.write() as conn:
        run = records.get(conn, run_id)
        assert run is not None
        use.tell_busy(conn, run, 0, {}, datetime.now(UTC))


def row(site: LiveSite, run_id: str) -> Any:
    with site.portal.db.read() as conn:
        return conn.execute(select(clusters).where(clusters.c.id == run_id)).one()


def test_one_press_extends_and_says_how_far(site: LiveSite, sign: Sign) -> None:
    alice, bob = sign("alice"), sign("bob")
    run = running(site, alice)
    before = alice.get(f"/clusters/{run}/release").json()
    assert before["extend_until"] and before["words"]
    assert not before["may_when_done"], "nobody would know when it is done"
    telling(site, run)
    assert alice.get(f"/clusters/{run}/release").json()["may_when_done"]
    after = alice.post(f"/clusters/{run}/extend").json()
    assert after["extended_until"] is not None
    assert row(site, run).extended_until is not None
    refused = alice.post(f"/clusters/{run}/extend", json={"seconds": 399 * 86400})
    assert (refused.status_code, refused.json()["reason"]) == (409, "extend")
    for body in (
        {"until": "soon"},
        {"until": "2026-10-01T18:00:00"},
        {"seconds": 0},
        {"seconds": 1.5},
        {"x": 1},
    ):
        assert alice.post(f"/clusters/{run}/extend", json=body).status_code == 400
    assert bob.post(f"/clusters/{run}/extend").status_code == 404


def test_going_on_alone_changes_the_policy_once_and_only_from_automatic(site: LiveSite, sign: Sign) -> None:
    alice = sign("alice")
    run = running(site, alice)
    refused = alice.post(f"/clusters/{run}/when-done")
    assert (refused.status_code, refused.json()["reason"]) == (409, "untold")
    telling(site, run)
    assert alice.post(f"/clusters/{run}/when-done").json()["release"] == "auto-when-done"
    assert alice.post(f"/clusters/{run}/when-done").status_code == 200
    with site.portal.db.write() as conn:
        conn.execute(update(clusters).where(clusters.c.id == run).values(release_policy="2h"))
    assert alice.post(f"/clusters/{run}/when-done").status_code == 409


def test_terms_are_frozen_when_a_run_is_admitted(site: LiveSite, sign: Sign) -> None:
    run = running(site, sign("alice"), release="2h")
    terms = row(site, run).release_terms
    assert terms["policy"] == "2h" and terms["extend_seconds"] >= 7200


def test_notices_are_read_by_their_person_in_their_language_and_zone(site: LiveSite, sign: Sign) -> None:
    alice, chinese, bob = sign("alice"), sign("alice", language="zh-CN"), sign("bob")
    run = running(site, alice)
    soon = datetime(2026, 3, 2, 9, 30, tzinfo=UTC)
    with site.portal.db.write() as conn:
        notices.tell(
            conn, "alice", now=datetime.now(UTC), kind="warning", text=messages.WARNED["left"], cluster_id=run,
            mail=True, project="Heat", goes_at=soon.isoformat(),
        )  # fmt: skip
    assert not alice.get("/notices").json()["items"][0]["when_done"]
    telling(site, run)
    (notice,) = alice.get("/notices").json()["items"]
    assert "Heat goes back at 2026-03-02 09:30" in notice["text"]
    assert notice["when_done"] and notice["extend"] and notice["url"]
    assert "17:30" in chinese.get("/notices?zone=Asia/Shanghai").json()["items"][0]["text"]
    assert "释放" in chinese.get("/notices").json()["items"][0]["text"]
    assert bob.get("/notices").json()["items"] == []
    bob.post("/notices/read", json={"ids": [notice["id"]]})
    assert len(alice.get("/notices").json()["items"]) == 1
    assert alice.post("/notices/read", json={"ids": [notice["id"]]}).status_code == 204
    assert alice.get("/notices").json()["items"] == []
    assert len(alice.get("/notices?state=all").json()["items"]) == 1


def test_a_schedule_is_made_changed_paused_and_deleted_by_the_api(site: LiveSite, sign: Sign) -> None:
    alice, bob = sign("alice"), sign("bob")
    made(alice)
    body = {"project": "alice/heat-flow", "ready": "08:00", "release": "18:00", "zone": "Asia/Shanghai"}
    answer = alice.post("/schedules", json=body)
    assert answer.status_code == 201, answer.text
    one = answer.json()
    assert (one["ready"], one["release"], one["weekdays"]) == ("08:00", "18:00", [0, 1, 2, 3, 4])
    assert len(one["next"]) == 3
    address = f"/schedules/{one['id']}"
    assert alice.patch(address, json={"ready": "09:30", "release": None}).json()["release"] is None
    assert alice.patch(address, json={"enabled": False}).json()["next"] == []
    assert bob.get(address).status_code == bob.delete(address).status_code == 404
    for wrong in (
        {"ready": "25:00"},
        {"weekdays": []},
        {"zone": "Mars"},
        {"options": {"nodes": 0.5}},
        {"x": 1},
    ):
        assert alice.patch(address, json=wrong).status_code == 400, wrong
    assert alice.post("/schedules", json={**body, "project": "bob/secret"}).status_code == 404
    assert sign("nobody").post("/schedules", json=body).status_code in (403, 404)
    assert alice.delete(address).status_code == 204
    assert alice.get("/schedules").json()["items"] == []


def test_the_calendar_shows_ones_own_and_everybodys_to_administrators(site: LiveSite, sign: Sign) -> None:
    alice, bob, root = sign("alice"), sign("bob"), sign("root")
    run = running(site, alice)
    with site.portal.db.write() as conn:
        at = datetime.now(UTC) + timedelta(hours=2)
        conn.execute(update(clusters).where(clusters.c.id == run).values(release_at=at, release_why="left"))
    alice.post(
        "/schedules",
        json={"project": "heat-flow", "ready": "08:00", "release": "18:00", "weekdays": list(range(7))},
    )
    mine = alice.get("/calendar").json()["items"]
    assert [entry["cluster"] for entry in mine if entry["cluster"]] == [run]
    assert {"start", "release"} == {entry["what"] for entry in mine}
    assert bob.get("/calendar").json()["items"] == []
    assert bob.get("/calendar?of=everybody").status_code == 403
    assert len(root.get("/calendar?of=everybody").json()["items"]) == len(mine)


def test_pages_of_schedules_and_calendar(site: LiveSite, sign: Sign) -> None:
    alice, root = sign("alice"), sign("root")
    made(alice)
    page = alice.get(site.url + "schedules")
    assert page.status_code == 200 and "Keep this schedule" in page.text
    form = {
        "project": "alice/heat-flow",
        "ready": "08:00",
        "release": "18:00",
        "weekday": ["0", "4"],
        "zone": "UTC",
    }
    made_ = alice.post(site.url + "schedules", data=form, headers={"HX-Request": "true"})
    assert made_.status_code == 200, made_.text
    assert "Monday" in made_.text and "08:00 – 18:00" in made_.text
    (one,) = alice.get("/schedules").json()["items"]
    assert one["weekdays"] == [0, 4] and not one["holidays"]
    address = f"{site.url}schedules/{one['id']}"
    for do, words in (("pause", "paused"), ("resume", "Pause"), ("delete", "Nothing starts")):
        answer = alice.post(address, data={"do": do}, headers={"HX-Request": "true"})
        assert answer.status_code == 200 and words in answer.text
    assert root.get(site.url + "admin/calendar").status_code == 200
    assert alice.get(site.url + "admin/calendar").status_code == 403


def left(site: LiveSite, user: str) -> datetime | None:
    """When somebody signed out, as the release service reads it."""
    with site.portal.db.read() as conn:
        return conn.execute(select(presence.c.signed_out_at).where(presence.c.user == user)).scalar()


def test_signing_out_says_what_goes_back_when_and_lets_one_choose(site: LiveSite, sign: Sign) -> None:
    alice = sign("alice")
    nothing = alice.get(site.url + "sign-out")
    assert nothing.status_code == 302 and nothing.headers["location"].endswith("/hub/logout")
    run = running(site, alice)
    assert "Go on without me" not in alice.get(site.url + "sign-out").text
    telling(site, run)
    page = alice.get(site.url + "sign-out").text
    assert "Goes back as soon as you sign out" in page and "Go on without me" in page
    assert left(site, "alice") is None
    answer = alice.post(site.url + "sign-out", data={f"run-{run}": "when-done"})
    assert answer.status_code == 303 and answer.headers["location"].endswith("/hub/logout")
    assert left(site, "alice") is not None, "noted here: the hub may be on another host"
    assert row(site, run).release_policy == "auto-when-done"
    assert alice.post(site.url + "sign-out", data={f"run-{run}": "other"}).status_code == 400
    alice.post(site.url + "sign-out", data={f"run-{run}": "now"})
    assert row(site, run).stop_asked_at is not None


@pytest.mark.parametrize("path", ["schedules", "projects"])
def test_a_script_with_a_token_is_not_taken_for_somebody_on_a_page(
    site: LiveSite, sign: Sign, path: str
) -> None:
    sign("alice").get(site.url + path)
    with site.portal.db.read() as conn:
        assert conn.execute(select(presence)).all() == []


def test_runs_without_terms_are_told_of_by_the_rules_of_the_centre_not_by_the_file(
    site: LiveSite, sign: Sign
) -> None:
    alice, root = sign("alice"), sign("root")
    run = running(site, alice)
    with site.portal.db.write() as conn:
        conn.execute(update(clusters).where(clusters.c.id == run).values(release_terms=None))
        rules.set_site(conn, {"grace_seconds": 22 * 60}, now=datetime.now(UTC), actor="root")
    for client, page in ((alice, ""), (alice, "meter"), (root, "admin/online")):
        assert "22 min" in client.get(site.url + page).text, page
    drawer = alice.get(f"{site.url}projects/alice/heat-flow/run?run={run}").text
    assert "22 min" in drawer


def test_the_list_of_clusters_tells_what_is_used_and_since_when_nothing_is(
    site: LiveSite, sign: Sign
) -> None:
    alice = sign("alice")
    run = running(site, alice)
    assert alice.get("/clusters").json()["items"][0]["use"] is None
    now = datetime.now(UTC)
    with site.portal.db.write() as conn:
        size = records.get(conn, run)
        assert size is not None
        conn.execute(
            update(clusters)
            .where(clusters.c.id == run)
            .values(
                proxy_seen_at=now, node_seen_at=now - timedelta(hours=1), release_at=now, release_why="idle",
                ready_at=now - timedelta(hours=2),
            )
        )  # fmt: skip
        conn.execute(
            node_use.insert().values(
                cluster_id=run, rank=0, attempt=size.attempt, measured_at=now,
                cpu_permille=size.cpu_millicores // 4, used_at=now - timedelta(hours=1),
            )
        )  # fmt: skip
    for said in (alice.get("/clusters").json()["items"][0], alice.get(f"/clusters/{run}").json()):
        assert said["use"]["cpu_percent"] == 25.0 and said["use"]["gpu_percent"] is None
        since = datetime.fromisoformat(said["use"]["idle_since"])
        assert since == datetime.fromisoformat(said["last_seen_at"]) == now - timedelta(hours=1)
        assert said["release_why"] == "idle" and said["release_at"]
