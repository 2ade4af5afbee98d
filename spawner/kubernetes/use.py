"""What nodes that are pods really use, by the kubelets' own figures (AP-22).

Each machine's kubelet is asked for ``/metrics/resource``, directly and at the address that the pods' own
status names: that takes the right to read figures (``nodes/metrics``) and no other on machines, neither the
list of them nor the API server's way through to them, which would open every door of a kubelet. GPUs come
from DCGM's exporter where the site has one.

A machine that does not answer leaves its nodes unmeasured this time, and the others are measured all the same:
each has its time limit, all together have one, and who was silent the last time is asked last.
Samples of pods that are not ours are read over; which pod is which node is said by our inventory's rules.
"""

from __future__ import annotations

import asyncio
import logging
import re
import ssl
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Protocol

import aiohttp
from kubespawner.clients import load_config
from prometheus_client.parser import text_string_to_metric_families

from galilean.settings import Settings
from spawner.gpu import gpus_of
from spawner.kubernetes import names
from spawner.kubernetes.api import KubeAPI
from spawner.kubernetes.inventory import sighting_of
from spawner.use import GpuUse, NodeUse

ASK_SECONDS = 5.0
#: All of them together; whoever was not asked by then is not measured this time.
ROUND_SECONDS = 15.0
#: So many machines are asked at once.
AT_ONCE = 32
_LABEL = re.compile(r'(namespace|pod)="([^"\\]*)"')
_MOST_BYTES = 32 * 2**20
CPU = ("pod_cpu_usage_seconds_total", "container_cpu_usage_seconds_total")
MEMORY = ("pod_memory_working_set_bytes", "container_memory_working_set_bytes")


@dataclass(frozen=True)
class Place:
    """A node of ours on its machine."""

    run: str
    rank: int
    pod: str
    host: str
    gpu: bool


@dataclass(frozen=True)
class PodUse:
    """What a kubelet says of one pod."""

    cpu_us: int | None
    memory_bytes: int


class Source(Protocol):
    """Where figures are read; tests hand in their own."""

    async def kubelet(self, host: str) -> str:
        """Prometheus text of the machine at ``host``."""
        ...

    async def gpus(self, host: str) -> str:
        """Prometheus text of its cards; empty where nobody tells of them."""
        ...

    async def close(self) -> None: ...


class KubeUseMeter:
    """Measures the nodes of one namespace; implements :class:`spawner.use.UseMeter`."""

    def __init__(
        self,
        api: KubeAPI,
        source: Source,
        *,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        log: logging.Logger | None = None,
        ask_seconds: float = ASK_SECONDS,
        round_seconds: float = ROUND_SECONDS,
    ) -> None:
        self._ask_seconds, self._round_seconds = ask_seconds, round_seconds
        self._api = api
        self._source = source
        self._clock = clock
        self._log = log or logging.getLogger(__name__)
        self._silent: set[tuple[str, str]] = set()

    async def measure(self) -> list[NodeUse]:
        """All nodes whose machine answered.

        Raises
        ------
        Exception
            When the pods cannot be listed, or not one machine of several answers.
        """
        pods, _ = await self._api.list("Pod", names.RUN)
        places = [place for pod in pods if (place := place_of(pod)) is not None]
        hosts = sorted({place.host for place in places})
        gpu_hosts = {place.host for place in places if place.gpu}
        uses, cards = await self._ask_all(hosts, gpu_hosts)
        if hosts and not any(text is not None for text in uses):
            raise ConnectionError("No kubelet answers: nothing can be measured")
        at = self._clock()
        measured: dict[str, PodUse] = {}
        gpus: dict[str, GpuUse] = {}
        for text in uses:
            measured.update(self._read("kubelet", lambda said: pods_of(said, self._api.namespace), text))
        for text in set(cards):  # one exporter may tell of all machines
            found = self._read("GPUs", gpus_of, text)
            gpus.update({pod: use for (space, pod), use in found.items() if space == self._api.namespace})
        return [
            NodeUse(
                run=place.run,
                rank=place.rank,
                cpu_us_total=measured[place.pod].cpu_us,
                memory_bytes=measured[place.pod].memory_bytes,
                gpu=gpus.get(place.pod) if place.gpu else None,
                measured_at=at,
            )
            for place in places
            if place.pod in measured
        ]

    async def close(self) -> None:
        """Let go of the connections."""
        await self._source.close()
        await self._api.close()

    async def _ask_all(
        self, hosts: Iterable[str], gpu_hosts: Iterable[str]
    ) -> tuple[list[str | None], list[str | None]]:
        """What kubelets and exporters say; ``None`` for who does not, or was not asked in time."""
        limit = asyncio.Semaphore(AT_ONCE)
        asked = [("kubelet", host, self._source.kubelet) for host in hosts]
        asked += [("GPUs", host, self._source.gpus) for host in sorted(gpu_hosts)]
        # The semaphore lets them in in this order.
        asked.sort(key=lambda one: one[:2] in self._silent)
        tasks = {
            asyncio.create_task(self._ask(what, ask, host, limit)): (what, host) for what, host, ask in asked
        }
        try:
            done, _ = await asyncio.wait(tasks, timeout=self._round_seconds) if tasks else (set(), set())
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        said = {tasks[task]: task.result() for task in done}
        return (
            [said.get(("kubelet", host)) for host in hosts],
            [said.get(("GPUs", host)) for host in gpu_hosts],
        )

    async def _ask(
        self, what: str, ask: Callable[[str], Any], host: str, limit: asyncio.Semaphore
    ) -> str | None:
        try:
            async with limit, asyncio.timeout(self._ask_seconds):
                text = await ask(host)
        except Exception as error:  # one machine of many; told once, until it answers again
            if (what, host) not in self._silent:
                self._log.warning(
                    "%s of %s cannot be measured: %s", what, host, str(error) or type(error).__name__
                )
            self._silent.add((what, host))
            return None
        self._silent.discard((what, host))
        return text

    def _read(
        self, what: str, read: Callable[[str], Mapping[Any, Any]], text: str | None
    ) -> Mapping[Any, Any]:
        if not text:
            return {}
        try:
            return read(text)
        except ValueError as error:
            self._log.warning("What was told of the %s is no Prometheus text: %s", what, error)
            return {}


def place_of(pod: Mapping[str, Any]) -> Place | None:
    """The node that a pod is, where it runs; ``None`` for what is not ours or runs nowhere (any more)."""
    sighting = sighting_of(pod)  # pyright: ignore[reportArgumentType]
    host = pod.get("status", {}).get("hostIP", "")
    if sighting is None or sighting.state != "alive" or not host:
        return None
    limits = [box.get("resources", {}).get("limits") or {} for box in pod["spec"].get("containers", ())]
    return Place(
        run=sighting.run,
        rank=sighting.rank,
        pod=pod["metadata"]["name"],
        host=host,
        gpu=any("/" in name for box in limits for name in box),
    )


def pods_of(text: str, namespace: str) -> dict[str, PodUse]:
    """What a kubelet says of the pods of a namespace: of the pod as a whole, else of its containers together.

    Raises
    ------
    ValueError
        When it is no Prometheus text.
    """
    figures: dict[str, dict[str, float]] = {}
    for name, pod, value in _samples(text, namespace):
        of_pod = figures.setdefault(pod, {})
        of_pod[name] = of_pod.get(name, 0.0) + value
    found: dict[str, PodUse] = {}
    for pod, values in figures.items():
        cpu = next((values[name] for name in CPU if name in values), None)
        memory = next((values[name] for name in MEMORY if name in values), 0.0)
        found[pod] = PodUse(None if cpu is None else round(cpu * 1e6), int(memory))
    return found


def pods_named(text: str) -> set[tuple[str, str]]:
    """Namespace and name of every pod that a kubelet measures; other lines are read over."""
    found: set[tuple[str, str]] = set()
    for line in text.splitlines():
        if line.startswith((*CPU, *MEMORY)):
            said = dict(_LABEL.findall(line))
            if said.get("namespace") and said.get("pod"):
                found.add((said["namespace"], said["pod"]))
    return found


def _samples(text: str, namespace: str) -> Iterable[tuple[str, str, float]]:
    wanted = f'namespace="{namespace}"'
    lines = [line for line in text.splitlines() if line.startswith((*CPU, *MEMORY)) and wanted in line]
    for family in text_string_to_metric_families("\n".join(lines) + "\n"):
        for sample in family.samples:
            if sample.labels.get("namespace") == namespace and sample.name in (*CPU, *MEMORY):
                yield sample.name, sample.labels.get("pod", ""), sample.value


class HttpSource:
    """The real ones: kubelets by the service's own account, the exporter by its address."""

    def __init__(self, *, port: int, insecure_tls: bool, gpu_url: str) -> None:
        self._port = port
        self._insecure = insecure_tls
        self._gpu_url = gpu_url
        self._http: aiohttp.ClientSession | None = None

    async def kubelet(self, host: str) -> str:
        from kubernetes_asyncio.client import Configuration

        configuration = Configuration.get_default_copy()
        token = await configuration.get_api_key_with_prefix("BearerToken")
        name = f"[{host}]" if ":" in host else host
        return await self._get(
            f"https://{name}:{self._port}/metrics/resource",
            headers={"Authorization": token} if token else {},
            tls=_context(configuration, self._insecure),
        )

    async def gpus(self, host: str) -> str:
        if not self._gpu_url:
            return ""
        return await self._get(self._gpu_url.replace("{host}", f"[{host}]" if ":" in host else host))

    async def close(self) -> None:
        if self._http is not None:
            http, self._http = self._http, None
            await http.close()

    async def _get(
        self, url: str, *, headers: Mapping[str, str] | None = None, tls: ssl.SSLContext | None = None
    ) -> str:
        if self._http is None:
            self._http = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=ASK_SECONDS))
        async with self._http.get(
            url, headers=headers, ssl=tls if tls is not None else True, allow_redirects=False
        ) as answer:
            if answer.status != 200:
                raise ConnectionError(f"{url} answers {answer.status}")
            content = bytearray()
            async for piece in answer.content.iter_any():
                content += piece
                if len(content) > _MOST_BYTES:
                    raise ConnectionError(f"{url} answers with more than {_MOST_BYTES} bytes")
            return content.decode(errors="replace")


def _context(configuration: Any, insecure: bool) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=configuration.ssl_ca_cert)
    if configuration.cert_file:
        context.load_cert_chain(configuration.cert_file, configuration.key_file)
    if insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def kube_use_meter(settings: Settings) -> KubeUseMeter:
    """The meter of a site, by the process's own account in the cluster, else by a kubeconfig."""
    load_config()
    use = settings.use
    source = HttpSource(
        port=use.kubelet_port, insecure_tls=use.kubelet_insecure_tls, gpu_url=use.gpu_metrics_url
    )
    return KubeUseMeter(KubeAPI(settings.kubernetes.namespace), source)
