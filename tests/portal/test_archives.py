"""Export and import over HTTP: an administrator takes ten projects out and brings them in again."""

from __future__ import annotations

import io
import re
import tarfile
import threading
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from services.portal import archives
from tests.portal.conftest import Sign, made
from tests.portal.live import LiveSite
from tests.portal.test_gallery import png


def settled(client: httpx.Client, job: str, *states: str) -> dict:
    for _ in range(400):
        found = client.get(f"/archives/{job}").json()
        if found["state"] in states:
            return found
        time.sleep(0.02)
    raise AssertionError(found)


def brought(client: httpx.Client, content: bytes) -> str:
    answer = client.post("/archives?name=ten.tar.gz", content=content)
    assert answer.status_code == 202, answer.text
    return answer.json()["id"]


def test_ten_projects_go_out_and_come_in(site: LiveSite, sign: Sign) -> None:
    alice, root = sign("alice"), sign("root")
    ids = [made(alice, f"Project {number}")["id"] for number in range(10)]
    answer = root.post("/projects/export", json={"ids": ids})
    assert answer.headers["Content-Disposition"].startswith(
        'attachment; filename="projects-10.galilean.tar.gz"'
    )
    job = brought(root, answer.content)
    ready = settled(root, job, "ready", "refused")
    assert ready["problem"] == ""
    assert len(ready["projects"]) == 10
    assert ready["projects"][0]["conflicts"] == ["alice has a project at “project-0” already."]
    choices = [{"number": one["number"], "owner": "bob"} for one in ready["projects"]]
    assert root.post(f"/archives/{job}", json={"choices": choices}).status_code == 202
    done = settled(root, job, "done")
    assert [one["problem"] for one in done["projects"]] == [""] * 10
    assert {one["slug"] for one in sign("bob").get("/projects").json()["items"]} == {
        f"project-{n}" for n in range(10)
    }
    assert root.delete(f"/archives/{job}").status_code == 204
    assert root.get(f"/archives/{job}").status_code == 404


def test_one_exports_ones_own_project_and_nobody_elses(site: LiveSite, sign: Sign) -> None:
    alice, bob = sign("alice"), sign("bob")
    mine = made(alice)
    answer = alice.get(f"/projects/{mine['id']}/export")
    with tarfile.open(fileobj=io.BytesIO(answer.content)) as archive:
        assert "projects/0001/project.json" in archive.getnames()
    assert alice.get("/projects/alice/heat-flow/export").status_code == 200
    assert bob.get(f"/projects/{mine['id']}/export").status_code == 404
    assert bob.post("/projects/export", json={"ids": [mine["id"]]}).status_code == 404
    assert bob.get("/projects/alice/heat-flow/export").status_code == 404


def test_an_export_from_a_disk_that_hangs_is_told_and_holds_up_nobody_else(
    site: LiveSite, sign: Sign, monkeypatch: pytest.MonkeyPatch
) -> None:
    alice, mine = sign("alice"), made(sign("alice"))
    answers, hanging = threading.Event(), []

    def hang(*_: Any, **__: Any) -> Iterator[bytes]:
        hanging.append(1)
        answers.wait(60)
        yield b"late"

    monkeypatch.setattr(site.portal.files, "_seconds", 0.2)
    with monkeypatch.context() as disk:
        disk.setattr(archives.writing, "write", hang)
        for _ in range(6):
            answer = alice.get(f"/projects/{mine['id']}/export")
            assert (answer.status_code, answer.json()["reason"]) == (503, "volume-hangs")
        assert len(hanging) == 4, "half of the threads for exports of this volume, and no more"
    monkeypatch.setattr(site.portal.files, "_seconds", 20.0)
    assert alice.get(f"/projects/{mine['id']}/files").status_code == 200
    sent = alice.put("/projects/alice/heat-flow/cover", content=png(), headers={"Content-Type": "image/png"})
    assert sent.status_code == 200
    answers.set()
    for _ in range(400):
        answer = alice.get(f"/projects/{mine['id']}/export")
        if answer.status_code == 200:
            break
        time.sleep(0.02)
    assert answer.status_code == 200, "the disk is back"


def test_an_export_that_no_import_would_take_is_refused_before_it_begins(
    site: LiveSite, sign: Sign, monkeypatch: pytest.MonkeyPatch
) -> None:
    alice, root = sign("alice"), sign("root")
    small, large = made(alice, "Small"), made(alice, "Large")
    for number in range(5):
        alice.put(f"/projects/alice/large/files/{number}.txt", content=b"x")
    few = archives.fitting.Limits(entries=4)
    real = archives.fitting.check
    monkeypatch.setattr(archives.fitting, "check", lambda one: real(one, few))
    answer = root.post("/projects/export", json={"ids": [small["id"], large["id"]]})
    assert answer.status_code == 413
    assert "“alice/large” holds more than 4 files and folders" in answer.json()["detail"]
    assert root.get(f"/projects/{large['id']}/export").status_code == 413
    assert root.get(f"/projects/{small['id']}/export").status_code == 200


def test_only_who_manages_projects_imports(site: LiveSite, sign: Sign) -> None:
    alice = sign("alice")
    assert alice.post("/archives", content=b"x" * 100).status_code == 403
    assert alice.get("/archives/" + "0" * 26).status_code == 403
    assert alice.get(site.url + "admin/archives").status_code == 403


def test_what_is_no_archive_is_refused_in_words_and_kept_nowhere(site: LiveSite, sign: Sign) -> None:
    root = sign("root")
    job = brought(root, b"PK\x03\x04" + b"x" * 2000)
    found = settled(root, job, "ready", "refused")
    assert found["state"] == "refused"
    assert "damaged" in found["problem"] or "no archive" in found["problem"]
    assert not list((site.settings.state / "imports").glob("*.tar"))
    assert (
        root.post(f"/archives/{job}", json={"choices": [{"number": 1, "owner": "root"}]}).status_code == 409
    )
    assert root.post("/archives", content=b"").status_code == 411


def test_an_owner_who_is_nobody_is_refused(site: LiveSite, sign: Sign) -> None:
    root = sign("root")
    job = brought(root, root.get(f"/projects/{made(root)['id']}/export").content)
    settled(root, job, "ready")
    answer = root.post(f"/archives/{job}", json={"choices": [{"number": 1, "owner": "ghost"}]})
    assert answer.status_code == 404
    assert (
        root.post(
            f"/archives/{job}", json={"choices": [{"number": 1, "owner": "root", "action": "skip"}]}
        ).status_code
        == 400
    )


def test_the_pages_lead_through_it(site: LiveSite, sign: Sign) -> None:
    root, alice = sign("root"), sign("alice")
    project = made(alice, "<b>Heat</b>")
    listed = root.get(site.url + "admin/archives").text
    assert "&lt;b&gt;Heat" in listed
    out = root.post(site.url + "admin/archives/export", data={"project": project["id"]})
    assert out.headers["Content-Type"] == "application/gzip"
    job = brought(root, out.content)
    settled(root, job, "ready")
    page = site.url + f"admin/archives/{job}"
    assert "already" in root.get(page).text
    again = root.post(
        page, data={"do": "look", "owner-1": "bob", "action-1": "import"}, headers={"HX-Request": "true"}
    )
    assert "already" not in again.text
    root.post(
        page, data={"owner-1": "bob", "action-1": "import"}, headers={"HX-Request": "true"}
    ).raise_for_status()
    settled(root, job, "done")
    assert "projects/bob/" in root.get(page).text


def test_what_was_chosen_is_taken_also_from_a_page_whose_script_is_not_there_yet(
    site: LiveSite, sign: Sign
) -> None:
    root, alice = sign("root"), sign("alice")
    project = made(alice)
    out = root.post(site.url + "admin/archives/export", data={"project": project["id"]})
    job = brought(root, out.content)
    settled(root, job, "ready")
    shown = root.get(site.url + f"admin/archives/{job}").text
    form = re.search(r'<form[^>]* method="post" action="([^"]+)"[^>]*hx-target="#archive"[^>]*>', shown)
    assert form is not None, "the browser would send it as a question, and what was chosen be lost"
    assert 'name="_xsrf"' in shown[form.end() : form.end() + 80]
    answer = root.post(httpx.URL(site.url).join(form[1]), data={"owner-1": "bob", "action-1": "import"})
    assert answer.status_code == 200 and "<!DOCTYPE" in answer.text
    assert settled(root, job, "done")["projects"][0]["problem"] == ""
