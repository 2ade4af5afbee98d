"""Names and passwords of registries: kept encrypted, read by what fetches images, shown to nobody (AP-13).

A key is a person's or the centre's, for one registry. What is kept in the database is sealed (AES in the recipe
Fernet, key by HKDF from a secret that portal and hub have and the database has not), so a copy of the database tells
nothing. Where that secret was replaced, a key cannot be read any more and must be typed again: that is said. The
password is in no answer, no log and no audit line; the object that carries it has no readable form.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, insert, or_, select, update
from ulid import ULID

from extensions.imagebuilder.entries import Actor, Viewer
from extensions.imagebuilder.registry.access import Credentials
from extensions.imagebuilder.tables import environment_versions, registry_keys
from galilean import audit
from galilean.errors import UserError, mark
from galilean.sealed import Sealed, Unreadable

_PURPOSE = b"galilean: names and passwords of registries"


@dataclass(frozen=True, kw_only=True)
class RegistryKey:
    """A kept name and password, without the password."""

    id: str
    owner: str
    registry: str
    username: str
    made_at: datetime
    made_by: str

    @property
    def centre(self) -> bool:
        """Whether it is for administrators' entries."""
        return not self.owner


class Seal:
    """Closes and opens names and passwords.

    Parameters
    ----------
    secret
        What portal and hub share: the portal's own token at the hub.
    """

    def __init__(self, secret: str) -> None:
        self._box = Sealed(secret, _PURPOSE)

    def close(self, credentials: Credentials) -> bytes:
        """Sealed bytes."""
        return self._box.close([credentials.username, credentials.password])

    def open(self, sealed: bytes, registry: str) -> Credentials:
        """What was sealed.

        Raises
        ------
        UserError
            409 when it was sealed with another secret.
        """
        try:
            username, password = self._box.open(sealed)
        except Unreadable:
            raise UserError(
                409,
                mark(
                    "The name and password for {registry} can no longer be read, because the secrets of this "
                    "installation were replaced. Enter them again."
                ),
                registry=registry,
                reason="key-unreadable",
            ) from None
        return Credentials(username, password)


def keep(
    conn: Connection,
    seal: Seal,
    *,
    actor: Actor,
    owner: str,
    registry: str,
    credentials: Credentials,
    now: datetime,
) -> RegistryKey:
    """Keep a name and password; those for the same registry before are replaced, and entries go on with the new.

    Raises
    ------
    UserError
        400 for a name with a colon or a control character, which cannot be sent.
    """
    if any(ord(c) < 32 or ord(c) == 127 for c in credentials.username + credentials.password) or (
        ":" in credentials.username
    ):
        raise UserError(400, mark("A name has no colon, and neither it nor the password control characters."))
    there = conn.execute(
        select(registry_keys.c.id).where(
            registry_keys.c.owner == owner,
            registry_keys.c.registry == registry,
            registry_keys.c.deleted_at.is_(None),
        )
    ).scalar()
    values = {
        "username": credentials.username,
        "sealed": seal.close(credentials),
        "made_at": now,
        "made_by": actor.name,
    }
    made = there or str(ULID())
    if there:
        conn.execute(update(registry_keys).where(registry_keys.c.id == there).values(**values))
    else:
        conn.execute(insert(registry_keys).values(id=made, owner=owner, registry=registry, **values))
    _note(conn, "registry-key.set", registry, owner, actor, now)
    return next(one for one in _all(conn) if one.id == made)


def keys_of(conn: Connection, viewer: Viewer) -> list[RegistryKey]:
    """Those that somebody may register images with: their own, and for administrators the centre's."""
    return [
        one
        for one in _all(conn)
        if (one.owner and one.owner == viewer.name) or (one.centre and viewer.manages)
    ]


def opened(conn: Connection, seal: Seal, key_id: str, *, viewer: Viewer | None = None) -> Credentials:
    """The name and password themselves; ``viewer`` None = for the backend, which fetches an entry's image.

    Raises
    ------
    UserError
        404 when there is none (for them), 409 when it cannot be read.
    """
    row = conn.execute(
        select(registry_keys).where(registry_keys.c.id == key_id, registry_keys.c.deleted_at.is_(None))
    ).first()
    if row is None or (viewer is not None and key_id not in {one.id for one in keys_of(conn, viewer)}):
        raise UserError(
            404,
            mark(
                "The name and password that this image is fetched with are there no more. Enter them again."
            ),
            reason="key-unknown",
        )
    return seal.open(row.sealed, row.registry)


def registry_of(conn: Connection, key_id: str) -> str:
    """For which registry a key is; empty when there is none."""
    return conn.execute(select(registry_keys.c.registry).where(registry_keys.c.id == key_id)).scalar() or ""


def forget(conn: Connection, key_id: str, *, viewer: Viewer, actor: Actor, now: datetime) -> int:
    """Delete a key; how many versions were fetched with it, whose images must be on the machines from now on.

    Raises
    ------
    UserError
        404.
    """
    found = next((one for one in keys_of(conn, viewer) if one.id == key_id), None)
    if found is None:
        raise UserError(404, mark("There is no such name and password."), reason="key-unknown")
    conn.execute(update(registry_keys).where(registry_keys.c.id == key_id).values(deleted_at=now, sealed=b""))
    _note(conn, "registry-key.delete", found.registry, found.owner, actor, now)
    return len(
        conn.execute(
            select(environment_versions.c.number).where(
                or_(environment_versions.c.key_id == key_id),
            )
        ).all()
    )


def _all(conn: Connection) -> list[RegistryKey]:
    rows = conn.execute(
        select(registry_keys)
        .where(registry_keys.c.deleted_at.is_(None))
        .order_by(registry_keys.c.owner, registry_keys.c.registry)
    )
    return [
        RegistryKey(
            id=row.id,
            owner=row.owner,
            registry=row.registry,
            username=row.username,
            made_at=row.made_at,
            made_by=row.made_by,
        )
        for row in rows
    ]


def _note(conn: Connection, action: str, registry: str, owner: str, actor: Actor, now: datetime) -> None:
    audit.write(
        conn,
        at=now,
        actor=actor.name,
        address=actor.address,
        action=action,
        subject=registry,
        after={"of": owner or "centre"},
    )
