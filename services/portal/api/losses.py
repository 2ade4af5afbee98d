"""What a release or a reset would lose outside “work”, by the API: for people, and for a node's own front end."""

from __future__ import annotations

from pydantic import Field

from services.portal import losses
from services.portal.api.base import Handler
from services.portal.api.clusters import cluster_for
from services.portal.api.models import Outgoing
from services.portal.api.node import NodeAsks, NodeHandler, own_run
from services.portal.api.operation import Operation
from services.portal.api.presence import check_token
from spawner.records import Run


class NodeLoss(Outgoing):
    """What one node would lose."""

    rank: int
    seen: bool = Field(description="Whether it could be looked at.")
    packages: dict[str, int] = Field(description="How many more than its environment has: apt, pip, conda.")
    added: int
    changed: int
    deleted: int
    size_bytes: int


class LossPart(Outgoing):
    """A part of what is said before."""

    name: str = Field(description="Of one node or several; empty for the only one.")
    lines: list[str]
    save_url: str = Field(description="Where it is saved first; empty where it cannot be.")


class WouldLose(Outgoing):
    """What would be lost outside of work: as numbers, and as it is said to people."""

    nodes: list[NodeLoss] = Field(description="Empty where nobody can tell.")
    parts: list[LossPart]
    nothing: str = Field(description="Said of the nodes that lose nothing.")


class _Tells(Handler):
    #: Waits for the nodes: no measure of how quickly the API answers.
    long = True

    async def tell(self, run: Run, rank: int | None, *, own: bool) -> None:
        found = await losses.of_run(self.portal, run, rank)
        parts, nothing = losses.parts_of(self.portal, run, found, own=own)
        self.write_json(
            WouldLose(
                nodes=[
                    NodeLoss(
                        rank=one.rank,
                        seen=one.unseen is None,
                        packages={found.manager: found.count for found in one.packages},
                        added=one.added,
                        changed=one.changed,
                        deleted=one.deleted,
                        size_bytes=one.size_bytes,
                    )
                    for one in found
                ],
                parts=[
                    LossPart(
                        name=part.name,
                        lines=[line.text(self.translate) for line in part.lines],
                        save_url=part.save_url,
                    )
                    for part in parts
                ],
                nothing=nothing.text(self.translate) if nothing else "",
            )
        )


class Losses(_Tells):
    async def get(self, run_id: str) -> None:
        run = await cluster_for(self.portal, self.person, run_id)
        await self.tell(run, losses.rank_of(run, self.query("rank")), own=run.user == self.person.name)


class NodeLosses(NodeHandler, _Tells):
    """Of a node's own cluster; ``node`` asks for one of them."""

    async def get(self) -> None:
        rank = self.query("rank")
        asks = NodeAsks(
            server=self.query("server")[:64],
            run=self.query("run")[:26].ljust(26),
            rank=int(rank) if rank.isascii() and rank.isdigit() and len(rank) <= 4 else 0,
        )
        check_token(self.person, asks.server)
        run = await self.portal.db.run_read(lambda conn: own_run(conn, self.person, asks))
        await self.tell(run, losses.rank_of(run, self.query("node")), own=True)


OPERATIONS: tuple[Operation, ...] = (
    Operation(
        method="get",
        path="/clusters/{id}/losses",
        summary="What a release would lose outside of work",
        query={"rank": "Of this node alone."},
        answers={200: WouldLose},
    ),
    Operation(
        method="get",
        path="/node/losses",
        summary="What a release of a node's own cluster would lose outside of work (a node's own token)",
        query={
            "server": "The hub's server.",
            "run": "Id of the run.",
            "rank": "Which node asks.",
            "node": "Of this node alone.",
        },
        answers={200: WouldLose},
    ),
)


def routes() -> list[tuple[str, type[Handler]]]:
    """Addresses, relative to the portal's prefix."""
    return [
        (r"/api/v1/clusters/([0-9A-Z]{26})/losses", Losses),
        (r"/api/v1/node/losses", NodeLosses),
    ]
