"""An archive that was looked at is imported once, however often that is asked for."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

from galilean.errors import UserError
from services.catalog.archives.planning import Choice
from services.catalog.shares import Actor
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
            await store.give_up(job)
        site.portal.clock = lambda: began
        return left

    def run(silent: bool) -> list[str]:
        return asyncio.run_coroutine_threadsafe(comes(silent), site.loop).result(30)

    assert run(silent=False) == ["kept"]
    assert run(silent=True) == ["hung up", "gone", "408"]
    assert list((site.portal.settings.state / "imports").iterdir()) == []
