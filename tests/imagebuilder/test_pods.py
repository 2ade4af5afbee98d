"""Saving a pod: whom Kubernetes says it is, an agent that makes the layer, and a real registry that gets it."""

from __future__ import annotations

import asyncio
import base64
import gzip
import hashlib
import io
import json
import shutil
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from extensions.imagebuilder.container import GivenUp, Wanted
from extensions.imagebuilder.names import ImageName
from extensions.imagebuilder.pods import PodSaver, Sources, agent_on, keys_in, login_in, pod_of
from extensions.imagebuilder.registry import manifests
from extensions.imagebuilder.registry.client import Registry
from extensions.imagebuilder.registry.manifests import Descriptor
from extensions.imagebuilder.saving import GZIP_LAYER, Place, Task
from galilean.clock import utcnow
from galilean.errors import UserError
from spawner.kubernetes import names
from tests.imagebuilder.registry.server import RegistryServer
from tests.imagebuilder.test_agent import CONTAINER, KEY, WANTED, Machine
from tests.imagebuilder.test_agent import machine as machine

pytestmark = pytest.mark.process
BASE = names.base_name("ada", "x")
COOKIE = bytes(range(200, 232))


def pod(image: str = "", **more: Any) -> dict[str, Any]:
    return {
        "metadata": {
            "name": names.pod_name(BASE, 0),
            "labels": {names.RUN: "01RUN"},
            "annotations": {names.USER: "ada", names.SERVER: "x"},
            **more.pop("metadata", {}),
        },
        "spec": {"nodeName": "m1", "containers": [{"name": "notebook"}, {"name": "beside"}]},
        "status": {
            "containerStatuses": [
                {"name": "beside", "containerID": "containerd://" + "b" * 64, "state": {"running": {}}},
                {
                    "name": "notebook",
                    "containerID": f"containerd://{CONTAINER}",
                    "imageID": image,
                    "state": {"running": {}},
                    **more,
                },
            ]
        },
    }


AGENT: dict[str, Any] = {
    "metadata": {"name": "agent-1"},
    "spec": {"nodeName": "m1"},
    "status": {"podIP": "10.0.0.7", "conditions": [{"type": "Ready", "status": "True"}]},
}
SECRET: dict[str, Any] = {
    "metadata": {"name": BASE, "labels": {names.RUN: "01RUN"}},
    "data": {
        "token": base64.b64encode(b"0123456789abcdef" * 2).decode(),
        "cookie_secret": base64.b64encode(COOKIE).decode(),
        "id_ed25519": base64.b64encode(b"-----BEGIN X-----\nAAAABBBB\nCCCCDDDD\n-----END X-----\n").decode(),
        "known_hosts": base64.b64encode(b"node-* ssh-ed25519 AAAA and more of it").decode(),
        ".dockerconfigjson": base64.b64encode(
            b'{"auths": {"https://index.docker.io/v1/": {"username": "u", "password": "p"}}}'
        ).decode(),
    },
}


def test_the_container_is_the_nodes_own_and_no_others_beside_it() -> None:
    found = pod_of([pod("docker-pullable://r.example/site/jupyter@sha256:" + "1" * 64)], WANTED)
    assert (found.container, found.machine) == (CONTAINER, "m1")
    assert found.image == "r.example/site/jupyter@sha256:" + "1" * 64
    assert pod_of([pod("sha256:" + "1" * 64)], WANTED).image == ""


DIGEST = "sha256:" + "a" * 64


@pytest.mark.parametrize(
    ("asked", "told", "image"),
    [
        # A machine that has it from a registry which is gone.
        (f"r.example:5000/site/jupyter@{DIGEST}", f"10.0.0.9:4000/x@{DIGEST}", f"r.example:5000/site/jupyter@{DIGEST}"),
        (f"r.example/jupyter:1@{DIGEST}", f"gone.example/x@{DIGEST}", f"r.example/jupyter@{DIGEST}"),
        ("r.example/jupyter:1", f"r.example/jupyter@{DIGEST}", f"r.example/jupyter@{DIGEST}"),
        (f"jupyter/base@{DIGEST}", f"docker.io/jupyter/base@{DIGEST}", f"docker.io/jupyter/base@{DIGEST}"),
        ("localhost/made-here:1", "sha256:" + "c" * 64, ""),
    ],
)  # fmt: skip
def test_an_image_is_where_it_was_asked_for(asked: str, told: str, image: str) -> None:
    there = pod(told)
    there["spec"]["containers"][0]["image"] = asked
    assert pod_of([there], WANTED).image == image


@pytest.mark.parametrize(
    "wanted",
    [Wanted("eve", "x", "01RUN", 0), Wanted("ada", "x", "01OTHER", 0), Wanted("ada", "x", "01RUN", 1)],
)
def test_somebody_elses_and_what_does_not_run_is_nobodys(wanted: Wanted) -> None:
    with pytest.raises(UserError) as refused:
        pod_of([pod()], wanted)
    assert refused.value.reason == "node-gone"
    over = [
        pod(state={"terminated": {}}),
        pod(containerID="cri-o://" + "c" * 64),
        pod(metadata={"deletionTimestamp": "now"}),
    ]
    for one in over:
        with pytest.raises(UserError):
            pod_of([one], WANTED)


def test_the_machines_own_agent_is_asked_and_only_one_that_is_ready() -> None:
    assert agent_on([AGENT], "m1") == "http://10.0.0.7:8090"
    tired = {**AGENT, "status": {**AGENT["status"], "conditions": [{"type": "Ready", "status": "False"}]}}
    for agents, where, why in (
        ([AGENT], "m2", (501, "no-agent")),
        ([], "m1", (501, "no-agent")),
        ([tired], "m1", (503, "agent-away")),  # just started: asked again it may be there
    ):
        with pytest.raises(UserError) as refused:
            agent_on(agents, where)
        assert (refused.value.status, refused.value.reason) == why


def test_keys_are_what_is_secret_and_a_login_is_the_registrys_own() -> None:
    assert keys_in(SECRET) == {
        "token": b"0123456789abcdef" * 2,
        "cookie_secret": COOKIE,
        "id_ed25519": b"AAAABBBBCCCCDDDD",
    }
    login = login_in(SECRET, "docker.io")
    assert login is not None and (login.username, login.password) == ("u", "p")
    assert login_in(SECRET, "r.example") is None
    assert login_in({"data": {".dockerconfigjson": "bm9uc2Vuc2U="}}, "docker.io") is None


# --------------------------------------------------------------------------------------------- with a real registry


class Cluster:
    """A namespace in memory."""

    namespace = "centre"

    def __init__(self, **kinds: list[dict[str, Any]]) -> None:
        self.kinds = kinds

    async def list(self, kind: str, selector: str, **_: Any) -> tuple[list[dict[str, Any]], str]:
        assert selector
        assert kind != "Secret", "the image service lists no Secrets"
        return self.kinds.get(kind, []), "1"

    async def get(self, kind: str, name: str) -> dict[str, Any] | None:
        return next((one for one in self.kinds.get(kind, []) if one["metadata"]["name"] == name), None)


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[RegistryServer]:
    if not shutil.which("docker-registry"):
        pytest.skip("docker-registry is missing")
    server = RegistryServer(tmp_path / "registry")
    server.start()
    yield server
    server.stop()


async def parent(registry: RegistryServer, path: str = "site/jupyter") -> str:
    """An image of one small layer; its name by digest."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as made:
        entry = tarfile.TarInfo("home/jovyan/old")
        entry.size = 3
        made.addfile(entry, io.BytesIO(b"old"))
    plain = out.getvalue()
    packed = gzip.compress(plain, mtime=0)
    config = json.dumps(
        {
            "architecture": "amd64",
            "os": "linux",
            "config": {"Env": ["A=1"]},
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(plain).hexdigest()}"]},
        }
    ).encode()
    layer = Descriptor(GZIP_LAYER, manifests.digest_of(packed), len(packed))
    about = Descriptor(manifests.OCI_CONFIG, manifests.digest_of(config), len(config))
    async with Registry(registry.address) as client:
        await client.push_blob(path, layer, io.BytesIO(packed))
        await client.push_blob(path, about, io.BytesIO(config))
        document = manifests.written(about, [layer])
        digest = await client.put_manifest(path, "1", document, manifests.OCI_MANIFEST)
    return f"{registry.address.removeprefix('http://')}/{path}@{digest}"


def saver_of(machine: Machine, registry: RegistryServer, image: str, **more: Any) -> PodSaver:
    def client(**given: Any) -> httpx.AsyncClient:
        assert given["base_url"] == "http://10.0.0.7:8090"
        return httpx.AsyncClient(**{**given, "base_url": machine.client.base_url})

    nodes, agents = Cluster(Pod=[pod(image)], Secret=[SECRET]), Cluster(Pod=[AGENT])
    return PodSaver(
        nodes,  # type: ignore[arg-type]
        agents,  # type: ignore[arg-type]
        more.pop("key", KEY),
        Place(registry.address),
        machine.root.parents[2] / "images",
        client=client,
        **more,
    )


def nothing_is_left(machine: Machine, registry: RegistryServer) -> None:
    assert not list((machine.root.parents[2] / "images").iterdir())
    assert not machine.agent.jobs
    assert not machine.held
    assert not list(registry.data.rglob("people/*/tools/_manifests/tags/*"))


async def test_an_image_of_a_pod_is_the_parents_with_one_layer_more(
    machine: Machine, registry: RegistryServer
) -> None:
    image = await parent(registry)
    (machine.root / "home/jovyan/new").write_text("new")
    saver, task = saver_of(machine, registry, image), Task(utcnow)
    look = await saver.look(WANTED)
    assert look["added"] == 1 and look["image_bytes"] > 0
    result = await saver.save(task, WANTED, ImageName("tools", "1"), history=True)
    assert (result.layers, result.platform) == (2, "linux/amd64")
    assert "held for" in task.log
    async with saver.client() as client:
        body, found = await client.manifest(result.image.repository, result.image.digest)
        assert isinstance(found, manifests.Manifest)
        about = io.BytesIO()
        await client.pull_blob(result.image.repository, found.config, about)
    config = json.loads(about.getvalue())
    assert config["config"] == {"Env": ["A=1"]}
    assert len(config["rootfs"]["diff_ids"]) == 2
    assert body
    assert not list((machine.root.parents[2] / "images").iterdir())
    assert not machine.agent.jobs
    await saver.forget(result.image)
    with pytest.raises(UserError):
        async with saver.client() as client:
            await client.manifest(result.image.repository, result.image.digest)


async def test_a_parent_of_another_registry_is_brought_along_once(
    machine: Machine, registry: RegistryServer, tmp_path: Path
) -> None:
    other = RegistryServer(tmp_path / "other")
    other.start()
    try:
        image = await parent(other)
        host = image.partition("/")[0]
        sources = Sources(reachable=(host,), plain_http=(host,))
        saver = saver_of(machine, registry, image, sources=sources)
        booked: list[Any] = []

        class Noting:
            async def base(self, place: str) -> None:
                assert not list(registry.data.rglob("bases")), "it is noted before it is filled"
                booked.append(place)

            async def room(self, own_bytes: int, below_bytes: int = 0) -> None:
                assert not list(registry.data.rglob("people")), "it is booked before it is pushed"
                booked.append(own_bytes > 0 and below_bytes > 0)

        task = Task(utcnow, books=Noting())
        await saver.save(task, WANTED, ImageName("tools", "1"))
        assert "the image below was brought" in task.log
        assert booked == [f"bases/{image.partition('@sha256:')[2][:40]}", True]
    finally:
        other.stop()
    again = Task(utcnow)
    await saver.save(again, WANTED, ImageName("tools", "2"))  # that registry is away by now
    assert "the image below was brought" not in again.log
    for _ in range(2):
        await saver.empty(booked[0])
    async with saver.client() as client:
        assert not await client.tags(booked[0])


async def test_a_registry_that_may_not_be_asked_is_not(
    machine: Machine, registry: RegistryServer, tmp_path: Path
) -> None:
    other = RegistryServer(tmp_path / "other")
    other.start()
    try:
        image = await parent(other)
        saver = saver_of(machine, registry, image, sources=Sources(plain_http=(image.partition("/")[0],)))
        with pytest.raises(UserError) as refused:
            await saver.save(Task(utcnow), WANTED, ImageName("tools", "1"))
    finally:
        other.stop()
    assert refused.value.reason == "registry-private"
    nothing_is_left(machine, registry)


async def test_a_key_of_the_run_is_found_and_nothing_is_pushed(
    machine: Machine, registry: RegistryServer
) -> None:
    image = await parent(registry)
    (machine.root / "home/jovyan/noise").write_bytes(b"x" + COOKIE + b"y")
    with pytest.raises(UserError) as refused:
        await saver_of(machine, registry, image).save(Task(utcnow), WANTED, ImageName("tools", "1"))
    assert refused.value.params["path"] == "/home/jovyan/noise"
    nothing_is_left(machine, registry)


async def test_whoever_cancels_leaves_nothing(machine: Machine, registry: RegistryServer) -> None:
    image = await parent(registry)
    for step in ("copying", "writing", "base", "pushing"):
        task = Task(utcnow)
        begin = task.begin

        def stop_at(
            name: str, total: int | None = None, *, step: str = step, task: Task = task, begin: Any = begin
        ) -> None:
            if name == step:
                task.stop.set()
            begin(name, total)

        task.begin = stop_at  # type: ignore[method-assign]
        with pytest.raises(GivenUp):
            await saver_of(machine, registry, image).save(task, WANTED, ImageName("tools", "1"))
        for _ in range(100):
            if not list(machine.agent.directory.iterdir()):
                break
            await asyncio.sleep(0.05)
        nothing_is_left(machine, registry)


@pytest.mark.parametrize(
    ("image", "more", "reason"),
    [
        ("sha256:" + "1" * 64, {}, "image-nowhere"),
        ("", {"key": "z" * 64}, "agent-away"),
    ],
)
async def test_what_cannot_be_is_said(
    machine: Machine, registry: RegistryServer, image: str, more: dict[str, Any], reason: str
) -> None:
    image = image or await parent(registry)
    with pytest.raises(UserError) as refused:
        await saver_of(machine, registry, image, **more).save(Task(utcnow), WANTED, ImageName("tools", "1"))
    assert refused.value.reason == reason
    nothing_is_left(machine, registry)
