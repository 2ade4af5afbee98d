"""Threads for file work, apart by volume: a disk that hangs keeps those who wait for it, and nobody else.

A call on a network disk whose server is away does not come back, and no call of the system ends it. So every volume
has a lane of few threads of its own, and whoever only looks waits for a limited time: then it is said in words that
the volume does not answer. While half of a lane's threads hang, nobody else is sent into it; when the disk answers
again, the threads come back by themselves and the lane is open.

What takes long by its nature (a copy, a count) has a lane beside its volume's, so that a page never waits for it.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any, ParamSpec, TypeVar

from galilean.errors import UserError, mark

P = ParamSpec("P")
R = TypeVar("R")

#: How long a volume may take to answer whoever only looks.
ANSWER_SECONDS = 10.0


def beside(volume: str) -> str:
    """The lane for long work on a volume."""
    return f"{volume}/long"


class FileThreads:
    """Lanes of threads.

    Parameters
    ----------
    threads
        Of each lane, at most; they are made when they are needed.
    seconds
        How long :meth:`ask` waits.
    """

    def __init__(self, threads: int = 8, *, seconds: float = ANSWER_SECONDS) -> None:
        self._threads, self._seconds = threads, seconds
        self._lanes: dict[str, ThreadPoolExecutor] = {}
        self._hanging: dict[str, set[Future[Any]]] = {}
        self._lock = threading.Lock()

    async def run(self, lane: str, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Call a function in a thread of a lane, however long it takes.

        Parameters
        ----------
        lane
            Id of a volume, what :func:`beside` makes of it, or empty for what is on none.
        function, *args, **kwargs
            What is called.

        Raises
        ------
        UserError
            503 while the lane's volume hangs.
        """
        return await asyncio.wrap_future(self._send(lane, partial(function, *args, **kwargs)))

    async def ask(self, lane: str, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """The same for what is quick where nothing is wrong.

        Raises
        ------
        UserError
            503 as :meth:`run`, and when no answer comes in time.
        """
        work = self._send(lane, partial(function, *args, **kwargs))
        answer = asyncio.wrap_future(work)
        answer.add_done_callback(_seen)
        await asyncio.wait({answer}, timeout=self._seconds)
        if answer.done():
            return answer.result()
        if not work.cancel():
            hanging = self._hanging.setdefault(lane, set())
            hanging.add(work)
            work.add_done_callback(hanging.discard)
        raise does_not_answer(lane)

    def _send(self, lane: str, work: Callable[[], R]) -> Future[R]:
        if 2 * len(self._hanging.get(lane, ())) >= self._threads:
            raise does_not_answer(lane)
        with self._lock:
            threads = self._lanes.get(lane)
            if threads is None:
                name = f"galilean-files-{lane}" if lane else "galilean-files"
                threads = self._lanes[lane] = ThreadPoolExecutor(self._threads, thread_name_prefix=name)
        return threads.submit(work)

    def shutdown(self, *, wait: bool = False) -> None:
        """Let go of all threads; what waits for one is not begun."""
        for threads in self._lanes.values():
            threads.shutdown(wait=wait, cancel_futures=True)


def _seen(answer: asyncio.Future[Any]) -> None:
    if not answer.cancelled():
        answer.exception()  # whoever asked has been told already


def does_not_answer(lane: str) -> UserError:
    """The refusal for a volume that hangs."""
    return UserError(
        503,
        mark(
            "The volume “{volume}” does not answer just now. Your files are not lost. Try again in a few minutes; if "
            "it stays so, tell an administrator."
        ),
        volume=lane.partition("/")[0],
        reason="volume-hangs",
    )
