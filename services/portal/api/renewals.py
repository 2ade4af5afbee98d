"""One node of a running cluster made anew: by its owner, or by a node of the same cluster (CG-20, CG-21).

It is written into the rows (:mod:`spawner.attempts`); the hub carries it out within a second. Somebody else's
cluster is not there for whoever may not see it, and for whoever may it is refused: this ends what a person runs.
A node asks with its own token, as it does for more time (:mod:`services.portal.api.node`): for its own cluster alone.
"""

from __future__ import annotations

from pydantic import Field

from galilean.errors import UserError, mark
from galilean.web.context import Portal
from galilean.web.visitor import Visitor
from services.portal.api import clusters, models
from services.portal.api.base import Handler
from services.portal.api.node import NodeAsks, NodeHandler, NodeStatus
from services.portal.api.operation import Operation
from spawner import attempts
from spawner.records import Run


class NodeRenews(NodeAsks):
    """Which node asks, and which is meant."""

    node: int = Field(ge=0, le=4096, description="Rank of the node that is made anew.")


async def renew_node(portal: Portal, person: Visitor, run: Run, rank: int, how: str) -> None:
    """Ask for a node of one's own running cluster to be made anew.

    Raises
    ------
    UserError
        403 for somebody else's, 404 for a node that is not there, 409 with the reason when it may not be now.
    """
    check_owner(person, run)
    await portal.db.run(
        lambda conn: attempts.ask(conn, run.id, rank, how, by=person.name, now=portal.clock())
    )
    portal.parts["watcher"].tell(run.user, "clusters")


def check_owner(person: Visitor, run: Run) -> None:
    """Refuse whoever is not the owner of a run."""
    if run.user != person.name:
        raise UserError(403, mark("Only its owner restarts or resets nodes of a cluster."))


class Renewal(Handler):
    async def post(self, run_id: str, rank: str, how: str) -> None:
        run = await clusters.cluster_for(self.portal, self.person, run_id)
        await renew_node(self.portal, self.person, run, int(rank), how)
        self.write_json(await clusters.detail_of(self, run_id), 202)


class NodeRenewal(NodeHandler):
    async def post(self, how: str) -> None:
        body, now = self.body(NodeRenews), self.portal.clock()

        def change(conn: object, run: Run) -> None:
            attempts.ask(conn, run.id, body.node, how, by=run.user, now=now)  # type: ignore[arg-type]

        await self.answer(body, change)


OPERATIONS: tuple[Operation, ...] = (
    Operation(
        method="post",
        path="/clusters/{id}/nodes/{rank}/restart",
        summary="Let the processes of one node begin anew with the same image and files; the others go on",
        answers={202: models.ClusterDetail},
    ),
    Operation(
        method="post",
        path="/clusters/{id}/nodes/{rank}/reset",
        summary="Bring one node back to its image, work and data sets kept; the others go on",
        answers={202: models.ClusterDetail},
    ),
    Operation(
        method="post",
        path="/node/restart",
        summary="Restart a node of a node's own cluster (a node's own token)",
        takes=NodeRenews,
        answers={200: NodeStatus},
    ),
    Operation(
        method="post",
        path="/node/reset",
        summary="Reset a node of a node's own cluster (a node's own token)",
        takes=NodeRenews,
        answers={200: NodeStatus},
    ),
)


def routes() -> list[tuple[str, type[Handler]]]:
    """Addresses, relative to the portal's prefix."""
    return [
        (r"/api/v1/clusters/([^/]+)/nodes/([0-9]{1,4})/(restart|reset)", Renewal),
        (r"/api/v1/node/(restart|reset)", NodeRenewal),
    ]
