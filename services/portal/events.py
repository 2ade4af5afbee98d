"""What changed, pushed: one stream of server-sent events for each open page.

The database is looked at once a second at most, for everybody together and only while somebody listens:
one query over the open runs, compared with what it said before. An event carries no data; it tells a page
which part to ask for again, so that rights and texts are made in one place.

``clusters``: something about the visitor's own clusters. ``online``: about anybody's (administrators).
``machines``: about machines (administrators). ``role``: the visitor was given a role. ``notices``: there is
something new that the visitor is to be told. An open stream also is what keeps a person on the platform.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections import defaultdict
from collections.abc import Collection
from dataclasses import replace
from datetime import timedelta
from typing import Any

from sqlalchemy import Connection, and_, func, select
from tornado.iostream import StreamClosedError
from ulid import ULID

from galilean.errors import UserError, mark
from galilean.tables import notices
from galilean.web.context import Portal
from galilean.web.handlers import APIHandler, BaseHandler
from services.machines import store
from services.portal.seen import Seen
from spawner.tables import cluster_nodes, clusters

log = logging.getLogger("galilean.portal.events")

LOOK_SECONDS = 1.0
#: A browser that hears nothing for two of these takes the connection for lost.
KEEPALIVE_SECONDS = 5.0
#: A stream ends after this long and the page begins a new one, so that rights are looked at again.
LONGEST_SECONDS = 600.0
#: A notice may be committed a little later than its id says.
NOTICED_SECONDS = 30.0


def fingerprints(conn: Connection) -> dict[str, str]:
    """For each person with open runs, a word that changes whenever a page about them would."""
    nodes = (
        select(
            cluster_nodes.c.cluster_id,
            func.count(cluster_nodes.c.ready_at).label("ready"),
            func.count(cluster_nodes.c.gone_at).label("gone"),
            func.count(cluster_nodes.c.placed_at).label("placed"),
        )
        .join(clusters, and_(clusters.c.id == cluster_nodes.c.cluster_id, clusters.c.released_at.is_(None)))
        .group_by(cluster_nodes.c.cluster_id)
        .subquery()
    )
    c = clusters.c
    rows = conn.execute(
        select(
            c.user, c.id, c.status, c.target, c.reason, c.ready_at, c.stop_asked_at, c.warned_at,
            c.extended_until, c.release_policy, nodes.c.ready, nodes.c.gone, nodes.c.placed,
        )
        .outerjoin(nodes, nodes.c.cluster_id == c.id)
        .where(c.released_at.is_(None))
        .order_by(c.id)
    )  # fmt: skip
    digests: dict[str, Any] = defaultdict(hashlib.blake2s)
    for row in rows:
        digests[row.user].update(repr(tuple(row)).encode())
    return {user: digest.hexdigest() for user, digest in digests.items()}


def recent_notices(conn: Connection, since: str) -> dict[str, str]:
    """Id → person of the notices written of late; ids sort by time."""
    rows = conn.execute(select(notices.c.id, notices.c.user).where(notices.c.id > since))
    return {row.id: row.user for row in rows}


def machines_fingerprint(conn: Connection) -> str:
    """A word that changes whenever the page about machines would, besides what is held there."""
    digest = hashlib.blake2s()
    for machine in store.all_machines(conn):
        digest.update(repr(replace(machine, seen_at=None, heartbeat_at=None)).encode())
    for order in store.open_orders(conn):
        digest.update(repr(order).encode())
    return digest.hexdigest()


def changed(before: dict[str, str], after: dict[str, str]) -> set[str]:
    """People for whom something is different."""
    return {user for user in before.keys() | after.keys() if before.get(user) != after.get(user)}


class Listener:
    """One open stream: whose, and which events it is told."""

    def __init__(self, user: str, names: frozenset[str]) -> None:
        self.user, self.names = user, names
        self.gone = False
        self.pending: set[str] = set()
        self.wake = asyncio.Event()

    def tell(self, name: str) -> None:
        """Note an event; several of one name before it is sent are one."""
        self.pending.add(name)
        self.wake.set()


class Watcher:
    """Looks at the database for all listeners."""

    def __init__(self, portal: Portal) -> None:
        self.portal = portal
        self.listeners: set[Listener] = set()
        self._known: dict[str, str] | None = None
        self._machines: str | None = None
        self._notices: set[str] | None = None
        self._wanted = asyncio.Event()
        self.closing = False

    def add(self, listener: Listener) -> None:
        self.listeners.add(listener)
        self._wanted.set()

    def remove(self, listener: Listener) -> None:
        self.listeners.discard(listener)
        if not self.listeners:
            self._wanted.clear()
            self._known = self._notices = None

    async def look(self) -> None:
        """Compare once, and tell whom it concerns."""
        await self._look_at_machines()
        await self._look_at_notices()
        now = await self.portal.db.run_read(fingerprints)
        before, self._known = self._known, now
        if before is None:
            return
        people = changed(before, now)
        if not people:
            return
        for listener in self.listeners:
            if "clusters" in listener.names and listener.user in people:
                listener.tell("clusters")
            if "online" in listener.names:
                listener.tell("online")

    async def _look_at_machines(self) -> None:
        watching = [listener for listener in self.listeners if "machines" in listener.names]
        if not watching:
            self._machines = None
            return
        before, self._machines = self._machines, await self.portal.db.run_read(machines_fingerprint)
        if before is not None and before != self._machines:
            for listener in watching:
                listener.tell("machines")

    async def _look_at_notices(self) -> None:
        since = str(ULID.from_datetime(self.portal.clock() - timedelta(seconds=NOTICED_SECONDS)))
        recent = await self.portal.db.run_read(recent_notices, since)
        before, self._notices = self._notices, set(recent)
        if before is not None:
            for user in {user for notice, user in recent.items() if notice not in before}:
                self.tell(user, "notices")

    def tell(self, user: str, name: str) -> None:
        """Tell one person's pages at once."""
        for listener in self.listeners:
            if listener.user == user and name in listener.names:
                listener.tell(name)

    async def run(self) -> None:
        """Look for as long as somebody listens; a database that is away is tried again."""
        while True:
            await self._wanted.wait()
            try:
                await self.look()
            except Exception as error:
                log.warning("could not look for changes: %s", error)
            await asyncio.sleep(LOOK_SECONDS)

    def close(self) -> None:
        """End all streams."""
        self.closing = True
        for listener in self.listeners:
            listener.wake.set()


class Stream(BaseHandler):
    """What every stream is: open for minutes, told of events, and its person on the platform while it is open."""

    long = True
    _listener: Listener | None = None

    def on_connection_close(self) -> None:
        if self._listener is not None:
            self._listener.gone = True
            self._listener.wake.set()
        super().on_connection_close()

    async def told(self, name: str) -> str:
        """What an event says to the page: nothing, but in streams that carry what they tell of."""
        return "{}"

    async def stream(self, names: frozenset[str], *, first: Collection[str] = ()) -> None:
        """Send events until the page is closed, the portal ends or it is time to begin anew.

        Parameters
        ----------
        names
            Which ones.
        first
            Events that are sent at once.
        """
        self.set_header("Content-Type", "text/event-stream; charset=utf-8")
        self.set_header("X-Accel-Buffering", "no")
        watcher: Watcher = self.portal.parts["watcher"]
        listener = self._listener = Listener(self.person.name, names)
        watcher.add(listener)
        loop = asyncio.get_running_loop()
        until = loop.time() + LONGEST_SECONDS
        opened_at = self.portal.clock()
        seen: Seen = self.portal.parts["seen"]
        try:
            self.write(": here\n\n")
            for name in first:
                self.write(f"event: {name}\ndata: {await self.told(name)}\n\n")
            await self.flush()
            while loop.time() < until and not watcher.closing and not listener.gone:
                if not self.person.by_token:
                    await seen.note(self.person.name, since=opened_at)
                try:
                    await asyncio.wait_for(listener.wake.wait(), KEEPALIVE_SECONDS)
                except TimeoutError:
                    self.write(": still here\n\n")
                listener.wake.clear()
                pending, listener.pending = sorted(listener.pending), set()
                for name in pending:
                    self.write(f"event: {name}\ndata: {await self.told(name)}\n\n")
                await self.flush()
        except StreamClosedError:
            pass
        finally:
            watcher.remove(listener)


class Events(Stream, APIHandler):
    """The stream itself; ``?watch=clusters,online``."""

    async def get(self) -> None:
        names = frozenset(self.query("watch").split(",")) & {
            "clusters",
            "machines",
            "notices",
            "online",
            "role",
        }
        if "online" in names and not self.person.may("clusters:read-all"):
            raise UserError(403, mark("This page is for administrators."))
        if "machines" in names and not self.person.may("machines:manage"):
            raise UserError(403, mark("This page is for administrators."))
        await self.stream(names)


def routes() -> list[tuple[str, type[Any]]]:
    """Addresses of this module, relative to the portal's prefix."""
    return [(r"/events", Events)]
