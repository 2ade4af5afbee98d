"""Ways to licence servers on Kubernetes: the policy as data, and nodes that reach exactly what it says."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from spawner.kubernetes import manifests, names
from spawner.kubernetes.mender import frame_of
from spawner.kubernetes.spec import recipe_of, spec_from
from spawner.licences import Way
from tests.kubernetes.hub import KubeHub, Namespace
from tests.kubernetes.test_manifests import OWNER, spec
from tests.lab.kubernetes import Kubernetes
from tests.lab.lab import GATEWAY
from tests.lab.waiting import eventually

WAYS = (
    Way("10.20.30.40", 27000),
    Way("10.20.30.40", 27001),
    Way("10.9.9.9", 1947, "udp"),
    Way("2001:db8:9::1", 27000),
)


def test_the_policy_opens_exactly_the_ports_of_these_addresses() -> None:
    without = manifests.network_policy(spec(), OWNER)["spec"]["egress"]
    opened = manifests.network_policy(spec(ways=WAYS), OWNER)["spec"]["egress"]
    assert [rule for rule in opened if rule not in without] == [
        {"to": [{"ipBlock": {"cidr": "10.20.30.40/32"}}], "ports": tcp(27000, 27001)},
        {"to": [{"ipBlock": {"cidr": "10.9.9.9/32"}}], "ports": [{"protocol": "UDP", "port": 1947}]},
        {"to": [{"ipBlock": {"cidr": "2001:db8:9::1/128"}}], "ports": tcp(27000)},
    ]
    assert [rule for rule in without if rule not in opened] == []


def tcp(*ports: int) -> list[dict[str, Any]]:
    return [{"protocol": "TCP", "port": port} for port in ports]


def test_a_policy_that_was_taken_away_comes_back_with_the_same_ways() -> None:
    made = spec(ways=WAYS)
    pod = manifests.pod(made, 1, OWNER)
    again = manifests.network_policy(frame_of(pod, made.namespace, made.isolation), OWNER)
    assert again == manifests.network_policy(made, OWNER)
    assert names.LICENCES not in manifests.pod(spec(), 0, OWNER)["metadata"]["annotations"]
    assert spec_from(recipe_of(made)).ways == made.ways, "a node that is made anew has the annotation too"


@pytest.mark.parametrize(
    "said",
    [
        "",
        "x",
        "{}",
        "[1]",
        '[["10.0.0.0/8", 1, "tcp"]]',
        '[["10.0.0.1", 0, "tcp"]]',
        '[["10.0.0.1", 5, "any"]]',
    ],
)
def test_what_is_no_way_opens_nothing(said: str) -> None:
    assert manifests.ways_in({names.LICENCES: said}) == ()


# ---- on a real Kubernetes

LICENCES = "198.51.100.9"  # an address for documentation: it is nobody's
METADATA = "169.254.169.254"


@pytest.fixture(scope="module")
def places() -> Iterator[dict[str, int]]:
    from tests.kubernetes.test_isolation import listening, played_here

    with ExitStack() as stack:
        stack.enter_context(played_here(LICENCES))
        yield {name: stack.enter_context(listening(LICENCES)) for name in ("licence", "beside")}


@pytest.fixture(scope="module")
def hub(hub_of: Callable[..., KubeHub], places: dict[str, int]) -> KubeHub:
    named = [
        ("licensed", LICENCES, places["licence"]),
        ("inward", GATEWAY, 27000),
        ("metadata", METADATA, 80),
    ]
    return hub_of(
        licences=named, not_outside=["198.51.100.0/24", "10.0.0.0/8"], not_licences=[GATEWAY], mend_seconds=2
    )


@pytest.mark.kubernetes
@pytest.mark.timeout(1200)
def test_nodes_reach_their_licence_server_at_its_port_and_others_do_not(
    hub: KubeHub, namespace: Namespace, kubernetes: Kubernetes, places: dict[str, int]
) -> None:
    from tests.kubernetes.test_isolation import reaches

    targets = {name: f"{LICENCES}:{port}" for name, port in places.items()}
    hub.post("licensed", cpu=0.5)
    hub.post("plain", "eve", cpu=0.5)
    hub.runs("licensed")
    hub.runs("plain", "eve")
    ours, theirs = f"{hub.base('licensed')}-0", f"{hub.base('plain', 'eve')}-0"
    try:
        assert reaches(namespace, ours, targets) == {"licence"}
        assert reaches(namespace, theirs, targets) == set()
        namespace.delete("networkpolicy", hub.base("licensed"), "--wait=true")
        eventually(
            lambda: hub.base("licensed") in namespace.objects().get("NetworkPolicy", ()), 60, "it is put back"
        )
        eventually(lambda: reaches(namespace, ours, targets) == {"licence"}, 20, "with the same ways")
    finally:
        for server, user in (("licensed", "ada"), ("plain", "eve")):
            hub.ask_stop(server, user)
        for server, user in (("licensed", "ada"), ("plain", "eve")):
            hub.closed(server, user)
    namespace.nothing_left()


@pytest.mark.kubernetes
@pytest.mark.timeout(1200)
@pytest.mark.parametrize(
    ("server", "word"), [("inward", "belongs to the platform"), ("metadata", "metadata")]
)
def test_ways_inward_are_refused_with_the_reason(
    hub: KubeHub, namespace: Namespace, server: str, word: str
) -> None:
    assert word in hub.post_refused(server, 403)
    hub.closed(server)
    namespace.nothing_left()
