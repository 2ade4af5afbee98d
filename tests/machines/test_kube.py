"""The Kubernetes side against a fake API server: what it reads, what it changes, what it leaves alone."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from galilean.amounts import GIB
from galilean.errors import UserError
from galilean.settings_machines import KUBEADM
from services.machines.kube import KubeMachines, MachineAPI, ca_hash, machine_of
from services.machines.rules import CONTROL_PLANE, Amounts
from spawner.kubernetes.api import APIError
from spawner.kubernetes.names import RUN
from tests.machines.fake_api import FakeAPI, node, pod
from tests.machines.machines import GPU, RESERVED, T0


@pytest.fixture
async def api() -> AsyncIterator[FakeAPI]:
    fake = FakeAPI()
    yield fake
    for client in fake.clients:
        await client.close()
        fake.server.stop()


def world(api: FakeAPI, **more: Any) -> KubeMachines:
    return KubeMachines(api.start(), gpu_resources={GPU}, **more)


def authority() -> bytes:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "kubernetes")])
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(T0)
        .not_valid_after(T0 + timedelta(days=1))
    )
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def test_a_machine_is_read_with_what_it_can_give_and_what_it_has() -> None:
    found = machine_of(node("m1"), {GPU})
    assert (found.ready, found.problem, found.cordoned, found.control_plane) == (True, "", False, False)
    assert (found.cpu_millicores, found.cpu_capacity_millicores) == (15_500, 16_000)
    assert (found.memory_bytes, found.memory_capacity_bytes) == (60 * GIB, 64 * GIB)
    assert found.gpu == {GPU: 2}
    assert (found.address, found.version) == ("192.0.2.1", "v1.33.13")
    assert found.heartbeat_at == datetime(2026, 3, 2, 9, tzinfo=UTC)


@pytest.mark.parametrize(
    ("conditions", "ready", "problem"),
    [
        ([{"type": "Ready", "status": "Unknown"}], False, "silent"),
        ([{"type": "Ready", "status": "False"}], False, "not-ready"),
        ([{"type": "Ready", "status": "True"}, {"type": "DiskPressure", "status": "True"}], True, "disk"),
        (
            [{"type": "Ready", "status": "False"}, {"type": "PIDPressure", "status": "True"}],
            False,
            "processes",
        ),
        ([], False, "silent"),
    ],
)
def test_what_is_wrong_with_a_machine_has_a_word(conditions: list, ready: bool, problem: str) -> None:
    found = machine_of(node("m1", status={"conditions": conditions}), ())
    assert (found.ready, found.problem) == (ready, problem)


async def test_a_look_sees_all_machines_and_the_platform_s_own_parts(api: FakeAPI) -> None:
    api.add(*(node(f"m{number}") for number in range(5)))
    api.add(
        pod("portal", "m1"), pod("hub", "m1"), pod("node", "m1", metadata={"labels": {RUN: "r"}}),
        pod("over", "m1", status={"phase": "Succeeded"}),
    )  # fmt: skip
    view = await world(api).look()
    assert [machine.name for machine in view.machines] == ["m0", "m1", "m2", "m3", "m4"]
    assert view.machines[1].other == Amounts(cpu_millicores=500, memory_bytes=GIB // 2)
    assert view.machines[1].other_pods == 2
    assert view.occupied == frozenset()


async def test_a_machine_is_occupied_by_nodes_and_by_what_a_drain_would_move(api: FakeAPI) -> None:
    owned = {"ownerReferences": [{"kind": "DaemonSet"}]}
    static = {"annotations": {"kubernetes.io/config.mirror": "x"}}
    api.add(*(node(name) for name in ("run", "part", "none", "elsewhere")))
    api.add(
        pod("r-0", "run", metadata={"labels": {RUN: "r"}}),
        pod("portal", "part"),
        pod("agent", "none", metadata=owned),
        pod("etcd", "none", metadata=static),
        pod("hub", "elsewhere"),
    )
    view = await world(api).look(["run", "part", "none"])
    assert view.occupied == {"run", "part"}
    assert view.runs == {"run": {"r"}, "part": frozenset(), "none": frozenset()}


async def test_what_was_told_to_end_on_a_dead_machine_occupies_it_no_longer(api: FakeAPI) -> None:
    dead = {"conditions": [{"type": "Ready", "status": "Unknown"}]}
    ending = {"deletionTimestamp": "2026-03-02T09:00:00Z"}
    api.add(node("dead", status=dead), node("alive"))
    for name in ("dead", "alive"):
        api.add(
            pod(f"portal-{name}", name, metadata=ending),
            pod(f"r-{name}", name, metadata={**ending, "labels": {RUN: "r"}}),
        )
    assert (await world(api).look(["dead", "alive"])).occupied == {"alive"}
    api.add(pod("r-more", "dead", metadata={"labels": {RUN: "r"}}))
    assert (await world(api).look(["dead"])).occupied == {"dead"}


async def test_cordon_label_and_reserve_change_that_alone(api: FakeAPI) -> None:
    other = {"key": "college", "value": "physics", "effect": "NoSchedule"}
    api.add(node("m1", spec={"taints": [other]}))
    side = world(api)
    for _ in range(2):  # every change may be repeated
        await side.cordon("m1", True)
        await side.label("m1", {"pool": "gpu"})
        await side.reserve("m1", True)
    after = machine_of(api.nodes["m1"], ())
    assert after.cordoned
    assert after.labels == {"kubernetes.io/hostname": "m1", "pool": "gpu"}
    assert list(after.taints) == [other, RESERVED]
    await side.cordon("m1", False)
    await side.reserve("m1", False)
    after = machine_of(api.nodes["m1"], ())
    assert not after.cordoned
    assert list(after.taints) == [other]


async def test_a_taint_that_came_meanwhile_is_not_overwritten(api: FakeAPI) -> None:
    class Meddling(MachineAPI):
        async def machine(self, name: str) -> dict[str, Any]:
            found = await super().machine(name)
            await self.change(name, {"metadata": {"labels": {"somebody": "else"}}})
            return found

    api.add(node("m1", spec={"taints": [RESERVED]}))
    client = api.start()
    side = KubeMachines(Meddling(client.namespace, client._make))
    with pytest.raises(APIError) as refused:
        await side.reserve("m1", False)
    await side.close()
    assert refused.value.status == 409
    assert api.nodes["m1"]["spec"]["taints"] == [RESERVED]


async def test_moving_leaves_runs_to_their_rows_and_daemons_where_they_are(api: FakeAPI) -> None:
    api.add(
        pod("portal", "m1"),
        pod("agent", "m1", metadata={"ownerReferences": [{"kind": "DaemonSet"}]}),
        pod("r-0", "m1", metadata={"labels": {RUN: "r"}}),
        pod("hub", "m2"),
    )
    side = world(api)
    await side.move_others("m1", spare={"r"})
    assert set(api.pods) == {"agent", "r-0", "hub"}
    await side.move_others("m1", spare={"another"})
    assert set(api.pods) == {"agent", "hub"}


async def test_a_disruption_budget_holds_up_one_pod_and_is_told(api: FakeAPI) -> None:
    api.add(pod("a", "m1"), pod("b", "m1"), pod("c", "m1"))
    api.budget = {"a"}
    with pytest.raises(APIError, match="disruption budget"):
        await world(api).move_others("m1")
    assert set(api.pods) == {"a"}


async def test_a_machine_that_is_gone_is_removed(api: FakeAPI) -> None:
    api.add(node("m1"))
    side = world(api)
    await side.remove("m1")
    await side.remove("m1")
    assert api.nodes == {}


async def test_a_ticket_is_a_token_for_minutes_and_one_command(api: FakeAPI) -> None:
    pem = authority()
    letters = iter(["abcdef", "0123456789abcdef"])
    side = world(
        api,
        adds=True,
        server="k8s.example.edu:6443",
        command=KUBEADM,
        ca=lambda: pem,
        choose=lambda number: next(letters),
    )
    ticket = await side.ticket("m9", now=T0, minutes=30)
    assert ticket.expires_at == T0 + timedelta(minutes=30)
    assert ticket.command == (
        "kubeadm join k8s.example.edu:6443 --token abcdef.0123456789abcdef "
        f"--discovery-token-ca-cert-hash {ca_hash(pem)} --node-name m9"
    )
    assert "0123456789abcdef" not in repr(ticket)
    (secret,) = api.secrets
    assert secret["metadata"] == {"name": "bootstrap-token-abcdef", "namespace": "kube-system"}
    assert secret["type"] == "bootstrap.kubernetes.io/token"
    assert secret["stringData"]["expiration"] == "2026-03-02T09:30:00Z"
    assert secret["stringData"]["usage-bootstrap-authentication"] == "true"


async def test_two_tickets_have_different_tokens(api: FakeAPI) -> None:
    pem = authority()
    side = world(api, adds=True, server="k:6443", command="join {token} {name}", ca=lambda: pem)
    first, second = [await side.ticket("m9", now=T0, minutes=30) for _ in range(2)]
    assert first.command != second.command
    assert all(len(secret["stringData"]["token-secret"]) == 16 for secret in api.secrets)


async def test_the_server_is_what_the_cluster_publishes_unless_it_is_said(api: FakeAPI) -> None:
    pem = authority()
    side = world(api, adds=True, command="join {server} {token} {name}", ca=lambda: pem)
    with pytest.raises(UserError) as unknown:
        await side.ticket("m9", now=T0, minutes=30)
    assert unknown.value.status == 503
    assert api.secrets == []
    api.cluster_info = "clusters: [{name: '', cluster: {server: 'https://10.0.0.1:6443'}}]"
    assert (await side.ticket("m9", now=T0, minutes=30)).command.startswith("join 10.0.0.1:6443 ")


async def test_without_the_switch_no_token_is_made(api: FakeAPI) -> None:
    with pytest.raises(UserError) as refused:
        await world(api).ticket("m9", now=T0, minutes=30)
    assert refused.value.status == 400
    assert api.asked == []


def test_the_hash_is_of_the_public_key_as_kubeadm_has_it() -> None:
    pem = authority()
    key = x509.load_pem_x509_certificate(pem).public_key()
    der = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    assert ca_hash(pem) == "sha256:" + hashlib.sha256(der).hexdigest()


def test_the_label_of_a_control_plane_makes_one() -> None:
    found = machine_of(node("m1", metadata={"labels": {CONTROL_PLANE: ""}}, spec={"taints": [RESERVED]}), ())
    assert (found.control_plane, found.reserved) == (True, True)
