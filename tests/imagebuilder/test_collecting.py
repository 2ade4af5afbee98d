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

from extensions.imagebuilder import saved, service
from extensions.imagebuilder.collecting import Collector
from extensions.imagebuilder.container import Wanted
from extensions.imagebuilder.names import ImageName, Pinned, repository
from extensions.imagebuilder.saving import Place, Result, Saver, Task
from extensions.imagebuilder.service import Savers
from galilean.db import Database
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
