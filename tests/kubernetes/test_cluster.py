"""Clusters of pods on a real Kubernetes: they come as a whole, reach one another, and leave nothing."""

from __future__ import annotations

import json
import time

import pytest

from tests.kubernetes.hub import KubeHub, Namespace
from tests.process.hub import eventually

pytestmark = [pytest.mark.kubernetes, pytest.mark.timeout(400)]


def test_one_node_starts_answers_and_leaves_nothing(hub: KubeHub, namespace: Namespace) -> None:
    took = hub.run("one")
    stopped = hub.release("one")
    print(f"1 node: ready after {took:.2f} s, released after {stopped:.2f} s")
    namespace.nothing_left(hub.base("one"))
    row, (node,) = hub.row("one"), hub.nodes("one")
    assert row["status"] == "released"
    assert row["reason"] == "asked"
    assert node["exit_reason"] == "released"
    assert node["ready_at"] < node["gone_at"] <= row["released_at"]
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


def test_a_start_again_right_after_a_stop_works(hub: KubeHub, namespace: Namespace) -> None:
    for _ in range(2):
        hub.run("again")
        hub.release("again")
    namespace.nothing_left(hub.base("again"))


def test_an_image_that_does_not_exist_is_told(hub: KubeHub, namespace: Namespace) -> None:
    hub.post("no-image")
    said = " ".join(hub.progress("no-image", seconds=90))
    assert "galilean.lab/there-is-none:1" in said
    row = hub.closed("no-image")
    assert row["status"] == "failed"
    assert row["reason"] == "start_failed"
    namespace.nothing_left(hub.base("no-image"))


@pytest.mark.parametrize("rank", [0, 2])
def test_a_node_that_is_deleted_ends_the_cluster(hub: KubeHub, namespace: Namespace, rank: int) -> None:
    server = f"deleted-{rank}"
    hub.run(server, nodes=3, cpu=0.2)
    base = hub.base(server)
    namespace.kubectl("delete", "pod", "-n", namespace.name, f"{base}-{rank}", "--wait=false")
    row = hub.closed(server)
    assert row["reason"] == "node_lost"
    assert f'"rank": {rank}' in row["explanation"]
    namespace.nothing_left(base)


def test_a_server_that_dies_is_an_end_with_its_reason_and_moment(hub: KubeHub, namespace: Namespace) -> None:
    hub.run("dies", nodes=2)
    base = hub.base("dies")
    namespace.kubectl(
        "exec",
        "-n",
        namespace.name,
        f"{base}-1",
        "--",
        "sh",
        "-c",
        "pkill -9 -f '[l]auncher|[c]ontainer'",
        check=False,
    )
    row = hub.closed("dies")
    assert row["reason"] == "node_lost"
    worker = hub.nodes("dies")[1]
    assert worker["exit_reason"] == "killed by signal 9"
    assert worker["gone_at"] < row["released_at"]
    namespace.nothing_left(base)


def test_the_secret_deleted_from_outside_takes_all_and_closes_the_row(
    hub: KubeHub, namespace: Namespace
) -> None:
    hub.run("ownerless", nodes=2)
    base = hub.base("ownerless")
    namespace.kubectl("delete", "secret", "-n", namespace.name, base)
    hub.closed("ownerless")
    namespace.nothing_left(base)


def test_orphaned_objects_are_removed_by_name(hub: KubeHub, namespace: Namespace) -> None:
    hub.run("orphans", nodes=2)
    base = hub.base("orphans")
    namespace.kubectl("delete", "secret", "-n", namespace.name, base, "--cascade=orphan")
    assert len(namespace.objects(base)["Pod"]) == 2
    hub.release("orphans")
    assert not namespace.objects(base)


def test_leftovers_of_an_older_life_do_not_stop_a_start(hub: KubeHub, namespace: Namespace) -> None:
    base = hub.base("leftovers")
    label = f"galilean.io/cluster={base}"
    for kind in (["secret", "generic"], ["service", "clusterip"]):
        more = ["--tcp=80"] if kind[0] == "service" else []
        namespace.kubectl("create", *kind, base, "-n", namespace.name, *more)
        namespace.kubectl("label", kind[0], base, "-n", namespace.name, label)
    hub.run("leftovers")
    assert namespace.pods(base)
    hub.release("leftovers")
    namespace.nothing_left(base)


def test_what_can_have_no_place_waits_in_line_and_says_what_is_short(
    hub: KubeHub, namespace: Namespace
) -> None:
    """The gang timeout of this hub is long; the reason is told at once, and a cancellation leaves nothing."""
    hub.post("large", nodes=2, cpu=1.9)
    base = hub.base("large")
    eventually(lambda: len(namespace.pods(base)) == 2, 20, "both pods are asked for")
    time.sleep(1)
    hub.delete("large")
    row = hub.closed("large")
    assert row["reason"] == "cancelled"
    namespace.nothing_left(base)


@pytest.mark.parametrize("seconds", [0.0, 0.1, 0.4, 1.5, 3.0])
def test_a_start_that_is_cancelled_leaves_nothing(hub: KubeHub, namespace: Namespace, seconds: float) -> None:
    server = f"cancelled-{seconds}".replace(".", "-")
    hub.post(server, nodes=3, cpu=0.3)
    time.sleep(seconds)
    hub.delete(server)
    row = hub.closed(server)
    assert row["status"] == "released"
    namespace.nothing_left(hub.base(server))
    assert not hub.ready(server)


def test_the_inventory_sees_what_exists_with_the_hubs_rights(hub: KubeHub, namespace: Namespace) -> None:
    hub.run("seen", nodes=2)
    ours = [item for item in namespace.inventory() if item.server == "seen"]
    assert [(item.user, item.rank, item.state) for item in ours] == [("ada", 0, "alive"), ("ada", 1, "alive")]
    assert {item.run for item in ours} == {hub.row("seen")["id"]}
    hub.release("seen")
    assert not [item for item in namespace.inventory() if item.server == "seen"]
