"""Publishing and sharing of projects and data sets: what would be seen, who sees it, and what a change ends.

The rules are in :mod:`services.catalog.publication` and :mod:`services.catalog.shares`; here are the acts that pages
and scripts call, for both kinds. A share is given to somebody who exists: a name that nobody has might be
somebody's tomorrow.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from galilean.errors import UserError, mark
from galilean.web.context import Portal
from galilean.web.handlers import APIHandler
from galilean.web.visitor import Visitor
from services.catalog import lifecycle, links, shares, store
from services.catalog.access import Access, Kind, Share, Viewer, access
from services.catalog.publication import Publication, check_publish, publication
from services.files.root import Root
from services.portal.api import models
from services.portal.api.base import Handler
from services.portal.api.operation import Operation
from services.portal.api.projects import catalogue, need_role, project_for
from services.portal.viewers import actor_of
from services.portal.withdrawn import end_later

LOOKED_MOST = 20_000
PROJECT = "/projects/{owner}/{slug}"


def files_of(root: Root, most: int) -> tuple[list[tuple[str, int]], bool]:
    """Path and size of the files of a tree, and whether these are all."""
    found: list[tuple[str, int]] = []
    waiting = [""]
    while waiting:
        folder = waiting.pop()
        cursor: str | None = None
        while True:
            listing = root.list(folder, hidden=True, limit=1000, cursor=cursor)
            for entry in listing.entries:
                if entry.kind == "folder":
                    waiting.append(entry.path)
                elif entry.kind == "file":
                    if len(found) >= most:
                        return found, False
                    found.append((entry.path, entry.size_bytes))
            cursor = listing.next
            if cursor is None:
                break
    return found, True


async def what_is_seen(portal: Portal, person: Visitor, project: store.Project) -> tuple[Publication, bool]:
    """What publishing a project would show, and whether all its files were looked at."""
    root = await catalogue(portal).files(project)
    files, complete = await catalogue(portal).run_on(project.volume_id, files_of, root, LOOKED_MOST)
    anybody = Viewer(name="")
    linked = await portal.db.run_read(links.links_of, project.id)
    unreadable = [
        f"{link.owner}/{link.slug}"
        for link in linked
        if link.deleted_at is None and access(anybody, link, (), kind="dataset") < Access.READ
    ]
    return publication(files, unreadable=unreadable), complete


async def publish(portal: Portal, person: Visitor, project: store.Project, *, address: str = "") -> None:
    """Let everybody see a project.

    Raises
    ------
    UserError
        403 when it was taken down, 409 in the bin.
    """
    need_role(person)
    check_publish(project)
    await portal.db.run(
        lifecycle.publish, "project", project.id, actor=actor_of(person, address), now=portal.clock()
    )


async def unpublish(portal: Portal, person: Visitor, project: store.Project, *, address: str = "") -> None:
    """Make a public project private again, or shared with whom it was."""
    need_role(person)
    await portal.db.run(
        lifecycle.unpublish, "project", project.id, actor=actor_of(person, address), now=portal.clock()
    )


async def give(
    portal: Portal,
    person: Visitor,
    kind: Kind,
    item_id: str,
    share: Share,
    *,
    address: str = "",
) -> list[Share]:
    """Share something with a person or group that exists; all its shares afterwards.

    The caller knows that the person may manage it.

    Raises
    ------
    UserError
        400, 409 as :func:`services.catalog.shares.give`; 404 for somebody who does not exist.
    """
    need_role(person)
    if share.grantee_kind == "person":
        try:
            await portal.hub.user(share.grantee)
        except UserError as error:
            if error.status != 404:
                raise
            raise UserError(
                404, mark("There is no account “{name}” here."), name=share.grantee[:60]
            ) from error
    elif share.grantee not in (await portal.rights.get()).groups:
        raise UserError(404, mark("There is no group “{name}” here."), name=share.grantee[:60])
    after = await portal.db.run(
        shares.give, kind, item_id, share, actor=actor_of(person, address), now=portal.clock()
    )
    await end_later(portal, kind, item_id)
    return after


async def withdraw(
    portal: Portal,
    person: Visitor,
    kind: Kind,
    item_id: str,
    grantee_kind: str,
    grantee: str,
    *,
    address: str = "",
) -> list[Share]:
    """Withdraw a share; those that are left. Runs that rest on it are released after a grace."""
    need_role(person)
    after = await portal.db.run(
        shares.withdraw,
        kind,
        item_id,
        grantee_kind,
        grantee,
        actor=actor_of(person, address),
        now=portal.clock(),
    )
    await end_later(portal, kind, item_id)
    return after


def share_models(found: Iterable[Share]) -> Iterator[models.Share]:
    """Shares as the API shows them."""
    for share in found:
        yield models.Share(
            person=share.grantee if share.grantee_kind == "person" else None,
            group=share.grantee if share.grantee_kind == "group" else None,
            access=share.access,  # type: ignore[arg-type]  # checked when it was given
            given_by=share.given_by,
            given_at=share.given_at,
        )


def share_of(body: models.GiveShare) -> Share:
    """What a request wants to give.

    Raises
    ------
    UserError
        400 unless it names a person or a group.
    """
    if bool(body.person) == bool(body.group):
        raise UserError(400, mark("Say with whom it is shared: a person's or a group's name."))
    kind = "person" if body.person else "group"
    return Share(grantee_kind=kind, grantee=body.person or body.group or "", access=body.access)


class PublicationOf(Handler):
    async def get(self, owner: str, slug: str) -> None:
        project = await project_for(self.portal, self.person, owner, slug)
        seen, complete = await what_is_seen(self.portal, self.person, project)
        self.write_json(
            models.Publication(
                files=seen.files,
                complete=complete,
                size_bytes=seen.size_bytes,
                notebooks=seen.notebooks,
                hidden=seen.hidden,
                secrets=list(seen.secrets),
                more_secrets=seen.more_secrets,
                unreadable=list(seen.unreadable),
            )
        )

    async def put(self, owner: str, slug: str) -> None:
        project = await project_for(self.portal, self.person, owner, slug)
        await publish(self.portal, self.person, project, address=self.address)
        self.set_status(204)

    async def delete(self, owner: str, slug: str) -> None:
        project = await project_for(self.portal, self.person, owner, slug)
        await unpublish(self.portal, self.person, project, address=self.address)
        self.set_status(204)


class Shares(Handler):
    async def get(self, owner: str, slug: str) -> None:
        project = await project_for(self.portal, self.person, owner, slug)
        self._answer(await self.portal.db.run_read(shares.of, "project", project.id))

    async def put(self, owner: str, slug: str) -> None:
        body = self.body(models.GiveShare)
        project = await project_for(self.portal, self.person, owner, slug)
        self._answer(
            await give(self.portal, self.person, "project", project.id, share_of(body), address=self.address)
        )

    async def delete(self, owner: str, slug: str) -> None:
        project = await project_for(self.portal, self.person, owner, slug)
        person, group = self.query("person"), self.query("group")
        if bool(person) == bool(group):
            raise UserError(400, mark("Say with whom it is shared: a person's or a group's name."))
        self._answer(
            await withdraw(
                self.portal,
                self.person,
                "project",
                project.id,
                "person" if person else "group",
                person or group,
                address=self.address,
            )
        )

    def _answer(self, found: Iterable[Share]) -> None:
        self.write_json(models.ListOf[models.Share](items=list(share_models(found))))


OPERATIONS = (
    Operation(
        method="get",
        path=PROJECT + "/publication",
        summary="Tell what everybody would see of a project",
        answers={200: models.Publication},
    ),
    Operation(method="put", path=PROJECT + "/publication", summary="Publish a project", answers={204: None}),
    Operation(
        method="delete",
        path=PROJECT + "/publication",
        summary="Make a public project private again; forks stay",
        answers={204: None},
    ),
    Operation(
        method="get",
        path=PROJECT + "/shares",
        summary="List with whom a project is shared",
        answers={200: models.ListOf[models.Share]},
    ),
    Operation(
        method="put",
        path=PROJECT + "/shares",
        summary="Share a project with a person or a group, or change what a share gives",
        takes=models.GiveShare,
        answers={200: models.ListOf[models.Share]},
    ),
    Operation(
        method="delete",
        path=PROJECT + "/shares",
        summary="Withdraw a share; runs that rest on it are released after ten minutes",
        query={"person": "With whom; this or group.", "group": "With which group."},
        answers={200: models.ListOf[models.Share]},
    ),
)


def routes() -> list[tuple[str, type[APIHandler]]]:
    """Addresses of this module, relative to the portal's prefix."""
    project = r"/api/v1/projects/([^/]+)/([^/]+)"
    return [(project + r"/publication", PublicationOf), (project + r"/shares", Shares)]
