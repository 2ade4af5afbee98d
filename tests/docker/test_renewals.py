"""One container of a running cluster restarted or reset on a real Docker, while the others go on."""

from __future__ import annotations

import stat
from collections.abc import Iterator

import pytest

from tests.asking import Asking
from tests.docker.daemon import Daemon
from tests.docker.hub import DockerHub
from tests.process.hub import eventually

pytestmark = [pytest.mark.docker, pytest.mark.timeout(400)]


@pytest.fixture
def asking(hub: DockerHub) -> Iterator[Asking]:
    hub.run("again", nodes=2)
    found = Asking(hub.state, "ada", "again")
    yield found
    found.close()
    hub.release("again")
    hub.nothing_left("again")


def said(daemon: Daemon, container: str, command: str) -> str:
    made = daemon.client.exec_create(container, ["/bin/sh", "-c", command])
    return daemon.client.exec_start(made["Id"]).decode().strip()


def test_a_restart_keeps_the_container_and_a_reset_makes_it_from_its_image(
    hub: DockerHub, daemon: Daemon, asking: Asking
) -> None:
    one, zero = hub.container("again", 1), hub.container("again")
    other = daemon.client.inspect_container(zero)
    first = daemon.client.inspect_container(one)
    said(daemon, one, "echo mine > /tmp/mine; echo kept > ~/work/kept")
    node = asking.renew(1, "restart")
    assert node.ready_at is not None, asking.why(node)
    second = daemon.client.inspect_container(one)
    assert (second["Id"], second["State"]["Running"]) == (first["Id"], True)
    assert second["State"]["StartedAt"] != first["State"]["StartedAt"]
    assert said(daemon, one, "cat /tmp/mine") == "mine"

    node = asking.renew(1, "reset")
    assert node.ready_at is not None, asking.why(node)
    third = daemon.client.inspect_container(one)
    assert third["Id"] != second["Id"]
    assert third["Image"] == second["Image"]
    assert said(daemon, one, "test -e /tmp/mine || echo gone") == "gone"
    assert said(daemon, one, "cat ~/work/kept") == "kept"
    for name in ("NanoCpus", "Memory", "MemorySwap", "PidsLimit", "CapDrop", "SecurityOpt"):
        assert third["HostConfig"][name] == first["HostConfig"][name], "its limits stay"
    (network,) = third["NetworkSettings"]["Networks"].values()
    (before,) = first["NetworkSettings"]["Networks"].values()
    assert network["IPAddress"] == before["IPAddress"]
    assert said(daemon, zero, "getent hosts node-1").split()[0] == network["IPAddress"]

    now = daemon.client.inspect_container(zero)
    assert now["State"]["StartedAt"] == other["State"]["StartedAt"], "the other was not touched"
    lives = [node for node in asking.nodes() if node.rank == 1]
    assert [node.exit_reason for node in lives] == ["restarted", "reset", ""]
    assert [node.ready_at for node in lives[1:]] == [node.gone_at for node in lives[:-1]]


def test_node_0_comes_back_and_the_hub_keeps_the_server(hub: DockerHub, asking: Asking) -> None:
    node = asking.renew(0, "reset")
    assert node.ready_at is not None, asking.why(node)
    assert hub.ready("again")
    assert len(hub.containers("again")) == 2


def test_what_nodes_are_made_from_is_kept_where_only_the_hub_reads(hub: DockerHub, asking: Asking) -> None:
    folder = hub.state / "clusters" / hub.base("again")
    assert stat.S_IMODE((folder / "containers.json").stat().st_mode) == 0o600
    assert "containers.json" not in {path.name for path in (folder / "secrets").iterdir()}


def test_an_image_that_lost_its_name_still_makes_its_node(
    hub: DockerHub, daemon: Daemon, asking: Asking
) -> None:
    """A tag that means another image by now does not change what the node goes back to."""
    one = hub.container("again", 1)
    before = daemon.client.inspect_container(one)["Image"]
    node = asking.renew(1, "reset")
    assert node.ready_at is not None, asking.why(node)
    assert daemon.client.inspect_container(one)["Image"] == before


def test_a_container_that_ends_at_once_is_told_of_and_the_other_goes_on(
    hub: DockerHub, daemon: Daemon, asking: Asking
) -> None:
    import json

    recipe = hub.state / "clusters" / hub.base("again") / "containers.json"
    good = recipe.read_text()
    broken = json.loads(good)
    broken["containers"]["1"]["Cmd"] = ["/usr/bin/python3", "-c", "raise SystemExit(3)"]
    recipe.write_text(json.dumps(broken))
    node = asking.renew(1, "reset")
    assert node.gone_at is not None
    assert "exited 3" in asking.why(node)
    assert hub.ready("again")
    recipe.write_text(good)
    node = asking.renew(1, "reset")
    assert node.ready_at is not None, asking.why(node)


def test_a_killed_hub_is_followed_by_one_that_brings_the_node_back(
    hub: DockerHub, daemon: Daemon, asking: Asking
) -> None:
    first = daemon.client.inspect_container(hub.container("again", 1))["State"]["StartedAt"]
    asked = asking.ask(1, "restart")
    eventually(
        lambda: (
            daemon.client.inspect_container(hub.container("again", 1))["State"]["StartedAt"] != first
            or not daemon.client.inspect_container(hub.container("again", 1))["State"]["Running"]
        ),
        60,
        "it has begun",
    )
    hub.process.kill()
    hub.process.wait()
    hub.start()
    node = asking.over(asked)
    assert node.ready_at is not None, asking.why(node)
    assert len(hub.containers("again")) == 2
    assert hub.sweep().clean
