"""The network in which one image is built: of its own, gone with the build.

What a build runs reaches names and the outside as nodes do (``docker.outside``), and neither hub nor clusters nor
machine: the interface's name tells the firewall so (:mod:`spawner.docker.firewall`). The addresses are a piece of the
clusters' pool, found as for a cluster.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Iterator
from ipaddress import IPv4Network
from typing import Any

from galilean.errors import UserError, mark
from spawner.docker import names, subnets
from spawner.docker.api import APIError, Client, NotFound, said

log = logging.getLogger("galilean.imagebuilder")

#: Marks networks in which something is built, by instance.
BUILDS = "galilean.io/builds"
_PAUSES_SECONDS = (0.05, 0.2, 0.5, 1.0, 2.0, 5.0)


@contextlib.contextmanager
def build_network(client: Client, instance: str, pool: IPv4Network, build: str) -> Iterator[str]:
    """A network for one build; its id.

    Raises
    ------
    UserError
        503 when there is no place for one.
    """
    made = _make(client, instance, pool, build)
    try:
        yield made
    finally:
        remove(client, made)


def _make(client: Client, instance: str, pool: IPv4Network, build: str) -> str:
    for piece in subnets.free(pool, 1, list(_taken(client))):
        pieces: list[Any] = [{"Subnet": str(piece), "Gateway": str(subnets.gateway(piece))}]
        addresses: Any = {"Driver": "default", "Config": pieces}
        try:
            return client.create_network(
                f"{instance}-build-{build.lower()}",
                driver="bridge",
                ipam=addresses,
                options={"com.docker.network.bridge.name": names.build_bridge_name(instance, build)},
                labels={BUILDS: instance},
                check_duplicate=True,
            )["Id"]
        except APIError as error:
            if "overlap" not in said(error).lower():  # else a cluster was quicker
                raise
    raise UserError(
        503, mark("There is no network left to build in. Try again in a moment."), reason="no-network"
    )


def _taken(client: Client) -> Iterator[IPv4Network]:
    for network in client.networks():
        for piece in (network.get("IPAM") or {}).get("Config") or ():
            with contextlib.suppress(ValueError):
                yield IPv4Network(str(piece.get("Subnet")))


def inhabitants(client: Client, network: str) -> list[str]:
    """The containers that run in it now: those of the build."""
    try:
        return list(client.inspect_network(network).get("Containers") or {})
    except NotFound:
        return []


def remove(client: Client, network: str) -> None:
    """Remove it with what still runs in it; gone already is success."""
    for pause in _PAUSES_SECONDS:
        for container in inhabitants(client, network):
            with contextlib.suppress(APIError):
                client.remove_container(container, force=True, v=True)
        try:
            client.remove_network(network)
            return
        except NotFound:
            return
        except APIError as error:
            log.debug("network %s: %s", network, error)
        time.sleep(pause)
    log.error("network %s of a build could not be removed", network)


def remove_left(client: Client, instance: str) -> int:
    """Remove what a killed service left; how many there were."""
    found = client.networks(filters={"label": f"{BUILDS}={instance}"})
    for network in found:
        remove(client, network["Id"])
    return len(found)
