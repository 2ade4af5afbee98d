"""``~/scratch`` of containers: the node's own, gone with it whoever removes it."""

from __future__ import annotations

import pytest

from spawner.docker import names
from tests.docker.daemon import Daemon
from tests.docker.hub import DockerHub

pytestmark = [pytest.mark.docker, pytest.mark.timeout(300)]
PLACE = "/home/jovyan/scratch"


def test_scratch_is_the_nodes_own_and_goes_with_the_cluster(hub: DockerHub, daemon: Daemon) -> None:
    hub.run("scratch", nodes=2)
    head, worker = hub.container("scratch"), hub.container("scratch", 1)
    daemon.execute(head, "cp", "/proc/self/status", f"{PLACE}/mine")
    assert "mine" in daemon.execute(head, "ls", PLACE)
    assert "mine" not in daemon.execute(worker, "ls", PLACE)
    assert daemon.execute(worker, "stat", "-c", "%u:%g %a", PLACE).split() == ["1000:1000", "700"]
    assert len(hub.volumes("scratch")) == 2
    hub.release("scratch")
    hub.nothing_left("scratch")


def test_scratch_of_a_container_that_somebody_removed_goes_with_the_cluster(
    hub: DockerHub, daemon: Daemon
) -> None:
    hub.run("byhand")
    daemon.client.remove_container(hub.container("byhand"), force=True)  # its volume stays
    hub.closed("byhand")
    hub.nothing_left("byhand")


def test_scratch_that_nobody_knows_of_is_swept(hub: DockerHub, daemon: Daemon) -> None:
    base = hub.base("ghost", user="nobody")
    found = {
        names.INSTANCE: hub.instance, names.RUN: "01J00000000000000000000000", names.CLUSTER: base,
        names.EXACT_USER: "nobody", names.EXACT_SERVER: "ghost",
    }  # fmt: skip
    daemon.client.create_volume("left-behind", labels=found)
    daemon.client.create_volume("somebody-elses", labels={names.CLUSTER: base})
    hub.sweep(by_hand=True)
    assert not hub.volumes("ghost", user="nobody")
    daemon.client.remove_volume("somebody-elses")
