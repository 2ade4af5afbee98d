"""The ledger against the world: open node intervals are compared with what the backend really has (BX-5).

The lifecycle in the hub writes the ends of nodes; it cannot when the hub is down, killed in the middle of a
stop, or when a node dies unseen. So at every tick all open intervals are compared with a *complete*
inventory. A node that is there is noted as sighted. One that the backend says has ended gets the backend's
own finish time. One that is missing, or has ended at a time that nobody knows, is believed gone after **two
complete looks** in a row (whoever stops it may be about to write its end), and then ended at its last
sighting, with the words "last seen" as its reason, because that is what the number rests on. A look that
failed says nothing: nothing is noted, nothing counted.

It never fights the lifecycle: ends are written only where there is none, only for nodes that were ready
(others cost nothing and may still be on their way), and no row of a cluster is touched.

What remains different (an interval without a node, a node without an interval) is kept in memory, for the
metrics and for administrators.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge
from sqlalchemy import Connection

from galilean.clock import Clock, utcnow
from galilean.db import Database
from spawner.inventory import Inventory, Sighting
from spawner.records import NodeInterval, mark_node_gone, open_intervals, sight_nodes

log = logging.getLogger("galilean.metering")

ABSENCES = 2
LAST_SEEN = "lost, counted until last seen"
ENDED = "ended"

Key = tuple[str, int, int]  #: run id, rank, attempt


@dataclass(frozen=True, kw_only=True)
class Close:
    """An interval to be ended."""

    key: Key
    at: datetime
    exit_reason: str


@dataclass(frozen=True, kw_only=True)
class Difference:
    """What ledger and backend do not agree on.

    Attributes
    ----------
    looked_at
        When the inventory was asked, UTC.
    nodes, sighted
        Open intervals, and how many of them the backend has alive.
    missing
        Open intervals that the backend does not have (looked for again before they are ended).
    strays
        Living nodes of the backend without an open interval of theirs: the sweeper's business, or a start
        that is not ready yet.
    """

    looked_at: datetime
    nodes: int = 0
    sighted: int = 0
    missing: tuple[Key, ...] = ()
    strays: tuple[Sighting, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """What is to be done after one complete look.

    Attributes
    ----------
    sighted
        Nodes that were there.
    closes
        Intervals to end.
    absences
        How often in a row each missing node was missed; handed to the next comparison.
    difference
        For metrics and administrators.
    """

    sighted: tuple[Key, ...] = ()
    closes: tuple[Close, ...] = ()
    absences: Mapping[Key, int] = field(default_factory=dict)
    difference: Difference


def compare(
    intervals: Iterable[NodeInterval],
    sightings: Sequence[Sighting],
    absences: Mapping[Key, int],
    now: datetime,
) -> Comparison:
    """What one complete look at the backend means for the open intervals.

    Parameters
    ----------
    intervals
        All that are ready and not gone, read **before** the look: what appeared since is not missed.
    sightings
        The whole inventory.
    absences
        Of the comparison before.
    now
        When the look began, UTC.
    """
    by_node: dict[tuple[str, int], list[Sighting]] = {}
    for sighting in sightings:
        by_node.setdefault((sighting.run, sighting.rank), []).append(sighting)
    lives = sorted(intervals, key=lambda life: (life.cluster_id, life.rank, life.attempt))
    newest = {(life.cluster_id, life.rank): life.attempt for life in lives}
    sighted: list[Key] = []
    closes: list[Close] = []
    missed: dict[Key, int] = {}
    for life in lives:
        key = (life.cluster_id, life.rank, life.attempt)
        # A sighting is of the newest attempt: objects carry the run's id and rank, and older ones are gone.
        seen = by_node.get(key[:2], []) if newest[key[:2]] == life.attempt else []
        finished = [s.finished_at for s in seen if s.finished_at is not None]
        if any(s.alive for s in seen):
            sighted.append(key)
        elif finished:
            closes.append(Close(key=key, at=_within(life, max(finished), now), exit_reason=ENDED))
        else:  # not there, or ended and nobody knows when; whoever stops it may be about to write that down
            missed[key] = absences.get(key, 0) + 1
            if missed[key] >= ABSENCES:
                closes.append(Close(key=key, at=last_known(life, now), exit_reason=LAST_SEEN))
    known = set(newest)
    strays = tuple(s for s in sightings if s.alive and (s.run, s.rank) not in known)
    return Comparison(
        sighted=tuple(sighted),
        closes=tuple(closes),
        absences=missed,
        difference=Difference(
            looked_at=now, nodes=len(lives), sighted=len(sighted), missing=tuple(missed), strays=strays
        ),
    )


def last_known(life: NodeInterval, now: datetime) -> datetime:
    """The last moment at which the node is known to have lived."""
    moments = [moment for moment in (life.ready_at, life.sighted_at) if moment is not None]
    return min(max(moments, default=now), now) if moments else now


def _within(life: NodeInterval, at: datetime, now: datetime) -> datetime:
    """A finish time by somebody else's clock, kept between what we know and now."""
    earliest = life.ready_at if life.ready_at is not None else at
    return max(min(at, now), earliest)


class Reconciler:
    """The thin loop around :func:`compare`; :meth:`tick` is one round.

    Parameters
    ----------
    db, inventory, clock
        Our database, the backend's inventory, the wall clock.
    registry
        For the metrics; ``None`` = a registry of its own.
    details
        A dictionary that ``/health`` shows; the difference is put there.
    """

    def __init__(
        self,
        db: Database,
        inventory: Inventory,
        *,
        clock: Clock = utcnow,
        registry: CollectorRegistry | None = None,
        details: dict[str, Any] | None = None,
    ) -> None:
        self.db, self.inventory, self.clock = db, inventory, clock
        self.details = {} if details is None else details
        self.absences: Mapping[Key, int] = {}
        self.difference: Difference | None = None
        registry = registry or CollectorRegistry()
        self._open = Gauge("galilean_node_meter_count", "Nodes that are being metered.", registry=registry)
        self._missing = Gauge(
            "galilean_node_miss_count", "Metered nodes that the backend did not have.", registry=registry
        )
        self._strays = Gauge(
            "galilean_node_stray_count", "Living nodes without a metered interval.", registry=registry
        )
        self._closed = Counter(
            "galilean_interval_close_total",
            "Intervals ended by metering, by what their end rests on.",
            ["basis"],
            registry=registry,
        )

    async def tick(self) -> None:
        """Look once, compare, write. Whatever raises leaves everything as it was."""
        now = self.clock()
        lives = await self.db.run_read(open_intervals)
        sightings = await self.inventory.inventory()
        found = compare(lives, sightings, self.absences, now)
        closed = await self.db.run(_write, found, now)
        self.absences = found.absences
        self.difference = found.difference
        self._tell(found.difference, closed)

    def _tell(self, difference: Difference, closed: Sequence[Close]) -> None:
        self._open.set(difference.nodes)
        self._missing.set(len(difference.missing))
        self._strays.set(len(difference.strays))
        for close in closed:
            basis = "backend" if close.exit_reason == ENDED else "last_seen"
            self._closed.labels(basis).inc()
            log.warning("run %s: node-%d ended at %s (%s)", *close.key[:2], close.at, close.exit_reason)
        self.details["difference"] = {
            "looked_at": difference.looked_at.isoformat(),
            "nodes": difference.nodes,
            "sighted": difference.sighted,
            "missing": [{"run": run, "rank": rank} for run, rank, _ in difference.missing],
            "strays": [{"run": stray.run, "rank": stray.rank} for stray in difference.strays],
        }


def _write(conn: Connection, found: Comparison, now: datetime) -> list[Close]:
    """One transaction for one look; answers what it really ended."""
    sight_nodes(conn, found.sighted, now)
    return [
        close
        for close in found.closes
        if mark_node_gone(
            conn, close.key[0], close.key[1], close.key[2], at=close.at, exit_reason=close.exit_reason
        )
    ]
