"""Applications on pages and in the API: those that a node says it has, of those that there are (SC-3)."""

from __future__ import annotations

import pytest

from galilean.settings_applications import Application
from tests.portal.conftest import Sign, made
from tests.portal.live import LiveSite
from tests.portal.test_doors import doors, running
from tests.portal.test_ssh import asks, node


@pytest.fixture
def offering(site: LiveSite) -> LiveSite:
    """A centre with applications, one of them switched off, one for another environment."""
    one = Application.model_validate
    web = {"command": "x $APP_PORT"}
    found = {
        "dash": one({"title": {"en": "Dash {board}", "zh_CN": "仪表板"}, **web}),
        "off": one({"title": "Off", "enabled": False, **web}),
        "else": one({"title": "Else", "environments": ["other"], **web}),
        "vscode": one({"title": "VS Code", **web}),
    }
    site.portal.settings = site.portal.settings.model_copy(update={"applications": found})
    return site


def test_what_a_node_has_becomes_a_door_of_each_node(offering: LiveSite, sign: Sign) -> None:
    alice = sign("alice")
    made(alice)
    run = running(alice, nodes=2)
    with node(offering, "alice", "heat-flow") as own:
        told = own.post("/node/applications", json=asks(run)).json()["applications"]
        assert list(told) == ["dash", "vscode"] and told["dash"]["command"] == "x $APP_PORT"
        assert len(doors(alice, run)[0]) == 2
        answer = own.post(
            "/node/applications", json=asks(run, has=["vscode", "off", "else", "dash", "nothing"])
        )
        assert answer.status_code == 200
    base = "/user/alice/heat-flow/"
    assert doors(alice, run)[1][2:] == [
        ("app-vscode", base + "node-1/galilean/apps/vscode"),
        ("app-dash", base + "node-1/galilean/apps/dash"),
    ]
    titles = [door["title"] for door in alice.get(f"/clusters/{run}").json()["node_list"][0]["doors"]]
    assert titles[2:] == ["VS Code", "Dash {board}"]
    page = alice.get(offering.url + "projects/alice/heat-flow/run", headers={"Accept-Language": "zh-CN"}).text
    assert "仪表板" in page and base + "galilean/apps/dash" in page
    assert "Dash {board}" in alice.get(offering.url).text


def test_ports_and_applications_of_a_run_do_not_wipe_each_other(offering: LiveSite, sign: Sign) -> None:
    alice = sign("alice")
    made(alice)
    run = running(alice)
    with node(offering, "alice", "heat-flow") as own:
        alice.post(f"/clusters/{run}/ports", json={"port": 9000})
        own.post("/node/applications", json=asks(run, has=["dash"]))
        alice.post(f"/clusters/{run}/ports", json={"port": 9001})
    assert [name for name, _ in doors(alice, run)[0]][2:] == ["app-dash", "port-9000", "port-9001"]


def test_nobody_but_the_node_says_what_it_has(offering: LiveSite, sign: Sign) -> None:
    alice = sign("alice")
    made(alice)
    run = running(alice)
    assert alice.post("/node/applications", json=asks(run, has=["dash"])).status_code == 403
    with node(offering, "bob", "heat-flow") as other:
        assert other.post("/node/applications", json=asks(run, has=["dash"])).status_code == 409
    with node(offering, "alice", "heat-flow") as own:
        assert own.post("/node/applications", json=asks("0" * 26, has=["dash"])).status_code == 409
        assert own.post("/node/applications", json=asks(run, has=["dash"] * 501)).status_code == 400
    assert len(doors(alice, run)[0]) == 2
