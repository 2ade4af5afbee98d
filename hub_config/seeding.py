"""How a site begins: what ``galilean.yaml`` says of roles, limits and release goes into the database, once.

Called wherever the product makes sure of its database (the hub's start, ``galilean up``, ``galilean db
upgrade``), in one transaction that only one process is in at a time. Each room does nothing where something
was decided already; so a role that is added to the file later is an administrator's to add.
"""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Connection

from extensions.quota.seed import seed as seed_limits
from galilean import centre
from galilean.clock import utcnow
from galilean.db import Database, plain_words
from galilean.settings import Settings
from services.release.rules import seed as seed_release


def seed(conn: Connection, settings: Settings, now: datetime) -> bool:
    """Begin with the settings where nothing was decided; whether anything was new."""
    new = [room(conn, settings, now) for room in (centre.seed, seed_limits, seed_release)]
    return any(new)


def seed_database(settings: Settings) -> bool:
    """The same as a transaction of its own on the site's database."""
    database = Database(settings.database_url)
    try:
        with plain_words(), database.serialised("seed") as conn:
            return seed(conn, settings, utcnow())
    finally:
        database.close()
