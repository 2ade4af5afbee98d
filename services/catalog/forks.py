"""Forks in the database: made from a plan, with their data sets; and the tree that they are in.

The row of a fork is there before its files are (``busy`` = ``copying``), so that it can be shown with its
progress and cannot be run; who cancels deletes it. What the plan holds was decided by
:mod:`services.catalog.forking`.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, select, update

from services.catalog import cards, counts, links, shares, store
from services.catalog.access import Viewer, access, may_see
from services.catalog.forking import Fork
from services.catalog.store import Project
from services.catalog.tables import projects

DEPTH_MOST = 20


def make(
    conn: Connection,
    viewer: Viewer,
    plan: Fork,
    *,
    volume_id: str,
    now: datetime,
    slug: str | None = None,
    given_by: str = "",
) -> Project:
    """Make a fork's row, private and busy until its files are copied (:func:`services.catalog.lifecycle.end`).

    ``given_by`` is who made it for the viewer, where it was not the viewer.

    Raises
    ------
    UserError
        400, 409 as :func:`services.catalog.store.create`.
    """
    made = store.create(
        conn,
        owner=viewer.name,
        name=plan.name,
        slug=slug,
        volume_id=volume_id,
        now=now,
        description=plan.description,
        environment=plan.environment,
        default_request=plan.default_request,
    )
    conn.execute(
        update(projects)
        .where(projects.c.id == made.id)
        .values(
            forked_from=plan.forked_from,
            given_by=given_by,
            field=plan.field,
            tags=list(plan.tags),
            cover=plan.cover,
            readme=plan.readme,
            busy="copying",
        )
    )
    cards.put(conn, "project", made.id)
    links.copy(conn, made.id, plan.links, person=viewer.name, now=now)
    origin = store.by_id(conn, plan.forked_from)
    if origin is not None and origin.owner != viewer.name:
        counts.once(conn, "project", origin.id, what="use", person=viewer.name, day=now.date())
    for link in links.links_of(conn, made.id):
        if link.owner != viewer.name:
            counts.once(conn, "dataset", link.id, what="use", person=viewer.name, day=now.date())
    found = store.by_id(conn, made.id)
    assert found is not None
    return found


@dataclass(frozen=True, kw_only=True)
class Forked:
    """A project in a tree of forks.

    Attributes
    ----------
    depth
        0 = the project asked for, 1 = its forks, …
    parent
        Id of what it is a fork of.
    """

    project: Project
    depth: int
    parent: str | None


def tree(conn: Connection, viewer: Viewer, project: Project, *, most: int = 200) -> list[Forked]:
    """A project and the forks of it that somebody may see, each behind its parent, the oldest first.

    A fork of a fork that may not be seen is shown with its nearest parent that may.
    """
    found = [Forked(project=project, depth=0, parent=None)]
    _below(conn, viewer, project.id, project.id, 1, found, most)
    return found


def _below(
    conn: Connection, viewer: Viewer, of: str, parent: str, depth: int, found: list[Forked], most: int
) -> None:
    if depth > DEPTH_MOST or len(found) >= most:
        return
    ids = list(
        conn.execute(
            select(projects.c.id)
            .where(projects.c.forked_from == of, projects.c.deleted_at.is_(None))
            .order_by(projects.c.created_at, projects.c.id)
            .limit(most)
        ).scalars()
    )
    given = shares.of_many(conn, "project", ids) if ids else {}
    for fork_id in ids:
        if len(found) >= most:
            return
        fork = store.by_id(conn, fork_id)
        if fork is None:
            continue
        if may_see(access(viewer, fork, given[fork_id])):
            found.append(Forked(project=fork, depth=depth, parent=parent))
            _below(conn, viewer, fork_id, fork_id, depth + 1, found, most)
        else:
            _below(conn, viewer, fork_id, parent, depth, found, most)


def origin(conn: Connection, viewer: Viewer, project: Project) -> Project | None:
    """What a project is a fork of, if somebody may see that."""
    found = store.by_id(conn, project.forked_from) if project.forked_from else None
    if found is None or not may_see(access(viewer, found, shares.of(conn, "project", found.id))):
        return None
    return found
