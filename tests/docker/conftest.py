"""A real Docker daemon for all tests of this room, and a hub for each module."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

import pytest

from spawner.docker.api import DockerAPI
from spawner.docker.nodes import ContainerNodes
from spawner.docker.watch import ContainerWatch
from tests.docker.daemon import POOL, Daemon, only_if_possible
from tests.docker.hub import DockerHub


@pytest.fixture(scope="session")
def daemon() -> Iterator[Daemon]:
    """The tests' own dockerd; a path of its own, for sockets have short names."""
    why = only_if_possible()
    if why:
        pytest.skip(why)
    place = Path(tempfile.mkdtemp(prefix="gdocker-"))
    place.chmod(0o755)
    found = Daemon(place / "d")
    try:
        yield found
    finally:
        found.stop()
        shutil.rmtree(place, ignore_errors=True)


@pytest.fixture
async def nodes(daemon: Daemon, tmp_path: Path) -> AsyncIterator[ContainerNodes]:
    """Clusters of containers without a hub."""

    async def always(_: str) -> bool:
        return True

    api = DockerAPI(daemon.url)
    watch = ContainerWatch(api, "t")
    # The nodes are in another network namespace: whether they answer is not asked here.
    yield ContainerNodes(api, watch, directory=tmp_path / "clusters", pool=IPv4Network(POOL), ask=always)
    await watch.stop()
    api.close()


@pytest.fixture(scope="module")
def hub_of(daemon: Daemon, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., DockerHub]]:
    made: list[DockerHub] = []

    def make(**more: Any) -> DockerHub:
        state = tmp_path_factory.mktemp("hub") / "state"
        made.append(DockerHub(state, daemon, **more))
        return made[-1]

    yield make
    for hub in made:
        hub.stop()


@pytest.fixture(scope="module")
def hub(hub_of: Callable[..., DockerHub]) -> DockerHub:
    """A hub that the tests of a module share; each has servers of its own."""
    return hub_of()
