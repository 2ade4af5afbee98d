"""The chart with the image service, on a real Kubernetes: what Helm made takes a packed image up, with no Docker anywhere."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.chart.installed import Installed
from tests.docker.test_uploads import uploaded
from tests.imagebuilder.registry.server import RegistryServer
from tests.kubernetes.test_save import pushed
from tests.lab.images import static_image
from tests.lab.kubernetes import Kubernetes
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
