"""The ways that a run gets to licence servers: their names, looked up when it starts (CG-45).

A firewall and a network policy know addresses, an entry may say names. So the hub looks them up at every start, looks
at each address it finds by the rules of :mod:`galilean.licences`, and opens these addresses and no others: a name that
leads elsewhere a minute later opens nothing. It is not looked up again while a run lasts; the next start does.
A server that has no address just now is left out, as long as another one has: three servers that stand in for one another
are how licences are kept, and one of them may be away.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from typing import Any, Literal

from galilean.errors import UserError, mark
from galilean.licences import ITSELF, LINK, METADATA, OURS, SPECIAL, Address, Network, never

LOOK_UP_SECONDS = 5.0
ADDRESSES_MOST = 16
KEPT = "licences"

_NOT_FOUND = mark(
    "The licence servers of “{environment}” have no address now: {hosts}. Try again, or tell an administrator."
)
#: Why nobody gets a way there, by the reasons of :mod:`galilean.licences`; the second time as whole sentences.
_REFUSED = {
    ITSELF: mark(
        "The licence server {host} of “{environment}” leads to {address}, a machine of the platform itself. No run gets a "
        "way there: an administrator must name another machine."
    ),
    LINK: mark(
        "The licence server {host} of “{environment}” leads to {address}, which is link-local: clouds keep their metadata "
        "there. No run gets a way there."
    ),
    METADATA: mark(
        "The licence server {host} of “{environment}” leads to {address}, where a cloud keeps its metadata. No run gets a "
        "way there."
    ),
    SPECIAL: mark(
        "The licence server {host} of “{environment}” leads to {address}, which is no address of one machine."
    ),
    OURS: mark(
        "The licence server {host} of “{environment}” leads to {address}, which belongs to the platform: its hub, its "
        "machines or other people's clusters. No run gets a way there."
    ),
}
LookUp = Callable[[str], Awaitable[Sequence[str]]]


@dataclass(frozen=True, kw_only=True)
class LicenceServer:
    """A licence server as an entry names it."""

    host: str
    ports: tuple[int, ...]
    protocol: Literal["tcp", "udp"] = "tcp"

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        udp = "/udp" if self.protocol == "udp" else ""
        return f"{host}:{','.join(str(port) for port in self.ports)}{udp}"


@dataclass(frozen=True, order=True)
class Way:
    """What is opened for a run: one port of one address."""

    address: str
    port: int
    protocol: str = "tcp"


async def look_up(host: str) -> Sequence[str]:
    """The addresses of a name, as this machine knows them."""
    found = await asyncio.wait_for(
        asyncio.get_running_loop().getaddrinfo(host, None, type=socket.SOCK_STREAM), LOOK_UP_SECONDS
    )
    return list(dict.fromkeys(str(one[4][0]).partition("%")[0] for one in found))


def is_own(address: Address) -> bool:
    """Whether this machine, or the container of the hub, has the address."""
    family = socket.AF_INET6 if address.version == 6 else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as found:
            found.bind((str(address), 0))
    except OSError as error:
        return error.errno not in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT, errno.EINVAL)
    return True


async def networks(words: Iterable[str], look: LookUp = look_up) -> tuple[Network, ...]:
    """Networks, addresses and the addresses of names; a name without one stands for nothing."""
    found: list[Network] = []
    for word in words:
        try:
            found.append(ip_network(word, strict=False))
        except ValueError:
            with contextlib.suppress(OSError, TimeoutError, UnicodeError):
                found += [ip_network(text) for text in await look(word)]
    return tuple(found)


async def ways(
    servers: Iterable[LicenceServer],
    *,
    environment: str,
    ours: Sequence[Network] = (),
    only_four: bool = False,
    look: LookUp = look_up,
    own: Callable[[Address], bool] = is_own,
    log: Any = None,
) -> tuple[Way, ...]:
    """What is opened for a run, in order.

    Parameters
    ----------
    servers
        Of the run's environment.
    environment
        Its name, for words.
    ours
        Networks of the platform itself.
    only_four
        Whether nodes have no IPv6.
    look, own
        Names to addresses, and which of them are this machine's; handed in for tests.
    log
        Told of servers without an address.

    Raises
    ------
    UserError
        403 for an address that nobody gets a way to; 503 when none of the servers has an address.
    """
    servers = list(servers)
    found: set[Way] = set()
    missing: list[str] = []
    for server in servers:
        try:
            texts = await look(server.host)
        except (OSError, TimeoutError, UnicodeError):
            texts = ()
        addresses = [ip_address(text) for text in texts][:ADDRESSES_MOST]
        for address in addresses:
            why = never(address, ours) or (ITSELF if own(address) else None)
            if why is not None:
                raise UserError(
                    403,
                    _REFUSED[why],
                    reason="licence-address",
                    host=server.host,
                    environment=environment,
                    address=str(address),
                )
        usable = [str(one) for one in addresses if one.version == 4 or not only_four]
        if not usable:
            missing.append(server.host)
        found |= {
            Way(address=one, port=port, protocol=server.protocol) for one in usable for port in server.ports
        }
    if servers and not found:
        raise UserError(
            503, _NOT_FOUND, reason="licence-away", environment=environment, hosts=", ".join(missing)
        )
    if missing and log is not None:
        log.warning("Licence servers of %s without an address: %s", environment, ", ".join(missing))
    return tuple(sorted(found))


def to_keep(servers: Iterable[LicenceServer]) -> dict[str, Any]:
    """What a run's row keeps, to be shown; nothing where there are none."""
    said = [str(server) for server in servers]
    return {KEPT: said} if said else {}


def kept(state: Any) -> tuple[str, ...]:
    """What :func:`to_keep` left in a row."""
    return tuple((state or {}).get(KEPT, ()))
