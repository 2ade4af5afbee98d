"""Rows of runs and nodes for the tests of this room."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Connection, insert

from galilean.amounts import GIB
from spawner.tables import cluster_nodes, clusters

T0 = datetime(2026, 3, 2, 9, 0, tzinfo=UTC)


def at(minutes: float = 0, **more: float) -> datetime:
    return T0 + timedelta(minutes=minutes, **more)


def add_run(conn: Connection, run_id: str, **values: Any) -> str:
    row: dict[str, Any] = {
        "id": run_id,
        "user": "alice",
        "server": f"s-{run_id}"[:60].lower(),
        "project_id": "P1",
        "project_owner": "alice",
        "project_slug": "heat",
        "project_name": "Heat",
        "environment": "jupyter",
        "backend": "process",
        "nodes": 1,
        "cpu_millicores": 2000,
        "memory_bytes": 8 * GIB,
        "gpu": 1,
        "release_policy": "auto",
        "request": {},
        "status": "running",
        "asked_by": "alice",
        "queued_at": T0,
        "ready_at": T0,
    }
    conn.execute(insert(clusters).values(row | values))
    return run_id


def add_node(
    conn: Connection,
    run_id: str,
    rank: int,
    ready_at: datetime | None,
    gone_at: datetime | None = None,
    **values: Any,
) -> None:
    conn.execute(
        insert(cluster_nodes).values(
            {
                "cluster_id": run_id,
                "rank": rank,
                "name": f"{run_id}-{rank}",
                "placed_at": ready_at,
                "ready_at": ready_at,
                "gone_at": gone_at,
            }
            | values
        )
    )
