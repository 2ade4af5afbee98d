"""A real Kubernetes, a namespace for each module, and a hub outside of the cluster.

The node image is made from this clone; ``GALILEAN_NODE_IMAGE`` names a docker archive to be used instead.
``GALILEAN_LAB_DIRECTORY`` names the directory of a lab that runs already; then none is started, and the
tests that take its parts down are left out.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from spawner.kubernetes import nodes
from spawner.kubernetes.nodes import PodNodes
from spawner.kubernetes.watch import PodWatch
from tests.kubernetes.hub import KubeHub, Namespace
from tests.kubernetes.memory import Cluster
from tests.lab.kubernetes import Kubernetes
from tests.lab.kubernetes import _attached as _attached
from tests.lab.kubernetes import archive as archive
from tests.lab.kubernetes import reference as reference


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Labs that tests start by themselves come before the one that all others share: there is room for one."""
    items.sort(key=lambda item: "no_lab" not in getattr(item, "fixturenames", ()))


@pytest.fixture
async def world(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[tuple[Cluster, PodNodes]]:
    """Clusters of pods on an API server in memory."""
    monkeypatch.setattr(nodes, "PAUSES_SECONDS", (0.001,))
    cluster = Cluster()
    watch = PodWatch(cluster)
    made = PodNodes(cluster, watch)  # type: ignore[arg-type]
    yield cluster, made
    await watch.stop()


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
    return hub_of()
