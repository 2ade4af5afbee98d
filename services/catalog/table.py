"""What a table of text (CSV, TSV) has in it: its columns' types, what is missing, ranges and frequent values. Pure.

A file can be of any size, so the work is bounded: the first rows count, as many as fit into a quarter of a million cells of the
bytes that are handed in, and the answer says how many that were. How many rows the whole file has is then an
estimate by its size, and is told as one. A column is what *all* of its values are: one word among numbers makes it
text, for whoever reads it in a program meets the same.
"""

from __future__ import annotations

import csv
import io
import math
import re
from array import array
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

DELIMITERS = ",;\t|"
COLUMNS_MOST, CELLS_MOST, ROWS_SHOWN = 50, 250_000, 100
DISTINCT_MOST, VALUE_CHARACTERS = 5000, 200
BINS, TOP = 12, 3
MISSING = frozenset(("", "na", "n/a", "nan", "null", "none", "-"))
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,4})?", re.ASCII)
_CODE = re.compile(r"[+-]?0\d", re.ASCII)  # 007 is a name
_DATE = re.compile(r"\d{4}-\d\d-\d\d([T ]\d\d:\d\d(:\d\d(\.\d+)?)?(Z|[+-]\d\d:?\d\d)?)?", re.ASCII)


@dataclass(frozen=True, kw_only=True)
class Column:
    """A column, over the rows that were looked at.

    Attributes
    ----------
    kind
        ``number``, ``integer``, ``date``, ``text``, or ``empty`` when every value is missing.
    count, missing
        Values there and not there.
    low, high
        Smallest and largest, as written, of numbers and dates.
    mean
        Of numbers.
    bins
        How many numbers are in each of equal parts from low to high.
    distinct
        How many different values a text or integer column has; ``None`` = very many.
    top
        Its most frequent values with how often each, where some come again.
    """

    name: str
    kind: str
    count: int
    missing: int
    low: str = ""
    high: str = ""
    mean: float | None = None
    bins: tuple[int, ...] = ()
    distinct: int | None = None
    top: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table as far as it was looked at.

    Attributes
    ----------
    rows
        Its first rows, without the head.
    looked_at
        Rows that the columns are told of.
    total
        Rows of the whole file; an estimate unless ``exact``.
    more_columns
        Columns that are left out.
    """

    columns: tuple[Column, ...]
    rows: tuple[tuple[str, ...], ...]
    looked_at: int
    total: int
    exact: bool
    more_columns: int = 0


def is_missing(value: str) -> bool:
    """Whether a value stands for none."""
    return value.strip().lower() in MISSING


def is_number(value: str) -> bool:
    """Whether a value is a number, and not a name of digits such as ``007``."""
    text = value.strip()
    return _NUMBER.fullmatch(text) is not None and not _CODE.match(text)


def delimiter_of(text: str, *, tabs: bool) -> str:
    """What parts the values of a row."""
    if tabs:
        return "\t"
    try:
        return csv.Sniffer().sniff(text[:8192], delimiters=DELIMITERS).delimiter
    except csv.Error:
        return ","


def has_head(first: Sequence[str]) -> bool:
    """Whether a first row names the columns: nothing in it is a number, and something is a word."""
    return any(not is_missing(value) for value in first) and not any(is_number(value) for value in first)


def read_table(text: str, *, tabs: bool, share: float = 1.0) -> Table | None:
    """Look at a table; ``None`` when there is no row in it.

    Parameters
    ----------
    text
        The file, or its beginning up to the end of a line.
    tabs
        Whether values are parted by tabs; else it is found out.
    share
        How much of the file ``text`` is, from 0 to 1.
    """
    reader = _rows(text, delimiter_of(text, tabs=tabs))
    first = next(reader, None)
    if first is None:
        return None
    head = has_head(first)
    width, widest = max(1, min(len(first), COLUMNS_MOST)), len(first)
    looks = [_Look() for _ in range(width)]
    shown: list[tuple[str, ...]] = []
    looked, characters, most = 0, 0, max(ROWS_SHOWN, CELLS_MOST // width)
    whole = True
    for row in reader if head else _again(first, reader):
        if looked >= most:
            whole = False
            break
        looked += 1
        characters += sum(map(len, row)) + len(row)
        widest = max(widest, len(row))
        if len(row) > len(looks) < COLUMNS_MOST:  # a ragged row: what came before lacked these
            looks += [_Look(missing=looked - 1) for _ in range(min(len(row), COLUMNS_MOST) - len(looks))]
        if len(shown) < ROWS_SHOWN:
            shown.append(tuple(row[:COLUMNS_MOST]))
        for number, look in enumerate(looks):
            look.take(row[number] if number < len(row) else "")
    exact = whole and share >= 1
    part = share if whole else share * min(1.0, characters / max(1, len(text)))
    return Table(
        columns=tuple(
            look.column(first[number][:VALUE_CHARACTERS] if head and number < len(first) else "")
            for number, look in enumerate(looks)
        ),
        rows=tuple(shown),
        looked_at=looked,
        total=looked if exact else max(looked, round(looked / max(part, 1e-12))),
        exact=exact,
        more_columns=max(0, widest - COLUMNS_MOST),
    )


def _rows(text: str, delimiter: str) -> Iterator[list[str]]:
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    try:
        for row in reader:
            if row:
                yield row
    except csv.Error:
        return  # a value without an end: what came before it stands


def _again(first: list[str], rest: Iterator[list[str]]) -> Iterator[list[str]]:
    yield first
    yield from rest


@dataclass(kw_only=True)
class _Look:
    """What is known of a column while its values come."""

    missing: int = 0
    count: int = 0
    numbers: array[float] = field(default_factory=lambda: array("d"))
    are_numbers: bool = True
    are_integers: bool = True
    are_dates: bool = True
    low_text: str = ""
    high_text: str = ""
    seen: Counter[str] = field(default_factory=Counter)
    many: bool = False

    def take(self, value: str) -> None:
        text = value.strip()
        if len(text) < 5 and text.lower() in MISSING:
            self.missing += 1
            return
        self.count += 1
        if self.are_numbers:
            if is_number(text):
                self.numbers.append(float(text))
                self.are_integers = self.are_integers and text.lstrip("+-").isdigit()
            else:
                self.are_numbers, self.numbers = False, array("d")
        if self.are_dates:
            if text[4:5] == "-" and _DATE.fullmatch(text):
                self.low_text = min(self.low_text or text, text)
                self.high_text = max(self.high_text, text)
            else:
                self.are_dates = False
        if not self.many:
            self.seen[text[:VALUE_CHARACTERS]] += 1
            if len(self.seen) > DISTINCT_MOST:
                self.many = True
                self.seen.clear()

    def column(self, name: str) -> Column:
        if not self.count:
            return Column(name=name, kind="empty", count=0, missing=self.missing)
        distinct = None if self.many else len(self.seen)
        finite = [value for value in self.numbers if math.isfinite(value)]
        if self.are_numbers and finite:
            low, high = min(finite), max(finite)
            few = self.are_integers and high - low < BINS
            return Column(
                name=name,
                kind="integer" if self.are_integers else "number",
                count=self.count,
                missing=self.missing,
                low=number_text(low),
                high=number_text(high),
                mean=math.fsum(value / len(finite) for value in finite),
                bins=histogram(finite, low, high, int(high - low) + 1 if few else BINS),
                distinct=distinct,
            )
        if self.are_dates:
            return Column(
                name=name,
                kind="date",
                count=self.count,
                missing=self.missing,
                low=self.low_text,
                high=self.high_text,
                distinct=distinct,
            )
        top = tuple(self.seen.most_common(TOP)) if self.seen and max(self.seen.values()) > 1 else ()
        return Column(
            name=name, kind="text", count=self.count, missing=self.missing, distinct=distinct, top=top
        )


def histogram(values: Sequence[float], low: float, high: float, parts: int = BINS) -> tuple[int, ...]:
    """How many values are in each of equal parts from ``low`` to ``high``; the last part has its end, too."""
    half = high / 2 - low / 2  # of the width, which may be more than a float holds
    if half <= 0:
        return (len(values),)
    bins = [0] * parts
    for value in values:
        bins[min(parts - 1, int((value / 2 - low / 2) / half * parts))] += 1
    return tuple(bins)


def number_text(value: float) -> str:
    """A number to read: six digits that count."""
    text = f"{value:.6g}"
    if "e" in text and value == int(value) and abs(value) < 1e15:
        return str(int(value))
    return text.replace("-", "\u2212", 1) if text.startswith("-") else text
