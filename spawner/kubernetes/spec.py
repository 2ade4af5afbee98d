"""What a cluster of pods is to be: plain data, made by the spawner class, turned into objects by
:mod:`spawner.kubernetes.manifests`. Nothing here asks anybody anything.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any

from spawner.collaborators import PullLogin
from spawner.kubernetes.names import base_name
from spawner.licences import Way

HTTP_PORT = 8888
SSH_PORT = 2222
#: Variables with the hub's token: a pod has them by reference to the run's Secret.
TOKENS = ("JUPYTERHUB_API_TOKEN", "JPY_API_TOKEN")

#: What a node must not reach under "the outside": private networks (the cluster's own and the campus's)
#: and the link-local ones, where clouds keep their metadata address.
NOT_OUTSIDE = (
    "10.0.0.0/8", "100.64.0.0/10", "169.254.0.0/16", "172.16.0.0/12", "192.168.0.0/16",
    "fc00::/7", "fe80::/10",
)  # fmt: skip
CLUSTER_DNS: Mapping[str, Any] = {
    "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "kube-system"}},
    "podSelector": {"matchLabels": {"k8s-app": "kube-dns"}},
}


@dataclass(frozen=True, kw_only=True)
class Isolation:
    """Who may reach the nodes of a cluster, and whom they may reach, besides one another.

    Attributes
    ----------
    reached_by
        NetworkPolicy peers that may open connections to the nodes' pages: the proxy and the hub.
    reaches
        NetworkPolicy egress rules: the hub's API, the portal, whatever the site adds.
    dns
        Peers that answer names.
    outside
        Whether nodes reach addresses outside of ``not_outside`` that are none of Kubernetes itself.
    not_outside
        Networks in CIDR form, besides the addresses of machines and API servers, which are found out.
    """

    reached_by: Sequence[Mapping[str, Any]] = ()
    reaches: Sequence[Mapping[str, Any]] = ()
    dns: Sequence[Mapping[str, Any]] = (CLUSTER_DNS,)
    outside: bool = True
    not_outside: Sequence[str] = NOT_OUTSIDE


@dataclass(frozen=True, kw_only=True)
class ClaimMount:
    """A directory of a claim, at a place below the person's home.

    ``disk`` = the claim is a disk, as a whole; one that may be written only ``node-0`` has.
    """

    claim: str
    sub_path: str
    target: str
    read_only: bool = False
    disk: bool = False

    def is_of(self, rank: int) -> bool:
        """Whether the node of this rank has it."""
        return not self.disk or self.read_only or rank == 0


@dataclass(frozen=True, kw_only=True)
class Placement:
    """On which machines the pods may be.

    Attributes
    ----------
    node_selector, tolerations
        Of the pool and of the GPU model, besides those of KubeSpawner's own traits.
    gpu_resource
        The extended resource that is a GPU card.
    queue
        Kueue's local queue; empty = the scheduler alone.
    patience_seconds
        How long after Kubernetes has given a machine up its nodes are waited for.
    """

    node_selector: Mapping[str, str] = field(default_factory=dict)
    tolerations: Sequence[Mapping[str, Any]] = ()
    gpu_resource: str = "nvidia.com/gpu"
    queue: str = ""
    patience_seconds: int = 60


@dataclass(frozen=True, kw_only=True)
class ClusterFrame:
    """Whose a cluster is, and what stands around its nodes: all that its Service and its policy are made of.

    Attributes
    ----------
    user, server, run
        Whose it is; ``run`` is the run's id.
    namespace
        Where its objects are.
    isolation
        Who reaches the nodes and whom they reach.
    ways
        What is opened to licence servers besides.
    """

    user: str
    server: str
    run: str
    namespace: str
    isolation: Isolation = field(default_factory=Isolation)
    ways: tuple[Way, ...] = ()

    @property
    def base(self) -> str:
        return base_name(self.user, self.server)


@dataclass(frozen=True, kw_only=True)
class ClusterSpec(ClusterFrame):
    """A cluster to be made of pods; amounts are per node.

    Attributes
    ----------
    nodes
        How many.
    project, pool, gpu_model
        For labels, annotations and variables.
    cluster_domain
        What the cluster calls its own domain.
    prefix
        Path of the cluster, ``/user/U/S/``.
    bind
        Address that the nodes' servers listen on.
    token
        The hub's API token of this server; goes into the Secret and nowhere else.
    pod
        KubeSpawner's pod for this server, as plain data.
    variables
        Of the chosen environment.
    home
        HOME in the image.
    shm_bytes
        Size of ``/dev/shm``; it counts as the node's memory.
    scratch_class, scratch_bytes, scratch_group
        Storage class of ``~/scratch``, empty = an emptyDir; the size of its claim, and the group that may write it.
    start_seconds
        How long a node may take to answer.
    seccomp, apparmor
        Profiles of the machines for nodes in which containers are started; empty = the runtime's own.
    login
        What the image is fetched with; goes into the Secret and nowhere else.
    sudo
        Whether people may become root inside; needs a namespace that admits Pod Security *baseline*.
    """

    nodes: int
    project: str
    prefix: str
    token: str = field(repr=False)
    pod: Mapping[str, Any] = field(repr=False)
    cpu_millicores: int
    memory_bytes: int
    storage_bytes: int = 0
    gpu: int = 0
    gpu_model: str = ""
    shm_bytes: int = 0
    scratch_class: str = ""
    scratch_bytes: int = 0
    scratch_group: int = 1000
    pool: str = "default"
    mounts: Sequence[ClaimMount] = ()
    variables: Mapping[str, str] = field(default_factory=dict)
    bind: str = f"http://0.0.0.0:{HTTP_PORT}"
    home: str = "/home/jovyan"
    cluster_domain: str = "cluster.local"
    portal_url: str = ""
    language: str = ""
    start_seconds: int = 120
    seccomp: str = ""
    apparmor: str = ""
    login: PullLogin | None = field(default=None, repr=False)
    sudo: bool = False
    placement: Placement = field(default_factory=Placement)


def _plain(value: Any) -> Any:
    """Values as JSON has them; a mapping of a plan or of the configuration may be one that cannot be copied."""
    if is_dataclass(value):
        return {item.name: _plain(getattr(value, item.name)) for item in fields(value)}
    if isinstance(value, Mapping):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value


def recipe_of(spec: ClusterSpec) -> str:
    """From what the pods of a cluster are made, without token and password: pods refer to the run's Secret for them."""
    said = _plain(spec)
    if said["login"]:
        said["login"] = dict.fromkeys(said["login"], "")
    for container in said["pod"]["spec"]["containers"]:
        container["env"] = [item for item in container.get("env") or () if item["name"] not in TOKENS]
    return json.dumps({**said, "token": ""})


def spec_from(recipe: str) -> ClusterSpec:
    """What :func:`recipe_of` wrote down.

    Raises
    ------
    ValueError, TypeError, KeyError
        When it is of another version.
    """
    said = json.loads(recipe)
    return ClusterSpec(
        **{
            **said,
            "isolation": Isolation(**said["isolation"]),
            "login": PullLogin(**said["login"]) if said.get("login") else None,
            "placement": Placement(**said["placement"]),
            "ways": tuple(Way(**way) for way in said.get("ways", ())),
            "mounts": tuple(ClaimMount(**mount) for mount in said["mounts"]),
        }
    )
