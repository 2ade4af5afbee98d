"""A plain client of the API server that writes what our hub writes for its clusters, and nothing else.

What it reaches is what the API server, the scheduler and the (simulated) machines take on this machine when
nothing like a hub stands before them: the measure for a hub's own pace. It does as little as possible: one
body per object filled by names, no answers read but the Secret's uid, one watch that counts ready pods.
"""

from __future__ import annotations

import asyncio
import json
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
from ulid import ULID

from benchmarks.kube import PROJECT, Place
from spawner.keys import ClusterKeys
from spawner.kubernetes import manifests, names, troubles
from spawner.kubernetes.spec import ClaimMount, ClusterSpec

MIB = 2**20
_POD = {
    "metadata": {
        "labels": {
            "app": "jupyterhub",
            "app.kubernetes.io/component": "singleuser-server",
            "app.kubernetes.io/managed-by": "kubespawner",
            "app.kubernetes.io/name": "jupyterhub",
            "component": "singleuser-server",
        },
        "annotations": {},
    },
    "spec": {
        "containers": [
            {
                "name": "notebook",
                "image": "galilean.lab/none:1",
                "imagePullPolicy": "IfNotPresent",
                "args": ["/opt/galilean/bin/python", "-m", "spawner.node.container"],
                "ports": [{"name": "notebook-port", "containerPort": 8888}],
                "env": [{"name": f"JUPYTERHUB_SETTING_{n}", "value": "http://10.222.0.1:8081/hub/api"} for n in range(18)],
                "resources": {},
                "securityContext": {"runAsUser": 1000, "runAsGroup": 1000},
            }
        ],
        "tolerations": [
            {"key": key, "operator": "Equal", "value": "user", "effect": "NoSchedule"}
            for key in ("hub.jupyter.org/dedicated", "hub.jupyter.org_dedicated")
        ],
    },
}  # fmt: skip


@dataclass(frozen=True)
class Written:
    """Seconds until everything was written, and until every pod was ready."""

    written: float
    ready: float


def bodies(place: Place, user: str, nodes: int, pod: Mapping[str, Any]) -> tuple[ClusterSpec, dict[str, Any]]:
    """A cluster's Secret; the others need the uid that the API server gives to it."""
    spec = ClusterSpec(
        user=user,
        server=PROJECT,
        run=str(ULID()),
        nodes=nodes,
        project=f"{user}/{PROJECT}",
        namespace=place.name,
        prefix=f"/user/{user}/{PROJECT}/",
        token="0" * 32,
        pod=pod,
        cpu_millicores=100,
        memory_bytes=64 * MIB,
        shm_bytes=32 * MIB,
        mounts=(ClaimMount(claim="projects", sub_path=f"projects/{user}", target="work"),),
    )
    return spec, manifests.secret(spec, _KEYS)


_KEYS = ClusterKeys.new()


class PlainClient:
    """Writes clusters with a hub's rights.

    Attributes
    ----------
    runs
        Run ids by user, of what was written.
    """

    def __init__(self, place: Place, more: Mapping[str, Any]) -> None:
        told = json.loads(place.kubeconfig.read_text(encoding="utf-8"))
        cluster = told["clusters"][0]["cluster"]
        self._place, self._server = place, cluster["server"]
        self._headers = {
            "Authorization": f"Bearer {told['users'][0]['user']['token']}",
            "Content-Type": "application/json",
        }
        self._ssl = ssl.create_default_context(cafile=str(Path(cluster["certificate-authority"])))
        self._pod = dict(_POD) | {
            "spec": {
                **_POD["spec"],
                "nodeSelector": more["selector"],
                "tolerations": [*_POD["spec"]["tolerations"], *more["tolerations"]],
            }
        }
        self._done: dict[str, asyncio.Event] = {}
        self._waiting: dict[str, set[str]] = {}
        self.runs: dict[str, str] = {}

    async def write(self, users: list[str], nodes: int, at_once: int) -> Written:
        """A cluster for each user, ``at_once`` on their way at any time."""
        gate = asyncio.Semaphore(at_once)
        limits = aiohttp.TCPConnector(limit=0, ssl=self._ssl)
        timeout = aiohttp.ClientTimeout(total=None)
        async with aiohttp.ClientSession(headers=self._headers, connector=limits, timeout=timeout) as http:
            watching = asyncio.create_task(self._watch(http))
            begin = time.perf_counter()
            last_write = begin

            async def one(user: str) -> None:
                nonlocal last_write
                async with gate:
                    done = await self._cluster(http, user, nodes)
                    last_write = time.perf_counter()
                    await done.wait()

            await asyncio.gather(*(one(user) for user in users))
            ready = time.perf_counter() - begin
            watching.cancel()
        return Written(written=last_write - begin, ready=ready)

    async def _cluster(self, http: aiohttp.ClientSession, user: str, nodes: int) -> asyncio.Event:
        spec, secret = bodies(self._place, user, nodes, self._pod)
        self.runs[user] = spec.run
        done = self._done[spec.base] = asyncio.Event()
        self._waiting[spec.base] = {names.pod_name(spec.base, rank) for rank in range(nodes)}
        owner = manifests.owner_reference(json.loads(await self._post(http, "api/v1", "secrets", secret)))
        policy = manifests.network_policy(spec, owner)
        await self._post(http, "apis/networking.k8s.io/v1", "networkpolicies", policy)
        await asyncio.gather(
            self._post(http, "api/v1", "services", manifests.service(spec, owner)),
            *(self._post(http, "api/v1", "pods", manifests.pod(spec, rank, owner)) for rank in range(nodes)),
        )
        return done

    async def _post(
        self, http: aiohttp.ClientSession, group: str, kind: str, body: Mapping[str, Any]
    ) -> bytes:
        url = f"{self._server}/{group}/namespaces/{self._place.name}/{kind}"
        async with http.post(url, data=json.dumps(body)) as answer:
            content = await answer.read()
            assert answer.status == 201, content
            return content

    async def _watch(self, http: aiohttp.ClientSession) -> None:
        url = f"{self._server}/api/v1/namespaces/{self._place.name}/pods"
        query = {"watch": "true", "labelSelector": names.RUN, "resourceVersion": "0"}
        while True:  # the server ends each watch after some minutes
            rest = b""
            async with http.get(url, params=query) as answer:
                async for piece in answer.content.iter_any():
                    *lines, rest = (rest + piece).split(b"\n")
                    for line in lines:
                        self._take(json.loads(line)["object"])

    def _take(self, pod: Mapping[str, Any]) -> None:
        base = pod["metadata"].get("labels", {}).get(names.CLUSTER, "")
        waiting = self._waiting.get(base)
        if waiting and troubles.is_ready(pod):
            waiting.discard(pod["metadata"]["name"])
            if not waiting:
                self._done[base].set()
