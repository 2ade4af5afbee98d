"""The tick of this room's service: look, write down what is there, take every open order a step further.

A step is small and may be repeated; what it changed is seen at the next look, and only that look decides
what comes after. So nothing is kept in memory, and a service that was killed goes on where the world is.
One order that cannot get on (a disruption budget, a machine that does not answer) is told of and does not
hold up the others.

Who holds something on a machine that is to be taken out is told once for each cluster, in their pages by the
order itself, and by mail where there is a server for it and an address.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Collection, Mapping
from datetime import timedelta
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge
from sqlalchemy import Connection

from galilean.clock import Clock, utcnow
from galilean.db import Database
from galilean.errors import UserError
from services.machines import store
from services.machines.notify import Letter, letters
from services.machines.rules import (
    CLOSING,
    Machine,
    Order,
    Pool,
    State,
    Step,
    labels_for,
    next_step,
    state_of,
)
from services.machines.world import View, World
from spawner import records

log = logging.getLogger("galilean.machines")

#: Sends letters; the names of the people who were reached.
Post = Callable[[list[Letter]], Awaitable[Collection[str]]]


async def nobody(post: list[Letter]) -> Collection[str]:
    """No mail."""
    return ()


class Keeper:
    """The tick of the service ``machines``.

    Parameters
    ----------
    db, world
        Our database; the backend's machines.
    pools
        Of the settings.
    post
        Sends letters to people who hold something on a machine that is to be taken out.
    clock, registry, details
        Handed in; ``details`` is shown by ``/health``.
    """

    def __init__(
        self,
        db: Database,
        world: World,
        pools: Collection[Pool],
        *,
        post: Post = nobody,
        clock: Clock = utcnow,
        registry: CollectorRegistry | None = None,
        details: dict[str, Any] | None = None,
    ) -> None:
        self.db, self.world, self.post, self.clock = db, world, post, clock
        self.pools = {pool.name: pool for pool in pools}
        self.details = {} if details is None else details
        registry = registry or CollectorRegistry()
        self._machines = Gauge(
            "galilean_machine_state_count", "Machines by state.", ["state"], registry=registry
        )
        self._steps = Counter(
            "galilean_machine_order_step_total",
            "Steps taken for orders, by step.",
            ["step"],
            registry=registry,
        )
        self._stuck = Gauge(
            "galilean_machine_order_stuck_count", "Orders that do not get on.", registry=registry
        )

    async def tick(self) -> None:
        """One round."""
        orders = await self.db.run_read(store.open_orders)
        now = self.clock()
        leaving = [order for order in orders if order.leaves]
        view = await self.world.look([order.machine for order in leaving if now >= order.due_at])
        await self.db.run(store.sync, view.machines, now)
        there = {machine.name: machine for machine in view.machines}
        for order in leaving:
            if order.machine in there:
                await self._tell(order)
        stuck = 0
        for order in orders:
            stuck += not await self._further(order, there.get(order.machine), view)
        self._count(view, orders)
        self._stuck.set(stuck)
        self.details |= {"machines": len(view.machines), "orders": len(orders), "stuck": stuck}

    async def _further(self, order: Order, machine: Machine | None, view: View) -> bool:
        """Take an order a step further; ``False`` when it does not get on."""
        pool = self.pools.get(order.pool)
        missing = labels_for(pool, machine) if pool is not None and machine is not None else {}
        occupied = order.machine in view.occupied or bool(
            order.leaves and await self.db.run_read(store.holdings, order.machine)
        )
        step = next_step(order, machine, occupied=occupied, now=self.clock(), missing_labels=bool(missing))
        if step is Step.WAIT:
            return True
        problem = ""
        try:
            await self._take(step, order, missing, view.runs.get(order.machine, frozenset()))
        except UserError as error:
            problem = str(error)
        except Exception as error:
            problem = f"{type(error).__name__}: {error}"
        else:
            self._steps.labels(step.value).inc()
            log.info("machine %s, order %s (%s): %s", order.machine, order.id, order.action, step.value)
        if problem:
            log.warning(
                "machine %s, order %s: %s did not work: %s", order.machine, order.id, step.value, problem
            )
        if problem != order.problem and step not in CLOSING:
            await self.db.run(store.note_problem, order.id, problem)
        return not problem

    async def _take(
        self, step: Step, order: Order, missing: Mapping[str, str], runs: Collection[str]
    ) -> None:
        name = order.machine
        if step in CLOSING:
            if step is Step.DONE and order.action == "out":
                await self.db.run(store.note_drained, order.id, self.clock())
            await self.db.run(store.close_order, order.id, outcome=step.value, now=self.clock())
        elif step in (Step.CORDON, Step.UNCORDON):
            await self.world.cordon(name, step is Step.CORDON)
        elif step in (Step.RESERVE, Step.UNRESERVE):
            await self.world.reserve(name, step is Step.RESERVE)
        elif step is Step.LABEL:
            await self.world.label(name, missing)
        elif step is Step.EMPTY:
            asked = await self.db.run(store.release_all, order, self.clock(), runs)
            if asked:
                log.info("machine %s: %d runs are asked to end", name, len(asked))
            going = {run.id for run in await self.db.run_read(records.all_open)}
            await self.world.move_others(name, spare=going)
        elif step is Step.REMOVE:
            await self.db.run(store.note_drained, order.id, self.clock())
            await self.world.remove(name)

    async def _tell(self, order: Order) -> None:
        found = await self.db.run_read(store.untold, order)
        if not found:
            return
        try:
            mailed = await self.post(letters(order, found))
        except Exception as error:
            log.warning("machine %s: mail was not sent: %s", order.machine, error)
            mailed = ()
        await self.db.run(store.note_told, order, found, mailed=mailed, now=self.clock())

    def _count(self, view: View, orders: list[Order]) -> None:
        open_for = {order.machine: order for order in orders}
        now = self.clock()
        counts = dict.fromkeys(State, 0)
        for machine in view.machines:
            counts[state_of(machine, open_for.get(machine.name), now)] += 1
        for state, number in counts.items():
            self._machines.labels(state.value).set(number)


async def add_machine(
    db: Database, world: World, *, name: str, pool: str, asked_by: str, minutes: int, clock: Clock = utcnow
) -> dict[str, Any]:
    """A ticket for a machine that is to join, and the order that gives it its pool's labels when it comes.

    Raises
    ------
    UserError
        409 when there is such a machine or it is expected already; what the backend refuses.
    """
    now = clock()

    def place(conn: Connection) -> Order:
        return store.place_order(
            conn,
            machine=name,
            action="add",
            asked_by=asked_by,
            now=now,
            due_at=now + timedelta(minutes=minutes),
            pool=pool,
        )

    order = await db.run(place)
    try:
        ticket = await world.ticket(name, now=now, minutes=minutes)
    except BaseException:
        await db.run(store.close_order, order.id, outcome=Step.WITHDRAWN.value, now=clock())
        raise
    return {"order": order.id, "command": ticket.command, "expires_at": ticket.expires_at.isoformat()}
