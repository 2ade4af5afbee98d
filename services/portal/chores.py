"""What the portal does by itself, beside answering: short pieces of work, each with its interval.

However many portals run, one of them does it: a lease says which (:class:`galilean.service.Lease`). A chore that
raises is logged and tried again, later each time; one that takes long holds up no other. Whoever loses the lease
ends what is under way, so a chore must be able to be broken off anywhere and begun again elsewhere.

A room adds a line to :data:`CHORES`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import exists

from extensions.imagebuilder.tables import environments
from galilean.service import LEASE_SECONDS, Lease, pause_after
from galilean.web.context import Portal
from services.catalog import cards, covers, lifecycle
from services.catalog.starters import install as starters
from services.catalog.tables import covers as pictures
from services.portal import (
    archives,
    binned,
    copying,
    disks,
    drains,
    freezing,
    new_versions,
    object_stores,
    old_uploads,
    storage,
    withdrawn,
)

log = logging.getLogger("galilean.portal.chores")

LEASE = "portal-chores"
#: What was counted once a day is kept for so long, for clocks that differ.
COUNTED_KEPT = timedelta(days=2)
_SHOWN_BY_ENVIRONMENTS = exists().where(
    environments.c.logo == pictures.c.name, environments.c.deleted_at.is_(None)
)


@dataclass(frozen=True, kw_only=True)
class Chore:
    """One piece of work.

    Attributes
    ----------
    name
        For the log, and for :meth:`Chores.wake`.
    work
        One round; idempotent. It gets the portal.
    interval_seconds
        Between the end of one round and the beginning of the next.
    """

    name: str
    work: Callable[[Portal], Awaitable[None]]
    interval_seconds: float


async def make_cards(portal: Portal) -> None:
    """Cards of what has none, or was made by older rules."""
    while await portal.db.run(cards.catch_up):
        pass


async def begin_with_starters(portal: Portal) -> None:
    """The starter projects, where the site is new; otherwise one question."""
    await starters.begin(portal.db, portal.settings, portal.clock)


async def forget_counted(portal: Portal) -> None:
    """Rows that kept somebody from being counted twice on a day that is over; images that nothing shows."""
    now = portal.clock()
    await portal.db.run(lifecycle.forget_counted, (now - COUNTED_KEPT).date())
    await portal.db.run(covers.sweep, now=now, also=[_SHOWN_BY_ENVIRONMENTS])


CHORES: tuple[Chore, ...] = (
    Chore(name="starters", work=begin_with_starters, interval_seconds=86_400),
    Chore(name="cards", work=make_cards, interval_seconds=60),
    Chore(name="copies", work=copying.go_on, interval_seconds=2),
    Chore(name="versions", work=freezing.go_on, interval_seconds=2),
    Chore(name="environment-versions", work=new_versions.go_on, interval_seconds=2),
    Chore(name="withdrawn", work=withdrawn.look, interval_seconds=30),
    Chore(name="sizes", work=storage.count_sizes, interval_seconds=5),
    Chore(name="disks", work=disks.purge, interval_seconds=10),
    Chore(name="drains", work=drains.go_on, interval_seconds=30),
    Chore(name="archives", work=archives.sweep, interval_seconds=3600),
    Chore(name="object-stores", work=object_stores.sweep, interval_seconds=60),
    Chore(name="bin", work=binned.empty, interval_seconds=600),
    Chore(name="uploads", work=old_uploads.sweep, interval_seconds=6 * 3600),
    Chore(name="counted", work=forget_counted, interval_seconds=3600),
)


class Chores:
    """The chores of one portal.

    Parameters
    ----------
    portal
        Its collaborators.
    chores
        What there is to do.
    lease
        Says whether this process does it.
    pause
        Waits so many seconds; handed in for tests.
    """

    def __init__(
        self,
        portal: Portal,
        chores: Sequence[Chore] = CHORES,
        *,
        lease: Lease | None = None,
        pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._portal, self._chores, self._pause = portal, chores, pause
        self._lease = lease or Lease(portal.db, LEASE, clock=portal.clock)
        self._wakes = {chore.name: asyncio.Event() for chore in chores}
        self._tasks: list[asyncio.Task[None]] = []

    def wake(self, name: str) -> None:
        """Do a chore now, if this process is the one that does it."""
        if name in self._wakes:
            self._wakes[name].set()

    async def run(self) -> None:
        """Keep the lease and, while it is held, do the chores; ends by being cancelled."""
        try:
            while True:
                held = False
                try:
                    held = await self._lease.keep()
                except Exception as error:
                    log.warning("the lease %s cannot be renewed: %s", LEASE, error)
                    held = self._lease.held
                if held and not self._tasks:
                    self._tasks = [asyncio.create_task(self._repeat(chore)) for chore in self._chores]
                elif not held:
                    await self._end()
                await self._pause(LEASE_SECONDS / 3)
        finally:
            await self._end()
            with contextlib.suppress(Exception):
                if self._lease.held:
                    await self._lease.let_go()

    async def _repeat(self, chore: Chore) -> None:
        failures, wake = 0, self._wakes[chore.name]
        while True:
            wake.clear()
            try:
                await chore.work(self._portal)
                failures = 0
            except Exception:
                failures += 1
                log.exception("the chore %s failed; it is tried again", chore.name)
            wait = max(chore.interval_seconds, pause_after(failures, chore.interval_seconds))
            waiting = asyncio.ensure_future(self._pause(wait))
            waking = asyncio.ensure_future(wake.wait())
            try:
                await asyncio.wait({waiting, waking}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                waiting.cancel()
                waking.cancel()

    async def _end(self) -> None:
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
