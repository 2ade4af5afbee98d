"""Environments: found, looked at, made from an address, changed, given new versions, retired, deleted (CG-17, CG-38).

Those of ``galilean.yaml`` are shown beside the others and cannot be changed here: their id is their name. Who may
do what :mod:`extensions.imagebuilder.entries` decides. What is asked of registries is in
:mod:`services.portal.registries`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection

from extensions.imagebuilder import entries, store
from extensions.imagebuilder.entries import Entry, Grantee
from extensions.imagebuilder.names import is_python
from extensions.imagebuilder.store import Use, Wanted
from galilean.errors import UserError, mark, render
from galilean.settings import EnvironmentSettings
from galilean.web.context import Portal
from galilean.web.handlers import APIHandler
from galilean.web.paging import Cursor
from galilean.web.visitor import Visitor
from services.catalog import covers
from services.portal import shelf
from services.portal.api import either
from services.portal.api import environment_models as models
from services.portal.api.base import Handler
from services.portal.api.models import ListOf
from services.portal.api.operation import PAGED, Operation

ONE = "/environments/{id}"
INTERFACES = ("jupyter", "desktop")


@dataclass(frozen=True, kw_only=True)
class Item:
    """An environment of either kind, as lists and cards show it; ``entry`` is None for one of the file."""

    name: str
    settings: EnvironmentSettings
    entry: Entry | None = None
    default: bool = False
    use: Use = dataclasses.field(default_factory=Use)

    @property
    def id(self) -> str:
        return self.entry.id if self.entry else self.name

    @property
    def title(self) -> str:
        return self.settings.title or self.name

    @property
    def description(self) -> str:
        return self.settings.description

    @property
    def gpu(self) -> bool:
        return self.settings.gpu or self.settings.needs_gpu

    @property
    def field(self) -> str:
        return self.entry.field if self.entry else ""

    @property
    def owner(self) -> str:
        return self.entry.owner if self.entry else ""

    @property
    def visibility(self) -> str:
        return self.entry.visibility if self.entry else "public"

    @property
    def cover(self) -> str:
        return self.entry.logo if self.entry else ""

    @property
    def retired_at(self) -> datetime | None:
        return self.entry.retired_at if self.entry else None


@dataclass(frozen=True, kw_only=True)
class Found:
    """A page of the catalogue."""

    items: list[Item]
    next: str | None


async def find(
    portal: Portal, person: Visitor, wanted: Wanted, *, limit: int = 50, cursor: str | None = None
) -> Found:
    """A page of what somebody finds: entries of the file stand before the first page.

    Raises
    ------
    UserError
        400 for a cursor that is none.
    """
    after: tuple[str, str] | None = None
    if cursor:
        after = tuple(str(part) for part in Cursor.decode(cursor, 2))  # type: ignore[assignment]
    of_file = [] if after else _of_file(portal, wanted)

    def look(conn: Connection) -> tuple[list[Entry], dict[str, Use]]:
        found = store.list_entries(
            conn,
            shelf.viewer(person),
            wanted,
            limit=limit,
            after=after,
            python=shelf.has_pythons(portal),
        )
        return found, store.uses(conn, [*of_file, *(one.name for one in found)])

    rows, uses = await portal.db.run_read(look)
    following = None
    if len(rows) > limit:
        rows = rows[:limit]
        following = Cursor.encode(entries.fold(rows[-1].title)[: entries.TITLE_MOST], rows[-1].id)
    items = [_file_item(portal, name, uses[name]) for name in of_file]
    items += [Item(name=one.name, settings=one.settings, entry=one, use=uses[one.name]) for one in rows]
    return Found(items=items, next=following)


def _file_item(portal: Portal, name: str, use: Use) -> Item:
    settings = portal.settings
    return Item(
        name=name,
        settings=settings.environments[name],
        default=name == settings.defaults.environment,
        use=use,
    )


def _of_file(portal: Portal, wanted: Wanted) -> list[str]:
    """Names of the entries of the file that fit, the site's default first."""
    if wanted.scope not in ("all", "centre", "everything") or wanted.field or wanted.added_by:
        return []
    terms = entries.fold(wanted.text).split()
    found = []
    for name, entry in portal.settings.environments.items():
        text = entries.search_text(name, entry.title, entry.description)
        if (
            all(term in text for term in terms)
            and (not wanted.interface or wanted.interface in entry.interfaces)
            and (wanted.gpu is None or wanted.gpu == (entry.gpu or entry.needs_gpu))
        ):
            found.append(name)
    return sorted(found, key=lambda name: name != portal.settings.defaults.environment)


async def reach(portal: Portal, person: Visitor, key: str, *, change: bool = False) -> Item:
    """An environment by its id or name, if it is there for somebody.

    Raises
    ------
    UserError
        404; 403 when it shall be changed by whoever may not, or stands in the file.
    """
    if key in portal.settings.environments:
        if change:
            raise UserError(
                403,
                mark("This environment stands in galilean.yaml and is changed there."),
                reason="from-file",
            )
        uses = await portal.db.run_read(store.uses, [key])
        return _file_item(portal, key, uses[key])

    def look(conn: Connection) -> tuple[Entry, Use]:
        found = store.reach(conn, shelf.viewer(person), key, change=change)
        if is_python(found.version.image) != shelf.has_pythons(portal):
            raise entries.no_such_entry()
        return found, store.uses(conn, [found.name])[found.name]

    entry, use = await portal.db.run_read(look)
    return Item(name=entry.name, settings=entry.settings, entry=entry, use=use)


async def reach_entry(portal: Portal, person: Visitor, key: str) -> Entry:
    """An entry that somebody may change.

    Raises
    ------
    UserError
        404, 403.
    """
    found = (await reach(portal, person, key, change=True)).entry
    assert found is not None
    return found


async def grantees_of(portal: Portal, wanted: Iterable[models.Grantee]) -> list[Grantee]:
    """Whom a request names: people and groups that exist, for a name that nobody has might be somebody's tomorrow.

    Raises
    ------
    UserError
        404.
    """
    found: list[Grantee] = []
    known = (await portal.rights.get()).groups
    for one in wanted:
        if one.group:
            if one.group not in known:
                raise UserError(404, mark("There is no group “{name}” here."), name=one.group[:60])
            found.append(Grantee("group", one.group))
            continue
        try:
            await portal.hub.user(one.person)
        except UserError as error:
            if error.status != 404:
                raise
            raise UserError(404, mark("There is no account “{name}” here."), name=one.person[:60]) from error
        found.append(Grantee("person", one.person))
    return found


async def change(
    portal: Portal, person: Visitor, entry: Entry, body: models.EnvironmentChange, *, address: str = ""
) -> Entry:
    """Change what is sent."""
    viewer, settings = shelf.viewer(person), portal.settings
    texts: dict[str, str] = {
        key: value
        for key in ("title", "description", "documentation", "field")
        if (value := getattr(body, key)) is not None
    }
    if "field" in texts:
        entries.check_field(texts["field"], settings)
    start = (
        None if body.start is None else entries.check_start(body.start, settings, viewer, before=entry.start)
    )
    shared = None if body.shared_with is None else await grantees_of(portal, body.shared_with)
    after = await portal.db.run(
        store.edit,
        entry.id,
        actor=shelf.actor(person, address),
        now=portal.clock(),
        start=start,
        visibility=body.visibility,
        shared_with=shared,
        **texts,  # type: ignore[arg-type]  # words
    )
    shelf.forget(portal)
    return after


async def set_logo(portal: Portal, person: Visitor, entry: Entry, name: str, *, address: str = "") -> Entry:
    """Show another picture; empty = one that is drawn."""
    return await portal.db.run(
        store.edit, entry.id, actor=shelf.actor(person, address), now=portal.clock(), logo=name
    )


async def retire(portal: Portal, person: Visitor, entry: Entry, retired: bool, *, address: str = "") -> Entry:
    """Take no new runs, or take them again."""
    return await portal.db.run(
        store.retire, entry.id, retired, actor=shelf.actor(person, address), now=portal.clock()
    )


async def delete(portal: Portal, person: Visitor, entry: Entry, *, address: str = "") -> None:
    """Delete it: its row stays for machine time.

    Raises
    ------
    UserError
        409 while clusters of it are held.
    """
    await portal.db.run(store.remove, entry.id, actor=shelf.actor(person, address), now=portal.clock())
    shelf.forget(portal)


async def use_version(
    portal: Portal, person: Visitor, entry: Entry, number: int, *, address: str = ""
) -> Entry:
    """Let new runs get another version."""
    return await portal.db.run(
        store.use_version, entry.id, number, actor=shelf.actor(person, address), now=portal.clock()
    )


# ---------------------------------------------------------------------------------------------------------- models


def model(item: Item) -> models.Environment:
    """An environment as lists show it."""
    return models.Environment(**_values(item))


def _values(item: Item) -> dict[str, Any]:
    version = item.entry.version if item.entry else None
    return {
        "id": item.id,
        "name": item.name,
        "title": item.title,
        "description": item.description,
        "gpu": item.gpu,
        "default": item.default,
        "from_file": item.entry is None,
        "owner": item.owner,
        "field": item.field,
        "interfaces": list(item.settings.interfaces),
        "visibility": item.visibility,
        "version": version.tag if version else "",
        "digest": version.digest if version else "",
        "retired": item.retired_at is not None,
        "open_clusters": item.use.open,
        "last_use": item.use.last,
    }


async def detail(portal: Portal, person: Visitor, item: Item, translate: Any) -> models.EnvironmentDetail:
    """An environment with its versions. Variables' values and VNC's password are told to whoever may change it."""
    entry = item.entry
    may = entry is not None and entries.may_change(shelf.viewer(person), entry)
    start = item.settings.model_dump(mode="json", include=set(entries.START), exclude_defaults=True)
    if not may:
        start = entries.without_passwords(start)
        if "variables" in start:
            start["variables"] = dict.fromkeys(start["variables"], "")
    found: list[entries.Version] = []
    shared: list[Grantee] = []
    if entry is not None:
        found, shared = await portal.db.run_read(
            lambda conn: (store.versions(conn, entry.id), store.grantees(conn, entry.id))
        )
    return models.EnvironmentDetail(
        **_values(item),
        documentation=entry.documentation if entry else "",
        start=start,
        versions=[
            models.Version(
                number=one.number,
                tag=one.tag,
                image=one.image,
                digest=one.digest,
                source=one.source,
                size_bytes=one.size_bytes,
                layers=one.layers,
                platform=one.platform,
                told=[told(finding, translate) for finding in one.told],
                note=one.note,
                added_at=one.added_at,
                added_by=one.added_by,
                current=entry is not None and one.number == entry.version.number,
            )
            for one in found
        ],
        shared_with=[f"{one.kind}:{one.name}" for one in shared] if may else [],
        may_change=may,
    )


def told(finding: Any, translate: Any) -> str:
    """What was found at an image, as a sentence."""
    return render(str(finding.get("message", "")), dict(finding.get("params") or {}), translate)


# -------------------------------------------------------------------------------------------------------- handlers


def wanted_of(handler: Any) -> Wanted:
    """What an address asks for.

    Raises
    ------
    UserError
        400 for a word that is none.
    """
    interface, gpu, scope = handler.query("interface"), handler.query("gpu"), handler.query("scope") or "all"
    if interface and interface not in INTERFACES:
        raise UserError(
            400, mark("“{name}” is one of: {known}."), name="interface", known=", ".join(INTERFACES)
        )
    if gpu not in ("", "yes", "no"):
        raise UserError(400, mark("“{name}” is one of: {known}."), name="gpu", known="yes, no")
    if scope not in store.SCOPES:
        raise UserError(
            400, mark("“{name}” is one of: {known}."), name="scope", known=", ".join(store.SCOPES)
        )
    return Wanted(
        text=handler.query("q")[:200],
        field=handler.query("field")[:64],
        interface=interface,
        gpu=None if not gpu else gpu == "yes",
        scope=scope,
        added_by=handler.query("added_by")[:255],
    )


class Environments(Handler):
    async def get(self) -> None:
        found = await find(
            self.portal,
            self.person,
            wanted_of(self),
            limit=self.limit(),
            cursor=self.query("cursor") or None,
        )
        self.write_json(
            ListOf[models.Environment](items=[model(item) for item in found.items], next=found.next)
        )


class OneHandler(Handler):
    """Answers with an environment."""

    async def answer(self, item: Item, status: int = 200) -> None:
        self.write_json(await detail(self.portal, self.person, item, self.translate), status)


class Environment(OneHandler):
    async def get(self, key: str) -> None:
        await self.answer(await reach(self.portal, self.person, key))

    async def patch(self, key: str) -> None:
        body = self.body(models.EnvironmentChange)
        entry = await reach_entry(self.portal, self.person, key)
        await change(self.portal, self.person, entry, body, address=self.address)
        await self.answer(await reach(self.portal, self.person, entry.id))

    async def delete(self, key: str) -> None:
        entry = await reach_entry(self.portal, self.person, key)
        await delete(self.portal, self.person, entry, address=self.address)
        self.set_status(204)


class Retired(OneHandler):
    async def put(self, key: str) -> None:
        await self._set(key, True)

    async def delete(self, key: str) -> None:
        await self._set(key, False)

    async def _set(self, key: str, retired: bool) -> None:
        entry = await reach_entry(self.portal, self.person, key)
        await retire(self.portal, self.person, entry, retired, address=self.address)
        await self.answer(await reach(self.portal, self.person, entry.id))


class Logo(OneHandler):
    """The picture of a card."""

    async def put(self, key: str) -> None:
        entry = await reach_entry(self.portal, self.person, key)
        kind = self.request.headers.get("Content-Type", "").partition(";")[0].strip().lower()
        picture = await either.read_image(self.portal, self.request.body, kind)
        name = await self.portal.db.run(covers.keep, picture, now=self.portal.clock())
        await set_logo(self.portal, self.person, entry, name, address=self.address)
        self.write_json(models.Logo(cover=f"{self.portal.prefix}covers/{name}"))

    async def delete(self, key: str) -> None:
        entry = await reach_entry(self.portal, self.person, key)
        await set_logo(self.portal, self.person, entry, "", address=self.address)
        self.set_status(204)


class CurrentVersion(OneHandler):
    async def put(self, key: str, number: str) -> None:
        entry = await reach_entry(self.portal, self.person, key)
        await use_version(self.portal, self.person, entry, int(number), address=self.address)
        await self.answer(await reach(self.portal, self.person, entry.id))


_DETAIL: dict[int, Any] = {200: models.EnvironmentDetail}

OPERATIONS: tuple[Operation, ...] = (
    Operation(
        method="get",
        path="/environments",
        summary="List the environments that one may find: those of the file first",
        query={
            "q": "Words that must all stand in name, title or description.",
            "field": "Short name of a field.",
            "interface": "jupyter or desktop.",
            "gpu": "yes or no: made for GPUs.",
            "scope": "all, own, centre, shared, retired or everything (all and those retired).",
            "added_by": "Who brought the image that new runs get.",
            **PAGED,
        },
        answers={200: ListOf[models.Environment]},
    ),
    Operation(method="get", path=ONE, summary="Look at an environment", answers=_DETAIL),
    Operation(
        method="patch",
        path=ONE,
        summary="Change what is said of an environment, how it starts, who finds it",
        takes=models.EnvironmentChange,
        answers=_DETAIL,
    ),
    Operation(
        method="delete",
        path=ONE,
        summary="Delete an environment of which no cluster is held",
        answers={204: None},
    ),
    Operation(
        method="put",
        path=ONE + "/retired",
        summary="Retire an environment: it takes no new runs, those that are there stay",
        answers=_DETAIL,
    ),
    Operation(method="delete", path=ONE + "/retired", summary="Let it take new runs again", answers=_DETAIL),
    Operation(
        method="put",
        path=ONE + "/logo",
        summary="Give an environment a picture: a PNG or JPEG of 280 × 157 pixels, or twice that",
        raw_body=True,
        answers={200: models.Logo},
    ),
    Operation(
        method="delete", path=ONE + "/logo", summary="Take an environment's picture away", answers={204: None}
    ),
    Operation(
        method="put",
        path=ONE + "/versions/{number}/current",
        summary="Let new runs get this version",
        answers=_DETAIL,
    ),
)


def routes() -> list[tuple[str, type[APIHandler]]]:
    """Addresses of this module, relative to the portal's prefix; that of the list is in ``registries``."""
    one = r"/api/v1/environments/([^/]+)"
    return [
        (one, Environment),
        (one + r"/retired", Retired),
        (one + r"/logo", Logo),
        (one + r"/versions/([0-9]{1,5})/current", CurrentVersion),
    ]
