"""Runs that rest on what was withdrawn: told at once, released after a grace.

A directory cannot be taken out of a node that runs. So whoever holds a cluster of a project that they may no longer
run (a share was withdrawn, they left the group, it was taken down) is told, and ten minutes later it goes back. The same
holds of a data set in its nodes that they may no longer read, whatever the project's links say meanwhile.
Each round asks anew, from the rows and the hub's groups; what is known of a round before is only since when. A run
that may write, as its row says, goes back, too, when its person may only read.
Who may again before the grace is over keeps it. A portal that begins anew gives the grace anew.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import Connection, and_, not_, select

from galilean import notices
from galilean.errors import UserError, mark
from galilean.web.context import Portal
from services.catalog import datasets as dataset_store
from services.catalog import mounted, shares, store
from services.catalog.access import GRACE_SECONDS, Access, Kind, Viewer, access, fate
from services.catalog.datasets import Dataset
from services.catalog.store import Project
from services.catalog.tables import datasets, projects
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


@dataclass(frozen=True, kw_only=True)
class Rests:
    """What an open run rests on that is somebody else's: its project, or a data set in its nodes.

    Attributes
    ----------
    does
        What its mounts were made for.
    """

    run_id: str
    user: str
    kind: Kind
    item_id: str
    does: Access

    def goes_on(self, level: Access) -> bool:
        """Whether the run may be as it is, by what its person may do now."""
        if self.kind == "dataset":
            return level >= self.does
        return fate(self.does, level) == "goes on"


_RELEASED: dict[Kind, str] = {
    "project": mark("The project is no longer shared with you."),
    "dataset": mark("The data set “{name}” is no longer shared with you."),
}
_TOLD: dict[Kind, str] = {
    "project": mark("You may no longer run “{name}” as you do: your cluster goes back in {minutes} minutes."),
    "dataset": mark(
        "You may no longer use the data set “{name}” as your cluster does: it goes back in {minutes} minutes. Start it "
        "again to go on without."
    ),
}


async def end_later(portal: Portal, kind: Kind, item_id: str) -> None:
    """Begin the grace of runs that rest on something and may less than they do, after its shares were changed."""
    for one in await portal.db.run_read(resting, kind, item_id):
        viewer = await viewer_named(portal, one.user)
        if not one.goes_on(await portal.db.run_read(_level, viewer, kind, item_id)):
            await _begin(portal, one)


def resting(conn: Connection, kind: Kind | None = None, item_id: str | None = None) -> list[Rests]:
    """What open runs rest on that is somebody else's, run by run; of one thing, or of all."""
    found: list[Rests] = []
    if kind != "dataset":
        found += _on_projects(conn, item_id)
    if kind != "project":
        found += _on_datasets(conn, item_id)
    return sorted(found, key=lambda one: one.run_id)


def _on_projects(conn: Connection, project_id: str | None) -> list[Rests]:
    query = (
        select(clusters.c.id, clusters.c.user, clusters.c.project_id, clusters.c.work_read_only)
        .join(projects, projects.c.id == clusters.c.project_id)
        .where(clusters.c.released_at.is_(None), projects.c.owner != clusters.c.user)
    )
    if project_id is not None:
        query = query.where(clusters.c.project_id == project_id)
    return [
        Rests(
            run_id=row.id,
            user=row.user,
            kind="project",
            item_id=row.project_id,
            does=Access.WRITE if row.work_read_only is False else Access.RUN,
        )
        for row in conn.execute(query)
    ]


def _on_datasets(conn: Connection, dataset_id: str | None) -> list[Rests]:
    given = mounted.given(conn, clusters.c.released_at.is_(None))
    # What everybody may read for ever needs no question; most are so.
    anybodys = and_(
        datasets.c.visibility == "public",
        datasets.c.taken_down_at.is_(None),
        datasets.c.deleted_at.is_(None),
        given.c.read_only,
    )
    query = (
        select(given.c.run, clusters.c.user, given.c.dataset, given.c.read_only)
        .join(clusters, clusters.c.id == given.c.run)
        .join(datasets, datasets.c.id == given.c.dataset)
        .where(datasets.c.owner != clusters.c.user, not_(anybodys))
    )
    if dataset_id is not None:
        query = query.where(given.c.dataset == dataset_id)
    return [
        Rests(
            run_id=row.run,
            user=row.user,
            kind="dataset",
            item_id=row.dataset,
            does=Access.READ if row.read_only else Access.OWN,
        )
        for row in conn.execute(query)
    ]


def _item(conn: Connection, kind: Kind, item_id: str) -> Project | Dataset | None:
    by_id = store.by_id if kind == "project" else dataset_store.by_id
    return by_id(conn, item_id, deleted=True)


def _level(conn: Connection, viewer: Viewer, kind: Kind, item_id: str) -> Access:
    item = _item(conn, kind, item_id)
    if item is None:
        return Access.NONE
    return access(viewer, item, shares.of(conn, kind, item_id), kind=kind)


async def look(portal: Portal) -> None:
    """One round: begin the grace of runs that may not be any more, end those whose grace is over."""
    since, now = _since(portal), portal.clock()
    open_now = await portal.db.run_read(resting)
    viewers: dict[str, Viewer] = {}
    lost: dict[str, Rests] = {}
    for one in open_now:
        if one.user not in viewers:
            viewers[one.user] = await viewer_named(portal, one.user)
        if one.run_id not in lost:
            level = await portal.db.run_read(_level, viewers[one.user], one.kind, one.item_id)
            if not one.goes_on(level):
                lost[one.run_id] = one
    for run_id, one in lost.items():
        if run_id not in since:
            await _begin(portal, one)
        elif now - since[run_id] >= timedelta(seconds=GRACE_SECONDS):
            item = await portal.db.run_read(_item, one.kind, one.item_id)
            await portal.db.run(
                records.ask_stop,
                run_id,
                reason="withdrawn",
                asked_by="",
                now=now,
                explanation={
                    "message": _RELEASED[one.kind],
                    "params": {"name": item.name if item else ""} if one.kind == "dataset" else {},
                },
            )
    for run_id in set(since) - set(lost):
        del since[run_id]


async def _begin(portal: Portal, one: Rests) -> None:
    since = _since(portal)
    if one.run_id in since:
        return
    since[one.run_id] = portal.clock()
    item = await portal.db.run_read(_item, one.kind, one.item_id)
    await portal.db.run(
        notices.tell,
        one.user,
        now=portal.clock(),
        kind="withdrawn",
        cluster_id=one.run_id,
        text=_TOLD[one.kind],
        mail=True,
        name=item.name if item else "",
        minutes=GRACE_SECONDS // 60,
    )
