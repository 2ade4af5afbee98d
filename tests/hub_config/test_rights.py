"""Who may do what at the hub, with the roles as they are wired (AP-2)."""

from __future__ import annotations

import pytest
from jupyterhub import orm

from galilean.errors import UserError
from galilean.rights import initial
from services.catalog.projects import Projects
from services.people.waiting import count_waiting, grant, list_accounts, take
from spawner import records
from tests.hub_config.conftest import SiteFactory

pytestmark = pytest.mark.hub


async def refused(call: object) -> UserError:
    with pytest.raises(UserError) as error:
        await call  # type: ignore[misc]
    return error.value


async def test_somebody_without_a_role_may_look_and_not_run(site_of: SiteFactory) -> None:
    site = await site_of()
    eva = await site.person("eva")
    assert (await eva.user("eva"))["name"] == "eva"
    error = await refused(eva.start("eva", "heat", {"project": "heat"}))
    assert error.status == 403
    assert (await refused(eva.users())).status == 403
    assert (await refused(eva.add_to_group("galilean:student", "eva"))).status in (403, 404)


async def test_a_role_counts_at_once_and_is_gone_at_once_for_tokens_that_exist(site_of: SiteFactory) -> None:
    site = await site_of()
    eva = await site.person("eva")
    roles = initial(site.settings)
    assert await count_waiting(site.command, roles) == 1
    await grant(site.command, "eva", "student", roles)
    # Past the hub's own check; what refuses now is the catalogue, which knows no such project.
    assert (await refused(eva.start("eva", "heat", {"project": "heat"}))).status == 404
    assert await count_waiting(site.command, roles) == 0
    await take(site.command, "eva", "student", roles)
    assert (await refused(eva.start("eva", "heat", {"project": "heat"}))).status == 403


async def test_a_student_starts_and_stops_only_their_own(site_of: SiteFactory) -> None:
    site = await site_of()
    eva = await site.person("eva", "student")
    await site.person("tom", "student")
    assert (await refused(eva.start("tom", "heat", {}))).status in (403, 404)
    assert (await refused(eva.stop("tom", "heat"))).status in (403, 404)
    assert (await refused(eva.user("tom"))).status in (403, 404)
    assert (await refused(eva.request("POST", "/users/tom/tokens", json={}))).status in (403, 404)


async def test_a_student_runs_a_project_and_only_within_the_limits_of_the_role(site_of: SiteFactory) -> None:
    site = await site_of()
    eva = await site.person("eva", "student")
    wiring = site.app.wiring
    made = await Projects(wiring.database, site.settings, wiring.clock).create("eva", "Heat flow")
    too_much = await refused(eva.start("eva", made.slug, {"nodes": 3}))
    assert (too_much.status, too_much.reason) == (429, "quota")
    assert "2" in str(too_much)
    assert await eva.start("eva", made.slug, {"nodes": 2}) in (201, 202)
    (run,) = await wiring.database.run_read(records.all_open)
    assert (run.user, run.nodes, run.project_name) == ("eva", 2, "Heat flow")
    assert await eva.stop("eva", made.slug) in (202, 204)


async def test_administrators_of_the_settings_hold_the_role_and_may_give_roles(site_of: SiteFactory) -> None:
    site = await site_of({"signup": {"admins": ["root1"]}})
    admin = site.api(await site.token("root1"))
    await site.person("eva")
    await grant(admin, "eva", "student", initial(site.settings))
    accounts = await list_accounts(admin, initial(site.settings))
    assert {a.name: a.roles for a in accounts} == {"root1": ("admin",), "eva": ("student",)}
    with pytest.raises(UserError) as last:
        await take(admin, "root1", "admin", initial(site.settings))
    assert last.value.status == 409
    with pytest.raises(UserError):
        await grant(admin, "eva", "emperor", initial(site.settings))


async def test_a_group_that_happens_to_be_called_admin_gives_nothing(site_of: SiteFactory) -> None:
    site = await site_of()
    eva = await site.person("eva")
    for name in ("admin", "galilean-admin", "student"):
        group = orm.Group(name=name)
        group.users.append(orm.User.find(site.app.db, "eva"))
        site.app.db.add(group)
    site.app.db.commit()
    assert set((await eva.user("eva"))["groups"]) == {"admin", "galilean-admin", "student"}
    assert (await refused(eva.users())).status == 403
    assert (await refused(eva.start("eva", "heat", {}))).status == 403


@pytest.mark.parametrize(
    ("service", "may", "may_not"),
    [
        ("portal", ("GET", "/users"), ("POST", "/users/eva/servers/heat")),
        ("portal", ("GET", "/users/eva"), ("POST", "/groups/galilean:admin/users")),
        ("metering", ("GET", "/users"), ("DELETE", "/users/eva/servers/heat")),
        ("release", ("GET", "/users"), ("POST", "/users/eva/tokens")),
        ("queue", ("GET", "/users"), ("DELETE", "/users/eva/servers/heat")),
        ("queue", ("GET", "/users/eva"), ("POST", "/users/eva/tokens")),
        ("command", ("GET", "/users"), ("POST", "/shutdown")),
    ],
)
async def test_a_service_may_what_its_work_needs_and_no_more(
    site_of: SiteFactory, service: str, may: tuple[str, str], may_not: tuple[str, str]
) -> None:
    site = await site_of()
    await site.person("eva", "student")
    hub = site.api(site.secrets.tokens[service])
    assert (await hub.request(*may)).status_code == 200
    error = await refused(hub.request(*may_not, json={"users": ["eva"]}))
    assert error.status in (403, 404)
