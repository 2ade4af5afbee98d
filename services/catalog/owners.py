"""Projects that change hands: by an administrator, with everything that hangs on them.

The id stays, and with it machine time, forks, favourites and who it is shared with. The address becomes the new
owner's, numbered when they have one of this name; so do the names of servers, which is why nobody may run it
meanwhile. Files stay where they are.
"""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Connection, Table, exists, select, update
from sqlalchemy.exc import IntegrityError

from galilean import audit
from galilean.errors import UserError, mark
from galilean.names import numbered
from services.catalog import cards, forking, shares, store
from services.catalog.datasets import Dataset
from services.catalog.shares import Actor
from services.catalog.store import NUMBERS_MOST, Project
from services.catalog.tables import datasets, project_datasets, projects


def rename(
    conn: Connection, table: Table, found: Project | Dataset, owner: str, *, about: str, full: str
) -> str:
    """Give a row to somebody, at an address of theirs that is free; the slug that it has then.

    Raises
    ------
    UserError
        409, in the words of ``full``, when no address is left.
    """
    taken = store.slugs_like(conn, table, owner, found.slug)
    for number in range(1, NUMBERS_MOST):
        slug = numbered(found.slug, number)
        if slug in taken:
            continue
        try:
            with conn.begin_nested():
                conn.execute(
                    update(table)
                    .where(table.c.id == found.id)
                    .values(owner=owner, slug=slug, **store.derived(found.name, slug, about))
                )
        except IntegrityError:  # somebody took it a moment ago
            continue
        return slug
    raise UserError(409, full, owner=owner)


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
    slug = rename(
        conn,
        projects,
        found,
        owner,
        about=found.description,
        full=mark("{owner} has too many projects of this name."),
    )
    shares.not_with(conn, "project", found.id, owner)
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
