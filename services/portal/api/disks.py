"""One's own disks by the API (TI-3, TI-10): make, list, look, grow, delete; a start names those that it wants."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from pydantic import Field

from services.catalog.disks import Disk as Row
from services.portal import disks
from services.portal.api.base import Handler
from services.portal.api.models import Incoming, ListOf, Outgoing
from services.portal.api.operation import Operation

ONE = "/disks/{id}"


class NewDisk(Incoming):
    """A disk to be made."""

    name: str = Field(min_length=1, max_length=64, description="Also its directory below ~/disks.")
    size_gib: int = Field(description="Counts as a whole against what you may keep.")
    pool: str | None = Field(default=None, max_length=64, description="Where the runs are that have it.")


class GrowDisk(Incoming):
    """What a disk is changed to."""

    size_gib: int = Field(description="Never smaller than it is.")


class UseOfDisk(Outgoing):
    """A run that has a disk."""

    cluster: str
    project: str
    mode: Literal["read", "write"]
    state: str = Field(description="waiting, starting, running or releasing.")


class Disk(Outgoing):
    """Storage of one's own: any number of runs read it, or one writes it."""

    id: str
    name: str
    size_gib: int
    used_bytes: int | None = Field(description="As last counted.")
    pool: str
    made_at: datetime
    path: str = Field(description="In a node that has it.")
    uses: list[UseOfDisk] = Field(description="The runs that have it now.")


def model(disk: Row) -> Disk:
    """As the API tells it."""
    return Disk(
        id=disk.id,
        name=disk.name,
        size_gib=disk.size_gib,
        used_bytes=disk.used_bytes,
        pool=disk.pool,
        made_at=disk.created_at,
        path=f"~/disks/{disk.name}",
        uses=[
            UseOfDisk(
                cluster=use.run_id,
                project=use.project,
                mode="write" if use.writes else "read",
                state=use.word,
            )
            for use in disk.uses
        ],
    )


class Disks(Handler):
    async def get(self) -> None:
        found, after = await disks.list_for(
            self.portal,
            self.person,
            text=self.query("q")[:64],
            after=self.query("cursor")[:26],
            limit=self.limit(),
        )
        self.write_json(ListOf[Disk](items=[model(disk) for disk in found], next=after))

    async def post(self) -> None:
        body = self.body(NewDisk)
        made = await disks.make(
            self.portal,
            self.person,
            name=body.name,
            size_gib=body.size_gib,
            pool=body.pool,
            address=self.address,
        )
        self.set_header("Location", f"{self.portal.prefix}api/v1/disks/{made.id}")
        self.write_json(model(made), 201)


class One(Handler):
    async def get(self, disk_id: str) -> None:
        self.write_json(model(await disks.reach(self.portal, self.person, disk_id)))

    async def patch(self, disk_id: str) -> None:
        body = self.body(GrowDisk)
        grown = await disks.grow(self.portal, self.person, disk_id, body.size_gib, address=self.address)
        self.write_json(model(grown))

    async def delete(self, disk_id: str) -> None:
        await disks.delete(self.portal, self.person, disk_id, address=self.address)
        self.set_status(204)


OPERATIONS: tuple[Operation, ...] = (
    Operation(method="get", path="/disks", summary="List one's own disks", answers={200: ListOf[Disk]}),
    Operation(method="post", path="/disks", summary="Make a disk", takes=NewDisk, answers={201: Disk}),
    Operation(method="get", path=ONE, summary="One disk", answers={200: Disk}),
    Operation(method="patch", path=ONE, summary="Make a disk larger", takes=GrowDisk, answers={200: Disk}),
    Operation(
        method="delete",
        path=ONE,
        summary="Delete a disk that no run has, for good",
        answers={204: None},
    ),
)


def routes() -> list[tuple[str, type[Handler]]]:
    """Addresses, relative to the portal's prefix."""
    return [(r"/api/v1/disks", Disks), (r"/api/v1/disks/([0-9A-Z]{26})", One)]
