"""The hub's own server shares follow the ports that owners share by name (AP-11, design §2)."""

from __future__ import annotations

from typing import Any

import pytest
from jupyterhub import orm

from galilean.clock import utcnow
from galilean.errors import UserError
from galilean.rights import BLOCKED
from hub_config import port_shares
from services.catalog.projects import Projects
from spawner import records, shared_ports
from tests.hub_config.conftest import Site, SiteFactory

pytestmark = pytest.mark.hub

#: On one origin no file may say so; here nobody looks at pages.
SHARING = {
    "ports": {"share": True},
    "web": {"subdomain_host": "http://hub.localhost:8000"},
}


def shares(site: Site) -> list[tuple[str, str, list[str]]]:
    site.app.db.expire_all()
    return [
        (f"{share.owner.name}/{share.spawner.name}", share.user.name, share.scopes)
        for share in site.app.db.query(orm.Share)
    ]


async def running(site: Site, name: str, hub: Any) -> records.Run:
    wiring = site.app.wiring
    made = await Projects(wiring.database, site.settings, wiring.clock).create(name, name="Heat")
    await hub.start(name, made.slug, {"project": made.slug, "ports": [8050]})
    run = await wiring.database.run_read(records.open_run, name, made.slug)
    assert run is not None
    await wiring.database.run(shared_ports.tell_guarded, run.id, 0)
    return run


async def tell(site: Site) -> None:
    await site.api(site.secrets.tokens["portal"]).request("POST", "/galilean/port-shares")


async def test_the_hub_follows_who_is_named_until_the_run_ends(site_of: SiteFactory) -> None:
    site = await site_of(SHARING)
    ada, eve = await site.person("ada", "researcher"), await site.person("eve")
    run = await running(site, "ada", ada)
    database = site.app.wiring.database
    server = f"ada/{run.server}"
    assert f"access:servers!server={server}" not in (await eve.user("eve")).get("scopes", ())

    await database.run(lambda conn: shared_ports.share(conn, run.id, 8050, "eve", by="ada", now=utcnow()))
    await tell(site)
    assert shares(site) == [(server, "eve", [f"access:servers!server={server}"])]
    await tell(site)
    assert len(shares(site)) == 1

    await database.run(lambda conn: shared_ports.withdraw(conn, run.id, 8050, "eve", by="ada", now=utcnow()))
    await tell(site)
    assert shares(site) == []

    await database.run(lambda conn: shared_ports.share(conn, run.id, 8050, "eve", by="ada", now=utcnow()))
    await tell(site)
    await ada.stop("ada", run.server)
    await port_shares.follow(site.app.db, database, site.settings)
    assert shares(site) == []


async def test_what_was_shared_otherwise_is_taken_back_and_switched_off_is_nothing(
    site_of: SiteFactory,
) -> None:
    site = await site_of(SHARING)
    ada, _ = await site.person("ada", "researcher"), await site.person("eve")
    run = await running(site, "ada", ada)
    db, database = site.app.db, site.app.wiring.database
    spawner = db.query(orm.Spawner).filter_by(name=run.server).one()
    orm.Share.grant(db, spawner, orm.User.find(db, "eve"))
    assert await port_shares.follow(db, database, site.settings)
    assert shares(site) == []

    await database.run(lambda conn: shared_ports.share(conn, run.id, 8050, "eve", by="ada", now=utcnow()))
    assert await port_shares.follow(db, database, site.settings) and len(shares(site)) == 1
    off = site.settings.model_copy(update={"ports": type(site.settings.ports)()})
    assert await port_shares.follow(db, database, off) and shares(site) == []


async def test_nobody_comes_to_what_a_blocked_person_shares(site_of: SiteFactory) -> None:
    site = await site_of(SHARING)
    ada, _ = await site.person("ada", "researcher"), await site.person("eve")
    run = await running(site, "ada", ada)
    db, database = site.app.db, site.app.wiring.database
    await database.run(lambda conn: shared_ports.share(conn, run.id, 8050, "eve", by="ada", now=utcnow()))
    assert await port_shares.follow(db, database, site.settings) and len(shares(site)) == 1
    group = orm.Group.find(db, BLOCKED) or orm.Group(name=BLOCKED)
    group.users.append(orm.User.find(db, "ada"))
    db.add(group)
    db.commit()
    assert await port_shares.follow(db, database, site.settings) and shares(site) == []
    group.users.clear()
    db.commit()
    assert await port_shares.follow(db, database, site.settings) and len(shares(site)) == 1


async def test_nobody_shares_by_the_hubs_own_calls(site_of: SiteFactory) -> None:
    site = await site_of(SHARING)
    ada, _ = await site.person("ada", "researcher"), await site.person("eve")
    run = await running(site, "ada", ada)
    for path in (f"/shares/ada/{run.server}", f"/share-codes/ada/{run.server}", "/galilean/port-shares"):
        with pytest.raises(UserError) as caught:
            await ada.request("POST", path, json={"user": "eve"} if path.startswith("/shares") else {})
        assert caught.value.status in (403, 404), path
    assert shares(site) == []
