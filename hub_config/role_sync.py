"""The hub's roles and groups follow our tables: at its start, when it is told, and when it notices.

Administrators change roles and groups in our database; the hub decides by role objects of its own. Whoever
changed something tells the hub at once (``POST /hub/api/galilean/roles``); a chore compares the version,
for changes that nobody told of. Scopes of tokens are worked out from the role objects at each request, so a
right that is taken is gone for tokens that exist as well.
"""

from __future__ import annotations

import logging
from typing import Any

from jupyterhub import orm
from jupyterhub.roles import create_role
from sqlalchemy import Connection

from galilean import centre, rights
from galilean.db import Database
from galilean.rights import BLOCKED, GROUP_PREFIX, ROLE_PREFIX, Rights
from hub_config.roles import hub_role_of, role_specs

log = logging.getLogger("galilean.hub")

SECONDS = 10.0
_NOT_OURS = ("galilean-service-",)


class Following:
    """What the hub goes by now.

    Parameters
    ----------
    known
        Roles and groups at the hub's start.
    version
        Their version.
    """

    def __init__(self, known: Rights, version: int) -> None:
        self.rights, self.version = known, version

    async def look(self, hub_db: Any, database: Database, *, always: bool = False) -> bool:
        """Read again when something moved, and make the hub's objects follow; whether they did."""
        found: tuple[int, Rights | None] = await database.run_read(_read, None if always else self.version)
        version, known = found
        if known is None:
            return False
        apply(hub_db, known, before=self.rights)
        self.rights, self.version = known, version
        return True


def _read(conn: Connection, version: int | None) -> tuple[int, Rights | None]:
    now = centre.version(conn)
    return now, None if now == version else rights.read(conn)


def apply(db: Any, known: Rights, *, before: Rights | None = None) -> None:
    """Make hub roles and groups what they should be; in one commit of the hub's database.

    What is new begins without members: whoever had put people into a hub group of that name before it meant
    anything, would else have given them what it means now. ``before`` is what was known; ``None`` = the same.
    """
    wanted, meant = _hub_groups(known), _hub_groups(known if before is None else before)
    for name in sorted(wanted | {BLOCKED}):
        group = orm.Group.find(db, name)
        if group is None:
            db.add(orm.Group(name=name))
        elif name not in meant and name != BLOCKED and group.users:
            log.warning("The hub group %s had members before there was such a thing: taken out", name)
            group.users = []
    db.flush()
    for spec in role_specs(known):
        role: Any = create_role(db, {k: spec[k] for k in ("name", "description", "scopes")}, commit=False)
        bound = [
            group for group in (orm.Group.find(db, name) for name in spec["groups"]) if group is not None
        ]
        if set(role.groups) != set(bound):
            role.groups = bound
    ours = {hub_role_of(name) for name in known.roles}
    for role in db.query(orm.Role).filter(orm.Role.name.startswith("galilean-")):
        if role.name not in ours and not role.name.startswith(_NOT_OURS):
            log.info("Deleting hub role %s", role.name)
            db.delete(role)
    for group in db.query(orm.Group):
        if group.name.startswith((GROUP_PREFIX, ROLE_PREFIX)) and group.name not in wanted:
            log.info("Deleting hub group %s", group.name)
            db.delete(group)
    db.commit()


def _hub_groups(known: Rights) -> set[str]:
    return {GROUP_PREFIX + slug for slug in known.groups} | {ROLE_PREFIX + name for name in known.roles}
