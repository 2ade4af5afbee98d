"""Explore: what people published, as cards; covers; stars (BX-8, CG-10).

The address says what is shown, so a view can be sent as a link. Cards come by the same search that the API has.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from sqlalchemy import Connection, distinct, func, select

from galilean.errors import UserError, mark
from galilean.web.context import Portal
from galilean.web.handlers import PageHandler
from services.catalog import covers, search
from services.catalog.access import Kind, Viewer
from services.catalog.cards import PUBLIC
from services.catalog.fields import FIELDS
from services.catalog.search import Wanted
from services.catalog.tables import cards
from services.portal import drawn
from services.portal.api.gallery import SORTS, find, item_path, set_favourite
from services.portal.pages.project_frame import said
from services.portal.shelf import offered

SHOWN = 24
TAGS_SHOWN = 12
COUNTED_SECONDS = 30.0


def card_values(handler: PageHandler) -> dict[str, Any]:
    """What the macros of ``cards.html`` need."""
    return {
        "fields": FIELDS,
        "item_path": item_path,
        "drawn_name": drawn.name_of,
        "said": said,
    }


@dataclass(frozen=True, kw_only=True)
class Around:
    """What stands around the cards and need not be of this moment.

    Attributes
    ----------
    totals
        How many public projects and data sets there are (``project``, ``dataset``), and of how many ``people``.
    tags
        The most frequent tags of each kind, with how many have each.
    """

    totals: Mapping[str, int]
    tags: Mapping[str, Sequence[tuple[str, int]]]


def _around(conn: Connection) -> Around:
    kinds: tuple[Kind, ...] = ("project", "dataset")
    anybody = Viewer(name="")
    totals = {kind: search.count(conn, anybody, Wanted(kind=kind), scope="public") for kind in kinds}
    people = select(func.count(distinct(cards.c.owner))).where(cards.c.shelf.in_(list(PUBLIC.values())))
    return Around(
        totals={**totals, "people": int(conn.execute(people).scalar_one())},
        tags={kind: search.tags(conn, kind, most=TAGS_SHOWN) for kind in kinds},
    )


async def around(portal: Portal) -> Around:
    """What was counted some seconds ago; counted anew behind the answer, so that nobody waits for it twice."""
    kept: tuple[float, Around] | None = portal.parts.get("explore_around")

    async def look() -> Around:
        found = await portal.db.run_read(_around)
        portal.parts["explore_around"] = (time.monotonic(), found)
        return found

    if kept is None:
        return await look()
    looking: asyncio.Task[Around] | None = portal.parts.get("explore_looking")
    if time.monotonic() - kept[0] > COUNTED_SECONDS and (looking is None or looking.done()):
        portal.parts["explore_looking"] = asyncio.create_task(look())
    return kept[1]


class Explore(PageHandler):
    """Public projects, or data sets; for htmx further cards alone."""

    kind: Kind = "project"

    async def get(self) -> None:
        def word(name: str, most: int) -> str:
            return self.get_query_argument(name, "").strip()[:most]

        chosen = {
            "q": word("q", 200),
            "field": word("field", 64),
            "environment": word("environment", 128),
            "tag": word("tag", 64),
            "author": word("author", 255),
            "sort": word("sort", 20),
            "mine": word("mine", 1),
        }
        if chosen["sort"] not in SORTS:
            chosen["sort"] = "recent"
        wanted = Wanted(
            kind=self.kind,
            text=chosen["q"],
            field=chosen["field"],
            environment=chosen["environment"],
            tag=chosen["tag"],
            author=chosen["author"],
            sort=chosen["sort"],  # type: ignore[arg-type]  # one of those above
        )
        before = word("n", 6)
        shown = await find(
            self.portal,
            self.person,
            wanted,
            scope="favourites" if chosen["mine"] else "public",
            limit=SHOWN,
            cursor=self.get_query_argument("cursor", "") or None,
            counted=True,
        )
        place = f"{self.portal.prefix}explore" + ("/datasets" if self.kind == "dataset" else "")

        def address(**changes: Any) -> str:
            values = {**chosen, **changes}
            if values["sort"] == "recent":
                values.pop("sort")
            query = urlencode({key: value for key, value in values.items() if value})
            return f"{place}?{query}" if query else place

        values = {
            "kind": self.kind,
            "place": place,
            "address": address,
            "chosen": chosen,
            "shown": shown,
            "before": int(before) if before.isdigit() else 0,
            "most": search.COUNT_MOST,
            "sorts": SORTS,
            "environments": await offered(self.portal, self.person) if self.kind == "project" else {},
            **card_values(self),
        }
        if self.is_fragment and self.get_query_argument("cursor", ""):
            await self.render_fragment("explore_cards.html", **values)
            return
        beside = await around(self.portal)
        await self.render_page("explore.html", **values, tags=beside.tags[self.kind], totals=beside.totals)


class ExploreDatasets(Explore):
    kind: Kind = "dataset"


class Star(PageHandler):
    """One press: a favourite, or no more; answers with the star as it is now."""

    async def post(self, kind: Kind, item_id: str) -> None:
        on = self.get_body_argument("on", "") == "1"
        count = await set_favourite(self.portal, self.person, kind, item_id, on)
        await self.render_fragment("star.html", kind=kind, item_id=item_id, liked=on, count=count)


class Cover(PageHandler):
    """The image of a cover: nothing but a picture (:mod:`services.catalog.covers`), named by its content."""

    async def get(self, name: str) -> None:
        data = await self.portal.db.run_read(covers.get, name)
        if data is None:
            raise UserError(404, mark("There is no such image."))
        self._image(covers.type_of(name))
        self.finish(data)

    def _image(self, kind: str) -> None:
        self.set_header("Content-Type", kind)
        self.set_header("Cache-Control", "private, max-age=31536000, immutable")
        self.set_header("Content-Security-Policy", "default-src 'none'; sandbox")
        self.set_header("Cross-Origin-Resource-Policy", "same-origin")


class Drawn(Cover):
    """A cover that is drawn."""

    async def get(self, name: str) -> None:
        picture = drawn.draw(name)
        if picture is None:
            raise UserError(404, mark("There is no such image."))
        self._image("image/svg+xml")
        self.finish(picture)


def routes() -> list[tuple[str, type[Any]]]:
    """Addresses of this module, relative to the portal's prefix."""
    return [
        (r"/explore/?", Explore),
        (r"/explore/datasets", ExploreDatasets),
        (r"/stars/(project|dataset)/([^/]+)", Star),
        (r"/covers/drawn/([^/]+)", Drawn),
        (r"/covers/([^/]+)", Cover),
    ]


ROUTES = routes()
