"""Who comes in, with which rights, and what they are told otherwise."""

from __future__ import annotations

import httpx

from tests.web.conftest import Visitor, token_client
from tests.web.site import Site


def test_a_visitor_signs_in_without_a_click_and_comes_back_to_the_page(site: Site) -> None:
    with Visitor(site, "alice") as visitor:
        answer = visitor.get("projects?q=heat")
        assert answer.status_code == 200
        assert str(answer.url).endswith("/projects?q=heat")
        assert "alice" in answer.text


def test_a_browser_that_keeps_no_cookies_is_told_so_instead_of_going_in_circles(site: Site) -> None:
    with Visitor(site, "alice") as visitor:
        visitor.follow_redirects = False
        statuses = [visitor.get("").status_code for _ in range(6)]
        # It keeps the counter but never finishes the sign-in.
        assert statuses[:4] == [302] * 4
        last = visitor.get("")
        assert last.status_code in (302, 401)
        assert 401 in [*statuses, last.status_code]


def test_a_script_without_sign_in_gets_401_as_a_problem_document(site: Site) -> None:
    answer = httpx.get(site.url + "meter", headers={"HX-Request": "true"})
    assert answer.status_code == 401
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert answer.json()["reason"] == "sign-in"


def test_an_api_call_without_token_is_401_and_never_redirected(site: Site) -> None:
    answer = httpx.get(site.url + "events")
    assert answer.status_code == 401
    assert answer.json()["status"] == 401


def test_a_wrong_token_is_401(site: Site) -> None:
    answer = httpx.get(site.url + "events", headers={"Authorization": "token wrong"})
    assert answer.status_code == 401


def test_a_role_that_is_given_later_counts_without_a_new_sign_in_by_hand(site: Site) -> None:
    with Visitor(site, "newcomer") as visitor:
        assert "waits for a role" in visitor.get("").text
        site.hub.people["newcomer"]["groups"].append("galilean:student")
        site.portal.people.forget("newcomer")
        asked = sum(call[0] == "AUTHORIZE" for call in site.hub.calls)
        answer = visitor.get("")
        assert "Three steps" in answer.text
        # The old token could not start anything: the silent OAuth was repeated, once.
        assert sum(call[0] == "AUTHORIZE" for call in site.hub.calls) == asked + 1
        visitor.get("")
        assert sum(call[0] == "AUTHORIZE" for call in site.hub.calls) == asked + 1


def test_a_token_that_stays_stale_renews_once_and_not_in_a_circle(site: Site) -> None:
    site.hub.scopes = lambda name: [f"read:users!user={name}", "access:services!service=portal"]  # type: ignore[method-assign]
    with Visitor(site, "alice") as visitor:
        assert visitor.get("").status_code == 200
        assert visitor.get("").status_code == 200
        assert sum(call[0] == "AUTHORIZE" for call in site.hub.calls) == 2


def test_a_role_that_is_taken_away_is_gone_within_the_time_of_the_cache(site: Site, maria: Visitor) -> None:
    assert maria.get("admin/online").status_code == 200
    site.hub.people["maria"]["groups"].clear()
    site.portal.people._known["maria"] = (float("-inf"), frozenset({"galilean:admin"}))
    assert maria.get("admin/online").status_code == 403


def test_rights_come_from_live_groups_and_not_from_the_oauth_model(site: Site, alice: Visitor) -> None:
    # Whatever scopes the token has, only the group opens an administrator's page.
    for token in site.hub.tokens.values():
        token["scopes"] += ["admin-ui", "list:users"]
    assert alice.get("admin/online").status_code == 403


def test_a_nodes_token_has_no_rights_of_its_owner(site: Site) -> None:
    scopes = [
        "access:servers!server=alice/heat",
        "access:services!service=portal",
        "users:activity!user=alice",
    ]
    with token_client(site, "alice", scopes) as node:
        answer = node.get("meter")
        assert answer.status_code == 403
        assert "node" in answer.text.lower()
        assert node.get("events?watch=clusters").status_code == 403


def test_the_hub_that_is_away_is_told_in_words(site: Site, alice: Visitor) -> None:
    site.hub.away = True
    site.portal.people.forget("alice")
    answer = alice.get("")
    assert answer.status_code == 503
    assert "Running clusters go on" in answer.text


def test_pages_of_administrators_are_closed_to_others(site: Site, alice: Visitor) -> None:
    for path in ("admin/online", "admin/people", "components"):
        assert alice.get(path).status_code == 403
    assert alice.script("POST", "admin/people/newcomer/roles", data={"role": "admin"}).status_code == 403
