"""Ports of a running cluster as doors of its nodes (AP-11), and the applications that its nodes have (SC-3)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import Field
from sqlalchemy import Connection

from galilean.settings_applications import Application
from services.portal.api import clusters, models
from services.portal.api.base import Handler
from services.portal.api.node import NodeAsks, NodeHandler, own_run
from services.portal.api.operation import Operation
from services.portal.api.presence import check_token
from services.portal.doors import change_port
from spawner.ports import tell_applications
from spawner.records import Run


class Port(models.Incoming):
    port: int = Field(description="From 1024 to 65535, but for the node's own 8888 and 2222.")


class PortsHandler(Handler):
    """Adds a port; one that is shown already is success."""

    async def post(self, run_id: str) -> None:
        run = await clusters.cluster_for(self.portal, self.person, run_id)
        await change_port(self.portal, self.person, run, add=self.body(Port).port)
        self.write_json(await clusters.detail_of(self, run_id), 200)


class PortHandler(Handler):
    """Takes a port away; one that is not shown is success. What listens there goes on."""

    async def delete(self, run_id: str, port: str) -> None:
        run = await clusters.cluster_for(self.portal, self.person, run_id)
        await change_port(self.portal, self.person, run, drop=int(port))
        self.set_status(204)


class NodeHas(NodeAsks):
    """Which node asks, and which applications it has."""

    has: list[str] | None = Field(default=None, max_length=500, description="Left out: it only asks.")


class NodeApplications(models.Outgoing):
    """Applications that a node may have, as it needs to know them."""

    applications: dict[str, dict[str, Any]]


class NodesApplications(NodeHandler):
    """Tells a node which applications there are, and keeps which of them it has (SC-3)."""

    async def post(self) -> None:
        body = self.body(NodeHas)
        check_token(self.person, body.server)
        known = self.portal.settings.applications

        def look(conn: Connection) -> tuple[Run, bool]:
            run = own_run(conn, self.person, body)
            if body.has is None:
                return run, False
            names = [name for name in dict.fromkeys(body.has) if name in offered_in(known, run.environment)]
            return run, tell_applications(conn, run.id, names)

        run, news = await (self.portal.db.run_read if body.has is None else self.portal.db.run)(look)
        if news:
            self.portal.parts["watcher"].tell(self.person.name, "clusters")
        self.write_json(
            NodeApplications(
                applications={
                    name: one.for_node() for name, one in offered_in(known, run.environment).items()
                }
            )
        )


def offered_in(known: Mapping[str, Application], environment: str) -> dict[str, Application]:
    """The applications that nodes of an environment may have."""
    return {
        name: one
        for name, one in known.items()
        if one.enabled and (not one.environments or environment in one.environments)
    }


def routes() -> list[tuple[str, type[Handler]]]:
    """Addresses relative to the portal's prefix."""
    return [
        (r"/api/v1/node/applications", NodesApplications),
        (r"/api/v1/clusters/([^/]+)/ports", PortsHandler),
        (r"/api/v1/clusters/([^/]+)/ports/([0-9]{1,5})", PortHandler),
    ]


OPERATIONS = (
    Operation(
        method="post",
        path="/node/applications",
        summary="Which applications there are, and which of them a node has (a node's own token)",
        takes=NodeHas,
        answers={200: NodeApplications},
    ),
    Operation(
        method="post",
        path="/clusters/{id}/ports",
        summary="Show a port of one's own running cluster as a door of each node",
        takes=Port,
        answers={200: models.ClusterDetail},
    ),
    Operation(
        method="delete",
        path="/clusters/{id}/ports/{port}",
        summary="Show a port no more; what listens there goes on",
        answers={204: None},
    ),
)
