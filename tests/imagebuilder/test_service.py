"""The image service takes up rows, believes none of them, and puts right what a killed one left."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, insert, select, update

from extensions.imagebuilder import building as building_module
from extensions.imagebuilder import container, saved, store
from extensions.imagebuilder.building import Order
from extensions.imagebuilder.container import GivenUp, Wanted
from extensions.imagebuilder.entries import Actor
from extensions.imagebuilder.names import IMAGES, ImageName, Pinned
from extensions.imagebuilder.saving import Place, Result, Saver, Task
from extensions.imagebuilder.service import Savers, wanted_of
from extensions.imagebuilder.tables import saved_images
from galilean.db import Database
from galilean.errors import UserError
from galilean.settings_builds import Builds
from spawner.tables import clusters
from tests.imagebuilder.registry.server import RegistryServer
from tests.imagebuilder.registry.test_real import push_image
from tests.imagebuilder.test_store import NOW, version

IMAGE = Pinned("127.0.0.1:5000", "people/ada/tools", "sha256:" + "a" * 64)
ADA = Actor(name="ada")


class FakeSaver:
    """Saves nothing; does what a test says."""

    backends = IMAGES

    def __init__(self, directory: Path, then: Callable[[Task], Any] = lambda _: None) -> None:
        self.directory, self.instance = directory, "t"
        self.then = then
        self.asked: list[Wanted] = []
        self.forgotten: list[Pinned] = []
        self.docker = self
        self.place = self
        self.name = "127.0.0.1:5000"
        self.rights = 0

    async def put_right(self) -> int:
        self.rights += 1
        return 0

    async def named(self, user: str, name: ImageName) -> Pinned | None:
        """Nothing was pushed."""

    async def save(self, task: Task, wanted: Wanted, name: ImageName, *, history: bool = False) -> Result:
        self.asked.append(wanted)
        task.begin("copying", 10)
        await asyncio.to_thread(self.then, task)
        return Result(IMAGE, 10, 2, "linux/amd64", {"packed_bytes": 3}, "FROM x\n")

    async def forget(self, image: Pinned) -> None:
        self.forgotten.append(image)


def begin(conn: Connection, run: str, tag: str = "1", owner: str = "ada") -> str:
    return saved.begin(
        conn, actor=Actor(name=owner), name=ImageName("tools", tag), now=NOW, run_id=run, rank=0
    ).id


async def row(db: Database, image: str) -> Any:
    return await db.run_read(
        lambda conn: conn.execute(select(saved_images).where(saved_images.c.id == image)).one()
    )


async def until_over(savers: Savers, db: Database, image: str) -> Any:
    for _ in range(400):
        await savers.tick()
        found = await row(db, image)
        if found.state != "saving":
            return found
        await asyncio.sleep(0.02)
    raise AssertionError("it goes on for ever")


@pytest.fixture
def run(db: Database) -> str:
    """An open run of ada's on Docker."""
    return make_run(db, "01HAAAAAAAAAAAAAAAAAAAAAAA", "ada")


def make_run(db: Database, run_id: str, user: str, **more: Any) -> str:
    values: dict[str, Any] = {
        "id": run_id, "user": user, "server": f"s{run_id[-3:].lower()}", "project_id": "01HPPPPPPPPPPPPPPPPPPPPPPP", "project_owner": user,
        "project_slug": "heat", "project_name": "Heat", "environment": "jupyter", "backend": "docker", "nodes": 1,
        "cpu_millicores": 1000, "memory_bytes": 1 << 30, "on_node_loss": "release", "release_policy": "manual",
        "request": {}, "status": "running", "target": "running", "asked_by": user, "queued_at": NOW,
        "environment_digest": "", "pool": "default",
    } | more  # fmt: skip
    with db.write() as conn:
        conn.execute(insert(clusters).values(**values))
    return run_id


class FakeUploader:
    """Takes up nothing; does what a test says."""

    def __init__(self, then: Callable[[Task], Any] = lambda _: None) -> None:
        self.then = then
        self.taken: list[tuple[str, str]] = []
        self.dropped: list[tuple[str, str]] = []

    async def upload(self, task: Task, owner: str, archive: str, name: ImageName) -> Result:
        self.taken.append((owner, archive))
        task.begin("checking", 10)
        await asyncio.to_thread(self.then, task)
        return Result(IMAGE, 10, 2, "linux/amd64", {"packed_bytes": 3, "told": [{"message": "x"}]}, "")

    def drop(self, owner: str, archive: str) -> None:
        self.dropped.append((owner, archive))

    def sweep(self, known: Any, now: datetime) -> int:
        return 0


ARCHIVE = "01HAAAAAAAAAAAAAAAAAAAAAAA.tar"


def begin_upload(conn: Connection, into_id: str = "", tag: str = "1") -> str:
    name = ImageName("tools", tag)
    return saved.begin(conn, actor=ADA, name=name, now=NOW, archive=ARCHIVE, into_id=into_id).id


def uploads_of(db: Database, directory: Path, uploader: FakeUploader) -> Savers:
    saver: Any = FakeSaver(directory)
    return Savers(db, saver, lambda: datetime.now(UTC), uploader=uploader)  # type: ignore[arg-type]


def savers_of(db: Database, saver: FakeSaver) -> Savers:
    return Savers(db, saver, lambda: datetime.now(UTC))  # type: ignore[arg-type]


async def test_a_row_becomes_an_image(db: Database, run: str, tmp_path: Path) -> None:
    saver = FakeSaver(tmp_path / "images")
    savers = savers_of(db, saver)
    image = await db.run(begin, run)
    found = await until_over(savers, db, image)
    assert (found.state, found.digest, found.size_bytes) == ("ready", IMAGE.digest, 10)
    assert saver.asked == [Wanted("ada", "saaa", run, 0)]
    await savers.close()


@pytest.mark.parametrize(
    "more", [{"user": "eve"}, {"backend": "process"}, {"released_at": NOW, "status": "released"}]
)
async def test_a_forged_row_moves_nothing(db: Database, tmp_path: Path, more: dict[str, Any]) -> None:
    other = make_run(
        db,
        "01HEEEEEEEEEEEEEEEEEEEEEEE",
        more.get("user", "ada"),
        **{key: value for key, value in more.items() if key != "user"},
    )
    saver = FakeSaver(tmp_path / "images")
    savers = savers_of(db, saver)
    image = await db.run(begin, other)
    found = await until_over(savers, db, image)
    assert found.state == "failed"
    assert saver.asked == []
    await savers.close()


def test_a_node_is_only_its_owners(db: Database, run: str) -> None:
    with db.read() as conn:
        assert wanted_of(conn, "ada", run, 0) == Wanted("ada", "saaa", run, 0)
        for owner, run_id, rank in (("eve", run, 0), ("ada", run, 1), ("ada", run, -1), ("ada", "x", 0)):
            with pytest.raises(UserError) as refused:
                wanted_of(conn, owner, run_id, rank)
            assert refused.value.status == 404


async def test_whoever_asks_to_cancel_is_heard(db: Database, run: str, tmp_path: Path) -> None:
    begun = threading.Event()

    def wait(task: Task) -> None:
        begun.set()
        task.stop.wait(20)
        task.check()

    saver = FakeSaver(tmp_path / "images", wait)
    savers = savers_of(db, saver)
    image = await db.run(begin, run)
    await savers.tick()
    await asyncio.to_thread(begun.wait, 20)
    await db.run(lambda conn: saved.ask_cancel(conn, "ada", image, now=NOW))
    found = await until_over(savers, db, image)
    assert found.state == "cancelled"
    await savers.close()


async def test_why_it_failed_is_told_in_words(db: Database, run: str, tmp_path: Path) -> None:
    def fail(_: Task) -> None:
        raise container.written_to("home/ada/x.db")

    savers = savers_of(db, FakeSaver(tmp_path / "images", fail))
    found = await until_over(savers, db, await db.run(begin, run))
    assert found.state == "failed"
    assert "/home/ada/x.db" in str(saved._saved(found).error)
    await savers.close()


async def test_a_fault_of_ours_is_no_stack_for_people(db: Database, run: str, tmp_path: Path) -> None:
    def fail(_: Task) -> None:
        raise RuntimeError("secret path /etc/shadow")

    savers = savers_of(db, FakeSaver(tmp_path / "images", fail))
    found = await until_over(savers, db, await db.run(begin, run))
    assert found.state == "failed"
    assert "shadow" not in found.why + found.log
    await savers.close()


async def test_what_a_killed_service_was_saving_is_told(db: Database, run: str, tmp_path: Path) -> None:
    (tmp_path / "images" / "save-x").mkdir(parents=True)
    image = await db.run(begin, run)
    await db.run(
        lambda conn: conn.execute(
            update(saved_images).where(saved_images.c.id == image).values(step="pushing")
        )
    )
    saver = FakeSaver(tmp_path / "images")
    savers = savers_of(db, saver)
    found = await until_over(savers, db, image)
    assert found.state == "failed" and "restarted" in found.why
    assert saver.rights >= 1 and saver.asked == []
    assert not (tmp_path / "images" / "save-x").exists()
    await savers.close()


async def test_nodes_are_saved_one_at_a_time_each(db: Database, run: str, tmp_path: Path) -> None:
    inside = 0
    most = 0
    lock = threading.Lock()

    def work(task: Task) -> None:
        nonlocal inside, most
        with lock:
            inside += 1
            most = max(most, inside)
        threading.Event().wait(0.05)
        with lock:
            inside -= 1

    savers = savers_of(db, FakeSaver(tmp_path / "images", work))
    one, two = await db.run(begin, run, "1"), await db.run(begin, run, "2")
    assert (await until_over(savers, db, one)).state == "ready"
    assert (await until_over(savers, db, two)).state == "ready"
    assert most == 1
    await savers.close()


async def test_a_deleted_image_goes_from_the_registry_once(db: Database, run: str, tmp_path: Path) -> None:
    saver = FakeSaver(tmp_path / "images")
    savers = savers_of(db, saver)
    image = await db.run(begin, run)
    await until_over(savers, db, image)
    await db.run(lambda conn: saved.remove(conn, image, actor=ADA, now=NOW))
    await savers._clear()
    await savers._clear()
    assert saver.forgotten == [IMAGE]
    assert (await row(db, image)).image == ""
    await savers.close()


# ---- two rows with the same image, which a registry knows once


class NoDocker:
    """A machine without images."""

    async def do(self, function: Callable[[], Any]) -> Any:
        raise RuntimeError

    async def ask(self, function: Callable[[Any], Any]) -> int:
        """Nobody was held."""
        return 0


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[RegistryServer]:
    found = RegistryServer(tmp_path / "registry")
    found.start()
    yield found
    found.stop()


def real_savers(db: Database, registry: RegistryServer, directory: Path) -> tuple[Savers, Saver]:
    docker: Any = NoDocker()
    saver = Saver(docker, "t", Place(registry.address), directory)
    return Savers(db, saver, lambda: datetime.now(UTC)), saver


async def pushed(saver: Saver, *tags: str) -> Pinned:
    async with saver.client() as client:
        found = {await push_image(client, "people/ada/tools", tag) for tag in tags}
    return Pinned(saver.place.name, "people/ada/tools", found.pop())


async def is_there(saver: Saver, image: Pinned) -> bool:
    async with saver.client() as client:
        try:
            await client.manifest(image.repository, image.digest)
        except UserError as error:
            if error.status != 404:
                raise
            return False
    return True


def finish(conn: Connection, row_id: str, image: Pinned) -> None:
    saved.finish(conn, row_id, image=image, now=NOW)


@pytest.mark.process
async def test_what_comes_to_nothing_or_is_deleted_leaves_the_same_image_of_another_row(
    db: Database, run: str, registry: RegistryServer, tmp_path: Path
) -> None:
    savers, saver = real_savers(db, registry, tmp_path / "images")
    image = await pushed(saver, "1", "2")
    one = await db.run(begin, run, "1")
    await db.run(finish, one, image)
    two = await db.run(begin, run, "2")
    await saver.forget(image)  # cancelled, or more than the person may keep
    assert await is_there(saver, image)
    await db.run(finish, two, image)
    await db.run(lambda conn: saved.remove(conn, two, actor=ADA, now=NOW))
    await savers._clear()
    assert await is_there(saver, image)
    await db.run(lambda conn: saved.remove(conn, one, actor=ADA, now=NOW))
    await savers._clear()
    assert not await is_there(saver, image), "nobody has it any more"
    assert (await row(db, one)).image == (await row(db, two)).image == ""
    await savers.close()


@pytest.mark.process
async def test_what_is_being_saved_may_become_the_same_image(
    db: Database, run: str, registry: RegistryServer, tmp_path: Path
) -> None:
    savers, saver = real_savers(db, registry, tmp_path / "images")
    image = await pushed(saver, "1", "2")
    one, two = await db.run(begin, run, "1"), await db.run(begin, run, "2")
    await saver.forget(image)
    assert await is_there(saver, image), "the other one may just have pushed it"
    await db.run(lambda conn: saved.cancelled(conn, one, now=NOW))
    await saver.forget(image)
    assert not await is_there(saver, image)
    await db.run(lambda conn: saved.cancelled(conn, two, now=NOW))
    await savers.close()


async def test_a_deleted_image_stays_while_a_version_of_an_entry_has_it(
    db: Database, run: str, tmp_path: Path
) -> None:
    saver = FakeSaver(tmp_path / "images")
    savers = savers_of(db, saver)
    image = await db.run(begin, run)
    await until_over(savers, db, image)
    by_address = replace(version("a", "0"), image=str(IMAGE))
    entry = await db.run(
        lambda conn: store.create(
            conn, actor=ADA, owner="ada", slug="other", title="Other", now=NOW, version=by_address
        )
    )
    await db.run(lambda conn: store.add_version(conn, entry.id, version("b", "1"), actor=ADA, now=NOW))
    await db.run(lambda conn: saved.remove(conn, image, actor=ADA, now=NOW))
    await savers._clear()
    assert saver.forgotten == []
    await db.run(lambda conn: store.remove(conn, entry.id, actor=ADA, now=NOW))
    await savers._clear()
    assert saver.forgotten == [IMAGE]
    await savers.close()


async def test_a_withdrawn_image_can_be_deleted(db: Database, run: str, tmp_path: Path) -> None:
    saver = FakeSaver(tmp_path / "images")
    savers = savers_of(db, saver)
    image = await db.run(begin, run)
    await until_over(savers, db, image)
    await db.run(lambda conn: saved.to_library(conn, image, actor=ADA, now=NOW))
    await db.run(lambda conn: saved.withdraw(conn, image, actor=ADA, now=NOW))
    await db.run(lambda conn: saved.remove(conn, image, actor=ADA, now=NOW))
    await savers._clear()
    assert saver.forgotten == [IMAGE]
    await savers.close()


def test_giving_up_is_asked_for_between_two_blocks() -> None:
    task = Task(lambda: NOW)
    task.at(1)
    task.stop.set()
    with pytest.raises(GivenUp):
        task.at(2)


async def test_an_archive_becomes_an_image_and_is_gone(db: Database, tmp_path: Path) -> None:
    uploader = FakeUploader()
    savers = uploads_of(db, tmp_path / "images", uploader)
    found = await until_over(savers, db, await db.run(begin_upload))
    assert (found.state, found.digest) == ("ready", IMAGE.digest)
    assert uploader.taken == uploader.dropped == [("ada", ARCHIVE)]
    await savers.close()


async def test_an_archive_that_is_refused_is_gone_too(db: Database, tmp_path: Path) -> None:
    def refuse(_: Task) -> None:
        raise UserError(422, "no image {what}", what="x")

    uploader = FakeUploader(refuse)
    savers = uploads_of(db, tmp_path / "images", uploader)
    found = await until_over(savers, db, await db.run(begin_upload))
    assert (found.state, found.why, found.image) == ("failed", "no image {what}", "")
    assert uploader.dropped == [("ada", ARCHIVE)]
    await savers.close()


async def test_an_upload_goes_on_after_the_service_was_killed_or_stopped(
    db: Database, tmp_path: Path
) -> None:
    begun = threading.Event()

    def wait(task: Task) -> None:
        begun.set()
        task.stop.wait(20)
        task.check()

    uploader = FakeUploader(wait)
    savers = uploads_of(db, tmp_path / "images", uploader)
    image = await db.run(begin_upload)
    await savers.tick()
    await asyncio.to_thread(begun.wait, 20)
    await savers.close()
    assert (await row(db, image)).state == "saving"
    assert uploader.dropped == []
    again = FakeUploader()
    savers = uploads_of(db, tmp_path / "images", again)
    assert (await until_over(savers, db, image)).state == "ready"
    assert again.taken == [("ada", ARCHIVE)]
    await savers.close()


async def test_an_upload_for_an_entry_is_ready_and_no_version_yet(db: Database, tmp_path: Path) -> None:
    """The portal, which knows rights, makes it one."""
    entry = await db.run(
        lambda conn: store.create(
            conn, actor=ADA, owner="ada", slug="tools", title="Tools", now=NOW, version=version("b", "0")
        )
    )
    savers = uploads_of(db, tmp_path / "images", FakeUploader())
    image = await db.run(begin_upload, entry.id)
    found = await until_over(savers, db, image)
    await savers.close()
    after = await db.run_read(store.entry, entry.id)
    assert after is not None and after.version.tag == "0"
    assert found.state == "ready"
    assert [one.id for one in await db.run_read(saved.for_entries)] == [image]


# ---- builds


def test_a_build_is_ended_whatever_goes_wrong_while_it_is_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(building_module, "LOOK_SECONDS", 0.01)
    tries = threading.Semaphore(0)

    class Away(FakeSaver):
        def connect(self) -> Any:
            tries.release()
            raise KeyError("docker")

    saver: Any = Away(tmp_path)
    task = Task(lambda: NOW)
    near, far = socket.socketpair()
    watch = building_module._Watch(saver, task, "net", "base", Builds(allowed=True))
    with near, far:
        watch.begin(near)
        assert tries.acquire(timeout=5) and tries.acquire(timeout=5)
        task.stop.set()
        far.settimeout(5)
        assert far.recv(1) == b"", "the connection to the daemon is closed"
        watch.end()
    assert watch.why == "cancelled"


class FakeBuilder:
    """Builds nothing; does what a test says."""

    def __init__(self, directory: Path, then: Callable[[Task], Any] = lambda _: None) -> None:
        self.contexts, self.then = directory, then
        self.limits = Builds(allowed=True)
        self.saver: Any = None
        self.orders: list[Order] = []
        self.wanted: set[str] | None = None
        directory.mkdir()

    async def build(self, task: Task, order: Order, name: ImageName) -> Result:
        self.orders.append(order)
        assert order.context is None or order.context.is_file()
        task.begin("building")
        task.say("Step 1/1")
        await asyncio.to_thread(self.then, task)
        return Result(IMAGE, 10, 2, "linux/amd64", {"packed_bytes": 3}, order.dockerfile)

    def put_right(self, wanted: set[str]) -> None:
        self.wanted = wanted

    def forget_steps(self, now: datetime) -> None:
        assert now.tzinfo is not None


class DoingSaver(FakeSaver):
    async def do(self, function: Callable[[], Any]) -> Any:
        return function()


def order_of(conn: Connection, tag: str = "1", context: str = "") -> str:
    return saved.begin(
        conn,
        actor=ADA,
        name=ImageName("built", tag),
        now=NOW,
        dockerfile="FROM jupyter\n",
        build={"images": {"jupyter": "x"}, "project": "ada/heat", "context": context},
    ).id


def building(
    db: Database, tmp_path: Path, then: Callable[[Task], Any] = lambda _: None
) -> tuple[Savers, FakeBuilder]:
    builder = FakeBuilder(tmp_path / "builds", then)
    saver: Any = DoingSaver(tmp_path / "images")
    builder.saver = saver
    savers = Savers(db, saver, lambda: datetime.now(UTC), builder=builder)  # type: ignore[arg-type]
    return savers, builder


async def test_a_row_of_a_build_is_built_and_its_files_go(db: Database, tmp_path: Path) -> None:
    savers, builder = building(db, tmp_path)
    context = builder.contexts / "c.tar"
    context.write_bytes(b"")
    found = await until_over(savers, db, await db.run(order_of, "1", "../builds/c.tar"))
    assert (found.state, found.digest, found.dockerfile) == ("ready", IMAGE.digest, "FROM jupyter\n")
    (order,) = builder.orders
    assert (order.owner, order.images, order.context) == ("ada", {"jupyter": "x"}, context)
    assert not context.exists()
    await savers.close()


async def test_the_log_of_a_build_is_read_while_it_goes_on(db: Database, tmp_path: Path) -> None:
    begun, over = threading.Event(), threading.Event()

    def wait(_: Task) -> None:
        begun.set()
        over.wait(20)

    savers, _ = building(db, tmp_path, wait)
    image = await db.run(order_of)
    await savers.tick()
    await asyncio.to_thread(begun.wait, 20)
    for _ in range(1000):
        if "Step 1/1" in (await row(db, image)).log:
            break
        await asyncio.sleep(0.02)
    assert "Step 1/1" in (await row(db, image)).log
    assert (await row(db, image)).state == "saving"
    over.set()
    assert (await until_over(savers, db, image)).state == "ready"
    await savers.close()


async def test_a_build_that_was_under_way_is_told_and_one_that_waited_is_built(
    db: Database, tmp_path: Path
) -> None:
    under_way, waited = await db.run(order_of, "1", "a.tar"), await db.run(order_of, "2", "b.tar")
    await db.run(
        lambda conn: conn.execute(
            update(saved_images).where(saved_images.c.id == under_way).values(step="building")
        )
    )
    savers, builder = building(db, tmp_path)
    (builder.contexts / "b.tar").write_bytes(b"")
    found = await until_over(savers, db, under_way)
    assert found.state == "failed" and "build again" in found.why
    assert builder.wanted == {"b.tar"}
    assert (await until_over(savers, db, waited)).state == "ready"
    await savers.close()


async def test_where_nothing_is_built_a_row_says_so(db: Database, tmp_path: Path) -> None:
    savers = Savers(db, DoingSaver(tmp_path / "images"), lambda: datetime.now(UTC))  # type: ignore[arg-type]
    assert (await until_over(savers, db, await db.run(order_of))).why == "Images are not built here."
    await savers.close()


class CountingCollector:
    """Gives nothing back, and counts how often it was asked to."""

    def __init__(self) -> None:
        self.asked = 0

    def free(self) -> bool:
        return True

    async def collect(self) -> None:
        self.asked += 1


@pytest.mark.parametrize("why", [GivenUp(), UserError(502, "The registry is away."), RuntimeError()])
@pytest.mark.parametrize("how", ["saved", "built"])
async def test_what_comes_to_nothing_while_it_is_pushed_leaves_neither_name_nor_layers(
    db: Database, run: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str, why: Exception
) -> None:
    def fail(task: Task) -> None:
        task.begin("pushing")
        raise why

    async def named(user: str, name: ImageName) -> Pinned:
        assert user == "ada"
        return IMAGE  # the registry had it, though its answer never came

    savers, _ = building(db, tmp_path, fail)
    saver: Any = savers.saver
    saver.then = fail
    monkeypatch.setattr(saver, "named", named)
    collector = savers._collector = CountingCollector()
    image = await db.run(order_of) if how == "built" else await db.run(begin, run)
    await until_over(savers, db, image)
    await savers.tick()  # it goes on no more
    await savers._clear()
    assert saver.forgotten == [IMAGE]
    assert savers._collecting is not None
    await savers._collecting
    assert collector.asked == 1
    await savers.close()


async def test_what_is_saved_after_an_attempt_that_came_to_nothing_is_not_taken_away(
    db: Database, run: str, tmp_path: Path
) -> None:
    def fail(_: Task) -> None:
        raise UserError(502, "The registry is away.")

    saver = FakeSaver(tmp_path / "images", fail)
    savers = savers_of(db, saver)
    await until_over(savers, db, await db.run(begin, run))
    saver.then = lambda _: None
    assert (await until_over(savers, db, await db.run(begin, run))).state == "ready"
    await savers._clear()
    assert saver.forgotten == [] and savers._left == {}
    await savers.close()


# ------------------------------------------------------------------------------------- an end in the middle


async def stopped_with_one_under_way_and_one_that_waits(
    db: Database, run: str, directory: Path
) -> tuple[Any, Any]:
    begun = threading.Event()

    def work(task: Task) -> None:
        begun.set()
        task.stop.wait(20)
        task.check()

    savers = savers_of(db, FakeSaver(directory, work))
    one, two = await db.run(begin, run, "1"), await db.run(begin, run, "2")
    await savers.tick()
    await asyncio.to_thread(begun.wait, 20)
    await asyncio.sleep(0.05)
    await savers.close()
    return await row(db, one), await row(db, two)


async def test_what_only_waited_when_the_service_was_stopped_is_saved_by_the_next(
    db: Database, run: str, tmp_path: Path
) -> None:
    one, two = await stopped_with_one_under_way_and_one_that_waits(db, run, tmp_path / "images")
    assert one.state == "failed" and "restarted" in one.why, "nobody cancelled it"
    assert (two.state, two.step) == ("saving", "waiting")
    savers = savers_of(db, FakeSaver(tmp_path / "images"))
    assert (await until_over(savers, db, two.id)).state == "ready"
    await savers.close()


async def test_what_somebody_cancelled_stays_cancelled_though_the_service_ends(
    db: Database, run: str, tmp_path: Path
) -> None:
    begun = threading.Event()

    def work(task: Task) -> None:
        begun.set()
        task.stop.wait(20)
        task.check()

    savers = savers_of(db, FakeSaver(tmp_path / "images", work))
    image = await db.run(begin, run)
    await savers.tick()
    await asyncio.to_thread(begun.wait, 20)
    await db.run(
        lambda conn: conn.execute(
            update(saved_images).where(saved_images.c.id == image).values(cancel_asked_at=NOW)
        )
    )
    await savers.close()
    assert (await row(db, image)).state == "cancelled"


async def test_the_files_of_a_build_that_waited_when_the_service_was_stopped_are_there_for_the_next(
    db: Database, tmp_path: Path
) -> None:
    savers, builder = building(db, tmp_path)
    (builder.contexts / "a.tar").write_bytes(b"")
    savers._build_slots = asyncio.Semaphore(0)
    image = await db.run(order_of, "1", "a.tar")
    await savers.tick()
    await asyncio.sleep(0.05)
    closing = asyncio.create_task(savers.close())
    await asyncio.sleep(0.05)
    savers._build_slots.release()
    await closing
    assert (builder.contexts / "a.tar").exists()
    assert (await row(db, image)).state == "saving"


@pytest.mark.process
async def test_what_was_pushed_and_never_told_of_goes_from_the_registry(
    db: Database, run: str, registry: RegistryServer, tmp_path: Path
) -> None:
    savers, saver = real_savers(db, registry, tmp_path / "images")
    image = await pushed(saver, "1")
    lost = await db.run(begin, run, "1")  # killed between the push and the word of it
    await db.run(
        lambda conn: conn.execute(
            update(saved_images).where(saved_images.c.id == lost).values(step="placing")
        )
    )
    await savers.tick()
    assert (await row(db, lost)).state == "failed"
    assert not await is_there(saver, image)
    await savers.close()


@pytest.mark.process
async def test_what_was_pushed_and_never_told_of_stays_where_another_row_is_the_same_image(
    db: Database, run: str, registry: RegistryServer, tmp_path: Path
) -> None:
    savers, saver = real_savers(db, registry, tmp_path / "images")
    image = await pushed(saver, "1", "2")
    kept = await db.run(begin, run, "2")
    await db.run(finish, kept, image)
    lost = await db.run(begin, run, "1")
    await db.run(
        lambda conn: conn.execute(
            update(saved_images).where(saved_images.c.id == lost).values(step="placing")
        )
    )
    await savers.tick()
    assert (await row(db, lost)).state == "failed"
    assert await is_there(saver, image)
    await savers.close()


@pytest.mark.process
async def test_a_registry_that_is_away_when_the_service_begins_is_cleared_later(
    db: Database, run: str, registry: RegistryServer, tmp_path: Path
) -> None:
    savers, saver = real_savers(db, registry, tmp_path / "images")
    image = await pushed(saver, "1")
    lost = await db.run(begin, run, "1")
    await db.run(
        lambda conn: conn.execute(
            update(saved_images).where(saved_images.c.id == lost).values(step="pushing")
        )
    )
    registry.stop()
    await savers.tick()
    assert (await row(db, lost)).state == "failed"
    registry.start()
    await savers._clear()
    assert not await is_there(saver, image)
    await savers.close()
