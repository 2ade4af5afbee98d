"""On the tab *Forks*: the project for a whole group, and how far that is."""

from __future__ import annotations

from typing import Any

from services.catalog.access import Access
from services.portal import for_group
from services.portal.pages.project_frame import ProjectPage, said


class ForksFor(ProjectPage):
    """The list of a group's members; a press gives each who has none a fork, another ends what is on its way."""

    least = Access.OWN

    async def get(self, owner: str, slug: str) -> None:
        await self.enter(owner, slug)
        group = self.get_query_argument("group", "")
        await self._show(group, await for_group.how_far(self.portal, self.person, self.project, group))

    async def post(self, owner: str, slug: str) -> None:
        await self.enter(owner, slug)
        group = self.get_body_argument("group", "")
        act = for_group.cancel if self.get_body_argument("do", "") == "cancel" else for_group.give
        given = await act(self.portal, self.person, self.project, group, address=self.address)
        await self._show(group, given)

    async def _show(self, group: str, given: list[for_group.Given]) -> None:
        await self.render_fragment(
            "forks_for_list.html",
            group=group,
            given=given,
            counts={
                state: sum(one.state == state for one in given)
                for state in ("none", "copying", "there", "refused")
            },
            why={one.person: one.why.text(self.translate) for one in given if one.why},
            address=f"{self.portal.prefix}projects/{self.project.owner}/{self.project.slug}",
            said=said,
        )


def routes() -> list[tuple[str, type[Any]]]:
    """Addresses of this module, relative to the portal's prefix."""
    return [(r"/projects/([^/]+)/([^/]+)/forks-for", ForksFor)]
