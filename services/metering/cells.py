"""What one run used on each day, in whole microseconds; blocks of days; the exact sums (pure; CG-25).

The roll-up of finished runs and the live part of every report are made by the same functions here, so that
a figure does not move when a run is over. Moments are microseconds since 1970, days are ordinals
(:meth:`datetime.date.toordinal`) of the site's zone: a day of 23 or 25 hours is one day.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from typing import NamedTuple

from services.metering.tables import BLOCK, WIDE

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
EPOCH_DAY = EPOCH.toordinal()
DAY_US = 86_400_000_000
LEVELS = (1, 4, 16, 64, 256, 4096)

Span = tuple[int, int]


def us_of(at: datetime) -> int:
    """A moment as microseconds since 1970."""
    return (at - EPOCH) // timedelta(microseconds=1)


def moment_of(us: int) -> datetime:
    """The moment of :func:`us_of`."""
    return EPOCH + timedelta(microseconds=us)


class Key(NamedTuple):
    """By what machine time is kept apart, and what each node had."""

    user: str
    project_id: str
    environment: str
    pool: str
    role: str
    account: str
    cpu_millicores: int
    memory_bytes: int
    gpu: int
    gpu_model: str

    def wide(self) -> Key:
        """The same without person and project."""
        return self._replace(user="", project_id="")


@dataclass(slots=True)
class Sums:
    """Whole numbers; see :mod:`services.metering.tables` for units."""

    first_us: int = 1 << 62
    wall_us: int = 0
    node_us: int = 0
    measured_us: int = 0
    cpu_used_us: int = 0
    memory_kib_s: int = 0
    gpu_used_us: int = 0
    idle_us: int = 0
    gpu_idle_us: int = 0

    def add(self, other: Sums) -> None:
        self.first_us = min(self.first_us, other.first_us)
        self.wall_us += other.wall_us
        self.node_us += other.node_us
        self.measured_us += other.measured_us
        self.cpu_used_us += other.cpu_used_us
        self.memory_kib_s += other.memory_kib_s
        self.gpu_used_us += other.gpu_used_us
        self.idle_us += other.idle_us
        self.gpu_idle_us += other.gpu_idle_us

    def values(self) -> tuple[int, int, int, int, int, int, int, int, int]:
        return (
            self.first_us, self.wall_us, self.node_us, self.measured_us, self.cpu_used_us,
            self.memory_kib_s, self.gpu_used_us, self.idle_us, self.gpu_idle_us,
        )  # fmt: skip


SUMS = tuple(field.name for field in fields(Sums))
USE = SUMS[3:]


class Calendar:
    """The days of one zone; remembers where they begin."""

    def __init__(self, zone: tzinfo) -> None:
        self.zone = zone
        self._begins: dict[int, int] = {}

    def begin(self, day: int) -> int:
        """The first moment of a day."""
        found = self._begins.get(day)
        if found is None:
            # Where clocks jump over midnight, the old offset gives the moment of the jump: the day's first.
            at = datetime.combine(date.fromordinal(day), time(), tzinfo=self.zone)
            found = self._begins[day] = us_of(at.astimezone(UTC))
        return found

    def day(self, us: int) -> int:
        """The day in which a moment lies."""
        day = us // DAY_US + EPOCH_DAY
        while us < self.begin(day):
            day -= 1
        while us >= self.begin(day + 1):
            day += 1
        return day

    def today(self, now: datetime) -> int:
        return self.day(us_of(now))


def by_day(spans: Iterable[Span], calendar: Calendar) -> dict[int, Sums]:
    """Wall time and node time of one run on each day that its nodes touch.

    Parameters
    ----------
    spans
        Lives of its nodes; those that end before they begin count nothing.
    calendar
        The site's days.
    """
    days: dict[int, list[Span]] = {}
    for start, end in spans:
        while start < end:
            day = calendar.day(start)
            until = min(end, calendar.begin(day + 1))
            days.setdefault(day, []).append((start, until))
            start = until
    return {day: _sums(pieces) for day, pieces in days.items()}


def _sums(pieces: list[Span]) -> Sums:
    pieces.sort()
    wall = node = covered = 0
    for start, end in pieces:
        node += end - start
        if end > covered:
            wall += end - max(start, covered)
            covered = end
    return Sums(first_us=pieces[0][0], wall_us=wall, node_us=node)


def within(spans: Iterable[Span], start: int, end: int) -> list[Span]:
    """What of the spans lies between two moments."""
    cut = [(max(a, start), min(b, end)) for a, b in spans]
    return [(a, b) for a, b in cut if b > a]


# --------------------------------------------------------------------------------------------------- blocks


def tiles(first: int, after: int) -> list[int]:
    """The fewest blocks that cover the days from ``first`` to before ``after``, each once."""
    found: list[int] = []
    day = first
    while day < after:
        level = len(LEVELS) - 1
        while level and (day % LEVELS[level] or day + LEVELS[level] > after):
            level -= 1
        found.append(level * BLOCK + day)
        day += LEVELS[level]
    return found


def widened(first: int, last: int, known_first: int, today: int) -> tuple[int, int]:
    """A window that takes in the same: beyond the first and the last day of all there is nothing.

    Its ends are put where large blocks end, so that few blocks cover it.
    """
    longest = LEVELS[-1]
    if first <= known_first:
        first = first // longest * longest
    if last >= today:
        last = (last // longest + 1) * longest - 1
    return first, last


#: What :class:`Sums` holds, in its order.
Whole = tuple[int, int, int, int, int, int, int, int, int]


def both(one: Whole, other: Whole) -> Whole:
    """The sum of two :data:`Whole`."""
    a, b, c, d, e, f, g, h, i = one
    p, q, r, s, t, u, v, w, x = other
    return (a if a < p else p, b + q, c + r, d + s, e + t, f + u, g + v, h + w, i + x)


class Cells:
    """Sums by key and day. A key is known by its place, and a cell by ``place * BLOCK + day``."""

    def __init__(self) -> None:
        self.places: dict[Key, int] = {}
        self.cells: dict[int, Whole] = {}

    def place(self, key: Key) -> int:
        return self.places.setdefault(key, len(self.places))

    def put(self, cell: int, whole: Whole) -> None:
        found = self.cells.get(cell)
        self.cells[cell] = whole if found is None else both(found, whole)

    def add(self, key: Key, day: int, sums: Sums) -> None:
        self.put(self.place(key) * BLOCK + day, sums.values())

    def add_run(self, key: Key, spans: Sequence[Span], calendar: Calendar) -> None:
        for day, sums in by_day(spans, calendar).items():
            self.add(key, day, sums)

    def blocks(self, place_of: Mapping[Key, int]) -> Iterator[tuple[int, int, Whole]]:
        """What ``usage_daily`` holds: block, id of the key, sums; wide keys too.

        Parameters
        ----------
        place_of
            Ids of keys, of the wide ones too.
        """
        keys = list(self.places)
        ids = [place_of[key] for key in keys]
        wides: dict[Key, int] = {}
        wide_of = [wides.setdefault(key.wide(), len(wides)) for key in keys]
        wide_ids = [place_of[key] for key in wides]
        broad: dict[int, Whole] = {}
        for cell, whole in self.cells.items():
            place, day = divmod(cell, BLOCK)
            at = wide_of[place] * BLOCK + day
            found = broad.get(at)
            broad[at] = whole if found is None else both(found, whole)
        for facet, cells, named in ((0, self.cells, ids), (WIDE, broad, wide_ids)):
            for level, span in enumerate(LEVELS):
                if level:
                    coarser: dict[int, Whole] = {}
                    for cell, whole in cells.items():
                        at = cell - cell % BLOCK % span
                        found = coarser.get(at)
                        coarser[at] = whole if found is None else both(found, whole)
                    cells = coarser
                base = facet + level * BLOCK
                for cell, whole in cells.items():
                    place, day = divmod(cell, BLOCK)
                    yield base + day, named[place], whole

    def keys(self) -> set[Key]:
        """All keys that :meth:`blocks` asks for."""
        return {*self.places, *(key.wide() for key in self.places)}
