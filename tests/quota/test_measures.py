"""How people write limits: what is read is what was written, and nonsense is refused in words."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extensions.quota.measures import (
    NO_LIMIT_WORDS,
    PERIODS,
    RESOURCES,
    Measure,
    check_amount,
    parse_amount,
    written,
)
from galilean.amounts import GIB
from galilean.errors import UserError

names = st.from_regex(r"[a-z0-9][a-z0-9-]{0,20}", fullmatch=True)


@st.composite
def measures(draw: st.DrawFn) -> Measure:
    resource = draw(st.sampled_from(sorted(RESOURCES)))
    of = RESOURCES[resource]
    return Measure(
        resource,
        draw(names) if of.by_pool and draw(st.booleans()) else "",
        draw(names) if of.by_model and draw(st.booleans()) else "",
        draw(st.sampled_from(PERIODS)) if of.budget else "",
    )


@given(measures())
def test_a_measure_is_read_as_it_was_written(measure: Measure) -> None:
    assert Measure.parse(str(measure)) == measure


@given(measures(), st.integers(0, 2**62))
def test_an_amount_is_read_exactly_as_it_was_written(measure: Measure, amount: int) -> None:
    amount %= RESOURCES[measure.resource].most + 1
    assert parse_amount(measure.resource, written(measure.resource, amount)) == amount
    text = written(measure.resource, amount)
    if not isinstance(text, bool):
        assert parse_amount(measure.resource, str(text)) == amount


@pytest.mark.parametrize(
    ("resource", "value", "amount"),
    [
        ("nodes", "4", 4),
        ("nodes", 4.0, 4),
        ("cpu", "0.5", 500),
        ("cpu", 2, 2000),
        ("memory", "48 GB", 48 * GIB),
        ("memory", "48G", 48 * GIB),
        ("memory", 1024, 1024),
        ("memory", "1024", 1024),
        ("core_hours", 20.5, 20_500),
        ("manual_release", "yes", 1),
        ("manual_release", False, 0),
        ("gpu", "no limit", None),
        ("gpu", " No Limit ", None),
        ("gpu", "不限", None),
        ("gpu", None, None),
        ("gpu", 0, 0),
    ],
)
def test_amounts(resource: str, value: Any, amount: int | None) -> None:
    assert parse_amount(resource, value) == amount


@pytest.mark.parametrize("resource", ["nodes", "cpu", "memory", "core_hours", "manual_release"])
@pytest.mark.parametrize(
    "value",
    [
        "",
        "  ",
        "-1",
        -1,
        -0.5,
        "-8G",
        10**40,
        "9" * 30,
        "9" * 100_000,
        1e300,
        math.nan,
        math.inf,
        "NaN",
        "Infinity",
        "1e3",
        "four",
        [],
        {},
        b"4",
        "8 XB",
        "٤",
    ],
)
def test_what_is_no_amount_is_refused_in_words(resource: str, value: Any) -> None:
    with pytest.raises(UserError) as refused:
        parse_amount(resource, value)
    assert refused.value.status == 400
    assert resource in str(refused.value)
    assert "{" not in str(refused.value)


@pytest.mark.parametrize(
    ("resource", "value"),
    [
        ("nodes", 1.5),
        ("nodes", "2.5"),
        ("cpu", 0.0001),
        ("core_hours", "1.00001"),
        ("memory", 0.5),
        ("nodes", True),
    ],
)
def test_fractions_that_nobody_can_hold_are_refused(resource: str, value: Any) -> None:
    with pytest.raises(UserError):
        parse_amount(resource, value)


IMPOSSIBLE = (
    "",
    "Nodes",
    "nodes/week",
    "core_hours",
    "core_hours/year",
    "cpu(a100)",
    "upload@college",
    "x" * 500,
    "gpu(a100",
    "gpu()",
    "cpu@",
    "fly",
)


@pytest.mark.parametrize("text", IMPOSSIBLE)
def test_what_cannot_be_limited_is_refused_in_words(text: str) -> None:
    with pytest.raises(UserError) as refused:
        Measure.parse(text)
    assert refused.value.status == 400


@pytest.mark.parametrize("amount", [-1, 10**18, True, 1.0, "1"])
def test_amounts_that_come_as_numbers_are_checked_too(amount: Any) -> None:
    with pytest.raises(UserError):
        check_amount(Measure("nodes"), amount)


def test_words_for_no_limit_are_in_small_letters() -> None:
    assert {word.casefold() for word in NO_LIMIT_WORDS} == NO_LIMIT_WORDS
