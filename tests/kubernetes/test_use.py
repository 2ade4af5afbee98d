"""What nodes that are pods really use, by texts as kubelets and DCGM's exporter write them."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any

import pytest

from spawner.gpu import gpus_of
from spawner.kubernetes.use import AT_ONCE, KubeUseMeter, pods_of
from spawner.use import GpuUse
from tests.kubernetes.memory import Progress
from tests.kubernetes.test_manifests import spec

KUBELET = """\
# HELP container_cpu_usage_seconds_total [STABLE] Cumulative cpu time consumed by the container in core-seconds
# TYPE container_cpu_usage_seconds_total counter
container_cpu_usage_seconds_total{{container="node",namespace="people",pod="{0}"}} 12.5 1785000000000
container_cpu_usage_seconds_total{{container="node",namespace="others",pod="{0}"}} 999 1785000000000
# TYPE pod_cpu_usage_seconds_total counter
pod_cpu_usage_seconds_total{{namespace="people",pod="{0}"}} 12.75 1785000000000
# TYPE pod_memory_working_set_bytes gauge
pod_memory_working_set_bytes{{namespace="people",pod="{0}"}} 1.048576e+06 1785000000000
# TYPE scrape_error gauge
scrape_error 0
"""
GPUS = """\
# HELP DCGM_FI_DEV_GPU_UTIL GPU utilization (in %).
# TYPE DCGM_FI_DEV_GPU_UTIL gauge
DCGM_FI_DEV_GPU_UTIL{{gpu="0",UUID="GPU-a",device="nvidia0",modelName="NVIDIA A100",namespace="people",pod="{0}",container="node"}} 90
DCGM_FI_DEV_GPU_UTIL{{gpu="1",UUID="GPU-b",device="nvidia1",modelName="NVIDIA A100",namespace="people",pod="{0}",container="node"}} 5
DCGM_FI_DEV_GPU_UTIL{{gpu="2",UUID="GPU-c",device="nvidia2",modelName="NVIDIA A100"}} 77
# HELP DCGM_FI_DEV_FB_USED Framebuffer memory used (in MiB).
# TYPE DCGM_FI_DEV_FB_USED gauge
DCGM_FI_DEV_FB_USED{{gpu="0",UUID="GPU-a",device="nvidia0",namespace="people",pod="{0}",container="node"}} 1024
DCGM_FI_DEV_FB_USED{{gpu="1",UUID="GPU-b",device="nvidia1",namespace="people",pod="{0}",container="node"}} 1
DCGM_FI_DEV_POWER_USAGE{{gpu="0",UUID="GPU-a",namespace="people",pod="{0}",container="node"}} 250.1
"""
NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


class Machines:
    """Texts by host; a host without one does not answer."""

    def __init__(self, kubelets: dict[str, str], gpus: dict[str, str] | None = None) -> None:
        self.kubelets, self.cards = kubelets, gpus or {}

    async def kubelet(self, host: str) -> str:
        if host not in self.kubelets:
            raise ConnectionRefusedError(host)
        return self.kubelets[host]

    async def gpus(self, host: str) -> str:
        return self.cards.get(host, "")

    async def close(self) -> None:
        pass


async def pods(world: Any, **more: Any) -> tuple[Any, list[str]]:
    cluster, made = world
    await made.create(spec(**more), Progress())
    names = cluster.of("Pod")
    for number, name in enumerate(names):
        pod = cluster.objects["Pod", name]
        cluster.objects["Pod", name] = {**pod, "status": {**pod["status"], "hostIP": f"10.0.0.{number}"}}
    return cluster, names


def meter(cluster: Any, machines: Machines) -> KubeUseMeter:
    return KubeUseMeter(cluster, machines, clock=lambda: NOW)


async def test_nodes_are_measured_by_their_machines_and_a_silent_machine_hides_its_own_alone(
    world: Any,
) -> None:
    cluster, names = await pods(world, nodes=3)
    told = {"10.0.0.0": KUBELET.format(names[0]), "10.0.0.2": KUBELET.format(names[2])}
    found = await meter(cluster, Machines(told)).measure()
    assert [(use.rank, use.cpu_us_total, use.memory_bytes) for use in found] == [
        (0, 12_750_000, 2**20),
        (2, 12_750_000, 2**20),
    ]
    assert {use.measured_at for use in found} == {NOW}


async def test_no_kubelet_at_all_is_an_error_and_no_pod_is_none(world: Any) -> None:
    cluster, _ = world
    assert await meter(cluster, Machines({})).measure() == []
    await pods(world)
    with pytest.raises(ConnectionError):
        await meter(cluster, Machines({})).measure()


async def test_rubbish_of_one_machine_hides_its_own_alone(world: Any) -> None:
    cluster, names = await pods(world, nodes=2)
    told = {
        "10.0.0.0": 'pod_cpu_usage_seconds_total{namespace="people"',
        "10.0.0.1": KUBELET.format(names[1]),
    }
    assert [use.rank for use in await meter(cluster, Machines(told)).measure()] == [1]


def test_containers_are_added_up_where_the_kubelet_says_nothing_of_the_pod() -> None:
    text = (
        'container_cpu_usage_seconds_total{container="node",namespace="people",pod="a"} 1\n'
        'container_cpu_usage_seconds_total{container="side",namespace="people",pod="a"} 2\n'
    )
    assert pods_of(text, "people")["a"].cpu_us == 3_000_000


def test_cards_are_added_up_by_pod_and_those_of_nobody_left_out() -> None:
    assert gpus_of(GPUS.format("p")) == {
        ("people", "p"): GpuUse(cards=2, permille=950, memory_bytes=1025 * 2**20)
    }
    federated = (
        GPUS.format("p").replace('namespace="', 'exported_namespace="').replace('pod="', 'exported_pod="')
    )
    assert gpus_of(federated) == gpus_of(GPUS.format("p"))
    assert gpus_of("") == {}


def test_a_share_of_a_card_is_told_by_what_computed() -> None:
    text = (
        'DCGM_FI_DEV_GPU_UTIL{UUID="a",GPU_I_ID="1",namespace="people",pod="p"} 100\n'
        'DCGM_FI_PROF_GR_ENGINE_ACTIVE{UUID="a",GPU_I_ID="1",namespace="people",pod="p"} 0.25\n'
    )
    assert gpus_of(text)["people", "p"].permille == 250


class Silent(Machines):
    """A machine without a text takes the question and never answers."""

    def __init__(self, kubelets: dict[str, str]) -> None:
        super().__init__(kubelets)
        self.asked: list[str] = []

    async def kubelet(self, host: str) -> str:
        self.asked.append(host)
        if host not in self.kubelets:
            await asyncio.Event().wait()
        return await super().kubelet(host)


async def test_machines_that_never_answer_do_not_hide_the_others(world: Any) -> None:
    cluster, names = await pods(world, nodes=2 * AT_ONCE + 1)
    silent = Silent({"10.0.0.9": KUBELET.format(names[9])})  # the last of all, in their order
    found = await KubeUseMeter(cluster, silent, clock=lambda: NOW, ask_seconds=0.01).measure()
    assert len(found) == 1
    assert (silent.asked[-1], len(silent.asked)) == ("10.0.0.9", 2 * AT_ONCE + 1)


async def test_all_machines_together_have_a_time_and_who_was_silent_is_asked_last(world: Any) -> None:
    cluster, names = await pods(world, nodes=AT_ONCE + 2)
    told = {"10.0.0.0": KUBELET.format(names[0])}
    silent = Silent(told)
    asks = KubeUseMeter(cluster, silent, clock=lambda: NOW, ask_seconds=3600, round_seconds=0.01)
    assert [one.rank for one in await asks.measure()] == [0]
    asks = KubeUseMeter(cluster, silent, clock=lambda: NOW, ask_seconds=0.01)
    await asks.measure()
    told["10.0.0.33"] = KUBELET.format(names[33])  # it is back; the others are not
    await asks.measure()
    silent.asked.clear()
    await asks.measure()
    assert sorted(silent.asked[:2]) == ["10.0.0.0", "10.0.0.33"]
