from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from galilean.settings import RELEASE_POLICIES
from services.release.decide import (
    WITNESS_LAG_SECONDS,
    Keep,
    Release,
    both_saw,
    decide,
    policy_named,
)

T0 = datetime(2026, 3, 2, tzinfo=UTC)
GRACE = 300


def minutes(value: float) -> datetime:
    return T0 + timedelta(minutes=value)


def decided(name: str, now: float, *, held: float = 0, **facts: float | None) -> Keep | Release:
    known: dict[str, Any] = {key: None if value is None else minutes(value) for key, value in facts.items()}
    return decide(policy_named(name, grace_seconds=GRACE), minutes(now), held_since=minutes(held), **known)


def keep(until: float | None) -> Keep:
    return Keep(None if until is None else minutes(until))


@pytest.mark.parametrize(
    ("name", "now", "facts", "expected"),
    [
        pytest.param("auto", 0, {}, keep(5), id="just started"),
        pytest.param("auto", 4.99, {}, keep(5), id="never opened, within grace"),
        pytest.param("auto", 5, {}, Release("left"), id="never opened"),
        pytest.param("auto", 60, {"last_seen": 58}, keep(63), id="seen within grace"),
        pytest.param("auto", 63, {"last_seen": 58}, Release("left"), id="left"),
        pytest.param(
            "auto", 3, {"last_seen": -90}, keep(5), id="seen before this run does not count against it"
        ),
        pytest.param("auto", 60, {"last_seen": 10, "person_last_seen": 60}, Release("left"), id="elsewhere"),
        pytest.param(
            "auto", 61, {"last_seen": 60, "signed_out_at": 61}, Release("signed_out"), id="signed out"
        ),
        pytest.param("auto", 62, {"last_seen": 61, "signed_out_at": 60}, keep(66), id="came back after it"),
        pytest.param("auto", 99, {"last_seen": 10, "extended_until": 100}, keep(100), id="extended"),
        pytest.param(
            "auto", 100, {"last_seen": 10, "extended_until": 100}, Release("left"), id="extension over"
        ),
        pytest.param("manual", 10**6, {"last_seen": 1, "signed_out_at": 2}, keep(None), id="manual"),
        pytest.param("2h", 119, {}, keep(120), id="2h, never opened"),
        pytest.param("2h", 120, {}, Release("left"), id="2h over"),
        pytest.param(
            "2h", 200, {"last_seen": 10, "person_last_seen": 100}, keep(220), id="2h, on another page"
        ),
        pytest.param(
            "2h", 220, {"last_seen": 10, "person_last_seen": 100}, Release("left"), id="2h, left all"
        ),
        pytest.param("2h", 130, {"last_seen": 10, "signed_out_at": 60}, keep(180), id="2h from signing out"),
        pytest.param("7d", 7 * 1440 - 1, {}, keep(7 * 1440), id="7d"),
        pytest.param("7d", 7 * 1440, {}, Release("left"), id="7d over"),
    ],
)
def test_decide(name: str, now: float, facts: dict[str, float], expected: Keep | Release) -> None:
    assert decided(name, now, **facts) == expected


def test_every_policy_of_the_settings_is_known_and_others_are_not() -> None:
    waits = {name: policy_named(name, grace_seconds=GRACE).wait_seconds for name in RELEASE_POLICIES}
    assert waits["auto"] == 300 and waits["manual"] == 0
    assert waits["24h"] == 86400 and waits["2d"] == 2 * 86400
    for name in ("", "0h", "2H", "2w", "auto ", "-1h", "1e3h"):
        with pytest.raises(ValueError):
            policy_named(name, grace_seconds=GRACE)


def test_a_grace_shorter_than_the_witnesses_rounds_is_lengthened() -> None:
    assert policy_named("auto", grace_seconds=30).wait_seconds == WITNESS_LAG_SECONDS


def test_both_witnesses_must_agree() -> None:
    assert both_saw(minutes(9), minutes(4)) == minutes(4)
    assert both_saw(minutes(4), minutes(9)) == minutes(4)
    assert both_saw(minutes(9), None) is None
    assert both_saw(None, minutes(9)) is None


moments = st.integers(0, 60 * 24 * 10)
maybe = st.none() | moments


@given(st.sampled_from(RELEASE_POLICIES), moments, moments, maybe, maybe, maybe)
def test_nobody_seen_within_the_wait_is_released(name, now, held, seen, person, extended) -> None:
    found = decided(name, now, held=held, last_seen=seen, person_last_seen=person, extended_until=extended)
    if isinstance(found, Release):
        wait = policy_named(name, grace_seconds=GRACE).wait_seconds / 60
        assert name != "manual"
        assert now - held >= wait
        assert seen is None or now - seen >= wait
        assert name == "auto" or person is None or now - person >= wait
        assert extended is None or now >= extended


@given(st.sampled_from(RELEASE_POLICIES), moments, maybe, maybe, maybe, maybe)
def test_what_is_kept_until_a_moment_is_kept_just_before_it_and_released_at_it(
    name, held, seen, person, signed_out, extended
) -> None:
    facts = {
        "held": held,
        "last_seen": seen,
        "person_last_seen": person,
        "signed_out_at": signed_out,
        "extended_until": extended,
    }
    found = decided(name, 0, **facts)
    if isinstance(found, Keep) and found.until is not None:
        until = (found.until - T0).total_seconds() / 60
        assert isinstance(decided(name, until - 0.01, **facts), Keep)
        assert isinstance(decided(name, until, **facts), Release)
        assert isinstance(decided(name, until + 10**5, **facts), Release)  # never lost, however late
