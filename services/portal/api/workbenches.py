"""Workbenches by the API (CG-16, CG-17): begin, list, look, open, delete; released as every cluster is."""

from __future__ import annotations

from datetime import datetime

from pydantic import Field

from galilean.web.context import Portal
from services.portal import workbenches
from services.portal.api import clusters, models
from services.portal.api.base import Handler
from services.portal.api.models import Incoming, ListOf, Outgoing
from services.portal.api.operation import Operation
from services.portal.workbenches import Bench

ONE = "/workbenches/{id}"


class NewWorkbench(Incoming):
    """Which environment is opened on its own."""

    environment: str = Field(min_length=1, max_length=128, description="Its name or id.")


class Workbench(Outgoing):
    """An environment that one opens on its own, with a `work` of its own."""

    id: str
    name: str
    environment: str
    environment_title: str
    startable: bool = Field(description="Whether its environment takes new runs of yours.")
    root: bool = Field(description="Whether sudo works inside, where the image has it.")
    server: str = Field(description="Name of the hub's server that runs it.")
    state: str = Field(description="closed, waiting, starting, running or releasing.")
    cluster: str | None = Field(description="Id of what is open of it.")
    size_bytes: int | None = Field(description="Of its work, as last counted.")
    file_count: int | None
    made_at: datetime
    last_opened_at: datetime | None
    url: str


def model(portal: Portal, bench: Bench) -> Workbench:
    """As the API tells it."""
    project = bench.project
    return Workbench(
        id=project.id,
        name=project.name,
        environment=project.environment,
        environment_title=bench.title,
        startable=bench.startable,
        root=workbenches.root_inside(portal),
        server=project.server(project.owner),
        state=bench.run.word if bench.run else "closed",
        cluster=bench.run.id if bench.run else None,
        size_bytes=project.size_bytes,
        file_count=project.file_count,
        made_at=project.created_at,
        last_opened_at=bench.last_opened_at,
        url=f"{portal.prefix}workbenches/{project.id}",
    )


class Workbenches(Handler):
    async def get(self) -> None:
        found = await workbenches.list_for(self.portal, self.person)
        items = [model(self.portal, bench) for bench in found]
        self.write_json(ListOf[Workbench](items=items, next=None))

    async def post(self) -> None:
        body = self.body(NewWorkbench)
        made, new = await workbenches.make(
            self.portal, self.person, body.environment, translate=self.translate
        )
        bench = await workbenches.bench_of(self.portal, self.person, made)
        self.set_header("Location", f"{self.portal.prefix}api/v1/workbenches/{made.id}")
        self.write_json(model(self.portal, bench), 201 if new else 200)


class One(Handler):
    async def get(self, workbench_id: str) -> None:
        project = await workbenches.reach(self.portal, self.person, workbench_id)
        self.write_json(model(self.portal, await workbenches.bench_of(self.portal, self.person, project)))

    async def delete(self, workbench_id: str) -> None:
        project = await workbenches.reach(self.portal, self.person, workbench_id)
        await workbenches.delete(self.portal, self.person, project, address=self.address)
        self.set_status(204)


class Clusters(Handler):
    """Its start; the same as a project's."""

    async def post(self, workbench_id: str) -> None:
        body = self.body(models.StartCluster) if self.request.body else models.StartCluster()
        project = await workbenches.reach(self.portal, self.person, workbench_id)
        run, new = await clusters.start_cluster(
            self.portal,
            self.person,
            self.hub_as_visitor(),
            project,
            body.model_dump(exclude_none=True),
            language=self.accept_language,
        )
        self.set_header("Location", f"{self.portal.prefix}api/v1/clusters/{run.id}")
        self.write_json(await clusters.detail_of(self, run.id), 202 if new else 200)


OPERATIONS: tuple[Operation, ...] = (
    Operation(
        method="get",
        path="/workbenches",
        summary="List one's own workbenches",
        answers={200: ListOf[Workbench]},
    ),
    Operation(
        method="post",
        path="/workbenches",
        summary="Begin a workbench of an environment, or find it; nothing is started",
        takes=NewWorkbench,
        answers={201: Workbench, 200: Workbench},
    ),
    Operation(method="get", path=ONE, summary="One workbench", answers={200: Workbench}),
    Operation(
        method="delete",
        path=ONE,
        summary="Delete a workbench: its work goes to the bin",
        answers={204: None},
    ),
    Operation(
        method="post",
        path=ONE + "/clusters",
        summary="Open a workbench: one node of its environment",
        takes=models.StartCluster,
        answers={202: models.ClusterDetail, 200: models.ClusterDetail},
    ),
)


def routes() -> list[tuple[str, type[Handler]]]:
    """Addresses, relative to the portal's prefix."""
    one = r"/api/v1/workbenches/([0-9A-Z]{26})"
    return [
        (r"/api/v1/workbenches", Workbenches),
        (one, One),
        (one + r"/clusters", Clusters),
    ]
