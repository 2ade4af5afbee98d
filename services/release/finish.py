"""Carrying out the end of clusters whose row stays open: ask the hub until it is closed.

A cluster ends in the hub: ``stop()`` there removes the nodes and closes the row. That does not happen when
the hub was down as somebody pressed Release, was killed in the middle of a stop, or when all nodes died
while it was away. So every open row that should end (:func:`why_finish`) gets a DELETE, and another with
growing pauses, until it is closed. Nothing is sent for a row that closed meanwhile: the same server name
may carry the person's next run already.

The hub looks for open rows that it knows nothing of itself (:mod:`spawner.leftovers`). Where it still says
again and again that it has no such server although the row is open (the person is no more in its database),
nobody there will ever call ``stop()``. Then, and only then, what the backend still has of the run is removed
and the row is closed from here.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import Connection

from galilean.clock import Clock
from galilean.db import Database
from galilean.errors import UserError
from galilean.hubapi import HubAPI
from spawner import records, steps
from spawner.inventory import Inventory
from spawner.records import NodeInterval, Run
from spawner.states import Status, Target

log = logging.getLogger("galilean.release")

ACTOR = "service:release"
PATIENCE_SECONDS = 5.0  # whoever asked for the end sends the hub a DELETE of their own
LOST_SECONDS = 15.0  # the hub's own poll sees dead nodes first
PAUSE_MOST_SECONDS = 60.0
UNKNOWN_MOST = 4


@dataclass(frozen=True, kw_only=True)
class Finish:
    """A run that is to be ended.

    Attributes
    ----------
    run
        Its row.
    reason
        To be written into the row where nobody has asked for the end; empty = it has its reason.
    patience_seconds
        How long to leave it to others after it was first seen so.
    """

    run: Run
    reason: str = ""
    patience_seconds: float = 0.0


def why_finish(
    run: Run, lives: Sequence[NodeInterval], now: datetime, *, start_limit_seconds: float
) -> Finish | None:
    """Whether an open row should be brought to its end, and why.

    Parameters
    ----------
    run
        An open row. A waiting one is never ended here: nothing of it exists in the hub.
    lives
        Its node intervals.
    now
        UTC.
    start_limit_seconds
        A start that takes longer than this is not coming to an end by itself.
    """
    if run.status == Status.QUEUED or not run.is_open:
        return None
    if run.stop_asked_at is not None:
        # Counted from the asking: what waited while the hub was away need not wait again when it is back.
        left = PATIENCE_SECONDS - (now - run.stop_asked_at).total_seconds()
        patience = min(max(left, 0.0), PATIENCE_SECONDS)
        return Finish(run=run, patience_seconds=0.0 if run.stop_asked_by == ACTOR else patience)
    if run.target == Target.RELEASED or run.status == Status.STOPPING:
        return Finish(run=run, patience_seconds=LOST_SECONDS)
    if run.status == Status.RUNNING:
        if lives and all(life.gone_at is not None for life in lives):
            return Finish(run=run, reason="node_lost", patience_seconds=LOST_SECONDS)
        return None
    began = run.reserved_at or run.queued_at
    if now - began > timedelta(seconds=start_limit_seconds):
        return Finish(run=run, reason="start_failed")
    return None


def pause_after(tries: int) -> float:
    """Seconds until the next try: 5, 10, 20 … 60."""
    return min(5.0 * 2.0 ** min(tries - 1, 10), PAUSE_MOST_SECONDS)


@dataclass
class _Try:
    seen_since: float
    tries: int = 0
    unknown: int = 0
    next_at: float = 0.0


class Finisher:
    """Sends the DELETEs; keeps in memory how often each was tried.

    Parameters
    ----------
    db, hub, inventory
        Our database, the hub with a token that may ``delete:servers``, the backend.
    clock, monotonic
        Handed in.
    at_once
        DELETEs under way at one time.
    """

    def __init__(
        self,
        db: Database,
        hub: HubAPI,
        inventory: Inventory,
        *,
        clock: Clock,
        monotonic: Callable[[], float],
        at_once: int = 8,
    ) -> None:
        self.db, self.hub, self.inventory = db, hub, inventory
        self.clock, self.monotonic = clock, monotonic
        self._tries: dict[str, _Try] = {}
        self._slots = asyncio.Semaphore(at_once)

    async def finish(self, wanted: Collection[Finish]) -> None:
        """One round over everything that should end; a run that goes wrong does not stop the others."""
        ids = {finish.run.id for finish in wanted}
        self._tries = {run_id: tried for run_id, tried in self._tries.items() if run_id in ids}
        due = [finish for finish in wanted if self._is_due(finish)]
        await asyncio.gather(*(self._one(finish) for finish in due))

    def waiting(self) -> Mapping[str, int]:
        """Tries so far by run id, of what is not ended yet."""
        return {run_id: tried.tries for run_id, tried in self._tries.items()}

    def _is_due(self, finish: Finish) -> bool:
        now = self.monotonic()
        tried = self._tries.setdefault(finish.run.id, _Try(seen_since=now))
        return now >= max(tried.next_at, tried.seen_since + finish.patience_seconds)

    async def _one(self, finish: Finish) -> None:
        run, tried = finish.run, self._tries[finish.run.id]
        async with self._slots:
            try:
                if await self._still_open(finish):
                    await self._send(finish, tried)
            except Exception as error:
                log.warning(
                    "run %s (%s/%s): the end did not go through: %s", run.id, run.user, run.server, error
                )
            finally:
                tried.tries += 1
                tried.next_at = self.monotonic() + pause_after(tried.tries)

    async def _still_open(self, finish: Finish) -> bool:
        return await self.db.run(_ask, finish.run.id, finish.reason, self.clock())

    async def _send(self, finish: Finish, tried: _Try) -> None:
        run = finish.run
        try:
            status = await self.hub.stop(run.user, run.server)
        except UserError as error:
            if error.status != 404:
                tried.unknown = 0
                raise
            status = 404
        log.info("run %s (%s/%s): DELETE answered %d", run.id, run.user, run.server, status)
        if status == 202:
            tried.unknown = 0
            return
        tried.unknown += 1
        if tried.unknown >= UNKNOWN_MOST and await self._still_open(finish):
            await self._close_orphan(run)

    async def _close_orphan(self, run: Run) -> None:
        """The hub has nothing of this run: remove what the backend has of it and close the row."""
        log.warning(
            "run %s (%s/%s): the hub does not know it; closing it from here", run.id, run.user, run.server
        )
        left = [sighting for sighting in await self.inventory.inventory() if sighting.run == run.id]
        for sighting in left:
            await self.inventory.remove(sighting)
        lived = {sighting.rank for sighting in left if sighting.alive}
        await self.db.run(_close, run, lived, self.clock())


def _ask(conn: Connection, run_id: str, reason: str, now: datetime) -> bool:
    """Whether the run is open still; with a reason of ours if nobody gave one before."""
    run = records.get(conn, run_id)
    if run is None or not run.is_open or run.status == Status.QUEUED:
        return False
    if reason and run.stop_asked_at is None:
        records.ask_stop(conn, run_id, reason=reason, asked_by=ACTOR, now=now)
    return True


def _close(conn: Connection, run: Run, lived: Collection[int], now: datetime) -> bool:
    """Close the row; nodes that lived until they were removed end now, others where they were last seen."""
    present = records.open_run(conn, run.user, run.server)
    if present is None or present.id != run.id:
        return False
    stopping = steps.begin_stop(conn, run.user, run.server, reason="hub_lost", run_id=run.id)
    ends = {
        life.rank: steps.NodeEnd(at=now, exit_reason="released")
        if life.rank in lived
        else steps.NodeEnd(exit_reason="disappeared")
        for life in records.intervals(conn, [run.id])[run.id]
        if life.gone_at is None
    }
    return stopping is not None and steps.close(conn, stopping, ends=ends, now=now)
