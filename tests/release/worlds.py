"""A hub and a backend for the tests of this room; faults are put in by subclasses."""

from __future__ import annotations

import json as jsonlib
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import httpx

from galilean.db import Database
from galilean.errors import UserError
from galilean.hubapi import HubAPI
from spawner import records, steps
from spawner.inventory import Sighting
from tests.metering.rows import T0


class Clocks:
    def __init__(self) -> None:
        self.seconds = 0.0

    def now(self) -> datetime:
        return T0 + timedelta(seconds=self.seconds)

    def monotonic(self) -> float:
        return self.seconds


class Hub(HubAPI):
    """A hub that knows servers and, asked to stop one, ends its run as the real ``stop()`` does."""

    def __init__(self, db: Database, clocks: Clocks) -> None:
        super().__init__("http://hub.invalid/hub/api", "token")
        self.db, self.clocks = db, clocks
        self.away = False
        self.servers: dict[tuple[str, str], dict[str, Any]] = {}
        self.stops: list[tuple[str, str, bool]] = []

    def has(self, user: str, server: str, *, stopped: bool = False, pending: str | None = None) -> None:
        self.servers[user, server] = {"name": server, "stopped": stopped, "pending": pending}

    async def request(
        self, method: str, path: str, *, json: Any = None, language: str = "", **params: Any
    ) -> httpx.Response:
        if self.away:
            raise UserError(503, "{text}", text="The hub does not answer")
        if path == "/":
            return _answer({"version": "6.1.1"})
        if path == "/users":
            people = sorted({user for user, _ in self.servers})[params["offset"] :][: params["limit"]]
            return _answer(
                [
                    {
                        "name": name,
                        "servers": {s: model for (u, s), model in self.servers.items() if u == name},
                    }
                    for name in people
                ]
            )
        _, _, user, _, server = path.split("/")
        if (user, server) not in self.servers:
            raise UserError(404, "{text}", text="No such server")
        return _answer(self.servers[user, server])

    async def stop(self, user: str, server: str, *, remove: bool = False) -> int:
        if self.away:
            raise UserError(503, "{text}", text="The hub does not answer")
        self.stops.append((user, server, remove))
        model = self.servers.get((user, server))
        if model is None:
            raise UserError(404, "{text}", text="No such server")
        if not model["stopped"]:
            self.end(user, server)
            model["stopped"] = True
        if remove:
            del self.servers[user, server]
        return 204

    def end(self, user: str, server: str) -> None:
        with self.db.write() as conn:
            run = steps.begin_stop(conn, user, server, reason="asked")
            if run is not None:
                steps.close(conn, run, ends={}, now=self.clocks.now())

    def run(self, run_id: str) -> records.Run:
        with self.db.read() as conn:
            found = records.get(conn, run_id)
        assert found is not None
        return found


def _answer(body: Any) -> httpx.Response:
    return httpx.Response(200, content=jsonlib.dumps(body))


@dataclass
class Backend:
    """What exists."""

    there: list[Sighting] = field(default_factory=list)
    broken: bool = False

    async def inventory(self) -> list[Sighting]:
        if self.broken:
            raise OSError("cannot look")
        return list(self.there)

    async def remove(self, sighting: Sighting) -> None:
        self.there.remove(sighting)
