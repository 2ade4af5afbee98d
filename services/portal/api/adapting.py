"""Adapting a version of an environment whose image was not made for nodes, by the API."""

from __future__ import annotations

from pydantic import Field

from services.portal import adapting
from services.portal.api.base import Handler
from services.portal.api.environments import reach_entry
from services.portal.api.images import Saved, model
from services.portal.api.models import Incoming
from services.portal.api.operation import Operation


class Adapt(Incoming):
    """Under which name the result is kept."""

    name: str = Field(
        default="",
        max_length=200,
        description="name:tag, as for a saved image; the tag becomes the version's. Empty = one is chosen.",
    )


class Adapted(Handler):
    async def post(self, key: str, number: str) -> None:
        asked = self.body(Adapt)
        entry = await reach_entry(self.portal, self.person, key)
        image = await adapting.begin(
            self.portal, self.person, entry, int(number), asked.name, address=self.address
        )
        self.write_json(model(image, self.translate, whole=True), 202)


OPERATIONS: tuple[Operation, ...] = (
    Operation(
        method="post",
        path="/environments/{id}/versions/{number}/adapted",
        summary="Adapt an image that was not made for nodes: a new version of the environment, with what it lacks",
        takes=Adapt,
        answers={202: Saved},
    ),
)


def routes() -> list[tuple[str, type[Handler]]]:
    """Addresses, relative to the portal's prefix."""
    return [(r"/api/v1/environments/([^/]+)/versions/([0-9]{1,5})/adapted", Adapted)]
