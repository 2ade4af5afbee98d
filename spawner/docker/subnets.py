"""Which addresses a cluster's network gets: a piece of the pool that is free. Pure.

Docker's own pools end after about thirty networks, so every cluster is handed a piece: a /27, or larger where
the cluster is. The first /27 of the pool is the machine's own: hub and portal listen at its first address,
which nodes reach from every network and nobody else does.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from ipaddress import IPv4Address, IPv4Network

SMALLEST_PREFIX = 27


def prefix_for(nodes: int) -> int:
    """The length of the prefix that holds a gateway and so many nodes.

    Raises
    ------
    ValueError
        For less than one node.
    """
    if nodes < 1:
        raise ValueError("a cluster has a node")
    needed = nodes + 3  # network, gateway, broadcast
    return min(SMALLEST_PREFIX, 32 - (needed - 1).bit_length())


def own_network(pool: IPv4Network) -> IPv4Network:
    """The piece at whose gateway hub and portal listen."""
    return next(pool.subnets(new_prefix=SMALLEST_PREFIX))


def gateway(network: IPv4Network) -> IPv4Address:
    """The machine's own address in a network."""
    return network.network_address + 1


def address(network: IPv4Network, rank: int) -> IPv4Address:
    """The address of node ``rank``, so that its URL is known before it runs."""
    found = network.network_address + 2 + rank
    if found not in network or found == network.broadcast_address:
        raise ValueError(f"{network} has no place for node {rank}")
    return found


def free(pool: IPv4Network, nodes: int, taken: Iterable[IPv4Network]) -> Iterator[IPv4Network]:
    """Pieces of the pool that overlap with nothing, in order; empty = the pool is full."""
    prefix = max(prefix_for(nodes), pool.prefixlen)
    used = sorted(
        (net for net in {*taken, own_network(pool)} if net.overlaps(pool)),
        key=lambda net: net.network_address,
    )
    size = 1 << (32 - prefix)
    place, end = int(pool.network_address), int(pool.broadcast_address) + 1
    for net in [*used, None]:
        stop = int(net.network_address) if net is not None else end
        while place + size <= stop:
            yield IPv4Network((place, prefix))
            place += size
        if net is not None:
            beyond = int(net.broadcast_address) + 1
            place = max(place, -(-beyond // size) * size)


def most_clusters(pool: str) -> int:
    """How many small clusters the pool has networks for."""
    return (1 << (SMALLEST_PREFIX - IPv4Network(pool).prefixlen)) - 1
