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


#: A hub takes seconds to begin, so tests share what they can.
SLEEPS = ["/usr/bin/python3", "-IS", "-c", "import time; time.sleep(600)"]
ENDS = ["/usr/bin/python3", "-IS", "-c", "print('no licence today'); raise SystemExit(3)"]


@pytest.fixture(scope="session")
def hub_of(daemon: Daemon, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., DockerHub]]:
    made: list[DockerHub] = []

    def make(**more: Any) -> DockerHub:
        state = tmp_path_factory.mktemp("hub") / "state"
        made.append(DockerHub(state, daemon, **more))
        return made[-1]

    yield make
    for hub in made:
        hub.stop()


@pytest.fixture(scope="session")
def hub(hub_of: Callable[..., DockerHub]) -> DockerHub:
    """A hub that all tests share; each has servers of its own. No registry has the image of *nowhere*."""
    return hub_of(images={"nowhere": "127.0.0.1:9/galilean/none:1"})


@pytest.fixture(scope="session")
def slow_hub(hub_of: Callable[..., DockerHub]) -> DockerHub:
    """A hub whose nodes never answer."""
    return hub_of(command=SLEEPS)


@pytest.fixture(scope="session")
def failing_hub(hub_of: Callable[..., DockerHub]) -> DockerHub:
    """A hub whose nodes end at once; *none* has an image that is not there and is not to be fetched."""
    return hub_of(command=ENDS, images={"none": "galilean-test:missing"}, pull_policy="Never")
