"""What really exists, told from outside the hub (design §4).

Each backend has a class beside its spawner that lists the nodes it finds in the world: processes,
containers, pods. Metering reconciles with it, the sweeper compares with it, tests assert on it. It is
**complete or an error, never a part**: whoever cannot look raises, because an absence is believed after
it was seen twice, and a half answer would be believed too.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol


@dataclass(frozen=True, kw_only=True)
class Sighting:
    """One node as the backend sees it.

    Attributes
    ----------
    user, server, run, rank
        Whose node it says it is, by the labels that only the spawner sets; ``run`` is the run's id.
    state
        ``"alive"``, or ``"ended"`` for something that exists still but runs no more (a process's directory
        without a process, an exited container), or ``"going"`` for what ended and is being put away already.
    started_at, finished_at
        By the backend's own word, UTC; ``None`` when it does not know.
    handle
        What the backend needs to remove it: a directory, a container's id, a pod's name.
    """

    user: str
    server: str
    run: str
    rank: int
    state: str = "alive"
    started_at: datetime | None = None
    finished_at: datetime | None = None
    handle: Any = None

    @property
    def alive(self) -> bool:
        return self.state == "alive"


class Inventory(Protocol):
    async def inventory(self) -> list[Sighting]:
        """Everything that exists, or an exception; never a part of it."""
        ...

    async def remove(self, sighting: Sighting) -> None:
        """Remove what was sighted and come back when it is gone; gone already is success."""
        ...
