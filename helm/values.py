"""The chart's values: the one place where they are said, described and given their defaults.

``helm/chart.py`` writes from here ``values.yaml`` (with the descriptions as comments), ``values.schema.json``
(so that Helm refuses a typing mistake before anything is changed) and the page ``docs/reference/chart.md``.
The section ``config`` *is* ``galilean.yaml``: its part of the schema comes from
:class:`galilean.settings.Settings`, less what the chart itself decides (:data:`DECIDED`).

Names are written as charts write them, ``existingClaim``; inside ``config`` they are those of the file.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

#: What the chart decides, by class of the settings: nobody may say otherwise in ``config``.
DECIDED: dict[str, tuple[str, ...]] = {
    "Settings": ("state", "backend", "addresses", "database", "process", "docker"),
    "Web": ("host", "port"),
    "Kubernetes": (
        "namespace",
        "hub_connect_url",
        "portal_connect_url",
        "image",
        "image_pull_secrets",
        "agents_namespace",
        "images_namespace",
    ),
    "Registry": ("password_file", "upload_folder"),
}


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Image(Section):
    repository: str = Field(description="Name of the image, with its registry if it has one.")
    tag: str = Field(default="", description="Empty = the chart's `appVersion`.")
    digest: str = Field(default="", description="`sha256:…`; when given it counts instead of the tag.")


class Images(Section):
    control: Image = Field(
        default=Image(repository="galilean"), description="Hub, portal and services: our Python packages."
    )
    proxy: Image = Field(default=Image(repository="galilean-proxy"), description="The proxy: a Node program.")
    node: Image = Field(
        default=Image(repository="galilean-jupyter"),
        description="What a node is made of where an environment of `config.environments` names no image.",
    )
    pullPolicy: Literal["", "Always", "IfNotPresent", "Never"] = Field(
        default="", description="Of the control plane's images; empty = Kubernetes' own rule."
    )
    pullSecrets: list[dict[str, str]] = Field(
        default=[], description="Pull Secrets, also for nodes: `[{name: …}]`."
    )


class Secret(Section):
    existing: str = Field(
        default="",
        description="A Secret of your own with the keys `cookie`, `proxy`, `portal-cookie` and `token-<part>` (see "
        "the how-to); empty = the chart makes one at the first install and never changes or deletes it.",
    )


class Database(Section):
    existingSecret: str = Field(
        default="", description="A Secret with the keys `url` and `hub-url`; it counts before the two below."
    )
    url: str = Field(
        default="",
        description="`postgresql://user:password@host/galilean`. Empty, and no `existingSecret`: SQLite on the claim "
        "`storage.state`, for trying out, with all parts on one machine.",
    )
    hubUrl: str = Field(
        default="",
        description="The hub's database, another one than ours: `postgresql+psycopg://user:password@host/galilean_hub`.",
    )


class Claim(Section):
    existingClaim: str = Field(default="", description="A claim of your own, which must be there already.")
    storageClass: str = Field(
        default="",
        description="Storage class of the claim that the chart makes; empty = the cluster's default class.",
    )
    path: str = Field(
        default="",
        description="Instead of a class: a directory that is mounted at this path on every machine (NFS, GlusterFS, "
        "CephFS …) and belongs to user 1000. The chart makes a persistent volume for it.",
    )
    size: str = Field(description="Asked for; storage without quotas does not hold anybody to it.")


class Storage(Section):
    projects: Claim = Field(
        default=Claim(size="100Gi"),
        description="People's projects: `ReadWriteMany`, mounted into hub, portal and nodes. More volumes: see "
        "`config.volumes`.",
    )
    state: Claim = Field(
        default=Claim(size="5Gi"),
        description="The SQLite files, where no PostgreSQL is named; else not used.",
    )


class PublicService(Section):
    type: Literal["ClusterIP", "NodePort", "LoadBalancer"] = Field(
        default="ClusterIP", description="Of the proxy's Service, which is the only one for browsers."
    )
    port: int = Field(default=80, ge=1, le=65535, description="Port of that Service.")
    nodePort: int | None = Field(
        default=None, ge=1, le=65535, description="Of type `NodePort`: a fixed port; none = chosen."
    )
    annotations: dict[str, str] = Field(default={}, description="Of that Service.")


class Ingress(Section):
    enabled: bool = Field(default=False, description="Make an Ingress to the proxy.")
    className: str = Field(default="", description="Ingress class; empty = the cluster's default.")
    host: str = Field(
        default="",
        description="Host name. With `config.web.subdomain_host` it is taken from there, and the wildcard below it "
        "is added by itself.",
    )
    tlsSecret: str = Field(
        default="", description="A TLS Secret for the host (and its wildcard); empty = plain HTTP."
    )
    annotations: dict[str, str] = Field(
        default={}, description="Such as time limits and the largest request of your ingress controller."
    )


class Gateway(Section):
    enabled: bool = Field(
        default=False,
        description="Make an HTTPRoute (Gateway API) to the proxy; needs its resource definitions.",
    )
    parentRefs: list[dict[str, Any]] = Field(default=[], description="The Gateways that shall carry it.")
    host: str = Field(default="", description="As `ingress.host`.")
    annotations: dict[str, str] = Field(default={}, description="Of the HTTPRoute.")


class NetworkPolicy(Section):
    enabled: bool = Field(
        default=True,
        description="Policies for the control plane: who may reach which part. (Nodes have their own, always.)",
    )
    proxyFrom: list[dict[str, Any]] = Field(
        default=[], description="Peers that may reach the proxy, such as the ingress controller; empty = all."
    )
    metricsFrom: list[dict[str, Any]] = Field(
        default=[], description="Peers that may read `/metrics` of the parts, such as Prometheus."
    )
    dns: list[dict[str, Any]] = Field(
        default=[
            {
                "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "kube-system"}},
                "podSelector": {"matchLabels": {"k8s-app": "kube-dns"}},
            }
        ],
        description="Peers that answer names.",
    )


class Disruption(Section):
    enabled: bool = Field(
        default=True,
        description="A PodDisruptionBudget for each part: a drain takes one pod of it at a time.",
    )


class Authority(Section):
    configMap: str = Field(
        default="",
        description="A ConfigMap with the key `ca.crt`: the certificate authorities that all parts trust, and no others; "
        "put the public ones in too if they are needed.",
    )


class Part(Section):
    resources: dict[str, Any] = Field(default={}, description="Requests and limits.")
    nodeSelector: dict[str, str] = Field(default={}, description="Besides the one for all parts.")
    tolerations: list[dict[str, Any]] = Field(default=[], description="Besides those for all parts.")
    affinity: dict[str, Any] = Field(default={}, description="Of its pods.")
    priorityClassName: str = Field(default="", description="Of its pods.")
    podAnnotations: dict[str, str] = Field(default={}, description="Of its pods.")
    podLabels: dict[str, str] = Field(default={}, description="Of its pods.")
    extraEnv: list[dict[str, Any]] = Field(
        default=[], description="Environment besides the one for all parts."
    )
    extraVolumes: list[dict[str, Any]] = Field(default=[], description="Volumes of its pods.")
    extraVolumeMounts: list[dict[str, Any]] = Field(default=[], description="Where they are mounted.")


class Replicated(Part):
    replicas: int = Field(
        default=1, ge=0, description="With more than one, the others stand by or share the work."
    )


class Machines(Replicated):
    enabled: bool = Field(
        default=True,
        description="Show the machines and take them out: needs a ClusterRole that lists and patches nodes.",
    )
    addMachines: bool = Field(
        default=False,
        description="Also let administrators add machines: needs to create Secrets in `kube-system` (join tokens), "
        "which Kubernetes cannot narrow down to one name.",
    )


class Agents(Section):
    namespace: str = Field(
        default="",
        description="Where they run; empty = the release's namespace with `-agents` behind it. It cannot be the "
        "release's own, which admits restricted pods alone.",
    )
    createNamespace: bool = Field(
        default=True,
        description="Let the chart make that namespace; off = it is there and admits privileged pods.",
    )
    bundles: str = Field(
        default="/run/containerd/io.containerd.runtime.v2.task/k8s.io",
        description="Where containerd keeps running containers of Kubernetes; k3s has it below `/run/k3s/containerd`.",
    )
    snapshots: str = Field(
        default="/var/lib/containerd/io.containerd.snapshotter.v1.overlayfs/snapshots",
        description="Where containerd's overlayfs keeps layers and changes; k3s has it below "
        "`/var/lib/rancher/k3s/agent/containerd`.",
    )
    groups: str = Field(default="/sys/fs/cgroup", description="The machine's control groups.")
    disk: str = Field(
        default="50Gi",
        description="Most that changes and layers on their way may take of a machine's disk. A node that changed more than "
        "nine twentieths of it cannot be saved.",
    )
    resources: dict[str, Any] = Field(
        default={"requests": {"cpu": "50m", "memory": "96Mi"}, "limits": {"memory": "512Mi"}},
        description="Requests and limits.",
    )
    nodeSelector: dict[str, str] = Field(
        default={"kubernetes.io/os": "linux"}, description="Which machines have one."
    )
    tolerations: list[dict[str, Any]] = Field(
        default=[{"operator": "Exists"}], description="Of machines that keep other pods away."
    )
    priorityClassName: str = Field(default="", description="Of its pods.")


class Distribution(Section):
    enabled: bool = Field(
        default=True,
        description="Have machines fetch the images of environments before somebody waits for them, by short pods that run "
        "nothing; how much at once and how much of a disk stays free is said in `config.images.distribution`.",
    )
    namespace: str = Field(
        default="",
        description="Where these pods are; empty = the release's namespace with `-images` behind it. It must be one of "
        "its own, so that whoever may make pods there can mount nothing.",
    )
    createNamespace: bool = Field(
        default=True, description="Let the chart make that namespace, admitting restricted pods alone."
    )


class Imagebuilder(Part):
    enabled: bool = Field(
        default=False,
        description="Let people save their nodes as images: the image service, and an agent on every machine. Needs "
        "`config.images.registry.address`, a registry that the machines' kubelets reach. Packed images that people "
        "upload (`config.images.registry.upload`) come in on the projects' volume.",
    )
    registrySecret: str = Field(
        default="",
        description="A Secret with the key `password`: of `config.images.registry.username`. Empty = nobody is asked.",
    )
    agents: Agents = Field(
        default=Agents(), description="What reads nodes on their machines (see the how-to on saving)."
    )
    distribution: Distribution = Field(
        default=Distribution(), description="Images on the machines before their first run."
    )


class Parts(Section):
    nodeSelector: dict[str, str] = Field(default={}, description="Of the pods of every part.")
    tolerations: list[dict[str, Any]] = Field(default=[], description="Of the pods of every part.")
    extraEnv: list[dict[str, Any]] = Field(
        default=[], description="Environment of every part, such as a proxy to the outside."
    )
    podAnnotations: dict[str, str] = Field(default={}, description="Of the pods of every part.")


class Uninstall(Section):
    releaseClusters: bool = Field(
        default=True,
        description="`helm uninstall` first releases every cluster, as pressing Release would; off = they go on, and "
        "the next install of the same name finds them.",
    )


def _ask(cpu: str, memory: str, limit: str) -> dict[str, Any]:
    return {"requests": {"cpu": cpu, "memory": memory}, "limits": {"memory": limit}}


class Values(Section):
    """Everything that ``helm install galilean -f values.yaml`` may be told."""

    nameOverride: str = Field(default="", description="Instead of the chart's name in labels.")
    fullnameOverride: str = Field(
        default="", description="Instead of the release's name at the beginning of all objects' names."
    )
    images: Images = Field(default=Images(), description="Where the images are.")
    config: dict[str, Any] = Field(
        default={},
        description="galilean.yaml: sites, roles, limits, sizes, environments, pools … See the page on settings. What "
        "the chart decides by itself (addresses, databases, state, namespace) cannot stand here.",
    )
    secret: Secret = Field(default=Secret(), description="Keys and tokens among the parts.")
    database: Database = Field(
        default=Database(), description="Two PostgreSQL databases: ours and the hub's."
    )
    storage: Storage = Field(default=Storage(), description="Claims.")
    service: PublicService = Field(default=PublicService(), description="How the proxy is reached.")
    ingress: Ingress = Field(default=Ingress(), description="By an ingress controller.")
    gateway: Gateway = Field(default=Gateway(), description="By the Gateway API.")
    networkPolicy: NetworkPolicy = Field(default=NetworkPolicy(), description="Who may reach what.")
    podDisruptionBudget: Disruption = Field(default=Disruption(), description="While machines are drained.")
    authority: Authority = Field(default=Authority(), description="Certificate authorities of your own.")
    uninstall: Uninstall = Field(default=Uninstall(), description="What `helm uninstall` does.")
    parts: Parts = Field(default=Parts(), description="For all parts at once.")
    hub: Part = Field(
        default=Part(resources=_ask("100m", "256Mi", "2Gi")),
        description="The hub: accounts, starting and releasing clusters. One pod; people work on while it is away.",
    )
    proxy: Part = Field(
        default=Part(resources=_ask("50m", "64Mi", "512Mi")),
        description="The proxy: every request of a browser. One pod; its restart cuts connections for seconds.",
    )
    portal: Replicated = Field(
        default=Replicated(resources=_ask("50m", "128Mi", "1Gi")), description="The portal: pages and API."
    )
    metering: Replicated = Field(
        default=Replicated(resources=_ask("20m", "96Mi", "512Mi")), description="The metering service."
    )
    release: Replicated = Field(
        default=Replicated(resources=_ask("20m", "96Mi", "512Mi")), description="The release service."
    )
    queue: Replicated = Field(
        default=Replicated(resources=_ask("20m", "96Mi", "512Mi")), description="The queue service."
    )
    machines: Machines = Field(
        default=Machines(resources=_ask("20m", "96Mi", "512Mi")), description="The machines service."
    )
    imagebuilder: Imagebuilder = Field(
        default=Imagebuilder(resources=_ask("50m", "128Mi", "1Gi")), description="The image service."
    )
