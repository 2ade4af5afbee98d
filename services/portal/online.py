"""Everything that is held now, with what it really uses (CG-27, CG-47): rules over rows, no page.

Filtering and ordering are pure functions over the open runs, of which there are hundreds or a thousand, not
millions: two statements read of all of them what these go by (:class:`HeldRun`), whatever is shown, and a third one
the whole rows of the page that is (:func:`whole_rows`).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import cached_property
from typing import Any, NamedTuple

from sqlalchemy import Connection, and_, func, select

from galilean.db import UTCDateTime
from services.portal.goes_back import GoesBack, goes_back
from services.portal.pages.table_view import TableView
from spawner import records
from spawner.records import Run
from spawner.states import public_word
from spawner.tables import cluster_nodes, clusters, node_use

SORTS = ("held", "person", "project", "pool", "nodes", "cores", "memory", "gpu", "cpu_now", "gpu_now", "seen")
HELD = {"1h": timedelta(hours=1), "2h": timedelta(hours=2), "8h": timedelta(hours=8), "1d": timedelta(days=1)}
WORDS = ("running", "starting", "waiting", "releasing")
#: Nothing worth speaking of was used for so long: then it stands out.
IDLE = timedelta(minutes=10)
#: An older measurement is not *now*.
FRESH = timedelta(minutes=3)


@dataclass(frozen=True, kw_only=True)
class Use:
    """What a cluster's nodes were last measured to use, together; ``cpu_permille`` 1000 = one CPU.

    Without ``whole`` a node of it is not measured, and nobody can say that the cluster is idle.
    """

    measured_at: datetime
    cpu_permille: int = 0
    gpu_permille: int | None = None
    used_at: datetime | None = None
    whole: bool = True


class HeldRun(NamedTuple):
    """Of a held cluster what the table is filtered, ordered and summed by; the columns are those of ``clusters``."""

    id: str
    user: str
    project_name: str
    project_slug: str
    pool: str
    status: str
    target: str
    nodes: int
    cpu_millicores: int
    memory_bytes: int
    gpu: int
    release_policy: str
    queued_at: datetime
    ready_at: datetime | None
    proxy_seen_at: datetime | None
    node_seen_at: datetime | None

    @property
    def word(self) -> str:
        """The public word of its state."""
        return public_word(self.status, self.target)

    def together(self, field: str) -> int:
        """An amount of the whole cluster."""
        return self.nodes * int(getattr(self, field))


@dataclass(frozen=True, kw_only=True)
class Row:
    """A held cluster as the table shows it.

    Attributes
    ----------
    run
        Its row; the whole one where it is shown.
    now, grace_seconds
        For when it goes back.
    cpu_now, gpu_now
        Parts of what it holds that are really used, 0 … 1; ``None`` = not measured (lately).
    idle_since
        Since when nothing worth speaking of runs, where that is long enough to be told.
    seen_at
        When its person was last there, by both witnesses.
    """

    run: Run | HeldRun
    now: datetime
    grace_seconds: int = 300
    cpu_now: float | None = None
    gpu_now: float | None = None
    idle_since: datetime | None = None
    seen_at: datetime | None = None

    @cached_property
    def back(self) -> GoesBack:
        """When it goes back: reckoned for the few rows that are shown, not for all."""
        if not isinstance(self.run, Run):
            raise TypeError("only of whole rows is it known when they go back")
        return goes_back(self.run, self.now, grace_seconds=self.grace_seconds)


@dataclass(frozen=True, kw_only=True)
class View(TableView):
    """Whoever holds longest first, until asked otherwise."""

    word: str = ""
    held: str = ""
    policy: str = ""
    idle: str = ""
    sort: str = "held"
    descending: bool = True

    sorts = SORTS
    words_in = ("person", "project", "pool")

    @classmethod
    def parse_filters(cls, query: dict[str, str]) -> dict[str, str]:
        word, held = query.get("state", ""), query.get("held", "")
        return {
            "word": word if word in WORDS else "",
            "held": held if held in HELD else "",
            "policy": query.get("policy", "")[:32],
            "idle": "1" if query.get("idle") else "",
        }

    def filters(self) -> dict[str, str]:
        return {"state": self.word, "held": self.held, "policy": self.policy, "idle": self.idle}


_HELD = (
    select(*(clusters.c[name] for name in HeldRun._fields))
    .where(clusters.c.released_at.is_(None))
    .order_by(clusters.c.id)
)


def read_held(conn: Connection) -> tuple[list[HeldRun], dict[str, Use]]:
    """All open runs, oldest first, and what was last measured of each."""
    return [HeldRun(*row) for row in conn.execute(_HELD)], uses_of(conn)


def whole_rows(conn: Connection, rows: Sequence[Row]) -> list[Row]:
    """The same rows with all that is known of their runs; one that is gone meanwhile is left out."""
    found = {run.id: run for run in records.by_ids(conn, [row.run.id for row in rows])}
    return [replace(row, run=found[row.run.id]) for row in rows if row.run.id in found]


def uses_of(conn: Connection, ids: Collection[str] | None = None) -> dict[str, Use]:
    """What was last measured of open runs, by id, of those of which something was; ``ids`` = of these only."""
    n, u = cluster_nodes.c, node_use.c
    query = (
        select(
            n.cluster_id,
            func.min(u.measured_at, type_=UTCDateTime()).label("measured_at"),
            func.sum(u.cpu_permille).label("cpu_permille"),
            func.sum(u.gpu_permille).label("gpu_permille"),
            func.max(u.used_at, type_=UTCDateTime()).label("used_at"),
            (func.count(u.measured_at) == func.count()).label("whole"),
        )
        .join(clusters, and_(clusters.c.id == n.cluster_id, clusters.c.released_at.is_(None)))
        .outerjoin(node_use, and_(u.cluster_id == n.cluster_id, u.rank == n.rank, u.attempt == n.attempt))
        .where(n.gone_at.is_(None))
        .group_by(n.cluster_id)
        .having(func.count(u.measured_at) > 0)
    )
    if ids is not None:
        query = query.where(n.cluster_id.in_(list(ids)))
    return {
        row.cluster_id: Use(
            measured_at=row.measured_at,
            cpu_permille=int(row.cpu_permille),
            gpu_permille=None if row.gpu_permille is None else int(row.gpu_permille),
            used_at=row.used_at,
            whole=bool(row.whole),
        )
        for row in conn.execute(query)
    }


def row_of(run: Run | HeldRun, use: Use | None, now: datetime, *, grace_seconds: int = 300) -> Row:
    """A held cluster with what is told of it."""
    cpu = gpu = idle = None
    if use is not None and now - use.measured_at <= FRESH and run.word == "running":
        cpu = min(1.0, use.cpu_permille / (run.together("cpu_millicores") or 1))
        if use.gpu_permille is not None and run.gpu:
            gpu = min(1.0, use.gpu_permille / (1000 * run.together("gpu")))
        used = use.used_at or run.ready_at
        idle = used if use.whole and used is not None and now - used >= IDLE else None
    seen = [at for at in (run.proxy_seen_at, run.node_seen_at) if at is not None]
    return Row(
        run=run,
        now=now,
        grace_seconds=grace_seconds,
        cpu_now=cpu,
        gpu_now=gpu,
        idle_since=idle,
        seen_at=min(seen) if len(seen) == 2 else None,
    )


def rows_of(
    runs: Iterable[Run | HeldRun], uses: Mapping[str, Use], now: datetime, *, grace_seconds: int = 300
) -> list[Row]:
    """Rows of runs, in their order."""
    return [row_of(run, uses.get(run.id), now, grace_seconds=grace_seconds) for run in runs]


def fits(row: Row, view: View, now: datetime) -> bool:
    """Whether a row is in a view."""
    run = row.run
    if view.text:
        haystack = f"{run.user}\n{run.project_name}\n{run.project_slug}".casefold()
        if not all(word in haystack for word in view.text.casefold().split()):
            return False
    if view.pool and run.pool != view.pool:
        return False
    if view.word and run.word != view.word:
        return False
    if view.policy and run.release_policy != view.policy:
        return False
    if view.idle and row.idle_since is None:
        return False
    return not view.held or (run.ready_at is not None and now - run.ready_at > HELD[view.held])


def arrange(rows: Iterable[Row], view: View, now: datetime) -> list[Row]:
    """The rows of a view, in its order; equals by id, so that a live table does not dance."""
    keys: dict[str, Any] = {
        "held": lambda row: (now - row.run.ready_at).total_seconds() if row.run.ready_at else -1.0,
        "person": lambda row: row.run.user.casefold(),
        "project": lambda row: row.run.project_name.casefold(),
        "pool": lambda row: row.run.pool,
        "nodes": lambda row: row.run.nodes,
        "cores": lambda row: row.run.together("cpu_millicores"),
        "memory": lambda row: row.run.together("memory_bytes"),
        "gpu": lambda row: row.run.together("gpu"),
        # What was not measured is less than nothing used.
        "cpu_now": lambda row: -1.0 if row.cpu_now is None else row.cpu_now,
        "gpu_now": lambda row: -1.0 if row.gpu_now is None else row.gpu_now,
        "seen": lambda row: row.seen_at.timestamp() if row.seen_at else 0.0,
    }
    found = sorted((row for row in rows if fits(row, view, now)), key=lambda row: row.run.id)
    return sorted(found, key=keys[view.sort], reverse=view.descending)


def sums(runs: Sequence[Run | HeldRun]) -> dict[str, int]:
    """What runs hold together."""
    return {
        "clusters": len(runs),
        "nodes": sum(run.nodes for run in runs),
        "cpu_millicores": sum(run.nodes * run.cpu_millicores for run in runs),
        "memory_bytes": sum(run.nodes * run.memory_bytes for run in runs),
        "gpu": sum(run.nodes * run.gpu for run in runs),
        "people": len({run.user for run in runs}),
    }


CSV_HEAD = (
    "id", "person", "project", "state", "pool", "nodes", "cpu", "memory_gb", "gpu", "gpu_model", "cpu_now_percent",
    "gpu_now_percent", "ready_at", "held_seconds", "last_seen_at", "idle_since", "policy", "goes_back_at", "why",
)  # fmt: skip


def csv_line(row: Row, now: datetime, stamp: Any) -> tuple[Any, ...]:
    """A (whole) row as a file has it; ``stamp`` writes a moment."""
    run = row.run
    model = run.gpu_model if isinstance(run, Run) else ""
    held = int((now - run.ready_at).total_seconds()) if run.ready_at else ""
    return (
        run.id, run.user, run.project_name, run.word, run.pool, run.nodes, run.together("cpu_millicores") / 1000,
        round(run.together("memory_bytes") / 2**30, 3), run.together("gpu"), model,
        _percent(row.cpu_now), _percent(row.gpu_now), stamp(run.ready_at), held, stamp(row.seen_at),
        stamp(row.idle_since), run.release_policy, stamp(row.back.at), row.back.why,
    )  # fmt: skip


def _percent(part: float | None) -> float | str:
    return "" if part is None else round(100 * part, 1)
