"""Whose turn it is: first come, first served in each line.

A line is a pool and a GPU model: who waits for a card of one kind is not held up by who waits for another.
Within a line nobody younger overtakes, also where there would be room for a smaller cluster: otherwise a
large one would wait for ever. Lines are independent; the oldest head is tried first.

What the hub answers to a start is sorted here too (:func:`verdict`), so that nothing waits for ever for
what can never be, and nothing is given up because somebody was restarting.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from enum import Enum
from typing import Any, Protocol, TypeVar

from galilean.errors import UserError

Line = tuple[str, str]  #: pool, GPU model


class Waiting(Protocol):
    """A run that waits, such as :class:`spawner.records.Run`."""

    @property
    def id(self) -> str: ...
    @property
    def pool(self) -> str: ...
    @property
    def gpu_model(self) -> str: ...
    @property
    def queued_at(self) -> datetime: ...


W = TypeVar("W", bound=Waiting)


def line_of(run: Waiting) -> Line:
    """The line that a run stands in."""
    return (run.pool, run.gpu_model)


def next_to_start(waiting: Iterable[W], room: Callable[[W], bool]) -> list[W]:
    """The heads of lines for which there is (or may be) room, oldest first; at most one of each line.

    Parameters
    ----------
    waiting
        All who wait, in any order.
    room
        Whether a head may be tried now. Asked for heads only.
    """
    heads: dict[Line, W] = {}
    for run in sorted(waiting, key=lambda run: (run.queued_at, run.id)):
        heads.setdefault(line_of(run), run)
    return [head for head in heads.values() if room(head)]


class Verdict(Enum):
    """What an answer of the hub to a start means for the one who waits."""

    NO_ROOM = "no room"  # stay at the head of the line
    AWAY = "away"  # the hub is away or busy: nobody is tried until the next round
    BUSY = "busy"  # something is still going on under this name
    LATER = "later"  # something went wrong; not for ever
    NEVER = "never"  # it will not be: close the row and say why


def verdict(error: UserError) -> Verdict:
    """Sort what the hub answered to a start."""
    text = str(error)
    if error.status == 503 and error.reason == "queued":
        return Verdict.NO_ROOM
    if error.status in (401, 502, 503, 504, 507):
        return Verdict.AWAY
    if error.status == 429:
        return Verdict.NEVER if error.reason == "quota" else Verdict.AWAY
    if error.status == 403 and "scopes" in text:
        return Verdict.AWAY  # our own token may not: nobody's wait is to be ended for that
    if error.status == 404 and "No access to resources" in text:
        return Verdict.LATER  # the hub's word for a person who is no more, and for a token that may not
    if error.status == 409 or (error.status == 400 and ("is pending" in text or "already running" in text)):
        return Verdict.BUSY
    return Verdict.NEVER if error.status in (400, 403, 404) else Verdict.LATER


def options_of(request: Mapping[str, Any]) -> dict[str, Any]:
    """``user_options`` (design §10) of a request as its row keeps it: parsed, it is the same request."""
    options = dict(request)
    if "cpu_millicores" in options:
        options["cpu"] = options.pop("cpu_millicores") / 1000
    for kept, said in (("memory_bytes", "memory"), ("storage_bytes", "storage")):
        if kept in options:
            options[said] = options.pop(kept)
    return options
