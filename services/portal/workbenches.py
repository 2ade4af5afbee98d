"""Workbenches as pages, API and command ask for them (CG-16, CG-17): begin, list, open, delete.

The files' rules are the catalogue's (:mod:`services.catalog.workbenches`), the run's those of every run: the hub is asked as
the visitor, and quotas and release policies hold. Here stands what needs to know environments *and* files: whether an
environment may still be opened, what it is called, and what of a workbench is open now.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection

from galilean import audit
from galilean.errors import UserError, mark
from galilean.web.context import Portal
from galilean.web.visitor import Visitor
from services.catalog import store, volumes, workbenches
from services.catalog.store import Project
from services.portal import shelf
from services.portal.api import environments as calls
from services.portal.api.projects import catalogue, last_started, need_role, open_runs
from spawner.records import Run

Translate = Callable[[str], str]


@dataclass(frozen=True, kw_only=True)
class Bench:
    """A workbench with what is known beside it.

    Attributes
    ----------
    project
        Its row.
    title
        Of its environment, as it is or was called.
    run
        What is open of it now.
    last_opened_at
        When it was asked for last.
    startable
        Whether its environment takes new runs of this person.
    """

    project: Project
    title: str
    run: Run | None
    last_opened_at: datetime | None
    startable: bool


def offered(portal: Portal) -> bool:
    """Whether there are workbenches here."""
    return portal.settings.workbench.offered


def root_inside(portal: Portal) -> bool:
    """Whether people are root in theirs."""
    return workbenches.root_inside(portal.settings)


async def make(portal: Portal, person: Visitor, key: str, *, translate: Translate) -> tuple[Project, bool]:
    """The person's workbench of an environment (its id or name), made when it is missing; whether it is new.

    Raises
    ------
    UserError
        403 without a role, or where there are none; 404 for an environment that is not there for them; 409 for a
        retired one; 503, 507 as for a project's files.
    """
    need_role(person)
    workbenches.check_offered(portal.settings)
    item = await calls.reach(portal, person, key)
    there = await portal.db.run_read(store.workbench_of, person.name, item.name)
    if there is not None:
        return there, False
    if item.retired_at is not None:
        raise UserError(
            409, mark("“{environment}” is retired: it takes no new runs."), environment=item.title
        )
    volume_id = await catalogue(portal).place()
    name = translate(mark("Workbench: {title}")).format(title=item.title)

    def begin(conn: Connection) -> tuple[Project, bool]:
        now = portal.clock()
        volumes.ensure_volumes(conn, portal.settings, now)
        return workbenches.make(
            conn, owner=person.name, environment=item.name, name=name, volume_id=volume_id, now=now
        )

    made, new = await portal.db.run(begin)
    if new:
        await catalogue(portal).files(made)
    return made, new


async def reach(portal: Portal, person: Visitor, workbench_id: str) -> Project:
    """A workbench of the person's own.

    Raises
    ------
    UserError
        404 otherwise: also for administrators, and for whoever comes with a node's token.
    """
    if person.node is not None:
        raise workbenches.no_such_workbench()
    return await portal.db.run_read(workbenches.get, person.name, workbench_id)


async def bench_of(portal: Portal, person: Visitor, project: Project) -> Bench:
    """A workbench with what is known beside it."""
    (found,) = await _with_all(portal, person, [project])
    return found


async def list_for(portal: Portal, person: Visitor) -> list[Bench]:
    """All of the person's own."""
    if person.node is not None:
        return []
    return await _with_all(portal, person, await portal.db.run_read(store.workbenches_of, person.name))


async def _with_all(portal: Portal, person: Visitor, found: list[Project]) -> list[Bench]:
    ids = [project.id for project in found]
    runs, last = await portal.db.run_read(
        lambda conn: (open_runs(conn, person.name, ids), last_started(conn, person.name, ids))
    )
    titles, startable = await shelf.titles(portal), await shelf.offered(portal, person)
    return [
        Bench(
            project=project,
            title=titles.get(project.environment) or project.environment,
            run=runs.get(project.id),
            last_opened_at=last.get(project.id),
            startable=project.environment in startable,
        )
        for project in found
    ]


async def of_environment(portal: Portal, person: Visitor, name: str) -> Bench | None:
    """The person's workbench of an environment, if they have begun it."""
    found = await portal.db.run_read(store.workbench_of, person.name, name)
    return await bench_of(portal, person, found) if found and person.node is None else None


async def delete(portal: Portal, person: Visitor, project: Project, *, address: str = "") -> None:
    """Put its ``work`` into the bin; machine time and saved images stay.

    Raises
    ------
    UserError
        403 without a role; 409 while it is open, or its files are moved.
    """
    need_role(person)
    if project.busy:
        raise UserError(
            409, mark("The files of “{name}” are being moved just now. Try again later."), name=project.name
        )
    await catalogue(portal).delete(project)
    await portal.db.run(_note, project, person.name, address, portal.clock())


def _note(conn: Connection, project: Project, actor: str, address: str, now: Any) -> None:
    audit.write(
        conn,
        at=now,
        actor=actor,
        address=address,
        action="workbench.delete",
        subject=f"{project.owner}/{project.slug}",
        before={"environment": project.environment, "id": project.id},
    )
