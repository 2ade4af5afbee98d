"""Pages of projects: the list, a new one, its content, its settings (CG-8, CG-9).

They show; whatever changes something goes by the API that scripts use too, with the page's XSRF value.
"""

from __future__ import annotations

from typing import Any

from extensions.quota.limits import ABOVE_ALL
from galilean.errors import UserError, mark
from galilean.names import SLUG_LENGTH, slugify
from galilean.web.csp import mark_untrusted
from galilean.web.handlers import APIHandler, PageHandler
from services.catalog import preview
from services.catalog.environments import environments
from services.files.paths import address as path_address
from services.files.paths import from_address
from services.files.root import Entry, Root
from services.portal.addresses import project_path
from services.portal.api import projects as calls
from services.portal.api.projects import catalogue, path_after
from services.portal.api.usage import limits_of
from services.portal.pages.project_frame import ProjectPage, room_words, said

SORTS = {"recent": mark("Changed last"), "name": mark("Name"), "created": mark("Newest")}
FILES_SHOWN = 200
ICONS = {
    ".ipynb": "journal-code",
    ".py": "file-earmark-code",
    ".r": "file-earmark-code",
    ".jl": "file-earmark-code",
    ".c": "file-earmark-code",
    ".cpp": "file-earmark-code",
    ".sh": "file-earmark-code",
    ".md": "file-earmark-text",
    ".txt": "file-earmark-text",
    ".csv": "file-earmark-text",
    ".json": "file-earmark-text",
    ".png": "file-earmark-image",
    ".jpg": "file-earmark-image",
    ".jpeg": "file-earmark-image",
    ".gif": "file-earmark-image",
    ".svg": "file-earmark-image",
    ".zip": "file-earmark-zip",
    ".gz": "file-earmark-zip",
    ".tar": "file-earmark-zip",
}


def icon_of(entry: Entry) -> str:
    """Name of the icon of a file or folder."""
    if entry.kind == "folder":
        return "folder"
    name = entry.name.lower()
    return ICONS.get(name[name.rfind(".") :] if "." in name else "", "file-earmark")


class ProjectList(PageHandler):
    """One's own projects: search, sort, pages by cursor."""

    async def get(self) -> None:
        query = self.get_query_argument("q", "").strip()
        sort = self.get_query_argument("sort", "recent")
        if sort not in SORTS:
            sort = "recent"
        cursor = self.get_query_argument("cursor", "") or None
        items, following = await calls.list_projects(
            self.portal, self.person, query=query, sort=sort, cursor=cursor
        )
        open_runs = await self.portal.db.run_read(
            calls.open_runs, self.person.name, [project.id for project in items]
        )
        last = await self.portal.db.run_read(
            calls.last_started, self.person.name, [project.id for project in items]
        )
        await self.render_page(
            "projects.html",
            project_path=project_path,
            items=items,
            open_runs=open_runs,
            last_started=last,
            query=query,
            sort=sort,
            sorts=SORTS,
            cursor=cursor,
            next_cursor=following,
            environments=self.portal.settings.environments,
            default_environment=self.portal.settings.defaults.environment,
            said=said,
        )


class NewProject(PageHandler):
    """A name suffices; what follows is filled in."""

    async def get(self) -> None:
        await self.render_page(
            "project_new.html",
            environments=environments(self.portal.settings),
            slug_length=SLUG_LENGTH,
            may=self.person.has_role,
            name=self.get_query_argument("name", "")[:100],
            room_words=room_words,
            upload=self.get_query_argument("upload", "") != "",
        )


class SlugOf(APIHandler):
    """The address that a name gives, while it is typed."""

    async def get(self) -> None:
        name = self.query("name")[:200]
        self.write_json({"slug": slugify(name) if name else ""})


class Content(ProjectPage):
    """The file tree with the preview of one file beside it."""

    tab = "content"

    async def get(self, owner: str, slug: str) -> None:
        frame = await self.enter(owner, slug)
        folder = from_address(self.get_query_argument("folder", "")).strip("/")
        chosen = self.get_query_argument("file", "")
        files: Root = await catalogue(self.portal).files(self.project)
        cursor = self.get_query_argument("after", "") or None
        listing = await catalogue(self.portal).run(files.list, folder, limit=FILES_SHOWN, cursor=cursor)
        shown: Entry | None = None
        if chosen:
            try:
                shown = await catalogue(self.portal).run(files.stat, from_address(chosen))
            except UserError as error:
                if error.status != 404:
                    raise
        else:
            shown = preview.first_to_show(listing.entries)
        if shown is not None and shown.kind != "file":
            shown = None
        parts = folder.split("/") if folder else []
        crumbs = [(part, path_address("/".join(parts[: index + 1]))) for index, part in enumerate(parts)]
        upload_most = (await limits_of(self.portal, self.person)).upload
        template = "project_files.html" if self.is_fragment else "project.html"
        render = self.render_fragment if self.is_fragment else self.render_page
        await render(
            template,
            **frame,
            listing=listing,
            folder=path_address(folder),
            parent=path_address("/".join(parts[:-1])) if parts else None,
            crumbs=crumbs,
            shown=shown,
            icon_of=icon_of,
            may_write=self.person.has_role,
            upload_most=upload_most,
            upload_limited=upload_most < ABOVE_ALL,
            has_role=self.person.has_role,
        )


class Preview(ProjectPage):
    """A file, rendered; untrusted, so it has an opaque origin wherever it is opened."""

    async def get(self, owner: str, slug: str) -> None:
        frame = await self.enter(owner, slug)
        path = path_after(self.request.path, "preview")
        shown = await catalogue(self.portal).preview(
            self.project,
            path,
            language=self.language,
            theme=self.get_query_argument("theme", "light"),
            link_base=f"{frame['address']}?file=",
        )
        mark_untrusted(self)
        self.set_header("Content-Security-Policy", shown.policy)
        self.set_header("Content-Type", shown.content_type)
        self.finish(shown.body)


class Settings(ProjectPage):
    """Name, description, default environment; deletion, with what it loses in numbers."""

    tab = "settings"

    async def get(self, owner: str, slug: str) -> None:
        frame = await self.enter(owner, slug)
        files = await catalogue(self.portal).files(self.project)
        usage = await catalogue(self.portal).run(files.usage)
        in_the_way = await calls.runs_in_the_way(self.portal, self.project)
        await self.render_page(
            "project_settings.html",
            **frame,
            environments=environments(self.portal.settings),
            usage=usage,
            in_the_way=in_the_way,
            has_role=self.person.has_role,
        )


def routes() -> list[tuple[str, type[Any]]]:
    """Addresses of this module, relative to the portal's prefix."""
    project = r"/projects/([^/]+)/([^/]+)"
    return [
        (r"/projects/?", ProjectList),
        (r"/projects/new", NewProject),
        (r"/projects/slug", SlugOf),
        (project, Content),
        (project + r"/preview/.+", Preview),
        (project + r"/settings", Settings),
    ]


ROUTES = routes()
