"""An image is adapted by layers alone, from one real registry to another: with a name and password, or not at all."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import bcrypt
import pytest

from extensions.imagebuilder import guard
from extensions.imagebuilder.adapting import Adapter, Order
from extensions.imagebuilder.logins import KEPT_SECONDS, Login, Logins
from extensions.imagebuilder.looks import NODE_LABEL
from extensions.imagebuilder.names import ImageName, Pinned, name_space
from extensions.imagebuilder.registry.access import Credentials
from extensions.imagebuilder.registry.client import Registry
from extensions.imagebuilder.registry.manifests import Platform
from extensions.imagebuilder.saving import Place, Result, Task
from extensions.imagebuilder.sources import Sources
from extensions.imagebuilder.stock import Node
from extensions.imagebuilder.uploading import Uploader
from galilean.clock import utcnow
from galilean.errors import UserError
from tests.imagebuilder.layers import entry, layer
from tests.imagebuilder.packed import config, oci_files, tarred
from tests.imagebuilder.registry.server import RegistryServer

pytestmark = pytest.mark.process
HERE = Platform("linux", "amd64")
ADA = Credentials("ada", "hunter2-of-the-registry")
STOCK = (layer(entry("bin/sh", b"#!"), entry("etc/passwd", b"root:x:0:0:root:/root:/bin/sh\n")).getvalue(),)


class Site:
    """A registry of somebody's, and no Docker."""

    def __init__(self, server: RegistryServer, folder: Path, login: Credentials | None = None) -> None:
        self.place, self.directory = Place(server.address, login), folder / "work"

    def client(self) -> Registry:
        return Registry(self.place.address, self.place.credentials)

    async def fetch(self, task: Task, image: Pinned) -> None:
        """It needs to be on no machine."""

    async def forget(self, image: Pinned) -> None:
        """Nothing was fetched."""


class OverHTTP(Sources):
    """As the product asks, but that registries of tests have no certificates, and it sends passwords to none of these."""

    def open(self, name: str, login: Credentials | None) -> tuple[Registry, guard.Guard]:
        return Registry(f"http://{name}", login), guard.Guard(guard.Reachable.parse(()))


async def brought(site: Site, folder: Path, name: str, files: list[Any]) -> str:
    """An image in a registry."""
    path = folder / "in" / name_space("ada") / "01HAAAAAAAAAAAAAAAAAAAAAAA.tar"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(tarred(files))
    made = await Uploader(site, folder / "in", lambda: HERE, 1 << 30).upload(
        Task(utcnow), "ada", path.name, ImageName(name, "1")
    )
    return str(made.image)


class Ground:
    """Ours with the parts in it, and somebody's locked one with a stock image."""

    def __init__(self, folder: Path) -> None:
        users = folder / "htpasswd"
        hashed = bcrypt.hashpw(ADA.password.encode(), bcrypt.gensalt(4)).decode()
        users.write_text(f"{ADA.username}:{hashed}\n")
        self.folder, self.ours = folder, RegistryServer(folder / "ours")
        self.theirs = RegistryServer(folder / "theirs", {"htpasswd": {"realm": "test", "path": str(users)}})
        self.site, self.locked = Site(self.ours, folder), Site(self.theirs, folder, ADA)
        self.image = ""

    async def begin(self, **more: Any) -> None:
        parts, _ = oci_files((layer(entry("opt/galilean/bin/it", b"x")).getvalue(),))
        named = await brought(self.site, self.folder, "parts", parts)
        stock = config(STOCK, Labels={})
        self.image = await brought(self.locked, self.folder, "stock", oci_files(STOCK, stock, **more)[0])
        self.adapter = Adapter(self.site, named.partition("@")[0] + ":1", Node(), OverHTTP())  # type: ignore[arg-type]

    async def adapt(self, login: Login | None, task: Task | None = None) -> Result:
        order = Order(owner="ada", image=self.image, login=login)
        return await self.adapter.adapt(task or Task(utcnow), order, ImageName("mine", "1"))


@pytest.fixture
async def ground(tmp_path: Path) -> AsyncIterator[Ground]:
    made = Ground(tmp_path)
    for server in (made.ours, made.theirs):
        await asyncio.to_thread(server.start)
    await made.begin()
    yield made
    made.ours.stop()
    made.theirs.stop()


async def test_an_image_behind_a_name_and_password_is_adapted_and_they_stand_nowhere(ground: Ground) -> None:
    task = Task(utcnow)
    made = await ground.adapt(Login(ground.locked.place.name, ADA), task)
    async with ground.site.client() as registry:
        manifest, found = await registry.image(made.image.repository, made.image.digest, HERE)
    assert NODE_LABEL in found.labels and len(manifest.layers) == 3
    assert ADA.password not in task.log + str(made) + repr(Login("x", ADA))
    assert not [
        path
        for path in (*ground.ours.data.rglob("*"), *ground.site.directory.rglob("*"))
        if path.is_file() and ADA.password.encode() in path.read_bytes()
    ]


async def test_another_registrys_password_is_not_sent_and_it_is_said_that_it_refuses(ground: Ground) -> None:
    for login in (None, Login("registry.example.edu", ADA)):
        with pytest.raises(UserError) as refused:
            await ground.adapt(login)
        assert refused.value.reason == "registry-refused"
    assert not list(ground.site.directory.glob("*"))


async def test_layers_packed_by_zstd_are_refused_before_one_is_fetched(ground: Ground) -> None:
    """A registry keeps whatever its manifest says; nobody unpacks there."""
    async with ground.locked.client() as registry:
        path = Pinned.parse(ground.image).repository
        body, manifest = await registry.manifest(path, "1")
        anew = body.replace(b"tar+gzip", b"tar+zstd")
        digest = await registry.put_manifest(path, "2", anew, manifest.media_type)
    ground.image = f"{ground.locked.place.name}/{path}@{digest}"
    with pytest.raises(UserError) as refused:
        await ground.adapt(Login(ground.locked.place.name, ADA))
    assert refused.value.reason == "layer-zstd" and "skopeo" in str(refused.value)


def test_a_ticket_is_good_once_and_for_an_hour() -> None:
    now = [0.0]
    logins = Logins(lambda: now[0])
    login = Login("quay.io", ADA)
    first, second = logins.keep(login), logins.keep(login)
    assert logins.take(first) is login
    assert logins.take(first) is None and logins.take("") is None
    now[0] += KEPT_SECONDS
    assert logins.take(second) is None
    assert login.of("quay.io") is ADA and login.of("evil.example") is None
