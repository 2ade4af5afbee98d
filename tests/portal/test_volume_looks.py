"""Volumes of claims: a claim is looked at on every machine that takes nodes, when it is registered and when asked."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from services.machines import store
from services.machines.rules import CONTROL_PLANE, Machine, Pool
from services.portal.volume_looks import to_look_at
from tests.portal.conftest import Sign
from tests.portal.live import LiveSite

CLAIM = {"id": "campus", "kind": "claim", "claim": "campus"}
ABSENT = {"problem": "absent", "why": ""}


def machine(name: str, **more: Any) -> Machine:
    return Machine(name=name, cpu_millicores=4000, memory_bytes=2**33, **more)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[LiveSite]:
    """A portal of the Kubernetes backend with three machines, of which one takes nothing."""
    (tmp_path / "default").mkdir()
    live = LiveSite(
        tmp_path / "state",
        f"""
backend: kubernetes
kubernetes: {{image: "node:1"}}
volumes: {{default: {{kind: claim, claim: projects, path: {tmp_path / "default"}}}}}
""",
    )
    live.hub.add("root", "admin")
    live.hub.add("alice", "researcher")
    with live:
        with live.portal.db.write() as conn:
            machines = [machine("m1"), machine("m2"), machine("m3", cordoned=True)]
            store.sync(conn, machines, datetime.now(UTC))
        yield live


def register(root: httpx.Client, place: Path) -> httpx.Response:
    place.mkdir(exist_ok=True)
    return root.post("/volumes", json={**CLAIM, "path": str(place)})


def test_a_claim_that_some_machine_has_not_is_refused_with_the_machines(
    site: LiveSite, sign: Sign, tmp_path: Path
) -> None:
    root = sign("root")
    site.hub.looks = {"m2": ABSENT}
    answer = register(root, tmp_path / "campus")
    assert answer.status_code == 409
    assert "(1 of 2)" in answer.json()["detail"]
    assert "m2: it is not mounted there" in answer.json()["detail"]
    assert [one["id"] for one in root.get("/volumes").json()["items"]] == ["default"]
    assert site.hub.looked == [{"claim": "campus", "volume": "campus", "machines": ["m1", "m2"]}]
    # Mounted there now, too: the directory is marked already and still its own.
    site.hub.looks = {}
    answer = register(root, tmp_path / "campus")
    assert answer.status_code == 201, answer.text


def test_a_directory_of_one_machine_is_no_volume_of_kubernetes(
    site: LiveSite, sign: Sign, tmp_path: Path
) -> None:
    (tmp_path / "local").mkdir()
    sent = {"id": "local", "kind": "directory", "path": str(tmp_path / "local")}
    answer = sign("root").post("/volumes", json=sent)
    assert answer.status_code == 400
    assert "of the kind “claim”" in answer.json()["detail"]
    assert list((tmp_path / "local").iterdir()) == []
    assert site.hub.looked == []


def test_machines_are_looked_at_again_when_somebody_asks(site: LiveSite, sign: Sign) -> None:
    root, alice = sign("root"), sign("alice")
    assert alice.post("/volumes/default/look").status_code == 403
    assert root.post("/volumes/nowhere/look").status_code == 404
    site.hub.looks = {
        "m1": {"problem": "refused", "why": "quota {x} <b>"},
        "m2": {"problem": "other", "why": "old"},
    }
    assert root.post("/volumes/default/look").json()["items"] == [
        {"machine": "m1", "problem": "refused", "said": "nothing could be started there: quota {x} <b>"},
        {"machine": "m2", "problem": "other", "said": "the volume “old” is mounted there"},
    ]
    page = httpx.Client(headers=root.headers, timeout=60)
    place = site.url + "admin/volumes"
    assert "Look on every machine" in page.get(place).text
    assert "Look for default" in page.get(f"{place}/default/look").text
    seen = page.post(f"{place}/default/look").text
    assert "quota {x} &lt;b&gt;" in seen
    assert "0 of 2 machines" in seen
    site.hub.looks = {}
    assert "On all 2 machines." in page.post(f"{place}/default/look").text


def test_a_hub_that_cannot_ask_kubernetes_registers_nothing(
    site: LiveSite, sign: Sign, tmp_path: Path
) -> None:
    root = sign("root")
    site.hub.looks = None
    assert register(root, tmp_path / "campus").status_code == 503
    assert [one["id"] for one in root.get("/volumes").json()["items"]] == ["default"]


def test_only_machines_to_which_nodes_may_come_are_looked_at() -> None:
    kept = {"key": CONTROL_PLANE, "effect": "NoSchedule"}
    machines = [
        machine("worker"),
        machine("closed", cordoned=True),
        machine("away", ready=False),
        machine("head", taints=(kept,)),
        machine("gpu", labels={"kind": "gpu"}, taints=({"key": "gpu", "effect": "NoSchedule"},)),
    ]
    assert to_look_at(machines, [Pool(name="default")]) == ["worker"]
    gpu = Pool(name="gpu", node_selector={"kind": "gpu"}, tolerations=({"key": "gpu", "operator": "Exists"},))
    assert to_look_at(machines, [Pool(name="default"), gpu]) == ["worker", "gpu"]
