"""Requests to a backend: none is cut off half-way, and who asks whether all is known is answered once.

A start may be cancelled at any moment, and a request that was sent is then carried out or not, nobody knows.
So every request of a start goes on to its end (:class:`OnTheWay`), and a removal waits for those of its
cluster first: nothing appears after it. :func:`all_at_once` is for requests that stand or fall together.

:class:`NextLook` is the other direction, of a backend that is watched: whoever needs to believe what is known
waits for the next look at everything, one look for all who wait, and hears what kept it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from typing import Any, TypeVar

R = TypeVar("R")


class OnTheWay:
    """Requests that have been sent and not been answered, by the cluster that they are for."""

    def __init__(self) -> None:
        self._tasks: dict[str, set[asyncio.Task[Any]]] = {}

    async def send(self, cluster: str, request: Coroutine[Any, Any, R]) -> R:
        """Send a request to its end, also when whoever wanted it is cancelled meanwhile."""
        task = asyncio.get_running_loop().create_task(request)
        tasks = self._tasks.setdefault(cluster, set())
        tasks.add(task)
        task.add_done_callback(lambda done: self._arrived(cluster, done))
        return await asyncio.shield(task)

    async def landed(self, cluster: str, *, seconds: float | None = None) -> None:
        """Wait until none of a cluster's is under way, at most so long."""
        tasks = self._tasks.get(cluster)
        if tasks:
            await asyncio.wait(set(tasks), timeout=seconds)

    def _arrived(self, cluster: str, task: asyncio.Task[Any]) -> None:
        tasks = self._tasks.get(cluster, set())
        tasks.discard(task)
        if not tasks:
            self._tasks.pop(cluster, None)
        if not task.cancelled():
            task.exception()  # whoever wanted it may have gone away


class NextLook:
    """The next look at everything, for whoever cannot believe what is known.

    Parameters
    ----------
    hurry
        Called when somebody begins to wait: whoever looks may be resting.
    """

    def __init__(self, hurry: Callable[[], None]) -> None:
        self._hurry = hurry
        self._asked: asyncio.Future[None] | None = None

    async def wait(self, seconds: float) -> None:
        """Come back after it.

        Raises
        ------
        Exception
            What kept it; ``TimeoutError`` when it does not come.
        """
        if self._asked is None:
            self._asked = asyncio.get_running_loop().create_future()
        self._hurry()
        async with asyncio.timeout(seconds):
            await asyncio.shield(self._asked)

    def came(self, error: Exception | None = None) -> None:
        """Tell everybody who waits."""
        asked, self._asked = self._asked, None
        if asked is None or asked.done():
            return
        if error is None:
            asked.set_result(None)
        else:
            asked.set_exception(error)
            asked.exception()  # whoever asked may have gone away


async def all_at_once(requests: Iterable[Awaitable[R]]) -> list[R]:
    """What all of them answer; the first that fails ends it, when the others have been let go."""
    tasks = [asyncio.ensure_future(request) for request in requests]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
