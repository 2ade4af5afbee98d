"""Ways to licence servers in the firewall: as text, by a real nft, and by real containers."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import pytest

from galilean.errors import UserError
from spawner.docker.firewall import LICENCES, TABLE, Reach, rules
from spawner.docker.gate import Gate, change, elements
from spawner.docker.names import bridge_name
from spawner.licences import Way
from tests.docker.daemon import POOL, Daemon, free_port
from tests.docker.hub import DockerHub
from tests.docker.test_isolation import REACHED, address_of, put_in, reach_of

FLEX = (Way("10.20.30.40", 27000), Way("10.20.30.40", 27001))
PRIVATE = ("10.0.0.0/8",)


def test_only_what_differs_is_changed_and_all_at_once() -> None:
    there = [["gal-a", "10.20.30.40", "tcp", 27000], ["gal-a", "10.9.9.9", "udp", 1947]]
    assert change("gal-a", there, FLEX).splitlines() == [
        f'delete element inet {TABLE} {LICENCES} {{ "gal-a" . 10.9.9.9 . udp . 1947 }}',
        f'add element inet {TABLE} {LICENCES} {{ "gal-a" . 10.20.30.40 . tcp . 27001 }}',
    ]
    assert change("gal-a", [there[0]], FLEX[:1]) == ""


@dataclass
class Nft:
    """What nft was told; it has these elements, or does not work."""

    there: list[list[object]] = field(default_factory=list)
    broken: str = ""
    told: list[str] = field(default_factory=list)

    def __call__(self, words: Sequence[str], text: str) -> str:
        if self.broken:
            raise OSError(self.broken)
        if "--json" not in words:
            self.told.append(text)
        return json.dumps({"nftables": [{"set": {"elem": [{"concat": one} for one in self.there]}}]})


def test_what_is_left_of_the_cluster_before_goes_also_when_nothing_is_asked_for() -> None:
    nft = Nft([["gal-a", "10.20.30.40", "tcp", 27000], ["gal-b", "10.20.30.40", "tcp", 27000]])
    Gate(may_apply=lambda: True, nft=nft).open("gal-a", ())
    assert len(nft.told) == 1
    assert nft.told[0].startswith("delete") and "gal-b" not in nft.told[0]


def test_a_start_is_refused_when_it_cannot_be_sure() -> None:
    gate = Gate(may_apply=lambda: True, nft=Nft(broken="netlink: busy"))
    with pytest.raises(UserError, match="busy"):
        gate.open("gal-a", ())
    gate.close("gal-a")  # a removal goes on
    Gate(may_apply=lambda: True, nft=Nft(broken="Error: No such file or directory")).open("gal-a", ())


def test_without_root_only_what_stands_open_for_all_is_open() -> None:
    gate = Gate(may_apply=lambda: False, not_outside=PRIVATE, reaches=("10.20.30.0/24",), nft=Nft(broken="x"))
    gate.open("gal-a", FLEX)
    gate.open("gal-a", (Way("198.51.100.7", 27000),))
    with pytest.raises(UserError, match=r"docker\.reaches"):
        gate.open("gal-a", (Way("10.77.0.1", 27000),))
    with pytest.raises(UserError):
        replace(gate, outside=False).open("gal-a", (Way("198.51.100.7", 27000),))


def test_nft_takes_it_and_keeps_it_when_the_rules_are_put_in_again(tmp_path) -> None:
    if not shutil.which("nft") or not shutil.which("unshare"):
        pytest.skip("nft is missing")
    reach = Reach(pool=POOL, address="10.213.0.1", ports=[20001], not_outside=PRIVATE)
    for name, text in (("rules", rules(reach)), ("open", change("gal-a", [], FLEX))):
        (tmp_path / name).write_text(text)
    script = (
        f"nft -f rules && nft -f open && nft -f rules && nft --json list set inet {TABLE} {LICENCES} && "
        f"nft list table inet {TABLE} >&2"
    )
    done = subprocess.run(
        ["unshare", "--user", "--map-root-user", "--net", "sh", "-c", script],
        cwd=tmp_path, capture_output=True, text=True, check=False, timeout=30,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    there = elements(json.loads(done.stdout), "gal-a")
    assert change("gal-a", there, FLEX) == "", "the set says it in the words that are read"
    assert done.stderr.count("@licences accept") == 1, "the rules are there once"


# ---- real containers

LISTENS = (
    "import socket, sys\n"
    "server = socket.create_server((sys.argv[1], int(sys.argv[2])))\n"
    "print('ready', flush=True)\n"
    "while True:\n"
    "    line, _ = server.accept(); line.sendall(b'licence'); line.close()\n"
)


@pytest.fixture(scope="module")
def licensed(hub_of: Callable[..., DockerHub], daemon: Daemon) -> Iterator[tuple[DockerHub, int, int]]:
    """A hub with an environment that names a licence server in a private network, and a port beside its own."""
    outside, port, beside = daemon.machine.outside, free_port(), free_port()
    private = [f"{outside}/32", "10.0.0.0/8"]
    servers = [
        subprocess.Popen([sys.executable, "-c", LISTENS, outside, str(one)], stdout=subprocess.PIPE)
        for one in (port, beside)
    ]
    for one in servers:
        assert one.stdout and one.stdout.readline().strip() == b"ready"
    hub = hub_of(
        licences={"licensed": [outside, [port]], "inward": ["10.213.0.1", [port]]},
        not_outside=private,
        hostnames={"licensed": "cae-{person}"},
    )
    put_in(daemon, replace(reach_of(hub), not_outside=private))
    yield hub, port, beside
    for one in servers:
        one.kill()
        one.wait()
    daemon.machine.run("nft", "delete", "table", "inet", TABLE, check=False)


def reaches(daemon: Daemon, node: str, address: str, port: int) -> bool:
    said = daemon.execute(node, "/usr/bin/python3", "-IS", "-c", REACHED, address, str(port))
    return said.strip() == "yes"


@pytest.mark.docker
@pytest.mark.timeout(300)
def test_a_run_reaches_its_licence_server_at_its_port_and_nobody_else_does(
    licensed: tuple[DockerHub, int, int], daemon: Daemon
) -> None:
    hub, port, beside = licensed
    outside = daemon.machine.outside
    hub.run("licensed", nodes=2)
    hub.run("plain", user="eve")
    first, second = hub.container("licensed", 0), hub.container("licensed", 1)
    try:
        assert reaches(daemon, first, outside, port) and reaches(daemon, second, outside, port)
        assert not reaches(daemon, first, outside, beside), "another port of that server stays shut"
        assert not reaches(daemon, hub.container("plain", user="eve"), outside, port)
        put_in(daemon, replace(reach_of(hub), not_outside=[f"{outside}/32"]))
        assert reaches(daemon, first, outside, port), "a start of the product does not cut anybody off"
        assert daemon.execute(second, "hostname").strip() == "cae-ada-1"
        assert reaches(daemon, first, "node-1", 8888), "nodes keep their names for one another"
        assert json.loads(hub.row("licensed")["state"])["licences"] == [f"{outside}:{port}"]
    finally:
        hub.release("licensed")
        hub.release("plain", user="eve")
    said = daemon.machine.run("nft", "--json", "list", "set", "inet", TABLE, LICENCES)
    assert elements(json.loads(said), bridge_name(hub.instance, hub.base("licensed"))) == []


@pytest.mark.docker
@pytest.mark.timeout(300)
def test_a_way_that_leads_to_the_hub_is_refused_with_the_reason(
    licensed: tuple[DockerHub, int, int], daemon: Daemon
) -> None:
    hub, _, _ = licensed
    said = hub.post_refused("inward", 403)
    assert "belongs to the platform" in said, said
    hub.closed("inward")
    hub.nothing_left("inward")


@pytest.mark.docker
@pytest.mark.timeout(300)
def test_what_a_killed_hub_left_open_is_not_the_next_runs(
    licensed: tuple[DockerHub, int, int], daemon: Daemon
) -> None:
    hub, port, _ = licensed
    left = change(bridge_name(hub.instance, hub.base("plain")), [], [Way(daemon.machine.outside, port)])
    subprocess.run(daemon.machine.command("nft", "-f", "-"), input=left, text=True, check=True)
    hub.run("plain")
    try:
        assert address_of(hub, "plain")
        assert not reaches(daemon, hub.container("plain"), daemon.machine.outside, port)
    finally:
        hub.release("plain")
