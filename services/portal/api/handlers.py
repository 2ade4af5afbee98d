"""The addresses of the API, version 1: each method is a few lines over the functions beside it.

GET changes nothing. Whatever changes something needs a token or the page's XSRF value. Lists come by
cursor. What goes wrong is an RFC 9457 problem document in the language asked for.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection

from galilean.errors import UserError, mark
from galilean.web.handlers import APIHandler, NotFoundAPI
from galilean.web.paging import Cursor
from services.catalog.access import Access
from services.portal.addresses import project_path
from services.portal.api import (
    adapting,
    archives,
    builds,
    class_forks,
    clusters,
    dataset_handlers,
    disks,
    doors,
    environments,
    file_work,
    finding,
    gallery,
    image_places,
    image_uploads,
    images,
    library,
    life,
    losses,
    machine_time,
    machines,
    models,
    node,
    object_stores,
    openapi,
    people,
    port_shares,
    presence,
    projects,
    quotas,
    registries,
    release,
    renewals,
    sharing,
    site,
    ssh,
    volumes,
    workbenches,
)
from services.portal.api.base import Handler
from services.portal.online import uses_of


class Projects(Handler):
    async def get(self) -> None:
        items, following = await projects.list_projects(
            self.portal,
            self.person,
            query=self.query("q"),
            sort=self.word("sort", "recent", "name", "created"),
            limit=self.limit(),
            cursor=self.query("cursor") or None,
            owner=self.query("owner") or None,
        )
        ids = await self.portal.db.run_read(
            projects.open_ids, self.person.name, [project.id for project in items]
        )
        self.write_json(
            models.ListOf[models.Project](
                items=[
                    projects.project_model(self.portal, self.person, project, ids.get(project.id))
                    for project in items
                ],
                next=following,
            )
        )

    async def post(self) -> None:
        body = self.body(models.NewProject)
        made = await projects.create_project(self.portal, self.person, body, language=self.language)
        model = projects.project_model(self.portal, self.person, made, None)
        self.set_header("Location", f"{self.portal.prefix}api/v1/{project_path(made.owner, made.slug)}")
        self.write_json(model, 201)


class Project(Handler):
    async def get(self, owner: str, slug: str) -> None:
        await self._answer(*await projects.reach(self.portal, self.person, owner, slug))

    async def patch(self, owner: str, slug: str) -> None:
        body = self.body(models.ProjectChange)
        project, level = await projects.reach(self.portal, self.person, owner, slug, least=Access.OWN)
        changed = await projects.change_project(self.portal, self.person, project, body, address=self.address)
        await self._answer(changed, level)

    async def delete(self, owner: str, slug: str) -> None:
        project = await projects.project_for(self.portal, self.person, owner, slug)
        await projects.delete_project(self.portal, self.person, project, address=self.address)
        self.set_status(204)

    async def _answer(self, project: Any, level: Access) -> None:
        ids = await self.portal.db.run_read(projects.open_ids, self.person.name, [project.id])
        self.write_json(projects.project_model(self.portal, self.person, project, ids.get(project.id), level))


class ProjectClusters(Handler):
    """The convenient start: the server's name is found, the hub is asked with the visitor's own token."""

    async def post(self, owner: str, slug: str) -> None:
        body = self.body(models.StartCluster) if self.request.body else models.StartCluster()
        project = await projects.project_for(self.portal, self.person, owner, slug, least=Access.RUN)
        run, new = await clusters.start_cluster(
            self.portal,
            self.person,
            self.hub_as_visitor(),
            project,
            body.model_dump(exclude_none=True),
            language=self.accept_language,
        )
        self.set_header("Location", f"{self.portal.prefix}api/v1/clusters/{run.id}")
        model = await clusters.detail_of(self, run.id)
        self.write_json(model, 202 if new else 200)


class Clusters(Handler):
    async def get(self) -> None:
        limit = self.limit()
        cursor = self.query("cursor")
        before = None
        if cursor:
            (before,) = Cursor.decode(cursor, 1)
            if not isinstance(before, str):
                raise UserError(400, mark("This page of the list cannot be found. Begin at the first page."))
        runs = await clusters.list_clusters(
            self.portal,
            self.person,
            open_only=self.word("state", "open", "all") == "open",
            user=self.query("user") or None,
            limit=limit,
            before=before,
        )
        following = Cursor.encode(runs[limit - 1].id) if len(runs) > limit else None
        runs = runs[:limit]
        places, uses = await self.portal.db.run_read(
            lambda conn: (_places(conn, runs), uses_of(conn, [run.id for run in runs if run.is_open]))
        )
        now = self.portal.clock()
        self.write_json(
            models.ListOf[models.Cluster](
                items=[
                    clusters.cluster_model(
                        self.portal,
                        run,
                        now=now,
                        translate=self.translate,
                        place=places.get(run.id),
                        use=uses.get(run.id),
                    )
                    for run in runs
                ],
                next=following,
            )
        )


class Cluster(Handler):
    async def get(self, run_id: str) -> None:
        await clusters.cluster_for(self.portal, self.person, run_id)
        self.write_json(await clusters.detail_of(self, run_id))

    async def delete(self, run_id: str) -> None:
        run = await clusters.cluster_for(self.portal, self.person, run_id)
        why = self.query("reason")
        if self.request.body:
            why = self.body(models.Release).reason or why
        after = await clusters.release_cluster(
            self.portal, self.person, self.hub_as_visitor(), run, why=why[:500], address=self.address
        )
        if after.is_open:
            self.write_json(await clusters.detail_of(self, run_id), 202)
        else:
            self.set_status(204)


class Presence(Handler):
    nodes_enter = True

    async def post(self) -> None:
        if not self.person.node:  # before the body is looked at: it is nobody else's business
            presence.check_token(self.person, "")
        await presence.report(self.portal, self.person, self.body(models.Presence))
        self.set_status(204)


class OpenAPI(APIHandler):
    """The description of all this; it tells nothing about anybody, so anybody may read it."""

    anonymous = True

    async def get(self) -> None:
        self.set_header("Cache-Control", "public, max-age=300")
        self.write_json(openapi.document(self.portal.settings.site.name, self.portal.prefix))


def _places(conn: Connection, runs: list[Any]) -> dict[str, int]:
    places = {run.id: clusters.place_in_line(conn, run) for run in runs if run.word == "waiting"}
    return {run_id: place for run_id, place in places.items() if place is not None}


def routes() -> list[tuple[str, type[APIHandler]]]:
    """All addresses, relative to the portal's prefix."""
    project = r"/api/v1/projects/([^/]+)/([^/]+)"
    return [
        (r"/api/v1/openapi\.json", OpenAPI),
        *object_stores.routes(),
        *file_work.routes(),  # first: an item's id may stand where others have owner and slug
        *dataset_handlers.routes(),
        *volumes.routes(),
        *archives.routes(),
        (r"/api/v1/projects", Projects),
        *finding.routes(),
        *gallery.routes(),
        *life.routes(),
        *class_forks.routes(),
        *sharing.routes(),
        (project, Project),
        (project + r"/clusters", ProjectClusters),
        (r"/api/v1/clusters", Clusters),
        (r"/api/v1/clusters/([^/]+)", Cluster),
        *doors.routes(),
        *port_shares.routes(),
        *renewals.routes(),
        *losses.routes(),
        *machines.routes(),
        *people.routes(),
        *node.routes(),
        *ssh.routes(),
        *release.routes(),
        *machine_time.ROUTES,
        *quotas.routes(),
        *site.routes(),
        *image_places.routes(),
        *image_uploads.routes(),
        *images.routes(),
        *builds.routes(),
        *adapting.routes(),
        *library.routes(),
        *registries.routes(),
        *environments.routes(),
        *workbenches.routes(),
        *disks.routes(),
        (r"/api/v1/presence", Presence),
        (r"/api(?:/.*)?", NotFoundAPI),
    ]


ROUTES = routes()
