"""Pages of data sets: the list, a new one, its files, who uses it, what its owner decides; those of a project.

They show; whatever changes something goes by the API that scripts use too, with the page's XSRF value.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

from sqlalchemy import Connection, select

from galilean.errors import UserError, mark
from galilean.rights import slugs_of
from galilean.web import language
from galilean.web.csp import mark_untrusted
from galilean.web.handlers import PageHandler
from services.catalog import counts, lifecycle, links, shares
from services.catalog.access import Access
from services.catalog.cards import Card
from services.catalog.datasets import Dataset
from services.catalog.document import POLICY, document, note
from services.catalog.fields import FIELDS
from services.catalog.lifecycle import BIN_DAYS
from services.catalog.prose import Prose
from services.catalog.search import Scope, Wanted
from services.catalog.starters.spoken import spoken
from services.catalog.tables import cards
from services.portal.addresses import project_path
from services.portal.api import datasets as calls
from services.portal.api.gallery import dataset_path, find, note_view
from services.portal.desks import desk_of
from services.portal.pages.explore import card_values
from services.portal.pages.files import files_frame
from services.portal.pages.project_frame import ProjectPage, said
from services.portal.viewers import viewer_of

SHOWN = 24
USERS_SHOWN = 4
OFFERED = 20
#: What is offered before a word is typed: one's own, what is shared with one, then what is public; recent ones first.
NEAREST_FIRST: tuple[Scope, ...] = ("mine", "shared", "public")
SHELVES = {"mine": mark("Yours"), "shared": mark("Shared with you"), "favourites": mark("Favourites")}
SORTS = {
    "recent": mark("Recently changed"),
    "name": mark("Name"),
    "uses": mark("Most used"),
    "views": mark("Most views"),
}
_WORDS = (
    mark("Added to {name}, there from the next run on"),
    mark("Added. Runs have it from the next one on."),
    mark("Give the data set a name."),
    mark("Saved"),
    mark("Taken out of the project."),
    mark("The image could not be read. Choose another."),
    mark("Use ~/datasets/{alias}"),
    mark("Version {n} is being made."),
)


def words() -> dict[str, str]:
    """The sentences of this room's scripts, in the language of the request."""
    return {english: language.translate(english) for english in _WORDS}


class DatasetList(PageHandler):
    """One's own data sets, those shared with one, and favourites; as cards."""

    async def get(self) -> None:
        def word(name: str, most: int) -> str:
            return self.get_query_argument(name, "").strip()[:most]

        chosen = {
            "q": word("q", 200),
            "show": word("show", 20),
            "sort": word("sort", 20),
            "field": word("field", 64),
        }
        if chosen["show"] not in SHELVES:
            chosen["show"] = "mine"
        if chosen["sort"] not in SORTS:
            chosen["sort"] = "recent"
        shown = await find(
            self.portal,
            self.person,
            Wanted(
                kind="dataset",
                text=chosen["q"],
                field=chosen["field"],
                sort=chosen["sort"],  # type: ignore[arg-type]  # one of those above
            ),
            scope=chosen["show"],  # type: ignore[arg-type]  # one of those above
            limit=SHOWN,
            cursor=self.get_query_argument("cursor", "") or None,
            counted=True,
        )
        place = f"{self.portal.prefix}datasets"

        def address(**changes: Any) -> str:
            values = {**chosen, **changes}
            for name, usual in (("sort", "recent"), ("show", "mine")):
                if values.get(name) == usual:
                    values.pop(name)
            query = urlencode({key: value for key, value in values.items() if value})
            return f"{place}?{query}" if query else place

        before = word("n", 6)
        values = {
            "place": place,
            "address": address,
            "chosen": chosen,
            "shown": shown,
            "before": int(before) if before.isdigit() else 0,
            "most": 1000,
            "sorts": SORTS,
            "shelves": SHELVES,
            "bin_days": BIN_DAYS,
            **card_values(self),
        }
        if self.is_fragment and self.get_query_argument("cursor", ""):
            await self.render_fragment("explore_cards.html", **values)
            return
        await self.render_page("datasets.html", **values)


class NewDataset(PageHandler):
    """A name suffices."""

    async def get(self) -> None:
        await self.render_page(
            "dataset_new.html", may=self.person.has_role, words=words, fields=FIELDS, said=said
        )


class Bin(PageHandler):
    """What one deleted, for 30 days."""

    async def get(self) -> None:
        rows = await self.portal.db.run_read(
            lambda conn: lifecycle.in_bin(conn, "dataset", self.person.name, now=self.portal.clock())
        )
        await self.render_page(
            "datasets_bin.html",
            rows=rows,
            kept_until=lifecycle.kept_until,
            bin_days=BIN_DAYS,
            words=words,
        )


class DatasetPage(PageHandler):
    """Base of the pages of one data set."""

    tab = "files"
    least = Access.READ
    dataset: Dataset

    async def enter(self, owner: str, slug: str) -> dict[str, Any]:
        """The data set, if it is there for the visitor, and what the frame shows.

        Raises
        ------
        UserError
            404, 403.
        """
        self.dataset, self.level = await calls.reach(
            self.portal, self.person, f"{owner}/{slug}", least=self.least
        )
        found = self.dataset
        uses, users = await calls.used_by(self.portal, self.person, found)

        def counted(conn: Connection) -> tuple[int, int, bool]:
            row = conn.execute(
                select(cards.c.views, cards.c.favourites).where(
                    cards.c.kind == "dataset", cards.c.item_id == found.id
                )
            ).first()
            liked = bool(counts.favourites_among(conn, "dataset", [found.id], self.person.name))
            return (row.views if row else 0), (row.favourites if row else 0), liked

        views, favourites, liked = await self.portal.db.run_read(counted)
        path = dataset_path(found.owner, found.slug)
        origin = await self._origin()
        return {
            "origin": origin,
            "origin_url": self.portal.prefix + dataset_path(origin.owner, origin.slug) if origin else "",
            # Who changes the words must see those that are kept.
            "dataset": found if self.tab == "settings" else spoken(found, language.current.get()),
            "address": self.portal.prefix + path,
            "api": f"{self.portal.prefix}api/v1/{path}",
            "tab": self.tab,
            "may_manage": self.level >= Access.OWN,
            "owns": found.owner == self.person.name,
            "uses": uses,
            "users": users,
            "users_shown": USERS_SHOWN,
            "project_path": project_path,
            "views": views,
            "favourites": favourites,
            "liked": liked,
            "words": words,
            "unprotected": self.portal.settings.backend == "process",
            **card_values(self),
        }

    async def _origin(self) -> Dataset | None:
        """What it is a version of, where the visitor may see that."""
        if not self.dataset.version_of:
            return None
        try:
            found, _ = await calls.reach(self.portal, self.person, self.dataset.version_of)
        except UserError:
            return None
        return found


class Files(DatasetPage):
    """The file manager."""

    async def get(self, owner: str, slug: str) -> None:
        frame = await self.enter(owner, slug)
        await note_view(self.portal, self.person, "dataset", self.dataset.id, self.dataset.owner)
        desk = None
        try:
            desk = await desk_of(self.portal, self.person, "dataset", self.dataset.id)
        except UserError as error:  # a volume that is away does not keep anybody from the rest
            if error.status != 503:
                raise
        await self.render_page(
            "dataset.html", **frame, **(files_frame(desk) if desk else {"files": None, "file_words": dict})
        )


class About(DatasetPage):
    """The long description."""

    tab = "about"

    async def get(self, owner: str, slug: str) -> None:
        await self.render_page("dataset_about.html", **await self.enter(owner, slug))


class Description(DatasetPage):
    """The long description as a document of its own: people's text, in a sandbox."""

    async def get(self, owner: str, slug: str) -> None:
        await self.enter(owner, slug)
        text = spoken(self.dataset, self.language).description
        body = Prose("about.md").render(text) if text else note(self.translate(mark("Nothing is said yet.")))
        mark_untrusted(self)
        self.set_header("Content-Security-Policy", POLICY)
        self.set_header("Content-Type", "text/html; charset=utf-8")
        theme = self.get_query_argument("theme", "light")
        self.finish(document(body, title=self.dataset.name, language=self.language, theme=theme))


class UsedBy(DatasetPage):
    """All projects that use it, as far as the visitor may know of them."""

    tab = "used-by"

    async def get(self, owner: str, slug: str) -> None:
        await self.render_page("dataset_used_by.html", **await self.enter(owner, slug))


class Versions(DatasetPage):
    """Its versions: files as they were, for ever."""

    tab = "versions"

    async def get(self, owner: str, slug: str) -> None:
        frame = await self.enter(owner, slug)
        found = await calls.versions_of(self.portal, self.person, self.dataset)
        values = {**frame, "versions": [one for one, _ in found], "dataset_path": dataset_path}
        if self.is_fragment:
            await self.render_fragment("dataset_versions_table.html", **values)
        else:
            await self.render_page("dataset_versions.html", **values)


class Settings(DatasetPage):
    """What its owner decides: texts, mount directory, who reads it; deletion."""

    tab = "settings"
    least = Access.OWN

    async def get(self, owner: str, slug: str) -> None:
        frame = await self.enter(owner, slug)
        given = await self.portal.db.run_read(shares.of, "dataset", self.dataset.id)
        rights = await self.portal.rights.get()
        known = rights.groups if viewer_of(self.person).manages("dataset") else slugs_of(self.person.groups)
        await self.render_page(
            "dataset_settings.html",
            **frame,
            shares=given,
            groups=sorted(known),
            group_titles={slug: group.title for slug, group in rights.groups.items()},
            bin_days=BIN_DAYS,
            manages=viewer_of(self.person).manages("dataset"),
        )


class Publish(DatasetPage):
    """The second step of publishing: what everybody will see, and that it is for ever."""

    least = Access.OWN

    async def get(self, owner: str, slug: str) -> None:
        frame = await self.enter(owner, slug)
        seen, complete = await calls.what_is_seen(self.portal, self.dataset)
        await self.render_fragment("dataset_publish.html", **frame, seen=seen, complete=complete)


class AddDialog(DatasetPage):
    """Into which project, and at which directory."""

    async def get(self, owner: str, slug: str) -> None:
        frame = await self.enter(owner, slug)
        viewer = viewer_of(self.person)

        def taken(conn: Connection) -> set[str]:
            return {one.project_id for one in links.used_by(conn, viewer, self.dataset.id)}

        own = await find(self.portal, self.person, Wanted(kind="project"), scope="mine", limit=100)
        theirs = await find(self.portal, self.person, Wanted(kind="project"), scope="shared", limit=50)
        has = await self.portal.db.run_read(taken)
        given = await self.portal.db.run_read(
            shares.of_many, "project", [card.item_id for card in theirs.cards]
        )
        writable = [
            card
            for card in theirs.cards
            if any(share.access == "write" and share.holds_for(viewer) for share in given[card.item_id])
        ]
        await self.render_fragment(
            "dataset_add.html",
            **frame,
            projects=[card for card in (*own.cards, *writable) if card.item_id not in has],
        )


class OfProject(ProjectPage):
    """The data sets of a project."""

    tab = "datasets"
    least = Access.READ

    async def get(self, owner: str, slug: str) -> None:
        frame = await self.enter(owner, slug)
        items = await calls.linked(self.portal, self.person, self.project)
        values: dict[str, Any] = {
            **frame,
            "links": items,
            "dataset_words": words,
            "may_change": self.level >= Access.WRITE and self.person.has_role,
            "unprotected": self.portal.settings.backend == "process",
        }
        if self.is_fragment:
            await self.render_fragment("project_datasets_table.html", **values)
        else:
            await self.render_page("project_datasets.html", **values)


class FindForProject(ProjectPage):
    """Data sets that could be added to a project: the nearest ones, or what fits while somebody types."""

    least = Access.WRITE

    async def get(self, owner: str, slug: str) -> None:
        frame = await self.enter(owner, slug)
        text = self.get_query_argument("q", "").strip()[:200]
        has = {item.id for item in await calls.linked(self.portal, self.person, self.project)}
        found: dict[str, Card] = {}
        for scope in ("all",) if text else NEAREST_FIRST:
            if len(found) >= OFFERED:
                break
            shown = await find(
                self.portal,
                self.person,
                Wanted(kind="dataset", text=text),
                scope=scope,
                limit=OFFERED + len(has) + len(found),
            )
            found |= {card.item_id: card for card in shown.cards if card.item_id not in {*has, *found}}
        await self.render_fragment(
            "project_datasets_found.html",
            **frame,
            found=list(found.values())[:OFFERED],
            text=text,
        )


def routes() -> list[tuple[str, type[Any]]]:
    """Addresses of this module, relative to the portal's prefix."""
    dataset = r"/datasets/([^/]+)/([^/]+)"
    project = r"/projects/([^/]+)/([^/]+)"
    return [
        (r"/datasets/?", DatasetList),
        (r"/datasets/new", NewDataset),
        (r"/datasets/bin", Bin),
        (dataset, Files),
        (dataset + r"/about", About),
        (dataset + r"/description", Description),
        (dataset + r"/used-by", UsedBy),
        (dataset + r"/versions", Versions),
        (dataset + r"/settings", Settings),
        (dataset + r"/publish", Publish),
        (dataset + r"/add", AddDialog),
        (project + r"/datasets", OfProject),
        (project + r"/datasets/find", FindForProject),
    ]


ROUTES = routes()
