"""Who reaches whom, tried with real containers: the hub yes; other clusters and the machine's services no."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from spawner.docker.firewall import Reach, rules
from tests.docker.daemon import POOL, Daemon, free_port, listening
from tests.docker.hub import DockerHub

pytestmark = [pytest.mark.docker, pytest.mark.timeout(300)]

REACHED = (
    "import socket, sys\n"
    "try:\n"
    "    socket.create_connection((sys.argv[1], int(sys.argv[2])), 2).close()\n"
    "    print('yes')\n"
    "except OSError:\n"
    "    print('no')\n"
)


@pytest.fixture(scope="module")
def clusters(hub: DockerHub) -> Iterator[DockerHub]:
    """Two clusters of two people, and the rules of the firewall in the daemon's machine."""
    hub.run("mine", nodes=2)
    hub.run("theirs", user="eve")
    yield hub
    hub.release("mine")
    hub.release("theirs", user="eve")
    hub.daemon.machine.run("nft", "delete", "table", "inet", "galilean_docker", check=False)


def put_in(daemon: Daemon, reach: Reach) -> None:
    done = subprocess.run(
        daemon.machine.command("nft", "-f", "-"), input=rules(reach), capture_output=True, text=True, check=False
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def reach_of(hub: DockerHub) -> Reach:
    return Reach(
        pool=POOL,
        address=hub.gateway,
        ports=[hub.ports[1]],
        not_outside=("10.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.168.0.0/16"),
    )


@pytest.fixture
def asks(clusters: DockerHub, daemon: Daemon) -> Callable[[str, str, int], str]:
    """Whether a container reaches an address."""
    put_in(daemon, reach_of(clusters))

    def ask(container: str, address: str, port: int) -> str:
        return daemon.execute(container, "/usr/bin/python3", "-IS", "-c", REACHED, address, str(port)).strip()

    return ask


def address_of(hub: DockerHub, server: str, rank: int = 0, user: str = "ada") -> str:
    found = next(item for item in hub.containers(server, user) if item["Name"].endswith(f"-{rank}"))
    return found["NetworkSettings"]["Networks"][hub.network(server, user)]["IPAddress"]


def test_nodes_of_a_cluster_reach_one_another_and_the_hub(
    clusters: DockerHub, asks: Callable[[str, str, int], str]
) -> None:
    node = clusters.container("mine")
    assert asks(node, address_of(clusters, "mine", 1), 8888) == "yes"
    assert asks(node, clusters.gateway, clusters.ports[1]) == "yes"


def test_nodes_of_another_cluster_are_out_of_reach(
    clusters: DockerHub, asks: Callable[[str, str, int], str]
) -> None:
    assert asks(clusters.container("theirs", user="eve"), address_of(clusters, "mine"), 8888) == "no"
    assert asks(clusters.container("mine"), address_of(clusters, "theirs", user="eve"), 8888) == "no"


def test_the_machine_s_own_services_are_out_of_reach_at_every_address(
    clusters: DockerHub, daemon: Daemon, asks: Callable[[str, str, int], str]
) -> None:
    node, port = clusters.container("mine"), free_port()
    bridge = address_of(clusters, "mine").rpartition(".")[0]
    gateway = clusters.containers("mine")[0]["NetworkSettings"]["Networks"][clusters.network("mine")][
        "Gateway"
    ]
    assert gateway.startswith(bridge)
    service = listening(daemon.machine, "0.0.0.0", port)
    try:
        for address in (gateway, clusters.gateway, daemon.machine.address):
            assert asks(node, address, port) == "no", address
        daemon.machine.run("nft", "delete", "table", "inet", "galilean_docker")
        code = [clusters.container("mine"), "/usr/bin/python3", "-IS", "-c", REACHED, gateway, str(port)]
        assert daemon.execute(*code).strip() == "yes", "without the rules it would be reached"
    finally:
        service.kill()
        service.wait()
    # The proxy's API and the hub's neighbours are such services.
    put_in(daemon, reach_of(clusters))
    assert asks(node, daemon.machine.address, clusters.ports[2]) == "no"


def test_the_outside_is_reached_and_private_networks_are_not(
    clusters: DockerHub, daemon: Daemon, asks: Callable[[str, str, int], str]
) -> None:
    import socket

    node = clusters.container("mine")
    with socket.create_server((daemon.machine.outside, 0)) as outside:
        port = outside.getsockname()[1]
        assert asks(node, daemon.machine.outside, port) == "yes"
        private = replace(reach_of(clusters), not_outside=(f"{daemon.machine.outside}/32",))
        put_in(daemon, private)
        assert asks_without(daemon, node, daemon.machine.outside, port) == "no"
        put_in(daemon, replace(private, reaches=(f"{daemon.machine.outside}/32",)))
        assert asks_without(daemon, node, daemon.machine.outside, port) == "yes"
        put_in(daemon, replace(reach_of(clusters), outside=False))
        assert asks_without(daemon, node, daemon.machine.outside, port) == "no"


def asks_without(daemon: Daemon, node: str, address: str, port: int) -> str:
    return daemon.execute(node, "/usr/bin/python3", "-IS", "-c", REACHED, address, str(port)).strip()


def test_a_neighbour_of_the_machine_reaches_neither_nodes_nor_the_hub_s_inner_address(
    clusters: DockerHub, daemon: Daemon, asks: Callable[[str, str, int], str]
) -> None:
    """Who sits on the same wire can route the pool's addresses to the machine."""
    outside = daemon.machine.outside
    node = address_of(clusters, "mine")
    subprocess.run(["ip", "route", "add", POOL, "via", daemon.machine.address], check=True)
    try:
        for address, port in ((node, 8888), (clusters.gateway, clusters.ports[1])):
            done = subprocess.run(
                [sys.executable, "-IS", "-c", REACHED, address, str(port)],
                capture_output=True, text=True, check=True, timeout=30,
            )  # fmt: skip
            assert done.stdout.strip() == "no", (outside, address)
    finally:
        subprocess.run(["ip", "route", "del", POOL, "via", daemon.machine.address], check=True)
