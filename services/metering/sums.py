"""The statements behind usage: what node intervals add up to, added up by the database (CG-23, CG-25).

Three steps. :func:`pieces` cuts each node's life to the window or to the days that it touches, :func:`sums`
adds up per key and size of node, :func:`walls` does the few runs whose wall time the second step cannot
tell. Times are compared as they are and subtracted as whole microseconds, on both databases; sums are kept
apart by what a node has, so that none of them leaves 64 bits.

A statement depends on what is asked by, not on for whom and when: each is built once and takes the rest as
parameters (:func:`asked`), because building and compiling one costs more than a person's answer.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime
from functools import cache
from typing import Any, Literal

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Connection,
    Integer,
    String,
    bindparam,
    case,
    cast,
    func,
    literal,
    or_,
    select,
    type_coerce,
)
from sqlalchemy.dialects.postgresql import JSON

from galilean.db import UTCDateTime
from spawner.tables import cluster_nodes, clusters

By = Literal["project", "user", "day", "pool"]
Windows = Sequence[tuple[str, datetime, datetime]]
SIZE = ("cpu_millicores", "memory_bytes", "gpu")
_FIRST = bindparam("b_first", type_=UTCDateTime())
_LAST = bindparam("b_last", type_=UTCDateTime())


def of(query: Any, user: bool, project: bool, pool: bool) -> Any:
    """A query over runs, of the person ``b_user``, the project ``b_project``, the pool ``b_pool`` only."""
    if user:
        query = query.where(clusters.c.user == bindparam("b_user"))
    if project:
        query = query.where(clusters.c.project_id == bindparam("b_project"))
    if pool:
        query = query.where(clusters.c.pool == bindparam("b_pool"))
    return query


def asked(
    conn: Connection,
    by: By,
    user: str | None,
    project_id: str | None,
    windows: Windows,
    runs: Collection[str] | None = None,
    *,
    pool: str | None = None,
) -> dict[str, Any]:
    """The parameters of the statements below: for whom, and when."""
    values: dict[str, Any] = {
        "b_first": min(begin for _, begin, _ in windows),
        "b_last": max(end for _, _, end in windows),
    }
    if by == "day":
        zone = "" if conn.dialect.name == "sqlite" else "+00"
        values["b_days"] = json.dumps(
            [
                (day, *(f"{at.astimezone(UTC):%Y-%m-%dT%H:%M:%S.%f}{zone}" for at in ends))
                for day, *ends in windows
            ]
        )
    if user is not None:
        values["b_user"] = user
    if project_id is not None:
        values["b_project"] = project_id
    if pool is not None:
        values["b_pool"] = pool
    if runs is not None:
        values["b_runs"] = list(runs)
    return values


def sums_for(conn: Connection, by: By, parameters: Mapping[str, Any]) -> Any:
    """The statement of :func:`sums` for these parameters."""
    return _built(sums, conn.dialect.name == "sqlite", by, *_said(parameters))


def walls_for(conn: Connection, by: By, parameters: Mapping[str, Any]) -> Any:
    """The statement of :func:`walls` for these parameters."""
    return _built(walls, conn.dialect.name == "sqlite", by, *_said(parameters))


def _said(parameters: Mapping[str, Any]) -> tuple[bool, bool, bool, bool]:
    return (
        "b_user" in parameters,
        "b_project" in parameters,
        "b_pool" in parameters,
        "b_runs" in parameters,
    )


@cache
def _built(what: Any, sqlite: bool, by: By, user: bool, project: bool, pool: bool, runs: bool) -> Any:
    return what(pieces(sqlite, by, user=user, project=project, pool=pool, runs=runs), sqlite)


def pieces(sqlite: bool, by: By, *, user: bool, project: bool, pool: bool, runs: bool) -> Any:
    """Each node's life cut to each window that it touches."""
    least, most = (func.min, func.max) if sqlite else (func.least, func.greatest)
    nodes = cluster_nodes.c
    key = {
        "project": clusters.c.project_id,
        "user": clusters.c.user,
        "pool": clusters.c.pool,
        "day": literal(""),
    }[by]
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
            nodes.ready_at < _LAST,
            or_(nodes.gone_at.is_(None), nodes.gone_at > _FIRST),
        ),
        user,
        project,
        pool,
    )
    if runs:
        lives = lives.where(clusters.c.id.in_(bindparam("b_runs", expanding=True)))
    if by == "day":
        days = _days(sqlite)
        # Materialised: otherwise SQLite looks through all nodes once for each day.
        life = lives.cte("lives").prefix_with("MATERIALIZED")
        key, opens, closes = days.c.day, days.c.opens, days.c.closes
        source: Any = life.join(
            days, (life.c.ready_at < closes) & or_(life.c.gone_at.is_(None), life.c.gone_at > opens)
        )
    else:
        life = source = lives.subquery("lives")
        key, opens, closes = life.c.key, _FIRST, _LAST
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


def _days(sqlite: bool) -> Any:
    """The windows as rows, out of one parameter: as many days as there are, one statement."""
    text = bindparam("b_days", type_=String)
    if sqlite:
        value = func.json_each(text).table_valued("value").c.value
        day, *ends = (func.json_extract(value, f"$[{index}]") for index in range(3))
        opens, closes = (type_coerce(end, UTCDateTime()) for end in ends)
    else:
        array: Any = func.json_array_elements(cast(text, JSON), type_=JSON()).column_valued("value")
        day = array[0].astext
        opens, closes = (cast(array[index].astext, UTCDateTime()) for index in (1, 2))
    query = select(day.label("day"), opens.label("opens"), closes.label("closes"))
    return query.cte("days").prefix_with("MATERIALIZED")


def sums(cut: Any, sqlite: bool) -> Any:
    """Per key and size of node: wall time, node time (both in microseconds), first start, latest run.

    Where all nodes of a run have a moment in common, the union of their intervals goes from the first
    beginning to the last end, and that is nearly every run. The others come one by one, named by ``alone``,
    and their wall time is not to be believed.
    """
    c = cut.c
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


def walls(cut: Any, sqlite: bool) -> Any:
    """Per key and run: wall time of runs whose nodes came and went as they liked.

    The union is a running maximum: ordered by beginning, each piece adds what lies after all before it.
    """
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
