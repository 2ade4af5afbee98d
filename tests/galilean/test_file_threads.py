"""Lanes of threads: a volume that hangs keeps its own threads, and nobody else waits for them."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import wait

import pytest

from galilean.errors import UserError
from galilean.file_threads import FileThreads, beside


@pytest.fixture
def hangs() -> Iterator[threading.Event]:
    event = threading.Event()
    yield event
    event.set()


async def refused(awaitable: object) -> UserError:
    with pytest.raises(UserError) as caught:
        await awaitable  # type: ignore[misc]
    return caught.value


async def test_what_is_asked_of_a_volume_that_hangs_is_refused_in_words(hangs: threading.Event) -> None:
    threads = FileThreads(4, seconds=0.01)
    error = await refused(threads.ask("nfs", hangs.wait, 60))
    assert (error.status, error.reason) == (503, "volume-hangs")
    assert "“nfs”" in str(error)


async def test_a_volume_that_hangs_keeps_nobody_from_another(hangs: threading.Event) -> None:
    threads = FileThreads(2, seconds=5)
    waiting = [asyncio.ensure_future(threads.run("nfs", hangs.wait, 60)) for _ in range(6)]
    assert await threads.ask("local", str, 7) == "7"
    assert await threads.ask(beside("nfs"), str, 8) == "8"
    hangs.set()
    assert await asyncio.gather(*waiting) == [True] * 6


async def test_nobody_is_sent_where_half_of_the_threads_hang_until_they_come_back(
    hangs: threading.Event,
) -> None:
    threads, sent = FileThreads(4, seconds=0.01), []
    for _ in range(2):
        await refused(threads.ask("nfs", hangs.wait, 60))
    assert (await refused(threads.ask("nfs", sent.append, 1))).status == 503
    assert (await refused(threads.run("nfs", sent.append, 1))).status == 503
    assert sent == []
    hangs.set()
    await asyncio.to_thread(wait, list(threads._hanging["nfs"]))
    await threads.run("nfs", sent.append, 1)
    assert sent == [1]


async def test_what_goes_wrong_is_raised_as_it_is_and_what_waits_is_not_begun_late(
    hangs: threading.Event,
) -> None:
    threads, sent = FileThreads(1, seconds=0.01), []
    with pytest.raises(ZeroDivisionError):
        await threads.ask("local", divmod, 1, 0)
    first = asyncio.ensure_future(threads.run("nfs", hangs.wait, 60))
    await asyncio.sleep(0)  # it is under way
    assert (await refused(threads.ask("nfs", sent.append, 1))).status == 503
    hangs.set()
    await first
    await threads.run("nfs", sent.append, 2)
    assert sent == [2]
