"""Machines, runs on them, and a world of thin air for the tests of this room."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from galilean.amounts import GIB
from galilean.db import Database
from galilean.errors import UserError
from services.machines.contents import Contents
from services.machines.rules import CONTROL_PLANE, Machine
from services.machines.world import Ticket, View
from tests.metering.rows import add_node, add_run

T0 = datetime(2026, 3, 2, 9, 0, tzinfo=UTC)
GPU = "nvidia.com/gpu"


def machine(name: str = "m1", *, cpu: int = 16, memory: int = 64, gpu: int = 0, **more: Any) -> Machine:
    return Machine(
        name=name,
        cpu_millicores=cpu * 1000,
        memory_bytes=memory * GIB,
        gpu={GPU: gpu} if gpu else {},
        cpu_capacity_millicores=cpu * 1000,
        memory_capacity_bytes=memory * GIB,
        heartbeat_at=T0,
        **more,
    )


RESERVED = {"key": CONTROL_PLANE, "effect": "NoSchedule"}


def run_on(db: Database, run_id: str, *hosts: str, **more: Any) -> None:
    """A running cluster with a node on each of these machines."""
    with db.write() as conn:
        add_run(conn, run_id, nodes=len(hosts), gpu=more.pop("gpu", 0), **more)
        for rank, host in enumerate(hosts):
            add_node(conn, run_id, rank, T0, host=host)


class Clock:
    def __init__(self) -> None:
        self.now = T0

    def __call__(self) -> datetime:
        return self.now

    def pass_(self, **more: float) -> None:
        self.now += timedelta(**more)


class Air:
    """A world whose machines are what the test says; ``did`` is what it was asked to do."""

    namespaces = ("galilean",)

    def __init__(self, *machines: Machine) -> None:
        self.found: Contents | None = None
        self.machines = {item.name: item for item in machines}
        self.occupied: set[str] = set()
        self.runs: dict[str, set[str]] = {}
        self.did: list[tuple[Any, ...]] = []
        self.fails: Exception | None = None

    def _note(self, *what: Any) -> None:
        if self.fails is not None:
            raise self.fails
        self.did.append(what)

    async def contents(self, name: str) -> Contents:
        if self.found is None:
            raise UserError(404, "There is no machine “{machine}”.", machine=name)
        return self.found

    async def look(self, watched: Collection[str] = ()) -> View:
        return View(
            machines=tuple(self.machines.values()),
            occupied=frozenset(self.occupied & set(watched)),
            runs={name: frozenset(ids) for name, ids in self.runs.items() if name in watched},
        )

    async def cordon(self, name: str, cordoned: bool) -> None:
        self._note("cordon" if cordoned else "uncordon", name)
        self.machines[name] = replace(self.machines[name], cordoned=cordoned)

    async def label(self, name: str, labels: Mapping[str, str]) -> None:
        self._note("label", name, dict(labels))
        found = self.machines[name]
        self.machines[name] = replace(found, labels={**found.labels, **labels})

    async def reserve(self, name: str, reserved: bool) -> None:
        self._note("reserve" if reserved else "unreserve", name)
        self.machines[name] = replace(self.machines[name], taints=(RESERVED,) if reserved else ())

    async def move_others(self, name: str, *, spare: Collection[str] = ()) -> None:
        self._note("move", name, set(spare))

    async def remove(self, name: str) -> None:
        self._note("remove", name)
        self.machines.pop(name, None)

    async def ticket(self, name: str, *, now: datetime, minutes: int) -> Ticket:
        self._note("ticket", name, minutes)
        return Ticket(command=f"join {name}", expires_at=now + timedelta(minutes=minutes))

    async def close(self) -> None:
        """Nothing."""
