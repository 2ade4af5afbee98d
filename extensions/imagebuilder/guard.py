"""To which addresses we go because somebody typed them: to the public internet, and to what the centre lists.

Whoever registers an image names a host, and a registry names further ones (for tokens, for blobs). Without a guard
that would be a way to ask the hub's own ports, a cloud's metadata service or the campus network. So each connection
is checked where it is made: the name is resolved *here*, every address it has must be allowed, and the connection
goes to the address that was checked, so that a name which answers differently the second time gains nothing.
Certificates are checked against the name as always.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import ssl
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import httpcore
import httpx
from httpcore._backends.auto import AutoBackend

from galilean.errors import UserError, mark
from galilean.reachable import Reachable

Resolve = Callable[[str, int], Awaitable[Sequence[str]]]


class Forbidden(httpcore.ConnectError):
    """An address that may not be asked. For the client it is as if nothing listened there."""


async def resolve(host: str, port: int) -> Sequence[str]:
    """The addresses of a name, as this machine knows them."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(one[4][0]).partition("%")[0] for one in found))


class Guard:
    """Decides and resolves; one for each question to a registry.

    Parameters
    ----------
    reachable
        What the centre lists.
    resolver
        Names to addresses; handed in for tests.
    """

    def __init__(self, reachable: Reachable, resolver: Resolve = resolve) -> None:
        self._reachable = reachable
        self._resolve = resolver
        #: The host that was refused last, for words.
        self.refused = ""

    async def addresses(self, host: str, port: int) -> list[str]:
        """Where a host may be connected to.

        Raises
        ------
        Forbidden
            When one of its addresses is not allowed.
        httpcore.ConnectError
            When it has none.
        """
        try:
            found = await self._resolve(host, port)
        except OSError as error:
            raise httpcore.ConnectError(f"{host} has no address") from error
        listed = self._reachable.names(host, port)
        for text in found:
            if not listed and not self._reachable.allows(ipaddress.ip_address(text)):
                self.refused = host
                raise Forbidden(f"{host} may not be reached from here")
        return list(found)

    def transport(self, tls: ssl.SSLContext | None = None) -> httpx.AsyncBaseTransport:
        """A transport for httpx whose connections are all checked."""
        context = tls or httpx.create_ssl_context(trust_env=False)
        transport = httpx.AsyncHTTPTransport(verify=context, trust_env=False)
        # httpx has no way to hand a network in; its pool has.
        transport._pool = httpcore.AsyncConnectionPool(
            ssl_context=context,
            max_connections=10,
            max_keepalive_connections=2,
            keepalive_expiry=5,
            network_backend=_Checked(self),
        )
        return transport


class _Checked(httpcore.AsyncNetworkBackend):
    def __init__(self, guard: Guard) -> None:
        self._guard = guard
        self._real = AutoBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Any = None,
    ) -> httpcore.AsyncNetworkStream:
        last: Exception | None = None
        for address in await self._guard.addresses(host, port):
            try:
                return await self._real.connect_tcp(address, port, timeout, local_address, socket_options)
            except httpcore.ConnectError as error:
                last = error
        raise last or httpcore.ConnectError(f"{host} has no address")

    async def connect_unix_socket(self, *args: Any, **more: Any) -> httpcore.AsyncNetworkStream:
        raise Forbidden("sockets of this machine may not be reached")

    async def sleep(self, seconds: float) -> None:
        await self._real.sleep(seconds)


def forbidden(host: str) -> UserError:
    """The words for an address that may not be asked."""
    return UserError(
        403,
        mark(
            "{host} is not on the public internet, and an image may come from there only if the administrators list it "
            "(images.reachable)."
        ),
        reason="registry-private",
        host=host[:255],
    )
