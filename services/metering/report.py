"""Reports of machine time: finished runs out of the roll-up, and what is not in it, live (CG-23 … CG-26, AP-22).

A report costs what its window and its keys cost, not what was ever measured: some fifteen blocks of
``usage_daily`` for any window of whole days (one per day where it is by day), and the intervals of the few runs
that are not over. Everything is whole numbers until a figure is shown, so the lines of every breakdown add up
to the same total, to the microsecond.

The parts are read by several statements; should a run be taken up between them (the generation moved), it is
all read again.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import date, datetime, tzinfo
from functools import cache
from operator import attrgetter
from typing import Any, Literal, get_args

from sqlalchemy import Connection, bindparam, func, select

from galilean.amounts import GIB
from services.metering.cells import SUMS, USE, Calendar, Key, Sums, by_day, moment_of, tiles, us_of, widened
from services.metering.rollup import KEY_COLUMNS, NEVER, NOT_ROLLED_UP, spans_of, state
from services.metering.tables import (
    BLOCK,
    WIDE,
    run_use,
    usage_daily,
    usage_keys,
    usage_projects,
    usage_sum,
)
from services.metering.usage import LiveProjects, live_projects
from spawner.tables import clusters

By = Literal["project", "user", "day", "month", "environment", "role", "pool"]
KINDS: tuple[str, ...] = get_args(By)
FILTERS = ("user", "project_id", "environment", "role", "pool", "account")
MINUTE = 60_000_000
DAYS_MOST = 3660
TRIES = 5


@dataclass(frozen=True, kw_only=True)
class Window:
    """Whole days of the site, both included; ``None`` = from the first on, until today."""

    first: date | None = None
    last: date | None = None


@dataclass(kw_only=True, slots=True)
class Figures:
    """Machine time in whole numbers.

    Attributes
    ----------
    first_us
        When the first node of it was ready, microseconds since 1970.
    wall_us
        Wall time of runs, microseconds; nodes side by side once.
    node_us
        Time of all nodes, microseconds.
    cpu, memory, gpu
        Booked: millicores, bytes, cards, each times microseconds.
    measured_us
        Node time during which real use was measured.
    cpu_used_us
        Processor time really used.
    memory_kib_s
        Memory really used, KiB times seconds.
    gpu_used_us, gpu_idle_us
        Card time used (by utilisation), and with utilisation 0.
    idle_us
        Node time during which nothing was used (AP-22).
    """

    first_us: int = NEVER
    wall_us: int = 0
    node_us: int = 0
    cpu: int = 0
    memory: int = 0
    gpu: int = 0
    measured_us: int = 0
    cpu_used_us: int = 0
    memory_kib_s: int = 0
    gpu_used_us: int = 0
    idle_us: int = 0
    gpu_idle_us: int = 0

    def add_sums(self, sums: Iterable[int], cpu_millicores: int, memory_bytes: int, gpu: int) -> None:
        """Add sums (in the order of :data:`SUMS`) of nodes of one size."""
        first, wall, node, measured, cpu_used, memory_used, gpu_used, idle, gpu_idle = sums
        if first < self.first_us:
            self.first_us = first
        self.wall_us += wall
        self.node_us += node
        self.cpu += node * cpu_millicores
        self.memory += node * memory_bytes
        self.gpu += node * gpu
        self.measured_us += measured
        self.cpu_used_us += cpu_used
        self.memory_kib_s += memory_used
        self.gpu_used_us += gpu_used
        self.idle_us += idle
        self.gpu_idle_us += gpu_idle

    def add(self, other: Figures) -> None:
        if other.first_us < self.first_us:
            self.first_us = other.first_us
        self.wall_us += other.wall_us
        self.node_us += other.node_us
        self.cpu += other.cpu
        self.memory += other.memory
        self.gpu += other.gpu
        self.measured_us += other.measured_us
        self.cpu_used_us += other.cpu_used_us
        self.memory_kib_s += other.memory_kib_s
        self.gpu_used_us += other.gpu_used_us
        self.idle_us += other.idle_us
        self.gpu_idle_us += other.gpu_idle_us

    @property
    def first_start(self) -> datetime | None:
        """When the first node of it was ready, UTC."""
        return None if self.first_us == NEVER else moment_of(self.first_us)

    @property
    def seconds(self) -> int:
        """Wall time, rounded."""
        return round(self.wall_us / 1_000_000)

    @property
    def cpu_core_minutes(self) -> float:
        return self.cpu / (1000 * MINUTE)

    @property
    def memory_gb_minutes(self) -> float:
        return self.memory / (GIB * MINUTE)

    @property
    def gpu_card_minutes(self) -> float:
        return self.gpu / MINUTE

    @property
    def node_hours(self) -> float:
        """Booked: hours of nodes."""
        return self.node_us / (60 * MINUTE)

    @property
    def idle_hours(self) -> float:
        """Hours of nodes during which nothing was used."""
        return self.idle_us / (60 * MINUTE)

    @property
    def idle_percent(self) -> float | None:
        """Idle time of what was measured; ``None`` = nothing was."""
        return 100 * self.idle_us / self.measured_us if self.measured_us else None

    @property
    def cpu_used_minutes(self) -> float:
        return self.cpu_used_us / MINUTE

    @property
    def memory_used_gb_minutes(self) -> float:
        return self.memory_kib_s * 1024 / (GIB * 60)

    @property
    def gpu_used_minutes(self) -> float:
        return self.gpu_used_us / MINUTE

    @property
    def cpu_percent(self) -> float | None:
        """Processor time used of that booked (CR-7), as far as it was measured."""
        booked = self.cpu / 1000 * self._measured_part
        return min(100 * self.cpu_used_us / booked, 100.0) if booked else None

    @property
    def memory_percent(self) -> float | None:
        """Memory used of that booked, as far as it was measured."""
        booked = self.memory / 1_000_000 * self._measured_part
        return min(100 * self.memory_kib_s * 1024 / booked, 100.0) if booked else None

    @property
    def gpu_percent(self) -> float | None:
        """Card time used of that booked, as far as it was measured."""
        booked = self.gpu * self._measured_part
        return min(100 * self.gpu_used_us / booked, 100.0) if booked else None

    @property
    def _measured_part(self) -> float:
        return min(self.measured_us / self.node_us, 1.0) if self.node_us else 0.0


_ADDED = tuple(one.name for one in fields(Figures) if one.name != "first_us")


@dataclass(kw_only=True, slots=True)
class Line(Figures):
    """A line of a report.

    Attributes
    ----------
    key
        Project id, user name, ISO date, ``2026-11``, or the name of what it is by.
    label
        What people read.
    owner, slug
        Of a project, as it last ran.
    deleted
        Whether it is no more.
    """

    key: str
    label: str = ""
    owner: str = ""
    slug: str = ""
    deleted: bool = False

    @classmethod
    def of_sums(cls, key: str, sums: Sequence[int], cpu_millicores: int, memory_bytes: int, gpu: int) -> Line:
        """A line of nothing but these sums, as :meth:`add_sums` takes them."""
        made = cls.__new__(cls)  # its constructor, told everything by name, takes twice as long
        made.key = key
        made.label = made.owner = made.slug = ""
        made.deleted = False
        (
            made.first_us,
            made.wall_us,
            node,
            made.measured_us,
            made.cpu_used_us,
            made.memory_kib_s,
            made.gpu_used_us,
            made.idle_us,
            made.gpu_idle_us,
        ) = sums
        made.node_us = node
        made.cpu = node * cpu_millicores
        made.memory = node * memory_bytes
        made.gpu = node * gpu
        return made


@dataclass(kw_only=True)
class Report:
    """Lines and their total; ``days`` are the days that were asked for (ordinals, the last included)."""

    lines: list[Line] = field(default_factory=list)
    total: Figures = field(default_factory=Figures)
    first: int = 0
    last: int = -1


def report(
    conn: Connection,
    *,
    by: By,
    window: Window | None = None,
    zone: tzinfo,
    now: datetime,
    live: LiveProjects = live_projects,
    named: bool = True,
    **filters: str | None,
) -> Report:
    """Machine time per project, person, day, month, environment, role or pool.

    Parameters
    ----------
    conn
        A connection for reading.
    by
        What a line is. Days and months come in their order, others with the most wall time first.
    window
        Whole days; all there are without.
    zone
        The site's.
    now
        Until when running nodes count, UTC.
    live
        Tells which projects are not deleted.
    named
        Whether projects come with their names; otherwise :func:`name_projects` is for the lines to be shown.
    filters
        Any of :data:`FILTERS`: only what is of this person, this project …; ``None`` = of any.

    Raises
    ------
    ValueError
        When it would be more than ten years of days.
    """
    wanted = {name: value for name, value in filters.items() if value is not None}
    calendar = Calendar(zone)
    window = window or Window()
    for _ in range(TRIES):
        before = state(conn).generation
        found = _read(conn, by, window, calendar, now, wanted)
        if state(conn).generation == before:
            break
    if by == "project" and named:
        name_projects(conn, found.lines, live)
    for line in found.lines:
        line.label = line.label or line.key
    found.total = total_of(found.lines)
    found.lines.sort(key=attrgetter("key"))
    if by not in ("day", "month"):
        found.lines.sort(key=attrgetter("wall_us"), reverse=True)  # equal ones stay as they are
    return found


def total_of(lines: Sequence[Figures]) -> Figures:
    """What they are together; column by column, which for thousands takes half as long as line by line."""
    total = Figures(first_us=min(map(attrgetter("first_us"), lines), default=NEVER))
    for name in _ADDED:
        setattr(total, name, sum(map(attrgetter(name), lines)))
    return total


def _read(
    conn: Connection, by: By, window: Window, calendar: Calendar, now: datetime, filters: Mapping[str, str]
) -> Report:
    alive = _live(conn, by, calendar, now, filters)
    today = calendar.today(now)
    first, last, known_first = _days(conn, window, today, alive)
    if last - first >= DAYS_MOST and by in ("day", "month"):
        raise ValueError("more days than ten years have")
    lines: dict[str, Line] = {}

    def line(key: str) -> Line:
        found = lines.get(key)
        if found is None:
            found = lines[key] = Line(key=key)
        return found

    months: dict[int, str] = {}

    def name_of(day: int) -> str:
        found = months.get(day)
        if found is None:
            text = date.fromordinal(day).isoformat()
            found = months[day] = text[:7] if by == "month" else text
        return found

    by_days = by in ("day", "month")
    narrow = bool({"user", "project_id"} & filters.keys()) or by in ("user", "project")
    values: dict[str, Any] = {f"b_{name}": value for name, value in filters.items()}
    facet = 0 if narrow else WIDE
    if by_days:
        values |= {"b_first": facet + first, "b_last": facet + last}
    else:
        wide_first, wide_last = widened(first, last, known_first, today + 1)
        values["b_blocks"] = [facet + tile for tile in tiles(wide_first, wide_last + 1)]
    if first <= last:
        # All at once: everybody's projects are thousands of rows, and a row of a cursor costs more than its sums.
        one = len(values.get("b_blocks", ())) == 1
        rows: Sequence[Any] = conn.execute(_rolled(by, narrow, tuple(sorted(filters)), one), values).all()
        for key, cpu, memory, gpu, *sums in rows:
            key = name_of(key - facet) if by_days else key
            known = lines.get(key)
            if known is None:  # most of everybody's thousands are of one size: made at once, not added up
                lines[key] = Line.of_sums(key, sums, cpu, memory, gpu)
            else:
                known.add_sums(sums, cpu, memory, gpu)
    for key, days in alive:
        for day, sums in days.items():
            if first <= day <= last:
                line(name_of(day) if by_days else getattr(key, _COLUMN[by])).add_sums(
                    sums.values(), key.cpu_millicores, key.memory_bytes, key.gpu
                )
    return Report(lines=list(lines.values()), first=first, last=last)


def _days(
    conn: Connection, window: Window, today: int, alive: Iterable[tuple[Key, Mapping[int, Sums]]]
) -> tuple[int, int, int]:
    """The days that a window means, and the first day of all.

    To the day after today where no last one is said, should a clock be wrong.
    """
    known = conn.execute(select(func.min(usage_daily.c.block)).where(usage_daily.c.block < BLOCK)).scalar()
    known_first = today if known is None else known
    if window.first is not None:
        first = window.first.toordinal()
    else:
        first = min([known_first, *(day for _, days in alive for day in days)])
    return first, (today + 1 if window.last is None else window.last.toordinal()), known_first


def _live(
    conn: Connection, by: By, calendar: Calendar, now: datetime, filters: Mapping[str, str]
) -> list[tuple[Key, dict[int, Sums]]]:
    """What runs that are not in the roll-up used on each day until now."""
    query = select(clusters.c.id, *KEY_COLUMNS).where(NOT_ROLLED_UP)
    for name, value in filters.items():
        query = query.where(clusters.c[name] == value)
    keys = {run: Key(*values) for run, *values in conn.execute(query)}
    found = {
        run: by_day([(a, min(b, us_of(now))) for a, b in spans], calendar)
        for run, spans in spans_of(conn, keys, now).items()
    }
    ids = sorted(keys)
    for begin in range(0, len(ids), 500):
        for run, day, *use in conn.execute(
            select(run_use).where(run_use.c.cluster_id.in_(ids[begin : begin + 500]))
        ):
            measured = Sums(first_us=NEVER, **dict(zip(USE, use, strict=True)))
            found.setdefault(run, {}).setdefault(day, Sums()).add(measured)
    return [(keys[run], days) for run, days in found.items()]


_COLUMN = {
    "project": "project_id",
    "user": "user",
    "environment": "environment",
    "role": "role",
    "pool": "pool",
}


@cache
def _rolled(by: By, narrow: bool, filters: tuple[str, ...], one_block: bool = False) -> Any:
    """The statement over the roll-up; built once for each kind of question.

    In ``one_block`` a key stands once: there is nothing to add up.
    """
    d = usage_daily.c
    by_days = by in ("day", "month")
    sums = [func.min(d.first_us).label("first_us"), *(usage_sum(d[name]).label(name) for name in SUMS[1:])]
    if by_days:
        inside = (d.block >= bindparam("b_first")) & (d.block <= bindparam("b_last"))
    else:
        inside = d.block.in_(bindparam("b_blocks", expanding=True))
    if by_days:
        keys = usage_keys.c
        what, size = d.block, (keys.cpu_millicores, keys.memory_bytes, keys.gpu)
        query = select(what, *size, *sums).join(usage_keys, keys.id == d.key_id).where(inside)
        query = query.group_by(what, *size)
    elif not filters and one_block:
        keys = usage_keys.c
        size = (keys.cpu_millicores, keys.memory_bytes, keys.gpu)
        query = select(keys[_COLUMN[by]], *size, *(d[name] for name in SUMS))
        query = query.join(usage_keys, keys.id == d.key_id).where(inside)
    elif not filters:  # added up by the number of the key first: that is what costs
        inner = select(d.key_id, *sums).where(inside).group_by(d.key_id).subquery("of_keys")
        keys = usage_keys.c
        query = select(
            keys[_COLUMN[by]], keys.cpu_millicores, keys.memory_bytes, keys.gpu,
            *(inner.c[name] for name in SUMS),
        ).join(inner, keys.id == inner.c.key_id)  # fmt: skip
    else:
        keys = usage_keys.c
        what, size = keys[_COLUMN[by]], (keys.cpu_millicores, keys.memory_bytes, keys.gpu)
        query = select(what, *size, *sums).join(usage_keys, keys.id == d.key_id).where(inside)
        query = query.group_by(what, *size)
    if filters:
        query = query.where(keys.user != "" if narrow else keys.user == "")
    for name in filters:
        query = query.where(keys[name] == bindparam(f"b_{name}"))
    return query


def name_projects(conn: Connection, lines: Collection[Line], live: LiveProjects = live_projects) -> None:
    """Projects by the names that they last ran by, and whether they are deleted."""
    if not lines:
        return
    wanted = {line.key: line for line in lines}
    few = len(wanted) <= 500
    named = select(usage_projects)
    running = select(
        clusters.c.project_id,
        clusters.c.project_owner,
        clusters.c.project_slug,
        clusters.c.project_name,
        clusters.c.id,
    ).where(NOT_ROLLED_UP)
    if few:
        named = named.where(usage_projects.c.project_id.in_(list(wanted)))  # all that run are few enough
    latest: dict[str, str] = {}
    for rows in (conn.execute(named), conn.execute(running)):
        for project, owner, slug, name, run in rows:
            line = wanted.get(project)
            if line is not None and run >= latest.get(project, ""):
                latest[project] = run
                line.owner, line.slug, line.label = owner, slug, name
    there = live(conn, wanted.keys())
    for line in lines:
        line.deleted = line.key not in there


def project_name(conn: Connection, project_id: str) -> str | None:
    """What a project was called when it last ran; ``None`` = it never did."""
    query = (
        select(clusters.c.project_name)
        .where(clusters.c.project_id == project_id)
        .order_by(clusters.c.queued_at.desc())
        .limit(1)
    )
    return conn.execute(query).scalar()
