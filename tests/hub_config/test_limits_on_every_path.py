"""Whichever way a start comes to the hub, the limits that hold at that moment are those of the owner."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import Connection

from extensions.quota import store
from extensions.quota.measures import Measure
from galilean.clock import utcnow
from galilean.errors import UserError
from services.catalog.projects import Projects
from spawner import records
from tests.hub_config.conftest import Site, SiteFactory, fill
from tests.hub_config.test_sign_up import sign_up

pytestmark = pytest.mark.hub

PASSWORD = "winter is coming"


async def project(site: Site, owner: str, name: str) -> str:
    wiring = site.app.wiring
    return (await Projects(wiring.database, site.settings, wiring.clock).create(owner, name)).slug


async def decide(site: Site, function: Any, *args: Any, **kwargs: Any) -> Any:
    """As another process does it: the portal, or a command."""
    database = type(site.app.wiring.database)(site.settings.database_url)
    try:
        return await database.run(function, *args, actor=store.COMMAND, now=utcnow(), **kwargs)
    finally:
        database.close()


async def status(call: Any) -> int:
    try:
        return await call
    except UserError as error:
        return error.status


async def held(site: Site, user: str) -> int:
    def count(conn: Connection) -> int:
        return records.count_open(conn, user=user)

    return await site.app.wiring.database.run_read(count)


async def test_a_limit_that_was_just_changed_holds_for_the_next_start(site_of: SiteFactory) -> None:
    site = await site_of()
    eva = await site.person("eva", "student")
    heat = await project(site, "eva", "Heat")
    nodes = Measure("nodes")
    assert await status(eva.start("eva", heat, {"nodes": 3})) == 429
    await decide(site, store.set_limits, [("student", nodes, 3)])
    assert await status(eva.start("eva", heat, {"nodes": 3, "cpu": 1, "memory": "1G"})) in (201, 202)
    await eva.stop("eva", heat)
    await decide(site, store.set_limits, [("student", nodes, 1)])
    await decide(
        site, store.give, "eva", [(nodes, 2)], reason="Team", expires_at=utcnow() + timedelta(hours=1)
    )
    tom = await site.person("tom", "student")
    tides = await project(site, "tom", "Tides")
    small = {"nodes": 2, "cpu": 1, "memory": "1G"}
    assert await status(tom.start("tom", tides, small)) == 429
    ice = await project(site, "eva", "Ice")
    assert await status(eva.start("eva", ice, small)) in (201, 202)


async def test_an_administrator_who_starts_for_somebody_is_held_to_the_limits_of_that_person(
    site_of: SiteFactory,
) -> None:
    site = await site_of({"signup": {"admins": ["root1"]}})
    await site.person("eva", "student")
    admin = site.api(await site.token("root1"))
    heat, own = await project(site, "eva", "Heat"), await project(site, "root1", "Own")
    assert await status(admin.start("eva", heat, {"nodes": 3})) == 429
    assert await status(admin.start("eva", heat, {"release": "manual"})) == 403
    assert await status(admin.start("root1", own, {"nodes": 3, "release": "manual"})) in (201, 202)
    assert await held(site, "eva") == 0


async def test_the_hubs_own_form_is_no_way_around(site_of: SiteFactory) -> None:
    site = await site_of()
    async with site.browser() as browser:
        await sign_up(browser, "eva")
        await site.command.add_to_group("galilean:student", "eva")
        heat = await project(site, "eva", "Heat")
        cookie = next(value for name, value in browser.cookies.items() if name == "_xsrf")
        for fields in ({"nodes": "3"}, {"nodes": "1", "cpu": "64"}, {"nodes": "99999"}):
            await browser.post(f"/hub/spawn/eva/{heat}", data={"_xsrf": cookie, **fields})
            await browser.get(f"/hub/spawn/eva/{heat}", params=fields)
            assert await held(site, "eva") == 0
        await decide(site, store.set_limits, [("student", Measure("clusters"), 0)])
        await fill_if_there(browser, f"/hub/spawn/eva/{heat}")
        assert await held(site, "eva") == 0


async def fill_if_there(browser: Any, path: str) -> None:
    """Send the hub's own form, where the hub still has one."""
    page = await browser.get(path)
    if page.status_code == 200:
        await fill(browser, path)
    cookie = next(value for name, value in browser.cookies.items() if name == "_xsrf")
    await browser.post(path, data={"_xsrf": cookie})


async def test_the_next_hub_counts_what_ran_under_the_one_before(site_of: SiteFactory) -> None:
    site = await site_of()
    eva = await site.person("eva", "student")
    heat = await project(site, "eva", "Heat")
    assert await status(eva.start("eva", heat, {"nodes": 1})) in (201, 202)
    assert await held(site, "eva") == 1
    site = await site_of()
    eva = site.api(await site.token("eva"))
    ice = await project(site, "eva", "Ice")
    assert await status(eva.start("eva", ice, {"nodes": 1})) == 429
    assert await held(site, "eva") == 1
