"""Which data sets runs have in their nodes, whatever their projects say meanwhile.

A link is a wish for the next run (:mod:`services.catalog.links`): it can be taken away or changed while a run goes on
with what it was given. Whoever moves or copies files asks what is mounted, too; rows of runs keep that.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    JSON,
    ColumnElement,
    CompoundSelect,
    Connection,
    Subquery,
    column,
    func,
    select,
    true,
    union,
)

from services.catalog.tables import project_datasets
from spawner.tables import clusters


def given(conn: Connection, *those: ColumnElement[bool]) -> Subquery:
    """Data sets of those runs as rows: ``run``, ``dataset``, ``read_only``."""
    rows = func.json_each if conn.dialect.name == "sqlite" else func.json_array_elements
    each = rows(clusters.c.datasets).table_valued(column("value", JSON))
    value: Any = each.c.value
    return (
        select(
            clusters.c.id.label("run"),
            value["id"].as_string().label("dataset"),
            value["read_only"].as_boolean().label("read_only"),
        )
        .join_from(clusters, each, true())
        .where(*those)
        .subquery()
    )


def held(conn: Connection) -> CompoundSelect[Any]:
    """Ids of data sets that open runs have, or that their projects use: a run that begins just now will have them."""
    running = clusters.c.released_at.is_(None)
    linked = select(project_datasets.c.dataset_id).join(
        clusters, clusters.c.project_id == project_datasets.c.project_id
    )
    return union(linked.where(running), select(given(conn, running).c.dataset))
