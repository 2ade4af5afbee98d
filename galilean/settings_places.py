"""Sections of ``galilean.yaml`` about places: addresses of the parts, Kubernetes, pools, GPU models, volumes.

On one machine nothing of this need be said. On Kubernetes the chart fills what follows from its release
(addresses, namespace, who may reach whom); pools, GPU models and claims are the centre's.
"""

from __future__ import annotations

import re
from ipaddress import ip_network
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationInfo,
    field_validator,
    model_validator,
)

from galilean.amounts import parse_bytes

#: Networks that are not the outside unless the settings say otherwise: private ones (the cluster's own and
#: the campus's) and the link-local ones, where clouds keep their metadata address.
NOT_OUTSIDE = (
    "10.0.0.0/8", "100.64.0.0/10", "169.254.0.0/16", "172.16.0.0/12", "192.168.0.0/16",
    "fc00::/7", "fe80::/10",
)  # fmt: skip
_DNS: dict[str, Any] = {
    "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "kube-system"}},
    "podSelector": {"matchLabels": {"k8s-app": "kube-dns"}},
}
_OBJECT = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?", re.ASCII)
_NAMESPACE = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?", re.ASCII)
_RESOURCE = re.compile(r"[a-z0-9.-]+/[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?", re.ASCII)
Bytes = Annotated[int, BeforeValidator(parse_bytes, json_schema_input_type=int | str)]
#: Names of pools and GPU models: also values of labels and words in addresses.
ENTRY = re.compile(r"[a-z0-9]([-a-z0-9]{0,38}[a-z0-9])?", re.ASCII)


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)


class Addresses(Section):
    """Where the parts reach one another, each as http://host:port. Empty = this machine, at a free port.

    A part that has an address here listens at its port: on that address alone when it is a numeric one of the
    machine, else on all. The chart fills this section with the names of its Services.
    """

    hub: str = Field(default="", description="The hub. Nodes reach it here, too.")
    proxy_api: str = Field(default="", description="The side of the proxy at which the hub sets routes.")
    portal: str = Field(default="", description="The portal. Nodes reach it here, too.")
    metering: str = ""
    release: str = ""
    queue: str = ""
    machines: str = ""
    imagebuilder: str = Field(
        default="",
        description="The image service, where nodes can be saved as images. The portal reaches it.",
    )

    @field_validator("*")
    @classmethod
    def _whole(cls, value: str) -> str:
        if not value:
            return value
        parts = urlsplit(value)
        try:
            good = bool(parts.hostname and parts.port)
        except ValueError:
            good = False
        if parts.scheme != "http" or not good or parts.path.strip("/") or parts.query or "@" in parts.netloc:
            raise ValueError(
                f"is {value!r}: write it like http://portal:8080, with its port and without a path"
            )
        return f"http://{parts.netloc}"


class Network(Section):
    """Who reaches nodes and whom they reach, besides one another: a NetworkPolicy for every cluster.

    What is not said is never allowed: other clusters, the Kubernetes API and the metadata address are out of
    reach. Empty lists of peers are derived where hub and portal have numeric addresses; the chart fills them
    with the labels of its pods.
    """

    outside: bool = Field(
        default=True, description="Whether nodes reach the outside, such as package indexes."
    )
    not_outside: tuple[str, ...] = Field(
        default=NOT_OUTSIDE,
        description="Networks that do not count as the outside, in CIDR form. The addresses of machines and API servers of "
        "Kubernetes are found out and need not stand here, unless the API server is reached at a name that leads elsewhere.",
    )
    reached_by: tuple[dict[str, Any], ...] = Field(
        default=(), description="NetworkPolicy peers that may open nodes' pages: the proxy and the hub."
    )
    reaches: tuple[dict[str, Any], ...] = Field(
        default=(),
        description="NetworkPolicy egress rules of nodes: the hub, the portal, whatever the centre adds.",
    )
    dns: tuple[dict[str, Any], ...] = Field(
        default=(_DNS,), description="NetworkPolicy peers that answer names, at port 53."
    )

    not_licences: tuple[str, ...] = Field(
        default=(),
        description="Networks in which no licence server may be named, in CIDR form: those of pods, Services and the "
        "machines of Kubernetes. Those of our own hub, portal and nodes, and the API server's, are known without it.",
    )

    @field_validator("not_outside", "not_licences")
    @classmethod
    def _networks(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for net in value:
            try:
                ip_network(net)
            except ValueError as error:
                raise ValueError(f"{error} (write it like 10.0.0.0/8)") from None
        return value


class Kubernetes(Section):
    """The backend whose nodes are pods. All objects of clusters are in one namespace."""

    namespace: str = Field(default="galilean", description="Where clusters are made. The chart says its own.")
    image: str = Field(default="", description="Image of the environments that name none.")
    image_pull_policy: Literal["Always", "IfNotPresent", "Never"] = "IfNotPresent"
    image_pull_secrets: tuple[str, ...] = Field(
        default=(), description="Secrets of the namespace with sign-ins at image registries."
    )
    containers_seccomp: str = Field(
        default="",
        max_length=200,
        pattern=r"^[A-Za-z0-9._/-]*$",
        description="For environments with `containers`: the seccomp profile on every machine, below the kubelet's folder "
        "`seccomp`, as `galilean seccomp` prints it, such as `galilean-containers.json`.",
    )
    containers_apparmor: str = Field(
        default="",
        max_length=200,
        pattern=r"^[A-Za-z0-9._-]*$",
        description="The same for AppArmor: a profile that is loaded on every machine; empty = the usual one, which "
        "forbids every mount.",
    )
    home_dir: str = Field(default="/home/jovyan", description="HOME of the account in the image.")
    hub_connect_url: str = Field(
        default="", description="Where nodes reach the hub, when not at addresses.hub: http://host:port."
    )
    portal_connect_url: str = Field(
        default="",
        description="Where nodes reach the portal, when not at addresses.portal: http://host:port.",
    )
    cluster_domain: str = Field(
        default="cluster.local", description="What the Kubernetes cluster calls its own domain."
    )
    gpu_resource: str = Field(
        default="nvidia.com/gpu",
        description="The extended resource that is a GPU card, unless a model says more.",
    )
    kueue_queue: str = Field(
        default="",
        description="Kueue's local queue; empty = the scheduler decides alone. A cluster that Kueue has not let in within "
        "`gang_timeout_seconds` gives up its turn there and asks again in Galilean's own line: with Kueue, make that as "
        "long as its queue may be.",
    )
    shm_share: float = Field(
        default=0.5, ge=0, le=1, description="Size of /dev/shm as a share of a node's memory, of which it is."
    )
    scratch_class: str = Field(
        default="",
        description="Storage class of `~/scratch`, such as one of fast local disks: every pod gets a claim of it, which "
        "goes with the pod. Empty = an emptyDir on the machine's own disk.",
    )
    scratch_size: Bytes = Field(
        default=10 * 2**30,
        description="Size of such a claim for a node that asks for no storage.",
    )
    disk_class: str = Field(
        default="",
        description="Storage class of disks: each is a claim of it, made by the first run that mounts it. Empty = there are "
        "no disks.",
    )
    disk_access_mode: Literal["ReadWriteOnce", "ReadWriteMany"] = Field(
        default="ReadWriteOnce",
        description="Access mode of these claims. ReadWriteOnce bears pods of one machine; readers on several machines "
        "need a class that bears ReadWriteMany.",
    )
    network: Network = Network()
    agents_namespace: str = Field(
        default="",
        description="Namespace of the agents that read nodes to be saved as images; empty = nodes cannot be saved. The "
        "chart says its own.",
    )

    images_namespace: str = Field(
        default="",
        description="Namespace of the pods that have machines fetch images; empty = they come with their first node. "
        "The chart says its own.",
    )

    @field_validator("namespace", "agents_namespace", "images_namespace")
    @classmethod
    def _namespace(cls, value: str, info: ValidationInfo) -> str:
        if not _NAMESPACE.fullmatch(value) and (value or info.field_name == "namespace"):
            raise ValueError(f"{value!r} cannot be the name of a namespace")
        return value

    @field_validator("scratch_class", "disk_class")
    @classmethod
    def _class(cls, value: str) -> str:
        if value and not _OBJECT.fullmatch(value):
            raise ValueError(f"{value!r} cannot be the name of a storage class")
        return value

    @field_validator("gpu_resource")
    @classmethod
    def _resource(cls, value: str) -> str:
        return extended_resource(value)

    @field_validator("home_dir")
    @classmethod
    def _absolute(cls, value: str) -> str:
        if not value.startswith("/"):
            raise ValueError(f"{value!r} is not an absolute path")
        return value.rstrip("/") or "/"


class Toleration(Section):
    """Lets nodes onto machines with a taint, in Kubernetes' own words."""

    key: str = ""
    operator: Literal["Equal", "Exists"] = "Equal"
    value: str = ""
    effect: Literal["", "NoSchedule", "PreferNoSchedule", "NoExecute"] = ""

    def written(self) -> dict[str, str]:
        """As it stands in a pod."""
        return {name: value for name, value in self.model_dump().items() if value}


class Pool(Section):
    """A named set of machines, such as a college's. Every run is in one; ``default`` is always there."""

    title: str = Field(default="", description="Shown in forms and reports; empty = the name.")
    node_selector: dict[str, str] = Field(default={}, description="Labels that a machine of the pool has.")
    tolerations: tuple[Toleration, ...] = Field(
        default=(), description="Taints of the pool's machines that its nodes tolerate."
    )
    open_to: tuple[str, ...] = Field(default=(), description="Roles that may use it; empty = all.")


class GPUModel(Section):
    """A model of GPU card that can be chosen by name."""

    title: str = Field(default="", description="Shown in forms; empty = the name.")
    resource: str = Field(default="", description="The extended resource; empty = kubernetes.gpu_resource.")
    node_selector: dict[str, str] = Field(
        default={}, description="Labels of machines with it; empty = nvidia.com/gpu.product is the name."
    )
    counts: list[Annotated[int, Field(ge=0)]] = Field(
        default=[],
        description="How many cards a node may have, such as [1, 2, 4, 8] where they come in groups; none is "
        "always possible. Empty = any number.",
    )

    @field_validator("counts")
    @classmethod
    def _counts(cls, value: list[int]) -> list[int]:
        if value and not any(value):
            raise ValueError("allows no card at all; leave it out for any number")
        return sorted(set(value) - {0})

    @field_validator("resource")
    @classmethod
    def _resource(cls, value: str) -> str:
        return extended_resource(value) if value else value


class Disks(Section):
    """Storage that people make for themselves, in whole GiB, to be mounted in runs: many readers or one writer."""

    offered: bool = Field(
        default=True,
        description="Whether people may make disks; with backend kubernetes also kubernetes.disk_class is needed.",
    )
    directory: str = Field(
        default="",
        description="Backends process and docker: the directory in which each disk is one, for nobody else's files. A "
        "disk's size is counted there and not enforced. Empty = `disks` in the state directory.",
    )

    @field_validator("directory")
    @classmethod
    def _absolute(cls, value: str) -> str:
        if value and (not value.startswith("/") or value.strip("/") == "" or ".." in value.split("/")):
            raise ValueError(f"is {value!r}: write the whole path of a directory, without “..”")
        return value


class Volume(Section):
    """A place where projects live."""

    kind: Literal["directory", "claim"] = Field(
        default="directory",
        description="directory: of this machine, or mounted there. claim: a claim of Kubernetes (RWX), which "
        "hub and portal have mounted at path and nodes mount by their project's directory.",
    )
    path: str = Field(
        default="", description="Where hub and portal have it. Empty = volumes/<id> in the state directory."
    )
    claim: str = Field(default="", description="Name of the PersistentVolumeClaim in the namespace.")

    @model_validator(mode="after")
    def _whole(self) -> Volume:
        if self.kind == "claim" and not _OBJECT.fullmatch(self.claim):
            raise ValueError(
                "a volume of kind claim needs claim: the name of its PersistentVolumeClaim"
                + (f", which {self.claim!r} cannot be" if self.claim else "")
            )
        if self.kind == "claim" and not self.path.startswith("/"):
            raise ValueError("a volume of kind claim needs path: where hub and portal have the claim mounted")
        if self.kind == "directory" and self.claim:
            raise ValueError("names a claim: then say kind: claim, too")
        return self


def extended_resource(value: str) -> str:
    """The name of an extended resource of Kubernetes, checked."""
    if not _RESOURCE.fullmatch(value):
        raise ValueError(f"{value!r} is not an extended resource (write it like nvidia.com/gpu)")
    return value
