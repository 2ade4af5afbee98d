"""The whole product on one server with Docker: `galilean up`, a cluster of two nodes, its end."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import docker.errors
import httpx
import pytest

from spawner.docker import names
from spawner.docker.firewall import TABLE
from tests.docker.daemon import IMAGE, UID, Daemon, free_port
from tests.docker.test_isolation import REACHED
from tests.product import ssh
from tests.product.product import GALILEAN, ROOT, Product, wait_for
from tests.product.ssh import Computer

pytestmark = [pytest.mark.docker, pytest.mark.timeout(900)]


class DockerProduct(Product):
    """An installation on the machine of the tests' Docker.

    Parameters
    ----------
    more
        Settings on top of those that it needs there.
    cluster
        How nodes begin; by this machine's own programs when left out.
    """

    def __init__(
        self,
        directory: Path,
        daemon: Daemon,
        more: dict[str, Any] | None = None,
        cluster: dict[str, Any] | None = None,
    ) -> None:
        self.daemon = daemon
        if cluster is None:
            cluster = {
                "command": [sys.executable, "-m", "spawner.node.container"],
                "extra_host_config": {"Mounts": daemon.mounts()},
            }
        settings: dict[str, Any] = {
            "backend": "docker",
            "docker": {"image": IMAGE, "url": daemon.url, "cpu_overcommit": 8, "instance": f"p{free_port()}"},
            "web": {"host": daemon.machine.address},
            "environments": {"jupyter": {"title": "JupyterLab", "variables": {"PYTHONPATH": str(ROOT)}}},
            "jupyterhub": {"DockerCluster": cluster},
            "gang_timeout_seconds": 480,
            "start_timeout_seconds": 480,
            "images": {"distribution": {"reserve_percent": 1}},  # however full the disk of these tests is
            **(more or {}),
        }
        super().__init__(directory, settings)
        self.instance = settings["docker"]["instance"]
        self.url = f"http://{daemon.machine.address}:{self.port}"
        self.http = httpx.Client(base_url=self.url, timeout=60, trust_env=False)

    def launch(self) -> None:
        with self.output.open("ab") as log:
            self.process = subprocess.Popen(
                self.daemon.machine.command(GALILEAN, "up"),
                cwd=ROOT,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def wait_ready(self, seconds: float = 400) -> None:
        super().wait_ready(seconds)

    def close(self) -> None:
        """The next installation of the same daemon wants the same addresses, by another name."""
        super().close()
        with contextlib.suppress(docker.errors.NotFound):
            self.daemon.client.remove_network(f"{self.instance}-hub")

    def command(self, *words: str, stdin: str = "", code: int | None = 0) -> str:
        done = subprocess.run(
            self.daemon.machine.command(GALILEAN, *words),
            cwd=ROOT, env=self.environment, input=stdin, capture_output=True, text=True, timeout=300, check=False,
        )  # fmt: skip
        assert code is None or done.returncode == code, (words, done.stdout, done.stderr)
        return done.stdout


@pytest.fixture(scope="module")
def product(daemon: Daemon) -> Iterator[DockerProduct]:
    """Beside the daemon, where other accounts come through: pytest closes its own directories to them."""
    directory = daemon.directory.parent / "product"
    directory.mkdir(mode=0o755)
    found = DockerProduct(directory, daemon)
    found.start()
    yield found
    found.close()
    daemon.machine.run("nft", "delete", "table", "inet", "galilean_docker", check=False)


def test_a_person_runs_two_nodes_and_everything_goes_back(product: DockerProduct, daemon: Daemon) -> None:
    ada = product.person("ada")
    slug = ada.project("Heat")
    answer = ada.run(slug, project=slug, nodes=2, cpu=1, memory="1G")
    assert answer.status_code in (201, 202), answer.text
    wait_for(lambda: ada.is_ready(slug), f"{slug} is ready", seconds=400)
    for rank in (0, 1):
        assert ada.node(slug, rank).status_code == 200
    (cluster,) = ada.clusters()
    assert cluster["nodes"] == 2
    mine = daemon.containers(**{names.INSTANCE: product.instance})
    assert len(mine) == 2
    for item in mine:
        daemon.execute(item["Id"], "touch", f"/home/jovyan/work/{item['Config']['Hostname']}")
    there = {path.name for path in (product.state / "volumes").rglob("node-*")}
    assert there == {"node-0", "node-1"}

    def counted() -> float:
        return ada.portal("GET", "/usage", params={"by": "project"}).json()["items"][0]["seconds"]

    wait_for(lambda: counted() > 0, "a second is counted")  # less is rounded to none
    assert ada.stop(slug).status_code in (202, 204)
    wait_for(lambda: not ada.clusters(), "the cluster is closed", seconds=60)
    assert not daemon.containers(**{names.INSTANCE: product.instance})
    assert "should" in product.command("sweep")
    (used,) = ada.portal("GET", "/usage", params={"by": "project"}).json()["items"]
    assert used["seconds"] > 0
    assert used["cpu_core_minutes"] > 0


def test_a_disk_is_written_by_the_head_alone_and_only_read_by_readers(
    product: DockerProduct, daemon: Daemon
) -> None:
    dora = product.person("dora")
    assert dora.portal("POST", "/disks", json={"name": "io-data", "size_gib": 1}).status_code == 201
    place = "/home/jovyan/disks/io-data"

    def containers_of(slug: str, mode: str) -> list[str]:
        answer = dora.run(slug, project=slug, nodes=2, cpu=1, memory="1G", disks={"io-data": mode})
        assert answer.status_code in (201, 202), answer.text
        wait_for(lambda: dora.is_ready(slug), f"{slug} is ready", seconds=400)
        mine = daemon.containers(**{names.INSTANCE: product.instance})
        return [item["Id"] for item in sorted(mine, key=lambda item: item["Config"]["Hostname"])]

    writer = dora.project("Writer")
    head, worker = containers_of(writer, "write")
    daemon.execute(head, "cp", "/proc/self/status", f"{place}/mine")
    assert "io-data" not in daemon.execute(worker, "sh", "-c", "ls ~/disks 2>&1 || true")
    reader = dora.project("Reader")
    assert dora.run(reader, project=reader, disks={"io-data": "read"}).status_code == 409
    dora.stop(writer)
    wait_for(lambda: not dora.clusters(), "the writer went back", seconds=60)
    for one in containers_of(reader, "read"):
        assert "Name:" in daemon.execute(one, "cat", f"{place}/mine")
        assert "Read-only" in daemon.execute(one, "sh", "-c", f"touch {place}/theirs 2>&1 || true")
    dora.stop(reader)
    wait_for(lambda: not dora.clusters(), "the reader went back", seconds=60)


def test_ssh_from_outside_into_containers(product: DockerProduct, tmp_path: Path) -> None:
    """scp, rsync, a dynamic forward, and what VS Code Remote does, with a key from the account page."""
    kim = product.person("kim")
    slug = kim.project("Remote")
    assert kim.run(slug, project=slug, nodes=2, cpu=1, memory="1G").status_code in (201, 202)
    computer = Computer(tmp_path / "kim", f"{product.url}/user/kim/", kim.token, "jovyan")
    wait_for(lambda: kim.is_ready(slug), f"{slug} is ready", seconds=400)
    refused = computer.do("ssh", f"{slug}.galilean", "true")
    assert "Permission denied (publickey)" in refused.stderr
    key = kim.portal("POST", "/ssh-keys", json={"public_key": computer.public})
    assert key.status_code == 201, key.text
    ssh.tell(computer, slug)
    # Neither the metadata of a cloud, nor the machine, nor the hub is reached through a node.
    for there in ("169.254.169.254:80", f"{product.daemon.machine.address}:{product.port}"):
        beyond = computer.do("ssh", "-W", there, f"{slug}.galilean")
        assert beyond.returncode != 0 and "administratively prohibited" in beyond.stderr
    opened = computer.open(f"node-1.{slug}.galilean", "echo in; exec sleep 600")
    assert opened.stdout is not None and opened.stdout.readline() == "in\n"
    assert kim.portal("DELETE", f"/ssh-keys/{key.json()['id']}").status_code == 204
    wait_for(lambda: opened.poll() is not None, "who came with it is cut off", seconds=40)
    opened.communicate()
    assert kim.stop(slug).status_code in (202, 204)
    wait_for(lambda: not kim.clusters(), "the cluster is closed", seconds=60)


@pytest.mark.parametrize("what", ["delete", "flush"])
def test_a_firewall_that_somebody_empties_is_put_back_while_nodes_run(
    product: DockerProduct, daemon: Daemon, what: str
) -> None:
    eve = product.person(f"eve-{what}")
    slug = eve.project("Walls")
    assert eve.run(slug, project=slug, memory="1G", cpu=1).status_code in (201, 202)
    wait_for(lambda: eve.is_ready(slug), f"{slug} is ready", seconds=400)
    (node,) = daemon.containers(**{names.INSTANCE: product.instance})
    gateway = node["NetworkSettings"]["Networks"].popitem()[1]["Gateway"]
    port = free_port()
    server = subprocess.Popen(
        daemon.machine.command(sys.executable, "-m", "http.server", "--bind", "0.0.0.0", str(port)),
        cwd="/var/empty" if Path("/var/empty").is_dir() else "/usr/share/doc", stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip

    def reaches() -> bool:
        return (
            daemon.execute(node["Id"], "/usr/bin/python3", "-IS", "-c", REACHED, gateway, str(port)) == "yes"
        )

    try:
        here = ("python3", "-c", f"import socket; socket.create_connection(('127.0.0.1', {port}))")
        wait_for(
            lambda: subprocess.run(daemon.machine.command(*here), capture_output=True).returncode == 0,
            "it serves",
        )
        assert not reaches()
        daemon.machine.run("nft", what, "table", "inet", TABLE)
        wait_for(
            lambda: "counter" in daemon.machine.run("nft", "list", "table", "inet", TABLE, check=False),
            "the rules are back",
            seconds=120,
        )
        assert not reaches()
        log = (product.state / "logs/hub.log").read_text()
        assert "nodes could reach this machine's services" in log
    finally:
        server.kill()
        server.wait()
        eve.stop(slug)
        wait_for(lambda: not eve.clusters(), "the cluster is closed", seconds=60)


def test_more_cpu_than_the_machine_has_is_refused_with_the_reason(product: DockerProduct) -> None:
    boss = product.person("grace", role="admin")
    slug = boss.project("Huge")
    cpus = len(os.sched_getaffinity(0))
    answer = boss.run(slug, project=slug, nodes=1, cpu=cpus + 1, memory="1G")
    assert answer.status_code == 400, answer.text
    assert f"this machine has {cpus} CPUs" in answer.text
    assert not boss.clusters()


def test_nodes_outlive_the_hub_and_go_with_ctrl_c(product: DockerProduct, daemon: Daemon) -> None:
    mary = product.person("mary")
    slug = mary.project("Long")
    assert mary.run(slug, project=slug, memory="1G", cpu=1).status_code in (201, 202)
    wait_for(lambda: mary.is_ready(slug), f"{slug} is ready", seconds=400)
    (before,) = daemon.containers(**{names.INSTANCE: product.instance})
    product.end(signal.SIGTERM)
    assert daemon.client.inspect_container(before["Id"])["State"]["Running"]
    product.start()
    wait_for(lambda: mary.is_ready(slug), "it is ready again", seconds=60)
    assert mary.node(slug).status_code == 200
    product.end(signal.SIGINT)
    assert not daemon.containers(**{names.INSTANCE: product.instance})


def test_without_the_firewall_the_product_does_not_start(product: DockerProduct, daemon: Daemon) -> None:
    """Somebody who is not root and has not put the rules in: nodes would reach the machine's services."""
    if product.process is not None and product.process.poll() is None:
        product.end(signal.SIGTERM)
    daemon.machine.run("nft", "delete", "table", "inet", "galilean_docker")
    product.state.chmod(0o700)
    for path in (product.state, *product.state.rglob("*")):
        os.chown(path, UID, UID, follow_symlinks=False)
    daemon.socket.chmod(0o666)
    done = subprocess.run(
        daemon.machine.command(
            *("setpriv", f"--reuid={UID}", f"--regid={UID}", "--clear-groups"),
            *("--inh-caps", "+dac_read_search", "--ambient-caps", "+dac_read_search"),  # Python may be root's
            *(GALILEAN, "up"),
        ),
        cwd="/", env=product.environment, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode != 0
    assert "galilean firewall | sudo nft -f -" in done.stdout + done.stderr
    rules = product.command("firewall")
    subprocess.run(daemon.machine.command("nft", "-f", "-"), input=rules, text=True, check=True)
    product.start()
