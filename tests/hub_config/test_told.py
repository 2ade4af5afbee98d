"""What is done by the hub's own API stands in the audit log, and whoever loses a cluster by it is told."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from sqlalchemy import select

from galilean.errors import UserError
from galilean.tables import audit_log, notices
from hub_config import told
from hub_config.told import what_of
from spawner import records
from tests.hub_config.conftest import Site, SiteFactory
from tests.hub_config.test_limits_on_every_path import project

ADMINS = {"signup": {"admins": ["root1"]}}


@pytest.mark.parametrize(
    ("method", "place", "told"),
    [
        ("POST", "users", ("person.create", "", "users")),
        ("POST", "users/eva", ("person.create", "eva", "eva")),
        ("PATCH", "users/eva", ("person.change", "eva", "eva")),
        ("POST", "users/eva/servers/heat", ("cluster.start-for", "eva", "eva/heat")),
        ("POST", "users/eva/server", ("cluster.start-for", "eva", "eva")),
        ("DELETE", "users/eva/tokens/a7", ("token.revoke-of", "eva", "eva/a7")),
        ("PATCH", "proxy", ("proxy.change", "", "proxy")),
        ("POST", "users/eva/shared", ("hub.post", "eva", "users/eva/shared")),
        ("DELETE", "users/eva/servers/heat", None),
        ("DELETE", "users/eva", None),
        ("POST", "users/eva/activity", None),
        ("POST", "groups/galilean:student/users", None),
        ("PATCH", "galilean/people/eva", None),
        ("GET", "users/eva/tokens", None),
    ],
)
def test_calls_and_what_they_are_called(method: str, place: str, told: Any) -> None:
    assert what_of(method, place) == told


async def lines(site: Site, action: str, count: int) -> list[Any]:
    """Lines of the log; the second one of a failure comes after the answer."""
    query = select(audit_log).where(audit_log.c.action.startswith(action)).order_by(audit_log.c.id)
    found: list[Any] = []
    for _ in range(200):
        found = await site.app.wiring.database.run_read(lambda conn: conn.execute(query).all())
        if len(found) >= count:
            break
        await asyncio.sleep(0.02)
    return found


@pytest.mark.hub
async def test_a_token_for_somebody_a_rename_and_a_new_account_are_told_without_secrets(
    site_of: SiteFactory,
) -> None:
    site = await site_of(ADMINS)
    await site.person("eva", "student")
    admin = site.api(await site.token("root1"))
    await admin.request("POST", "/users/eva/tokens", json={"note": "for a script", "auth": {"password": "x"}})
    await admin.request("POST", "/users", json={"usernames": ["ann"]})
    await admin.request("PATCH", "/users/ann", json={"name": "anna"})
    made, created, changed = [await lines(site, word, 1) for word in ("token.", "person.create", "person.ch")]
    assert [(row.actor, row.action, row.subject, row.after) for row in (*made, *created, *changed)] == [
        ("root1", "token.make-for", "eva", {"note": "for a script"}),
        ("root1", "person.create", "users", {"usernames": ["ann"]}),
        ("root1", "person.change", "ann", {"name": "anna"}),
    ]
    assert made[0].address == "127.0.0.1"
    tokens = (await admin.request("GET", "/users/eva/tokens")).json()["api_tokens"]
    path = f"/users/eva/tokens/{next(one['id'] for one in tokens if one['note'] == 'for a script')}"
    signed = site.api(site.secrets.tokens["portal"]).signed("10.1.2.3", path)
    await admin.request("DELETE", path, headers=signed)
    (revoked,) = await lines(site, "token.revoke-of", 1)
    assert (revoked.actor, revoked.address) == ("root1", "10.1.2.3"), (
        "in a page of the portal, from where it was"
    )
    with pytest.raises(UserError):
        await admin.request("PATCH", "/users/nobody", json={"name": "x"})
    assert [row.action for row in await lines(site, "person.change", 3)][1:] == [
        "person.change",
        "person.change.failed",
    ]


@pytest.mark.hub
async def test_what_cannot_be_told_is_not_done(site_of: SiteFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    site = await site_of(ADMINS)
    admin = site.api(await site.token("root1"))

    def away(*_: Any) -> None:
        raise UserError(503, "The database is away.")

    monkeypatch.setattr(told, "_write", away)
    with pytest.raises(UserError) as refused:
        await admin.request("POST", "/users/ann")
    assert refused.value.status == 503
    monkeypatch.undo()
    with pytest.raises(UserError) as missing:
        await admin.user("ann")
    assert missing.value.status == 404


@pytest.mark.hub
async def test_what_people_do_with_their_own_and_what_is_refused_fills_no_log(site_of: SiteFactory) -> None:
    site = await site_of(ADMINS)
    eva, _ = await site.person("eva", "student"), await site.person("tom", "student")
    await eva.request("POST", "/users/eva/tokens", json={"note": "mine"})
    for method, path in (
        ("POST", "/users/tom/tokens"),
        ("PATCH", "/users/tom"),
        ("DELETE", "/users/tom/servers/x"),
    ):
        with pytest.raises(UserError):
            await eva.request(method, path, json={})
    found = await site.app.wiring.database.run_read(
        lambda conn: conn.execute(
            select(audit_log.c.action).where(audit_log.c.actor.in_(("eva", "tom")))
        ).all()
    )
    assert found == []


@pytest.mark.hub
async def test_whoever_loses_a_cluster_by_the_hubs_api_is_told_who_ended_it(site_of: SiteFactory) -> None:
    site = await site_of(ADMINS)
    eva = await site.person("eva", "student")
    heat = await project(site, "eva", "Heat")
    admin = site.api(await site.token("root1"))
    await eva.start("eva", heat, {"nodes": 1, "cpu": 1, "memory": "1G"})
    await admin.stop("eva", heat)
    database = site.app.wiring.database
    run = (await database.run_read(records.list_runs, user="eva", open_only=False))[0]
    assert (run.reason, run.stop_asked_by) == ("admin", "root1")
    told = await database.run_read(lambda conn: conn.execute(select(notices)).all())
    assert [(row.user, row.kind) for row in told] == [("eva", "released")]
    assert [(row.actor, row.subject) for row in await lines(site, "cluster.release", 1)] == [
        ("root1", f"eva/{heat}")
    ]
    await eva.start("eva", heat, {"nodes": 1, "cpu": 1, "memory": "1G"})
    await eva.stop("eva", heat)
    assert len(await lines(site, "cluster.release", 1)) == 1, "one's own end is no forced one"
    await admin.start("eva", heat, {"nodes": 1, "cpu": 1, "memory": "1G"})
    (started,) = await lines(site, "cluster.start-for", 1)
    assert (started.actor, started.subject) == ("root1", f"eva/{heat}")
