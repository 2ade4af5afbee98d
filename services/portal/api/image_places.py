"""Which image is on which machine, by the API; see :mod:`services.portal.image_places`."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from pydantic import Field

from extensions.imagebuilder.entries import MANAGE
from galilean.errors import UserError, mark
from services.portal import image_places
from services.portal.api.base import Handler
from services.portal.api.models import Incoming, ListOf, Outgoing
from services.portal.api.operation import Operation
from services.portal.image_places import Carried
from services.portal.said import Translate

MACHINES = "machines:manage"


class ImagePlace(Outgoing):
    """One image of the catalogue on one machine."""

    image: str = Field(description="By digest.")
    machine: str
    environments: list[str] = Field(description="Names of the environments whose new runs get it.")
    state: Literal["present", "pulling", "failed", "absent"]
    done_bytes: int
    total_bytes: int | None
    why: str = Field(description="Why it could not be fetched.")
    private: bool = Field(
        description="Fetched with a name and password, which only a run has: never before it."
    )
    beforehand: bool = Field(description="Fetched without being asked for.")
    asked: bool = Field(description="Somebody wanted it fetched anew, and that has not begun.")
    changed_at: datetime


class Redistribute(Incoming):
    image: str = Field(default="", max_length=512, description="Only this one; left out = all.")
    machine: str = Field(default="", max_length=255, description="Only there; left out = everywhere.")
    beforehand: bool | None = Field(
        default=None,
        description="With `image`: have it on every machine though nobody but its owner sees it, or no more.",
    )


class Redistributed(Outgoing):
    places: int = Field(description="How many images are now to be fetched.")


class ImageEvent(Outgoing):
    """Something that happened to an image on a machine."""

    at: datetime
    machine: str
    what: Literal["asked", "begun", "present", "failed", "gone"]
    seconds: int | None = Field(description="How long a fetch took.")
    why: str
    actor: str = Field(description="Who wanted it; empty = nobody in particular.")


def model(one: Carried, translate: Translate) -> ImagePlace:
    """As the API tells it."""
    spot, error = one.spot, one.spot.error
    return ImagePlace(
        image=spot.image,
        machine=spot.machine,
        environments=[entry.name for entry in one.entries],
        state=spot.state,  # type: ignore[arg-type]
        done_bytes=spot.done_bytes,
        total_bytes=spot.total_bytes,
        why=error.text(translate) if error else "",
        private=spot.private,
        beforehand=spot.beforehand,
        asked=spot.asked_at is not None,
        changed_at=spot.changed_at,
    )


class Places(Handler):
    right = (MACHINES, MANAGE)

    def need_machines(self) -> None:
        """Refuse who manages environments alone, and may have one's image fetched everywhere."""
        if not self.person.may(MACHINES):
            raise UserError(403, mark("This page is for administrators."))

    async def get(self) -> None:
        self.need_machines()
        found = await image_places.carried(
            self.portal, image=self.query("image")[:512], machine=self.query("machine")[:255]
        )
        self.write_json(ListOf[ImagePlace](items=[model(one, self.translate) for one in found]))

    async def post(self) -> None:
        body = self.body(Redistribute)
        if not body.image or body.machine or body.beforehand is not None:
            self.need_machines()
        if body.image and body.beforehand is not None:
            await image_places.beforehand(
                self.portal, self.person, image=body.image, wanted=body.beforehand, address=self.address
            )
            if not body.beforehand:
                self.write_json(Redistributed(places=0), 202)
                return
        count = await image_places.redistribute(
            self.portal, self.person, image=body.image, machine=body.machine, address=self.address
        )
        self.write_json(Redistributed(places=count), 202)


class Log(Handler):
    right = "machines:manage"

    async def get(self) -> None:
        found = await image_places.events(
            self.portal, image=self.query("image")[:512], machine=self.query("machine")[:255]
        )
        told = [
            ImageEvent(
                at=one.at,
                machine=one.machine,
                what=one.what,  # type: ignore[arg-type]
                seconds=one.seconds,
                why=one.error.text(self.translate) if one.error else "",
                actor=one.actor,
            )
            for one in found
        ]
        self.write_json(ListOf[ImageEvent](items=told))


OPERATIONS: tuple[Operation, ...] = (
    Operation(
        method="get",
        path="/image-places",
        summary="Tell for every current image of an environment and every machine whether it is there (administrators)",
        query={"image": "Only this image, by digest.", "machine": "Only this machine."},
        answers={200: ListOf[ImagePlace]},
    ),
    Operation(
        method="post",
        path="/image-places",
        summary="Fetch images to machines that lack them",
        takes=Redistribute,
        answers={202: Redistributed},
    ),
    Operation(
        method="get",
        path="/image-places/log",
        summary="What happened to an image on machines, the newest first",
        query={"image": "By digest.", "machine": "Only this machine."},
        answers={200: ListOf[ImageEvent]},
    ),
)


def routes() -> list[tuple[str, type[Handler]]]:
    """Addresses, relative to the portal's prefix."""
    return [(r"/api/v1/image-places", Places), (r"/api/v1/image-places/log", Log)]
