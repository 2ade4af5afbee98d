"""What a table is told to have in it."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.catalog.table import (
    BINS,
    CELLS_MOST,
    COLUMNS_MOST,
    ROWS_SHOWN,
    Column,
    histogram,
    is_number,
    read_table,
)
from services.catalog.table_body import table_body


def columns(text: str, *, tabs: bool = False) -> dict[str, Column]:
    table = read_table(text, tabs=tabs)
    assert table is not None
    return {column.name: column for column in table.columns}


def test_columns_have_types_ranges_means_and_what_is_missing() -> None:
    found = columns(
        "orbit,temp_k,day,quality,id\n"
        "I27,118.5,2001-08-06,3,007\n"
        "I27,NA,2001-10-16,3,008\n"
        "I31,-121.5,2000-02-22,2,\n"
    )
    orbit = found["orbit"]
    assert (orbit.kind, orbit.distinct, orbit.top) == ("text", 2, (("I27", 2), ("I31", 1)))
    heat = found["temp_k"]
    assert (heat.kind, heat.missing, heat.low, heat.high) == ("number", 1, "−121.5", "118.5")
    assert heat.mean == pytest.approx(-1.5)
    assert (found["day"].kind, found["day"].low, found["day"].high) == ("date", "2000-02-22", "2001-10-16")
    assert (found["quality"].kind, found["quality"].bins) == ("integer", (1, 2))
    assert (found["id"].kind, found["id"].missing) == ("text", 1), "007 is a name"


def test_one_word_among_numbers_makes_a_column_text() -> None:
    assert columns("x\n" + "1\n" * 500 + "about 2\n")["x"].kind == "text"
    assert columns("x,y\n1,\n2,\n")["y"].kind == "empty"


@pytest.mark.parametrize(
    "text", ["1_000", "infinity", "0x10", "１２", "1e99999", "12-3", "007", "", "e5", "."]
)
def test_what_only_looks_like_a_number_is_none(text: str) -> None:
    assert not is_number(text)


def test_numbers_beyond_every_float_do_no_harm() -> None:
    found = columns("x\n1e308\n-1e308\n1e309\n")["x"]
    assert found.kind == "number"
    assert sum(found.bins) == 2
    assert math.isfinite(found.mean or 0.0)


def test_a_table_without_a_head_loses_no_row() -> None:
    table = read_table("1,2\n3,4\n", tabs=False)
    assert table is not None
    assert table.rows == (("1", "2"), ("3", "4"))
    assert [column.name for column in table.columns] == ["", ""]


def test_ragged_rows_have_their_place_and_their_missing() -> None:
    found = read_table("a,b\n1,2\n3,4,5\n6\n", tabs=False)
    assert found is not None
    assert [(column.count, column.missing) for column in found.columns] == [(3, 0), (2, 1), (1, 2)]


def test_tabs_and_semicolons_part_values_and_quotes_hold_lines() -> None:
    assert list(columns("a\tb\n1,5\t2\n", tabs=True)) == ["a", "b"]
    assert list(columns("a;b\n1,5;2\n2,5;3\n")) == ["a", "b"]
    table = read_table('a,b\n"one\ntwo",2\n', tabs=False)
    assert table is not None
    assert (table.total, table.rows[0][0]) == (1, "one\ntwo")


def test_work_is_bounded_and_the_rows_of_the_whole_are_an_estimate() -> None:
    rows = CELLS_MOST // 2 * 4
    table = read_table("a,b\n" + "1,2\n" * rows, tabs=False, share=0.5)
    assert table is not None
    assert table.looked_at == CELLS_MOST // 2
    assert len(table.rows) == ROWS_SHOWN
    assert not table.exact
    assert table.total == pytest.approx(2 * rows, rel=0.02)
    wide = read_table(",".join(f"c{n}" for n in range(500)) + "\n", tabs=False)
    assert wide is not None
    assert (len(wide.columns), wide.more_columns) == (COLUMNS_MOST, 500 - COLUMNS_MOST)


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=60))
def test_every_number_is_in_one_part_of_the_histogram(values: list[float]) -> None:
    bins = histogram(values, min(values), max(values))
    assert sum(bins) == len(values)
    assert len(bins) in (1, BINS)


@given(st.text(max_size=300), st.booleans())
def test_whatever_a_file_has_nothing_of_it_becomes_markup(text: str, tabs: bool) -> None:
    body = table_body(text.replace("<", "<i>"), 300, 300, lambda words: words, tabs=tabs)
    assert body is None or "<i>" not in body


def test_how_much_is_shown_is_said_before_it() -> None:
    def said(text: str, share: float = 1) -> str:
        body = table_body(text, int(len(text) * share), len(text), lambda words: words, tabs=False)
        return (body or "").partition("</div>")[0].rpartition(">")[2]

    assert said("a,b\n1,2\n") == "1 rows"
    assert said("a,b\n" + "1,2\n" * 5000) == "first 100 of 5\u202f000 rows"
    assert "of about 10\u202f000 rows" in said("a,b\n" + "1,2\n" * 5000, 0.5)
    assert table_body("", 0, 0, lambda words: words, tabs=False) is None
