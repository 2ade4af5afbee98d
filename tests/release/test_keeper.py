from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import JSON, update

from galilean import notices
from galilean.db import Database
from galilean.errors import UserError
from services.release import schedules
from services.release.calendar import Schedule
from services.release.keeper import Keeper
from services.release.rules import Rules, SiteRule
from services.release.tables import schedules as schedules_table
from services.release.terms import Terms
from spawner import records
from tests.metering.rows import T0, add_run, at
from tests.release.test_rounds import World
from tests.release.worlds import Clocks, Hub

#: T0 is a Monday, 9:00 UTC.
NINE = 540


class StartingHub(Hub):
    """Starts clusters, unless it is told to refuse."""

    def __init__(self, db: Database, clocks: Clocks) -> None:
        super().__init__(db, clocks)
        self.starts: list[tuple[str, str, Any]] = []
        self.refuses: UserError | None = None
        self.terms = Terms(policy="auto", extend_seconds=10 * 3600)

    async def start(self, user: str, server: str, options: Any, *, language: str = "") -> int:
        self.starts.append((user, server, options))
        if self.refuses is not None:
            raise self.refuses
        now = self.clocks.now()
        with self.db.write() as conn:
            add_run(
                conn, f"N{len(self.starts)}", user=user, server=server, queued_at=now, ready_at=now,
                release_terms=self.terms.to_json(),
            )  # fmt: skip
        return 201


def made(db: Database, **values: Any) -> Schedule:
    known: dict[str, Any] = {
        "id": "", "user": "alice", "project_id": "P1", "weekdays": (0,), "ready_minute": NINE + 10,
        "release_minute": NINE + 250, "zone": "UTC", "created_at": T0,
        "request": {"project": "alice/heat", "name": "Heat", "server": "heat", "options": {"nodes": 2}},
    }  # fmt: skip
    with db.write() as conn:
        return schedules.create(conn, Schedule(**{**known, **values}))


async def rounds(keeper: Keeper, clocks: Clocks, seconds: float, *, holidays: tuple[str, ...] = ()) -> None:
    until = clocks.seconds + seconds
    while clocks.seconds < until:
        clocks.seconds += 15
        await keeper.keep(Rules(site=SiteRule(holidays=holidays)))
        await keeper.settle()


def world(db: Database) -> tuple[StartingHub, Keeper, Clocks]:
    clocks = Clocks()
    hub = StartingHub(db, clocks)
    return hub, Keeper(db, hub, clock=clocks.now), clocks


def told(db: Database) -> list[notices.Notice]:
    with db.read() as conn:
        return notices.list_for(conn, "alice")


async def test_a_schedule_starts_in_time_once_with_its_options_and_holds_until_its_end(db: Database) -> None:
    hub, keeper, clocks = world(db)
    one = made(db)
    await rounds(keeper, clocks, 525)
    assert hub.starts == []
    await rounds(keeper, clocks, 600)
    assert hub.starts == [("alice", "heat", {"nodes": 2, "project": "alice/heat"})]
    with db.read() as conn:
        kept = schedules.get(conn, one.id, "alice")
    assert (kept.done_day, kept.run_id, kept.problem) == ("2026-03-02", "N1", None)
    assert hub.run("N1").extended_until == at(250)
    assert told(db) == []


async def test_what_may_be_held_unattended_is_what_one_might_extend(sqlite_db: Database) -> None:
    hub, keeper, clocks = world(sqlite_db)
    hub.terms = Terms(policy="auto", extend_seconds=7200)
    made(sqlite_db)
    await rounds(keeper, clocks, 1200)
    run = hub.run("N1")
    assert run.extended_until is not None and run.ready_at is not None
    assert run.extended_until - run.ready_at <= timedelta(seconds=7230)


async def test_the_last_start_says_how_early_to_begin(db: Database) -> None:
    hub, keeper, clocks = world(db)
    made(db)
    with db.write() as conn:
        add_run(
            conn,
            "OLD",
            server="x",
            status="released",
            queued_at=at(-60),
            ready_at=at(-57),
            released_at=at(-5),
        )
    await rounds(keeper, clocks, 390)
    assert hub.starts == []
    await rounds(keeper, clocks, 30)
    assert len(hub.starts) == 1


async def test_a_cluster_that_is_there_already_is_taken_as_the_schedules(sqlite_db: Database) -> None:
    hub, keeper, clocks = world(sqlite_db)
    one = made(sqlite_db)
    with sqlite_db.write() as conn:
        add_run(conn, "R1", server="heat", release_terms=Terms(policy="auto", extend_seconds=99999).to_json())
    await rounds(keeper, clocks, 600)
    with sqlite_db.read() as conn:
        assert schedules.get(conn, one.id, "alice").run_id == "R1"
    assert hub.starts == [] and hub.run("R1").extended_until == at(250)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (UserError(429, "{text}", text="Your quota is used up", reason="quota"), "Your quota is used up"),
        (UserError(404, "{text}", text="No such project"), "No such project"),
        (UserError(403, "{text}", text="Your account waits for a role"), "waits for a role"),
    ],
)
async def test_what_cannot_be_is_told_once_with_its_reason(
    sqlite_db: Database, error: UserError, words: str
) -> None:
    hub, keeper, clocks = world(sqlite_db)
    one = made(sqlite_db)
    hub.refuses = error
    await rounds(keeper, clocks, 1800)
    assert len(hub.starts) == 1
    (notice,) = told(sqlite_db)
    assert (notice.kind, notice.mail, notice.address) == ("schedule", True, "schedules")
    assert words in notice.params["why"]
    with sqlite_db.read() as conn:
        assert schedules.get(conn, one.id, "alice").problem is not None


async def test_where_there_is_no_room_it_waits_in_line_and_the_person_is_told(sqlite_db: Database) -> None:
    hub, keeper, clocks = world(sqlite_db)
    made(sqlite_db)

    async def queued(user: str, server: str, options: Any, *, language: str = "") -> int:
        with sqlite_db.write() as conn:
            add_run(conn, "Q1", server="heat", status="queued", ready_at=None)
        raise UserError(503, "{text}", text="queued", reason="queued")

    hub.start = queued  # type: ignore[method-assign]
    await rounds(keeper, clocks, 900)
    (notice,) = told(sqlite_db)
    assert "waits in line" in notice.text and notice.cluster_id == "Q1"


async def test_a_hub_that_is_away_is_asked_again_until_it_is_not_worth_it_and_then_it_is_told(
    sqlite_db: Database,
) -> None:
    hub, keeper, clocks = world(sqlite_db)
    made(sqlite_db, release_minute=NINE + 20)
    hub.refuses = UserError(503, "{text}", text="The hub does not answer")
    await rounds(keeper, clocks, 1000)
    assert len(hub.starts) > 5 and len(told(sqlite_db)) == 1
    assert "was away" in told(sqlite_db)[0].text


async def test_holidays_pauses_and_deleted_schedules_start_nothing(sqlite_db: Database) -> None:
    hub, keeper, clocks = world(sqlite_db)
    made(sqlite_db)
    paused, gone = made(sqlite_db, request={"server": "b"}), made(sqlite_db, request={"server": "c"})
    with sqlite_db.write() as conn:
        schedules.change(conn, paused.id, "alice", {"enabled": False}, now=T0)
        schedules.remove(conn, gone.id, "alice")
    await rounds(keeper, clocks, 1200, holidays=("2026-03-02",))
    assert hub.starts == [] and told(sqlite_db) == []


async def test_the_end_of_a_schedule_warns_and_releases(sqlite_db: Database) -> None:
    it = World(sqlite_db, "manual")
    one = made(sqlite_db, ready_minute=NINE, release_minute=NINE + 60, created_at=at(-60))
    with sqlite_db.write() as conn:
        schedules.note_done(conn, one.id, T0.date(), run_id="R1")
    await it.pass_(2970, step=30)
    assert it.told == [] and it.run.release_why == "schedule"
    await it.pass_(40, step=10)
    assert it.kinds() == ["warning"]
    await it.pass_(600, step=20)
    assert it.run.reason == "schedule" and it.kinds() == ["warning", "released"]


@pytest.mark.parametrize(
    "values",
    [
        {"weekdays": ()}, {"weekdays": (7,)}, {"weekdays": (0, 0)}, {"ready_minute": 1440}, {"ready_minute": -1},
        {"release_minute": NINE + 10}, {"zone": "Mars/Olympus"}, {"first_day": "soon"}, {"last_day": "2026-02-30"},
        {"first_day": "2026-03-03", "last_day": "2026-03-02"},
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused(sqlite_db: Database, values: dict[str, Any]) -> None:
    with pytest.raises(UserError) as refused:
        made(sqlite_db, **values)
    assert refused.value.status == 400


def test_nobody_sees_or_changes_what_is_not_theirs_and_one_person_has_so_many(sqlite_db: Database) -> None:
    one = made(sqlite_db)
    with sqlite_db.write() as conn:
        for act in (schedules.get, schedules.remove):
            with pytest.raises(UserError) as refused:
                act(conn, one.id, "bob")
            assert refused.value.status == 404
    for _ in range(schedules.MOST - 1):
        made(sqlite_db)
    with pytest.raises(UserError) as refused:
        made(sqlite_db)
    assert refused.value.status == 409


def test_a_change_of_hours_counts_from_now_and_one_of_the_end_holds_for_what_runs(
    sqlite_db: Database,
) -> None:
    one = made(sqlite_db)
    with sqlite_db.write() as conn:
        schedules.note_done(conn, one.id, T0.date(), run_id="R1")
        later = schedules.change(conn, one.id, "alice", {"release_minute": 1200}, now=at(30))
        assert (later.run_id, later.done_day) == ("R1", "2026-03-02")
        other = schedules.change(conn, one.id, "alice", {"ready_minute": 700}, now=at(30))
        assert (other.run_id, other.done_day, other.created_at) == ("", "", at(30))


async def test_two_processes_that_overlap_start_one_cluster(sqlite_db: Database) -> None:
    hub, keeper, clocks = world(sqlite_db)
    other = Keeper(sqlite_db, hub, clock=clocks.now)
    made(sqlite_db)
    for _ in range(60):
        clocks.seconds += 15
        for one in (keeper, other):
            await one.keep(Rules())
            await one.settle()
    assert len(hub.starts) == 1
    with sqlite_db.read() as conn:
        assert records.count_open(conn, user="alice") == 1


@pytest.mark.parametrize(
    "broken", [{"zone": "Mars/Olympus"}, {"weekdays": JSON.NULL}, {"weekdays": 3}, {"request": []}]
)
async def test_a_schedule_that_cannot_be_read_keeps_no_other_from_its_hour(
    db: Database, broken: dict[str, Any]
) -> None:
    hub, keeper, clocks = world(db)
    bad, good = made(db), made(db, user="bob")
    with db.write() as conn:
        conn.execute(update(schedules_table).where(schedules_table.c.id == bad.id).values(broken))
    await rounds(keeper, clocks, 600)
    assert {user for user, _, _ in hub.starts} >= {"bob"}
    with db.read() as conn:
        assert schedules.get(conn, good.id, "bob").run_id
        assert good.id in {one.id for one in schedules.list_all(conn)}


async def test_a_schedule_that_cannot_be_read_stops_no_release(db: Database) -> None:
    it = World(db)
    bad = made(db, user="bob")
    with db.write() as conn:
        schedules.note_done(conn, bad.id, T0.date(), run_id="R9")
        conn.execute(
            update(schedules_table).where(schedules_table.c.id == bad.id).values(zone="Mars/Olympus")
        )
    await it.pass_(400)
    assert it.run.reason == "left"


async def test_what_somebody_pressed_does_not_wait_for_what_somebody_planned(sqlite_db: Database) -> None:
    class Broken(Keeper):
        async def keep(self, rules: Rules) -> None:
            raise RuntimeError("no")

    it = World(sqlite_db, "manual")
    it.service.keeper = Broken(sqlite_db, it.hub, clock=it.clocks.now)
    with sqlite_db.write() as conn:
        records.ask_stop(conn, "R1", reason="user", asked_by="alice", now=it.clocks.now())
    it.clocks.seconds += 10
    with pytest.raises(RuntimeError):
        await it.service.tick()
    assert it.run.word == "released"
