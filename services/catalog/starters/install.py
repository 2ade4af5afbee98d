"""Put the starter projects onto a new site, once.

A site is new when nobody has made a project on it. What was decided stands under the key ``starters`` of what the
centre decides, in the transaction that makes the projects: they are there whole or not at all, and whatever an
administrator deletes afterwards does not come back. ``galilean project starters`` puts them (back) on any site.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import closing
from datetime import datetime, timedelta
from pathlib import Path

from sqlalchemy import Connection, select

from galilean import audit, centre
from galilean.clock import Clock, utcnow
from galilean.db import Database
from galilean.settings import Settings
from services.catalog import datasets, lifecycle, links, store
from services.catalog.access import Viewer
from services.catalog.placing import Looker
from services.catalog.resolver import prepare_directory
from services.catalog.shares import Actor
from services.catalog.starters import OWNER
from services.catalog.starters.shelf import DATA, STARTERS, said
from services.catalog.tables import projects
from services.files.root import Root

KEY = "starters"


async def begin(
    database: Database, settings: Settings, clock: Clock = utcnow, *, anyway: bool = False
) -> list[str]:
    """Look at the volumes and :func:`install`, off the event loop; most often one question to the database.

    Raises
    ------
    UserError
        503 or 507 when no volume takes them; nothing is there then, and the next start tries again.
    """
    if not anyway and await database.run_read(centre.value, KEY) is not None:
        return []
    with closing(Looker(database, settings, clock)) as looker:
        places = {kind: await looker.place(kind) for kind in ("project", "dataset")}
    return await asyncio.to_thread(install, database, settings, clock(), places, anyway=anyway)


def install(
    database: Database, settings: Settings, now: datetime, places: Mapping[str, str], *, anyway: bool = False
) -> list[str]:
    """Make what is missing of the starter projects if the site is new; the slugs that were made. Blocks.

    Parameters
    ----------
    database, settings
        Of the site.
    now
        When.
    places
        The volumes of a ``project`` and of a ``dataset``.
    anyway
        Also on a site that is not new, or where they were deleted.
    """
    with database.serialised(KEY) as conn:
        if not anyway and centre.value(conn, KEY) is not None:
            return []
        new = anyway or conn.execute(select(projects.c.id).limit(1)).first() is None
        made = _make(conn, settings, now, places) if new and (anyway or settings.site.starters) else []
        centre.put(conn, KEY, {"at": now.isoformat(), "projects": made}, now=now)
        if made:
            audit.write(conn, at=now, actor=OWNER, action="starters.install", subject=OWNER, after=made)
    return made


def _make(conn: Connection, settings: Settings, now: datetime, places: Mapping[str, str]) -> list[str]:
    language, viewer, actor = settings.site.language, Viewer(name=OWNER), Actor(name=OWNER)
    sets: dict[str, str] = {}
    for number, data in enumerate(DATA):
        there = datasets.get(conn, OWNER, data.slug)
        if there is None:
            there = datasets.create(
                conn,
                owner=OWNER,
                slug=data.slug,
                name=said(data.name, language),
                summary=said(data.summary, language),
                description=said(data.description, language),
                field=data.field,
                tags=data.tags,
                volume_id=places["dataset"],
                now=now + timedelta(milliseconds=number),
            )
            there = datasets.by_id(conn, there.id)
            assert there is not None
            _write(prepare_directory(settings, there), data.files())
            lifecycle.publish(conn, "dataset", there.id, actor=actor, now=now)
        sets[data.slug] = there.id
    made: list[str] = []
    # The first of them is made last: lists begin with the newest.
    for number, starter in enumerate(reversed(STARTERS)):
        if store.get(conn, OWNER, starter.slug) is not None:
            continue
        at = now + timedelta(milliseconds=10 + number)
        project = store.create(
            conn,
            owner=OWNER,
            slug=starter.slug,
            name=said(starter.name, language),
            description=said(starter.description, language),
            volume_id=places["project"],
            default_request={"nodes": starter.nodes} if starter.nodes > 1 else None,
            now=at,
        )
        project = store.update(conn, project, now=at, field=starter.field, tags=starter.tags)
        _write(prepare_directory(settings, project), starter.files(language))
        for slug in starter.data:
            links.add(conn, viewer, project, sets[slug], now=at)
        lifecycle.publish(conn, "project", project.id, actor=actor, now=at)
        made.append(starter.slug)
    return made


def _write(path: Path, files: Mapping[str, bytes]) -> None:
    root = Root(path)
    for name, content in files.items():
        root.write(name, content)
