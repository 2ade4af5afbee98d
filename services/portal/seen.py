"""Who is on a page of the portal: for the policies that count from leaving the platform (design §6).

Written at most each half minute for a person, by pages that are opened and by the stream of events that an open
page holds. A page that was opened before the person signed out does not count any more.
"""

from __future__ import annotations

import asyncio
import logging
from datetime import datetime
from typing import TYPE_CHECKING, Any

from services.release.store import seen_on_platform

if TYPE_CHECKING:
    from galilean.web.context import Portal
    from galilean.web.handlers import PageHandler

log = logging.getLogger("galilean.portal")

EVERY_SECONDS = 30.0
REMEMBERED_MOST = 20_000


class Seen:
    """Notes who is there.

    Parameters
    ----------
    portal
        Database and clock.
    """

    def __init__(self, portal: Portal) -> None:
        self.portal = portal
        self._noted: dict[str, datetime] = {}
        self._tasks: set[asyncio.Task[None]] = set()  # no page waits for a database that is locked

    async def note(self, user: str, *, since: datetime | None = None) -> None:
        """Note that somebody is on a page which was opened at ``since`` (``None`` = now)."""
        now = self.portal.clock()
        last = self._noted.get(user)
        if last is not None and 0 <= (now - last).total_seconds() < EVERY_SECONDS:
            return
        self._noted.pop(user, None)
        self._noted[user] = now
        if len(self._noted) > REMEMBERED_MOST:
            del self._noted[next(iter(self._noted))]
        noted = False
        try:
            noted = await self.portal.db.run(seen_on_platform, user, now, since=since)
        except Exception as error:
            # A page is shown also while nobody can write.
            log.warning("could not note that somebody is there: %s", error)
        # What was not written must not keep the next page from it: an old page would, again and again.
        if not noted and self._noted.get(user) == now:
            del self._noted[user]

    def forget(self, user: str) -> None:
        """Note the next page of somebody at once: they signed out."""
        self._noted.pop(user, None)

    async def extras(self, handler: PageHandler) -> dict[str, Any]:
        """Called for each whole page; adds nothing to it."""
        if not handler.person.by_token:
            task = asyncio.create_task(self.note(handler.person.name))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        return {}
