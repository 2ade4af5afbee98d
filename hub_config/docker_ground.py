"""The ground that hub and nodes of the Docker backend stand on: network, firewall, image; and its proof.

Before anything else starts, :func:`make_ready` lays the ground that
both hub and nodes stand on: the network at whose address hub and portal listen, the image, and the rules of
the firewall, which root puts in and anybody else must have put in before. Whether they hold is not believed but
tried: a node of this image asks for a service of this machine, and must not get it, and asks for the address of
the hub, and must.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shlex
import socket
import threading
from collections.abc import Callable, Iterator
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

from galilean.errors import UserError, mark
from galilean.settings import Settings
from hub_config.addresses import Addresses
from hub_config.docker import rules_of
from spawner.docker import firewall, names, subnets
from spawner.docker.api import Client, DockerAPI, ImageNotFound, NotFound, PullFailed, said
from spawner.docker.api import pull as fetch
from spawner.docker.setuid import lets_root_out, maps_users
from spawner.start_command import COMMAND

PROBE_SECONDS = 20
#: What a node's Python does to find out whom it reaches: an address each, ``1`` for reached.
_PROBE = (
    "import socket, sys\n"
    "def reached(place):\n"
    "    host, port = place.rsplit(':', 1)\n"
    "    try:\n"
    "        socket.create_connection((host, int(port)), 2).close()\n"
    "        return '1'\n"
    "    except OSError:\n"
    "        return '0'\n"
    "print(''.join(reached(place) for place in sys.argv[1:]))\n"
)

_NO_DOCKER = mark("Docker does not answer at {url}: {why}")
_NO_IMAGE = mark(
    "With backend docker an image for nodes must be named: docker.image, or an image for each environment. "
    "`make up BACKEND=docker` builds one."
)
_NO_NETWORK = mark("The network {network} for hub and nodes cannot be made: {why}")
_NO_RULES = mark("The rules of the firewall cannot be put in: {why}")
_NO_NODE = mark("No container of the image {image} can be started: {why}")
_OPEN = mark(
    "Nodes would reach this machine's own services. Put in the rules of the firewall, as root: {command}"
)
_SEALED = mark(
    "Nodes would not reach the hub at {address}. Another firewall on this machine drops what comes from "
    "interfaces {bridge}*: let it through, for the rules of galilean drop what must not pass."
)
_SETUID = mark(
    "An environment or workbench.root gives sudo, and on volume {volume} ({path}) a program that people make root's own would run as "
    "root for every account of this machine. Mount it with nosuid, or let Docker map users (userns-remap)."
)


def make_ready(settings: Settings, addresses: Addresses, say: Callable[[str], None]) -> None:
    """Lay the ground: network, firewall, image; then try what nodes reach. Blocks.

    Raises
    ------
    UserError
        503 naming what is missing and what to do.
    """
    docker = settings.docker
    try:
        client = DockerAPI(docker.url).connect()
    except Exception as error:
        raise UserError(503, _NO_DOCKER, url=docker.url or "DOCKER_HOST", why=said(error)) from error
    try:
        if not maps_users(client):
            refuse_setuid_volumes(settings)
        make_own_network(client, docker.instance, IPv4Network(docker.network_pool))
        if firewall.may_apply():
            try:
                firewall.apply(rules_of(settings, addresses))
            except OSError as error:
                raise UserError(503, _NO_RULES, why=str(error)) from error
        image = first_image(settings)
        if not image:
            raise UserError(503, _NO_IMAGE)
        bring(client, image, docker.image_pull_policy, say)
        try:
            reached = probe(client, settings, addresses, image)
        except Exception as error:
            raise UserError(503, _NO_NODE, image=image, why=said(error)) from error
        if len(reached) != 2:
            raise UserError(503, _NO_NODE, image=image, why=reached[:300])
        if reached[0] == "0":
            raise UserError(503, _SEALED, address=docker.address, bridge=names.BRIDGE)
        if reached[1] == "1":
            command = (
                f"galilean firewall | sudo nft -f -  # GALILEAN_STATE={shlex.quote(str(settings.state))}"
            )
            raise UserError(503, _OPEN, command=command)
    finally:
        client.close()


def refuse_setuid_volumes(settings: Settings, look: Callable[[Path], Any] = os.statvfs) -> None:
    """Whether what root leaves in a volume of the settings could be run as root by accounts of the machine.

    Volumes that were registered online are looked at when such an environment is started.

    Raises
    ------
    UserError
        503 naming the volume, if an environment or the workbench gives sudo and the volume is mounted without ``nosuid``.
    """
    if not settings.workbench.root and not any(one.sudo for one in settings.environments.values()):
        return
    for name in settings.volumes:
        path = settings.volume_path(name)
        if lets_root_out(path, look):
            raise UserError(503, _SETUID, volume=name, path=str(path))


def first_image(settings: Settings) -> str:
    """An image that nodes start from: the default environment's, else any."""
    default = settings.environments[settings.defaults.environment].image or settings.docker.image
    return default or next((item.image for item in settings.environments.values() if item.image), "")


def make_own_network(client: Client, instance: str, pool: IPv4Network) -> None:
    """The network at whose address hub and portal listen; there already is success.

    Raises
    ------
    UserError
        503 when it cannot be, such as when somebody else has these addresses.
    """
    name = f"{instance}-hub"
    own = subnets.own_network(pool)
    for network in client.networks(names=[name]):
        if network["Name"] == name:
            found = [config.get("Subnet") for config in (network.get("IPAM") or {}).get("Config") or ()]
            if found == [str(own)]:
                return
            client.remove_network(network["Id"])  # the pool was changed
    digest = hashlib.sha256(name.encode()).hexdigest()
    config: list[Any] = [{"Subnet": str(own), "Gateway": str(subnets.gateway(own))}]
    addresses: Any = {"Driver": "default", "Config": config}
    try:
        client.create_network(
            name,
            driver="bridge",
            ipam=addresses,
            options={"com.docker.network.bridge.name": names.BRIDGE + digest[: 15 - len(names.BRIDGE)]},
            labels={names.INSTANCE: instance},
            check_duplicate=True,
        )
    except Exception as error:
        raise UserError(503, _NO_NETWORK, network=str(own), why=said(error)) from error


def bring(client: Client, image: str, policy: str, say: Callable[[str], None]) -> None:
    """Have the image of the nodes on this machine.

    Raises
    ------
    UserError
        503 when it cannot be.
    """
    try:
        client.inspect_image(image)
    except ImageNotFound:
        if policy == "Never":
            raise UserError(503, mark("The image {image} is not on this machine."), image=image) from None
        say(f"Fetching the image {image}")
        try:
            fetch(client, image)
        except PullFailed as error:
            raise UserError(
                503, mark("The image {image} cannot be fetched: {why}"), image=image, why=str(error)
            ) from error


def probe(client: Client, settings: Settings, addresses: Addresses, image: str) -> str:
    """Whom a node reaches: one character for the hub's address and one for the machine's own services.

    Both are listened at from here for as long as it takes: the first at the address where hub and portal will
    be, at the hub's own port; the second at a port that nobody was promised.
    """
    docker, hub = settings.docker, addresses["hub"]
    name = f"{docker.instance}-hub"
    with _listening(hub.host, hub.port), _listening(docker.address, 0) as other:
        container = client.create_container_from_config(
            {
                "Image": image,
                "Entrypoint": [],
                "Cmd": [
                    COMMAND[0],
                    "-IS",
                    "-c",
                    _PROBE,
                    f"{hub.host}:{hub.port}",
                    f"{docker.address}:{other}",
                ],
                "User": docker.account,
                "Labels": {names.INSTANCE: docker.instance},
                "HostConfig": {
                    "NetworkMode": name,
                    "CapDrop": ["ALL"],
                    "SecurityOpt": ["no-new-privileges:true"],
                    "Memory": 256 * 2**20,
                    "PidsLimit": 64,
                },
            },
        )
        try:
            client.start(container["Id"])
            client.wait(container["Id"], timeout=PROBE_SECONDS)
            return client.logs(container["Id"]).decode(errors="replace").strip()
        finally:
            with contextlib.suppress(NotFound):
                client.remove_container(container["Id"], force=True, v=True)


@contextlib.contextmanager
def _listening(host: str, port: int) -> Iterator[int]:
    """Take connections at an address and close them; the port. One that is taken already serves as well."""
    try:
        listener = socket.create_server((host, port))
    except OSError:
        yield port
        return
    over = threading.Event()

    def take() -> None:
        listener.settimeout(0.2)
        while not over.is_set():
            try:
                listener.accept()[0].close()
            except TimeoutError:
                continue
            except OSError:
                return

    thread = threading.Thread(target=take, daemon=True)
    thread.start()
    try:
        yield int(listener.getsockname()[1])
    finally:
        over.set()
        thread.join()
        listener.close()
