"""One real node made anew while the other works on: what ends, what stays, what a killed hub leaves."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from galilean.clock import utcnow
from galilean.db import Database
from spawner import attempts, records
from spawner.node.place import RANK, RUN
from spawner.process.family import look
from spawner.process.handles import Handle
from spawner.process.layout import ClusterDirectory
from spawner.records import NodeInterval, present
from tests.process.hub import Hub, eventually

pytestmark = pytest.mark.process

P = "/user/erin/heat/"


class Cluster:
    """A cluster of erin's, with the rows behind it."""

    def __init__(self, hub: Hub) -> None:
        self.hub = hub
        self.db = Database(f"sqlite:///{hub.state}/galilean.sqlite")
        self.directory = ClusterDirectory.of(hub.state / "clusters", "erin", "heat")

    def nodes(self) -> list[NodeInterval]:
        with self.db.read() as conn:
            run = records.open_run(conn, "erin", "heat")
            assert run is not None
            return records.intervals(conn, [run.id])[run.id]

    def ask(self, rank: int, how: str = "restart") -> NodeInterval:
        with self.db.write() as conn:
            run = records.open_run(conn, "erin", "heat")
            assert run is not None
            return attempts.ask(conn, run.id, rank, how, by="erin", now=utcnow())

    def attend(self) -> None:
        httpx.get(f"{self.hub.url}/hub/attend", timeout=60).raise_for_status()

    def back(self, row: NodeInterval) -> NodeInterval:
        def answers() -> NodeInterval | None:
            self.attend()
            found = [node for node in self.nodes() if (node.rank, node.attempt) == (row.rank, row.attempt)]
            return found[0] if found and (found[0].ready_at or found[0].gone_at) else None

        return eventually(answers, 60, f"node {row.rank} is back")

    def renew(self, rank: int, how: str = "restart") -> NodeInterval:
        return self.back(self.ask(rank, how))

    def handle(self, rank: int) -> Handle:
        return Handle.from_dict(self.directory.nodes()[rank])

    def processes(self, rank: int) -> set[int]:
        return {
            item.pid
            for item in look()
            if item.mark and (item.mark.directory, item.mark.rank) == (str(self.directory.path), rank)
        }

    def bash(self, rank: int, command: str) -> subprocess.CompletedProcess[str]:
        said = json.loads((self.directory.home(rank) / "said.json").read_text())
        return subprocess.run(
            ["bash", "-c", command],
            env=said["environment"],
            cwd=self.directory.home(rank) / "work",
            capture_output=True,
            text=True,
            timeout=120,
        )


@pytest.fixture(scope="module")
def cluster(hub: Hub) -> Iterator[Cluster]:
    hub.user("erin")
    hub.run("erin", "heat", nodes=2)
    made = Cluster(hub)
    yield made
    made.db.close()
    hub.release("erin", "heat")


def program_on(cluster: Cluster, rank: int) -> int:
    """A program that its node started and that was detached from it."""
    run = json.loads((cluster.directory.path / "run.json").read_text())["run"]
    environment = {
        **os.environ,
        RUN: run,
        RANK: str(rank),
        "GALILEAN_CLUSTER_DIR": str(cluster.directory.path),
        "JUPYTERHUB_USER": "erin",
        "JUPYTERHUB_SERVER_NAME": "heat",
    }
    return subprocess.Popen(["sleep", "600"], env=environment, start_new_session=True).pid


def test_a_restart_ends_what_runs_on_the_node_and_keeps_its_files_and_the_other_node(
    cluster: Cluster,
) -> None:
    other, before = cluster.handle(0), cluster.handle(1)
    theirs, mine = program_on(cluster, 0), program_on(cluster, 1)
    (cluster.directory.home(1) / ".settings").write_text("mine")
    (cluster.directory.home(1) / "work" / "kept.txt").write_text("kept")
    port = cluster.directory.nodes()[1]["url"]
    new = cluster.renew(1)
    assert new.ready_at
    assert new.gone_at is None
    assert (cluster.directory.home(1) / ".settings").read_text() == "mine"
    assert not before.alive()
    assert mine not in cluster.processes(1)
    assert theirs in cluster.processes(0)
    assert other.alive()
    assert cluster.directory.nodes()[1]["url"] == port, "nobody took its port meanwhile"
    old = next(node for node in cluster.nodes() if node.rank == 1 and node.attempt == new.attempt - 1)
    assert old.exit_reason == "restarted"
    assert new.asked_at is not None
    assert old.gone_at is not None
    assert new.asked_at <= old.gone_at == new.ready_at
    os.kill(theirs, 9)


def test_a_reset_empties_the_home_and_nothing_that_it_leads_to(cluster: Cluster) -> None:
    home = cluster.directory.home(1)
    (home / ".local" / "bin").mkdir(parents=True, exist_ok=True)
    (home / ".local" / "bin" / "tool").write_text("installed")
    (home / ".local").chmod(0o500)
    (home / "work" / "kept.txt").write_text("kept")
    (cluster.directory.home(0) / ".settings").write_text("of node 0")
    new = cluster.renew(1, "reset")
    assert new.ready_at
    assert not (home / ".local" / "bin" / "tool").exists()
    assert (home / "work" / "kept.txt").read_text() == "kept"
    assert (cluster.directory.home(0) / ".settings").read_text() == "of node 0"


def test_node_0_comes_back_at_its_address_and_the_hub_keeps_the_server(hub: Hub, cluster: Cluster) -> None:
    browser = hub.browser("erin")
    assert browser.get(f"{P}lab").status_code == 200
    cluster.renew(0)
    answer = eventually(
        lambda: (a := browser.get(f"{P}api/me")).status_code == 200 and a, 20, "node 0 at its address"
    )
    assert answer.json()["identity"]["username"] == "erin", "and the sign-in of before still counts"
    assert hub.ready("erin", "heat")


def test_nodes_reach_one_another_by_ssh_after_each_was_made_anew(cluster: Cluster) -> None:
    cluster.renew(1)
    for here, there in ((0, 1), (1, 0)):
        said = cluster.bash(here, f"ssh node-{there} 'echo $GALILEAN_RANK'")
        assert said.stdout.strip() == str(there), said.stderr


def test_a_node_whose_ports_were_taken_meanwhile_gets_others_and_everything_follows(
    hub: Hub, cluster: Cluster
) -> None:
    import socket

    from spawner.process.nodes import end_one
    from spawner.process.prepare import read_recipe

    recipe = read_recipe(cluster.directory, 1)
    assert recipe is not None
    row = cluster.ask(1)
    run = json.loads((cluster.directory.path / "run.json").read_text())["run"]
    end_one(cluster.directory, run, 1)  # as a hub did that was killed then
    taken = [socket.create_server(("127.0.0.1", port)) for port in (recipe.port, recipe.ssh_port)]
    new = cluster.back(row)
    assert new.ready_at
    assert new.url != recipe.url
    said = cluster.bash(0, "ssh node-1 'echo $JUPYTERHUB_SERVICE_URL'")
    assert said.stdout.startswith(new.url), said.stderr
    routes = eventually(
        lambda: next(
            (
                route
                for spec, route in httpx.get(
                    f"http://127.0.0.1:{hub.ports[2]}/api/routes",
                    headers={"Authorization": "token proxy-token"},
                )
                .json()
                .items()
                if spec.rstrip("/") == f"{P}node-1" and route["target"] == new.url
            ),
            None,
        ),
        20,
        "the route follows",
    )
    assert routes
    for item in taken:
        item.close()


def test_a_node_that_cannot_be_made_again_is_left_as_it_is(cluster: Cluster) -> None:
    recipe = cluster.directory.recipe_file(1)
    aside = recipe.rename(recipe.with_suffix(".aside"))
    before = cluster.handle(1)
    row = cluster.ask(1)
    try:

        def told() -> Any:
            cluster.attend()
            return next(node for node in present(cluster.nodes()) if node.rank == 1).explanation

        assert "older version" in eventually(told, 20, "why not")["message"]
        assert before.alive()
    finally:
        aside.rename(recipe)
    assert next(node for node in present(cluster.nodes()) if node.rank == 1).attempt == row.attempt - 1


def test_what_a_node_is_made_from_is_read_by_its_owner_only(cluster: Cluster) -> None:
    for rank in (0, 1):
        path: Path = cluster.directory.recipe_file(rank)
        assert path.stat().st_mode & 0o777 == 0o600
        assert path.parent.stat().st_mode & 0o777 == 0o700


def test_a_hub_that_is_killed_while_a_node_is_made_is_followed_by_one_that_brings_it_back(
    hub: Hub, cluster: Cluster
) -> None:
    before = cluster.handle(0)
    row = cluster.ask(0)
    cluster.attend()
    eventually(lambda: not before.alive(), 20, "the old node 0 has ended")
    hub.process.kill()
    hub.process.wait()
    time.sleep(0.2)
    hub.start()
    new = cluster.back(row)
    assert new.ready_at
    eventually(lambda: hub.ready("erin", "heat"), 30, "the new hub has looked at the server, too")
    servers = {item.pid for item in look() if item.node and item.mark and item.mark.rank == 0
               and item.mark.directory == str(cluster.directory.path)}  # fmt: skip
    assert servers == {cluster.handle(0).pid}, "never two of a rank"
    assert hub.browser("erin").get(f"{P}lab").status_code == 200
