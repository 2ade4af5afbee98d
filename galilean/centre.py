"""What the centre's administrators decided: roles and their rights, and values that hold for everybody.

``galilean.yaml`` says how a site begins (:func:`seed`); from then on pages, the API and ``galilean apply``
change it, and the file is not asked again. Every change moves the *version* in its own transaction
(:func:`bump`). So each process may keep what it read and ask only for one number to know whether that
still holds: :class:`Kept`.

Rooms that keep rules of their own (limits in ``extensions.quota``, release in ``services.release``) bump the
same version.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Generic, TypeVar

from sqlalchemy import Connection, Select, delete, insert, select, update

from galilean.db import Database
from galilean.settings import Settings
from galilean.tables import centre, roles

VERSION = "version"

#: What a role may do in pages and the API beyond its own things (AP-36).
RIGHTS: tuple[str, ...] = (
    "audit:read",
    "clusters:read-all",
    "clusters:release-all",
    "datasets:manage",
    "environments:manage",
    "groups:manage",
    "machines:manage",
    "people:manage",
    "projects:manage",
    "quotas:manage",
    "release:manage",
    "roles:manage",
    "site:manage",
    "usage:read-all",
    "volumes:manage",
)

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class RoleRow:
    """A role: hub group ``galilean:<name>``."""

    name: str
    title: str = ""
    position: int = 0
    builtin: bool = False
    rights: frozenset[str] = frozenset()


def seed(conn: Connection, settings: Settings, now: datetime) -> bool:
    """Make the roles of the settings where there is none at all; whether it did.

    The admin role has every right, others none; who wants it otherwise changes it afterwards.
    """
    if conn.execute(select(roles.c.name).limit(1)).first() is not None:
        return False
    for position, (name, role) in enumerate(settings.roles.items()):
        conn.execute(
            insert(roles).values(
                name=name,
                title=role.title,
                position=position,
                builtin=True,
                rights=sorted(RIGHTS) if name == "admin" else [],
                created_at=now,
            )
        )
    bump(conn, now)
    return True


def all_roles(conn: Connection) -> dict[str, RoleRow]:
    """Roles by name, in their order. The admin role always has every right."""
    rows = conn.execute(select(roles).order_by(roles.c.position, roles.c.name)).all()
    return {
        row.name: RoleRow(
            name=row.name,
            title=row.title,
            position=row.position,
            builtin=row.builtin,
            rights=frozenset(RIGHTS if row.name == "admin" else row.rights),
        )
        for row in rows
    }


def version(conn: Connection) -> int:
    """Moves with every change; 0 = nothing was ever decided."""
    found = conn.execute(select(centre.c.value).where(centre.c.key == VERSION)).scalar()
    return int(found or 0)


def bump(conn: Connection, now: datetime, by: str = "") -> int:
    """Move the version; in the transaction of the change.

    Two that change something at once wait for one another here: both would move it to the same number, and
    who has read the first would take the second for known.
    """
    found = conn.execute(lock()).scalar()
    return int(put(conn, VERSION, int(found or 0) + 1, now=now, by=by))


def lock() -> Select[Any]:
    """Reads the version and lets nobody else decide anything until the transaction ends."""
    return select(centre.c.value).where(centre.c.key == VERSION).with_for_update()


def decide_alone(conn: Connection) -> None:
    """Let nobody else decide anything until the transaction ends; before what is to be changed is read.

    Two who change something of one whole at once (a grace, and which policies are offered) would otherwise each write
    the whole as they found it, and the first change would be gone.
    """
    conn.execute(lock())


def value(conn: Connection, key: str) -> Any:
    """What stands under a key; ``None`` = nothing."""
    return conn.execute(select(centre.c.value).where(centre.c.key == key)).scalar()


def put(conn: Connection, key: str, new: Any, *, now: datetime, by: str = "") -> Any:
    """Keep a JSON value under a key. Does not move the version by itself: see :func:`bump`."""
    values = {"value": new, "changed_at": now, "changed_by": by}
    if conn.execute(update(centre).where(centre.c.key == key).values(values)).rowcount == 0:
        conn.execute(insert(centre).values(key=key, **values))
    return new


def drop(conn: Connection, key: str) -> None:
    """Keep nothing under a key."""
    conn.execute(delete(centre).where(centre.c.key == key))


class Kept(Generic[T]):
    """Something read from the database that is read again only when the version moved.

    Parameters
    ----------
    read
        Reads it: ``read(conn)``.
    """

    def __init__(self, read: Callable[[Connection], T]) -> None:
        self._read = read
        self._kept: tuple[int, T] | None = None

    @property
    def last(self) -> T | None:
        """What was read last, whether or not it still holds; ``None`` = nothing was."""
        return None if self._kept is None else self._kept[1]

    def get(self, conn: Connection, known_version: int | None = None) -> T:
        """What holds now; ``known_version`` saves the question where the caller has asked it already."""
        now = version(conn) if known_version is None else known_version
        kept = self._kept
        if kept is None or kept[0] != now:
            kept = self._kept = (now, self._read(conn))
        return kept[1]


class Known(Generic[T]):
    """The snapshot of a process that asks the database for its version every few seconds at most.

    Parameters
    ----------
    database
        Ours.
    read
        Reads it: ``read(conn)``.
    keep_seconds
        How long it is not even asked whether something moved.
    monotonic
        Seconds that never go back; handed in for tests.
    """

    def __init__(
        self,
        database: Database,
        read: Callable[[Connection], T],
        *,
        keep_seconds: float = 2.0,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._database, self._keep_seconds, self._monotonic = database, keep_seconds, monotonic
        self._kept = Kept(read)
        self._last: tuple[float, T] | None = None

    async def get(self) -> T:
        """What holds now, or held a moment ago."""
        now = self._monotonic()
        if self._last is None or now - self._last[0] >= self._keep_seconds:
            self._last = (now, await self._database.run_read(self._kept.get))
        return self._last[1]

    def forget(self) -> None:
        """Look again the next time: something was just changed here."""
        self._last = None


def titles(found: Mapping[str, RoleRow]) -> dict[str, str]:
    """What pages call the roles, untranslated."""
    return {name: role.title or name.capitalize() for name, role in found.items()}
