"""The network and the containers of a cluster, as the JSON of Docker's API. Pure functions.

Every limit of the plan is a limit of the container, and nothing is left at Docker's defaults that lets a node
do more than a person's process needs: one account without root, no capability, no way to new privileges, no
swap, so many processes. Our words come last, so that nobody's configuration loosens them by accident.
"""

from __future__ import annotations

from typing import Any

from spawner.docker import names, scratch, seccomp, subnets
from spawner.docker.spec import GRACE_SECONDS, HTTP_PORT, ClusterSpec, Given
from spawner.labels import READER
from spawner.node.place import (
    CPU_MILLICORES,
    LANGUAGE,
    SECRETS,
    SECRETS_DIRECTORY,
    Place,
    node_name,
)
from spawner.node_env import node_environment
from spawner.sudo import ROOT_INSIDE

Body = dict[str, Any]
#: The node's own log, as Docker keeps it: enough to ask why, too little to fill a disk.
LOG = {"Type": "json-file", "Config": {"max-size": "10m", "max-file": "2"}}


def network(spec: ClusterSpec, given: Given) -> Body:
    """The cluster's own network: names of its nodes, no way to other clusters, and its own bridge."""
    return {
        "name": names.network_name(spec.instance, spec.base),
        "driver": "bridge",
        "check_duplicate": True,
        "ipam": {
            "Driver": "default",
            "Config": [
                {"Subnet": str(given.network), "Gateway": str(subnets.gateway(given.network))},
            ],
        },
        "options": {
            "com.docker.network.bridge.name": names.bridge_name(spec.instance, spec.base),
            "com.docker.network.bridge.enable_icc": "true",
        },
        "labels": labels(spec),
    }


def container(spec: ClusterSpec, rank: int, given: Given) -> Body:
    """The container of node ``rank``."""
    name = names.network_name(spec.instance, spec.base)
    own = {
        **labels(spec),
        names.RANK: str(rank),
        names.COMPONENT: "worker" if rank else "head",
        names.POOL: names.slug(spec.pool),
        # Said of every node, else the image's own labels of these names would hold.
        names.GPUS: ",".join(given.gpus.get(rank, ())) if spec.gpu else "",
        names.GPU_MODEL: names.slug(spec.gpu_model) if spec.gpu and spec.gpu_model else "",
        READER: "",
    }
    return {
        "Image": spec.image,
        "Cmd": list(spec.command),
        "Entrypoint": [],
        "Hostname": f"{spec.hostname}-{rank}" if spec.hostname else node_name(rank),
        "User": spec.account,
        "WorkingDir": spec.home,
        "Env": [f"{key}={value}" for key, value in sorted(variables(spec, rank).items())],
        "Labels": own,
        "StopTimeout": GRACE_SECONDS,
        "Tty": False,
        "OpenStdin": False,
        "HostConfig": host_config(spec, rank, given),
        "NetworkingConfig": {
            "EndpointsConfig": {
                name: {
                    "Aliases": [node_name(rank)],
                    "IPAMConfig": {"IPv4Address": str(subnets.address(given.network, rank))},
                }
            }
        },
    }


def host_config(spec: ClusterSpec, rank: int, given: Given) -> Body:
    """What the machine grants the container."""
    mounts = [
        {"Type": "bind", "Source": spec.secrets, "Target": SECRETS_DIRECTORY, "ReadOnly": True},
        *(
            {
                "Type": "bind",
                "Source": mount.source,
                "Target": f"{spec.home}/{mount.target}",
                "ReadOnly": mount.read_only,
            }
            for mount in spec.mounts
            if mount.is_of(rank)
        ),
        scratch.mount(spec.home, labels(spec)),
    ]
    found: Body = {
        **spec.extra_host_config,
        "NetworkMode": names.network_name(spec.instance, spec.base),
        "Mounts": [*spec.extra_host_config.get("Mounts", ()), *mounts],
        "NanoCpus": spec.cpu_millicores * 1_000_000,
        "Memory": spec.memory_bytes,
        "MemorySwap": spec.memory_bytes,  # the sum of both: no swap
        "PidsLimit": spec.pids,
        "CapDrop": ["ALL"],
        "CapAdd": list(ROOT_INSIDE) if spec.sudo and not spec.containers else [],
        "Privileged": False,
        "SecurityOpt": [
            *spec.extra_host_config.get("SecurityOpt", ()),
            *([] if spec.sudo and not spec.containers else ["no-new-privileges:true"]),
            *(_inside(spec) if spec.containers else ()),
        ],
        "RestartPolicy": {"Name": "no"},
        "AutoRemove": False,
        "Init": False,  # the node is its own
        "PublishAllPorts": False,
        "PortBindings": {},
        "IpcMode": "private",
        "LogConfig": LOG,
    }
    if spec.shm_bytes:
        found["ShmSize"] = spec.shm_bytes
    cards = list(given.gpus.get(rank, ()))
    if cards:  # by id: a bare number of cards would give everybody the same first ones
        found["DeviceRequests"] = [{"Driver": "", "DeviceIDs": cards, "Capabilities": [["gpu"]]}]
    return found


def _inside(spec: ClusterSpec) -> list[str]:
    """What lets a tool without rights start containers inside: no capability, no way to one, name spaces of its own.

    ``/proc`` stays as Docker masks it: what is started inside is given a view of it and not a new one.
    """
    return [f"seccomp={seccomp.text()}", f"apparmor={spec.containers_apparmor}"]


def labels(spec: ClusterSpec) -> dict[str, str]:
    """What every object of the cluster carries."""
    return {
        names.INSTANCE: spec.instance,
        names.RUN: spec.run,
        names.CLUSTER: spec.base,
        names.USER: names.slug(spec.user),
        names.SERVER: names.slug(spec.server),
        names.EXACT_USER: spec.user,
        names.EXACT_SERVER: spec.server,
    }


def variables(spec: ClusterSpec, rank: int) -> dict[str, str]:
    """The node's environment."""
    return {
        **node_environment(
            {**spec.shared, "JUPYTERHUB_SERVICE_PREFIX": spec.prefix},
            run_id=spec.run,
            project=spec.project,
            rank=rank,
            nodes=spec.nodes,
            bind=f"http://0.0.0.0:{HTTP_PORT}",
            variables=spec.variables,
        ),
        **Place.of(spec, rank).variables(),
        "HOME": spec.home,
        LANGUAGE: spec.language,
        SECRETS: SECRETS_DIRECTORY,
        CPU_MILLICORES: str(spec.cpu_millicores),
        # Where NVIDIA's runtime is the machine's usual one, an image or an entry that says "all" would see every card.
        **({} if spec.gpu else {"NVIDIA_VISIBLE_DEVICES": "void"}),
    }


def url(given: Given, rank: int) -> str:
    """Where hub and proxy reach a node: scheme, host and port."""
    return f"http://{subnets.address(given.network, rank)}:{HTTP_PORT}"
