"""One pod of a running cluster reset on a real Kubernetes, while the others go on; a hub killed in the middle."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

import pytest

from tests.asking import Asking
from tests.kubernetes.hub import KubeHub
from tests.process.hub import eventually

pytestmark = [pytest.mark.kubernetes, pytest.mark.timeout(1200)]


@pytest.fixture(scope="module")
def asking(hub: KubeHub) -> Iterator[Asking]:
    hub.run("again", nodes=2)
    found = Asking(hub.state, "ada", "again")
    yield found
    found.close()
    hub.release("again")
    hub.namespace.nothing_left(hub.base("again"))


def uids(hub: KubeHub) -> dict[str, str]:
    pods = hub.namespace.pods(hub.base("again"))
    return {name: pod["metadata"]["uid"] for name, pod in pods.items()}


def test_a_pod_is_made_anew_from_its_image_and_the_other_stays(hub: KubeHub, asking: Asking) -> None:
    base, before = hub.base("again"), uids(hub)
    hub.namespace.execute(f"{base}-1", "sh", "-c", "echo mine > /tmp/mine; echo kept > ~/work/kept")
    node = asking.renew(1, "reset")
    assert node.ready_at is not None, asking.why(node)
    after = uids(hub)
    assert after[f"{base}-0"] == before[f"{base}-0"]
    assert after[f"{base}-1"] != before[f"{base}-1"]
    said = hub.namespace.execute(f"{base}-1", "sh", "-c", "test -e /tmp/mine && echo still; cat ~/work/kept")
    assert said.strip() == "kept"
    old, new = [node for node in asking.nodes() if node.rank == 1]
    assert old.exit_reason == "reset"
    assert old.gone_at is not None
    assert new.ready_at is not None
    # A kubelet tells ends in whole seconds; one that seems to be before it was asked for counts from the asking.
    assert timedelta(0) <= new.ready_at - old.gone_at <= timedelta(seconds=1)
    found = hub.namespace.execute(f"{base}-0", "getent", "hosts", "node-1")
    assert found.split()[0] == new.url.rpartition("/")[2].rpartition(":")[0], (
        "names follow to its new address"
    )


def test_node_0_comes_back_and_the_hub_keeps_the_server(hub: KubeHub, asking: Asking) -> None:
    before = uids(hub)
    node = asking.renew(0, "reset")
    assert node.ready_at is not None, asking.why(node)
    assert hub.ready("again")
    assert uids(hub)[f"{hub.base('again')}-0"] != before[f"{hub.base('again')}-0"]


def test_a_killed_hub_is_followed_by_one_that_brings_the_node_back(hub: KubeHub, asking: Asking) -> None:
    name, before = f"{hub.base('again')}-1", uids(hub)
    asked = asking.ask(1, "reset")
    eventually(lambda: uids(hub).get(name) != before[name], 60, "it has begun")
    hub.kill()
    hub.start()
    node = asking.over(asked, 180)
    assert node.ready_at is not None, asking.why(node)
    assert len(uids(hub)) == 2
    assert hub.sweep().clean
