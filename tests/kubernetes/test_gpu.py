"""GPU cards on a machine that has none: an extended resource is what the scheduler is told, wherever it is.

Two machines with a model of card each: the lab's own, whose status is patched, where nodes run for real; and
a simulated one, for what no single machine can show.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator

import pytest

from galilean.clock import utcnow
from galilean.db import Database
from services.metering.usage import usage_of
from spawner import records
from tests.kubernetes.hub import KubeHub, Namespace
from tests.lab.build import build
from tests.lab.kubernetes import Kubernetes
from tests.lab.simulated import TOLERATIONS, Answering, SimulatedMachines
from tests.lab.waiting import eventually

pytestmark = [pytest.mark.kubernetes, pytest.mark.timeout(1200)]

RESOURCE = "nvidia.com/gpu"
MODEL = "galilean.lab/model"
OURS = "lab-machine-0"
GPU_MODELS = {name: {"node_selector": {MODEL: name}} for name in ("small", "large")}


@pytest.fixture(scope="module")
def machines(kubernetes: Kubernetes, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """One card of the small model on the real machine, two of the large one on the other."""

    def patch(kind: str, operations: list[dict[str, str]], *more: str) -> None:
        kubernetes.kubectl("patch", kind, OURS, "--type=json", "-p", json.dumps(operations), *more)

    path = "/status/capacity/" + RESOURCE.replace("/", "~1")
    logs = tmp_path_factory.mktemp("kwok")
    kubernetes.kubectl("label", "node", OURS, f"{MODEL}=small", "--overwrite")
    patch("node", [{"op": "add", "path": path, "value": "1"}], "--subresource=status")
    try:
        with (
            SimulatedMachines(
                kubernetes.kubectl,
                build() / "kwok",
                kubernetes.directory / "pki" / "admin.kubeconfig",
                logs / "kwok.log",
                count=1,
                labels={MODEL: "large"},
                devices={RESOURCE: 2},
            ),
            Answering(logs),
        ):
            eventually(lambda: RESOURCE in allocatable(kubernetes), 30, "the kubelet tells of the card")
            yield
    finally:
        patch("node", [{"op": "remove", "path": path}], "--subresource=status")
        kubernetes.kubectl("label", "node", OURS, f"{MODEL}-")


def allocatable(kubernetes: Kubernetes) -> dict[str, str]:
    return json.loads(kubernetes.kubectl("get", "node", OURS, "-o", "json"))["status"]["allocatable"]


@pytest.fixture(scope="module")
def hub(machines: None, hub_of: Callable[..., KubeHub]) -> KubeHub:
    """A hub that knows both models, and does not wait long for a place."""
    return hub_of(gang_timeout=12, gpu_models=GPU_MODELS, tolerations=TOLERATIONS)


def hosts(hub: KubeHub, server: str) -> list[str]:
    return [node["host"] for node in hub.nodes(server)]


def test_a_cluster_that_asks_for_a_model_of_card_runs_where_that_model_is(
    hub: KubeHub, namespace: Namespace
) -> None:
    hub.run("small-card", cpu=0.5, gpu=1, gpu_model="small")
    hub.run("large-card", nodes=2, cpu=0.5, gpu=1, gpu_model="large")
    assert hosts(hub, "small-card") == [OURS]
    assert hosts(hub, "large-card") == ["simulated-0", "simulated-0"]
    for pod in namespace.pods(hub.base("large-card")).values():
        resources = pod["spec"]["containers"][0]["resources"]
        assert resources["limits"][RESOURCE] == resources["requests"][RESOURCE] == "1"
    for server in ("small-card", "large-card"):
        hub.release(server)
        namespace.nothing_left(hub.base(server))


def test_cards_are_metered_node_by_node(hub: KubeHub) -> None:
    hub.run("metered", nodes=2, cpu=0.5, gpu=1, gpu_model="large")
    hub.release("metered")
    database = Database(f"sqlite:///{hub.state}/galilean.sqlite", threads=1)
    with database.read() as conn:
        run = records.get(conn, hub.row("metered")["id"])
        assert run is not None
        used = usage_of(records.intervals(conn, [run.id])[run.id], run, utcnow())
    database.close()
    assert run.gpu_model == "large"
    assert used.gpu_card_minutes == pytest.approx(2 * used.seconds / 60, abs=2 / 60)
    assert used.seconds >= 0


def test_whoever_is_short_of_a_card_is_told_so_and_holds_nothing(hub: KubeHub, namespace: Namespace) -> None:
    hub.post("short", nodes=2, cpu=0.2, gpu=1, gpu_model="small")
    said = " ".join(hub.progress("short"))
    assert "no machine has enough GPU free" in said
    assert "1 of 2 nodes found a place within 12 s; 1 short of GPU" in said
    eventually(lambda: hub.row("short")["status"] == "queued", 20, "the run waits")
    assert json.loads(hub.row("short")["explanation"])["params"]["short"] == "GPU"
    namespace.nothing_left(hub.base("short"))
