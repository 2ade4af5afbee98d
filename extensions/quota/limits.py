"""What one person may hold, made of roles and exceptions; what the person holds; what remains.

A *limit* is an upper bound of a measure, and all of them hold at once. Of several roles the most generous
bound of each measure holds (the strictest, where the centre's value ``quota.combine`` says so); a role that
says nothing about a narrower measure or a budget does not bound it, and one that says nothing about a plain
one has the product's own small and safe amount (TI-45).

An exception beats roles: it replaces their bound of the same measure, and where it is narrower, what it is
of no longer counts for their wider ones. So "one card of the model a100" is good for a student whose role
has no cards at all, and gives no other card.

Everything here is pure; who is in which role and what the tables say is looked up in
:mod:`extensions.quota.policy`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from extensions.quota.measures import RESOURCES, TOGETHER, Measure
from galilean.settings import Limits as SettingsLimits

__all__ = ["ABOVE_ALL", "Entry", "Granted", "Held", "Kind", "Limits", "Remaining", "combine", "remaining"]

#: Stands for "no limit" where a number is needed.
ABOVE_ALL = 2**60
Amounts = Mapping[Measure, int | None]


@dataclass(frozen=True, kw_only=True)
class Granted:
    """An exception: what one person may hold whatever the roles say. A row of ``quota_exceptions``.

    ``user`` is who has it, ``expires_at`` ``None`` = until it is ended.
    """

    id: str
    user: str
    measure: Measure
    amount: int | None
    reason: str = ""
    given_by: str = ""
    given_at: datetime | None = None
    expires_at: datetime | None = None
    ended_at: datetime | None = None
    ended_by: str = ""

    def holds_at(self, now: datetime) -> bool:
        """Whether it counts at this moment."""
        return self.ended_at is None and (self.expires_at is None or self.expires_at > now)


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One bound and where it comes from: a role's name, or an exception."""

    measure: Measure
    amount: int | None
    role: str = ""
    exception: Granted | None = None


@dataclass(frozen=True)
class Kind:
    """What is held in one pool with cards of one model; sums over all nodes."""

    pool: str = "default"
    gpu_model: str = ""
    clusters: int = 0
    cpu_millicores: int = 0
    memory_bytes: int = 0
    gpu: int = 0
    storage_bytes: int = 0


@dataclass(frozen=True, kw_only=True)
class Held:
    """What is held at this moment: everything that waits, starts, runs or is being removed.

    ``kinds`` are the parts by pool and GPU model, where they are known.
    """

    clusters: int = 0
    cpu_millicores: int = 0
    memory_bytes: int = 0
    gpu: int = 0
    storage_bytes: int = 0
    kinds: tuple[Kind, ...] = ()

    @classmethod
    def of(cls, kinds: Iterable[Kind]) -> Held:
        """The sum of kinds."""
        parts = tuple(kinds)
        return cls(
            clusters=sum(part.clusters for part in parts),
            cpu_millicores=sum(part.cpu_millicores for part in parts),
            memory_bytes=sum(part.memory_bytes for part in parts),
            gpu=sum(part.gpu for part in parts),
            storage_bytes=sum(part.storage_bytes for part in parts),
            kinds=parts,
        )

    def counts(self, measure: Measure, apart: Iterable[Measure] = ()) -> int:
        """How much of it counts for a measure at a moment; ``apart`` is what counts elsewhere."""
        name = HELD_AS[measure.resource]
        others = tuple(apart)
        if not measure.narrowed and not others:
            return int(getattr(self, name))
        return sum(
            int(getattr(kind, name))
            for kind in self.kinds
            if measure.holds_for(kind.pool, kind.gpu_model)
            and not any(other.holds_for(kind.pool, kind.gpu_model) for other in others)
        )


#: Which field of :class:`Held` counts for a resource.
HELD_AS = {
    "clusters": "clusters",
    "total_cpu": "cpu_millicores",
    "total_memory": "memory_bytes",
    "total_gpu": "gpu",
    "total_storage": "storage_bytes",
    "role_clusters": "clusters",
    "role_cpu": "cpu_millicores",
    "role_memory": "memory_bytes",
    "role_gpu": "gpu",
}


class Limits(Mapping[Measure, "int | None"]):
    """The bounds of one person.

    Parameters
    ----------
    entries
        One for each measure that something is said about.
    each
        For each role, in their order, what the person could hold with it alone (exceptions included).
    """

    def __init__(self, entries: Iterable[Entry], each: Sequence[tuple[str, Limits]] = ()) -> None:
        self.entries: dict[Measure, Entry] = {entry.measure: entry for entry in sorted(entries, key=_measure)}
        self.each: tuple[tuple[str, Limits], ...] = tuple(each)
        #: Those that an exception set.
        self.own: tuple[Measure, ...] = tuple(m for m, entry in self.entries.items() if entry.exception)

    @classmethod
    def from_settings(cls, settings: SettingsLimits, role: str = "") -> Limits:
        """The limits that ``galilean.yaml`` gives a role; for what is not said there the defaults hold."""
        return combine([(role, amounts_of(settings))])

    def __getitem__(self, measure: Measure) -> int | None:
        return self.entries[measure].amount

    def __iter__(self) -> Iterator[Measure]:
        return iter(self.entries)

    def __len__(self) -> int:
        return len(self.entries)

    def __repr__(self) -> str:
        return "Limits(" + ", ".join(f"{measure}={amount}" for measure, amount in self.items()) + ")"

    def amount(self, measure: Measure | str) -> int | None:
        """The bound of exactly this measure; ``None`` = no limit."""
        entry = self.entries.get(Measure(measure) if isinstance(measure, str) else measure)
        return entry.amount if entry else None

    def most(self, resource: str) -> int:
        """The bound of a resource in general as a number, :data:`ABOVE_ALL` for no limit."""
        amount = self.amount(resource)
        return ABOVE_ALL if amount is None else amount

    def of(self, resource: str) -> list[Entry]:
        """All bounds of a resource, the general one first."""
        return [entry for measure, entry in self.entries.items() if measure.resource == resource]

    def apart(self, measure: Measure) -> tuple[Measure, ...]:
        """The narrower exceptions whose part does not count for the bound of this measure."""
        return tuple(own for own in self.own if own != measure and measure.contains(own))

    def at_most(self, resource: str, pool: str = "", gpu_model: str = "") -> int | None:
        """The bound of one request for a resource of one node: the least of all that hold for it."""
        amounts = [
            entry.amount
            for entry in self.of(resource)
            if entry.amount is not None
            and entry.measure.holds_for(pool, gpu_model)
            and not any(own.holds_for(pool, gpu_model) for own in self.apart(entry.measure))
        ]
        return min(amounts, default=None)

    @property
    def budgets(self) -> list[Measure]:
        """The measures over time that are bounded."""
        return [m for m, amount in self.items() if RESOURCES[m.resource].budget and amount is not None]

    def with_amounts(self, **amounts: int | None) -> Limits:
        """The same with other amounts of resources in general."""
        changed = {
            Measure(name): Entry(measure=Measure(name), amount=value) for name, value in amounts.items()
        }
        return Limits({**self.entries, **changed}.values())

    # Resources in general by name, as numbers.
    @property
    def clusters(self) -> int:
        return self.most("clusters")

    @property
    def nodes(self) -> int:
        return self.most("nodes")

    @property
    def cpu(self) -> int:
        return self.most("cpu")

    @property
    def memory(self) -> int:
        return self.most("memory")

    @property
    def gpu(self) -> int:
        return self.most("gpu")

    @property
    def storage(self) -> int:
        return self.most("storage")

    @property
    def total_cpu(self) -> int:
        return self.most("total_cpu")

    @property
    def total_memory(self) -> int:
        return self.most("total_memory")

    @property
    def total_gpu(self) -> int:
        return self.most("total_gpu")

    @property
    def total_storage(self) -> int:
        return self.most("total_storage")

    @property
    def upload(self) -> int:
        return self.most("upload")

    @property
    def manual_release(self) -> bool:
        return self.most("manual_release") > 0


def amounts_of(settings: SettingsLimits) -> dict[Measure, int | None]:
    """What a section ``limits`` of ``galilean.yaml`` says, by measure."""
    return {Measure(name): int(getattr(settings, name)) for name in SettingsLimits.model_fields}


def combine(
    roles: Sequence[tuple[str, Amounts]], exceptions: Iterable[Granted] = (), *, strictest: bool = False
) -> Limits:
    """The limits of somebody with these roles (at least one) and exceptions.

    Parameters
    ----------
    roles
        Name and amounts of each, in their order.
    exceptions
        Those that hold now.
    strictest
        Of several roles the least amount holds, not the largest.
    """
    given = tuple(exceptions)
    each = [(name, combine([(name, amounts)], given)) for name, amounts in roles] if len(roles) > 1 else []
    said = {Measure(name) for name, resource in RESOURCES.items() if resource.default is not None}
    said.update(m for _, amounts in roles for m in amounts if m.resource not in TOGETHER)
    entries: dict[Measure, Entry] = {}
    for measure in said:
        bounds = [(name, _bound(amounts, measure)) for name, amounts in roles]
        pick = min if strictest else max
        name, amount = pick(bounds, key=lambda bound: ABOVE_ALL if bound[1] is None else bound[1])
        entries[measure] = Entry(measure=measure, amount=amount, role=name)
    for exception in given:
        entries[exception.measure] = Entry(
            measure=exception.measure, amount=exception.amount, exception=exception
        )
    return Limits(entries.values(), each)


def _bound(amounts: Amounts, measure: Measure) -> int | None:
    if measure in amounts:
        return amounts[measure]
    return None if measure.narrowed or measure.period else RESOURCES[measure.resource].default


def _measure(entry: Entry) -> Measure:
    return entry.measure


@dataclass(frozen=True, kw_only=True)
class Remaining:
    """What may still be asked for, never below zero; per node where it says so.

    Attributes
    ----------
    clusters
        Further clusters.
    nodes
        Nodes of one cluster.
    cpu_millicores, memory_bytes, gpu
        Over all nodes of a further cluster together.
    node_cpu_millicores, node_memory_bytes, node_gpu, node_storage_bytes
        Largest amounts of one node.
    """

    clusters: int
    nodes: int
    cpu_millicores: int
    memory_bytes: int
    gpu: int
    node_cpu_millicores: int
    node_memory_bytes: int
    node_gpu: int
    node_storage_bytes: int


def remaining(limits: Limits, holds: Held) -> Remaining:
    """What may still be had by the limits in general; :data:`ABOVE_ALL` less what is held for no limit."""
    cpu = max(0, limits.total_cpu - holds.cpu_millicores)
    memory = max(0, limits.total_memory - holds.memory_bytes)
    gpu = max(0, limits.total_gpu - holds.gpu)
    return Remaining(
        clusters=max(0, limits.clusters - holds.clusters),
        nodes=limits.nodes,
        cpu_millicores=cpu,
        memory_bytes=memory,
        gpu=gpu,
        node_cpu_millicores=min(limits.cpu, cpu),
        node_memory_bytes=min(limits.memory, memory),
        node_gpu=min(limits.gpu, gpu),
        node_storage_bytes=limits.storage,
    )
