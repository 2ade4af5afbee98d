"""Data sets: what one may do with them, for pages and scripts (CG-11, CG-12, CG-15).

What somebody may do :mod:`services.catalog.access` says; what they may not see is *not there*.
"""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection

from galilean.errors import UserError, mark
from galilean.web.context import Portal
from galilean.web.language import current, translate
from galilean.web.visitor import Visitor
from services.catalog import datasets, lifecycle, links, shares, versions
from services.catalog.access import Access, Viewer, access, may_see, need, no_such_thing
from services.catalog.collection import Datasets
from services.catalog.datasets import Dataset, Uses
from services.catalog.fields import check_field
from services.catalog.links import UsedBy
from services.catalog.mounts import Linked
from services.catalog.publication import Publication, check_publish, publication
from services.catalog.starters.spoken import spoken
from services.catalog.store import Project
from services.files.shelf import no_room
from services.portal import of_another
from services.portal.addresses import project_path
from services.portal.api import dataset_models as models
from services.portal.api.gallery import dataset_path
from services.portal.api.projects import catalogue, cover_url, need_role
from services.portal.api.sharing import LOOKED_MOST, files_of
from services.portal.binned import purge
from services.portal.storage import room_of
from services.portal.viewers import actor_of, viewer_of


def collection(portal: Portal) -> Datasets:
    """The catalogue's data sets with their files, one for the whole portal."""
    found = portal.parts.get("datasets")
    if found is None:
        found = Datasets(portal.db, portal.settings, catalogue(portal), portal.clock)
        portal.parts["datasets"] = found
    return found


def find(conn: Connection, ident: str) -> Dataset | None:
    """The living data set of an id or of ``owner/slug``."""
    owner, slash, slug = ident.rpartition("/")
    return datasets.get(conn, owner, slug) if slash else datasets.by_id(conn, ident)


async def reach(
    portal: Portal, person: Visitor, ident: str, *, least: Access = Access.READ
) -> tuple[Dataset, Access]:
    """A living data set and what the person may do with it; ``ident`` is its id or ``owner/slug``.

    Raises
    ------
    UserError
        404 when it is not there for them, 403 when they may see it and not do ``least``.
    """
    viewer = viewer_of(person)

    def read(conn: Connection) -> tuple[Dataset | None, Access]:
        found = find(conn, ident)
        if found is None:
            return None, Access.NONE
        return found, access(viewer, found, shares.of(conn, "dataset", found.id), kind="dataset")

    found, level = await portal.db.run_read(read)
    if found is None or not may_see(level) or person.node is not None:
        raise no_such_thing()
    if least > Access.READ:
        need(viewer, level, least)
    return found, level


async def create(portal: Portal, person: Visitor, body: models.NewDataset) -> Dataset:
    """Make a data set, private and empty (CG-11)."""
    need_role(person)
    return await collection(portal).create(
        person.name,
        body.name,
        slug=body.slug or None,
        mount=body.mount or None,
        summary=body.summary,
        description=body.description,
        field=body.field,
        tags=tuple(body.tags),
    )


async def change(
    portal: Portal, person: Visitor, dataset: Dataset, body: models.DatasetChange, *, address: str = ""
) -> Dataset:
    """Change what is sent; the address never changes. The caller knows that the person may."""
    need_role(person)
    if body.field is not None:
        check_field(body.field)
    now, sent = portal.clock(), body.model_dump(exclude_unset=True)

    def write(conn: Connection) -> Dataset:
        changed = datasets.update(conn, dataset, now=now, **sent)
        of_another.note_change(conn, person, "dataset", dataset, changed, sent, now=now, address=address)
        return changed

    return await portal.db.run(write)


async def delete(portal: Portal, person: Visitor, dataset: Dataset, *, address: str = "") -> Uses:
    """Put it into the bin for 30 days; its owner's projects go on without it.

    Raises
    ------
    UserError
        409 while other people's projects, or running clusters, use it.
    """
    need_role(person)
    if dataset.busy == "copying" and await portal.db.run(versions.cancel, dataset, portal.clock()):
        return Uses(own=0, others=0, running=0)
    return await collection(portal).delete(dataset, actor=actor_of(person, address))


async def binned_for(portal: Portal, person: Visitor, dataset_id: str) -> Dataset:
    """A data set in the bin that the person may take out of it.

    Raises
    ------
    UserError
        404 otherwise; 409 while it is moved to another volume.
    """
    found = await portal.db.run_read(datasets.by_id, dataset_id, deleted=True)
    mine = found is not None and (found.owner == person.name or viewer_of(person).manages("dataset"))
    if found is None or found.deleted_at is None or not mine or person.node is not None:
        raise no_such_thing()
    if found.busy:
        raise UserError(
            409,
            mark("“{name}” is being moved to another volume just now. Try again when that is done."),
            reason="busy",
            name=found.name,
        )
    return found


async def restore(portal: Portal, person: Visitor, dataset_id: str, *, address: str = "") -> Dataset:
    """Take it out of the bin with its files; numbered when its address was taken meanwhile."""
    need_role(person)
    found = await binned_for(portal, person, dataset_id)
    restored = await collection(portal).restore(found.id)
    await portal.db.run(
        of_another.note, person, "dataset", restored, "restore", now=portal.clock(), address=address
    )
    return restored


async def delete_for_ever(portal: Portal, person: Visitor, dataset_id: str, *, address: str = "") -> None:
    """Delete the files of a data set that lies in the bin.

    Raises
    ------
    UserError
        503 when the volume cannot be reached.
    """
    need_role(person)
    found = await binned_for(portal, person, dataset_id)
    await portal.db.run(  # before: what is gone for ever must not be gone without its line
        of_another.note,
        person,
        "dataset",
        found,
        "delete-for-ever",
        now=portal.clock(),
        address=address,
        before={"name": found.name, "id": found.id},
    )
    if not await purge(portal, "dataset", found.id, found.volume_id):
        await portal.db.run(
            of_another.note,
            person,
            "dataset",
            found,
            "delete-for-ever.failed",
            now=portal.clock(),
            address=address,
        )
        raise UserError(503, mark("The volume with its files cannot be reached just now. Try again later."))


async def what_is_seen(portal: Portal, dataset: Dataset) -> tuple[Publication, bool]:
    """What publishing would show, and whether all files were looked at."""
    root = await collection(portal).files(dataset)
    files, complete = await catalogue(portal).run_on(dataset.volume_id, files_of, root, LOOKED_MOST)
    return publication(files, for_ever=True), complete


async def publish(portal: Portal, person: Visitor, dataset: Dataset, *, address: str = "") -> None:
    """Let everybody read it, for ever (CG-12).

    Raises
    ------
    UserError
        403 when it was taken down.
    """
    need_role(person)
    check_publish(dataset)
    await portal.db.run(
        lifecycle.publish, "dataset", dataset.id, actor=actor_of(person, address), now=portal.clock()
    )


async def used_by(portal: Portal, person: Visitor, dataset: Dataset) -> tuple[Uses, list[UsedBy]]:
    """How many use it, and the projects of these that the person may see."""
    viewer = viewer_of(person)
    return await portal.db.run_read(
        lambda conn: (datasets.uses(conn, dataset.id), links.used_by(conn, viewer, dataset.id))
    )


# ----------------------------------------------------------------------------------- of a project


async def linked(portal: Portal, person: Visitor, project: Project) -> list[models.LinkedDataset]:
    """The data sets of a project, as this person may know them and as a run of theirs would get them."""
    viewer = viewer_of(person)

    def read(conn: Connection) -> list[tuple[Linked, list[int]]]:
        found = links.links_of(conn, project.id, portal.settings)
        return [(link, readable_numbers(conn, viewer, link.version_of or link.id)) for link in found]

    return [
        _link_model(portal, link, access(viewer, link, link.shares, kind="dataset"), numbers)
        for link, numbers in await portal.db.run_read(read)
    ]


def readable_numbers(conn: Connection, viewer: Viewer, origin_id: str) -> list[int]:
    """The versions of a data set that somebody may have in a run, the newest first."""
    return [one.version for one in readable(conn, viewer, origin_id) if not one.busy]


def readable(conn: Connection, viewer: Viewer, origin_id: str) -> list[Dataset]:
    """The versions of a data set that somebody may see, the newest first."""
    found = versions.of(conn, origin_id)
    given = shares.of_many(conn, "dataset", [one.id for one in found]) if found else {}
    return [one for one in found if may_see(access(viewer, one, given[one.id], kind="dataset"))]


async def versions_of(portal: Portal, person: Visitor, dataset: Dataset) -> list[tuple[Dataset, Access]]:
    """The versions of a data set (of the one that it is a version of) that the person may see."""
    viewer = viewer_of(person)

    def read(conn: Connection) -> list[tuple[Dataset, Access]]:
        found = readable(conn, viewer, dataset.version_of or dataset.id)
        given = shares.of_many(conn, "dataset", [one.id for one in found]) if found else {}
        return [(one, access(viewer, one, given[one.id], kind="dataset")) for one in found]

    return await portal.db.run_read(read)


async def freeze(portal: Portal, person: Visitor, dataset: Dataset, *, address: str = "") -> Dataset:
    """Begin to make a version of the files as they are; the caller knows that the person may.

    Raises
    ------
    UserError
        409 while files are at work or a run may write them; 503 or 507 when no volume takes it.
    """
    need_role(person)
    room = await room_of(portal, dataset.owner)
    if room is not None and (room <= 0 or (dataset.size_bytes or 0) > room):
        raise no_room(dataset.name, dataset.size_bytes or 0, max(0, room))
    volume_id = await catalogue(portal).place(kind="dataset", size_bytes=dataset.size_bytes or 0)
    made = await portal.db.run_serialised(
        "admission",
        versions.begin,
        dataset,
        volume_id=volume_id,
        actor=actor_of(person, address),
        now=portal.clock(),
    )
    if (chores := portal.parts.get("chores")) is not None:
        chores.wake("versions")
    return made


def _link_model(portal: Portal, link: Linked, level: Access, numbers: list[int]) -> models.LinkedDataset:
    if not may_see(level):
        why = mark("Not shared with you (any more): your runs do not get it.")
        told = models.LinkedDataset(id=link.id, mount=link.mount, writable=False, available=False, why="")
        return told.model_copy(update={"why": translate(why)})
    why = ""
    if link.deleted_at is not None:
        why = mark("It was deleted: runs do not get it.")
    elif link.busy == "away":
        why = mark("Its volume is away: runs do not get it just now.")
    elif link.busy == "copying":
        why = mark("This version is being made: runs do not get it before it is whole.")
    elif link.busy:
        why = mark("It is being moved to another volume: runs do not get it just now.")
    elif link.taken_down_at is not None:
        why = mark("It was taken down: only its owner's runs get it.")
    return models.LinkedDataset(
        id=link.id,
        mount=link.mount,
        writable=link.writable,
        available=link.deleted_at is None and not link.busy,
        why=translate(why) if why else "",
        owner=link.owner,
        slug=link.slug,
        name=spoken(link, current.get()).name,
        url=portal.prefix + dataset_path(link.owner, link.slug),
        version=link.version,
        versions=numbers,
    )


async def add_to(portal: Portal, person: Visitor, project: Project, body: models.AddDataset) -> Linked:
    """Take a data set into a project, from the next run on.

    Raises
    ------
    UserError
        409 with reason ``mount-taken`` and a free directory as ``alias``; 403, 404.
    """
    need_role(person)
    viewer, now = viewer_of(person), portal.clock()

    def add(conn: Connection) -> Linked:
        found = find(conn, body.dataset)
        if found is None:
            raise no_such_thing()
        return links.add(
            conn, viewer, project, found.id, now=now, mount=body.mount or None, writable=body.writable
        )

    return await portal.db.run(add)


async def change_link(
    portal: Portal, person: Visitor, project: Project, dataset_id: str, body: models.LinkChange
) -> None:
    """Give a project's data set another directory, or let its owner's runs write it."""
    need_role(person)
    viewer = viewer_of(person)
    await portal.db.run(
        links.change,
        viewer,
        project,
        dataset_id,
        mount=body.mount or None,
        writable=body.writable,
        version=body.version,
    )


async def remove_from(portal: Portal, person: Visitor, project: Project, dataset_id: str) -> None:
    """Take a data set out of a project; running clusters keep it until they end."""
    need_role(person)
    await portal.db.run(links.remove, viewer_of(person), project, dataset_id)


# ------------------------------------------------------------------------------------------ models


def dataset_model(portal: Portal, person: Visitor, dataset: Dataset, level: Access) -> models.Dataset:
    """A data set as the API shows it."""
    own = level >= Access.OWN
    return models.Dataset(
        id=dataset.id,
        owner=dataset.owner,
        slug=dataset.slug,
        name=dataset.name,
        summary=dataset.summary,
        description=dataset.description,
        mount=dataset.mount,
        visibility=dataset.visibility,  # type: ignore[arg-type]  # one of three in the table
        taken_down=dataset.taken_down_at is not None,
        taken_down_reason=dataset.taken_down_reason if own else "",
        access="own" if own else "read",
        field=dataset.field,
        tags=list(dataset.tags),
        cover=cover_url(portal, dataset.cover),
        busy=dataset.busy,
        size_bytes=dataset.size_bytes,
        file_count=dataset.file_count,
        created_at=dataset.created_at,
        changed_at=dataset.changed_at,
        published_at=dataset.published_at,
        volume=dataset.volume_id if viewer_of(person).manages("dataset") else None,
        version=dataset.version,
        version_of=dataset.version_of,
        url=portal.prefix + dataset_path(dataset.owner, dataset.slug),
    )


def used_by_models(portal: Portal, found: Sequence[UsedBy]) -> list[models.UsedBy]:
    """Projects that use a data set, as the API shows them."""
    return [
        models.UsedBy(
            id=one.project_id,
            owner=one.owner,
            slug=one.slug,
            name=one.name,
            mount=one.mount,
            changed_at=one.changed_at,
            url=portal.prefix + project_path(one.owner, one.slug),
        )
        for one in found
    ]


def uses_model(found: Uses) -> models.Uses:
    """The numbers as the API shows them."""
    return models.Uses(own=found.own, others=found.others, running=found.running)
