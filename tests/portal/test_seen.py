"""Noting that somebody is on a page of the portal."""

from __future__ import annotations

from datetime import datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from galilean.db import Database
from services.portal.seen import Seen
from services.release import store
from tests.metering.rows import T0


class Fixture:
    def __init__(self, db: Database) -> None:
        self.now, self.db = T0, db
        self.broken = 0
        self.seen = Seen(SimpleNamespace(db=self, clock=lambda: self.now))  # type: ignore[arg-type]
        self.wrote: list[datetime] = []

    async def run(self, function: Any, *args: Any, **words: Any) -> Any:
        """As the database's; it may be away."""
        if self.broken:
            self.broken -= 1
            raise OSError("the database is away")
        self.wrote.append(self.now)
        return await self.db.run(function, *args, **words)


@pytest.fixture
def fixture(sqlite_db: Database) -> Fixture:
    return Fixture(sqlite_db)


async def test_it_is_written_each_half_minute(fixture: Fixture) -> None:
    for second in (0, 10, 29, 31, 40):
        fixture.now = T0 + timedelta(seconds=second)
        await fixture.seen.note("alice")
    assert [(at - T0).total_seconds() for at in fixture.wrote] == [0, 31]


async def test_a_page_from_before_the_sign_out_keeps_no_new_one_from_being_noted(fixture: Fixture) -> None:
    old = fixture.now
    with fixture.db.write() as conn:
        store.signed_out(conn, "alice", T0 + timedelta(seconds=1))
    for second in range(10, 130, 31):  # the old page is always a moment earlier
        fixture.now = T0 + timedelta(seconds=second)
        await fixture.seen.note("alice", since=old)
        await fixture.seen.note("alice")
        with fixture.db.read() as conn:
            assert store.last_anywhere(conn, ["alice"]) == {"alice": fixture.now}


async def test_what_could_not_be_written_is_written_by_the_next_page(fixture: Fixture) -> None:
    fixture.broken = 1
    await fixture.seen.note("alice")
    await fixture.seen.note("alice")
    assert fixture.wrote == [T0]
