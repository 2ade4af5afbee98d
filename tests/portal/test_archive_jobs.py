"""An archive that was looked at is imported once, however often that is asked for."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import update

from galilean import notices
from galilean.errors import UserError
from services.catalog.archives.going import Mark, folder_of
from services.catalog.archives.importing import Import
from services.catalog.archives.planning import Choice
from services.catalog.shares import Actor
from services.catalog.tables import projects
from services.portal.archives import SILENT, imports
from tests.portal.conftest import Sign, made
from tests.portal.live import LiveSite
from tests.portal.test_archives import brought, settled


def test_who_clicks_twice_imports_once(site: LiveSite, sign: Sign) -> None:
    root = sign("root")
    project = made(root)
    job_id = brought(root, root.get(f"/projects/{project['id']}/export").content)
    settled(root, job_id, "ready")
    store = imports(site.portal)
    job = next(one for one in store.all() if one.id == job_id)

    def ask(owner: str) -> Any:
        return store.begin(job, {1: Choice(owner=owner)}, publish=False, actor=Actor(name="root"))

    async def at_once(*owners: str) -> list[Any]:
        return await asyncio.gather(*(ask(owner) for owner in owners), return_exceptions=True)

    def now(*owners: str) -> list[Any]:
        return asyncio.run_coroutine_threadsafe(at_once(*owners), site.loop).result(30)

    (refused,) = now("ghost")
    assert (refused.status, job.state) == (404, "ready")
    first, second = now("root", "root")
    assert first is None
    assert isinstance(second, UserError)
    assert second.status == 409
    settled(root, job_id, "done")
    assert len(root.get("/projects").json()["items"]) == 2


def test_an_archive_that_does_not_come_any_more_is_given_up(site: LiveSite) -> None:
    store = imports(site.portal)
    began = site.portal.clock()

    async def comes(silent: bool) -> list[str]:
        left: list[str] = []
        try:
            async with store.coming("root", "heat") as (job, file):
                job.hang_up = lambda: left.append("hung up")
                file.write(b"x")
                file.flush()
                site.portal.clock = lambda: (
                    began + (SILENT + timedelta(minutes=1) if silent else timedelta(0))
                )
                store.sweep()
                left.append("kept" if job in store.all() else "gone")
        except UserError as error:
            left.append(str(error.status))
        else:
            await store.give_up(job, actor=Actor(name="root"))
        site.portal.clock = lambda: began
        return left

    def run(silent: bool) -> list[str]:
        return asyncio.run_coroutine_threadsafe(comes(silent), site.loop).result(30)

    assert run(silent=False) == ["kept"]
    assert run(silent=True) == ["hung up", "gone", "408"]
    assert list((site.portal.settings.state / "imports").iterdir()) == []


DIES = """
import os, sys
from pathlib import Path
from services.catalog.archives.going import Mark
with Mark(Path(sys.argv[1]), "one", by="root", name="ten.tar.gz") as mark:
    for project in sys.argv[2:]:
        mark.begins(project)
    os._exit(9)  # as by a kill: nothing is cleared away
"""


def test_what_an_import_left_whose_portal_was_killed_is_cleared_at_once_and_told(
    site: LiveSite, sign: Sign
) -> None:
    root, store = sign("root"), imports(site.portal)
    whole, half, other = made(root, "Whole"), made(root, "Half"), made(root, "Other")
    with site.portal.db.write() as conn:
        busy = update(projects).where(projects.c.id.in_([half["id"], other["id"]]))
        conn.execute(busy.values(busy="importing"))
    folder = folder_of(site.portal.settings)
    folder.mkdir()
    subprocess.run([sys.executable, "-c", DIES, str(folder), whole["id"], half["id"]], check=False)
    with Mark(folder, "two", by="root", name="goes on") as going:  # of a process that lives
        going.begins(other["id"])
        store.clear_left()
        store.clear_left()
    assert {one["id"] for one in root.get("/projects").json()["items"]} == {whole["id"], other["id"]}
    (told,) = site.write(notices.unread, "root")
    assert (told.kind, told.params) == ("import", {"name": "ten.tar.gz", "done": 1})
    assert list(folder.iterdir()) == []


def test_a_portal_that_ends_takes_back_what_is_half_imported_and_tells(
    site: LiveSite, sign: Sign, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, store = sign("root"), imports(site.portal)
    project = made(root)
    assert root.put(f"/projects/{project['id']}/files/a.txt", content=b"hello").status_code == 201
    job_id = brought(root, root.get(f"/projects/{project['id']}/export").content)
    settled(root, job_id, "ready")
    began, goes_on = threading.Event(), threading.Event()
    write = Import._write

    def slow(self: Any, *args: Any) -> Any:
        began.set()
        goes_on.wait(30)
        return write(self, *args)

    monkeypatch.setattr(Import, "_write", slow)
    wish = {"choices": [{"number": 1, "owner": "root"}]}
    assert root.post(f"/archives/{job_id}", json=wish).status_code == 202
    assert began.wait(30)
    ending = asyncio.run_coroutine_threadsafe(store.close(), site.loop)
    progress = store.get(job_id).progress
    while not progress._cancelled:
        pass
    goes_on.set()
    ending.result(30)
    assert [one["id"] for one in root.get("/projects").json()["items"]] == [project["id"]]
    assert [one.kind for one in site.write(notices.unread, "root")] == ["import"]
