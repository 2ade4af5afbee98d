"""Images built from files of a project, or from what was recorded of a saved image, by the API."""

from __future__ import annotations

from pydantic import Field

from extensions.imagebuilder import saved
from services.portal import building
from services.portal.api.base import Handler
from services.portal.api.images import Saved, model
from services.portal.api.models import Incoming, Outgoing
from services.portal.api.operation import Operation

PROJECT = "/projects/{owner}/{slug}/build"


class BuildProject(Incoming):
    """Under which name, and on what."""

    name: str = Field(max_length=200, description="name:tag, as for a saved image.")
    description: str = Field(default="", max_length=500)
    environment: str = Field(
        default="",
        max_length=128,
        description="What lists of packages stand on; a Dockerfile's FROM says it itself.",
    )


class BuildAgain(Incoming):
    """Under which name."""

    name: str = Field(max_length=200, description="name:tag, as for a saved image.")
    description: str = Field(default="", max_length=500)


class WouldBuild(Outgoing):
    """What a project is built from."""

    files: list[str] = Field(description="What is read, as paths in the project.")
    unread: list[str] = Field(description="What else is there that repo2docker would read.")
    dockerfile: str = Field(description="What is built.")
    environment: str = Field(description="The environment that it stands on.")


class ProjectBuild(Handler):
    async def get(self, owner: str, slug: str) -> None:
        found = await building.need_found(self.portal, self.person, f"{owner}/{slug}")
        chosen = await building.chosen_of(self.portal, self.person, found, self.query("environment")[:128])
        recipe = found.recipe
        self.write_json(
            WouldBuild(
                files=[recipe.path(name) for name in recipe.files],
                unread=[recipe.path(name) for name in recipe.unread],
                dockerfile=chosen.dockerfile,
                environment=chosen.environment,
            )
        )

    async def post(self, owner: str, slug: str) -> None:
        asked = self.body(BuildProject)
        found = await building.need_found(self.portal, self.person, f"{owner}/{slug}")
        image = await building.begin(
            self.portal,
            self.person,
            found,
            asked.name,
            environment=asked.environment,
            description=asked.description,
            address=self.address,
        )
        self.write_json(model(image, self.translate, whole=True), 202)


class ImageBuild(Handler):
    async def post(self, image_id: str) -> None:
        asked = self.body(BuildAgain)
        recorded = await self.portal.db.run_read(saved.get, self.person.name, image_id)
        image = await building.begin_from(
            self.portal,
            self.person,
            recorded,
            asked.name,
            description=asked.description,
            address=self.address,
        )
        self.write_json(model(image, self.translate, whole=True), 202)


OPERATIONS: tuple[Operation, ...] = (
    Operation(
        method="get",
        path=PROJECT,
        summary="What an image of a project would be built from",
        query={"environment": "What lists of packages stand on."},
        answers={200: WouldBuild},
    ),
    Operation(
        method="post",
        path=PROJECT,
        summary="Build an image from a project's Dockerfile, environment.yml, requirements.txt or apt.txt",
        takes=BuildProject,
        answers={202: Saved},
    ),
    Operation(
        method="post",
        path="/images/{id}/build",
        summary="Build anew what was recorded of a saved image",
        takes=BuildAgain,
        answers={202: Saved},
    ),
)


def routes() -> list[tuple[str, type[Handler]]]:
    """Addresses, relative to the portal's prefix."""
    return [
        (r"/api/v1/projects/([^/]+)/([^/]+)/build", ProjectBuild),
        (r"/api/v1/images/([0-9A-Z]{26})/build", ImageBuild),
    ]
