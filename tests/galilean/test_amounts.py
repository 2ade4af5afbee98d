"""Amounts as people write them."""

from __future__ import annotations

import math
import time
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from galilean.amounts import (
    format_apart,
    format_bytes,
    gigabytes,
    parse_bytes,
    parse_millicores,
    plain_number,
    quantity,
)


@pytest.mark.parametrize(
    ("written", "size_bytes"),
    [
        ("8G", 8 * 2**30),
        ("8GB", 8 * 2**30),
        ("8 GiB", 8 * 2**30),
        ("512m", 512 * 2**20),
        ("1.5G", 3 * 2**29),
        ("1T", 2**40),
        ("100", 100),
        (100, 100),
        (100.0, 100),
        (0, 0),
    ],
)
def test_bytes_are_read(written: object, size_bytes: int):
    assert parse_bytes(written) == size_bytes


@pytest.mark.parametrize(
    "written", ["", "G", "-1G", "1e3", "8X", "٣G", True, -1, 1.5, math.nan, math.inf, None, [8], {}, "9" * 21]
)
def test_what_is_no_amount_of_bytes_is_refused(written: object):
    with pytest.raises(ValueError):
        parse_bytes(written)


def test_a_number_of_a_million_digits_keeps_nobody_busy():
    """It once kept the hub busy for half a minute, and everybody waiting."""
    begin = time.process_time()
    with pytest.raises(ValueError):
        parse_bytes("9" * 1_000_000)
    assert time.process_time() - begin < 5


@pytest.mark.parametrize(("written", "millicores"), [(2, 2000), (0.5, 500), (0.001, 1), (0, 0), (1.1, 1100)])
def test_cpus_are_read(written: object, millicores: int):
    assert parse_millicores(written) == millicores


@pytest.mark.parametrize(
    "written", ["2", True, -1, 0.0005, math.nan, math.inf, None, [2], 10**400, 1e308, -(10**400)]
)
def test_what_is_no_number_of_cpus_is_refused(written: object):
    with pytest.raises(ValueError):
        parse_millicores(written)


@given(st.integers(0, 10**7))
def test_millicores_come_back_from_the_number_of_cpus(millicores: int):
    assert parse_millicores(millicores / 1000) == millicores


@example(2**53 + 1)
@given(st.integers(0, 2**55))
def test_a_number_of_bytes_is_itself(size_bytes: int):
    assert parse_bytes(size_bytes) == parse_bytes(str(size_bytes)) == size_bytes


def test_sizes_are_written_with_one_decimal_and_a_space_that_does_not_break():
    assert format_bytes(0) == "0\u00a0B"
    assert format_bytes(1023) == "1023\u00a0B"
    assert format_bytes(84 * 1024) == "84.0\u00a0KB"
    assert format_bytes(int(41.25 * 2**30)) == "41.2\u00a0GB"
    assert format_bytes(5000 * 2**40) == "5000.0\u00a0TB"


def test_numbers_carry_no_decimals_that_say_nothing():
    assert [plain_number(value) for value in (2.0, 0.5, 0.125, 10.0, 0.0)] == ["2", "0.5", "0.125", "10", "0"]
    assert gigabytes(2**31) == 2


@pytest.mark.parametrize(
    ("one", "other", "said"),
    [
        (7, 5, ("7 B", "5 B")),
        (5010, 5020, ("4.89 KB", "4.90 KB")),
        (5 * 2**30 + 1, 5 * 2**30, ("5,368,709,121 B", "5,368,709,120 B")),
        (5 * 2**30 + 2**22, 5 * 2**30, ("5.004 GB", "5.000 GB")),
        (2**20, 2**20, ("1.0 MB", "1.0 MB")),
        (3 * 2**20, 2**30, ("3.0 MB", "1.0 GB")),
    ],
)
def test_two_sizes_that_are_compared_do_not_read_the_same(one: int, other: int, said: tuple[str, str]):
    assert tuple(text.replace("\u00a0", " ") for text in format_apart(one, other)) == said


@given(st.integers(0, 2**60), st.integers(0, 2**60))
def test_sizes_that_differ_read_differently(one: int, other: int):
    first, second = format_apart(one, other)
    assert (first == second) == (one == other)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("4", 4), ("3920m", "3.92"), ("16Gi", 16 * 2**30), ("65536Mi", 64 * 2**30), ("1k", 1000), ("2M", 2 * 10**6),
        ("0", 0), ("1.5", "1.5"), ("100n", "1e-7"), ("129e6", 129 * 10**6),
    ],
)  # fmt: skip
def test_numbers_are_read_as_kubernetes_writes_them(text: str, value: Any) -> None:
    assert quantity(text) == Decimal(value)


@pytest.mark.parametrize("text", ["", "Gi", "4x", "four", "1e"])
def test_what_is_no_number_is_an_error(text: str) -> None:
    with pytest.raises(ValueError, match="not a quantity"):
        quantity(text)
