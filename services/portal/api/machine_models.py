"""What goes into the API about machines and pools, and comes out of it."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from pydantic import Field

from services.portal.api.models import Incoming, Outgoing


class MachineAmounts(Outgoing):
    """Some of a machine or a pool."""

    cpu: float = Field(description="CPUs (hardware threads).")
    memory_bytes: int
    gpu: int


class MachineHolding(Outgoing):
    """A cluster with nodes on a machine; amounts of those nodes together."""

    cluster: str
    user: str
    project: str = Field(description="owner/slug, as it was when the cluster started.")
    nodes: int
    cpu: float
    memory_bytes: int
    gpu: int
    ready_at: datetime | None


class MachineOrder(Outgoing):
    """Something wanted of a machine, and how far it is."""

    id: str
    machine: str
    action: Literal["add", "cordon", "uncordon", "out", "compute", "keep"]
    asked_by: str
    asked_at: datetime
    due_at: datetime = Field(description="When it is carried out; of add: when its token ends.")
    remove: bool
    why: str
    withdrawn_at: datetime | None
    drained_at: datetime | None
    closed_at: datetime | None
    outcome: str = Field(description="done, withdrawn, expired, gone; empty while it is under way.")
    problem: str = Field(description="Why it does not get on; empty = it does.")


class Machine(Outgoing):
    """A machine as it was seen last, or one that is expected."""

    name: str
    state: Literal["ready", "silent", "closed", "leaving", "emptying", "reserved", "expected"]
    problem: str
    pools: list[str]
    control_plane: bool
    can_give: MachineAmounts = Field(description="What can be given to nodes.")
    held: MachineAmounts
    free: MachineAmounts
    cpu: float = Field(description="CPUs (hardware threads) that the machine has.")
    memory_bytes: int
    address: str
    version: str
    heartbeat_at: datetime | None
    seen_at: datetime | None
    holdings: list[MachineHolding]
    order: MachineOrder | None


class NewMachine(Incoming):
    name: str = Field(min_length=1, max_length=253, description="As the machine shall be called here.")
    pool: str = Field(default="default", max_length=40)


class MachineTicket(Outgoing):
    """How the machine joins. The command holds a secret; it is answered once."""

    name: str
    pool: str
    command: str
    expires_at: datetime
    order: str


class NewMachineOrder(Incoming):
    action: Literal["cordon", "uncordon", "out", "compute", "keep"]
    due_at: str | None = Field(
        default=None, description="Of out: when it is emptied, with its zone; left out = now."
    )
    remove: bool = Field(default=False, description="Of out: whether it is removed when it is empty.")
    why: str = Field(default="", max_length=300, description="Told to those who hold something there.")


class Pool(Outgoing):
    """A pool that one may use."""

    name: str
    title: str
    machines: int = Field(description="How many take new nodes now.")
    can_give: MachineAmounts
    free: MachineAmounts


class MachineCondition(Outgoing):
    """What a machine says of itself in one respect."""

    type: str
    status: str
    reason: str
    message: str
    since: datetime | None


class MachineDetails(Outgoing):
    """A machine as it describes itself."""

    system: str
    kernel: str
    architecture: str
    runtime: str = Field(description="Of containers.")
    kubelet: str
    addresses: list[str]
    pod_ranges: list[str] = Field(description="Addresses that its pods get.")
    disk_bytes: int | None = Field(description="That pods share.")
    pods_most: int | None = Field(description="So many pods it takes.")
    images: int = Field(description="That it names; most machines name fifty at most.")
    conditions: list[MachineCondition]


class MachinePod(Outgoing):
    """A pod of this installation."""

    namespace: str
    name: str
    what: Literal["node", "part", "agent", "image", "other"]
    user: str
    server: str
    run: str
    rank: int | None
    part: str
    phase: str
    reason: str
    ready: bool
    restarts: int
    cpu_millicores: int = Field(description="Asked for.")
    memory_bytes: int = Field(description="Asked for.")
    address: str
    made_at: datetime | None


class MachineNamespace(Outgoing):
    """A namespace of this installation."""

    name: str
    pods: int = Field(description="On this machine.")


class MachineOthers(Outgoing):
    """What runs there of other namespaces."""

    namespaces: int
    pods: int


class MachineContents(Outgoing):
    """What is on a machine now."""

    details: MachineDetails
    namespaces: list[MachineNamespace]
    others: MachineOthers | None = Field(description="null = its kubelet could not be asked.")
    pods: list[MachinePod] = Field(description="Those that were asked for.")
    fitting: int = Field(description="How many there are of these.")
