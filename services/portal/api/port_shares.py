"""Ports shared with named people by the API, and what a node asks of its visitors (AP-11)."""

from __future__ import annotations

from pydantic import Field
from sqlalchemy import Connection

from services.portal import port_shares
from services.portal.api import clusters, models
from services.portal.api.base import Handler
from services.portal.api.node import NodeAsks, NodeHandler, own_run
from services.portal.api.operation import Operation
from services.portal.api.presence import check_token
from spawner.records import Run
from spawner.shared_ports import shared_of, tell_guarded


class SharePort(models.Incoming):
    """Whom a port is shared with."""

    person: str = Field(min_length=1, max_length=255, description="Name of an account.")


class PortPeople(models.Outgoing):
    """A port of one's own cluster, and who may open it."""

    port: int
    people: list[str]
    urls: list[str] = Field(description="Of each node, in the order of the nodes.")


class OpenPort(models.Outgoing):
    """A port of somebody else's cluster that one may open."""

    owner: str
    project: str
    server: str
    port: int
    urls: list[str]


class NodeAsksOf(NodeAsks):
    """Which node asks, and of whom."""

    name: str = Field(min_length=1, max_length=255)


class Visitor(models.Outgoing):
    """What somebody who is not the owner may open on a node."""

    whole: bool
    ports: list[int]


class Shares(Handler):
    """Everybody that a port is shared with."""

    async def get(self, run_id: str, port: str) -> None:
        await self.tell(await clusters.cluster_for(self.portal, self.person, run_id), int(port))

    async def post(self, run_id: str, port: str) -> None:
        run = await clusters.cluster_for(self.portal, self.person, run_id)
        await port_shares.share(self, run, int(port), self.body(SharePort).person)
        await self.tell(await clusters.cluster_for(self.portal, self.person, run_id), int(port))

    async def tell(self, run: Run, port: int) -> None:
        port_shares.check_enabled(self.portal)
        people = list(shared_of(run).get(port, ()))
        urls = list(port_shares.urls_of(self.portal, run, port))
        self.write_json(PortPeople(port=port, people=people, urls=urls))


class Share(Handler):
    """One person; who has it not is success."""

    async def delete(self, run_id: str, port: str, name: str) -> None:
        run = await clusters.cluster_for(self.portal, self.person, run_id)
        await port_shares.withdraw(self, run, int(port), name)
        self.set_status(204)


class SharedWithMe(Handler):
    async def get(self) -> None:
        found = await port_shares.shared_with(self.portal, self.person.name)
        self.write_json(
            models.ListOf[OpenPort](
                items=[
                    OpenPort(
                        owner=one.run.user,
                        project=one.run.project_name,
                        server=one.run.server,
                        port=one.port,
                        urls=list(one.urls),
                    )
                    for one in found
                ],
                next=None,
            )
        )


class NodesVisitors(NodeHandler):
    """Asked of everybody who comes to a node and is not its owner."""

    async def post(self) -> None:
        body = self.body(NodeAsksOf)
        check_token(self.person, body.server)

        def look(conn: Connection) -> Run:
            return own_run(conn, self.person, body)

        run = await self.portal.db.run_read(look)
        whole, ports = await port_shares.may_open(self.portal, run, body.name)
        self.write_json(Visitor(whole=whole, ports=list(ports)))


class NodesGuards(NodeHandler):
    """A node says that it looks at who comes."""

    async def post(self) -> None:
        body = self.body(NodeAsks)
        check_token(self.person, body.server)
        await self.portal.db.run(
            lambda conn: tell_guarded(conn, own_run(conn, self.person, body).id, body.rank)
        )
        self.set_status(204)


def routes() -> list[tuple[str, type[Handler]]]:
    """Addresses relative to the portal's prefix."""
    return [
        (r"/api/v1/node/visitors", NodesVisitors),
        (r"/api/v1/node/guards", NodesGuards),
        (r"/api/v1/shared-ports", SharedWithMe),
        (r"/api/v1/clusters/([^/]+)/ports/([0-9]{1,5})/people", Shares),
        (r"/api/v1/clusters/([^/]+)/ports/([0-9]{1,5})/people/([^/]+)", Share),
    ]


OPERATIONS: tuple[Operation, ...] = (
    Operation(
        method="get",
        path="/shared-ports",
        summary="Ports of others' running clusters that one may open",
        answers={200: models.ListOf[OpenPort]},
    ),
    Operation(
        method="get",
        path="/clusters/{id}/ports/{port}/people",
        summary="Who may open a port of a cluster besides its owner",
        answers={200: PortPeople},
    ),
    Operation(
        method="post",
        path="/clusters/{id}/ports/{port}/people",
        summary="Let somebody open a port of one's own running cluster (where the centre allows it)",
        takes=SharePort,
        answers={200: PortPeople},
    ),
    Operation(
        method="delete",
        path="/clusters/{id}/ports/{port}/people/{name}",
        summary="Take a port away from somebody; who is connected is cut off within seconds",
        answers={204: None},
    ),
    Operation(
        method="post",
        path="/node/visitors",
        summary="What somebody who is not the owner may open on a node (a node's own token)",
        takes=NodeAsksOf,
        answers={200: Visitor},
    ),
    Operation(
        method="post",
        path="/node/guards",
        summary="Say that a node looks at who comes; once all have, ports can be shared (a node's own token)",
        takes=NodeAsks,
        answers={204: None},
    ),
)
