"""Who is here: the node's own count of people, told to the portal while there is somebody (design §6).

*Seen* is an authenticated request of a person, or an authenticated websocket that is open. The identity
provider calls :meth:`Presence.seen` for every such request: it must cost nothing, so it only notes the
time and the handler. A task of its own reports, at most once in 30 s, and keeps quiet when nobody is
there. A portal that is away is asked again at the next turn; nothing of it reaches a request.
The same report says what runs in the node (:mod:`spawner.node.busy`): as long as something does, whether or
not somebody is there, and once more as soon as nothing does.
This is one of two witnesses: a person's own program could fake it, so the release also asks the proxy.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any, Protocol
from weakref import WeakSet

from spawner.node.place import Place

REPORT_SECONDS = 30.0
SAMPLE_SECONDS = 5.0

Send = Callable[[dict[str, Any]], Awaitable[None]]


class Work(Protocol):
    """What runs in the node: :class:`spawner.node.busy.Busy`."""

    def told(self) -> dict[str, int]: ...

    async def look(self, *, somebody: bool = True) -> dict[str, int]: ...


class Presence:
    """Counts people at one node.

    Parameters
    ----------
    clock
        Gives the present moment, aware and UTC.
    """

    def __init__(self, clock: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._clock = clock
        self._sockets: WeakSet[Any] = WeakSet()
        self.last_seen: datetime | None = None
        self.arrived = asyncio.Event()

    def seen(self, websocket: Any = None) -> None:
        """A person's authenticated request, with its handler when it opens a websocket."""
        self.last_seen = self._clock()
        if websocket is not None:
            self._sockets.add(websocket)
        self.arrived.set()

    def open_sockets(self) -> int:
        """How many authenticated websockets of people are open now."""
        return sum(1 for handler in self._sockets if handler.ws_connection is not None)

    def sample(self) -> tuple[datetime | None, int]:
        """When somebody was last seen, and the open websockets; an open one means now."""
        count = self.open_sockets()
        if count:
            self.last_seen = self._clock()
        return self.last_seen, count


class Reporter:
    """Tells the portal, off the request path.

    Parameters
    ----------
    presence
        What to tell.
    place
        Which node this is.
    send
        Delivers one report; may raise whatever it likes.
    pause
        Sleeps; handed in so that tests need no time.
    work
        What runs in the node; ``None`` = it is not told.
    """

    def __init__(
        self,
        presence: Presence,
        place: Place,
        send: Send,
        *,
        log: logging.Logger,
        pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
        work: Work | None = None,
    ) -> None:
        self._presence = presence
        self._place = place
        self._send = send
        self._log = log
        self._pause = pause
        self._work = work
        self._told: tuple[datetime | None, int] = (None, 0)
        self._told_busy: dict[str, int] = {}
        self._away = False

    async def run(self) -> None:
        """Report for ever; ends by cancellation only."""
        while True:
            if self._nobody and not await self._works():
                await self._arrival()
            await self.report()
            for _ in range(round(REPORT_SECONDS / SAMPLE_SECONDS)):
                await self._pause(SAMPLE_SECONDS)
                self._presence.sample()
                if not await self._works() and any(self._told_busy.values()):
                    break  # whoever waits for the end of the work need not wait for the half minute

    @property
    def _nobody(self) -> bool:
        return self._presence.open_sockets() == 0 and self._told == (self._presence.last_seen, 0)

    async def _works(self) -> bool:
        if self._work is None:
            return False
        return any((await self._work.look(somebody=not self._nobody)).values())

    async def _arrival(self) -> None:
        """Wait until somebody is there, or something runs."""
        if self._work is None:
            await self._presence.arrived.wait()
            return
        while not self._presence.arrived.is_set() and not any(self._told_busy.values()):
            try:
                await asyncio.wait_for(self._presence.arrived.wait(), SAMPLE_SECONDS)
            except TimeoutError:
                if await self._works():
                    return

    async def report(self) -> bool:
        """Tell what is new since the last delivered report; ``False`` when there was nothing or no portal."""
        self._presence.arrived.clear()
        seen, count = self._presence.sample()
        busy = self._work.told() if self._work is not None else {}
        works = any(busy.values()) or any(self._told_busy.values())
        if not works and (seen is None or (seen, count) == self._told):
            return False
        body: dict[str, Any] = {
            "server": self._place.server,
            "run": self._place.run,
            "rank": self._place.rank,
        }
        if seen is not None and (seen, count) != self._told:
            body["seen_at"] = seen.isoformat()
        body["open"] = count
        if self._work is not None:
            body["busy"] = busy
        try:
            await self._send(body)
        except Exception as error:  # whatever the portal's state is, the node goes on and asks again
            if not self._away:
                self._log.warning("The portal does not take presence reports: %s", error)
            self._away = True
            return False
        if self._away:
            self._log.info("The portal takes presence reports again")
        self._away = False
        self._told = (seen, count)
        self._told_busy = busy
        return True


def http_sender(portal_url: str, token: str) -> Send:
    """Sends reports to the portal's API with the node's own token."""

    async def send(body: dict[str, Any]) -> None:
        from tornado.httpclient import AsyncHTTPClient, HTTPRequest

        await AsyncHTTPClient().fetch(
            HTTPRequest(
                f"{portal_url}/api/v1/presence",
                method="POST",
                headers={"Authorization": f"token {token}", "Content-Type": "application/json"},
                body=json.dumps(body),
                connect_timeout=5,
                request_timeout=10,
                follow_redirects=False,
            )
        )

    return send
