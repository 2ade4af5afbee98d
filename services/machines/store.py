"""The rows of machines and orders: plain SQL functions on a connection; ``now`` is handed in."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, delete, func, insert, select, update
from sqlalchemy.exc import IntegrityError
from ulid import ULID

from galilean.errors import UserError, mark
from services.machines.rules import Amounts, Machine, Order
from services.machines.tables import machine_notices, machine_orders, machines
from spawner import records
from spawner.tables import cluster_nodes, clusters

ACTOR = "service:machines"
REASON = "machine_out"
WHY = mark("The machine {machine} was taken out: {why}")
WHY_PLAIN = mark("The machine {machine} was taken out.")


# ---------------------------------------------------------------------------------------------- machines


def all_machines(conn: Connection) -> list[Machine]:
    """Every machine as it was seen last, by name."""
    return [_machine(row) for row in conn.execute(select(machines).order_by(machines.c.name)).mappings()]


def sync(conn: Connection, seen: Iterable[Machine], now: datetime) -> None:
    """Make the table what was seen: rows for machines that are, none for those that are no more."""
    rows = {machine.name: _row(machine, now) for machine in seen}
    known = set(conn.execute(select(machines.c.name)).scalars())
    for name in known - rows.keys():
        conn.execute(delete(machines).where(machines.c.name == name))
    for name, row in rows.items():
        if name in known:
            conn.execute(update(machines).where(machines.c.name == name).values(**row))
        else:
            conn.execute(insert(machines).values(**row))


def seen_at(conn: Connection) -> datetime | None:
    """When the service looked last; ``None`` when it never did."""
    return conn.execute(select(func.max(machines.c.seen_at, type_=machines.c.seen_at.type))).scalar_one()


def _row(machine: Machine, now: datetime) -> dict[str, Any]:
    row = asdict(machine)
    other = row.pop("other")
    return row | {
        "labels": dict(machine.labels),
        "taints": [dict(taint) for taint in machine.taints],
        "gpu": dict(machine.gpu),
        "other_cpu_millicores": other["cpu_millicores"],
        "other_memory_bytes": other["memory_bytes"],
        "seen_at": now,
    }


def _machine(row: Mapping[Any, Any]) -> Machine:
    values = dict(row)
    other = Amounts(
        cpu_millicores=values.pop("other_cpu_millicores"), memory_bytes=values.pop("other_memory_bytes")
    )
    return Machine(other=other, **values)


# ------------------------------------------------------------------------------------- who is on a machine


@dataclass(frozen=True, kw_only=True)
class Holding:
    """A run with nodes on a machine; amounts of those nodes together."""

    machine: str
    run_id: str
    user: str
    server: str
    project_owner: str
    project_slug: str
    project_name: str
    nodes: int
    cpu_millicores: int
    memory_bytes: int
    gpu: int
    ready_at: datetime | None
    stop_asked_at: datetime | None

    @property
    def amounts(self) -> Amounts:
        return Amounts(cpu_millicores=self.cpu_millicores, memory_bytes=self.memory_bytes, gpu=self.gpu)


def holdings(
    conn: Connection, machine: str | None = None, *, user: str | None = None, hosts: Collection[str] = ()
) -> list[Holding]:
    """Who holds what on which machine, the longest first.

    Parameters
    ----------
    conn
        A connection for reading.
    machine
        On this one only.
    user
        Of this person only.
    hosts
        On these only; empty = on all.
    """
    c, n = clusters.c, cluster_nodes.c
    count = func.count()
    query = (
        select(
            n.host.label("machine"), c.id.label("run_id"), c.user, c.server, c.project_owner, c.project_slug,
            c.project_name, count.label("nodes"), (count * c.cpu_millicores).label("cpu_millicores"),
            (count * c.memory_bytes).label("memory_bytes"), (count * c.gpu).label("gpu"), c.ready_at,
            c.stop_asked_at,
        )
        .select_from(cluster_nodes.join(clusters, c.id == n.cluster_id))
        .where(n.gone_at.is_(None), c.released_at.is_(None), n.host != "")
        .group_by(
            n.host, c.id, c.user, c.server, c.project_owner, c.project_slug, c.project_name,
            c.cpu_millicores, c.memory_bytes, c.gpu, c.ready_at, c.stop_asked_at,
        )
        .order_by(c.id, n.host)
    )  # fmt: skip
    if machine is not None:
        query = query.where(n.host == machine)
    if user is not None:
        query = query.where(c.user == user)
    if hosts:
        query = query.where(n.host.in_(list(hosts)))
    return [Holding(**row) for row in conn.execute(query).mappings()]


def taken_by_machine(found: Iterable[Holding]) -> dict[str, Amounts]:
    """What clusters hold on each machine."""
    taken: dict[str, Amounts] = {}
    for holding in found:
        taken[holding.machine] = taken.get(holding.machine, Amounts()) + holding.amounts
    return taken


def release_all(conn: Connection, order: Order, now: datetime, also: Collection[str] = ()) -> list[str]:
    """Ask for the end of every run that has a node on the order's machine; whose was asked now.

    The release service carries it out, whole clusters at a time, and the people read why. ``also``: runs
    whose nodes were seen there, though no row says so yet.
    """
    message = WHY if order.why else WHY_PLAIN
    explanation = {"message": message, "params": {"machine": order.machine, "why": order.why}}
    there = {holding.run_id for holding in holdings(conn, order.machine)} | set(also)
    return [
        run_id
        for run_id in sorted(there)
        if records.ask_stop(
            conn, run_id, reason=REASON, asked_by=order.asked_by, now=now, explanation=explanation
        )
    ]


# ----------------------------------------------------------------------------------------------- orders


def place_order(
    conn: Connection,
    *,
    machine: str,
    action: str,
    asked_by: str,
    now: datetime,
    due_at: datetime | None = None,
    pool: str = "",
    remove: bool = False,
    why: str = "",
) -> Order:
    """Write an order for the service.

    Raises
    ------
    UserError
        404 when there is no such machine (409 for ``add`` when there is); 409 while another order for it
        is open.
    """
    there = conn.execute(select(machines.c.name).where(machines.c.name == machine)).first() is not None
    if action == "add" and there:
        raise UserError(409, mark("There is a machine “{machine}” already."), machine=machine)
    if action != "add" and not there:
        raise UserError(404, mark("There is no machine “{machine}”."), machine=machine[:63])
    order = Order(
        id=str(ULID()),
        machine=machine,
        action=action,
        pool=pool,
        remove=remove,
        why=why,
        asked_by=asked_by,
        asked_at=now,
        due_at=due_at or now,
    )
    try:
        with conn.begin_nested():
            conn.execute(insert(machine_orders).values(**asdict(order)))
    except IntegrityError:
        raise UserError(
            409, mark("Something is under way for “{machine}” already. Withdraw it first."), machine=machine
        ) from None
    return order


def open_orders(conn: Connection) -> list[Order]:
    """Orders that the service still works on, the oldest first."""
    query = select(machine_orders).where(machine_orders.c.closed_at.is_(None)).order_by(machine_orders.c.id)
    return [Order(**row) for row in conn.execute(query).mappings()]


def get_order(conn: Connection, order_id: str) -> Order | None:
    row = conn.execute(select(machine_orders).where(machine_orders.c.id == order_id)).mappings().first()
    return None if row is None else Order(**row)


def history(conn: Connection, machine: str, limit: int = 10) -> list[Order]:
    """The last orders for a machine, the newest first."""
    query = (
        select(machine_orders)
        .where(machine_orders.c.machine == machine)
        .order_by(machine_orders.c.id.desc())
        .limit(limit)
    )
    return [Order(**row) for row in conn.execute(query).mappings()]


def withdraw(conn: Connection, order_id: str, *, by: str, now: datetime) -> bool:
    """Take an order back; the service undoes what it has done. ``False`` when it is closed already."""
    o = machine_orders.c
    done = conn.execute(
        update(machine_orders)
        .where(o.id == order_id, o.closed_at.is_(None), o.withdrawn_at.is_(None))
        .values(withdrawn_at=now, withdrawn_by=by)
    )
    return done.rowcount == 1


def close_order(conn: Connection, order_id: str, *, outcome: str, now: datetime) -> None:
    """Nothing is left to do for an order."""
    conn.execute(
        update(machine_orders)
        .where(machine_orders.c.id == order_id, machine_orders.c.closed_at.is_(None))
        .values(closed_at=now, outcome=outcome, problem="")
    )


def note_problem(conn: Connection, order_id: str, problem: str) -> None:
    """Why an order does not get on; empty = it does."""
    conn.execute(
        update(machine_orders)
        .where(machine_orders.c.id == order_id, machine_orders.c.problem != problem[:500])
        .values(problem=problem[:500])
    )


def note_drained(conn: Connection, order_id: str, now: datetime) -> None:
    """A machine that is taken out is empty."""
    conn.execute(
        update(machine_orders)
        .where(machine_orders.c.id == order_id, machine_orders.c.drained_at.is_(None))
        .values(drained_at=now)
    )


# ---------------------------------------------------------------------------------------------- notices


def untold(conn: Connection, order: Order) -> list[Holding]:
    """Runs on a machine that is to be taken out, whose people were not told yet."""
    told = set(
        conn.execute(select(machine_notices.c.run_id).where(machine_notices.c.order_id == order.id)).scalars()
    )
    return [item for item in holdings(conn, order.machine) if item.run_id not in told]


def note_told(
    conn: Connection, order: Order, found: Iterable[Holding], *, mailed: Collection[str], now: datetime
) -> None:
    """Note who was told, and who of them by mail."""
    rows = [
        {
            "order_id": order.id,
            "run_id": item.run_id,
            "user": item.user,
            "told_at": now,
            "mailed": item.user in mailed,
        }
        for item in found
    ]
    if rows:
        conn.execute(insert(machine_notices), rows)


@dataclass(frozen=True, kw_only=True)
class Notice:
    """What somebody who holds a cluster on a machine that is taken out is told."""

    machine: str
    due_at: datetime
    why: str
    projects: tuple[str, ...]


def notices_for(found: Iterable[Holding], orders: Iterable[Order]) -> list[Notice]:
    """Notices for what one person holds, the nearest date first."""
    mine: dict[str, list[str]] = {}
    for item in found:
        mine.setdefault(item.machine, []).append(item.project_name)
    notices = [
        Notice(machine=order.machine, due_at=order.due_at, why=order.why, projects=tuple(mine[order.machine]))
        for order in orders
        if order.leaves and order.machine in mine
    ]
    return sorted(notices, key=lambda notice: (notice.due_at, notice.machine))
