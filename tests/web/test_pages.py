"""Home, meter, online and people, by the pages themselves."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from galilean import notices
from galilean.tables import audit_log
from services.portal.events import changed, fingerprints
from services.portal.online import Use, View, arrange, read_held, row_of, rows_of, sums
from services.portal.pages.home import Steps, greeting, month_of, said_name
from spawner import records
from spawner.tables import node_use
from tests.web.conftest import Visitor
from tests.web.site import Site, add_cluster


def test_a_first_visit_shows_three_steps_that_turn_into_marks_and_go_away(site: Site, alice: Visitor) -> None:
    assert "Three steps" in alice.get("").text
    project = site.project("alice", "Heat flow")
    text = alice.get("").text
    assert "Run Heat flow" in text
    assert 'aria-label="Done"' in text
    site.cluster("alice", status="released", released=True, project_id=project.id)
    text = alice.get("").text
    assert "First steps" not in text
    assert "Recent projects" in text


def test_running_clusters_have_a_door_to_each_node_on_the_page_and_in_the_meter(
    site: Site, alice: Visitor
) -> None:
    site.cluster("alice", "Heat flow", nodes=2)
    text = alice.get("").text
    assert text.count("/node-1/lab") >= 2
    meter = alice.script("GET", "meter").text
    assert "1 cluster" in meter
    assert "/node-1/lab" in meter
    assert "/node-1/galilean/terminal" in meter


def test_nobody_sees_another_persons_cluster_on_home(site: Site, alice: Visitor) -> None:
    site.cluster("bob", "A secret plan")
    assert "A secret plan" not in alice.get("").text


def test_a_release_names_what_stays_and_what_is_lost_before_it_happens(site: Site, alice: Visitor) -> None:
    run = site.cluster("alice", "Heat flow", nodes=2)
    dialog = alice.script("GET", f"clusters/{run}/release").text
    assert "Stays:" in dialog
    assert "Lost:" in dialog
    assert not [call for call in site.hub.calls if call[0] == "DELETE"]
    answer = alice.script("POST", f"clusters/{run}/release")
    assert answer.status_code == 200
    assert "galilean:toast" in answer.headers["HX-Trigger"]
    assert [call[0] for call in site.hub.calls].count("DELETE") == 1
    with site.portal.db.read() as conn:
        row = records.get(conn, run)
    assert row is not None
    assert row.stop_asked_at is not None


def test_somebody_elses_cluster_cannot_be_released_or_even_seen(site: Site, alice: Visitor) -> None:
    run = site.cluster("bob")
    assert alice.script("GET", f"clusters/{run}/release").status_code == 404
    assert alice.script("POST", f"clusters/{run}/release").status_code == 404
    assert not [call for call in site.hub.calls if call[0] == "DELETE"]


def test_release_all_releases_only_what_the_visitor_was_shown(site: Site, alice: Visitor) -> None:
    mine, other = site.cluster("alice"), site.cluster("bob")
    alice.script("POST", "clusters/release", data={"run": [mine, other]})
    with site.portal.db.read() as conn:
        assert records.get(conn, mine).stop_asked_at is not None  # type: ignore[union-attr]
        assert records.get(conn, other).stop_asked_at is None  # type: ignore[union-attr]


def test_an_admin_releases_many_with_a_reason_that_is_kept_and_told(site: Site, maria: Visitor) -> None:
    runs = [site.cluster("bob", "One"), site.cluster("carol", "Two")]
    dialog = maria.script("GET", "admin/online/release", params={"run": runs}).text
    assert "Release 2 clusters?" in dialog
    answer = maria.script("POST", "admin/online/release", data={"run": runs, "why": "maintenance at 18:00"})
    assert answer.status_code == 200
    with site.portal.db.read() as conn:
        row = records.get(conn, runs[0])
        log = conn.execute(audit_log.select()).all()
    assert row is not None
    assert "maintenance at 18:00" in str(row.explanation)
    with site.portal.db.read() as conn:
        told = notices.unread(conn, "bob")
    assert [(notice.kind, notice.params["why"], notice.mail) for notice in told] == [
        ("released", "maintenance at 18:00", True)
    ]
    assert len(log) == 2
    assert {entry.actor for entry in log} == {"maria"}


def test_online_is_filtered_by_its_address(site: Site, maria: Visitor) -> None:
    site.cluster("bob", "Long one", held=timedelta(hours=3))
    site.cluster("carol", "Short one", held=timedelta(minutes=3))
    text = maria.get("admin/online?held=2h").text
    assert "Long one" in text
    assert "Short one" not in text
    assert "1 of 2 clusters" in text
    assert "Nobody" not in text
    none = maria.get("admin/online?q=nothing").text
    assert "No cluster fits" in none


def test_the_process_backend_warns_administrators_plainly(maria: Visitor) -> None:
    assert "not kept apart" in maria.get("admin/online").text
    assert "not kept apart" in maria.get("admin/people").text


def test_an_admin_gives_a_role_and_the_person_has_it_at_once(site: Site, maria: Visitor) -> None:
    page = maria.get("admin/people").text
    assert "Waiting for a role" in page
    assert re.search(r"badge-count[^>]*>1<", page)
    answer = maria.script("POST", "admin/people/newcomer/roles", data={"role": "student", "act": "give"})
    assert answer.status_code == 200
    assert site.hub.people["newcomer"]["groups"] == ["galilean:student"]
    assert "Waiting for a role" not in maria.get("admin/people").text
    # The hub decides, and writes the line of the audit log.
    assert ("PATCH", "/hub/api/galilean/people/newcomer") in site.hub.calls


def test_an_unknown_role_and_the_last_administrator_are_refused_in_words(site: Site, maria: Visitor) -> None:
    unknown = maria.script("POST", "admin/people/alice/roles", data={"role": "king", "act": "give"})
    assert unknown.status_code == 404
    own = maria.script("POST", "admin/people/maria/roles", data={"role": "admin", "act": "take"})
    assert own.status_code == 409


def test_somebody_without_a_role_is_told_what_happens_next(site: Site) -> None:
    with Visitor(site, "newcomer") as visitor:
        text = visitor.get("").text
        assert "waits for a role" in text
        assert "Whom to ask" in text
        assert "New project" not in text


def test_the_number_of_queries_of_home_does_not_grow_with_clusters_and_projects(
    site: Site, alice: Visitor
) -> None:
    from sqlalchemy import event

    seen: list[str] = []
    event.listen(site.portal.db.engine, "before_cursor_execute", lambda *args: seen.append(args[2]))

    def begin() -> None:
        # What is known for two seconds is asked for in both, however long this takes.
        site.portal.rights.forget()
        site.portal.parts["messages"].forget()
        seen.clear()

    site.project("alice", "One")
    site.cluster("alice", "One")
    alice.get("")
    begin()
    alice.get("")
    few = len(seen)
    for n in range(20):
        site.project("alice", f"Project {n}")
        site.cluster("alice", f"Cluster {n}")
    begin()
    alice.get("")
    assert len(seen) <= few + 1  # one more: counting the projects


def test_a_change_is_told_to_its_person_only(site: Site) -> None:
    with site.portal.db.write() as conn:
        add_cluster(conn, "alice")
        before = fingerprints(conn)
        add_cluster(conn, "bob")
        assert changed(before, fingerprints(conn)) == {"bob"}
        assert changed(before, before) == set()


async def test_the_stream_tells_a_page_when_its_clusters_change(site: Site) -> None:
    import httpx

    token = site.hub.token("alice")
    async with httpx.AsyncClient(timeout=60) as client:
        async with client.stream(
            "GET", site.url + "events?watch=clusters", headers={"Authorization": f"token {token}"}
        ) as stream:
            lines = stream.aiter_lines()
            assert (await anext(lines)).startswith(":")
            while site.portal.parts["watcher"]._known is None:
                await __import__("asyncio").sleep(0.02)
            site.cluster("alice")
            async for line in lines:
                if line == "event: clusters":
                    break


@pytest.mark.parametrize(
    ("query", "names"),
    [
        ({}, ["old", "mid", "new"]),
        ({"sort": "held"}, ["new", "mid", "old"]),
        ({"sort": "-nodes"}, ["mid", "old", "new"]),
        ({"q": "MID"}, ["mid"]),
        ({"held": "1h"}, ["old"]),
        ({"held": "forever", "sort": "x", "from": "-1"}, ["old", "mid", "new"]),
    ],
)
def test_views_of_online(site: Site, query: dict[str, str], names: list[str]) -> None:
    site.cluster("bob", "old", held=timedelta(hours=2))
    site.cluster("carol", "mid", held=timedelta(minutes=30), nodes=3)
    site.cluster("dora", "new", held=timedelta(minutes=1))
    now = datetime.now(UTC)
    with site.portal.db.read() as conn:
        rows = rows_of(*read_held(conn), now)
    shown = [row.run for row in arrange(rows, View.parse(query), now)]
    assert (
        [run.project_name for run in shown] == names if query.get("sort") != "-nodes" else shown[0].nodes == 3
    )
    assert sums(shown)["clusters"] == len(shown)


def test_what_is_really_used_stands_beside_what_is_held_and_idleness_stands_out(
    site: Site, maria: Visitor
) -> None:
    now = datetime.now(UTC)
    busy = site.cluster("bob", "Folding", held=timedelta(hours=3), nodes=2)
    idle = site.cluster("carol", "Forgotten", held=timedelta(hours=3))
    site.cluster("dora", "Not measured", held=timedelta(hours=3))
    with site.portal.db.write() as conn:
        size = {run.id: run for run in records.all_open(conn)}
        for run_id, rank, part, used in ((busy, 0, 1.0, 0), (busy, 1, 0.5, 0), (idle, 0, 0.0, 3 * 3600)):
            conn.execute(
                node_use.insert().values(
                    cluster_id=run_id,
                    rank=rank,
                    measured_at=now,
                    cpu_permille=round(part * size[run_id].cpu_millicores),
                    used_at=now - timedelta(seconds=used),
                )
            )
    text = maria.get("admin/online").text
    assert "75 %" in text
    assert "idle since" in text
    only = maria.get("admin/online?idle=1").text
    assert "Forgotten" in only
    assert "Folding" not in only
    assert "Not measured" not in only
    file = maria.get("admin/online.csv?sort=-cpu_now").text.splitlines()
    assert file[0].lstrip("\ufeff").startswith("id,person,project,state")
    assert ["Folding" in file[1], "Forgotten" in file[2], "Not measured" in file[3]] == [True] * 3
    assert ",75.0," in file[1]


def test_an_old_measurement_says_nothing_of_now(site: Site) -> None:
    run_id = site.cluster("bob", "Folding", held=timedelta(hours=3))
    now = datetime.now(UTC)
    with site.portal.db.read() as conn:
        run = records.get(conn, run_id)
    assert run is not None
    row = row_of(run, Use(measured_at=now - timedelta(minutes=5), cpu_permille=1000), now, grace_seconds=300)
    assert (row.cpu_now, row.idle_since) == (None, None)


def test_a_cluster_of_which_a_node_is_not_measured_is_not_called_idle(site: Site) -> None:
    run_id = site.cluster("bob", "Folding", held=timedelta(hours=3), nodes=2)
    now = datetime.now(UTC)
    with site.portal.db.write() as conn:
        use = {"cluster_id": run_id, "measured_at": now, "used_at": now - timedelta(hours=2)}
        conn.execute(node_use.insert().values(rank=0, **use))
        (row,) = rows_of(*read_held(conn), now)
        assert row.cpu_now is not None
        assert row.idle_since is None
        conn.execute(node_use.insert().values(rank=1, **use))
        (row,) = rows_of(*read_held(conn), now)
        assert row.idle_since == now - timedelta(hours=2)


def test_a_views_address_gives_back_the_view() -> None:
    from urllib.parse import parse_qsl

    view = View.parse({"q": "热 流", "held": "2h", "sort": "person", "pool": "gpu"})
    assert View.parse(dict(parse_qsl(view.query()))) == view
    assert View().query() == ""


def test_this_months_days_are_the_sites(site: Site) -> None:
    zone = ZoneInfo("Asia/Shanghai")
    now = datetime(2026, 11, 2, 20, 0, tzinfo=UTC)  # the 3rd in Shanghai
    begin = datetime(2026, 11, 1, 17, 0, tzinfo=UTC)  # the 2nd, 01:00
    with site.portal.db.write() as conn:
        add_cluster(conn, "alice", status="released", released=True, ready_at=begin, held=timedelta(hours=1))
        month = month_of(conn, "alice", now, zone)
    assert month.day_seconds == (0, 3600, 0)
    assert month.cpu_core_minutes == pytest.approx(120)


def test_steps_tell_which_comes_next() -> None:
    assert Steps(project=False, run=False, files=False).now == 1
    assert Steps(project=True, run=False, files=False).now == 2
    assert Steps(project=True, run=True, files=False).now == 3
    assert Steps(project=True, run=True, files=True).done


@pytest.mark.parametrize(
    ("hour", "word"), [(5, "morning"), (11, "morning"), (12, "afternoon"), (18, "evening"), (3, "evening")]
)
def test_the_greeting_goes_by_the_hour(hour: int, word: str) -> None:
    assert word in greeting(hour)


@pytest.mark.parametrize(
    ("name", "said"), [("alice", "Alice"), ("m.okafor", "m.okafor"), ("李伟", "李伟"), ("DeVries", "DeVries")]
)
def test_people_are_greeted_by_their_name(name: str, said: str) -> None:
    assert said_name(name) == said
