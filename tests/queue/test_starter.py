from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any

from sqlalchemy import select, update

from galilean.db import Database
from galilean.errors import UserError
from galilean.hubapi import HubAPI
from services.queue.starter import Starter
from services.queue.store import position
from spawner import records
from spawner.tables import clusters
from tests.metering.rows import T0, add_run


class Clocks:
    def __init__(self) -> None:
        self.seconds = 0.0

    def now(self) -> datetime:
        return T0 + timedelta(seconds=self.seconds)

    def monotonic(self) -> float:
        return self.seconds


class Hub(HubAPI):
    """A hub whose admission has room for so many clusters at once."""

    def __init__(self, db: Database, room: int = 0) -> None:
        super().__init__("http://hub.invalid/hub/api", "token")
        self.db, self.room = db, room
        self.asked: list[str] = []
        self.fault: Callable[[str], UserError | None] = lambda server: None

    async def start(
        self, user: str, server: str, options: dict[str, Any] | None, *, language: str = ""
    ) -> int:
        self.asked.append(server)
        fault = self.fault(server)
        if fault is not None:
            raise fault
        with self.db.write() as conn:
            holding = conn.execute(
                select(clusters.c.id).where(clusters.c.released_at.is_(None), clusters.c.status != "queued")
            ).all()
            if len(holding) >= self.room:
                raise UserError(503, "{text}", reason="queued", text="There is no room just now")
            run = records.open_run(conn, user, server)
            assert run is not None
            conn.execute(update(clusters).where(clusters.c.id == run.id).values(status="running"))
        return 201


def wait_in_line(db: Database, *names: str, **more: Any) -> None:
    with db.write() as conn:
        for number, name in enumerate(names):
            add_run(
                conn,
                f"R-{name}",
                server=name,
                status="queued",
                ready_at=None,
                queued_at=T0 + timedelta(seconds=number),
                **more,
            )


def status(db: Database, name: str) -> str:
    with db.read() as conn:
        return conn.execute(select(clusters.c.status).where(clusters.c.server == name)).scalar_one()


def release(db: Database, name: str) -> None:
    with db.write() as conn:
        conn.execute(
            update(clusters).where(clusters.c.server == name).values(status="released", released_at=T0)
        )


def starter(db: Database, hub: Hub, clocks: Clocks) -> Starter:
    return Starter(db, hub, clock=clocks.now, monotonic=clocks.monotonic)


async def test_they_start_in_their_order_while_there_is_room(db: Database) -> None:
    wait_in_line(db, "a", "b", "c")
    hub, clocks = Hub(db, room=2), Clocks()
    await starter(db, hub, clocks).tick()
    assert hub.asked == ["a", "b", "c"]
    assert [status(db, name) for name in "abc"] == ["running", "running", "queued"]


async def test_who_was_turned_away_is_not_tried_again_until_something_is_given_back(db: Database) -> None:
    wait_in_line(db, "a", "b", "c")
    hub, clocks = Hub(db, room=1), Clocks()
    queue = starter(db, hub, clocks)
    for _ in range(5):
        await queue.tick()
        clocks.seconds += 2
    assert hub.asked == ["a", "b"]
    release(db, "a")
    await queue.tick()
    assert hub.asked == ["a", "b", "b", "c"]
    assert status(db, "b") == "running"


async def test_room_that_appears_by_itself_is_found_within_half_a_minute(db: Database) -> None:
    wait_in_line(db, "a")
    hub, clocks = Hub(db, room=0), Clocks()
    queue = starter(db, hub, clocks)
    await queue.tick()
    hub.room = 1
    clocks.seconds += 31
    await queue.tick()
    assert status(db, "a") == "running"


async def test_another_line_is_not_held_up(db: Database) -> None:
    wait_in_line(db, "big", "small")
    wait_in_line(db, "card", gpu_model="H100")
    hub, clocks = Hub(db, room=9), Clocks()
    hub.fault = lambda server: (
        UserError(503, "{text}", reason="queued", text="no room") if server == "big" else None
    )
    await starter(db, hub, clocks).tick()
    assert [status(db, name) for name in ("big", "small", "card")] == ["queued", "queued", "running"]


async def test_a_hub_that_is_away_ends_nobodys_wait(db: Database) -> None:
    wait_in_line(db, "a", "b")
    hub, clocks = Hub(db, room=9), Clocks()
    hub.fault = lambda server: UserError(503, "{text}", text="The hub does not answer")
    queue = starter(db, hub, clocks)
    for _ in range(20):
        await queue.tick()
        clocks.seconds += 60
    assert "503" in queue.details["hub"]
    assert [status(db, name) for name in "ab"] == ["queued", "queued"]
    hub.fault = lambda server: None
    await queue.tick()
    assert [status(db, name) for name in "ab"] == ["running", "running"]


async def test_a_new_queue_process_goes_on_where_the_old_one_was(db: Database) -> None:
    wait_in_line(db, "a", "b")
    hub, clocks = Hub(db, room=1), Clocks()
    await starter(db, hub, clocks).tick()
    release(db, "a")
    await starter(db, hub, clocks).tick()
    assert [status(db, name) for name in "ab"] == ["released", "running"]


async def test_what_can_never_be_is_closed_with_the_hubs_words_and_the_next_one_starts(db: Database) -> None:
    wait_in_line(db, "a", "b")
    hub, clocks = Hub(db, room=9), Clocks()
    hub.fault = lambda server: (
        UserError(429, "{text}", reason="quota", text="You hold 2 of 2") if server == "a" else None
    )
    await starter(db, hub, clocks).tick()
    with db.read() as conn:
        run = records.get(conn, "R-a")
    assert run is not None
    assert (run.word, run.reason, run.released_at) == ("released", "start_failed", clocks.now())
    assert run.explanation is not None and run.explanation["params"]["text"] == "You hold 2 of 2"
    assert status(db, "b") == "running"


async def test_a_start_that_goes_wrong_again_and_again_does_not_wait_for_ever(db: Database) -> None:
    wait_in_line(db, "a")
    hub, clocks = Hub(db, room=9), Clocks()
    hub.fault = lambda server: UserError(500, "{text}", text="Something went wrong (42)")
    queue = starter(db, hub, clocks)
    for _ in range(200):
        await queue.tick()
        clocks.seconds += 1
    assert len(hub.asked) == 5
    assert status(db, "a") == "released"


async def test_a_cancelled_wait_is_closed_without_the_hub(db: Database) -> None:
    wait_in_line(db, "a")
    with db.write() as conn:
        records.ask_stop(conn, "R-a", reason="asked", asked_by="alice", now=T0)
    hub, clocks = Hub(db, room=9), Clocks()
    await starter(db, hub, clocks).tick()
    assert hub.asked == []
    with db.read() as conn:
        run = records.get(conn, "R-a")
    assert run is not None and (run.word, run.reason, run.stop_asked_by) == ("released", "asked", "alice")


async def test_the_request_is_sent_as_it_was_asked(db: Database) -> None:
    wait_in_line(db, "a", request={"nodes": 2, "cpu_millicores": 1500, "memory_bytes": 2**30})
    sent: list[Any] = []

    class Listening(Hub):
        async def start(self, user, server, options, *, language="") -> int:
            sent.append((user, server, options))
            return await super().start(user, server, options)

    await starter(db, Listening(db, room=1), Clocks()).tick()
    assert sent == [("alice", "a", {"nodes": 2, "cpu": 1.5, "memory": 2**30})]


async def test_positions_count_within_the_line(db: Database) -> None:
    wait_in_line(db, "a", "b", "c")
    wait_in_line(db, "card", gpu_model="H100")
    with db.write() as conn:
        assert [position(conn, f"R-{name}") for name in ("a", "b", "c", "card")] == [1, 2, 3, 1]
        records.ask_stop(conn, "R-a", reason="asked", asked_by="alice", now=T0)
        assert [position(conn, f"R-{name}") for name in ("a", "b", "c")] == [None, 1, 2]
        assert position(conn, "R-nobody") is None


def comes_back(db: Database, name: str, attempt: int) -> None:
    """There was no place for all its nodes in time."""
    with db.write() as conn:
        conn.execute(
            update(clusters)
            .where(clusters.c.server == name)
            .values(status="queued", released_at=None, state={"attempt": attempt})
        )


async def test_who_found_no_place_is_tried_once_more_at_once_then_with_growing_pauses(db: Database) -> None:
    wait_in_line(db, "a")
    hub, clocks = Hub(db, room=9), Clocks()
    queue = starter(db, hub, clocks)
    await queue.tick()
    tried = [0.0]
    for attempt in range(2, 8):
        comes_back(db, "a", attempt)
        while status(db, "a") == "queued":
            await queue.tick()
            clocks.seconds += 2
        tried.append(clocks.seconds - 2)
    pauses = [later - earlier for earlier, later in pairwise(tried)]
    assert pauses == [0.0, 32.0, 62.0, 122.0, 242.0, 302.0]


async def test_who_found_no_place_is_tried_when_something_is_given_back(db: Database) -> None:
    wait_in_line(db, "a", "b")
    hub, clocks = Hub(db, room=9), Clocks()
    queue = starter(db, hub, clocks)
    await queue.tick()
    comes_back(db, "b", 5)
    await queue.tick()
    assert status(db, "b") == "queued"
    release(db, "a")
    await queue.tick()
    assert status(db, "b") == "running"
