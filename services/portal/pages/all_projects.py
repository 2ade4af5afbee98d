"""Administration → Projects: everybody's, with search and filters; taken down, given away, deleted, many at once.

Each act is the one that the API has, project by project: what cannot be done with one is told and keeps nobody else's
from being done.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

from galilean.errors import UserError, mark
from galilean.web.handlers import PageHandler
from services.catalog import store
from services.catalog.fields import FIELDS
from services.catalog.search import COUNT_MOST, Wanted
from services.catalog.store import Project
from services.portal.api import life, sharing
from services.portal.api import projects as calls
from services.portal.api.gallery import SORTS, find, item_path
from services.portal.pages.project_frame import said

SHOWN = 50
MOST_AT_ONCE = 200

ACTS = ("take-down", "put-back", "unpublish", "owner", "delete")


class AllProjects(PageHandler):
    """The list; for htmx the table alone."""

    right = "projects:manage"

    async def get(self) -> None:
        def word(name: str, most: int = 255) -> str:
            return self.get_query_argument(name, "").strip()[:most]

        chosen = {
            "q": word("q", 200),
            "author": word("author"),
            "field": word("field", 64),
            "sort": word("sort", 20),
        }
        if chosen["sort"] not in SORTS:
            chosen["sort"] = "recent"
        shown = await find(
            self.portal,
            self.person,
            Wanted(
                kind="project",
                text=chosen["q"],
                author=chosen["author"],
                field=chosen["field"],
                sort=chosen["sort"],  # type: ignore[arg-type]  # one of those above
            ),
            scope="everything",
            limit=SHOWN,
            cursor=word("cursor", 400) or None,
            counted=True,
        )
        place = f"{self.portal.prefix}admin/projects"

        def address(**changes: Any) -> str:
            query = urlencode({key: value for key, value in {**chosen, **changes}.items() if value})
            return f"{place}?{query}" if query else place

        ids = [card.item_id for card in shown.cards]
        sizes = await self.portal.db.run_read(
            lambda conn: {project_id: store.by_id(conn, project_id) for project_id in ids}
        )
        values = {
            "place": place,
            "address": address,
            "chosen": chosen,
            "shown": shown,
            "rows": sizes,
            "cursor": word("cursor", 400),
            "most": COUNT_MOST,
            "sorts": SORTS,
            "fields": FIELDS,
            "item_path": item_path,
            "said": said,
        }
        if self.is_fragment and not self.request.headers.get("HX-History-Restore-Request"):
            await self.render_fragment("admin_projects_table.html", **values)
        else:
            await self.render_page("admin_projects.html", **values)


class ActOnProjects(PageHandler):
    """The second step of what is done with those chosen, and the act itself."""

    right = "projects:manage"

    def _chosen(self) -> list[str]:
        ids = list(dict.fromkeys(self.get_arguments("project")))[:MOST_AT_ONCE]
        if not ids:
            raise UserError(400, mark("Choose at least one project."))
        return ids

    async def get(self, act: str) -> None:
        ids = self._chosen()
        found = await self.portal.db.run_read(lambda conn: [store.by_id(conn, one) for one in ids])
        projects = [project for project in found if project is not None]
        await self.render_fragment(
            "admin_projects_dialog.html",
            act=act,
            projects=projects,
            place=f"{self.portal.prefix}admin/projects/{act}",
            public=sum(project.visibility == "public" for project in projects),
        )

    async def post(self, act: str) -> None:
        failed: list[str] = []
        ids = self._chosen()
        for project_id in ids:
            project = await self.portal.db.run_read(store.by_id, project_id)
            if project is None:
                continue
            try:
                await self._act(act, project)
            except UserError as error:
                if error.status == 400 and act in ("take-down", "owner"):
                    raise  # it is the same for all of them
                failed.append(error.text(self.translate))
        done = len(ids) - len(failed)
        text = self.translate(mark("{count} done.")).format(count=done)
        if failed:
            text += " " + self.translate(mark("{count} not: {why}")).format(count=len(failed), why=failed[0])
        self.answer_events(
            {
                "galilean:toast": {"text": text, "tone": "bad" if failed else "ok"},
                "galilean:close-dialog": {},
                "galilean:projects": {},
            }
        )

    async def _act(self, act: str, project: Project) -> None:
        portal, person, address = self.portal, self.person, self.address
        if act == "take-down":
            reason = self.get_body_argument("reason", "")
            await life.take_down(portal, person, project, reason, address=address)
        elif act == "put-back":
            await life.put_back(portal, person, project, address=address)
        elif act == "unpublish":
            await sharing.unpublish(portal, person, project, address=address)
        elif act == "owner":
            owner = self.get_body_argument("owner", "").strip()
            if not owner:
                raise UserError(400, mark("Say who the new owner is."))
            await life.change_owner(portal, person, project, owner, address=address)
        else:
            await calls.delete_project(portal, person, project, address=address)


def routes() -> list[tuple[str, type[Any]]]:
    """Addresses of this module, relative to the portal's prefix."""
    return [(r"/admin/projects", AllProjects), (rf"/admin/projects/({'|'.join(ACTS)})", ActOnProjects)]


ROUTES = routes()
