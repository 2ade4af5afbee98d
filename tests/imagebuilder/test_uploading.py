"""An archive into a real registry: whole, or nothing of it."""

from __future__ import annotations

import asyncio
import gzip
import os
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest

from extensions.imagebuilder import uploading
from extensions.imagebuilder.container import GivenUp
from extensions.imagebuilder.names import ImageName, Pinned, name_space
from extensions.imagebuilder.registry.client import Registry
from extensions.imagebuilder.registry.manifests import Manifest, Platform
from extensions.imagebuilder.saving import Place, Result, Task
from extensions.imagebuilder.uploading import FOLDER, Uploader
from galilean import disk_reserve
from galilean.clock import utcnow
from galilean.errors import UserError
from tests.imagebuilder.packed import LAYERS, config, docker_files, oci_files, tarred
from tests.imagebuilder.registry.server import RegistryServer

pytestmark = pytest.mark.process
ARCHIVE = "01HAAAAAAAAAAAAAAAAAAAAAAA.tar"
NAME = ImageName("tools", "1")


class Machine:
    """A registry and a machine that fetches, or not, as a test says."""

    def __init__(self, address: str, directory: Path) -> None:
        self.place = Place(address)
        self.directory = directory / "images"
        self.fetched: list[Pinned] = []
        self.refuses: UserError | None = None

    def client(self) -> Registry:
        return Registry(self.place.address)

    async def fetch(self, task: Task, image: Pinned) -> None:
        if self.refuses:
            raise self.refuses
        self.fetched.append(image)

    async def forget(self, image: Pinned) -> None:
        async with self.client() as registry:
            await registry.delete_manifest(image.repository, image.digest)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RegistryServer]:
    found = RegistryServer(tmp_path / "registry")
    found.start()
    yield found
    found.stop()


@pytest.fixture
def machine(server: RegistryServer, tmp_path: Path) -> Iterator[Machine]:
    found = Machine(server.address, tmp_path)
    yield found
    assert not list(found.directory.glob("*")), "what was on its way is still there"


def put(state: Path, packed: bytes, owner: str = "ada") -> Path:
    path = state / FOLDER / name_space(owner) / ARCHIVE
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(packed)
    return path


def uploader(machine: Machine, state: Path, most_bytes: int = 1 << 30) -> Uploader:
    return Uploader(machine, state / FOLDER, lambda: Platform("linux", "amd64"), most_bytes)


def go(machine: Machine, state: Path, task: Task | None = None, *, most_bytes: int = 1 << 30) -> Result:
    return asyncio.run(
        uploader(machine, state, most_bytes).upload(task or Task(utcnow), "ada", ARCHIVE, NAME)
    )


def tags(server: RegistryServer) -> list[str]:
    answer = httpx.get(f"{server.address}/v2/people/ada/tools/tags/list", trust_env=False)
    return answer.json().get("tags") or [] if answer.status_code == 200 else []


async def manifest_of(machine: Machine, image: Pinned) -> Manifest:
    async with machine.client() as registry:
        _, found = await registry.manifest(image.repository, image.digest)
    assert isinstance(found, Manifest)
    return found


@pytest.mark.parametrize("around", [False, True])
def test_an_archive_of_docker_save_becomes_an_image_by_digest(
    server: RegistryServer, machine: Machine, tmp_path: Path, around: bool
) -> None:
    packed = tarred(docker_files(document=config(User="root", Volumes={"/data": {}}, OnBuild=["RUN x"])))
    put(tmp_path, gzip.compress(packed) if around else packed)
    task = Task(utcnow)
    made = go(machine, tmp_path, task)
    assert machine.fetched == [made.image]
    assert (made.layers, made.platform, made.image.repository) == (2, "linux/amd64", "people/ada/tools")
    assert {str(one["message"]).split()[0] for one in made.changes["told"]} == {"USER", "VOLUME", "ONBUILD:"}
    assert tags(server) == ["1"]
    found = asyncio.run(manifest_of(machine, made.image))
    assert all(layer.media_type.endswith("+gzip") for layer in found.layers)
    assert made.changes["packed_bytes"] == sum(layer.size_bytes for layer in found.layers)


def test_an_oci_archive_keeps_its_digest_in_the_registry(machine: Machine, tmp_path: Path) -> None:
    files, digest = oci_files()
    put(tmp_path, tarred(files))
    assert go(machine, tmp_path).image.digest == digest


def test_a_layer_that_is_there_twice_is_sent_once(machine: Machine, tmp_path: Path) -> None:
    put(tmp_path, tarred(docker_files((LAYERS[0], LAYERS[0]))))
    made = go(machine, tmp_path)
    (layer,) = set(asyncio.run(manifest_of(machine, made.image)).layers)
    assert made.changes["packed_bytes"] == layer.size_bytes


def test_what_was_packed_comes_back_byte_by_byte(
    server: RegistryServer, machine: Machine, tmp_path: Path
) -> None:
    put(tmp_path, tarred(docker_files()))
    found = asyncio.run(manifest_of(machine, go(machine, tmp_path).image))
    address = f"{server.address}/v2/people/ada/tools/blobs/"
    got = [gzip.decompress(httpx.get(address + one.digest, trust_env=False).content) for one in found.layers]
    assert tuple(got) == LAYERS


def test_an_image_that_would_be_taken_for_a_node_is_not_taken(
    server: RegistryServer, machine: Machine, tmp_path: Path
) -> None:
    put(tmp_path, tarred(docker_files(document=config(Labels={"galilean.io/reads": "x"}))))
    with pytest.raises(UserError) as refused:
        go(machine, tmp_path)
    assert refused.value.reason == "image-labels"
    assert tags(server) == []


def test_a_machine_that_cannot_have_it_leaves_nothing_of_it(
    server: RegistryServer, machine: Machine, tmp_path: Path
) -> None:
    put(tmp_path, tarred(docker_files()))
    machine.refuses = UserError(507, "full", reason="registry-full")
    with pytest.raises(UserError):
        go(machine, tmp_path)
    assert tags(server) == []


def test_a_registry_that_goes_away_leaves_no_name(
    server: RegistryServer, machine: Machine, tmp_path: Path
) -> None:
    put(tmp_path, tarred(docker_files()))
    server.stop()

    async def at_once(_: float) -> None:
        pass

    machine.client = lambda: Registry(server.address, wait=at_once)  # type: ignore[method-assign]
    with pytest.raises(UserError) as refused:
        go(machine, tmp_path)
    assert refused.value.reason == "registry-away"
    server.start()
    assert tags(server) == []


@pytest.mark.parametrize("step", uploading.STEPS[:2])
def test_it_can_be_cancelled_at_every_step(
    server: RegistryServer, machine: Machine, tmp_path: Path, step: str
) -> None:
    put(tmp_path, tarred(docker_files()))

    class Stopping(Task):
        def begin(self, name: str, total_bytes: int | None = None) -> None:
            super().begin(name, total_bytes)
            if name == step:
                self.stop.set()

    with pytest.raises(GivenUp):
        go(machine, tmp_path, Stopping(utcnow))
    assert tags(server) == []
    assert not server.half_sent()


def test_more_than_may_be_uploaded_is_refused_also_when_it_is_packed(
    machine: Machine, tmp_path: Path
) -> None:
    packed = tarred(docker_files((bytes(LAYERS[0]) + b"\0" * 10_000_000,)))
    for content in (packed, gzip.compress(packed)):
        put(tmp_path, content)
        with pytest.raises(UserError) as refused:
            go(machine, tmp_path, most_bytes=1 << 20)
        assert refused.value.status == 413


@pytest.mark.parametrize("name", ["../secret.tar", "x", "01HAAAAAAAAAAAAAAAAAAAAAAA", "", "/etc/passwd"])
def test_a_row_that_names_anything_else_opens_nothing(machine: Machine, tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError) as refused:
        asyncio.run(uploader(machine, tmp_path).upload(Task(utcnow), "ada", name, NAME))
    assert refused.value.reason == "archive-gone"


def test_an_archive_is_only_its_owners(machine: Machine, tmp_path: Path) -> None:
    put(tmp_path, tarred(docker_files()), owner="eve")
    with pytest.raises(UserError) as refused:
        go(machine, tmp_path)
    assert refused.value.reason == "archive-gone"


def test_archives_that_nobody_takes_up_go_after_an_hour(machine: Machine, tmp_path: Path) -> None:
    path, now = put(tmp_path, b"x"), datetime(2026, 3, 1, 12, tzinfo=UTC)
    os.utime(path, (now.timestamp(), now.timestamp()))
    both = uploader(machine, tmp_path)
    assert both.sweep(set(), now + timedelta(minutes=50)) == 0
    assert both.sweep({("ada", ARCHIVE)}, now + timedelta(hours=2)) == 0
    assert both.sweep(set(), now + timedelta(hours=2)) == 1
    assert not path.exists()


def test_a_bomb_is_ended_while_the_reserve_of_the_disk_is_still_free(
    server: RegistryServer, machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = 200 << 20
    before = disk_reserve.free_bytes

    def left(folder: Path) -> int:
        written = sum(path.stat().st_size for path in machine.directory.rglob("whole.tar"))
        return min(before(folder), max(0, free - written))

    monkeypatch.setattr(disk_reserve, "free_bytes", left)
    put(tmp_path, gzip.compress(bytes(512 << 20), 1))
    with pytest.raises(UserError) as refused:
        go(machine, tmp_path, most_bytes=4 << 30)
    assert (refused.value.status, refused.value.reason) == (507, "disk-full")
    assert tags(server) == []
