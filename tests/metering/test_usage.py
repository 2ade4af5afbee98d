from __future__ import annotations

import random
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import insert, update

from galilean.amounts import GIB
from galilean.db import Database
from services.catalog.tables import projects, volumes
from services.metering.usage import (
    days_between,
    microseconds,
    spans_of,
    union_microseconds,
    usage,
    usage_of,
)
from spawner import records
from spawner.tables import clusters
from tests.metering.rows import T0, add_node, add_run, at


@dataclass
class Life:
    ready_at: datetime | None
    gone_at: datetime | None = None


@dataclass
class Size:
    cpu_millicores: int = 2000
    memory_bytes: int = 8 * GIB
    gpu: int = 1


@pytest.mark.parametrize(
    ("lives", "seconds", "cpu", "memory", "gpu"),
    [
        pytest.param([Life(at(0), at(44))], 2640, 88, 352, 44, id="the requirement's own example"),
        pytest.param(
            [Life(at(0), at(44))] * 2, 2640, 176, 704, 88, id="two nodes double resources, not time"
        ),
        pytest.param([Life(at(0))], 3600, 120, 480, 60, id="a living node counts until now"),
        pytest.param([Life(None)], 0, 0, 0, 0, id="never ready costs nothing"),
        pytest.param([Life(at(5), at(5))], 0, 0, 0, 0, id="gone at once"),
        pytest.param([Life(at(5), at(4))], 0, 0, 0, 0, id="a clock that jumped back counts nothing"),
        pytest.param([Life(at(61))], 0, 0, 0, 0, id="ready after now"),
        pytest.param([Life(at(0), at(10)), Life(at(20), at(30))], 1200, 40, 160, 20, id="a gap is not time"),
        pytest.param([Life(at(0), at(20)), Life(at(10), at(30))], 1800, 80, 320, 40, id="an overlap is once"),
        pytest.param([Life(at(0), at(30)), Life(at(10), at(20))], 1800, 80, 320, 40, id="one inside another"),
        pytest.param([Life(at(0), at(0, seconds=1))], 1, 2 / 60, 8 / 60, 1 / 60, id="one second"),
    ],
)
def test_usage_of_one_run(lives: list[Life], seconds: int, cpu: float, memory: float, gpu: float) -> None:
    found = usage_of(lives, Size(), now=at(60))
    assert found.seconds == seconds
    assert found.cpu_core_minutes == pytest.approx(cpu)
    assert found.memory_gb_minutes == pytest.approx(memory)
    assert found.gpu_card_minutes == pytest.approx(gpu)


def test_only_what_lies_within_the_window_counts() -> None:
    found = usage_of([Life(at(0), at(60))], Size(), now=at(90), start=at(10), end=at(30))
    assert (found.seconds, found.cpu_core_minutes) == (1200, 40)


moments = st.integers(0, 200).map(lambda seconds: T0 + timedelta(seconds=seconds))


@given(st.lists(st.tuples(moments, moments), max_size=8))
def test_the_union_counts_each_second_once(spans: list[tuple[datetime, datetime]]) -> None:
    covered = {
        second
        for start, end in spans
        for second in range(int((start - T0).total_seconds()), int((end - T0).total_seconds()))
    }
    assert union_microseconds(spans) == len(covered) * 1_000_000


@given(st.lists(st.tuples(moments, moments), max_size=6), moments)
def test_cutting_time_in_two_loses_nothing(spans: list[tuple[datetime, datetime]], cut: datetime) -> None:
    lives = [Life(start, end) for start, end in spans]
    late = T0 + timedelta(days=1)
    whole = union_microseconds(spans_of(lives, late))
    parts = [spans_of(lives, late, end=cut), spans_of(lives, late, start=cut)]
    assert whole == sum(map(union_microseconds, parts))


def test_days_have_23_24_or_25_hours_as_the_zone_says() -> None:
    zone = ZoneInfo("Europe/Berlin")
    spring = days_between(datetime(2026, 3, 28, 12, tzinfo=UTC), datetime(2026, 3, 30, 12, tzinfo=UTC), zone)
    autumn = days_between(datetime(2026, 10, 25, 3, tzinfo=UTC), datetime(2026, 10, 25, 4, tzinfo=UTC), zone)
    assert [(day, (end - start) / timedelta(hours=1)) for day, start, end in spring + autumn] == [
        (date(2026, 3, 28), 24),
        (date(2026, 3, 29), 23),
        (date(2026, 3, 30), 24),
        (date(2026, 10, 25), 25),
    ]


def test_where_midnight_does_not_exist_the_day_begins_at_the_jump() -> None:
    zone = ZoneInfo("America/Sao_Paulo")
    (day, begin, end), *_ = days_between(
        datetime(2018, 11, 4, 12, tzinfo=UTC), datetime(2018, 11, 4, 13, tzinfo=UTC), zone
    )
    assert (day, begin, end - begin) == (
        date(2018, 11, 4),
        datetime(2018, 11, 4, 3, tzinfo=UTC),
        timedelta(hours=23),
    )


def test_two_nodes_of_44_minutes_in_the_database(db: Database) -> None:
    with db.write() as conn:
        run = add_run(conn, "R1", nodes=2)
        for rank in (0, 1):
            add_node(conn, run, rank, at(0), at(44))
    with db.read() as conn:
        (row,) = usage(conn, by="project", now=at(100))
        assert (row.seconds, row.cpu_core_minutes, row.memory_gb_minutes, row.gpu_card_minutes) == (
            2640,
            176,
            704,
            88,
        )
        assert row.first_start == at(0)
        (row,) = usage(conn, by="user", user="alice", now=at(100))
        assert (row.key, row.label, row.seconds) == ("alice", "alice", 2640)
        assert usage(conn, by="user", user="bob", now=at(100)) == []
        assert usage(conn, by="project", project_id="P2", now=at(100)) == []


def test_a_run_over_midnight_is_split_at_the_sites_midnight(db: Database) -> None:
    zone = ZoneInfo("Asia/Shanghai")  # its midnight is 16:00 UTC
    start = datetime(2026, 3, 2, 15, 59, 30, tzinfo=UTC)
    with db.write() as conn:
        add_node(conn, add_run(conn, "R1", nodes=2), 0, start, start + timedelta(minutes=2))
        add_node(conn, "R1", 1, start + timedelta(minutes=1), start + timedelta(days=1, minutes=1))
    with db.read() as conn:
        rows = usage(conn, by="day", zone=zone, now=at(10_000))
    assert [(row.key, row.seconds, round(row.gpu_card_minutes * 60)) for row in rows] == [
        ("2026-03-02", 30, 30),
        ("2026-03-03", 86400, 90 + 86400 - 30),
        ("2026-03-04", 30, 30),
    ]


def test_a_deleted_projects_row_stays_marked_and_under_its_latest_name(db: Database) -> None:
    mine = {"id", "owner", "slug", "name", "volume_id", "directory", "created_at", "changed_at"}
    others = [
        c.name for c in projects.c if not c.nullable and c.server_default is None and c.name not in mine
    ]
    with db.write() as conn:
        conn.execute(insert(volumes).values(id="v", kind="directory", path="/v", created_at=T0))
        for project_id, deleted_at in (("P1", None), ("P2", at(99))):
            conn.execute(
                insert(projects).values(
                    **dict.fromkeys(others, ""),
                    id=project_id,
                    owner="alice",
                    slug=project_id.lower(),
                    name="today's name",
                    volume_id="v",
                    directory=project_id,
                    created_at=T0,
                    changed_at=T0,
                    deleted_at=deleted_at,
                )
            )
        for number, (project_id, name) in enumerate(
            [("P1", "Heat"), ("P2", "Old"), ("P2", "Newer"), ("P3", "Purged")]
        ):
            run = add_run(conn, f"R{number}", project_id=project_id, project_name=name)
            add_node(conn, run, 0, at(0), at(10 - number))
    with db.read() as conn:
        rows = usage(conn, by="project", now=at(200))
    assert [(row.key, row.label, row.deleted, row.seconds) for row in rows] == [
        ("P2", "Newer", True, 17 * 60),
        ("P1", "Heat", False, 600),
        ("P3", "Purged", True, 420),
    ]


def test_nothing_used_gives_no_rows(db: Database) -> None:
    with db.write() as conn:
        add_node(conn, add_run(conn, "R1"), 0, None)
    with db.read() as conn:
        for by in ("project", "user", "day"):
            assert usage(conn, by=by, now=at(10)) == []
            assert usage(conn, by=by, now=at(10), start=at(20)) == []


def test_sums_beyond_64_bits_of_byte_microseconds_are_exact(db: Database) -> None:
    with db.write() as conn:
        add_run(conn, "R1", memory_bytes=2**42, cpu_millicores=256_000)
        add_node(conn, "R1", 0, T0 - timedelta(days=1000), T0)
    with db.read() as conn:
        (row,) = usage(conn, by="user", now=at(0))
    assert row.memory_gb_minutes == 4096 * 1000 * 1440
    assert row.cpu_core_minutes == 256 * 1000 * 1440


@pytest.mark.parametrize("seed", range(4))
def test_the_database_adds_up_what_the_pure_functions_add_up(db: Database, seed: int) -> None:
    rng = random.Random(seed)
    zone = ZoneInfo(rng.choice(["UTC", "Asia/Shanghai", "Europe/Berlin", "America/New_York"]))
    base = datetime(2026, 3, 27, tzinfo=UTC)

    def moment() -> datetime:
        return base + timedelta(microseconds=rng.randrange(5 * 86_400_000_000))

    with db.write() as conn:
        for number in range(40):
            run = add_run(
                conn,
                f"R{number:03}",
                user=rng.choice(["alice", "bob", "热流"]),
                project_id=rng.choice(["P1", "P2"]),
                cpu_millicores=rng.choice([500, 1000, 1333]),
                memory_bytes=rng.choice([GIB, 3 * GIB, 123_456_789]),
                gpu=rng.choice([0, 2]),
            )
            for rank in range(rng.randrange(1, 4)):
                for attempt in range(1, rng.randrange(2, 4)):
                    gone = moment() if rng.random() < 0.9 else None
                    add_node(conn, run, rank, moment() if rng.random() < 0.9 else None, gone, attempt=attempt)
    now, start, end = base + timedelta(days=4.5), base + timedelta(days=0.7), base + timedelta(days=4.2)
    window = rng.choice([{}, {"start": start}, {"end": end}, {"start": start, "end": end}])
    with db.read() as conn:
        runs = [records._run(row) for row in conn.execute(clusters.select()).mappings()]
        lives = records.intervals(conn, [run.id for run in runs])
        for by, key_of in (("user", lambda run: run.user), ("project", lambda run: run.project_id)):
            found = {row.key: row for row in usage(conn, by=by, zone=zone, now=now, **window)}
            for key in {key_of(run) for run in runs}:
                mine = [run for run in runs if key_of(run) == key]
                wall = sum(union_microseconds(spans_of(lives[run.id], now, **window)) for run in mine)
                cards = sum(
                    run.gpu * microseconds(b - a)
                    for run in mine
                    for a, b in spans_of(lives[run.id], now, **window)
                )
                assert found[key].seconds == round(wall / 1_000_000)
                assert found[key].gpu_card_minutes == pytest.approx(cards / 60_000_000, abs=1e-6)
        whole = usage(conn, by="user", user="bob", zone=zone, now=now, **window)
        days = usage(conn, by="day", user="bob", zone=zone, now=now, **window)
        assert sum(row.memory_gb_minutes for row in days) == pytest.approx(whole[0].memory_gb_minutes)
        assert sum(row.seconds for row in days) == pytest.approx(whole[0].seconds, abs=len(days))
        for row in days:
            ((_, a, b),) = days_between(
                t := datetime.combine(date.fromisoformat(row.key), datetime.min.time(), zone),
                t + timedelta(hours=1),
                zone,
            )
            a, b = max(a, window.get("start", a)), min(b, window.get("end", b))
            wall = sum(
                union_microseconds(spans_of(lives[run.id], now, start=a, end=b))
                for run in runs
                if run.user == "bob"
            )
            assert row.seconds == round(wall / 1_000_000)


def test_usage_does_not_change_when_a_project_is_renamed(db: Database) -> None:
    with db.write() as conn:
        add_node(conn, add_run(conn, "R1"), 0, at(0), at(1))
        before = usage(conn, by="project", now=at(9))
        conn.execute(update(clusters).values(project_name="热流"))
        after = usage(conn, by="project", now=at(9))
    assert (before[0].seconds, before[0].label, after[0].seconds, after[0].label) == (60, "Heat", 60, "热流")
