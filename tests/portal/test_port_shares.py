"""Ports of a running cluster shared with named people, by API and pages, and what nodes are told (AP-11)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from galilean.rights import BLOCKED
from galilean.settings import SettingsError, load_settings
from galilean.settings_doors import PortsSection
from tests.portal.conftest import Sign, made
from tests.portal.live import LiveSite
from tests.portal.test_api import _until
from tests.portal.test_doors import running as begun
from tests.portal.test_ssh import node

BASE = "/user/alice/heat-flow/"


@pytest.fixture
def site(tmp_path: Path) -> Iterator[LiveSite]:
    """As ever, with ports that may be shared."""
    live = LiveSite(tmp_path / "state")
    # On one origin, which no file could say: addresses are then those that the fake hub has.
    live.settings = live.settings.model_copy(update={"ports": PortsSection(share=True)})
    for name, *roles in (("alice", "researcher"), ("bob", "student"), ("root", "admin"), ("eve",)):
        live.hub.add(name, *roles)
    with live:
        yield live


def running(client: httpx.Client, site: LiveSite | None = None, **options: Any) -> str:
    """A cluster whose nodes have said that they look at who comes."""
    run = begun(client, **options)
    if site is not None:
        with node(site, "alice", "heat-flow") as one:
            for rank in range(options.get("nodes", 1)):
                said = {"server": "heat-flow", "run": run, "rank": rank}
                assert one.post("/node/guards", json=said).status_code == 204
    return run


@pytest.fixture
def alice(sign: Sign) -> httpx.Client:
    client = sign("alice")
    made(client)
    return client


def ask(site: LiveSite, run: str, name: str) -> Any:
    """What a node of alice's is told of somebody."""
    with node(site, "alice", "heat-flow") as one:
        answer = one.post("/node/visitors", json={"server": "heat-flow", "run": run, "rank": 1, "name": name})
    return answer.json() if answer.status_code == 200 else answer.status_code


def test_a_port_is_shared_with_a_person_and_taken_back(
    site: LiveSite, alice: httpx.Client, sign: Sign
) -> None:
    run = running(alice, site, nodes=2, ports=[8050])
    people = f"/clusters/{run}/ports/8050/people"
    assert alice.get(people).json()["people"] == []
    for _ in range(2):  # again is success
        answer = alice.post(people, json={"person": "eve"})
        assert answer.status_code == 200, answer.text
    assert answer.json() == {
        "port": 8050,
        "people": ["eve"],
        "urls": [BASE + "proxy/8050/", BASE + "node-1/proxy/8050/"],
    }
    assert ("POST", "/galilean/port-shares") in site.hub.calls
    eve = sign("eve")
    (found,) = eve.get("/shared-ports").json()["items"]
    assert (found["owner"], found["project"], found["port"]) == ("alice", "Heat flow", 8050)
    assert found["urls"][1] == BASE + "node-1/proxy/8050/"
    home = eve.get(site.url)
    assert "Programs that others let you open" in home.text and found["urls"][0] in home.text
    told = [item["text"] for item in eve.get("/notices").json()["items"]]
    assert told == ["alice lets you open port 8050 of Heat flow."]
    assert eve.get(f"/clusters/{run}").status_code == 404  # a port and nothing else
    assert ask(site, run, "eve") == {"whole": False, "ports": [8050]}
    for _ in range(2):
        assert alice.delete(people + "/eve").status_code == 204
    assert ask(site, run, "eve") == {"whole": False, "ports": []}
    assert eve.get("/shared-ports").json()["items"] == []
    assert "Programs that others" not in eve.get(site.url).text


def test_a_node_is_told_of_administrators_too_and_nothing_after_the_end(
    site: LiveSite, alice: httpx.Client, sign: Sign
) -> None:
    eve = sign("eve")
    run = running(alice, site, nodes=2, ports=[8050])
    alice.post(f"/clusters/{run}/ports/8050/people", json={"person": "eve"})
    assert ask(site, run, "root") == {"whole": True, "ports": []}
    assert ask(site, run, "bob") == {"whole": False, "ports": []}
    assert ask(site, run, "who-is-this") == {"whole": False, "ports": []}
    site.hub.people["eve"]["groups"] = [BLOCKED]
    site.portal.people.forget_all()
    assert ask(site, run, "eve") == {"whole": False, "ports": []}
    site.hub.people["eve"]["groups"] = []
    mine = site.hub.people["alice"]["groups"]
    site.hub.people["alice"]["groups"] = [*mine, BLOCKED]
    site.portal.people.forget_all()
    assert ask(site, run, "eve") == {"whole": False, "ports": []}, "nothing of whoever is blocked"
    assert eve.get("/shared-ports").json()["items"] == []
    assert "/proxy/8050/" not in eve.get(site.url).text
    site.hub.people["alice"]["groups"] = mine
    site.portal.people.forget_all()
    assert ask(site, run, "eve") == {"whole": False, "ports": [8050]}
    assert "/proxy/8050/" in eve.get(site.url).text
    alice.delete(f"/clusters/{run}")
    _until(lambda: alice.get(f"/clusters/{run}").json(), lambda c: c["status"] == "released")
    assert ask(site, run, "eve") == 409


def test_what_does_not_fit_is_refused(site: LiveSite, alice: httpx.Client, sign: Sign) -> None:
    run = running(alice, site, ports=[8050])
    people = f"/clusters/{run}/ports/8050/people"
    refusals = [
        (alice.post(people, json={"person": "nobody-here"}), 404),
        (alice.post(people, json={"person": "alice"}), 400),
        (alice.post(f"/clusters/{run}/ports/9000/people", json={"person": "eve"}), 404),
        (alice.post(people, json={}), 400),
        (sign("bob").post(people, json={"person": "bob"}), 404),
        (sign("root").post(people, json={"person": "eve"}), 403),
        (sign("root").delete(people + "/eve"), 403),
    ]
    assert [(answer.status_code, wanted) for answer, wanted in refusals if answer.status_code != wanted] == []
    assert alice.get(people).json()["people"] == []


def test_the_dialog_shows_who_has_it(site: LiveSite, alice: httpx.Client) -> None:
    run = running(alice, site, ports=[8050])
    place = f"{site.url}clusters/{run}/ports/8050/people"
    drawer = alice.get(site.url + "projects/alice/heat-flow/run").text
    assert f"clusters/{run}/ports/8050/people" in drawer and "Share …" in drawer
    dialog = alice.get(place).text
    assert "Who may open port 8050?" in dialog and "Nobody but you so far." in dialog
    added = alice.post(place, data={"person": " eve "}).text
    assert "eve" in added and BASE + "proxy/8050/" in added
    assert "Shared with 1 person" in alice.get(site.url + "projects/alice/heat-flow/run").text
    assert "Nobody but you so far." in alice.post(place + "/withdraw", data={"person": "eve"}).text
    assert "谁可以打开端口 8050" in alice.get(place, headers={"Accept-Language": "zh-CN"}).text


def test_where_the_centre_does_not_say_so_nothing_of_it_is_there(tmp_path: Path) -> None:
    live = LiveSite(tmp_path / "plain")
    live.hub.add("alice", "researcher")
    live.hub.add("eve")
    with live:
        token = {"Authorization": f"token {live.hub.token('alice', None)}"}
        with httpx.Client(base_url=live.url + "api/v1", headers=token, timeout=90) as alice:
            made(alice)
            run = running(alice, ports=[8050])
            answer = alice.post(f"/clusters/{run}/ports/8050/people", json={"person": "eve"})
            assert answer.status_code == 404 and answer.json()["reason"] == "off"
            assert "Share …" not in alice.get(live.url + "projects/alice/heat-flow/run").text


def test_on_one_origin_it_cannot_be_switched_on(tmp_path: Path) -> None:
    (tmp_path / "galilean.yaml").write_text("ports: {share: true}\n")
    with pytest.raises(SettingsError, match="subdomain_host"):
        load_settings(environ={"GALILEAN_CONFIG": str(tmp_path / "galilean.yaml")})
