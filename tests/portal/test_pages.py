"""Pages of projects, runs and machine time: what they show, and that what people wrote stays text."""

from __future__ import annotations

import csv
import io
import json
import re
from datetime import timedelta
from pathlib import Path

import httpx
import pytest

from services.catalog import store
from services.portal.pages.machine_time import csv_text, day_bars
from tests.portal.conftest import Sign, made
from tests.portal.live import Course, LiveSite
from tests.portal.test_api import SHORT, _until
from tests.web.site import now

EVIL = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>{{7*7}}"


def page(client: httpx.Client, site: LiveSite, path: str, **params: str) -> httpx.Response:
    return client.get(site.url + path, params=params)


def directory(site: LiveSite, project_id: str) -> Path:
    return site.settings.volume_path("default") / "projects" / project_id


@pytest.mark.parametrize(
    "path",
    ["projects", "projects/alice/{slug}", "projects/alice/{slug}/runs", "projects/alice/{slug}/settings",
     "projects/alice/{slug}/run", "machine-time"],
)  # fmt: skip
def test_what_people_wrote_stays_text(sign: Sign, site: LiveSite, path: str) -> None:
    alice = sign("alice")
    project = made(alice, EVIL[:100], description=EVIL)
    base = f"/projects/alice/{project['slug']}/files"
    for name in ("<img src=x onerror=alert(3)>.txt", "\"onmouseover='alert(4)'.md"):
        (directory(site, project["id"]) / name).write_text(EVIL)
    assert len(alice.get(base).json()["items"]) == 2
    site.cluster("alice", EVIL[:100], project_id=project["id"], slug=project["slug"])
    answer = page(alice, site, path.format(slug=project["slug"]))
    assert answer.status_code == 200
    for harm in ("<script>alert", "<img src=x", "\"onmouseover='alert", ">49<"):
        assert harm not in answer.text
    assert "unsafe-inline" not in answer.headers["Content-Security-Policy"].split("style-src")[0]


def test_a_preview_has_an_opaque_origin_and_no_network(sign: Sign, site: LiveSite) -> None:
    alice = sign("alice")
    project = made(alice)
    notebook = {
        "nbformat": 4,
        "nbformat_minor": 5,
        "metadata": {},
        "cells": [
            {"cell_type": "markdown", "id": "a", "metadata": {}, "source": EVIL},
            {
                "cell_type": "code", "id": "b", "metadata": {}, "source": "1", "execution_count": 1,
                "outputs": [{"output_type": "display_data", "metadata": {}, "data": {"text/html": EVIL}}],
            },
        ],
    }  # fmt: skip
    files = directory(site, project["id"])
    (files / "a.ipynb").write_text(json.dumps(notebook))
    (files / "README.md").write_text(EVIL)
    (files / "x.svg").write_text('<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>')
    for name in ("a.ipynb", "README.md", "x.svg"):
        answer = page(alice, site, f"api/v1/projects/alice/heat-flow/preview/{name}")
        assert answer.status_code == 200, answer.text
        policy = answer.headers["Content-Security-Policy"]
        assert policy.startswith("sandbox") or "; sandbox" in policy
        assert "allow-same-origin" not in policy
        assert "default-src 'none'" in policy
    inside = page(alice, site, "projects/alice/heat-flow")
    frame = re.search(r'<iframe class="shown-frame" sandbox="([^"]*)"', inside.text)
    assert frame is not None
    assert not {"allow-same-origin", "allow-scripts", "allow-top-navigation"} & set(frame[1].split())


@pytest.mark.parametrize("path", ["", "/runs", "/runs.csv", "/settings", "/run", "/run/sum", "/run/events"])
def test_pages_of_somebody_elses_project_are_not_there(sign: Sign, site: LiveSite, path: str) -> None:
    made(sign("alice"))
    answer = page(sign("bob"), site, "projects/alice/heat-flow" + path)
    assert answer.status_code == 404
    assert "Heat flow" not in answer.text


def test_a_run_of_somebody_else_is_not_told_by_the_drawer(sign: Sign, site: LiveSite) -> None:
    alice, bob = sign("alice"), sign("bob")
    made(alice)
    made(bob)
    run_id = alice.post("/projects/alice/heat-flow/clusters", json=SHORT).json()["id"]
    assert page(bob, site, "projects/bob/heat-flow/run", run=run_id).status_code == 404
    assert page(bob, site, "projects/bob/heat-flow/run/events", run=run_id).status_code == 404


def test_a_link_opens_the_drawer_and_starts_nothing(sign: Sign, site: LiveSite) -> None:
    alice = sign("alice")
    made(alice)
    assert "data-open-now" in page(alice, site, "projects/alice/heat-flow", run="1").text
    assert "data-open-now" not in page(alice, site, "projects/alice/heat-flow").text
    page(alice, site, "projects/alice/heat-flow/run")
    assert [call for call in site.hub.calls if call[0] == "POST"] == []


def test_the_drawer_shows_the_face_of_the_run(sign: Sign, site: LiveSite) -> None:
    alice = sign("alice")
    made(alice)

    def face(**params: str) -> str:
        return (
            page(alice, site, "projects/alice/heat-flow/run", **params)
            .text.split('data-face="')[1]
            .split('"')[0]
        )

    assert face() == "form"
    site.hub.course = Course(no_room=True)
    run_id = alice.post("/projects/alice/heat-flow/clusters", json=SHORT).json()["id"]
    assert face() == "waiting"
    alice.delete(f"/clusters/{run_id}")
    assert (face(), face(run=run_id), face(run=run_id, change="1")) == ("form", "failed", "form")
    site.hub.course = Course(place=0.2, ready=0.5, fails=0)
    run_id = alice.post("/projects/alice/heat-flow/clusters", json=SHORT).json()["id"]
    assert face() == "starting"
    _until(lambda: face(run=run_id), lambda found: found == "failed")
    told = page(alice, site, "projects/alice/heat-flow/run", run=run_id).text
    assert "node-0 did not come up" in told
    assert "No machine time was counted." in told
    site.hub.course = Course()
    alice.post("/projects/alice/heat-flow/clusters", json=SHORT)
    _until(face, lambda found: found == "running")


def test_the_start_is_pushed_until_it_is_ready(sign: Sign, site: LiveSite) -> None:
    alice = sign("alice")
    made(alice)
    site.hub.course = Course(place=0.3, ready=0.5)
    run_id = alice.post("/projects/alice/heat-flow/clusters", json=SHORT).json()["id"]
    faces: list[str] = []
    with alice.stream("GET", site.url + f"projects/alice/heat-flow/run/events?run={run_id}") as stream:
        for line in stream.iter_lines():
            if line.startswith("data: "):
                event = json.loads(line[6:])
                faces.append(event["face"])
                assert event["url"] == "/user/alice/heat-flow/lab"
    assert (faces[0], faces[-1]) == ("starting", "running")


def test_the_first_time_jupyterlab_opens_at_the_first_notebook(sign: Sign, site: LiveSite) -> None:
    alice = sign("alice")
    made(alice, starter=True)
    made(alice, "Empty")
    lab = "/user/alice/heat-flow/lab"

    def opened(slug: str) -> str:
        """What the stream says when a new start is ready."""
        run_id = alice.post(f"/projects/alice/{slug}/clusters", json=SHORT).json()["id"]
        with alice.stream("GET", site.url + f"projects/alice/{slug}/run/events?run={run_id}") as stream:
            events = [json.loads(line[6:]) for line in stream.iter_lines() if line.startswith("data: ")]
        assert events[-1]["face"] == "running"
        assert f'href="{events[-1]["url"]}"' in page(alice, site, f"projects/alice/{slug}").text
        alice.delete(f"/clusters/{run_id}")
        return events[-1]["url"]

    assert opened("heat-flow") == f"{lab}/tree/welcome.ipynb"
    assert opened("heat-flow") == lab, "whoever was here before finds what they left"
    assert opened("empty") == "/user/alice/empty/lab"


@pytest.mark.parametrize("params", [{"nodes": "x"}, {"nodes": "1e99"}, {"cpu": "nan"}, {"memory_gb": "-1"}])
def test_a_sum_of_nonsense_is_refused_in_words(sign: Sign, site: LiveSite, params: dict[str, str]) -> None:
    alice = sign("alice")
    made(alice)
    answer = page(alice, site, "projects/alice/heat-flow/run/sum", **{"size": "custom", **params})
    assert answer.status_code == 400


def test_the_sum_says_why_it_cannot_be_had(sign: Sign, site: LiveSite) -> None:
    bob = sign("bob")
    made(bob)
    fits = page(bob, site, "projects/bob/heat-flow/run/sum", nodes="1", size="small").text
    assert "Together 2\u00a0cores, 8\u00a0GB" in fits
    assert "data-refused" not in fits
    assert "data-refused" in page(bob, site, "projects/bob/heat-flow/run/sum", nodes="3", size="small").text


def test_settings_of_a_running_project_name_the_way_out_instead_of_a_button(
    sign: Sign, site: LiveSite
) -> None:
    alice = sign("alice")
    project = made(alice)
    (directory(site, project["id"]) / "a.txt").write_bytes(b"x" * 2048)
    before = page(alice, site, "projects/alice/heat-flow/settings").text
    assert "1 file with 2.0\u00a0KB are lost." in before or "2.0\u00a0KB" in before
    assert 'data-open="delete-dialog"' in before
    alice.post("/projects/alice/heat-flow/clusters", json=SHORT)
    after = page(alice, site, "projects/alice/heat-flow/settings").text
    assert 'data-open="delete-dialog"' not in after
    assert "Release the cluster first" in after


def test_the_runs_table_says_what_each_run_used_and_the_csv_the_same(sign: Sign, site: LiveSite) -> None:
    alice = sign("alice")
    project = made(alice)
    for nodes, reason in ((1, "user"), (2, "left")):
        site.cluster(
            "alice", nodes=nodes, status="released", released=True, held=timedelta(minutes=44), gpu=1,
            project_id=project["id"], target="released", reason=reason,
        )  # fmt: skip
    text = page(alice, site, "projects/alice/heat-flow/runs").text
    for words in (
        "00:44:00",
        "01:28:00",
        "88.0",
        "352.0",
        "44.0",
        "176.0",
        "Released by you",
        "Went back after you left",
    ):
        assert words in text
    answer = page(alice, site, "projects/alice/heat-flow/runs.csv")
    rows = list(csv.DictReader(io.StringIO(answer.text.removeprefix("\ufeff"))))
    assert [row["nodes"] for row in rows] == ["2", "1"]
    assert (rows[1]["cpu_core_minutes"], rows[1]["memory_gb_minutes"], rows[1]["gpu_card_minutes"]) == (
        "88.0",
        "352.0",
        "44.0",
    )
    assert [row["wall_seconds"] for row in rows] == ["2640", "2640"]


def test_machine_time_has_a_line_for_each_project_and_a_graph(sign: Sign, site: LiveSite) -> None:
    alice = sign("alice")
    for name in ("Moons", "Rings"):
        project = made(alice, name)
        site.cluster(
            "alice", name, status="released", released=True, held=timedelta(minutes=30), target="released",
            project_id=project["id"], ready_at=now() - timedelta(days=2), slug=project["slug"],
        )  # fmt: skip
    by_project = page(alice, site, "machine-time").text
    assert by_project.index("Moons") != by_project.index("Rings")
    assert "01:00:00" in by_project
    assert by_project.count('class="ground"') == 30
    assert (now() - timedelta(days=2)).strftime("%Y-%m-%d") in page(
        alice, site, "machine-time", by="day"
    ).text
    sheet = page(alice, site, "machine-time.csv").text
    assert "1800" in sheet
    nothing = page(sign("bob"), site, "machine-time").text
    assert "Nothing was used in this time" in nothing


def test_a_spreadsheet_takes_names_as_text() -> None:
    text = csv_text(["name"], [["=1+1"], ["@x"], ["-5"], [-5], ["plain"]])
    assert text.split("\r\n")[1:6] == ["'=1+1", "'@x", "'-5", "-5", "plain"]


def test_a_day_without_use_has_a_place_in_the_graph() -> None:
    bars = day_bars([], (now() - timedelta(days=2)).date(), now().date())
    assert [bar.seconds for bar in bars] == [0, 0, 0]
    assert all(bar.height < 1 for bar in bars)


def test_lists_say_why_they_are_empty_and_what_to_do(sign: Sign, site: LiveSite) -> None:
    alice = sign("alice")
    assert "No projects yet" in page(alice, site, "projects").text
    made(alice)
    assert "No project matches “ganymed”" in page(alice, site, "projects", q="ganymed").text
    assert "Not run yet" in page(alice, site, "projects/alice/heat-flow/runs").text
    assert "The project is ready" in page(alice, site, "projects/alice/heat-flow").text


def test_the_address_of_a_name_is_told_while_it_is_typed(sign: Sign, site: LiveSite) -> None:
    alice = sign("alice")
    assert page(alice, site, "projects/slug", name="热流 Heat").json() == {"slug": "re-liu-heat"}
    assert page(alice, site, "projects/slug", name="").json() == {"slug": ""}


def test_everything_is_said_in_chinese_too(sign: Sign, site: LiveSite) -> None:
    alice = sign("alice", language="zh-CN")
    made(alice)
    for path, words in (
        ("projects", "新建项目"),
        ("projects/new", "只需一个名称"),
        ("projects/alice/heat-flow", "运行与机时"),
        ("projects/alice/heat-flow/run", "通常一个即可"),
        ("projects/alice/heat-flow/settings", "删除项目"),
        ("machine-time", "机时"),
    ):
        assert words in page(alice, site, path).text


def test_a_person_without_a_role_is_told_what_happens_next(sign: Sign, site: LiveSite) -> None:
    nobody = sign("nobody")
    assert "waits for a role" in page(nobody, site, "projects/new").text
    with site.portal.db.write() as conn:
        store.create(conn, owner="nobody", name="Old", volume_id="default", now=now())
    text = page(nobody, site, "projects/nobody/old").text
    assert "waits for a role" in text
    assert "data-run-open" not in text


def test_a_time_until_ready_is_promised_only_when_it_is_known(sign: Sign, site: LiveSite) -> None:
    alice = sign("alice")
    made(alice)
    sums = "projects/alice/heat-flow/run/sum"
    assert "Ready in about" not in page(alice, site, sums, nodes="1", size="small").text
    site.hub.course = Course(place=0.3, ready=0.9)
    run_id = alice.post("/projects/alice/heat-flow/clusters", json={**SHORT, "nodes": 1}).json()["id"]
    _until(lambda: alice.get(f"/clusters/{run_id}").json(), lambda c: c["status"] == "running")
    alice.delete(f"/clusters/{run_id}")
    assert "Ready in about 1\u00a0s" in page(alice, site, sums, nodes="1", size="small").text
    assert "Ready in about" not in page(alice, site, sums, nodes="2", size="small").text
