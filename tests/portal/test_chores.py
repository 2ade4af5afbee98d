"""What the portal does by itself: by one process alone, each chore apart from the others."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from galilean.db import Database
from galilean.file_threads import FileThreads
from galilean.service import Lease
from galilean.settings import Settings
from services.catalog import lifecycle, store, volumes
from services.catalog.projects import Projects
from services.portal import binned
from services.portal.chores import CHORES, Chore, Chores

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


class Turns:
    """Time that passes when a test says so: whoever waits goes on at the next turn."""

    def __init__(self) -> None:
        self.waiting: list[asyncio.Future[None]] = []

    async def pause(self, seconds: float) -> None:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.waiting.append(future)
        await future

    async def next(self) -> None:
        for _ in range(200):
            await asyncio.sleep(0.005)
            if self.waiting:
                break
        waiting, self.waiting = self.waiting, []
        for future in waiting:
            if not future.done():
                future.set_result(None)


@pytest.fixture
def portal(sqlite_db: Database, tmp_path: Path) -> Any:
    return SimpleNamespace(
        db=sqlite_db, settings=Settings(state=tmp_path), clock=lambda: NOW, parts={}, files=FileThreads()
    )


@pytest.fixture
async def begun() -> AsyncIterator[list[asyncio.Task[None]]]:
    tasks: list[asyncio.Task[None]] = []
    yield tasks
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def until(condition: Any) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - of whatever a test looks at
            await asyncio.sleep(0.005)


async def test_of_two_portals_one_does_the_chores_and_the_other_when_it_ends(
    portal: Any, begun: list[asyncio.Task[None]]
) -> None:
    done: list[str] = []

    def chores(name: str, turns: Turns) -> Chores:
        async def work(_: Any) -> None:
            done.append(name)

        chore = Chore(name="count", work=work, interval_seconds=60)
        return Chores(
            portal, [chore], lease=Lease(portal.db, "chores", clock=portal.clock), pause=turns.pause
        )

    first, second = Turns(), Turns()
    begun.append(asyncio.create_task(chores("first", first).run()))
    await until(lambda: done == ["first"])
    begun.append(asyncio.create_task(chores("second", second).run()))
    for _ in range(3):
        await second.next()
    assert set(done) == {"first"}
    begun[0].cancel()
    await asyncio.gather(begun[0], return_exceptions=True)
    await second.next()
    await until(lambda: "second" in done)


async def test_a_chore_that_fails_is_tried_again_and_holds_up_no_other(
    portal: Any, begun: list[asyncio.Task[None]]
) -> None:
    turns, tried, done = Turns(), [], []

    async def fails(_: Any) -> None:
        tried.append(1)
        raise RuntimeError("a disk")

    async def works(_: Any) -> None:
        done.append(1)

    chores = Chores(
        portal,
        [Chore(name="a", work=fails, interval_seconds=1), Chore(name="b", work=works, interval_seconds=1)],
        pause=turns.pause,
    )
    begun.append(asyncio.create_task(chores.run()))
    await until(lambda: tried and done)
    await turns.next()
    await until(lambda: len(tried) > 1 and len(done) > 1)
    before = len(done)
    await asyncio.sleep(0.02)
    chores.wake("b")
    await until(lambda: len(done) > before)


def test_chores_have_names_of_their_own() -> None:
    assert len({chore.name for chore in CHORES}) == len(CHORES)


async def test_what_lay_in_the_bin_for_its_time_is_gone_for_good_and_nothing_sooner(portal: Any) -> None:
    now = [NOW]
    portal.clock = lambda: now[0]
    shelf = Projects(portal.db, portal.settings, portal.clock)
    old, young = await shelf.create("alice", "Old", starter=True), await shelf.create("alice", "Young")
    await shelf.delete(old)
    now[0] = NOW + timedelta(days=29)
    await shelf.delete(young)
    await binned.empty(portal)
    in_bin = portal.settings.volume_path("default") / volumes.BIN
    assert {path.name for path in in_bin.iterdir()} == {old.id, young.id}
    outside = portal.settings.state / "precious"
    outside.mkdir()
    (outside / "file").write_text("kept")
    (in_bin / old.id / "link").symlink_to(outside)
    now[0] = NOW + timedelta(days=30)
    await binned.empty(portal)
    assert {path.name for path in in_bin.iterdir() if not path.name.startswith(".")} == {young.id}
    assert (outside / "file").read_text() == "kept"
    assert await portal.db.run_read(lambda conn: store.by_id(conn, young.id, deleted=True)) is not None
    shelf.close()


async def test_what_cannot_be_deleted_keeps_nothing_else_in_the_bin(
    portal: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [NOW]
    portal.clock = lambda: now[0]
    monkeypatch.setattr(lifecycle, "to_purge", partial(lifecycle.to_purge, most=1))
    shelf = Projects(portal.db, portal.settings, portal.clock)
    stays, goes = await shelf.create("alice", "Stays"), await shelf.create("alice", "Goes")
    for project in (stays, goes):
        await shelf.delete(project)
    remove = binned.remove

    def refuses(volume: Path, volume_id: str, path: Path) -> None:
        if path.name == stays.id:
            raise PermissionError(1, "immutable")
        remove(volume, volume_id, path)

    monkeypatch.setattr(binned, "remove", refuses)
    now[0] = NOW + timedelta(days=31)
    await binned.empty(portal)
    in_bin = portal.settings.volume_path("default") / volumes.BIN
    assert {path.name for path in in_bin.iterdir() if not path.name.startswith(".")} == {stays.id}
    shelf.close()


async def test_a_volume_that_is_away_keeps_what_lies_in_its_bin(portal: Any) -> None:
    now = [NOW]
    portal.clock = lambda: now[0]
    shelf = Projects(portal.db, portal.settings, portal.clock)
    project = await shelf.create("alice", "Old")
    await shelf.delete(project)
    now[0] = NOW + timedelta(days=31)
    mark = portal.settings.volume_path("default") / volumes.MARK
    mark.rename(mark.with_suffix(".away"))
    await binned.empty(portal)
    assert (portal.settings.volume_path("default") / volumes.BIN / project.id).exists()
    mark.with_suffix(".away").rename(mark)
    await binned.empty(portal)
    assert not (portal.settings.volume_path("default") / volumes.BIN / project.id).exists()
    shelf.close()
