"""The life of a machine, for real: it joins by the command that was shown, carries nodes, is lost and comes back,
is kept empty, and is taken out.

A kubelet and a container runtime of its own, and kubeadm; the tests are in the order of its life.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from galilean.clock import utcnow
from galilean.db import Database, metadata
from galilean.settings_machines import KUBEADM
from services.machines import store
from services.machines.keeper import Keeper, add_machine
from services.machines.kube import KubeMachines
from services.machines.rules import State, state_of
from tests.kubernetes.conftest import hub_of, namespace  # noqa: F401 - fixtures
from tests.kubernetes.hub import KubeHub, Namespace
from tests.lab.kubernetes import Kubernetes, archive
from tests.lab.machine import Machine
from tests.lab.places import MACHINE, SECOND
from tests.lab.waiting import eventually
from tests.machines.test_keeper import closed
from tests.machines.test_lab import POOLS, account, seen_by  # noqa: F401 - a fixture

pytestmark = [pytest.mark.kubernetes, pytest.mark.timeout(400)]

#: A card on each machine: a cluster of two nodes with one each has to be on both.
CARD = "galilean.lab/card"
BOTH: dict[str, Any] = {"nodes": 2, "gpu": 1, "cpu": 0.3, "memory": "256M"}


@pytest.fixture(scope="module")
def second(kubernetes: Kubernetes) -> Iterator[Machine]:
    """The lab's second machine: prepared as the how-to says, and not joined yet."""
    if kubernetes.lab is None:
        pytest.skip("this lab is somebody else's, and its machines are, too")
    machine = kubernetes.lab.second
    kubernetes.lab.let_join()
    machine.switch_on()
    machine.load_image(archive())
    card_of(kubernetes, MACHINE, "add")
    yield machine
    card_of(kubernetes, MACHINE, "remove")
    machine.switch_off()
    kubernetes.kubectl("delete", "node", SECOND, "--ignore-not-found", "--wait=false")


def card_of(kubernetes: Kubernetes, machine: str, what: str) -> None:
    """Put a card into a machine, or take it out."""
    path = "/status/capacity/" + CARD.replace("/", "~1")
    operation = {"op": what, "path": path} | ({"value": "1"} if what == "add" else {})
    kubernetes.kubectl(
        "patch", "node", machine, "--subresource=status", "--type=json", "-p", json.dumps([operation])
    )
    if what == "add":
        eventually(lambda: CARD in node(kubernetes, machine)["status"]["allocatable"], 30, "the card is seen")


def node(kubernetes: Kubernetes, machine: str) -> dict[str, Any]:
    said = kubernetes.kubectl("get", "node", machine, "--ignore-not-found", "-o", "json")
    return json.loads(said) if said else {}


@pytest.fixture(scope="module")
def hub(second: Machine, hub_of: Callable[..., KubeHub]) -> KubeHub:  # noqa: F811
    return hub_of(gpu_resource=CARD, machine_patience=2, patience=(4, 8))


@pytest.fixture
async def side(
    kubernetes: Kubernetes,
    namespace: Namespace,  # noqa: F811
    account: str,  # noqa: F811
) -> AsyncIterator[KubeMachines]:
    """The service's view of the lab: the command as the settings have it, the API server where the cluster says."""
    world = seen_by(kubernetes, namespace, account, command=KUBEADM)
    yield world
    await world.close()


@pytest.fixture
def db(hub: KubeHub) -> Iterator[Database]:
    """The hub's, in which the machines service keeps its own, too."""
    database = Database(f"sqlite:///{hub.state}/galilean.sqlite", threads=1)
    metadata.create_all(database.engine)
    yield database
    database.close()


@contextmanager
def given_up_soon(kubernetes: Kubernetes) -> Iterator[None]:
    """Kubernetes gives a machine up sooner than it does in the lab, where everything is slow at times."""
    assert kubernetes.lab is not None
    with kubernetes.lab.parts.otherwise("kube-controller-manager", "--node-monitor-grace-period=20s"):
        yield


async def test_a_machine_joins_by_the_command_that_is_shown(
    kubernetes: Kubernetes,
    side: KubeMachines,
    second: Machine,
    hub: KubeHub,
    db: Database,
) -> None:
    service = Keeper(db, side, POOLS)
    made = await add_machine(db, side, name=SECOND, pool="guests", asked_by="root", minutes=30)
    await service.tick()
    assert made["command"].startswith(f"kubeadm join {kubernetes.server.removeprefix('https://')} --token ")
    assert "This node has joined the cluster" in second.join(made["command"])
    second.wait_ready(kubernetes.kubectl)
    for _ in range(2):
        await service.tick()
    assert node(kubernetes, SECOND)["metadata"]["labels"]["galilean.test/pool"] == "guests"
    with db.read() as conn:
        assert [order.outcome for order in store.history(conn, SECOND)] == ["done"]
        (seen,) = [item for item in store.all_machines(conn) if item.name == SECOND]
    assert state_of(seen, None, utcnow()) is State.READY
    assert seen.cpu_millicores > 0
    assert seen.address == second.address


def test_nodes_on_two_machines_are_one_cluster(
    hub: KubeHub,
    namespace: Namespace,  # noqa: F811
    kubernetes: Kubernetes,
) -> None:
    card_of(kubernetes, SECOND, "add")
    hub.run("both", **BOTH)
    assert {item["host"] for item in hub.nodes("both")} == {MACHINE, SECOND}
    head = f"{hub.base('both')}-0"
    assert namespace.execute(head, "ssh", "node-1", "hostname; touch seen").strip() == "node-1"
    assert "seen" in namespace.execute(head, "ls", "/home/jovyan/work")


def test_a_machine_that_loses_its_power_takes_its_clusters_along_and_they_say_so(
    hub: KubeHub,
    namespace: Namespace,  # noqa: F811
    kubernetes: Kubernetes,
    second: Machine,
) -> None:
    with given_up_soon(kubernetes):
        second.cut_power()
        row = hub.closed("both", seconds=120)
    assert row["reason"] == "node_lost"
    assert "machine lost" in row["explanation"]
    ends = {item["host"]: item["exit_reason"] for item in hub.nodes("both")}
    assert ends == {MACHINE: "released", SECOND: "machine lost"}
    namespace.nothing_left(hub.base("both"))
    hub.fits()


def test_a_machine_that_comes_back_carries_nodes_again(
    hub: KubeHub,
    namespace: Namespace,  # noqa: F811
    kubernetes: Kubernetes,
    second: Machine,
) -> None:
    second.come_back()
    second.wait_ready(kubernetes.kubectl)
    # Ready comes first; what drives pods from a machine that was lost is taken off it one by one.
    eventually(
        lambda: not node(kubernetes, SECOND)["spec"].get("taints"), 60, "nothing holds pods off any more"
    )
    card_of(kubernetes, SECOND, "add")
    hub.run("again", **BOTH)
    assert {item["host"] for item in hub.nodes("again")} == {MACHINE, SECOND}


async def test_a_machine_is_kept_empty_and_taken_out_with_what_is_held_there(
    hub: KubeHub,
    namespace: Namespace,  # noqa: F811
    kubernetes: Kubernetes,
    side: KubeMachines,
    second: Machine,
    db: Database,
) -> None:
    service = Keeper(db, side, POOLS)

    async def done(action: str, **more: Any) -> None:
        with db.write() as conn:
            order = store.place_order(
                conn, machine=SECOND, action=action, asked_by="root", now=utcnow(), why="old", **more
            )
        for _ in range(240):
            await service.tick()
            if hub.row("again")["reason"] == "machine_out" and hub.ready("again"):
                await asyncio.to_thread(hub.ask_stop, "again")  # the release service does
            if closed(db, order):
                break
            await asyncio.sleep(0.25)
        assert closed(db, order) == "done"

    await service.tick()
    with db.read() as conn:
        (held,) = store.holdings(conn, SECOND)
    assert (held.user, held.nodes) == ("ada", 1)
    await done("cordon")
    assert node(kubernetes, SECOND)["spec"]["unschedulable"] is True
    assert hub.ready("again"), "what is there stays"
    await done("uncordon")
    assert "unschedulable" not in node(kubernetes, SECOND)["spec"]

    await done("out", remove=True)
    row = await asyncio.to_thread(hub.closed, "again")
    assert row["reason"] == "machine_out"
    await asyncio.to_thread(namespace.nothing_left, hub.base("again"))
    assert not node(kubernetes, SECOND)
    with db.read() as conn:
        assert SECOND not in {item.name for item in store.all_machines(conn)}
