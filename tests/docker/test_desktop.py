"""Desktops of containers, in a browser: on this machine's own programs, as all nodes of these tests are made."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from spawner.docker import names
from tests.desktop import story
from tests.docker.daemon import IMAGE, ROOT, Daemon
from tests.docker.test_product import DockerProduct

pytestmark = [
    pytest.mark.docker,
    pytest.mark.timeout(1500),
    pytest.mark.skipif(
        not all(map(shutil.which, ("xfce4-session", "xfce4-terminal", "mpirun", "xclip", "chromium"))),
        reason="XFCE, Open MPI or Chromium is missing (scripts/test-deps docker)",
    ),
]


@pytest.fixture(scope="module")
def product(daemon: Daemon) -> Iterator[DockerProduct]:
    """Beside the daemon, where the account of nodes comes through."""
    directory = daemon.directory.parent / "desktops"
    directory.mkdir(mode=0o755)
    found = DockerProduct(
        directory, daemon, story.settings({"image": IMAGE, "variables": {"PYTHONPATH": str(ROOT)}})
    )
    found.start()
    yield found
    found.close()
    daemon.machine.run("nft", "delete", "table", "inet", "galilean_docker", check=False)


def test_a_person_works_on_the_desktops_of_two_containers(
    product: DockerProduct, daemon: Daemon, tmp_path: Path
) -> None:
    story.tell(product, product.person("ada"), tmp_path)
    assert not daemon.containers(**{names.INSTANCE: product.instance})
