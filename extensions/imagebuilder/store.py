"""Entries of the catalogue in the database: found, listed, made, changed, retired, deleted (CG-17, CG-38).

Each change is one transaction with its line in the audit log. A new version is a new row, and the entry points to
the one that new runs get; older ones stay, because runs and machine time name their digest. Who may do what is
decided by :mod:`extensions.imagebuilder.entries`; the caller asks there first.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, and_, delete, exists, func, insert, or_, select, tuple_, update
from sqlalchemy.exc import IntegrityError
from ulid import ULID

from extensions.imagebuilder import entries
from extensions.imagebuilder.entries import Actor, Entry, Grantee, Version, Viewer
from extensions.imagebuilder.names import PYTHON
from extensions.imagebuilder.tables import (
    environment_shares,
    environment_versions,
    environments,
    registry_keys,
    saved_images,
)
from galilean import audit
from galilean.errors import UserError, mark
from spawner.tables import clusters

#: ``everything`` is what is not retired and what is.
SCOPES = ("all", "own", "centre", "shared", "retired", "everything")
VERSIONS_MOST = 500


@dataclass(frozen=True, kw_only=True)
class NewVersion:
    """An image that was looked at, to become a version."""

    tag: str
    image: str
    digest: str
    source: str = ""
    key_id: str = ""
    saved_image_id: str = ""
    size_bytes: int | None = None
    layers: int | None = None
    platform: str = ""
    told: tuple[Mapping[str, Any], ...] = ()
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """By what entries are looked for; empty = not at all."""

    text: str = ""
    field: str = ""
    interface: str = ""
    gpu: bool | None = None
    scope: str = "all"
    added_by: str = ""


@dataclass(frozen=True, kw_only=True)
class Use:
    """How an entry is used: clusters that are held now, how often it ever was, and when last."""

    open: int = 0
    runs: int = 0
    last: datetime | None = None


@dataclass(frozen=True, kw_only=True)
class Holder:
    """An open cluster of an entry, with the digest it was started from."""

    run_id: str
    user: str
    project: str
    digest: str
    since: datetime | None


# ------------------------------------------------------------------------------------------------------ questions

_JOINED = environments.join(
    environment_versions,
    and_(
        environment_versions.c.environment_id == environments.c.id,
        environment_versions.c.number == environments.c.version,
    ),
)
_BOTH = (
    *environments.c,
    *(column.label(f"v_{column.name}") for column in environment_versions.c),
)


def entry(conn: Connection, entry_id: str) -> Entry | None:
    """One by its id, also one that is deleted."""
    row = conn.execute(select(*_BOTH).select_from(_JOINED).where(environments.c.id == entry_id)).first()
    return None if row is None else _entry(row)


def by_name(conn: Connection, name: str) -> Entry | None:
    """One by its name; never one that is deleted."""
    row = conn.execute(
        select(*_BOTH)
        .select_from(_JOINED)
        .where(environments.c.name == name, environments.c.deleted_at.is_(None))
    ).first()
    return None if row is None else _entry(row)


def grantees(conn: Connection, entry_id: str) -> list[Grantee]:
    """Whom it is shared with."""
    rows = conn.execute(
        select(environment_shares.c.grantee_kind, environment_shares.c.grantee)
        .where(environment_shares.c.environment_id == entry_id)
        .order_by(environment_shares.c.grantee_kind, environment_shares.c.grantee)
    )
    return [Grantee(row.grantee_kind, row.grantee) for row in rows]


def reach(conn: Connection, viewer: Viewer, key: str, *, change: bool = False) -> Entry:
    """An entry by id or name, if it is there for somebody.

    Raises
    ------
    UserError
        404; 403 when it shall be changed by whoever may not.
    """
    found = entry(conn, key) or by_name(conn, key)
    if (
        found is None
        or found.deleted_at is not None
        or not entries.may_see(viewer, found, grantees(conn, found.id))
    ):
        raise entries.no_such_entry()
    if change:
        entries.need_change(viewer, found)
    return found


def versions(conn: Connection, entry_id: str) -> list[Version]:
    """All versions of an entry, the newest first."""
    rows = conn.execute(
        select(environment_versions)
        .where(environment_versions.c.environment_id == entry_id)
        .order_by(environment_versions.c.number.desc())
    )
    return [_version(row._mapping) for row in rows]


def list_entries(
    conn: Connection,
    viewer: Viewer,
    wanted: Wanted,
    *,
    limit: int,
    after: tuple[str, str] | None = None,
    python: bool = False,
) -> list[Entry]:
    """What somebody finds, by title; at most ``limit + 1``: the one too many tells that there are more.

    ``python`` where nodes are processes: Python environments are found then, and no images.
    """
    query = (
        select(*_BOTH)
        .select_from(_JOINED)
        .where(environments.c.deleted_at.is_(None), _kind(python), *_visible(viewer, wanted.scope))
        .order_by(environments.c.sort_name, environments.c.id)
        .limit(limit + 1)
    )
    for word in entries.fold(wanted.text).split()[:8]:
        query = query.where(environments.c.search_text.contains(word, autoescape=True))
    if wanted.field:
        query = query.where(environments.c.field == wanted.field)
    if wanted.added_by:
        query = query.where(environment_versions.c.added_by == wanted.added_by)
    if wanted.gpu is not None:
        query = query.where(environments.c.gpu.is_(wanted.gpu))
    if wanted.interface:
        query = query.where(environments.c.interfaces.contains(f" {wanted.interface} "))
    if after is not None:
        query = query.where(tuple_(environments.c.sort_name, environments.c.id) > tuple_(*after))
    return [_entry(row) for row in conn.execute(query)]


def offered(conn: Connection, viewer: Viewer, *, most: int = 500, python: bool = False) -> list[Entry]:
    """What somebody may start: the centre's first, then their own, then others'; ``python`` as in the list."""
    rows = conn.execute(
        select(*_BOTH)
        .select_from(_JOINED)
        .where(environments.c.deleted_at.is_(None), _kind(python), *_visible(viewer, "offered"))
        .order_by(environments.c.owner != "", environments.c.owner != viewer.name, environments.c.sort_name)
        .limit(most)
    )
    return [_entry(row) for row in rows]


def titles(conn: Connection) -> dict[str, str]:
    """Name → title of every entry, deleted ones too where the name was not taken again: for reports."""
    rows = conn.execute(
        select(environments.c.name, environments.c.title).order_by(
            environments.c.deleted_at.is_(None), environments.c.id
        )
    )
    return {row.name: row.title for row in rows}


def uses(conn: Connection, names: Sequence[str]) -> dict[str, Use]:
    """How entries are used, by name; every name is there."""
    found = dict.fromkeys(names, Use())
    if not names:
        return found
    rows = conn.execute(
        select(
            clusters.c.environment,
            func.count().label("runs"),
            func.count().filter(clusters.c.released_at.is_(None)).label("open"),
            func.max(clusters.c.queued_at).label("last"),
        )
        .where(clusters.c.environment.in_(list(names)))
        .group_by(clusters.c.environment)
    )
    for row in rows:
        found[row.environment] = Use(open=row.open, runs=row.runs, last=row.last)
    return found


def holders(conn: Connection, name: str, *, most: int = 200) -> list[Holder]:
    """Clusters of an entry that are held now, the oldest first."""
    rows = conn.execute(
        select(clusters)
        .where(clusters.c.environment == name, clusters.c.released_at.is_(None))
        .order_by(clusters.c.id)
        .limit(most)
    )
    return [
        Holder(
            run_id=row.id,
            user=row.user,
            project=row.project_name,
            digest=row.environment_digest,
            since=row.ready_at or row.queued_at,
        )
        for row in rows
    ]


def _kind(python: bool) -> Any:
    """Of the one backend or of the others: an installation may have had another before."""
    of_processes = environment_versions.c.image.startswith(f"{PYTHON}/", autoescape=True)
    return of_processes if python else ~of_processes


def _visible(viewer: Viewer, scope: str) -> list[Any]:
    own = and_(environments.c.owner == viewer.name, environments.c.owner != "")
    given = exists().where(
        environment_shares.c.environment_id == environments.c.id,
        or_(
            and_(environment_shares.c.grantee_kind == "person", environment_shares.c.grantee == viewer.name),
            and_(
                environment_shares.c.grantee_kind == "group",
                environment_shares.c.grantee.in_(sorted(viewer.groups)),
            ),
        ),
    )
    shared = and_(environments.c.visibility == "group", given)
    mine = or_(own, environments.c.visibility == "public", shared)
    living = environments.c.retired_at.is_(None)
    if scope == "own":
        return [own]
    if scope == "centre":
        return [environments.c.owner == "", living, *([] if viewer.manages else [mine])]
    if scope == "shared":
        return [shared, living]
    if scope == "retired":
        return [environments.c.retired_at.is_not(None), *([] if viewer.manages else [mine])]
    if scope == "offered":
        return [living, mine]
    if scope == "everything":
        return [] if viewer.manages else [mine]
    return [living, *([] if viewer.manages else [mine])]


# -------------------------------------------------------------------------------------------------------- changes


def create(
    conn: Connection,
    *,
    actor: Actor,
    owner: str,
    slug: str,
    title: str,
    version: NewVersion,
    now: datetime,
    start: Mapping[str, Any] | None = None,
    visibility: str = "own",
    shared_with: Iterable[Grantee] = (),
    reserved: Iterable[str] = (),
    **texts: str,
) -> Entry:
    """Make an entry with its first version; ``texts`` are description, documentation, field, logo.

    Raises
    ------
    UserError
        400 for what cannot be said; 409 when the name is taken, also by an entry of the file (``reserved``).
    """
    name = entries.full_name(owner, entries.check_slug(slug))
    shared_with = list(shared_with)
    entries.check_visibility(visibility, owner, shared_with)
    if name in set(reserved):
        raise _taken(name)
    made = str(ULID())
    values = _said({"title": title, **texts})
    try:
        with conn.begin_nested():
            conn.execute(
                insert(environments).values(
                    id=made,
                    name=name,
                    owner=owner,
                    **values,
                    **_start(start or {}),
                    search_text=entries.search_text(name, values["title"], values.get("description", "")),
                    visibility=visibility,
                    version=1,
                    created_at=now,
                    created_by=actor.name,
                    changed_at=now,
                )
            )
    except IntegrityError:
        raise _taken(name) from None
    _insert_version(conn, made, 1, version, actor, now)
    _share(conn, made, shared_with, actor, now)
    found = _get(conn, made)
    _note(conn, found, "environment.create", actor, now, after=_told(found, shared_with))
    return found


def edit(
    conn: Connection,
    entry_id: str,
    *,
    actor: Actor,
    now: datetime,
    start: Mapping[str, Any] | None = None,
    visibility: str | None = None,
    shared_with: Iterable[Grantee] | None = None,
    **texts: str,
) -> Entry:
    """Change what is said of an entry, how it starts, or who finds it; what is not given stays.

    Raises
    ------
    UserError
        400, 404.
    """
    before = _get(conn, entry_id, lock=True)
    given = grantees(conn, entry_id)
    after_given = given if shared_with is None else list(shared_with)
    word = before.visibility if visibility is None else visibility
    if visibility is not None or shared_with is not None:
        entries.check_visibility(word, before.owner, after_given if word == "group" else [])
        if word != "group":
            after_given = []
    values: dict[str, Any] = _said(texts)
    if start is not None:
        values |= _start(start)
    title = values.get("title", before.title)
    text = entries.search_text(before.name, title, values.get("description", before.description))
    conn.execute(
        update(environments)
        .where(environments.c.id == entry_id)
        .values(**values, visibility=word, search_text=text, changed_at=now)
    )
    if after_given != given:
        _share(conn, entry_id, after_given, actor, now)
    after = _get(conn, entry_id)
    old, new = _told(before, given), _told(after, after_given)
    differs = {key: value for key, value in new.items() if old.get(key) != value}
    if differs:
        _note(
            conn,
            after,
            "environment.edit",
            actor,
            now,
            before={key: old.get(key) for key in differs},
            after=differs,
        )
    return after


def add_version(
    conn: Connection, entry_id: str, version: NewVersion, *, actor: Actor, now: datetime, use: bool = True
) -> Entry:
    """Add an image; new runs get it unless ``use`` is false. Runs that are there keep theirs.

    Raises
    ------
    UserError
        404; 409 when a version has this tag, or this very image is the current one.
    """
    before = _get(conn, entry_id, lock=True)
    there = versions(conn, entry_id)
    if any(one.tag == version.tag for one in there):
        raise UserError(
            409,
            mark("“{name}” has a version {tag} already. Versions are never replaced: choose another tag."),
            name=before.title,
            tag=version.tag,
            reason="tag-taken",
        )
    if before.version.image == version.image:
        raise UserError(
            409,
            mark("This is the very image that version {tag} is already."),
            tag=before.version.tag,
            reason="image-same",
        )
    if len(there) >= VERSIONS_MOST:
        raise UserError(409, mark("An environment has at most {most} versions."), most=VERSIONS_MOST)
    number = there[0].number + 1 if there else 1
    _insert_version(conn, entry_id, number, version, actor, now)
    values: dict[str, Any] = {"changed_at": now}
    if use:
        values["version"] = number
    conn.execute(update(environments).where(environments.c.id == entry_id).values(**values))
    after = _get(conn, entry_id)
    _note(
        conn,
        after,
        "environment.version",
        actor,
        now,
        before={"version": before.version.tag, "digest": before.version.digest},
        after={"version": version.tag, "digest": version.digest, "source": version.source},
    )
    return after


def use_version(conn: Connection, entry_id: str, number: int, *, actor: Actor, now: datetime) -> Entry:
    """Let new runs get another version of those that are there.

    Raises
    ------
    UserError
        404.
    """
    before = _get(conn, entry_id, lock=True)
    wanted = next((one for one in versions(conn, entry_id) if one.number == number), None)
    if wanted is None:
        raise UserError(404, mark("There is no such version."))
    if wanted.number == before.version.number:
        return before
    conn.execute(
        update(environments).where(environments.c.id == entry_id).values(version=number, changed_at=now)
    )
    after = _get(conn, entry_id)
    _note(
        conn,
        after,
        "environment.use",
        actor,
        now,
        before={"version": before.version.tag},
        after={"version": wanted.tag},
    )
    return after


def retire(conn: Connection, entry_id: str, retired: bool, *, actor: Actor, now: datetime) -> Entry:
    """Give no new runs, or give them again. Running clusters stay."""
    before = _get(conn, entry_id, lock=True)
    if (before.retired_at is not None) == retired:
        return before
    conn.execute(
        update(environments)
        .where(environments.c.id == entry_id)
        .values(retired_at=now if retired else None, retired_by=actor.name if retired else "", changed_at=now)
    )
    after = _get(conn, entry_id)
    _note(conn, after, "environment.retire" if retired else "environment.restore", actor, now)
    return after


def remove(conn: Connection, entry_id: str, *, actor: Actor, now: datetime) -> Entry:
    """Delete an entry: nobody finds it any more, its name is free. The row stays for machine time.

    Raises
    ------
    UserError
        404; 409 while clusters of it are held.
    """
    before = _get(conn, entry_id, lock=True)
    held = uses(conn, [before.name])[before.name].open
    if held:
        raise UserError(
            409,
            mark("{count} clusters of “{name}” are held. Retire it: then nobody starts new ones."),
            count=held,
            name=before.title,
            reason="in-use",
        )
    conn.execute(
        update(environments).where(environments.c.id == entry_id).values(deleted_at=now, changed_at=now)
    )
    _note(conn, before, "environment.delete", actor, now, before=_told(before, grantees(conn, entry_id)))
    return replace(before, deleted_at=now)


def forget_person(conn: Connection, person: str, nobody: str, *, now: datetime) -> None:
    """What becomes of everything of somebody who is deleted: whoever gets their name later owns nothing of it.

    What only they found is deleted, as are their names and passwords of registries and what was shared with them.
    What others find stays for them under the name of ``nobody``, for administrators to change.
    """
    conn.execute(
        delete(environment_shares).where(
            environment_shares.c.grantee_kind == "person", environment_shares.c.grantee == person
        )
    )
    mine = environments.c.owner == person
    conn.execute(
        update(environments)
        .where(mine, environments.c.visibility == "own", environments.c.deleted_at.is_(None))
        .values(deleted_at=now)
    )
    conn.execute(update(environments).where(mine).values(owner=nobody))
    conn.execute(
        update(registry_keys)
        .where(registry_keys.c.owner == person)
        .values(owner=nobody, sealed=b"", deleted_at=now)
    )
    conn.execute(
        update(saved_images)
        .where(saved_images.c.owner == person, saved_images.c.deleted_at.is_(None))
        .values(deleted_at=now)
    )
    conn.execute(update(saved_images).where(saved_images.c.owner == person).values(owner=nobody))


# --------------------------------------------------------------------------------------------------------- helpers


def _get(conn: Connection, entry_id: str, *, lock: bool = False) -> Entry:
    if lock:
        conn.execute(select(environments.c.id).where(environments.c.id == entry_id).with_for_update())
    found = entry(conn, entry_id)
    if found is None or found.deleted_at is not None:
        raise entries.no_such_entry()
    return found


def _said(texts: Mapping[str, str]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    if "title" in texts:
        values["title"] = entries.check_title(texts["title"])
        values["sort_name"] = entries.fold(values["title"])[: entries.TITLE_MOST]
    if "description" in texts:
        values["description"] = entries.clean_text(texts["description"], entries.DESCRIPTION_MOST)
    if "documentation" in texts:
        values["documentation"] = entries.clean_text(
            texts["documentation"], entries.DOCUMENTATION_MOST, lines=True
        )
    return values | {key: texts[key] for key in ("field", "logo") if key in texts}


def _start(start: Mapping[str, Any]) -> dict[str, Any]:
    interfaces = start.get("interfaces", ("jupyter",))
    return {
        "start": dict(start),
        "gpu": bool(start.get("gpu") or start.get("needs_gpu")),
        "interfaces": f" {' '.join(interfaces)} ",
    }


def _share(
    conn: Connection, entry_id: str, shared_with: Iterable[Grantee], actor: Actor, now: datetime
) -> None:
    conn.execute(delete(environment_shares).where(environment_shares.c.environment_id == entry_id))
    for one in dict.fromkeys(shared_with):
        conn.execute(
            insert(environment_shares).values(
                environment_id=entry_id,
                grantee_kind=one.kind,
                grantee=one.name,
                given_by=actor.name,
                given_at=now,
            )
        )


def _insert_version(
    conn: Connection, entry_id: str, number: int, version: NewVersion, actor: Actor, now: datetime
) -> None:
    conn.execute(
        insert(environment_versions).values(
            environment_id=entry_id,
            number=number,
            tag=entries.check_tag(version.tag),
            image=version.image,
            digest=version.digest,
            source=version.source,
            key_id=version.key_id,
            saved_image_id=version.saved_image_id,
            size_bytes=version.size_bytes,
            layers=version.layers,
            platform=version.platform,
            told=[dict(one) for one in version.told],
            note=entries.clean_text(version.note, entries.NOTE_MOST),
            added_at=now,
            added_by=actor.name,
        )
    )


def _version(row: Mapping[Any, Any], prefix: str = "") -> Version:
    values = {column.name: row[prefix + column.name] for column in environment_versions.c}
    return Version(**{**values, "told": tuple(values["told"] or ())})


def _entry(row: Row[Any]) -> Entry:
    values = dict(row._mapping)
    version = _version(values, "v_")
    names = Entry.__dataclass_fields__.keys() - {"version"}
    return Entry(version=version, **{key: values[key] for key in names})


def _told(found: Entry, shared_with: Iterable[Grantee]) -> dict[str, Any]:
    """What the audit log keeps; of variables the names only, because people put passwords there."""
    start = entries.without_passwords(found.start)
    if "variables" in start:
        start["variables"] = sorted(start["variables"])
    return {
        "title": found.title,
        "description": found.description,
        "documentation": len(found.documentation),
        "field": found.field,
        "logo": found.logo,
        "start": start,
        "visibility": found.visibility,
        "shared_with": [f"{one.kind}:{one.name}" for one in shared_with],
        "version": found.version.tag,
        "digest": found.version.digest,
    }


def _note(
    conn: Connection,
    found: Entry,
    action: str,
    actor: Actor,
    now: datetime,
    *,
    before: Any = None,
    after: Any = None,
) -> None:
    audit.write(
        conn,
        at=now,
        actor=actor.name,
        address=actor.address,
        action=action,
        subject=found.name,
        before=before,
        after=after,
    )


def _taken(name: str) -> UserError:
    return UserError(
        409, mark("There is an environment “{name}” already. Choose another name."), name=name, reason="taken"
    )
