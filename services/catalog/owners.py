"""Projects that change hands: by an administrator, with everything that hangs on them.

The id stays, and with it machine time, forks, favourites and who it is shared with. The address becomes the new
owner's, numbered when they have one of this name; so do the names of servers, which is why nobody may run it
meanwhile. Files stay where they are.
"""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Connection, delete, exists, select, update
from sqlalchemy.exc import IntegrityError

from galilean import audit
from galilean.errors import UserError, mark
from galilean.names import numbered
from services.catalog import cards, forking, shares, store
from services.catalog.shares import Actor
from services.catalog.store import NUMBERS_MOST, Project
from services.catalog.tables import datasets, project_datasets, projects
from services.catalog.tables import shares as shares_table


def give_to(conn: Connection, project: Project, owner: str, *, actor: Actor, now: datetime) -> Project:
    """Make somebody else the owner of a project; in a transaction that admission waits for.

    Raises
    ------
    UserError
        404 when it is not there, 409 while a cluster of it is held or something is done to its files.
    """
    found = store.by_id(conn, project.id)
    if found is None:
        raise store.no_such_project()
    if found.owner == owner:
        return found
    if found.busy:
        raise forking.busy(found)
    if shares.open_runs(conn, found.id):
        raise UserError(
            409,
            mark("“{name}” is running. Release its clusters first, then change its owner."),
            name=found.name,
        )
    taken = store.slugs_like(conn, projects, owner, found.slug)
    for number in range(1, NUMBERS_MOST):
        slug = numbered(found.slug, number)
        if slug in taken:
            continue
        try:
            with conn.begin_nested():
                conn.execute(
                    update(projects)
                    .where(projects.c.id == found.id)
                    .values(owner=owner, slug=slug, **store.derived(found.name, slug, found.description))
                )
        except IntegrityError:  # somebody took it a moment ago
            continue
        break
    else:
        raise UserError(409, mark("{owner} has too many projects of this name."), owner=owner)
    conn.execute(
        delete(shares_table).where(
            shares_table.c.kind == "project",
            shares_table.c.item_id == found.id,
            shares_table.c.grantee_kind == "person",
            shares_table.c.grantee == owner,
        )
    )
    theirs = exists(
        select(datasets.c.id).where(datasets.c.id == project_datasets.c.dataset_id, datasets.c.owner == owner)
    )
    conn.execute(
        update(project_datasets)
        .where(project_datasets.c.project_id == found.id, ~theirs)
        .values(writable=False)
    )
    cards.put(conn, "project", found.id)
    audit.write(
        conn,
        at=now,
        actor=actor.name,
        address=actor.address,
        action="project.owner",
        subject=f"{found.owner}/{found.slug}",
        before={"owner": found.owner, "slug": found.slug},
        after={"owner": owner, "slug": slug},
    )
    after = store.by_id(conn, found.id)
    assert after is not None
    return after
