"""From POST to ready and from DELETE to gone on a real Kubernetes: a cluster of ours against plain KubeSpawner.

Both sides use the same node image, claim and amounts. Four nodes of ours are one cluster; on the plain side
they are four named servers of one person, asked for at the same time.
"""

from __future__ import annotations

import itertools
import os
import time
from pathlib import Path
from typing import Any

import httpx

from benchmarks.harness import Report, at_most
from benchmarks.kube import OURS, PLAIN, PROJECT, KubeHub, Place, kubernetes, volume_of
from tests.product.product import at_once

_numbers = itertools.count()
#: nodes → CPUs of each: what two real CPUs have room for.
CPUS = {1: 1.0, 4: 0.4}
MEMORY = "512M"
START_MOST = {1: 0.60, 4: 1.00}
STOP_MOST = 0.80
#: Nobody ends what has just begun, and a kubelet that is still telling of the start comes late to the end.
SETTLE_SECONDS = 2.5


def answers(hub: KubeHub, path: str) -> None:
    """The node answers through the proxy; looked at outside of what is measured."""
    answer = httpx.get(f"http://127.0.0.1:{hub.port}{path}api/status", headers=hub.headers, timeout=30)
    assert answer.status_code == 200, (path, answer.status_code)


def life(hub: KubeHub, user: str, servers: dict[str, list[str]], body: Any) -> tuple[float, float]:
    """Seconds until all of these servers are ready, and until all are gone again, each asked for at once."""

    def start(server: str) -> None:
        answer = hub.http.post(f"/users/{user}/servers/{server}", json=body)
        assert answer.status_code == 201, (answer.text, hub.log()[-3000:])

    def stop(server: str) -> None:
        answer = hub.http.request("DELETE", f"/users/{user}/servers/{server}")
        assert answer.status_code == 204, (answer.text, hub.log()[-3000:])

    begin = time.perf_counter()
    at_once(*(lambda server=server: start(server) for server in servers))
    started = time.perf_counter() - begin
    for paths in servers.values():
        for path in paths:
            answers(hub, path)
    time.sleep(SETTLE_SECONDS)
    begin = time.perf_counter()
    at_once(*(lambda server=server: stop(server) for server in servers))
    return started, time.perf_counter() - begin


def ours(hub: KubeHub, nodes: int) -> tuple[float, float]:
    base = f"/user/u0/{PROJECT}/"
    paths = [base] + [f"{base}node-{rank}/" for rank in range(1, nodes)]
    options = {"project": PROJECT, "nodes": nodes, "cpu": CPUS[nodes], "memory": MEMORY}
    return life(hub, "u0", {PROJECT: paths}, {"user_options": options})


def plain(hub: KubeHub, nodes: int) -> tuple[float, float]:
    names = [f"s{next(_numbers)}" for _ in range(nodes)]
    return life(hub, "u0", {name: [f"/user/u0/{name}/"] for name in names}, None)


def pairs_of(report: Report, left: KubeHub, right: KubeHub, nodes: int, count: int) -> None:
    for hub, side in ((left, ours), (right, plain)):  # the first start of anything reads the disk
        side(hub, nodes)
    both: dict[str, list[tuple[float, float]]] = {"ours": [], "plain": []}
    for number in range(count):
        order = [("ours", ours, left), ("plain", plain, right)]
        for name, side, hub in order if number % 2 == 0 else reversed(order):
            both[name].append(side(hub, nodes))
        said = " against ".join(f"{both[name][-1][0]:.2f} + {both[name][-1][1]:.2f} s" for name in both)
        print(f"    pair {number + 1}/{count}: {said}", flush=True)
    what = f"{nodes} node{'s' * (nodes > 1)}"
    for index, verb, most in ((0, "POST → ready", START_MOST[nodes]), (1, "DELETE → gone", STOP_MOST)):
        mine, others = ([taken[index] for taken in both[name]] for name in both)
        wins = sum(a < b for a, b in zip(mine, others, strict=True))
        note = f"faster in {wins} of {count} pairs; load {os.getloadavg()[0]:.0f}"
        report.add(at_most(f"Kubernetes: {verb}, {what}", mine, others, most, note=note))


def run(report: Report, directory: Path, count: int, **_: Any) -> None:
    directory.chmod(0o755)  # the kubelet's pods must come through
    with kubernetes(directory, image=True) as cluster:
        name = f"bench-{os.getpid()}"
        places: list[Place] = []
        hubs: list[KubeHub] = []
        try:
            places.append(Place(cluster, f"{name}-ours", volume_of(directory / "ours")))
            more: dict[str, Any] = {"image": cluster.image, "memory": MEMORY}
            hubs.append(KubeHub(directory / "ours", places[0], OURS, ["u0"], more))
            for nodes in CPUS:
                claim = directory / f"plain-{nodes}" / "claim"
                places.append(Place(cluster, f"{name}-plain-{nodes}", claim))
                (claim / "u0").mkdir()
                os.chown(claim / "u0", 1000, 1000)
                cpu = {"cpu": CPUS[nodes]}
                hubs.append(
                    KubeHub(directory / f"plain-{nodes}" / "hub", places[-1], PLAIN, ["u0"], more | cpu)
                )
                print(f"  {nodes} node(s) on Kubernetes", flush=True)
                pairs_of(report, hubs[0], hubs[-1], nodes, count)
                hubs.pop().close()
        finally:
            for hub in hubs:
                hub.close()
            for place in places:
                place.close()
