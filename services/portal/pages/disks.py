"""Disks: one's own with what has them now; make, make larger, delete (TI-3, TI-10). And their part of the Run drawer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tornado.web import RequestHandler

from galilean.errors import UserError, mark
from galilean.web.context import Portal
from galilean.web.handlers import PageHandler
from galilean.web.visitor import Visitor
from services.catalog.disks import SIZE_MOST_GIB, Disk, check_free, may_have, no_such_disk, pool_of
from services.portal import disks
from services.portal.storage import room_of
from spawner.request import DISKS_MOST

PLACE = r"/disks"
#: Of a size, as it is typed.
_DIGITS_MOST = 9


def size_typed(text: str) -> int:
    """A number of GiB as somebody typed it.

    Raises
    ------
    UserError
        400.
    """
    text = text.strip()
    if not text.isascii() or not text.isdigit() or len(text) > _DIGITS_MOST:
        raise UserError(400, mark("The size is a whole number of GiB."))
    return int(text)


@dataclass(frozen=True, kw_only=True)
class Offer:
    """A disk in the Run drawer.

    Attributes
    ----------
    mode
        What is filled in: ``read``, ``write`` or empty.
    may_read, may_write
        Whether a run that starts now may have it so.
    pool_title
        Of its pool, where there are several.
    """

    disk: Disk
    mode: str
    may_read: bool
    may_write: bool
    pool_title: str


async def offers(portal: Portal, person: Visitor, last: Mapping[str, Any] | None) -> list[Offer]:
    """The visitor's disks for the drawer; filled in as in the last request, as far as that may be had now."""
    if not disks.offered(portal):
        return []
    found, _ = await disks.list_for(portal, person, limit=200)
    modes: Mapping[str, str] = (last or {}).get("disks") or {}
    made = []
    for disk in found:
        held = [use.writes for use in disk.uses]
        may = {"read": may_have(False, held), "write": may_have(True, held)}
        mode = modes.get(disk.name, "")
        made.append(
            Offer(
                disk=disk,
                mode=mode if may.get(mode) else "",
                may_read=may["read"],
                may_write=may["write"],
                pool_title=disks.pool_title(portal, disk.pool),
            )
        )
    return made


def check_choice(found: Sequence[Disk], chosen: Mapping[str, str], pool: str) -> None:
    """Refuse what admission would refuse, to be shown while somebody chooses.

    Raises
    ------
    UserError
        404, 409 as a start.
    """
    mine = {disk.name: disk for disk in found}
    for name in chosen:
        if name not in mine:
            raise no_such_disk(name)
    wanted = [mine[name] for name in sorted(chosen)]
    pool_of(wanted, pool or None)
    for disk in wanted:
        check_free(disk.name, chosen[disk.name] == "write", disk.uses)


def choice_typed(texts: Sequence[str]) -> dict[str, str]:
    """What is chosen in the drawer, each as ``name:mode``."""
    pairs = (text.partition(":") for text in texts[:DISKS_MOST])
    return {name[:64]: mode for name, _, mode in pairs if mode in ("read", "write")}


class Disks(PageHandler):
    """The list, a form for a new one."""

    async def get(self) -> None:
        query = self.get_query_argument("q", "").strip()[:64]
        after = self.get_query_argument("after", "")[:26]
        rows, following = await disks.list_for(self.portal, self.person, text=query, after=after)
        ask = self.get_query_argument("ask", "")
        if ask == "new":
            await self.render_fragment(
                "disk_new.html",
                pools=disks.pools(self.portal, self.person),
                room=await room_of(self.portal, self.person.name),
                most_gib=SIZE_MOST_GIB,
                grows=disks.grows(self.portal),
            )
            return
        await self.render_page(
            "disks.html",
            rows=rows,
            query=query,
            next=following,
            offered=disks.offered(self.portal),
            backend=self.portal.settings.backend,
            grows=disks.grows(self.portal),
            pool_title=lambda name: disks.pool_title(self.portal, name),
        )

    async def post(self) -> None:
        """Make one."""
        made = await disks.make(
            self.portal,
            self.person,
            name=self.get_body_argument("name", "").strip(),
            size_gib=size_typed(self.get_body_argument("size_gib", "")),
            pool=self.get_body_argument("pool", "") or None,
            address=self.address,
        )
        self.toast(self.translate(mark("The disk “{disk}” is made.")).format(disk=made.name))
        self.set_header("HX-Redirect", f"{self.portal.prefix}disks")
        self.finish("")


class OneDisk(PageHandler):
    """What is asked before one is made larger or deleted, and doing it."""

    async def get(self, disk_id: str) -> None:
        disk = await disks.reach(self.portal, self.person, disk_id)
        ask = self.get_query_argument("ask", "")
        await self.render_fragment(
            "disk_grow.html" if ask == "grow" else "disk_delete.html",
            disk=disk,
            room=await room_of(self.portal, self.person.name),
            most_gib=SIZE_MOST_GIB,
            backend=self.portal.settings.backend,
        )

    async def post(self, disk_id: str) -> None:
        disk = await disks.reach(self.portal, self.person, disk_id)
        if self.get_body_argument("do", "") == "grow":
            grown = await disks.grow(
                self.portal,
                self.person,
                disk_id,
                size_typed(self.get_body_argument("size_gib", "")),
                address=self.address,
            )
            self.toast(
                self.translate(mark("The disk “{disk}” has {size} GiB.")).format(
                    disk=grown.name, size=grown.size_gib
                )
            )
        else:
            if self.get_body_argument("typed", "").strip() != disk.name:
                raise UserError(400, mark("Type the disk's name, “{disk}”, to confirm."), disk=disk.name)
            await disks.delete(self.portal, self.person, disk_id, address=self.address)
            self.toast(self.translate(mark("The disk “{disk}” is deleted.")).format(disk=disk.name))
        self.set_header("HX-Redirect", f"{self.portal.prefix}disks")
        self.finish("")


def routes() -> list[tuple[str, type[RequestHandler]]]:
    """Addresses of this module, relative to the portal's prefix."""
    return [(PLACE, Disks), (PLACE + r"/([0-9A-Z]{26})", OneDisk)]


ROUTES = routes()
