from __future__ import annotations

import random
from datetime import UTC, date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Connection, delete, event, func, insert, select, update

import services.catalog.tables  # noqa: F401 - registers the tables
from galilean.amounts import GIB
from galilean.db import Database
from services.metering import work
from services.metering.cells import LEVELS, Calendar, by_day, tiles, us_of
from services.metering.rebuild import FEW, rebuild
from services.metering.reconcile import Reconciler
from services.metering.report import KINDS, Figures, Window, report
from services.metering.rollup import roll_up, state, used_since
from services.metering.tables import BLOCK, run_use, usage_daily
from services.metering.usage import usage
from services.metering.work import Metering
from spawner.tables import cluster_nodes, clusters
from tests.metering.rows import T0, add_node, add_run, at
from tests.metering.test_reconcile import World

BERLIN = ZoneInfo("Europe/Berlin")
NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)


def a_centre(conn: Connection, seed: int = 1, runs: int = 120) -> None:
    """Runs of half a year over changes of the clock: long ones, broken ones, some not over."""
    rng = random.Random(seed)
    for number in range(runs):
        ready = NOW - timedelta(seconds=rng.random() * 86400 * 150, microseconds=rng.randrange(1_000_000))
        user, project = rng.randrange(4), rng.randrange(3)
        alive = rng.random() < 0.1
        longest = 86400 * (20 if rng.random() < 0.1 else 1)
        ends: list[datetime] = []
        lives = []
        for rank in range(rng.choice([1, 1, 2, 3])):
            start = ready + timedelta(seconds=rng.random() * 100)
            gone = min(start + timedelta(seconds=rng.random() * longest), NOW)
            lives.append((rank, 1, start, None if alive and rank == 0 else gone))
            if rng.random() < 0.1 and not alive:  # a node that came back
                lives.append((rank, 2, gone + timedelta(hours=1), gone + timedelta(hours=2, microseconds=1)))
            ends += [end for *_, end in lives if end]
        add_run(
            conn, f"R{number:05}", user=f"u{user}", project_id=f"P{user}{project}", project_name=f"Name {project}",
            project_owner=f"u{user}", project_slug=f"p{project}", environment=rng.choice(["jupyter", "torch"]),
            pool=rng.choice(["default", "gpu"]), role=rng.choice(["student", "teacher"]), nodes=3,
            cpu_millicores=rng.choice([500, 2000, 3333]), memory_bytes=rng.choice([GIB, 8 * GIB, 3_000_000_001]),
            gpu=rng.choice([0, 1]), queued_at=ready, ready_at=ready,
            released_at=None if alive else max(ends), status="running" if alive else "released",
        )  # fmt: skip
        for rank, attempt, start, gone in lives:
            add_node(conn, f"R{number:05}", rank, start, gone, attempt=attempt)
        if rng.random() < 0.5:
            conn.execute(
                run_use.insert().values(
                    cluster_id=f"R{number:05}", day=ready.toordinal(), measured_us=10**9, cpu_used_us=rng.randrange(10**9),
                    memory_kib_s=rng.randrange(10**9), gpu_used_us=0, idle_us=rng.randrange(10**9), gpu_idle_us=0,
                )
            )  # fmt: skip


def whole(figures: Figures) -> dict[str, int]:
    return {name: getattr(figures, name) for name in Figures.__dataclass_fields__}


def the_roll_up(conn: Connection) -> set[tuple[int, ...]]:
    return {tuple(row) for row in conn.execute(select(usage_daily))}


@given(st.integers(700_000, 740_000), st.integers(0, 3000))
def test_tiles_cover_each_day_of_a_window_once_and_are_few(first: int, days: int) -> None:
    covered: list[int] = []
    found = tiles(first, first + days)
    for tile in found:
        level, day = divmod(tile, BLOCK)
        assert day % LEVELS[level] == 0
        covered += range(day, day + LEVELS[level])
    assert covered == list(range(first, first + days))
    assert len(found) <= 24 + 15


@pytest.mark.parametrize(
    ("day", "hours"), [(date(2026, 3, 28), 24), (date(2026, 3, 29), 23), (date(2026, 10, 25), 25)]
)
def test_a_day_has_the_hours_that_the_clocks_gave_it(day: date, hours: int) -> None:
    calendar = Calendar(BERLIN)
    start = us_of(datetime(day.year, day.month, day.day, tzinfo=BERLIN).astimezone(UTC)) - 10
    days = by_day([(start, start + 3 * 86_400_000_000)], calendar)
    assert days[day.toordinal() - 1].wall_us == 10
    assert days[day.toordinal()].wall_us == days[day.toordinal()].node_us == hours * 3_600_000_000


def test_rolled_up_or_not_every_breakdown_is_that_of_the_ledger(db: Database) -> None:
    windows = [
        (None, None),
        (date(2026, 3, 27), date(2026, 3, 31)),
        (date(2026, 1, 15), date(2026, 5, 2)),
        (date(2026, 5, 31), date(2026, 6, 1)),
    ]
    with db.write() as conn:
        a_centre(conn)
    for step in (0, 17, 1000):
        with db.write() as conn:
            if step:
                assert roll_up(conn, zone=BERLIN, now=NOW, limit=step) >= min(step, 17)
        with db.read() as conn:
            for first, last in windows:
                cut = {
                    "start": first and datetime(first.year, first.month, first.day, tzinfo=BERLIN).astimezone(UTC),
                    "end": last
                    and (datetime(last.year, last.month, last.day, tzinfo=BERLIN) + timedelta(days=1)).astimezone(UTC),
                }  # fmt: skip
                totals = []
                for by in KINDS:
                    for filters in ({}, {"user": "u1"}, {"pool": "gpu"}):
                        found = report(
                            conn,
                            by=by,
                            window=Window(first=first, last=last),
                            zone=BERLIN,
                            now=NOW,
                            **filters,
                        )  # type: ignore[arg-type]
                        if not filters:
                            totals.append(whole(found.total))
                        if by in ("user", "project", "day", "pool"):
                            plain = usage(conn, by=by, zone=BERLIN, now=NOW, **cut, **filters)  # type: ignore[arg-type]
                            assert [
                                (row.key, row.label, row.seconds, row.cpu_core_minutes, row.memory_gb_minutes,
                                 row.gpu_card_minutes)
                                for row in sorted(plain, key=lambda row: row.key)
                            ] == [
                                (line.key, line.label, line.seconds, line.cpu_core_minutes, line.memory_gb_minutes,
                                 line.gpu_card_minutes)
                                for line in sorted(found.lines, key=lambda line: line.key)
                                if line.node_us
                            ]  # fmt: skip
                # To the microsecond, whatever it is broken down by.
                assert all(total == totals[0] for total in totals)
                assert totals[0]["node_us"] > 0


def test_a_rebuild_is_what_was_added_up_as_runs_finished(db: Database) -> None:
    with db.write() as conn:
        a_centre(conn, seed=2)
        while roll_up(conn, zone=BERLIN, now=NOW, limit=7):
            pass
        added = the_roll_up(conn)
        assert added
        conn.execute(update(clusters).where(clusters.c.id == "R00003").values(rolled_up=False))
        generation = state(conn).generation
    rebuilt = rebuild(db, zone=BERLIN, now=NOW)
    again = rebuild(db, zone=BERLIN, now=NOW)
    assert rebuilt == again
    with db.read() as conn:
        assert the_roll_up(conn) == added
        assert state(conn).generation == generation + 2
        assert state(conn).zone == "Europe/Berlin"
        open_runs = conn.execute(
            select(func.count()).select_from(clusters).where(clusters.c.released_at.is_(None))
        ).scalar()
        live = conn.execute(select(func.count()).select_from(clusters).where(~clusters.c.rolled_up)).scalar()
        assert live == open_runs


def test_a_rebuild_mends_rows_that_are_wrong_gone_or_of_nothing_and_leaves_the_others(db: Database) -> None:
    with db.write() as conn:
        a_centre(conn, seed=2)
    rebuild(db, zone=BERLIN, now=NOW)
    with db.write() as conn:
        right = the_roll_up(conn)
        (wrong, gone, *_), key = sorted(right), usage_daily.c
        conn.execute(
            update(usage_daily)
            .where(key.block == wrong[0], key.key_id == wrong[1])
            .values(wall_us=key.wall_us + 1)
        )
        conn.execute(delete(usage_daily).where(key.block == gone[0], key.key_id == gone[1]))
        conn.execute(insert(usage_daily).values((1, *gone[1:])))
    rebuilt = rebuild(db, zone=BERLIN, now=NOW)
    with db.read() as conn:
        assert the_roll_up(conn) == right
        assert rebuilt.rows == len(right) > 3 / FEW


def test_a_rebuild_comes_through_while_somebody_reads_for_long(db: Database) -> None:
    with db.write() as conn:
        a_centre(conn, seed=2)
    rebuild(db, zone=BERLIN, now=NOW)
    with db.read() as reader:
        before = the_roll_up(reader)
        rebuild(db, zone=UTC, now=NOW)
    with db.write() as conn:
        assert the_roll_up(conn) != before
        conn.execute(update(clusters).values(rolled_up=False))
        conn.execute(delete(usage_daily))
        while roll_up(conn, zone=UTC, now=NOW):
            pass
        fresh = the_roll_up(conn)
    rebuild(db, zone=UTC, now=NOW)
    with db.read() as conn:
        assert the_roll_up(conn) == fresh


async def test_so_many_that_wait_are_taken_up_at_once(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    with db.write() as conn:
        a_centre(conn, seed=2)
    monkeypatch.setattr(work, "BATCH", 2)
    monkeypatch.setattr(work, "MANY", 3)

    class Nothing(Reconciler):
        async def tick(self) -> None:
            pass

    metering = Metering(db, Nothing(db, World()), zone=BERLIN, clock=lambda: NOW)
    await metering.tick()
    with db.read() as conn:
        assert state(conn).generation == 2  # a few, and then everything
        taken = the_roll_up(conn)
    rebuild(db, zone=BERLIN, now=NOW)
    with db.read() as conn:
        assert the_roll_up(conn) == taken


def test_a_rebuild_by_another_zone_moves_what_was_used_to_its_days(db: Database) -> None:
    with db.write() as conn:
        add_run(conn, "R1", released_at=at(1200), ready_at=at(0))
        add_node(conn, "R1", 0, at(840), at(1000))  # 23:00 to 01:40 by UTC
    rebuild(db, zone=UTC, now=at(2000))
    with db.read() as conn:
        days = report(conn, by="day", zone=UTC, now=at(2000)).lines
        assert [(line.key, line.seconds) for line in days] == [("2026-03-02", 3600), ("2026-03-03", 6000)]
    shanghai = ZoneInfo("Asia/Shanghai")
    rebuild(db, zone=shanghai, now=at(2000))
    with db.read() as conn:
        days = report(conn, by="day", zone=shanghai, now=at(2000)).lines
        assert [(line.key, line.seconds) for line in days] == [("2026-03-03", 9600)]


def test_a_run_is_taken_up_only_when_every_node_of_it_has_an_end(db: Database) -> None:
    with db.write() as conn:
        add_run(conn, "R1", released_at=at(60))
        add_node(conn, "R1", 0, at(0), at(60))
        add_node(conn, "R1", 1, at(0))
        add_node(conn, "R1", 2, None)
        add_run(conn, "R2")
        add_node(conn, "R2", 0, at(0), at(5))
        assert roll_up(conn, zone=UTC, now=at(100)) == 0
        late = cluster_nodes.c.gone_at.is_(None) & (cluster_nodes.c.rank == 1)
        conn.execute(update(cluster_nodes).where(late).values(gone_at=at(30)))
        assert roll_up(conn, zone=UTC, now=at(100)) == 1
        assert roll_up(conn, zone=UTC, now=at(100)) == 0
        total = report(conn, by="project", zone=UTC, now=at(100)).total
        assert (total.wall_us, total.node_us) == ((60 + 5) * 60_000_000, (60 + 30 + 5) * 60_000_000)


def test_what_nothing_in_the_product_can_hold_does_not_leave_64_bits(db: Database) -> None:
    with db.write() as conn:
        for number in range(4):
            add_run(
                conn, f"R{number}", cpu_millicores=1_000_000, memory_bytes=24 * 2**40, gpu=64, released_at=NOW
            )
            for rank in range(256):
                add_node(conn, f"R{number}", rank, T0, NOW)
        roll_up(conn, zone=UTC, now=NOW)
        total = report(conn, by="user", zone=UTC, now=NOW).total
        length = us_of(NOW) - us_of(T0)
        assert total.cpu == 4 * 256 * length * 1_000_000
        assert total.memory == 4 * 256 * length * 24 * 2**40 > 2**64
        assert total.gpu == 4 * 256 * length * 64


def test_a_clock_that_was_set_back_hides_nothing_and_counts_nothing_twice(db: Database) -> None:
    with db.write() as conn:
        add_run(conn, "R1", released_at=at(2 * 1440))
        add_node(conn, "R1", 0, at(0), at(60))
        add_run(conn, "R2")
        add_node(conn, "R2", 0, at(30))  # ready after what the clock says now
        roll_up(conn, zone=UTC, now=at(-600))
        found = report(conn, by="day", zone=UTC, now=at(-600))
        assert [(line.key, line.seconds) for line in found.lines] == [("2026-03-02", 3600)]


def test_budgets_are_told_what_a_person_booked_since_a_day_began(db: Database) -> None:
    with db.write() as conn:
        add_run(conn, "R1", released_at=at(2000))  # 2 cores, 1 card
        add_node(conn, "R1", 0, at(-1440), at(840))  # the day before, and this one until 23:00
        add_run(conn, "R2", user="bob")
        add_node(conn, "R2", 0, at(0))
        add_run(conn, "R3")
        add_node(conn, "R3", 0, at(60))
        add_node(conn, "R3", 1, at(60), at(90))
        for _ in range(2):  # live, then rolled up
            used = used_since(conn, "alice", date(2026, 3, 2), zone=UTC, now=at(120))
            assert used.core_milli_hours == 2 * (9 + 14 if _ else 9 + 2) * 1000 + 2 * 1500
            assert used.gpu_milli_hours == (9 + 14 if _ else 9 + 2) * 1000 + 1500
            roll_up(conn, zone=UTC, now=at(120))
        everything = used_since(conn, "alice", date(2020, 1, 1), zone=UTC, now=at(120))
        assert everything.core_milli_hours == 2 * (24 + 14) * 1000 + 2 * 1500


def test_projects_stay_under_their_latest_name_when_they_are_gone(db: Database) -> None:
    with db.write() as conn:
        add_run(conn, "R1", released_at=at(10), project_name="Old")
        add_node(conn, "R1", 0, at(0), at(10))
        add_run(conn, "R2", released_at=at(20), project_name="New")
        add_node(conn, "R2", 0, at(10), at(20))
        roll_up(conn, zone=UTC, now=at(30), limit=1)
        roll_up(conn, zone=UTC, now=at(30), limit=1)
        (line,) = report(conn, by="project", zone=UTC, now=at(30), live=lambda _conn, _ids: set()).lines
        assert (line.label, line.deleted, line.first_start) == ("New", True, at(0))
        conn.execute(delete(usage_daily))
        assert report(conn, by="project", zone=UTC, now=at(30), live=lambda _conn, _ids: set()).lines == []


def test_what_a_person_used_is_one_state_also_while_runs_are_taken_up(db: Database) -> None:
    """A run that is taken up between two statements would be in none of them, or in both."""
    with db.write() as conn:
        for run in ("R1", "R2"):
            add_run(conn, run, gpu=0, status="released", released_at=at(60))
            add_node(conn, run, 0, T0, at(60))
        add_run(conn, "R3", gpu=0)
        add_node(conn, "R3", 0, at(30))
        assert roll_up(conn, zone=UTC, now=at(60), limit=1) == 1
    first = T0.date()
    with db.read() as conn:
        before = used_since(conn, "alice", first, zone=UTC, now=at(90))
    assert before.core_milli_hours == 3 * 2000
    with db.read() as conn:
        state(conn)  # the reading has begun
        taken: list[int] = []

        def meanwhile(*_: Any) -> None:
            if not taken:
                with db.write() as other:
                    taken.append(roll_up(other, zone=UTC, now=at(60)))

        event.listen(conn, "after_cursor_execute", meanwhile)
        assert used_since(conn, "alice", first, zone=UTC, now=at(90)) == before
    assert taken == [1]
    with db.read() as conn:
        assert used_since(conn, "alice", first, zone=UTC, now=at(90)) == before
