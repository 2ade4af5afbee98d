"""Ports of a running cluster that its owner lets named people open (AP-11, design §2).

The grants stand in the run's row, so they end with the run and are nobody's next time. Two things follow from
them: the hub's own server shares, by which a visitor's browser gets as far as the node at all
(:mod:`hub_config.port_shares`), and the node's answer, which lets a visitor into these ports and nowhere else
(:mod:`spawner.node.visitors`). A hub share without a grant here opens nothing.

A node of an older image would let whoever the hub lets through into all of it, and the hub's share leads to all nodes
of a run. So ports are shared only while every node of the run has said that it looks at who comes; one that is made
anew, perhaps on another machine, has to say it again.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, String, cast, select, update

from galilean import audit
from galilean.errors import UserError, mark
from spawner import records
from spawner.ports import SHARED, ports_of
from spawner.records import Run
from spawner.tables import clusters

#: Of one port. Whoever needs more publishes the program elsewhere.
PEOPLE_MOST = 50

#: A node says it as soon as it runs, and asks again every few seconds while nobody hears it.
SAYS_SO_WITHIN = timedelta(minutes=2)
#: In ``clusters.state``: the ranks of those nodes that look at who comes.
GUARDED = "guards_ports"

Shared = dict[int, tuple[str, ...]]


def shared_of(run: Run) -> Shared:
    """The people that each port of a run is shared with, by name."""
    given: Mapping[str, Any] = (run.state or {}).get(SHARED) or {}
    return {int(port): tuple(sorted(people)) for port, people in sorted(given.items()) if people}


def ports_for(run: Run, person: str) -> tuple[int, ...]:
    """The ports of an open run that are shared with somebody; none while a node does not look at who comes."""
    if run.released_at is not None or not guards(run):
        return ()
    return tuple(port for port, people in shared_of(run).items() if person in people)


def guards(run: Run) -> bool:
    """Whether all nodes of a run have said that they look at who comes."""
    return _guarding(run) >= set(range(run.nodes))


def tell_guarded(conn: Connection, run_id: str, rank: int) -> None:
    """A node of an open run says that it looks at who comes; again is success. Call in a write transaction."""
    _open(conn, run_id)
    note_guarded(conn, run_id, rank)


def note_guarded(conn: Connection, run_id: str, rank: int) -> None:
    """Nobody comes past this node unseen: it looks at who comes, or is not there. Call in a write transaction."""
    run = _locked(conn, run_id)
    if run is not None and rank not in _guarding(run):
        _keep_guarding(conn, run, _guarding(run) | {rank})


def forget_guarded(conn: Connection, run_id: str, rank: int) -> None:
    """A node is made anew: until it says so again, nothing of its run is shared. Call in a write transaction."""
    run = _locked(conn, run_id)
    if run is not None and rank in _guarding(run):
        _keep_guarding(conn, run, _guarding(run) - {rank})


def _locked(conn: Connection, run_id: str) -> Run | None:
    row = conn.execute(select(clusters).where(clusters.c.id == run_id).with_for_update()).mappings().first()
    return None if row is None else Run(**row)


def _guarding(run: Run) -> set[int]:
    said = (run.state or {}).get(GUARDED)
    return {int(rank) for rank in said} if isinstance(said, list) else set()


def _keep_guarding(conn: Connection, run: Run, ranks: set[int]) -> None:
    state = {**(run.state or {}), GUARDED: sorted(ranks)}
    conn.execute(update(clusters).where(clusters.c.id == run.id).values(state=state))


def share(
    conn: Connection, run_id: str, port: int, person: str, *, by: str, now: datetime, address: str = ""
) -> bool:
    """Let somebody open a port of an open run; whether that is news. Call in a write transaction.

    Raises
    ------
    UserError
        400 for oneself, 404 for a port that the run does not show, 409 for too many people,
        nodes of an old image or no open run.
    """
    run = _open(conn, run_id)
    if person == run.user:
        raise UserError(400, mark("It is yours: you need not share it with yourself."))
    if port not in ports_of(run):
        raise UserError(404, mark("This cluster does not show port {port}. Add it first."), port=port)
    if not guards(run):
        raise _unguarded(conn, run, now)
    before = shared_of(run)
    people = before.get(port, ())
    if person in people:
        return False
    if len(people) >= PEOPLE_MOST:
        raise UserError(409, mark("A port is shared with at most {most} people."), most=PEOPLE_MOST)
    _keep(conn, run, {**before, port: (*people, person)})
    _note(conn, run, "port.share", port, person, by=by, now=now, address=address)
    return True


def _unguarded(conn: Connection, run: Run, now: datetime) -> UserError:
    """Why a run cannot share ports now: a node that is coming says so soon, one of an old image never."""
    missing = set(range(run.nodes)) - _guarding(run)
    for node in records.present(records.intervals(conn, [run.id])[run.id]):
        if node.rank not in missing or node.gone_at is not None:
            continue
        since = max((at for at in (node.placed_at, node.ready_at) if at is not None), default=now)
        if node.ready_at is None or now - since < SAYS_SO_WITHIN:
            return UserError(
                409,
                mark("Node {rank} is only just starting. Share the port in a minute."),
                reason="starting",
                rank=node.rank,
            )
    return UserError(
        409, mark("The image of this cluster is too old to share ports. Build it anew, then run it again.")
    )


def withdraw(
    conn: Connection, run_id: str, port: int, person: str, *, by: str, now: datetime, address: str = ""
) -> None:
    """Take a port away from somebody; who has it not is success. Call in a write transaction.

    Raises
    ------
    UserError
        409 when no open run is there.
    """
    run = _open(conn, run_id)
    before = shared_of(run)
    people = before.get(port, ())
    if person not in people:
        return
    _keep(conn, run, {**before, port: tuple(name for name in people if name != person)})
    _note(conn, run, "port.withdraw", port, person, by=by, now=now, address=address)


def forget(conn: Connection, person: str) -> None:
    """Somebody is gone: whoever gets the name later has none of their ports. Call in a write transaction."""
    for found in _sharing(conn):
        row = conn.execute(
            select(clusters).where(clusters.c.id == found.id).with_for_update()
        ).mappings().one()  # fmt: skip
        run = Run(**row)
        before = shared_of(run)
        if any(person in people for people in before.values()):
            left = {port: tuple(name for name in people if name != person) for port, people in before.items()}
            _keep(conn, run, left)


def all_shared(conn: Connection) -> dict[tuple[str, str], frozenset[str]]:
    """Who may come to which (user, server): what the hub's shares follow."""
    return {
        (run.user, run.server): frozenset(name for people in shared.values() for name in people)
        for run in _sharing(conn)
        if guards(run) and (shared := shared_of(run))
    }


def shared_with(conn: Connection, person: str) -> list[Run]:
    """Open runs of others that share a port with somebody, newest first."""
    return [run for run in _sharing(conn) if ports_for(run, person)]


def _sharing(conn: Connection) -> list[Run]:
    """Open runs that may share ports. There are as many open runs as the machines hold, so they are looked through."""
    rows = conn.execute(
        select(clusters)
        .where(clusters.c.released_at.is_(None), cast(clusters.c.state, String).like(f'%"{SHARED}"%'))
        .order_by(clusters.c.id.desc())
    ).mappings()
    return [Run(**row) for row in rows]


def _open(conn: Connection, run_id: str) -> Run:
    row = conn.execute(
        select(clusters).where(clusters.c.id == run_id, clusters.c.released_at.is_(None)).with_for_update()
    ).mappings().first()  # fmt: skip
    if row is None:
        raise UserError(409, mark("The cluster does not run."))
    return Run(**row)


def _keep(conn: Connection, run: Run, shared: Shared) -> None:
    kept = {str(port): sorted(people) for port, people in shared.items() if people}
    state = {**(run.state or {}), SHARED: kept}
    if not kept:
        del state[SHARED]
    conn.execute(update(clusters).where(clusters.c.id == run.id).values(state=state))


def _note(
    conn: Connection, run: Run, action: str, port: int, person: str, *, by: str, now: datetime, address: str
) -> None:
    audit.write(
        conn,
        at=now,
        actor=by,
        action=action,
        subject=f"{run.user}/{run.server}",
        address=address,
        after={"port": port, "person": person, "run": run.id},
    )
