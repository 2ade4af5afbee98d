"""The thread of everything by the API: project, files, cluster, machine time, limits (design §10)."""

from __future__ import annotations

import re
import socket
import time
from pathlib import Path

import httpx
import pytest

from galilean.web import streamed
from services.portal.api.handlers import ROUTES
from services.portal.api.openapi import OPERATIONS, document
from services.portal.desks import IDENT
from tests.portal.conftest import Sign, made
from tests.portal.live import Course, LiveSite

SHORT = {"cpu": 1, "memory": "2G"}


def test_a_project_is_made_from_a_name_alone(sign: Sign) -> None:
    alice = sign("alice")
    answer = alice.post("/projects", json={"name": "热传导 Heat"})
    assert answer.status_code == 201
    project = answer.json()
    assert (project["owner"], project["slug"], project["name"]) == (
        "alice",
        "re-chuan-dao-heat",
        "热传导 Heat",
    )
    assert answer.headers["Location"].endswith("/projects/alice/re-chuan-dao-heat")
    assert alice.get("/projects/alice/re-chuan-dao-heat").json() == project
    assert made(alice, "热传导 heat")["slug"] == "re-chuan-dao-heat-2"


def test_projects_are_listed_by_cursor_searched_and_sorted(sign: Sign) -> None:
    alice = sign("alice")
    for number in range(5):
        made(alice, f"Project {number}", description="moons" if number % 2 else "planets")
    names: list[str] = []
    cursor = None
    while True:
        page = alice.get(
            "/projects", params={"limit": 2, "sort": "name", **({"cursor": cursor} if cursor else {})}
        ).json()
        names += [item["name"] for item in page["items"]]
        cursor = page["next"]
        if cursor is None:
            break
    assert names == [f"Project {number}" for number in range(5)]
    found = alice.get("/projects", params={"q": "MOONS", "sort": "name"}).json()["items"]
    assert [item["name"] for item in found] == ["Project 1", "Project 3"]


def test_only_what_is_sent_is_changed(sign: Sign) -> None:
    alice = sign("alice")
    made(alice, description="before")
    changed = alice.patch("/projects/alice/heat-flow", json={"name": "Heat"}).json()
    assert (changed["name"], changed["description"], changed["slug"]) == ("Heat", "before", "heat-flow")


def test_files_go_in_and_come_back_byte_for_byte(sign: Sign) -> None:
    alice = sign("alice")
    made(alice)
    data = bytes(range(256)) * 9000
    base = "/projects/alice/heat-flow/files"
    answer = alice.put(f"{base}/数据/a b%25.bin", content=data)
    assert answer.status_code == 201, answer.text
    assert answer.json()["size_bytes"] == len(data)
    back = alice.get(f"{base}/数据/a b%25.bin")
    assert back.content == data
    assert "attachment" in back.headers["Content-Disposition"]
    assert "sandbox" in back.headers["Content-Security-Policy"]
    assert alice.put(f"{base}/数据/a b%25.bin", content=b"new").status_code == 200
    assert (
        alice.put(f"{base}/数据/a b%25.bin", content=b"x", params={"overwrite": "false"}).status_code == 409
    )
    assert alice.post(f"{base}/results", json={"kind": "folder"}).status_code == 201
    moved = alice.patch(f"{base}/数据/a b%25.bin", json={"to": "results/b.bin"})
    assert moved.json()["path"] == "results/b.bin"
    listed = alice.get(f"{base}/results").json()["items"]
    assert [(item["name"], item["kind"], item["size_bytes"]) for item in listed] == [("b.bin", "file", 3)]
    assert alice.delete(f"{base}/results").status_code == 204
    assert [item["name"] for item in alice.get(base).json()["items"]] == ["数据"]


def test_an_upload_above_the_limit_is_refused_whatever_comes_of_it(
    sign: Sign, site: LiveSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streamed, "DROPPED_SECONDS", 0.2)
    bob = sign("bob")
    made(bob)
    most = bob.get("/limits").json()["upload_bytes"]
    head = (
        "PUT /services/portal/api/v1/projects/bob/heat-flow/files/x HTTP/1.1\r\nHost: x\r\n"
        f"Authorization: {bob.headers['Authorization']}\r\nContent-Length: {most + 1}\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", site.port), timeout=120) as raw:
        raw.sendall(head.encode())
        answer = b""
        while b"at once" not in answer and (piece := raw.recv(4096)):
            answer += piece
    assert answer.startswith(b"HTTP/1.1 413")
    assert b"1.0\\u00a0GB, the most that you may upload at once" in answer
    assert bob.get("/projects/bob/heat-flow/files").json()["items"] == []


def test_who_sends_all_before_reading_gets_the_refusal_and_not_a_broken_connection(
    sign: Sign, site: LiveSite
) -> None:
    """As a proxy does: what is still on its way when the connection is closed takes the answer along."""
    alice = sign("alice")
    made(alice)
    head = (
        "PUT /services/portal/api/v1/projects/alice/nowhere/files/x HTTP/1.1\r\nHost: x\r\n"
        f"Authorization: {alice.headers['Authorization']}\r\nContent-Length: 20000000\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", site.port), timeout=120) as raw:
        raw.sendall(head.encode())
        for _ in range(20):
            raw.sendall(b"x" * 1_000_000)
        answer = raw.recv(4096)
    assert answer.startswith(b"HTTP/1.1 404"), answer[:200]


def test_an_upload_that_breaks_off_leaves_nothing(sign: Sign, site: LiveSite) -> None:
    alice = sign("alice")
    made(alice)
    head = (
        "PUT /services/portal/api/v1/projects/alice/heat-flow/files/x HTTP/1.1\r\nHost: x\r\n"
        f"Authorization: {alice.headers['Authorization']}\r\nContent-Length: 5000000\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", site.port), timeout=120) as raw:
        raw.sendall(head.encode() + b"x" * 1_000_000)
        time.sleep(0.2)
    directory = site.settings.volume_path("default") / "projects"
    _until(lambda: [path for path in directory.rglob("*") if path.is_file()], lambda files: not files)
    assert alice.get("/projects/alice/heat-flow/files").json()["items"] == []


def test_a_cluster_starts_runs_and_goes_back(sign: Sign, site: LiveSite) -> None:
    alice = sign("alice", language="zh-CN")
    project = made(alice)
    answer = alice.post(
        "/projects/alice/heat-flow/clusters", json={**SHORT, "nodes": 2, "on_node_loss": "keep"}
    )
    assert answer.status_code == 202, answer.text
    run_id = answer.json()["id"]
    cluster = _until(lambda: alice.get(f"/clusters/{run_id}").json(), lambda c: c["status"] == "running")
    assert (cluster["nodes"], cluster["cpu"], cluster["memory_bytes"]) == (2, 1.0, 2 * 2**30)
    assert cluster["project"]["id"] == project["id"]
    assert cluster["url"] == "/user/alice/heat-flow/lab"
    assert [(node["name"], node["state"]) for node in cluster["node_list"]] == [
        ("node-0", "ready"),
        ("node-1", "ready"),
    ]
    assert cluster["node_list"][1]["doors"][0]["url"] == "/user/alice/heat-flow/node-1/lab"
    assert [step["state"] for step in cluster["steps"]] == ["done", "done", "done", "now"]
    assert site.hub.bodies[-1]["user_options"]["project"] == "alice/heat-flow"
    assert site.hub.languages[-1].startswith("zh")
    assert [item["id"] for item in alice.get("/clusters").json()["items"]] == [run_id]
    assert alice.get("/projects/alice/heat-flow").json()["cluster"] == run_id
    assert alice.delete(f"/clusters/{run_id}").status_code == 204
    after = alice.get(f"/clusters/{run_id}").json()
    assert (after["status"], after["reason"]) == ("released", "user")
    assert alice.get("/clusters").json()["items"] == []
    assert [item["id"] for item in alice.get("/clusters?state=all").json()["items"]] == [run_id]
    assert alice.delete(f"/clusters/{run_id}").status_code == 204, "released already is success"


def test_a_start_answers_when_it_is_admitted_not_when_it_is_ready(sign: Sign, site: LiveSite) -> None:
    alice = sign("alice")
    made(alice)
    site.hub.course = Course(place=5, ready=5)
    answer = alice.post("/projects/alice/heat-flow/clusters", json=SHORT)
    assert (answer.status_code, answer.json()["status"]) == (202, "starting")


def test_starting_what_runs_already_is_success_and_starts_nothing(sign: Sign, site: LiveSite) -> None:
    alice = sign("alice")
    made(alice)
    first = alice.post("/projects/alice/heat-flow/clusters", json=SHORT).json()["id"]
    again = alice.post("/projects/alice/heat-flow/clusters", json=SHORT)
    assert (again.status_code, again.json()["id"]) == (200, first)
    assert [call for call in site.hub.calls if call[0] == "POST"] == [("POST", "alice/heat-flow")]


def test_no_room_is_a_place_in_line_and_can_be_cancelled(sign: Sign, site: LiveSite) -> None:
    alice = sign("alice")
    made(alice)
    site.hub.course = Course(no_room=True)
    waiting = alice.post("/projects/alice/heat-flow/clusters", json=SHORT)
    assert waiting.status_code == 202
    assert (waiting.json()["status"], waiting.json()["place_in_line"]) == ("waiting", 1)
    assert alice.delete(f"/clusters/{waiting.json()['id']}").status_code == 204
    assert ("DELETE", "alice/heat-flow") not in site.hub.calls, "nothing of it existed"
    assert site.open_run("alice", "heat-flow") is None


def test_a_refusal_of_the_hub_comes_through_in_its_own_words(sign: Sign, site: LiveSite) -> None:
    bob = sign("bob")
    made(bob)
    answer = bob.post("/projects/bob/heat-flow/clusters", json={"nodes": 64})
    assert (answer.status_code, answer.json()["reason"]) == (429, "quota")
    assert "2 nodes" in answer.json()["detail"]
    assert answer.headers["Content-Type"].startswith("application/problem+json")
    assert site.open_run("bob", "heat-flow") is None


def test_a_hub_that_is_down_delays_a_release_and_never_loses_it(sign: Sign, site: LiveSite) -> None:
    alice = sign("alice")
    made(alice)
    run_id = alice.post("/projects/alice/heat-flow/clusters", json=SHORT).json()["id"]
    _until(lambda: alice.get(f"/clusters/{run_id}").json(), lambda c: c["status"] == "running")
    alice.get("/limits")  # who she is and what she may is known for some seconds
    site.hub.away = True
    answer = alice.delete(f"/clusters/{run_id}")
    assert answer.status_code == 202
    run = site.open_run("alice", "heat-flow")
    assert run is not None
    assert (run.reason, run.stop_asked_by) == ("user", "alice")
    assert run.stop_asked_at is not None


def test_an_administrator_releases_with_a_reason_that_the_owner_reads(sign: Sign, site: LiveSite) -> None:
    alice, root = sign("alice"), sign("root")
    made(alice)
    run_id = alice.post("/projects/alice/heat-flow/clusters", json=SHORT).json()["id"]
    assert [item["id"] for item in root.get("/clusters").json()["items"]] == [run_id]
    answer = root.request("DELETE", f"/clusters/{run_id}", json={"reason": "maintenance"})
    assert answer.status_code == 204
    seen = alice.get(f"/clusters/{run_id}").json()
    assert seen["reason"] == "admin"
    assert "maintenance" in seen["explanation"]
    with site.portal.db.read() as conn:
        line = conn.exec_driver_sql("SELECT actor, action, subject, reason FROM audit_log").one()
    assert tuple(line) == ("root", "cluster.release", "alice/heat-flow", "maintenance")


def test_machine_time_adds_up_as_the_example_says(sign: Sign, site: LiveSite) -> None:
    from datetime import timedelta

    alice = sign("alice")
    project = made(alice)
    for nodes in (1, 2):
        site.cluster(
            "alice", nodes=nodes, status="released", released=True, held=timedelta(minutes=44),
            project_id=project["id"], gpu=1, target="released",
        )  # fmt: skip
    (item,) = alice.get("/usage", params={"by": "project"}).json()["items"]
    assert item["seconds"] == 2 * 44 * 60
    assert (item["cpu_core_minutes"], item["memory_gb_minutes"], item["gpu_card_minutes"]) == (264, 1056, 132)
    assert alice.get("/usage", params={"by": "user"}).json()["items"][0]["key"] == "alice"
    assert sum(day["seconds"] for day in alice.get("/usage?by=day").json()["items"]) == 2 * 44 * 60
    assert alice.get("/usage", params={"to": "2020-01-01"}).json()["items"] == []


def test_machine_time_of_others_needs_the_right(sign: Sign, site: LiveSite) -> None:
    site.cluster("alice")
    assert sign("bob").get("/usage?by=user").json()["items"] == []
    assert sign("bob").get("/usage?by=user&user=alice").status_code == 403
    assert [item["key"] for item in sign("root").get("/usage?by=user").json()["items"]] == ["alice"]


def test_limits_say_what_is_held_and_what_remains(sign: Sign, site: LiveSite) -> None:
    bob = sign("bob")
    before = bob.get("/limits").json()
    assert before["remaining"] == before["together"]
    site.cluster("bob", cpu_millicores=1000, memory_bytes=2**30, nodes=2)
    after = bob.get("/limits").json()
    assert (after["held"]["clusters"], after["held"]["cpu"]) == (1, 2.0)
    assert after["remaining"]["cpu"] == before["together"]["cpu"] - 2
    assert "manual" not in after["releases"]


def test_environments_tell_title_description_and_gpu(sign: Sign) -> None:
    (item,) = sign("alice").get("/environments").json()["items"]
    assert item["name"] == "jupyter"
    assert item["description"]
    assert (item["gpu"], item["default"]) == (False, True)


def test_a_project_that_runs_cannot_be_deleted_and_its_machine_time_stays(sign: Sign, site: LiveSite) -> None:
    alice = sign("alice")
    project = made(alice)
    run_id = alice.post("/projects/alice/heat-flow/clusters", json=SHORT).json()["id"]
    _until(lambda: alice.get(f"/clusters/{run_id}").json(), lambda c: c["status"] == "running")
    refused = alice.delete("/projects/alice/heat-flow")
    assert refused.status_code == 409
    assert "Release" in refused.json()["detail"]
    alice.delete(f"/clusters/{run_id}")
    assert alice.delete("/projects/alice/heat-flow").status_code == 204
    assert alice.get("/projects/alice/heat-flow").status_code == 404
    (item,) = alice.get("/usage").json()["items"]
    assert (item["key"], item["deleted"]) == (project["id"], True)


def test_no_two_operations_are_at_one_address() -> None:
    places = [(one.method, re.sub(r"\{[a-z]+\}", "X", one.path)) for one in OPERATIONS]
    assert sorted(places) == sorted(set(places))


def test_the_document_describes_every_route_and_no_other() -> None:
    described = {
        operation.path.replace("{owner}/{slug}", "X")
        .replace("{name}", "X")
        .replace("{id}", "X")
        .replace("{slug}", "X")
        .replace("{group}", "X")
        .replace("{port}", "X")
        .replace("{number}", "X")
        .replace("{rank}", "X")
        .replace("/{path}", "")
        for operation in OPERATIONS
    }
    there = {
        pattern.removeprefix("/api/v1")
        .replace(f"(projects|datasets)/({IDENT})", f"{plural}/X")
        .replace("([0-9a-f]{32})", "X")
        .replace("([0-9a-f]{24})", "X")
        .replace("/?", "")
        .replace("/.+", "")
        .replace(r"([^/]+)/([^/]+)", "X")
        .replace("([^/]+)", "X")
        .replace("([0-9]{1,5})", "X")
        .replace("([0-9]{1,4})", "X")
        .replace("([0-9A-Za-z]{1,40})", "X")
        .replace("(restart|reset)", act)
        .replace("(0|[1-9][0-9]{0,3})", "X")
        .replace("([0-9A-Z]{26})", "X")
        .replace("(?:/.*)?", "")
        .replace("\\", "")
        for pattern, _ in ROUTES
        for plural in ("projects", "datasets")
        for act in ("restart", "reset")
        if pattern.startswith("/api/v1/")
    }
    assert described == there


def test_the_document_is_public_and_names_its_own_models(sign: Sign, site: LiveSite) -> None:
    import httpx

    found = httpx.get(site.url + "api/v1/openapi.json").json()
    assert found == document("Galilean", "/services/portal/")
    text = str(found)
    for name in {part.split("'")[0] for part in text.split("#/components/schemas/")[1:]}:
        assert name in found["components"]["schemas"]


def _until(look, good, seconds: float = 60):  # type: ignore[no-untyped-def]
    end = time.monotonic() + seconds
    while True:
        value = look()
        if good(value):
            return value
        assert time.monotonic() < end, value
        time.sleep(0.03)


def test_days_of_before_the_calendar_are_no_error_of_ours(tmp_path: Path) -> None:
    live = LiveSite(tmp_path / "state", "site: {timezone: Asia/Shanghai}\n")
    live.hub.add("alice", "researcher")
    with live:
        headers = {"Authorization": f"token {live.hub.token('alice')}"}
        with httpx.Client(base_url=live.url + "api/v1", headers=headers, timeout=120) as alice:
            days = ("0001-01-01T00:00:00Z", "0001-01-01", "2026-01-01", "9999-12-31", "9999-12-31T23:59:59Z")
            for by in ("project", "user", "day", "pool"):
                for start in days:
                    for end in days:
                        answer = alice.get("/usage", params={"by": by, "from": start, "to": end})
                        assert answer.status_code in (200, 400), (by, start, end, answer.text)
