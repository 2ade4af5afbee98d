"""Machines of a real Kubernetes, with exactly the rights that the service is given (``rights.yaml``)."""

from __future__ import annotations

import json
import os
import re
import ssl
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from kubernetes_asyncio.client import ApiClient, Configuration

from galilean.clock import utcnow
from galilean.db import Database
from services.machines import store
from services.machines.keeper import Keeper, add_machine
from services.machines.kube import KubeMachines, MachineAPI
from services.machines.rules import Pool, State, state_of
from spawner import records
from spawner.kubernetes.names import RUN
from tests.kubernetes.conftest import namespace  # noqa: F401 - a fixture
from tests.kubernetes.hub import Namespace
from tests.lab.kubernetes import Kubernetes
from tests.lab.waiting import eventually
from tests.machines.machines import run_on
from tests.machines.test_keeper import Clock, closed, release

pytestmark = [pytest.mark.kubernetes, pytest.mark.timeout(400)]

POOLS = [Pool(name="default"), Pool(name="guests", node_selector={"galilean.test/pool": "guests"})]
LAB_MACHINE = "lab-machine-0"


@pytest.fixture(scope="module")
def account(kubernetes: Kubernetes, namespace: Namespace) -> Iterator[str]:  # noqa: F811
    """A token of the machines service's account."""
    text = (Path(__file__).parent / "rights.yaml").read_text().replace("$NAMESPACE", namespace.name)
    kubernetes.kubectl("apply", "-f", "-", stdin=text)
    yield kubernetes.kubectl("create", "token", "machines", "-n", namespace.name, "--duration=1h").strip()
    kubernetes.kubectl("delete", "-f", "-", "--ignore-not-found", "--wait=false", stdin=text)


def seen_by(
    kubernetes: Kubernetes,
    namespace: Namespace,  # noqa: F811
    account: str,
    **more: Any,
) -> KubeMachines:
    """What the service sees of the lab, and may do there."""
    configuration = Configuration(host=kubernetes.server)
    configuration.ssl_ca_cert = str(kubernetes.authority)
    configuration.api_key = {"BearerToken": f"Bearer {account}"}
    api = MachineAPI(namespace.name, lambda: ApiClient(configuration))
    return KubeMachines(api, adds=True, ca=kubernetes.authority.read_bytes, **more)


@pytest.fixture
async def side(
    kubernetes: Kubernetes,
    namespace: Namespace,  # noqa: F811
    account: str,
) -> AsyncIterator[KubeMachines]:
    """The service's view of the lab."""
    server = kubernetes.server.removeprefix("https://")
    command = "join {server} {token} {ca_hash} {name}"
    world = seen_by(kubernetes, namespace, account, server=server, command=command)
    yield world
    await world.close()


@pytest.fixture
def guest(kubernetes: Kubernetes) -> Iterator[str]:
    """The name of a machine that a test may make and remove; nobody else's pods come to it."""
    name = f"guest-{os.getpid()}"
    yield name
    kubernetes.kubectl("delete", "node", name, "--ignore-not-found", "--wait=false")
    found = json.loads(kubernetes.kubectl("get", "secrets", "-n", "kube-system", "-o", "json"))["items"]
    ours = [item["metadata"]["name"] for item in found if name in str(_decoded(json.dumps(item)))]
    if ours:
        kubernetes.kubectl("delete", "secret", *ours, "-n", "kube-system", "--wait=false")


def _decoded(text: str) -> dict[str, str]:
    from base64 import b64decode

    data = json.loads(text)["data"] if text else {}
    return {key: b64decode(value).decode() for key, value in data.items()}


def a_pod(name: str, machine: str, **labels: str) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": labels},
        "spec": {
            "nodeName": machine,
            "tolerations": [{"operator": "Exists"}],
            "automountServiceAccountToken": False,
            "securityContext": {
                "runAsNonRoot": True,
                "runAsUser": 1000,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "containers": [
                {
                    "name": "it",
                    "image": "galilean.lab/pause:1",
                    "resources": {"requests": {"cpu": "10m", "memory": "1Mi"}},
                    "securityContext": {
                        "allowPrivilegeEscalation": False,
                        "capabilities": {"drop": ["ALL"]},
                    },
                }
            ],
        },
    }


def ask(kubernetes: Kubernetes, token: str, what: str, spec: dict[str, Any]) -> dict[str, Any]:
    """What the API server answers to a token's review of itself; empty when it is nobody's."""
    group = "authorization" if "access" in what else "authentication"
    answer = httpx.post(
        f"{kubernetes.server}/apis/{group}.k8s.io/v1/{what}",
        json={"apiVersion": f"{group}.k8s.io/v1", **({"spec": spec} if spec else {})},
        headers={"Authorization": f"Bearer {token}"},
        verify=ssl.create_default_context(cafile=str(kubernetes.authority)),
        trust_env=False,
        timeout=30,
    )
    assert answer.status_code in (201, 401), answer.text
    return answer.json()["status"] if answer.status_code == 201 else {}


def who_is(kubernetes: Kubernetes, token: str) -> dict[str, Any]:
    """Whose a token is; empty when it is nobody's."""
    return ask(kubernetes, token, "selfsubjectreviews", {}).get("userInfo", {})


async def test_a_token_lets_a_machine_in_for_minutes_and_no_longer(
    kubernetes: Kubernetes,
    side: KubeMachines,
    guest: str,
) -> None:
    ticket = await side.ticket(guest, now=utcnow(), minutes=5)
    _, server, token, ca, name = ticket.command.split()
    assert (f"https://{server}", name) == (kubernetes.server, guest)
    assert re.fullmatch(r"[a-z0-9]{6}\.[a-z0-9]{16}", token)
    assert re.fullmatch(r"sha256:[0-9a-f]{64}", ca)
    secret = _decoded(
        kubernetes.kubectl("get", "secret", f"bootstrap-token-{token[:6]}", "-n", "kube-system", "-o", "json")
    )
    assert secret["token-secret"] == token[7:]
    eventually(lambda: who_is(kubernetes, token), 20, "the token is known")
    user = who_is(kubernetes, token)
    assert user["username"] == f"system:bootstrap:{token[:6]}"
    assert "system:bootstrappers:kubeadm:default-node-token" in user["groups"]

    over = await side.ticket(guest, now=utcnow() - timedelta(hours=1), minutes=5)
    another = await side.ticket(guest, now=utcnow(), minutes=5)
    eventually(lambda: who_is(kubernetes, another.command.split()[2]), 20, "a later token is known")
    assert who_is(kubernetes, over.command.split()[2]) == {}


async def test_a_machine_comes_gets_its_labels_is_emptied_and_goes(
    kubernetes: Kubernetes,
    namespace: Namespace,  # noqa: F811
    side: KubeMachines,
    guest: str,
    sqlite_db: Database,
) -> None:
    """Its kubelet is of thin air: so it is a dead machine, too, when it is taken out."""
    db, clock = sqlite_db, Clock()
    clock.now = utcnow()
    service = Keeper(db, side, POOLS, clock=clock)
    await add_machine(db, side, name=guest, pool="guests", asked_by="root", minutes=30, clock=clock)
    await service.tick()
    machine = {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": guest},
        "spec": {"taints": [{"key": "galilean.test/guest", "effect": "NoSchedule"}]},
    }
    kubernetes.kubectl("apply", "-f", "-", stdin=json.dumps(machine))
    for _ in range(2):
        await service.tick()
    labels = json.loads(kubernetes.kubectl("get", "node", guest, "-o", "json"))["metadata"]["labels"]
    assert labels["galilean.test/pool"] == "guests"
    with db.read() as conn:
        assert [order.outcome for order in store.history(conn, guest)] == ["done"]
        seen = next(item for item in store.all_machines(conn) if item.name == guest)
        assert state_of(seen, None, clock.now) is State.SILENT
        lab = next(item for item in store.all_machines(conn) if item.name == LAB_MACHINE)
        assert lab.ready
        assert lab.cpu_millicores > 0

    namespace.apply(a_pod("a-node", guest, **{RUN: "R1"}), a_pod("a-part", guest))
    run_on(db, "R1", guest)
    with db.write() as conn:
        order = store.place_order(
            conn, machine=guest, action="out", asked_by="root", now=clock.now, remove=True, why="old"
        )
    await service.tick()
    assert json.loads(kubernetes.kubectl("get", "node", guest, "-o", "json"))["spec"]["unschedulable"] is True
    await service.tick()
    with db.read() as conn:
        run = records.get(conn, "R1")
    assert run is not None
    assert run.reason == "machine_out"
    part = json.loads(kubernetes.kubectl("get", "pod", "a-part", "-n", namespace.name, "-o", "json"))
    assert part["metadata"]["deletionTimestamp"]
    node = json.loads(kubernetes.kubectl("get", "pod", "a-node", "-n", namespace.name, "-o", "json"))
    assert "deletionTimestamp" not in node["metadata"], "a run goes back by its row"

    namespace.delete("pod", "a-node")  # the hub, once the release service asks it to
    release(db, "R1", clock)
    for _ in range(3):
        await service.tick()
    assert kubernetes.kubectl("get", "node", guest, "--ignore-not-found") == ""
    assert closed(db, order) == "done"


def test_the_account_may_do_nothing_else(
    kubernetes: Kubernetes,
    namespace: Namespace,  # noqa: F811
    account: str,
) -> None:
    def may(verb: str, what: str, where: str) -> bool:
        resource, _, sub = what.partition("/")
        asked = {"verb": verb, "resource": resource, "subresource": sub, "namespace": where}
        return ask(kubernetes, account, "selfsubjectaccessreviews", {"resourceAttributes": asked})["allowed"]

    assert may("patch", "nodes", namespace.name)
    assert may("create", "secrets", "kube-system")
    for verb, what, where in (
        ("get", "secrets", "kube-system"), ("list", "secrets", namespace.name), ("delete", "secrets", "kube-system"),
        ("create", "pods", namespace.name), ("delete", "pods", namespace.name), ("list", "pods", "kube-system"),
        ("create", "nodes", namespace.name), ("get", "pods/exec", namespace.name),
    ):  # fmt: skip
        assert not may(verb, what, where), (verb, what, where)
