"""How a run ended, in words; and what to say when it did not start (TI-27).

A failure is told in the order in which people ask: what is the cause, what led to it in numbers, what was
*not* lost or counted, what to press. A run's row carries the reason (a machine word) and, where the lifecycle
knew more, a sentence (``explanation``); the sentence wins. A reason that nobody gave words yet is shown
as a plain "ended", never as a code.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from galilean.errors import mark
from services.portal.said import Said, say
from spawner.records import Run

#: Reason of a run → how its end is told in a table, short.
ENDS: Mapping[str, str] = {
    "": mark("Released"),
    "user": mark("Released by you"),
    "asked": mark("Released on request"),
    "cancelled": mark("Cancelled before it was ready"),
    "admin": mark("Released by an administrator"),
    "left": mark("Went back after you left"),
    "auto": mark("Went back after you left"),
    "policy": mark("Went back as you had chosen"),
    "signed_out": mark("Went back when you signed out"),
    "done": mark("Went back when nothing ran any more"),
    "idle": mark("Went back because it was hardly used"),
    "schedule": mark("Went back as its schedule says"),
    "most": mark("Went back after the longest time it may be held"),
    "budget": mark("Went back because the budget was used up"),
    "node_lost": mark("Ended because a node was lost"),
    "head_lost": mark("Ended because node-0 was lost"),
    "hub_lost": mark("Ended by a restart of the platform"),
    "orphan": mark("Ended by a restart of the platform"),
    "start_failed": mark("Did not start"),
    "not_placed": mark("Did not start: no room in time"),
    "shutdown": mark("Released when the platform was stopped"),
    "machine_out": mark("Released because its machine was taken out"),
    "disappeared": mark("Ended by itself; counted until it was last seen"),
    "project_deleted": mark("Released with the project"),
    "withdrawn": mark("Released because something it used is no longer shared with you"),
    "person_deleted": mark("Released with the account"),
}

#: Reason → title of a failed start, where the lifecycle gave no sentence.
CAUSES: Mapping[str, str] = {
    "not_placed": mark("There was no room for all nodes in time"),
    "hub_lost": mark("The platform was restarted while the cluster started"),
    "orphan": mark("The platform was restarted while the cluster started"),
    "node_lost": mark("A node was lost while the cluster started"),
    "disappeared": mark("A node was lost while the cluster started"),
    "shutdown": mark("The platform was stopped while the cluster started"),
    "machine_out": mark("The machine was taken out while the cluster started"),
    "person_deleted": mark("The account was deleted while the cluster started"),
    "cancelled": mark("The start was cancelled"),
    "user": mark("The start was cancelled"),
    "admin": mark("An administrator ended the start"),
}


@dataclass(frozen=True, kw_only=True)
class Failure:
    """What the drawer says about a start that came to nothing."""

    cause: Said
    chain: Said | None
    cancelled: bool


def explanation_of(run: Run) -> Said | None:
    """The sentence that the lifecycle left in the row, if any."""
    stored: Mapping[str, Any] | None = run.explanation
    if not stored or not stored.get("message"):
        return None
    return Said(str(stored["message"]), dict(stored.get("params") or {}))


def how_it_ended(run: Run) -> Said | None:
    """The end of a closed run in a few words; ``None`` while it is open."""
    if run.released_at is None:
        return None
    cancelled = run.ready_at is None and run.status != "failed"
    if run.reason in ("user", "asked", "") and cancelled:
        return say(ENDS["cancelled"])
    if run.reason == "user" and run.stop_asked_by and run.stop_asked_by != run.user:
        return say(mark("Released by {person}"), person=run.stop_asked_by)
    if run.reason not in ENDS:
        return say(mark("Did not start")) if run.status == "failed" else say(mark("Ended"))
    return say(ENDS[run.reason])


def failure_of(run: Run) -> Failure:
    """Title and chain of a start that did not come up."""
    told = explanation_of(run)
    cancelled = run.status != "failed" and run.reason in ("user", "asked", "cancelled", "")
    if cancelled:
        return Failure(cause=say(CAUSES["cancelled"]), chain=None, cancelled=True)
    whole = None
    if run.nodes > 1:
        whole = say(
            mark("A cluster starts as a whole, so the other nodes went back too ({total} in all)."),
            total=run.nodes,
        )
    if told is not None:
        rank = told.params.get("rank")
        if isinstance(rank, int):
            cause = say(mark("node-{rank} did not come up"), rank=rank)
            chain = say(mark("{first} {second}"), first=told, second=whole) if whole else told
            return Failure(cause=cause, chain=chain, cancelled=False)
        return Failure(cause=told, chain=whole, cancelled=False)
    cause = say(CAUSES.get(run.reason, mark("The cluster did not come up")))
    return Failure(cause=cause, chain=whole, cancelled=False)
