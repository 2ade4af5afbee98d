"""Reports of nodes: somebody is there (design §6).

A node speaks with its own token. The token names its owner and the server, never the run, so a report is
bound three ways: the token must be that server's (the scope ``access:servers!server=…`` that the hub told
when it was asked about the token), the server must have an open run, and the run must be the one that the
report names. The token of an ended run is either revoked (401 by the hub) or its run is closed (409).
A report moves presence forward only, and never into the future.

It may also say what runs in the node, while somebody is there or nobody is (BX-15). That is the node's own
word, which its programs can forge: it may let *automatic when done* wait, until the hard maximum at most.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from sqlalchemy import Connection

from galilean.errors import UserError, mark
from galilean.web.context import Portal
from galilean.web.visitor import Visitor
from services.portal.api import models
from spawner import records, use

OLDEST = timedelta(days=1)


def seen_at(value: float | int | str, now: datetime) -> datetime:
    """The moment of a report, never later than ``now``.

    Raises
    ------
    UserError
        400 for what is no time, or one before yesterday.
    """
    try:
        if isinstance(value, str):
            at = datetime.fromisoformat(value)
            if at.tzinfo is None:
                raise ValueError(value)
            at = at.astimezone(UTC)
        else:
            at = datetime.fromtimestamp(value, UTC)
    except (ValueError, OverflowError, OSError):
        raise UserError(400, mark("“seen_at” takes a time.")) from None
    if at < now - OLDEST:
        raise UserError(400, mark("“seen_at” is more than a day ago."))
    return min(at, now)


def check_token(person: Visitor, server: str) -> None:
    """Refuse whoever is not a node of this server.

    Raises
    ------
    UserError
        403.
    """
    if not person.node or person.node != f"{person.name}/{server}":
        raise UserError(403, mark("Only a node of this cluster may report that somebody is there."))


async def report(portal: Portal, person: Visitor, body: models.Presence) -> None:
    """Take a report.

    Raises
    ------
    UserError
        403 for another server's token, 409 for a run that is not the open one, 400 for wrong values.
    """
    check_token(person, body.server)
    now = portal.clock()
    at = None if body.seen_at is None else seen_at(body.seen_at, now)
    await portal.db.run(_take, person.name, body, at, now)


def _take(conn: Connection, user: str, body: models.Presence, at: datetime | None, now: datetime) -> None:
    run = records.open_run(conn, user, body.server)
    if run is None or run.id != body.run:
        raise UserError(409, mark("This run has ended."), reason="ended")
    if body.rank >= run.nodes:
        raise UserError(
            400,
            mark("This cluster has {nodes} nodes; there is no node-{rank}."),
            nodes=run.nodes,
            rank=body.rank,
        )
    if at is not None:
        records.saw(conn, user, body.server, node_at=at)
    if body.busy is not None:
        use.tell_busy(conn, run, body.rank, body.busy.model_dump(), now)
