"""The first limits of roles, from ``galilean.yaml``; administrators change them from then on."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Connection, insert, select

from extensions.quota.limits import amounts_of
from extensions.quota.tables import quotas
from galilean import centre
from galilean.settings import Settings


def seed(conn: Connection, settings: Settings, now: datetime) -> bool:
    """Give the roles of the settings their limits where no role has any; whether it did.

    To be called after :func:`galilean.centre.seed`, in the same transaction.
    """
    if conn.execute(select(quotas.c.role).limit(1)).first() is not None:
        return False
    there = centre.all_roles(conn)
    rows = [
        {"role": name, "resource": measure.resource, "amount": amount}
        for name, role in settings.roles.items()
        if name in there
        for measure, amount in amounts_of(role.limits).items()
    ]
    if not rows:
        return False
    conn.execute(insert(quotas), rows)
    centre.bump(conn, now)
    return True
