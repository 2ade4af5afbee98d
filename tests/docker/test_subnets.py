"""Which addresses a cluster gets: never somebody else's, and the hub's are not given away."""

from __future__ import annotations

from ipaddress import IPv4Network
from itertools import islice

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spawner.docker import cards, subnets

POOL = IPv4Network("10.213.0.0/22")


@given(st.integers(1, 2000))
def test_a_piece_holds_its_gateway_and_every_node(nodes: int) -> None:
    prefix = subnets.prefix_for(nodes)
    assert prefix <= 27
    network = IPv4Network(f"10.0.0.0/{prefix}")
    last = subnets.address(network, nodes - 1)
    assert subnets.gateway(network) < subnets.address(network, 0) <= last < network.broadcast_address
    if prefix < 27:
        with pytest.raises(ValueError, match="no place"):
            subnets.address(IPv4Network(f"10.0.0.0/{prefix + 1}"), nodes - 1)


taken = st.lists(
    st.tuples(st.integers(0, 1023), st.integers(22, 32)).map(
        lambda item: IPv4Network((int(POOL.network_address) + item[0], item[1]), strict=False)
    ),
    max_size=12,
)


@given(taken, st.integers(1, 60))
def test_what_is_free_overlaps_with_nothing_and_nothing_free_is_missed(
    used: list[IPv4Network], nodes: int
) -> None:
    found = list(subnets.free(POOL, nodes, used))
    own = subnets.own_network(POOL)
    for network in found:
        assert network.subnet_of(POOL)
        assert not any(network.overlaps(other) for other in (*used, own))
    assert len(set(found)) == len(found)
    all_free = {
        network
        for network in POOL.subnets(new_prefix=subnets.prefix_for(nodes))
        if not any(network.overlaps(other) for other in (*used, own))
    }
    assert set(found) == all_free


def test_others_networks_elsewhere_do_not_matter_and_a_full_pool_has_nothing() -> None:
    first = next(subnets.free(POOL, 2, [IPv4Network("172.17.0.0/16")]))
    assert first == IPv4Network("10.213.0.32/27")
    assert not list(subnets.free(POOL, 2, [POOL]))
    assert subnets.most_clusters(str(POOL)) == len(list(subnets.free(POOL, 1, []))) == 31
    assert len(list(islice(subnets.free(IPv4Network("10.0.0.0/8"), 1, []), 5))) == 5


@given(st.integers(0, 8), st.integers(0, 8), st.integers(1, 4), st.integers(1, 4))
def test_no_card_is_given_twice(cards_there: int, held: int, nodes: int, each: int) -> None:
    all_cards = [f"GPU-{number}" for number in range(cards_there)]
    taken = all_cards[:held]
    dealt = cards.deal(all_cards, taken, nodes, each)
    if dealt is None:
        assert len(all_cards) - len(taken) < nodes * each
        return
    given_away = [card for rank in range(nodes) for card in dealt[rank]]
    assert len(given_away) == len(set(given_away)) == nodes * each
    assert not set(given_away) & set(taken)
    assert cards.held_by([",".join(dealt[rank]) for rank in dealt]) == set(given_away)
