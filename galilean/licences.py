"""Licence servers: what an environment may name, and what is never opened, whoever names it (CG-45).

Licensed software asks a server of the campus at every start. That server stands in a private network, which nodes
do not reach; so an entry names it, by host or address and by port, and a run of that entry gets a way to exactly
these. A way is something that an administrator gives. Some are nobody's to give: to the machines' own services, to a
cloud's metadata, to hub and portal, to the API of Kubernetes or Docker, to other people's clusters. What is written
is looked at here when it is written; a name says nothing yet, so what it leads to is looked at again, by the same
rules, at each start (:mod:`spawner.licences`).
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

SERVERS_MOST, PORTS_MOST = 16, 32
#: Where Kubernetes, its machines, its memory and Docker listen: no licence server does.
PORTS_NEVER = frozenset({2375, 2376, 2379, 2380, 6443, 10248, 10249, 10250, 10255, 10256, 10257, 10259})
_LABEL = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?", re.ASCII)
#: Names that lead to the machine that asks, or into Kubernetes.
_INSIDE = ("localhost", "cluster.local", "svc", "internal")
#: Metadata of clouds that is not link-local.
_METADATA = frozenset(
    ip_address(text) for text in ("fd00:ec2::254", "100.100.100.200", "192.0.0.192", "168.63.129.16")
)
_NAT64 = IPv6Network("64:ff9b::/96")

ITSELF = "leads to the machine that asks"
LINK = "is link-local, where clouds keep their metadata"
METADATA = "is where a cloud keeps its metadata"
SPECIAL = "is no address of one machine"
OURS = "belongs to the platform itself: its machines, its hub or other people's clusters"


def read_host(text: str) -> str:
    """A host name or a whole numeric address, in small letters.

    Raises
    ------
    ValueError
        For a network, a number that some programs read as an address, or a name that leads inside.
    """
    host = text.strip().lower().rstrip(".").removeprefix("[").removesuffix("]")
    if (address := numeric(host)) is not None:
        why = never(address)
        if why is not None:
            raise ValueError(f"{text[:80]!r} {why}")
        return str(address)
    labels = host.split(".")
    if len(host) > 253 or not all(_LABEL.fullmatch(label) for label in labels):
        raise ValueError(f"{text[:80]!r} is no host name and no address")
    if re.fullmatch(r"[0-9]+|0x[0-9a-f]*", labels[-1]):
        raise ValueError(f"{text[:80]!r}: write an address with four whole numbers, such as 192.0.2.10")
    if any(host == word or host.endswith(f".{word}") for word in _INSIDE):
        raise ValueError(f"{text[:80]!r} leads inside of the platform; a licence server is another machine")
    return host


def read_port(port: int) -> int:
    """``port``, when a licence server may listen there.

    Raises
    ------
    ValueError
        When it is no port, or one of Kubernetes' or Docker's own.
    """
    if not 1 <= port <= 65535:
        raise ValueError(f"{port} is no port from 1 to 65535")
    if port in PORTS_NEVER:
        raise ValueError(f"port {port} is Kubernetes' or Docker's own and is opened for nobody")
    return port


def numeric(host: str) -> Address | None:
    """The address that a host is, if it is one."""
    try:
        return ip_address(host)
    except ValueError:
        return None


def never(address: Address, ours: Iterable[Network] = ()) -> str | None:
    """Why no run gets a way to an address, in English; ``None`` when one may be given.

    ``ours`` are the networks and addresses of the platform itself.
    """
    for one in {address, _within(address)}:
        if one.is_loopback or one.is_unspecified:
            return ITSELF
        if one.is_link_local:
            return LINK
        if one in _METADATA:
            return METADATA
        if one.is_multicast or one.is_reserved or str(one) == "255.255.255.255":
            return SPECIAL
        if isinstance(one, IPv4Address) and one in IPv4Network("0.0.0.0/8"):
            return ITSELF
        if any(one.version == net.version and one in net for net in ours):
            return OURS
    return None


def _within(address: Address) -> Address:
    """The address of IPv4 that one of IPv6 stands for; itself otherwise."""
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped:
            return address.ipv4_mapped
        if address.sixtofour:
            return address.sixtofour
        if address in _NAT64:
            return IPv4Address(int(address) & 0xFFFFFFFF)
    return address


def networks_in(words: Iterable[str]) -> tuple[Network, ...]:
    """Of networks, addresses and names those that are numbers."""
    found: list[Network] = []
    for word in words:
        with contextlib.suppress(ValueError):
            found.append(ip_network(word, strict=False))
    return tuple(found)
