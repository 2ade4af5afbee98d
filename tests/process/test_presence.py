"""Presence: who counts, and how it is told."""

from __future__ import annotations

import asyncio
import logging
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from spawner.node.place import Place
from spawner.node.presence import Presence, Reporter

PLACE = Place(run="01RUN", server="heat", nodes=2, rank=1, prefix="/user/a/heat/", portal_url="http://portal")


class Clock:
    def __init__(self) -> None:
        self.now = datetime(2026, 3, 1, 12, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now


class Socket:
    ws_connection: object | None = object()


class Portal:
    def __init__(self) -> None:
        self.told: list[dict[str, Any]] = []
        self.away = False

    async def __call__(self, body: dict[str, Any]) -> None:
        if self.away:
            raise ConnectionRefusedError("away")
        self.told.append(body)


class Turns:
    """Pauses that take no time: the clock moves instead, and the test acts at each turn."""

    def __init__(self, clock: Clock, acts: list[Any]) -> None:
        self.clock, self.acts = clock, acts

    async def __call__(self, seconds: float) -> None:
        self.clock.now += timedelta(seconds=seconds)
        if not self.acts:
            raise asyncio.CancelledError
        act = self.acts.pop(0)
        if act is not None:
            act()
        await asyncio.sleep(0)


async def reports(clock: Clock, presence: Presence, portal: Portal, acts: list[Any]) -> None:
    reporter = Reporter(presence, PLACE, portal, log=logging.getLogger("test"), pause=Turns(clock, acts))
    with pytest.raises(asyncio.CancelledError):
        await reporter.run()


async def test_an_open_websocket_counts_until_it_is_closed() -> None:
    presence, socket = Presence(), Socket()
    assert presence.open_sockets() == 0
    presence.seen(socket)
    assert presence.open_sockets() == 1
    socket.ws_connection = None
    assert presence.open_sockets() == 0


async def test_reports_say_run_rank_time_and_open_websockets() -> None:
    clock, portal = Clock(), Portal()
    presence = Presence(clock)
    presence.seen()
    await reports(clock, presence, portal, [])
    assert portal.told == [
        {"server": "heat", "run": "01RUN", "rank": 1, "seen_at": "2026-03-01T12:00:00+00:00", "open": 0}
    ]


async def test_many_requests_are_one_report_in_half_a_minute() -> None:
    clock, portal = Clock(), Portal()
    presence = Presence(clock)
    presence.seen()
    await reports(clock, presence, portal, [presence.seen] * 12)
    assert [report["seen_at"][11:19] for report in portal.told] == ["12:00:00", "12:00:30", "12:01:00"]


async def test_an_open_page_without_requests_is_told_again_and_again() -> None:
    clock, portal, socket = Clock(), Portal(), Socket()
    presence = Presence(clock)
    presence.seen(socket)
    await reports(clock, presence, portal, [None] * 12)
    assert [(report["seen_at"][11:19], report["open"]) for report in portal.told] == [
        ("12:00:00", 1),
        ("12:00:30", 1),
        ("12:01:00", 1),
    ]


async def test_the_last_moment_of_a_closed_page_is_told_to_within_a_sample() -> None:
    clock, portal, socket = Clock(), Portal(), Socket()
    presence = Presence(clock)
    presence.seen(socket)

    def close() -> None:
        socket.ws_connection = None

    # Then nobody is there and nothing is told any more: it waits, until the limit ends it.
    await asyncio.wait_for(reports(clock, presence, portal, [None, None, close] + [None] * 20), 0.2)
    assert [(report["seen_at"][11:19], report["open"]) for report in portal.told] == [
        ("12:00:00", 1),
        ("12:00:10", 0),
    ]


async def test_a_portal_that_was_away_hears_the_last_sight_when_it_is_back() -> None:
    clock, portal = Clock(), Portal()
    presence = Presence(clock)
    presence.seen()
    portal.away = True

    def back() -> None:
        portal.away = False

    await reports(clock, presence, portal, [None] * 8 + [back] + [None] * 3)
    assert [report["seen_at"][11:19] for report in portal.told] == ["12:00:00"]
