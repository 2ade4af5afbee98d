"""What nodes must not reach although it has a public address: the machines and the API servers of Kubernetes."""

from __future__ import annotations

from ipaddress import ip_address, ip_network
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spawner.backend import NodeFailed
from spawner.kubernetes import manifests
from spawner.kubernetes.api import APIError
from spawner.kubernetes.own_addresses import FRESH_SECONDS, OwnAddresses, beyond
from spawner.kubernetes.policies import says
from spawner.kubernetes.spec import NOT_OUTSIDE, Isolation
from tests.kubernetes.memory import Progress
from tests.kubernetes.test_manifests import OWNER, spec

BASE = spec().base
OPEN = spec().isolation


def machine(cluster: Any, name: str, *addresses: tuple[str, str]) -> None:
    told = [{"type": kind, "address": address} for kind, address in addresses]
    cluster.put("Node", name, status={"addresses": told, "images": [{"names": ["much"]}]})


def api_server(cluster: Any, *addresses: str) -> None:
    labels = {"kubernetes.io/service-name": "kubernetes"}
    endpoints = [{"addresses": [address], "conditions": {"ready": True}} for address in addresses]
    cluster.put("EndpointSlice", "kubernetes", labels=labels, endpoints=endpoints)


def excepted(cluster: Any, base: str = BASE) -> set[str]:
    """What the policy that is there leaves out of the outside, besides private networks."""
    (outside,) = [
        rule["to"]
        for rule in cluster.objects["NetworkPolicy", base]["spec"]["egress"]
        if "ipBlock" in rule["to"][0]
    ]
    return {net for peer in outside for net in peer["ipBlock"]["except"]} - set(NOT_OUTSIDE)


async def test_machines_and_api_servers_with_public_addresses_are_not_the_outside(world: Any) -> None:
    cluster, made = world
    machine(
        cluster, "m1", ("Hostname", "m1"), ("InternalIP", "10.1.0.1"), ("ExternalIP", "192.0.2.11"),
        ("ExternalIP", "2001:db8::11"), ("ExternalDNS", "m1.example.edu"),
    )  # fmt: skip
    machine(cluster, "m2", ("InternalIP", "198.51.100.4"))
    cluster.put("Node", "new")
    api_server(cluster, "203.0.113.9", "10.1.0.9")
    cluster.put("EndpointSlice", "other", labels={"kubernetes.io/service-name": "other"}, endpoints=[])
    cluster.at = ["api.example.edu", "203.0.113.200"]
    await made.create(spec(), Progress())
    assert excepted(cluster) == {
        "192.0.2.11/32", "198.51.100.4/32", "203.0.113.9/32", "203.0.113.200/32", "2001:db8::11/128",
    }  # fmt: skip
    assert cluster.writes[:2] == ["create Secret", "create NetworkPolicy"], "no write more than before"


async def test_a_machine_that_comes_is_closed_to_running_clusters_and_one_that_goes_is_open_again(
    world: Any,
) -> None:
    cluster, made = world
    machine(cluster, "m1", ("ExternalIP", "192.0.2.11"))
    await made.create(spec(), Progress())
    await made.create(spec(user="bob", run="01K0000000000000000000000B"), Progress())
    assert await made.mender.mend(OPEN) == []
    machine(cluster, "m2", ("ExternalIP", "192.0.2.30"))
    bob = spec(user="bob").base
    assert sorted(await made.mender.mend(OPEN)) == sorted(f"NetworkPolicy {base}" for base in (BASE, bob))
    assert excepted(cluster) == excepted(cluster, bob) == {"192.0.2.11/32", "192.0.2.30/32"}
    assert "delete NetworkPolicy" not in cluster.writes, "no moment is without a policy"
    assert await made.mender.mend(OPEN) == []
    cluster.vanish("Node", "m1")
    await made.mender.mend(OPEN)
    assert excepted(cluster) == {"192.0.2.30/32"}


async def test_what_may_not_be_read_is_said_and_no_cluster_is_made_open(world: Any) -> None:
    cluster, made = world
    cluster.refuse("list Node", APIError(403, 'User "hub" cannot list resource "nodes"'), times=2)
    with pytest.raises(NodeFailed) as caught:
        await made.create(spec(), Progress())
    assert "may not read the addresses" in caught.value.message
    assert not cluster.writes
    closed = spec(isolation=Isolation(outside=False))
    await made.create(closed, Progress())
    assert await made.mender.mend(closed.isolation) == [], "who is closed to the outside needs no such right"
    assert cluster.refusals, "and does not ask"


async def test_many_starts_ask_once_and_what_is_known_grows_old(world: Any) -> None:
    cluster, _ = world
    now = [0.0]
    asked = 0
    listing = cluster.list

    async def counted(kind: str, selector: str, **more: Any) -> Any:
        nonlocal asked
        asked += kind == "Node"
        return await listing(kind, selector, **more)

    cluster.list = counted
    own = OwnAddresses(cluster, clock=lambda: now[0])
    machine(cluster, "m1", ("ExternalIP", "192.0.2.11"))
    for _ in range(3):
        assert [str(net) for net in await own.known()] == ["192.0.2.11/32"]
    assert asked == 1
    now[0] = FRESH_SECONDS + 1
    machine(cluster, "m1", ("ExternalIP", "192.0.2.12"))
    assert [str(net) for net in await own.known()] == ["192.0.2.12/32"]


async def test_an_address_that_is_none_or_written_strangely_breaks_no_policy(world: Any) -> None:
    cluster, _ = world
    machine(
        cluster, "m", ("InternalIP", ""), ("InternalIP", "fe80::1%eth0"), ("ExternalIP", "::ffff:192.0.2.1"),
        ("ExternalIP", "[2001:db8::1]"), ("ExternalIP", "192.0.2.0/24"), ("ExternalIP", "x y"),
    )  # fmt: skip
    cluster.put(
        "EndpointSlice", "kubernetes", labels={"kubernetes.io/service-name": "kubernetes"}, endpoints=None
    )
    found = beyond(await OwnAddresses(cluster).known(), NOT_OUTSIDE)
    assert found == ["192.0.2.1/32", "2001:db8::1/128"]


@given(
    own=st.lists(st.ip_addresses(), max_size=12),
    said=st.lists(st.sampled_from(NOT_OUTSIDE), max_size=4, unique=True),
    other=st.ip_addresses(),
)
def test_every_address_of_kubernetes_is_left_out_and_no_other_is(
    own: Any, said: list[str], other: Any
) -> None:
    one = spec(isolation=Isolation(not_outside=said))
    policy = manifests.network_policy(one, OWNER, own=[ip_network(address) for address in own])
    (peers,) = [rule["to"] for rule in policy["spec"]["egress"] if "ipBlock" in rule["to"][0]]

    def reached(address: Any) -> bool:
        nets = [(ip_network(peer["ipBlock"]["cidr"]), peer["ipBlock"]["except"]) for peer in peers]
        return any(
            address in wide and not any(address in ip_network(net) for net in nets) for wide, nets in nets
        )

    assert not any(reached(address) for address in own)
    private = any(ip_address(other) in ip_network(net) for net in said)
    assert reached(other) is (other not in own and not private)


def test_what_the_api_server_fills_in_or_drops_says_the_same() -> None:
    ours = {
        "podSelector": {"matchLabels": {"a": "b"}},
        "ingress": [],
        "egress": [
            {"to": [{"ipBlock": {"cidr": "::/0", "except": []}}], "ports": [{"port": 53}]},
            {"to": [{"namespaceSelector": {}}, {"podSelector": {"matchLabels": {}}}]},
        ],
    }
    theirs = {
        "podSelector": {"matchLabels": {"a": "b"}},
        "egress": [
            {"to": [{"ipBlock": {"cidr": "::/0"}}], "ports": [{"port": 53, "protocol": "TCP"}]},
            {"to": [{"namespaceSelector": {}}, {"podSelector": {}}]},
        ],
    }
    assert says(ours) == says(theirs)
    theirs["egress"][1]["to"].pop()  # type: ignore[union-attr, index]
    assert says(ours) != says(theirs)
    assert says({"to": [{"podSelector": {}}]}) != says({"to": [{}]})
