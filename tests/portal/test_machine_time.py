"""Machine time by page, file and API: every view adds up to the same, and nobody sees another's."""

from __future__ import annotations

import csv
import io
from datetime import timedelta

import httpx
import pytest
from sqlalchemy import insert, select, update

from galilean import centre
from services.metering.report import KINDS
from services.metering.rollup import roll_up
from services.metering.tables import run_use
from services.metering.work import DIFFERENCE
from spawner.tables import clusters
from tests.portal.conftest import Sign
from tests.portal.live import LiveSite
from tests.web.site import now


@pytest.fixture
def used(site: LiveSite) -> LiveSite:
    """Three people's runs; half of them rolled up, the others live."""
    for number, user in enumerate(["alice", "alice", "bob", "carol"]):
        site.cluster(
            user, f"Name {number}", nodes=number % 2 + 1, status="released", released=True, target="released",
            held=timedelta(minutes=30 + number), ready_at=now() - timedelta(days=number * 9, hours=2),
            role="student" if user == "alice" else "teacher",
        )  # fmt: skip
    with site.portal.db.write() as conn:
        conn.execute(update(clusters).where(clusters.c.project_name == "Name 0").values(environment="gone"))
        assert roll_up(conn, zone=site.settings.site.zone, now=now(), limit=2) == 2
    site.cluster("carol", "Runs now", held=timedelta(minutes=5))
    return site


def page(client: httpx.Client, site: LiveSite, path: str) -> httpx.Response:
    return client.get(site.url + path)


def sheet(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text.lstrip("\ufeff"))))


def test_the_lines_of_every_breakdown_add_up_to_the_same(sign: Sign, used: LiveSite) -> None:
    root = sign("root")
    sums = [
        sum(item["node_seconds"] for item in root.get("/usage", params={"by": by}).json()["items"])
        for by in KINDS
    ]
    assert sums[0] > 60 * (30 + 2 * 31 + 32 + 2 * 33)
    assert max(sums) - min(sums) < 20  # one of them runs still


def test_a_list_goes_on_where_its_page_ended(sign: Sign, used: LiveSite) -> None:
    root = sign("root")
    whole = [item["key"] for item in root.get("/usage?by=day").json()["items"]]
    assert whole == sorted(whole)
    found: list[str] = []
    cursor = ""
    while True:
        answer = root.get("/usage", params={"by": "day", "limit": 2, "cursor": cursor}).json()
        found += [item["key"] for item in answer["items"]]
        cursor = answer["next"]
        if not cursor:
            break
    assert found == whole
    assert len(found) >= 4
    assert root.get("/usage?by=week").status_code == 400
    assert root.get("/usage?sort=shoe").status_code == 400


def test_an_administrator_sees_everybodys_by_person_role_and_environment(sign: Sign, used: LiveSite) -> None:
    root = sign("root")
    text = page(root, used, "admin/machine-time?by=user&days=all").text
    assert all(name in text for name in ("alice", "bob", "carol"))
    only = page(root, used, "admin/machine-time?by=user&days=all&role=teacher").text
    assert "Role: " in only
    rows = sheet(page(root, used, "admin/machine-time.csv?by=user&days=all&role=teacher&sort=name").text)
    assert [row["user"] for row in rows] == ["bob", "carol"]
    by_environment = sheet(page(root, used, "admin/machine-time.csv?by=environment&days=all").text)
    assert {row["environment"]: row["deleted"] for row in by_environment} == {"gone": "yes", "jupyter": ""}
    searched = sheet(page(root, used, "admin/machine-time.csv?by=project&days=all&q=name+2").text)
    assert [row["name"] for row in searched] == ["Name 2"]


@pytest.mark.parametrize("path", ["admin/machine-time", "admin/machine-time.csv", "api/v1/usage/difference"])
def test_without_the_right_nobody_sees_everybodys(sign: Sign, used: LiveSite, path: str) -> None:
    assert page(sign("bob"), used, path).status_code == 403


def test_whatever_the_address_says_one_sees_ones_own(sign: Sign, used: LiveSite) -> None:
    bob = sign("bob")
    rows = sheet(page(bob, used, "machine-time.csv?by=project&days=all").text)
    assert [row["name"] for row in rows] == ["Name 2"]
    assert page(bob, used, "machine-time?by=project&user=alice").status_code == 403
    assert bob.get("/usage?by=role&user=alice").status_code == 403


def test_idle_hours_are_shown_to_people_and_administrators_in_their_language(
    sign: Sign, used: LiveSite
) -> None:
    with used.portal.db.write() as conn:
        run = conn.execute(select(clusters.c.id).where(clusters.c.project_name == "Runs now")).scalar_one()
        hour, day = 3_600_000_000, now().astimezone(used.settings.site.zone).date().toordinal()
        conn.execute(
            insert(run_use).values(
                cluster_id=run, day=day, measured_us=2 * hour, cpu_used_us=hour // 4, memory_kib_s=5, gpu_used_us=0,
                idle_us=hour, gpu_idle_us=0,
            )
        )  # fmt: skip
    text = page(sign("root"), used, "admin/machine-time?by=user&days=all").text
    assert "50.0 %" in text
    assert "Idle is time" in text
    root = sign("root")
    root.headers["Accept-Language"] = "zh-CN"
    assert "闲置" in page(root, used, "admin/machine-time?days=all").text


def test_administrators_are_shown_how_ledger_and_backend_differ(sign: Sign, used: LiveSite) -> None:
    root = sign("root")
    assert "Nobody has compared" in page(root, used, "admin/machine-time").text
    found = {"looked_at": now().isoformat(), "nodes": 2, "sighted": 2, "missing": [], "strays": []}
    with used.portal.db.write() as conn:
        centre.put(conn, DIFFERENCE, found, now=now())
    assert "Ledger and backend agree" in page(root, used, "admin/machine-time").text
    with used.portal.db.write() as conn:
        centre.put(conn, DIFFERENCE, {**found, "missing": [{"run": "R7", "rank": 3}]}, now=now())
    text = page(root, used, "admin/machine-time").text
    assert "Ledger and backend differ" in text
    assert "node-3 of run R7" in text
    assert root.get("/usage/difference").json()["missing"] == [{"run": "R7", "rank": 3}]
