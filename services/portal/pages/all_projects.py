"""Administration → All projects (CG-41): what is done with each of those chosen."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection

from galilean.errors import mark
from services.catalog import store
from services.catalog.access import Kind
from services.catalog.store import Project
from services.portal.api import projects as calls
from services.portal.api import sharing
from services.portal.api.gallery import SORTS
from services.portal.pages.all_items import ActOnItems, AllItems, AllOfAKind

ACTS = ("take-down", "put-back", "unpublish", "owner", "delete")


class _Projects(AllOfAKind):
    right = "projects:manage"
    kind: Kind = "project"
    sorts = SORTS

    @staticmethod
    def by_id(conn: Connection, item_id: str) -> Project | None:
        return store.by_id(conn, item_id)


class AllProjects(_Projects, AllItems):
    """The list."""


class ActOnProjects(_Projects, ActOnItems):
    """Many at once."""

    none_chosen = mark("Choose at least one project.")

    async def own_act(self, act: str, found: Project) -> None:
        if act == "unpublish":
            await sharing.unpublish(self.portal, self.person, found, address=self.address)
        else:
            await calls.delete_project(self.portal, self.person, found, address=self.address)


def routes() -> list[tuple[str, type[Any]]]:
    """Addresses of this module, relative to the portal's prefix."""
    return [(r"/admin/projects", AllProjects), (rf"/admin/projects/({'|'.join(ACTS)})", ActOnProjects)]


ROUTES = routes()
