"""Machines as pages and the API show them, and what administrators may want of them (CG-2, CG-33).

What is shown comes from the rows that the machines service writes; on the process backend, which has one
machine, from that machine itself. What is wanted is written as an order, with a line in the audit log; only
the command with which a machine joins comes from the service at once, because it holds a secret that is kept
nowhere.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import httpx
from sqlalchemy import Connection

from galilean.errors import UserError, mark
from galilean.settings import Settings
from galilean.web.context import Portal
from galilean.web.visitor import Visitor
from services.machines import store
from services.machines.host import overcommit_of, this_machine
from services.machines.room import refusal_of
from services.machines.rules import (
    Amounts,
    Free,
    Machine,
    Order,
    Pool,
    Size,
    State,
    carries,
    free_in,
    left_on,
    pools_of,
    possible,
    state_of,
)
from services.machines.store import Holding, Notice
from services.machines.the_settings import gpus_in, pools_in
from services.portal.api.projects import write_audit

#: After so long without a look the page says that it shows old news.
STALE = timedelta(seconds=60)
LATEST = timedelta(days=366)
ACTIONS = ("cordon", "uncordon", "out", "compute", "keep")
_NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?(\.[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?)*", re.ASCII)


@dataclass(frozen=True, kw_only=True)
class MachineView:
    """One line of the table: a machine, or one that is expected."""

    name: str
    machine: Machine | None
    order: Order | None
    state: State
    pools: tuple[Pool, ...] = ()
    holdings: tuple[Holding, ...] = ()
    actions: tuple[str, ...] = ()

    @property
    def taken(self) -> Amounts:
        """What clusters hold there."""
        return sum((item.amounts for item in self.holdings), Amounts())

    @property
    def left(self) -> Amounts:
        """What is free; nothing where no new node may come."""
        if self.machine is None or not self.machine.takes_nodes or self.state is State.RESERVED:
            return Amounts()
        return left_on(self.machine, {self.name: self.taken})

    @property
    def people(self) -> tuple[str, ...]:
        """Who holds something there."""
        return tuple(dict.fromkeys(item.user for item in self.holdings))


@dataclass(frozen=True, kw_only=True)
class Park:
    """All machines at one moment.

    Attributes
    ----------
    views
        By name.
    seen_at
        When they were looked at; ``None`` when never.
    stale
        Whether that is too long ago to be believed.
    """

    views: tuple[MachineView, ...]
    pools: tuple[Pool, ...]
    seen_at: datetime | None
    stale: bool

    @property
    def whole(self) -> Amounts:
        """What all machines together can give to nodes, those of the control plane alone left out."""
        there = [view.machine for view in self.views if view.machine and not view.machine.reserved]
        return sum((machine.amounts for machine in there), Amounts())

    def free(self, pool: Pool) -> Free:
        """What a pool has and has left."""
        machines = [view.machine for view in self.views if view.machine is not None]
        return free_in(pool, machines, {view.name: view.taken for view in self.views})


def read_park(conn: Connection, settings: Settings, now: datetime) -> Park:
    """All machines with who holds what on them."""
    pools = tuple(pools_in(settings))
    changeable = settings.backend == "kubernetes"
    machines = store.all_machines(conn) if changeable else [this_machine(overcommit_of(settings), now)]
    seen_at = max((machine.seen_at for machine in machines if machine.seen_at), default=None)
    orders = {order.machine: order for order in store.open_orders(conn)} if changeable else {}
    held: dict[str, list[Holding]] = {}
    for item in store.holdings(conn):
        held.setdefault(item.machine, []).append(item)
    known = {machine.name: machine for machine in machines}
    views = [
        MachineView(
            name=name,
            machine=known.get(name),
            order=orders.get(name),
            state=state_of(known.get(name), orders.get(name), now),
            pools=tuple(pools_of(known[name], pools))
            if name in known
            else tuple(pool for pool in pools if pool.name == orders[name].pool),
            holdings=tuple(held.get(name, ())),
            actions=possible(known.get(name), orders.get(name)) if changeable else (),
        )
        for name in sorted({*known, *orders})
    ]
    return Park(
        views=tuple(views),
        pools=pools,
        seen_at=seen_at,
        stale=changeable and (seen_at is None or now - seen_at > STALE),
    )


async def park_of(portal: Portal) -> Park:
    """See :func:`read_park`."""
    return await portal.db.run_read(read_park, portal.settings, portal.clock())


# ------------------------------------------------------------------------------------------- pools to choose


@dataclass(frozen=True, kw_only=True)
class PoolChoice:
    """A pool as the Run form offers it."""

    name: str
    title: str
    free: Free


async def pool_choices(portal: Portal, person: Visitor) -> list[PoolChoice]:
    """The pools that somebody may use, with what is free in each; in the settings' order."""
    park = await park_of(portal)
    return [
        PoolChoice(name=pool.name, title=pool.shown, free=park.free(pool))
        for pool in park.pools
        if pool.is_open_to(person.roles)
    ]


@dataclass(frozen=True, kw_only=True)
class GpuChoice:
    """A model of GPU card as the Run form offers it; ``free`` over all pools."""

    name: str
    title: str
    free: int


async def gpu_choices(portal: Portal) -> list[GpuChoice]:
    """The models that can be asked for by name, with how many cards are free now."""
    views, gpus = (await park_of(portal)).views, gpus_in(portal.settings)
    return [
        GpuChoice(
            name=name,
            title=portal.settings.gpu_models[name].title or name,
            free=sum(
                min(view.left.gpu, view.machine.gpu.get(model.resource, 0))
                for view in views
                if view.machine is not None and carries(view.machine, model.node_selector)
            ),
        )
        for name, model in gpus.models.items()
    ]


async def never(portal: Portal, pool_name: str, size: Size) -> UserError | None:
    """Why a request can never be met by the pool's machines, as admission would say; ``None`` when it may be."""
    settings = portal.settings
    if settings.backend != "kubernetes" or settings.machines.autoscaled:
        return None
    pool = next((item for item in pools_in(settings) if item.name == pool_name), None)
    if pool is None:
        return None
    return refusal_of(size, pool, await portal.db.run_read(store.all_machines), gpus_in(settings))


# ------------------------------------------------------------------------------------------------- acts


@dataclass(frozen=True, kw_only=True)
class Ticket:
    """How a machine joins; shown once."""

    name: str
    pool: str
    command: str = field(repr=False)
    expires_at: datetime
    order: str


def _changeable(portal: Portal) -> None:
    if portal.settings.backend != "kubernetes":
        raise UserError(400, mark("On this backend machines are neither added nor taken out from here."))


async def add(portal: Portal, person: Visitor, *, name: str, pool: str, address: str = "") -> Ticket:
    """Have a machine expected, and learn the command with which it joins.

    Raises
    ------
    UserError
        400 for a name or pool that cannot be, or where adding is not switched on; 409 when there is such a
        machine; 503 when the service does not answer.
    """
    _changeable(portal)
    if not portal.settings.machines.add:
        raise UserError(
            400,
            mark(
                "Adding machines from here is not switched on. It needs machines.add in the settings and a right "
                "in kube-system."
            ),
        )
    name = name.strip().lower()
    if len(name) > 253 or not _NAME.fullmatch(name):
        raise UserError(
            400,
            mark(
                "“{name}” cannot be the name of a machine: small letters, digits and hyphens, in parts that dots "
                "separate."
            ),
            name=name[:60],
        )
    if pool not in portal.settings.pools:
        raise UserError(400, mark("There is no pool “{pool}”."), pool=pool[:60])
    made = await _ask_service(portal, "join", {"name": name, "pool": pool, "asked_by": person.name})
    await portal.db.run(
        write_audit,
        at=portal.clock(),
        actor=person.name,
        address=address[:64],
        action="machine.add",
        subject=name,
        after={"pool": pool, "expires_at": made["expires_at"]},
    )
    return Ticket(
        name=name,
        pool=pool,
        command=made["command"],
        expires_at=datetime.fromisoformat(made["expires_at"]),
        order=made["order"],
    )


async def contents(
    portal: Portal, name: str, *, text: str = "", namespace: str = "", offset: int = 0, limit: int = 50
) -> dict[str, Any]:
    """What is on a machine now, as :func:`services.machines.contents.said` says it.

    Raises
    ------
    UserError
        501 where machines are not Kubernetes'; 404; 503 when the service or the API server does not answer.
    """
    if portal.settings.backend != "kubernetes":
        raise UserError(501, mark("Only machines of a Kubernetes can be looked into."), reason="not-here")
    body = {"name": name, "q": text, "namespace": namespace, "from": offset, "limit": limit}
    return await _ask_service(portal, "contents", body)


async def _ask_service(portal: Portal, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
    url, token = portal.parts.get("machines_url", ""), portal.parts.get("machines_token", "")
    away = UserError(503, mark("The machines' side does not answer just now. Try again in a moment."))
    if not url:
        raise away
    try:
        async with httpx.AsyncClient(timeout=30, trust_env=False) as client:
            answer = await client.post(
                f"{url}/{path}", json=dict(body), headers={"Authorization": f"token {token}"}
            )
            told: dict[str, Any] = answer.json()
    except (httpx.TransportError, ValueError) as error:
        raise away from error
    if answer.status_code >= 400:
        if "message" not in told:
            raise away
        raise UserError(
            answer.status_code,
            str(told["message"]),
            reason=str(told.get("reason", "")),
            **(told.get("params") or {}),
        )
    return told


async def order(
    portal: Portal,
    person: Visitor,
    *,
    machine: str,
    action: str,
    due_at: datetime | None = None,
    remove: bool = False,
    why: str = "",
    address: str = "",
) -> Order:
    """Order something for a machine; the service carries it out within seconds, or at its date.

    Raises
    ------
    UserError
        400 for an action or a date that cannot be; 404, 409 as :func:`services.machines.store.place_order`;
        409 when the control plane's own machine would be removed.
    """
    _changeable(portal)
    now = portal.clock()
    if action not in ACTIONS:
        raise UserError(400, mark("“{name}” is one of: {known}."), name="action", known=", ".join(ACTIONS))
    if action != "out":
        due_at, remove = None, False
    elif due_at is not None and due_at > now + LATEST:
        raise UserError(400, mark("The date is more than a year away."))
    placed = await portal.db.run(
        _place, person, machine, action, max(due_at or now, now), remove, why.strip()[:300], address, now
    )
    portal.parts["frame"].forget()
    return placed


def _place(
    conn: Connection,
    person: Visitor,
    machine: str,
    action: str,
    due_at: datetime,
    remove: bool,
    why: str,
    address: str,
    now: datetime,
) -> Order:
    if remove and any(item.name == machine and item.control_plane for item in store.all_machines(conn)):
        raise UserError(
            409,
            mark(
                "The control plane runs on “{machine}”. It can be emptied; removing it is not done from here."
            ),
            machine=machine,
        )
    placed = store.place_order(
        conn,
        machine=machine,
        action=action,
        asked_by=person.name,
        now=now,
        due_at=due_at,
        remove=remove,
        why=why,
    )
    write_audit(
        conn,
        at=now,
        actor=person.name,
        address=address[:64],
        action=f"machine.{action}",
        subject=machine,
        after={"due_at": due_at.isoformat(), "remove": remove} if action == "out" else None,
        reason=why,
    )
    return placed


async def withdraw(portal: Portal, person: Visitor, order_id: str, *, address: str = "") -> Order:
    """Take an order back; what was done of it is undone.

    Raises
    ------
    UserError
        404 when there is no such order; 409 when it is done.
    """
    taken_back = await portal.db.run(_withdraw, person, order_id, address, portal.clock())
    portal.parts["frame"].forget()
    return taken_back


def _withdraw(conn: Connection, person: Visitor, order_id: str, address: str, now: datetime) -> Order:
    found = store.get_order(conn, order_id)
    if found is None:
        raise UserError(404, mark("There is no such order."))
    if not store.withdraw(conn, order_id, by=person.name, now=now) and found.withdrawn_at is None:
        raise UserError(409, mark("It is done already, and cannot be taken back."))
    write_audit(
        conn,
        at=now,
        actor=person.name,
        address=address[:64],
        action="machine.withdraw",
        subject=found.machine,
        before={"action": found.action, "due_at": found.due_at.isoformat()},
    )
    return store.get_order(conn, order_id) or found


# ------------------------------------------------------------------------------------------------ notices


def read_notices(conn: Connection, user: str) -> list[Notice]:
    """What somebody is told of machines that are to be taken out; one look where nothing is."""
    leaving = [item for item in store.open_orders(conn) if item.leaves]
    if not leaving:
        return []
    hosts = [item.machine for item in leaving]
    return store.notices_for(store.holdings(conn, user=user, hosts=hosts), leaving)


# ------------------------------------------------------------------------------------------ the table's view

SORTS = ("name", "state", "pool", "cpu", "memory", "gpu", "held")
PAGE_SIZE = 50


def fits(view: MachineView, text: str, pool: str, state: str) -> bool:
    """Whether a machine is among what is asked for: words in its name, address, people and projects."""
    if pool and all(item.name != pool for item in view.pools):
        return False
    if state and view.state.value != state:
        return False
    if not text:
        return True
    said = [view.name, view.machine.address if view.machine else ""]
    said += [f"{item.user} {item.project_name}" for item in view.holdings]
    haystack = "\n".join(said).casefold()
    return all(word in haystack for word in text.casefold().split())


def arrange(views: Iterable[MachineView], sort: str, descending: bool) -> list[MachineView]:
    """Machines in an order; equals by name."""

    def amount(view: MachineView) -> Amounts:
        return view.machine.amounts if view.machine else Amounts()

    states = list(State)
    keys: dict[str, Any] = {
        "name": lambda view: view.name,
        "state": lambda view: states.index(view.state),
        "pool": lambda view: view.pools[0].shown.casefold() if view.pools else "",
        "cpu": lambda view: amount(view).cpu_millicores,
        "memory": lambda view: amount(view).memory_bytes,
        "gpu": lambda view: amount(view).gpu,
        "held": lambda view: len(view.holdings),
    }
    return sorted(sorted(views, key=lambda view: view.name), key=keys[sort], reverse=descending)


def wrong_now(views: Sequence[MachineView]) -> int:
    """How many machines need somebody: the badge in the navigation."""
    return sum(view.state is State.SILENT or bool(view.order and view.order.problem) for view in views)
