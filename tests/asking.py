"""Asking a hub of a test for single nodes to be made anew, by the rows, as the portal does."""

from __future__ import annotations

import json
from pathlib import Path

from galilean.clock import utcnow
from galilean.db import Database
from spawner import attempts, records
from spawner.records import NodeInterval, present
from tests.process.hub import eventually


class Asking:
    """The rows of one cluster of a hub whose state is in a directory."""

    def __init__(self, state: Path, user: str, server: str) -> None:
        self._db = Database(f"sqlite:///{state}/galilean.sqlite", threads=1)
        self._user, self._server = user, server

    def nodes(self) -> list[NodeInterval]:
        with self._db.read() as conn:
            run = records.open_run(conn, self._user, self._server)
            assert run is not None
            return records.intervals(conn, [run.id])[run.id]

    def ask(self, rank: int, how: str) -> NodeInterval:
        with self._db.write() as conn:
            run = records.open_run(conn, self._user, self._server)
            assert run is not None
            return attempts.ask(conn, run.id, rank, how, by=self._user, now=utcnow())

    def over(self, asked: NodeInterval, seconds: float = 120) -> NodeInterval:
        """The present attempt of the rank once nothing is under way."""

        def look() -> NodeInterval | None:
            node = next(node for node in present(self.nodes()) if node.rank == asked.rank)
            return None if node.coming_back else node

        return eventually(look, seconds, f"node {asked.rank} is back, or told of")

    def renew(self, rank: int, how: str) -> NodeInterval:
        return self.over(self.ask(rank, how))

    @staticmethod
    def why(node: NodeInterval) -> str:
        said = json.loads(json.dumps(node.explanation or {}))
        return said.get("message", "").format(**said.get("params", {}))

    def close(self) -> None:
        self._db.close()
