"""The matrix of limits: what is typed, what changes, whom it touches; pure."""

from __future__ import annotations

import pytest

from extensions.quota.measures import Measure
from galilean.amounts import GIB
from galilean.errors import UserError
from services.portal.measures_said import amount_said, amount_typed, parse_amount
from services.portal.quota_matrix import amount_in, gather, generous, groups_of
from services.portal.release_said import EVERYBODY, explained, hint, parse_value, value_said, value_typed

MATRIX = {
    "student": {Measure("clusters"): 1, Measure("memory"): 8 * GIB},
    "teacher": {Measure("clusters"): None, Measure("gpu_hours", "", "", "week"): 40_000},
}


@pytest.mark.parametrize(
    ("resource", "typed", "amount"),
    [
        ("memory", "48 GB", 48 * GIB),
        ("memory", "48", 48 * GIB),
        ("memory", "512mb", 512 * 2**20),
        ("memory", "1.5 TB", 1536 * GIB),
        ("memory", 8 * GIB, 8 * GIB),
        ("clusters", "4", 4),
        ("clusters", "1 200", 1200),
        ("clusters", "no limit", None),
        ("clusters", "不限", None),
        ("cpu", "0.5", 500),
        ("cpu", "8 cores", 8000),
        ("manual_release", "yes", 1),
        ("manual_release", "否", 0),
        ("manual_release", True, 1),
    ],
)
def test_amounts_are_read_as_people_write_them(resource: str, typed: object, amount: int | None) -> None:
    measure = Measure(resource)
    assert parse_amount(measure, typed) == amount
    assert parse_amount(measure, amount_typed(measure, amount)) == amount, "what a field holds is read back"


@pytest.mark.parametrize("typed", ["", "-1", "1.5", "four", "1e3", "9" * 30, "4 GB"])
def test_what_is_no_count_is_refused_with_an_example(typed: str) -> None:
    with pytest.raises(UserError) as refused:
        parse_amount(Measure("clusters"), typed)
    assert refused.value.status == 400


def test_changes_are_those_that_differ_and_the_last_wish_counts() -> None:
    clusters, memory = Measure("clusters"), Measure("memory")
    found = gather(
        MATRIX,
        [("student", clusters, 1), ("student", memory, 9 * GIB), ("student", memory, 16 * GIB)],
    )
    assert [(change.measure, change.before, change.after) for change in found] == [
        (memory, 8 * GIB, 16 * GIB)
    ]


def test_the_most_generous_of_several_roles_counts_and_no_role_gives_nothing() -> None:
    assert generous(MATRIX, ("student", "teacher"), Measure("clusters")) is None
    assert generous(MATRIX, ("student",), Measure("clusters")) == 1
    assert generous(MATRIX, (), Measure("clusters")) == 0


def test_a_budget_of_one_role_is_a_row_in_which_others_have_no_limit() -> None:
    groups = groups_of(MATRIX, ["student", "teacher"])
    (row,) = next(group.rows for group in groups if group.title == "Over time")
    assert [cell.amount for cell in row.cells] == [None, 40_000]
    assert row.name.text() == "GPU hours per week"
    assert amount_in(MATRIX["student"], Measure("nodes")) == 2, "what is not said is small and safe"


def test_a_number_without_limit_is_a_word() -> None:
    assert amount_said(Measure("clusters"), None).text() == "no limit"
    assert amount_said(Measure("manual_release"), 0).text() == "no"


@pytest.mark.parametrize(
    ("field", "typed", "value"),
    [
        ("most_seconds", "8 h", 28_800),
        ("most_seconds", "2 d", 172_800),
        ("most_seconds", "none", 0),
        ("most_seconds", "as everybody", None),
        ("idle_seconds", "45", 2700),
        ("idle_percent", "5 %", 5),
        ("offered", "auto, 2h", ("auto", "2h")),
        ("offered", "site", None),
        ("default", "4h", "4h"),
    ],
)
def test_rules_of_a_role_are_read_as_people_write_them(field: str, typed: str, value: object) -> None:
    assert parse_value(field, typed, role=True) == value
    assert parse_value(field, value_typed(field, value, role=True), role=True) == value
    assert value_said(field, value, role=True).text()


def test_everybody_has_fields_that_a_role_has_not() -> None:
    assert EVERYBODY == "*"
    assert parse_value("grace_seconds", "10 min", role=False) == 600
    assert parse_value("most_seconds", "none", role=False) is None
    for field in ("grace_seconds", "luck"):
        with pytest.raises(UserError):
            parse_value(field, "10 min", role=True)


def test_a_grace_that_leaves_no_time_for_a_warning_says_so_to_whoever_sets_and_whoever_picks_it() -> None:
    assert "without a warning" in str(explained("auto", 150))
    assert "warning" not in str(explained("auto", 151))
    assert "nobody is warned" in str(hint("grace_seconds"))
    assert hint("extend_seconds") is None
