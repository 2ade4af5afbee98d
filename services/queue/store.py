"""What the queue reads and writes in the rows of runs."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Connection

from galilean.errors import UserError
from spawner import records
from spawner.records import Run
from spawner.states import Status, Target

ACTOR = "service:queue"


def position(conn: Connection, run_id: str) -> int | None:
    """The place in line of a run that waits: 1 = next. ``None`` when it does not wait."""
    run = records.get(conn, run_id)
    if run is None or run.status != Status.QUEUED or not run.is_open or run.stop_asked_at is not None:
        return None
    return 1 + records.waits_longer(conn, pool=run.pool, gpu_model=run.gpu_model, run=run)


def close_cancelled(conn: Connection, runs: list[Run], now: datetime) -> list[Run]:
    """Close waits whose end was asked for; nothing of them exists, so the hub is not needed."""
    return [
        run
        for run in runs
        if run.status == Status.QUEUED
        and (run.stop_asked_at is not None or run.target == Target.RELEASED)
        and records.cancel_waiting(
            conn, run.id, reason=run.reason or "cancelled", asked_by=run.stop_asked_by or ACTOR, now=now
        )
    ]


def give_up(conn: Connection, run_id: str, error: UserError, *, now: datetime) -> bool:
    """Close a wait that can come to nothing, with the hub's words; only while it waits still."""
    run = records.get(conn, run_id)
    if run is None or run.status != Status.QUEUED or not run.is_open:
        return False
    why = "start_failed"
    records.ask_stop(conn, run_id, reason=why, asked_by=ACTOR, now=now, explanation=error.as_dict())
    return records.cancel_waiting(conn, run_id, reason=why, asked_by=ACTOR, now=now)
