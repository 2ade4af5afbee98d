"""The statements behind usage: what node intervals add up to, added up by the database (CG-23, CG-25).

Three steps. :func:`pieces` cuts each node's life to the window or to the days that it touches, :func:`sums`
adds up per key and size of node, :func:`walls` does the few runs whose wall time the second step cannot
tell. Times are compared as they are and subtracted as whole microseconds, on both databases; sums are kept
apart by what a node has, so that none of them leaves 64 bits.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any, Literal

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Connection,
    Integer,
    String,
    case,
    cast,
    column,
    func,
    literal,
    or_,
    select,
    values,
)

from galilean.db import UTCDateTime
from spawner.tables import cluster_nodes, clusters

By = Literal["project", "user", "day"]
SIZE = ("cpu_millicores", "memory_bytes", "gpu")


def of(query: Any, user: str | None, project_id: str | None) -> Any:
    """A query over runs, of this person or project only."""
    if user is not None:
        query = query.where(clusters.c.user == user)
    if project_id is not None:
        query = query.where(clusters.c.project_id == project_id)
    return query


def pieces(
    conn: Connection,
    by: By,
    user: str | None,
    project_id: str | None,
    windows: Sequence[tuple[str, datetime, datetime]],
    runs: Collection[str] | None = None,
) -> Any:
    """Each node's life cut to each window that it touches."""
    sqlite = conn.dialect.name == "sqlite"
    least, most = (func.min, func.max) if sqlite else (func.least, func.greatest)
    first, last = min(a for _, a, _ in windows), max(b for _, _, b in windows)
    nodes = cluster_nodes.c
    key = {"project": clusters.c.project_id, "user": clusters.c.user, "day": literal("")}[by]
    lives = of(
        select(
            key.label("key"),
            clusters.c.id.label("run"),
            clusters.c.cpu_millicores,
            clusters.c.memory_bytes,
            clusters.c.gpu,
            nodes.rank,
            nodes.attempt,
            nodes.ready_at,
            nodes.gone_at,
        )
        .select_from(cluster_nodes.join(clusters, clusters.c.id == nodes.cluster_id))
        .where(
            nodes.ready_at.is_not(None),
            nodes.ready_at < last,
            or_(nodes.gone_at.is_(None), nodes.gone_at > first),
        ),
        user,
        project_id,
    )
    if runs is not None:
        lives = lives.where(clusters.c.id.in_(runs))
    if by == "day":
        days = (
            values(
                column("day", String),
                column("opens", UTCDateTime()),
                column("closes", UTCDateTime()),
                name="days",
            )
            .data(list(windows))
            .cte("days")
        )
        # Materialised: otherwise SQLite looks through all nodes once for each day.
        life = lives.cte("lives").prefix_with("MATERIALIZED")
        key, opens, closes = days.c.day, days.c.opens, days.c.closes
        source: Any = life.join(
            days, (life.c.ready_at < closes) & or_(life.c.gone_at.is_(None), life.c.gone_at > opens)
        )
    else:
        life = source = lives.subquery("lives")
        key, opens, closes = life.c.key, literal(first, UTCDateTime()), literal(last, UTCDateTime())
    began = most(life.c.ready_at, opens, type_=UTCDateTime())
    ended = least(func.coalesce(life.c.gone_at, closes), closes, type_=UTCDateTime())
    return (
        select(
            key.label("key"),
            *(life.c[name] for name in (*SIZE, "run", "rank", "attempt", "ready_at")),
            began.label("began"),
            ended.label("ended"),
        )
        .select_from(source)
        .where(ended > began)
        .subquery("pieces")
    )


def sums(conn: Connection, cut: Any) -> Any:
    """Per key and size of node: wall time, node time (both in microseconds), first start, latest run.

    Where all nodes of a run have a moment in common, the union of their intervals goes from the first
    beginning to the last end, and that is nearly every run. The others come one by one, named by ``alone``,
    and their wall time is not to be believed.
    """
    c, sqlite = cut.c, conn.dialect.name == "sqlite"
    runs = (
        select(
            c.key,
            c.run,
            *(func.max(c[name]).label(name) for name in SIZE),
            func.sum(_microseconds_between(sqlite, c.began, c.ended)).label("node_time"),
            func.min(c.began, type_=UTCDateTime()).label("began"),
            func.max(c.ended, type_=UTCDateTime()).label("ended"),
            case((func.max(c.began) > func.min(c.ended), c.run)).label("alone"),
            func.min(c.ready_at, type_=UTCDateTime()).label("ready_at"),
        )
        .group_by(c.key, c.run)
        .subquery("runs")
    )
    r = runs.c
    size = [r[name] for name in SIZE]
    return select(
        r.key,
        *size,
        r.alone,
        func.sum(_microseconds_between(sqlite, r.began, r.ended)).label("wall"),
        func.sum(r.node_time).label("node_time"),
        func.min(r.ready_at, type_=UTCDateTime()).label("first_start"),
        func.max(r.run).label("latest"),
    ).group_by(r.key, *size, r.alone)


def walls(conn: Connection, cut: Any) -> Any:
    """Per key and run: wall time of runs whose nodes came and went as they liked.

    The union is a running maximum: ordered by beginning, each piece adds what lies after all before it.
    """
    sqlite = conn.dialect.name == "sqlite"
    most = func.max if sqlite else func.greatest
    c = cut.c
    before = func.max(c.ended).over(
        partition_by=(c.run, c.key), order_by=(c.began, c.rank, c.attempt), rows=(None, -1)
    )
    covered = select(
        c.key,
        c.run,
        c.began,
        c.ended,
        func.coalesce(before, c.began, type_=UTCDateTime()).label("covered_to"),
    ).subquery("covered")
    c = covered.c
    fresh = most(c.began, c.covered_to, type_=UTCDateTime())
    wall = case((c.ended > fresh, _microseconds_between(sqlite, fresh, c.ended)), else_=0)
    return select(c.key, c.run, func.sum(wall).label("wall")).group_by(c.key, c.run)


def _microseconds_between(sqlite: bool, start: Any, end: Any) -> ColumnElement[int]:
    if sqlite:  # times are text of fixed width, to the microsecond

        def moment(text: Any) -> ColumnElement[int]:
            seconds = cast(func.strftime("%s", func.substr(text, 1, 19)), Integer)
            return seconds * 1_000_000 + cast(func.substr(text, 21, 6), Integer)

        return moment(end) - moment(start)
    return cast(func.extract("epoch", end - start) * 1_000_000, BigInteger)
