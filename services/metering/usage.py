"""Usage: what node intervals add up to (CG-23, CG-25, CG-26; design §7).

The resources of a run are summed over its nodes, its wall time is not: two nodes side by side for an hour
are one hour of wall time and twice the core minutes. A node counts from ``ready_at`` to ``gone_at``, or to
now while it lives; a node that never was ready costs nothing.

Everything here is exact: time is added up in whole microseconds, amounts in the units they are kept in,
and rounded once at the end. The database does the adding (grouped by what a node has, so that no sum leaves
64 bits); the pure functions above it say the same in few lines, and the tests hold the two together.

Days are the site's (one time zone); a run over midnight is split, and a day of 23 or 25 hours is one.
Projects keep their rows after they are deleted, marked so, under the name they last ran by (CG-24).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from typing import Any, Protocol

from sqlalchemy import (
    Connection,
    String,
    column,
    func,
    select,
    table,
)

from galilean.amounts import GIB
from galilean.db import UTCDateTime
from services.metering.sums import By, asked, of, sums_for, walls_for
from spawner.tables import cluster_nodes, clusters

MICROSECOND = timedelta(microseconds=1)
MINUTE = 60_000_000  # microseconds
DAYS_MOST = 3660


class Interval(Protocol):
    """A node's life, such as :class:`spawner.records.NodeInterval`."""

    @property
    def ready_at(self) -> datetime | None: ...
    @property
    def gone_at(self) -> datetime | None: ...


class Amounts(Protocol):
    """What each node of a run has, such as :class:`spawner.records.Run`."""

    @property
    def cpu_millicores(self) -> int: ...
    @property
    def memory_bytes(self) -> int: ...
    @property
    def gpu(self) -> int: ...


@dataclass(frozen=True, kw_only=True)
class Usage:
    """Machine time.

    Attributes
    ----------
    seconds
        Wall time: moments in which at least one node was there, once; of several runs, their sum.
    cpu_core_minutes, memory_gb_minutes, gpu_card_minutes
        Resources of all nodes times their minutes; 1 GB = 2**30 bytes.
    """

    seconds: int = 0
    cpu_core_minutes: float = 0.0
    memory_gb_minutes: float = 0.0
    gpu_card_minutes: float = 0.0


@dataclass(frozen=True, kw_only=True)
class UsageRow(Usage):
    """Usage of one project, person, day or pool.

    Attributes
    ----------
    key
        Project id, user name, ISO date, or the pool's name.
    label
        What people read: the project's name as it last ran, the user name, the date.
    owner, slug
        Of a project, as it last ran; empty otherwise.
    deleted
        Whether the project is no more.
    first_start
        When the first node of these was ready, UTC.
    """

    key: str
    label: str
    owner: str = ""
    slug: str = ""
    deleted: bool = False
    first_start: datetime


# ------------------------------------------------------------------------------------------ pure arithmetic


def microseconds(length: timedelta) -> int:
    """A length of time as a whole number of microseconds."""
    return length // MICROSECOND


def union_microseconds(spans: Iterable[tuple[datetime, datetime]]) -> int:
    """Length of the union of spans; spans that end before they begin count nothing."""
    total, covered_to = timedelta(), None
    for start, end in sorted(spans):
        if covered_to is not None and start < covered_to:
            start = covered_to
        if end > start:
            total += end - start
            covered_to = end
    return microseconds(total)


def spans_of(
    intervals: Iterable[Interval],
    now: datetime,
    *,
    start: datetime | None = None,
    end: datetime | None = None,
) -> list[tuple[datetime, datetime]]:
    """What of the intervals lies before ``now`` and within ``start`` … ``end``."""
    until = now if end is None else min(now, end)
    spans: list[tuple[datetime, datetime]] = []
    for interval in intervals:
        if interval.ready_at is None:
            continue
        begin = interval.ready_at if start is None else max(interval.ready_at, start)
        finish = until if interval.gone_at is None else min(interval.gone_at, until)
        if finish > begin:
            spans.append((begin, finish))
    return spans


def usage_of(
    intervals: Iterable[Interval],
    amounts: Amounts,
    now: datetime,
    *,
    start: datetime | None = None,
    end: datetime | None = None,
) -> Usage:
    """Usage of one run.

    Parameters
    ----------
    intervals
        Of all nodes of the run, all attempts.
    amounts
        What each node has.
    now
        Until when open intervals count, UTC.
    start, end
        Count only what lies between, UTC.
    """
    spans = spans_of(intervals, now, start=start, end=end)
    node_time = sum(microseconds(finish - begin) for begin, finish in spans)
    return _usage(
        union_microseconds(spans), [(node_time, amounts.cpu_millicores, amounts.memory_bytes, amounts.gpu)]
    )


def days_between(start: datetime, end: datetime, zone: tzinfo) -> list[tuple[date, datetime, datetime]]:
    """The site's days that touch ``start`` … ``end``, each with its beginning and end in UTC."""
    day, last = start.astimezone(zone).date(), end.astimezone(zone).date()
    days: list[tuple[date, datetime, datetime]] = []
    while day <= last:
        following = day + timedelta(days=1)
        begin, finish = _midnight(day, zone), _midnight(following, zone)
        if finish > start and begin < end:
            days.append((day, begin, finish))
        day = following
    return days


def _midnight(day: date, zone: tzinfo) -> datetime:
    # Where clocks jump over midnight, the old offset gives the moment of the jump: the day's first.
    return datetime.combine(day, time(), tzinfo=zone).astimezone(UTC)


def _usage(wall: int, parts: Iterable[tuple[int, int, int, int]]) -> Usage:
    cpu = memory = gpu = 0
    for node_time, cpu_millicores, memory_bytes, cards in parts:
        cpu += node_time * cpu_millicores
        memory += node_time * memory_bytes
        gpu += node_time * cards
    # A quotient of whole numbers is the float nearest to it, however large they are.
    return Usage(
        seconds=_whole_seconds(wall),
        cpu_core_minutes=cpu / (1000 * MINUTE),
        memory_gb_minutes=memory / (GIB * MINUTE),
        gpu_card_minutes=gpu / MINUTE,
    )


def _whole_seconds(wall: int) -> int:
    """Microseconds rounded to seconds, a half to the even one."""
    seconds, rest = divmod(wall, 1_000_000)
    return seconds + (rest > 500_000 or (rest == 500_000 and seconds % 2 == 1))


# ------------------------------------------------------------------------------------------ in the database

LiveProjects = Callable[[Connection, Collection[str]], set[str]]


def live_projects(conn: Connection, project_ids: Collection[str]) -> set[str]:
    """Which of these projects are not deleted, by the catalogue's table (its name is the contract)."""
    projects = table("projects", column("id", String), column("deleted_at", UTCDateTime()))
    found: set[str] = set()
    for ids in _chunks(project_ids):
        query = select(projects.c.id).where(projects.c.id.in_(ids), projects.c.deleted_at.is_(None))
        found.update(conn.execute(query).scalars())
    return found


def usage(
    conn: Connection,
    *,
    by: By,
    user: str | None = None,
    project_id: str | None = None,
    pool: str | None = None,
    start: datetime | None = None,
    end: datetime | None = None,
    zone: tzinfo = UTC,
    now: datetime,
    live: LiveProjects = live_projects,
) -> list[UsageRow]:
    """Usage per project, person, day or pool.

    Parameters
    ----------
    conn
        A connection for reading.
    by
        What a row is. Projects, people and pools come with the most wall time first, days in their order; what
        used nothing is left out.
    user, project_id, pool
        Only runs of this person, of this project, in this pool.
    start, end
        Count only what lies between, UTC; ``None`` = from the first node on, until now.
    zone
        The site's time zone: where its days begin.
    now
        Until when running nodes count, UTC.
    live
        Tells which projects are not deleted; handed in.

    Raises
    ------
    ValueError
        When ``by="day"`` would be more than ten years of days.
    """
    until = now if end is None else min(now, end)
    if by == "day":
        begin = start if start is not None else _first_start(conn, user, project_id, pool)
        if begin is None or begin >= until:
            return []
        days = days_between(begin, until, zone)
        if len(days) > DAYS_MOST:
            raise ValueError("more days than ten years have")
        windows = [(day.isoformat(), max(a, begin), min(b, until)) for day, a, b in days]
    else:
        begin = start if start is not None else datetime(1970, 1, 1, tzinfo=UTC)
        if begin >= until:
            return []
        windows = [("", begin, until)]
    parts = _Parts()
    values = asked(conn, by, user, project_id, windows, pool=pool)
    for row in conn.execute(sums_for(conn, by, values), values):
        parts.add(row)
    for alone in _chunks({run for _, run in parts.alone}):
        values = asked(conn, by, user, project_id, windows, alone, pool=pool)
        for row in conn.execute(walls_for(conn, by, values), values):
            if (row.key, row.run) in parts.alone:  # on its other days the run may have been told above
                parts.wall[row.key] += int(row.wall)
    if by == "project":
        return _named(conn, parts, live)
    rows = [
        UsageRow(key=key, label=key, first_start=parts.first[key], **vars(found))
        for key, found in parts.usages()
    ]
    return sorted(rows, key=lambda row: row.key if by == "day" else (-row.seconds, row.key))


def _first_start(
    conn: Connection, user: str | None, project_id: str | None, pool: str | None
) -> datetime | None:
    query = select(func.min(cluster_nodes.c.ready_at, type_=UTCDateTime()))
    if user is not None or project_id is not None or pool is not None:
        query = query.join(clusters, clusters.c.id == cluster_nodes.c.cluster_id)
    query = of(query, user is not None, project_id is not None, pool is not None)
    return conn.execute(query, {"b_user": user, "b_project": project_id, "b_pool": pool}).scalar_one()


def _chunks(ids: Iterable[str]) -> Iterator[list[str]]:
    """Pieces that fit into one statement's parameters."""
    rest = sorted(ids)
    for begin in range(0, len(rest), 500):
        yield rest[begin : begin + 500]


class _Parts:
    """Sums by key; a key comes once for each size of node that it used."""

    def __init__(self) -> None:
        self.wall: dict[str, int] = {}
        self.sizes: dict[str, list[tuple[int, int, int, int]]] = {}
        self.first: dict[str, datetime] = {}
        self.latest: dict[str, str] = {}
        self.alone: set[tuple[str, str]] = set()

    def add(self, row: Any) -> None:
        key = row.key
        self.wall[key] = self.wall.get(key, 0) + (0 if row.alone else int(row.wall))
        self.sizes.setdefault(key, []).append(
            (int(row.node_time), row.cpu_millicores, row.memory_bytes, row.gpu)
        )
        self.first[key] = min(self.first.get(key, row.first_start), row.first_start)
        self.latest[key] = max(self.latest.get(key, ""), row.latest)
        if row.alone:
            self.alone.add((key, row.alone))

    def usages(self) -> list[tuple[str, Usage]]:
        return [(key, _usage(wall, self.sizes[key])) for key, wall in self.wall.items()]


def _named(conn: Connection, parts: _Parts, live: LiveProjects) -> list[UsageRow]:
    """Rows of projects with the names that they last ran by."""
    names: dict[str, Any] = {}
    for latest in _chunks(parts.latest.values()):
        query = select(
            clusters.c.project_id, clusters.c.project_name, clusters.c.project_owner, clusters.c.project_slug
        ).where(clusters.c.id.in_(latest))
        names.update({row.project_id: row for row in conn.execute(query)})
    there = live(conn, names.keys())
    rows = [
        UsageRow(
            key=key,
            label=names[key].project_name,
            owner=names[key].project_owner,
            slug=names[key].project_slug,
            deleted=key not in there,
            first_start=parts.first[key],
            **vars(found),
        )
        for key, found in parts.usages()
    ]
    return sorted(rows, key=lambda row: (-row.seconds, row.key))
