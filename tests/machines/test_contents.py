"""What is on a machine: itself, this installation's pods, and of everybody else's nothing but their number (CG-35)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner

from galilean.cli import build_app
from galilean.errors import UserError
from services.machines import contents
from services.machines.contents import Condition, Contents, Details, Others, Pod, fits, others_in, said
from services.machines.kube import KubeMachines
from spawner.kubernetes.names import RANK, RUN, SERVER, USER
from spawner.kubernetes.use import pods_named
from tests.machines.conftest import MakePark, Park
from tests.machines.fake_api import FakeAPI, node, pod
from tests.machines.machines import machine
from tests.web.conftest import Visitor

#: As a kubelet answers /metrics/resource.
FIGURES = """
# TYPE container_cpu_usage_seconds_total counter
container_cpu_usage_seconds_total{container="a",namespace="kube-system",pod="dns-1"} 1.5 1700000000000
container_memory_working_set_bytes{container="a",namespace="kube-system",pod="dns-1"} 7 1700000000000
container_cpu_usage_seconds_total{container="a",namespace="kube-system",pod="proxy"} 1.5 1700000000000
container_cpu_usage_seconds_total{container="x",namespace="shop",pod="secret-plans"} 1.5 1700000000000
container_cpu_usage_seconds_total{container="x",namespace="galilean",pod="a-1"} 1.5 1700000000000
node_cpu_usage_seconds_total 55 1700000000000
nonsense{
"""


class Kubelet:
    """Answers what it is told to."""

    def __init__(self, text: str | None = FIGURES) -> None:
        self.text, self.asked = text, []

    async def kubelet(self, host: str) -> str:
        self.asked.append(host)
        if self.text is None:
            raise ConnectionError("no")
        return self.text

    async def gpus(self, host: str) -> str:
        return ""

    async def close(self) -> None:
        """Nothing to let go of."""


@pytest.fixture
async def api() -> AsyncIterator[FakeAPI]:
    fake = FakeAPI()
    fake.add(
        node("m1", status={"nodeInfo": {"osImage": "Debian", "kernelVersion": "6.1"}, "images": [{}, {}]}),
        node("m2"),
        pod(
            "a-1",
            "m1",
            metadata={
                "labels": {RUN: "01R", RANK: "1"},
                "annotations": {USER: "ada", SERVER: "heat"},
                "namespace": "galilean",
            },
            status={
                "phase": "Running",
                "podIP": "10.0.0.9",
                "containerStatuses": [{"ready": True, "restartCount": 2, "state": {"running": {}}}],
            },
        ),
        pod(
            "hub-1",
            "m1",
            metadata={"labels": {"app.kubernetes.io/component": "hub"}, "namespace": "galilean"},
            status={
                "phase": "Pending",
                "containerStatuses": [
                    {"ready": False, "restartCount": 0, "state": {"waiting": {"reason": "ErrImagePull"}}}
                ],
            },
        ),
        pod("elsewhere", "m2", metadata={"namespace": "galilean"}),
        pod(
            "agent-1",
            "m1",
            metadata={"labels": {"galilean.io/agent-of": "galilean"}, "namespace": "galilean-agents"},
        ),
    )
    yield fake
    for client in fake.clients:
        await client.close()
    fake.server.stop()


def world(api: FakeAPI, kubelet: Kubelet | None) -> KubeMachines:
    first = api.start()
    beside = type(first)("galilean-agents", first._make)
    api.clients.append(beside)
    return KubeMachines(first, beside=[beside], figures=kubelet)


async def test_pods_of_this_installation_are_told_and_others_counted(api: FakeAPI) -> None:
    kubelet = Kubelet()
    found = await world(api, kubelet).contents("m1")
    assert kubelet.asked == ["192.0.2.1"]
    assert found.others == Others(namespaces=2, pods=3)
    assert {one.name: one.what for one in found.pods} == {"a-1": "node", "hub-1": "part", "agent-1": "agent"}
    (one,) = [pod for pod in found.pods if pod.name == "a-1"]
    assert (one.user, one.server, one.rank, one.restarts, one.ready) == ("ada", "heat", 1, 2, True)
    assert (one.cpu_millicores, one.memory_bytes, one.address) == (250, 256 << 20, "10.0.0.9")
    (hub,) = [pod for pod in found.pods if pod.name == "hub-1"]
    assert (hub.part, hub.reason, hub.ready) == ("hub", "ErrImagePull", False)
    details = found.details
    assert (details.system, details.kernel, details.images) == ("Debian", "6.1", 2)
    assert [one.type for one in details.conditions] == ["MemoryPressure", "Ready"]


async def test_a_kubelet_that_is_silent_takes_only_the_count_away(api: FakeAPI) -> None:
    found = await world(api, Kubelet(None)).contents("m1")
    assert found.others is None and len(found.pods) == 3


async def test_nobody_asks_kubelets_where_use_is_not_measured(api: FakeAPI) -> None:
    assert (await world(api, None).contents("m1")).others is None


@pytest.mark.parametrize("name", ["m9", "../pods", "m1/status"])
async def test_a_machine_that_is_not_there_is_said_to_be_none(api: FakeAPI, name: str) -> None:
    with pytest.raises(UserError, match="no machine"):
        await world(api, Kubelet()).contents(name)


def test_only_names_are_read_of_what_a_kubelet_measures() -> None:
    assert pods_named(FIGURES) == {
        ("kube-system", "dns-1"),
        ("kube-system", "proxy"),
        ("shop", "secret-plans"),
        ("galilean", "a-1"),
    }
    assert others_in(pods_named(""), ["galilean"]) == Others(namespaces=0, pods=0)


def of(name: str, **more: Any) -> Pod:
    return Pod(**{"namespace": "galilean", "name": name, "what": "node", **more})


def test_words_are_looked_for_in_names_people_and_states() -> None:
    one = of("ada-heat-0", user="ada", server="heat", phase="Running")
    assert fits(one, "ADA run", "") and not fits(one, "ada gone", "")
    assert fits(one, "", "galilean") and not fits(one, "", "other")


def test_many_pods_come_in_pages_and_are_searched_among_all() -> None:
    pods = tuple(of(f"p{number:03}") for number in range(120))
    found = Contents(details=Details(), pods=pods, others=None)
    told = said(found, ["galilean"], text="", namespace="", offset=100, limit=50)
    assert (len(told["pods"]), told["fitting"], told["pods"][0]["name"]) == (20, 120, "p100")
    told = said(found, ["galilean"], text="p11", namespace="", offset=0, limit=5)
    assert (len(told["pods"]), told["fitting"], told["namespaces"]) == (
        5,
        10,
        [{"name": "galilean", "pods": 120}],
    )


# ---------------------------------------------------------------------------------------------------------- the pages


@pytest.fixture
def looked_into(park: Park) -> Park:
    """A machine with sixty nodes, one part, and others of which nothing is known."""
    pods = [of(f"p{number:03}", user="alice", server="heat", rank=0, phase="Running") for number in range(60)]
    pods.append(of("hub-<b>", what="part", part="hub", phase="Failed"))
    condition = Condition(type="DiskPressure", status="True", message="little <disk>")
    park.air.found = Contents(
        details=Details(system="Debian 12", conditions=(condition,)),
        pods=tuple(pods),
        others=Others(namespaces=2, pods=31),
    )
    return park


def test_the_page_shows_pods_in_pages_with_search(looked_into: Park, maria: Visitor) -> None:
    assert "admin/machines/m1/contents" in maria.get("admin/machines/m1").text
    text = maria.script("GET", "admin/machines/m1/contents").text
    assert "p049" in text and "p050" not in text and "Debian 12" in text
    assert "besides 31 pods in 2 other namespaces" in text and "little &lt;disk&gt;" in text
    assert "p059" in maria.script("GET", "admin/machines/m1/contents", params={"from": "50"}).text
    found = maria.script("GET", "admin/machines/m1/contents", params={"q": "hub failed"}).text
    assert "hub-&lt;b&gt;" in found and "p001" not in found
    assert "No pod fits" in maria.script("GET", "admin/machines/m1/contents", params={"q": "zzz"}).text


def test_a_service_that_is_away_is_said_on_the_page(looked_into: Park, maria: Visitor) -> None:
    looked_into.site.portal.parts["machines_url"] = ""
    text = maria.script("GET", "admin/machines/m1/contents").text
    assert "It cannot be looked into now" in text


def test_only_administrators_look_into_machines(looked_into: Park) -> None:
    with Visitor(looked_into.site, "alice") as alice:
        alice.get("")
        assert alice.get("admin/machines/m1/contents").status_code == 403
        assert alice.get("api/v1/machines/m1/contents").status_code == 403


def api_of(park: Park) -> httpx.Client:
    headers = {"Authorization": f"token {park.site.hub.token('maria', None)}"}
    return httpx.Client(base_url=park.site.url + "api/v1", headers=headers, timeout=20)


def test_the_api_tells_the_same(looked_into: Park) -> None:
    with api_of(looked_into) as maria:
        told = maria.get("/machines/m1/contents", params={"limit": "10", "from": "5"}).json()
        assert (told["fitting"], len(told["pods"]), told["others"]) == (61, 10, {"namespaces": 2, "pods": 31})
        assert maria.get("/machines/nowhere/contents").status_code == 404
        assert maria.get("/machines/m1/contents", params={"from": "x"}).status_code == 400


def test_the_command_tells_all_of_them(looked_into: Park, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GALILEAN_SITE", looked_into.site.url)
    monkeypatch.setenv("LANG", "C.UTF-8")
    monkeypatch.setenv("GALILEAN_TOKEN", looked_into.site.hub.token("maria"))
    told = CliRunner().invoke(build_app(), ["machines", "pods", "m1"]).output
    assert "# Debian 12" in told and "# others: 31" in told and "galilean\tp059\tRunning\talice/heat" in told
    assert "m1\tready" in CliRunner().invoke(build_app(), ["machines", "list"]).output


def test_where_machines_are_not_kubernetes_it_says_so(make_park: MakePark) -> None:
    park = make_park(machine("m1"))
    park.air.found = None
    assert contents.PAGE_SIZE == 50
    with api_of(park) as maria:
        assert maria.get("/machines/m1/contents").status_code == 404
