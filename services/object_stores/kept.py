"""Object stores that are kept: a person's own, and the centre's for everybody with a role.

Whoever may see a store may copy from it; only its owner (administrators, of the centre's) sees the id of its key and
changes or deletes it. A store that is not one's to see is not there (404), as with everything whose id can be guessed.
The secret key is sealed (:mod:`galilean.sealed`) and opened for a copy alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, delete, insert, or_, select, update
from sqlalchemy.exc import IntegrityError
from ulid import ULID

from galilean import audit
from galilean.errors import UserError, mark
from galilean.sealed import Sealed, Unreadable
from services.object_stores.rules import Key, Place
from services.object_stores.tables import object_stores

#: The right to keep the centre's.
MANAGE = "volumes:manage"
STORES_MOST = 50
PURPOSE = b"galilean: keys of object stores"


@dataclass(frozen=True, kw_only=True)
class Viewer:
    """Who looks.

    Attributes
    ----------
    manages
        Whether they keep the centre's.
    """

    name: str
    has_role: bool
    manages: bool = False
    address: str = ""


@dataclass(frozen=True, kw_only=True)
class Store:
    """A kept store, without its secret."""

    id: str
    owner: str
    name: str
    place: Place
    writable: bool
    access_key_id: str
    made_at: datetime
    changed_at: datetime

    @property
    def centre(self) -> bool:
        """Whether it is for everybody with a role."""
        return not self.owner

    def may_change(self, viewer: Viewer) -> bool:
        """Whether somebody may change and delete it."""
        return viewer.manages if self.centre else self.owner == viewer.name

    def audited(self) -> dict[str, Any]:
        """What the audit log tells: all but the secret."""
        return {
            "of": self.owner or "centre",
            "endpoint": self.place.endpoint,
            "bucket": self.place.bucket,
            "prefix": self.place.prefix,
            "access_key_id": self.access_key_id,
            "writable": self.writable,
        }


def gone() -> UserError:
    """What is said of a store that is not there, or not for whoever asks."""
    return UserError(404, mark("There is no such object store (any more)."), reason="store-unknown")


def all_for(conn: Connection, viewer: Viewer) -> list[Store]:
    """Those that somebody may copy from: the centre's first."""
    if not viewer.has_role:
        return []
    rows = conn.execute(
        select(object_stores)
        .where(or_(object_stores.c.owner == "", object_stores.c.owner == viewer.name))
        .order_by(object_stores.c.owner, object_stores.c.name)
    )
    return [_store(row) for row in rows]


def get(conn: Connection, store_id: str, viewer: Viewer, *, change: bool = False) -> Store:
    """One of them.

    Raises
    ------
    UserError
        404; 403 when it is to be changed and is the centre's.
    """
    found = next((one for one in all_for(conn, viewer) if one.id == store_id), None)
    if found is None:
        raise gone()
    if change and not found.may_change(viewer):
        raise UserError(
            403, mark("“{name}” is the centre's. Only administrators change it."), name=found.name
        )
    return found


def opened(conn: Connection, box: Sealed, store_id: str, viewer: Viewer) -> tuple[Store, Key]:
    """A store with its key, for a copy or a look.

    Raises
    ------
    UserError
        404 as :func:`get`, 409 when the key cannot be read any more.
    """
    store = get(conn, store_id, viewer)
    sealed = conn.execute(select(object_stores.c.sealed).where(object_stores.c.id == store_id)).scalar_one()
    try:
        secret = box.open(sealed)
    except Unreadable:
        raise UserError(
            409,
            mark(
                "The key of “{name}” can no longer be read, because the secrets of this installation were replaced. "
                "Enter it again."
            ),
            name=store.name,
            reason="key-unreadable",
        ) from None
    return store, Key(access_key_id=store.access_key_id, secret=secret)


def add(
    conn: Connection,
    box: Sealed,
    viewer: Viewer,
    *,
    centre: bool,
    name: str,
    place: Place,
    key: Key,
    writable: bool,
    now: datetime,
) -> Store:
    """Keep a store.

    Raises
    ------
    UserError
        409 for a name that is taken, 429 for too many.
    """
    owner = "" if centre else viewer.name
    count = len(conn.execute(select(object_stores.c.id).where(object_stores.c.owner == owner)).all())
    if count >= STORES_MOST:
        raise UserError(429, mark("There are {count} object stores. Delete one first."), count=count)
    made = str(ULID())
    try:
        with conn.begin_nested():
            conn.execute(
                insert(object_stores).values(
                    id=made,
                    owner=owner,
                    name=name,
                    **_columns(place),
                    writable=writable,
                    access_key_id=key.access_key_id,
                    sealed=box.close(key.secret),
                    made_at=now,
                    made_by=viewer.name,
                    changed_at=now,
                )
            )
    except IntegrityError:
        raise _taken(name) from None
    store = get(conn, made, viewer)
    _note(conn, "object-store.add", store, viewer, now, after=store.audited())
    return store


def change(
    conn: Connection,
    box: Sealed,
    viewer: Viewer,
    store_id: str,
    *,
    name: str,
    place: Place,
    key: Key | None,
    writable: bool,
    now: datetime,
) -> Store:
    """Change a store; ``key`` None = the key that it has.

    Raises
    ------
    UserError
        403, 404; 409 for a name that is taken.
    """
    before = get(conn, store_id, viewer, change=True)
    values: dict[str, Any] = {"name": name, "writable": writable, "changed_at": now, **_columns(place)}
    if key is not None:
        values |= {"access_key_id": key.access_key_id, "sealed": box.close(key.secret)}
    try:
        with conn.begin_nested():
            conn.execute(update(object_stores).where(object_stores.c.id == store_id).values(**values))
    except IntegrityError:
        raise _taken(name) from None
    store = get(conn, store_id, viewer)
    after = store.audited() | ({"key": "replaced"} if key is not None else {})
    _note(conn, "object-store.change", store, viewer, now, before=before.audited(), after=after)
    return store


def remove(conn: Connection, viewer: Viewer, store_id: str, *, now: datetime) -> None:
    """Forget a store and its key; what lies in it stays.

    Raises
    ------
    UserError
        403, 404.
    """
    store = get(conn, store_id, viewer, change=True)
    conn.execute(delete(object_stores).where(object_stores.c.id == store_id))
    _note(conn, "object-store.delete", store, viewer, now, before=store.audited())


def _columns(place: Place) -> dict[str, Any]:
    return {
        "endpoint": place.endpoint,
        "bucket": place.bucket,
        "prefix": place.prefix,
        "region": place.region,
        "addressing": place.addressing,
    }


def _store(row: Any) -> Store:
    return Store(
        id=row.id,
        owner=row.owner,
        name=row.name,
        place=Place(
            endpoint=row.endpoint,
            bucket=row.bucket,
            prefix=row.prefix,
            region=row.region,
            addressing=row.addressing,
        ),
        writable=row.writable,
        access_key_id=row.access_key_id,
        made_at=row.made_at,
        changed_at=row.changed_at,
    )


def _taken(name: str) -> UserError:
    return UserError(
        409,
        mark("There is an object store “{name}” already. Choose another name."),
        name=name,
        reason="taken",
    )


def _note(
    conn: Connection,
    action: str,
    store: Store,
    viewer: Viewer,
    now: datetime,
    *,
    before: Any = None,
    after: Any = None,
) -> None:
    audit.write(
        conn,
        at=now,
        actor=viewer.name,
        address=viewer.address,
        action=action,
        subject=store.name,
        before=before,
        after=after,
    )
