"""An image registered by its address on a real product: two nodes run it by its digest, and a moved tag moves nothing."""

from __future__ import annotations

import subprocess
import sys
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
    def place(self) -> str:
        """As it stands in the names of images."""
        return f"{self.host}:{self.port}"

    def start(self) -> None:
        run = ["setpriv", "--pdeathsig", "KILL", self._program, "serve", str(self.settings)]
        self._server = subprocess.Popen(
            self._daemon.machine.command(*run), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )

    def put(self, tag: str, said: str) -> str:
        """The tests' image with a label more, as ``site/tools:tag`` and nowhere else; its digest."""
        client, name = self._daemon.client, f"{self.place}/site/tools"
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


@pytest.fixture(scope="module")
def registry(daemon: Daemon, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RegistryBeside]:
    found = RegistryBeside(tmp_path_factory.mktemp("registry"), daemon)
    found.start()
    yield found
    found.stop()


@pytest.fixture(scope="module")
def product(daemon: Daemon, registry: RegistryBeside) -> Iterator[DockerProduct]:
    directory = daemon.directory.parent / "environments"
    directory.mkdir(mode=0o755)
    images = {"reachable": [registry.place], "plain_http": [registry.place]}
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
        "image": {"address": f"{registry.place}/site/tools:1"},
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
    assert {item["Config"]["Image"] for item in mine} == {f"{registry.place}/site/tools@{first}"}
    assert len(mine) == 2
    second = registry.put("1", "second")  # the tag is moved
    body = {"image": {"address": f"{registry.place}/site/tools:1"}, "tag": "2"}
    entry = ada.portal("POST", f"/environments/{entry['id']}/versions", json=body).json()
    assert entry["digest"] == second != first
    assert entry["open_clusters"] == 1
    (run,) = product.open_runs()
    assert run.environment_digest == first, "the row says what runs, whatever the tag means by now"
    assert ada.portal("POST", f"/clusters/{run.id}/nodes/1/reset").status_code == 202

    def back() -> bool:
        there = {node.rank: node for node in product.intervals(run.id) if node.gone_at is None}
        return there[1].attempt == 2 and there[1].ready_at is not None

    wait_for(back, "node 1 is made anew", seconds=200)
    mine = daemon.containers(**{names.INSTANCE: product.instance})
    assert {item["Config"]["Image"] for item in mine} == {f"{registry.place}/site/tools@{first}"}
    assert ada.stop(slug).status_code in (202, 204)
    wait_for(lambda: not ada.clusters(), "the cluster is closed", seconds=60)
    assert ada.run(slug, project=slug, environment="ada/tools", cpu=1, memory="1G").status_code in (201, 202)
    wait_for(lambda: ada.is_ready(slug), "it runs again", seconds=400)
    (after,) = daemon.containers(**{names.INSTANCE: product.instance})
    assert after["Config"]["Image"] == f"{registry.place}/site/tools@{second}", (
        "a new run gets the new version"
    )
    (run,) = product.open_runs()
    assert run.environment_digest == second
    assert ada.stop(slug).status_code in (202, 204)
    wait_for(lambda: not ada.clusters(), "the cluster is closed", seconds=60)


#: Says of every connection that it came.
LISTENS = """
import socket, sys
server = socket.create_server((sys.argv[1], 0), family=socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET)
print(server.getsockname()[1], flush=True)
while True:
    line, _ = server.accept()
    print("somebody came", flush=True)
    line.close()
"""


@pytest.fixture
def listening(daemon: Daemon) -> Iterator[tuple[int, Path]]:
    """A service of the machine that is nobody's business: its port, and where it says who came."""
    said = daemon.directory.parent / "came"
    with said.open("w") as out:
        service = subprocess.Popen(
            daemon.machine.command(sys.executable, "-c", LISTENS, "0.0.0.0"), stdout=out, stderr=out
        )
    yield int(wait_for(lambda: said.read_text().strip(), "the service listens")), said
    service.kill()
    service.wait()
    said.unlink()


def test_an_address_never_leads_to_what_the_machine_keeps_for_itself(
    product: DockerProduct, daemon: Daemon, listening: tuple[int, Path]
) -> None:
    port, said = listening
    people = [product.person(f"eve{number}") for number in range(4)]  # each may look so often in a minute
    addresses = (
        f"127.0.0.1:{port}/x:1",
        f"localhost:{port}/x:1",
        f"LOCALHOST:{port}/x:1",
        f"0.0.0.0:{port}/x:1",
        f"[::1]:{port}/x:1",
        f"[::ffff:127.0.0.1]:{port}/x:1",
        f"2130706433:{port}/x:1",
        f"0x7f000001:{port}/x:1",
        f"017700000001:{port}/x:1",
        f"127.1:{port}/x:1",
        f"{daemon.machine.address}:{port}/x:1",
        f"{daemon.machine.address}:{product.port}/x:1",
        "169.254.169.254/latest/meta-data:1",
        f"evil.example@127.0.0.1:{port}/x:1",
        f"http://127.0.0.1:{port}/x:1",
        f"docker://127.0.0.1:{port}/x:1",
        f"127.0.0.1:{port}/../x:1",
        f"127.0.0.1:{port}\\@quay.io/x:1",
        "unix:///run/docker.sock",
    )
    for number, address in enumerate(addresses):
        eve = people[number % len(people)]
        for path, body in (
            ("/image-looks", {"address": address}),
            ("/environments", {"title": "Inside", "image": {"address": address}}),
        ):
            answer = eve.portal("POST", path, json=body)
            assert answer.status_code in (400, 403, 502, 503), (address, answer.text)
        assert eve.portal("GET", "/environments?scope=own").json()["items"] == []
    assert said.read_text().split() == [str(port)], "nobody came"
