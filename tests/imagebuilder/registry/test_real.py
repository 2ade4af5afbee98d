"""The client against a real registry: whole, cut, away, full, locked."""

from __future__ import annotations

import asyncio
import io
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from extensions.imagebuilder.registry import manifests
from extensions.imagebuilder.registry.access import Credentials
from extensions.imagebuilder.registry.client import Registry
from extensions.imagebuilder.registry.manifests import Descriptor, Platform, digest_of
from galilean.errors import UserError
from tests.imagebuilder.registry.server import RegistryServer, Way, free_port

pytestmark = pytest.mark.process
HERE = Platform("linux", "amd64")
CHUNK = 256 * 1024
BODY = os.urandom(4 * CHUNK + 17)


async def at_once(_: float) -> None:
    """Instead of a pause."""


def blob_of(body: bytes, media_type: str = manifests.LAYERS[1]) -> Descriptor:
    return Descriptor(media_type, digest_of(body), len(body))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RegistryServer]:
    found = RegistryServer(tmp_path_factory.mktemp("registry"))
    try:
        found.start()
        yield found
    finally:
        found.stop()


def client(address: str, credentials: Credentials | None = None) -> Registry:
    return Registry(address, credentials, chunk_bytes=CHUNK, wait=at_once)


async def pull(registry: Registry, repository: str, blob: Descriptor) -> bytes:
    file = io.BytesIO()
    await registry.pull_blob(repository, blob, file)
    return file.getvalue()


async def push_image(registry: Registry, repository: str, tag: str, layer: bytes = BODY) -> str:
    config = json.dumps(
        {"os": "linux", "architecture": "amd64", "rootfs": {"type": "layers", "diff_ids": [digest_of(layer)]}}
    ).encode()
    for body in (config, layer):
        await registry.push_blob(repository, blob_of(body), io.BytesIO(body))
    body = manifests.written(blob_of(config, manifests.OCI_CONFIG), [blob_of(layer)])
    return await registry.put_manifest(repository, tag, body, manifests.OCI_MANIFEST)


async def test_a_blob_goes_in_chunks_is_not_sent_twice_and_comes_back_as_it_was(
    server: RegistryServer,
) -> None:
    seen: list[int] = []
    async with client(server.address) as registry:
        await registry.ping()
        assert await registry.blob_size("a/whole", digest_of(BODY)) is None
        assert (
            await registry.push_blob("a/whole", blob_of(BODY), io.BytesIO(BODY), progress=seen.append)
            == "sent"
        )
        assert seen == [0, CHUNK, 2 * CHUNK, 3 * CHUNK, 4 * CHUNK, len(BODY)]
        assert await registry.push_blob("a/whole", blob_of(BODY), io.BytesIO(b"")) == "present"
        assert await pull(registry, "a/whole", blob_of(BODY)) == BODY
        assert await registry.push_blob("a/whole", blob_of(b""), io.BytesIO(b"")) == "sent"
        assert await registry.push_blob("a/whole", blob_of(b"1"), io.BytesIO(b"1")) == "sent"


async def test_a_blob_of_another_repository_is_mounted(server: RegistryServer) -> None:
    body = os.urandom(1000)
    async with client(server.address) as registry:
        await registry.push_blob("a/base", blob_of(body), io.BytesIO(body))
        # The file is empty: it is not read.
        assert (
            await registry.push_blob("b/derived", blob_of(body), io.BytesIO(b""), mount_from="a/base")
            == "mounted"
        )
        assert await pull(registry, "b/derived", blob_of(body)) == body
        other = os.urandom(1000)
        assert (
            await registry.push_blob("b/derived", blob_of(other), io.BytesIO(other), mount_from="a/base")
            == "sent"
        )


async def test_an_image_is_named_found_listed_and_deleted(server: RegistryServer) -> None:
    async with client(server.address) as registry:
        assert await registry.tags("a/image") == []
        for number in range(5):
            digest = await push_image(registry, "a/image", f"v{number}")
        assert sorted(await registry.tags("a/image", page=2)) == [f"v{number}" for number in range(5)]
        manifest, config = await registry.image("a/image", "v3", HERE)
        assert (manifest.digest, config.platform) == (digest, HERE)
        with pytest.raises(UserError) as caught:
            await registry.image("a/image", "v3", Platform("linux", "arm64"))
        assert caught.value.reason == "image-platform"
        assert await registry.delete_manifest("a/image", digest) is True
        assert await registry.delete_manifest("a/image", digest) is False
        with pytest.raises(UserError) as caught:
            await registry.manifest("a/image", "v3")
        assert caught.value.reason == "registry-missing"


async def test_a_manifest_whose_blobs_are_missing_is_not_taken(server: RegistryServer) -> None:
    body = manifests.written(blob_of(b"no config"), [blob_of(b"no layer")])
    async with client(server.address) as registry:
        with pytest.raises(UserError):
            await registry.put_manifest("a/missing", "v1", body, manifests.OCI_MANIFEST)
        assert await registry.tags("a/missing") == []


@pytest.mark.parametrize("place", [CHUNK + CHUNK // 2, 2 * CHUNK + 600], ids=["in a chunk", "near a border"])
async def test_an_upload_that_was_cut_arrives_whole(server: RegistryServer, place: int) -> None:
    body = os.urandom(4 * CHUNK)
    async with Way(server.port) as way, client(way.address) as registry:
        way.cut_after = place
        assert await registry.push_blob("a/cut", blob_of(body), io.BytesIO(body)) == "sent"
        assert way.cuts == 1
        assert await pull(registry, "a/cut", blob_of(body)) == body


async def test_an_upload_goes_on_where_it_was_when_the_registry_comes_back(tmp_path: Path) -> None:
    server = RegistryServer(tmp_path)
    server.start()
    seen: list[int] = []

    def kill_once(sent: int) -> None:
        seen.append(sent)
        if len(seen) == 3:
            server.stop()

    async def come_back(_: float) -> None:
        await asyncio.to_thread(server.start)

    try:
        async with Registry(server.address, chunk_bytes=CHUNK, wait=come_back) as registry:
            assert (
                await registry.push_blob("a/b", blob_of(BODY), io.BytesIO(BODY), progress=kill_once) == "sent"
            )
            assert await pull(registry, "a/b", blob_of(BODY)) == BODY
        assert seen == [0, CHUNK, 2 * CHUNK, 2 * CHUNK, 3 * CHUNK, 4 * CHUNK, len(BODY)]
    finally:
        server.stop()


async def test_a_registry_that_is_away_is_said_so() -> None:
    async with client(f"http://127.0.0.1:{free_port()}") as registry:
        with pytest.raises(UserError) as caught:
            await registry.push_blob("a/b", blob_of(BODY), io.BytesIO(BODY))
    assert (caught.value.status, caught.value.reason) == (503, "registry-away")


async def test_who_cancels_leaves_nothing_half_sent(server: RegistryServer) -> None:
    body = os.urandom(3 * CHUNK)
    before = server.half_sent()
    async with client(server.address) as registry:
        reached = asyncio.Event()

        def progress(sent: int) -> None:
            if sent == CHUNK:
                reached.set()
                task.cancel()

        task = asyncio.create_task(
            registry.push_blob("a/cancelled", blob_of(body), io.BytesIO(body), progress=progress)
        )
        with pytest.raises(asyncio.CancelledError):
            await task
        assert reached.is_set()
        assert await registry.blob_size("a/cancelled", digest_of(body)) is None
    assert [path for path in server.half_sent() if path not in before and "cancelled" in str(path)] == []


async def test_a_file_that_changes_while_it_is_sent_is_not_taken(server: RegistryServer) -> None:
    body = os.urandom(CHUNK)
    async with client(server.address) as registry:
        for other in (body[:-1] + b"?", body[:-1]):
            with pytest.raises(UserError) as caught:
                await registry.push_blob("a/changed", blob_of(body + b"!"), io.BytesIO(other + b"!"))
            assert caught.value.reason == "registry-changed"
    assert not [path for path in server.half_sent() if "changed" in str(path)]


@pytest.fixture
def small(tmp_path: Path) -> Iterator[RegistryServer]:
    """A registry with 4 MiB of room."""
    found = RegistryServer(tmp_path)
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "none", found.data], check=False)
    if done.returncode:
        pytest.skip("a full disk of the test's own needs the right to mount")
    try:
        found.start()
        yield found
    finally:
        found.stop()
        subprocess.run(["umount", found.data], check=True)


async def test_a_full_registry_is_said_to_be_full(small: RegistryServer) -> None:
    body = os.urandom(6 * 1024**2)
    async with client(small.address) as registry:
        with pytest.raises(UserError) as caught:
            await registry.push_blob("a/full", blob_of(body), io.BytesIO(body))
        assert (caught.value.status, caught.value.reason) == (507, "registry-full")
        assert await registry.blob_size("a/full", digest_of(body)) is None


async def test_a_locked_registry_opens_to_a_name_and_a_password_only(tmp_path: Path) -> None:
    #: "right" by bcrypt, as docker-registry asks for.
    users = tmp_path / "htpasswd"
    users.write_text("galilean:$2b$05$LoowfAkdyqUkg3qO6UKCL.XGDLeu7nrh0Co9BATp0iQiGcY3Cd./i\n")
    server = RegistryServer(tmp_path, auth={"htpasswd": {"realm": "test", "path": str(users)}})
    server.start()
    try:
        for credentials in (None, Credentials("galilean", "wrong")):
            async with client(server.address, credentials) as registry:
                with pytest.raises(UserError) as caught:
                    await registry.ping()
                assert caught.value.reason == "registry-refused"
        async with client(server.address, Credentials("galilean", "right")) as registry:
            await push_image(registry, "a/locked", "v1")
            assert await registry.tags("a/locked") == ["v1"]
    finally:
        server.stop()
