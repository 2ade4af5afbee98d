"""Where a request meets the files of a project or data set: who may read, who may write, how much fits.

The one place. :mod:`services.catalog.access` decides by owner, visibility and shares as they stand now; what
somebody may not see is not there (404), what they may not change is refused in words (403), and while files are
being copied or moved nobody changes them (409). From a desk one gets a :class:`Root`, which knows no persons.

How much more may be kept is the owner's business, whoever uploads: files lie where the owner's quota counts.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import quote

from sqlalchemy import Connection

from extensions.quota.limits import ABOVE_ALL
from galilean.errors import UserError, mark
from galilean.web.context import Portal
from galilean.web.visitor import Visitor
from services.catalog import access, datasets, shares, store, versions
from services.catalog.access import Access, Kind
from services.catalog.datasets import Dataset
from services.catalog.resolver import prepare_directory
from services.catalog.store import Project
from services.files.root import Root
from services.files.shelf import no_room
from services.files.tus import Place
from services.portal.my_limits import limits_of
from services.portal.storage import kept_room
from services.portal.viewers import viewer_of

KINDS: dict[str, Kind] = {"projects": "project", "datasets": "dataset"}
#: In addresses: an id, or owner and slug. No person's name is in capital letters, so no two meet.
IDENT = r"[0-9A-HJKMNP-TV-Z]{26}|[^/]+/[^/]+"


@dataclass(frozen=True, kw_only=True)
class Desk:
    """The files of one project or data set, for one visitor.

    Attributes
    ----------
    item
        The project or data set.
    level
        What the visitor may do with it.
    may_write
        Whether they may change files now.
    root
        The files; its methods block.
    room_bytes
        How much more the owner may keep, asked in a thread, before and during; ``None`` = no limit.
    limit_bytes
        The most that the visitor may upload at once (CG-13); ``None`` = no limit.
    """

    portal: Portal
    person: Visitor
    kind: Kind
    item: Project | Dataset
    level: Access
    may_write: bool
    root: Root
    room_bytes: Callable[[], int | None]
    limit_bytes: int | None

    @property
    def path(self) -> str:
        """``projects/<owner>/<slug>``, below the portal's pages and its API."""
        return item_path(self.kind, self.item)

    @property
    def api(self) -> str:
        """Absolute path of its addresses in the API."""
        return f"{self.portal.prefix}api/v1/{self.path}"

    @property
    def page(self) -> str:
        """Absolute path of its page."""
        return self.portal.prefix + self.path

    def place(self) -> Place:
        """Where the visitor's uploads go."""
        return Place(
            root=self.root,
            by=self.person.name,
            address=f"{self.api}/uploads",
            limit_bytes=self.limit_bytes,
            room_bytes=self.room_bytes,
            came_in=self._came_in,
        )

    def check_room(self, path: str, size_bytes: int) -> None:
        """Refuse to make something, or to let it grow so much, beyond what the owner may keep. Blocks.

        Raises
        ------
        UserError
            507.
        """
        room = self.room_bytes()
        if room is not None and (size_bytes > room or room <= 0):
            raise no_room(path, size_bytes, max(0, room))

    async def changed(self) -> None:
        """Note that files changed."""
        now = self.portal.clock()
        if self.kind == "project":
            await self.portal.db.run(store.touch, self.item.id, now)
        else:
            await self.portal.db.run(datasets.touch, self.item.id, now)
        if not self.item.file_count and (chores := self.portal.parts.get("chores")) is not None:
            chores.wake("sizes")  # whoever puts the first file into it sees that it is there

    async def _came_in(self, path: str) -> None:
        await self.changed()


def item_path(kind: Kind, item: Project | Dataset) -> str:
    """Where something is below the portal's pages and its API."""
    return f"{kind}s/{quote(item.owner, safe='@~')}/{quote(item.slug, safe='')}"


async def desk_of(portal: Portal, person: Visitor, kind: Kind, ident: str, *, write: bool = False) -> Desk:
    """The desk of a project or data set.

    Parameters
    ----------
    portal, person
        Of the request.
    kind, ident
        Which: an id, or ``owner/slug``.
    write
        Whether files are to be changed.

    Raises
    ------
    UserError
        404 when it is not there for this person, 403 when they may not write, 409 while its files are at work,
        503 when its volume is not there, or does not answer.
    """
    viewer = viewer_of(person)

    def read(conn: Connection) -> tuple[Project | Dataset, Access] | None:
        item = _find(conn, kind, ident)
        if item is None:
            return None
        return item, access.access(viewer, item, shares.of(conn, kind, item.id), kind=kind)

    found = await portal.db.run_read(read) if person.node is None else None
    if found is None:
        raise access.no_such_thing()
    item, level = found
    access.need(viewer, level, Access.WRITE if write else Access.READ)
    if write and item.busy:
        raise UserError(
            409,
            mark("The files of “{name}” are being copied or moved just now. Try again when that is done."),
            name=item.name,
            reason="busy",
        )
    frozen = isinstance(item, Dataset) and bool(item.version_of)
    if write and isinstance(item, Dataset) and item.version_of:
        raise versions.never_changes(item)
    most = (await limits_of(portal, person)).upload if level >= Access.WRITE else 0
    directory = await portal.files.ask(item.volume_id, prepare_directory, portal.settings, item)
    return Desk(
        portal=portal,
        person=person,
        kind=kind,
        item=item,
        level=level,
        may_write=access.may_write(viewer, level, item) and not item.busy and not frozen,
        root=Root(directory),
        room_bytes=await kept_room(portal, item.owner) if write else _anything,
        limit_bytes=None if most >= ABOVE_ALL else most,
    )


def _find(conn: Connection, kind: Kind, ident: str) -> Project | Dataset | None:
    owner, address, slug = ident.rpartition("/")  # a person's name may have a “/”, a slug has none
    if kind == "project":
        return store.get(conn, owner, slug) if address else store.by_id(conn, ident)
    return datasets.get(conn, owner, slug) if address else datasets.by_id(conn, ident)


def _anything() -> int | None:
    return None
