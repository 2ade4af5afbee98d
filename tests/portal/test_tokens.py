"""What a token that was made for less may do: what it carries, never more."""

from __future__ import annotations

import pytest

from tests.portal.conftest import Sign, made
from tests.portal.live import LiveSite

ENTER = "access:services!service=portal"


def looks(name: str) -> list[str]:
    """The scopes of a token for reading."""
    return [ENTER, f"read:users!user={name}", f"read:servers!user={name}"]


def test_a_token_for_reading_reads_and_changes_nothing(site: LiveSite, sign: Sign) -> None:
    made(sign("alice"))
    run = site.cluster("alice")
    reader = sign("alice", scopes=looks("alice"))
    for path in ("/projects", "/projects/alice/heat-flow/files", "/clusters", f"/clusters/{run}", "/usage"):
        assert reader.get(path).status_code == 200, path
    for method, path, body in (
        ("POST", "/projects", {"name": "More"}),
        ("PATCH", "/projects/alice/heat-flow", {"name": "Less"}),
        ("DELETE", "/projects/alice/heat-flow", None),
        ("PUT", "/projects/alice/heat-flow/files/x.txt", {}),
        ("POST", "/projects/alice/heat-flow/files/folder", {}),
        ("DELETE", "/projects/alice/heat-flow/files/x.txt", None),
        ("POST", "/projects/alice/heat-flow/clusters", {}),
        ("DELETE", f"/clusters/{run}", None),
        ("POST", site.url + f"clusters/{run}/release", None),
    ):
        answer = reader.request(method, path, json=body, headers={"Accept": "application/json"})
        assert (answer.status_code, answer.json()["reason"]) == (403, "scope"), (method, path, answer.text)
        assert "custom:galilean:run" in answer.json()["detail"]
    assert [item["name"] for item in reader.get("/projects").json()["items"]] == ["Heat flow"]
    assert not [call for call in site.hub.calls if call[0] in ("POST", "DELETE")]


def test_an_administrators_token_has_no_right_that_it_does_not_carry(site: LiveSite, sign: Sign) -> None:
    made(sign("alice"))
    run = site.cluster("alice")
    small = sign("root", scopes=[*looks("root"), "custom:galilean:run"])
    assert small.get("/projects/alice/heat-flow").status_code == 404
    assert small.get("/projects", params={"owner": "alice"}).status_code == 403
    assert small.get(f"/clusters/{run}").status_code == 404
    assert small.delete(f"/clusters/{run}").status_code == 404
    assert small.get("/usage", params={"user": "alice"}).status_code == 403
    for page in ("admin/online", "admin/people"):
        assert small.get(site.url + page).status_code == 403
    watching = sign("root", scopes=[*looks("root"), "custom:galilean:clusters:read-all"])
    assert watching.get(f"/clusters/{run}").status_code == 200
    assert watching.delete(f"/clusters/{run}").status_code == 403


def test_a_token_whose_owner_was_just_given_a_role_works_at_once(site: LiveSite, sign: Sign) -> None:
    newcomer = sign("nobody", scopes=looks("nobody"))
    answer = newcomer.post("/projects", json={"name": "Early"})
    assert (answer.status_code, answer.json()["reason"]) == (403, "role")
    site.hub.people["nobody"]["groups"].append("galilean:student")
    site.portal.people.forget("nobody")
    for token in site.hub.tokens.values():
        if token["name"] == "nobody":
            token["scopes"] = [*token["scopes"], "custom:galilean:run"]
    assert newcomer.post("/projects", json={"name": "Early"}).status_code == 201


@pytest.mark.parametrize(
    "scope", ["custom:galilean:run!user=bob", "custom:galilean:runner", "custom:galilean:*"]
)
def test_what_merely_looks_like_the_scope_is_not_it(sign: Sign, scope: str) -> None:
    answer = sign("alice", scopes=[*looks("alice"), scope]).post("/projects", json={"name": "x"})
    assert answer.status_code == 403
