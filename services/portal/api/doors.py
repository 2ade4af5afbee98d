"""Ports of a running cluster as doors of its nodes (AP-11)."""

from __future__ import annotations

from pydantic import Field

from services.portal.api import clusters, models
from services.portal.api.base import Handler
from services.portal.api.operation import Operation
from services.portal.doors import change_port


class Port(models.Incoming):
    port: int = Field(description="From 1024 to 65535, but for the node's own 8888 and 2222.")


class PortsHandler(Handler):
    """Adds a port; one that is shown already is success."""

    async def post(self, run_id: str) -> None:
        run = await clusters.cluster_for(self.portal, self.person, run_id)
        await change_port(self.portal, self.person, run, add=self.body(Port).port)
        self.write_json(await _detail(self, run_id), 200)


class PortHandler(Handler):
    """Takes a port away; one that is not shown is success. What listens there goes on."""

    async def delete(self, run_id: str, port: str) -> None:
        run = await clusters.cluster_for(self.portal, self.person, run_id)
        await change_port(self.portal, self.person, run, drop=int(port))
        self.set_status(204)


async def _detail(handler: Handler, run_id: str) -> models.ClusterDetail:
    from services.portal.api.handlers import detail  # which imports the routes of this module

    return await detail(handler, run_id)


def routes() -> list[tuple[str, type[Handler]]]:
    """Addresses relative to the portal's prefix."""
    return [
        (r"/api/v1/clusters/([^/]+)/ports", PortsHandler),
        (r"/api/v1/clusters/([^/]+)/ports/([0-9]{1,5})", PortHandler),
    ]


OPERATIONS = (
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
