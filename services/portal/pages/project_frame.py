"""What every page of one project shows around its own: title, owner, date, state, tabs."""

from __future__ import annotations

import contextlib
from typing import Any
from urllib.parse import quote

from sqlalchemy import Connection, func, select
from tornado.web import Finish

from galilean.errors import UserError, mark
from galilean.web import language
from galilean.web.context import Portal
from galilean.web.handlers import PageHandler
from services.catalog import counts, forks, opening, store
from services.catalog.access import Access, Viewer, may_fork, may_run
from services.catalog.fields import FIELDS
from services.catalog.starters.spoken import spoken
from services.catalog.store import PROJECT, WORKBENCH, Project
from services.catalog.tables import cards
from services.portal import copying, drawn
from services.portal.addresses import project_path
from services.portal.api.gallery import item_path
from services.portal.api.projects import catalogue, reach
from services.portal.doors import doors_of_run, node_url
from services.portal.said import Said
from services.portal.viewers import viewer_of
from spawner import records
from spawner.doors import Door
from spawner.records import Run
from spawner.tables import clusters

TABS = ("content", "runs", "forks", "settings")


def frame_rows(conn: Connection, project: Project, viewer: Viewer) -> dict[str, Any]:
    """Rows that the frame needs, in one read.

    The person's open run, how many runs there were, and how many of them, the open one aside, were ever ready; what
    was counted of the project, whether it is a favourite, what it is a fork of, and how far its copy is.
    """
    count, ready = conn.execute(
        select(func.count(), func.count(clusters.c.ready_at)).where(clusters.c.project_id == project.id)
    ).one()
    run = records.open_run(conn, viewer.name, project.server(viewer.name))
    counted = conn.execute(
        select(cards.c.views, cards.c.uses, cards.c.favourites).where(
            cards.c.kind == "project", cards.c.item_id == project.id
        )
    ).first()
    return {
        "open_run": run,
        "run_count": int(count),
        "worked_before": int(ready) > (1 if run and run.ready_at else 0),
        "views": counted.views if counted else 0,
        "forks": counted.uses if counted else 0,
        "favourites": counted.favourites if counted else 0,
        "liked": bool(counts.favourites_among(conn, "project", [project.id], viewer.name)),
        "origin": forks.origin(conn, viewer, project),
        "course": copying.course(conn, project),
    }


def address_of(project: Project) -> str:
    """Where its pages are, below the portal and below the API."""
    if project.kind == WORKBENCH:
        return f"workbenches/{project.id}"
    return project_path(project.owner, project.slug)


def said(words: Said | str | None) -> str:
    """A sentence in the language of the request, for templates."""
    if words is None:
        return ""
    return words.text(language.translate) if isinstance(words, Said) else language.translate(words)


_ROOM_WORDS = (
    mark("Give the project a name."),
    mark("The image could not be read. Choose another."),
    mark("JupyterLab is ready."),
    mark("Open Lab"),
    mark("Open the project"),
    mark("Saved"),
    mark("Starting"),
    mark("The upload of {name} broke off. Try again."),
    mark("Uploading {name}, {percent} %"),
)


def room_words() -> dict[str, str]:
    """The sentences of this room's scripts, in the language of the request."""
    return {english: language.translate(english) for english in _ROOM_WORDS}


def first_door(portal: Portal, run: Run) -> Door:
    """What *Open* opens."""
    return doors_of_run(portal, run)[0]


class ProjectPage(PageHandler):
    """Base of the pages of one project."""

    tab = "content"
    #: What the visitor must be allowed to do with the project.
    least = Access.OWN
    #: A project, or a workbench, which has pages of its own.
    kind = PROJECT
    project: Project
    level: Access

    async def lab_url(self, run: Run | None, *, worked_before: bool) -> str:
        """Where JupyterLab opens: the first time at the project's first notebook, so that nobody meets emptiness.

        Empty without a run. A volume that does not answer opens JupyterLab all the same.
        """
        if run is None:
            return ""
        path = first_door(self.portal, run).path
        if path == "lab" and run.word == "running" and not worked_before:
            with contextlib.suppress(UserError):
                files = await catalogue(self.portal).files(self.project)
                first = await self.portal.files.ask(
                    self.project.volume_id,
                    opening.notebook_of,
                    files,
                    chosen=self.project.readme,
                    language=language.current.get(),
                )
                if first:
                    path = f"lab/tree/{quote(first)}"
        return node_url(self.portal, run.user, run.server, path=path)

    async def _of_workbench(self, owner: str, slug: str) -> None:
        """Lists of runs lead to a run's project; where that is a workbench of the visitor's, on to its page."""
        if self.kind != PROJECT or owner != self.person.name or self.person.node is not None:
            return
        found = await self.portal.db.run_read(store.get, owner, slug)
        if found is not None and found.kind == WORKBENCH:
            self.redirect(self.portal.prefix + address_of(found))
            raise Finish

    async def enter(self, owner: str, slug: str) -> dict[str, Any]:
        """The project, if it is there for the visitor, and what the frame shows.

        Raises
        ------
        UserError
            404 when it is not there for them, 403 when they may only look.
        """
        try:
            self.project, self.level = await reach(
                self.portal, self.person, owner, slug, least=self.least, kind=self.kind
            )
        except UserError:
            await self._of_workbench(owner, slug)
            raise
        project, viewer = self.project, viewer_of(self.person)
        rows = await self.portal.db.run_read(frame_rows, project, viewer)
        path = address_of(project)
        environment = project.environment or self.portal.settings.defaults.environment
        run = rows["open_run"]
        return {
            **rows,
            "origin": spoken(rows["origin"], language.current.get()) if rows["origin"] else None,
            "lab_url": await self.lab_url(run, worked_before=rows["worked_before"]),
            "first_door": first_door(self.portal, run) if run else None,
            # Who changes the words must see those that are kept.
            "project": project if self.tab == "settings" else spoken(project, language.current.get()),
            "address": self.portal.prefix + path,
            "api": f"{self.portal.prefix}api/v1/{path}",
            "tab": self.tab,
            "said": said,
            "room_words": room_words,
            "level": self.level.name.lower(),
            "may_run": may_run(viewer, self.level, project) and not project.busy,
            "may_fork": may_fork(viewer, self.level, project) and not project.busy,
            "may_manage": self.level >= Access.OWN,
            "item_path": item_path,
            "fields": FIELDS,
            "drawn_name": drawn.name_of,
            "environment": self.portal.settings.environments.get(environment),
            "open_drawer": self.get_query_argument("run", "") != "",
        }
