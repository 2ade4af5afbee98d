"""A project for a whole class: every member of a group gets a fork of their own by one press (BX-8).

It is what each member would get by pressing *Fork*, with their rights and within their quota: who may not see the
project, has no role or no room left gets none, and that is told of each. Who has a fork already keeps it. Only the
rows are made here; files are copied as for every fork, some at a time, and how far that is stands in the rows. So
the same call may be made again, after a portal that ended or for who joined later.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from sqlalchemy import Connection, select

from galilean import notices
from galilean.amounts import format_bytes
from galilean.errors import UserError, mark
from galilean.rights import GROUP_PREFIX
from galilean.web.context import Portal
from galilean.web.visitor import Visitor
from services.catalog import forking, forks, links, shares, store
from services.catalog.access import Viewer, access, may_see
from services.catalog.store import Project
from services.catalog.tables import projects
from services.portal.api.projects import catalogue, need_role, wake, write_audit
from services.portal.storage import room_of

RIGHTS = ("groups:manage", "people:manage")
MEMBERS_MOST = 2000


@dataclass(frozen=True, kw_only=True)
class Given:
    """How it stands with one member.

    Attributes
    ----------
    state
        ``none`` (not yet), ``copying``, ``there``, or ``refused`` for the reason ``why``.
    slug
        Of their fork.
    left_out
        Data sets that a fork made now lacks, because its owner may not read them.
    """

    person: str
    state: str
    slug: str = ""
    left_out: int = 0
    why: UserError | None = None


def may_give(person: Visitor) -> bool:
    """Whether somebody may give their projects to groups."""
    return any(person.may(right) for right in RIGHTS)


def need_giver(person: Visitor) -> None:
    """Refuse who may not.

    Raises
    ------
    UserError
        403.
    """
    need_role(person)
    if not may_give(person):
        raise UserError(
            403, mark("Only who may manage groups or people can give a project to a whole group.")
        )


async def members(portal: Portal, group: str) -> list[Viewer]:
    """The members of a group, as the hub knows them now, in order.

    Raises
    ------
    UserError
        404 for no such group, 409 for one that is too large, 503 while the hub is away.
    """
    known = await portal.rights.get()
    if group not in known.groups:
        raise UserError(404, mark("There is no group “{name}” here."), name=group[:60])
    found = []
    for model in await portal.hub.users():
        groups = list(model.get("groups") or ())
        if GROUP_PREFIX + group in groups:
            roles = known.roles_of(groups)
            found.append(
                Viewer.of(model["name"], groups, has_role=bool(roles), rights=known.rights_of(roles))
            )
    if len(found) > MEMBERS_MOST:
        raise UserError(409, mark("A group may have at most {most} members for this."), most=MEMBERS_MOST)
    return sorted(found, key=lambda one: one.name)


def standing(conn: Connection, project_id: str, people: Collection[str]) -> dict[str, tuple[str, str]]:
    """Slug and state of the newest living fork of a project of each of some people who has one."""
    rows = conn.execute(
        select(projects.c.owner, projects.c.slug, projects.c.busy)
        .where(projects.c.forked_from == project_id, projects.c.deleted_at.is_(None))
        .order_by(projects.c.id)
    )
    wanted = frozenset(people)
    return {
        row.owner: (row.slug, "copying" if row.busy == "copying" else "there")
        for row in rows
        if row.owner in wanted
    }


async def how_far(portal: Portal, person: Visitor, project: Project, group: str) -> list[Given]:
    """How it stands with each member of a group but the project's owner."""
    need_giver(person)
    people = [one.name for one in await members(portal, group) if one.name != project.owner]
    there = await portal.db.run_read(standing, project.id, people)
    return [
        Given(person=name, slug=there[name][0], state=there[name][1])
        if name in there
        else Given(person=name, state="none")
        for name in people
    ]


async def give(
    portal: Portal, person: Visitor, project: Project, group: str, *, address: str = ""
) -> list[Given]:
    """Begin a fork for each member who has none; the caller knows that the person may manage the project.

    Raises
    ------
    UserError
        403, 404, 409 as :func:`need_giver` and :func:`members`; what is refused to a member is told of the member.
    """
    need_giver(person)
    if project.busy:
        raise forking.busy(project)
    people = [one for one in await members(portal, group) if one.name != project.owner]
    there = await portal.db.run_read(standing, project.id, [one.name for one in people])
    told: list[Given] = []
    for viewer in people:
        if viewer.name in there:
            slug, state = there[viewer.name]
            told.append(Given(person=viewer.name, slug=slug, state=state))
            continue
        try:
            told.append(await _give_one(portal, viewer, project, person.name))
        except UserError as error:
            told.append(Given(person=viewer.name, state="refused", why=error))
    made = [one for one in told if one.state == "copying" and one.person not in there]
    if made:
        await portal.db.run(
            lambda conn: write_audit(
                conn,
                actor=person.name,
                action="project.forked-for-group",
                at=portal.clock(),
                subject=project.id,
                address=address,
                after={"group": group, "forks": len(made)},
            )
        )
        wake(portal, "copies")
    return told


async def cancel(
    portal: Portal, person: Visitor, project: Project, group: str, *, address: str = ""
) -> list[Given]:
    """End the copies that this person gave to a group's members and that are still on their way.

    Nothing of these is left. What is whole is its owner's and stays, and so does what a member forked by themselves.

    Raises
    ------
    UserError
        403, 404, 409 as :func:`give`.
    """
    need_giver(person)
    people = {one.name for one in await members(portal, group)}
    now = portal.clock()

    def end(conn: Connection) -> int:
        rows = conn.execute(
            select(projects.c.id, projects.c.owner).where(
                projects.c.forked_from == project.id,
                projects.c.given_by == person.name,
                projects.c.busy == "copying",
                projects.c.deleted_at.is_(None),
            )
        ).all()
        ended = 0
        for row in rows:
            fork = store.by_id(conn, row.id) if row.owner in people else None
            if fork is None or not store.cancel(conn, fork, now=now):
                continue
            ended += 1
            notices.tell(
                conn,
                row.owner,
                now=now,
                kind="fork",
                text=mark("{giver} took the copy of “{name}” back before it was whole."),
                address="projects",
                giver=person.name,
                name=fork.name,
            )
        if ended:
            write_audit(
                conn,
                actor=person.name,
                action="project.forks-for-group-cancelled",
                at=now,
                subject=project.id,
                address=address,
                after={"group": group, "forks": ended},
            )
        return ended

    if await portal.db.run(end):
        wake(portal, "copies")
    return await how_far(portal, person, project, group)


async def _give_one(portal: Portal, viewer: Viewer, project: Project, giver: str) -> Given:
    size, room = project.size_bytes or 0, await room_of(portal, viewer.name)
    if room is not None and size > room:
        # How much somebody has left is theirs to know, and who sees to people's limits.
        raise UserError(
            507,
            mark("It has {size}, which is more than they may still keep."),
            reason="quota",
            size=format_bytes(size),
        )
    volume_id = await catalogue(portal).place(size)

    def make(conn: Connection) -> Given:
        again = standing(conn, project.id, [viewer.name])  # who pressed at the same moment
        if again:
            slug, state = again[viewer.name]
            return Given(person=viewer.name, slug=slug, state=state)
        fresh = store.by_id(conn, project.id)
        if fresh is None:
            raise store.no_such_project()
        level = access(viewer, fresh, shares.of(conn, "project", fresh.id))
        if not viewer.has_role:
            raise UserError(403, mark("Has no role yet; an administrator gives one."))
        if not may_see(level):
            raise UserError(404, mark("May not see this project. Share it with the group, or publish it."))
        plan = forking.plan_fork(viewer, fresh, level, links.links_of(conn, fresh.id))
        made = forks.make(conn, viewer, plan, volume_id=volume_id, now=portal.clock(), given_by=giver)
        notices.tell(
            conn,
            viewer.name,
            now=portal.clock(),
            kind="fork",
            text=mark("{giver} gave you a copy of “{name}”. It is yours."),
            address=f"projects/{viewer.name}/{made.slug}",
            giver=giver,
            name=fresh.name,
        )
        return Given(person=viewer.name, slug=made.slug, state="copying", left_out=plan.left_out)

    return await portal.db.run(make)
