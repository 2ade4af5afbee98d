"""What every page of one project shows around its own: title, owner, date, state, tabs."""

from __future__ import annotations

import contextlib
from typing import Any

from sqlalchemy import Connection, func, select

from galilean.errors import UserError, mark
from galilean.web import language
from galilean.web.handlers import PageHandler
from services.catalog import starter
from services.catalog.store import Project
from services.portal.addresses import project_path
from services.portal.api.clusters import node_url
from services.portal.api.projects import catalogue, project_for
from services.portal.said import Said
from spawner import records
from spawner.records import Run
from spawner.tables import clusters

TABS = ("content", "runs", "settings")


def frame_rows(conn: Connection, project: Project, person: str) -> dict[str, Any]:
    """Rows that the frame needs, in one read.

    The person's open run, how many runs there were, and how many of them, the open one aside, were ever ready.
    """
    count, ready = conn.execute(
        select(func.count(), func.count(clusters.c.ready_at)).where(clusters.c.project_id == project.id)
    ).one()
    run = records.open_run(conn, person, project.server(person))
    return {
        "open_run": run,
        "run_count": int(count),
        "worked_before": int(ready) > (1 if run and run.ready_at else 0),
    }


def said(words: Said | str | None) -> str:
    """A sentence in the language of the request, for templates."""
    if words is None:
        return ""
    return words.text(language.translate) if isinstance(words, Said) else language.translate(words)


_ROOM_WORDS = (
    mark("“{name}” is there already. Replace it?"),
    mark("{name} has {size}; you may upload {most} at once."),
    mark("{name} is deleted."),
    mark("{name} is there."),
    mark("Cancel"),
    mark("Delete"),
    mark("Delete “{name}”?"),
    mark("Folders cannot be dropped here. Pack them, or upload their files."),
    mark("Give the project a name."),
    mark("JupyterLab is ready."),
    mark("Make folder"),
    mark("Name"),
    mark("New folder"),
    mark("New name"),
    mark("Open Lab"),
    mark("Open the project"),
    mark("Rename"),
    mark("Rename “{name}”"),
    mark("Replace"),
    mark("Saved"),
    mark("Starting"),
    mark("The folder goes with everything in it. This cannot be undone."),
    mark("The upload of {name} broke off. Try again."),
    mark("This cannot be undone."),
    mark("Uploading {name}, {percent} %"),
)


def room_words() -> dict[str, str]:
    """The sentences of this room's scripts, in the language of the request."""
    return {english: language.translate(english) for english in _ROOM_WORDS}


class ProjectPage(PageHandler):
    """Base of the pages of one project."""

    tab = "content"
    project: Project

    async def lab_url(self, run: Run | None, *, worked_before: bool) -> str:
        """Where JupyterLab opens: the first time at the project's first notebook, so that nobody meets emptiness.

        Empty without a run. A volume that does not answer opens JupyterLab all the same.
        """
        if run is None:
            return ""
        path = "lab"
        if run.word == "running" and not worked_before:
            with contextlib.suppress(UserError):
                files = await catalogue(self.portal).files(self.project)
                if (await catalogue(self.portal).run(files.stat, starter.NAME)).kind == "file":
                    path = f"lab/tree/{starter.NAME}"
        return node_url(self.portal, run.user, run.server, path=path)

    async def enter(self, owner: str, slug: str) -> dict[str, Any]:
        """The project, if it is there for the visitor, and what the frame shows.

        Raises
        ------
        UserError
            404.
        """
        self.project = project = await project_for(self.portal, self.person, owner, slug)
        rows = await self.portal.db.run_read(frame_rows, project, self.person.name)
        path = project_path(project.owner, project.slug)
        environment = project.environment or self.portal.settings.defaults.environment
        run = rows["open_run"]
        return {
            **rows,
            "lab_url": await self.lab_url(run, worked_before=rows["worked_before"]),
            "project": project,
            "address": self.portal.prefix + path,
            "api": f"{self.portal.prefix}api/v1/{path}",
            "tab": self.tab,
            "said": said,
            "room_words": room_words,
            "environment": self.portal.settings.environments.get(environment),
            "open_drawer": self.get_query_argument("run", "") != "",
        }
