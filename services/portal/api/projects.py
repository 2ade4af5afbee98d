"""What one may do with projects: the functions that the API calls and the pages call (design §8).

A project of somebody else is not refused but *not there* (404): its name and existence are nobody's
business. Administrators see all. Whoever has no role yet can look, not make (AP-2).
"""

from __future__ import annotations

import re
from typing import Any

from sqlalchemy import Connection, func, select

from galilean import audit
from galilean.errors import UserError, mark
from galilean.web.context import Portal
from galilean.web.visitor import Visitor
from services.catalog import store
from services.catalog.environments import check_environment
from services.catalog.projects import Projects
from services.files.paths import from_address
from services.portal.addresses import project_path
from services.portal.api import models
from spawner import records
from spawner.records import Run
from spawner.tables import clusters


def catalogue(portal: Portal) -> Projects:
    """The catalogue's projects with their files, one for the whole portal."""
    found = portal.parts.get("projects")
    if found is None:
        found = portal.parts["projects"] = Projects(portal.db, portal.settings, portal.clock)
    return found


def path_after(address: str, word: str) -> str:
    """The path of a file that follows ``…/projects/<owner>/<slug>/<word>/`` in a request's address.

    Taken from the address itself, because names need not be UTF-8; owner and slug may be ``word``, too.
    """
    found = re.search(rf"/projects/[^/]+/[^/]+/{word}(?:/(.*))?\Z", address, re.DOTALL)
    return from_address(found[1] or "") if found else ""


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


def may_see(person: Visitor, project: store.Project) -> bool:
    """Whether the project is there at all for this person."""
    return person.node is None and (project.owner == person.name or person.admin)


async def project_for(portal: Portal, person: Visitor, owner: str, slug: str) -> store.Project:
    """The living project at ``owner/slug``, if it is there for this person.

    Raises
    ------
    UserError
        404 otherwise, without telling which.
    """
    found = await portal.db.run_read(store.get, owner, slug)
    if found is None or not may_see(person, found):
        raise store.no_such_project()
    return found


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
    if whose != person.name and not person.admin:
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
    return await catalogue(portal).create(
        person.name,
        body.name,
        slug=body.slug or None,
        description=body.description,
        environment=body.environment,
        starter=body.starter,
        language=language,
    )


async def change_project(
    portal: Portal, person: Visitor, project: store.Project, body: models.ProjectChange
) -> store.Project:
    """Change name, description or default environment; the address never changes."""
    need_role(person)
    if body.environment is not None:
        check_environment(portal.settings, body.environment)
    return await portal.db.run(
        store.update,
        project,
        now=portal.clock(),
        name=body.name,
        description=body.description,
        environment=body.environment,
    )


async def runs_in_the_way(portal: Portal, project: store.Project) -> list[Run]:
    """Open clusters of a project, by anybody: it cannot be deleted before they are released."""
    return await portal.db.run_read(records.list_runs, project_id=project.id, open_only=True, limit=20)


async def delete_project(
    portal: Portal, person: Visitor, project: store.Project, *, address: str = ""
) -> None:
    """Delete a project with its files; its machine time stays (CG-24).

    Raises
    ------
    UserError
        409 while a cluster of it is held.
    """
    need_role(person)
    await catalogue(portal).delete(project)
    if person.name != project.owner:
        await portal.db.run(
            write_audit,
            at=portal.clock(),
            actor=person.name,
            address=address,
            action="project.delete",
            subject=f"{project.owner}/{project.slug}",
            before={"name": project.name, "id": project.id},
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


def project_model(
    portal: Portal, person: Visitor, project: store.Project, cluster: str | None
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
    )


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
