"""The one lab of a test run, for whoever asks for it: the fixture is in ``tests/conftest.py``.

The node image is made from this clone; ``GALILEAN_NODE_IMAGE`` names a docker archive to be used instead.
``GALILEAN_LAB_DIRECTORY`` names the directory of a lab that runs already; then none is started, and the
tests that take its parts down are left out.
"""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.lab.images import built, load
from tests.lab.images import reference as reference
from tests.lab.waiting import eventually

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
    def without(self, part: str) -> Iterator[None]:
        """Without a part of the lab: killed and started again; in a lab that others started, stopped for the while."""
        if self.lab is not None:
            try:
                with self.lab.parts.without(part):
                    yield
            finally:
                eventually(self._answers, 60, "the API server answers")
            return
        pid = next(
            int(path.parent.name)
            for path in Path("/proc").glob("[0-9]*/cmdline")
            if f"\0{part}\0".encode() in (said := path.read_bytes()) and str(self.directory).encode() in said
        )
        os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(pid, signal.SIGCONT)
            eventually(self._answers, 60, "the API server answers")

    def _answers(self) -> bool:
        return self.kubectl("get", "--raw", "/readyz", check=False) == "ok"

    def kill_container(self, namespace: str, pod: str) -> None:
        """Kill the first process of a pod's container, from outside."""
        path = "jsonpath={.status.containerStatuses[0].containerID}"
        told = self.kubectl("get", "pod", pod, "-n", namespace, "-o", path)
        ctr = ["ctr", "--address", str(self.directory / "containerd.sock"), "--namespace", "k8s.io"]
        container = told.removeprefix("containerd://")
        subprocess.run([*ctr, "tasks", "kill", "--signal", "SIGKILL", container], check=True, timeout=240)


def archive() -> Path:
    named = os.environ.get("GALILEAN_NODE_IMAGE")
    if not named:
        return built("jupyter")[1]
    if not Path(named).exists():
        pytest.fail(f"there is no node image at {named}, which GALILEAN_NODE_IMAGE names")
    return Path(named)


@pytest.fixture(scope="session")
def kubernetes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kubernetes]:
    from tests.lab.lab import Lab

    image = archive()
    running = os.environ.get("GALILEAN_LAB_DIRECTORY")
    if running:
        yield _attached(Path(running), load(Path(running), image))
        return
    lab = Lab(tmp_path_factory.mktemp("lab") / "lab")
    try:
        lab.up()
        authority = lab.directory / "pki" / "ca.crt"
        yield Kubernetes(lab.kubectl, lab.server, authority, load(lab.directory, image), lab.directory, lab)
    finally:
        lab.down()


def _attached(directory: Path, image: str) -> Kubernetes:
    from tests.lab.build import build

    kubeconfig = directory / "pki" / "admin.kubeconfig"
    program = build() / "lab"

    def kubectl(*arguments: str, stdin: str | None = None, check: bool = True) -> str:
        done = subprocess.run(
            [str(program), "kubectl", "--kubeconfig", str(kubeconfig), *arguments],
            input=stdin, capture_output=True, text=True, timeout=300, check=False,
        )  # fmt: skip
        if check and done.returncode:
            raise RuntimeError(f"kubectl {' '.join(arguments)}: {done.stderr}")
        return done.stdout

    server = kubectl("config", "view", "-o", "jsonpath={.clusters[0].cluster.server}")
    return Kubernetes(kubectl, server, directory / "pki" / "ca.crt", image, directory)
