"""Data sets in the database: who has which, under which address and mount directory, and who uses them.

A data set has files of its own beside projects, and any number of projects use it by reference
(:mod:`services.catalog.links`). All functions take a connection first and run inside the caller's transaction;
none looks at the clock or touches a file.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from pathlib import Path
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, exists, func, insert, or_, select
from sqlalchemy import update as sql_update
from sqlalchemy.exc import IntegrityError
from ulid import ULID

from galilean.errors import UserError, mark
from galilean.names import check_slug, numbered, slugify
from galilean.settings import Settings
from services.catalog import (
    cards,
    mounted,
    public_for_ever,  # noqa: F401 - the database refuses the step back, too
)
from services.catalog.access import no_such_thing
from services.catalog.fields import clean_tags
from services.catalog.lifecycle import check_restorable
from services.catalog.mounts import check_mount
from services.catalog.store import NUMBERS_MOST, clean_name, derived, slugs_like, storable
from services.catalog.tables import datasets, project_datasets, projects, shares
from services.catalog.volumes import DATASETS, directory_of, root_column
from spawner.tables import clusters

SUMMARY_MOST = 200
DESCRIPTION_MOST = 50_000


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """Files that projects use by reference (CG-11, CG-12).

    Attributes
    ----------
    id
        ULID, never used twice.
    owner, slug
        Its address, ``owner/slug``.
    summary, description
        A sentence, and as much Markdown as is needed.
    mount
        Its directory below ``~/datasets`` in projects that choose no other.
    visibility
        ``private``, ``shared`` or ``public``; from public there is no way back.
    volume_id, directory
        Where its files lie.
    busy
        What is being done to its files; empty = nothing.
    size_bytes, file_count
        As counted at ``measured_at``; ``None`` = never.
    volume_root
        Where its volume is, if that was registered online; the settings say it of theirs.
    version_of, version
        Of which data set it is which version (:mod:`services.catalog.versions`); empty and 0 = of none.
    """

    id: str
    owner: str
    slug: str
    name: str
    summary: str
    description: str
    mount: str
    visibility: str
    volume_id: str
    directory: str
    cover: str
    field: str
    tags: tuple[str, ...]
    busy: str
    size_bytes: int | None
    file_count: int | None
    measured_at: datetime | None
    created_at: datetime
    changed_at: datetime
    published_at: datetime | None
    deleted_at: datetime | None
    taken_down_at: datetime | None
    taken_down_reason: str = ""
    volume_root: str = ""
    version_of: str = ""
    version: int = 0

    def volume(self, settings: Settings) -> Path:
        """The directory of its volume.

        Raises
        ------
        UserError
            503 when neither the settings nor the register know it.
        """
        return directory_of(settings, self.volume_id, self.volume_root)

    def path(self, settings: Settings) -> Path:
        """The directory of its files.

        Raises
        ------
        UserError
            503 when nobody knows its volume.
        """
        return self.volume(settings) / self.directory


COLUMNS: list[ColumnElement[Any]] = [
    *(datasets.c[field.name] for field in fields(Dataset) if field.name != "volume_root"),
    root_column(datasets),
]


def dataset(row: Row[Any]) -> Dataset:
    """From a row that has the columns, and maybe more."""
    values = {field.name: row._mapping[field.name] for field in fields(Dataset)}
    values["tags"] = tuple(values["tags"] or ())
    return Dataset(**values)


def clean_text(text: str, most: int) -> str:
    """A description as it is kept: NFC, lines allowed.

    Raises
    ------
    UserError
        400 when it is too long or has control characters.
    """
    text = unicodedata.normalize("NFC", text.replace("\r\n", "\n")).strip()
    if len(text) > most:
        raise UserError(
            400,
            mark("The text has {length} characters; at most {most} fit. Put the rest into README.md."),
            length=len(text),
            most=most,
        )
    if any(unicodedata.category(char) in ("Cc", "Cs") and char not in "\n\t" for char in text):
        raise UserError(400, mark("The description has control characters. Type it anew."))
    return text


def create(
    conn: Connection,
    *,
    owner: str,
    name: str,
    volume_id: str,
    now: datetime,
    slug: str | None = None,
    mount: str | None = None,
    summary: str = "",
    description: str = "",
    field: str = "",
    tags: Sequence[str] = (),
    **more: Any,
) -> Dataset:
    """Make a data set of ``owner``, private and empty; ``more`` are further columns of a version.

    ``slug`` is the address to take, ``None`` = made from the name and numbered when taken; ``mount`` the
    directory in projects, ``None`` = the slug.

    Raises
    ------
    UserError
        400 for what cannot be; 409 when the slug that was asked for is taken.
    """
    name = clean_name(name)
    wanted = check_slug(slug) if slug else slugify(name)
    if mount is not None:
        check_mount(mount)
    dataset_id = str(ULID.from_datetime(now))
    values: dict[str, Any] = {
        "id": dataset_id,
        "owner": owner,
        "name": name,
        "summary": " ".join(clean_text(summary, SUMMARY_MOST).split()),
        "description": clean_text(description, DESCRIPTION_MOST),
        "volume_id": volume_id,
        "directory": f"{DATASETS}/{dataset_id}",
        "field": field,
        "tags": list(clean_tags(tags)),
        "created_at": now,
        "changed_at": now,
        **more,
    }
    taken = slugs_like(conn, datasets, owner, wanted)
    for number in range(1, NUMBERS_MOST):
        candidate = numbered(wanted, number)
        if candidate not in taken:
            texts = derived(name, candidate, values["summary"])
            try:
                with conn.begin_nested():
                    conn.execute(
                        insert(datasets).values(slug=candidate, mount=mount or candidate, **texts, **values)
                    )
                    cards.put(conn, "dataset", dataset_id)
            except IntegrityError:  # somebody took it a moment ago
                if get(conn, owner, candidate) is None:
                    raise
            else:
                return _found(conn, dataset_id)
        if slug:
            break
    raise UserError(
        409, mark("You have a data set at “{slug}” already. Choose another address."), slug=wanted
    )


def get(conn: Connection, owner: str, slug: str) -> Dataset | None:
    """The living data set at ``owner/slug``."""
    if not storable(owner) or not storable(slug):
        return None
    row = conn.execute(
        select(*COLUMNS).where(
            datasets.c.owner == owner, datasets.c.slug == slug, datasets.c.deleted_at.is_(None)
        )
    ).first()
    return dataset(row) if row else None


def by_id(conn: Connection, dataset_id: str, *, deleted: bool = False) -> Dataset | None:
    """The data set of an id; a deleted one only when ``deleted`` is asked for."""
    if not storable(dataset_id):
        return None
    query = select(*COLUMNS).where(datasets.c.id == dataset_id)
    if not deleted:
        query = query.where(datasets.c.deleted_at.is_(None))
    row = conn.execute(query).first()
    return dataset(row) if row else None


def update(conn: Connection, old: Dataset, *, now: datetime, **changes: Any) -> Dataset:
    """Change what is given of name, summary, description, mount, field, tags, cover; the slug never changes.

    Another ``mount`` holds for projects that take the data set from now on: those that have it keep their
    directory, for their programs name it.

    Raises
    ------
    UserError
        400 for values that cannot be; 404 when it was deleted meanwhile.
    """
    clean = {
        "name": clean_name,
        "summary": lambda text: " ".join(clean_text(text, SUMMARY_MOST).split()),
        "description": lambda text: clean_text(text, DESCRIPTION_MOST),
        "mount": check_mount,
        "field": str,
        "tags": lambda tags: list(clean_tags(tags)),
        "cover": str,
    }
    values = {name: clean[name](value) for name, value in changes.items() if value is not None}
    texts = derived(values.get("name", old.name), old.slug, values.get("summary", old.summary))
    _change_one(conn, old.id, {**values, **texts, "changed_at": now})
    return _found(conn, old.id)


def touch(conn: Connection, dataset_id: str, now: datetime) -> None:
    """Note that files changed."""
    conn.execute(
        sql_update(datasets)
        .where(datasets.c.id == dataset_id, datasets.c.deleted_at.is_(None), datasets.c.changed_at < now)
        .values(changed_at=now)
    )
    cards.touch(conn, "dataset", dataset_id, now)


@dataclass(frozen=True, kw_only=True)
class Uses:
    """Who uses a data set.

    Attributes
    ----------
    own, others
        Living projects of its owner, and of other people who may read it, that have it. Who is in a group that was
        given it, only the hub knows: with such a share everybody counts.
    running
        Clusters that are held now of any of them, or that have it though their project has it no more.
    """

    own: int
    others: int
    running: int


def uses(conn: Connection, dataset_id: str) -> Uses:
    """How many projects and running clusters use a data set."""
    owner = select(datasets.c.owner).where(datasets.c.id == dataset_id).scalar_subquery()
    public = exists().where(datasets.c.id == dataset_id, datasets.c.visibility == "public")
    shared = exists().where(
        shares.c.kind == "dataset",
        shares.c.item_id == dataset_id,
        or_(shares.c.grantee_kind == "group", shares.c.grantee == projects.c.owner),
    )
    living = (
        select(
            projects.c.id,
            (projects.c.owner == owner).label("own"),
            or_(projects.c.owner == owner, public, shared).label("reads"),
        )
        .join(project_datasets, project_datasets.c.project_id == projects.c.id)
        .where(project_datasets.c.dataset_id == dataset_id, projects.c.deleted_at.is_(None))
        .subquery()
    )
    counts = {
        bool(row[0]): int(row[1])
        for row in conn.execute(
            select(living.c.own, func.count()).where(living.c.reads).group_by(living.c.own)
        )
    }
    given = mounted.given(conn, clusters.c.released_at.is_(None))
    having = select(given.c.run).where(given.c.dataset == dataset_id)
    running = conn.execute(
        select(func.count())
        .select_from(clusters)
        .where(
            clusters.c.released_at.is_(None),
            or_(clusters.c.project_id.in_(select(living.c.id)), clusters.c.id.in_(having)),
        )
    ).scalar_one()
    return Uses(own=counts.get(True, 0), others=counts.get(False, 0), running=int(running))


def check_delete(found: Uses, name: str) -> None:
    """Refuse to delete a data set that people work with.

    Raises
    ------
    UserError
        409 with the numbers and the way out.
    """
    if found.running:
        raise UserError(
            409,
            mark("“{name}” is in use by {running} running clusters. Release them first, then delete it."),
            name=name,
            running=found.running,
        )
    if found.others:
        raise UserError(
            409,
            mark(
                "“{name}” is used by {others} projects of other people and cannot be deleted while they have it. "
                "An administrator can take it down."
            ),
            name=name,
            others=found.others,
        )


def delete(conn: Connection, old: Dataset, *, now: datetime) -> Uses:
    """Put a data set into the bin; its owner's projects go on without it. What used it.

    Call it with admission's lock (:meth:`galilean.db.Database.serialised`), so that no run begins meanwhile.

    Raises
    ------
    UserError
        409 while other people's projects, or running clusters, use it; 404 when it was deleted already.
    """
    found = uses(conn, old.id)
    check_delete(found, old.name)
    _change_one(conn, old.id, {"deleted_at": now})
    return found


def restore(conn: Connection, dataset_id: str, *, now: datetime) -> Dataset:
    """Take a deleted data set back; numbered when its slug was given away meanwhile.

    Raises
    ------
    UserError
        404 when there is none of this id in the bin, or its files are gone.
    """
    old = conn.execute(select(datasets).where(datasets.c.id == dataset_id)).first()
    if old is None or old.deleted_at is None:
        raise no_such_thing()
    check_restorable(old, now)
    for number in range(1, NUMBERS_MOST):
        slug = numbered(old.slug, number)
        try:
            with conn.begin_nested():
                conn.execute(
                    sql_update(datasets)
                    .where(datasets.c.id == dataset_id)
                    .values(
                        slug=slug, deleted_at=None, changed_at=now, **derived(old.name, slug, old.summary)
                    )
                )
        except IntegrityError:
            continue
        cards.put(conn, "dataset", dataset_id)
        return _found(conn, dataset_id)
    raise UserError(409, mark("“{name}” cannot be taken back: its address is taken."), name=old.name)


def _change_one(conn: Connection, dataset_id: str, values: dict[str, Any]) -> None:
    done = conn.execute(
        sql_update(datasets)
        .where(datasets.c.id == dataset_id, datasets.c.deleted_at.is_(None))
        .values(values)
    )
    if done.rowcount != 1:
        raise no_such_thing()
    cards.put(conn, "dataset", dataset_id)


def _found(conn: Connection, dataset_id: str) -> Dataset:
    found = by_id(conn, dataset_id)
    assert found is not None
    return found
