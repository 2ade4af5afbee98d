"""Images on the machines of a real Kubernetes: fetched before somebody waits for them, by pods that run nothing.

The chart's rights and nothing more; agents as the chart puts them on machines; a real registry, with and without a
password; and a second machine with a kubelet and a container runtime of its own, which joins while it is watched.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import secrets
import shutil
import subprocess
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import bcrypt
import pytest
from kubernetes_asyncio.client import ApiClient, Configuration

from extensions.imagebuilder import distribution, store
from extensions.imagebuilder.distributing import Distributor
from extensions.imagebuilder.entries import Actor
from extensions.imagebuilder.pods import PodSaver
from extensions.imagebuilder.pulling import KubeMachines, NodesAPI, pod_for
from extensions.imagebuilder.saving import Place
from galilean.clock import utcnow
from galilean.db import Database, metadata
from galilean.settings_distribution import Distribution
from galilean.settings_machines import KUBEADM
from services.machines.kube import ca_hash, token_secret
from spawner.kubernetes.api import KubeAPI
from tests.chart.installed import image as image_in_lab
from tests.imagebuilder.registry.server import RegistryServer
from tests.kubernetes.hub import Namespace, only_if_possible
from tests.kubernetes.test_save import rendered
from tests.lab.images import built, static_image
from tests.lab.kubernetes import Kubernetes
from tests.lab.machine import Machine
from tests.lab.places import MACHINE, SECOND
from tests.lab.waiting import eventually

pytestmark = [
    pytest.mark.kubernetes,
    pytest.mark.timeout(600),
    pytest.mark.skipif(bool(only_if_possible()), reason=only_if_possible() or "-"),
    pytest.mark.skipif(not shutil.which("docker-registry"), reason="docker-registry is missing"),
]
KEY = secrets.token_hex(32)


@dataclass
class World:
    """A namespace with the chart's rights, its agents, and a registry."""

    kubernetes: Kubernetes
    namespace: Namespace
    registry: RegistryServer
    token: str
    place: Path
    made: list[str] = field(default_factory=list)

    @property
    def images(self) -> str:
        return f"{self.namespace.name}-images"

    def machines(self, *pull_secrets: str) -> KubeMachines:
        """What the image service sees of the lab, and may do there."""
        configuration = Configuration(host=self.kubernetes.server)
        configuration.ssl_ca_cert = str(self.kubernetes.authority)
        configuration.api_key = {"BearerToken": f"Bearer {self.token}"}

        def client() -> ApiClient:
            return ApiClient(configuration)

        nodes = KubeAPI(self.namespace.name, client)
        agents = KubeAPI(f"{self.namespace.name}-agents", client)
        saver = PodSaver(nodes, agents, KEY, Place(self.registry.address), self.place)
        images = NodesAPI(self.images, client)
        return KubeMachines(nodes, agents, images, secrets=pull_secrets, speak=saver.speak)

    def pods(self) -> list[str]:
        return self.kubernetes.kubectl("get", "pods", "-n", self.images, "-o", "name").split()

    def image(self, name: str, *, registry: RegistryServer | None = None, login: str = "") -> str:
        """A small image that is in a registry, and on no machine."""
        lab = self.kubernetes.lab
        assert lab is not None
        path = self.place / f"{name}.tar"
        address = (registry or self.registry).address.removeprefix("http://")
        tag = f"{address}/site/{name}:1"
        static_image(lab.programs / "pause", tag, path, {"name": name.encode()})
        lab.machine.load_image(path)
        digest = ctr(lab.machine, "list", f"name=={tag}").splitlines()[1].split()[2]
        ctr(lab.machine, "push", "--plain-http", *(("--user", login) if login else ()), tag)
        ctr(lab.machine, "rm", "--sync", tag)
        return f"{address}/site/{name}@{digest}"


def ctr(machine: Machine, *words: str) -> str:
    command = ["ctr", "--address", str(machine.socket), "--namespace", "k8s.io", "images", *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def world(
    kubernetes: Kubernetes, namespace: Namespace, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[World]:
    if kubernetes.lab is None:
        pytest.skip("this lab is somebody else's, and its machines are, too")
    agents, kubectl = f"{namespace.name}-agents", kubernetes.kubectl
    registry = RegistryServer(tmp_path_factory.mktemp("registry"))
    registry.start()
    objects = rendered(kubernetes, namespace.name, agents, rights=True)
    try:
        for one in objects:
            kubectl("apply", *where(one, namespace), "-f", "-", stdin=json.dumps(one))
        kubectl("create", "secret", "generic", "galilean-agent", "-n", agents, f"--from-literal=agent={KEY}")
        kubectl("rollout", "status", "-n", agents, "daemonset/galilean-agent", "--timeout=240s")
        account = ("token", "galilean-imagebuilder", "-n", namespace.name, "--duration=1h")
        yield World(
            kubernetes,
            namespace,
            registry,
            kubectl("create", *account).strip(),
            tmp_path_factory.mktemp("images"),
        )
    finally:
        registry.stop()
        for one in reversed(objects):
            named = (one["kind"], one["metadata"]["name"], *where(one, namespace))
            kubectl("delete", *named, "--wait=false", "--ignore-not-found", check=False)


def where(one: dict[str, Any], namespace: Namespace) -> tuple[str, ...]:
    """Of the release's namespace is what names none."""
    return () if "namespace" in one["metadata"] else ("-n", namespace.name)


@pytest.fixture
def db(tmp_path: Path) -> Iterator[Database]:
    database = Database(f"sqlite:///{tmp_path}/galilean.sqlite", threads=2)
    metadata.create_all(database.engine)
    yield database
    database.close()


@pytest.fixture
async def machines(world: World) -> AsyncIterator[KubeMachines]:
    found = world.machines("pull")
    yield found
    await found.close()


class Clock:
    ahead = timedelta()

    def __call__(self) -> Any:
        return utcnow() + self.ahead


def keeper(db: Database, machines: KubeMachines, clock: Clock | None = None, **limits: Any) -> Distributor:
    return Distributor(
        db, machines, clock or Clock(), limits=Distribution(**{"reserve_percent": 1, **limits})
    )


def entry(db: Database, image: str, **more: Any) -> None:
    made = store.NewVersion(tag="1", image=image, digest=image.rpartition("@")[2], size_bytes=1 << 20, **more)
    with db.write() as conn:
        store.create(
            conn,
            actor=Actor(name="root"),
            owner="",
            slug=f"e{secrets.token_hex(4)}",
            title="E",
            visibility="public",
            version=made,
            now=utcnow(),
        )


def states(db: Database) -> dict[tuple[str, str], str]:
    with db.read() as conn:
        return {(one.machine, one.image): one.state for one in distribution.spots(conn)}


async def rounds_until(of: Distributor, true: Any, what: str) -> None:
    async with asyncio.timeout(240):
        while not true():
            await of.tick()
            await of.idle()
            await asyncio.sleep(0.5)


async def test_what_is_missing_comes_and_what_cannot_come_says_why(
    world: World, machines: KubeMachines, db: Database
) -> None:
    good = world.image("good")
    address = world.registry.address.removeprefix("http://")
    missing = f"{address}/site/missing@sha256:{'b' * 64}"
    private = f"{address}/site/private@sha256:{'c' * 64}"
    entry(db, good)
    entry(db, missing)
    entry(db, private, key_id="01HKKKKKKKKKKKKKKKKKKKKKKK")
    works = keeper(db, machines)
    await rounds_until(
        works,
        lambda: set(states(db).values()) == {"present", "failed", "absent"},
        "every image has its word",
    )
    assert states(db) == {
        (MACHINE, good): "present",
        (MACHINE, missing): "failed",
        (MACHINE, private): "absent",
    }
    with db.read() as conn:
        (spot,) = distribution.spots(conn, image=missing)
        assert "no such image" in str(spot.error)
        told = {one.what for one in distribution.events(conn, good)}
    assert told == {"begun", "present"}
    assert world.pods() == []
    lab = world.kubernetes.lab
    assert lab is not None and good in ctr(lab.machine, "list", "-q")
    # The machine's own status says the same: it is looked for there, not only believed.
    eventually(
        lambda: good in world.kubernetes.kubectl("get", "node", MACHINE, "-o", "jsonpath={.status.images}"),
        30,
        "the machine names it",
    )
    (sight,) = await machines.look([good, missing])
    assert sight.present == {good} and sight.whole and sight.takes


async def test_the_pull_secrets_of_runs_open_a_private_registry(
    world: World, machines: KubeMachines, db: Database, tmp_path: Path
) -> None:
    (tmp_path / "closed").mkdir()
    hashed = bcrypt.hashpw(b"sesame", bcrypt.gensalt(4)).decode()
    (tmp_path / "htpasswd").write_text(f"robot:{hashed}\n")
    closed = RegistryServer(
        tmp_path / "closed", {"htpasswd": {"realm": "x", "path": str(tmp_path / "htpasswd")}}
    )
    closed.start()
    try:
        image = world.image("closed", registry=closed, login="robot:sesame")
        entry(db, image)
        clock = Clock()
        works = keeper(db, machines, clock)
        await rounds_until(works, lambda: states(db).get((MACHINE, image)) == "failed", "without a password")
        with db.read() as conn:
            (spot,) = distribution.spots(conn, image=image)
        assert "name and password" in str(spot.error) and "sesame" not in str(spot.error)
        login = {
            "auths": {closed.address.removeprefix("http://"): {"username": "robot", "password": "sesame"}}
        }
        secret = {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": "pull", "namespace": world.namespace.name},
            "type": "kubernetes.io/dockerconfigjson",
            "data": {".dockerconfigjson": base64.b64encode(json.dumps(login).encode()).decode()},
        }
        world.kubernetes.kubectl("apply", "-f", "-", stdin=json.dumps(secret))
        clock.ahead = distribution.AGAIN + timedelta(seconds=1)
        await rounds_until(works, lambda: states(db).get((MACHINE, image)) == "present", "with it")
        copied = world.kubernetes.kubectl("get", "secrets", "-n", world.images, "-o", "name").split()
        assert copied == ["secret/pull"]
    finally:
        closed.stop()


async def test_a_disk_keeps_its_reserve_as_the_agent_sees_it(
    world: World, machines: KubeMachines, db: Database
) -> None:
    image = world.image("large")
    entry(db, image)
    disk = shutil.disk_usage(world.kubernetes.directory)
    room = await machines.room(MACHINE)
    assert abs(room.free_bytes - disk.free) < 4 << 30 and abs(room.disk_bytes - disk.total) < 20 << 30
    works = keeper(db, machines, reserve_percent=90)
    await rounds_until(works, lambda: states(db).get((MACHINE, image)) == "failed", "too little would stay")
    with db.read() as conn:
        (spot,) = distribution.spots(conn, image=image)
    assert f"{room.disk_bytes * 90 // 100 >> 20} MB" in str(spot.error)
    assert world.pods() == []


async def test_the_pods_of_a_killed_service_go_and_its_rights_end_at_its_namespace(
    world: World, machines: KubeMachines
) -> None:
    address = world.registry.address.removeprefix("http://")
    image = f"{address}/site/nothing@sha256:{'d' * 64}"
    body = pod_for(image, MACHINE, namespace=world.images, of=world.namespace.name, secrets=())
    await machines._images.create(body)
    assert len(world.pods()) == 1
    await machines.begin()
    eventually(lambda: world.pods() == [], 30, "no pod is left")
    account = f"system:serviceaccount:{world.namespace.name}:galilean-imagebuilder"

    def may(*words: str) -> bool:
        said = world.kubernetes.kubectl("auth", "can-i", f"--as={account}", *words, check=False)
        return said.strip() == "yes"

    assert may("create", "pods", "-n", world.images)
    assert not may("create", "pods", "-n", world.namespace.name)
    assert not may("create", "pods", "-n", f"{world.namespace.name}-agents")
    assert not may("delete", "nodes") and not may("patch", "nodes") and may("list", "nodes")


async def test_a_machine_that_joins_gets_the_images_and_redistribute_brings_one_back(
    world: World, machines: KubeMachines, db: Database
) -> None:
    lab, kubectl = world.kubernetes.lab, world.kubernetes.kubectl
    assert lab is not None
    image = world.image("everywhere")
    entry(db, image)
    clock = Clock()
    works = keeper(db, machines, clock)
    await rounds_until(works, lambda: states(db).get((MACHINE, image)) == "present", "on the first machine")
    second = lab.second
    try:
        joined(world, second)
        kubectl(
            "rollout", "status", "-n", f"{world.namespace.name}-agents", "daemonset/galilean-agent",
            "--timeout=240s",
        )  # fmt: skip
        await rounds_until(works, lambda: states(db).get((SECOND, image)) == "present", "on the new one, too")
        assert image in ctr(second, "list", "-q")
        # Whatever removed it there is not fought with, until somebody wants it.
        ctr(second, "rm", "--sync", image)
        clock.ahead = distribution.LAG + timedelta(seconds=1)
        await rounds_until(works, lambda: states(db).get((SECOND, image)) == "absent", "it is gone there")
        with db.write() as conn:
            assert distribution.ask(conn, image=image, machine=SECOND, now=clock(), actor="root") == 1
        await rounds_until(works, lambda: states(db).get((SECOND, image)) == "present", "it is back")
        assert image in ctr(second, "list", "-q")
        kubectl("cordon", SECOND)
        sights = {one.machine: one.takes for one in await machines.look([])}
        assert sights == {MACHINE: True, SECOND: False}, "one that is to be taken out fetches nothing"
    finally:
        second.switch_off()
        kubectl("delete", "node", SECOND, "--ignore-not-found", "--wait=false")
    await works.tick()
    assert {machine for machine, _ in states(db)} == {MACHINE}


def joined(world: World, second: Machine) -> None:
    """The second machine with what an agent is made of, a machine of the cluster."""
    lab, kubectl = world.kubernetes.lab, world.kubernetes.kubectl
    assert lab is not None
    lab.let_join()
    second.switch_on()
    image_in_lab(world.kubernetes, "control")
    second.load_image(Path(os.environ.get("GALILEAN_CONTROL_IMAGE") or built("control")[1]))
    token = (secrets.token_hex(3), secrets.token_hex(8))
    ticket = token_secret(*token, name=SECOND, expires_at=utcnow() + timedelta(minutes=20))
    kubectl("apply", "-f", "-", stdin=json.dumps(ticket))
    second.join(
        KUBEADM.format(
            server=world.kubernetes.server.removeprefix("https://"),
            token=".".join(token),
            ca_hash=ca_hash(world.kubernetes.authority.read_bytes()),
            name=SECOND,
        )
    )
    second.wait_ready(kubectl)
