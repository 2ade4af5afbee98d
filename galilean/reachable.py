"""Which addresses may be asked because somebody typed them: those of the public internet, and what the centre lists.

Whoever registers an image or an object store names a host, and the product goes there. Without a rule that would be a
way to ask the hub's own ports, a cloud's metadata service or the campus network. This is the rule, on plain data;
who connects holds to it where the connection is made (:mod:`extensions.imagebuilder.guard`,
:mod:`services.object_stores.wire`): the name is resolved there, every address it has must be allowed, and the connection goes to
the address that was checked.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

Address = IPv4Address | IPv6Address

HOST = re.compile(r"[a-z0-9](?:[a-z0-9.-]*[a-z0-9])?(?::[0-9]{1,5})?", re.ASCII)
#: What addresses of IPv6 carry addresses of IPv4 within.
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")


@dataclass(frozen=True)
class Reachable:
    """What may be reached although it is not public: hosts (with or without port) and networks."""

    hosts: frozenset[str]
    networks: tuple[IPv4Network | IPv6Network, ...]

    @classmethod
    def parse(cls, words: Iterable[str]) -> Reachable:
        """From ``images.reachable`` or ``object_stores.reachable`` of the settings."""
        hosts, networks = set[str](), list[IPv4Network | IPv6Network]()
        for word in words:
            if "/" in word:
                networks.append(ipaddress.ip_network(word))
            else:
                hosts.add(word.lower())
        return cls(frozenset(hosts), tuple(networks))

    def names(self, host: str, port: int) -> bool:
        """Whether a host is listed by its name."""
        host = host.lower()
        shown = f"[{host}]" if ":" in host else host
        return bool({host, shown, f"{shown}:{port}"} & self.hosts)

    def allows(self, address: Address) -> bool:
        """Whether an address may be connected to, whatever its name."""
        inner = _within(address)
        return is_public(address) or any(
            one.version == net.version and one in net for one in (address, inner) for net in self.networks
        )


def is_public(address: Address) -> bool:
    """Whether it is of the internet: neither this machine's nor a private network's, nor anything special."""
    inner = _within(address)
    return all(
        one.is_global and not (one.is_multicast or one.is_reserved or one.is_unspecified or one.is_loopback)
        for one in (address, inner)
    )


def _within(address: Address) -> Address:
    """The address of IPv4 that one of IPv6 stands for; itself otherwise."""
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped:
            return address.ipv4_mapped
        if address.sixtofour:
            return address.sixtofour
        if address.teredo:
            return address.teredo[1]
        if address in _NAT64:
            return IPv4Address(int(address) & 0xFFFFFFFF)
    return address


def words_of_reachable(value: tuple[str, ...]) -> tuple[str, ...]:
    """What a setting lists as reachable, once every word of it can be read.

    Raises
    ------
    ValueError
        For what is neither a host, ``host:port`` nor a network.
    """
    for text in value:
        if "/" in text:
            ipaddress.ip_network(text)
        elif not text.startswith("[") and not HOST.fullmatch(text):
            raise ValueError(f"{text!r} is neither a host, host:port nor a network")
    return value
