"""The page Machines: what it shows, what can be wanted there, and whom that reaches."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path

import httpx
import pytest
from sqlalchemy import select, update

from galilean.tables import audit_log
from services.machines.tables import machines
from spawner import records
from tests.machines.conftest import MakePark, Park
from tests.machines.machines import machine
from tests.web.conftest import Visitor
from tests.web.site import Site, now


def table(visitor: Visitor, **query: str) -> str:
    return visitor.script("GET", "admin/machines", params=query).text


def test_the_table_shows_state_pool_capacity_and_who_holds_what(park: Park, maria: Visitor) -> None:
    park.run("alice", "m1", "m2", name="Folding")
    text = maria.get("admin/machines").text
    for said in ("hardware thread", "192.0.2.11", "GPU machines", "Control plane only", "Ready", "1 cluster"):
        assert said in text
    assert "4 <small>of 80" in text  # 2 nodes of 2 CPUs, of 16 + 64: the control plane's own do not count
    one = maria.get("admin/machines/m1").text
    assert "projects/alice/folding/runs" in one
    assert "Free for new nodes: 14 CPUs, 56 GB" in one


def test_search_filter_and_order_are_in_the_address(park: Park, maria: Visitor) -> None:
    park.run("alice", "m1", name="Folding")
    assert '/admin/machines/m1"' in table(maria, q="fold")
    assert '/admin/machines/m2"' not in table(maria, q="fold")
    assert '/admin/machines/m1"' not in table(maria, pool="gpu")
    assert '/admin/machines/front"' in table(maria, state="reserved")
    most_first = table(maria, sort="-cpu")
    assert (
        most_first.index("machines/m2") < most_first.index("machines/m1") < most_first.index("machines/front")
    )
    assert "No machine fits" in table(maria, q="nothing like this")


def test_many_machines_come_in_pages(make_park: MakePark) -> None:
    park = make_park(*(machine(f"m{number:03}") for number in range(60)))
    with Visitor(park.site, "maria") as maria:
        maria.get("")
        first = table(maria)
        assert "60 of 60 machines" in first
        assert "m049" in first
        assert "m050" not in first
        assert "m059" in table(maria, **{"from": "50"})


@pytest.mark.parametrize("path", ["admin/machines", "admin/machines/m1", "admin/machines/m1/out"])
def test_only_administrators_see_machines(park: Park, path: str) -> None:
    with Visitor(park.site, "alice") as alice:
        alice.get("")
        assert alice.get(path).status_code == 403
        assert "admin/machines" not in alice.get("").text


def test_taking_out_tells_the_holders_and_can_be_taken_back(park: Park, maria: Visitor) -> None:
    park.run("alice", "m1", name="Folding")
    dialog = maria.script("GET", "admin/machines/m1/out").text
    assert "Folding" in dialog
    assert "1 cluster goes back as a whole" in dialog
    local = (now() + timedelta(hours=8, minutes=30)).strftime(
        "%Y-%m-%dT%H:%M"
    )  # the site's zone is Shanghai's
    answer = maria.script(
        "POST",
        "admin/machines/m1/out",
        data={"when": "date", "date": local, "why": "new disks", "after": "keep"},
    )
    assert "takes no new nodes" in json.loads(answer.headers["HX-Trigger"])["galilean:toast"]["text"]
    (order,) = park.history("m1")
    assert abs(order.due_at - now() - timedelta(minutes=30)) < timedelta(minutes=2)
    park.rounds()
    with Visitor(park.site, "alice") as alice:
        text = alice.get("").text
        assert "m1 is taken out" in text
        assert "new disks" in text
    with Visitor(park.site, "bob") as bob:
        assert "is taken out" not in bob.get("").text
    park.site.hub.whoever = "maria"
    assert "Leaves" in table(maria)
    maria.script("POST", "admin/machines/m1/act", data={"action": "withdraw"})
    park.rounds()
    assert not park.air.machines["m1"].cordoned
    with Visitor(park.site, "alice") as alice:
        assert "is taken out" not in alice.get("").text


def test_taking_out_now_releases_the_runs_and_their_people_read_why(park: Park, maria: Visitor) -> None:
    run_id = park.run("alice", "m1")
    maria.script("POST", "admin/machines/m1/out", data={"when": "now", "why": "smoke", "after": "remove"})
    park.rounds()
    with park.site.portal.db.read() as conn:
        run = records.get(conn, run_id)
    assert run is not None
    assert run.reason == "machine_out"
    assert "m1" in park.air.machines  # not before everything has gone back
    assert "Being emptied" in maria.get("admin/machines/m1").text


@pytest.mark.parametrize(
    ("action", "did"),
    [("cordon", ("cordon", "m1")), ("compute", ("unreserve", "front"))],
)
def test_what_is_pressed_is_done_and_can_be_undone(
    park: Park, maria: Visitor, action: str, did: tuple[str, str]
) -> None:
    name = did[1]
    maria.script("POST", f"admin/machines/{name}/act", data={"action": action})
    park.rounds(2)
    assert did in park.air.did
    back = {"cordon": "uncordon", "compute": "keep"}[action]
    assert f'"action": "{back}"' in maria.get(f"admin/machines/{name}").text.replace("&#34;", '"')
    maria.script("POST", f"admin/machines/{name}/act", data={"action": back})
    park.rounds(2)
    assert [order.outcome for order in park.history(name)] == ["done", "done"]


def test_the_control_plane_s_machine_is_not_removed_from_here(park: Park, maria: Visitor) -> None:
    refused = maria.script("POST", "admin/machines/front/out", data={"when": "now", "after": "remove"})
    assert refused.status_code == 409
    assert park.history("front") == []


def test_a_date_that_is_none_is_refused_in_words(park: Park, maria: Visitor) -> None:
    for date in ("", "tomorrow", "2999-01-01T00:00"):
        refused = maria.script("POST", "admin/machines/m1/out", data={"when": "date", "date": date})
        assert refused.status_code == 400, date
    assert park.history("m1") == []


def test_adding_shows_one_command_once(park: Park, maria: Visitor) -> None:
    answer = maria.script("POST", "admin/machine-add", data={"name": "M9", "pool": "gpu"})
    assert "join m9" in answer.text
    assert "Shown only once" in answer.text
    for path in ("admin/machines", "admin/machines/m9"):
        assert "join m9" not in maria.get(path).text
    assert "Expected" in table(maria)
    park.air.machines["m9"] = machine("m9")
    park.rounds(2)
    assert park.air.machines["m9"].labels == {"pool": "gpu"}
    with park.site.portal.db.read() as conn:
        lines = conn.execute(select(audit_log.c.action, audit_log.c.subject, audit_log.c.after)).all()
    assert [(line.action, line.subject) for line in lines] == [("machine.add", "m9")]
    assert "join" not in str(lines)


@pytest.mark.parametrize("name", ["", "two words", "ümlaut", "-a", "a..b", "x" * 254, "<b>", "../m1"])
def test_a_name_that_cannot_be_is_refused_before_a_token_is_made(
    park: Park, maria: Visitor, name: str
) -> None:
    refused = maria.script("POST", "admin/machine-add", data={"name": name, "pool": "default"})
    assert refused.status_code == 400
    assert not [did for did in park.air.did if did[0] == "ticket"]


def test_without_the_switch_the_button_says_why_and_nothing_is_added(make_park: MakePark) -> None:
    park = make_park(machine("m1"), add=False)
    with Visitor(park.site, "maria") as maria:
        maria.get("")
        assert "Switched on by machines.add" in maria.get("admin/machines").text
        assert maria.script("POST", "admin/machine-add", data={"name": "m9"}).status_code == 400


def test_a_service_that_is_away_is_said(park: Park, maria: Visitor) -> None:
    park.site.portal.parts["machines_url"] = "http://127.0.0.1:9"
    refused = maria.script("POST", "admin/machine-add", data={"name": "m9", "pool": "default"})
    assert refused.status_code == 503
    assert "does not answer" in refused.text


def test_only_the_portal_gets_a_ticket(park: Park) -> None:
    url = park.site.portal.parts["machines_url"] + "/join"
    body = {"name": "m9", "pool": "default", "asked_by": "mallory"}
    assert httpx.post(url, json=body).status_code == 401
    for person in ("alice", "maria"):
        token = park.site.hub.token(person)
        refused = httpx.post(url, json=body, headers={"Authorization": f"token {token}"})
        assert refused.status_code == 403
    assert httpx.post(url, json=body, headers={"Authorization": "token wrong"}).status_code == 403
    assert not [did for did in park.air.did if did[0] == "ticket"]


def test_old_news_is_called_so(park: Park, maria: Visitor) -> None:
    assert "old news" not in table(maria)
    with park.site.portal.db.write() as conn:
        conn.execute(update(machines).values(seen_at=now() - timedelta(minutes=10)))
    assert "old news" in table(maria)


def test_before_the_first_look_the_page_says_what_will_come(make_park: MakePark) -> None:
    park = make_park(look=False)
    with Visitor(park.site, "maria") as maria:
        maria.get("")
        assert "No machine is known yet" in maria.get("admin/machines").text


def test_a_machine_that_needs_a_look_has_a_badge(make_park: MakePark) -> None:
    park = make_park(machine("m1", ready=False, problem="silent"), machine("m2"))
    with Visitor(park.site, "maria") as maria:
        text = maria.get("").text
        assert "need a look" in text
        assert "Does not answer" in maria.get("admin/machines").text


def test_the_process_backend_shows_this_one_machine_and_changes_nothing(tmp_path: Path) -> None:
    import os

    with Site(tmp_path / "state") as site:
        site.hub.add("maria", "admin")
        with Visitor(site, "maria") as maria:
            maria.get("")
            text = maria.get("admin/machines").text
            assert os.uname().nodename in text
            assert "this one" in text
            assert "Take out" not in text
            name = os.uname().nodename
            refused = maria.script("POST", f"admin/machines/{name}/act", data={"action": "cordon"})
            assert refused.status_code == 400


def test_pages_are_in_chinese_too(park: Park) -> None:
    park.run("alice", "m1")
    with Visitor(park.site, "maria") as maria:
        maria.headers["Accept-Language"] = "zh-CN"
        text = maria.get("admin/machines").text
        for said in ("机器", "硬件线程", "撤出", "仅控制平面", "就绪"):
            assert said in text
        assert "撤出 m1" in maria.script("GET", "admin/machines/m1/out").text
