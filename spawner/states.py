"""What state a run is in: a pair (status, target), and the one table that turns it into a public word.

``status`` is written by the lifecycle only, ``target`` says where the run is going. ``stop()`` sets
``target=released`` first, so that whoever finds the row later (a hub that came back, the release service)
knows that it is to be finished off, whatever the status says.
"""

from __future__ import annotations

from enum import StrEnum


class Status(StrEnum):
    QUEUED = "queued"  # admitted, waits for room; nothing of it exists
    RESERVED = (
        "reserved"  # admitted: counts against every limit; left in the transaction that begins the start
    )
    STARTING = "starting"  # nodes are being made
    RUNNING = "running"  # all nodes answered
    STOPPING = "stopping"  # nodes are being removed
    RELEASED = "released"  # closed after it ran, or was cancelled
    FAILED = "failed"  # closed without ever having run


class Target(StrEnum):
    RUNNING = "running"
    RELEASED = "released"


OPEN = frozenset({Status.QUEUED, Status.RESERVED, Status.STARTING, Status.RUNNING, Status.STOPPING})
CLOSED = frozenset({Status.RELEASED, Status.FAILED})

#: (from, to) steps that the lifecycle may take; everything else is a programming error.
STEPS: frozenset[tuple[Status, Status]] = frozenset(
    {
        (Status.QUEUED, Status.RESERVED),
        (Status.QUEUED, Status.RELEASED),
        (Status.RESERVED, Status.QUEUED),
        (Status.RESERVED, Status.STARTING),
        (Status.RESERVED, Status.STOPPING),
        (Status.RESERVED, Status.FAILED),
        (Status.STARTING, Status.QUEUED),
        (Status.STARTING, Status.RUNNING),
        (Status.STARTING, Status.STOPPING),
        (Status.RUNNING, Status.STOPPING),
        (Status.STOPPING, Status.RELEASED),
        (Status.STOPPING, Status.FAILED),
        (Status.STOPPING, Status.QUEUED),
    }
)

_WORDS: dict[tuple[Status, Target], str] = {
    (Status.QUEUED, Target.RUNNING): "waiting",
    (Status.QUEUED, Target.RELEASED): "releasing",
    (Status.RESERVED, Target.RUNNING): "starting",
    (Status.RESERVED, Target.RELEASED): "releasing",
    (Status.STARTING, Target.RUNNING): "starting",
    (Status.STARTING, Target.RELEASED): "releasing",
    (Status.RUNNING, Target.RUNNING): "running",
    (Status.RUNNING, Target.RELEASED): "releasing",
    (Status.STOPPING, Target.RUNNING): "releasing",
    (Status.STOPPING, Target.RELEASED): "releasing",
    (Status.RELEASED, Target.RUNNING): "released",
    (Status.RELEASED, Target.RELEASED): "released",
    (Status.FAILED, Target.RUNNING): "failed",
    (Status.FAILED, Target.RELEASED): "failed",
}


def public_word(status: Status | str, target: Target | str) -> str:
    """The word that pages, API and commands show: waiting, starting, running, releasing, released, failed."""
    return _WORDS[(Status(status), Target(target))]


def may_step(before: Status | str, after: Status | str) -> bool:
    """Whether the lifecycle may go from one status to the other."""
    return (Status(before), Status(after)) in STEPS
