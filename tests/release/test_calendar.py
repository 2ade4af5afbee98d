from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from itertools import islice
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.release.calendar import Schedule, coming, due, missed, moment_of, release_of, window_of

LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)
WORKDAYS = (0, 1, 2, 3, 4)


def schedule(**values: Any) -> Schedule:
    known: dict[str, Any] = {
        "id": "S", "user": "ada", "project_id": "P", "request": {}, "weekdays": WORKDAYS, "ready_minute": 480,
        "release_minute": 1080, "zone": "Asia/Shanghai", "created_at": LONG_AGO,
    }  # fmt: skip
    return Schedule(**{**known, **values})


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@pytest.mark.parametrize(
    ("now", "values", "day"),
    [
        pytest.param("2026-03-01T23:58:59", {}, None, id="more than a minute before eight"),
        pytest.param("2026-03-01T23:59:00", {}, "2026-03-02", id="a minute before"),
        pytest.param("2026-03-02T04:59:59", {}, "2026-03-02", id="until it is half over"),
        pytest.param("2026-03-02T05:00:00", {}, None, id="half over"),
        pytest.param("2026-03-02T00:30:00", {"release_minute": None}, "2026-03-02", id="no end: for an hour"),
        pytest.param("2026-03-02T01:00:00", {"release_minute": None}, None, id="no end: an hour later"),
        pytest.param("2026-03-02T00:00:00", {"enabled": False}, None, id="paused"),
        pytest.param("2026-03-02T00:00:00", {"done_day": "2026-03-02"}, None, id="done already"),
        pytest.param("2026-03-02T00:00:00", {"created_at": utc("2026-03-02T00:30:00")}, None, id="made after it"),
        pytest.param("2026-03-07T00:00:00", {}, None, id="Saturday"),
        pytest.param("2026-03-02T00:00:00", {"first_day": "2026-03-03"}, None, id="not yet"),
        pytest.param("2026-03-02T00:00:00", {"last_day": "2026-03-01"}, None, id="not any more"),
        pytest.param("2026-03-05T00:00:00", {}, None, id="holiday"),
        pytest.param("2026-03-05T00:00:00", {"holidays": False}, "2026-03-05", id="holidays do not matter"),
        pytest.param(
            "2026-03-02T16:10:00", {"ready_minute": 1380, "release_minute": 120}, "2026-03-02", id="over midnight"
        ),
    ],
)  # fmt: skip
def test_when_a_schedule_is_due(now: str, values: dict[str, Any], day: str | None) -> None:
    found = due(schedule(**values), utc(now), ["2026-03-05"])
    assert (None if found is None else found.day.isoformat()) == day


def test_a_start_that_takes_long_begins_earlier() -> None:
    now = utc("2026-03-01T23:52:00")
    assert due(schedule(), now, lead_seconds=60) is None
    assert due(schedule(), now, lead_seconds=600) is not None


@pytest.mark.parametrize(
    ("zone", "day", "minute", "moment"),
    [
        pytest.param("Europe/Berlin", "2026-03-28", 480, "2026-03-28T07:00:00", id="winter"),
        pytest.param("Europe/Berlin", "2026-03-29", 480, "2026-03-29T06:00:00", id="summer time begins"),
        pytest.param(
            "Europe/Berlin", "2026-03-29", 150, "2026-03-29T01:30:00", id="half past two is left out"
        ),
        pytest.param(
            "Europe/Berlin", "2026-10-25", 150, "2026-10-25T00:30:00", id="half past two comes twice"
        ),
        pytest.param("Europe/Berlin", "2026-10-25", 480, "2026-10-25T07:00:00", id="winter again"),
    ],
)
def test_eight_o_clock_is_eight_on_the_wall_also_when_clocks_change(
    zone: str, day: str, minute: int, moment: str
) -> None:
    assert moment_of(date.fromisoformat(day), minute, zone) == utc(moment)


def test_a_window_over_the_change_to_winter_time_is_an_hour_longer() -> None:
    window = window_of(
        schedule(zone="Europe/Berlin", ready_minute=60, release_minute=240), date(2026, 10, 25)
    )
    assert window.release_at is not None
    assert window.release_at - window.ready_at == timedelta(hours=4)


def test_an_end_that_is_not_later_is_on_the_next_day() -> None:
    assert release_of(date(2026, 3, 2), 1380, 120, "UTC") == utc("2026-03-03T02:00:00")


def test_the_next_times_leave_out_weekends_and_holidays() -> None:
    found = islice(coming(schedule(), utc("2026-03-04T12:00:00"), ["2026-03-05"]), 3)
    assert [window.day.isoformat() for window in found] == ["2026-03-06", "2026-03-09", "2026-03-10"]


def test_a_window_that_nobody_began_in_time_is_missed_for_a_day() -> None:
    one = schedule()
    assert missed(one, utc("2026-03-02T04:59:59")) is None or missed(one, utc("2026-03-02T04:59:59")).day != date(2026, 3, 2)  # type: ignore[union-attr]  # fmt: skip
    found = missed(schedule(done_day="2026-03-01"), utc("2026-03-02T05:00:00"))
    assert found is not None and found.day == date(2026, 3, 2)
    assert missed(schedule(done_day="2026-03-02"), utc("2026-03-02T05:00:00")) is None
    assert missed(schedule(created_at=utc("2026-03-02T00:30:00")), utc("2026-03-02T05:00:00")) is None


@given(
    st.datetimes(datetime(2026, 1, 1), datetime(2026, 12, 31), timezones=st.just(UTC)),
    st.sampled_from(["UTC", "Europe/Berlin", "America/New_York", "Asia/Shanghai", "Australia/Lord_Howe"]),
    st.integers(0, 1439),
    st.none() | st.integers(0, 1439),
)
def test_what_comes_next_is_due_when_it_comes_and_not_before(now, zone, ready, release) -> None:
    if ready == release:
        return
    one = schedule(zone=zone, ready_minute=ready, release_minute=release)
    window = next(iter(coming(one, now)))
    assert window.ready_at >= now
    assert due(one, window.ready_at, lead_seconds=0) == window
    before = due(one, window.ready_at - timedelta(seconds=1), lead_seconds=0)
    assert before is None or before.day < window.day
