"""What goes wrong on a real Docker, and what is left of it: nothing, and a reason."""

from __future__ import annotations

import json
import time

import pytest

from spawner.docker import names
from tests.docker.daemon import Daemon
from tests.docker.hub import DockerHub
from tests.process.hub import eventually

pytestmark = [pytest.mark.docker, pytest.mark.timeout(300)]


def why(hub: DockerHub, server: str) -> str:
    """The sentence that the owner of a run reads."""
    said = json.loads(hub.row(server)["explanation"] or "{}")
    return said.get("message", "").format(**said.get("params", {}))


def test_a_worker_that_is_killed_takes_the_cluster_along_with_the_reason(
    hub: DockerHub, daemon: Daemon
) -> None:
    hub.run("killed", nodes=2)
    daemon.client.kill(hub.container("killed", 1), signal="KILL")
    row = hub.closed("killed")
    assert row["reason"] == "node_lost"
    assert "killed by signal 9" in why(hub, "killed")
    assert [node["exit_reason"] for node in hub.nodes("killed")] == ["released", "killed by signal 9"]
    hub.nothing_left("killed")


def test_a_container_that_somebody_removed_is_a_lost_node(hub: DockerHub, daemon: Daemon) -> None:
    hub.run("removed")
    daemon.client.remove_container(hub.container("removed"), force=True)
    assert hub.closed("removed")["reason"] == "node_lost"
    hub.nothing_left("removed")


def test_a_node_that_wants_too_much_memory_is_told_so(hub: DockerHub, daemon: Daemon) -> None:
    hub.run("hungry", memory="64M")
    eat = "x = []\nwhile True: x.append(bytearray(2**20))\n"
    made = daemon.client.exec_create(
        hub.container("hungry"), ["/usr/bin/python3", "-IS", "-c", eat], user="1000"
    )
    daemon.client.exec_start(made["Id"])
    # The kernel may take the eater and leave the node; then the node eats, too.
    found = daemon.client.inspect_container(hub.container("hungry"))["State"]
    if found["Running"]:
        assert daemon.client.exec_inspect(made["Id"])["ExitCode"] == 137
        hub.release("hungry")
    else:
        hub.closed("hungry")
        assert hub.nodes("hungry")[0]["exit_reason"] == "out of memory"
    hub.nothing_left("hungry")


def test_with_on_node_loss_keep_the_rest_goes_on(hub: DockerHub, daemon: Daemon) -> None:
    hub.run("keep", nodes=3, on_node_loss="keep")
    daemon.client.kill(hub.container("keep", 2), signal="KILL")
    eventually(lambda: hub.nodes("keep")[2]["gone_at"], 30, "the loss is written")
    assert hub.ready("keep")
    hub.release("keep")
    assert [node["exit_reason"] for node in hub.nodes("keep")] == [
        "released",
        "released",
        "killed by signal 9",
    ]
    hub.nothing_left("keep")


def test_an_image_that_is_not_there_is_told_of_and_nothing_stays(failing_hub: DockerHub) -> None:
    hub = failing_hub
    hub.post("none", nodes=2)
    hub.closed("none")
    assert hub.row("none")["status"] == "failed"
    assert "galilean-test:missing is not on this machine" in why(hub, "none")
    hub.nothing_left("none")


def test_an_image_that_no_registry_has_is_told_of(hub: DockerHub) -> None:
    hub.post("nowhere")
    hub.closed("nowhere")
    assert "127.0.0.1:9/galilean/none:1 cannot be fetched" in why(hub, "nowhere")
    hub.nothing_left("nowhere")


def test_sudo_on_a_disk_that_would_let_root_out_is_refused_before_anything_is_made(hub: DockerHub) -> None:
    hub.post("rooted")
    hub.closed("rooted")
    assert "“~/work”" in why(hub, "rooted")
    assert "nosuid" in why(hub, "rooted")
    hub.nothing_left("rooted")


def test_a_node_that_ends_before_it_answers_shows_its_log(failing_hub: DockerHub) -> None:
    hub = failing_hub
    hub.post("early", nodes=2)
    hub.closed("early")
    assert "exited 3" in why(hub, "early")
    assert "no licence today" in why(hub, "early")
    hub.nothing_left("early")


def test_a_start_that_is_cancelled_leaves_nothing(slow_hub: DockerHub) -> None:
    hub = slow_hub
    for server, there in (("early", 0), ("late", 2)):
        hub.post(server, nodes=2)
        eventually(lambda server=server, there=there: len(hub.containers(server)) >= there, 60)
        hub.delete(server)
        hub.closed(server)
        hub.nothing_left(server)
        assert hub.row(server)["ready_at"] is None


@pytest.mark.parametrize("there", [0, 3])
def test_a_hub_that_is_killed_in_a_start_leaves_it_to_the_next(slow_hub: DockerHub, there: int) -> None:
    hub, server = slow_hub, f"lost-{there}"
    hub.post(server, nodes=3)
    eventually(lambda: len(hub.containers(server)) >= there and hub.row(server)["id"], 60)
    hub.kill()
    hub.start()
    row = hub.closed(server)
    assert row["reason"] == "hub_lost"
    assert row["status"] == "failed"
    hub.nothing_left(server)
    hub.fits()


def test_a_hub_that_comes_back_finds_its_nodes_running(hub: DockerHub) -> None:
    hub.run("stays", nodes=2)
    before = {item["Id"] for item in hub.containers("stays")}
    hub.kill()
    hub.start()
    eventually(lambda: hub.ready("stays"), 30)
    assert {item["Id"] for item in hub.containers("stays")} == before
    hub.release("stays")
    hub.nothing_left("stays")


def test_a_network_that_was_left_over_is_in_nobody_s_way(hub: DockerHub, daemon: Daemon) -> None:
    labels = {
        names.INSTANCE: hub.instance,
        names.RUN: "01J00000000000000000000LD0",
        names.CLUSTER: hub.base("left"),
        names.EXACT_USER: "ada",
        names.EXACT_SERVER: "left",
    }
    daemon.client.create_network(hub.network("left"), labels=labels)
    hub.run("left")
    hub.release("left")
    hub.nothing_left("left")


def test_the_sweeper_removes_what_nobody_knows_and_nothing_of_others(hub: DockerHub, daemon: Daemon) -> None:
    hub.run("known")
    image = hub.containers("known")[0]["Config"]["Image"]
    labels = {
        names.INSTANCE: hub.instance,
        names.RUN: "01J00000000000000000000LD1",
        names.CLUSTER: hub.base("orphan"),
        names.EXACT_USER: "ada",
        names.EXACT_SERVER: "orphan",
    }
    daemon.client.create_network(hub.network("orphan"), labels=labels)
    for name, own in ((hub.container("orphan"), {**labels, names.RANK: "0"}), ("somebody-s", labels)):
        body = {"Image": image, "Cmd": ["/x"], "Labels": own, "HostConfig": {"NetworkMode": "none"}}
        daemon.client.create_container_from_config(body, name)
    try:
        report = hub.sweep()
        assert [(item["server"], item["rank"]) for item in report.orphans] == [("orphan", 0)]
        assert report.removed == 1
        assert not report.errors
        there = {item["Name"].lstrip("/") for item in daemon.containers(**{names.INSTANCE: hub.instance})}
        assert there == {hub.container("known"), "somebody-s"}
    finally:
        daemon.client.remove_container("somebody-s", force=True)
    hub.sweep()  # a network whose container was somebody's goes with the next look
    hub.nothing_left("orphan")
    assert hub.ready("known")
    hub.release("known")


def test_a_daemon_that_is_restarted_ends_its_nodes_and_the_run_says_so(
    hub: DockerHub, daemon: Daemon
) -> None:
    hub.run("before", nodes=2)
    daemon.end()
    try:
        for _ in range(5):  # it said that its nodes ended; that nothing of them is left, nobody can see now
            assert hub.row("before")["released_at"] is None
            time.sleep(0.2)
    finally:
        daemon.start()
    row = hub.closed("before", seconds=60)
    assert row["reason"] == "node_lost"
    hub.nothing_left("before")
    hub.run("after", nodes=2)
    hub.release("after")
    hub.nothing_left("after")


def test_a_cluster_that_is_released_while_docker_is_away_goes_when_it_is_back(
    hub: DockerHub, daemon: Daemon
) -> None:
    hub.run("going", nodes=2)
    daemon.end()
    try:
        hub.ask_stop("going")
        eventually(lambda: hub.row("going")["status"] == "stopping", 20)
    finally:
        daemon.start()
    hub.closed("going", seconds=60)
    hub.nothing_left("going")
    hub.fits()
