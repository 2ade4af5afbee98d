"""A claim looked at on machine after machine: what is asked of Kubernetes, and what is made of its answers."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from spawner.kubernetes import look
from spawner.kubernetes.api import APIError
from spawner.kubernetes.look import LOOK, SECONDS, Claim, Seen, judge
from spawner.labels import RUN

WANTED = Claim(claim="campus", mark=".galilean-volume", volume="big", image="node:1", pull_secrets=("key",))
NOW = datetime(2026, 3, 2, 9, tzinfo=UTC)


def ended(code: int, message: str = "") -> dict[str, Any]:
    return {"containerStatuses": [{"state": {"terminated": {"exitCode": code, "message": message}}}]}


#: What each machine's pod comes to say.
SAID: dict[str, dict[str, Any]] = {
    "there": {"phase": "Succeeded", **ended(0, "big\n")},
    "unmounted": {"phase": "Failed", **ended(1)},
    "other": {"phase": "Succeeded", **ended(0, "projects-2")},
    "slow": {"phase": "Pending", "containerStatuses": [{"state": {"waiting": {"reason": "Creating"}}}]},
    "late": {"phase": "Failed", "reason": "DeadlineExceeded", **ended(137)},
    "full": {"phase": "Failed", "reason": "OutOfcpu", "message": "Pod was rejected"},
}


class Namespace:
    """Pods that say what their machines are to say, from the second look on."""

    namespace = "clusters"

    def __init__(self) -> None:
        self.pods: dict[str, dict[str, Any]] = {}
        self.made: list[dict[str, Any]] = []
        self.now = NOW
        self.looks = 0

    async def create(self, body: dict[str, Any]) -> dict[str, Any]:
        if body["spec"].get("nodeName") == "forbidden":
            raise APIError(403, "exceeded quota")
        self.made.append(body)
        self.pods[body["metadata"]["name"]] = body
        return body["metadata"]

    async def list(self, kind: str, selector: str, *, only_metadata: bool = False) -> Any:
        assert kind == "Pod"
        if only_metadata:
            return list(self.pods.values()), "1"
        self.looks += 1
        key, _, value = selector.partition("=")
        ours = [pod for pod in self.pods.values() if pod["metadata"]["labels"].get(key) == value]
        return [
            {**pod, "status": SAID.get(pod["spec"].get("nodeName", "there"), {}) if self.looks > 1 else {}}
            for pod in ours
        ], "1"

    async def delete(self, kind: str, name: str, *, grace_seconds: int | None = None) -> bool:
        return self.pods.pop(name, None) is not None

    async def sleep(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)


async def run(api: Namespace, machines: list[str]) -> dict[str, Seen]:
    asked: Any = api
    return await look.look(asked, WANTED, machines, look_id="01k", now=lambda: api.now, sleep=api.sleep)


async def test_each_machine_says_whether_it_has_it_and_no_pod_is_left() -> None:
    api = Namespace()
    assert await run(api, [*SAID, "forbidden"]) == {
        "there": Seen(),
        "unmounted": Seen("absent"),
        "other": Seen("other", "projects-2"),
        "slow": Seen("silent"),
        "late": Seen("silent"),
        "full": Seen("refused", "Pod was rejected"),
        "forbidden": Seen("refused", "exceeded quota"),
    }
    assert not api.pods
    assert timedelta(seconds=SECONDS) <= api.now - NOW < timedelta(seconds=SECONDS + 2)


async def test_nobody_waits_longer_than_the_last_machine() -> None:
    api = Namespace()
    assert await run(api, ["there", "unmounted"]) == {"there": Seen(), "unmounted": Seen("absent")}
    assert api.now - NOW < timedelta(seconds=5)


async def test_where_machines_are_not_known_one_pod_goes_where_it_is_put() -> None:
    api = Namespace()
    assert await run(api, []) == {"": Seen()}
    assert "nodeName" not in api.made[0]["spec"]


async def test_a_pod_that_looks_reads_alone_and_is_nobodys_node() -> None:
    api = Namespace()
    await run(api, ["there"])
    (pod,) = api.made
    assert RUN not in pod["metadata"]["labels"]
    spec, (container,) = pod["spec"], pod["spec"]["containers"]
    assert spec["nodeName"] == "there"
    assert spec["activeDeadlineSeconds"] == SECONDS
    assert spec["automountServiceAccountToken"] is False
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["imagePullSecrets"] == [{"name": "key"}]
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert [mount["readOnly"] for mount in container["volumeMounts"]] == [True]
    assert spec["volumes"][0]["persistentVolumeClaim"] == {"claimName": "campus", "readOnly": True}


async def test_what_a_killed_hub_left_goes_at_the_next_look_and_another_look_stays() -> None:
    api = Namespace()
    for name, age in (("old", 10 * SECONDS), ("young", 1)):
        stamp = (NOW - timedelta(seconds=age)).strftime("%Y-%m-%dT%H:%M:%SZ")
        api.pods[name] = {
            "metadata": {"name": name, "labels": {LOOK: name}, "creationTimestamp": stamp},
            "spec": {},
        }
    await run(api, ["there"])
    assert set(api.pods) == {"young"}


async def test_pods_go_also_when_the_api_server_fails_in_between() -> None:
    class Fails(Namespace):
        async def list(self, kind: str, selector: str, *, only_metadata: bool = False) -> Any:
            if not only_metadata:
                raise APIError(500, "etcd")
            return await super().list(kind, selector, only_metadata=only_metadata)

    api = Fails()
    with pytest.raises(APIError):
        await run(api, ["there"])
    assert not api.pods


def test_a_pod_that_has_not_looked_says_nothing() -> None:
    assert judge({}, "big") is None
    assert (
        judge({"status": {"phase": "Running", "containerStatuses": [{"state": {"running": {}}}]}}, "big")
        is None
    )
