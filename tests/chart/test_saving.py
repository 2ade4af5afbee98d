"""The chart with the image service, on a real Kubernetes: what Helm made saves a node, brings the image to the machine, runs it, and
takes up a packed image.

The agent is as the chart has it, with what the machine mounts later visible to it: it is there before any node is.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.chart.installed import Installed
from tests.docker.test_uploads import uploaded
from tests.imagebuilder.registry.server import RegistryServer
from tests.kubernetes.test_save import pushed, saved
from tests.lab.images import static_image
from tests.lab.kubernetes import Kubernetes
from tests.lab.waiting import wait_for
from tests.product.code import in_node
from tests.product.product import Person

pytestmark = [
    pytest.mark.kubernetes,
    pytest.mark.timeout(900),
    pytest.mark.skipif(os.geteuid() != 0, reason="a lab needs root"),
    pytest.mark.skipif(not shutil.which("docker-registry"), reason="docker-registry is missing"),
]


@pytest.fixture(scope="module")
def registry(kubernetes: Kubernetes, place: Path) -> Iterator[RegistryServer]:
    """Where both the image service's pod and the machine's kubelet reach it."""
    from tests.lab.lab import GATEWAY

    if kubernetes.lab is None:
        pytest.skip("this lab is somebody else's, and its machines are, too")
    server = RegistryServer(place / "registry", host=GATEWAY)
    server.start()
    kubernetes.lab.machine.speak_plain_http(server.address.removeprefix("http://"))
    yield server
    server.stop()


@pytest.fixture(scope="module")
def product(kubernetes: Kubernetes, place: Path, registry: RegistryServer) -> Iterator[Installed]:
    runtime, host = kubernetes.directory, registry.address.removeprefix("http://")
    repository, _, digest = pushed(kubernetes, registry).partition("@")
    values: dict[str, Any] = {
        "images": {"node": {"repository": repository, "tag": "", "digest": digest}},
        "config": {
            "images": {
                "registry": {"address": registry.address},
                "plain_http": [host],
                "distribution": {"reserve_percent": 1},  # however full the disk of these tests is
            },
            "use": {"kubelet_insecure_tls": True},
        },
        "imagebuilder": {
            "enabled": True,
            "agents": {
                "bundles": f"{runtime}/containerd-state/io.containerd.runtime.v2.task/k8s.io",
                "snapshots": f"{runtime}/containerd/io.containerd.snapshotter.v1.overlayfs/snapshots",
            },
        },
    }
    site = Installed(kubernetes, f"t{os.getpid()}-saving", place / "saving", values)
    try:
        site.install()
        yield site
    finally:
        for space in ("agents", "images"):
            site.kubectl(
                "delete", "namespace", f"{site.namespace}-{space}", "--wait=false", check=False, of_all=True
            )
        site.close()


@pytest.fixture(scope="module")
def ada(product: Installed) -> Person:
    return product.person("ada", "researcher")


def test_a_node_is_saved_brought_to_the_machine_and_run_by_what_helm_made(
    ada: Person, product: Installed, registry: RegistryServer
) -> None:
    slug = ada.running("Tools", nodes=1, release="manual")
    (cluster,) = ada.clusters()
    in_node(ada, slug, "open('/home/jovyan/tool', 'w').write('works'); print('written')")
    image = saved(ada, cluster["id"], "my-tools:1")
    assert image["state"] == "ready", image["log"]
    assert image["changes"]["frozen_seconds"] <= 2
    added = ada.portal("PUT", f"/images/{image['id']}/library", json={"visibility": "public"})
    assert added.status_code == 200, added.text
    digest = image["image"].rpartition("@")[2]

    def place() -> dict[str, Any]:
        items = product.admin.portal("GET", "/image-places").json()["items"]
        return next((one for one in items if one["image"].endswith(digest)), {"state": "", "why": ""})

    wait_for(lambda: place()["state"] in ("present", "failed"), "it is brought to the machine", seconds=60)
    assert place()["state"] == "present", place()["why"] + product.said(80)
    (line, *_) = product.admin.portal("GET", "/image-places/log", params={"image": place()["image"]}).json()[
        "items"
    ]
    assert line["what"] == "present" and line["seconds"] is not None
    pods = json.loads(
        product.kubectl("get", "pods", "-n", f"{product.namespace}-images", "-o", "json", of_all=True)
    )
    assert pods["items"] == []
    assert ada.stop(slug).status_code in (202, 204)
    again = ada.running("Again", nodes=1, environment=added.json()["name"])
    assert in_node(ada, again, "print(open('/home/jovyan/tool').read())") == "works\n"


def test_a_packed_image_comes_from_the_portals_pod_to_the_registry(
    ada: Person, product: Installed, kubernetes: Kubernetes, place: Path
) -> None:
    """Both pods have the one folder, each as much of it as it needs; a pod of such an image is tried by test_save."""
    assert kubernetes.lab is not None
    path = place / "small.tar"
    static_image(kubernetes.lab.programs / "pause", "elsewhere/small:1", path, {"one": b"1" * 5000})
    image = uploaded(ada, path.read_bytes(), "small:1")
    assert image["state"] == "ready", image
    folder = product.place / "projects" / ".galilean-images"
    assert folder.stat().st_mode & 0o777 == 0o700
    assert not list(folder.rglob("*.tar"))
    seen = product.kubectl(
        "exec", product.part("imagebuilder"), "--", "ls", "-A", "/srv/galilean/volumes/default"
    )
    assert seen.split() == [".galilean-images"], "nothing else of people's projects"
