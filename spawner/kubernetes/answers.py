"""Whether the nodes of a start answer: asked by the hub itself, with one long request to each.

The kubelet says so, too (*Ready*), but it asks once a second, and then tells of it when it next looks at its
containers, which is another second. A node binds its port before anything else, so that a request waits in
its queue and is answered at the very moment when the server can. Who is asked is named by the watch; where
the hub cannot reach nodes nothing is lost, for *Ready* counts as well.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import aiohttp
from yarl import URL

#: A node whose container has just begun may not listen yet; whom we cannot reach at all we soon leave alone.
PAUSES_SECONDS = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 2.0, 2.0)
_LIMIT = aiohttp.ClientTimeout(total=None, sock_connect=5)


async def answered(url: str) -> bool:
    """Wait until a node answers at an address; ``False`` when it cannot be reached from here."""
    connector = aiohttp.TCPConnector(force_close=True)
    async with aiohttp.ClientSession(connector=connector, timeout=_LIMIT) as http:
        for pause in PAUSES_SECONDS:
            try:
                async with http.get(URL(url, encoded=True), allow_redirects=False) as answer:
                    if answer.status < 400:
                        return True
            except (aiohttp.ClientError, OSError, TimeoutError):
                pass
            await asyncio.sleep(pause)
    return False


class Answers:
    """Who of a start's nodes has answered.

    Parameters
    ----------
    ask
        Waits until an address answers, like :func:`answered`.
    tell
        Called when another node has.
    """

    def __init__(self, ask: Callable[[str], Awaitable[bool]], tell: Callable[[], None]) -> None:
        self._ask, self._tell = ask, tell
        self._asked: dict[int, asyncio.Task[bool]] = {}

    def __contains__(self, rank: int) -> bool:
        task = self._asked.get(rank)
        return (
            task is not None
            and task.done()
            and not task.cancelled()
            and not task.exception()
            and task.result()
        )

    def want(self, rank: int, url: str) -> None:
        """Ask a node, once."""
        if rank not in self._asked:
            task = self._asked[rank] = asyncio.ensure_future(self._ask(url))
            task.add_done_callback(lambda _: self._tell())

    def close(self) -> None:
        """Ask nobody any more."""
        for task in self._asked.values():
            task.cancel()
