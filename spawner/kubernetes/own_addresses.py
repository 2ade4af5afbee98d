"""Where Kubernetes itself is, by address: its machines and its API servers.

What a cluster's policy calls the outside leaves out private networks; machines and API servers with public
addresses would be reached under it. So their addresses are asked for: every address that a machine has by its
own word, and the endpoints of the Service ``kubernetes`` (a control plane that somebody else runs is no machine
of the list). Names are not: whoever reaches the API server by a name that leads elsewhere says that network
in ``kubernetes.network.not_outside``.

One reading serves every start for a while, and :class:`~spawner.kubernetes.mender.Mender` reads anew again and again
and brings the policies of running clusters up to it. Nothing is guessed: without a reading there is no policy.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from ipaddress import IPv4Network, IPv6Address, IPv6Network, collapse_addresses, ip_address, ip_network
from typing import Any

from spawner.kubernetes.api import KubeAPI

FRESH_SECONDS = 90.0
_OF_THE_API_SERVER = "kubernetes.io/service-name=kubernetes"

Network = IPv4Network | IPv6Network


class OwnAddresses:
    """What is known of them.

    Parameters
    ----------
    api
        The API server.
    clock
        Monotonic seconds.
    """

    def __init__(self, api: KubeAPI, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._api = api
        self._clock = clock
        self._known: frozenset[Network] = frozenset()
        self._read_at = float("-inf")
        self._reading = asyncio.Lock()

    async def known(self) -> frozenset[Network]:
        """Them, as they were a short while ago.

        Raises
        ------
        APIError
            403 when the account may not read them.
        """
        async with self._reading:  # a thousand starts at once ask once
            if self._clock() - self._read_at > FRESH_SECONDS:
                await self._read()
            return self._known

    async def read(self) -> frozenset[Network]:
        """Them, as they are now; raises like :meth:`known`."""
        async with self._reading:
            await self._read()
            return self._known

    async def _read(self) -> None:
        machines, _ = await self._api.list("Node", "")
        slices, _ = await self._api.list("EndpointSlice", _OF_THE_API_SERVER)
        texts = [*_of_machines(machines), *_of_endpoints(slices), *self._api.servers()]
        self._known = frozenset(_networks(texts))
        self._read_at = self._clock()


def beyond(own: Iterable[Network], not_outside: Iterable[str]) -> list[str]:
    """Those that no network of ``not_outside`` covers, in CIDR form, each once, neighbours as one, sorted."""
    said = [ip_network(net, strict=False) for net in not_outside]
    left = [net for net in own if not any(_covers(wide, net) for wide in said)]
    four = [net for net in left if isinstance(net, IPv4Network)]
    six = [net for net in left if isinstance(net, IPv6Network)]
    return [str(net) for net in (*collapse_addresses(four), *collapse_addresses(six))]


def _covers(wide: Network, net: Network) -> bool:
    return wide.version == net.version and net.network_address in wide


def _of_machines(machines: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    for machine in machines:
        for entry in (machine.get("status") or {}).get("addresses") or ():
            yield str(entry.get("address", ""))  # names among them are no addresses


def _of_endpoints(slices: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    for some in slices:
        for endpoint in some.get("endpoints") or ():
            yield from (str(address) for address in endpoint.get("addresses") or ())


def _networks(texts: Iterable[str]) -> Iterator[Network]:
    for text in texts:
        try:
            address = ip_address(text.strip("[]").partition("%")[0])
        except ValueError:
            continue
        if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
            address = address.ipv4_mapped
        yield ip_network(address)
