"""``KubeCluster``: virtual clusters whose nodes are pods.

The production backend. All it does is glue: the rules are :class:`spawner.cluster.VirtualCluster`'s, the
pods are :class:`spawner.kubernetes.nodes.PodNodes`'s, and a pod begins as KubeSpawner's own, so that every
trait of :class:`kubespawner.KubeSpawner` that shapes a pod (tolerations, selectors, affinities, extra
containers and configuration, pull secrets …) counts. KubeSpawner's own life of a pod is not used: its
start, poll, stop, progress and reflectors never run, nor do its claims, profiles and namespaces per person.
"""

from __future__ import annotations

import posixpath
from collections.abc import Mapping
from typing import Any

from kubernetes_asyncio.client import ApiClient
from kubespawner import KubeSpawner
from traitlets import Any as AnyTrait
from traitlets import Bool, Dict, Float, Integer, List, Unicode, default

from galilean.errors import UserError, mark
from spawner.backend import NodeLook, NodeProgress
from spawner.cluster import VirtualCluster
from spawner.kubernetes import disks, names
from spawner.kubernetes.api import KubeAPI
from spawner.kubernetes.nodes import PodNodes
from spawner.kubernetes.spec import CLUSTER_DNS, NOT_OUTSIDE, ClaimMount, ClusterSpec, Isolation, Placement
from spawner.kubernetes.watch import PodWatch
from spawner.licences import Way
from spawner.plan import ClusterPlan, Mount
from spawner.records import Run
from spawner.start_command import COMMAND, as_is
from spawner.steps import NodeEnd

_NO_CLAIM = mark(
    "The project's files are in a place that pods cannot reach. An administrator must name its claim."
)
_NO_IMAGE = mark("The environment “{environment}” has no image. An administrator must name one.")


class KubeCluster(VirtualCluster, KubeSpawner):
    """The spawner class that the hub is given for the Kubernetes backend."""

    backend_name = "kubernetes"

    pods = AnyTrait(
        help="A spawner.kubernetes.nodes.PodNodes (see pod_nodes), the same for all clusters of the hub."
    ).tag(config=True)
    claims = Dict(
        key_trait=Unicode(),
        value_trait=Unicode(),
        help="Claims by the directory at which the hub and the portal mount them: what lies below it is "
        "mounted into nodes by its path below it.",
    ).tag(config=True)
    home_dir = Unicode("/home/jovyan", help="HOME of the account in the image.").tag(config=True)
    cluster_domain = Unicode("cluster.local", help="What the cluster calls its own domain.").tag(config=True)
    portal_url = Unicode(
        "", help="Where nodes reach the portal, to tell that somebody is there. Empty: they tell nothing."
    ).tag(config=True)
    pools = Dict(
        help="{pool: {'node_selector': {…}, 'tolerations': […]}}: on which machines a pool's nodes may be."
    ).tag(config=True)
    gpu_resource = Unicode("nvidia.com/gpu", help="The extended resource that is a GPU card.").tag(
        config=True
    )
    gpu_models = Dict(
        help="{model: {'resource': …, 'node_selector': {…}}}; a model that is not here is looked for by the "
        "label nvidia.com/gpu.product."
    ).tag(config=True)
    shm_share = Float(0.5, help="Size of /dev/shm as a share of a node's memory, as which it counts.").tag(
        config=True
    )
    scratch_class = Unicode("", help="Storage class of ~/scratch; empty = an emptyDir.").tag(config=True)
    scratch_size = Integer(10 * 2**30, help="Bytes of such a claim for a node that asks for no storage.").tag(
        config=True
    )
    disk_class = Unicode("", help="Storage class of disks; empty = there are none.").tag(config=True)
    disk_access_mode = Unicode("ReadWriteOnce", help="Access mode of their claims.").tag(config=True)
    machine_patience = Integer(
        60,
        min=0,
        help="Seconds for which nodes on a machine that Kubernetes has given up are still waited for; a cluster that "
        "gets them back goes on. Not used where tolerations speak of it.",
    ).tag(config=True)
    containers_seccomp = Unicode(
        "", help="Seccomp profile, below the kubelet's folder, of nodes in which containers are started."
    ).tag(config=True)
    containers_apparmor = Unicode(
        "", help="AppArmor profile, loaded on all machines, of nodes in which containers are started."
    ).tag(config=True)
    kueue_queue = Unicode("", help="Kueue's local queue; empty = the scheduler alone.").tag(config=True)
    reached_by = List(help="NetworkPolicy peers that may reach the nodes' pages: the proxy and the hub.").tag(
        config=True
    )
    reaches = List(
        help="NetworkPolicy egress rules for what nodes need besides one another, names and the outside: the "
        "hub's API, the portal."
    ).tag(config=True)
    dns_peers = List([dict(CLUSTER_DNS)], help="NetworkPolicy peers that answer names.").tag(config=True)
    outside = Bool(True, help="Whether nodes reach the outside.").tag(config=True)
    not_outside = List(
        list(NOT_OUTSIDE), help="Networks that do not count as the outside, besides Kubernetes itself."
    ).tag(config=True)

    @default("cmd")
    def _our_node(self) -> list[str]:
        return list(COMMAND)

    @default("delete_pvc")
    def _claims_are_not_ours_to_delete(self) -> bool:
        return False

    @default("image")
    def _none_unless_named(self) -> str:
        return ""

    @default("uid")
    def _not_root(self) -> int:
        return 1000

    @default("gid")
    def _nor_its_group(self) -> int:
        return 1000

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.pods.watch.start()  # with the hub, for its first spawners are those of the last hub
        self.pods.mender.start(self.isolation)

    @property
    def base(self) -> str:
        """What all objects of this cluster are called after."""
        user: Any = self.user
        return names.base_name(user.name, self.name)

    @property
    def isolation(self) -> Isolation:
        """Who reaches the nodes and whom they reach, by the settings."""
        return Isolation(
            reached_by=self.reached_by,
            reaches=self.reaches,
            dns=self.dns_peers,
            outside=self.outside,
            not_outside=self.not_outside,
        )

    def node_name(self, rank: int) -> str:
        """Unique in the namespace; from (user, server, rank) alone."""
        return names.pod_name(self.base, rank)

    async def create_nodes(self, run: Run, plan: ClusterPlan, progress: NodeProgress) -> None:
        ways = await self.ways_of(plan, ours=self.pods.addresses())
        spec = await self.spec(run, plan, ways)
        await self.pods.make_claims(self.base, self.claims_of(plan))
        await self.pods.create(spec, progress)

    def claims_of(self, plan: ClusterPlan) -> list[Mapping[str, Any]]:
        """The claims of a plan's disks, made where they are not there yet."""
        return [
            disks.claim(
                mount.disk.id,
                mount.disk.size_bytes,
                storage_class=self.disk_class,
                access_mode=self.disk_access_mode,
            )
            for mount in plan.disks
            if mount.disk is not None
        ]

    async def look_at_nodes(self, run: Run) -> Mapping[int, NodeLook]:
        return await self.pods.look(self.base, run.id, run.nodes)

    async def remove_nodes(self, run: Run) -> Mapping[int, NodeEnd]:
        ends = await self.pods.remove(self.base, nodes=run.nodes)
        said = ", ".join(f"node {rank}: {end.exit_reason}" for rank, end in sorted(ends.items()))
        self.log.info("%s: removed (%s)", self._log_name, said or "no nodes")
        return ends

    async def check_node(self, run: Run, rank: int, how: str) -> None:
        await self.pods.check(self.base, run.id, rank)

    async def end_node(self, run: Run, rank: int) -> NodeEnd | None:
        return await self.pods.end(self.base, run.id, rank)

    async def make_node(self, run: Run, rank: int, how: str, progress: NodeProgress) -> None:
        await self.pods.make(self.base, run.id, rank, progress)

    async def spec(self, run: Run, plan: ClusterPlan, ways: tuple[Way, ...] = ()) -> ClusterSpec:
        """What the cluster is to be.

        Raises
        ------
        UserError
            503 when the settings name no image for the environment or no claim for the project's files.
        """
        server: Any = self.server
        return ClusterSpec(
            user=plan.user,
            server=plan.server,
            run=run.id,
            nodes=plan.nodes,
            project=f"{plan.project_owner}/{plan.project_slug}",
            namespace=self.pods.namespace,
            prefix=server.base_url,
            token=self.api_token,
            pod=await self._pod_of(plan),
            cpu_millicores=plan.cpu_millicores,
            memory_bytes=plan.memory_bytes,
            storage_bytes=plan.storage_bytes,
            gpu=plan.gpu,
            gpu_model=plan.gpu_model,
            shm_bytes=int(plan.memory_bytes * self.shm_share),
            scratch_class=self.scratch_class,
            scratch_bytes=plan.storage_bytes or self.scratch_size,
            pool=plan.pool,
            mounts=tuple(claim_mount(mount, self.claims) for mount in plan.mounts),
            variables=plan.environment.variables,
            home=self.home_dir,
            cluster_domain=self.cluster_domain,
            portal_url=self.portal_url,
            language=plan.language,
            start_seconds=self.start_timeout,
            login=await self.login_of(plan),
            sudo=plan.environment.sudo,
            placement=self.placement(plan),
            isolation=self.isolation,
            ways=ways,
            seccomp=self.containers_seccomp if plan.environment.containers else "",
            apparmor=self.containers_apparmor if plan.environment.containers else "",
        )

    async def _pod_of(self, plan: ClusterPlan) -> dict[str, Any]:
        """KubeSpawner's pod with the environment's image."""
        configured = self.image
        image = plan.environment.image or configured
        if not image:
            raise UserError(503, _NO_IMAGE, environment=plan.environment.name)
        self.image = image
        try:
            pod = _plain(await self.get_pod_manifest())
        finally:
            self.image = configured
        main = pod["spec"]["containers"][0]
        # KubeSpawner says only what the image's ENTRYPOINT is given, and that may be anything.
        main["command"] = as_is(self.home_dir) if plan.environment.as_is else main.pop("args")
        main.pop("args", None)
        return pod

    def placement(self, plan: ClusterPlan) -> Placement:
        """On which machines a plan's nodes may be."""
        pool = self.pools.get(plan.pool, {})
        selector = dict(pool.get("node_selector", {}))
        resource = self.gpu_resource
        if plan.gpu and plan.gpu_model:
            model = self.gpu_models.get(plan.gpu_model, {})
            resource = model.get("resource", resource)
            selector |= model.get("node_selector", {"nvidia.com/gpu.product": plan.gpu_model})
        return Placement(
            node_selector=selector,
            tolerations=pool.get("tolerations", ()),
            gpu_resource=resource,
            queue=self.kueue_queue,
            patience_seconds=self.machine_patience,
        )


def claim_mount(mount: Mount, claims: Mapping[str, str]) -> ClaimMount:
    """A mount of the plan as a directory of a claim.

    Raises
    ------
    UserError
        503 when no claim is mounted there.
    """
    if mount.disk is not None:
        name = disks.claim_name(mount.disk.id)
        return ClaimMount(claim=name, sub_path="", target=mount.target, read_only=mount.read_only, disk=True)
    source = posixpath.normpath(mount.source)
    if mount.claim:
        claims = {**claims, mount.root: mount.claim}
    for root, claim in sorted(claims.items(), key=lambda item: -len(item[0])):
        below = posixpath.relpath(source, posixpath.normpath(root))
        if below != "." and below != ".." and not below.startswith("../"):
            return ClaimMount(claim=claim, sub_path=below, target=mount.target, read_only=mount.read_only)
    raise UserError(503, _NO_CLAIM)


def pod_nodes(namespace: str, *, log: Any = None) -> PodNodes:
    """The pods of a namespace, by the configuration that KubeSpawner loads (its own account, or a kubeconfig)."""
    api = KubeAPI(namespace)
    return PodNodes(api, PodWatch(api, log=log), log=log)


def _plain(model: Any) -> dict[str, Any]:
    converter = ApiClient.__new__(ApiClient)  # its conversion needs no connection
    return ApiClient.sanitize_for_serialization(converter, model)
