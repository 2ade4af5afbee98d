"""Versions of a data set: its files as they were, for ever, so that a run can be repeated on the same data (TI-8).

A version is a data set of its own, made by copying (by reference where the disk can): with an address, shares and
a place in its owner's quota, deleted by the same rules, used in projects like any other. What differs is that nobody
changes its files, its owner included, and that it is found on the page of its data set and not among all others. Its
number is never given twice. It begins as visible as its data set is at that moment; a public one is public for ever.

The row says what is to be copied (``busy`` = ``copying``) before a file is touched. Files that changed meanwhile are
noticed at the end, and then there is no version: half of a change would be worse than none.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import Connection, false, func, insert, or_, select, update

from galilean import audit
from galilean.errors import UserError, mark
from services.catalog import cards, datasets, mounted, shares
from services.catalog.access import no_such_thing
from services.catalog.datasets import Dataset
from services.catalog.shares import Actor
from services.catalog.store import NAME_LENGTH
from services.catalog.tables import datasets as table
from services.catalog.tables import project_datasets
from services.catalog.tables import shares as shares_table
from spawner.tables import clusters

VERSIONS_MOST = 200


def never_changes(version: Dataset) -> UserError:
    """The refusal to change the files of a version."""
    return UserError(
        409,
        mark(
            "“{name}” is a version: its files never change. Change the data set, then make another version."
        ),
        name=version.name,
        reason="version",
    )


def begin(conn: Connection, origin: Dataset, *, volume_id: str, actor: Actor, now: datetime) -> Dataset:
    """Note that a version is to be made of the files as they are; the next number is its.

    Call it with admission's lock, so that no run that writes begins meanwhile.

    Raises
    ------
    UserError
        404 when the data set is gone; 409 for a version, while files are at work or may be written by a run, or when
        there are too many; 403 for what was taken down.
    """
    row = conn.execute(
        select(table.c.deleted_at, table.c.busy).where(table.c.id == origin.id).with_for_update()
    ).first()
    if row is None or row.deleted_at is not None:
        raise no_such_thing()
    if origin.version_of:
        raise never_changes(origin)
    if origin.taken_down_at is not None:  # its copy could be published as if nothing had been decided
        raise UserError(403, mark("An administrator took this down. No version can be made of it."))
    if row.busy:
        raise UserError(
            409,
            mark("The files of “{name}” are being copied or moved just now. Try again when that is done."),
            name=origin.name,
            reason="busy",
        )
    check_quiet(conn, origin)
    last, count = conn.execute(
        select(func.coalesce(func.max(table.c.version), 0), func.count()).where(
            table.c.version_of == origin.id
        )
    ).one()
    if conn.execute(
        select(table.c.id).where(
            table.c.version_of == origin.id, table.c.busy == "copying", table.c.deleted_at.is_(None)
        )
    ).first():
        raise UserError(
            409, mark("A version of “{name}” is being made already."), name=origin.name, reason="busy"
        )
    if count >= VERSIONS_MOST:
        raise UserError(
            409,
            mark("“{name}” has had {most} versions; there are no more."),
            name=origin.name,
            most=VERSIONS_MOST,
        )
    number = int(last) + 1
    tail = f" v{number}"
    made = datasets.create(
        conn,
        owner=origin.owner,
        name=origin.name[: NAME_LENGTH - len(tail)].rstrip() + tail,
        slug=None,
        mount=origin.mount,
        volume_id=volume_id,
        now=now,
        summary=origin.summary,
        description=origin.description,
        field=origin.field,
        tags=origin.tags,
        cover=origin.cover,
        version_of=origin.id,
        version=number,
        busy="copying",
    )
    audit.write(
        conn,
        at=now,
        actor=actor.name,
        address=actor.address,
        action="dataset.version",
        subject=f"{origin.owner}/{origin.slug}",
        after={"version": number, "address": f"{made.owner}/{made.slug}"},
    )
    return made


def check_quiet(conn: Connection, origin: Dataset, since: datetime | None = None) -> None:
    """Refuse while a run of its owner may write the data set, or when one could ``since`` then.

    Raises
    ------
    UserError
        409, naming the project.
    """
    then = (
        clusters.c.user == origin.owner,
        or_(clusters.c.released_at.is_(None), clusters.c.released_at > since if since else false()),
    )
    linked = select(project_datasets.c.project_id).where(
        project_datasets.c.dataset_id == origin.id, project_datasets.c.writable
    )
    given = mounted.given(conn, *then)
    having = select(given.c.run).where(given.c.dataset == origin.id, ~given.c.read_only)
    writing = conn.execute(
        select(clusters.c.project_name).where(
            or_(clusters.c.project_id.in_(linked), clusters.c.id.in_(having)), *then
        )
    ).scalar()
    if writing is not None:
        raise UserError(
            409,
            mark(
                "Your cluster of “{project}” may write this data set. Release it first, then make the version."
            ),
            project=writing,
            reason="busy",
        )


def arrived(conn: Connection, version: Dataset, *, files: int, size_bytes: int, now: datetime) -> bool:
    """Note that all files are there, and let those read it who read its data set; whether it is still wanted.

    Raises
    ------
    UserError
        409 when files changed since the version was asked for; 404 when the data set is gone.
    """
    origin = datasets.by_id(conn, version.version_of)
    if origin is None:
        raise no_such_thing()
    check_quiet(conn, origin, version.created_at)
    if origin.busy or origin.changed_at > version.created_at:
        raise UserError(409, mark("Files changed while they were copied. Make the version again."))
    values: dict[str, Any] = {"busy": "", "file_count": files, "size_bytes": size_bytes, "measured_at": now}
    if origin.taken_down_at is None:
        values |= {
            "visibility": origin.visibility,
            "published_at": now if origin.visibility == "public" else None,
        }
    done = conn.execute(
        update(table)
        .where(table.c.id == version.id, table.c.busy == "copying", table.c.deleted_at.is_(None))
        .values(values)
    ).rowcount
    if not done:
        return False
    for share in shares.of(conn, "dataset", origin.id):
        conn.execute(
            insert(shares_table).values(
                kind="dataset",
                item_id=version.id,
                grantee_kind=share.grantee_kind,
                grantee=share.grantee,
                access=share.access,
                given_by=origin.owner,
                given_at=now,
            )
        )
    cards.put(conn, "dataset", version.id)
    return True


def tell(conn: Connection, version_id: str, files: int, size_bytes: int) -> bool:
    """Note how far the copy is; whether it is still wanted."""
    return bool(
        conn.execute(
            update(table)
            .where(table.c.id == version_id, table.c.busy == "copying", table.c.deleted_at.is_(None))
            .values(file_count=files, size_bytes=size_bytes)
        ).rowcount
    )


def cancel(conn: Connection, version: Dataset, now: datetime) -> bool:
    """Give up a version that is being made; whether it still was."""
    return bool(
        conn.execute(
            update(table)
            .where(table.c.id == version.id, table.c.busy == "copying", table.c.deleted_at.is_(None))
            .values(deleted_at=now)
        ).rowcount
    )


def gone(conn: Connection, version_id: str, now: datetime) -> None:
    """Note that nothing is left of a version that was not made; its number stays given."""
    conn.execute(
        update(table)
        .where(table.c.id == version_id, table.c.purged_at.is_(None))
        .values(deleted_at=now, purged_at=now, busy="", size_bytes=0, file_count=0)
    )
    cards.put(conn, "dataset", version_id)


def waiting(conn: Connection, most: int) -> list[str]:
    """Ids of versions whose files are to be copied, or cleared away, the oldest first."""
    return list(
        conn.execute(
            select(table.c.id)
            .where(table.c.busy == "copying", table.c.version_of != "", table.c.purged_at.is_(None))
            .order_by(table.c.id)
            .limit(most)
        ).scalars()
    )


def of(conn: Connection, origin_id: str) -> list[Dataset]:
    """The living versions of a data set, the newest first."""
    rows = conn.execute(
        select(*datasets.COLUMNS)
        .where(table.c.version_of == origin_id, table.c.deleted_at.is_(None))
        .order_by(table.c.version.desc())
    )
    return [datasets.dataset(row) for row in rows]


def of_number(conn: Connection, origin_id: str, number: int) -> Dataset | None:
    """A living version by its number; 0 is the data set itself."""
    if number == 0:
        return datasets.by_id(conn, origin_id)
    return next((one for one in of(conn, origin_id) if one.version == number), None)
