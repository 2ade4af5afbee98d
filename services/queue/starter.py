"""Starting what waits: the head of each line is sent to the hub in its turn.

The queue holds nothing itself, who waits stands in the rows, so a restart loses nobody's place. It does not
know how much room there is either: the hub's admission does, in the transaction that takes up the waiting
row, and answers 503 ``queued`` when there still is none. So that this costs the hub little, a head that
was turned away is tried again only when something was given back since, or after half a minute. A start that
goes wrong is tried again with growing pauses, then its row is closed with the reason: nothing waits for ever.

A scheduler says only by trying whether all nodes find a place, and meanwhile those that did hold it, empty.
So who comes back from it is tried once more at once, for it may be that two took the places of one another;
after that when something was given back, or after pauses that grow.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge

from galilean.clock import Clock, utcnow
from galilean.db import Database
from galilean.errors import UserError
from galilean.hubapi import HubAPI
from services.queue.line import Line, Verdict, line_of, next_to_start, options_of, verdict
from services.queue.store import close_cancelled, give_up
from spawner import records
from spawner.records import Run
from spawner.states import Status

log = logging.getLogger("galilean.queue")

ANYWAY_SECONDS = 30.0
PLACING_SECONDS_MOST = 300.0
TRIES_MOST = {Verdict.LATER: 5, Verdict.BUSY: 20}


#: Who has, or is about to have, something that could be given back, and whether it has its place yet.
Holding = frozenset[tuple[str, bool]]


@dataclass
class _Tried:
    """The last try of a head that did not start.

    ``attempt`` is the placing that comes next: 1 = nobody looked for places yet.
    """

    at: float
    holding: Holding
    failures: int = 0
    attempt: int = 1


class HubAway(Exception):
    """The hub cannot be asked now; the next round tries again."""


class Starter:
    """The queue service's tick.

    Parameters
    ----------
    db, hub
        Our database; the hub with a token that may ``start:servers``.
    clock, monotonic, registry, details
        Handed in; ``details`` is shown by ``/health``.
    """

    def __init__(
        self,
        db: Database,
        hub: HubAPI,
        *,
        clock: Clock = utcnow,
        monotonic: Callable[[], float] = time.monotonic,
        registry: CollectorRegistry | None = None,
        details: dict[str, Any] | None = None,
    ) -> None:
        self.db, self.hub = db, hub
        self.clock, self.monotonic = clock, monotonic
        self.details = {} if details is None else details
        self._tried: dict[str, _Tried] = {}
        registry = registry or CollectorRegistry()
        self._waiting = Gauge("galilean_run_wait_count", "Runs that wait for room.", registry=registry)
        self._oldest = Gauge(
            "galilean_run_wait_seconds", "How long the one who waits longest has waited.", registry=registry
        )
        self._started = Counter(
            "galilean_run_start_total", "Waiting runs that were started.", registry=registry
        )
        self._given_up = Counter(
            "galilean_run_giveup_total", "Waits closed because they could come to nothing.", registry=registry
        )

    async def tick(self) -> None:
        """One round: close what was cancelled, then start the heads of lines until there is no room."""
        runs = await self.db.run_read(records.all_open)
        if any(run.status == Status.QUEUED and run.stop_asked_at for run in runs):
            for run in await self.db.run(close_cancelled, runs, self.clock()):
                log.info("run %s (%s/%s): the wait was cancelled", run.id, run.user, run.server)
        waiting = await self.db.run_read(records.waiting)
        self._tell(waiting)
        ids = {run.id for run in waiting}
        self._tried = {run_id: tried for run_id, tried in self._tried.items() if run_id in ids}
        holding = _holding(runs)
        for run in waiting:
            if run.attempt > 2 and self._tried.get(run.id, _FIRST).attempt < run.attempt:
                self._tried[run.id] = _Tried(self.monotonic(), holding, attempt=run.attempt)
        heads = next_to_start(waiting, lambda run: self._worth_a_try(run, holding))
        answers = await asyncio.gather(
            *(self._serve(line_of(head)) for head in heads), return_exceptions=True
        )
        self.details["hub"] = "answers"
        for answer in answers:
            if isinstance(answer, HubAway):
                self.details["hub"] = str(answer)
            elif isinstance(answer, BaseException):
                raise answer

    def _worth_a_try(self, run: Run, holding: Holding) -> bool:
        tried = self._tried.get(run.id)
        if tried is None:
            return True
        if not tried.failures and tried.holding - holding:
            return True  # something was given back since
        pause = min(ANYWAY_SECONDS * 2.0 ** max(tried.attempt - 3, 0), PLACING_SECONDS_MOST)
        if tried.failures:
            pause = min(2.0**tried.failures, ANYWAY_SECONDS)
        return self.monotonic() - tried.at >= pause

    async def _serve(self, line: Line) -> None:
        """Start one after the other of this line, until one stays where it is."""
        last = ""
        while True:
            pool, gpu_model = line
            in_line = await self.db.run_read(records.waiting, pool=pool, gpu_model=gpu_model)
            if not in_line or in_line[0].id == last:
                return
            last = in_line[0].id
            if not await self._start(in_line[0]):
                return

    async def _start(self, run: Run) -> bool:
        """Try one; whether the next in line may be tried in this round."""
        try:
            await self.hub.start(run.user, run.server, options_of(run.request))
        except UserError as error:
            return await self._not_started(run, error)
        log.info("run %s (%s/%s) starts after its wait", run.id, run.user, run.server)
        self._started.inc()
        self._tried.pop(run.id, None)
        return True

    async def _not_started(self, run: Run, error: UserError) -> bool:
        what = verdict(error)
        if what is Verdict.AWAY:
            raise HubAway(f"could not start what waits: {error.status} {error}"[:300])
        # Read again: those before it in this very round hold something too.
        holding = _holding(await self.db.run_read(records.all_open))
        tried = self._tried.setdefault(run.id, _Tried(self.monotonic(), holding, attempt=run.attempt))
        tried.at, tried.holding = self.monotonic(), holding
        if what is Verdict.NO_ROOM:
            tried.failures = 0
            return False
        tried.failures += 1
        log.warning("run %s (%s/%s) did not start: %s %s", run.id, run.user, run.server, error.status, error)
        if tried.failures < TRIES_MOST.get(what, 0):
            return False
        if await self.db.run(give_up, run.id, error, now=self.clock()):
            self._given_up.inc()
        return True

    def _tell(self, waiting: list[Run]) -> None:
        self._waiting.set(len(waiting))
        oldest = min((run.queued_at for run in waiting), default=None)
        self._oldest.set(0 if oldest is None else max((self.clock() - oldest).total_seconds(), 0))
        self.details["waiting"] = len(waiting)


def _holding(runs: Iterable[Run]) -> Holding:
    return frozenset((run.id, run.placed_at is None) for run in runs if run.status != Status.QUEUED)


_FIRST = _Tried(0.0, frozenset())
