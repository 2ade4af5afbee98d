"""Finished runs into ``usage_daily``: a few at a time as they finish, or all of it anew (CG-25).

:func:`roll_up` takes up runs that are over and every node of which has an end, adds what they used to the
blocks, and notes it in their rows, all in one transaction: a run is in the roll-up or it is live, never both
and never neither. :func:`rebuild` makes the same out of the ledger from nothing; it may be run at any time and
as often as one likes, and is what happens when the site's zone is another than that of the roll-up.

Each of them moves the *generation*, so that a report, which is more than one statement, can tell whether what
it read belongs together.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, tzinfo
from typing import Any

from sqlalchemy import Connection, bindparam, delete, func, insert, select, text, update
from sqlalchemy.dialects import postgresql, sqlite

from galilean import centre
from galilean.db import Database
from services.metering.cells import SUMS, USE, Calendar, Cells, Key, Span, Sums, tiles, us_of
from services.metering.tables import BLOCK, run_use, usage_daily, usage_keys, usage_projects
from spawner.tables import cluster_nodes, clusters

STATE = "usage"
BATCH = 500
CHUNK = 5_000
HOUR_US = 3_600_000_000

KEY_COLUMNS = (
    clusters.c.user,
    clusters.c.project_id,
    clusters.c.environment,
    clusters.c.pool,
    clusters.c.role,
    func.coalesce(clusters.c.account, "").label("account"),
    clusters.c.cpu_millicores,
    clusters.c.memory_bytes,
    clusters.c.gpu,
    clusters.c.gpu_model,
)
#: As the partial index says it, or SQLite would not use that.
NOT_ROLLED_UP = text("NOT clusters.rolled_up")
_OPEN_NODES = (
    select(cluster_nodes.c.cluster_id)
    .where(
        cluster_nodes.c.cluster_id == clusters.c.id,
        cluster_nodes.c.ready_at.is_not(None),
        cluster_nodes.c.gone_at.is_(None),
    )
    .exists()
)


@dataclass(frozen=True, kw_only=True)
class State:
    """What ``usage_daily`` is like: moves with each change; the zone by whose days it was made."""

    generation: int = 0
    zone: str = ""


def state(conn: Connection) -> State:
    """How far the roll-up is."""
    found = centre.value(conn, STATE) or {}
    return State(generation=int(found.get("generation", 0)), zone=str(found.get("zone", "")))


def _move(conn: Connection, zone: tzinfo, now: datetime) -> None:
    following = {"generation": state(conn).generation + 1, "zone": str(zone)}
    centre.put(conn, STATE, following, now=now, by="service:metering")


# ------------------------------------------------------------------------------------------ as runs finish


def roll_up(conn: Connection, *, zone: tzinfo, now: datetime, limit: int = BATCH) -> int:
    """Take up runs that have finished, at most ``limit``; how many.

    Call within a writing transaction, by one caller at a time (the metering service has a lease).
    """
    query = (
        select(
            clusters.c.id,
            clusters.c.project_owner,
            clusters.c.project_slug,
            clusters.c.project_name,
            *KEY_COLUMNS,
        )
        .where(NOT_ROLLED_UP, clusters.c.released_at.is_not(None), ~_OPEN_NODES)
        .order_by(clusters.c.id)
        .limit(limit)
    )
    rows = conn.execute(query).all()
    if not rows:
        return 0
    keys = {row.id: Key(*row[4:]) for row in rows}
    cells = Cells()
    _add_intervals(conn, cells, keys, Calendar(zone))
    _add_use(conn, cells, keys)
    _upsert(conn, cells)
    _name(conn, [(row.project_id, *row[1:4], row.id) for row in rows])
    _mark(conn, list(keys))
    _move(conn, zone, now)
    return len(rows)


def _add_intervals(conn: Connection, cells: Cells, keys: Mapping[str, Key], calendar: Calendar) -> None:
    for run, spans in spans_of(conn, keys).items():
        cells.add_run(keys[run], spans, calendar)


def spans_of(conn: Connection, runs: Iterable[str], until: datetime | None = None) -> dict[str, list[Span]]:
    """Lives of the nodes of these runs; with ``until`` also those without an end, until then."""
    found: dict[str, list[Span]] = {}
    end = None if until is None else us_of(until)
    for ids in _chunks(sorted(runs), CHUNK if end is None else 500):
        for run, ready, gone in conn.execute(_SPANS, {"b_runs": ids}):
            if gone is not None:
                found.setdefault(run, []).append((us_of(ready), us_of(gone)))
            elif end is not None:
                found.setdefault(run, []).append((us_of(ready), end))
    return found


def _add_use(conn: Connection, cells: Cells, keys: Mapping[str, Key]) -> None:
    for ids in _chunks(sorted(keys), CHUNK):
        for run, day, *use in conn.execute(_USE_OF, {"b_runs": ids}):
            cells.add(keys[run], day, Sums(first_us=NEVER, **dict(zip(USE, use, strict=True))))


def _mark(conn: Connection, runs: Sequence[str]) -> None:
    for ids in _chunks(runs, CHUNK):
        conn.execute(update(clusters).where(clusters.c.id.in_(ids)).values(rolled_up=True))


def _upsert(conn: Connection, cells: Cells) -> None:
    ids = key_ids(conn, cells.keys())
    dialect = sqlite if conn.dialect.name == "sqlite" else postgresql
    least = func.min if dialect is sqlite else func.least
    query = dialect.insert(usage_daily)
    there, new = usage_daily.c, query.excluded
    adds: dict[str, Any] = {name: there[name] + new[name] for name in SUMS[1:]}
    adds["first_us"] = least(there.first_us, new.first_us)
    rows = [
        {"block": number, "key_id": key_id, **dict(zip(SUMS, whole, strict=True))}
        for number, key_id, whole in cells.blocks(ids)
    ]
    if rows:
        conn.execute(query.on_conflict_do_update(index_elements=["block", "key_id"], set_=adds), rows)


def key_ids(conn: Connection, keys: set[Key]) -> dict[Key, int]:
    """Ids of keys, made where there are none."""
    found: dict[Key, int] = {}
    if len(keys) > BATCH:
        found = _all_keys(conn)
    else:
        users = sorted({key.user for key in keys})
        for some in _chunks(users, BATCH):
            for number, *rest in conn.execute(select(usage_keys).where(usage_keys.c.user.in_(some))):
                found[Key(*rest)] = number
    missing = [key for key in keys if key not in found]
    if missing:
        conn.execute(insert(usage_keys), [key._asdict() for key in missing])
        for some in _chunks(sorted({key.user for key in missing}), BATCH):
            for number, *rest in conn.execute(select(usage_keys).where(usage_keys.c.user.in_(some))):
                found[Key(*rest)] = number
    return found


def _all_keys(conn: Connection) -> dict[Key, int]:
    return {Key(*rest): number for number, *rest in conn.execute(select(usage_keys))}


def _name(conn: Connection, named: Iterable[tuple[str, str, str, str, str]]) -> None:
    """What projects were called when they last ran: (project id, owner, slug, name, run)."""
    latest: dict[str, tuple[str, str, str, str, str]] = {}
    for row in named:
        if row[0] not in latest or latest[row[0]][4] < row[4]:
            latest[row[0]] = row
    dialect = sqlite if conn.dialect.name == "sqlite" else postgresql
    query = dialect.insert(usage_projects)
    columns = [column.name for column in usage_projects.columns]
    query = query.on_conflict_do_update(
        index_elements=["project_id"],
        set_={name: query.excluded[name] for name in columns[1:]},
        where=usage_projects.c.run_id <= query.excluded.run_id,
    )
    rows = [dict(zip(columns, row, strict=True)) for row in latest.values()]
    if rows:
        conn.execute(query, rows)


# -------------------------------------------------------------------------------------------- all of it anew


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
            before = state(conn)
            cells, unmarked, runs, latest = _everything(conn, Calendar(zone))
            names = [
                tuple(row) for ids in _chunks(latest, BATCH) for row in conn.execute(_NAMES, {"b_runs": ids})
            ]
        with db.serialised(STATE) as conn:
            if state(conn).generation != before.generation:  # runs were taken up meanwhile
                continue
            conn.execute(delete(usage_daily))
            ids = key_ids(conn, cells.keys())
            rows = _fill(conn, cells.blocks(ids))
            _name(conn, names)  # type: ignore[arg-type]
            _mark(conn, unmarked)
            _move(conn, zone, now)
            return Rebuilt(runs=runs, rows=rows)


def _everything(conn: Connection, calendar: Calendar) -> tuple[Cells, list[str], int, list[str]]:
    """Cells of all finished runs; those whose rows do not say so yet; how many; the latest of each project.

    The database adds up each run; the few that reach over midnight, or whose nodes were not there at the same
    time, are looked at node by node.
    """
    cells = Cells()
    put, place_of = cells.put, cells.place
    rest: dict[str, Key] = {}
    latest: dict[str, str] = {}
    unmarked: list[str] = []
    runs = 0
    day = begin = end = 0
    for row in conn.execute(_runs(conn.dialect.name == "sqlite")):
        run, marked, first, last, node, alone, *values = tuple(row)
        runs += 1
        if not marked:
            unmarked.append(run)
        key = Key(*values)
        if run > latest.get(key.project_id, ""):
            latest[key.project_id] = run
        if not begin <= first < end:
            day = calendar.day(first)
            begin, end = calendar.begin(day), calendar.begin(day + 1)
        if alone or last > end:
            rest[run] = key
        elif last > first:
            put(place_of(key) * BLOCK + day, (first, last - first, int(node), 0, 0, 0, 0, 0, 0))
    _add_intervals(conn, cells, rest, calendar)
    use = (
        select(run_use.c.day, *(func.sum(run_use.c[name]) for name in USE), *KEY_COLUMNS)
        .join(clusters, clusters.c.id == run_use.c.cluster_id)
        .where(clusters.c.released_at.is_not(None), ~_OPEN_NODES)
        .group_by(run_use.c.day, *KEY_COLUMNS)
    )
    for at, *row in conn.execute(use):
        measured = dict(zip(USE, map(int, row[: len(USE)]), strict=True))
        cells.add(Key(*row[len(USE) :]), at, Sums(first_us=NEVER, **measured))
    return cells, unmarked, runs, list(latest.values())


def _runs(is_sqlite: bool) -> Any:
    """Each finished run that ever ran: first and last moment, node time, whether its nodes came apart."""
    if is_sqlite:  # times are text of fixed width, to the microsecond
        us = "(unixepoch(substr({0}, 1, 19)) * 1000000 + substr({0}, 21, 6))"
        total = f"sum({us.format('n.gone_at')} - {us.format('n.ready_at')})"
        broken = "min(n.gone_at > n.ready_at) = 0"
    else:
        us = "(extract(epoch from {0}) * 1000000)::bigint"
        total = "(extract(epoch from sum(n.gone_at - n.ready_at)) * 1000000)::bigint"
        broken = "NOT bool_and(n.gone_at > n.ready_at)"
    keys = ", ".join(
        "coalesce(c.account, '')" if column.name == "account" else f'c."{column.name}"'
        for column in KEY_COLUMNS
    )
    return text(
        f"""
        SELECT c.id, c.rolled_up, {us.format("min(n.ready_at)")}, {us.format("max(n.gone_at)")}, {total},
            max(n.ready_at) > min(n.gone_at) OR {broken}, {keys}
        FROM cluster_nodes n JOIN clusters c ON c.id = n.cluster_id
        WHERE n.ready_at IS NOT NULL AND c.released_at IS NOT NULL
        GROUP BY c.id HAVING count(*) = count(n.gone_at)
        """  # noqa: S608 - of names of columns only
    )


def _fill(conn: Connection, rows: Iterable[tuple[int, int, Sequence[int]]]) -> int:
    """Write an empty ``usage_daily`` in the order of its key; how many rows."""
    names = ["block", "key_id", *SUMS]
    flat = sorted((number, key_id, *whole) for number, key_id, whole in rows)
    if conn.dialect.name == "sqlite":
        marks = ", ".join("?" * len(names))
        conn.exec_driver_sql(
            f"INSERT INTO usage_daily ({', '.join(names)}) VALUES ({marks})",  # noqa: S608
            flat,
        )
        return len(flat)
    cursor = conn.connection.cursor()
    with cursor.copy(f"COPY usage_daily ({', '.join(names)}) FROM STDIN") as copy:  # type: ignore[attr-defined]
        for begin in range(0, len(flat), CHUNK):
            copy.write("".join("\t".join(map(str, row)) + "\n" for row in flat[begin : begin + CHUNK]))
    return len(flat)


# -------------------------------------------------------------------------------------------- what was used


@dataclass(frozen=True, kw_only=True)
class Used:
    """What a person booked: millicores × microseconds, cards × microseconds."""

    core_us_milli: int = 0
    gpu_us: int = 0

    @property
    def core_milli_hours(self) -> int:
        """Core hours in thousandths, rounded down."""
        return self.core_us_milli // HOUR_US

    @property
    def gpu_milli_hours(self) -> int:
        """Card hours in thousandths, rounded down."""
        return self.gpu_us * 1000 // HOUR_US


def used_since(conn: Connection, user: str, first_day: date, *, zone: tzinfo, now: datetime) -> Used:
    """What a person booked from the beginning of a day of the site until now, for budgets.

    Two statements by index: finished runs out of the roll-up, and the person's runs that are not in it yet.
    """
    calendar = Calendar(zone)
    first, today = first_day.toordinal(), calendar.today(now)
    core = gpu = 0
    # Finished runs may reach beyond today where a clock was set back.
    blocks = tiles(first, max(today, first) + 2)
    for millicores, cards, node in conn.execute(_USED, {"b_user": user, "b_blocks": blocks}):
        core += int(node) * millicores
        gpu += int(node) * cards
    start, end = calendar.begin(first), us_of(now)
    for millicores, cards, ready, gone in conn.execute(_USED_LIVE, {"b_user": user}):
        length = min(end, us_of(gone)) if gone is not None else end
        length -= max(us_of(ready), start)
        if length > 0:
            core += length * millicores
            gpu += length * cards
    return Used(core_us_milli=core, gpu_us=gpu)


def _chunks(items: Sequence[Any], size: int) -> Iterable[list[Any]]:
    for begin in range(0, len(items), size):
        yield list(items[begin : begin + size])


NEVER = Sums().first_us
_RUNS = bindparam("b_runs", expanding=True)
_SPANS = select(cluster_nodes.c.cluster_id, cluster_nodes.c.ready_at, cluster_nodes.c.gone_at).where(
    cluster_nodes.c.cluster_id.in_(_RUNS), cluster_nodes.c.ready_at.is_not(None)
)
_USE_OF = select(run_use).where(run_use.c.cluster_id.in_(_RUNS))
_NAMES = select(
    clusters.c.project_id,
    clusters.c.project_owner,
    clusters.c.project_slug,
    clusters.c.project_name,
    clusters.c.id,
).where(clusters.c.id.in_(_RUNS))
_USED = (
    select(usage_keys.c.cpu_millicores, usage_keys.c.gpu, func.sum(usage_daily.c.node_us))
    .join(usage_keys, usage_keys.c.id == usage_daily.c.key_id)
    .where(
        usage_keys.c.user == bindparam("b_user"),
        usage_daily.c.block.in_(bindparam("b_blocks", expanding=True)),
    )
    .group_by(usage_keys.c.cpu_millicores, usage_keys.c.gpu)
)
_USED_LIVE = (
    select(clusters.c.cpu_millicores, clusters.c.gpu, cluster_nodes.c.ready_at, cluster_nodes.c.gone_at)
    .join(cluster_nodes, cluster_nodes.c.cluster_id == clusters.c.id)
    .where(clusters.c.user == bindparam("b_user"), NOT_ROLLED_UP, cluster_nodes.c.ready_at.is_not(None))
)
