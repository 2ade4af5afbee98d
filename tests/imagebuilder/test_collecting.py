"""A registry gives back what nothing names while nobody pushes to it, and nothing that was pushed is lost by it."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update

from extensions.imagebuilder import saved, service
from extensions.imagebuilder.collecting import Collector
from extensions.imagebuilder.container import Wanted
from extensions.imagebuilder.names import ImageName, Pinned, repository
from extensions.imagebuilder.saving import Place, Result, Saver, Task
from extensions.imagebuilder.service import Savers
from extensions.imagebuilder.tables import saved_images
from galilean.db import Database
from galilean.errors import UserError
from tests.imagebuilder.registry.server import RegistryServer
from tests.imagebuilder.registry.test_real import push_image
from tests.imagebuilder.test_service import ADA, NOW, NoDocker, begin, make_run, row
from tests.imagebuilder.test_service import run as run

pytestmark = pytest.mark.process


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[RegistryServer]:
    found = RegistryServer(tmp_path / "registry")
    found.start()
    yield found
    found.stop()


def program(tmp_path: Path, script: str) -> str:
    path = tmp_path / "collector"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return str(path)


async def until(true: Any) -> None:
    async with asyncio.timeout(60):
        while not true():  # noqa: ASYNC110 - a file's lock
            await asyncio.sleep(0.02)


# ------------------------------------------------------------------------------------------------------- the lock


async def test_nobody_may_push_while_it_collects_and_everybody_after_it(tmp_path: Path) -> None:
    go = tmp_path / "go"
    one = Collector(program(tmp_path, f"while ! [ -e {go} ]; do sleep 0.05; done"), tmp_path / "config.yml")
    another = Collector("nothing", tmp_path / "config.yml")
    assert another.free()
    going = asyncio.create_task(one.collect())
    await until(lambda: not another.free())
    await another.collect()  # one at a time
    assert not going.done()
    go.touch()
    await going
    assert another.free()


async def test_the_collector_of_a_killed_service_still_holds_the_lock(tmp_path: Path) -> None:
    go, begun, settings = tmp_path / "go", tmp_path / "begun", tmp_path / "config.yml"
    slow = program(tmp_path, f"touch {begun}; while ! [ -e {go} ]; do sleep 0.05; done")
    code = textwrap.dedent(f"""
        import asyncio
        from pathlib import Path
        from extensions.imagebuilder.collecting import Collector
        asyncio.run(Collector({slow!r}, Path({str(settings)!r})).collect())
        """)
    before = subprocess.Popen(  # noqa: ASYNC220 - a moment
        [sys.executable, "-c", code], cwd=Path(__file__).parents[2]
    )
    after = Collector("nothing", settings)
    await until(begun.exists)
    before.send_signal(signal.SIGKILL)
    before.wait()
    assert not after.free()
    go.touch()
    await until(after.free)


async def test_whoever_ends_ends_the_collector_first(tmp_path: Path) -> None:
    one = Collector(program(tmp_path, "exec sleep 600"), tmp_path / "config.yml")
    going = asyncio.create_task(one.collect())
    await until(lambda: not one.free())
    going.cancel()
    await asyncio.gather(going, return_exceptions=True)
    assert one.free()


# ------------------------------------------------------------------------------------------------- under load


class PushingSaver(Saver):
    """Pushes a new image for every row, layer by layer."""

    async def save(self, task: Task, wanted: Wanted, name: ImageName, *, history: bool = False) -> Result:
        task.begin("pushing")
        path = repository(wanted.user, name)
        async with self.client() as client:
            digest = await push_image(client, path, name.tag, os.urandom(300_000))
        return Result(Pinned(self.place.name, path, digest), 10, 2, "linux/amd64", {"packed_bytes": 3}, "")

    async def put_right(self) -> int:
        return 0


def savers_with(db: Database, registry: RegistryServer, directory: Path, **more: Any) -> Savers:
    docker: Any = NoDocker()
    saver = PushingSaver(docker, "t", Place(registry.address), directory)
    found = shutil.which("docker-registry")
    assert found
    return Savers(
        db,
        saver,
        collector=Collector(found, registry.settings),
        **{"clock": lambda: datetime.now(UTC), **more},
    )


def layers(registry: RegistryServer) -> int:
    return len(list((registry.data / "docker/registry/v2/blobs").rglob("data")))


async def is_whole(savers: Savers, image: Pinned) -> bool:
    """Whether every layer of it can be had."""
    async with savers.saver.client() as client:
        _, manifest = await client.manifest(image.repository, image.digest)
        sizes = [await client.blob_size(image.repository, blob.digest) for blob in manifest.blobs]  # pyright: ignore[reportAttributeAccessIssue]
    return None not in sizes


async def test_images_that_are_pushed_while_others_are_deleted_and_collected_are_whole(
    db: Database, registry: RegistryServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "CLEAR_EVERY_TICKS", 1)
    savers = savers_with(db, registry, tmp_path / "images")
    runs = [make_run(db, f"01HAAAAAAAAAAAAAAAAAAAAA{number:02d}", "ada") for number in range(3)]
    kept: list[str] = []
    collected = 0
    for number in range(12):
        kept.append(await db.run(begin, runs[number % 3], f"k{number}"))
        gone = await db.run(begin, runs[number % 3], f"g{number}")
        async with asyncio.timeout(60):
            while (await row(db, gone)).state == "saving":
                await savers.tick()
                await asyncio.sleep(0.01)
        await db.run(lambda conn, gone=gone: saved.remove(conn, gone, actor=ADA, now=NOW))
        collected += savers._collecting is not None
    async with asyncio.timeout(60):
        while savers._going or savers._collecting or savers._deleted or await db.run_read(saved.saving):
            await savers.tick()
            collected += savers._collecting is not None
            await asyncio.sleep(0.01)
    assert collected > 1, "it was collected in between"
    for one in kept:
        found = await row(db, one)
        assert found.state == "ready", found.why
        assert await is_whole(savers, Pinned.parse(found.image))
    assert layers(registry) == 3 * len(kept), "and nothing else is left"
    await savers.close()


async def test_deleted_images_do_not_wait_for_ever_for_a_quiet_moment(
    db: Database, run: str, registry: RegistryServer, tmp_path: Path
) -> None:
    now = datetime.now(UTC)
    savers = savers_with(db, registry, tmp_path / "images", clock=lambda: now)
    await savers.tick()
    assert savers._collecting is not None, "once when the service begins"
    await savers._collecting
    savers._collect()
    savers._deleted = now
    assert savers._may_begin()
    now += service.COLLECT_AFTER + timedelta(seconds=1)
    assert not savers._may_begin(), "what goes on ends, then it is collected"
    savers._collect()
    assert savers._collecting is not None
    await savers._collecting
    savers._collect()
    assert savers._may_begin()
    await savers.close()


# ------------------------------------------------------------------------------------------ what images stand on

PLACE = f"bases/{'a' * 40}"


class BasedSaver(PushingSaver):
    """The same, of images that stand on one that is brought along; fails where a test says so."""

    fails = False

    async def save(self, task: Task, wanted: Wanted, name: ImageName, *, history: bool = False) -> Result:
        task.begin("base")
        await task.books.base(PLACE)
        async with self.client() as client:
            if not await client.tags(PLACE):
                await push_image(client, PLACE, "1", b"below")
        if self.fails:
            raise UserError(502, "The registry is away.")
        return await super().save(task, wanted, name)


def based_savers(db: Database, registry: RegistryServer, directory: Path) -> tuple[Savers, BasedSaver]:
    savers = savers_with(db, registry, directory)
    docker: Any = NoDocker()
    saver = BasedSaver(docker, "t", Place(registry.address), directory)
    savers.saver, saver.needed = saver, savers._needed
    return savers, saver


async def settled(savers: Savers) -> None:
    """Until everything is done that there is to do."""
    async with asyncio.timeout(60):
        await savers.tick()
        while savers._going or savers._collecting or savers._deleted:
            await savers.tick()
            await asyncio.sleep(0.01)


async def has_base(saver: Saver) -> bool:
    async with saver.client() as client:
        return bool(await client.tags(PLACE))


async def test_what_images_stood_on_goes_with_the_last_of_them(
    db: Database, run: str, registry: RegistryServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "CLEAR_EVERY_TICKS", 1)
    savers, saver = based_savers(db, registry, tmp_path / "images")
    first, second = await db.run(begin, run, "1"), await db.run(begin, run, "2")
    await settled(savers)
    assert (await row(db, first)).state == (await row(db, second)).state == "ready"
    for one, stays in ((first, True), (second, False)):
        await db.run(lambda conn, one=one: saved.remove(conn, one, actor=ADA, now=NOW))
        await savers.tick()
        await settled(savers)
        assert await has_base(saver) is stays
    assert layers(registry) == 0
    await savers.close()


@pytest.mark.parametrize("how", ["fails", "killed"])
async def test_what_was_brought_along_for_nothing_goes(
    db: Database,
    run: str,
    registry: RegistryServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    how: str,
) -> None:
    monkeypatch.setattr(service, "CLEAR_EVERY_TICKS", 1)
    savers, saver = based_savers(db, registry, tmp_path / "images")
    image = await db.run(begin, run)
    if how == "fails":
        saver.fails = True
    else:
        async with saver.client() as client:
            await push_image(client, PLACE, "1", b"below")
        await db.run(
            lambda conn: conn.execute(
                update(saved_images)
                .where(saved_images.c.id == image)
                .values(step="base", changes={"base": PLACE})
            )
        )
    await settled(savers)
    assert (await row(db, image)).state == "failed"
    assert not await has_base(saver)
    assert layers(registry) == 0
    await savers.close()
