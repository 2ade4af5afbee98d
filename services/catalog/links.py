"""Which data sets a project uses, where it finds them, and what a run of it gets.

Who takes a data set into a project must be able to change the project and to read the data set; whether a run
gets it is asked again at each start, of the person who runs. So a link is a wish, never a key.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, delete, insert, select, update
from sqlalchemy.exc import IntegrityError

from galilean.errors import UserError, mark
from galilean.settings import Settings
from services.catalog import counts, datasets, shares, versions
from services.catalog.access import Access, Viewer, access, may_see, need, no_such_thing
from services.catalog.datasets import Dataset
from services.catalog.forking import KeptLink
from services.catalog.mounts import (
    Linked,
    RunMounts,
    alias,
    check_mount,
    mount_key,
    mount_taken,
    run_mounts,
)
from services.catalog.store import Project
from services.catalog.tables import datasets as datasets_table
from services.catalog.tables import project_datasets, projects

#: Each is a mount of every node: some 250 bytes of a pod's specification, which Kubernetes keeps in one piece of at most
#: 1.5 MB, and a mount that each start waits for. More than people name; far fewer than either can take.
LINKS_MOST = 200


def links_of(conn: Connection, project_id: str, settings: Settings | None = None) -> list[Linked]:
    """The data sets of a project, with their shares; ``settings`` also says where their files are."""
    rows = conn.execute(
        select(
            *datasets.COLUMNS,
            project_datasets.c.mount.label("link_mount"),
            project_datasets.c.writable.label("link_writable"),
        )
        .join(project_datasets, project_datasets.c.dataset_id == datasets_table.c.id)
        .where(project_datasets.c.project_id == project_id)
        .order_by(project_datasets.c.mount_key)
    ).all()
    given = shares.of_many(conn, "dataset", [row.id for row in rows]) if rows else {}
    return [_linked(row, given[row.id], settings) for row in rows]


def _linked(row: Any, given: list[Any], settings: Settings | None) -> Linked:
    found = datasets.dataset(row)
    # Of a volume that is not set up nothing can be mounted; that is told, and the run starts without it.
    away = settings is not None and found.volume_id not in settings.volumes and not found.volume_root
    return Linked(
        id=found.id,
        owner=found.owner,
        slug=found.slug,
        name=found.name,
        mount=row.link_mount,
        writable=bool(row.link_writable),
        visibility=found.visibility,
        deleted_at=found.deleted_at,
        taken_down_at=found.taken_down_at,
        busy="away" if away else found.busy,
        path="" if settings is None or away else str(found.path(settings)),
        registered=bool(found.volume_root),
        shares=tuple(given),
        version_of=found.version_of,
        version=found.version,
    )


def mounts_of_run(conn: Connection, settings: Settings, viewer: Viewer, project: Project) -> RunMounts:
    """What a run of a project by somebody gets besides ``~/work``; for the resolver.

    Only what stands in the project and what the person may read at this moment; no request can add to it.
    """
    found = links_of(conn, project.id, settings)
    return replace(run_mounts(viewer, found), registered=any(link.registered for link in found))


def add(
    conn: Connection,
    viewer: Viewer,
    project: Project,
    dataset_id: str,
    *,
    now: datetime,
    mount: str | None = None,
    writable: bool = False,
) -> Linked:
    """Take a data set into a project; there from the next run on.

    Parameters
    ----------
    conn, now
        A transaction that writes, and when.
    viewer, project, dataset_id
        Who takes what where; whether they may change the one and read the other is asked here.
    mount
        The directory below ``~/datasets``; ``None`` = the data set's own.
    writable
        Whether runs of the data set's owner may write it.

    Raises
    ------
    UserError
        404 for what they may not see, 403 when they may not change the project or write the data set, 409 with
        reason ``mount-taken`` and an alias that is free, or when the project has it already.
    """
    level = access(viewer, project, shares.of(conn, "project", project.id))
    need(viewer, level, Access.WRITE)
    found = datasets.by_id(conn, dataset_id)
    if found is None:
        raise no_such_thing()
    theirs = access(viewer, found, shares.of(conn, "dataset", dataset_id), kind="dataset")
    if not may_see(theirs):
        raise no_such_thing()
    check_writable(viewer, found, writable)
    wanted = found.mount if mount is None else check_mount(mount)
    conn.execute(select(projects.c.id).where(projects.c.id == project.id).with_for_update())
    there = links_of(conn, project.id)
    if any(link.id == dataset_id for link in there):
        raise UserError(409, mark("This project has the data set “{name}” already."), name=found.name)
    if len(there) >= LINKS_MOST:
        raise UserError(409, mark("A project has at most {most} data sets."), most=LINKS_MOST)
    taken = {mount_key(link.mount) for link in there}
    if mount_key(wanted) in taken:
        raise mount_taken(wanted, alias(wanted, found.owner, taken))
    _insert(
        conn, project.id, KeptLink(dataset_id=dataset_id, mount=wanted, writable=writable), viewer.name, now
    )
    if found.owner != viewer.name:
        counts.once(conn, "dataset", dataset_id, what="use", person=viewer.name, day=now.date())
    return next(link for link in links_of(conn, project.id) if link.id == dataset_id)


def check_writable(viewer: Viewer, found: Dataset, writable: bool) -> None:
    """Refuse to let anybody but its owner choose that a data set is written.

    Raises
    ------
    UserError
        403.
    """
    if writable and found.version_of:
        raise versions.never_changes(found)
    if writable and viewer.name != found.owner:
        raise UserError(403, mark("Only {owner} may write this data set."), owner=found.owner)


def copy(
    conn: Connection, project_id: str, links: tuple[KeptLink, ...], *, person: str, now: datetime
) -> None:
    """Give a new fork its data sets."""
    for link in links:
        _insert(conn, project_id, link, person, now)


def change(
    conn: Connection,
    viewer: Viewer,
    project: Project,
    dataset_id: str,
    *,
    mount: str | None = None,
    writable: bool | None = None,
    version: int | None = None,
) -> None:
    """Give a project's data set another directory or version, or let its owner's runs write it; from the next run on.

    ``version`` 0 is the data set itself, whose files change.

    Raises
    ------
    UserError
        As :func:`add`.
    """
    need(viewer, access(viewer, project, shares.of(conn, "project", project.id)), Access.WRITE)
    found = datasets.by_id(conn, dataset_id, deleted=True)
    # One after the other: two that wish for one directory both read that it is free.
    conn.execute(select(projects.c.id).where(projects.c.id == project.id).with_for_update())
    there = links_of(conn, project.id)
    if found is None or all(link.id != dataset_id for link in there):
        raise no_such_thing()
    values: dict[str, Any] = {}
    if mount is not None:
        taken = {mount_key(link.mount) for link in there if link.id != dataset_id}
        if mount_key(check_mount(mount)) in taken:
            raise mount_taken(mount, alias(mount, found.owner, taken))
        values |= {"mount": mount, "mount_key": mount_key(mount)}
    if writable is not None:
        check_writable(viewer, found, writable)
        values["writable"] = writable
    if version is not None:
        values |= _version(conn, viewer, found, version, there)
    if values:
        conn.execute(update(project_datasets).where(*_key(project.id, dataset_id)).values(values))


def _version(
    conn: Connection, viewer: Viewer, found: Dataset, version: int, there: Sequence[Linked]
) -> dict[str, Any]:
    """What a link to a version is changed to, or to the data set itself (0)."""
    wanted = versions.of_number(conn, found.version_of or found.id, version)
    if wanted is None or wanted.busy:
        raise no_such_thing()
    if not may_see(access(viewer, wanted, shares.of(conn, "dataset", wanted.id), kind="dataset")):
        raise no_such_thing()
    if wanted.id == found.id:
        return {}
    if any(link.id == wanted.id for link in there):
        raise UserError(409, mark("This project has the data set “{name}” already."), name=wanted.name)
    return {"dataset_id": wanted.id, "writable": False}


def remove(conn: Connection, viewer: Viewer, project: Project, dataset_id: str) -> bool:
    """Take a data set out of a project; whether it was in it. Running clusters keep it until they end.

    Raises
    ------
    UserError
        403, 404 when they may not change the project.
    """
    need(viewer, access(viewer, project, shares.of(conn, "project", project.id)), Access.WRITE)
    return bool(conn.execute(delete(project_datasets).where(*_key(project.id, dataset_id))).rowcount)


@dataclass(frozen=True, kw_only=True)
class UsedBy:
    """A project that uses a data set, as far as somebody may know of it."""

    project_id: str
    owner: str
    slug: str
    name: str
    mount: str
    changed_at: datetime


def used_by(conn: Connection, viewer: Viewer, dataset_id: str, *, most: int = 200) -> list[UsedBy]:
    """Living projects that use a data set and that somebody may see, the last changed first."""
    rows: Sequence[Any] = conn.execute(
        select(projects, project_datasets.c.mount)
        .join(project_datasets, project_datasets.c.project_id == projects.c.id)
        .where(project_datasets.c.dataset_id == dataset_id, projects.c.deleted_at.is_(None))
        .order_by(projects.c.changed_at.desc(), projects.c.id.desc())
        .limit(most)
    ).all()
    given = shares.of_many(conn, "project", [row.id for row in rows]) if rows else {}
    return [
        UsedBy(
            project_id=row.id,
            owner=row.owner,
            slug=row.slug,
            name=row.name,
            mount=row.mount,
            changed_at=row.changed_at,
        )
        for row in rows
        if may_see(access(viewer, row, given[row.id]))
    ]


def _insert(conn: Connection, project_id: str, link: KeptLink, person: str, now: datetime) -> None:
    try:
        with conn.begin_nested():
            conn.execute(
                insert(project_datasets).values(
                    project_id=project_id,
                    dataset_id=link.dataset_id,
                    mount=link.mount,
                    mount_key=mount_key(link.mount),
                    writable=link.writable,
                    added_by=person,
                    added_at=now,
                )
            )
    except IntegrityError as error:  # in another page, a moment ago
        raise mount_taken(link.mount, alias(link.mount, person, {mount_key(link.mount)})) from error


def _key(project_id: str, dataset_id: str) -> tuple[Any, Any]:
    return project_datasets.c.project_id == project_id, project_datasets.c.dataset_id == dataset_id
