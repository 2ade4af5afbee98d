"""An image registered by its address on a real product: two nodes run it by its digest, and a moved tag moves nothing."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from extensions.imagebuilder.looks import NODE_LABEL
from spawner.docker import names
from tests.docker.daemon import IMAGE, ROOT, Daemon
from tests.docker.test_product import DockerProduct
from tests.imagebuilder.registry.server import RegistryServer
from tests.product.product import wait_for

pytestmark = [pytest.mark.docker, pytest.mark.timeout(900)]


class RegistryBeside(RegistryServer):
    """In the network of the daemon and the product, so both find it at the same address."""

    def __init__(self, directory: Path, daemon: Daemon) -> None:
        super().__init__(directory)
        self._daemon = daemon

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.port}"

    def start(self) -> None:
        run = ["setpriv", "--pdeathsig", "KILL", self._program, "serve", str(self.settings)]
        self._server = subprocess.Popen(
            self._daemon.machine.command(*run), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )

    def put(self, tag: str, said: str) -> str:
        """The tests' image with a label more, as ``site/tools:tag`` and nowhere else; its digest."""
        client, name = self._daemon.client, f"{self.host}/site/tools"
        made = client.create_container(IMAGE, ["true"])
        client.commit(made, name, tag, changes=f"LABEL {NODE_LABEL}=/x said={said}\nENTRYPOINT /sbin/init")
        client.remove_container(made)
        for _ in range(50):
            told = list(client.push(name, tag, stream=True, decode=True))
            digest = next((line["aux"]["Digest"] for line in told if "aux" in line), "")
            if digest:
                client.remove_image(f"{name}:{tag}", force=True)
                return digest
        raise AssertionError(told)


@pytest.fixture
def registry(daemon: Daemon, tmp_path: Path) -> Iterator[RegistryBeside]:
    found = RegistryBeside(tmp_path, daemon)
    found.start()
    yield found
    found.stop()


@pytest.fixture
def product(daemon: Daemon, registry: RegistryBeside) -> Iterator[DockerProduct]:
    directory = daemon.directory.parent / "environments"
    directory.mkdir(mode=0o755)
    images = {"reachable": [registry.host], "plain_http": [registry.host]}
    found = DockerProduct(directory, daemon, more={"images": images})
    found.start()
    yield found
    found.close()
    daemon.machine.run("nft", "delete", "table", "inet", "galilean_docker", check=False)


def test_two_nodes_run_what_was_registered_and_a_new_version_leaves_them(
    product: DockerProduct, daemon: Daemon, registry: RegistryBeside
) -> None:
    first = registry.put("1", "first")
    ada = product.person("ada")
    body = {
        "title": "Tools",
        "image": {"address": f"{registry.host}/site/tools:1"},
        "start": {"variables": {"PYTHONPATH": str(ROOT)}},
    }
    answer = ada.portal("POST", "/environments", json=body)
    assert answer.status_code == 201, answer.text
    entry = answer.json()
    assert entry["digest"] == first
    assert any("ENTRYPOINT" in text for text in entry["versions"][0]["told"])
    slug = ada.project("Heat")
    answer = ada.run(slug, project=slug, environment="ada/tools", nodes=2, cpu=1, memory="1G")
    assert answer.status_code in (201, 202), answer.text
    wait_for(lambda: ada.is_ready(slug), f"{slug} is ready", seconds=400)
    for rank in (0, 1):
        assert ada.node(slug, rank).status_code == 200
    mine = daemon.containers(**{names.INSTANCE: product.instance})
    assert {item["Config"]["Image"] for item in mine} == {f"{registry.host}/site/tools@{first}"}
    assert len(mine) == 2
    second = registry.put("1", "second")  # the tag is moved
    body = {"image": {"address": f"{registry.host}/site/tools:1"}, "tag": "2"}
    entry = ada.portal("POST", f"/environments/{entry['id']}/versions", json=body).json()
    assert entry["digest"] == second != first
    assert entry["open_clusters"] == 1
    (cluster,) = ada.clusters()
    assert cluster["environment_digest"] == first if "environment_digest" in cluster else True
    assert len(daemon.containers(**{names.INSTANCE: product.instance})) == 2
