"""Spawners that start nothing: every node "answers" at once at one small server that the benchmark runs.

What is left is what the hub itself costs, with and without us.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from jupyterhub.spawner import Spawner

from spawner.backend import NodeLook, NodeProgress
from spawner.cluster import VirtualCluster
from spawner.plan import ClusterPlan
from spawner.records import Run
from spawner.steps import NodeEnd

SINK_PORT = int(os.environ.get("BENCH_SINK_PORT", "0"))


class NothingSpawner(Spawner):
    """The plain side: a server is there as soon as it is asked for."""

    started = False

    async def start(self) -> tuple[str, int]:
        self.started = True
        return "127.0.0.1", SINK_PORT

    async def poll(self) -> int | None:
        return None if self.started else 0

    async def stop(self, now: bool = False) -> None:
        self.started = False


class NothingCluster(VirtualCluster):
    """Ours: all the rules of a run, over nodes that are there at once."""

    backend_name = "process"

    def node_name(self, rank: int) -> str:
        return f"node-{rank}"

    async def create_nodes(self, run: Run, plan: ClusterPlan, progress: NodeProgress) -> None:
        for rank in range(plan.nodes):
            progress.placed(rank, host="bench")
            progress.ready(rank, url=f"http://127.0.0.1:{SINK_PORT}", host="bench")

    async def look_at_nodes(self, run: Run) -> Mapping[int, NodeLook]:
        return {rank: NodeLook(alive=True) for rank in range(run.nodes)}

    async def remove_nodes(self, run: Run) -> Mapping[int, NodeEnd]:
        return {}

    def get_env(self) -> dict[str, Any]:  # nobody reads it
        return {}
