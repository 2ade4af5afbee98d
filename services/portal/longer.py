"""More time for a cluster, or going on without its person: what pages and the API do alike (BX-2, BX-15).

Only the person who holds a cluster may ask; the answer is the rule of :mod:`services.release.ask`, written in
one transaction on the row as it is then.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

from galilean.errors import UserError, mark
from galilean.web.context import Portal
from galilean.web.visitor import Visitor
from services.release import ask
from spawner import records
from spawner.records import Run


async def extend_cluster(
    portal: Portal,
    person: Visitor,
    run: Run,
    *,
    seconds: int | None = None,
    until: datetime | None = None,
) -> Run:
    """Hold one's cluster longer; the row as it is then.

    Parameters
    ----------
    portal, person, run
        Who asks of which cluster.
    seconds, until
        How much longer, or until when; neither = as much as one press gives.

    Raises
    ------
    UserError
        403 for somebody else's cluster; as :func:`services.release.ask.extend`.
    """

    def write(conn: Any, fresh: Run, now: datetime) -> Run:
        left = budget_seconds(portal)(conn, [fresh.id], now).get(fresh.id)
        return ask.extend(
            conn, fresh, now=now, seconds=seconds, until=until, by=person.name, budget_seconds=left
        )

    return await _ask(portal, person, run, write)


async def go_on_without(portal: Portal, person: Visitor, run: Run) -> Run:
    """Let one's cluster go on until nothing runs on it any more; the row as it is then.

    Raises
    ------
    UserError
        403 for somebody else's cluster; as :func:`services.release.ask.when_done`.
    """

    def write(conn: Any, fresh: Run, now: datetime) -> Run:
        return ask.when_done(conn, fresh, now=now, by=person.name)

    return await _ask(portal, person, run, write)


def budget_seconds(portal: Portal) -> Callable[[Any, list[str], datetime], dict[str, float]]:
    """How long the budgets of runs last, as the top floor handed it in; without it, for ever."""
    return portal.parts.get("budget_seconds") or (lambda conn, run_ids, now: {})


async def _ask(portal: Portal, person: Visitor, run: Run, write: Callable[[Any, Run, datetime], Run]) -> Run:
    if run.user != person.name:
        raise UserError(403, mark("Only whoever holds a cluster can keep it longer."))

    def change(conn: Any) -> Run:
        fresh = records.get(conn, run.id) or run
        return write(conn, fresh, portal.clock())

    changed = await portal.db.run(change)
    portal.parts["watcher"].tell(person.name, "clusters")
    return changed
