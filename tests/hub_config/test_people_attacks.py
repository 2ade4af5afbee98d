"""What people, scripts and services try with accounts, groups and tokens, against the whole hub."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx
import pytest
from jupyterhub import orm

from galilean.clock import utcnow
from galilean.errors import UserError
from galilean.hubapi import HubAPI
from galilean.rights import RIGHTS
from hub_config.people_api import Block
from services.catalog.projects import Projects
from services.people import roles
from tests.hub_config.conftest import Site, SiteFactory, fill
from tests.hub_config.test_people_api import a_role, decide, log_of, patch
from tests.hub_config.test_rights import refused

pytestmark = pytest.mark.hub

ADMINS = {"signup": {"admins": ["root1"]}}


async def token(site: Site, name: str, *scopes: str) -> str:
    made = await site.command.request("POST", f"/users/{name}/tokens", json={"scopes": list(scopes)})
    return made.json()["token"]


async def send(site: Site, method: str, path: str, body: Any) -> httpx.Response:
    """A request of the administrator, also with half characters, which a client of ours would not send."""
    async with httpx.AsyncClient(base_url=f"{site.url}/api") as client:
        headers = {"Authorization": f"token {await site.token('root1')}"}
        return await client.request(method, path, content=json.dumps(body), headers=headers)


async def block(hub: HubAPI, name: str) -> None:
    await hub.request("POST", f"/galilean/people/{name}/block", json={"reason": "Lent the password"})


def members(site: Site, name: str) -> set[str]:
    group = orm.Group.find(site.app.db, name)
    return {user.name for user in group.users} if group else set()


async def test_a_blocked_person_is_nobody_with_whatever_token(
    site_of: SiteFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = await site_of(ADMINS)
    admin = site.api(await site.token("root1"))
    eva = await site.person("eva", "student", "admin")
    wiring = site.app.wiring
    heat = (await Projects(wiring.database, site.settings, wiring.clock).create("eva", "Heat")).slug
    await eva.start("eva", heat, {"nodes": 1})
    server = f"access:servers!server=eva/{heat}"
    everything = site.api(await token(site, "eva", server, "inherit"))
    like_a_node = site.api(
        await token(site, "eva", server, "users:activity!user=eva", "access:services!service=portal")
    )
    left = site.api(await token(site, "eva", server, "custom:galilean:people:manage", "read:users!user=eva"))
    node = site.api(site.app.users["eva"].spawners[heat].api_token)
    await block(admin, "eva")
    for hub in (eva, everything, left, like_a_node):
        for call in (
            hub.request("GET", "/user"),
            hub.user("eva"),
            hub.users(),
            hub.request("DELETE", "/galilean/people/eva/block"),
            hub.request("POST", "/galilean/people", json={"name": "tom"}),
            hub.request("POST", "/users/eva/tokens", json={}),
            hub.stop("eva", heat),
        ):
            assert (await refused(call)).status in (401, 403)
    # What was chosen to go on goes on: the node says that it is alive, and no more.
    at = utcnow().isoformat()
    await node.request("POST", "/users/eva/activity", json={"servers": {heat: {"last_activity": at}}})
    assert (await refused(node.request("DELETE", "/galilean/people/eva/block"))).status == 403
    assert {name for token in site.app.users["eva"].api_tokens for name in token.scopes} <= {
        server,
        "users:activity!user=eva",
        "users:activity!user",
        "access:services!service=portal",
    }


async def test_a_token_that_was_overlooked_still_opens_nothing_for_who_is_blocked(
    site_of: SiteFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = await site_of(ADMINS)
    admin = site.api(await site.token("root1"))
    eva = await site.person("eva", "admin")
    monkeypatch.setattr("hub_config.people_api.of_a_node", lambda token: "spare them all")
    await block(admin, "eva")
    error = await refused(eva.user("eva"))
    assert (error.status, "blocked" in str(error)) == (403, True)
    assert (await refused(eva.request("DELETE", "/galilean/people/eva/block"))).status == 403
    assert (await refused(eva.request("GET", "/"))).status == 403
    assert members(site, "galilean-blocked") == {"eva"}
    assert Block.opened_by


async def test_who_is_blocked_makes_no_token_by_password_and_signs_in_by_no_authenticator(
    site_of: SiteFactory,
) -> None:
    site = await site_of(
        {**ADMINS, "jupyterhub": {"JupyterHub": {"authenticator_class": "dummy"}}}, JUPYTERHUB_TEST="1"
    )
    admin = site.api(await site.token("root1"))
    await site.person("eva", "student")
    await block(admin, "eva")
    async with site.browser() as browser:
        answer = await fill(browser, "/hub/login", username="eva", password="x")
        assert answer.status_code == 403
        assert "blocked" in answer.text
        body = {"auth": {"username": "eva", "password": "x"}}
        made = await browser.post("/hub/api/users/eva/tokens", json=body)
        assert made.status_code == 403
    # Accounts come from elsewhere there, and that is said.
    for call in (
        admin.request("POST", "/galilean/people", json={"name": "tom", "password": "long enough"}),
        admin.request("PUT", "/galilean/people/eva/password", json={"password": "long enough"}),
    ):
        error = await refused(call)
        assert (error.status, error.reason) == (409, "elsewhere")
    await admin.request("POST", "/galilean/people", json={"name": "tom", "groups": ["galilean:student"]})
    assert members(site, "galilean:student") == {"eva", "tom"}


async def test_nobody_blocks_or_lets_in_themselves(site_of: SiteFactory) -> None:
    site = await site_of(ADMINS)
    admin = site.api(await site.token("root1"))
    await site.person("root2", "admin")
    for method, body in (("POST", {"reason": "x"}), ("DELETE", None)):
        error = await refused(admin.request(method, "/galilean/people/root1/block", json=body))
        assert (error.status, error.reason) == (409, "yourself")
    for call in (
        admin.add_to_group("galilean-blocked", "root1"),
        admin.remove_from_group("galilean-blocked", "root2"),
        admin.request("DELETE", "/groups/galilean-blocked"),
    ):
        assert (await refused(call)).status == 409


async def test_a_group_that_nobody_knows_is_made_by_no_way(site_of: SiteFactory) -> None:
    site = await site_of(ADMINS)
    await a_role(site, "desk", "people:manage", "groups:manage")
    dora = await site.person("dora", "desk")
    admin = site.api(await site.token("root1"))
    await site.person("eva")
    for name in ("galilean:future", "galilean-group:future", "galilean:desk", "wheel"):
        for hub in (dora, admin):
            assert (await refused(patch(hub, "eva", add=[name], remove=[name]))).status == 400
    for name in ("galilean:future", "galilean-group:future", "galilean:"):
        assert (await refused(patch(admin, "eva", add=[name]))).status == 404
        assert (await refused(admin.request("POST", f"/groups/{name}", json={}))).status == 409
        assert (await refused(admin.request("POST", "/groups", json={"groups": ["x", name]}))).status == 409
        assert orm.Group.find(site.app.db, name) is None
    await admin.request("POST", "/groups/chess", json={"users": ["eva"]})  # of nobody's business
    await admin.request("DELETE", "/groups/chess")


async def test_a_group_that_gets_a_meaning_begins_without_members(site_of: SiteFactory) -> None:
    site = await site_of()
    await site.person("eva")
    for name in ("galilean:future", "galilean-group:club"):
        group = orm.Group(name=name)
        group.users.append(site.app.users["eva"].orm_user)
        site.app.db.add(group)
    site.app.db.commit()
    await a_role(site, "future", "people:manage")
    await decide(site, roles.create_group, title="Club", given=["student"])
    assert members(site, "galilean:future") == members(site, "galilean-group:club") == set()
    await patch(site.command, "eva", add=["galilean:future"])
    await decide(site, lambda conn, **more: roles.change_role(conn, "future", rights=[], **more))
    assert members(site, "galilean:future") == {"eva"}


@pytest.mark.parametrize("value", ["10.0.0.1 \xe9", "\xe9 \xe9", "10.0.0.1 " + "0" * 64, "x" * 4000])
async def test_no_header_keeps_a_line_out_of_the_audit_log(site_of: SiteFactory, value: str) -> None:
    site = await site_of(ADMINS)
    admin = await site.token("root1")
    await site.person("eva")
    async with httpx.AsyncClient(base_url=f"{site.url}/api") as client:
        answer = await client.patch(
            "/galilean/people/eva",
            json={"add": ["galilean:student"]},
            headers={
                b"Authorization": f"token {admin}".encode(),
                b"X-Galilean-From": value.encode("latin-1"),
            },
        )
    assert answer.status_code == 200
    assert ("root1", "person.groups", "eva") in await log_of(site)


@pytest.mark.parametrize("text", ["half a \ud800 letter", "nothing \x00 between", ["a", "list"], 7, {"a": 1}])
async def test_no_text_keeps_a_line_out_of_the_audit_log(site_of: SiteFactory, text: Any) -> None:
    site = await site_of(ADMINS)
    raw = {"full_name": text, "reason": text, "import_id": text}
    made = (await send(site, "POST", "/galilean/people", {"name": "eva", **raw})).status_code
    blocked = (await send(site, "POST", "/galilean/people/eva/block", raw)).status_code
    named = (await send(site, "PUT", "/galilean/people/eva/names", raw)).status_code
    fine = isinstance(text, str)
    assert (made, blocked, named) == ((201, 200, 204) if fine else (400, 404, 404))
    lines = await log_of(site)
    assert (("root1", "person.create", "eva") in lines) == fine
    assert (("root1", "person.block", "eva") in lines) == fine


async def test_the_last_administrators_do_not_go_together(site_of: SiteFactory) -> None:
    site = await site_of(ADMINS)
    admin = site.api(await site.token("root1"))
    other = await site.person("root2", "admin")
    both = {"users": ["root1", "root2"]}
    for call in (
        admin.request("DELETE", "/groups/galilean:admin/users", json=both),
        admin.request("DELETE", "/groups/galilean:admin/users", json={"users": ["ROOT1", "Root2"]}),
        admin.request("DELETE", "/groups/galilean:admin"),
    ):
        assert (await refused(call)).status == 409
    # Each deletes the other one at the same moment.
    results = await asyncio.gather(
        admin.request("DELETE", "/galilean/people/root2"),
        other.request("DELETE", "/users/root1"),
        return_exceptions=True,
    )
    assert members(site, "galilean:admin")
    assert any(isinstance(result, UserError) for result in results)


async def test_a_service_is_no_more_than_its_scopes(site_of: SiteFactory) -> None:
    extra = {"JupyterHub": {"services": [{"name": "desk", "api_token": "d" * 32}]}}
    site = await site_of(ADMINS)
    role = orm.Role(name="script", description="", scopes=["custom:galilean:people:manage"])
    service = orm.Service(name="desk", admin=False)
    service.roles.append(role)
    site.app.db.add_all([role, service])
    site.app.db.commit()
    script = site.api(service.new_api_token())
    assert extra
    await site.person("eva")
    await a_role(site, "warden", "audit:read")
    for group in ("galilean:admin", "galilean:warden"):
        assert (await refused(patch(script, "eva", add=[group]))).status == 403
    for call in (
        script.request("POST", "/galilean/people", json={"name": "tom", "groups": ["galilean:admin"]}),
        script.request("PUT", "/galilean/people/root1/password", json={"password": "mine now 123"}),
        script.request("DELETE", "/galilean/people/root1"),
        script.request("POST", "/galilean/people/root1/block", json={"reason": "x"}),
    ):
        assert (await refused(call)).status == 403
    await patch(script, "eva", add=["galilean:student"])
    assert ("service:desk", "person.groups", "eva") in await log_of(site)


async def test_who_manages_groups_goes_into_none(site_of: SiteFactory) -> None:
    site = await site_of()
    await a_role(site, "keeper", "groups:manage")
    await decide(site, roles.create_group, title="Club")
    kim = await site.person("kim", "keeper")
    await site.person("eva")
    assert (await refused(patch(kim, "kim", add=["galilean-group:club"]))).status == 403
    await patch(kim, "eva", add=["galilean-group:club"])
    await patch(site.command, "kim", add=["galilean-group:club"])
    await patch(kim, "kim", remove=["galilean-group:club"])


async def test_a_name_that_the_settings_make_administrator_is_nobody_elses(site_of: SiteFactory) -> None:
    site = await site_of({"signup": {"admins": ["root1", "Root2"]}})
    admin = site.api(await site.token("root1"))
    await a_role(site, "desk", "people:manage")
    desk = await site.person("dora", "desk")
    await admin.request("DELETE", "/galilean/people/root2")
    made = {"name": "Root2", "password": "mine now 123"}
    assert (await refused(desk.request("POST", "/galilean/people", json=made))).status == 403
    async with site.browser() as browser:
        answer = await fill(browser, "/hub/signup", username="root2", signup_password="mine now 123")
        assert answer.status_code == 409
    await admin.request("POST", "/galilean/people", json=made)
    assert members(site, "galilean:admin") == {"root1"}
    # It will be again at the next start, so its password is not the desk's to set either.
    call = desk.request("PUT", "/galilean/people/root2/password", json={"password": "mine now 456"})
    assert (await refused(call)).status == 403


async def test_letters_go_to_the_address_that_was_given_last(site_of: SiteFactory) -> None:
    site = await site_of(ADMINS)
    admin = site.api(await site.token("root1"))
    machines = site.api(site.secrets.tokens["machines"])

    async def address() -> dict[str, str]:
        return (await machines.request("POST", "/galilean/addresses", json={"names": ["eva"]})).json()

    async with site.browser() as browser:
        await fill(
            browser, "/hub/signup", username="eva", signup_password="correct horse", email="old@example.edu"
        )
    assert await address() == {"eva": "old@example.edu"}
    eva = site.api(await site.token("eva"))
    await site.command.add_to_group("galilean:student", "eva")
    await eva.request("PUT", "/galilean/people/eva/names", json={"mail": "new@example.edu"})
    assert await address() == {"eva": "new@example.edu"}
    await admin.request("PUT", "/galilean/people/eva/names", json={"mail": ""})
    assert await address() == {}
    tom = await site.person("tom", "student")
    assert (
        await refused(tom.request("PUT", "/galilean/people/eva/names", json={"mail": "a@b.cd"}))
    ).status == 403
    assert (
        await refused(eva.request("PUT", "/galilean/people/eva/names", json={"mail": "no"}))
    ).status == 400
    assert ("root1", "person.names", "eva") in await log_of(site)


async def test_nobody_learns_by_refusals_which_accounts_there_are(site_of: SiteFactory) -> None:
    site = await site_of(ADMINS)
    await site.person("eva")
    tom = await site.person("tom", "student")
    for hub in (tom, site.api("nothing"), site.api(site.secrets.tokens["metering"])):
        for method, more, body in (
            ("PATCH", "", {"add": []}),
            ("DELETE", "", None),
            ("POST", "/block", {"reason": "x"}),
            ("DELETE", "/block", None),
            ("PUT", "/password", {"password": "x" * 8}),
            ("PUT", "/names", {"mail": ""}),
        ):
            there, nowhere = [
                await refused(hub.request(method, f"/galilean/people/{name}{more}", json=body))
                for name in ("eva", "nobody-at-all")
            ]
            assert (there.status, str(there)) == (nowhere.status, str(nowhere)) == (403, str(there)), more


async def test_nonsense_is_refused_and_never_an_error_of_ours(site_of: SiteFactory) -> None:
    site = await site_of(ADMINS)
    admin = site.api(await site.token("root1"))
    await site.person("eva")
    for body in (
        [],
        "x",
        7,
        {"add": "galilean:student"},
        {"add": [1]},
        {"remove": {"a": 1}},
        {"add": [["x"]]},
    ):
        assert (await refused(patch_raw(admin, "eva", body))).status == 400
    for body in ({"name": 7}, {"name": ["x"]}, {"name": ""}, {"name": "a/b"}, {"name": "x" * 500}, {}):
        assert (await refused(admin.request("POST", "/galilean/people", json=body))).status == 400
    for password in (7, ["x" * 9], "short", "x" * 73, "\ud800" * 9):
        body = {"name": "tom", "password": password}
        assert (await send(site, "POST", "/galilean/people", body)).status_code == 400
    assert (
        await refused(admin.request("POST", "/galilean/people", json={"name": "tom", "mail": "x"}))
    ).status == 400
    for body in ({"users": "eva"}, {"users": [7]}, [], {"users": ["nobody-at-all"]}):
        call = admin.request("POST", "/groups/galilean:student/users", json=body)
        assert (await refused(call)).status == 400
    assert set(RIGHTS) >= {"people:manage"}


def patch_raw(hub: HubAPI, name: str, body: Any) -> Any:
    return hub.request("PATCH", f"/galilean/people/{name}", json=body)
