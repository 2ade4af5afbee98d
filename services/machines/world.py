"""What this room needs of a backend: to look at its machines, and to change them where that is possible."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from galilean.errors import UserError, mark
from services.machines.rules import Machine


@dataclass(frozen=True, kw_only=True)
class View:
    """One look.

    Attributes
    ----------
    machines
        All of them.
    occupied
        Names of machines that carry something of ours which has to go before they can: nodes of runs, and
        parts of the platform that can be elsewhere.
    runs
        Ids of the runs whose nodes are seen there, by the machine's name; also of those that are only
        starting, of which no row says yet where they are.
    """

    machines: tuple[Machine, ...]
    occupied: frozenset[str] = field(default_factory=frozenset)
    runs: Mapping[str, frozenset[str]] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Ticket:
    """How a machine joins: one command, good until a moment.

    Attributes
    ----------
    command
        To be run on the machine as root. Holds a secret: shown once, kept nowhere, never logged.
    expires_at
        UTC.
    """

    command: str = field(repr=False)
    expires_at: datetime


class World(Protocol):
    """The machines of a backend. Every change is idempotent."""

    async def look(self, watched: Collection[str] = ()) -> View:
        """All machines, or an exception; never a part of them. Only for ``watched`` it is told whether
        anything of ours is on them.
        """
        ...

    async def cordon(self, name: str, cordoned: bool) -> None:
        """Have a machine take no new nodes, or take them again."""
        ...

    async def label(self, name: str, labels: Mapping[str, str]) -> None:
        """Give a machine labels."""
        ...

    async def reserve(self, name: str, reserved: bool) -> None:
        """Keep a machine for the control plane alone, or let it compute too."""
        ...

    async def move_others(self, name: str, *, spare: Collection[str] = ()) -> None:
        """Ask the platform's own parts to go elsewhere, and what carries the label of a run that is not in
        ``spare``: those are released by their rows, as wholes.
        """
        ...

    async def remove(self, name: str) -> None:
        """Take a machine out of the backend; gone already is success."""
        ...

    async def ticket(self, name: str, *, now: datetime, minutes: int) -> Ticket:
        """Make a machine's ticket.

        Raises
        ------
        UserError
            When machines cannot be added here.
        """
        ...

    async def close(self) -> None:
        """Let go of the connections."""
        ...


def cannot() -> UserError:
    """The refusal where a backend has machines that nobody can change."""
    return UserError(400, mark("On this backend machines are neither added nor taken out from here."))
