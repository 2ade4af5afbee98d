"""The whole product as ``galilean up`` starts it on one machine, with its nodes in a real Kubernetes.

It runs as the account that nodes have (user id 1000), reads Python from wherever this clone has it, and has
the rights of the hub and of the machines service.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from spawner.inventory import Sighting
from spawner.kubernetes import names
from spawner.kubernetes.look import LOOK
from tests.kubernetes.hub import Namespace, only_if_possible
from tests.lab.ceph import Ceph
from tests.lab.gluster import Gluster
from tests.lab.kubernetes import Kubernetes
from tests.lab.waiting import wait_for
from tests.process.hub import clean_environment
from tests.product import ssh
from tests.product.code import in_node
from tests.product.product import GALILEAN, ROOT, Person, Product
from tests.product.ssh import Computer

pytestmark = [
    pytest.mark.kubernetes,
    pytest.mark.skipif(bool(only_if_possible()), reason=only_if_possible() or "-"),
]

AS_NODES = [
    "setpriv", "--reuid", "1000", "--regid", "1000", "--clear-groups",
    "--inh-caps", "+dac_read_search", "--ambient-caps", "+dac_read_search",
]  # fmt: skip
MACHINES_RIGHTS = """
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: $NAMESPACE-machines}
rules:
  - {apiGroups: [""], resources: [nodes], verbs: [get, list, watch]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: $NAMESPACE-machines}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: $NAMESPACE-machines}
subjects: [{kind: ServiceAccount, name: hub, namespace: $NAMESPACE}]
"""


def free_port(host: str) -> int:
    with socket.socket() as probe:
        probe.bind((host, 0))
        return probe.getsockname()[1]


#: A right on claims, and the storage of one disk: what a class with a provisioner would make.
DISKS = """
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: disks, namespace: $NAMESPACE}
rules:
  - {apiGroups: [""], resources: [persistentvolumeclaims], verbs: [create, delete]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: disks, namespace: $NAMESPACE}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: disks}
subjects: [{kind: ServiceAccount, name: hub, namespace: $NAMESPACE}]
---
apiVersion: v1
kind: PersistentVolume
metadata: {name: $NAMESPACE-disk}
spec:
  capacity: {storage: 1Gi}
  accessModes: [ReadWriteOnce]
  hostPath: {path: $PLACE}
  storageClassName: disks-$NAMESPACE
"""


class Outside(Product):
    """One installation whose nodes are pods of a namespace."""

    namespace: Namespace

    @property
    def environment(self) -> dict[str, str]:
        ours = {k: v for k, v in super().environment.items() if k.startswith("GALILEAN_") or k == "PORT"}
        path = {"PATH": super().environment["PATH"], "HOME": str(self.directory)}
        return clean_environment() | ours | path | {"KUBECONFIG": str(self.namespace.kubeconfig)}

    def launch(self) -> None:
        with self.output.open("ab") as log:
            self.process = subprocess.Popen(
                [*AS_NODES, GALILEAN, "up"],
                cwd=ROOT,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def wait_ready(self, seconds: float = 180) -> None:
        super().wait_ready(seconds)  # beside a Kubernetes on a small machine

    def sightings(self) -> list[Sighting]:
        return self.namespace.inventory()

    def base(self, person: Person, server: str) -> str:
        return names.base_name(person.name, server)


@contextmanager
def outside(
    kubernetes: Kubernetes,
    namespace: Namespace,
    directory: Path,
    more: dict[str, Any] | None = None,
    prepare: Callable[[Outside], None] = lambda product: None,
) -> Iterator[Outside]:
    """An installation for the time of a ``with``.

    Parameters
    ----------
    more
        Settings on top of those that it needs there.
    prepare
        Is given it before its first start.
    """
    from tests.lab.lab import GATEWAY

    namespace.kubectl("apply", "-f", "-", stdin=MACHINES_RIGHTS.replace("$NAMESPACE", namespace.name))
    os.chown(directory, 1000, 1000)
    os.chown(namespace.work, 1000, 1000)
    disk = namespace.work.parent / "disk"
    disk.mkdir(mode=0o755)
    os.chown(disk, 1000, 1000)
    disks = DISKS.replace("$NAMESPACE", namespace.name).replace("$PLACE", str(disk))
    namespace.kubectl("apply", "-f", "-", stdin=disks)
    limits = {
        "clusters": 8,
        "nodes": 4,
        "cpu": 2,
        "total_cpu": 8,
        "total_memory": "16G",
        "gpu": 1,
        "total_gpu": 4,
    }
    settings: dict[str, Any] = {
        "backend": "kubernetes",
        "addresses": {
            "hub": f"http://{GATEWAY}:{free_port(GATEWAY)}",
            "portal": f"http://{GATEWAY}:{free_port(GATEWAY)}",
        },
        "kubernetes": {
            "namespace": namespace.name,
            "image": kubernetes.image,
            "disk_class": f"disks-{namespace.name}",
        },
        "volumes": {"default": {"kind": "claim", "claim": "projects", "path": str(namespace.work)}},
        "roles": {"admin": {}, "researcher": {"limits": limits | {"manual_release": True}}},
        "defaults": {"cpu": 0.1, "memory": "512M", "release": "manual"},
        "sweep_seconds": 10,
        "gang_timeout_seconds": 480,
        "start_timeout_seconds": 480,
        "jupyterhub": {"ClusterProxy": {"presence_seconds": 1}},
        **(more or {}),
    }
    running = Outside(directory, settings)
    running.namespace = namespace
    prepare(running)
    try:
        running.start()
        yield running
    finally:
        try:
            running.close()
        finally:
            kind_and_name = (f"clusterrole,clusterrolebinding/{namespace.name}-machines").split("/")
            namespace.kubectl("delete", *kind_and_name, "--wait=false", "--ignore-not-found", check=False)
            disk_volume = ("pv", f"{namespace.name}-disk")
            namespace.kubectl("delete", *disk_volume, "--wait=false", "--ignore-not-found", check=False)


@pytest.fixture(scope="module")
def product(
    kubernetes: Kubernetes, namespace: Namespace, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Outside]:
    places = {
        "gpu_models": {"h100": {"title": "H100"}},
        "pools": {
            "default": {},
            "linux": {
                "title": "Linux",
                "node_selector": {"kubernetes.io/os": "linux"},
                "tolerations": [{"key": "galilean.test/taint", "operator": "Exists"}],
            },
            "admins": {"open_to": ["admin"]},
        },
    }
    with outside(kubernetes, namespace, tmp_path_factory.mktemp("outside"), places) as running:
        yield running


@pytest.fixture(scope="module")
def ada(product: Outside) -> Person:
    return product.person("ada")


def released(product: Outside, person: Person, server: str) -> None:
    answer = person.stop(server)
    assert answer.status_code in (202, 204), answer.text
    wait_for(lambda: not person.clusters(), "the cluster is released", seconds=60)
    product.namespace.nothing_left(product.base(person, server))


def test_from_a_project_to_its_machine_time(product: Outside, ada: Person) -> None:
    slug = ada.project("Heat flow")
    text = "0.5\n"
    put = ada.portal("PUT", f"/projects/ada/{slug}/files/start.txt", content=text.encode())
    assert put.status_code in (200, 201, 204), put.text

    answer = ada.run(slug, project=slug, nodes=2, cpu=0.2, memory="512M")
    assert answer.status_code in (201, 202), answer.text
    wait_for(lambda: ada.is_ready(slug), "the cluster is ready", seconds=90)
    (cluster,) = ada.clusters()
    assert (cluster["status"], cluster["nodes"]) == ("running", 2)
    pods = product.namespace.pods(product.base(ada, slug))
    assert sorted(pod["metadata"]["labels"][names.RANK] for pod in pods.values()) == ["0", "1"]

    for rank in (0, 1):  # the same files, which the portal has, too
        assert ada.node(slug, rank, "api/contents/start.txt").json()["content"] == text
    made = {"type": "file", "format": "text", "content": "42"}
    assert ada.api("PUT", f"/user/ada/{slug}/node-1/api/contents/end.txt", json=made).status_code == 201
    assert ada.portal("GET", f"/projects/ada/{slug}/files/end.txt").text == "42"
    head = product.base(ada, slug) + "-0"
    assert "node-1" in product.namespace.execute(head, "ssh", "node-1", "hostname")

    # The node reaches the portal past its policy, and both witnesses agree that somebody is there.
    def present() -> bool:
        assert ada.node(slug, 0).status_code == 200
        (run,) = product.open_runs()
        return run.node_seen_at is not None and run.proxy_seen_at is not None

    wait_for(present, "the person is seen", seconds=60)

    released(product, ada, slug)
    (run,) = product.runs("ada")
    intervals = product.intervals(run.id)
    assert [node.rank for node in intervals] == [0, 1]
    assert all(node.gone_at and node.exit_reason for node in intervals)
    (usage,) = ada.portal("GET", "/usage", params={"by": "project"}).json()["items"]
    held = [node.gone_at - node.ready_at for node in intervals if node.gone_at and node.ready_at]
    node_seconds = sum(held, timedelta()).total_seconds()
    assert abs(usage["cpu_core_minutes"] - node_seconds * 0.2 / 60) <= 2 / 60
    assert not product.disagreement()


def test_ssh_from_outside_into_pods(product: Outside, ada: Person, tmp_path: Path) -> None:
    """scp, rsync, a dynamic forward, and what VS Code Remote does, past the policies of the cluster."""
    slug = ada.running("Remote", nodes=2, cpu=0.2)
    computer = Computer(tmp_path / "ada", f"{product.url}/user/ada/", ada.token, "jovyan")
    key = ada.portal("POST", "/ssh-keys", json={"public_key": computer.public})
    assert key.status_code == 201, key.text
    ssh.tell(computer, slug)
    refused = computer.do("ssh", "-W", "169.254.169.254:80", f"{slug}.galilean")
    assert refused.returncode != 0 and "administratively prohibited" in refused.stderr
    released(product, ada, slug)


def test_a_hub_that_is_killed_and_a_proxy_that_lost_its_routes_leave_people_working(
    product: Outside, ada: Person
) -> None:
    slug = ada.running("Goes on", nodes=2)
    pods = {
        name: pod["metadata"]["uid"] for name, pod in product.namespace.pods(product.base(ada, slug)).items()
    }
    for part in ("hub", "proxy"):
        product.wait_back(part, product.kill(part), seconds=60)
        wait_for(lambda: ada.node(slug, 1).status_code == 200, f"node-1 answers after {part}", seconds=30)
    assert ada.is_ready(slug)
    there = {
        name: pod["metadata"]["uid"] for name, pod in product.namespace.pods(product.base(ada, slug)).items()
    }
    assert there == pods
    released(product, ada, slug)


def test_a_restart_leaves_clusters_running_and_the_end_by_hand_releases_them(
    product: Outside, ada: Person
) -> None:
    slug = ada.running("Over the night")
    assert product.end(signal.SIGTERM) == 0, product.said()
    pods = set(product.namespace.pods(product.base(ada, slug)))
    assert len(pods) == 1
    product.start()
    wait_for(lambda: ada.is_ready(slug) and ada.node(slug).status_code == 200, "it goes on", seconds=60)
    assert set(product.namespace.pods(product.base(ada, slug))) == pods
    assert product.end(signal.SIGINT) == 0, product.said()
    product.namespace.nothing_left(product.base(ada, slug))
    product.start()
    assert product.runs("ada")[0].word == "released"


def test_pools_and_models_are_those_of_the_settings(product: Outside, ada: Person) -> None:
    slug = ada.project("Somewhere")
    for status, options, said in (
        (400, {"pool": "college"}, "college"),
        (403, {"pool": "admins"}, "admins"),
        (400, {"gpu": 1, "gpu_model": "abacus"}, "abacus"),
    ):
        answer = ada.run(slug, project=slug, **options)
        assert answer.status_code == status, answer.text
        assert said in answer.text
    assert not product.namespace.objects()

    slug = ada.running("On Linux", pool="linux")
    (pod,) = product.namespace.pods(product.base(ada, slug)).values()
    assert pod["spec"]["nodeSelector"]["kubernetes.io/os"] == "linux"
    assert {"key": "galilean.test/taint", "operator": "Exists"} in pod["spec"]["tolerations"]
    assert pod["metadata"]["labels"][names.POOL] == ada.clusters()[0]["pool"] == "linux"
    released(product, ada, slug)


def test_a_request_that_no_machine_of_its_pool_could_hold_is_refused_at_once(
    product: Outside, ada: Person
) -> None:
    slug = ada.project("Cards")
    wait_for(lambda: machines_known(product), "the machines are known", seconds=60)

    def refused() -> bool:  # as soon as the hub has read what the machines service saw
        answer = ada.run(slug, project=slug, pool="linux", gpu=1, gpu_model="h100")
        if answer.status_code != 400:
            ada.stop(slug)
        return answer.status_code == 400 and "h100" in answer.text and "Linux" in answer.text

    wait_for(refused, "it is refused", seconds=60, every=2)
    assert not product.namespace.objects()


def machines_known(product: Outside) -> bool:
    with product.db.read() as conn:
        return bool(conn.exec_driver_sql("select count(*) from machines").scalar())


def test_the_sweeper_of_the_command_line_sees_the_same_world(product: Outside, ada: Person) -> None:
    slug = ada.running("Swept")
    assert "Everything that runs should run" in product.command("sweep")
    released(product, ada, slug)
    assert "Everything that runs should run" in product.command("sweep")


# ------------------------------------------------------------------------------------- a network file system


@pytest.fixture(params=[Gluster, pytest.param(Ceph, marks=pytest.mark.cephfs)])
def shared(
    request: pytest.FixtureRequest, kubernetes: Kubernetes, namespace: Namespace
) -> Iterator[Gluster | Ceph]:
    """A network file system, mounted on the lab's machine and claimed there as ``campus``."""
    made = request.param(kubernetes.directory / "network-files", owner=1000)
    volume = f"{namespace.name}-campus"
    spec: dict[str, Any] = {"accessModes": ["ReadWriteMany"], "storageClassName": ""}
    try:
        namespace.apply(
            {
                "apiVersion": "v1",
                "kind": "PersistentVolume",
                "metadata": {"name": volume},
                "spec": {**spec, "capacity": {"storage": "1Gi"}, "hostPath": {"path": str(made.mount)}},
            },
            {
                "apiVersion": "v1",
                "kind": "PersistentVolumeClaim",
                "metadata": {"name": "campus"},
                "spec": {**spec, "volumeName": volume, "resources": {"requests": {"storage": "1Gi"}}},
            },
        )
        yield made
    finally:
        namespace.kubectl("delete", "pv", volume, "--wait=false", "--ignore-not-found")
        made.close()


@pytest.fixture
def elsewhere(tmp_path: Path) -> Path:
    """An empty directory of the product's account, beside every claim."""
    place = tmp_path / "elsewhere"
    place.mkdir()
    for path in (place, *place.parents[:3]):
        path.chmod(0o755)
    os.chown(place, 1000, 1000)
    return place


@pytest.mark.timeout(1800)
def test_a_network_file_system_carries_projects_and_while_it_is_away_nothing_else_suffers(
    product: Outside, ada: Person, shared: Gluster | Ceph, elsewhere: Path
) -> None:
    chief = product.person("chief", "admin")
    here = ada.project("On a disk here")
    volume = {"id": "campus", "kind": "claim", "path": str(shared.mount), "claim": "campus"}
    # A path that the portal has and the machine has not: said, and not registered.
    wrong = chief.portal("POST", "/volumes", json={**volume, "path": str(elsewhere)})
    assert wrong.status_code == 409, wrong.text
    assert "it is not mounted there" in wrong.json()["detail"]
    assert not product.namespace.kubectl("get", "pods", "-l", LOOK, "-o", "name").strip()
    answer = chief.portal("POST", "/volumes", json=volume)
    assert answer.status_code == 201, answer.text
    # What is new goes where most is free; both lie on one disk.
    answer = chief.portal("PATCH", "/volumes/default", json={"state": "closed"})
    assert answer.status_code == 200, answer.text
    slug, idle = ada.project("From the network"), ada.project("Idle")
    assert chief.portal("PATCH", "/volumes/default", json={"state": "open"}).status_code == 200
    for project in (here, slug, idle):
        put = ada.portal("PUT", f"/projects/ada/{project}/files/a.txt", content=b"a")
        assert put.status_code in (200, 201, 204), put.text
    assert ada.run(slug, project=slug, cpu=0.2, memory="512M").status_code in (201, 202)
    wait_for(lambda: ada.is_ready(slug), "the cluster is ready", seconds=120)
    pods = product.namespace.pods(product.base(ada, slug))
    assert in_node(ada, slug, "open('b.txt', 'w').write('42')") == ""
    assert [path.read_text() for path in shared.mount.glob("projects/*/b.txt")] == ["42"]

    def problem() -> str:
        items = chief.portal("GET", "/volumes").raise_for_status().json()["items"]
        return next(item["problem"] for item in items if item["id"] == "campus")

    assert not problem()
    (seen,) = chief.portal("POST", "/volumes/campus/look").raise_for_status().json()["items"]
    assert (bool(seen["machine"]), seen["problem"]) == (True, "")
    for way in (shared.silent, shared.dead):
        with way():
            wait_for(problem, "the volume is said to be away", seconds=90)
            assert ada.portal("GET", f"/projects/ada/{slug}/files/a.txt").status_code == 503
            # Where a disk is waited for, the hub says 202 before it knows; nothing comes of it.
            assert ada.run(idle, project=idle, cpu=0.2, memory="512M").status_code in (202, 503)
            wait_for(lambda: not (ada.servers().get(idle) or {}).get("pending"), "it is refused", seconds=90)
            assert not ada.is_ready(idle)
            assert [cluster["project"]["slug"] for cluster in ada.clusters()] == [slug]
            assert ada.portal("GET", f"/projects/ada/{here}/files/a.txt").text == "a"
            assert ada.portal("GET", "/projects").status_code == 200
            assert ada.is_ready(slug)
        wait_for(lambda: not problem(), "the volume is there again", seconds=90)
        assert ada.portal("GET", f"/projects/ada/{slug}/files/b.txt").text == "42"
        assert in_node(ada, slug, "print(open('b.txt').read())") == "42\n"
    assert {name: pod["metadata"]["uid"] for name, pod in pods.items()} == {
        name: pod["metadata"]["uid"] for name, pod in product.namespace.pods(product.base(ada, slug)).items()
    }
    released(product, ada, slug)
