"""Uploading a packed image, as pages and API ask for it (CG-38): who may, under which name, what it becomes.

The archive comes in by the resumable uploads that files have, into a folder of its person's that nobody else sees. What
it is to be is said before its first byte and checked then; when the last byte is there a row says so in one step, and the
image service takes it up (:mod:`extensions.imagebuilder.uploading`). Whoever lost that answer asks where the upload is,
and is told the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy import Connection, select

from extensions.imagebuilder import entries, saved, store
from extensions.imagebuilder.entries import Entry
from extensions.imagebuilder.names import ImageName
from extensions.imagebuilder.saved import SavedImage
from extensions.imagebuilder.tables import environments, saved_images
from extensions.imagebuilder.uploading import folder, folder_of
from extensions.quota.limits import ABOVE_ALL
from galilean import disk_reserve
from galilean.amounts import format_bytes
from galilean.errors import UserError, mark
from galilean.web.context import Portal
from galilean.web.visitor import Visitor
from services.files.root import Root
from services.portal import saving, shelf
from services.portal.my_limits import limits_of

ENTRIES_SHOWN = 500
#: Threads of their own: the folder may be on a network disk, which keeps nobody else then.
LANE = "image-uploads"

_TOO_LARGE = mark("The archive has {size}; you may upload {most} at once.")
_OVER = mark("This upload was taken up before, and what it became is gone. Upload the archive once more.")
_FULL = mark(
    "Your saved images take {used} MB of the {most} MB that they may take, and this one about {more} MB more. Delete "
    "images that you no longer need."
)


@dataclass(frozen=True)
class Wished:
    """What an upload is to be: ``into`` is an entry that the person may change."""

    name: ImageName
    description: str = ""
    into: Entry | None = None


def offered(portal: Portal) -> bool:
    """Whether archives can be uploaded here."""
    return (
        saving.offered(portal)
        and portal.settings.backend != "process"
        and portal.settings.images.registry.upload > 0
    )


def may_upload(portal: Portal, person: Visitor) -> bool:
    """Whether a person may upload one."""
    return offered(portal) and entries.may_make(shelf.viewer(person), portal.settings, centre=False)


def need_upload(portal: Portal, person: Visitor) -> None:
    """Refuse whoever may not, and where nobody can.

    Raises
    ------
    UserError
        501, 403, 409.
    """
    entries.need_make(shelf.viewer(person), portal.settings, centre=False)
    if not offered(portal):
        raise UserError(501, mark("Packed images cannot be uploaded here."), reason="not-here")


async def most_bytes(portal: Portal, person: Visitor) -> int:
    """The most that a person may upload at once: what the site takes, and what they may upload of anything (CG-13)."""
    site, own = portal.settings.images.registry.upload, (await limits_of(portal, person)).upload
    return site if own >= ABOVE_ALL else min(site, own)


async def wished(portal: Portal, person: Visitor, said: Mapping[str, str]) -> Wished:
    """What an upload's metadata ask for: ``name`` (name:tag), ``description``, ``into`` (id or name of an entry).

    Raises
    ------
    UserError
        422 for the name, 409 when the person has such an image, 404 and 403 for the entry.
    """
    text, into = said.get("name", ""), said.get("into", "").strip()
    if not into:
        return Wished(await saving.check_name(portal, person, text), _description(said))
    entry = await portal.db.run_read(
        lambda conn: store.reach(conn, shelf.viewer(person), into[:128], change=True)
    )
    name = await saving.check_name(portal, person, text)
    there = await portal.db.run_read(store.versions, entry.id)
    if any(one.tag == name.tag for one in there):
        raise UserError(
            409,
            mark("“{name}” has a version {tag} already. Versions are never replaced: choose another tag."),
            name=entry.title,
            tag=name.tag,
            reason="tag-taken",
        )
    return Wished(name, _description(said), entry)


def _description(said: Mapping[str, str]) -> str:
    return entries.clean_text(said.get("description", ""), entries.DESCRIPTION_MOST)


async def check_room(portal: Portal, person: Visitor, size_bytes: int) -> None:
    """Refuse what is too large, before its first byte.

    Raises
    ------
    UserError
        413; 507 also when the site's disk has no room for it.
    """
    most = await most_bytes(portal, person)
    if size_bytes > most:
        raise UserError(413, _TOO_LARGE, size=format_bytes(size_bytes), most=format_bytes(most))
    await portal.files.run(LANE, disk_reserve.need, folder(portal.settings), size_bytes)
    kept = portal.settings.images.registry.per_person
    if not kept:
        return
    used = await portal.db.run_read(saved.used_bytes, person.name)
    if used + size_bytes > kept:
        raise UserError(
            507, _FULL, reason="images-full", used=used >> 20, most=kept >> 20, more=size_bytes >> 20
        )


def keep_reserve(portal: Portal) -> None:
    """Refuse to go on with an upload where others have filled the disk meanwhile: the next piece waits. Blocks.

    Raises
    ------
    UserError
        507.
    """
    disk_reserve.need(folder(portal.settings), disk_reserve.ASK_EVERY_BYTES)


def root_of(portal: Portal, person: Visitor) -> Root:
    """Where a person's archives come in. Blocks."""
    own = folder_of(portal.settings, person.name)
    own.mkdir(parents=True, exist_ok=True, mode=0o700)
    return Root(own)


async def take_up(
    portal: Portal, person: Visitor, archive: str, said: Mapping[str, str], *, address: str = ""
) -> SavedImage:
    """An archive is there, whole: from now on the image service has it. Asked again, the same answer.

    Asked again when the image and its row are gone, it begins nothing: the archive went with the first.

    Two requests may say so at once, the last one and one that asks where the upload is: whoever comes second is told what
    the first one began, and is not refused for the name that the first one took.

    Raises
    ------
    UserError
        As :func:`wished`; the archive is to be deleted then. 410 when it is not there any more.
    """

    def known(conn: Connection) -> str:
        return (
            conn.execute(
                select(saved_images.c.id).where(
                    saved_images.c.owner == person.name, saved_images.c.archive == archive
                )
            ).scalar()
            or ""
        )

    def begin(conn: Connection, asked: Wished) -> SavedImage:
        if there := known(conn):
            return saved.get(conn, person.name, there)
        return saved.begin(
            conn,
            actor=shelf.actor(person, address),
            name=asked.name,
            now=portal.clock(),
            description=asked.description,
            archive=archive,
            into_id=asked.into.id if asked.into else "",
            environment=asked.into.name if asked.into else "",
        )

    if there := await portal.db.run_read(known):
        return await portal.db.run_read(saved.get, person.name, there)
    try:
        if not await portal.files.run(LANE, (folder_of(portal.settings, person.name) / archive).is_file):
            raise UserError(410, _OVER, reason="upload-over")
        asked = await wished(portal, person, said)
        return await portal.db.run(begin, asked)
    except UserError:
        if there := await portal.db.run_read(known):
            return await portal.db.run_read(saved.get, person.name, there)
        raise


async def changeable(portal: Portal, person: Visitor) -> list[Entry]:
    """Entries that a person may upload a version of: their own, for those who manage all of them."""
    viewer = shelf.viewer(person)

    def look(conn: Connection) -> list[Entry]:
        ids = conn.execute(
            select(environments.c.id)
            .where(
                environments.c.deleted_at.is_(None),
                True if viewer.manages else environments.c.owner == viewer.name,  # type: ignore[arg-type]
            )
            .order_by(environments.c.sort_name)
            .limit(ENTRIES_SHOWN)
        ).scalars()
        return [found for key in ids if (found := store.entry(conn, key)) is not None]

    return await portal.db.run_read(look)
