"""Pages of projects: the list, a new one, its content, its settings (CG-8, CG-9).

They show; whatever changes something goes by the API that scripts use too, with the page's XSRF value.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from typing import Any

from galilean.errors import UserError, mark
from galilean.names import SLUG_LENGTH, slugify
from galilean.rights import slugs_of
from galilean.web.handlers import APIHandler, PageHandler
from services.catalog import lifecycle, shares
from services.catalog.access import Access
from services.catalog.environments import environments
from services.catalog.lifecycle import BIN_DAYS
from services.catalog.search import Wanted
from services.catalog.store import request_of
from services.machines.the_settings import pools_in
from services.portal import building, copying
from services.portal.addresses import project_path
from services.portal.api import life, sharing
from services.portal.api import projects as calls
from services.portal.api.gallery import find, note_view
from services.portal.api.projects import catalogue
from services.portal.desks import desk_of
from services.portal.for_group import may_give
from services.portal.pages.explore import card_values
from services.portal.pages.files import files_frame
from services.portal.pages.project_frame import ProjectPage, room_words, said
from services.portal.shelf import kept_for, titles
from services.portal.viewers import viewer_of

SORTS = {"recent": mark("Changed last"), "name": mark("Name"), "created": mark("Newest")}


SHELVES = {"": mark("Yours"), "shared": mark("Shared with you"), "favourites": mark("Favourites")}


class ProjectList(PageHandler):
    """One's own projects: search, sort, pages by cursor; and those of others that one may see or likes."""

    async def get(self) -> None:
        query = self.get_query_argument("q", "").strip()
        sort = self.get_query_argument("sort", "recent")
        if sort not in SORTS:
            sort = "recent"
        cursor = self.get_query_argument("cursor", "") or None
        shelf = self.get_query_argument("show", "")
        values: dict[str, Any] = {
            "shelf": shelf if shelf in SHELVES else "",
            "shelves": SHELVES,
            "project_path": project_path,
            "query": query,
            "sort": sort,
            "sorts": SORTS,
            "cursor": cursor,
            "said": said,
            **card_values(self),
        }
        if values["shelf"]:
            shown = await find(
                self.portal,
                self.person,
                Wanted(kind="project", text=query[:200], sort="name" if sort == "name" else "recent"),
                scope=values["shelf"],
                cursor=cursor,
            )
            await self.render_page(
                "projects.html", **values, items=shown.cards, shown=shown, next_cursor=shown.next
            )
            return
        items, following = await calls.list_projects(
            self.portal, self.person, query=query, sort=sort, cursor=cursor
        )
        ids = [project.id for project in items]
        open_runs, last = await self.portal.db.run_read(
            lambda conn: (
                calls.open_runs(conn, self.person.name, ids),
                calls.last_started(conn, self.person.name, ids),
            )
        )
        await self.render_page(
            "projects.html",
            **values,
            items=items,
            open_runs=open_runs,
            last_started=last,
            next_cursor=following,
            environment_titles=await titles(self.portal),
            default_environment=self.portal.settings.defaults.environment,
        )


class NewProject(PageHandler):
    """A name suffices; what follows is filled in."""

    async def get(self) -> None:
        offered = environments(self.portal.settings, await kept_for(self.portal, self.person))
        chosen, names = self.get_query_argument("environment", ""), {one.name for one in offered}
        await self.render_page(
            "project_new.html",
            environments=offered,
            slug_length=SLUG_LENGTH,
            may=self.person.has_role,
            name=self.get_query_argument("name", "")[:100],
            chosen_environment=chosen if chosen in names else self.portal.settings.defaults.environment,
            room_words=room_words,
            upload=self.get_query_argument("upload", "") != "",
        )


class SlugOf(APIHandler):
    """The address that a name gives, while it is typed."""

    async def get(self) -> None:
        name = self.query("name")[:200]
        self.write_json({"slug": slugify(name) if name else ""})


class Content(ProjectPage):
    """The file manager; what stands in the address after the project is its business."""

    tab = "content"
    least = Access.READ

    async def get(self, owner: str, slug: str) -> None:
        frame = await self.enter(owner, slug)
        await note_view(self.portal, self.person, "project", self.project.id, self.project.owner)
        desk = await desk_of(self.portal, self.person, "project", self.project.id)
        left_out = self.get_query_argument("left_out", "")
        await self.render_page(
            "project.html",
            **frame,
            **files_frame(desk),
            has_role=self.person.has_role,
            builds_offered=building.offered(self.portal) and self.person.has_role,
            left_out=int(left_out) if left_out.isdigit() and len(left_out) < 4 else 0,
        )


class ForksTab(ProjectPage):
    """The tree of forks: what it comes from, and what others made of it."""

    tab = "forks"
    least = Access.READ

    async def get(self, owner: str, slug: str) -> None:
        frame = await self.enter(owner, slug)
        _, tree = await life.tree_of(self.portal, self.person, self.project)
        groups: dict[str, str] = {}
        if self.level >= Access.OWN and may_give(self.person):
            groups = {slug: group.title for slug, group in (await self.portal.rights.get()).groups.items()}
        await self.render_page(
            "project_forks.html", **frame, tree=tree, give_groups=sorted(groups), group_titles=groups
        )


class Fork(ProjectPage):
    """One press: the project is one's own, and its files follow."""

    least = Access.READ

    async def post(self, owner: str, slug: str) -> None:
        made = await life.fork(self.portal, self.person, owner, slug)
        address = self.portal.prefix + project_path(made.project.owner, made.project.slug)
        if made.left_out:
            address += f"?left_out={made.left_out}"
        self.set_header("HX-Redirect", address)
        self.finish("")


class Copying(ProjectPage):
    """How far the copy of a fork is: a part of its page that asks again until all is there."""

    least = Access.READ

    async def get(self, owner: str, slug: str) -> None:
        self.project, self.level = await calls.reach(self.portal, self.person, owner, slug)
        course = await self.portal.db.run_read(copying.course, self.project)
        if course is None:
            self.set_header("HX-Refresh", "true")
        await self.render_fragment(
            "project_copying.html",
            course=course,
            project=self.project,
            may_manage=self.level >= Access.OWN,
            address=self.portal.prefix + project_path(owner, slug),
        )

    async def post(self, owner: str, slug: str) -> None:
        """Cancel it: nothing of the fork is left."""
        self.project = await calls.project_for(self.portal, self.person, owner, slug)
        if self.project.busy == "copying":
            await calls.delete_project(self.portal, self.person, self.project, address=self.address)
        self.set_header("HX-Redirect", f"{self.portal.prefix}projects")
        self.finish("")


class Settings(ProjectPage):
    """Everything that its owner decides: what it is called, who sees it, what it starts with; deletion."""

    tab = "settings"

    async def get(self, owner: str, slug: str) -> None:
        frame = await self.enter(owner, slug)
        usage = None
        with contextlib.suppress(UserError):  # a volume that is away does not keep anybody from the rest
            files = await catalogue(self.portal).files(self.project)
            usage = await self.portal.files.ask(self.project.volume_id, files.usage)
        in_the_way = await calls.runs_in_the_way(self.portal, self.project)
        given = await self.portal.db.run_read(shares.of, "project", self.project.id)
        rights = await self.portal.rights.get()
        mine = slugs_of(self.person.groups)
        known = rights.groups if viewer_of(self.person).manages("project") else mine
        request = request_of(self.project.default_request or {})
        site = self.portal.settings
        await self.render_page(
            "project_settings.html",
            **frame,
            environments=environments(self.portal.settings, await kept_for(self.portal, self.person)),
            usage=usage,
            in_the_way=in_the_way,
            has_role=self.person.has_role,
            shares=given,
            group_titles={slug: group.title for slug, group in rights.groups.items()},
            groups=sorted(known),
            accesses=ACCESSES,
            unprotected=self.portal.settings.backend == "process",
            policies=_with(site.release.offered, request.release),
            request=request,
            pools=_with(_pools_of(self), request.pool) if len(site.pools) > 1 or request.pool else [],
            gpu_models=_with(site.gpu_models, request.gpu_model),
            pool_titles={name: pool.title or name for name, pool in site.pools.items()},
            model_titles={name: model.title or name for name, model in site.gpu_models.items()},
            storage_asked=site.limits_storage or request.storage_bytes is not None,
            site=site.defaults,
            bin_days=BIN_DAYS,
        )


def _pools_of(page: ProjectPage) -> list[str]:
    """The pools that whoever looks may ask for."""
    return [pool.name for pool in pools_in(page.portal.settings) if pool.is_open_to(page.person.roles)]


def _with(offered: Iterable[str], chosen: str | None) -> list[str]:
    """What is offered, and what is chosen though it is offered no more: saving something else must not change it."""
    return list(dict.fromkeys([*offered, *([chosen] if chosen else [])]))


ACCESSES = {
    "read": mark("Look and fork"),
    "run": mark("Run, files stay as they are"),
    "write": mark("Run and change files"),
}


class WhatIsSeen(ProjectPage):
    """The second step of publishing: what everybody will see, counted."""

    async def get(self, owner: str, slug: str) -> None:
        self.project = await calls.project_for(self.portal, self.person, owner, slug)
        seen, complete = await sharing.what_is_seen(self.portal, self.person, self.project)
        path = project_path(owner, slug)
        await self.render_fragment(
            "publish_dialog.html",
            project=self.project,
            seen=seen,
            complete=complete,
            api=f"{self.portal.prefix}api/v1/{path}",
        )


class Bin(PageHandler):
    """What one deleted, for 30 days: take it back, or delete it for ever."""

    async def get(self) -> None:
        now = self.portal.clock()
        rows = await self.portal.db.run_read(
            lambda conn: lifecycle.in_bin(conn, "project", self.person.name, now=now)
        )
        await self.render_page(
            "projects_bin.html", rows=rows, kept_until=lifecycle.kept_until, bin_days=BIN_DAYS
        )


class InBin(PageHandler):
    """The two ways out of the bin."""

    async def get(self, project_id: str) -> None:
        project = await life.binned_for(self.portal, self.person, project_id)
        await self.render_fragment("bin_dialog.html", project=project)

    async def post(self, project_id: str) -> None:
        if self.get_body_argument("act", "") == "delete":
            await life.delete_for_ever(self.portal, self.person, project_id, address=self.address)
            self.set_header("HX-Redirect", f"{self.portal.prefix}projects/bin")
        else:
            project = await life.restore(self.portal, self.person, project_id, address=self.address)
            self.set_header("HX-Redirect", self.portal.prefix + project_path(project.owner, project.slug))
        self.finish("")


def routes() -> list[tuple[str, type[Any]]]:
    """Addresses of this module, relative to the portal's prefix."""
    project = r"/projects/([^/]+)/([^/]+)"
    return [
        (r"/projects/?", ProjectList),
        (r"/projects/new", NewProject),
        (r"/projects/slug", SlugOf),
        (r"/projects/bin", Bin),
        (r"/projects/bin/([0-9A-Z]{26})", InBin),
        (project, Content),
        (project + r"/settings", Settings),
        (project + r"/forks", ForksTab),
        (project + r"/fork", Fork),
        (project + r"/copying", Copying),
        (project + r"/publish", WhatIsSeen),
    ]


ROUTES = routes()
