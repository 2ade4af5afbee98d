"""A service process: one loop that must never die, and at most one of its kind that works.

Metering, release and queue are this with three different ``tick`` functions. Several processes of one name
may run (two replicas, an old one that has not ended yet); the *lease*, a row in ``leases``, says which one
works, the others stand by. A holder renews its row; who stands by takes over when the row has run out by
the wall clock, or when it has not changed for a whole lease by its own monotonic clock. So a clock that
jumps ahead costs a change of holder, one that jumps back costs nothing, and a row that a broken clock
dated years ahead locks nobody out. For the moment of a change two may overlap: every tick is idempotent.

The schedule does not drift: ticks are at whole multiples of the interval from the start; those missed by a
long tick are left out. A tick that raises is logged and tried again with growing pauses (at most a
minute); a tick that hangs is given up after a time limit. What may take long and holds nothing up, such as
mail, is done *beside* the ticks, by a task of its own that stops when the lease is lost or the service ends.
``/health`` says in words what is wrong, ``/metrics`` is Prometheus text. Both listen on the loopback address
only, unless told otherwise.

Nothing of JupyterHub is imported: these processes stay small.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import secrets
import signal
import socket
import sys
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    generate_latest,
)
from sqlalchemy import Connection, insert, select, update
from sqlalchemy.exc import IntegrityError
from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets
from tornado.web import Application, RequestHandler

from galilean.clock import Clock, utcnow
from galilean.db import Database
from galilean.hubapi import HubAPI
from galilean.settings import Settings, SettingsError, load_settings
from galilean.settled import settle
from galilean.tables import leases

Tick = Callable[[], Awaitable[None]]

LEASE_SECONDS = 10.0
PAUSE_MOST_SECONDS = 60.0


# ------------------------------------------------------------------------------------------------ the lease


@dataclass(frozen=True)
class LeaseRow:
    """What the row of a lease says at one moment."""

    holder: str
    expires_at: datetime


def may_take(row: LeaseRow | None, *, now: datetime, unchanged_seconds: float, lease_seconds: float) -> bool:
    """Whether somebody who stands by may take the lease.

    Parameters
    ----------
    row
        The row as it is, ``None`` when there is none.
    now
        Wall clock of the one who asks.
    unchanged_seconds
        How long that one has seen this very row, by its monotonic clock.
    lease_seconds
        How long a lease is good for without a renewal.
    """
    return row is None or row.expires_at <= now or unchanged_seconds > lease_seconds


def take_lease(
    conn: Connection, name: str, holder: str, *, seen: LeaseRow | None, expires_at: datetime
) -> bool:
    """Make ``holder`` the holder if the row still is what was ``seen``."""
    if seen is None:
        try:
            with conn.begin_nested():
                conn.execute(insert(leases).values(name=name, holder=holder, expires_at=expires_at))
        except IntegrityError:
            return False
        return True
    done = conn.execute(
        update(leases)
        .where(leases.c.name == name, leases.c.holder == seen.holder, leases.c.expires_at == seen.expires_at)
        .values(holder=holder, expires_at=expires_at)
    )
    return done.rowcount == 1


def renew_lease(conn: Connection, name: str, holder: str, *, expires_at: datetime) -> bool:
    """Prolong the lease, as long as ``holder`` has it still."""
    done = conn.execute(
        update(leases).where(leases.c.name == name, leases.c.holder == holder).values(expires_at=expires_at)
    )
    return done.rowcount == 1


def read_lease(conn: Connection, name: str) -> LeaseRow | None:
    row = conn.execute(select(leases.c.holder, leases.c.expires_at).where(leases.c.name == name)).first()
    return None if row is None else LeaseRow(row.holder, row.expires_at)


class Lease:
    """One process's view of a lease.

    Parameters
    ----------
    db, name
        Where the row is, and which.
    clock, monotonic
        Wall clock (UTC) and monotonic clock (seconds), handed in.
    lease_seconds
        How long the lease is good for without a renewal.
    """

    def __init__(
        self,
        db: Database,
        name: str,
        *,
        clock: Clock = utcnow,
        monotonic: Callable[[], float] = time.monotonic,
        lease_seconds: float = LEASE_SECONDS,
        holder: str | None = None,
    ) -> None:
        self.db, self.name = db, name
        self.clock, self.monotonic = clock, monotonic
        self.lease_seconds = lease_seconds
        self.holder = holder or f"{socket.gethostname()[:40]}-{secrets.token_hex(6)}"
        self._good_until = float("-inf")
        self._seen: LeaseRow | None = None
        self._seen_since = monotonic()

    @property
    def held(self) -> bool:
        """Whether this process may work now; turns false by itself when it could not renew."""
        return self.monotonic() < self._good_until

    async def keep(self) -> bool:
        """Renew the lease, or take it when nobody has it; whether it is held now."""
        asked_at = self.monotonic()
        if await self.db.run(self._keep):
            # From before the hop: a transaction that took long must not make the lease longer.
            self._good_until = asked_at + self.lease_seconds
        else:
            self._good_until = float("-inf")
        return self.held

    async def let_go(self) -> None:
        """End the lease, so that the next process need not wait."""
        self._good_until = float("-inf")
        now = self.clock()
        await self.db.run(renew_lease, self.name, self.holder, expires_at=now - timedelta(seconds=1))

    def _keep(self, conn: Connection) -> bool:
        now = self.clock()
        expires_at = now + timedelta(seconds=self.lease_seconds)
        if renew_lease(conn, self.name, self.holder, expires_at=expires_at):
            return True
        row = read_lease(conn, self.name)
        if row != self._seen:
            self._seen, self._seen_since = row, self.monotonic()
        unchanged = self.monotonic() - self._seen_since
        if not may_take(row, now=now, unchanged_seconds=unchanged, lease_seconds=self.lease_seconds):
            return False
        return take_lease(conn, self.name, self.holder, seen=row, expires_at=expires_at)


# ------------------------------------------------------------------------------------------------- the loop


def pause_after(failures: int, interval_seconds: float) -> float:
    """Seconds to wait after so many failures in a row: twice as long each time, at most a minute."""
    if failures == 0:
        return 0.0
    most = max(PAUSE_MOST_SECONDS, interval_seconds)
    return min(interval_seconds * 2.0 ** min(failures - 1, 30), most)


def next_tick_at(started: float, now: float, interval_seconds: float) -> float:
    """The next whole multiple of the interval after ``now``, counted from ``started`` (monotonic)."""
    passed = int((now - started) // interval_seconds)
    return started + (passed + 1) * interval_seconds


@dataclass(frozen=True, kw_only=True)
class Beside:
    """What the holder of the lease does beside its ticks.

    Attributes
    ----------
    name
        For the log.
    work
        One round. Cancelled when the lease is lost or the service ends; it may take some seconds to end cleanly.
    interval_seconds
        Between the end of one round and the beginning of the next.
    """

    name: str
    work: Tick
    interval_seconds: float


@dataclass
class Health:
    """What is known of the loop; read by ``/health``."""

    name: str
    role: str = "starting"  # starting, standby, working
    last_success_at: datetime | None = None
    failures: int = 0
    problem: str = ""
    details: dict[str, Any] = field(default_factory=dict)


class Service:
    """The loop of one service.

    Parameters
    ----------
    name
        ``metering``, ``release`` or ``queue``; also the name of the lease.
    db
        Our database.
    tick
        What is done once per interval by the one that holds the lease. Must be idempotent and may raise.
    interval_seconds
        Between the beginnings of two ticks.
    clock, monotonic, registry
        Handed in; the registry collects the service's metrics.
    tick_limit_seconds
        A tick that takes longer is given up; ``None`` = a minute, or three intervals where that is longer.
    beside
        What is done beside the ticks.
    """

    def __init__(
        self,
        name: str,
        db: Database,
        tick: Tick,
        *,
        interval_seconds: float,
        clock: Clock = utcnow,
        monotonic: Callable[[], float] = time.monotonic,
        registry: CollectorRegistry | None = None,
        lease_seconds: float = LEASE_SECONDS,
        tick_limit_seconds: float | None = None,
        beside: Sequence[Beside] = (),
    ) -> None:
        self.beside = tuple(beside)
        self.name, self.tick, self.interval_seconds = name, tick, interval_seconds
        self.clock, self.monotonic = clock, monotonic
        self.tick_limit_seconds = tick_limit_seconds or max(60.0, 3 * interval_seconds)
        self.lease = Lease(db, name, clock=clock, monotonic=monotonic, lease_seconds=lease_seconds)
        self.health = Health(name)
        self.registry = registry or CollectorRegistry()
        self.log = logging.getLogger(f"galilean.{name}")
        self._began = self._last_success = monotonic()
        self._stop = asyncio.Event()
        self._tick_seconds = Histogram(
            "galilean_tick_run_seconds", "Duration of a tick of the service's loop.", registry=self.registry
        )
        self._tick_failed = Counter(
            "galilean_tick_fail_total", "Ticks that raised or took too long.", registry=self.registry
        )
        Gauge(
            "galilean_lease_hold_info",
            "1 while this process works, 0 while it stands by.",
            registry=self.registry,
        ).set_function(lambda: 1.0 if self.lease.held else 0.0)
        Gauge(
            "galilean_tick_succeed_age_seconds", "Since the last tick that went well.", registry=self.registry
        ).set_function(lambda: self.monotonic() - self._last_success)

    # -- what it says of itself

    def report(self) -> tuple[bool, dict[str, Any]]:
        """Whether all is well, and the words for ``/health``."""
        age = self.monotonic() - self._last_success
        allowed = 3 * self.interval_seconds + self.tick_limit_seconds
        problem = self.health.problem
        if not problem and self.health.role == "working" and age > allowed:
            problem = f"no tick went well for {age:.0f} seconds"
        last = self.health.last_success_at
        words = {
            "service": self.name,
            "status": "failing" if problem else "ok",
            "role": self.health.role,
            "problem": problem,
            "last_success_at": last.isoformat() if last else None,
            "failures_in_a_row": self.health.failures,
            **self.health.details,
        }
        return not problem, words

    # -- running

    def stop(self) -> None:
        """End the loop after the tick that is under way."""
        self._stop.set()

    async def run(self) -> None:
        """Work until :meth:`stop`; never raises because of a tick or of the database."""
        keeper = asyncio.create_task(self._keep_lease())
        others = [asyncio.create_task(self._work_beside(one)) for one in self.beside]
        try:
            started = self.monotonic()
            while not self._stop.is_set():
                await self.step()
                now = self.monotonic()
                wait = next_tick_at(started, now, self.interval_seconds) - now
                if self.health.failures:
                    wait = pause_after(self.health.failures, self.interval_seconds)
                elif not self.lease.held:
                    wait = min(wait, self.lease.lease_seconds / 3)
                await self._sleep(wait)
        finally:
            self._stop.set()
            # Before the lease is let go, as whoever takes it does the same.
            await asyncio.gather(*others, return_exceptions=True)
            keeper.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await keeper
            try:
                await asyncio.wait_for(self.lease.let_go(), 5)
            except Exception as error:
                self.log.warning("the lease was not let go: %s", error)

    async def step(self) -> None:
        """One turn: a tick, if the lease is held. What it raises is logged and counted."""
        try:
            if not self.lease.held and not await self.lease.keep():
                self._well(role="standby")
                return
            with self._tick_seconds.time():
                async with asyncio.timeout(self.tick_limit_seconds):
                    await self.tick()
        except TimeoutError:
            self._ill(f"a tick took longer than {self.tick_limit_seconds:.0f} seconds")
        except Exception as error:
            self._ill(f"{type(error).__name__}: {error}"[:500], exc_info=True)
        else:
            self._well(role="working")

    def _well(self, *, role: str) -> None:
        if self.health.failures:
            self.log.info("well again after %d failures", self.health.failures)
        if role != self.health.role:
            self.log.info("now %s", role)
        self.health.role, self.health.failures, self.health.problem = role, 0, ""
        self._last_success = self.monotonic()
        self.health.last_success_at = self.clock()

    def _ill(self, problem: str, *, exc_info: bool = False) -> None:
        self._tick_failed.inc()
        self.health.failures += 1
        self.health.problem = problem
        # The stack once per trouble, then a line: a database that is away for a night must not fill the disk.
        first = self.health.failures == 1
        self.log.error(
            "tick failed (%d in a row): %s", self.health.failures, problem, exc_info=exc_info and first
        )

    async def _work_beside(self, one: Beside) -> None:
        while not self._stop.is_set():
            if self.lease.held:
                await self._one_round(one)
            await self._sleep(one.interval_seconds)

    async def _one_round(self, one: Beside) -> None:
        work = asyncio.ensure_future(one.work())
        ends = asyncio.create_task(self._stop.wait())
        try:
            while not work.done() and self.lease.held and not ends.done():
                look = self.lease.lease_seconds / 10
                await asyncio.wait({work, ends}, timeout=look, return_when=asyncio.FIRST_COMPLETED)
        finally:
            ends.cancel()
            work.cancel()  # nothing where it is done
        try:
            await work
        except asyncio.CancelledError:
            self.log.info("%s stops in the middle of a round", one.name)
        except Exception:
            self.log.exception("%s", one.name)

    async def _keep_lease(self) -> None:
        while True:
            await asyncio.sleep(self.lease.lease_seconds / 3)
            if not self.lease.held:
                continue  # step() takes it
            try:
                await self.lease.keep()
            except Exception as error:
                self.log.warning("the lease could not be renewed: %s", error)

    async def _sleep(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._stop.wait(), max(seconds, 0.01))


# -------------------------------------------------------------------------------------------- the web side


class _Health(RequestHandler):
    def get(self) -> None:
        fine, words = self.settings["galilean_service"].report()
        self.set_status(200 if fine else 503)
        self.set_header("Content-Type", "application/json")
        self.finish(json.dumps(words, ensure_ascii=False, default=str))


class _Metrics(RequestHandler):
    def get(self) -> None:
        self.set_header("Content-Type", CONTENT_TYPE_LATEST)
        self.finish(generate_latest(self.settings["galilean_service"].registry))


def application(service: Service, routes: Sequence[Any] = ()) -> Application:
    """``/health`` and ``/metrics`` of a service, and what it answers besides."""
    return Application(
        [(r"/health", _Health), (r"/metrics", _Metrics), *routes],
        galilean_service=service,
        log_function=lambda handler: None,  # probes every few seconds say nothing
    )


# ---------------------------------------------------------------------------------------------- the process


@dataclass
class Context:
    """What a service's tick is built from; ``parts`` and ``beside`` are its own to fill."""

    settings: Settings
    db: Database
    hub: HubAPI
    registry: CollectorRegistry
    environ: Mapping[str, str]
    clock: Clock = utcnow
    details: dict[str, Any] = field(default_factory=dict)
    parts: dict[str, Any] = field(default_factory=dict)
    beside: list[Beside] = field(default_factory=list)


Routes = Callable[[Context], Sequence[Any]]


def run_service(
    name: str,
    build: Callable[[Context], Tick],
    *,
    interval_seconds: float | Callable[[Settings], float],
    environ: Mapping[str, str] | None = None,
    threads: int = 2,
    routes: Routes | None = None,
) -> None:
    """Be the process of a service until it is told to end (SIGTERM, SIGINT).

    Settings are read as everywhere; ``JUPYTERHUB_API_URL``, ``JUPYTERHUB_API_TOKEN`` and
    ``GALILEAN_SERVICE_PORT`` come from the environment, ``GALILEAN_SERVICE_HOST`` (default 127.0.0.1) too.

    Parameters
    ----------
    name
        Of the service and its lease.
    build
        Makes the tick from a :class:`Context`; what it puts into ``context.details`` is shown by ``/health``.
    interval_seconds
        Between ticks, or a function of the settings.
    environ
        Instead of the process's own environment.
    threads
        Transactions under way at once.
    routes
        Tornado's routes for what the service answers besides ``/health`` and ``/metrics``.
    """
    env = dict(os.environ if environ is None else environ)
    logging.basicConfig(
        level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    logging.getLogger("httpx").setLevel(logging.WARNING)  # one line for each call otherwise
    try:
        settings = load_settings(environ=env)
    except SettingsError as error:
        raise SystemExit(str(error)) from error
    missing = [key for key in ("JUPYTERHUB_API_URL", "JUPYTERHUB_API_TOKEN") if not env.get(key)]
    if missing:
        raise SystemExit(f"{name}: {', '.join(missing)} must be set in the environment")
    settle()
    asyncio.run(_serve(name, build, settings, interval_seconds, env, threads, routes))


async def _serve(
    name: str,
    build: Callable[[Context], Tick],
    settings: Settings,
    interval: float | Callable[[Settings], float],
    env: Mapping[str, str],
    threads: int,
    routes: Routes | None,
) -> None:
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    db = Database(settings.database_url, threads=threads)
    hub = HubAPI(env["JUPYTERHUB_API_URL"], env["JUPYTERHUB_API_TOKEN"])
    context = Context(settings=settings, db=db, hub=hub, registry=registry, environ=env)
    tick = build(context)
    service = Service(
        name,
        db,
        tick,
        interval_seconds=interval(settings) if callable(interval) else interval,
        registry=registry,
        beside=context.beside,
    )
    service.health.details = context.details
    host, port = env.get("GALILEAN_SERVICE_HOST", "127.0.0.1"), int(env.get("GALILEAN_SERVICE_PORT") or 0)
    try:
        sockets = bind_sockets(port, host)
    except OSError as error:
        raise SystemExit(f"{name}: cannot listen on {host}:{port}: {error.strerror}") from error
    server = HTTPServer(application(service, routes(context) if routes else ()))
    server.add_sockets(sockets)
    service.log.info("listening on %s:%s", host, sockets[0].getsockname()[1])
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, service.stop)
    try:
        await service.run()
    finally:
        server.stop()
        await hub.close()
        db.close()
