"""``galilean.yaml`` → the traits of clusters of containers, and the firewall's rules; pure.

Hub and portal listen at the machine's own address in the nodes' pool, which nodes reach from every network of
theirs; :mod:`hub_config.docker_ground` makes it exist.
"""

from __future__ import annotations

from typing import Any

from galilean.settings import Settings
from hub_config.addresses import Addresses
from spawner.docker import firewall
from spawner.docker.firewall import Reach
from spawner.docker.gate import Gate, run_nft
from spawner.docker.keeper import TableKeeper


def cluster_traits(settings: Settings, addresses: Addresses, portal_path: str) -> dict[str, Any]:
    """The traits of ``DockerCluster`` that the settings decide.

    Parameters
    ----------
    settings
        The whole file.
    addresses
        Where the parts are.
    portal_path
        Path of the portal's pages, without a slash at its end.
    """
    docker = settings.docker
    return {
        "image": docker.image,
        "pull_policy": docker.image_pull_policy,
        "home_dir": docker.home_dir,
        "account": docker.account,
        "pids": docker.pids,
        "shm_share": docker.shm_share,
        "containers_apparmor": docker.containers_apparmor,
        "portal_url": addresses.url("portal") + portal_path,
        "not_licences": list(dict.fromkeys((*settings.not_licences, docker.address))),
    }


def gate_of(settings: Settings, addresses: Addresses) -> Gate:
    """Who keeps that firewall in the kernel, and opens ways to licence servers in it."""
    docker = settings.docker
    return Gate(
        outside=docker.outside,
        not_outside=docker.not_outside,
        reaches=docker.reaches,
        keeper=TableKeeper(lambda: rules_of(settings, addresses), run_nft),
    )


def reach_of(settings: Settings, addresses: Addresses, resolvers: list[str]) -> Reach:
    """Whom nodes reach, by the settings."""
    docker = settings.docker
    return Reach(
        pool=docker.network_pool,
        address=docker.address,
        ports=[addresses["hub"].port, addresses["portal"].port],
        resolvers=resolvers,
        outside=docker.outside,
        not_outside=docker.not_outside,
        reaches=docker.reaches,
    )


def rules_of(settings: Settings, addresses: Addresses) -> str:
    """The firewall's rules for this machine, as ``nft -f`` takes them."""
    return firewall.rules(reach_of(settings, addresses, firewall.resolvers()))
