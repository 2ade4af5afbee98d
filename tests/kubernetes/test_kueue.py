"""With Kueue: whole clusters are let in as its queue has room, and those that wait say so.

Kueue takes minutes to build, so these are apart: ``make test-kueue``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.kubernetes.hub import KubeHub, Namespace
from tests.lab.kubernetes import Kubernetes
from tests.lab.kueue import kueue
from tests.lab.waiting import eventually

pytestmark = [
    pytest.mark.kubernetes,
    pytest.mark.timeout(900),
    pytest.mark.kueue,
]

QUEUE = "campus"
#: Room for one of the clusters below, where the scheduler alone would have room for both.
ROOM = {"cpu": "1", "memory": "16Gi", "ephemeral-storage": "10Gi"}


@pytest.fixture(scope="module")
def hub(kubernetes: Kubernetes, namespace: Namespace, hub_of: Callable[..., KubeHub]) -> Iterator[KubeHub]:
    with kueue(kubernetes.kubectl, kubernetes.directory, namespace.name, QUEUE, ROOM):
        yield hub_of(kueue_queue=QUEUE)


def gated(namespace: Namespace, base: str) -> list[bool]:
    return [bool(pod["spec"].get("schedulingGates")) for pod in namespace.pods(base).values()]


def test_a_cluster_waits_as_a_whole_for_kueues_turn_and_then_runs(hub: KubeHub, namespace: Namespace) -> None:
    hub.run("first", nodes=2, cpu=0.4)
    hub.post("second", nodes=2, cpu=0.4)
    base = hub.base("second")
    eventually(lambda: len(namespace.pods(base)) == 2, 20, "both pods are asked for")
    assert gated(namespace, base) == [True, True]
    hub.release("first")
    namespace.nothing_left(hub.base("first"))
    said = " ".join(hub.progress("second"))
    assert "waits for its turn in the cluster's queue" in said
    eventually(lambda: hub.ready("second"), 60, "the second runs")
    assert gated(namespace, base) == [False, False]
    hub.release("second")
    namespace.nothing_left(base)


def test_a_cluster_that_is_cancelled_while_kueue_holds_it_leaves_nothing(
    hub: KubeHub, namespace: Namespace
) -> None:
    hub.run("long", nodes=2, cpu=0.4)
    hub.post("cancelled", nodes=2, cpu=0.4)
    base = hub.base("cancelled")
    eventually(lambda: len(namespace.pods(base)) == 2, 20, "both pods are asked for")
    hub.delete("cancelled")
    assert hub.closed("cancelled")["reason"] == "cancelled"
    namespace.nothing_left(base)
    hub.release("long")
    namespace.nothing_left()
