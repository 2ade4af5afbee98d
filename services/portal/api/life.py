"""What becomes of projects: forks with their progress and the bin; the rest as of data sets (:mod:`.either`)."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection

from galilean.errors import UserError, mark
from galilean.web.context import Portal
from galilean.web.handlers import APIHandler
from galilean.web.language import current
from galilean.web.visitor import Visitor
from services.catalog import forking, forks, links, store
from services.catalog.access import Access
from services.catalog.forks import Forked
from services.catalog.starters.spoken import spoken
from services.portal import copying, of_another
from services.portal.addresses import project_path
from services.portal.api import either, models
from services.portal.api.base import Handler
from services.portal.api.either import OfEither
from services.portal.api.operation import Operation
from services.portal.api.projects import (
    catalogue,
    need_role,
    project_model,
    reach,
    wake,
)
from services.portal.binned import purge
from services.portal.storage import check_room, limit_of
from services.portal.viewers import viewer_of

PROJECT = "/projects/{owner}/{slug}"


@dataclass(frozen=True, kw_only=True)
class Made:
    """A fork that was begun, and how many data sets it lacks."""

    project: store.Project
    left_out: int


async def fork(
    portal: Portal,
    person: Visitor,
    owner: str,
    slug: str,
    *,
    name: str | None = None,
    new_slug: str | None = None,
) -> Made:
    """Make a project one's own; its files follow in the background (CG-14). One's own is duplicated.

    Raises
    ------
    UserError
        404, 403, 409 as :func:`services.catalog.forking.plan_fork`; 507 without room.
    """
    project, level = await reach(portal, person, owner, slug)
    viewer, size = viewer_of(person), project.size_bytes or 0
    read = spoken(project, current.get())  # a fork is called what its maker read
    most = await limit_of(portal, person.name)
    volume_id = await catalogue(portal).place(size)

    def make(conn: Connection) -> Made:
        check_room(conn, person.name, size, most)
        plan = forking.plan_fork(viewer, read, level, links.links_of(conn, project.id), name=name)
        made = forks.make(conn, viewer, plan, volume_id=volume_id, now=portal.clock(), slug=new_slug)
        return Made(project=made, left_out=plan.left_out)

    made = await portal.db.run_serialised("admission", make)
    wake(portal, "copies")
    return made


async def tree_of(
    portal: Portal, person: Visitor, project: store.Project
) -> tuple[store.Project | None, list[Forked]]:
    """What a project is a fork of, and the forks of it that the person may see."""
    viewer = viewer_of(person)
    return await portal.db.run_read(
        lambda conn: (forks.origin(conn, viewer, project), forks.tree(conn, viewer, project))
    )


async def binned_for(portal: Portal, person: Visitor, project_id: str) -> store.Project:
    """A project in the bin that the person may take out of it.

    Raises
    ------
    UserError
        404 otherwise.
    """
    found = await portal.db.run_read(lambda conn: store.by_id(conn, project_id, deleted=True))
    mine = found is not None and (found.owner == person.name or viewer_of(person).manages("project"))
    if found is None or found.deleted_at is None or found.busy or not mine or person.node is not None:
        raise store.no_such_project()
    return found


async def restore(portal: Portal, person: Visitor, project_id: str, *, address: str = "") -> store.Project:
    """Take a project out of the bin with its files; numbered when its address was taken meanwhile."""
    need_role(person)
    found = await binned_for(portal, person, project_id)
    restored = await catalogue(portal).restore(found.id)
    await portal.db.run(
        of_another.note, person, "project", restored, "restore", now=portal.clock(), address=address
    )
    return restored


async def delete_for_ever(portal: Portal, person: Visitor, project_id: str, *, address: str = "") -> None:
    """Delete the files of a project that lies in the bin; its machine time stays.

    Raises
    ------
    UserError
        503 when the volume cannot be reached.
    """
    need_role(person)
    found = await binned_for(portal, person, project_id)
    await portal.db.run(  # before: what is gone for ever must not be gone without its line
        of_another.note,
        person,
        "project",
        found,
        "delete-for-ever",
        now=portal.clock(),
        address=address,
        before={"name": found.name, "id": found.id},
    )
    if not await purge(portal, "project", found.id, found.volume_id):
        await portal.db.run(
            of_another.note,
            person,
            "project",
            found,
            "delete-for-ever.failed",
            now=portal.clock(),
            address=address,
        )
        raise UserError(503, mark("The volume with its files cannot be reached just now. Try again later."))


def fork_model(portal: Portal, item: Forked) -> models.ForkOf:
    """A project of a tree of forks as the API shows it."""
    project = item.project
    return models.ForkOf(
        id=project.id,
        parent=item.parent,
        depth=item.depth,
        owner=project.owner,
        slug=project.slug,
        name=project.name,
        created_at=project.created_at,
        url=portal.prefix + project_path(project.owner, project.slug),
    )


class Forks(Handler):
    async def get(self, owner: str, slug: str) -> None:
        project, _ = await reach(self.portal, self.person, owner, slug)
        origin, found = await tree_of(self.portal, self.person, project)
        self.write_json(
            models.Forks(
                origin=fork_model(self.portal, Forked(project=origin, depth=0, parent=None))
                if origin
                else None,
                items=[fork_model(self.portal, item) for item in found],
            )
        )

    async def post(self, owner: str, slug: str) -> None:
        body = self.body(models.NewFork) if self.request.body else models.NewFork()
        made = await fork(self.portal, self.person, owner, slug, name=body.name, new_slug=body.slug)
        address = project_path(made.project.owner, made.project.slug)
        self.set_header("Location", f"{self.portal.prefix}api/v1/{address}")
        self.write_json(
            models.ForkMade(
                project=project_model(self.portal, self.person, made.project, None), left_out=made.left_out
            ),
            202,
        )


class Copying(Handler):
    async def get(self, owner: str, slug: str) -> None:
        project, _ = await reach(self.portal, self.person, owner, slug)
        found = await self.portal.db.run_read(copying.course, project)
        self.write_json(
            models.Copying(state="done", files=project.file_count or 0, size_bytes=project.size_bytes or 0)
            if found is None
            else models.Copying(
                state="copying",
                files=found.files,
                size_bytes=found.size_bytes,
                of_files=found.of_files,
                of_bytes=found.of_bytes,
            )
        )


class OfProject(OfEither):
    """How a project is reached and shown."""

    async def reach(self, owner: str, slug: str, least: Access = Access.READ) -> tuple[store.Project, Access]:
        return await reach(self.portal, self.person, owner, slug, least=least)

    def answer(self, found: store.Project, level: Access = Access.OWN, status: int = 200) -> None:
        self.write_json(project_model(self.portal, self.person, found, None, level), status)


class CoverOf(OfProject, either.CoverOf):
    """``…/cover``."""


class Owner(OfProject, either.Owner):
    """``…/owner``."""


class TakenDown(OfProject, either.TakenDown):
    """``…/taken-down``."""


class Bin(either.Bin):
    """``/bin/projects``."""

    kind = "project"


class InBin(Handler):
    async def post(self, project_id: str) -> None:
        project = await restore(self.portal, self.person, project_id, address=self.address)
        self.write_json(project_model(self.portal, self.person, project, None))

    async def delete(self, project_id: str) -> None:
        await delete_for_ever(self.portal, self.person, project_id, address=self.address)
        self.set_status(204)


OPERATIONS = (
    Operation(
        method="get", path=PROJECT + "/forks", summary="Show the tree of forks", answers={200: models.Forks}
    ),
    Operation(
        method="post",
        path=PROJECT + "/forks",
        summary="Fork a project (one's own is duplicated); its files are copied in the background",
        takes=models.NewFork,
        answers={202: models.ForkMade},
    ),
    Operation(
        method="get",
        path=PROJECT + "/copying",
        summary="Tell how far the copy of a fork is; deleting the fork cancels it",
        answers={200: models.Copying},
    ),
    Operation(
        method="put",
        path=PROJECT + "/cover",
        summary="Give a project a cover: a PNG or JPEG of 280 × 157 pixels, or twice that",
        raw_body=True,
        answers={200: models.Cover},
    ),
    Operation(
        method="delete", path=PROJECT + "/cover", summary="Take a project's cover away", answers={204: None}
    ),
    Operation(
        method="put",
        path=PROJECT + "/owner",
        summary="Give a project to somebody else (with the right)",
        takes=models.NewOwner,
        answers={200: models.Project},
    ),
    Operation(
        method="put",
        path=PROJECT + "/taken-down",
        summary="Hide a project from everybody but its owner (with the right)",
        takes=models.TakeDown,
        answers={204: None},
    ),
    Operation(
        method="delete",
        path=PROJECT + "/taken-down",
        summary="Show a project again that was taken down (with the right)",
        answers={204: None},
    ),
    Operation(
        method="get",
        path="/bin/projects",
        summary="List one's deleted projects; each is kept for 30 days",
        answers={200: models.ListOf[models.Binned]},
    ),
    Operation(
        method="post",
        path="/bin/projects/{id}",
        summary="Take a project out of the bin",
        answers={200: models.Project},
    ),
    Operation(
        method="delete",
        path="/bin/projects/{id}",
        summary="Delete a project in the bin for ever; its machine time stays",
        answers={204: None},
    ),
)


def routes() -> list[tuple[str, type[APIHandler]]]:
    """Addresses of this module, relative to the portal's prefix."""
    project = r"/api/v1/projects/([^/]+)/([^/]+)"
    return [
        (project + r"/forks", Forks),
        (project + r"/copying", Copying),
        (project + r"/cover", CoverOf),
        (project + r"/owner", Owner),
        (project + r"/taken-down", TakenDown),
        (r"/api/v1/bin/projects", Bin),
        (r"/api/v1/bin/projects/([^/]+)", InBin),
    ]
