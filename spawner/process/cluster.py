"""``ProcessCluster``: virtual clusters whose nodes are processes of this machine.

The embedded backend, for trying out, a laptop and tests: no root, no containers, and **no isolation
between people**: every node runs as the account of the hub. Limits are recorded, not enforced.
All it does is glue: the rules are :class:`spawner.cluster.VirtualCluster`'s, the processes are
:class:`spawner.process.nodes.ProcessNodes`'s.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from jupyterhub.spawner import SimpleLocalProcessSpawner
from traitlets import Unicode

from galilean.errors import UserError, mark
from spawner.backend import NodeFailed, NodeLook, NodeProgress
from spawner.cluster import VirtualCluster
from spawner.node_env import node_environment
from spawner.plan import ClusterPlan
from spawner.process.installer import Index, Installer
from spawner.process.layout import base_name
from spawner.process.lock import Lock
from spawner.process.nodes import THREADS, ProcessNodes, described
from spawner.process.prepare import ClusterSpec, DiskLink
from spawner.process.pythons import Pythons, Shared
from spawner.records import Run
from spawner.renewal import RESET
from spawner.steps import NodeEnd

_MAKING = mark("Its Python environment is made on this machine: {done} of {total} MB.")

_pythons = Shared()
_threads = ThreadPoolExecutor(THREADS, thread_name_prefix="galilean-nodes")


class ProcessCluster(VirtualCluster, SimpleLocalProcessSpawner):
    """The spawner class that the hub is given for the process backend."""

    backend_name = "process"

    state_dir = Unicode(
        "state", help="The state directory; clusters live in clusters/ below it, mode 0700."
    ).tag(config=True)
    zygote_socket = Unicode(
        "",
        help="Socket of the zygote, a process that forks nodes in a fraction of a second (see "
        "spawner.process.zygote). Empty, or while it is away: nodes are started plainly, in seconds.",
    ).tag(config=True)
    scratch = Unicode(
        "", help="Directory of this machine for scratch space; empty = in the nodes' homes."
    ).tag(config=True)
    portal_url = Unicode(
        "",
        help="Where nodes reach the portal, such as http://127.0.0.1:8000/services/portal, to tell that "
        "somebody is there. Empty: they tell nothing, and a cluster may be released under its reader.",
    ).tag(config=True)
    index_url = Unicode(
        "",
        help="Package index of nodes and of saved environments; empty: as the machine's tools are configured.",
    ).tag(config=True)
    find_links = Unicode("", help="A folder of wheels, or a page with links to some, besides the index.").tag(
        config=True
    )

    @property
    def nodes(self) -> ProcessNodes:
        """The processes of this state directory."""
        zygote = Path(self.zygote_socket) if self.zygote_socket else None
        return ProcessNodes(Path(self.state_dir), zygote, log=self.log, threads=_threads)

    def node_name(self, rank: int) -> str:
        """Unique on this machine and state directory; from (user, server, rank) alone."""
        return f"{base_name(self.user.name, self.name)}-{rank}"

    async def create_nodes(self, run: Run, plan: ClusterPlan, progress: NodeProgress) -> None:
        shared = self.get_env()
        index = Index(self.index_url, self.find_links)
        layer = await self._layer(plan, index, progress)
        python = plan.environment.python
        shared["PATH"] = os.pathsep.join(
            [os.path.dirname(python or sys.executable), shared.get("PATH") or os.defpath]
        )
        prefix = shared["JUPYTERHUB_SERVICE_PREFIX"].rstrip("/") + "/"

        def environment(rank: int, bind: str) -> Mapping[str, str]:
            return node_environment(
                shared,
                run_id=run.id,
                project=f"{plan.project_owner}/{plan.project_slug}",
                rank=rank,
                nodes=plan.nodes,
                bind=bind,
                variables={**index.variables(), **plan.environment.variables},
            )

        spec = ClusterSpec(
            user=self.user.name,
            server=self.name,
            run=run.id,
            nodes=plan.nodes,
            cpu_millicores=plan.cpu_millicores,
            work=Path(plan.work.source),
            datasets={
                mount.target.removeprefix("datasets/"): Path(mount.source)
                for mount in plan.mounts
                if mount.target.startswith("datasets/")
            },
            disks={
                mount.disk.name: DiskLink(path=Path(mount.source), written=not mount.read_only)
                for mount in plan.mounts
                if mount.disk is not None
            },
            prefix=prefix,
            environment=environment,
            python=python,
            scratch=Path(self.scratch) if self.scratch else None,
            language=plan.language,
            portal_url=self.portal_url,
            layer=layer,
        )
        await self.nodes.create(spec, progress)

    async def _layer(self, plan: ClusterPlan, index: Index, progress: NodeProgress) -> str:
        """Where the plan's saved environment is, made here where it is not yet; empty when it has none."""
        if not plan.environment.lock:
            return ""
        told = [-1]

        def tell(done_bytes: int, total_bytes: int) -> None:
            done = min(done_bytes, total_bytes or done_bytes) >> 20
            if done != told[0]:
                told[0] = done
                progress.trouble(0, _MAKING, done=done, total=max(1, total_bytes >> 20))

        for rank in range(plan.nodes):  # the place is certain; what takes long is not for want of room
            progress.placed(rank, host=os.uname().nodename)
        pythons = Pythons(Path(self.state_dir), Installer(index))
        try:
            lock = Lock.parse(plan.environment.lock)
            base = pythons.base(plan.environment.python or sys.executable, lock.environment)
            return str((await _pythons.make(pythons, lock, base, tell)).root)
        except UserError as error:
            raise NodeFailed(0, error.message, **error.params) from error

    async def look_at_nodes(self, run: Run) -> Mapping[int, NodeLook]:
        return self.nodes.look(self.user.name, self.name, run.id)

    async def remove_nodes(self, run: Run) -> Mapping[int, NodeEnd]:
        ends = await self.nodes.remove(self.user.name, self.name)
        self.log.info("%s: removed (%s)", self._log_name, described(ends))
        return {rank: NodeEnd(at=end.ended_at, exit_reason=end.exit_reason) for rank, end in ends.items()}

    async def check_node(self, run: Run, rank: int, how: str) -> None:
        await self.nodes.check(self.user.name, self.name, rank)

    async def end_node(self, run: Run, rank: int) -> NodeEnd | None:
        end = await self.nodes.end(self.user.name, self.name, run.id, rank)
        return None if end is None else NodeEnd(at=end.ended_at, exit_reason=end.exit_reason)

    async def make_node(self, run: Run, rank: int, how: str, progress: NodeProgress) -> None:
        await self.nodes.make(self.user.name, self.name, run.id, rank, progress, empty=how == RESET)
