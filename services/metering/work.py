"""What the metering service does at each turn: reconcile, take up what finished, measure, tell.

The ledger comes first; whatever fails in measuring real use is told and tried again, and holds nothing up. The
difference between ledger and backend is kept in the database for administrators (:func:`difference`), because
their pages are another process.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from datetime import datetime, tzinfo
from typing import Any

from prometheus_client import CollectorRegistry, Gauge
from sqlalchemy import Connection

from galilean import centre
from galilean.clock import Clock, utcnow
from galilean.db import Database
from services.metering import rollup, sampling
from services.metering.rebuild import rebuild
from services.metering.reconcile import Reconciler
from spawner.use import UseMeter

log = logging.getLogger("galilean.metering")

DIFFERENCE = "usage_difference"
MEASURE_MOST_SECONDS = 20.0
#: Runs that are taken up in one transaction.
BATCH = 500
#: Of more that wait, as after an upgrade, the roll-up is made anew: that is quicker than so many batches.
MANY = 10_000


def difference(conn: Connection) -> dict[str, Any] | None:
    """How ledger and backend differed when last looked: ``looked_at``, ``nodes``, ``sighted``, and lists of
    ``missing`` and ``strays``; ``None`` = nobody has looked yet.
    """
    return centre.value(conn, DIFFERENCE)


def differing(conn: Connection) -> int:
    """In how many nodes ledger and backend differed when last looked."""
    found = difference(conn) or {}
    return sum(len(found.get(key) or ()) for key in ("missing", "strays"))


def tell_difference(conn: Connection, found: dict[str, Any], now: datetime) -> None:
    """Keep the difference for administrators."""
    centre.put(conn, DIFFERENCE, found, now=now, by="service:metering")


class Metering:
    """The turns of the service.

    Parameters
    ----------
    db, clock, zone
        Our database, the wall clock, the site's zone.
    reconciler
        Compares ledger and backend, each ``reconcile_seconds``.
    meter
        Measures real use, each ``sample_seconds``; ``None`` where the backend cannot.
    monotonic
        For what is due.
    """

    def __init__(
        self,
        db: Database,
        reconciler: Reconciler,
        *,
        zone: tzinfo,
        meter: UseMeter | None = None,
        reconcile_seconds: float = 60.0,
        sample_seconds: float = 30.0,
        clock: Clock = utcnow,
        monotonic: Callable[[], float] = time.monotonic,
        registry: CollectorRegistry | None = None,
        details: dict[str, Any] | None = None,
    ) -> None:
        self.db, self.reconciler, self.zone, self.meter = db, reconciler, zone, meter
        self.clock, self.monotonic = clock, monotonic
        self.reconcile_seconds, self.sample_seconds = reconcile_seconds, sample_seconds
        self.details = {} if details is None else details
        self._due: dict[str, float] = {}
        registry = registry or CollectorRegistry()

        def gauge(name: str, text: str) -> Gauge:
            return Gauge(name, text, ["pool"], registry=registry)

        self._gauges = {
            "clusters": gauge("galilean_cluster_hold_count", "Virtual clusters that are held."),
            "nodes": gauge("galilean_node_hold_count", "Nodes that are held."),
            "cpu": gauge("galilean_cpu_hold_cores", "CPUs that are booked."),
            "cpu_used": gauge("galilean_cpu_use_cores", "CPUs that are really used."),
            "memory": gauge("galilean_memory_hold_bytes", "Memory that is booked."),
            "memory_used": gauge("galilean_memory_use_bytes", "Memory that is really used."),
            "gpu": gauge("galilean_gpu_hold_count", "GPU cards that are booked."),
            "gpu_used": gauge("galilean_gpu_use_count", "GPU cards that are really used."),
        }

    async def tick(self) -> None:
        """One turn."""
        if self._is_due("reconcile", self.reconcile_seconds):
            await self.reconciler.tick()
            await self.db.run(tell_difference, dict(self.details.get("difference") or {}), self.clock())
        await self._roll_up()
        if self._is_due("sample", self.sample_seconds):
            await self._measure()
            await self._tell()

    def _is_due(self, what: str, seconds: float) -> bool:
        now = self.monotonic()
        if now < self._due.get(what, now):
            return False
        self._due[what] = now + seconds - 0.5  # a turn that comes a little early is this one
        return True

    async def _roll_up(self) -> None:
        known = await self.db.run_read(rollup.state)
        if known.zone not in ("", str(self.zone)):
            log.warning("the site's zone is %s now: making the roll-up anew", self.zone)
            await asyncio.to_thread(rebuild, self.db, zone=self.zone, now=self.clock())
        while await self.db.run(rollup.roll_up, zone=self.zone, now=self.clock(), limit=BATCH) == BATCH:
            if await self.db.run_read(rollup.waiting) > MANY:
                log.info("very many runs are to be taken up: making the roll-up anew")
                await asyncio.to_thread(rebuild, self.db, zone=self.zone, now=self.clock())

    async def _measure(self) -> None:
        if self.meter is None:
            return
        try:
            async with asyncio.timeout(MEASURE_MOST_SECONDS):
                samples = await self.meter.measure()
            noted = await self.db.run(sampling.note, samples, zone=self.zone)
            self.details["measured"] = {"at": self.clock().isoformat(), "nodes": noted}
        except Exception as error:
            log.warning("what nodes really use could not be measured: %s", error)
            self.details["measured"] = {"at": self.clock().isoformat(), "error": type(error).__name__}

    async def _tell(self) -> None:
        for gauge in self._gauges.values():
            gauge.clear()
        for held in await self.db.run_read(sampling.held_by_pool):
            values = {
                "clusters": held.clusters,
                "nodes": held.nodes,
                "cpu": held.cpu_millicores / 1000,
                "cpu_used": held.cpu_used_millicores / 1000,
                "memory": held.memory_bytes,
                "memory_used": held.memory_used_bytes,
                "gpu": held.gpu,
                "gpu_used": held.gpu_used_permille / 1000,
            }
            for name, value in values.items():
                self._gauges[name].labels(held.pool).set(value)
