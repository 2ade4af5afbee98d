"""``DockerCluster``: virtual clusters whose nodes are containers of this machine.

For one server of a lab: people are apart from one another, and limits hold. All it does is glue: the rules are
:class:`spawner.cluster.VirtualCluster`'s, the containers :class:`spawner.docker.nodes.ContainerNodes`'s. It
stands on the ``docker`` package and not on DockerSpawner, of which nothing would be left: see the design.
"""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

from traitlets import Any as AnyTrait
from traitlets import Dict, Enum, Float, Integer, List, Unicode, default

from galilean.errors import UserError, mark
from spawner.backend import NodeLook, NodeProgress
from spawner.cluster import VirtualCluster
from spawner.docker import names
from spawner.docker.api import DockerAPI
from spawner.docker.gate import Gate
from spawner.docker.nodes import ContainerNodes
from spawner.docker.spec import ClusterSpec
from spawner.docker.watch import ContainerWatch
from spawner.host_names import of_person
from spawner.licences import Way
from spawner.plan import ClusterPlan
from spawner.process.layout import base_name
from spawner.records import Run
from spawner.start_command import COMMAND, as_is
from spawner.steps import NodeEnd

_NO_IMAGE = mark("The environment “{environment}” has no image. An administrator must name one.")


class DockerCluster(VirtualCluster):
    """The spawner class that the hub is given for the Docker backend."""

    backend_name = "docker"

    containers = AnyTrait(
        help="A spawner.docker.nodes.ContainerNodes (see container_nodes), the same for all clusters of the hub."
    ).tag(config=True)
    image = Unicode("", help="Image of the environments that name none.").tag(config=True)
    pull_policy = Enum(
        ["Always", "IfNotPresent", "Never"], "IfNotPresent", help="When an image is fetched."
    ).tag(config=True)
    command = List(
        Unicode(),
        list(COMMAND),
        help="What a container runs.",
    ).tag(config=True)
    home_dir = Unicode("/home/jovyan", help="HOME of the account in the image.").tag(config=True)
    account = Unicode("1000:1000", help="uid:gid of nodes; the account must be in the image.").tag(
        config=True
    )
    pids = Integer(4096, help="Processes and threads that a node may have.").tag(config=True)
    shm_share = Float(0.5, help="Size of /dev/shm as a share of a node's memory, as which it counts.").tag(
        config=True
    )
    portal_url = Unicode(
        "", help="Where nodes reach the portal, to tell that somebody is there. Empty: they tell nothing."
    ).tag(config=True)
    containers_apparmor = Unicode(
        "unconfined", help="AppArmor profile of nodes in which containers are started."
    ).tag(config=True)
    extra_host_config = Dict(help="Words of the site for Docker's HostConfig; ours win.").tag(config=True)

    @default("env_keep")
    def _nothing_of_the_host(self) -> list[str]:
        return []

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.containers.watch.start()  # with the hub, for its first spawners are those of the last hub
        self.containers.guard()

    @property
    def base(self) -> str:
        """What all objects of this cluster are called after."""
        user: Any = self.user
        return base_name(user.name, self.name)

    def node_name(self, rank: int) -> str:
        """Unique on the daemon; from (user, server, rank) alone."""
        return names.container_name(self.containers.instance, self.base, rank)

    async def create_nodes(self, run: Run, plan: ClusterPlan, progress: NodeProgress) -> None:
        login = await self.login_of(plan)
        ways = await self.ways_of(plan, only_four=True)
        await self.containers.create(self.spec(run, plan, ways), progress, login)

    async def look_at_nodes(self, run: Run) -> Mapping[int, NodeLook]:
        user: Any = self.user
        return await self.containers.look(user.name, self.name, run.id)

    async def remove_nodes(self, run: Run) -> Mapping[int, NodeEnd]:
        user: Any = self.user
        ends = await self.containers.remove(user.name, self.name)
        told = ", ".join(f"node {rank}: {end.exit_reason}" for rank, end in sorted(ends.items()))
        self.log.info("%s: removed (%s)", self._log_name, told or "no nodes")
        return ends

    async def check_node(self, run: Run, rank: int, how: str) -> None:
        user: Any = self.user
        await self.containers.again(user.name, self.name).check(rank, how)

    async def end_node(self, run: Run, rank: int) -> NodeEnd | None:
        user: Any = self.user
        return await self.containers.again(user.name, self.name).end(run.id, rank)

    async def make_node(self, run: Run, rank: int, how: str, progress: NodeProgress) -> None:
        user: Any = self.user
        await self.containers.again(user.name, self.name).make(run.id, rank, how, progress)

    def spec(self, run: Run, plan: ClusterPlan, ways: tuple[Way, ...] = ()) -> ClusterSpec:
        """What the cluster is to be.

        Raises
        ------
        UserError
            503 when the settings name no image for the environment.
        """
        image = plan.environment.image or self.image
        if not image:
            raise UserError(503, _NO_IMAGE, environment=plan.environment.name)
        shared = self.get_env()
        return ClusterSpec(
            instance=self.containers.instance,
            user=plan.user,
            server=plan.server,
            run=run.id,
            nodes=plan.nodes,
            project=f"{plan.project_owner}/{plan.project_slug}",
            prefix=shared["JUPYTERHUB_SERVICE_PREFIX"],
            shared=shared,
            image=image,
            pull_policy=self.pull_policy,
            command=as_is(self.home_dir) if plan.environment.as_is else self.command,
            account=self.account,
            cpu_millicores=plan.cpu_millicores,
            memory_bytes=plan.memory_bytes,
            gpu=plan.gpu,
            gpu_model=plan.gpu_model,
            pids=self.pids,
            shm_bytes=int(plan.memory_bytes * self.shm_share),
            pool=plan.pool,
            mounts=plan.mounts,
            secrets=str(self.containers.secrets(self.base)),
            variables=plan.environment.variables,
            home=self.home_dir,
            portal_url=self.portal_url,
            language=plan.language,
            hostname=of_person(plan.environment.hostname, plan.user),
            sudo=plan.environment.sudo,
            containers=plan.environment.containers,
            containers_apparmor=self.containers_apparmor,
            ways=ways,
            extra_host_config=self.extra_host_config,
        )


def container_nodes(
    *,
    url: str,
    instance: str,
    state: Path | str,
    pool: str,
    gpus: tuple[str, ...] = (),
    gate: Gate | None = None,
    log: Any = None,
) -> ContainerNodes:
    """The containers of an instance on a daemon; keys of clusters are below the state directory."""
    api = DockerAPI(url)
    return ContainerNodes(
        api,
        ContainerWatch(api, instance, log=log),
        directory=Path(state) / "clusters",
        pool=IPv4Network(pool),
        gpus=gpus,
        gate=gate,
        log=log,
    )
