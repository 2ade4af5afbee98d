"""One round of the release service: decide, ask, carry out, tidy up.

The hub is asked first whether it is there. While it is not, nothing is decided and nothing sent, and what
is due waits in its rows; when it is back everything goes on from the rows alone.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge
from sqlalchemy import Connection

from galilean.clock import Clock, utcnow
from galilean.db import Database
from galilean.errors import UserError
from galilean.hubapi import HubAPI
from galilean.settings import Settings
from services.release.decide import Release, both_saw, decide, policy_named
from services.release.entries import EntryCleaner
from services.release.finish import ACTOR, Finish, Finisher, why_finish
from services.release.watch import Watch
from spawner import records
from spawner.inventory import Inventory
from spawner.records import NodeInterval, Run
from spawner.states import Status

log = logging.getLogger("galilean.release")

ENTRIES_EVERY_SECONDS = 60.0
Witness = Callable[[], Awaitable[bool]]


@dataclass(frozen=True)
class Due:
    """A run that its policy gives back now."""

    run: Run
    reason: str


def due_for_release(runs: Iterable[Run], now: datetime, *, grace_seconds: int) -> list[Due]:
    """Which running clusters go back by their policy.

    A person is on the platform while seen on any of their clusters.
    """
    runs = [run for run in runs if run.is_open]
    person_last_seen: dict[str, datetime] = {}
    for run in runs:
        seen = both_saw(run.proxy_seen_at, run.node_seen_at)
        if seen is not None:
            person_last_seen[run.user] = max(seen, person_last_seen.get(run.user, seen))
    due: list[Due] = []
    for run in runs:
        if run.status != Status.RUNNING or run.ready_at is None or run.stop_asked_at is not None:
            continue
        try:
            policy = policy_named(run.release_policy, grace_seconds=grace_seconds)
        except ValueError as error:
            log.error("run %s is kept: %s", run.id, error)
            continue
        decision = decide(
            policy,
            now,
            held_since=run.ready_at,
            last_seen=both_saw(run.proxy_seen_at, run.node_seen_at),
            person_last_seen=person_last_seen.get(run.user),
            extended_until=run.extended_until,
        )
        if isinstance(decision, Release):
            due.append(Due(run, decision.reason))
    return due


class Releaser:
    """The release service's tick.

    Parameters
    ----------
    settings, db, hub, inventory
        The site, our database, the hub (scopes ``list:users``, ``read:users:name``, ``read:servers``,
        ``delete:servers``), the backend.
    witnesses
        Besides the hub itself: who else must answer before presence is believed, such as the portal.
    clock, monotonic, registry, details
        Handed in; ``details`` is shown by ``/health``.
    """

    def __init__(
        self,
        settings: Settings,
        db: Database,
        hub: HubAPI,
        inventory: Inventory,
        *,
        witnesses: Sequence[Witness] = (),
        clock: Clock = utcnow,
        monotonic: Callable[[], float] = time.monotonic,
        registry: CollectorRegistry | None = None,
        details: dict[str, Any] | None = None,
    ) -> None:
        self.settings, self.db, self.hub = settings, db, hub
        self.witnesses, self.clock, self.monotonic = witnesses, clock, monotonic
        self.details = {} if details is None else details
        self.watch = Watch()
        self.finisher = Finisher(db, hub, inventory, clock=clock, monotonic=monotonic)
        self.entries = EntryCleaner(db, hub)
        self._entries_at = monotonic() + ENTRIES_EVERY_SECONDS / 2
        # Placing and starting have their limits in the hub; a minute more and nobody is at it any longer.
        self._start_limit_seconds = settings.gang_timeout_seconds + settings.start_timeout_seconds + 60
        registry = registry or CollectorRegistry()
        self._released = Counter(
            "galilean_cluster_release_total",
            "Clusters given back by their policy.",
            ["reason"],
            registry=registry,
        )
        self._unfinished = Gauge(
            "galilean_cluster_finish_count", "Runs that should end and have not yet.", registry=registry
        )

    async def tick(self) -> None:
        """One round."""
        hub_there = await self._hub_answers()
        self.details["hub"] = "answers" if hub_there else "does not answer; what is due waits"
        there = hub_there and all([await witness() for witness in self.witnesses])
        believed = self.watch.look(there=there, now=self.clock(), monotonic=self.monotonic())
        self.details["presence"] = "believed" if believed else "not believed yet: a witness was away"
        if not hub_there:
            return
        now = self.clock()
        runs, lives = await self.db.run_read(_open_rows)
        if believed:
            due = due_for_release(runs, now, grace_seconds=self.settings.release.grace_seconds)
            runs = await self._ask(due, runs, now)
        wanted = self._wanted(runs, lives, now)
        self._unfinished.set(len(wanted))
        await self.finisher.finish(wanted)
        self.details["unfinished"] = dict(self.finisher.waiting())
        if self.monotonic() >= self._entries_at:
            self._entries_at = self.monotonic() + ENTRIES_EVERY_SECONDS
            await self.entries.clean()

    async def _hub_answers(self) -> bool:
        try:
            await self.hub.request("GET", "/")
        except UserError as error:
            return error.status not in (502, 503, 504)
        return True

    async def _ask(self, due: Sequence[Due], runs: list[Run], now: datetime) -> list[Run]:
        """Write the end into the rows; the rows as they are then."""
        if not due:
            return runs
        for run, reason in await self.db.run(_ask_all, due, self.settings.release.grace_seconds, now):
            log.info("run %s (%s/%s) goes back: %s", run.id, run.user, run.server, reason)
            self._released.labels(reason).inc()
        return (await self.db.run_read(_open_rows))[0]

    def _wanted(
        self, runs: Iterable[Run], lives: Mapping[str, Sequence[NodeInterval]], now: datetime
    ) -> list[Finish]:
        found = (
            why_finish(run, lives.get(run.id, ()), now, start_limit_seconds=self._start_limit_seconds)
            for run in runs
        )
        return [finish for finish in found if finish is not None]


def _open_rows(conn: Connection) -> tuple[list[Run], dict[str, list[NodeInterval]]]:
    runs = records.all_open(conn)
    running = [run.id for run in runs if run.status == Status.RUNNING]
    return runs, records.intervals(conn, running)


def _ask_all(
    conn: Connection, due: Sequence[Due], grace_seconds: int, now: datetime
) -> list[tuple[Run, str]]:
    """In one transaction, and decided once more on the rows as they are: somebody may have come back."""
    asked: list[tuple[Run, str]] = []
    ids = {one.run.id for one in due}
    for one in due_for_release(records.all_open(conn), now, grace_seconds=grace_seconds):
        if one.run.id in ids and records.ask_stop(
            conn, one.run.id, reason=one.reason, asked_by=ACTOR, now=now
        ):
            asked.append((one.run, one.reason))
    return asked
