"""A real Kubernetes, a namespace for each module, and a hub outside of the cluster.

The node image is made from this clone; ``GALILEAN_NODE_IMAGE`` names a docker archive to be used instead.
``GALILEAN_LAB_DIRECTORY`` names the directory of a lab that runs already; then none is started, and the
tests that take its parts down are left out.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.kubernetes.hub import KubeHub, Namespace
from tests.lab.node_image import build_node_image
from tests.process.hub import eventually

if TYPE_CHECKING:
    from tests.lab.lab import Lab


@dataclass
class Kubernetes:
    """What tests need of a lab."""

    kubectl: Callable[..., str]
    server: str
    authority: Path
    image: str
    directory: Path
    lab: Lab | None = None

    @contextmanager
    def away(self) -> Iterator[None]:
        """Without an API server: killed and started again; in a lab that others started, stopped for the while."""
        if self.lab is not None:
            command = self.lab._parts["kube-apiserver"].args
            self.lab.kill("kube-apiserver")
            try:
                yield
            finally:
                self.lab._start("kube-apiserver", *command)  # type: ignore[misc]
                eventually(lambda: self.kubectl("get", "--raw", "/readyz", check=False) == "ok", 60)
            return
        pid = next(
            int(path.parent.name)
            for path in Path("/proc").glob("[0-9]*/cmdline")
            if b"kube-apiserver\0" in (said := path.read_bytes()) and str(self.directory).encode() in said
        )
        os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(pid, signal.SIGCONT)


def archive() -> Path:
    named = os.environ.get("GALILEAN_NODE_IMAGE")
    if not named:
        return build_node_image()
    if not Path(named).exists():
        pytest.fail(f"there is no node image at {named}, which GALILEAN_NODE_IMAGE names")
    return Path(named)


def reference(path: Path) -> str:
    with tarfile.open(path) as tar:
        manifest = tar.extractfile("manifest.json")
        assert manifest is not None
        return json.loads(manifest.read())[0]["RepoTags"][0]


@pytest.fixture(scope="session")
def kubernetes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kubernetes]:
    from tests.lab.lab import Lab

    image = archive()
    running = os.environ.get("GALILEAN_LAB_DIRECTORY")
    if running:
        yield _attached(Path(running), reference(image))
        return
    lab = Lab(tmp_path_factory.mktemp("lab") / "lab")
    try:
        lab.up()
        lab.load_image(image)
        yield Kubernetes(
            lab.kubectl, lab.server, lab.directory / "pki" / "ca.crt", reference(image), lab.directory, lab
        )
    finally:
        lab.down()


def _attached(directory: Path, image: str) -> Kubernetes:
    from tests.lab.build import build

    kubeconfig = directory / "pki" / "admin.kubeconfig"
    program = build() / "lab"

    def kubectl(*arguments: str, stdin: str | None = None, check: bool = True) -> str:
        done = subprocess.run(
            [str(program), "kubectl", "--kubeconfig", str(kubeconfig), *arguments],
            input=stdin, capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
        if check and done.returncode:
            raise RuntimeError(f"kubectl {' '.join(arguments)}: {done.stderr}")
        return done.stdout

    server = kubectl("config", "view", "-o", "jsonpath={.clusters[0].cluster.server}")
    return Kubernetes(kubectl, server, directory / "pki" / "ca.crt", image, directory)


@pytest.fixture(scope="module")
def namespace(
    kubernetes: Kubernetes, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Namespace]:
    name = f"t{os.getpid()}-{request.module.__name__.rpartition('test_')[2].replace('_', '-')}"
    place = tmp_path_factory.mktemp("namespace")
    for folder in (place, *place.parents[:3]):  # the kubelet's pods must come through
        folder.chmod(folder.stat().st_mode | 0o011)
    yield Namespace(kubernetes.kubectl, kubernetes.server, kubernetes.authority, name, place / "n")
    kubernetes.kubectl("delete", "namespace", name, "--wait=false")
    kubernetes.kubectl("delete", "pv", f"{name}-projects", "--wait=false")


@pytest.fixture(scope="module")
def hub_of(
    namespace: Namespace, kubernetes: Kubernetes, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[..., KubeHub]]:
    from tests.lab.lab import GATEWAY

    made: list[KubeHub] = []

    def make(**more: Any) -> KubeHub:
        state = tmp_path_factory.mktemp("hub") / "state"
        made.append(KubeHub(state, namespace, host=GATEWAY, image=kubernetes.image, **more))
        return made[-1]

    yield make
    for hub in made:
        hub.stop()


@pytest.fixture(scope="module")
def hub(hub_of: Callable[..., KubeHub]) -> KubeHub:
    """A hub that the tests of a module share; each has servers of its own."""
    return hub_of(images={"no-image": "galilean.lab/there-is-none:1"})
