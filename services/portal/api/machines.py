"""Machines and pools by the API (CG-2, CG-33): the same functions as the page's."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from pydantic import Field

from galilean.errors import UserError, mark
from galilean.web.handlers import APIHandler
from galilean.web.paging import Cursor
from services.machines import store
from services.machines.rules import Amounts, Order, State
from services.portal import machine_stop, machines
from services.portal.api import machine_models as models
from services.portal.api.base import Handler
from services.portal.api.models import Incoming, ListOf, Outgoing
from services.portal.api.operation import PAGED, Operation
from services.portal.machines import MachineView


def amounts_model(amounts: Amounts) -> models.MachineAmounts:
    return models.MachineAmounts(
        cpu=amounts.cpu_millicores / 1000, memory_bytes=amounts.memory_bytes, gpu=amounts.gpu
    )


def order_model(order: Order) -> models.MachineOrder:
    """An order as the API shows it."""
    return models.MachineOrder(
        id=order.id,
        machine=order.machine,
        action=order.action,  # type: ignore[arg-type]
        asked_by=order.asked_by,
        asked_at=order.asked_at,
        due_at=order.due_at,
        remove=order.remove,
        why=order.why,
        withdrawn_at=order.withdrawn_at,
        drained_at=order.drained_at,
        closed_at=order.closed_at,
        outcome=order.outcome,
        problem=order.problem,
    )


def machine_model(view: MachineView) -> models.Machine:
    """A machine as the API shows it."""
    machine = view.machine
    return models.Machine(
        name=view.name,
        state=view.state.value,  # type: ignore[arg-type]
        problem=machine.problem if machine else "",
        pools=[pool.name for pool in view.pools],
        control_plane=machine.control_plane if machine else False,
        can_give=amounts_model(machine.amounts if machine else Amounts()),
        held=amounts_model(view.taken),
        free=amounts_model(view.left),
        cpu=machine.cpu_capacity_millicores / 1000 if machine else 0,
        memory_bytes=machine.memory_capacity_bytes if machine else 0,
        address=machine.address if machine else "",
        version=machine.version if machine else "",
        heartbeat_at=machine.heartbeat_at if machine else None,
        seen_at=machine.seen_at if machine else None,
        holdings=[
            models.MachineHolding(
                cluster=item.run_id,
                user=item.user,
                project=f"{item.project_owner}/{item.project_slug}",
                nodes=item.nodes,
                cpu=item.cpu_millicores / 1000,
                memory_bytes=item.memory_bytes,
                gpu=item.gpu,
                ready_at=item.ready_at,
            )
            for item in view.holdings
        ],
        order=order_model(view.order) if view.order else None,
    )


class MachineHandler(Handler):
    right = "machines:manage"

    async def one(self, name: str) -> MachineView:
        """A machine of this name, or 404."""
        for view in (await machines.park_of(self.portal)).views:
            if view.name == name:
                return view
        raise UserError(404, mark("There is no machine “{machine}”."), machine=name[:63])


class Machines(MachineHandler):
    async def get(self) -> None:
        limit, cursor = self.limit(), self.query("cursor")
        after = ""
        if cursor:
            (after,) = Cursor.decode(cursor, 1)
        state = self.word("state", "", *(item.value for item in State))
        park = await machines.park_of(self.portal)
        found = [
            view
            for view in park.views
            if machines.fits(view, self.query("q"), self.query("pool"), state) and view.name > str(after)
        ]
        following = Cursor.encode(found[limit - 1].name) if len(found) > limit else None
        self.write_json(
            ListOf[models.Machine](items=[machine_model(view) for view in found[:limit]], next=following)
        )

    async def post(self) -> None:
        body = self.body(models.NewMachine)
        ticket = await machines.add(
            self.portal, self.person, name=body.name, pool=body.pool, address=self.address
        )
        self.write_json(
            models.MachineTicket(
                name=ticket.name,
                pool=ticket.pool,
                command=ticket.command,
                expires_at=ticket.expires_at,
                order=ticket.order,
            ),
            201,
        )


class Machine(MachineHandler):
    async def get(self, name: str) -> None:
        self.write_json(machine_model(await self.one(name)))


class Contents(MachineHandler):
    async def get(self, name: str) -> None:
        await self.one(name)
        told = await machines.contents(
            self.portal,
            name,
            text=self.query("q")[:100],
            namespace=self.query("namespace")[:63],
            offset=self.number("from"),
            limit=self.limit(),
        )
        self.write_json(models.MachineContents.model_validate(told))

    def number(self, key: str) -> int:
        text = self.query(key) or "0"
        if not (text.isascii() and text.isdigit() and len(text) <= 6):
            raise UserError(400, mark("“{key}” takes a number."), key=key)
        return int(text)


class Orders(MachineHandler):
    async def get(self, name: str) -> None:
        history = await self.portal.db.run_read(store.history, name, self.limit())
        self.write_json(ListOf[models.MachineOrder](items=[order_model(order) for order in history]))

    async def post(self, name: str) -> None:
        body = self.body(models.NewMachineOrder)
        placed = await machines.order(
            self.portal,
            self.person,
            machine=name,
            action=body.action,
            due_at=_moment(body.due_at),
            remove=body.remove,
            why=body.why,
            address=self.address,
        )
        self.write_json(order_model(placed), 202)


class OneOrder(MachineHandler):
    async def get(self, name: str, order_id: str) -> None:
        found = await self.portal.db.run_read(store.get_order, order_id)
        if found is None or found.machine != name:
            raise UserError(404, mark("There is no such order."))
        self.write_json(order_model(found))

    async def delete(self, name: str, order_id: str) -> None:
        found = await self.portal.db.run_read(store.get_order, order_id)
        if found is None or found.machine != name:
            raise UserError(404, mark("There is no such order."))
        taken_back = await machines.withdraw(self.portal, self.person, order_id, address=self.address)
        self.write_json(order_model(taken_back), 202)


class StopIt(Incoming):
    """Everything on a machine shall go back; its name is typed again."""

    confirm: str = Field(max_length=255, description="The machine's name.")
    why: str = Field(default="", max_length=300, description="What the people are told.")


class StoppedNow(Outgoing):
    released: int = Field(description="Clusters that go back.")
    failed: int = Field(description="Clusters that could not be released just now.")


class Stop(MachineHandler):
    async def post(self, name: str) -> None:
        body = self.body(StopIt)
        found = await machine_stop.stop_everything(
            self.portal,
            self.person,
            self.hub_as_visitor(),
            await self.one(name),
            typed=body.confirm,
            why=body.why.strip(),
            address=self.address,
        )
        self.write_json(StoppedNow(released=found.released, failed=found.failed), 202)


class Pools(Handler):
    async def get(self) -> None:
        choices = await machines.pool_choices(self.portal, self.person)
        self.write_json(
            ListOf[models.Pool](
                items=[
                    models.Pool(
                        name=choice.name,
                        title=choice.title,
                        machines=choice.free.machines,
                        can_give=amounts_model(choice.free.all),
                        free=amounts_model(choice.free.free),
                    )
                    for choice in choices
                ]
            )
        )


def _moment(text: str | None) -> datetime | None:
    if text is None:
        return None
    try:
        found = datetime.fromisoformat(text)
        if found.tzinfo is not None:
            return found.astimezone(UTC)
    except (ValueError, OverflowError):
        pass
    raise UserError(
        400, mark("“{key}” takes a time with its zone such as 2026-11-22T10:00:00Z."), key="due_at"
    )


MACHINE = "/machines/{name}"
OPERATIONS = (
    Operation(
        method="get",
        path="/machines",
        summary="List machines, who holds what there and what is under way (administrators)",
        query={
            "q": "Words that must all stand in name, address, people or projects.",
            "pool": "In this pool only.",
            "state": "In this state only.",
            **PAGED,
        },
        answers={200: ListOf[models.Machine]},
    ),
    Operation(
        method="post",
        path="/machines",
        summary="Expect a machine, and learn the one command with which it joins",
        takes=models.NewMachine,
        answers={201: models.MachineTicket},
    ),
    Operation(method="get", path=MACHINE, summary="Look at a machine", answers={200: models.Machine}),
    Operation(
        method="get",
        path=MACHINE + "/contents",
        summary="What is on a machine of a Kubernetes: details, this installation's pods, and how many others",
        query={
            "q": "Words that must all stand in a pod's name, person, part or state.",
            "namespace": "In this one only.",
            "from": "So many pods are left out.",
            "limit": PAGED["limit"],
        },
        answers={200: models.MachineContents},
    ),
    Operation(
        method="get",
        path=MACHINE + "/orders",
        summary="What was done with a machine, the newest first",
        query={"limit": PAGED["limit"]},
        answers={200: ListOf[models.MachineOrder]},
    ),
    Operation(
        method="post",
        path=MACHINE + "/orders",
        summary="Want something of a machine: cordon, uncordon, take out, let compute, keep",
        takes=models.NewMachineOrder,
        answers={202: models.MachineOrder},
    ),
    Operation(
        method="get",
        path=MACHINE + "/orders/{id}",
        summary="How far an order is",
        answers={200: models.MachineOrder},
    ),
    Operation(
        method="delete",
        path=MACHINE + "/orders/{id}",
        summary="Take an order back; what was done of it is undone",
        answers={202: models.MachineOrder},
    ),
    Operation(
        method="post",
        path=MACHINE + "/stop",
        summary="Release every cluster that has a node on a machine (with clusters:release-all)",
        takes=StopIt,
        answers={202: StoppedNow},
    ),
    Operation(
        method="get",
        path="/pools",
        summary="List the pools that one may use, with what is free in each",
        answers={200: ListOf[models.Pool]},
    ),
)


def routes() -> list[tuple[str, type[APIHandler]]]:
    """Addresses, relative to the portal's prefix."""
    one: Any = r"/api/v1/machines/([^/]+)"
    return [
        (r"/api/v1/machines", Machines),
        (one, Machine),
        (one + r"/stop", Stop),
        (one + r"/contents", Contents),
        (one + r"/orders", Orders),
        (one + r"/orders/([^/]+)", OneOrder),
        (r"/api/v1/pools", Pools),
    ]
