"""What one may do with projects: the functions that the API calls and the pages call (design §8).

What somebody may do with a project :mod:`services.catalog.access` says. One that they may not see is not refused
but *not there* (404): its name and existence are nobody's business. Whoever has no role yet can look, not make
(AP-2).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, func, select

from galilean import audit
from galilean.errors import UserError, mark
from galilean.web.context import Portal
from galilean.web.visitor import Visitor
from services.catalog import forking, shares, store
from services.catalog.access import Access, Viewer, access, need
from services.catalog.environments import check_environment
from services.catalog.projects import Projects
from services.portal import of_another
from services.portal.addresses import project_path
from services.portal.api import models
from services.portal.shelf import offered
from services.portal.viewers import viewer_of
from spawner import records
from spawner.records import Run
from spawner.request import ClusterRequest
from spawner.tables import clusters


def catalogue(portal: Portal) -> Projects:
    """The catalogue's projects with their files, one for the whole portal."""
    found = portal.parts.get("projects")
    if found is None:
        found = portal.parts["projects"] = Projects(
            portal.db, portal.settings, portal.clock, files=portal.files
        )
    return found


def need_role(person: Visitor) -> None:
    """Refuse whoever has no role yet (AP-2).

    Raises
    ------
    UserError
        403 in plain words.
    """
    if not person.has_role:
        raise UserError(
            403,
            mark(
                "Your account waits for a role. An administrator must give you one before you can make or run "
                "anything."
            ),
            reason="role",
        )


def _reach(conn: Connection, viewer: Viewer, owner: str, slug: str) -> tuple[store.Project | None, Access]:
    found = store.get(conn, owner, slug)
    if found is None:
        return None, Access.NONE
    return found, access(viewer, found, shares.of(conn, "project", found.id))


async def reach(
    portal: Portal,
    person: Visitor,
    owner: str,
    slug: str,
    *,
    least: Access = Access.READ,
    kind: str = store.PROJECT,
) -> tuple[store.Project, Access]:
    """The living project at ``owner/slug`` and what the person may do with it; a workbench is none.

    Raises
    ------
    UserError
        404 when it is not there for them, 403 when they may see it and not do ``least``.
    """
    viewer = viewer_of(person)
    found, level = await portal.db.run_read(_reach, viewer, owner, slug)
    if found is None or level < Access.READ or person.node is not None or found.kind != kind:
        raise store.no_such_project()
    if kind == store.WORKBENCH and owner != person.name:
        raise store.no_such_project()
    # Looking at one's own is never refused for want of a role; doing something says so in words.
    if level < least:
        need(viewer, level, least)
    return found, level


async def project_for(
    portal: Portal, person: Visitor, owner: str, slug: str, *, least: Access = Access.OWN
) -> store.Project:
    """The living project at ``owner/slug``, if the person may do ``least`` with it.

    Raises
    ------
    UserError
        As :func:`reach`.
    """
    return (await reach(portal, person, owner, slug, least=least))[0]


async def list_projects(
    portal: Portal,
    person: Visitor,
    *,
    query: str = "",
    sort: str = "recent",
    limit: int = 50,
    cursor: str | None = None,
    owner: str | None = None,
) -> tuple[list[store.Project], str | None]:
    """A page of one's own projects; of ``owner``'s for administrators."""
    whose = owner or person.name
    if whose != person.name and not viewer_of(person).manages("project"):
        raise UserError(403, mark("You see your own projects only."))
    return await portal.db.run_read(
        store.list_for,
        whose,
        query=query,
        sort=sort,  # type: ignore[arg-type]  # checked there, with a sentence
        limit=limit,
        cursor=cursor,
    )


async def create_project(
    portal: Portal, person: Visitor, body: models.NewProject, *, language: str = "en"
) -> store.Project:
    """Make a project with its directory on the emptiest volume (CG-8, CG-36)."""
    need_role(person)
    others = await others_than(portal, person, body.environment)
    return await catalogue(portal).create(
        person.name,
        body.name,
        slug=body.slug or None,
        description=body.description,
        environment=body.environment,
        starter=body.starter,
        language=language,
        others=others,
    )


async def others_than(portal: Portal, person: Visitor, name: str) -> Mapping[str, object]:
    """Environments kept online that somebody may use; asked for only when the settings do not know the name."""
    return {} if not name or name in portal.settings.environments else await offered(portal, person)


async def change_project(
    portal: Portal, person: Visitor, project: store.Project, body: models.ProjectChange, *, address: str = ""
) -> store.Project:
    """Change what is sent; the address never changes. Of another's project it is noted."""
    need_role(person)
    if body.environment is not None and body.environment != project.environment:
        others = await others_than(portal, person, body.environment)
        check_environment(portal.settings, body.environment, others)
    request: dict[str, Any] | None = None
    if body.default_request is not None:
        wanted = body.default_request.model_dump(exclude_none=True)
        request = ClusterRequest.parse(wanted).as_dict() if wanted else {}
    now = portal.clock()

    def change(conn: Connection) -> store.Project:
        changed = store.update(
            conn,
            project,
            now=now,
            name=body.name,
            description=body.description,
            environment=body.environment,
            field=body.field,
            tags=body.tags,
            readme=body.readme,
            default_request=request,
        )
        names = body.model_fields_set
        of_another.note_change(conn, person, "project", project, changed, names, now=now, address=address)
        return changed

    return await portal.db.run(change)


async def runs_in_the_way(portal: Portal, project: store.Project) -> list[Run]:
    """Open clusters of a project, by anybody: it cannot be deleted before they are released."""
    return await portal.db.run_read(records.list_runs, project_id=project.id, open_only=True, limit=20)


async def delete_project(
    portal: Portal, person: Visitor, project: store.Project, *, address: str = ""
) -> None:
    """Put a project into the bin with its files; its machine time stays (CG-24).

    Raises
    ------
    UserError
        409 while a cluster of it is held.
    """
    need_role(person)
    copying = project.busy == "copying"
    if copying and await portal.db.run(store.cancel, project, now=portal.clock()):
        wake(portal, "copies")  # a fork on its way: whoever copies it ends, and nothing of it is left
    elif project.busy and not copying:
        raise forking.busy(project)
    else:
        await catalogue(portal).delete(project)
    was = {"name": project.name, "id": project.id}
    await portal.db.run(
        of_another.note, person, "project", project, "delete", now=portal.clock(), address=address, before=was
    )


def write_audit(conn: Connection, **values: Any) -> None:
    """One line of the audit log (SC-17)."""
    audit.write(conn, **values)


def open_ids(conn: Connection, user: str, project_ids: list[str]) -> dict[str, str]:
    """Project id → id of the person's open cluster of it, where there is one."""
    if not project_ids:
        return {}
    rows = conn.execute(
        select(clusters.c.project_id, clusters.c.id).where(
            clusters.c.user == user, clusters.c.released_at.is_(None), clusters.c.project_id.in_(project_ids)
        )
    )
    return {row.project_id: row.id for row in rows}


WORDS: dict[Access, models.AccessWord] = {
    Access.READ: "read",
    Access.RUN: "run",
    Access.WRITE: "write",
    Access.OWN: "own",
}


def cover_url(portal: Portal, cover: str) -> str | None:
    """Where the image of a cover is."""
    return f"{portal.prefix}covers/{cover}" if cover else None


def project_model(
    portal: Portal,
    person: Visitor,
    project: store.Project,
    cluster: str | None,
    level: Access = Access.OWN,
) -> models.Project:
    """A project as the API shows it."""
    return models.Project(
        id=project.id,
        owner=project.owner,
        slug=project.slug,
        name=project.name,
        description=project.description,
        environment=project.environment or portal.settings.defaults.environment,
        visibility=project.visibility,
        created_at=project.created_at,
        changed_at=project.changed_at,
        url=portal.prefix + project_path(project.owner, project.slug),
        server=project.server(person.name),
        cluster=cluster,
        access=WORDS[level],
        field=project.field,
        tags=list(project.tags),
        readme=project.readme,
        cover=cover_url(portal, project.cover),
        default_request=dict(project.default_request) if project.default_request else None,
        forked_from=project.forked_from,
        busy=project.busy,
        published_at=project.published_at,
        taken_down=project.taken_down_at is not None,
        size_bytes=project.size_bytes,
        file_count=project.file_count,
    )


def wake(portal: Portal, chore: str) -> None:
    """Have a chore done now rather than at its next turn, if this process does the chores."""
    chores: Any = portal.parts.get("chores")
    if chores is not None:
        chores.wake(chore)


def open_runs(conn: Connection, user: str, project_ids: list[str]) -> dict[str, Run]:
    """Project id → the person's open run of it."""
    ids = open_ids(conn, user, project_ids)
    found = {project_id: records.get(conn, run_id) for project_id, run_id in ids.items()}
    return {project_id: run for project_id, run in found.items() if run is not None}


def last_started(conn: Connection, user: str, project_ids: list[str]) -> dict[str, Any]:
    """Project id → when the person last asked for a cluster of it."""
    if not project_ids:
        return {}
    rows = conn.execute(
        select(
            clusters.c.project_id, func.max(clusters.c.queued_at, type_=clusters.c.queued_at.type).label("at")
        )
        .where(clusters.c.user == user, clusters.c.project_id.in_(project_ids))
        .group_by(clusters.c.project_id)
    )
    return {row.project_id: row.at for row in rows}
