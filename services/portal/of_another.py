"""What somebody does with another's project or data set, by their right: a line in the audit log (SC-17, BX-13).

What people do with their own things is nobody's business and has no line. Acts that always have one (publishing,
taking down, giving away) write it where they are done; this is for those that owners do every day.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import Connection

from galilean import audit
from galilean.web.visitor import Visitor
from services.catalog.access import Kind

#: Of a text in a line: who wants to know all of a documentation looks into a backup.
TEXT_MOST = 500


def note(
    conn: Connection,
    person: Visitor,
    kind: Kind,
    item: Any,
    act: str,
    *,
    now: datetime,
    address: str = "",
    before: Any = None,
    after: Any = None,
    reason: str = "",
) -> None:
    """Write the line of an act, if the project or data set is not the person's own; in the transaction of the act.

    ``act`` is the verb: with the kind it is the action.
    """
    if person.name == item.owner:
        return
    audit.write(
        conn,
        at=now,
        actor=person.name,
        address=address,
        action=f"{kind}.{act}",
        subject=f"{item.owner}/{item.slug}",
        before=before,
        after=after,
        reason=reason,
    )


def note_change(
    conn: Connection,
    person: Visitor,
    kind: Kind,
    old: Any,
    new: Any,
    names: Iterable[str],
    *,
    now: datetime,
    address: str = "",
) -> None:
    """Write the line of a change, with what of these attributes is other now; none is, no line."""
    was, became = difference(old, new, names)
    if became:
        note(conn, person, kind, old, "change", now=now, address=address, before=was, after=became)


def difference(old: Any, new: Any, names: Iterable[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Attributes that are not the same in two rows, as a line of the log holds them."""
    changed = [name for name in names if getattr(old, name, None) != getattr(new, name, None)]
    return (
        {name: _plain(getattr(old, name, None)) for name in changed},
        {name: _plain(getattr(new, name, None)) for name in changed},
    )


def _plain(value: Any) -> Any:
    if isinstance(value, str):
        return value[:TEXT_MOST]
    if isinstance(value, Mapping):
        return dict(value)
    return list(value) if isinstance(value, (tuple, set, frozenset)) else value
