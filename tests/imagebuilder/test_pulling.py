"""Having a Kubernetes' machines fetch images: what their status tells, the pod that runs nothing, and whose Secrets it has."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import Any

import httpx
import pytest

from extensions.imagebuilder import pulling
from extensions.imagebuilder.pulling import IMAGES_OF, KubeMachines, full_name, pod_for, sight_of, verdict
from galilean.errors import UserError
from spawner.kubernetes import names
from spawner.kubernetes.api import APIError

IMAGE = "registry.example/site/paint@sha256:" + "a" * 64


def node(name: str = "m1", images: list[list[str]] | None = None, **more: Any) -> dict[str, Any]:
    return {
        "metadata": {"name": name},
        "spec": more.pop("spec", {}),
        "status": {
            "conditions": [{"type": "Ready", "status": "True"}, *more.pop("conditions", ())],
            "images": [{"names": names} for names in images or ()],
        },
    }


# ---------------------------------------------------------------------------------------------- what a machine says


@pytest.mark.parametrize(
    ("said", "full"),
    [
        ("jupyter", "docker.io/library/jupyter:latest"),
        ("jupyter:4", "docker.io/library/jupyter:4"),
        ("site/jupyter:4", "docker.io/site/jupyter:4"),
        ("localhost:5000/jupyter", "localhost:5000/jupyter:latest"),
        (IMAGE, IMAGE),
    ],
)
def test_names_are_compared_as_kubelets_write_them(said: str, full: str) -> None:
    assert full_name(said) == full


def test_what_a_machine_names_is_there_and_the_rest_is_not() -> None:
    found = sight_of(
        node(images=[["docker.io/library/one:1"], [IMAGE]]), ["one:1", "two:1", IMAGE], agent=True
    )
    assert (found.present, found.whole, found.takes) == (frozenset({"one:1", IMAGE}), True, True)


def test_a_machine_with_a_full_list_may_have_more() -> None:
    assert not sight_of(node(images=[[f"i{number}:1"] for number in range(50)]), [], agent=True).whole


@pytest.mark.parametrize(
    "machine",
    [
        node(spec={"unschedulable": True}),
        node(conditions=[{"type": "DiskPressure", "status": "True"}]),
        node(conditions=[{"type": "Ready", "status": "Unknown"}]),
    ],
)
def test_a_machine_that_is_taken_out_full_or_silent_fetches_nothing(machine: dict[str, Any]) -> None:
    assert not sight_of(machine, [], agent=True).takes


def test_without_an_agent_nobody_knows_its_disk() -> None:
    assert not sight_of(node(), [], agent=False).takes


# ----------------------------------------------------------------------------------------------------------- the pod


def test_the_pod_runs_nothing_of_the_image_and_has_no_rights() -> None:
    body = pod_for(IMAGE, "m1", namespace="c-images", of="c", secrets=["pull"])
    spec = body["spec"]
    (container,) = spec["containers"]
    assert (spec["nodeName"], container["image"], container["imagePullPolicy"]) == (
        "m1",
        IMAGE,
        "IfNotPresent",
    )
    assert container["command"] == [pulling.NOTHING] and spec["restartPolicy"] == "Never"
    assert spec["automountServiceAccountToken"] is False and "volumes" not in spec
    assert "resources" not in container  # asks for nothing, so a full machine takes it
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["imagePullSecrets"] == [{"name": "pull"}]


def test_each_place_has_a_name_of_its_own() -> None:
    def name(image: str, machine: str) -> str:
        return pod_for(image, machine, namespace="n", of="c", secrets=())["metadata"]["name"]

    assert len({name(image, machine) for image in ("a", "b") for machine in ("m1", "m2")}) == 4


def waiting(reason: str, message: str = "") -> dict[str, Any]:
    return {"status": {"containerStatuses": [{"state": {"waiting": {"reason": reason, "message": message}}}]}}


def test_an_image_whose_program_could_not_be_started_is_there() -> None:
    ended = {"imageID": IMAGE, "state": {"terminated": {"reason": "StartError", "exitCode": 128}}}
    assert verdict({"status": {"phase": "Failed", "containerStatuses": [ended]}}).fetched
    assert verdict(waiting("RunContainerError")).fetched
    assert verdict(waiting("CreateContainerError")).fetched


def test_nothing_is_said_while_it_is_fetched() -> None:
    for pod in ({"status": {"phase": "Pending"}}, {}, waiting("ContainerCreating")):
        said = verdict(pod)
        assert not said.fetched and said.error is None


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        ("failed to pull and unpack image: registry.example/x: not found", "image-unknown"),
        ("unexpected status code: 401 Unauthorized", "image-login"),
        ("write /var/lib/x: no space left on device", "disk-full"),
        ("dial tcp: connection refused", "image-failed"),
        (f"{'x' * 600}: http: server gave HTTP response to HTTPS client", "registry-plain"),
        (f"{'x' * 600}: dial tcp: lookup r.galilean.svc on 10.0.0.1:53: no such host", "registry-name"),
    ],
)
def test_what_a_kubelet_says_is_told_in_our_words(message: str, reason: str) -> None:
    error = verdict(waiting("ErrImagePull", message)).error
    assert error is not None and error.reason == reason


def test_a_name_that_a_machine_does_not_know_is_told_however_long_the_words_before_it() -> None:
    said = f"{'x' * 600}: dial tcp: lookup r.galilean.svc on 10.0.0.1:53: no such host"
    assert "lookup r.galilean.svc" in str(verdict(waiting("ErrImagePull", said)).error)


def test_a_signature_in_an_address_is_shown_to_nobody() -> None:
    error = verdict(waiting("ErrImagePull", "GET https://s3.example/blob?X-Sig=SECRET&a=b: broken")).error
    assert error is not None and "SECRET" not in str(error) and "https://s3.example/blob?…" in str(error)


def test_a_pod_that_the_machine_turned_away_is_no_image() -> None:
    error = verdict({"status": {"phase": "Failed", "reason": "OutOfpods", "message": "Too many"}}).error
    assert error is not None and "OutOfpods Too many" in str(error)


# --------------------------------------------------------------------------------------------------------- the world


class FakeAPI:
    """Objects of one namespace; a kubelet does ``then`` with every new pod."""

    def __init__(self, namespace: str) -> None:
        self.namespace = namespace
        self.objects: dict[tuple[str, str], dict[str, Any]] = {}
        self.nodes: list[dict[str, Any]] = []
        self.made: list[str] = []
        self.then: Any = lambda pod: None

    async def machines(self) -> list[dict[str, Any]]:
        return self.nodes

    async def create(self, body: Mapping[str, Any]) -> dict[str, Any]:
        key = (body["kind"], body["metadata"]["name"])
        if key in self.objects:
            raise APIError(409, "exists")
        self.objects[key] = json.loads(json.dumps(body))
        self.made.append(key[1])
        if key[0] == "Pod":
            self.then(self.objects[key])
        return body["metadata"]

    async def delete(self, kind: str, name: str, *, uid: str = "", grace_seconds: int | None = None) -> bool:
        return self.objects.pop((kind, name), None) is not None

    async def get(self, kind: str, name: str) -> dict[str, Any] | None:
        return self.objects.get((kind, name))

    async def list(
        self, kind: str, selector: str, *, only_metadata: bool = False
    ) -> tuple[list[dict[str, Any]], str]:
        if kind == "Secret" and self.namespace == "c":
            raise APIError(403, "the image service lists no Secrets of the centre")

        def fits(one: dict[str, Any]) -> bool:
            labels = one["metadata"].get("labels") or {}
            key, _, value = selector.partition("=")
            return labels.get(key) == value

        return [one for (of, _), one in self.objects.items() if of == kind and fits(one)], "1"


class Cluster:
    """Two machines, of which one has an agent."""

    def __init__(self, *secrets: str, disk: int = 100 << 30) -> None:
        self.nodes, self.agents, self.images = FakeAPI("c"), FakeAPI("c-agents"), FakeAPI("c-images")
        self.images.nodes = [node("m1"), node("m2")]
        self.agents.objects["Pod", "agent"] = {
            "metadata": {"name": "agent", "labels": {"galilean.io/agent-of": "c"}},
            "spec": {"nodeName": "m1"},
            "status": {"podIP": "10.0.0.7", "conditions": [{"type": "Ready", "status": "True"}]},
        }
        self.asked: list[str] = []

        def answer(request: httpx.Request) -> httpx.Response:
            self.asked.append(str(request.url))
            return httpx.Response(200, json={"free_bytes": disk // 2, "disk_bytes": disk})

        def speak(address: str, seconds: float) -> httpx.AsyncClient:
            return httpx.AsyncClient(base_url=address, transport=httpx.MockTransport(answer))

        self.machines = KubeMachines(
            self.nodes,  # pyright: ignore[reportArgumentType]
            self.agents,  # pyright: ignore[reportArgumentType]
            self.images,  # pyright: ignore[reportArgumentType]
            secrets=secrets,
            speak=speak,
        )

    def secret(self, name: str, kind: str = "kubernetes.io/dockerconfigjson", **labels: str) -> None:
        self.nodes.objects["Secret", name] = {
            "kind": "Secret",
            "metadata": {"name": name, "labels": labels},
            "type": kind,
            "data": {".dockerconfigjson": "e30="},
        }


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pulling, "POLL_SECONDS", 0.001)


def there(pod: dict[str, Any]) -> None:
    pod["status"] = {"containerStatuses": [{"imageID": IMAGE, "state": {"terminated": {}}}]}


def nothing(done: int, total: int) -> None:
    raise AssertionError("a kubelet tells no bytes")


async def test_the_machines_are_those_that_have_an_agent_and_it_tells_the_room() -> None:
    cluster = Cluster()
    assert [one.machine for one in await cluster.machines.look([])] == ["m1"]
    room = await cluster.machines.room("m1")
    assert (room.free_bytes, room.disk_bytes) == (50 << 30, 100 << 30)
    assert cluster.asked == ["http://10.0.0.7:8090/room"]
    with pytest.raises(UserError):
        await cluster.machines.room("m2")


async def test_a_fetched_image_leaves_no_pod() -> None:
    cluster = Cluster()
    cluster.images.then = there
    await cluster.machines.fetch("m1", IMAGE, nothing)
    assert len(cluster.images.made) == 1 and not cluster.images.objects


async def test_a_refused_one_leaves_no_pod_either() -> None:
    cluster = Cluster()
    cluster.images.then = lambda pod: pod.update(waiting("ErrImagePull", "not found"))
    with pytest.raises(UserError, match="no such image"):
        await cluster.machines.fetch("m1", IMAGE, nothing)
    assert not cluster.images.objects


async def test_whoever_gives_up_takes_the_pod_along() -> None:
    cluster = Cluster()
    going = asyncio.create_task(cluster.machines.fetch("m1", IMAGE, nothing))
    while not cluster.images.objects:  # noqa: ASYNC110 - a dict
        await asyncio.sleep(0)
    going.cancel()
    await asyncio.gather(going, return_exceptions=True)
    assert not cluster.images.objects


async def test_pods_of_a_killed_service_go_and_those_of_others_stay() -> None:
    cluster = Cluster()
    for of in ("c", "other"):
        await cluster.images.create(pod_for(IMAGE, of, namespace="c-images", of=of, secrets=()))
    await cluster.machines.begin()
    (left,) = cluster.images.objects.values()
    assert left["metadata"]["labels"][IMAGES_OF] == "other"
    cluster.images.then = there
    await cluster.machines.fetch("m1", IMAGE, nothing)


async def test_only_the_pull_secrets_of_runs_are_copied_and_they_follow_a_change() -> None:
    cluster = Cluster("pull", "mine", "a-runs", "nowhere")
    cluster.secret("pull")
    cluster.secret("a-runs", **{names.RUN: "r"})  # with somebody's own name and password
    cluster.secret("mine", kind="Opaque")  # of another kind: whatever its name, it is no pull Secret
    cluster.secret("galilean-secrets")
    cluster.images.then = there
    await cluster.machines.fetch("m1", IMAGE, nothing)
    assert [name for kind, name in cluster.images.objects if kind == "Secret"] == ["pull"]
    made = len(cluster.images.made)
    await cluster.machines.fetch("m1", IMAGE, nothing)
    assert cluster.images.made[made:].count("pull") == 0
    cluster.nodes.objects["Secret", "pull"]["data"] = {".dockerconfigjson": "e30K"}
    await cluster.machines.fetch("m1", IMAGE, nothing)
    assert cluster.images.objects["Secret", "pull"]["data"] == {".dockerconfigjson": "e30K"}
    del cluster.nodes.objects["Secret", "pull"]
    await cluster.machines.fetch("m1", IMAGE, nothing)
    assert not cluster.images.objects
