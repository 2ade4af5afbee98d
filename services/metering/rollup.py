"""Finished runs into ``usage_daily``, a few at a time as they finish (CG-25).

:func:`roll_up` takes up runs that are over and every node of which has an end, adds what they used to the
blocks, and notes it in their rows, all in one transaction: a run is in the roll-up or it is live, never both
and never neither. :mod:`services.metering.rebuild` makes the same out of the ledger from nothing.

Each of them moves the *generation*, so that a report, which is more than one statement, can tell whether what
it read belongs together.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, tzinfo
from functools import cache
from typing import Any

from sqlalchemy import (
    BigInteger,
    Connection,
    Integer,
    bindparam,
    cast,
    func,
    insert,
    literal_column,
    null,
    select,
    text,
    union_all,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite

from galilean import centre
from galilean.db import UTCDateTime
from services.metering.cells import SUMS, USE, Calendar, Cells, Key, Span, Sums, tiles, us_of
from services.metering.tables import run_use, usage_daily, usage_keys, usage_projects
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
OPEN_NODES = (
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


def move(conn: Connection, zone: tzinfo, now: datetime) -> None:
    """Note that ``usage_daily`` changed, and by whose days it is made."""
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
        .where(NOT_ROLLED_UP, clusters.c.released_at.is_not(None), ~OPEN_NODES)
        .order_by(clusters.c.id)
        .limit(limit)
    )
    rows = conn.execute(query).all()
    if not rows:
        return 0
    keys = {row.id: Key(*row[4:]) for row in rows}
    cells = Cells()
    add_intervals(conn, cells, keys, Calendar(zone))
    _add_use(conn, cells, keys)
    _upsert(conn, cells)
    name_latest(conn, [(row.project_id, *row[1:4], row.id) for row in rows])
    mark_runs(conn, list(keys))
    move(conn, zone, now)
    return len(rows)


def waiting(conn: Connection) -> int:
    """How many finished runs are not in the roll-up."""
    query = select(func.count()).where(NOT_ROLLED_UP, clusters.c.released_at.is_not(None))
    return conn.execute(query.select_from(clusters)).scalar_one()


def add_intervals(conn: Connection, cells: Cells, keys: Mapping[str, Key], calendar: Calendar) -> None:
    """Add what the nodes of these runs had, each on its days."""
    for run, spans in spans_of(conn, keys).items():
        cells.add_run(keys[run], spans, calendar)


def spans_of(conn: Connection, runs: Iterable[str], until: datetime | None = None) -> dict[str, list[Span]]:
    """Lives of the nodes of these runs; with ``until`` also those without an end, until then."""
    found: dict[str, list[Span]] = {}
    end = None if until is None else us_of(until)
    for ids in chunks(sorted(runs), CHUNK if end is None else 500):
        for run, ready, gone in conn.execute(_SPANS, {"b_runs": ids}):
            if gone is not None:
                found.setdefault(run, []).append((us_of(ready), us_of(gone)))
            elif end is not None:
                found.setdefault(run, []).append((us_of(ready), end))
    return found


def _add_use(conn: Connection, cells: Cells, keys: Mapping[str, Key]) -> None:
    for ids in chunks(sorted(keys), CHUNK):
        for run, day, *use in conn.execute(_USE_OF, {"b_runs": ids}):
            cells.add(keys[run], day, Sums(first_us=NEVER, **dict(zip(USE, use, strict=True))))


def mark_runs(conn: Connection, runs: Sequence[str]) -> None:
    """Note in the rows of these runs that they are in the roll-up."""
    for ids in chunks(runs, CHUNK):
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
        for some in chunks(users, BATCH):
            for number, *rest in conn.execute(select(usage_keys).where(usage_keys.c.user.in_(some))):
                found[Key(*rest)] = number
    missing = [key for key in keys if key not in found]
    if missing:
        conn.execute(insert(usage_keys), [key._asdict() for key in missing])
        for some in chunks(sorted({key.user for key in missing}), BATCH):
            for number, *rest in conn.execute(select(usage_keys).where(usage_keys.c.user.in_(some))):
                found[Key(*rest)] = number
    return found


def _all_keys(conn: Connection) -> dict[Key, int]:
    return {Key(*rest): number for number, *rest in conn.execute(select(usage_keys))}


def name_latest(conn: Connection, named: Iterable[tuple[str, str, str, str, str]]) -> None:
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

    One statement, by index: finished runs out of the roll-up, and the person's runs that are not in it yet. Of two
    statements each would see its own moment, and a run that is taken up between them would be in none, or in both.
    """
    asked = UsedQuestion([first_day], zone=zone, now=now)
    return asked.answer(conn.execute(asked.query, {"b_user": user, **asked.values}).all())[0]


class UsedQuestion:
    """The question of :func:`used_since` for several days at once, for whoever puts it along with others.

    Parameters
    ----------
    first_days
        Since when, as days of the site.
    zone
        The site's.
    now
        Until when, UTC.

    Attributes
    ----------
    query
        Of the person ``b_user``; columns ``part``, ``cpu_millicores``, ``gpu``, ``node_us``, ``ready_at``, ``gone_at``.
        The same object for as many days.
    values
        Its parameters, but for the person.
    """

    def __init__(self, first_days: Sequence[date], *, zone: tzinfo, now: datetime) -> None:
        calendar = Calendar(zone)
        today = calendar.today(now)
        firsts = [day.toordinal() for day in first_days]
        self.query = _used(len(firsts))
        # Finished runs may reach beyond today where a clock was set back.
        self.values = {
            f"b_blocks_{part}": tiles(first, max(today, first) + 2) for part, first in enumerate(firsts)
        }
        self._starts = [calendar.begin(first) for first in firsts]
        self._end = us_of(now)

    def answer(self, rows: Iterable[Sequence[Any]]) -> list[Used]:
        """What was booked since each of the days, of the rows of the query."""
        core, gpu = [0] * len(self._starts), [0] * len(self._starts)
        for part, millicores, cards, node, ready, gone in rows:
            if node is not None:
                core[part] += int(node) * int(millicores)
                gpu[part] += int(node) * int(cards)
                continue
            begin, end = us_of(ready), self._end if gone is None else min(self._end, us_of(gone))
            for which, start in enumerate(self._starts):
                length = max(end - max(begin, start), 0)
                core[which] += length * int(millicores)
                gpu[which] += length * int(cards)
        return [Used(core_us_milli=a, gpu_us=b) for a, b in zip(core, gpu, strict=True)]


def chunks(items: Sequence[Any], size: int) -> Iterable[list[Any]]:
    """The items, so many at a time."""
    for begin in range(0, len(items), size):
        yield list(items[begin : begin + size])


NEVER = Sums().first_us
_RUNS = bindparam("b_runs", expanding=True)
_SPANS = select(cluster_nodes.c.cluster_id, cluster_nodes.c.ready_at, cluster_nodes.c.gone_at).where(
    cluster_nodes.c.cluster_id.in_(_RUNS), cluster_nodes.c.ready_at.is_not(None)
)
_USE_OF = select(run_use).where(run_use.c.cluster_id.in_(_RUNS))
#: Lives of nodes first: the types of their columns are those of the whole.
_LIVE = (
    select(
        literal_column("0", Integer).label("part"),
        clusters.c.cpu_millicores,
        clusters.c.gpu,
        cast(null(), BigInteger).label("node_us"),
        cluster_nodes.c.ready_at,
        cluster_nodes.c.gone_at,
    )
    .join(cluster_nodes, cluster_nodes.c.cluster_id == clusters.c.id)
    .where(clusters.c.user == bindparam("b_user"), NOT_ROLLED_UP, cluster_nodes.c.ready_at.is_not(None))
)


@cache
def _used(parts: int) -> Any:
    """Lives of nodes that are not in the roll-up, and for each part the sums of its blocks."""
    return union_all(
        _LIVE,
        *(
            select(
                literal_column(str(part), Integer),
                usage_keys.c.cpu_millicores,
                usage_keys.c.gpu,
                func.sum(usage_daily.c.node_us),
                cast(null(), UTCDateTime()),
                cast(null(), UTCDateTime()),
            )
            .join(usage_daily, usage_keys.c.id == usage_daily.c.key_id)
            .where(
                usage_keys.c.user == bindparam("b_user"),
                usage_daily.c.block.in_(bindparam(f"b_blocks_{part}", expanding=True)),
            )
            .group_by(usage_keys.c.cpu_millicores, usage_keys.c.gpu)
            for part in range(parts)
        ),
    )
