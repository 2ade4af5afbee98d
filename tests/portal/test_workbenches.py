"""Workbenches by pages and API: begun from an environment, opened, released, deleted; nobody else's is there."""

from __future__ import annotations

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner

from galilean.cli import build_app
from galilean.errors import UserError
from tests.portal.live import LiveSite
from tests.portal.test_environments import DOCKER, entry, page, sign
from tests.process.hub import eventually

__all__ = ["sign"]  # a fixture

SMALL = {"cpu": 1, "memory": "1G"}


@pytest.fixture
def docker(tmp_path: Path) -> Iterator[LiveSite]:
    """A portal of a site whose nodes are containers, with root in workbenches."""
    live = LiveSite(tmp_path / "state", DOCKER + "workbench: {root: true}\n")
    for name, role in (("alice", "researcher"), ("bob", "student"), ("root", "admin")):
        live.hub.add(name, role)
    live.hub.add("nobody")
    with live:
        yield live


def begun(client: httpx.Client, environment: str = "jupyter", status: int = 201) -> dict[str, Any]:
    answer = client.post("/workbenches", json={"environment": environment})
    assert answer.status_code == status, answer.text
    return answer.json()


def opened(client: httpx.Client, bench: dict[str, Any], **more: Any) -> dict[str, Any]:
    answer = client.post(f"/workbenches/{bench['id']}/clusters", json={**SMALL, **more})
    assert answer.status_code in (200, 202), answer.text
    return answer.json()


def test_it_is_begun_opened_released_and_deleted(docker: LiveSite, sign: Any) -> None:
    alice = sign("alice")
    bench = begun(alice)
    assert (bench["environment_title"], bench["state"], bench["root"]) == ("JupyterLab", "closed", True)
    assert begun(alice, status=200)["id"] == bench["id"]
    run = opened(alice, bench)
    assert (run["nodes"], run["environment"], run["server"]) == (1, "jupyter", bench["server"])
    assert opened(alice, bench)["id"] == run["id"]
    (listed,) = alice.get("/workbenches").json()["items"]
    assert listed["cluster"] == run["id"]
    assert alice.delete(f"/workbenches/{bench['id']}").status_code == 409
    assert alice.delete(f"/clusters/{run['id']}").status_code in (202, 204)
    eventually(lambda: alice.get(f"/workbenches/{bench['id']}").json()["state"] == "closed", 60)
    assert alice.delete(f"/workbenches/{bench['id']}").status_code == 204
    assert alice.get("/workbenches").json()["items"] == []
    assert begun(alice)["id"] != bench["id"]


def test_it_is_no_project(docker: LiveSite, sign: Any) -> None:
    alice = sign("alice")
    bench = begun(alice)
    assert alice.get("/projects").json()["items"] == []
    own = f"/projects/alice/{bench['server']}"
    for method, path, body in (
        ("GET", own, None),
        ("PATCH", own, {"name": "Mine"}),
        ("DELETE", own, None),
        ("POST", own + "/clusters", SMALL),
        ("PUT", own + "/publication", None),
        ("POST", own + "/forks", {}),
        ("PUT", own + "/shares", {"person": "bob", "access": "run"}),
        ("PUT", own + "/owner", {"owner": "bob"}),
    ):
        answer = alice.request(method, path, json=body)
        assert answer.status_code in (404, 405), (method, path, answer.text)
    assert alice.get(f"/workbenches/{bench['id']}").status_code == 200


def test_nobody_else_sees_opens_or_deletes_it(docker: LiveSite, sign: Any) -> None:
    bench = begun(sign("alice"))
    for name in ("bob", "root", "nobody"):
        client = sign(name)
        assert client.get("/workbenches").json()["items"] == []
        path = f"/workbenches/{bench['id']}"
        for method, at in (("GET", path), ("DELETE", path), ("POST", path + "/clusters")):
            assert client.request(method, at).status_code == 404, (name, method, at)
    assert sign("alice").get(f"/workbenches/{bench['id']}").json()["state"] == "closed"


def test_only_what_somebody_may_start_is_opened(docker: LiveSite, sign: Any) -> None:
    hidden = entry(docker, "paint", "alice")
    bob = sign("bob")
    for key in ("none", hidden.id, "alice/paint", "../x", "a" * 128):
        assert bob.post("/workbenches", json={"environment": key}).status_code == 404
    assert bob.post("/workbenches", json={"environment": "a" * 129}).status_code in (400, 422)
    assert sign("nobody").post("/workbenches", json={"environment": "jupyter"}).status_code == 403
    alice = sign("alice")
    bench = begun(alice, hidden.id)
    assert bench["environment"] == "alice/paint"
    for more in ({"nodes": 3}, {"environment": "desk"}):
        answer = alice.post(f"/workbenches/{bench['id']}/clusters", json={**SMALL, **more})
        assert answer.status_code == 400, answer.text
    assert alice.post(f"/workbenches/{bench['id']}/clusters", json={"cpu": 1e9}).status_code == 400
    assert alice.put(f"/environments/{hidden.id}/retired").status_code in (200, 204)
    assert not alice.get(f"/workbenches/{bench['id']}").json()["startable"]
    assert alice.post(f"/workbenches/{bench['id']}/clusters", json=SMALL).status_code == 409


def test_two_who_begin_it_at_once_get_one(docker: LiveSite, sign: Any) -> None:
    clients = [sign("alice") for _ in range(4)]
    with ThreadPoolExecutor(4) as pool:
        answers = list(
            pool.map(lambda one: one.post("/workbenches", json={"environment": "jupyter"}), clients)
        )
    assert {answer.status_code for answer in answers} <= {200, 201}
    assert len({answer.json()["id"] for answer in answers}) == 1


def test_the_pages_lead_from_the_environment_to_the_drawer(docker: LiveSite, sign: Any) -> None:
    assert "Open workbench" in page(docker, "alice", "environments/jupyter")
    assert "No workbenches yet" in page(docker, "alice", "workbenches")
    bench = begun(sign("alice"))
    text = page(docker, "alice", f"workbenches/{bench['id']}?run=1")
    assert "sudo apt-get install" in text
    assert "never privileged" in text
    drawer = page(docker, "alice", f"workbenches/{bench['id']}/run")
    assert 'name="nodes" value="1"' in drawer
    assert "Data sets" not in drawer
    assert not re.search(r"<select[^>]*name=\"environment\"", drawer)
    run = opened(sign("alice"), bench)
    eventually(lambda: sign("alice").get(f"/clusters/{run['id']}").json()["status"] == "running", 60)
    assert "Go on in the workbench" in page(docker, "alice", "environments/jupyter")
    assert "Release …" in page(docker, "alice", "workbenches")
    page(docker, "bob", f"workbenches/{bench['id']}", status=404)
    page(docker, "root", f"workbenches/{bench['id']}/run", status=404)


def test_the_command_opens_lists_releases_and_deletes(
    docker: LiveSite, sign: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GALILEAN_TOKEN", docker.hub.token("alice", None))
    monkeypatch.setenv("GALILEAN_SITE", docker.url)

    def said(*words: str, code: int = 0) -> str:
        done = CliRunner().invoke(build_app(), ["workbenches", *words])
        if code:
            assert isinstance(done.exception, UserError), done.output
            return done.exception.text()
        assert done.exit_code == 0, (done.output, done.exception)
        return done.output

    said("release", "jupyter", code=1)
    run_id = said("open", "jupyter", "--cpu", "1", "--memory", "1G").split("\t")[0]
    assert said("list").startswith("jupyter\t")
    said("release", "jupyter")
    eventually(lambda: said("list").split("\t")[1] == "closed", 60)
    assert sign("alice").get(f"/clusters/{run_id}").json()["status"] == "released"
    said("delete", "jupyter", "--yes")
    assert said("list") == ""


def test_a_list_of_runs_leads_to_the_workbench(docker: LiveSite, sign: Any) -> None:
    bench = begun(sign("alice"))
    docker.hub.whoever = "alice"
    with httpx.Client(base_url=docker.url, follow_redirects=True, timeout=120) as client:
        answer = client.get(f"projects/alice/{bench['server']}")
    assert answer.status_code == 200
    assert str(answer.url).endswith(f"/workbenches/{bench['id']}")
