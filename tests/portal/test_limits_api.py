"""Limits, exceptions and rules of release by the API: who may, what is refused, what is said (CG-28 … CG-30, TI-14)."""

from __future__ import annotations

from datetime import timedelta

import pytest

from galilean.clock import utcnow
from tests.portal.conftest import Sign
from tests.portal.live import LiveSite


def change(role: str, measure: str, amount: object, **more: object) -> dict[str, object]:
    return {"role": role, "measure": measure, "amount": amount, **more}


def test_a_difference_is_said_before_it_is_made_and_made_only_then(site: LiveSite, sign: Sign) -> None:
    site.cluster("bob")  # a student may hold one
    admin = sign("root")
    wish = {"changes": [change("student", "clusters", 2), change("student", "total_memory", "48 GB")]}
    seen = admin.patch("/quotas", json={**wish, "dry_run": True}).json()
    assert seen["applied"] is False
    assert [(c["measure"], c["before"], c["after"]) for c in seen["changes"]] == [
        ("clusters", 1, 2),
        ("total_memory", 16 * 2**30, 48 * 2**30),
    ]
    assert (seen["people"], seen["at_limit"]) == (1, {"student": 1})
    assert sign("bob").get("/limits").json()["together"]["clusters"] == 1
    assert admin.patch("/quotas", json=wish).json()["applied"] is True
    mine = sign("bob").get("/limits").json()
    assert (mine["together"]["clusters"], mine["remaining"]["clusters"]) == (2, 1)


def test_what_is_so_already_is_no_change(sign: Sign) -> None:
    found = sign("root").patch("/quotas", json={"changes": [change("student", "nodes", 2)]}).json()
    assert found["changes"] == []


@pytest.mark.parametrize(
    ("wish", "status"),
    [
        (change("student", "nodes", -1), 400),
        (change("student", "nodes", 1.5), 400),
        (change("student", "nodes", ""), 400),
        (change("student", "nodes", 10**30), 400),
        (change("student", "memory", "8 parsecs"), 400),
        (change("student", "manual_release", "perhaps"), 400),
        (change("student", "gpu_hours", 4), 400),
        (change("student", "luck", 7), 400),
        (change("student", "clusters@moon", 7), 400),
        (change("nobody", "nodes", 2), 404),
        (change("student", "nodes", 9, was=5), 409),
    ],
)
def test_what_cannot_be_is_refused_and_changes_nothing(
    sign: Sign, wish: dict[str, object], status: int
) -> None:
    admin = sign("root")
    before = admin.get("/quotas").json()["items"]
    good = change("student", "clusters", 9)
    refused = admin.patch("/quotas", json={"changes": [good, wish]})
    assert refused.status_code == status, refused.text
    assert refused.json()["detail"]
    assert admin.get("/quotas").json()["items"] == before


def test_an_exception_is_given_changed_and_ended_and_its_person_sees_it(sign: Sign) -> None:
    admin, bob = sign("root"), sign("bob")
    until = (utcnow() + timedelta(days=30)).date().isoformat()
    made = admin.post(
        "/quota-exceptions",
        json={"user": "bob", "measure": "clusters", "amount": 3, "reason": "Thesis", "until": until},
    )
    assert made.status_code == 201, made.text
    one = made.json()
    assert (one["until"], one["given_by"], one["holds"]) == (until, "root", True)
    (mine,) = [item for item in bob.get("/limits").json()["items"] if item["measure"] == "clusters"]
    assert (mine["amount"], mine["exception"]["reason"]) == (3, "Thesis")
    address = f"/quota-exceptions/{one['id']}"
    assert admin.patch(address, json={"amount": 2}).json()["amount"] == 2
    assert admin.patch(address, json={"until": "2020-01-01"}).status_code == 400
    assert [item["id"] for item in admin.get("/quota-exceptions?q=thesis").json()["items"]] == [one["id"]]
    assert admin.delete(address).json()["holds"] is False
    assert admin.delete(address).status_code == 409
    assert admin.get("/quota-exceptions").json()["items"] == []
    assert len(admin.get("/quota-exceptions?state=all").json()["items"]) == 1
    assert bob.get("/limits").json()["together"]["clusters"] == 1


def test_an_exception_needs_a_person_and_a_reason(sign: Sign) -> None:
    admin = sign("root")
    wish = {"user": "bob", "measure": "clusters", "amount": 3, "reason": "Thesis"}
    assert admin.post("/quota-exceptions", json={**wish, "user": "stranger"}).status_code == 404
    assert admin.post("/quota-exceptions", json={**wish, "reason": " "}).status_code == 400
    assert admin.post("/quota-exceptions", json={**wish, "measure": "role_gpu"}).status_code == 400


def test_rules_of_release_reach_whom_they_are_for(sign: Sign) -> None:
    admin, bob, alice = sign("root"), sign("bob"), sign("alice")
    body = {"roles": {"student": {"offered": ["2h", "auto"], "most_seconds": 28800}}}
    seen = admin.patch("/release-rules", json={**body, "dry_run": True}).json()
    assert (seen["applied"], seen["people"], len(seen["changes"])) == (False, 1, 2)
    assert admin.patch("/release-rules", json=body).json()["applied"] is True
    assert bob.get("/limits").json()["releases"] == ["auto", "2h"]
    assert len(alice.get("/limits").json()["releases"]) > 2
    refused = admin.patch("/release-rules", json={"roles": {"student": {"default": "7d"}}})
    assert refused.status_code == 400
    refused = admin.patch(
        "/release-rules", json={"everybody": {"grace_seconds": 600}, "roles": {"x": {"default": "auto"}}}
    )
    assert refused.status_code == 404
    assert admin.get("/release-rules").json()["everybody"]["grace_seconds"] == 300, "all or none"


@pytest.mark.parametrize("name", ["bob", "alice", "nobody"])
def test_who_lacks_the_right_can_neither_see_nor_change(sign: Sign, name: str) -> None:
    visitor = sign(name)
    calls = (
        ("GET", "/quotas"),
        ("PATCH", "/quotas"),
        ("GET", "/quota-exceptions"),
        ("POST", "/quota-exceptions"),
        ("GET", "/release-rules"),
        ("PATCH", "/release-rules"),
        ("GET", "/people/root/limits"),
    )
    for method, path in calls:
        answer = visitor.request(method, path, json=None if method == "GET" else {})
        assert answer.status_code == 403, (method, path)
    for page in ("admin/quotas", "admin/release", "admin/quotas/history", "admin/quotas/exception"):
        address = str(visitor.base_url).removesuffix("api/v1/") + page
        assert visitor.get(address, headers={"Accept": "text/html"}).status_code == 403, page
    assert visitor.get(f"/people/{name}/limits").status_code == 200, "one's own"


def test_a_token_without_the_scope_may_not_although_its_owner_may(site: LiveSite, sign: Sign) -> None:
    scopes = [scope for scope in site.hub.scopes("root") if scope != "custom:galilean:quotas:manage"]
    assert sign("root", scopes=scopes).get("/quotas").status_code == 403
    assert sign("root").get("/quotas").status_code == 200


def test_one_person_may_be_let_keep_clusters_until_released_by_hand(sign: Sign) -> None:
    admin, bob = sign("root"), sign("bob")
    assert "manual" not in bob.get("/limits").json()["releases"]
    wish = {"user": "bob", "measure": "manual_release", "amount": "yes", "reason": "Runs for days"}
    assert admin.post("/quota-exceptions", json=wish).status_code == 201
    assert "manual" in bob.get("/limits").json()["releases"]
    asked = {"nodes": 1, "cpu": 1, "memory": "1G", "release": "manual"}
    assert bob.post("/projects", json={"name": "Heat flow"}).status_code == 201
    assert bob.post("/projects/bob/heat-flow/clusters", json=asked).status_code in (200, 202)
