"""How the site is just now, for everybody who has signed in: what answers, what is free, what waits.

Asked when somebody looks, so that no page waits for it. It names nobody and no machine.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

from galilean.errors import UserError, mark
from galilean.web.context import Portal
from galilean.web.handlers import PageHandler
from services.portal.machines import pool_choices
from services.portal.pages.run import free_words
from services.portal.said import Said, counted, say
from spawner import records

HUB_SECONDS = 3.0


@dataclass(frozen=True, kw_only=True)
class Line:
    """One thing that can be well or not: what, how it is, and ``ok``, ``warn`` or ``bad``."""

    what: Said | str
    how: Said
    tone: str = "ok"


async def hub_answers(portal: Portal) -> bool:
    """Whether sign-in and starts work."""
    try:
        async with asyncio.timeout(HUB_SECONDS):
            await portal.hub.request("GET", "/")
    except (UserError, TimeoutError):
        return False
    return True


class Status(PageHandler):
    """The page."""

    async def get(self) -> None:
        lines = [await self.hub(), *await self.pools(), await self.waiting()]
        await self.render_page(
            "status.html",
            lines=lines,
            fine=all(line.tone == "ok" for line in lines),
            said=lambda words: words.text(self.translate) if isinstance(words, Said) else words,
        )

    async def hub(self) -> Line:
        """The hub."""
        what = say(mark("Sign-in, and starting and releasing clusters"))
        if await hub_answers(self.portal):
            return Line(what=what, how=say(mark("works")))
        return Line(what=what, how=say(mark("does not work just now; running clusters go on")), tone="bad")

    async def pools(self) -> list[Line]:
        """What is free where the visitor may run."""
        return [
            Line(
                what=choice.title if len(self.portal.settings.pools) > 1 else say(mark("Machines")),
                how=free_words(choice.free),
                tone="ok" if choice.free.machines else "warn",
            )
            for choice in await pool_choices(self.portal, self.person)
        ]

    async def waiting(self) -> Line:
        """How many wait."""
        count = len(await self.portal.db.run_read(records.waiting))
        how = counted(count, mark("{n} start waits for room"), mark("{n} starts wait for room"))
        what = say(mark("Waiting line"))
        return Line(
            what=what, how=how if count else say(mark("nobody waits")), tone="warn" if count else "ok"
        )


def routes() -> list[tuple[str, type[Any]]]:
    """Addresses of this module, relative to the portal's prefix."""
    return [(r"/status", Status)]
