"""One box that finds everything: projects, data sets, environments, disks, object stores, people for who may see them,
pages, and the help.

Each group is few lines, the best first; the words go through the same search as lists. Every group asks what the page
of its things asks, so nothing is offered that its reader may not open: one's own disks, the object stores that one may
copy from, pages of the visitor's own menu. Of the help all is for everybody; a title that fits stands before a text
that does.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from urllib.parse import quote

from sqlalchemy import Connection

from extensions.imagebuilder.store import Wanted as Entries
from galilean.errors import UserError, mark
from galilean.web import language
from galilean.web.context import Portal
from galilean.web.handlers import APIHandler
from galilean.web.visitor import Visitor
from services.catalog import search, words
from services.catalog.access import Kind
from services.catalog.search import Wanted
from services.catalog.starters.spoken import spoken
from services.people import store as people_store
from services.portal import disks, object_stores
from services.portal.admin import entries_for
from services.portal.api import environments, models
from services.portal.api.base import Handler
from services.portal.api.gallery import item_path
from services.portal.api.operation import Operation
from services.portal.library import PART_WORDS, Library, library
from services.portal.viewers import viewer_of

EACH = 5
#: Disks of one person that are looked through.
OWN_MOST = 500
#: Names of accounts are asked of the hub so often at most.
NAMES_SECONDS = 30.0

#: Pages that everybody has, besides those of the administration.
PAGES: tuple[tuple[str, str, str], ...] = (
    (mark("Home"), "", "house"),
    (mark("Projects"), "projects", "folder"),
    (mark("New project"), "projects/new", "plus-lg"),
    (mark("Bin"), "projects/bin", "trash"),
    (mark("Explore"), "explore", "compass"),
    (mark("Data sets"), "datasets", "database"),
    (mark("Environments"), "environments", "box"),
    (mark("Machine time"), "machine-time", "activity"),
    (mark("Schedules"), "schedules", "clock"),
    (mark("Account and tokens"), "account", "person"),
    (mark("Help"), "help", "question-circle"),
)

GROUPS = {
    "projects": mark("Projects"),
    "datasets": mark("Data sets"),
    "environments": mark("Environments"),
    "disks": mark("Disks"),
    "object-stores": mark("Object stores"),
    "people": mark("People"),
    "pages": mark("Pages"),
    "help": mark("Help"),
}


@dataclass(frozen=True, kw_only=True)
class Found:
    """One line: what it is, where it is."""

    group: str
    title: str
    detail: str
    url: str
    icon: str


def _fits(text: str, *values: str) -> bool:
    wanted = words.terms(text)
    folded = words.fold("\n".join(values))
    return bool(wanted) and words.holds(folded, wanted)


async def find_all(portal: Portal, person: Visitor, text: str, *, each: int = EACH) -> list[Found]:
    """What is found for some words, group by group; nothing for no words."""
    text = text[:200].strip()
    if not words.terms(text):
        return []
    viewer, prefix, spoken_in = viewer_of(person), portal.prefix, language.current.get()
    may_people = person.may("people:manage")

    def look(conn: Connection) -> list[Found]:
        found: list[Found] = []
        kinds: tuple[tuple[Kind, str, str], ...] = (
            ("project", "projects", "folder"),
            ("dataset", "datasets", "database"),
        )
        for kind, group, icon in kinds:
            page = search.search(conn, viewer, Wanted(kind=kind, text=text), scope="all", limit=each)
            found += [
                Found(
                    group=group,
                    title=spoken(card, spoken_in).name,
                    detail=f"{card.owner}/{card.slug}",
                    url=prefix + item_path(kind, card.owner, card.slug),
                    icon=icon,
                )
                for card in page.items
            ]
        return found

    found = await portal.db.run_read(look)
    found += await _environments(portal, person, text, each)
    found += await _disks(portal, person, text, each)
    found += await _object_stores(portal, person, text, each)
    if may_people:
        found += await _people(portal, text, each)
    found += _pages(portal, person, text, each)
    found += await _help(portal, text, each)
    return found


async def _environments(portal: Portal, person: Visitor, text: str, most: int) -> list[Found]:
    page = await environments.find(portal, person, Entries(text=text), limit=most)
    return [
        Found(
            group="environments",
            title=item.title,
            detail=item.name,
            url=f"{portal.prefix}environments/{item.id}",
            icon="box",
        )
        for item in page.items[:most]
    ]


async def _disks(portal: Portal, person: Visitor, text: str, most: int) -> list[Found]:
    mine, _ = await disks.list_for(portal, person, limit=OWN_MOST)
    fitting = (disk for disk in mine if _fits(text, disk.name))
    return [
        Found(
            group="disks",
            title=disk.name,
            detail=f"{disk.size_gib} GiB",
            url=f"{portal.prefix}disks?q={quote(disk.name, safe='')}",
            icon="hdd",
        )
        for disk in islice(fitting, most)
    ]


async def _object_stores(portal: Portal, person: Visitor, text: str, most: int) -> list[Found]:
    if not portal.settings.object_stores.enabled:
        return []
    theirs = await object_stores.stores(portal, person)
    fitting = (store for store in theirs if _fits(text, store.name, store.place.bucket))
    return [
        Found(
            group="object-stores",
            title=store.name,
            detail=store.place.bucket,
            url=f"{portal.prefix}object-stores",
            icon="box",
        )
        for store in islice(fitting, most)
    ]


async def _help(portal: Portal, text: str, most: int) -> list[Found]:
    # The whole documentation is folded once for a language, which takes a moment.
    shelf = await asyncio.to_thread(_folded_help, library(), language.current.get())
    return [
        Found(
            group="help",
            title=page.title,
            detail=language.translate(PART_WORDS[page.name.partition("/")[0]]),
            url=f"{portal.prefix}help/{page.name}",
            icon="question-circle",
        )
        for page in islice(_helpful(shelf, words.terms(text)), most)
    ]


@dataclass(frozen=True, kw_only=True)
class HelpText:
    """A page of the help, to be searched."""

    name: str
    title: str
    folded_title: str
    folded: str


@lru_cache(maxsize=8)
def _folded_help(shelf: Library, spoken_in: str) -> tuple[HelpText, ...]:
    found: list[HelpText] = []
    for name in shelf.names():
        title, source = shelf.title(name, spoken_in), shelf.source(name, spoken_in)
        if source is not None:
            found.append(
                HelpText(name=name, title=title, folded_title=words.fold(title), folded=words.fold(source[0]))
            )
    return tuple(found)


def _helpful(shelf: tuple[HelpText, ...], wanted: list[words.Term]) -> Iterator[HelpText]:
    """Pages that say it in their title, then those that say it elsewhere."""
    yield from (page for page in shelf if words.holds(page.folded_title, wanted))
    for page in shelf:
        if words.holds(page.folded, wanted) and not words.holds(page.folded_title, wanted):
            yield page


async def _people(portal: Portal, text: str, most: int) -> list[Found]:
    now, wanted = time.monotonic(), words.terms(text)
    kept: tuple[float, list[tuple[str, str, str]]] | None = portal.parts.get("names_of_people")
    if kept is None or now - kept[0] > NAMES_SECONDS:
        titles = await portal.db.run_read(_titles)
        try:
            names = sorted(str(model["name"]) for model in await portal.hub.users())
        except UserError:  # the hub is away: those that our own tables know
            names = sorted(titles)
        # Folded here: each key that somebody presses asks all of them.
        known = [
            (name, titles.get(name, ""), words.fold(f"{name}\n{titles.get(name, '')}")) for name in names
        ]
        kept = portal.parts["names_of_people"] = now, known
    fitting = (one for one in kept[1] if words.holds(one[2], wanted))
    return [
        Found(
            group="people",
            title=title or name,
            detail=name,
            url=f"{portal.prefix}admin/people?q={quote(name, safe='')}",
            icon="person",
        )
        for name, title, _ in islice(fitting, most)
    ]


def _titles(conn: Connection) -> dict[str, str]:
    return {name: row.full_name for name, row in people_store.everybody(conn).items()}


def _pages(portal: Portal, person: Visitor, text: str, most: int) -> list[Found]:
    offered = [(label, place, icon, "") for label, place, icon in PAGES]
    if disks.offered(portal):
        offered.append((GROUPS["disks"], "disks", "hdd", ""))
    if portal.settings.object_stores.enabled:
        offered.append((GROUPS["object-stores"], "object-stores", "box", ""))
    offered += [
        (entry.label, entry.place, entry.icon, mark("Administration")) for entry in entries_for(person.rights)
    ]
    found: list[Found] = []
    for label, place, icon, section in offered:
        said = language.translate(label)
        if _fits(text, said, label):
            detail = language.translate(section) if section else ""
            found.append(
                Found(group="pages", title=said, detail=detail, url=portal.prefix + place, icon=icon)
            )
    return found[:most]


class Search(Handler):
    async def get(self) -> None:
        found = await find_all(
            self.portal, self.person, self.query("q"), each=self.limit(default=10, most=50)
        )
        self.write_json(
            models.FoundAll(
                items=[
                    models.Found(group=one.group, title=one.title, detail=one.detail, url=one.url)  # type: ignore[arg-type]
                    for one in found
                ]
            )
        )


OPERATIONS = (
    Operation(
        method="get",
        path="/search",
        summary="Find projects, data sets, environments, disks, object stores, people (with the right), pages and help",
        query={"q": "Words in any language.", "limit": "At most this many of each, 1 to 50."},
        answers={200: models.FoundAll},
    ),
)


def routes() -> list[tuple[str, type[APIHandler]]]:
    """Addresses of this module, relative to the portal's prefix."""
    return [(r"/api/v1/search", Search)]
