"""``galilean people import``: several at once, told how far it is, printed in the order of the table."""

from __future__ import annotations

import asyncio
import csv
import io
from collections.abc import Awaitable, Callable
from typing import Any, cast

import pytest

from galilean.errors import UserError
from galilean.hubapi import HubAPI
from hub_config import people_commands
from hub_config.authenticator import hashing_threads
from services.people.importing import AT_ONCE, Line


class Hub:
    """Answers when the test lets it."""

    def __init__(self, answer: Callable[[dict[str, Any]], Awaitable[None]]) -> None:
        self.answer = answer
        self.asked: list[str] = []
        self.under_way = self.most = 0

    async def request(self, method: str, path: str, *, json: dict[str, Any]) -> dict[str, Any]:
        self.asked.append(json.get("name", path))
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        try:
            await self.answer(json)
        finally:
            self.under_way -= 1
        return {}


def people(count: int) -> list[Line]:
    return [Line(number=number + 2, name=f"s{number:03}") for number in range(count)]


async def imported(hub: Hub, lines: list[Line]) -> int:
    return await people_commands.work(cast(HubAPI, hub), lines)


def table(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


async def test_several_are_made_at_once_and_printed_in_the_order_of_the_table(
    capsys: pytest.CaptureFixture[str],
) -> None:
    async def last_come_first_served(body: dict[str, Any]) -> None:
        for _ in range(40 - int(body["name"][1:])):
            await asyncio.sleep(0)
        if body["name"] == "s003":
            raise UserError(409, "There is an account already.")

    hub = Hub(last_come_first_served)
    assert await imported(hub, people(12)) == 1
    rows = table(capsys.readouterr().out)
    assert hub.most == AT_ONCE
    assert [row["name"] for row in rows] == [f"s{number:03}" for number in range(12)]
    assert [row["outcome"] for row in rows] == ["made"] * 3 + ["failed"] + ["made"] * 8
    assert [bool(row["password"]) for row in rows] == [True] * 3 + [False] + [True] * 8


async def test_one_that_is_broken_off_still_prints_the_passwords_that_were_made(
    capsys: pytest.CaptureFixture[str],
) -> None:
    never, busy = asyncio.Event(), asyncio.Event()

    async def some(body: dict[str, Any]) -> None:
        if body["name"] == f"s{AT_ONCE + 1:03}":
            busy.set()  # two are made, the others are under way
        if body["name"] > "s001":
            await never.wait()

    hub = Hub(some)
    task = asyncio.create_task(imported(hub, people(9)))
    await asyncio.wait_for(busy.wait(), 10)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    rows = table(capsys.readouterr().out)
    assert [row["outcome"] for row in rows[:3]] == ["made", "made", "new"]
    assert [bool(row["password"]) for row in rows[:3]] == [True, True, False]


async def test_who_waits_is_told_how_far_it_is(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    moments = iter(range(0, 1000, 10))
    progress = people_commands.Progress
    monkeypatch.setattr(
        people_commands,
        "Progress",
        lambda *said, **more: progress(*said, **more, clock=lambda: float(next(moments))),
    )

    async def at_once(body: dict[str, Any]) -> None:
        del body

    await imported(Hub(at_once), people(3))
    assert "2 of 3 people" in capsys.readouterr().err


def test_a_large_machine_hashes_more_passwords_at_once_and_leaves_half_of_it_to_others() -> None:
    assert [hashing_threads(processors) for processors in (None, 1, 2, 4, 16)] == [2, 2, 2, 2, 8]
