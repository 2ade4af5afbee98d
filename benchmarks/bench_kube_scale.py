"""Many clusters of four nodes on simulated machines: starts, gaps of the hub's loop, memory, a hub's restart.

Three sides, one after the other on the same Kubernetes, each in a namespace of its own that is gone before
the next begins: a plain client of the API server that writes the same objects (what the cluster itself
takes, see :mod:`benchmarks.kube_client`); our hub; a hub with plain KubeSpawner that starts as many *nodes*
as single servers. The same number of nodes is on its way at any time on each side.

On the last two, whoever is started "answers" at once: one small server stands for all pods.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp

from benchmarks.harness import Figure, Report, at_least, percentile
from benchmarks.kube import OURS, PLAIN, PROJECT, KubeHub, Place, kubernetes, volume_of
from benchmarks.kube_client import PlainClient
from tests.lab.build import build
from tests.lab.kubernetes import Kubernetes
from tests.lab.simulated import SELECTOR, TOLERATIONS, Answering, SimulatedMachines

NODES = 4
PODS_PER_MACHINE = 200
CLUSTERS_AT_ONCE = 50
RESTARTS = 3
RESTART_MOST = 10.0
MORE: Mapping[str, Any] = {
    "image": "galilean.lab/none:1",
    "cpu": 0.1,
    "memory": "64M",
    "selector": SELECTOR,
    "tolerations": TOLERATIONS,
}


@contextmanager
def simulated(cluster: Kubernetes, directory: Path, clusters: int) -> Iterator[None]:
    """Machines with room for so many clusters, whose pods all answer."""
    with (
        SimulatedMachines(
            cluster.kubectl,
            build() / "kwok",
            cluster.directory / "pki" / "admin.kubeconfig",
            directory / "kwok.log",
            count=clusters * NODES // PODS_PER_MACHINE + 2,
        ),
        Answering(directory),
    ):
        yield


@dataclass(frozen=True)
class Pace:
    """What one hub did: seconds, its gaps, its processor seconds, its memory before and after."""

    seconds: float
    gaps: list[float]
    cpu: float
    memory_mb: tuple[float, float]


async def start_all(hub: KubeHub, servers: list[tuple[str, str]], body: Any, at_once: int) -> Pace:
    """All of these (user, server), so many on their way at any time, until the last is ready."""
    gate = asyncio.Semaphore(at_once)
    limits = aiohttp.TCPConnector(limit=0)
    timeout = aiohttp.ClientTimeout(total=None)
    async with aiohttp.ClientSession(headers=hub.headers, connector=limits, timeout=timeout) as http:

        async def one(user: str, server: str) -> None:
            async with gate, http.post(f"{hub.url}/users/{user}/servers/{server}", json=body) as answer:
                assert answer.status == 201, (await answer.text(), hub.log()[-3000:])

        memory, before = hub.memory_mb(), hub.tell()["cpu"]
        begin = time.perf_counter()
        await asyncio.gather(*(one(user, server) for user, server in servers))
        seconds = time.perf_counter() - begin
        told = hub.tell()
    assert hub.ready() == len(servers), hub.log()[-3000:]
    return Pace(seconds, told["gaps"], told["cpu"] - before, (memory, hub.memory_mb()))


def rest(hub: KubeHub, seconds: float = 20) -> tuple[float, float]:
    """A hub that has nothing to do but to watch: its processor share, and p99 of its gaps in ms."""
    before = hub.tell()["cpu"]
    time.sleep(seconds)
    told = hub.tell()
    return (told["cpu"] - before) / seconds, 1000 * percentile(told["gaps"], 0.99)


def restarts(report: Report, hub: KubeHub, clusters: int) -> None:
    taken: list[float] = []
    known: list[float] = []
    for _ in range(RESTARTS):
        hub.kill()
        begin = time.perf_counter()
        taken.append(hub.start())
        while hub.ready() < clusters:
            assert time.perf_counter() - begin < 120, hub.log()[-3000:]
            time.sleep(0.2)
        known.append(time.perf_counter() - begin)
    report.add(
        Figure(
            name=f"Kubernetes: kill −9 of the hub with {clusters:,} running clusters → its next answer",
            ours=taken,
            bound=f"≤ {RESTART_MOST:g} s",
            met=max(taken) <= RESTART_MOST,
            note=f"all of them ready by its word after {statistics.median(known):.1f} s; {load()}",
        )
    )


def load() -> str:
    return f"load {os.getloadavg()[0]:.0f}"


def compare(report: Report, clusters: int, client: float, ours: Pace, plain: Pace) -> None:
    nodes = clusters * NODES
    what = f"Kubernetes, {clusters:,} × {NODES} nodes"
    left, right = clusters / ours.seconds, clusters / client
    note = f"plain: the same objects from a plain client, until all pods are ready; {load()}"
    report.add(at_least(f"{what}: clusters per second", [left], [right], 0.7, unit="/s", note=note))
    note = f"plain: {nodes:,} single servers by KubeSpawner"
    pace = [nodes / side.seconds for side in (ours, plain)]
    report.add(at_least(f"{what}: nodes per second", pace[:1], pace[1:], 1.0, unit="/s", note=note))
    gaps = [1000 * percentile(side.gaps, 0.99) for side in (ours, plain)]
    worst = " and ".join(f"{1000 * max(side.gaps):.0f}" for side in (ours, plain))
    memory = [1024 * (side.memory_mb[1] - side.memory_mb[0]) / clusters for side in (ours, plain)]
    report.add(
        Figure(
            name=f"{what}: event-loop gap while starting, p99",
            ours=gaps[:1],
            plain=gaps[1:],
            unit="ms",
            bound="ratio ≤ 1",
            met=gaps[0] <= gaps[1],
            note=f"of {len(ours.gaps)} and {len(plain.gaps)}; longest {worst} ms",
        ),
        Figure(
            name=f"{what}: hub's CPU per {NODES} nodes",
            ours=[1000 * ours.cpu / clusters],
            plain=[1000 * plain.cpu / clusters],
            unit="ms",
        ),
        Figure(
            name=f"{what}: hub's memory per {NODES} running nodes",
            ours=memory[:1],
            plain=memory[1:],
            unit="kB",
            note=f"{ours.memory_mb[1]:.0f} and {plain.memory_mb[1]:.0f} MB in all",
        ),
    )


def resting(report: Report, clusters: int, ours: tuple[float, float], plain: tuple[float, float]) -> None:
    report.add(
        Figure(
            name=f"Kubernetes: CPU of a hub that only watches {clusters:,} × {NODES} nodes",
            ours=[100 * ours[0]],
            plain=[100 * plain[0]],
            unit="%",
            note=f"event-loop gap p99 {ours[1]:.1f} and {plain[1]:.1f} ms",
        )
    )


def run(report: Report, directory: Path, _count: int, *, clusters: int = 100, **_: Any) -> None:
    users = [f"u{number}" for number in range(clusters)]
    name = f"bench-{os.getpid()}"
    with kubernetes(directory, image=False) as cluster, simulated(cluster, directory, clusters):
        print(f"  {clusters:,} clusters of {NODES} by a plain client", flush=True)
        with ExitStack() as stack:
            place = Place(cluster, f"{name}-client", directory / "client" / "claim")
            stack.callback(place.close)
            written = asyncio.run(PlainClient(place, MORE).write(users, NODES, CLUSTERS_AT_ONCE))
            print(f"    written after {written.written:.1f} s, ready after {written.ready:.1f} s", flush=True)
        print("  by our hub", flush=True)
        with ExitStack() as stack:
            place = Place(cluster, f"{name}-ours", volume_of(directory / "ours"))
            stack.callback(place.close)
            hub = KubeHub(directory / "ours", place, OURS, users, MORE)
            stack.callback(hub.close)
            body = {"user_options": {"project": PROJECT, "nodes": NODES}}
            servers = [(user, PROJECT) for user in users]
            ours = asyncio.run(start_all(hub, servers, body, CLUSTERS_AT_ONCE))
            print(f"    ready after {ours.seconds:.1f} s, {ours.cpu:.1f} s of the hub's CPU", flush=True)
            ours_resting = rest(hub)
            restarts(report, hub, clusters)
        print("  by plain KubeSpawner", flush=True)
        with ExitStack() as stack:
            place = Place(cluster, f"{name}-plain", directory / "plain" / "claim")
            stack.callback(place.close)
            hub = KubeHub(directory / "plain" / "hub", place, PLAIN, users, MORE)
            stack.callback(hub.close)
            servers = [(user, f"s{number}") for user in users for number in range(NODES)]
            plain = asyncio.run(start_all(hub, servers, None, CLUSTERS_AT_ONCE * NODES))
            print(f"    ready after {plain.seconds:.1f} s, {plain.cpu:.1f} s of the hub's CPU", flush=True)
            compare(report, clusters, written.ready, ours, plain)
            resting(report, clusters, ours_resting, rest(hub))
