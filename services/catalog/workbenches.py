"""Workbenches: an environment that a person opens on its own, to look at it or to change it (CG-16, CG-17).

A workbench is a row of ``projects`` of a kind of its own, so that what keeps, counts, moves, bins and bills the files of
projects does the same with its ``work``, and no second way of running exists. It is a person's for an environment, one
for each, and never anybody else's: it cannot be shared, published, forked or given data sets, and no list of projects
shows it. A run of it has one node, always of its own environment, and may be root inside where the centre says so.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from sqlalchemy import Connection
from sqlalchemy.exc import IntegrityError

from galilean.errors import UserError, mark
from galilean.settings import Settings
from services.catalog import store
from services.catalog.store import WORKBENCH, Project
from spawner.plan import EnvironmentChoice
from spawner.request import ClusterRequest


def check_offered(settings: Settings) -> None:
    """Refuse where the centre has switched workbenches off.

    Raises
    ------
    UserError
        403.
    """
    if not settings.workbench.offered:
        raise UserError(
            403,
            mark("Workbenches are switched off here. Make a project with the environment instead."),
            reason="not-here",
        )


def make(
    conn: Connection, *, owner: str, environment: str, name: str, volume_id: str, now: datetime
) -> tuple[Project, bool]:
    """Somebody's workbench of an environment, made when it is missing; whether it is new.

    Two that begin it at once get the same one: the partial index lets the first through.
    """
    there = store.workbench_of(conn, owner, environment)
    if there is not None:
        return there, False
    try:
        with conn.begin_nested():
            made = store.create(
                conn,
                owner=owner,
                name=name[: store.NAME_LENGTH],
                volume_id=volume_id,
                now=now,
                environment=environment,
                kind=WORKBENCH,
                address=f"workbench {environment.rpartition('/')[2]}",
            )
    except IntegrityError:
        there = store.workbench_of(conn, owner, environment)
        if there is None:
            raise
        return there, False
    return made, True


def get(conn: Connection, owner: str, workbench_id: str) -> Project:
    """Somebody's own living workbench.

    Raises
    ------
    UserError
        404: another's is not there.
    """
    found = store.by_id(conn, workbench_id)
    if found is None or found.kind != WORKBENCH or found.owner != owner:
        raise no_such_workbench()
    return found


def no_such_workbench() -> UserError:
    """The same refusal for what does not exist and for what is another's."""
    return UserError(404, mark("There is no such workbench of yours."))


def request_of(settings: Settings, project: Project, request: ClusterRequest) -> ClusterRequest:
    """The request of a run of a workbench: of one node and of its environment, whatever the defaults say.

    Raises
    ------
    UserError
        400 when it asks for anything else; 403 where there are no workbenches.
    """
    check_offered(settings)
    if (request.nodes or 1) != 1:
        raise UserError(400, mark("A workbench has one node. Run a project for more."))
    if request.environment not in (None, project.environment):
        raise UserError(
            400,
            mark("This is the workbench of “{environment}”. Open the other environment for one of its own."),
            environment=project.environment,
        )
    return replace(request, nodes=1, environment=project.environment)


def choice(settings: Settings, project: Project, found: EnvironmentChoice) -> EnvironmentChoice:
    """What a run of a workbench is started from: its environment, with sudo where the centre allows it there.

    Never together with containers inside: their profiles let more of the kernel be asked.
    """
    return replace(found, sudo=found.sudo or (root_inside(settings) and not found.containers))


def root_inside(settings: Settings) -> bool:
    """Whether people become root in their workbenches by ``sudo``."""
    return settings.workbench.root and settings.backend != "process"
