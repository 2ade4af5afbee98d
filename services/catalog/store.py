"""Projects in the database: who has which, under which name and address, and where its files lie.

All functions take a connection first and run inside the caller's transaction; none looks at the clock or
touches a file. A slug is unique among the owner's living projects; the partial index decides when two are
made at once, so that one gets ``heat-flow`` and the other ``heat-flow-2``. A deleted project keeps its
row: machine time stays readable (CG-24) and its slug is free again.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from anyascii import anyascii
from sqlalchemy import ColumnElement, Connection, Row, Table, and_, exists, func, insert, select, tuple_
from sqlalchemy import update as sql_update
from sqlalchemy.exc import IntegrityError
from ulid import ULID

from galilean.errors import UserError, mark
from galilean.names import check_slug, numbered, server_alias, slugify
from galilean.settings import Settings
from galilean.web.paging import Cursor
from services.catalog import cards
from services.catalog.fields import check_field, clean_tags
from services.catalog.lifecycle import check_restorable
from services.catalog.tables import projects
from services.catalog.volumes import PROJECTS, directory_of, root_column
from spawner.request import ClusterRequest
from spawner.tables import clusters

NAME_LENGTH = 100
#: What a row of ``projects`` is: a project, or the ``work`` of an environment that is opened on its own
#: (:mod:`services.catalog.workbenches`), which no list of projects shows.
PROJECT, WORKBENCH = "project", "workbench"
DESCRIPTION_LENGTH = 2000
NUMBERS_MOST = 1000

Sort = Literal["recent", "name", "created"]


@dataclass(frozen=True, kw_only=True)
class Project:
    """What a person works on (CG-8).

    Attributes
    ----------
    id
        ULID, never used twice; what machine time is counted for.
    owner, slug
        Its address, ``owner/slug``.
    environment
        Name of the default environment; empty = the site's.
    default_request
        What the Run panel starts with, in the form of :meth:`ClusterRequest.as_dict`.
    visibility
        ``private``, ``shared`` or ``public``; see :mod:`services.catalog.access`.
    volume_id, directory
        Where its files lie: a volume and a path below it.
    cover
        Name of its image; empty = one that is drawn.
    readme
        The file that is shown first; empty = README.md, or the first notebook.
    field, tags
        By which it is found, too.
    forked_from
        Id of the project that it is a fork of.
    taken_down_at
        When an administrator took it down.
    busy
        What is being done to its files (``copying``, ``moving``, ``importing``); empty = nothing.
    size_bytes, file_count
        As counted at ``measured_at``; ``None`` = never.
    volume_root
        Where its volume is, if that was registered online; the settings say it of theirs.
    kind
        ``project`` or ``workbench``.
    """

    id: str
    owner: str
    slug: str
    name: str
    description: str
    environment: str
    default_request: Mapping[str, Any] | None
    visibility: str
    volume_id: str
    directory: str
    created_at: datetime
    changed_at: datetime
    deleted_at: datetime | None = None
    cover: str = ""
    readme: str = ""
    field: str = ""
    tags: tuple[str, ...] = ()
    published_at: datetime | None = None
    forked_from: str | None = None
    taken_down_at: datetime | None = None
    busy: str = ""
    size_bytes: int | None = None
    file_count: int | None = None
    measured_at: datetime | None = None
    volume_root: str = ""
    kind: str = PROJECT

    def server(self, person: str) -> str:
        """Name of the server on which ``person`` runs this project."""
        return server_alias(self.owner, self.slug, person)

    def volume(self, settings: Settings) -> Path:
        """The directory of its volume.

        Raises
        ------
        UserError
            503 when neither the settings nor the register know it.
        """
        return directory_of(settings, self.volume_id, self.volume_root)

    def path(self, settings: Settings) -> Path:
        """The directory of the project's files.

        Raises
        ------
        UserError
            503 when nobody knows its volume.
        """
        return self.volume(settings) / self.directory


_COLUMNS: list[ColumnElement[Any]] = [
    *(projects.c[field.name] for field in fields(Project) if field.name != "volume_root"),
    root_column(projects),
]


def _project(row: Row[Any]) -> Project:
    values = dict(row._mapping)
    values.pop("sort_name", None)
    values["tags"] = tuple(values["tags"] or ())
    return Project(**values)


def clean_name(name: str) -> str:
    """A project's name as it is kept: NFC, no white space around or doubled.

    Raises
    ------
    UserError
        400 for nothing, too much, or characters that cannot be seen.
    """
    name = " ".join(unicodedata.normalize("NFC", name).split())
    if not name:
        raise UserError(400, mark("Give the project a name."))
    if len(name) > NAME_LENGTH:
        raise UserError(
            400,
            mark("The name has {length} characters; at most {most} fit."),
            length=len(name),
            most=NAME_LENGTH,
        )
    if any(unicodedata.category(char) in ("Cc", "Cs", "Co", "Cn") for char in name) or _BIDI & set(name):
        raise UserError(400, mark("The name has characters that cannot be seen. Type it anew."))
    return name


# Embedding and overriding marks make a text read other than it is; Hebrew and Arabic need none of them.
_BIDI = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def clean_description(description: str) -> str:
    """A description as it is kept: NFC, lines allowed.

    Raises
    ------
    UserError
        400 when it is too long or has control characters.
    """
    text = unicodedata.normalize("NFC", description.replace("\r\n", "\n")).strip()
    if len(text) > DESCRIPTION_LENGTH:
        raise UserError(
            400,
            mark("The description has {length} characters; at most {most} fit. Put the rest into README.md."),
            length=len(text),
            most=DESCRIPTION_LENGTH,
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
    description: str = "",
    environment: str = "",
    default_request: Mapping[str, Any] | None = None,
    kind: str = PROJECT,
    address: str = "",
) -> Project:
    """Make a project of ``owner``.

    ``name`` may be in any script. ``volume_id`` is a registered volume (:mod:`services.catalog.volumes`).
    ``slug`` is the address to take; ``None`` = made from ``address``, else from the name, numbered when taken.

    Raises
    ------
    UserError
        400 for a name or slug that cannot be; 409 when the slug that was asked for is taken.
    """
    name, description = clean_name(name), clean_description(description)
    wanted = check_slug(slug) if slug else slugify(address or name)
    project_id = str(ULID.from_datetime(now))
    values = {
        "id": project_id,
        "owner": owner,
        "name": name,
        "description": description,
        "kind": kind,
        "environment": environment,
        "default_request": dict(default_request) if default_request else None,
        "visibility": "private",
        "volume_id": volume_id,
        "directory": f"{PROJECTS}/{project_id}",
        "created_at": now,
        "changed_at": now,
    }
    taken = slugs_like(conn, projects, owner, wanted)
    for number in range(1, NUMBERS_MOST):
        candidate = numbered(wanted, number)
        if candidate not in taken:
            try:
                with conn.begin_nested():
                    conn.execute(
                        insert(projects).values(
                            slug=candidate, **derived(name, candidate, description), **values
                        )
                    )
                    cards.put(conn, "project", project_id)
            except IntegrityError:  # somebody took it a moment ago
                if not _is_open(conn, owner, candidate):
                    raise
            else:
                made = by_id(conn, project_id)
                assert made is not None
                return made
        if slug:
            break
    raise UserError(409, mark("You have a project at “{slug}” already. Choose another address."), slug=wanted)


def derived(name: str, slug: str, description: str) -> dict[str, str]:
    """Columns for searching and sorting, the same on both databases."""
    return {
        "search_text": _fold(f"{name}\n{slug}\n{description}"),
        "sort_name": anyascii(_fold(name)).lower()[:255],
    }


def _fold(text: str) -> str:
    return unicodedata.normalize("NFKC", text).casefold()


def slugs_like(conn: Connection, table: Table, owner: str, slug: str) -> set[str]:
    """Slugs of the owner's living projects (data sets) that begin as ``slug`` does."""
    rows = conn.execute(
        select(table.c.slug).where(
            table.c.owner == owner,
            table.c.deleted_at.is_(None),
            table.c.slug.startswith(slug[:20].rstrip("-"), autoescape=True),
        )
    )
    return set(rows.scalars())


def _is_open(conn: Connection, owner: str, slug: str) -> bool:
    return (
        conn.execute(
            select(projects.c.id).where(
                projects.c.owner == owner, projects.c.slug == slug, projects.c.deleted_at.is_(None)
            )
        ).first()
        is not None
    )


def get(conn: Connection, owner: str, slug: str) -> Project | None:
    """The living project at ``owner/slug``."""
    if not storable(owner) or not storable(slug):
        return None
    row = conn.execute(
        select(*_COLUMNS).where(
            projects.c.owner == owner, projects.c.slug == slug, projects.c.deleted_at.is_(None)
        )
    ).first()
    return _project(row) if row else None


def by_id(conn: Connection, project_id: str, *, deleted: bool = False) -> Project | None:
    """The project of an id; a deleted one only when ``deleted`` is asked for."""
    if not storable(project_id):
        return None
    query = select(*_COLUMNS).where(projects.c.id == project_id)
    if not deleted:
        query = query.where(projects.c.deleted_at.is_(None))
    row = conn.execute(query).first()
    return _project(row) if row else None


def by_alias(conn: Connection, person: str, server: str) -> Project | None:
    """The living project that ``person`` runs on the server of this name, be it allowed or not.

    One's own slug wins over somebody else's alias.
    """
    own = get(conn, person, server)
    if own is not None:
        return own
    head, _, digest = server.rpartition("-")
    if not head or len(digest) != 6 or not storable(server):
        return None
    rows = conn.execute(
        select(*_COLUMNS).where(
            projects.c.slug.startswith(head, autoescape=True),
            projects.c.owner != person,
            projects.c.deleted_at.is_(None),
        )
    )
    return next((found for found in map(_project, rows) if found.server(person) == server), None)


def workbench_of(conn: Connection, owner: str, environment: str) -> Project | None:
    """Somebody's living workbench of an environment."""
    row = conn.execute(
        select(*_COLUMNS).where(
            projects.c.owner == owner,
            projects.c.environment == environment,
            projects.c.kind == WORKBENCH,
            projects.c.deleted_at.is_(None),
        )
    ).first()
    return _project(row) if row else None


def workbenches_of(conn: Connection, owner: str) -> list[Project]:
    """Somebody's living workbenches, that whose files changed last first."""
    rows = conn.execute(
        select(*_COLUMNS)
        .where(projects.c.owner == owner, projects.c.kind == WORKBENCH, projects.c.deleted_at.is_(None))
        .order_by(projects.c.changed_at.desc(), projects.c.id.desc())
    )
    return [_project(row) for row in rows]


def list_for(
    conn: Connection,
    owner: str | None,
    *,
    query: str = "",
    sort: Sort = "recent",
    limit: int = 50,
    cursor: str | None = None,
) -> tuple[list[Project], str | None]:
    """A page of the living projects of ``owner``, and the cursor of the next page; workbenches are none.

    ``owner`` ``None`` means everybody's, for administrators. ``query`` are words that must all stand
    somewhere in name, slug or description; any script, any letter case. ``sort`` is ``recent`` (changed
    last, first), ``name`` (Chinese by pinyin) or ``created`` (newest first). ``cursor`` is what the page
    before gave; opaque.

    Raises
    ------
    UserError
        400 for a cursor that no page gave, or an unknown sort.
    """
    statement = select(*_COLUMNS, projects.c.sort_name).where(
        projects.c.deleted_at.is_(None), projects.c.kind == PROJECT
    )
    if owner is not None:
        statement = statement.where(projects.c.owner == owner)
    if not storable(query) or (owner is not None and not storable(owner)):
        raise UserError(400, mark("This cannot be searched for. Type it anew."))
    for word in _fold(query[:200]).split():
        statement = statement.where(projects.c.search_text.contains(word, autoescape=True))
    columns = {
        "recent": projects.c.changed_at,
        "name": projects.c.sort_name,
        "created": projects.c.created_at,
    }
    if sort not in columns:
        raise UserError(400, mark("Projects are sorted by: {known}."), known=", ".join(columns))
    column = columns[sort]
    position = tuple_(column, projects.c.id)
    if cursor:
        before = _read_cursor(cursor, sort)
        statement = statement.where(position > before if sort == "name" else position < before)
    order = (column, projects.c.id) if sort == "name" else (column.desc(), projects.c.id.desc())
    rows = conn.execute(statement.order_by(*order).limit(limit + 1)).all()
    page = [_project(row) for row in rows[:limit]]
    if len(rows) <= limit or not page:
        return page, None
    last = rows[limit - 1]
    value = getattr(last, column.name)
    return page, Cursor.encode(sort, value if sort == "name" else value.isoformat(), last.id)


def _read_cursor(cursor: str, sort: str) -> tuple[Any, str]:
    kind, value, project_id = Cursor.decode(cursor, 3)
    if kind == sort and storable(value) and storable(project_id):
        if sort == "name":
            return value, project_id
        try:
            at = datetime.fromisoformat(value)
        except ValueError:
            at = None
        if at is not None and at.tzinfo is not None:
            return at, project_id
    raise UserError(400, mark("This page of the list cannot be found. Begin at the first page."))


def storable(value: object) -> bool:
    """Whether both databases take a value from an address as text: no NUL, nothing but real characters."""
    return isinstance(value, str) and "\0" not in value and not any("\ud800" <= c <= "\udfff" for c in value)


def count_for(conn: Connection, owner: str) -> int:
    """Number of living projects of ``owner``."""
    return conn.execute(
        select(func.count())
        .select_from(projects)
        .where(projects.c.owner == owner, projects.c.deleted_at.is_(None), projects.c.kind == PROJECT)
    ).scalar_one()


def update(
    conn: Connection,
    project: Project,
    *,
    now: datetime,
    name: str | None = None,
    description: str | None = None,
    environment: str | None = None,
    default_request: Mapping[str, Any] | None = None,
    field: str | None = None,
    tags: Sequence[str] | None = None,
    cover: str | None = None,
    readme: str | None = None,
) -> Project:
    """Change what is given; ``None`` leaves a thing as it is. The slug never changes: it is an address.

    An empty ``default_request`` clears it; so do an empty ``field``, ``cover`` and ``readme``.

    Raises
    ------
    UserError
        400 for values that cannot be; 404 when the project was deleted meanwhile.
    """
    new_name = project.name if name is None else clean_name(name)
    new_description = project.description if description is None else clean_description(description)
    values: dict[str, Any] = {
        "name": new_name,
        "description": new_description,
        "changed_at": now,
        **derived(new_name, project.slug, new_description),
    }
    if environment is not None:
        values["environment"] = environment
    if default_request is not None:
        values["default_request"] = dict(default_request) or None
    if field is not None:
        values["field"] = check_field(field)
    if tags is not None:
        values["tags"] = list(clean_tags(tags))
    values |= {name: text for name, text in (("cover", cover), ("readme", readme)) if text is not None}
    _change_one(conn, project.id, values)
    found = by_id(conn, project.id)
    assert found is not None
    return found


def touch(conn: Connection, project_id: str, now: datetime) -> None:
    """Note that the project's files changed, so that it comes first among the recent ones."""
    conn.execute(
        sql_update(projects)
        .where(projects.c.id == project_id, projects.c.deleted_at.is_(None), projects.c.changed_at < now)
        .values(changed_at=now)
    )
    cards.touch(conn, "project", project_id, now)


def delete(conn: Connection, project: Project, *, now: datetime) -> None:
    """Mark a project as deleted. Its row stays for machine time; moving the files is the caller's.

    Raises
    ------
    UserError
        409 while a cluster of it is held, by anybody; 404 when it was deleted already.
    """
    held = conn.execute(
        select(exists().where(and_(clusters.c.project_id == project.id, clusters.c.released_at.is_(None))))
    ).scalar_one()
    if held:
        raise UserError(
            409, mark("“{name}” is running. Release its cluster first, then delete it."), name=project.name
        )
    _change_one(conn, project.id, {"deleted_at": now})


def cancel(conn: Connection, project: Project, *, now: datetime) -> bool:
    """Mark a fork that is being copied as deleted; whoever copies it takes its files away.

    Returns whether it was still being copied: one that is whole by now is a project like any other.
    """
    done = conn.execute(
        sql_update(projects)
        .where(projects.c.id == project.id, projects.c.busy == "copying", projects.c.deleted_at.is_(None))
        .values(deleted_at=now)
    )
    if done.rowcount:
        cards.put(conn, "project", project.id)
    return bool(done.rowcount)


def restore(conn: Connection, project_id: str, *, now: datetime) -> Project:
    """Take a deleted project back; numbered when its slug was given away meanwhile.

    Raises
    ------
    UserError
        404 when there is no deleted project of this id, or its files are gone; 409 for a workbench that was begun
        anew meanwhile.
    """
    project = by_id(conn, project_id, deleted=True)
    if project is None or project.deleted_at is None:
        raise no_such_project()
    if project.kind == WORKBENCH and workbench_of(conn, project.owner, project.environment) is not None:
        raise UserError(
            409,
            mark(
                "You have begun “{name}” anew. Delete the work of that workbench first, then take this back."
            ),
            name=project.name,
        )
    check_restorable(conn.execute(select(projects).where(projects.c.id == project_id)).one(), now)
    for number in range(1, NUMBERS_MOST):
        slug = numbered(project.slug, number)
        try:
            with conn.begin_nested():
                conn.execute(
                    sql_update(projects)
                    .where(projects.c.id == project_id)
                    .values(
                        slug=slug,
                        deleted_at=None,
                        changed_at=now,
                        **derived(project.name, slug, project.description),
                    )
                )
        except IntegrityError:
            continue
        cards.put(conn, "project", project_id)
        found = by_id(conn, project_id)
        assert found is not None
        return found
    raise UserError(409, mark("“{name}” cannot be taken back: its address is taken."), name=project.name)


def _change_one(conn: Connection, project_id: str, values: dict[str, Any]) -> None:
    done = conn.execute(
        sql_update(projects)
        .where(projects.c.id == project_id, projects.c.deleted_at.is_(None))
        .values(values)
    )
    if done.rowcount != 1:
        raise no_such_project()
    cards.put(conn, "project", project_id)


def last_request(conn: Connection, project_id: str, user: str) -> ClusterRequest | None:
    """What ``user`` asked for when running this project last; ``None`` before the first time."""
    stored = conn.execute(
        select(clusters.c.request)
        .where(clusters.c.project_id == project_id, clusters.c.user == user)
        .order_by(clusters.c.queued_at.desc(), clusters.c.id.desc())
        .limit(1)
    ).scalar()
    return request_of(stored) if stored is not None else None


def request_of(stored: Mapping[str, Any]) -> ClusterRequest:
    """A stored request; keys that this version does not know are left out."""
    known = {field.name for field in fields(ClusterRequest)}
    values = {key: value for key, value in stored.items() if key in known}
    values["ports"] = tuple(values.get("ports") or ())
    values.pop(
        "disks", None
    )  # one's own, named by each request: a project that is run by others or forked names none
    return ClusterRequest(**values)


def no_such_project() -> UserError:
    """The same refusal for what does not exist and for what the person may not know of."""
    return UserError(404, mark("There is no such project, or it is not shared with you."))
