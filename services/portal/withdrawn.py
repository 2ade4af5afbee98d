"""Runs that rest on what was withdrawn: told at once, released after a grace.

A directory cannot be taken out of a node that runs. So whoever holds a cluster of a project that they may no longer
run (a share was withdrawn, they left the group, it was taken down) is told, and ten minutes later it goes back.
Each round asks anew, from the rows and the hub's groups; what is known of a round before is only since when. A run
that may write, as its row says, goes back, too, when its person may only read.
Who may again before the grace is over keeps it. A portal that begins anew gives the grace anew.
"""

from __future__ import annotations

import logging
from datetime import datetime, timedelta

from sqlalchemy import Connection, select

from galilean import notices
from galilean.errors import UserError, mark
from galilean.web.context import Portal
from services.catalog import shares, store
from services.catalog.access import GRACE_SECONDS, Access, Viewer, access, fate
from services.catalog.tables import projects
from spawner import records
from spawner.tables import clusters

log = logging.getLogger("galilean.portal.withdrawn")


async def viewer_named(portal: Portal, name: str) -> Viewer:
    """Somebody who is not the visitor, as the hub knows them now; who is gone may nothing."""
    try:
        groups = await portal.people.groups(name)
    except UserError as error:
        if error.status != 404:
            raise
        return Viewer(name=name, has_role=False)
    rights = await portal.rights.get()
    roles = rights.roles_of(groups)
    return Viewer.of(
        name, groups, has_role=bool(roles), admin="admin" in roles, rights=rights.rights_of(roles)
    )


def _since(portal: Portal) -> dict[str, datetime]:
    return portal.parts.setdefault("withdrawn", {})


async def end_later(portal: Portal, project_id: str) -> None:
    """Begin the grace of a project's runs whose people may less than they do, after shares were changed."""
    for run_id, user, _, does in await portal.db.run_read(of_others, project_id):
        level = await portal.db.run_read(_level, await viewer_named(portal, user), project_id)
        if fate(does, level) != "goes on":
            await _begin(portal, run_id, user, project_id)


def of_others(conn: Connection, project_id: str | None = None) -> list[tuple[str, str, str, Access]]:
    """Run, person, project of open runs of somebody else's project, and what its mounts were made for."""
    query = (
        select(clusters.c.id, clusters.c.user, clusters.c.project_id, clusters.c.work_read_only)
        .join(projects, projects.c.id == clusters.c.project_id)
        .where(clusters.c.released_at.is_(None), projects.c.owner != clusters.c.user)
        .order_by(clusters.c.id)
    )
    if project_id is not None:
        query = query.where(clusters.c.project_id == project_id)
    return [
        (row.id, row.user, row.project_id, Access.WRITE if row.work_read_only is False else Access.RUN)
        for row in conn.execute(query)
    ]


def _level(conn: Connection, viewer: Viewer, project_id: str) -> Access:
    project = store.by_id(conn, project_id, deleted=True)
    if project is None:
        return Access.NONE
    return access(viewer, project, shares.of(conn, "project", project_id))


async def look(portal: Portal) -> None:
    """One round: begin the grace of runs that may not be any more, end those whose grace is over."""
    since, now = _since(portal), portal.clock()
    open_now = await portal.db.run_read(of_others)
    for run_id, user, project_id, does in open_now:
        level = await portal.db.run_read(_level, await viewer_named(portal, user), project_id)
        if fate(does, level) == "goes on":
            since.pop(run_id, None)
        elif run_id not in since:
            await _begin(portal, run_id, user, project_id)
        elif now - since[run_id] >= timedelta(seconds=GRACE_SECONDS):
            await portal.db.run(
                records.ask_stop,
                run_id,
                reason="withdrawn",
                asked_by="",
                now=now,
                explanation={"message": mark("The project is no longer shared with you."), "params": {}},
            )
    for run_id in set(since) - {one[0] for one in open_now}:
        del since[run_id]


async def _begin(portal: Portal, run_id: str, user: str, project_id: str) -> None:
    since = _since(portal)
    if run_id in since:
        return
    since[run_id] = portal.clock()
    project = await portal.db.run_read(lambda conn: store.by_id(conn, project_id, deleted=True))
    await portal.db.run(
        notices.tell,
        user,
        now=portal.clock(),
        kind="withdrawn",
        cluster_id=run_id,
        text=mark("You may no longer run “{name}” as you do: your cluster goes back in {minutes} minutes."),
        mail=True,
        name=project.name if project else "",
        minutes=GRACE_SECONDS // 60,
    )
