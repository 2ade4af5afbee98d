"""Clusters of pods on a real Kubernetes: they come as a whole, reach one another, and leave nothing."""

from __future__ import annotations

import json

import pytest

from tests.kubernetes.hub import KubeHub, Namespace

pytestmark = [pytest.mark.kubernetes, pytest.mark.timeout(1200)]


def test_one_node_starts_answers_and_leaves_nothing(hub: KubeHub, namespace: Namespace) -> None:
    took = hub.run("one")
    stopped = hub.release("one")
    print(f"1 node: ready after {took:.2f} s, released after {stopped:.2f} s")
    namespace.nothing_left(hub.base("one"))
    row, (node,) = hub.row("one"), hub.nodes("one")
    assert row["status"] == "released"
    assert row["reason"] == "asked"
    assert node["exit_reason"] == "released"
    assert node["ready_at"] <= node["gone_at"] <= row["released_at"]  # a kubelet tells ends in whole seconds
    assert node["host"] == "lab-machine-0"
    assert not hub.routes()


def test_three_nodes_are_one_machine_to_their_owner(hub: KubeHub, namespace: Namespace) -> None:
    """Names, ssh without a password, MPI over two pods, ~/work everywhere, one sign-in for all."""
    hub.run("three", nodes=3)
    base = hub.base("three")
    head = f"{base}-0"
    assert namespace.objects(base).keys() == {"Pod", "Secret", "Service", "NetworkPolicy"}
    assert sorted(namespace.pods(base)) == [f"{base}-{rank}" for rank in range(3)]
    assert namespace.execute(head, "ssh", "node-1", "hostname").strip() == "node-1"
    said = namespace.execute(
        head, "ssh", "node-2", "echo $GALILEAN_RANK $NNODES $MASTER_ADDR $PWD; touch seen"
    ).split()
    assert said == ["2", "3", "node-0", "/home/jovyan/work"]
    assert "seen" in namespace.execute(f"{base}-1", "ls", "/home/jovyan/work")
    assert namespace.execute(head, "stat", "-c", "%U", "/home/jovyan/work/seen").strip() == "jovyan"
    program = (
        "from mpi4py import MPI; import socket; c = MPI.COMM_WORLD; "
        "n = c.allreduce(c.rank + 1); print(socket.gethostname(), c.size, n)"
    )
    ran = namespace.execute(head, "bash", "-lc", f"ssh node-0 \"mpirun -np 3 python3 -c '{program}'\"")
    assert sorted(ran.split("\n"))[-3:] == [f"node-{rank} 3 6" for rank in range(3)]
    assert hub.routes() == {f"/user/ada/three{suffix}" for suffix in ("", "/node-1", "/node-2")}
    hub.release("three")
    namespace.nothing_left(base)
    assert not hub.routes()


def test_no_node_has_an_account_in_the_cluster_or_is_root(hub: KubeHub, namespace: Namespace) -> None:
    hub.run("poor")
    pod = f"{hub.base('poor')}-0"
    assert namespace.execute(pod, "id", "-u").strip() == "1000"
    assert "token" not in namespace.execute(pod, "sh", "-c", "ls /var/run/secrets/kubernetes.io 2>&1 || true")
    assert hub.base("poor").upper()[:3] not in namespace.execute(pod, "sh", "-c", "env | grep SERVICE_HOST")
    first = namespace.execute(pod, "cat", "/proc/1/cmdline").replace("\0", " ")
    assert "spawner.node.container" in first
    namespace.execute(pod, "sh", "-c", "(sleep 0.1 & ) ; sleep 0.5")
    assert "defunct" not in namespace.execute(pod, "ps", "-ef")
    spec = json.dumps(namespace.pods(hub.base("poor")))
    token = namespace.execute(pod, "sh", "-c", "echo $JUPYTERHUB_API_TOKEN").strip()
    assert len(token) > 20
    assert token not in spec
    hub.release("poor")


def test_a_start_again_right_after_a_stop_works_and_the_inventory_sees_it(
    hub: KubeHub, namespace: Namespace
) -> None:
    for _ in range(2):
        hub.run("again", nodes=2)
        ours = [item for item in namespace.inventory() if item.server == "again"]
        assert [(item.user, item.rank, item.state) for item in ours] == [
            ("ada", 0, "alive"),
            ("ada", 1, "alive"),
        ]
        assert {item.run for item in ours} == {hub.row("again")["id"]}
        hub.release("again")
        assert {item.state for item in namespace.inventory() if item.server == "again"} <= {"going"}
    namespace.nothing_left(hub.base("again"))
    hub.fits()
