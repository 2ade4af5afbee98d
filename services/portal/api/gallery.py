"""What one finds: cards of projects and data sets, favourites, views; by the same search for pages and scripts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import quote

from sqlalchemy import Connection

from galilean.errors import mark
from galilean.web.context import Portal
from galilean.web.handlers import APIHandler
from galilean.web.language import current
from galilean.web.paging import Page
from galilean.web.visitor import Visitor
from services.catalog import counts, datasets, search, shares, store
from services.catalog.access import Access, Kind, access, no_such_thing
from services.catalog.cards import Card
from services.catalog.search import Scope, Wanted
from services.catalog.starters.spoken import spoken
from services.portal.addresses import project_path
from services.portal.api import models
from services.portal.api.base import Handler
from services.portal.api.operation import PAGED, Operation
from services.portal.api.projects import cover_url
from services.portal.viewers import viewer_of

KINDS: tuple[Kind, ...] = ("project", "dataset")
SCOPES: tuple[Scope, ...] = ("public", "mine", "shared", "favourites", "all", "everything")


def dataset_path(owner: str, slug: str) -> str:
    """``datasets/<owner>/<slug>`` below the portal or its API."""
    return f"datasets/{quote(owner, safe='@~')}/{quote(slug, safe='')}"


def item_path(kind: str, owner: str, slug: str) -> str:
    """The address of a project's or data set's page below the portal."""
    return project_path(owner, slug) if kind == "project" else dataset_path(owner, slug)


@dataclass(frozen=True, kw_only=True)
class Shown:
    """A page of cards as somebody sees it."""

    cards: Sequence[Card]
    next: str | None
    favourites: frozenset[str]
    total: int | None = None


async def find(
    portal: Portal,
    person: Visitor,
    wanted: Wanted,
    *,
    scope: Scope = "public",
    limit: int = 24,
    cursor: str | None = None,
    counted: bool = False,
) -> Shown:
    """A page of what is found, with the person's favourites among it; ``counted`` = how many there are, too."""
    viewer = viewer_of(person)

    def look(conn: Connection) -> Shown:
        page: Page[Card] = search.search(conn, viewer, wanted, scope=scope, limit=limit, cursor=cursor)
        total: int | None = None
        if counted:
            short = page.next is None and not cursor
            total = len(page.items) if short else search.count(conn, viewer, wanted, scope=scope)
        ids = [card.item_id for card in page.items]
        liked = counts.favourites_among(conn, wanted.kind, ids, person.name) if ids else set()
        return Shown(cards=page.items, next=page.next, favourites=frozenset(liked), total=total)

    found = await portal.db.run_read(look)
    return replace(found, cards=[spoken(card, current.get()) for card in found.cards])


def card_model(portal: Portal, card: Card, favourite: bool) -> models.Card:
    """A card as the API shows it."""
    return models.Card(
        kind=card.kind,  # type: ignore[arg-type]  # one of two in the table
        id=card.item_id,
        owner=card.owner,
        slug=card.slug,
        name=card.name,
        summary=card.summary,
        visibility=card.visibility,
        taken_down=card.taken_down,
        cover=cover_url(portal, card.cover),
        field=card.field,
        environment=card.environment,
        tags=list(card.tags),
        changed_at=card.changed_at,
        published_at=card.new_at,
        views=card.views,
        uses=card.uses,
        favourites=card.favourites,
        favourite=favourite,
        url=portal.prefix + item_path(card.kind, card.owner, card.slug),
    )


def _level(conn: Connection, viewer: Any, kind: Kind, item_id: str) -> tuple[Access, Any]:
    found: Any = store.by_id(conn, item_id) if kind == "project" else datasets.by_id(conn, item_id)
    if found is None:
        return Access.NONE, None
    return access(viewer, found, shares.of(conn, kind, item_id), kind=kind), found


async def set_favourite(portal: Portal, person: Visitor, kind: Kind, item_id: str, on: bool) -> int:
    """Make something that the person may see their favourite, or not; how many people's it is now.

    Raises
    ------
    UserError
        404 for what they may not see. What they no longer may see can be taken out.
    """
    viewer, now = viewer_of(person), portal.clock()

    def change(conn: Connection) -> int:
        if on:
            level, _ = _level(conn, viewer, kind, item_id)
            if level < Access.READ:
                raise no_such_thing()
            counts.favour(conn, kind, item_id, person.name, now=now)
        else:
            counts.unfavour(conn, kind, item_id, person.name)
        return counts.favourites_of(conn, kind, item_id)

    return await portal.db.run(change)


async def note_view(portal: Portal, person: Visitor, kind: Kind, item_id: str, owner: str) -> None:
    """Count a look at somebody else's thing, once a day of the site."""
    if person.name == owner:
        return
    day = portal.clock().astimezone(portal.settings.site.zone).date()
    seen: set[tuple[str, str, Any]] = portal.parts.setdefault("views", set())
    key = (item_id, person.name, day)
    if key in seen:
        return
    if len(seen) > 20_000:  # what is forgotten here, the table knows
        seen.clear()
    seen.add(key)
    await portal.db.run(counts.once, kind, item_id, what="view", person=person.name, day=day)


def wanted_of(handler: APIHandler, kind: Kind, sort: str) -> Wanted:
    """What a request looks for, from its query."""
    return Wanted(
        kind=kind,
        text=handler.query("q")[:200],
        field=handler.query("field")[:64],
        environment=handler.query("environment")[:128],
        tag=handler.query("tag")[:64],
        author=handler.query("author")[:255],
        sort=sort,  # type: ignore[arg-type]  # checked by search, with a sentence
    )


class Explore(Handler):
    async def get(self) -> None:
        kind: Kind = self.word("kind", *KINDS)  # type: ignore[assignment]
        scope: Scope = self.word("scope", *SCOPES)  # type: ignore[assignment]
        shown = await find(
            self.portal,
            self.person,
            wanted_of(self, kind, self.query("sort") or "recent"),
            scope=scope,
            limit=self.limit(),
            cursor=self.query("cursor") or None,
        )
        self.write_json(
            models.ListOf[models.Card](
                items=[
                    card_model(self.portal, card, card.item_id in shown.favourites) for card in shown.cards
                ],
                next=shown.next,
            )
        )


class Favourite(Handler):
    """A project among one's favourites."""

    kind: Kind = "project"

    async def put(self, item_id: str) -> None:
        await set_favourite(self.portal, self.person, self.kind, item_id, True)
        self.set_status(204)

    async def delete(self, item_id: str) -> None:
        await set_favourite(self.portal, self.person, self.kind, item_id, False)
        self.set_status(204)


class FavouriteDataset(Favourite):
    """A data set among them."""

    kind: Kind = "dataset"


OPERATIONS = (
    Operation(
        method="get",
        path="/explore",
        summary="Find projects or data sets",
        query={
            "kind": "project (default) or dataset.",
            "scope": "public (default), mine, shared, favourites, all that one may see, everything (with the right).",
            "q": "Words that must all be found in name, address, owner, tags or descriptions.",
            "field": "Exactly this field.",
            "environment": "Exactly this default environment.",
            "tag": "Exactly this tag.",
            "author": "Of this person.",
            "sort": "recent (default), new, name, views, uses or favourites.",
            **PAGED,
        },
        answers={200: models.ListOf[models.Card]},
    ),
    *(
        Operation(method=method, path=f"/favourites/{plural}/{{id}}", summary=summary, answers={204: None})
        for plural, what in (("projects", "project"), ("datasets", "data set"))
        for method, summary in (
            ("put", f"Make a {what} a favourite"),
            ("delete", f"Take a {what} out of one's favourites"),
        )
    ),
)

SORTS = {
    "recent": mark("Recently changed"),
    "new": mark("Newest"),
    "favourites": mark("Most favourites"),
    "uses": mark("Most forks"),
    "views": mark("Most views"),
    "name": mark("Name"),
}


def routes() -> list[tuple[str, type[APIHandler]]]:
    """Addresses of this module, relative to the portal's prefix."""
    return [
        (r"/api/v1/explore", Explore),
        (r"/api/v1/favourites/projects/([^/]+)", Favourite),
        (r"/api/v1/favourites/datasets/([^/]+)", FavouriteDataset),
    ]
