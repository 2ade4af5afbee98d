"""Administration → Environments (CG-38): the whole catalogue as a table, and acts on many at once.

What a card has no room for stands here: who brought the image, what it needs, the desktop's port, who still has it, how far
it is on the machines. Each act is the API's own, done with one after the other.
"""

from __future__ import annotations

from collections import Counter
from typing import Any
from urllib.parse import urlencode

from sqlalchemy import Connection

from extensions.imagebuilder import entries, store
from extensions.imagebuilder.entries import MANAGE, Entry
from extensions.imagebuilder.store import Wanted
from galilean.errors import mark
from galilean.web.handlers import PageHandler
from services.portal import image_places
from services.portal.api import environments as calls
from services.portal.pages.all_items import SHOWN, ActOnChosen
from services.portal.pages.environments import INTERFACES
from services.portal.pages.project_frame import said

ACTS = ("retire", "restore", "redistribute", "delete")
SCOPES = {
    "everything": mark("All"),
    "all": mark("Not retired"),
    "centre": mark("Of the centre"),
    "retired": mark("Retired"),
}


class AllEnvironments(PageHandler):
    """The list; for htmx the table alone."""

    right = MANAGE

    async def get(self) -> None:
        def word(name: str, most: int = 64) -> str:
            return self.get_query_argument(name, "").strip()[:most]

        chosen = {
            "q": word("q", 200),
            "scope": word("scope"),
            "field": word("field"),
            "interface": word("interface"),
            "gpu": word("gpu"),
            "by": word("by", 255),
        }
        if chosen["scope"] not in SCOPES:
            chosen["scope"] = "everything"
        if chosen["interface"] not in INTERFACES:
            chosen["interface"] = ""
        if chosen["gpu"] not in ("yes", "no"):
            chosen["gpu"] = ""
        found = await calls.find(
            self.portal,
            self.person,
            Wanted(
                text=chosen["q"],
                field=chosen["field"],
                interface=chosen["interface"],
                gpu=None if not chosen["gpu"] else chosen["gpu"] == "yes",
                scope=chosen["scope"],
                added_by=chosen["by"],
            ),
            limit=SHOWN,
            cursor=word("cursor", 400) or None,
        )
        place = f"{self.portal.prefix}admin/environments"

        def address(**changes: Any) -> str:
            asked = {**chosen, **changes}
            if asked["scope"] == "everything":
                asked.pop("scope")
            query = urlencode({key: value for key, value in asked.items() if value})
            return f"{place}?{query}" if query else place

        values = {
            "place": place,
            "address": address,
            "chosen": chosen,
            "found": found,
            "cursor": word("cursor", 400),
            "scopes": SCOPES,
            "fields": entries.fields_of(self.portal.settings),
            "interfaces": INTERFACES,
            "images": self.portal.settings.backend != "process",
            "said": said,
            **await self._spots(),
        }
        if self.is_fragment and not self.request.headers.get("HX-History-Restore-Request"):
            await self.render_fragment("admin_environments_table.html", **values)
        else:
            await self.render_page("admin_environments.html", **values)

    async def _spots(self) -> dict[str, Any]:
        """Image → how many machines have it, and of how many it is known, where that is told at all."""
        if not image_places.known(self.portal):
            return {"spread": False, "there": {}, "spots": {}, "failed": {}}
        rows = await image_places.carried(self.portal)
        spots = Counter(one.spot.image for one in rows)
        there = Counter(one.spot.image for one in rows if one.spot.state == "present")
        failed = {one.spot.image for one in rows if one.spot.state == "failed"}
        return {"spread": True, "there": there, "spots": spots, "failed": failed}


class ActOnEnvironments(ActOnChosen):
    """Many at once."""

    right = MANAGE
    kind = "environment"
    none_chosen = mark("Choose at least one environment.")

    @staticmethod
    def by_id(conn: Connection, item_id: str) -> Entry | None:
        found = store.entry(conn, item_id)
        return None if found is None or found.deleted_at is not None else found

    async def act(self, act: str, found: Entry) -> None:
        portal, person, address = self.portal, self.person, self.address
        if act == "delete":
            await calls.delete(portal, person, found, address=address)
        elif act == "redistribute":
            await image_places.redistribute(portal, person, image=found.version.image, address=address)
        else:
            await calls.retire(portal, person, found, act == "retire", address=address)


def routes() -> list[tuple[str, type[Any]]]:
    """Addresses of this module, relative to the portal's prefix."""
    return [
        (r"/admin/environments", AllEnvironments),
        (rf"/admin/environments/({'|'.join(ACTS)})", ActOnEnvironments),
    ]


ROUTES = routes()
