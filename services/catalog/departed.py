"""What becomes of somebody's projects and data sets when their account is deleted.

Whoever is given the same name later is somebody else: they must find, restore and own nothing of it. So
everything leaves its name behind: the owner becomes :func:`galilean.names.departed`, which no account can be
called. Projects go to the bin. Data sets go there, too, unless others rest on them (public, or taken into
somebody else's project): these stay, read-only for everybody, until an administrator gives them to somebody.
Disks have no bin: they are deleted.
"""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Connection, select, update
from ulid import ULID

from galilean.names import departed
from services.catalog import cards, counts, datasets, disk_store, shares, store
from services.catalog.access import Kind
from services.catalog.datasets import Dataset
from services.catalog.store import Project
from services.catalog.tables import datasets as datasets_table
from services.catalog.tables import projects


def delete_owned(conn: Connection, owner: str, *, now: datetime) -> list[Project | Dataset]:
    """Let everything of a person go; what went to the bin now, whose files are to follow.

    What was shared with them, and their favourites, go as well.
    """
    shares.forget_person(conn, owner)
    counts.forget_person(conn, owner)
    nobody = departed(owner, str(ULID.from_datetime(now)).lower())
    disk_store.leave(conn, owner, nobody, now=now)
    gone: list[Project | Dataset] = []
    for row in conn.execute(
        select(projects.c.id, projects.c.deleted_at).where(projects.c.owner == owner)
    ).all():
        _leave(conn, "project", row, nobody, now, stays=False)
        if row.deleted_at is None:
            found = store.by_id(conn, row.id, deleted=True)
            assert found is not None
            gone.append(found)
    for row in conn.execute(select(datasets_table).where(datasets_table.c.owner == owner)).all():
        stays = row.visibility == "public" or datasets.uses(conn, row.id).others > 0
        _leave(conn, "dataset", row, nobody, now, stays=stays)
        if row.deleted_at is None and not stays:
            found_set = datasets.by_id(conn, row.id, deleted=True)
            assert found_set is not None
            gone.append(found_set)
    return gone


def _leave(conn: Connection, kind: Kind, row: object, nobody: str, now: datetime, *, stays: bool) -> None:
    table = shares.table_of(kind)
    values: dict[str, object] = {"owner": nobody}
    if row.deleted_at is None and not stays:  # type: ignore[attr-defined]
        values["deleted_at"] = now
    conn.execute(update(table).where(table.c.id == row.id).values(values))  # type: ignore[attr-defined]
    cards.put(conn, kind, row.id)  # type: ignore[attr-defined]
