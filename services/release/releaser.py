"""One round of the release service: decide, ask, carry out, tidy up.

The hub is asked first whether it is there. While it is not, nothing is decided and nothing sent, and what
is due waits in its rows; when it is back everything goes on from the rows alone.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge
from sqlalchemy import Connection

from galilean import notices
from galilean.clock import Clock, utcnow
from galilean.db import Database
from galilean.errors import UserError
from galilean.hubapi import HubAPI
from galilean.settings import Settings
from services.release import messages, rules, store
from services.release.decide import Keep, Release, Warn, decide, there_at
from services.release.entries import EntryCleaner
from services.release.finish import ACTOR, Finish, Finisher, why_finish
from services.release.keeper import Keeper
from services.release.store import Held
from services.release.terms import WITNESS_LAG_SECONDS
from services.release.watch import Watch
from spawner import records
from spawner.inventory import Inventory
from spawner.records import NodeInterval, Run

log = logging.getLogger("galilean.release")

ENTRIES_EVERY_SECONDS = 60.0
#: Budgets are added up so often; between, their ends stand as they were found.
BUDGETS_EVERY_SECONDS = 60.0
PRUNE_EVERY_SECONDS = 3600.0
#: An end that moves on while somebody is there is written into the row at such steps.
ROUGHLY_SECONDS = 55
#: So many ends are written, and so many clusters warned of or given back, in one transaction.
NOTED_AT_ONCE = 2500
DUE_AT_ONCE = 500
#: After such a transaction others have their turn: a waiting writer of SQLite looks again only now and then.
BREATH_SECONDS = 0.03
Witness = Callable[[], Awaitable[bool]]
#: How long the budgets of these runs last, in seconds, by run id; a run that no budget bounds is left out.
Budgets = Callable[[Connection, Sequence[str], datetime], Mapping[str, float]]


@dataclass
class Round:
    """What a look at all held clusters comes to.

    Attributes
    ----------
    release, warn
        What is to be done now.
    ends
        Ends to be written into rows: run id, when, why.
    seen
        When people were seen on their clusters, to be written where it outlives those: by person.
    """

    release: list[tuple[Held, str]] = field(default_factory=list)
    warn: list[tuple[Held, Warn]] = field(default_factory=list)
    ends: list[tuple[str, datetime | None, str]] = field(default_factory=list)
    seen: dict[str, datetime] = field(default_factory=dict)

    @property
    def due(self) -> list[str]:
        """Ids of those that are decided once more where it is written."""
        return [held.id for held, _ in (*self.release, *self.warn)]

    @property
    def nothing(self) -> bool:
        """Whether there is nothing to write."""
        return not (self.release or self.warn or self.ends or self.seen)


def look_at(found: Iterable[Held], now: datetime) -> Round:
    """Decide all held clusters. One whose terms cannot be read is kept, and said so in the log."""
    round_ = Round()
    for held in found:
        try:
            decision = decide(held.terms, held.facts, now)
            end = _end_to_note(held, decision, now)
        except (ValueError, TypeError) as error:
            log.error("run %s is kept: %s", held.id, error)
            continue
        if _is_ahead(held):
            round_.seen[held.user] = held.seen_ahead  # type: ignore[assignment]
        if isinstance(decision, Release):
            round_.release.append((held, decision.reason))
        elif isinstance(decision, Warn):
            round_.warn.append((held, decision))
        if end is not None:
            round_.ends.append(end)
    return round_


def parts_of(round_: Round) -> Iterator[Round]:
    """The same in pieces, each a short transaction: where thousands go back at once, others write between them."""
    seen = list(round_.seen.items())
    for at in range(0, max(len(round_.ends), len(seen)), NOTED_AT_ONCE):
        after = at + NOTED_AT_ONCE
        yield Round(ends=round_.ends[at:after], seen=dict(seen[at:after]))
    for at in range(0, len(round_.release), DUE_AT_ONCE):
        yield Round(release=round_.release[at : at + DUE_AT_ONCE])
    for at in range(0, len(round_.warn), DUE_AT_ONCE):
        yield Round(warn=round_.warn[at : at + DUE_AT_ONCE])


def _is_ahead(held: Held) -> bool:
    """Whether to write down that the person was seen on a cluster: they may have left it before this one ends."""
    seen, known = held.seen_ahead, held.known_seen_at
    if seen is None or held.terms.automatic or held.terms.policy == "manual":
        return False
    return known is None or (seen - known).total_seconds() >= ROUGHLY_SECONDS


def _end_to_note(
    held: Held, decision: Keep | Warn | Release, now: datetime
) -> tuple[str, datetime | None, str] | None:
    """The end that the row should say, if it says another one."""
    if isinstance(decision, Release):
        return None
    until, why = decision.until, decision.why
    if until == held.release_at and why == held.release_why:
        return None
    if until is not None and held.release_at is not None and why == held.release_why:
        moved = abs((until - held.release_at).total_seconds())
        present = now - there_at(held.terms, held.facts) < timedelta(seconds=WITNESS_LAG_SECONDS)
        # It moves on with every look while somebody is there, and with every estimate of a budget.
        if moved < ROUGHLY_SECONDS and (present or why == "budget"):
            return None
    return held.id, until, why


class Releaser:
    """The release service's tick.

    Parameters
    ----------
    settings, db, hub, inventory
        The site, our database, the hub (scopes ``list:users``, ``read:users:name``, ``read:servers``,
        ``delete:servers``), the backend.
    witnesses
        Besides the hub itself: who else must answer before presence is believed, such as the portal.
    budgets
        How long budgets last; ``None`` = there are none.
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
        budgets: Budgets | None = None,
        clock: Clock = utcnow,
        monotonic: Callable[[], float] = time.monotonic,
        registry: CollectorRegistry | None = None,
        details: dict[str, Any] | None = None,
    ) -> None:
        self.settings, self.db, self.hub = settings, db, hub
        self.budgets, self.rules = budgets, rules.kept()
        self.witnesses, self.clock, self.monotonic = witnesses, clock, monotonic
        self.details = {} if details is None else details
        self.watch = Watch()
        self.finisher = Finisher(db, hub, inventory, clock=clock, monotonic=monotonic)
        self.entries = EntryCleaner(db, hub)
        self.keeper = Keeper(db, hub, clock=clock)
        self._entries_at = monotonic() + ENTRIES_EVERY_SECONDS / 2
        self._prune_at = monotonic() + ENTRIES_EVERY_SECONDS
        self._budget_ends: dict[str, datetime | None] = {}
        self._budgets_at = float("-inf")
        # Placing and starting have their limits in the hub; a minute more and nobody is at it any longer.
        self._start_limit_seconds = settings.gang_timeout_seconds + settings.start_timeout_seconds + 60
        registry = registry or CollectorRegistry()
        self._released = Counter(
            "galilean_cluster_release_total",
            "Clusters given back by their policy.",
            ["reason"],
            registry=registry,
        )
        self._warned = Counter(
            "galilean_cluster_warn_total", "Warnings before a release.", ["reason"], registry=registry
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
        await self._decide(now, believed=believed)
        runs, lives = await self.db.run_read(store.ending)
        wanted = self._wanted(runs, lives, now)
        self._unfinished.set(len(wanted))
        await self.finisher.finish(wanted)
        self.details["unfinished"] = dict(self.finisher.waiting())
        # What somebody pressed comes before what somebody planned.
        await self.keeper.keep(await self.db.run_read(self.rules.get))
        if self.monotonic() >= self._entries_at:
            self._entries_at = self.monotonic() + ENTRIES_EVERY_SECONDS
            await self.entries.clean()
        if self.monotonic() >= self._prune_at:
            self._prune_at = self.monotonic() + PRUNE_EVERY_SECONDS
            await self._prune(now)

    async def _prune(self, now: datetime) -> None:
        """Notices that are old enough go, some at a time: nobody waits for it."""
        while ids := await self.db.run_read(notices.outdated, now):
            await self.db.run(notices.remove, ids)
            if len(ids) < notices.AT_ONCE:
                break

    async def _hub_answers(self) -> bool:
        try:
            await self.hub.request("GET", "/")
        except UserError as error:
            return error.status not in (502, 503, 504)
        return True

    async def _decide(self, now: datetime, *, believed: bool) -> None:
        """Decide all, then once more those that something happens to, where it is written.

        While presence is not believed, only that somebody *was* seen is written down.
        """
        round_ = look_at(await self.db.run_read(self._read, now), now)
        if not believed:
            round_ = Round(seen=round_.seen)
        if round_.nothing:
            return
        for part in parts_of(round_):
            released, warned = await self.db.run(self._carry_out, part, now)
            for held, reason in released:
                log.info("run %s (%s/%s) goes back: %s", held.id, held.user, held.server, reason)
                self._released.labels(reason).inc()
            for _, warn in warned:
                self._warned.labels(warn.why).inc()
            if len(part.due) == DUE_AT_ONCE:
                await asyncio.sleep(BREATH_SECONDS)

    def _read(self, conn: Connection, now: datetime, ids: Sequence[str] | None = None) -> list[Held]:
        grace_seconds = self.rules.get(conn).site.grace_seconds
        found = store.held(conn, grace_seconds=grace_seconds, ids=ids)
        bounded = [held for held in found if held.budgeted]
        if self.budgets is None or not bounded:
            return found
        self._add_up_budgets(conn, bounded, now, of_all=ids is None)
        left = {
            held.id: max((end - now).total_seconds(), 0.0)
            for held in bounded
            if (end := self._budget_ends.get(held.id)) is not None
        }
        return store.with_budgets(found, left)

    def _add_up_budgets(
        self, conn: Connection, bounded: Sequence[Held], now: datetime, *, of_all: bool
    ) -> None:
        """When budgets run out: of all people each minute, and at once where it matters.

        It matters where something is about to happen (``of_all`` false), and where one of a person's clusters is
        new: it uses up what the others have.
        """
        assert self.budgets is not None
        wanted = bounded
        if of_all and self.monotonic() >= self._budgets_at:
            self._budgets_at = self.monotonic() + BUDGETS_EVERY_SECONDS
            self._budget_ends.clear()
        elif of_all:
            new = {held.user for held in bounded if held.id not in self._budget_ends}
            wanted = [held for held in bounded if held.user in new]
        if wanted:
            ids = [held.id for held in wanted]
            left = self.budgets(conn, ids, now)
            for run_id in ids:
                seconds = left.get(run_id)
                self._budget_ends[run_id] = None if seconds is None else now + timedelta(seconds=seconds)

    def _carry_out(
        self, conn: Connection, round_: Round, now: datetime
    ) -> tuple[list[tuple[Held, str]], list[tuple[Held, Warn]]]:
        """In one transaction, on the rows as they are then: somebody may have come back."""
        store.note_seen(conn, round_.seen)
        store.note_ends(conn, round_.ends)
        if not round_.due:
            return [], []
        again = look_at(self._read(conn, now, round_.due), now)
        released = [
            (held, reason)
            for held, reason in again.release
            if records.ask_stop(conn, held.id, reason=reason, asked_by=ACTOR, now=now)
        ]
        told = [messages.release(held, reason, now) for held, reason in released]
        notices.tell_all(conn, told + [messages.warning(held, warn, now) for held, warn in again.warn])
        store.note_ends(conn, again.ends)
        store.note_warned(conn, [held.id for held, _ in again.warn], now)
        return released, again.warn

    def _wanted(
        self, runs: Iterable[Run], lives: Mapping[str, Sequence[NodeInterval]], now: datetime
    ) -> list[Finish]:
        found = (
            why_finish(run, lives.get(run.id, ()), now, start_limit_seconds=self._start_limit_seconds)
            for run in runs
        )
        return [finish for finish in found if finish is not None]
