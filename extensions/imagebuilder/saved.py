"""Images that people saved from a node, in the database, and their way into the library (CG-18, CG-19).

A row is there from the first byte on, so that a page shows what goes on and a second save of the same ``name:tag``
is refused. Whoever saves writes progress and the end; whoever asks to cancel only leaves a mark. *Add to library*
makes an entry of the catalogue, or a new version of the one that was made of the same name before: its owner stays
the person, and those who shall find it find it at once. *Withdraw* retires that entry; clusters of it stay.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, and_, delete, insert, or_, select, update
from sqlalchemy.exc import IntegrityError
from ulid import ULID

from extensions.imagebuilder import entries, locks, store
from extensions.imagebuilder.entries import Actor, Entry, Grantee, Viewer
from extensions.imagebuilder.names import ImageName, Pinned, repository
from extensions.imagebuilder.tables import environment_versions, environments, saved_images
from galilean import audit
from galilean.errors import UserError, mark
from spawner.tables import clusters

DESCRIPTION_MOST = 500
LOG_MOST = 200_000
OVER = ("failed", "cancelled")


@dataclass(frozen=True, kw_only=True)
class SavedImage:
    """One saved image; see :mod:`extensions.imagebuilder.tables`."""

    id: str
    owner: str
    name: str
    tag: str
    description: str
    state: str
    step: str
    done_bytes: int
    total_bytes: int | None
    cancel_asked_at: datetime | None
    image: str
    digest: str
    size_bytes: int | None
    layers: int | None
    platform: str
    parent: str
    environment: str
    run_id: str
    rank: int
    how: str
    build: Mapping[str, Any] | None
    changes: Mapping[str, Any] | None
    dockerfile: str
    log: str
    why: str
    why_params: Mapping[str, Any] | None
    began_at: datetime
    ended_at: datetime | None
    environment_id: str
    deleted_at: datetime | None
    archive: str = ""
    into_id: str = ""

    @property
    def uploaded(self) -> bool:
        """Whether it came in as an archive instead of being saved from a node."""
        return bool(self.archive)

    @property
    def added(self) -> bool:
        """Whether it is in the library."""
        return bool(self.environment_id)

    @property
    def error(self) -> UserError | None:
        """Why it came to nothing."""
        return UserError(500, self.why, **dict(self.why_params or {})) if self.why else None


# ------------------------------------------------------------------------------------------------- being saved


def begin(
    conn: Connection,
    *,
    actor: Actor,
    name: ImageName,
    now: datetime,
    description: str = "",
    run_id: str = "",
    rank: int = 0,
    environment: str = "",
    parent: str = "",
    archive: str = "",
    into_id: str = "",
    build: Mapping[str, Any] | None = None,
    dockerfile: str = "",
    adapts: Mapping[str, Any] | None = None,
) -> SavedImage:
    """Begin to save, or to take an archive up; one that failed or was cancelled under this name is replaced.

    With ``build`` (what :mod:`extensions.imagebuilder.building` is told) it is built of ``dockerfile``; with ``adapts``
    (the entry and version, for people to read) ``parent`` is adapted.

    Raises
    ------
    UserError
        409 when the person has an image of this name, or saves one.
    """
    conn.execute(
        delete(saved_images).where(
            saved_images.c.owner == actor.name,
            saved_images.c.name == name.name,
            saved_images.c.tag == name.tag,
            saved_images.c.deleted_at.is_(None),
            saved_images.c.state.in_(OVER),
        )
    )
    made = str(ULID())
    try:
        with conn.begin_nested():
            conn.execute(
                insert(saved_images).values(
                    id=made,
                    owner=actor.name,
                    name=name.name,
                    tag=name.tag,
                    description=entries.clean_text(description, DESCRIPTION_MOST),
                    state="saving",
                    run_id=run_id,
                    rank=rank,
                    environment=environment,
                    parent=parent,
                    archive=archive,
                    into_id=into_id,
                    how=_how(archive, build, adapts),
                    build=dict(found) if (found := build or adapts) else None,
                    dockerfile=dockerfile,
                    began_at=now,
                )
            )
    except IntegrityError:
        raise UserError(
            409,
            mark("You have an image {name} already. Choose another name or tag, or delete that one."),
            name=str(name),
            reason="image-taken",
        ) from None
    if adapts is not None:
        _note(conn, actor, "image.adapt", name, now, after={"image": parent, "into": into_id})
    elif archive:
        _note(conn, actor, "image.upload", name, now, after={"into": into_id} if into_id else None)
    elif build is not None:
        said = {"project": build.get("project", ""), "of": build.get("of", ""), "environment": environment}
        _note(conn, actor, "image.build", name, now, after=said)
    else:
        said = {"run": run_id, "rank": rank, "environment": environment}
        _note(conn, actor, "image.save", name, now, after=said)
    return _get(conn, made)


def _how(archive: str, build: object, adapts: object) -> str:
    if adapts is not None:
        return "adapted"
    return "uploaded" if archive else "saved" if build is None else "built"


def progress(
    conn: Connection,
    saved_id: str,
    *,
    step: str,
    done_bytes: int = 0,
    total_bytes: int | None = None,
    log: str | None = None,
) -> bool:
    """Note how far it is, and its log where that has changed; whether it is still wanted (nobody asked to cancel)."""
    more = {} if log is None else {"log": log[-LOG_MOST:]}
    conn.execute(
        update(saved_images)
        .where(saved_images.c.id == saved_id, saved_images.c.state == "saving")
        .values(step=step, done_bytes=done_bytes, total_bytes=total_bytes, **more)
    )
    row = conn.execute(
        select(saved_images.c.state, saved_images.c.cancel_asked_at).where(saved_images.c.id == saved_id)
    ).first()
    return row is not None and row.state == "saving" and row.cancel_asked_at is None


def finish(
    conn: Connection,
    saved_id: str,
    *,
    image: Pinned,
    now: datetime,
    size_bytes: int | None = None,
    layers: int | None = None,
    platform: str = "",
    changes: Mapping[str, Any] | None = None,
    dockerfile: str = "",
    log: str = "",
    lock: str = "",
) -> SavedImage:
    """It is pushed: from now on it can be used. Of a Python environment there is its ``lock``.

    Raises
    ------
    UserError
        409 when it is not being saved any more.
    """
    done = conn.execute(
        update(saved_images)
        .where(saved_images.c.id == saved_id, saved_images.c.state == "saving")
        .values(
            state="ready",
            step="",
            image=str(image),
            digest=image.digest,
            size_bytes=size_bytes,
            layers=layers,
            platform=platform,
            changes=changes,
            dockerfile=dockerfile,
            log=log[-LOG_MOST:],
            ended_at=now,
        )
    ).rowcount
    if not done:
        raise UserError(409, mark("This image is not being saved any more."), reason="image-over")
    if lock:
        locks.keep(conn, lock, now=now)
    return _get(conn, saved_id)


def fail(conn: Connection, saved_id: str, *, error: UserError | None, now: datetime, log: str = "") -> None:
    """It came to nothing; ``error`` None = a fault of ours, which the log of the service has."""
    _end(
        conn,
        saved_id,
        "failed",
        now,
        log,
        why=error.message
        if error
        else mark("Something went wrong. The administrators can look into the log."),
        why_params=error.params if error else {},
    )


def cancelled(conn: Connection, saved_id: str, *, now: datetime, log: str = "") -> None:
    """It was given up because somebody asked."""
    _end(conn, saved_id, "cancelled", now, log)


def ask_cancel(conn: Connection, owner: str, saved_id: str, *, now: datetime) -> SavedImage:
    """Ask whoever saves it to give up.

    Raises
    ------
    UserError
        404; 409 when it is over.
    """
    found = get(conn, owner, saved_id)
    if found.state != "saving":
        raise UserError(409, mark("This image is not being saved any more."), reason="image-over")
    conn.execute(update(saved_images).where(saved_images.c.id == saved_id).values(cancel_asked_at=now))
    return get(conn, owner, saved_id)


def saving(conn: Connection) -> list[SavedImage]:
    """All that are being saved: what a service that starts again has to end."""
    rows = conn.execute(
        select(saved_images).where(saved_images.c.state == "saving").order_by(saved_images.c.id)
    )
    return [_saved(row) for row in rows]


def used_bytes(
    conn: Connection, owner: str, *, without: str = "", more: Mapping[str, Any] | None = None
) -> int:
    """What a person's images take in the registry, those that are being saved by what is booked for them
    (:mod:`extensions.imagebuilder.booking`); what lies below several counts once.

    ``without`` is the id of one that is left out, ``more`` the ``changes`` of one that is to come.
    """
    rows = conn.execute(
        select(saved_images.c.changes).where(
            saved_images.c.owner == owner,
            saved_images.c.id != without,
            saved_images.c.state.in_(("ready", "saving")),
            saved_images.c.deleted_at.is_(None),
        )
    ).scalars()
    own, below = 0, dict[str, int]()
    for changes in (*rows, more):
        told = changes or {}
        own += int(told.get("packed_bytes") or 0)
        if told.get("base_bytes"):
            below[str(told["base"])] = int(told["base_bytes"])
    return own + sum(below.values())


# ---------------------------------------------------------------------------------------------------- the list


def get(conn: Connection, owner: str, saved_id: str) -> SavedImage:
    """One of a person's.

    Raises
    ------
    UserError
        404, the same for what is somebody else's.
    """
    found = _get(conn, saved_id)
    if found.owner != owner or found.deleted_at is not None:
        raise UserError(404, mark("You have no such image."), reason="image-unknown")
    return found


def list_saved(
    conn: Connection, owner: str, *, query: str = "", limit: int = 50, after: str = ""
) -> list[SavedImage]:
    """A person's images, the newest first; at most ``limit + 1``. ``after`` is the id of the last one shown."""
    wanted = (
        select(saved_images)
        .where(saved_images.c.owner == owner, saved_images.c.deleted_at.is_(None))
        .order_by(saved_images.c.id.desc())
        .limit(limit + 1)
    )
    for word in query.casefold().split()[:8]:
        wanted = wanted.where(
            or_(
                saved_images.c.name.contains(word, autoescape=True),
                saved_images.c.tag.contains(word, autoescape=True),
                saved_images.c.description.contains(word, autoescape=True),
            )
        )
    if after:
        wanted = wanted.where(saved_images.c.id < after)
    return [_saved(row) for row in conn.execute(wanted)]


def describe(conn: Connection, saved_id: str, text: str, *, actor: Actor, now: datetime) -> SavedImage:
    """Say something else of it (CG-18: editable later)."""
    found = get(conn, actor.name, saved_id)
    text = entries.clean_text(text, DESCRIPTION_MOST)
    conn.execute(update(saved_images).where(saved_images.c.id == saved_id).values(description=text))
    name = ImageName(found.name, found.tag)
    _note(
        conn,
        actor,
        "image.edit",
        name,
        now,
        before={"description": found.description},
        after={"description": text},
    )
    return get(conn, actor.name, saved_id)


def remove(conn: Connection, saved_id: str, *, actor: Actor, now: datetime) -> SavedImage:
    """Delete it from the list; the caller deletes it in the registry.

    Raises
    ------
    UserError
        404; 409 while it is saved, in the library, or a cluster of it is held.
    """
    found = get(conn, actor.name, saved_id)
    if found.state == "saving":
        raise UserError(409, mark("It is being saved. Cancel that first."), reason="image-saving")
    if found.added:
        raise UserError(409, mark("It is in the library. Withdraw it there first."), reason="image-added")
    if (
        found.digest
        and conn.execute(
            select(clusters.c.id).where(
                clusters.c.environment_digest == found.digest, clusters.c.released_at.is_(None)
            )
        ).first()
    ):
        raise UserError(409, mark("Clusters of this image are held."), reason="in-use")
    conn.execute(update(saved_images).where(saved_images.c.id == saved_id).values(deleted_at=now))
    _note(
        conn,
        actor,
        "image.delete",
        ImageName(found.name, found.tag),
        now,
        before={"digest": found.digest, "size_bytes": found.size_bytes},
    )
    return found


# -------------------------------------------------------------------------------------------------- the library


def to_library(
    conn: Connection,
    saved_id: str,
    *,
    actor: Actor,
    now: datetime,
    visibility: str = "own",
    shared_with: Iterable[Grantee] = (),
    title: str = "",
    description: str = "",
    field: str = "",
    start: Mapping[str, Any] | None = None,
    centre: bool = False,
    reserved: Iterable[str] = (),
) -> Entry:
    """Make it an entry of the person's, or a new version of the one of the same name: found at once.

    ``start`` are the start options of a new entry, usually those of the environment it was saved from; ``centre`` makes
    it the centre's, which the caller has asked :func:`extensions.imagebuilder.entries.need_make` about.

    Raises
    ------
    UserError
        404; 409 when it is not ready or added already, or its tag is one of the entry's versions.
    """
    found = get(conn, actor.name, saved_id)
    if found.state != "ready":
        raise UserError(409, mark("Only an image that is saved whole can be added."), reason="image-state")
    if found.added:
        raise UserError(409, mark("It is in the library already."), reason="image-added")
    slug = entries.slug_of(found.name)
    version = version_of(found)
    owner = "" if centre else actor.name
    there = store.by_name(conn, entries.full_name(owner, slug))
    if there is None:
        entry = store.create(
            conn,
            actor=actor,
            owner=owner,
            slug=slug,
            title=title or found.name[: entries.TITLE_MOST],
            description=description or found.description,
            field=field,
            version=version,
            start=start,
            visibility=visibility,
            shared_with=shared_with,
            reserved=reserved,
            now=now,
        )
    else:
        entry = _again(conn, there, version, actor, now)
        said = (("title", title), ("description", description), ("field", field))
        texts: dict[str, Any] = {key: text for key, text in said if text}
        entry = store.edit(
            conn,
            entry.id,
            actor=actor,
            now=now,
            visibility=visibility,
            shared_with=shared_with,
            **texts,
        )
    conn.execute(update(saved_images).where(saved_images.c.id == saved_id).values(environment_id=entry.id))
    return entry


def version_of(found: SavedImage) -> store.NewVersion:
    """What an entry keeps of it."""
    return store.NewVersion(
        tag=found.tag,
        image=found.image,
        digest=found.digest,
        saved_image_id=found.id,
        size_bytes=found.size_bytes,
        layers=found.layers,
        platform=found.platform,
        told=tuple((found.changes or {}).get("told") or ()),
        note=found.description,
    )


def for_entries(conn: Connection) -> list[SavedImage]:
    """Those that are ready and shall become a version of an entry, which is yet to be made."""
    rows = conn.execute(
        select(saved_images)
        .where(
            saved_images.c.state == "ready",
            saved_images.c.into_id != "",
            saved_images.c.environment_id == "",
            saved_images.c.deleted_at.is_(None),
        )
        .order_by(saved_images.c.id)
    )
    return [_saved(row) for row in rows]


def into_entry(conn: Connection, saved_id: str, *, viewer: Viewer, now: datetime) -> Entry:
    """Make an image the new version of the entry that it was uploaded or adapted for.

    ``viewer`` is its owner as they are now: what they might change when it was begun may be theirs no more.

    Raises
    ------
    UserError
        404 when the entry is there no more for them; 403 when they may not change it; 409 when it has such a version.
    """
    found = get(conn, viewer.name, saved_id)
    store.reach(conn, viewer, found.into_id, change=True)
    entry = store.add_version(conn, found.into_id, version_of(found), actor=Actor(name=found.owner), now=now)
    conn.execute(
        update(saved_images).where(saved_images.c.id == saved_id).values(environment_id=entry.id, into_id="")
    )
    return entry


def not_into_entry(conn: Connection, saved_id: str, *, log: str) -> None:
    """It is an image and becomes no version; ``log`` is a line that says why."""
    before = _get(conn, saved_id).log
    conn.execute(
        update(saved_images)
        .where(saved_images.c.id == saved_id)
        .values(into_id="", log=(before + log)[-LOG_MOST:])
    )


def needed(conn: Connection, image: Pinned, *, others_saving: int = 0) -> bool:
    """Whether an image must stay in the registry, where deleting it takes all tags and whoever else has it.

    It must for a saved image that is there, and for a version of an entry that is there, unless that version's own saved
    image was withdrawn and deleted and new runs do not get it. While more than ``others_saving`` rows are being
    saved under its name one of them may be about to become the same image.
    """
    path = f"{image.repository}@{image.digest}"

    def same(column: Any) -> Any:
        return or_(column == path, column.endswith(f"/{path}", autoescape=True))

    of_a_row = select(saved_images.c.id).where(
        saved_images.c.deleted_at.is_(None), saved_images.c.state == "ready", same(saved_images.c.image)
    )
    gone = select(saved_images.c.id).where(
        saved_images.c.id == environment_versions.c.saved_image_id,
        saved_images.c.deleted_at.is_not(None),
        saved_images.c.environment_id == "",
    )
    current = and_(
        environment_versions.c.number == environments.c.version, environments.c.retired_at.is_(None)
    )
    of_a_version = (
        select(environment_versions.c.number)
        .join(environments, environments.c.id == environment_versions.c.environment_id)
        .where(
            environments.c.deleted_at.is_(None),
            same(environment_versions.c.image),
            or_(current, ~gone.exists()),
        )
    )
    if conn.execute(select(or_(of_a_row.exists(), of_a_version.exists()))).scalar():
        return True
    going = [
        one
        for one in saving(conn)
        if f"/{image.repository}".endswith(f"/{repository(one.owner, ImageName(one.name, one.tag))}")
    ]
    return len(going) > others_saving


def waiting_archives(conn: Connection) -> set[tuple[str, str]]:
    """Owners and archives of uploads that are under way."""
    rows = conn.execute(
        select(saved_images.c.owner, saved_images.c.archive).where(
            saved_images.c.state == "saving", saved_images.c.archive != ""
        )
    )
    return {(row.owner, row.archive) for row in rows}


def withdraw(conn: Connection, saved_id: str, *, actor: Actor, now: datetime) -> SavedImage:
    """Take it out of the library: new runs get the version before it, or none when it was the only one.

    Raises
    ------
    UserError
        404; 409 when it is not in the library.
    """
    found = get(conn, actor.name, saved_id)
    if not found.added:
        raise UserError(409, mark("It is not in the library."), reason="image-added")
    entry = store.entry(conn, found.environment_id)
    conn.execute(update(saved_images).where(saved_images.c.id == saved_id).values(environment_id=""))
    if entry is not None and entry.deleted_at is None and entry.version.saved_image_id == saved_id:
        others = conn.execute(
            select(environment_versions.c.number)
            .join(saved_images, saved_images.c.id == environment_versions.c.saved_image_id, isouter=True)
            .where(
                environment_versions.c.environment_id == entry.id,
                environment_versions.c.number < entry.version.number,
                or_(
                    environment_versions.c.saved_image_id == "",
                    saved_images.c.environment_id == entry.id,
                ),
            )
            .order_by(environment_versions.c.number.desc())
        ).first()
        if others is not None:
            store.use_version(conn, entry.id, others.number, actor=actor, now=now)
        else:
            store.retire(conn, entry.id, True, actor=actor, now=now)
    return get(conn, actor.name, saved_id)


def _again(conn: Connection, there: Entry, version: store.NewVersion, actor: Actor, now: datetime) -> Entry:
    """The version of this image once more, where it was withdrawn before; else a new one."""
    known = next((one for one in store.versions(conn, there.id) if one.image == version.image), None)
    if known is not None:
        entry = store.use_version(conn, there.id, known.number, actor=actor, now=now)
        conn.execute(
            update(environment_versions)
            .where(
                environment_versions.c.environment_id == there.id,
                environment_versions.c.number == known.number,
            )
            .values(saved_image_id=version.saved_image_id)
        )
    else:
        entry = store.add_version(conn, there.id, version, actor=actor, now=now)
    if entry.retired_at is not None:
        entry = store.retire(conn, there.id, False, actor=actor, now=now)
    return entry


def entry_of(conn: Connection, saved: SavedImage) -> str:
    """The name of the entry it is in; empty when it is in none."""
    if not saved.environment_id:
        return ""
    return (
        conn.execute(select(environments.c.name).where(environments.c.id == saved.environment_id)).scalar()
        or ""
    )


# --------------------------------------------------------------------------------------------------------- helpers


def _end(conn: Connection, saved_id: str, state: str, now: datetime, log: str, **values: Any) -> None:
    conn.execute(
        update(saved_images)
        .where(saved_images.c.id == saved_id, saved_images.c.state == "saving")
        .values(state=state, log=log[-LOG_MOST:], ended_at=now, **values)
    )


def _get(conn: Connection, saved_id: str) -> SavedImage:
    row = conn.execute(select(saved_images).where(saved_images.c.id == saved_id)).first()
    if row is None:
        raise UserError(404, mark("You have no such image."), reason="image-unknown")
    return _saved(row)


def _saved(row: Row[Any]) -> SavedImage:
    return SavedImage(**row._mapping)


def _note(
    conn: Connection,
    actor: Actor,
    action: str,
    name: ImageName,
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
        subject=f"{actor.name}/{name}",
        before=before,
        after=after,
    )
