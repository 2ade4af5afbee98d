"""Uploads that nobody goes on with: ended after a week, and what broke down in between is cleared away.

Each tree has its own shelf (:mod:`services.files.shelf`), in a hidden folder that is there only while something is on
it. So a round looks once at every tree, and works on few.
"""

from __future__ import annotations

import logging
import os

from sqlalchemy import Connection, select

from extensions.imagebuilder import uploading
from galilean.errors import UserError
from galilean.file_threads import beside
from galilean.web.context import Portal
from services.catalog import datasets, store
from services.catalog.access import Kind
from services.catalog.datasets import Dataset
from services.catalog.shares import table_of
from services.catalog.store import Project
from services.files.paths import HIDDEN
from services.files.root import Root
from services.files.shelf import Shelf
from services.portal.image_uploads import LANE

log = logging.getLogger("galilean.portal.uploads")

AT_ONCE = 200
KINDS: tuple[Kind, ...] = ("project", "dataset")


async def sweep(portal: Portal) -> None:
    """One round over all projects, data sets and packed images; a volume that is away is left alone."""
    if removed := await portal.files.ask(beside(LANE), _sweep_images, portal):
        log.info("packed images: %d uploads that nobody went on with are ended", removed)
    for kind in KINDS:
        after = ""
        while items := await portal.db.run_read(_items, kind, after):
            after = items[-1].id
            for item in items:
                try:
                    removed = await portal.files.ask(beside(item.volume_id), _sweep_one, portal, item)
                except UserError as error:
                    log.warning("the uploads of %s cannot be looked at: %s", item.id, error)
                    continue
                if removed:
                    log.info("%s %s: %d uploads that nobody went on with are ended", kind, item.id, removed)


def _items(conn: Connection, kind: Kind, after: str) -> list[Project | Dataset]:
    table = table_of(kind)
    ids = conn.execute(
        select(table.c.id)
        .where(table.c.id > after, table.c.deleted_at.is_(None), table.c.busy == "")
        .order_by(table.c.id)
        .limit(AT_ONCE)
    ).scalars()
    found: list[Project | Dataset] = []
    for item_id in ids:
        item = store.by_id(conn, item_id) if kind == "project" else datasets.by_id(conn, item_id)
        if item is not None:
            found.append(item)
    return found


def _sweep_images(portal: Portal) -> int:
    count = 0
    for folder in uploading.folder(portal.settings).glob("*"):
        if os.path.lexists(folder / HIDDEN):
            count += Shelf(Root(folder), clock=portal.clock).sweep()
    return count


def _sweep_one(portal: Portal, item: Project | Dataset) -> int:
    root = item.path(portal.settings)
    if not os.path.lexists(root / HIDDEN):
        return 0
    return Shelf(Root(root), clock=portal.clock).sweep()
