"""What stands in our database of people and imports; all functions take the transaction first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, delete, insert, select, update
from ulid import ULID

from services.people.tables import imports, people, ssh_keys
from spawner import shared_ports


@dataclass(frozen=True, kw_only=True)
class Person:
    """What we know of a person besides the account."""

    name: str
    created_at: datetime
    full_name: str = ""
    mail: str = ""
    created_by: str = ""
    import_id: str | None = None
    blocked_at: datetime | None = None
    blocked_by: str = ""
    blocked_reason: str = ""


@dataclass(frozen=True, kw_only=True)
class Import:
    """An import and what came of each line."""

    id: str
    at: datetime
    by: str
    file: str = ""
    rows: Sequence[Mapping[str, Any]] = ()
    done: int = 0
    finished_at: datetime | None = None
    undone_at: datetime | None = None


def get(conn: Connection, name: str) -> Person | None:
    """What we know of somebody."""
    row = conn.execute(select(people).where(people.c.name == name)).mappings().first()
    return Person(**row) if row else None


def mails(conn: Connection, names: Sequence[str]) -> dict[str, str]:
    """Mail addresses of those of whom one stands here."""
    query = select(people.c.name, people.c.mail).where(people.c.name.in_(names), people.c.mail != "")
    return {row.name: row.mail for row in conn.execute(query)}


def everybody(conn: Connection) -> dict[str, Person]:
    """All of whom something stands here."""
    return {row["name"]: Person(**row) for row in conn.execute(select(people)).mappings()}


def keep(conn: Connection, name: str, *, now: datetime, by: str = "", **values: Any) -> None:
    """Write values of a person, whose row is made when there is none."""
    if values and conn.execute(update(people).where(people.c.name == name).values(**values)).rowcount:
        return
    if conn.execute(select(people.c.name).where(people.c.name == name)).first() is None:
        conn.execute(insert(people).values(name=name, created_at=now, created_by=by, **values))


def block(conn: Connection, name: str, *, by: str, reason: str, now: datetime) -> None:
    """Note who blocked somebody and why."""
    keep(conn, name, now=now, by=by, blocked_at=now, blocked_by=by, blocked_reason=reason)


def unblock(conn: Connection, name: str, *, now: datetime) -> None:
    """Note that somebody is free again."""
    keep(conn, name, now=now, blocked_at=None, blocked_by="", blocked_reason="")


def forget(conn: Connection, name: str) -> None:
    """The person is gone; whoever gets the name later is somebody else. Call in a write transaction."""
    conn.execute(delete(people).where(people.c.name == name))
    conn.execute(delete(ssh_keys).where(ssh_keys.c.user == name))
    shared_ports.forget(conn, name)


def begin_import(
    conn: Connection, *, by: str, file: str, rows: Sequence[Mapping[str, Any]], now: datetime
) -> str:
    """A new import; ``rows`` without passwords."""
    import_id = str(ULID())
    conn.execute(
        insert(imports).values(id=import_id, at=now, by=by, file=file[:255], rows=list(rows), done=0)
    )
    return import_id


def note_rows(conn: Connection, import_id: str, rows: Sequence[Mapping[str, Any]], done: int) -> None:
    """How far an import is."""
    conn.execute(update(imports).where(imports.c.id == import_id).values(rows=list(rows), done=done))


def finish_import(conn: Connection, import_id: str, now: datetime) -> None:
    conn.execute(update(imports).where(imports.c.id == import_id).values(finished_at=now))


def made_by(conn: Connection, import_id: str) -> set[str]:
    """Names of the accounts that an import made, also of those it did not come to note."""
    return set(conn.execute(select(people.c.name).where(people.c.import_id == import_id)).scalars())


def undone(conn: Connection, import_id: str, now: datetime) -> None:
    conn.execute(update(imports).where(imports.c.id == import_id).values(undone_at=now))


def get_import(conn: Connection, import_id: str) -> Import | None:
    row = conn.execute(select(imports).where(imports.c.id == import_id)).mappings().first()
    return Import(**row) if row else None


def last_imports(conn: Connection, limit: int = 5) -> list[Import]:
    """The newest first."""
    rows = conn.execute(select(imports).order_by(imports.c.id.desc()).limit(limit)).mappings()
    return [Import(**row) for row in rows]
