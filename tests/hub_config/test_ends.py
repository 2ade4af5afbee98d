"""Ends that come from the hub: two at once, a deleted person, what the hub forgot, what nobody foresaw."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest
from jupyterhub import orm
from sqlalchemy import text

from galilean.clock import utcnow
from galilean.errors import UserError
from services.catalog import store
from services.catalog.projects import Projects, bin_path
from spawner import records, steps
from spawner.request import ClusterRequest
from tests.hub_config.conftest import Site, SiteFactory
from tests.spawner.backends import World, plan_of

pytestmark = pytest.mark.hub


def world_of(site: Site) -> World:
    return site.app.config.MemoryCluster.world


async def project_of(site: Site, name: str) -> Any:
    wiring = site.app.wiring
    projects = Projects(wiring.database, site.settings, wiring.clock)
    made = await projects.create(name, "Heat flow")
    await projects.files(made)  # its directory is there
    return made


async def until(true: Any) -> Any:
    """Wait for something that happens beside us; a busy machine may take its time."""
    async with asyncio.timeout(60):
        while True:
            if found := await true():
                return found
            await asyncio.sleep(0.02)


async def test_a_release_that_waited_for_the_hub_leaves_alone_what_began_after_it(
    site_of: SiteFactory,
) -> None:
    site = await site_of()
    eva = await site.person("eva", "student")
    made = await project_of(site, "eva")
    world = world_of(site)
    await eva.start("eva", made.slug, {})
    user = site.app.users["eva"]
    user.spawners[made.slug]._check_pending = True  # as after a hub's start, while no node answers
    release = asyncio.ensure_future(eva.stop("eva", made.slug))
    await asyncio.sleep(0.3)
    await user.stop(made.slug)  # the check is over: nobody was there
    gate = world.hold("answer")
    again = asyncio.ensure_future(eva.start("eva", made.slug, {}))
    await world.at("answer")
    assert await release == 204
    gate.set()
    assert await again == 201
    run = await site.app.wiring.database.run_read(records.open_run, "eva", made.slug)
    assert run is not None and run.word == "running"


@pytest.mark.parametrize("phase", ["create", "answer", "remove"])
async def test_two_releases_at_once_are_one_and_neither_is_an_error(site_of: SiteFactory, phase: str) -> None:
    site = await site_of()
    eva = await site.person("eva", "student")
    made = await project_of(site, "eva")
    world = world_of(site)
    gate = world.hold(phase)
    start = asyncio.ensure_future(eva.start("eva", made.slug, {"nodes": 2}))
    if phase == "remove":
        await start
        first = asyncio.ensure_future(eva.stop("eva", made.slug))
        await world.at("remove")
    else:
        await world.at(phase)
        first = asyncio.ensure_future(eva.stop("eva", made.slug))
    second = asyncio.ensure_future(eva.stop("eva", made.slug))
    await asyncio.sleep(0.1)
    gate.set()
    assert await first in (202, 204)
    assert await second in (202, 204)
    await asyncio.wait({start})
    database = site.app.wiring.database

    async def none_open() -> bool:
        return await database.run_read(records.count_open) == 0

    await until(none_open)
    assert world.of(made.slug) == {}
    # Also a third, of what is gone already.
    try:
        assert await eva.stop("eva", made.slug) in (202, 204)
    finally:
        start.exception()


async def test_a_release_joins_an_end_that_the_hub_began_by_itself(site_of: SiteFactory) -> None:
    """As it does at its start, for what does not answer any more."""
    site = await site_of()
    eva = await site.person("eva", "student")
    made = await project_of(site, "eva")
    world = world_of(site)
    await eva.start("eva", made.slug, {"nodes": 2})
    gate = world.hold("remove")
    user: Any = site.app.users["eva"]
    own = asyncio.ensure_future(user.stop(made.slug))
    await world.at("remove")
    asked = asyncio.ensure_future(eva.stop("eva", made.slug))
    await asyncio.sleep(0.1)
    gate.set()
    assert await asked in (202, 204)
    await own
    assert world.of(made.slug) == {}


@pytest.mark.parametrize("phase", ["create", "answer"])
async def test_who_waits_for_a_start_that_is_cancelled_is_told_so(site_of: SiteFactory, phase: str) -> None:
    site = await site_of()
    eva = await site.person("eva", "student")
    made = await project_of(site, "eva")
    gate = world_of(site).hold(phase)
    start = asyncio.ensure_future(eva.start("eva", made.slug, {"nodes": 2}))
    await world_of(site).at(phase)
    stop = asyncio.ensure_future(eva.stop("eva", made.slug))
    with pytest.raises(UserError) as told:
        await start
    gate.set()
    assert await stop in (202, 204)
    assert (told.value.status, told.value.reason) == (409, "cancelled")
    assert "cancelled" in str(told.value)


async def test_who_is_deleted_leaves_no_cluster_and_no_project_to_the_next_of_that_name(
    site_of: SiteFactory,
) -> None:
    site = await site_of()
    eva = await site.person("eva", "student")
    made = await project_of(site, "eva")
    assert await eva.start("eva", made.slug, {"nodes": 2}) in (201, 202)
    wiring = site.app.wiring
    (run,) = await wiring.database.run_read(records.all_open)
    deleted = await site.command.request("DELETE", "/users/eva")
    assert deleted.status_code == 204
    assert world_of(site).of(made.slug) == {}
    run = await wiring.database.run_read(records.get, run.id)
    assert (run.word, run.reason) == ("released", "person_deleted")
    assert not made.path(site.settings).exists()
    assert bin_path(site.settings, made).is_dir()
    next_eva = await site.person("eva", "student")
    assert await wiring.database.run_read(store.list_for, "eva") == ([], None)
    with pytest.raises(UserError) as refused:
        await next_eva.start("eva", made.slug, {})
    assert refused.value.status == 404


async def test_a_person_whose_cluster_cannot_be_removed_now_is_not_deleted_by_halves(
    site_of: SiteFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hub_config.api.PATIENCE_SECONDS", 0.5)
    site = await site_of()
    eva = await site.person("eva", "student")
    made = await project_of(site, "eva")
    await eva.start("eva", made.slug, {})
    site.app.tornado_settings["slow_stop_timeout"] = 0.2
    world = world_of(site)
    gate = world.hold("remove")
    with pytest.raises(UserError) as refused:
        await site.command.request("DELETE", "/users/eva")
    assert refused.value.status == 503
    assert (await site.command.user("eva"))["name"] == "eva"
    assert await site.app.wiring.database.run_read(store.get, "eva", made.slug) is not None
    gate.set()
    monkeypatch.setattr("hub_config.api.PATIENCE_SECONDS", 60)
    assert (await site.command.request("DELETE", "/users/eva")).status_code == 204
    assert await site.app.wiring.database.run_read(store.get, "eva", made.slug) is None


async def test_the_wrong_person_deletes_nothing(site_of: SiteFactory) -> None:
    site = await site_of()
    eva = await site.person("eva", "student")
    await site.person("tom", "student")
    made = await project_of(site, "tom")
    for name in ("tom", "eva"):
        with pytest.raises(UserError) as refused:
            await eva.request("DELETE", f"/users/{name}")
        assert refused.value.status in (403, 404)
    assert await site.app.wiring.database.run_read(store.get, "tom", made.slug) is not None


async def test_an_open_row_that_the_hub_knows_nothing_of_is_finished_at_its_start(
    site_of: SiteFactory,
) -> None:
    site = await site_of()
    await site.person("eva", "student")
    database = site.app.wiring.database
    run_id = await database.run(_open_row, "eva")
    site = await site_of()
    database = site.app.wiring.database

    async def closed() -> Any:
        run = await database.run_read(records.get, run_id)
        return run if run.released_at else None

    run = await until(closed)
    assert (run.word, run.reason) == ("released", "hub_lost")


async def test_one_sweeper_takes_all_turns_so_that_a_ghost_is_closed_by_the_second(
    site_of: SiteFactory,
) -> None:
    """A row of somebody whom the hub no longer knows: no stop of the hub's can ever close it."""
    site = await site_of()
    wiring = site.app.wiring
    run_id = await wiring.database.run(_open_row, "nobody-any-more")
    (sweeper,) = (chore for chore in wiring.chores(site.app) if chore.name == "The sweeper")
    await sweeper.function()
    assert (await wiring.database.run_read(records.get, run_id)).released_at is None
    await sweeper.function()
    run = await wiring.database.run_read(records.get, run_id)
    assert (run.word, run.reason) == ("released", "disappeared")


async def test_presence_at_the_proxy_is_sampled_by_the_proxy_class_and_nobody_else(
    site_of: SiteFactory,
) -> None:
    site = await site_of()
    assert site.app.proxy.collaborators.database is site.app.wiring.database
    assert [call.callback for call in site.app.proxy._periodic].count(site.app.proxy._sample_or_tell) == 1
    assert all("presence" not in chore.name.lower() for chore in site.app.wiring.chores(site.app))


def _open_row(conn: Any, person: str) -> str:
    """A run that has been running for an hour, of which nothing exists."""
    at, run_id = utcnow() - timedelta(hours=1), "01HEAT" + "0" * 20
    plan = plan_of(person, "heat")
    steps.reserve(
        conn, run_id=run_id, plan=plan, request=ClusterRequest(), backend="memory", asked_by=person, now=at
    )
    run = steps.begin_start(conn, run_id, names=["n0"])
    assert run is not None
    assert steps.begin_running(conn, run, [steps.NodeStart(rank=0, url="http://127.0.0.1:1")], now=at)
    return run_id


async def test_a_database_of_the_hub_that_takes_no_more_signs_nobody_out(site_of: SiteFactory) -> None:
    """It notes when a token was used; were that refused, everybody would be told that their token is invalid."""
    site = await site_of()
    eva = await site.person("eva", "student")
    hub: Any = site.app
    for token in hub.db.query(orm.APIToken):
        token.last_activity = None
    hub.db.commit()
    hub.db.execute(text("PRAGMA query_only = ON"))
    try:
        assert (await eva.user("eva"))["name"] == "eva"
        assert (await eva.request("GET", "/user")).json()["name"] == "eva"
    finally:
        hub.db.execute(text("PRAGMA query_only = OFF"))
    with pytest.raises(UserError) as stranger:
        await site.api("0" * 32).user("eva")
    assert stranger.value.status == 403
    assert (await eva.user("eva"))["name"] == "eva"
