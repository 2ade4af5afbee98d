"""Removing the stopped entries that the hub keeps for named servers which are no cluster any more.

A request that the hub refused leaves a named server without anything behind it in the person's list, and
so does every run that ended. An entry goes when it is stopped, nothing of it is on its way, and no run of
ours is open under its name (a waiting one is), and when all of this was so at the look before as well: an
entry may stand still for a moment between being made and being started.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Mapping
from typing import Any
from urllib.parse import quote

from sqlalchemy import Connection, select

from galilean.db import Database
from galilean.errors import UserError
from galilean.hubapi import HubAPI
from spawner.tables import clusters

log = logging.getLogger("galilean.release")

Name = tuple[str, str]  #: user, server
PAGE = 200


def is_idle(server: Mapping[str, Any]) -> bool:
    """Whether a server of the hub's model is a named one that neither runs nor is on its way."""
    return bool(server.get("name")) and bool(server.get("stopped")) and not server.get("pending")


def removable(
    people: Iterable[Mapping[str, Any]], open_names: Collection[Name], idle_before: Collection[Name]
) -> tuple[set[Name], set[Name]]:
    """Entries to remove now, and those that are idle (to be handed to the next look).

    Parameters
    ----------
    people
        User models of the hub with their stopped servers.
    open_names
        (user, server) of every open run.
    idle_before
        What was idle at the look before.
    """
    idle = {
        (person["name"], server["name"])
        for person in people
        for server in (person.get("servers") or {}).values()
        if is_idle(server)
    } - set(open_names)
    return idle & set(idle_before), idle


class EntryCleaner:
    """The thin loop around :func:`removable`; :meth:`clean` is one look."""

    def __init__(self, db: Database, hub: HubAPI) -> None:
        self.db, self.hub = db, hub
        self._idle: set[Name] = set()

    async def clean(self) -> int:
        """Look once, remove what may go; how many went."""
        people: list[dict[str, Any]] = []
        while len(people) % PAGE == 0:
            page = await self.hub.request(
                "GET", "/users", include_stopped_servers=1, offset=len(people), limit=PAGE
            )
            found = page.json()
            people += found
            if not found:
                break
        gone = 0
        going, self._idle = removable(people, await self.db.run_read(_open_names), self._idle)
        for user, server in sorted(going):
            gone += await self._remove(user, server)
        return gone

    async def _remove(self, user: str, server: str) -> bool:
        # Asked again right before: a DELETE for something that was started meanwhile would end it.
        path = f"/users/{quote(user, safe='')}/servers/{quote(server, safe='')}"
        try:
            model = (await self.hub.request("GET", path)).json()
            if not is_idle(model) or (user, server) in await self.db.run_read(_open_names):
                return False
            await self.hub.stop(user, server, remove=True)
        except UserError as error:
            if error.status == 503:
                raise
            if error.status != 404:
                log.warning("the stopped entry %s/%s stays: %s", user, server, error)
            return False
        self._idle.discard((user, server))
        log.info("removed the stopped entry %s/%s", user, server)
        return True


def _open_names(conn: Connection) -> set[Name]:
    query = select(clusters.c.user, clusters.c.server).where(clusters.c.released_at.is_(None))
    return {(row.user, row.server) for row in conn.execute(query)}
