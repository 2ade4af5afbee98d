from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from galilean.settings import RELEASE_POLICIES
from services.release.decide import Facts, Keep, Release, Warn, both_saw, decide
from services.release.terms import (
    WHEN_DONE_MOST_SECONDS,
    WITNESS_LAG_SECONDS,
    Terms,
    from_json,
    wait_seconds,
)

T0 = datetime(2026, 3, 2, tzinfo=UTC)
GRACE = 300


def minutes(value: float) -> datetime:
    return T0 + timedelta(minutes=value)


def facts(**known: float | None) -> Facts:
    """Facts in minutes after ``T0``; held since then, and warned ``T0`` + 10**6 min unless said otherwise."""
    values: dict[str, Any] = {"held_since": 0, "warned_at": 10**6, **known}
    budget = values.pop("budget", None)
    moments = {key: None if value is None else minutes(value) for key, value in values.items()}
    return Facts(budget_seconds=None if budget is None else budget * 60, **moments)


def decided(name: str, now: float, terms: dict[str, Any] | None = None, **known: float | None) -> Any:
    return decide(Terms(policy=name, grace_seconds=GRACE, **(terms or {})), facts(**known), minutes(now))


def keep(until: float | None, why: str = "left") -> Keep:
    return Keep(None) if until is None else Keep(minutes(until), why)


@pytest.mark.parametrize(
    ("name", "now", "known", "expected"),
    [
        pytest.param("auto", 0, {}, keep(5), id="just started"),
        pytest.param("auto", 4.99, {}, keep(5), id="never opened, within grace"),
        pytest.param("auto", 5, {}, Release("left"), id="never opened"),
        pytest.param("auto", 60, {"last_seen": 58}, keep(63), id="seen within grace"),
        pytest.param("auto", 63, {"last_seen": 58}, Release("left"), id="left"),
        pytest.param("auto", 3, {"last_seen": -90}, keep(5), id="seen before this run"),
        pytest.param("auto", 60, {"last_seen": 10, "person_last_seen": 60}, Release("left"), id="elsewhere"),
        pytest.param("auto", 61, {"last_seen": 60, "signed_out_at": 61}, Release("signed_out"), id="signed out"),
        pytest.param(
            "auto", 62, {"last_seen": 62, "signed_out_at": 61}, Release("signed_out"), id="a page left open"
        ),
        pytest.param("auto", 2, {"signed_out_at": -1}, keep(5), id="signed out before this run"),
        pytest.param("auto", 99, {"last_seen": 10, "extended_until": 100}, keep(100), id="extended"),
        pytest.param("auto", 100, {"last_seen": 10, "extended_until": 100}, Release("left"), id="extension over"),
        pytest.param("manual", 10**6, {"last_seen": 1, "signed_out_at": 2}, keep(None), id="manual"),
        pytest.param("2h", 119, {}, keep(120), id="2h, never opened"),
        pytest.param("2h", 120, {}, Release("left"), id="2h over"),
        pytest.param("2h", 200, {"last_seen": 10, "person_last_seen": 100}, keep(220), id="2h, elsewhere"),
        pytest.param("2h", 220, {"last_seen": 10, "person_last_seen": 100}, Release("left"), id="2h, left all"),
        pytest.param("2h", 130, {"last_seen": 10, "signed_out_at": 60}, keep(180), id="2h from signing out"),
        pytest.param("2h", 180, {"last_seen": 179, "signed_out_at": 60}, Release("left"), id="2h, page left open"),
        pytest.param("7d", 7 * 1440 - 1, {}, keep(7 * 1440), id="7d"),
        pytest.param("7d", 7 * 1440, {}, Release("left"), id="7d over"),
        pytest.param("manual", 599, {"scheduled_until": 600}, keep(600, "schedule"), id="schedule"),
        pytest.param("manual", 600, {"scheduled_until": 600}, Release("schedule"), id="schedule over"),
        pytest.param(
            "auto", 200, {"scheduled_until": 600, "extended_until": 600}, keep(600, "schedule"),
            id="held by its schedule while nobody is there",
        ),
        pytest.param(
            "auto", 591, {"scheduled_until": 600, "extended_until": 600, "warned_at": None},
            Warn(minutes(600), "schedule"), id="warned of its schedule's end while nobody is there",
        ),
        pytest.param(
            "auto", 600, {"scheduled_until": 600, "extended_until": 600}, Release("schedule"),
            id="schedule over while nobody is there",
        ),
        pytest.param(
            "manual", 600, {"scheduled_until": 600, "extended_until": 660}, keep(660, "schedule"),
            id="schedule, extended",
        ),
    ],
)  # fmt: skip
def test_decide(name: str, now: float, known: dict[str, float], expected: Any) -> None:
    assert decided(name, now, **known) == expected


DONE_MOST = WHEN_DONE_MOST_SECONDS / 60


@pytest.mark.parametrize(
    ("now", "known", "expected"),
    [
        pytest.param(4, {}, keep(5), id="nothing runs, within grace"),
        pytest.param(5, {}, Release("left"), id="nothing ever ran"),
        pytest.param(60, {"busy_at": 59.5, "ran_at": 59.5}, keep(DONE_MOST, "most"), id="something runs"),
        pytest.param(60, {"ran_at": 59.5}, Release("done"), id="it ended after the person had left"),
        pytest.param(60, {"last_seen": 59, "ran_at": 59.5}, keep(64), id="it ended while the person was there"),
        pytest.param(65, {"busy_at": 62, "ran_at": 62}, Release("done"), id="the node says no more"),
        pytest.param(
            60, {"last_seen": 60, "signed_out_at": 59, "busy_at": 59.9, "ran_at": 59.9},
            keep(DONE_MOST, "most"), id="signed out, something runs",
        ),
        pytest.param(
            60, {"last_seen": 60, "signed_out_at": 59, "ran_at": 59.9}, Release("done"), id="signed out, it ended"
        ),
        pytest.param(
            60, {"last_seen": 60, "signed_out_at": 59}, Release("signed_out"), id="signed out, nothing ran"
        ),
        pytest.param(
            DONE_MOST, {"busy_at": DONE_MOST, "ran_at": DONE_MOST}, Release("most"),
            id="bounded, whatever it says of itself",
        ),
    ],
)  # fmt: skip
def test_automatic_when_done(now: float, known: dict[str, float], expected: Any) -> None:
    assert decided("auto-when-done", now, **known) == expected


IDLE = {"idle_seconds": 3600}


@pytest.mark.parametrize(
    ("name", "now", "terms", "known", "expected"),
    [
        pytest.param("manual", 59, {"most_seconds": 3600}, {}, keep(60, "most"), id="hard maximum to come"),
        pytest.param(
            "manual", 60, {"most_seconds": 3600}, {"last_seen": 60, "extended_until": 900},
            Release("most"), id="nothing beats the hard maximum",
        ),
        pytest.param("2h", 10, {}, {"budget": 20}, keep(30, "budget"), id="budget to come"),
        pytest.param(
            "2h", 10, {}, {"budget": 0, "last_seen": 10, "extended_until": 90}, Release("budget"), id="budget used up"
        ),
        pytest.param("manual", 59, IDLE, {"measured_at": 59}, keep(60, "idle"), id="never used"),
        pytest.param("manual", 60, IDLE, {"measured_at": 60, "last_seen": 60}, Release("idle"), id="idle"),
        pytest.param("manual", 60, IDLE, {"measured_at": 60, "used_at": 30}, keep(90, "idle"), id="used"),
        pytest.param("manual", 600, IDLE, {"measured_at": 590}, keep(None), id="nobody measures"),
        pytest.param("manual", 600, IDLE, {}, keep(None), id="nobody ever measured"),
        pytest.param(
            "manual", 600, IDLE, {"measured_at": 600, "batch_at": 599.5}, keep(None), id="a batch command runs"
        ),
        pytest.param(
            "manual", 600, IDLE, {"measured_at": 600, "batch_at": 590}, keep(650, "idle"), id="it ran until now"
        ),
        pytest.param(
            "manual", 600, IDLE, {"measured_at": 600, "extended_until": 630}, keep(630, "idle"), id="put off"
        ),
        pytest.param(
            "auto", 4, {"idle_seconds": 86400, "most_seconds": 86400}, {"measured_at": 4, "budget": 99},
            keep(5), id="the earliest counts",
        ),
    ],
)  # fmt: skip
def test_ends_besides_leaving(
    name: str, now: float, terms: dict[str, Any], known: dict[str, float], expected: Any
) -> None:
    assert decided(name, now, terms, **{"warned_at": 50, **known}) == expected


@pytest.mark.parametrize(
    ("name", "now", "terms", "known", "expected"),
    [
        pytest.param("auto", 2.4, {}, {}, keep(5), id="too early"),
        pytest.param("auto", 2.5, {}, {}, Warn(minutes(5), "left"), id="half of the grace before"),
        pytest.param(
            "auto", 3, {}, {"busy_at": 3}, Warn(minutes(5), "left", offer_when_done=True), id="something runs"
        ),
        pytest.param("auto", 3, {}, {"warned_at": 2.5}, keep(5), id="warned already"),
        pytest.param(
            "auto", 23, {}, {"warned_at": 2.5, "last_seen": 20}, Warn(minutes(25), "left"), id="came back, left again"
        ),
        pytest.param("2h", 109, {}, {}, keep(120), id="ten minutes are enough"),
        pytest.param("2h", 110, {}, {"busy_at": 110}, Warn(minutes(120), "left"), id="ten minutes before"),
        pytest.param(
            "2h", 170, {}, {"warned_at": 110, "extended_until": 180}, Warn(minutes(180), "left"), id="of an extension"
        ),
        pytest.param("2h", 30, {}, {"budget": 9}, Warn(minutes(39), "budget"), id="of a budget"),
        pytest.param("2h", 31, {}, {"budget": 9, "warned_at": 30}, keep(40, "budget"), id="an estimate moves"),
        pytest.param("manual", 50, {"most_seconds": 3600}, {}, Warn(minutes(60), "most"), id="of the maximum"),
        pytest.param(
            "manual", 300, IDLE, {"measured_at": 300}, Warn(minutes(310), "idle"),
            id="of idling, also where it is found late",
        ),
        pytest.param(
            "manual", 305, IDLE, {"measured_at": 305, "warned_at": 300}, keep(310, "idle"), id="and then waited"
        ),
        pytest.param(
            "manual", 310, IDLE, {"measured_at": 310, "warned_at": 300}, Release("idle"), id="and then gone"
        ),
        pytest.param("auto", 60, {}, {"last_seen": 60}, keep(65), id="who is there is not warned"),
    ],
)  # fmt: skip
def test_warnings(name: str, now: float, terms: dict[str, Any], known: dict[str, Any], expected: Any) -> None:
    assert decided(name, now, terms, **{"warned_at": None, **known}) == expected


def test_who_is_there_is_not_warned_though_presence_lags() -> None:
    """It may be known 75 seconds late that somebody is there; a short grace warns later, or not at all."""
    found = {}
    for grace in (120, 180, 300):
        for second in range(0, grace, 5):
            now = T0 + timedelta(seconds=second)
            if isinstance(decide(Terms(policy="auto", grace_seconds=grace), Facts(held_since=T0), now), Warn):
                found.setdefault(grace, second)
    assert found == {180: 2 * WITNESS_LAG_SECONDS, 300: 150}


def test_going_on_alone_lasts_from_the_press_on_and_never_past_the_hard_maximum() -> None:
    held = 8 * 86400
    assert Terms(policy="auto").unattended(held_seconds=held).bound_seconds == held + WHEN_DONE_MOST_SECONDS
    bounded = Terms(policy="auto", most_seconds=9 * 86400).unattended(held_seconds=held)
    assert (bounded.policy, bounded.bound_seconds) == ("auto-when-done", 9 * 86400)
    assert from_json(None, policy="auto-when-done", grace_seconds=1).bound_seconds == WHEN_DONE_MOST_SECONDS


def test_every_policy_of_the_settings_is_known_and_others_are_not() -> None:
    waits = {name: wait_seconds(name, grace_seconds=GRACE) for name in RELEASE_POLICIES}
    assert waits["auto"] == waits["auto-when-done"] == 300 and waits["manual"] is None
    assert waits["24h"] == 86400 and waits["2d"] == 2 * 86400
    for name in ("", "0h", "2H", "2w", "auto ", "-1h", "1e3h"):
        with pytest.raises(ValueError):
            wait_seconds(name, grace_seconds=GRACE)


def test_a_grace_shorter_than_the_witnesses_rounds_is_lengthened() -> None:
    assert wait_seconds("auto", grace_seconds=30) == WITNESS_LAG_SECONDS


def test_terms_come_back_from_a_row_as_they_were_and_old_rows_go_by_their_policy() -> None:
    terms = Terms(policy="4h", grace_seconds=120, most_seconds=9, idle_seconds=None, extend_seconds=77)
    assert from_json({**terms.to_json(), "of a later version": 1}, policy="x", grace_seconds=1) == terms
    assert from_json(None, policy="4h", grace_seconds=99) == Terms(policy="4h", grace_seconds=99)


def test_both_witnesses_must_agree() -> None:
    assert both_saw(minutes(9), minutes(4)) == minutes(4)
    assert both_saw(minutes(4), minutes(9)) == minutes(4)
    assert both_saw(minutes(9), None) is None
    assert both_saw(None, minutes(9)) is None


moments = st.integers(0, 60 * 24 * 10)
maybe = st.none() | moments
everything = st.fixed_dictionaries(
    {
        "held_since": moments,
        **dict.fromkeys(("last_seen", "person_last_seen", "signed_out_at", "extended_until", "warned_at", "busy_at", "ran_at", "batch_at", "used_at", "measured_at", "scheduled_until"), maybe),
    }
)  # fmt: skip
bounds = st.fixed_dictionaries(
    {"most_seconds": st.none() | st.integers(600, 10**6), "idle_seconds": st.none() | st.integers(300, 10**6)}
)


@given(st.sampled_from(RELEASE_POLICIES), moments, bounds, everything)
def test_nobody_seen_within_the_wait_is_released_for_leaving(name, now, terms, known) -> None:
    known["signed_out_at"] = None
    found = decided(name, now, terms, **known)
    if isinstance(found, Release) and found.reason in ("left", "done"):
        wait = wait_seconds(name, grace_seconds=GRACE)
        assert wait is not None
        seen = [known["held_since"], known["last_seen"]]
        if name not in ("auto", "auto-when-done"):
            seen.append(known["person_last_seen"])
        assert all(moment is None or now - moment >= wait / 60 for moment in seen)
        assert known["extended_until"] is None or now >= known["extended_until"]


@given(st.sampled_from(RELEASE_POLICIES), moments, bounds, everything)
def test_nothing_beats_the_hard_maximum(name, now, terms, known) -> None:
    most = Terms(policy=name, **terms).bound_seconds
    if most is not None:
        found = decided(name, now, terms, **known)
        over = (now - known["held_since"]) * 60 >= most
        assert isinstance(found, Release) or not over
        assert isinstance(found, Release) or found.until <= minutes(known["held_since"]) + timedelta(
            seconds=most
        )


@given(st.sampled_from(RELEASE_POLICIES), bounds, everything)
def test_what_is_kept_until_a_moment_is_kept_just_before_it_and_released_at_it(name, terms, known) -> None:
    for forgets in ("busy_at", "batch_at", "measured_at"):  # these grow old by themselves
        known[forgets] = None
    found = decided(name, 0, terms, **known)
    if not isinstance(found, Release) and found.until is not None:
        until = (found.until - T0).total_seconds() / 60
        assert not isinstance(decided(name, until - 0.01, terms, **known), Release)
        assert isinstance(decided(name, until, terms, **known), Release)
        assert isinstance(decided(name, until + 10**5, terms, **known), Release)  # never lost, however late
