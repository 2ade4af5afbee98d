"""Clusters of containers on a real Docker: they come as a whole, reach one another, and leave nothing."""

from __future__ import annotations

import asyncio
from pathlib import Path

import httpx
import pytest

from spawner.docker import names
from spawner.docker.api import DockerAPI
from spawner.docker.use import DockerUseMeter
from tests.docker.daemon import Daemon
from tests.docker.hub import DockerHub
from tests.process.hub import eventually

pytestmark = [pytest.mark.docker, pytest.mark.timeout(300)]


def test_one_node_starts_answers_and_leaves_nothing(hub: DockerHub) -> None:
    hub.run("one")
    assert hub.routes() == {"/user/ada/one"}
    hub.release("one")
    hub.nothing_left("one")
    row, (node,) = hub.row("one"), hub.nodes("one")
    assert (row["status"], row["reason"], row["backend"]) == ("released", "asked", "docker")
    assert node["exit_reason"] == "released"
    assert node["ready_at"] < node["gone_at"] <= row["released_at"]
    assert not hub.routes()
    hub.fits()


def test_what_a_node_may_is_what_the_plan_says(hub: DockerHub, daemon: Daemon) -> None:
    hub.run("limits", cpu=0.5, memory="256M")
    node = hub.container("limits")
    (found,) = hub.containers("limits")
    assert found["HostConfig"]["MemorySwap"] == found["HostConfig"]["Memory"] == 256 * 2**20
    status = daemon.execute(node, "cat", "/proc/self/status")
    said = {line.split(":")[0]: line.split()[1:] for line in status.splitlines() if ":" in line}
    assert said["Uid"] == ["1000"] * 4
    assert set(said["CapEff"] + said["CapPrm"] + said["CapBnd"]) == {"0" * 16}
    assert said["NoNewPrivs"] == ["1"]
    assert "131072" in daemon.execute(node, "df", "-k", "/dev/shm")  # half of the memory
    assert not found["NetworkSettings"]["Ports"]
    hub.release("limits")


def test_nodes_share_their_work_and_know_one_another_by_name(hub: DockerHub, daemon: Daemon) -> None:
    hub.run("three", nodes=3)
    assert {item["Name"].lstrip("/") for item in hub.containers("three")} == {
        hub.container("three", rank) for rank in range(3)
    }
    assert hub.routes() == {f"/user/ada/three{suffix}" for suffix in ("", "/node-1", "/node-2")}
    head, last = hub.container("three"), hub.container("three", 2)
    daemon.execute(head, "touch", "/home/jovyan/work/seen")
    assert "seen" in daemon.execute(last, "ls", "/home/jovyan/work")
    assert (hub.work / "ada/three/seen").stat().st_uid == 1000
    code = "import socket; print(socket.gethostbyname('node-1'), socket.gethostname())"
    found = daemon.execute(last, "/usr/bin/python3", "-IS", "-c", code).split()
    network = hub.containers("three")[0]["NetworkSettings"]["Networks"][hub.network("three")]
    assert found[0].rpartition(".")[0] == network["IPAddress"].rpartition(".")[0]
    assert found[1] == "node-2"
    sightings = [item for item in hub.inventory() if item.server == "three"]
    assert sorted((item.user, item.rank, item.state) for item in sightings) == [
        ("ada", rank, "alive") for rank in range(3)
    ]
    hub.release("three")
    hub.nothing_left("three")


def test_real_use_is_what_the_kernel_counted(hub: DockerHub, daemon: Daemon) -> None:
    hub.run("busy", nodes=2)
    burn = "import time\nend = time.process_time() + 0.4\nwhile time.process_time() < end: pass\n"
    run = hub.row("busy")["id"]

    async def used() -> dict[int, int]:
        meter = DockerUseMeter(DockerAPI(daemon.url), hub.instance)
        try:
            uses = [use for use in await meter.measure() if use.run == run]
        finally:
            await meter.close()
        assert all(use.memory_bytes > 2**20 for use in uses)
        return {use.rank: use.cpu_us_total or 0 for use in uses}

    before = asyncio.run(used())
    daemon.execute(hub.container("busy", 1), "/usr/bin/python3", "-IS", "-c", burn)
    after = asyncio.run(used())
    assert before.keys() == after.keys() == {0, 1}
    assert after[1] - before[1] >= 400_000
    assert after[0] - before[0] < after[1] - before[1]
    hub.release("busy")


def test_a_start_again_right_after_a_stop_works(hub: DockerHub) -> None:
    for _ in range(2):
        hub.run("again", nodes=2)
        hub.release("again")
    hub.nothing_left("again")


def test_the_hub_answers_while_docker_is_busy(hub: DockerHub, daemon: Daemon) -> None:
    """Every call to a daemon that does not move waits in a thread, not in the loop."""
    hub.run("there")
    import os
    import signal

    os.kill(daemon.process.pid, signal.SIGSTOP)
    try:
        hub.post("asked")
        for _ in range(20):
            assert hub.api.get("/", timeout=5).status_code == 200
        assert hub.ready("there")
    finally:
        os.kill(daemon.process.pid, signal.SIGCONT)
    hub.runs("asked")
    for server in ("there", "asked"):
        hub.release(server)


def test_keys_of_a_cluster_are_for_its_nodes_alone(hub: DockerHub, daemon: Daemon, tmp_path: Path) -> None:
    hub.run("keys", nodes=2)
    folder = hub.state / "clusters" / hub.base("keys")
    assert (hub.state / "clusters").stat().st_mode & 0o077 == 0
    kept = daemon.execute(hub.container("keys", 1), "cat", "/run/galilean/secrets/id_ed25519")
    assert kept == (folder / "secrets" / "id_ed25519").read_text()
    with pytest.raises(AssertionError, match="Read-only"):
        daemon.execute(hub.container("keys"), "touch", "/run/galilean/secrets/x", user="0")
    hub.release("keys")
    assert not folder.exists()


@pytest.mark.timeout(600)
def test_whole_nodes_have_jupyterlab_ssh_and_one_sign_in(hub_of, daemon: Daemon) -> None:
    hub = hub_of(light=False)
    hub.run("whole", nodes=2, memory="1G", seconds=400)
    with httpx.Client(base_url=hub.url, follow_redirects=True, timeout=60, trust_env=False) as browser:
        browser.get("/hub/login")
        xsrf = browser.cookies.get("_xsrf", path="/hub/")
        browser.post("/hub/login", data={"username": "ada", "password": "x", "_xsrf": xsrf})
        assert "JupyterLab" in browser.get("/user/ada/whole/lab").text
        assert "JupyterLab" in browser.get("/user/ada/whole/node-1/lab").text
    said = daemon.execute(
        hub.container("whole"), "ssh", "node-1", "echo $GALILEAN_RANK $NNODES $MASTER_ADDR $PWD"
    ).split()
    assert said == ["1", "2", "node-0", "/home/jovyan/work"]
    first = daemon.execute(hub.container("whole"), "cat", "/proc/1/cmdline").replace("\0", " ")
    assert "spawner.node.container" in first
    hub.release("whole")
    hub.nothing_left("whole")
    assert eventually(lambda: not daemon.containers(**{names.INSTANCE: hub.instance}))
