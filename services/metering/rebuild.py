"""``usage_daily`` made anew out of the ledger, from nothing (CG-25).

It may be run at any time and as often as one likes, and comes to the same as taking up each run when it is
over. It is what happens when the site's zone is another than that of the roll-up, and when so many runs wait to
be taken up that a few at a time would take long.

The database adds up each run, and on PostgreSQL also those of one key and day; the few that reach over midnight,
or whose nodes were not there at the same time, are looked at node by node by the functions that reports use. What
comes out is compared with what is there, and only what differs is written: mostly nothing. Where much differs the
table is emptied and filled, which reports of PostgreSQL wait for; if that cannot be at once, because a backup reads
the table, its rows are replaced, which takes longer and holds nobody up.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, tzinfo
from typing import Any, NamedTuple

from sqlalchemy import Connection, func, select, text
from sqlalchemy.exc import OperationalError

from galilean.db import Database
from services.metering.cells import SUMS, USE, Calendar, Cells, Key, Sums, Whole, us_of
from services.metering.rollup import (
    CHUNK,
    KEY_COLUMNS,
    NEVER,
    NOT_ROLLED_UP,
    OPEN_NODES,
    STATE,
    add_intervals,
    key_ids,
    mark_runs,
    move,
    name_latest,
    state,
)
from services.metering.tables import BLOCK, run_use
from spawner.tables import clusters

NAMES = ("block", "key_id", *SUMS)
#: Of the rows; more that differ are not worth being looked up one by one.
FEW = 0.1
#: Everybody who reads waits behind the one who empties the table; autovacuum gives way after a second.
EMPTY_MOST_MS = 2000

Named = tuple[str, str, str, str, str]


@dataclass(frozen=True, kw_only=True)
class Rebuilt:
    """What :func:`rebuild` made: runs that are in it, rows of it."""

    runs: int
    rows: int


def rebuild(db: Database, *, zone: tzinfo, now: datetime) -> Rebuilt:
    """Make ``usage_daily`` anew from all finished runs. The ledger is read without holding anybody up."""
    while True:
        with db.read() as conn:
            if not db.is_sqlite:  # all statements of it see the same
                conn = conn.execution_options(isolation_level="REPEATABLE READ")
                _generously(conn)
            before = state(conn)
            cells, runs = _everything(conn, Calendar(zone))
            unmarked = list(conn.execute(_UNMARKED).scalars())
            names: list[Named] = [tuple(row) for row in conn.execute(_NAMES)]  # type: ignore[misc]
        with db.serialised(STATE) as conn:
            if state(conn).generation != before.generation:  # runs were taken up meanwhile
                continue
            rows = cells.blocks(key_ids(conn, cells.keys()))
            count = _fill(conn, rows) if db.is_sqlite else _replace(conn, rows)
            name_latest(conn, names)
            mark_runs(conn, unmarked)
            move(conn, zone, now)
            return Rebuilt(runs=runs, rows=count)


def _generously(conn: Connection) -> None:
    """Sort and group in memory, in this transaction."""
    conn.execute(text("SET LOCAL work_mem = '128MB'"))
    conn.execute(text("SET LOCAL jit = off"))


class Tally(NamedTuple):
    """Runs of one key that began on one day: how many, the day, their sums; or ids of runs to be looked at."""

    runs: int
    day: int
    whole: Whole
    key: Key
    ids: Sequence[str]


def _everything(conn: Connection, calendar: Calendar) -> tuple[Cells, int]:
    """Cells of all finished runs, and how many have any."""
    cells = Cells()
    rest: dict[str, Key] = {}
    runs = 0
    if conn.dialect.name == "sqlite":
        runs = _one_by_one(conn, calendar, cells, rest)
    else:
        for tally in _tallies(conn, calendar):
            runs += tally.runs
            if tally.ids:
                rest.update(dict.fromkeys(tally.ids, tally.key))
            else:
                cells.put(cells.place(tally.key) * BLOCK + tally.day, tally.whole)
    add_intervals(conn, cells, rest, calendar)
    use = (
        select(run_use.c.day, *(func.sum(run_use.c[name]) for name in USE), *KEY_COLUMNS)
        .join(clusters, clusters.c.id == run_use.c.cluster_id)
        .where(clusters.c.released_at.is_not(None), ~OPEN_NODES)
        .group_by(run_use.c.day, *KEY_COLUMNS)
    )
    for at, *row in conn.execute(use):
        measured = dict(zip(USE, map(int, row[: len(USE)]), strict=True))
        cells.add(Key(*row[len(USE) :]), at, Sums(first_us=NEVER, **measured))
    return cells, runs


def _one_by_one(conn: Connection, calendar: Calendar, cells: Cells, rest: dict[str, Key]) -> int:
    """SQLite, which grouping costs more than it costs here: into cells, or to the rest; how many runs.

    A quarter of a million times, so nothing is made for a run that is not kept.
    """
    day = begin = end = runs = 0
    us = "(unixepoch(substr({0}, 1, 19)) * 1000000 + substr({0}, 21, 6))"  # text of fixed width
    query = _runs(
        us,
        f"sum({us.format('n.gone_at')} - {us.format('n.ready_at')})",
        "min(n.gone_at > n.ready_at) = 0",
        "min(n.gone_at IS NOT NULL)",
    )
    names = ", ".join(_KEY_NAMES)
    places: dict[tuple[Any, ...], int] = {}
    sums: dict[int, list[int]] = {}
    cursor = conn.connection.cursor()
    cursor.execute(f"SELECT id, first, last, node, odd, {names} FROM ({query})")  # noqa: S608 - our own names
    while rows := cursor.fetchmany(CHUNK):
        runs += len(rows)
        for row in rows:
            run, first, last, node, odd = row[:5]
            if not begin <= first < end:
                day = calendar.day(first)
                begin, end = calendar.begin(day), calendar.begin(day + 1)
            values = row[5:]
            if odd or last > end:
                rest[run] = Key(*values)
                continue
            place = places.get(values)
            if place is None:
                place = places[values] = cells.place(Key(*values)) * BLOCK
            found = sums.get(place + day)
            if found is None:
                sums[place + day] = [first, last - first, node]
            else:
                if first < found[0]:
                    found[0] = first
                found[1] += last - first
                found[2] += node
    for cell, (first, wall, node) in sums.items():
        cells.put(cell, _whole(first, wall, node))
    return runs


def _tallies(conn: Connection, calendar: Calendar) -> Iterator[Tally]:
    """PostgreSQL: those of one key and day together, as few as there are cells."""
    oldest, latest = conn.execute(
        select(func.min(clusters.c.queued_at), func.max(clusters.c.queued_at)).where(
            clusters.c.released_at.is_not(None)
        )
    ).one()
    if oldest is None:
        return
    day = calendar.day(us_of(oldest)) - 1
    # What was ready before or after these days, by whatever clock, is looked at run by run.
    begins = [calendar.begin(number) for number in range(day, calendar.day(us_of(latest)) + 10)]
    runs = _runs(
        "(extract(epoch from {0}) * 1000000)::bigint",
        "(extract(epoch from sum(n.gone_at - n.ready_at)) * 1000000)::bigint",
        "NOT bool_and(n.gone_at > n.ready_at)",
        "bool_and(n.gone_at IS NOT NULL)",  # counts that are compared would be planned as a handful of rows
    )
    names = ", ".join(_KEY_NAMES)
    cursor = conn.connection.cursor()
    cursor.execute(
        f"""
        SELECT count(*), place, min(first), sum(last - first)::bigint, sum(node)::bigint,
            array_agg(id) FILTER (WHERE alone), {names}
        FROM (
            SELECT *, odd OR place IN (0, {len(begins)}) OR last > (%(begins)s::bigint[])[place + 1] AS alone
            FROM (SELECT *, width_bucket(first, %(begins)s::bigint[]) AS place FROM ({runs}) AS runs) AS placed
        ) AS looked_at
        GROUP BY place, alone, {names}
        """,  # noqa: S608 - our own names
        {"begins": begins},
    )
    while rows := cursor.fetchmany(CHUNK):
        for count, place, first, wall, node, ids, *values in rows:
            yield Tally(count, day + place - 1, _whole(first, wall, node), Key(*values), ids or ())


def _whole(first: int, wall: int, node: int) -> Whole:
    return (first, wall, node, 0, 0, 0, 0, 0, 0)


_KEY_NAMES = tuple(f"k_{column.name}" for column in KEY_COLUMNS)


def _runs(us: str, total: str, broken: str, ended: str) -> str:
    """Each finished run that ever ran: first and last moment, node time, whether its nodes came apart; its key."""
    keys = ", ".join(
        f"coalesce(c.account, '') AS {name}" if column.name == "account" else f'c."{column.name}" AS {name}'
        for column, name in zip(KEY_COLUMNS, _KEY_NAMES, strict=True)
    )
    return f"""
        SELECT c.id, lives.first, lives.last, lives.node, lives.odd, {keys}
        FROM (
            SELECT n.cluster_id, {us.format("min(n.ready_at)")} AS first, {us.format("max(n.gone_at)")} AS last,
                {total} AS node, max(n.ready_at) > min(n.gone_at) OR {broken} AS odd
            FROM cluster_nodes n WHERE n.ready_at IS NOT NULL
            GROUP BY n.cluster_id HAVING {ended}
        ) AS lives
        JOIN clusters c ON c.id = lives.cluster_id WHERE c.released_at IS NOT NULL
        """  # noqa: S608 - of names of columns only


_UNMARKED = select(clusters.c.id).where(NOT_ROLLED_UP, clusters.c.released_at.is_not(None), ~OPEN_NODES)
_NAMES = select(
    clusters.c.project_id,
    clusters.c.project_owner,
    clusters.c.project_slug,
    clusters.c.project_name,
    clusters.c.id,
).where(
    clusters.c.id.in_(
        select(func.max(clusters.c.id))
        .where(clusters.c.released_at.is_not(None))
        .group_by(clusters.c.project_id)
    )
)


# ------------------------------------------------------------------------------------------------- writing it


Rows = Iterable[tuple[int, int, Whole]]


def _fill(conn: Connection, rows: Rows) -> int:
    """SQLite: the same, compared here; how many rows it is then."""
    names = ", ".join(NAMES)
    fresh = {(number, key_id): whole for number, key_id, whole in rows}
    cursor = conn.connection.cursor()
    cursor.execute(f"SELECT {names} FROM usage_daily")  # noqa: S608 - our own names
    there = {row[:2]: row[2:] for row in cursor.fetchall()}
    gone = [key for key in there if key not in fresh]
    other = [(*key, *whole) for key, whole in fresh.items() if there.get(key) != whole]
    if len(gone) + len(other) > FEW * len(fresh):
        cursor.execute("DELETE FROM usage_daily")
        gone, other = [], sorted((*key, *whole) for key, whole in fresh.items())  # in the order of its key
    cursor.executemany("DELETE FROM usage_daily WHERE block = ? AND key_id = ?", gone)
    marks = ", ".join("?" * len(NAMES))
    cursor.executemany(f"INSERT OR REPLACE INTO usage_daily ({names}) VALUES ({marks})", other)  # noqa: S608
    return len(fresh)


def _replace(conn: Connection, rows: Rows) -> int:
    """PostgreSQL: write what differs from what is there; how many rows it is then."""
    _generously(conn)
    names, line = ", ".join(NAMES), "\t".join(["%d"] * len(NAMES)) + "\n"
    conn.execute(text("CREATE TEMPORARY TABLE usage_fresh (LIKE usage_daily) ON COMMIT DROP"))
    cursor = conn.connection.cursor()
    with cursor.copy(f"COPY usage_fresh ({names}) FROM STDIN") as copy:  # type: ignore[attr-defined]
        for some in _in_chunks(rows):
            copy.write("".join([line % (number, key_id, *whole) for number, key_id, whole in some]))
    conn.execute(text("ANALYZE usage_fresh"))
    differing, count = conn.execute(_DIFFERING).one()
    if not differing:
        return count
    if differing <= FEW * count:
        for statement in (_DROP_GONE, _CHANGE, _ADD_NEW):
            conn.execute(statement)
        return count
    _empty(conn)
    conn.execute(text(f"INSERT INTO usage_daily SELECT {names} FROM usage_fresh ORDER BY block, key_id"))  # noqa: S608
    return count


def _empty(conn: Connection) -> None:
    try:
        with conn.begin_nested():
            conn.execute(text(f"SET LOCAL lock_timeout = {EMPTY_MOST_MS}"))
            conn.execute(text("TRUNCATE usage_daily"))
            conn.execute(text("SET LOCAL lock_timeout = 0"))
    except OperationalError:  # somebody reads it for long
        conn.execute(text("DELETE FROM usage_daily"))


def _in_chunks(rows: Rows) -> Iterator[list[tuple[int, int, Whole]]]:
    some: list[tuple[int, int, Whole]] = []
    for row in rows:
        some.append(row)
        if len(some) == CHUNK:
            yield some
            some = []
    yield some


_OF_BOTH = "there.block = fresh.block AND there.key_id = fresh.key_id"
_OTHER = (
    f"({', '.join(f'there.{name}' for name in SUMS)}) IS DISTINCT FROM "
    f"({', '.join(f'fresh.{name}' for name in SUMS)})"
)
_DIFFERING = text(
    f"""
    SELECT count(*) FILTER (WHERE there.block IS NULL OR fresh.block IS NULL OR {_OTHER}), count(fresh.block)
    FROM usage_daily AS there FULL JOIN usage_fresh AS fresh ON {_OF_BOTH}
    """  # noqa: S608 - our own names
)
_DROP_GONE = text(
    f"DELETE FROM usage_daily AS there WHERE NOT EXISTS (SELECT FROM usage_fresh AS fresh WHERE {_OF_BOTH})"  # noqa: S608
)
_CHANGE = text(
    f"""
    UPDATE usage_daily AS there SET {", ".join(f"{name} = fresh.{name}" for name in SUMS)}
    FROM usage_fresh AS fresh WHERE {_OF_BOTH} AND {_OTHER}
    """  # noqa: S608
)
_ADD_NEW = text(
    f"""
    INSERT INTO usage_daily ({", ".join(NAMES)}) SELECT {", ".join(f"fresh.{name}" for name in NAMES)}
    FROM usage_fresh AS fresh LEFT JOIN usage_daily AS there ON {_OF_BOTH} WHERE there.block IS NULL
    """  # noqa: S608
)
