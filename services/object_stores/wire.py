"""How requests to object stores leave: by urllib3, to addresses that were checked, and nowhere else.

botocore signs, retries and reads the answers; it lets somebody else do the sending (its event ``before-send``). So the name
is resolved here, every address it has must be allowed (:mod:`galilean.reachable`), and the connection goes to the
address that was checked: a name that answers differently the second time gains nothing. Certificates are checked
against the name. No redirect is followed, no proxy of the environment used.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import urlsplit

import urllib3
from botocore.awsrequest import AWSPreparedRequest, AWSResponse
from botocore.exceptions import ConnectTimeoutError, EndpointConnectionError, ReadTimeoutError, SSLError
from urllib3.exceptions import HTTPError, TimeoutError

from galilean.reachable import Reachable

CONNECT_SECONDS, READ_SECONDS = 10.0, 60.0
#: Waiting for “100 Continue” is not done here, and no signature covers it.
_LEFT_OUT = frozenset({"expect", "host"})
Resolve = Callable[[str, int], Sequence[str]]


class Forbidden(Exception):
    """An address that may not be asked; ``host`` is for words."""

    def __init__(self, host: str) -> None:
        super().__init__(f"{host} may not be reached from here")
        self.host = host


def resolve(host: str, port: int) -> Sequence[str]:
    """The addresses of a name, as this machine knows them."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(one[4][0]).partition("%")[0] for one in found))


class Wire:
    """Sends what botocore made; one for each store that is asked.

    Parameters
    ----------
    reachable
        What the centre lists.
    ca_file
        Who signs certificates; empty = whom the machine trusts.
    resolver
        Names to addresses; handed in for tests.
    """

    def __init__(self, reachable: Reachable, *, ca_file: str = "", resolver: Resolve = resolve) -> None:
        self._reachable, self._resolve = reachable, resolver
        self._pools = urllib3.PoolManager(
            num_pools=8,
            maxsize=4,
            retries=False,
            timeout=urllib3.Timeout(connect=CONNECT_SECONDS, read=READ_SECONDS),
            cert_reqs="CERT_REQUIRED",
            ca_certs=ca_file or None,
        )

    def addresses(self, host: str, port: int) -> list[str]:
        """Where a host may be connected to.

        Raises
        ------
        Forbidden
            When one of its addresses is not allowed.
        OSError
            When it has none.
        """
        found = self._resolve(host, port)
        listed = self._reachable.names(host, port)
        for text in found:
            if not listed and not self._reachable.allows(ipaddress.ip_address(text)):
                raise Forbidden(host)
        return list(found)

    def send(self, request: AWSPreparedRequest, **_: Any) -> AWSResponse:
        """Answer botocore's ``before-send``."""
        url = request.url
        parts = urlsplit(url)
        scheme, host = parts.scheme, parts.hostname or ""
        port = parts.port or (443 if scheme == "https" else 80)
        usual = parts.port in (None, 443 if scheme == "https" else 80)
        shown = f"[{host}]" if ":" in host else host
        headers = {
            name: value.decode() if isinstance(value, bytes) else str(value)
            for name, value in request.headers.items()
            if name.lower() not in _LEFT_OUT
        } | {"Host": shown if usual else f"{shown}:{port}"}
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        more = {"server_hostname": host, "assert_hostname": host} if scheme == "https" else {}
        try:
            found = self.addresses(host, port)
        except (OSError, UnicodeError) as error:
            raise EndpointConnectionError(endpoint_url=url, error=error) from error
        last: Exception = OSError("no address")
        for address in found:
            try:
                pool = self._pools.connection_from_host(address, port, scheme, pool_kwargs=more)
                answer = pool.urlopen(
                    request.method,
                    target,
                    body=request.body,
                    headers=headers,
                    redirect=False,
                    retries=False,
                    preload_content=False,
                    decode_content=False,
                )
            except urllib3.exceptions.NewConnectionError as error:
                last = EndpointConnectionError(endpoint_url=url, error=error)
            except urllib3.exceptions.ConnectTimeoutError as error:
                last = ConnectTimeoutError(endpoint_url=url, error=error)
            except TimeoutError as error:
                raise ReadTimeoutError(endpoint_url=url, error=error) from error
            except urllib3.exceptions.SSLError as error:
                raise SSLError(endpoint_url=url, error=error) from error
            except HTTPError as error:
                raise EndpointConnectionError(endpoint_url=url, error=error) from error
            else:
                response = AWSResponse(url, answer.status, answer.headers, answer)
                if not request.stream_output:
                    response.content  # noqa: B018 - read while errors of the line are still botocore's to repeat
                return response
        raise last

    def close(self) -> None:
        """Let go of all connections."""
        self._pools.clear()
