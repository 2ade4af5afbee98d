"""*Save image* on a real Kubernetes: an agent as the chart puts it on the machine, a real registry, and pods of the image."""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import json
import os
import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from spawner.kubernetes import names
from tests import repositories
from tests.chart.conftest import CHART
from tests.chart.installed import image as image_in_lab
from tests.docker.test_uploads import uploaded
from tests.imagebuilder import story
from tests.imagebuilder.registry.server import RegistryServer
from tests.kubernetes.hub import Namespace, only_if_possible
from tests.kubernetes.test_product_outside import MACHINES_RIGHTS, Outside, free_port
from tests.lab.kubernetes import Kubernetes, archive
from tests.product.product import Person, wait_for

pytestmark = [
    pytest.mark.kubernetes,
    pytest.mark.timeout(1500),
    pytest.mark.skipif(bool(only_if_possible()), reason=only_if_possible() or "-"),
    pytest.mark.skipif(not shutil.which("docker-registry"), reason="docker-registry is missing"),
]

#: The image service runs outside, by the hub's account; inside the chart binds an account of its own.
MAY_LIST_AGENTS = """
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: outside, namespace: $AGENTS}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: galilean-agents}
subjects: [{kind: ServiceAccount, name: hub, namespace: $NAMESPACE}]
---
# The whole product outside of Kubernetes has one account: also what the chart gives to the image service alone.
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: gets-secrets, namespace: $NAMESPACE}
rules:
  - {apiGroups: [""], resources: [secrets], verbs: [get]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: gets-secrets, namespace: $NAMESPACE}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: gets-secrets}
subjects: [{kind: ServiceAccount, name: hub, namespace: $NAMESPACE}]
"""


@dataclass
class World:
    """The product, its registry, and where the agents are."""

    product: Outside
    registry: RegistryServer
    agents: str
    kubectl: Any

    @property
    def namespace(self) -> Namespace:
        return self.product.namespace

    def inside(self, person: Person, server: str, script: str, rank: int = 0) -> str:
        pod = names.pod_name(names.base_name(person.name, server), rank)
        return self.namespace.execute(pod, "/bin/sh", "-c", script)

    def agent(self) -> dict[str, Any]:
        (pod,) = json.loads(self.kubectl("get", "pods", "-n", self.agents, "-o", "json"))["items"]
        return pod

    def agent_answers(self) -> bool:
        address = self.agent()["status"].get("podIP", "")
        return (
            httpx.get(f"http://{address}:8090/health", timeout=5).status_code == 200 and self.agent_is_ready()
        )

    def agent_is_ready(self) -> bool:
        """As the image service asks: the kubelet says so some seconds after the agent answers."""
        told = self.agent()["status"].get("conditions") or ()
        return any((one["type"], one["status"]) == ("Ready", "True") for one in told)

    def blobs(self) -> set[str]:
        return {path.parent.name for path in self.registry.data.rglob("sha256/*/*/data")}


def pushed(kubernetes: Kubernetes, registry: RegistryServer) -> str:
    """The node image in the registry and, by its digest there, in the lab: as if it had come from there."""
    ctr = [
        "ctr",
        "--address",
        str(kubernetes.directory / "containerd.sock"),
        "--namespace",
        "k8s.io",
        "images",
    ]

    def do(*words: str) -> str:
        done = subprocess.run([*ctr, *words], capture_output=True, text=True, timeout=600, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    digest = do("list", f"name=={kubernetes.image}").splitlines()[1].split()[2]
    name = f"{registry.address.removeprefix('http://')}/site/jupyter"
    do("tag", "--force", kubernetes.image, f"{name}:1")
    do("push", "--plain-http", f"{name}:1")
    do("tag", "--force", kubernetes.image, f"{name}@{digest}")
    return f"{name}@{digest}"


def is_shared(directory: Path) -> bool:
    """Whether the machine tells others of what it mounts below a directory, as those with systemd do."""
    command = ["findmnt", "--noheadings", "--output", "PROPAGATION", "--target", str(directory)]
    return "shared" in subprocess.run(command, capture_output=True, text=True, check=True).stdout


def rendered(
    kubernetes: Kubernetes, namespace: str, agents: str, *, rights: bool = False
) -> list[dict[str, Any]]:
    """What the chart makes for the agents; with ``rights`` also the image service's own, and where images are pulled."""
    from tests.lab.build import build

    control = image_in_lab(kubernetes, "control")
    runtime = kubernetes.directory
    values = {
        "images": {"control": dict(zip(("repository", "tag"), control.rsplit(":", 1), strict=True))},
        "config": {"images": {"registry": {"address": "https://registry.example"}}},
        "imagebuilder": {
            "enabled": True,
            "agents": {
                "namespace": agents,
                "bundles": f"{runtime}/containerd-state/io.containerd.runtime.v2.task/k8s.io",
                "snapshots": f"{runtime}/containerd/io.containerd.snapshotter.v1.overlayfs/snapshots",
            },
        },
    }
    told = subprocess.run(
        [str(build() / "helm"), "template", "galilean", str(CHART), "--namespace", namespace,
         "--kube-version", "1.33.0", "-f", "-"],
        input=json.dumps(values), env={"HOME": str(runtime), "PATH": "/usr/bin:/bin"},
        capture_output=True, text=True, timeout=60, check=True,
    ).stdout  # fmt: skip
    if not is_shared(
        kubernetes.directory / "containerd-state"
    ):  # what is mounted later is not seen then: the node comes before the agent
        told = told.replace(", mountPropagation: HostToContainer", "")
    found = [one for one in yaml.safe_load_all(told) if one and one["kind"] != "Secret"]
    spaces = {agents, f"{namespace}-images"} if rights else {agents}
    return [one for one in found if _is_of(one, spaces) or (rights and _is_a_right(one))]


def _is_of(one: dict[str, Any], spaces: set[str]) -> bool:
    metadata = one["metadata"]
    return (metadata["name"] if one["kind"] == "Namespace" else metadata.get("namespace")) in spaces


def _is_a_right(one: dict[str, Any]) -> bool:
    """Whether it is the image service's account, or says what that may do."""
    kinds = ("ServiceAccount", "Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding")
    return one["kind"] in kinds and one["metadata"]["name"].endswith(("-imagebuilder", "-images"))


@pytest.fixture(scope="module")
def world(
    kubernetes: Kubernetes, namespace: Namespace, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[World]:
    from tests.lab.lab import GATEWAY

    agents = f"{namespace.name}-agents"
    registry = RegistryServer(tmp_path_factory.mktemp("registry"))
    registry.start()
    directory = tmp_path_factory.mktemp("saving")
    os.chown(directory, 1000, 1000)
    os.chown(namespace.work, 1000, 1000)
    namespace.kubectl("apply", "-f", "-", stdin=MACHINES_RIGHTS.replace("$NAMESPACE", namespace.name))
    # What a centre does that lets people be root in workbenches; everything else still keeps to "restricted".
    namespace.kubectl(
        "label",
        "namespace",
        namespace.name,
        "pod-security.kubernetes.io/enforce=baseline",
        "--overwrite",
    )
    settings: dict[str, Any] = {
        "backend": "kubernetes",
        "addresses": {
            "hub": f"http://{GATEWAY}:{free_port(GATEWAY)}",
            "portal": f"http://{GATEWAY}:{free_port(GATEWAY)}",
        },
        "kubernetes": {
            "namespace": namespace.name,
            "image": pushed(kubernetes, registry),
            "agents_namespace": agents,
        },
        "images": {"registry": {"address": registry.address}},
        "workbench": {"root": True},
        "volumes": {"default": {"kind": "claim", "claim": "projects", "path": str(namespace.work)}},
        "roles": {"admin": {}, "researcher": {"limits": {"clusters": 4, "nodes": 2, "manual_release": True}}},
        "defaults": {"cpu": 0.2, "memory": "512M", "release": "manual"},
    }
    product = Outside(directory, settings)
    product.namespace = namespace
    try:
        product.start()
        person = product.person("ada")
        slug = person.project("Heat")
        assert person.run(slug, project=slug, nodes=1).status_code in (201, 202)
        wait_for(lambda: person.is_ready(slug), "ada's cluster is ready", seconds=120)
        objects = rendered(kubernetes, namespace.name, agents)
        namespace.kubectl(
            "apply", "-f", "-", stdin=json.dumps(next(one for one in objects if one["kind"] == "Namespace"))
        )
        key = product.state / "secrets" / "agent"
        namespace.kubectl(
            "create", "secret", "generic", "galilean-agent", "-n", agents, f"--from-file=agent={key}"
        )
        for one in objects:
            namespace.kubectl("apply", "-f", "-", stdin=json.dumps(one))
        roles = MAY_LIST_AGENTS.replace("$AGENTS", agents).replace("$NAMESPACE", namespace.name)
        namespace.kubectl("apply", "-f", "-", stdin=roles)
        made = World(product, registry, agents, namespace.kubectl)
        wait_for(made.agent_answers, "the agent answers", seconds=120)
        yield made
    finally:
        try:
            product.close()
        finally:
            registry.stop()
            namespace.kubectl("delete", "namespace", agents, "--wait=false", check=False)
            kind_and_name = (f"clusterrole,clusterrolebinding/{namespace.name}-machines").split("/")
            namespace.kubectl("delete", *kind_and_name, "--wait=false", "--ignore-not-found", check=False)


@pytest.fixture(scope="module")
def ada(world: World) -> Person:
    return world.product.person_named("ada")


def saved(person: Person, cluster: str, name: str) -> dict[str, Any]:
    answer = person.portal("POST", "/images", json={"cluster": cluster, "rank": 0, "name": name})
    assert answer.status_code == 202, answer.text
    made = answer.json()["id"]

    def over() -> bool:
        return person.portal("GET", f"/images/{made}").json()["state"] != "saving"

    wait_for(over, f"{name} is saved or not", seconds=240)
    return person.portal("GET", f"/images/{made}").json()


def test_what_was_changed_is_saved_without_a_secret_and_a_run_of_it_finds_it(
    world: World, ada: Person
) -> None:
    (cluster,) = ada.clusters()
    world.inside(
        ada,
        "heat",
        "cd /home/jovyan && mkdir tool && echo works > tool/it && echo typed > .bash_history && echo x > /tmp/x"
        " && echo mine > work/kept && mkdir -p .local/lib/python3.11/site-packages/heat-1.0.dist-info"
        " && echo 'answer = 42' > .local/lib/python3.11/site-packages/heat.py"
        " && echo pip > .local/lib/python3.11/site-packages/heat-1.0.dist-info/INSTALLER",
    )
    held = ada.portal("GET", f"/clusters/{cluster['id']}/nodes/0/would-hold")
    assert held.status_code == 200, held.text
    assert held.json()["added"] >= 3
    assert "/home/jovyan/work" in held.json()["mounted"]
    assert held.json()["image_bytes"] > 0
    image = saved(ada, cluster["id"], "my-tools:1")
    assert image["state"] == "ready", image
    assert image["changes"]["frozen_seconds"] <= 2, image["log"]
    assert ada.node("heat").status_code == 200  # goes on as if nothing were
    assert "FROM " in image["dockerfile"]

    digest = image["image"].rpartition("@")[2]
    place = f"{world.registry.address}/v2/{image['image'].partition('@')[0].partition('/')[2]}"
    accept = {"Accept": "application/vnd.oci.image.manifest.v1+json"}
    manifest = httpx.get(f"{place}/manifests/{digest}", headers=accept).json()
    own = httpx.get(f"{place}/blobs/{manifest['layers'][-1]['digest']}").content
    config = httpx.get(f"{place}/blobs/{manifest['config']['digest']}").text
    found: dict[str, bytes] = {}
    with tarfile.open(fileobj=io.BytesIO(own)) as layer:
        for member in layer:
            file = layer.extractfile(member) if member.isfile() else None
            found[member.name] = file.read() if file else b""
    assert found["home/jovyan/tool/it"] == b"works\n"
    assert not {"tmp/x", "home/jovyan/.bash_history", "home/jovyan/work/kept"} & found.keys()
    secrets = json.loads(
        world.kubectl(
            "get", "secret", world.product.base(ada, "heat"), "-n", world.namespace.name, "-o", "json"
        )
    )["data"]
    token = base64.b64decode(secrets["token"])
    assert token.decode() not in config
    for value in (token, base64.b64decode(secrets["cookie_secret"])):
        assert not [name for name, content in found.items() if value in content]

    added = ada.portal("PUT", f"/images/{image['id']}/library", json={"visibility": "own"})
    assert added.status_code == 200, added.text
    slug = ada.project("Again")
    answer = ada.run(slug, project=slug, nodes=1, environment=added.json()["name"])
    assert answer.status_code in (201, 202), answer.text
    wait_for(lambda: ada.is_ready(slug), "a cluster of the saved image is ready", seconds=180)
    (pod,) = world.namespace.pods(world.product.base(ada, slug)).values()
    assert digest in pod["spec"]["containers"][0]["image"]
    said = world.inside(
        ada, slug, "cat tool/it 2>/dev/null || cat ~/tool/it; python3 -c 'import heat; print(heat.answer)'"
    )
    assert said.split() == ["works", "42"]
    assert ada.stop(slug).status_code in (202, 204)


def every_byte(world: World, image: str) -> Iterator[tuple[str, bytes]]:
    """Pulled by hand: manifest, config, and what is in all layers, a piece at a time."""
    name, _, digest = image.partition("@")
    place = f"{world.registry.address}/v2/{name.partition('/')[2]}"
    accept = {"Accept": "application/vnd.oci.image.manifest.v1+json"}
    answer = httpx.get(f"{place}/manifests/{digest}", headers=accept)
    yield "manifest", answer.content
    manifest = answer.json()
    yield "config", httpx.get(f"{place}/blobs/{manifest['config']['digest']}").content
    for layer in manifest["layers"]:
        packed = httpx.get(f"{place}/blobs/{layer['digest']}", timeout=120, follow_redirects=True).content
        assert len(packed) == layer["size"]
        raw = io.BytesIO(packed)  # those of an image that was pushed from an archive are not packed
        with gzip.open(raw) if packed.startswith(b"\x1f\x8b") else raw as unpacked:
            before = b""
            while piece := unpacked.read(4 << 20):
                yield layer["digest"], before + piece
                before = piece[-4096:]


def secrets_of(world: World, person: Person, server: str) -> list[bytes]:
    """What must not be in an image of that run, keys without the lines around them."""
    base = world.product.base(person, server)
    told = world.kubectl("get", "secret", base, "-n", world.namespace.name, "-o", "json")
    found = [
        base64.b64decode(json.loads(told)["data"][key])
        for key in ("token", "cookie_secret", "host_ed25519", "id_ed25519")
    ]
    return [value.splitlines()[1] if value.startswith(b"-----BEGIN") else value for value in found]


def test_a_package_installed_as_root_is_saved_in_the_browser_and_another_person_runs_two_nodes_of_it(
    world: World, tmp_path: Path
) -> None:
    grace, bob = world.product.person("grace"), world.product.person("bob")
    repositories.repository(tmp_path / "apt", tmp_path / "scratch")
    repositories.index(tmp_path / "simple")
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        for name in ("apt", "simple"):
            archive.add(tmp_path / name, name)
    text = base64.b64encode(packed.getvalue()).decode()

    def install(bench: story.Bench) -> None:
        server = bench.server
        assert world.inside(grace, server, "id -u; sudo id -u").split() == ["1000", "0"]
        world.inside(grace, server, f"echo {text} | base64 -d | tar xz -C ~/work")
        told = world.inside(
            grace,
            server,
            "echo 'deb [trusted=yes] file:/home/jovyan/work/apt ./' | sudo tee /etc/apt/sources.list >/dev/null;"
            " sudo rm -rf /etc/apt/sources.list.d; (sudo apt-get update && sudo apt-get install --yes heat) 2>&1;"
            " sudo pip install --index-url file:///home/jovyan/work/simple warm 2>&1",
        )
        assert "Setting up heat" in told and "Successfully installed warm-2.0" in told, told
        said = world.inside(grace, server, "cat /opt/heat/uid; stat -c %u /opt/heat/heat.py")
        assert said.split() == ["0", "0"]
        for command in ("mknod /tmp/disk b 254 0", "mount -t tmpfs none /mnt", "ip link add x type dummy"):
            said = world.inside(grace, server, f"sudo {command} 2>/dev/null && echo done || echo refused")
            assert said.strip() == "refused", command
        lost = grace.portal("GET", f"/clusters/{bench.cluster}/losses").json()
        assert lost["nodes"][0]["packages"] == {"apt": 1, "pip": 1}, lost

    def check(bench: story.Bench, image: dict[str, Any]) -> None:
        secrets = secrets_of(world, grace, bench.server)
        assert len(secrets) == 4 and min(map(len, secrets)) >= 16
        added = {(one["manager"], one["name"]) for one in image["changes"]["packages_added"]}
        assert {("apt", "heat"), ("pip", "warm")} <= added
        looked = 0
        for name, piece in every_byte(world, image["image"]):
            looked += len(piece)
            assert not [value for value in secrets if value in piece], name
        assert looked > 100 << 20, "all of it, the environment below too"
        # What the lab has is little: the workbench makes room for the two nodes.
        assert grace.portal("DELETE", f"/clusters/{bench.cluster}").status_code in (202, 204)

    slug = story.tell(
        world.product,
        grace,
        bob,
        install=install,
        holds="heat",
        size=(0.5, 0.5),
        check_saved=check,
        seconds=240,
    )
    for rank in (0, 1):
        said = world.inside(
            bob,
            slug,
            "PYTHONPATH=/opt/heat python -c 'import heat, warm; print(heat.answer, warm.answer)'",
            rank,
        )
        assert said.split() == ["42", "42"]
        # The image has sudo and lets its account use it; a pod of a project gets no new privileges by it.
        said = world.inside(
            bob, slug, "sudo -n id -u 2>&1 || echo refused; grep NoNewPrivs /proc/self/status", rank
        )
        assert "refused" in said and "no new privileges" in said and said.split()[-1] == "1", said
    (held,) = bob.clusters()
    nothing = bob.portal("GET", f"/clusters/{held['id']}/losses").json()
    assert [(one["seen"], one["packages"]) for one in nothing["nodes"]] == [(True, {})] * 2, nothing
    assert bob.stop(slug).status_code in (202, 204)


def test_a_packed_image_is_uploaded_and_a_pod_of_it_runs(world: World, ada: Person) -> None:
    """By the portal and the image service alone: there is no Docker anywhere."""
    image = uploaded(ada, with_variable(archive(), "HEAT=42"), "tools:7")
    assert image["state"] == "ready", image
    assert not list((world.product.state / "image-uploads").rglob("*.tar"))
    added = ada.portal("PUT", f"/images/{image['id']}/library", json={"visibility": "own"})
    assert added.status_code == 200, added.text
    slug = ada.running("Uploaded", environment=added.json()["name"])
    (pod,) = world.namespace.pods(world.product.base(ada, slug)).values()
    assert pod["spec"]["containers"][0]["image"] == image["image"]
    assert world.inside(ada, slug, "echo $HEAT").strip() == "42"
    assert ada.stop(slug).status_code in (202, 204)


def with_variable(packed: Path, said: str) -> bytes:
    """A docker archive whose image has a variable more, and so another digest than any that is here."""
    out = io.BytesIO()
    with tarfile.open(packed) as whole, tarfile.open(fileobj=out, mode="w") as made:
        told = json.load(whole.extractfile("manifest.json") or io.BytesIO())
        old = told[0]["Config"]
        config = json.load(whole.extractfile(old) or io.BytesIO())
        config["config"]["Env"] = [*(config["config"].get("Env") or ()), said]
        body = json.dumps(config).encode()
        told[0]["Config"] = f"{hashlib.sha256(body).hexdigest()}.json"
        anew = {old: (told[0]["Config"], body), "manifest.json": ("manifest.json", json.dumps(told).encode())}
        for member in whole:
            if member.name in anew:
                entry = tarfile.TarInfo(anew[member.name][0])
                entry.size = len(anew[member.name][1])
                made.addfile(entry, io.BytesIO(anew[member.name][1]))
            else:
                made.addfile(member, whole.extractfile(member) if member.isfile() else None)
    return out.getvalue()


def test_a_token_under_an_odd_name_is_refused_and_nothing_reaches_the_registry(
    world: World, ada: Person
) -> None:
    cluster = next(one for one in ada.clusters() if one["server"] == "heat")
    before = world.blobs()
    world.inside(
        ada, "heat", "printf 'abc%s' \"$JUPYTERHUB_API_TOKEN\" | base64 > '/home/jovyan/tool/picture.png'"
    )
    image = saved(ada, cluster["id"], "my-tools:2")
    assert image["state"] == "failed"
    assert "/home/jovyan/tool/picture.png" in image["why"]
    assert world.blobs() == before
    world.inside(ada, "heat", "rm /home/jovyan/tool/picture.png")


def test_the_runs_own_keys_are_found_too(world: World, ada: Person) -> None:
    cluster = next(one for one in ada.clusters() if one["server"] == "heat")
    world.inside(
        ada, "heat", "(echo x; cat /run/galilean/secrets/cookie_secret; echo y) > /home/jovyan/tool/noise"
    )
    image = saved(ada, cluster["id"], "my-tools:3")
    assert image["state"] == "failed"
    assert "/home/jovyan/tool/noise" in image["why"]
    world.inside(ada, "heat", "rm /home/jovyan/tool/noise")


def test_nobody_saves_somebody_elses_node(world: World, ada: Person) -> None:
    eve = world.product.person("eve")
    cluster = next(one for one in ada.clusters() if one["server"] == "heat")
    answer = eve.portal("POST", "/images", json={"cluster": cluster["id"], "rank": 0, "name": "mine:1"})
    assert answer.status_code == 404
    assert eve.portal("GET", f"/clusters/{cluster['id']}/nodes/0/would-hold").status_code == 404


def test_the_agent_answers_nobody_without_the_key_and_reads_no_container_of_the_system(
    world: World, ada: Person
) -> None:
    agent = world.agent()
    address = f"http://{agent['status']['podIP']}:8090"
    system = json.loads(world.kubectl("get", "pods", "-n", "kube-system", "-o", "json"))["items"][0]
    container = system["status"]["containerStatuses"][0]["containerID"].partition("://")[2]
    run = next(one["id"] for one in ada.clusters() if one["server"] == "heat")
    asked = {"container": container, "user": "ada", "server": "heat", "run": run, "rank": 0}
    assert httpx.post(f"{address}/look", json=asked).status_code == 401
    key = (world.product.state / "secrets" / "agent").read_text().strip()
    answer = httpx.post(f"{address}/look", json=asked, headers={"Authorization": f"Bearer {key}"})
    assert (answer.status_code, answer.json()["reason"]) == (409, "node-gone")


def test_without_an_agent_it_is_said_and_the_node_goes_on(world: World, ada: Person) -> None:
    cluster = next(one for one in ada.clusters() if one["server"] == "heat")
    away = {"spec": {"template": {"spec": {"nodeSelector": {"nowhere": "at-all"}}}}}
    patch = ("patch", "daemonset", "galilean-agent", "-n", world.agents, "--type=merge", "-p")
    world.kubectl(*patch, json.dumps(away))
    try:
        wait_for(
            lambda: not json.loads(world.kubectl("get", "pods", "-n", world.agents, "-o", "json"))["items"],
            "the agent is gone",
            seconds=90,
        )
        image = saved(ada, cluster["id"], "my-tools:4")
        assert (image["state"], ada.node("heat").status_code) == ("failed", 200)
        assert "The administrators can see why" in image["why"]
    finally:
        world.kubectl(
            *patch, json.dumps({"spec": {"template": {"spec": {"nodeSelector": {"nowhere": None}}}}})
        )
