"""Saved images by the API (CG-18, CG-19): what a save would hold, begin, look, describe, cancel, delete."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from pydantic import Field
from sqlalchemy import Connection

from extensions.imagebuilder import locks, saved
from extensions.imagebuilder.entries import Actor
from extensions.imagebuilder.saved import SavedImage
from services.portal import saving
from services.portal.api.base import Handler
from services.portal.api.models import Incoming, ListOf, Outgoing
from services.portal.api.operation import PAGED, Operation
from services.portal.said import Translate


class SaveNode(Incoming):
    """Which node is saved, and under which name."""

    cluster: str = Field(min_length=26, max_length=26, description="Id of a running cluster of one's own.")
    rank: int = Field(default=0, ge=0, le=9999)
    name: str = Field(max_length=200, description="name:tag; lower case, 60 characters, never latest.")
    description: str = Field(default="", max_length=500)


class Describe(Incoming):
    description: str = Field(max_length=500)


class WouldHold(Outgoing):
    """What a save of a node would hold now."""

    image: str = Field(description="What it stands on.")
    size_bytes: int = Field(description="Of what changed.")
    image_bytes: int = Field(description="Of the image below.")
    mounted: list[str] = Field(description="Not in it: these places are volumes.")
    processes: int = Field(description="Not in it: what runs.")
    apt: list[str]
    pip: list[str]
    conda: list[str]
    added: int
    changed: int
    deleted: int
    python: dict[str, Any] | None = Field(
        default=None,
        description="Where nodes are processes: files that belong to no package, packages that were changed by hand, and "
        "why some cannot be saved.",
    )


class Saved(Outgoing):
    """An image that was saved, or is being saved."""

    id: str
    name: str
    tag: str
    description: str
    state: Literal["saving", "ready", "failed", "cancelled"]
    how: Literal["saved", "built", "uploaded", "adapted"] = Field(
        description="From a node, from files, as an archive, or of an image that was not made for nodes."
    )
    step: str = Field(
        description="While it is being saved: copying, writing, base, pushing, placing; while it is built: building, "
        "looking, pushing, placing; a Python environment: reading, locking, placing."
    )
    done_bytes: int
    total_bytes: int | None
    image: str = Field(description="By digest.")
    size_bytes: int | None
    layers: int | None
    platform: str
    parent: str
    cluster: str
    rank: int
    in_library: bool
    began_at: datetime
    ended_at: datetime | None
    why: str = Field(description="Why it could not be saved.")
    changes: dict[str, Any] | None = Field(description="What differs from the parent; for one image alone.")
    dockerfile: str
    lock: str = Field(default="", description="Of a Python environment; for one image alone.")
    log: str


def model(image: SavedImage, translate: Translate, *, whole: bool = False, lock: str = "") -> Saved:
    """As the API tells it."""
    error = image.error
    return Saved(
        id=image.id,
        name=image.name,
        tag=image.tag,
        description=image.description,
        state=image.state,  # type: ignore[arg-type]
        how="uploaded" if image.uploaded else image.how,  # type: ignore[arg-type]
        step=image.step if image.state == "saving" else "",
        done_bytes=image.done_bytes,
        total_bytes=image.total_bytes,
        image=image.image,
        size_bytes=image.size_bytes,
        layers=image.layers,
        platform=image.platform,
        parent=image.parent,
        cluster=image.run_id,
        rank=image.rank,
        in_library=image.added,
        began_at=image.began_at,
        ended_at=image.ended_at,
        why=error.text(translate) if error else "",
        changes=dict(image.changes) if whole and image.changes else None,
        dockerfile=image.dockerfile if whole else "",
        lock=lock,
        log=image.log if whole else "",
    )


class WouldHoldNow(Handler):
    async def get(self, run_id: str, rank: str) -> None:
        node = await saving.node_for(self.portal, self.person, run_id, int(rank))
        self.write_json(WouldHold.model_validate(dict(await saving.look(self.portal, node))))


class Images(Handler):
    async def get(self) -> None:
        limit, after, query = self.limit(), self.query("cursor")[:26], self.query("q")[:100]
        rows = await self.portal.db.run_read(
            lambda conn: saved.list_saved(conn, self.person.name, query=query, limit=limit, after=after)
        )
        items = [model(row, self.translate) for row in rows[:limit]]
        self.write_json(ListOf[Saved](items=items, next=rows[limit - 1].id if len(rows) > limit else None))

    async def post(self) -> None:
        asked = self.body(SaveNode)
        node = await saving.node_for(self.portal, self.person, asked.cluster, asked.rank)
        image = await saving.begin(
            self.portal, self.person, node, asked.name, description=asked.description, address=self.address
        )
        self.write_json(model(image, self.translate, whole=True), 202)


class Image(Handler):
    async def found(self, image_id: str) -> SavedImage:
        return await self.portal.db.run_read(saved.get, self.person.name, image_id)

    async def get(self, image_id: str) -> None:
        def look(conn: Connection) -> tuple[SavedImage, str]:
            image = saved.get(conn, self.person.name, image_id)
            return image, (locks.text_of(conn, image.digest) or "") if image.digest else ""

        image, lock = await self.portal.db.run_read(look)
        self.write_json(model(image, self.translate, whole=True, lock=lock))

    async def patch(self, image_id: str) -> None:
        text = self.body(Describe).description
        actor, now = Actor(name=self.person.name, address=self.address), self.portal.clock()
        image = await self.portal.db.run(
            lambda conn: saved.describe(conn, image_id, text, actor=actor, now=now)
        )
        self.write_json(model(image, self.translate, whole=True))

    async def delete(self, image_id: str) -> None:
        actor, now = Actor(name=self.person.name, address=self.address), self.portal.clock()
        await self.portal.db.run(lambda conn: saved.remove(conn, image_id, actor=actor, now=now))
        self.set_status(204)
        self.finish()


class Cancel(Handler):
    async def post(self, image_id: str) -> None:
        now = self.portal.clock()
        image = await self.portal.db.run(
            lambda conn: saved.ask_cancel(conn, self.person.name, image_id, now=now)
        )
        self.write_json(model(image, self.translate, whole=True), 202)


OPERATIONS: tuple[Operation, ...] = (
    Operation(
        method="get",
        path="/clusters/{id}/nodes/{rank}/would-hold",
        summary="What an image of a node would hold",
        answers={200: WouldHold},
    ),
    Operation(
        method="get",
        path="/images",
        summary="List one's own saved images",
        query={"q": "Words of name, tag or description.", **PAGED},
        answers={200: ListOf[Saved]},
    ),
    Operation(
        method="post", path="/images", summary="Save a node as an image", takes=SaveNode, answers={202: Saved}
    ),
    Operation(method="get", path="/images/{id}", summary="One saved image", answers={200: Saved}),
    Operation(
        method="patch", path="/images/{id}", summary="Describe an image", takes=Describe, answers={200: Saved}
    ),
    Operation(method="delete", path="/images/{id}", summary="Delete an image", answers={204: None}),
    Operation(
        method="post",
        path="/images/{id}/cancel",
        summary="Cancel a save that is under way",
        answers={202: Saved},
    ),
)


def routes() -> list[tuple[str, type[Handler]]]:
    """Addresses, relative to the portal's prefix."""
    return [
        (r"/api/v1/clusters/([0-9A-Z]{26})/nodes/(0|[1-9][0-9]{0,3})/would-hold", WouldHoldNow),
        (r"/api/v1/images", Images),
        (r"/api/v1/images/([0-9A-Z]{26})", Image),
        (r"/api/v1/images/([0-9A-Z]{26})/cancel", Cancel),
    ]
