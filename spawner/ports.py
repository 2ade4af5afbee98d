"""The ports of a run that are shown as doors: declared at its start, added or taken away while it runs (AP-11).

They are links and no permissions: what is reached the node itself decides, by who listens there
(:mod:`spawner.node.listening`). They stand in the run's row, so every page and program shows the same.
"""

from __future__ import annotations

from collections.abc import Iterable

from sqlalchemy import Connection, select, update

from galilean.errors import UserError, mark
from spawner.doors import OWN_PORTS, PORT_FIRST, PORT_LAST
from spawner.records import Run
from spawner.tables import clusters

PORTS_MOST = 32
KEY = "ports"
APPLICATIONS = "applications"
#: Ports that others may open, and who (:mod:`spawner.shared_ports`).
SHARED = "shared_ports"


def ports_of(run: Run) -> tuple[int, ...]:
    """The ports of a run, in order."""
    state = run.state or {}
    declared = state.get(KEY, (run.request or {}).get(KEY, ()))
    return tuple(sorted({int(port) for port in declared}))


def check_port(port: int) -> int:
    """The port, when a door may lead to it.

    Raises
    ------
    UserError
        400 otherwise.
    """
    if not PORT_FIRST <= port <= PORT_LAST:
        raise UserError(
            400, mark("A port is a number from {first} to {last}."), first=PORT_FIRST, last=PORT_LAST
        )
    if port in OWN_PORTS:
        raise UserError(400, mark("Port {port} is the node's own. Let the program use another."), port=port)
    return port


def change_ports(conn: Connection, run_id: str, *, add: int | None = None, drop: int | None = None) -> bool:
    """Add a port to a run or take one away; one that is there, or is not, is success. ``False`` = no open run.

    Call in a write transaction: the list is read and written in one.

    Raises
    ------
    UserError
        409 when there are too many.
    """
    row = conn.execute(
        select(clusters).where(clusters.c.id == run_id, clusters.c.released_at.is_(None)).with_for_update()
    ).mappings().first()  # fmt: skip
    if row is None:
        return False
    run = Run(**row)
    ports = set(ports_of(run))
    ports |= {add} if add is not None else set()
    ports -= {drop}
    if len(ports) > PORTS_MOST:
        raise UserError(409, mark("A cluster shows at most {most} ports. Remove one first."), most=PORTS_MOST)
    state = {**(run.state or {}), KEY: sorted(ports)}
    if drop is not None and SHARED in state:  # what is no door any more is nobody's
        state[SHARED] = {port: people for port, people in state[SHARED].items() if port != str(drop)}
    conn.execute(update(clusters).where(clusters.c.id == run_id).values(state=state))
    return True


def applications_of(run: Run) -> tuple[str, ...]:
    """The applications that the nodes of a run said they have."""
    return tuple(str(name) for name in (run.state or {}).get(APPLICATIONS, ()))


def tell_applications(conn: Connection, run_id: str, names: Iterable[str]) -> bool:
    """Keep which applications the nodes of an open run have; whether that is news. Call in a write transaction."""
    row = conn.execute(
        select(clusters).where(clusters.c.id == run_id, clusters.c.released_at.is_(None)).with_for_update()
    ).mappings().first()  # fmt: skip
    if row is None:
        return False
    kept = list(names)
    if list(applications_of(Run(**row))) == kept:
        return False
    state = {**(row["state"] or {}), APPLICATIONS: kept}
    conn.execute(update(clusters).where(clusters.c.id == run_id).values(state=state))
    return True
