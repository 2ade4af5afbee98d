"""What is at an address that somebody typed: by rules, and at a real registry; where nobody may go."""

from __future__ import annotations

import asyncio
import io
import ipaddress
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import bcrypt
import httpcore
import httpx
import pytest

from extensions.imagebuilder import keys, looks
from extensions.imagebuilder.entries import Actor, Viewer
from extensions.imagebuilder.guard import Forbidden, Guard, Resolve
from extensions.imagebuilder.keys import Seal
from extensions.imagebuilder.registry import manifests
from extensions.imagebuilder.registry.access import Credentials
from extensions.imagebuilder.registry.client import Registry
from extensions.imagebuilder.registry.manifests import Descriptor, digest_of
from galilean.clock import utcnow
from galilean.db import Database
from galilean.errors import UserError
from galilean.reachable import Reachable, is_public
from galilean.settings import Settings
from tests.imagebuilder.registry.server import RegistryServer, free_port

DIGEST = "sha256:" + "a" * 64


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("ubuntu", "docker.io/library/ubuntu:latest"),
        ("jupyter/scipy-notebook:2026-11-02", "docker.io/jupyter/scipy-notebook:2026-11-02"),
        ("docker://quay.io/a/b", "quay.io/a/b:latest"),
        ("Registry.Example.edu:5000/x/y:1", "registry.example.edu:5000/x/y:1"),
        ("localhost/x", "localhost/x:latest"),
        (f"quay.io/a/b:1@{DIGEST}", f"quay.io/a/b@{DIGEST}"),
        ("index.docker.io/ubuntu", "docker.io/library/ubuntu:latest"),
    ],
)
def test_an_address_is_understood_as_docker_does(text: str, found: str) -> None:
    assert str(looks.parse(text)) == found


@pytest.mark.parametrize(
    "text",
    [
        "", "/", "UPPER/Case", "a..b/../c", "quay.io/a/b:", "quay.io/a b", "user:password@quay.io/a", "a@sha256:12",
        "http://quay.io/a", "quay.io/a/b#x", "quay.io/a?x=1", "x" * 600, "a@md5:00", "quay.io:99999999/a",
    ],
)  # fmt: skip
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(UserError) as caught:
        looks.parse(text)
    assert caught.value.status == 400


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "127.9.9.9", "::1", "0.0.0.0", "10.0.0.1", "172.16.0.1", "192.168.1.1", "169.254.169.254",
        "100.64.0.1", "fe80::1", "fd00::1", "::ffff:127.0.0.1", "::ffff:10.1.1.1", "2002:7f00:1::", "224.0.0.1",
        "255.255.255.255", "::", "64:ff9b::7f00:1", "64:ff9b::a00:1", "198.18.0.1", "ff02::1", "240.0.0.1",
    ],
)  # fmt: skip
def test_addresses_that_are_not_of_the_internet(address: str) -> None:
    assert not is_public(ipaddress.ip_address(address))


@pytest.mark.parametrize("address", ["1.1.1.1", "93.184.216.34", "2606:4700:4700::1111"])
def test_addresses_of_the_internet(address: str) -> None:
    assert is_public(ipaddress.ip_address(address))


def resolver(*found: str) -> Resolve:
    async def resolve(host: str, port: int) -> Sequence[str]:
        return found

    return resolve


async def test_every_address_of_a_name_must_be_allowed() -> None:
    nothing = Reachable.parse(())
    assert await Guard(nothing, resolver("1.1.1.1")).addresses("a.example", 443) == ["1.1.1.1"]
    watch = Guard(nothing, resolver("1.1.1.1", "10.0.0.1"))
    with pytest.raises(Forbidden):
        await watch.addresses("a.example", 443)
    assert watch.refused == "a.example"
    listed = Reachable.parse(["10.0.0.0/8", "mine.example:5000"])
    assert await Guard(listed, resolver("10.0.0.1")).addresses("a.example", 443)
    assert await Guard(listed, resolver("192.168.0.1")).addresses("mine.example", 5000)
    with pytest.raises(Forbidden):
        await Guard(listed, resolver("192.168.0.1")).addresses("mine.example", 22)
    with pytest.raises(Forbidden):
        await Guard(listed, resolver("127.0.0.1")).addresses("localhost", 443)


async def test_a_name_that_answers_differently_the_second_time_gains_nothing() -> None:
    """The connection goes to the address that was checked, so there is no second answer to ask for."""
    asked: list[str] = []

    async def rebinding(host: str, port: int) -> Sequence[str]:
        asked.append(host)
        return ["1.1.1.1"] if len(asked) == 1 else ["127.0.0.1"]

    seen: list[str] = []
    watch = Guard(Reachable.parse(()), rebinding)
    transport: Any = watch.transport()

    async def connect_tcp(host: str, *_: Any, **__: Any) -> Any:
        seen.append(host)
        raise httpcore.ConnectError("far away")

    transport._pool._network_backend._real.connect_tcp = connect_tcp
    async with httpx.AsyncClient(transport=transport, trust_env=False) as client:
        for _ in range(2):
            with pytest.raises(httpx.ConnectError):
                await client.get("https://rebinding.example/v2/")
    assert seen == ["1.1.1.1"]


# ---- at a real registry


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RegistryServer]:
    found = RegistryServer(tmp_path)
    try:
        found.start()
        yield found
    finally:
        found.stop()


async def push(
    address: str, name: str, tag: str, *, credentials: Credentials | None = None, **start: Any
) -> str:
    """An image of one layer; ``start`` is its config's."""
    layer = b"layer"
    labels = {"Labels": {looks.NODE_LABEL: "/x"}} if start.pop("node", True) else {}
    platform = start.pop("platform", None) or {"os": "linux", "architecture": "amd64"}
    config = json.dumps(
        {
            **platform,
            "rootfs": {"type": "layers", "diff_ids": [digest_of(layer)]},
            "config": {**labels, **start},
        }
    ).encode()
    blobs = (
        Descriptor(manifests.OCI_CONFIG, digest_of(config), len(config)),
        Descriptor(manifests.LAYERS[0], digest_of(layer), len(layer)),
    )
    async with Registry(address, credentials) as registry:
        for blob, body in zip(blobs, (config, layer), strict=True):
            await registry.push_blob(name, blob, io.BytesIO(body))
        return await registry.put_manifest(
            name, tag, manifests.written(blobs[0], [blobs[1]]), manifests.OCI_MANIFEST
        )


def settings(server: RegistryServer, *, listed: bool = True) -> Settings:
    host = server.address.removeprefix("http://")
    return Settings.model_validate(
        {
            "backend": "docker",
            "docker": {"image": "n:1"},
            "images": {
                "plain_http": [host],
                "reachable": [host] if listed else [],
                "platform": "linux/amd64",
            },
        }
    )


@pytest.mark.process
async def test_a_tag_is_resolved_to_its_digest_and_what_it_says_of_its_start_is_told(
    server: RegistryServer,
) -> None:
    host = server.address.removeprefix("http://")
    digest = await push(
        server.address,
        "site/tools",
        "1",
        User="root",
        Entrypoint=["/init"],
        Volumes={"/data": {}},
        OnBuild=["RUN x"],
    )
    found = await looks.look(settings(server), f"{host}/site/tools:1")
    assert str(found.image) == f"{host}/site/tools@{digest}"
    assert (found.layers, found.platform, found.reference.tag) == (1, "linux/amd64", "1")
    text = " ".join(UserError(400, one["message"], **one["params"]).text() for one in found.told)
    assert all(word in text for word in ("USER root", "ENTRYPOINT /init", "VOLUME /data", "ONBUILD"))
    await push(server.address, "site/tools", "1", User="1000")
    again = await looks.look(settings(server), f"{host}/site/tools@{digest}")
    assert again.image == found.image, "a moved tag moves nothing that was kept"


@pytest.mark.process
async def test_what_could_never_answer_or_run_here_is_refused(server: RegistryServer) -> None:
    host = server.address.removeprefix("http://")
    await push(server.address, "site/node", "1", Labels={"galilean.io/instance": "galilean"})
    await push(server.address, "site/arm", "1", platform={"os": "linux", "architecture": "arm64"})
    for name, reason in (
        ("site/node:1", "image-labels"),
        ("site/arm:1", "image-platform"),
        ("site/none:1", "registry-missing"),
    ):
        with pytest.raises(UserError) as caught:
            await looks.look(settings(server), f"{host}/{name}")
        assert caught.value.reason == reason


@pytest.mark.process
async def test_an_image_that_was_not_made_for_nodes_is_known_as_one(server: RegistryServer) -> None:
    host = server.address.removeprefix("http://")
    await push(server.address, "site/plain", "1", node=False, User="1000")
    await push(server.address, "site/tools", "1", User="1000")
    assert looks.is_stock((await looks.look(settings(server), f"{host}/site/plain:1")).told)
    assert not looks.is_stock((await looks.look(settings(server), f"{host}/site/tools:1")).told)


@pytest.mark.process
async def test_an_address_of_this_machine_is_not_asked_unless_it_is_listed(server: RegistryServer) -> None:
    await push(server.address, "site/tools", "1")
    host = server.address.removeprefix("http://")
    with pytest.raises(UserError) as caught:
        await looks.look(settings(server, listed=False), f"{host}/site/tools:1")
    assert caught.value.reason == "registry-private"
    assert host.partition(":")[0] in caught.value.text()


@pytest.mark.process
async def test_a_registry_cannot_send_us_to_addresses_that_are_not_listed(server: RegistryServer) -> None:
    """It names a place for tokens on this machine: the connection is refused before a byte is sent."""
    port, asked = free_port(), []

    async def listening(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.read(100))
        writer.close()

    victim = await asyncio.start_server(listening, "127.0.0.1", port)
    evil_port = free_port()

    async def evil(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(
            f'HTTP/1.1 401 No\r\nWWW-Authenticate: Bearer realm="http://localhost:{port}/token"\r\n'
            "Content-Length: 0\r\nConnection: close\r\n\r\n".encode()
        )
        await writer.drain()
        writer.close()

    registry = await asyncio.start_server(evil, "127.0.0.1", evil_port)
    host = f"127.0.0.1:{evil_port}"
    site = Settings.model_validate(
        {
            "backend": "docker",
            "docker": {"image": "n:1"},
            "images": {"plain_http": [host], "reachable": [host], "platform": "linux/amd64"},
        }
    )
    async with victim, registry:
        with pytest.raises(UserError) as caught:
            await looks.look(site, f"{host}/x:1")
    assert asked == []
    assert caught.value.reason in ("registry-private", "registry-away")


async def test_passwords_are_not_sent_where_there_is_no_tls() -> None:
    site = Settings.model_validate(
        {"backend": "docker", "docker": {"image": "n:1"}, "images": {"plain_http": ["r.example:5000"]}}
    )
    with pytest.raises(UserError, match="without TLS"):
        await looks.look(site, "r.example:5000/x:1", Credentials("ada", "secret"))


# ---- names and passwords


def test_what_is_sealed_is_opened_with_the_same_secret_alone(sqlite_db: Database) -> None:
    ada, root = Viewer(name="ada"), Viewer(name="root", manages=True)
    seal, actor = Seal("x" * 64), Actor(name="ada")
    with sqlite_db.write() as conn:
        kept = keys.keep(
            conn,
            seal,
            actor=actor,
            owner="ada",
            registry="quay.io",
            credentials=Credentials("ada", "hunter2"),
            now=utcnow(),
        )
        assert keys.opened(conn, seal, kept.id) == Credentials("ada", "hunter2")
        with pytest.raises(UserError) as caught:
            keys.opened(conn, Seal("y" * 64), kept.id)
        assert caught.value.reason == "key-unreadable"
        with pytest.raises(UserError):
            keys.opened(conn, seal, kept.id, viewer=root)
        assert keys.opened(conn, seal, kept.id, viewer=ada).password == "hunter2"
        again = keys.keep(
            conn,
            seal,
            actor=actor,
            owner="ada",
            registry="quay.io",
            credentials=Credentials("ada", "new"),
            now=utcnow(),
        )
        assert again.id == kept.id, "entries go on with the new password"
        rows = str(conn.exec_driver_sql("SELECT * FROM registry_keys").all())
        assert "new" not in rows.replace("'quay.io'", "")
        assert "hunter2" not in repr(Credentials("ada", "hunter2"))
        keys.forget(conn, kept.id, viewer=ada, actor=actor, now=utcnow())
        with pytest.raises(UserError) as caught:
            keys.opened(conn, seal, kept.id)
        assert caught.value.reason == "key-unknown"


@pytest.mark.process
async def test_a_locked_registry_lets_us_look_with_its_password_alone(tmp_path: Path) -> None:
    users = tmp_path / "htpasswd"
    users.write_text(_bcrypt("ada", "hunter2"))
    server = RegistryServer(tmp_path, auth={"htpasswd": {"realm": "test", "path": str(users)}})
    try:
        server.start()
        digest = await push(server.address, "site/locked", "1", credentials=Credentials("ada", "hunter2"))
        # Over http here, which the product never does: the question is what the registry says.
        async with Registry(server.address, Credentials("ada", "hunter2")) as registry:
            manifest, config = await registry.image("site/locked", "1", looks.Platform("linux", "amd64"))
        assert manifest.digest == digest
        assert looks.judge(looks.parse(f"r.example/site/locked@{digest}"), manifest, config).layers == 1
        with pytest.raises(UserError) as caught:
            await looks.look(settings(server), f"{server.address.removeprefix('http://')}/site/locked:1")
        assert caught.value.reason == "registry-refused"
    finally:
        server.stop()


def _bcrypt(name: str, password: str) -> str:
    return f"{name}:{bcrypt.hashpw(password.encode(), bcrypt.gensalt(4)).decode()}\n"
