"""What a cluster of containers is to be: plain data, made by the spawner class, turned into the requests of
Docker's API by :mod:`spawner.docker.containers`. Nothing here asks anybody anything.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Network
from typing import Any

from spawner.docker.names import container_name
from spawner.licences import Way
from spawner.plan import Mount
from spawner.process.layout import base_name

HTTP_PORT = 8888
#: From being told to end until being killed.
GRACE_SECONDS = 5


@dataclass(frozen=True, kw_only=True)
class ClusterSpec:
    """A cluster to be made of containers; amounts are per node.

    Attributes
    ----------
    instance
        Whose objects these are among the installations of one daemon.
    user, server, run
        Whose cluster it is; ``run`` is the run's id.
    nodes
        How many.
    project, pool, gpu_model
        For labels and variables.
    prefix
        Path of the cluster, ``/user/U/S/``.
    shared
        What the hub tells every node of the cluster by its environment, its API token among it.
    image, pull_policy
        ``Always``, ``IfNotPresent`` or ``Never``.
    command
        Of every node.
    account
        ``uid:gid`` inside.
    mounts
        Sources are directories of this machine.
    secrets
        The directory of this machine with the cluster's keys, mounted read-only.
    gpus
        The cards of each node, by rank; empty = none.
    pids
        Processes and threads that a node may have.
    shm_bytes
        Size of ``/dev/shm``; it counts as the node's memory.
    hostname
        What nodes call themselves, with their rank behind it; empty = ``node-i``. They are found as ``node-i``.
    sudo
        Whether people may become root inside.
    containers
        Whether containers can be started inside.
    containers_apparmor
        The AppArmor profile of such nodes.
    ways
        What is opened to licence servers.
    extra_host_config
        The site's own words for Docker's HostConfig; ours win.
    """

    instance: str
    user: str
    server: str
    run: str
    nodes: int
    project: str
    prefix: str
    shared: Mapping[str, str] = field(repr=False)
    image: str
    command: Sequence[str]
    cpu_millicores: int
    memory_bytes: int
    secrets: str
    mounts: Sequence[Mount] = ()
    pull_policy: str = "IfNotPresent"
    account: str = "1000:1000"
    home: str = "/home/jovyan"
    gpu: int = 0
    gpu_model: str = ""
    pids: int = 4096
    shm_bytes: int = 0
    pool: str = "default"
    variables: Mapping[str, str] = field(default_factory=dict)
    portal_url: str = ""
    language: str = ""
    hostname: str = ""
    sudo: bool = False
    containers: bool = False
    containers_apparmor: str = "unconfined"
    ways: tuple[Way, ...] = ()
    extra_host_config: Mapping[str, Any] = field(default_factory=dict)

    @property
    def base(self) -> str:
        return base_name(self.user, self.server)

    def name(self, rank: int) -> str:
        """The container of a node."""
        return container_name(self.instance, self.base, rank)


@dataclass(frozen=True, kw_only=True)
class Given:
    """What only the daemon's machine can say: where there is room.

    Attributes
    ----------
    network
        The piece of the pool that is the cluster's.
    gpus
        Ids of the cards, by rank.
    """

    network: IPv4Network
    gpus: Mapping[int, Sequence[str]] = field(default_factory=dict)
