"""Accounts, roles and groups at the hub: who may what to whom, on every way in (AP-32 … AP-36)."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import select

from galilean.clock import utcnow
from galilean.errors import UserError
from galilean.hubapi import HubAPI
from galilean.rights import RIGHTS
from galilean.tables import audit_log
from services.people import roles, store
from tests.hub_config.conftest import Site, SiteFactory, fill
from tests.hub_config.test_rights import refused

pytestmark = pytest.mark.hub


async def decide(site: Site, function: Any, **values: Any) -> None:
    """Change roles or groups as the portal does, and tell the hub."""
    wiring = site.app.wiring
    await wiring.database.run(lambda conn: function(conn, now=utcnow(), by="root1", **values))
    await site.api(site.secrets.tokens["portal"]).request("POST", "/galilean/roles")


async def a_role(site: Site, name: str, *rights: str) -> None:
    await decide(site, roles.create_role, name=name, title=name.capitalize(), rights=rights)


async def log_of(site: Site) -> list[tuple[str, str, str]]:
    lines = await site.app.wiring.database.run_read(
        lambda conn: conn.execute(
            select(audit_log.c.actor, audit_log.c.action, audit_log.c.subject).order_by(audit_log.c.id)
        ).all()
    )
    return [tuple(line) for line in lines]


def patch(hub: HubAPI, name: str, **body: Any) -> Any:
    return hub.request("PATCH", f"/galilean/people/{name}", json=body)


async def test_each_change_of_a_person_leaves_its_line_and_none_where_it_is_refused(
    site_of: SiteFactory,
) -> None:
    site = await site_of({"signup": {"admins": ["root1"]}})
    await site.person("tom", "student")
    tom, root = site.api(await site.token("tom")), site.api(await site.token("root1"))
    eva = "/galilean/people/eva"
    calls: list[tuple[str, str, str, dict[str, Any]]] = [
        ("person.create", "POST", "/galilean/people", {"name": "eva", "password": "long enough"}),
        ("person.groups", "PATCH", eva, {"add": ["galilean:student"]}),
        ("person.names", "PUT", eva + "/names", {"full_name": "Eva Lind"}),
        ("person.password", "PUT", eva + "/password", {"password": "longer still"}),
        ("person.block", "POST", eva + "/block", {"reason": "Lent the password"}),
        ("person.unblock", "DELETE", eva + "/block", {}),
        ("person.delete", "DELETE", eva, {}),
    ]
    for action, method, path, body in calls:
        before = len(await log_of(site))
        assert (await refused(tom.request(method, path, json=body))).status == 403, action
        assert len(await log_of(site)) == before, action
        await root.request(method, path, json=body)
        assert (await log_of(site))[before:] == [("root1", action, "eva")]


async def test_whoever_manages_people_makes_accounts_and_gives_what_is_no_more_than_their_own(
    site_of: SiteFactory,
) -> None:
    site = await site_of({"signup": {"admins": ["root1"]}})
    await a_role(site, "desk", "people:manage")
    await a_role(site, "warden", "people:manage", "audit:read")
    desk = await site.person("dora", "desk")
    await desk.request(
        "POST",
        "/galilean/people",
        json={"name": "eva", "password": "long enough", "groups": ["galilean:student"], "full_name": "Eva"},
    )
    assert (await site.command.user("eva"))["groups"] == ["galilean:student"]
    for group, person in (
        ("galilean:admin", "eva"),  # more than she has
        ("galilean:warden", "eva"),
        ("galilean:student", "dora"),  # herself
        ("galilean:admin", "dora"),
    ):
        error = await refused(patch(desk, person, add=[group]))
        assert error.status == 403, group
    assert (await refused(patch(desk, "root1", remove=["galilean:admin"]))).status == 403
    # Nor by the hub's own doors.
    for call in (
        desk.add_to_group("galilean:admin", "dora"),
        desk.request("PATCH", "/users/dora", json={"admin": True}),
        desk.request("DELETE", "/users/root1"),
        desk.request("DELETE", "/galilean/people/root1"),
        desk.request("PUT", "/galilean/people/root1/password", json={"password": "mine now 123"}),
        desk.request("POST", "/galilean/people/root1/block", json={"reason": "x"}),
        desk.request("POST", "/users/root1/tokens", json={}),
        desk.request("POST", "/galilean/roles"),
    ):
        assert (await refused(call)).status in (403, 404)
    log = await log_of(site)
    assert ("dora", "person.create", "eva") in log
    assert ("dora", "role.refused", "dora") in log


async def test_a_right_that_a_role_gets_or_loses_counts_at_once_for_tokens_that_exist(
    site_of: SiteFactory,
) -> None:
    site = await site_of()
    await a_role(site, "desk")
    dora = await site.person("dora", "desk")
    assert (await refused(dora.request("POST", "/galilean/people", json={"name": "eva"}))).status == 403
    await decide(site, lambda conn, **more: roles.change_role(conn, "desk", rights=["people:manage"], **more))
    await dora.request("POST", "/galilean/people", json={"name": "eva"})
    await decide(site, lambda conn, **more: roles.change_role(conn, "desk", rights=[], **more))
    assert (await refused(dora.request("POST", "/galilean/people", json={"name": "tom"}))).status == 403
    await decide(site, lambda conn, **more: roles.delete_role(conn, "desk", uses=(), **more))
    assert (await refused(dora.start("dora", "heat", {}))).status == 403


async def test_the_hub_notices_a_change_that_nobody_told_it_of(site_of: SiteFactory) -> None:
    site = await site_of()
    wiring = site.app.wiring
    dora = await site.person("dora", "student")
    await wiring.database.run(
        lambda conn: roles.change_role(conn, "student", rights=["people:manage"], now=utcnow(), by="file")
    )
    assert await wiring.following.look(site.app.db, wiring.database)
    assert not await wiring.following.look(site.app.db, wiring.database)
    assert "dora" in {person["name"] for person in await dora.users()}


async def test_members_of_a_group_have_its_roles_for_as_long_as_they_are_in_it(site_of: SiteFactory) -> None:
    site = await site_of({"signup": {"admins": ["root1"]}})
    admin = site.api(await site.token("root1"))
    eva = await site.person("eva")
    await decide(site, roles.create_group, title="Physics 101", given=["student"])
    assert (await refused(eva.start("eva", "heat", {"project": "heat"}))).status == 403
    await patch(admin, "eva", add=["galilean-group:physics-101"])
    # Past the hub's check: the catalogue knows no such project.
    assert (await refused(eva.start("eva", "heat", {"project": "heat"}))).status == 404
    await decide(site, lambda conn, **more: roles.change_group(conn, "physics-101", given=[], **more))
    assert (await refused(eva.start("eva", "heat", {"project": "heat"}))).status == 403
    assert (await refused(patch(admin, "eva", add=["galilean-group:nowhere"]))).status == 404
    assert (await refused(patch(admin, "eva", add=["admin"]))).status == 400


async def test_roles_and_groups_are_there_again_after_a_restart(site_of: SiteFactory) -> None:
    site = await site_of()
    await a_role(site, "desk", "people:manage")
    await decide(site, roles.create_group, title="Physics 101", given=["desk"])
    await site.person("dora")
    await patch(site.command, "dora", add=["galilean-group:physics-101"])
    site = await site_of()
    dora = site.api(await site.token("dora"))
    await dora.request("POST", "/galilean/people", json={"name": "eva"})


async def test_who_is_blocked_comes_in_nowhere_and_nothing_starts_for_them(site_of: SiteFactory) -> None:
    site = await site_of({"signup": {"admins": ["root1"]}})
    admin = site.api(await site.token("root1"))
    await admin.request(
        "POST",
        "/galilean/people",
        json={"name": "eva", "password": "correct horse", "groups": ["galilean:student"]},
    )
    eva = site.api(await site.token("eva"))
    assert (await refused(admin.request("POST", "/galilean/people/eva/block", json={}))).status == 400
    await admin.request("POST", "/galilean/people/eva/block", json={"reason": "Lent the password"})
    assert (await refused(eva.user("eva"))).status in (401, 403)
    async with site.browser() as browser:
        answer = await fill(browser, "/hub/login", username="eva", password="correct horse")
        assert answer.status_code == 403
        assert "blocked" in answer.text
        wrong = await fill(browser, "/hub/login", username="eva", password="a wrong guess")
        assert "blocked" not in wrong.text
    error = await refused(admin.start("eva", "heat", {"project": "heat"}))
    assert (error.status, "blocked" in str(error)) == (403, True)
    found = await site.app.wiring.database.run_read(store.get, "eva")
    assert found is not None
    assert (found.blocked_by, found.blocked_reason) == ("root1", "Lent the password")
    await admin.request("DELETE", "/galilean/people/eva/block")
    async with site.browser() as browser:
        answer = await fill(browser, "/hub/login", username="eva", password="correct horse")
        assert answer.status_code == 302


async def test_an_administrator_is_always_left(site_of: SiteFactory) -> None:
    site = await site_of({"signup": {"admins": ["root1"]}})
    admin = site.api(await site.token("root1"))
    for call in (
        admin.request("DELETE", "/galilean/people/root1"),
        admin.request("POST", "/galilean/people/root1/block", json={"reason": "x"}),
        patch(admin, "root1", remove=["galilean:admin"]),
        admin.remove_from_group("galilean:admin", "root1"),
        patch(site.command, "root1", remove=["galilean:admin"]),
        site.command.request("DELETE", "/users/root1"),
    ):
        assert (await refused(call)).status == 409
    await patch(admin, "root1", add=["galilean:teacher"])
    other = await site.person("root2", "admin")
    await other.request("DELETE", "/galilean/people/root1")
    with pytest.raises(UserError):
        await other.request("DELETE", "/galilean/people/root2")


async def test_the_rights_of_a_token_that_carries_less_are_what_counts(site_of: SiteFactory) -> None:
    site = await site_of({"signup": {"admins": ["root1"]}})
    made = await site.command.request(
        "POST", "/users/root1/tokens", json={"scopes": ["custom:galilean:groups:manage", "read:users!user"]}
    )
    small = site.api(made.json()["token"])
    assert (await refused(small.request("POST", "/galilean/people", json={"name": "eva"}))).status == 403
    await site.person("eva")
    assert (await refused(patch(small, "eva", add=["galilean:admin"]))).status == 403
    assert set(RIGHTS) >= {"groups:manage"}


async def test_a_change_is_noted_before_it_is_made(
    site_of: SiteFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A hub that ends between the two leaves a line too many, never one too few."""
    site = await site_of({"signup": {"admins": ["root1"]}})
    await site.person("eva", "student")
    root = await site.person("root2", "admin")

    def full(*_: Any, **__: Any) -> None:
        raise UserError(507, "The disk of the platform's database is full.")

    for call, kept in (
        (lambda: patch(root, "eva", add=["galilean:teacher"]), ["galilean:student"]),
        (
            lambda: root.request("POST", "/galilean/people/eva/block", json={"reason": "x"}),
            ["galilean:student"],
        ),
        (lambda: root.add_to_group("galilean:teacher", "eva"), ["galilean:student"]),
        (lambda: root.request("DELETE", "/galilean/people/eva"), ["galilean:student"]),
    ):
        with monkeypatch.context() as patched:
            patched.setattr("galilean.audit.write", full)
            assert (await refused(call())).status == 507
        assert (await site.command.user("eva"))["groups"] == kept
    with monkeypatch.context() as patched:
        patched.setattr("services.people.store.block", full)
        call = root.request("POST", "/galilean/people/eva/block", json={"reason": "x"})
        assert (await refused(call)).status == 507
    assert [action for _, action, subject in await log_of(site) if subject == "eva"][-2:] == [
        "person.block",
        "person.block.failed",
    ]
