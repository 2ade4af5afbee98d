"""Machines and pools by the API, pools in the Run form, in the online table and in usage."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import httpx
import pytest

from galilean.amounts import GIB
from galilean.errors import UserError
from services.machines.room import MachineRoom
from spawner.plan import ClusterPlan, EnvironmentChoice
from tests.machines.conftest import Park
from tests.machines.machines import machine
from tests.web.conftest import Visitor
from tests.web.site import now

Client = Callable[..., httpx.Client]


def test_machines_are_listed_by_cursor_with_what_is_held(park: Park, client: Client) -> None:
    run_id = park.run("alice", "m1")
    root = client("maria")
    names, cursor = [], None
    while True:
        answer = root.get("/machines", params={"limit": 1, **({"cursor": cursor} if cursor else {})}).json()
        names += [item["name"] for item in answer["items"]]
        cursor = answer["next"]
        if cursor is None:
            break
    assert names == ["front", "m1", "m2"]
    found = root.get("/machines/m1").json()
    assert (found["state"], found["pools"], found["address"]) == ("ready", ["default"], "192.0.2.11")
    assert found["held"] == {"cpu": 2, "memory_bytes": 8 * GIB, "gpu": 0}
    assert found["free"] == {"cpu": 14, "memory_bytes": 56 * GIB, "gpu": 0}
    assert [item["cluster"] for item in found["holdings"]] == [run_id]


def test_an_order_is_placed_looked_at_and_taken_back(park: Park, client: Client) -> None:
    root = client("maria")
    due = (now() + timedelta(hours=2)).isoformat()
    placed = root.post("/machines/m1/orders", json={"action": "out", "due_at": due, "why": "x"})
    assert placed.status_code == 202
    order = placed.json()
    again = root.post("/machines/m1/orders", json={"action": "cordon"})
    assert again.status_code == 409
    park.rounds()
    assert root.get("/machines/m1").json()["state"] == "leaving"
    address = f"/machines/m1/orders/{order['id']}"
    assert root.delete(address).status_code == 202
    park.rounds()
    assert root.get(address).json()["outcome"] == "withdrawn"
    assert root.delete(address).status_code in (202, 409)
    assert [item["id"] for item in root.get("/machines/m1/orders").json()["items"]] == [order["id"]]


def test_a_machine_is_added_by_the_api(park: Park, client: Client) -> None:
    made = client("maria").post("/machines", json={"name": "m9", "pool": "gpu"})
    assert made.status_code == 201
    assert made.json()["command"] == "join m9"
    assert client("maria").post("/machines", json={"name": "m9"}).status_code == 409
    assert client("maria").post("/machines", json={"name": "m8", "pool": "none"}).status_code == 400


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/machines"), ("POST", "/machines"), ("GET", "/machines/m1"), ("POST", "/machines/m1/orders")],
)
def test_the_api_of_machines_is_for_administrators(
    park: Park, client: Client, method: str, path: str
) -> None:
    body = {"name": "m9"} if path == "/machines" else {"action": "cordon"}
    answer = client("alice").request(method, path, json=body if method == "POST" else None)
    assert answer.status_code == 403


@pytest.mark.parametrize(
    "body",
    [{}, {"action": "explode"}, {"action": "out", "due_at": "soon"}, {"action": "out", "due_at": "2026-01-01"},
     {"action": "out", "force": True}],
)  # fmt: skip
def test_a_wrong_order_is_refused_whole(park: Park, client: Client, body: dict[str, object]) -> None:
    assert client("maria").post("/machines/m1/orders", json=body).status_code == 400
    assert park.history("m1") == []


def test_pools_are_those_that_one_may_use_with_what_is_free(park: Park, client: Client) -> None:
    park.run("alice", "m2", gpu=1)
    pools = {item["name"]: item for item in client("alice").get("/pools").json()["items"]}
    assert pools["gpu"]["title"] == "GPU machines"
    assert pools["gpu"]["free"] == {"cpu": 62, "memory_bytes": 248 * GIB, "gpu": 3}
    assert pools["default"]["can_give"]["cpu"] == 80
    assert [item["name"] for item in client("bob").get("/pools").json()["items"]] == ["default"]


def test_the_run_form_offers_pools_only_where_there_is_a_choice(park: Park) -> None:
    for person in ("alice", "bob"):
        park.site.project(person, "Heat flow")
    with Visitor(park.site, "alice") as alice:
        alice.get("")
        form = alice.script("GET", "projects/alice/heat-flow/run").text
        assert 'name="pool" value="gpu"' in form
        assert "free: 64\u00a0cores, 256\u00a0GB, 4\u00a0GPUs" in form
    with Visitor(park.site, "bob") as bob:
        bob.get("")
        assert 'name="pool"' not in bob.script("GET", "projects/bob/heat-flow/run").text


def test_the_sum_says_what_no_machine_could_ever_hold(park: Park) -> None:
    park.air.machines = {"tiny": machine("tiny", cpu=2, memory=4)}
    park.look()
    park.site.project("alice", "Heat flow")
    with Visitor(park.site, "alice") as alice:
        alice.get("")
        wish = {"nodes": "1", "size": "custom", "cpu": "4", "memory_gb": "2", "pool": "default"}
        text = alice.script("GET", "projects/alice/heat-flow/run/sum", params=wish).text
        assert "The largest, tiny, has 2 CPUs" in text
        text = alice.script(
            "GET", "projects/alice/heat-flow/run/sum", params={**wish, "cpu": "2", "pool": "default"}
        ).text
        assert "data-refused" not in text


def test_the_online_table_and_usage_know_the_pool(park: Park, client: Client) -> None:
    park.run("alice", "m1")
    park.run("alice", "m2", name="Folding", pool="gpu")
    with Visitor(park.site, "maria") as maria:
        maria.get("")
        text = maria.get("admin/online").text
        assert "GPU machines" in text
        assert "Folding" in maria.script("GET", "admin/online", params={"pool": "gpu"}).text
        assert "Heat flow" not in maria.script("GET", "admin/online", params={"pool": "gpu"}).text
    root = client("maria")
    rows = {item["key"]: item for item in root.get("/usage", params={"by": "pool"}).json()["items"]}
    assert {key: row["label"] for key, row in rows.items()} == {"default": "Centre", "gpu": "GPU machines"}
    only = root.get("/usage", params={"by": "project", "pool": "gpu"}).json()["items"]
    assert [item["label"] for item in only] == ["Folding"]
    assert root.get("/usage", params={"by": "day", "pool": "none"}).json()["items"] == []


# ------------------------------------------------------------------------------------------- admission


def plan(**more: object) -> ClusterPlan:
    values = {
        "user": "alice", "server": "s", "project_id": "p", "project_owner": "alice", "project_slug": "s",
        "project_name": "S", "environment": EnvironmentChoice(name="jupyter"), "mounts": (), "nodes": 1,
        "cpu_millicores": 2000, "memory_bytes": 8 * GIB, **more,
    }  # fmt: skip
    return ClusterPlan(**values)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("wish", "said"),
    [
        ({}, ""),
        ({"cpu_millicores": 65_000}, "The largest, m2, has 64 CPUs and 256.0\u00a0GB"),
        ({"nodes": 6, "cpu_millicores": 16_000}, "hold 5 nodes of this size"),
        ({"pool": "gpu", "gpu": 5}, "The largest, m2, has 64 CPUs, 256.0\u00a0GB and 4 card(s)"),
        ({"gpu": 1, "gpu_model": "h100"}, "has GPU cards of the kind h100"),
        ({"pool": "nowhere"}, ""),
    ],
)
async def test_admission_refuses_what_no_machine_could_ever_hold(
    park: Park, wish: dict[str, object], said: str
) -> None:
    room = MachineRoom(park.site.settings)
    assert room.fits(plan(cpu_millicores=10**9), None)  # nothing is known yet
    await room.learn(park.site.portal.db)
    if not said:
        assert room.fits(plan(**wish), None)
        return
    with pytest.raises(UserError) as refused:
        room.fits(plan(**wish), None)
    assert refused.value.status == 400
    assert said in str(refused.value)


async def test_where_machines_come_by_themselves_nothing_is_refused(park: Park) -> None:
    settings = park.site.settings
    room = MachineRoom(
        settings.model_copy(update={"machines": settings.machines.model_copy(update={"autoscaled": True})})
    )
    await room.learn(park.site.portal.db)
    assert room.fits(plan(cpu_millicores=10**9), None)
