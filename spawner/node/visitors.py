"""People who are not the owner: into the ports that are shared with them by name, and nowhere else (AP-11).

A server share of the hub lets a visitor through to the whole node; here it ends at the shared ports. For everybody
but the owner the portal is asked, with the node's own token, what that person may: administrators open the node
(its ports are its owner's all the same), somebody with a shared port opens that port. No answer lets nobody in but administrators by the hub's own group.

The answer is kept for two seconds, and asked for again as long as a visitor is connected: who lost the port is cut
off then, in the middle of a websocket or a download. While the portal is away those who are inside may stay for
half a minute. A visitor's visit does not keep the cluster from being released: it is not the owner's presence.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from spawner.node.place import Place

LOOK_SECONDS = 2.0
#: How long visitors stay whom nobody can vouch for.
AWAY_SECONDS = 30.0
KNOWN_MOST = 1000
TELL_SECONDS = 10.0
SETTING = "galilean_visitors"
ADMIN_GROUP = "galilean:admin"


@dataclass(frozen=True)
class Granted:
    """What somebody who is not the owner may.

    Attributes
    ----------
    whole
        Open the node, as administrators do.
    ports
        Open these.
    """

    whole: bool = False
    ports: frozenset[int] = field(default_factory=frozenset)


NOTHING = Granted()
#: ``ask(name)`` → what the person may; raises when nobody answers.
Ask = Callable[[str], Awaitable[Granted]]


class Visitors:
    """Knows what visitors may, and cuts off those who may no more.

    Parameters
    ----------
    ask
        Asks the portal.
    now
        Seconds that never go back.
    pause
        Sleeps; handed in so that tests need no time.
    """

    def __init__(
        self,
        ask: Ask,
        *,
        log: Any,
        now: Callable[[], float] | None = None,
        pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._ask, self._log, self._pause = ask, log, pause
        self._now = now or asyncio.get_running_loop().time
        self._known: dict[str, tuple[float, Granted]] = {}
        self._asking: dict[str, asyncio.Task[Granted]] = {}
        self._inside: dict[Any, tuple[str, int]] = {}
        self._task: asyncio.Task[None] | None = None

    async def may(self, name: str) -> Granted:
        """What somebody may just now; nothing, where nobody answers."""
        return await self.told(name) or NOTHING

    async def told(self, name: str) -> Granted | None:
        """What the portal says that somebody may just now; ``None``, where nobody answers."""
        known = self._known.get(name)
        if known is not None and self._now() - known[0] < LOOK_SECONDS:
            return known[1]
        task = self._asking.get(name)
        if task is None:
            task = self._asking[name] = asyncio.create_task(self._learn(name))
            task.add_done_callback(lambda _: self._asking.pop(name, None))
        try:
            return await asyncio.shield(task)
        except Exception as error:
            self._log.warning("What %s may open here cannot be said: %s", name, error)
            return None

    async def _learn(self, name: str) -> Granted:
        asked_at = self._now()
        granted = await self._ask(name)
        if len(self._known) >= KNOWN_MOST:
            self._known.clear()
        self._known[name] = (asked_at, granted)
        return granted

    def enter(self, handler: Any, name: str, port: int) -> None:
        """A visitor's request begins; ``handler.cut_off()`` ends it."""
        self._inside[handler] = (name, port)
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._watch())

    def leave(self, handler: Any) -> None:
        """A request has ended."""
        self._inside.pop(handler, None)

    @property
    def inside(self) -> int:
        """How many requests of visitors are under way."""
        return len(self._inside)

    async def _watch(self) -> None:
        while self._inside:
            await self._pause(LOOK_SECONDS)
            await self.look()

    async def look(self) -> None:
        """Cut off those who may no more."""
        names = {name for name, _ in self._inside.values()}
        found = dict(zip(names, await asyncio.gather(*(self._still(name) for name in names)), strict=True))
        for handler, (name, port) in list(self._inside.items()):
            if name in found and port not in found[name]:
                self._log.info("%s was cut off: port %d is shared no more", name, port)
                self.leave(handler)
                handler.cut_off()

    async def _still(self, name: str) -> Iterable[int]:
        """The ports on which somebody may stay."""
        try:
            return (await self._learn(name)).ports
        except Exception as error:
            asked_at, granted = self._known.get(name, (float("-inf"), NOTHING))
            if self._now() - asked_at < AWAY_SECONDS:
                return granted.ports
            self._log.warning("Nobody says whether %s may still be here: %s", name, error)
            return ()


def portal_asks(fetch: Callable[..., Awaitable[tuple[int, Any]]], place: Place) -> Ask:
    """Ask the portal, as the node, what a person may open here."""

    async def ask(name: str) -> Granted:
        body = {"server": place.server, "run": place.run, "rank": place.rank, "name": name}
        status, said = await fetch("POST", "/api/v1/node/visitors", body, "en")
        if status == 409:  # this run has ended
            return NOTHING
        if status != 200 or not isinstance(said, dict):
            raise ConnectionError(f"the portal answers {status}")
        return Granted(whole=said.get("whole") is True, ports=frozenset(int(port) for port in said["ports"]))

    return ask


async def say_guarded(
    fetch: Callable[..., Awaitable[tuple[int, Any]]],
    place: Place,
    *,
    pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> None:
    """Tell the portal that this node looks at who comes: before that nothing of its cluster can be shared."""
    body = {"server": place.server, "run": place.run, "rank": place.rank}
    while True:
        try:
            status, _ = await fetch("POST", "/api/v1/node/guards", body, "en")
        except Exception:
            status = 503
        if status < 500 and status not in (
            401,
            403,
            404,
        ):  # a hub that cannot name the token's owner just now
            return
        await pause(TELL_SECONDS)
