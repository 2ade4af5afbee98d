"""Looking into the audit log: search, pages, differences, and all of it as CSV (SC-17).

Read by key backwards from the newest line, so that a page of a long log costs what the page costs.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta, tzinfo
from typing import Any

from sqlalchemy import Connection, Select, or_, select

from galilean.tables import audit_log

PAGE_SIZE = 50
#: First parts of actions, for the choice on the page.
NOUNS = (
    "person",
    "role",
    "group",
    "people",
    "quota",
    "exception",
    "release",
    "cluster",
    "machine",
    "project",
)


@dataclass(frozen=True, kw_only=True)
class Search:
    """What is looked for; empty = all."""

    text: str = ""
    actor: str = ""
    action: str = ""
    subject: str = ""
    first: date | None = None
    last: date | None = None


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A line of the log."""

    id: int
    at: datetime
    actor: str
    address: str
    action: str
    subject: str
    before: Any
    after: Any
    reason: str

    @property
    def difference(self) -> list[tuple[str, str, str]]:
        """What changed: (what, before, after), as words."""
        return difference(self.before, self.after)


def difference(before: Any, after: Any) -> list[tuple[str, str, str]]:
    """Keys whose values differ, with both values as words."""
    if not isinstance(before, Mapping) and not isinstance(after, Mapping):
        return [] if before == after else [("", _word(before), _word(after))]
    old = before if isinstance(before, Mapping) else {}
    new = after if isinstance(after, Mapping) else {}
    keys = [*old, *(key for key in new if key not in old)]
    return [
        (str(key), _word(old.get(key)), _word(new.get(key))) for key in keys if old.get(key) != new.get(key)
    ]


def _word(value: Any) -> str:
    if value is None or value == "" or value == []:
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        return ", ".join(_word(item) for item in value)
    return json.dumps(value, ensure_ascii=False)


def query_of(search: Search, zone: tzinfo) -> Select[Any]:
    """All lines that fit, the newest first."""
    c = audit_log.c
    query = select(audit_log).order_by(c.id.desc())
    for word in search.text.split():
        pattern = "%" + word.replace("\\", "\\\\").replace("%", r"\%").replace("_", r"\_") + "%"
        columns = (c.actor, c.action, c.subject, c.reason, c.address)
        query = query.where(or_(*(column.ilike(pattern, escape="\\") for column in columns)))
    if search.actor:
        query = query.where(c.actor == search.actor)
    if search.action:
        query = query.where(
            or_(c.action == search.action, c.action.startswith(search.action + ".", autoescape=True))
        )
    if search.subject:
        query = query.where(c.subject == search.subject)
    if search.first:
        query = query.where(c.at >= datetime.combine(search.first, time(), zone))
    if search.last:
        query = query.where(c.at < datetime.combine(search.last + timedelta(days=1), time(), zone))
    return query


def page(
    conn: Connection, search: Search, zone: tzinfo, *, before: int = 0, limit: int = PAGE_SIZE
) -> list[Entry]:
    """At most ``limit`` lines older than ``before`` (0 = the newest)."""
    query = query_of(search, zone).limit(limit)
    if before:
        query = query.where(audit_log.c.id < before)
    return [Entry(**row) for row in conn.execute(query).mappings()]
