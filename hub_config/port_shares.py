"""The hub's server shares follow the ports that owners share by name (AP-11, design §2).

A visitor's browser reaches somebody else's node only by a share of the hub's own. Nobody has the scope to make
one: who shares what stands in our rows, and the hub follows at once when the portal tells it
(``POST /hub/api/galilean/port-shares``), and by a chore for whatever nobody told of, such as the end of a run.
A share gives ``access:servers`` of that server and nothing else; how far that leads is the node's to say.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from jupyterhub import orm
from tornado import web

from galilean.db import Database
from galilean.rights import BLOCKED
from galilean.settings import Settings
from hub_config.our_handler import OurHandler
from hub_config.roles import SYNC_SCOPE
from spawner.shared_ports import all_shared

log = logging.getLogger("galilean.hub")

SECONDS = 10.0

Wanted = Mapping[tuple[str, str], frozenset[str]]


async def follow(hub_db: Any, database: Database, settings: Settings) -> bool:
    """Make the hub's shares what our rows say; whether anything changed. Without the setting there are none."""
    wanted = await database.run_read(all_shared) if settings.ports.share else {}
    kept_out = _blocked(hub_db) if wanted else frozenset()
    return apply(hub_db, {server: names for server, names in wanted.items() if server[0] not in kept_out})


def _blocked(db: Any) -> frozenset[str]:
    """Who is blocked: nobody comes to what they share."""
    group = orm.Group.find(db, BLOCKED)
    return frozenset(user.name for user in group.users) if group is not None else frozenset()


def apply(db: Any, wanted: Wanted) -> bool:
    """Withdraw what nobody gives any more, grant what is new; whether anything changed."""
    changed = False
    left = {(*server, name) for server, names in wanted.items() for name in names}
    for share in db.query(orm.Share).filter(orm.Share.user_id.is_not(None)):
        key = (share.owner.name, share.spawner.name, share.user.name)
        if key in left:
            left.discard(key)
            continue
        log.info("%s no longer comes to %s/%s", key[2], key[0], key[1])
        db.delete(share)
        changed = True
    if changed:
        db.commit()
    for owner, server, name in sorted(left):
        spawner = (
            db.query(orm.Spawner)
            .join(orm.User, orm.Spawner.user_id == orm.User.id)
            .filter(orm.User.name == owner, orm.Spawner.name == server)
            .one_or_none()
        )
        visitor = orm.User.find(db, name)
        if spawner is None or visitor is None:  # gone meanwhile
            continue
        orm.Share.grant(db, spawner, visitor)
        changed = True
    return changed


class PortShares(OurHandler):
    """``/galilean/port-shares``: the portal has written something."""

    async def post(self) -> None:
        if SYNC_SCOPE not in self.expanded_scopes:
            raise web.HTTPError(403, f"Action is not authorized with current scopes; requires {SYNC_SCOPE}")
        await follow(self.db, self.wiring.database, self.wiring.settings)
        self.set_status(204)


def handlers(wiring: Any) -> list[tuple[Any, ...]]:
    """The address at which the hub is told."""
    return [(r"/api/galilean/port-shares", PortShares, {"wiring": wiring})]
