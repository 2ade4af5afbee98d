"""A project for a whole group, by the API: see :mod:`services.portal.for_group`."""

from __future__ import annotations

from collections.abc import Iterable

from galilean.web.handlers import APIHandler
from services.portal import for_group
from services.portal.api import models
from services.portal.api.base import Handler
from services.portal.api.operation import Operation
from services.portal.api.projects import project_for


class ForksFor(Handler):
    """GET tells how far it is, POST gives, DELETE ends what is on its way."""

    async def get(self, owner: str, slug: str, group: str) -> None:
        project = await project_for(self.portal, self.person, owner, slug)
        self._answer(await for_group.how_far(self.portal, self.person, project, group))

    async def post(self, owner: str, slug: str, group: str) -> None:
        project = await project_for(self.portal, self.person, owner, slug)
        self._answer(
            await for_group.give(self.portal, self.person, project, group, address=self.address), status=202
        )

    async def delete(self, owner: str, slug: str, group: str) -> None:
        project = await project_for(self.portal, self.person, owner, slug)
        self._answer(
            await for_group.cancel(self.portal, self.person, project, group, address=self.address), status=202
        )

    def _answer(self, found: Iterable[for_group.Given], status: int = 200) -> None:
        items = [
            models.GivenFork(
                person=one.person,
                state=one.state,  # type: ignore[arg-type]  # one of its four words
                slug=one.slug,
                left_out=one.left_out,
                why=one.why.text(self.translate) if one.why else "",
            )
            for one in found
        ]
        self.write_json(models.ListOf[models.GivenFork](items=items), status)


PATH = "/projects/{owner}/{slug}/forks-for/{group}"
OPERATIONS = (
    Operation(
        method="get",
        path=PATH,
        summary="Tell which members of a group have a fork of a project (with the right)",
        answers={200: models.ListOf[models.GivenFork]},
    ),
    Operation(
        method="post",
        path=PATH,
        summary="Give every member of a group a fork of a project who has none (with the right)",
        answers={202: models.ListOf[models.GivenFork]},
    ),
    Operation(
        method="delete",
        path=PATH,
        summary="End those forks that one gave to a group and that are still being copied (with the right)",
        answers={202: models.ListOf[models.GivenFork]},
    ),
)


def routes() -> list[tuple[str, type[APIHandler]]]:
    """Addresses of this module, relative to the portal's prefix."""
    return [(r"/api/v1/projects/([^/]+)/([^/]+)/forks-for/([^/]+)", ForksFor)]
