"""Runs that rest on what was withdrawn: told at once, released after a grace.

A directory cannot be taken out of a node that runs. So whoever holds a cluster of a project that they may no longer
run (a share was withdrawn, they left the group, it was taken down) is told, and ten minutes later it goes back.
Each round asks anew, from the rows and the hub's groups; what is known of a round before is only since when, and
what the person might when the run was first seen: a run that may write goes back, too, when its person may only read.
Who may again before the grace is over keeps it. A portal that begins anew gives the grace anew.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from datetime import datetime, timedelta

from sqlalchemy import Connection, select

from galilean import notices
from galilean.errors import UserError, mark
from galilean.web.context import Portal
from services.catalog import shares, store
from services.catalog.access import GRACE_SECONDS, Access, Share, Viewer, access, fate
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


def _at_first(portal: Portal) -> dict[str, Access]:
    """What the person of a run might when it was first seen, which its mounts were made for."""
    return portal.parts.setdefault("withdrawn_at_first", {})


async def end_later(portal: Portal, project_id: str, before: Iterable[Share]) -> None:
    """Begin the grace of runs whose people may less than they do, after shares were changed."""
    before = list(before)
    runs = await portal.db.run_read(shares.open_runs, project_id)
    viewers = {run.user: await viewer_named(portal, run.user) for run in runs}
    for run in await portal.db.run_read(shares.runs_to_end, project_id, before, viewers):
        level = await portal.db.run_read(_level, viewers[run.user], project_id, before)
        _at_first(portal).setdefault(run.run_id, level)
        await _begin(portal, run.run_id, run.user, project_id)


def of_others(conn: Connection) -> list[tuple[str, str, str]]:
    """Run, person and project of open runs of somebody else's project."""
    rows = conn.execute(
        select(clusters.c.id, clusters.c.user, clusters.c.project_id)
        .join(projects, projects.c.id == clusters.c.project_id)
        .where(clusters.c.released_at.is_(None), projects.c.owner != clusters.c.user)
        .order_by(clusters.c.id)
    )
    return [(row.id, row.user, row.project_id) for row in rows]


def _level(conn: Connection, viewer: Viewer, project_id: str, given: list[Share] | None = None) -> Access:
    project = store.by_id(conn, project_id, deleted=True)
    if project is None:
        return Access.NONE
    return access(viewer, project, shares.of(conn, "project", project_id) if given is None else given)


async def look(portal: Portal) -> None:
    """One round: begin the grace of runs that may not be any more, end those whose grace is over."""
    since, at_first, now = _since(portal), _at_first(portal), portal.clock()
    open_now = await portal.db.run_read(of_others)
    for run_id, user, project_id in open_now:
        level = await portal.db.run_read(_level, await viewer_named(portal, user), project_id)
        before = max(at_first.setdefault(run_id, level), Access.RUN)
        if fate(before, level) == "goes on":
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
    for known in (since, at_first):
        for run_id in set(known) - {run_id for run_id, _, _ in open_now}:
            del known[run_id]


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
