"""Requests go on to their end, removals wait for them, and one look answers all who wait for it."""

from __future__ import annotations

import asyncio
import gc
from typing import Any

import pytest

from spawner.requests import NextLook, OnTheWay, all_at_once


async def test_a_request_goes_on_when_whoever_wanted_it_is_cancelled_and_is_waited_for() -> None:
    on_the_way, gate, done = OnTheWay(), asyncio.Event(), []

    async def request() -> None:
        await gate.wait()
        done.append("made")

    wanted = asyncio.ensure_future(on_the_way.send("heat", request()))
    await asyncio.sleep(0)
    wanted.cancel()
    with pytest.raises(asyncio.CancelledError):
        await wanted
    await on_the_way.landed("another")  # somebody else's is not waited for
    await on_the_way.landed("heat", seconds=0)  # nor longer than is asked for
    removal = asyncio.ensure_future(on_the_way.landed("heat"))
    await asyncio.sleep(0)
    assert not removal.done()
    gate.set()
    await removal
    assert done == ["made"]
    await on_the_way.landed("heat")


async def test_a_request_that_fails_tells_whoever_wanted_it_and_is_waited_for_no_more() -> None:
    on_the_way = OnTheWay()

    async def refused() -> None:
        raise LookupError("no")

    with pytest.raises(LookupError):
        await on_the_way.send("heat", refused())
    await on_the_way.landed("heat")


@pytest.mark.parametrize("error", [None, ConnectionError("away")])
async def test_one_look_answers_all_who_wait_for_it(error: Exception | None) -> None:
    hurried: list[str] = []
    look = NextLook(lambda: hurried.append("now"))
    waiting = [asyncio.ensure_future(look.wait(60)) for _ in range(3)]
    await asyncio.sleep(0)
    assert len(hurried) == 3
    waiting[0].cancel()  # one that gives up takes nobody along
    await asyncio.sleep(0)
    look.came(error)
    told = await asyncio.gather(*waiting, return_exceptions=True)
    assert isinstance(told[0], asyncio.CancelledError)
    assert told[1:] == [error, error]
    late = asyncio.ensure_future(look.wait(60))
    await asyncio.sleep(0)
    assert not late.done(), "it is the next look that counts"
    look.came()
    await late


async def test_a_look_that_nobody_waits_for_any_more_fails_without_a_word() -> None:
    said: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: said.append(context))
    look = NextLook(lambda: None)
    with pytest.raises(TimeoutError):
        await look.wait(0)
    look.came(ConnectionError("away"))
    gc.collect()
    await asyncio.sleep(0)
    assert not said


async def test_of_requests_that_stand_or_fall_together_the_first_failure_ends_all() -> None:
    ended: list[int] = []

    async def request(number: int) -> int:
        try:
            if number == 1:
                raise LookupError("no")
            await asyncio.sleep(60 if number else 0)
        except asyncio.CancelledError:
            ended.append(number)
            raise
        return number

    with pytest.raises(LookupError):
        await all_at_once(request(number) for number in range(3))
    await asyncio.sleep(0)
    assert ended == [0, 2] or ended == [2]
    assert await all_at_once([request(0)]) == [0]
