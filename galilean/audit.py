"""The audit log (SC-17, BX-13): who changed what, from where, what it was before and is now.

Written in the transaction of the change itself, so that neither is there without the other; of changes in the
hub's database before them (:mod:`hub_config.our_handler`), so that none is there without its line. Lines are
only ever added. ``before`` and ``after`` are plain JSON values and never carry secrets.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import Connection, insert

from galilean import append_only  # noqa: F401 - the database refuses changes, too
from galilean.tables import audit_log

ADDRESS_MOST, SUBJECT_MOST, ACTION_MOST = 64, 255, 64


def write(
    conn: Connection,
    *,
    at: datetime,
    actor: str,
    action: str,
    subject: str,
    address: str = "",
    before: Any = None,
    after: Any = None,
    reason: str = "",
) -> None:
    """Add a line.

    Parameters
    ----------
    conn
        The transaction of the change.
    at
        When, UTC.
    actor
        Who did it: a person, ``service:release``, ``command``.
    action
        What was done, as ``noun.verb``: ``quota.set``, ``cluster.release``.
    subject
        What it was done to: a person, a role, ``user/server``.
    address
        Where the request came from, as our own proxy noted it; empty for services and commands.
    before, after
        JSON values; ``None`` where there was or is nothing.
    reason
        What the actor gave as the reason.
    """
    conn.execute(
        insert(audit_log).values(
            at=at,
            actor=actor,
            address=address[:ADDRESS_MOST],
            action=action[:ACTION_MOST],
            subject=subject[:SUBJECT_MOST],
            before=before,
            after=after,
            reason=reason,
        )
    )
