"""Where each part listens, and where the others reach it.

On one machine that is 127.0.0.1 and a port that was chosen once (:mod:`hub_config.ports`). Where the settings
give an address, others use it as it is written, and the part listens at its port: on that address alone when
it is a numeric one, which then must be the machine's own; on all when it is a name, as of a Service. Nodes that
are containers cannot reach 127.0.0.1: hub and portal then listen at the machine's address in the nodes' pool.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from urllib.parse import urlsplit

from galilean.errors import UserError, mark
from galilean.settings import Settings

PARTS = ("hub", "proxy_api", "portal", "metering", "release", "queue", "machines", "imagebuilder", "registry")
LOOPBACK = "127.0.0.1"
EVERYWHERE = "0.0.0.0"  # noqa: S104 - in a pod of its own, whose reach a NetworkPolicy bounds


@dataclass(frozen=True)
class Address:
    """One part's.

    Attributes
    ----------
    url
        ``http://host:port`` for the others, without a path.
    host, port
        Where the part listens.
    """

    url: str
    host: str
    port: int


class Addresses:
    """The addresses of all parts that have one.

    Parameters
    ----------
    settings
        Whose section ``addresses`` wins.
    ports
        Ports on this machine for the others.
    """

    def __init__(self, settings: Settings, ports: Mapping[str, int] | None = None) -> None:
        own: dict[str, str] = {}
        if settings.backend == "docker":
            own = {"hub": settings.docker.address, "portal": settings.docker.address}
        self._known = {
            name: address_of(url) for name in PARTS if (url := getattr(settings.addresses, name, ""))
        } | {
            name: Address(f"http://{own.get(name, LOOPBACK)}:{port}", own.get(name, LOOPBACK), port)
            for name, port in (ports or {}).items()
            if name in PARTS and not getattr(settings.addresses, name, "")
        }
        self._state = settings.state

    def __contains__(self, name: str) -> bool:
        return name in self._known

    def __getitem__(self, name: str) -> Address:
        """The address of a part.

        Raises
        ------
        UserError
            503 when the settings give none and the product was never started here.
        """
        try:
            return self._known[name]
        except KeyError:
            raise UserError(
                503,
                mark(
                    "Nothing is known of where the part “{part}” is. Start Galilean on {state} (make up), or say "
                    "addresses.{part} in the settings."
                ),
                part=name,
                state=str(self._state),
            ) from None

    def url(self, name: str) -> str:
        """See :class:`Address`."""
        return self[name].url


def given(settings: Settings) -> frozenset[str]:
    """The parts whose addresses the settings say."""
    return frozenset(name for name in PARTS if getattr(settings.addresses, name, ""))


def address_of(url: str) -> Address:
    """The address that a URL of the settings means."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    if host == "localhost":
        host = LOOPBACK
    elif not numeric(host):
        host = EVERYWHERE
    return Address(url, host, parts.port or 0)


def numeric(host: str) -> bool:
    """Whether a host is an IP address and no name."""
    try:
        ip_address(host)
    except ValueError:
        return False
    return True
