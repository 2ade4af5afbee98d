"""Environments: the catalogue as cards, one entry with its documentation, versions and use, a new one, its settings.

They show; whatever changes something goes by the API that scripts use too. Where nodes are processes there are no
images: then the page shows the entries of the file and says so.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

from sqlalchemy import Connection

from extensions.imagebuilder import entries, saved, store
from extensions.imagebuilder.looks import is_stock
from extensions.imagebuilder.store import Holder, Wanted
from galilean.errors import mark
from galilean.rights import slugs_of
from galilean.settings import EnvironmentSettings
from galilean.web.csp import mark_untrusted
from galilean.web.handlers import PageHandler
from services.catalog import search
from services.catalog.document import POLICY, document, note
from services.catalog.fields import FIELDS as DRAWN_FIELDS
from services.catalog.prose import Prose
from services.portal import adapting, drawn, image_places, image_uploads, shelf, workbenches
from services.portal.addresses import project_path
from services.portal.api import environments as calls
from services.portal.api import registries
from services.portal.api.environments import Item
from services.portal.licence_words import licence_words
from services.portal.pages.project_frame import said
from services.portal.viewers import viewer_of

SHOWN = 24
USERS_SHOWN = 8
SCOPES = {
    "all": mark("All"),
    "centre": mark("Of the centre"),
    "own": mark("Yours"),
    "shared": mark("Shared with you"),
    "retired": mark("Retired"),
}
INTERFACES = {"jupyter": mark("JupyterLab"), "desktop": mark("Desktop")}


def words(translate: Any) -> dict[str, str]:
    """What the page's script says."""
    texts = {
        "Saved": mark("Saved"),
        "Looking …": mark("Looking …"),
        "The image could not be read. Choose another.": mark("The image could not be read. Choose another."),
        "{size} in {layers} layers, for {platform}": mark("{size} in {layers} layers, for {platform}"),
        "Give a licence server as HOST PORT, one in a line.": mark(
            "Give a licence server as HOST PORT, one in a line."
        ),
        "Give a name and a value as NAME=value, one in a line.": mark(
            "Give a name and a value as NAME=value, one in a line."
        ),
    }
    return {key: translate(text) for key, text in texts.items()}


class EnvironmentPage(PageHandler):
    """What all of them show."""

    def values(self) -> dict[str, Any]:
        settings, viewer = self.portal.settings, shelf.viewer(self.person)
        return {
            "fields": entries.fields_of(settings),
            "interfaces": INTERFACES,
            "images": settings.backend != "process",
            "may_make": entries.may_make(viewer, settings, centre=False),
            "may_make_centre": entries.may_make(viewer, settings, centre=True),
            "may_keep_centre": entries.may_keep(viewer, settings, centre=True),
            "manages": viewer.manages,
            "can_upload": image_uploads.may_upload(self.portal, self.person),
            "said": said,
            "drawn_name": lambda field, key: drawn.name_of(field if field in DRAWN_FIELDS else "", key),
            "words": lambda: words(self.translate),
            "start": EnvironmentSettings(title="–"),
            "benches": workbenches.offered(self.portal),
            "allow_sudo": settings.allow_sudo and settings.backend == "docker",
            "allow_containers": settings.allow_containers and settings.backend != "process",
            "backend": settings.backend,
            "licences_said": self.translate(licence_words(settings.backend)),
        }


class List(EnvironmentPage):
    """The catalogue; for htmx further cards alone."""

    async def get(self) -> None:
        def word(name: str, most: int) -> str:
            return self.get_query_argument(name, "").strip()[:most]

        values = self.values()
        chosen = {
            "q": word("q", 200),
            "field": word("field", 64),
            "interface": word("interface", 20),
            "gpu": word("gpu", 3),
            "scope": word("scope", 10),
        }
        known: Mapping[str, Any] = {"field": values["fields"], "interface": INTERFACES, "gpu": ("yes", "no")}
        chosen |= {key: "" for key, those in known.items() if chosen[key] not in those}
        if chosen["scope"] not in SCOPES:
            chosen["scope"] = "all"
        found = await calls.find(
            self.portal,
            self.person,
            Wanted(
                text=chosen["q"],
                field=chosen["field"],
                interface=chosen["interface"],
                gpu=None if not chosen["gpu"] else chosen["gpu"] == "yes",
                scope=chosen["scope"],
            ),
            limit=SHOWN,
            cursor=self.get_query_argument("cursor", "") or None,
        )
        place = f"{self.portal.prefix}environments"

        def address(**changes: Any) -> str:
            asked = {**chosen, **changes}
            if asked["scope"] == "all":
                asked.pop("scope")
            query = urlencode({key: value for key, value in asked.items() if value})
            return f"{place}?{query}" if query else place

        values |= {"found": found, "place": place, "address": address, "chosen": chosen, "scopes": SCOPES}
        if self.is_fragment and self.get_query_argument("cursor", ""):
            await self.render_fragment("environments_cards.html", **values)
            return
        await self.render_page("environments.html", **values)


class OnePage(EnvironmentPage):
    """Base of the pages of one environment."""

    async def enter(self, key: str, *, change: bool = False) -> dict[str, Any]:
        """The environment, if it is there for the visitor, and what every page of it shows."""
        self.item = await calls.reach(self.portal, self.person, key, change=change)
        detail = await calls.detail(self.portal, self.person, self.item, self.translate)
        return {
            **self.values(),
            "item": self.item,
            "detail": detail,
            "address": f"{self.portal.prefix}environments/{self.item.id}",
            "api": f"{self.portal.prefix}api/v1/environments/{self.item.id}",
        }


class Environment(OnePage):
    """Documentation, how it starts, versions, who uses it."""

    async def get(self, key: str) -> None:
        frame = await self.enter(key)
        item, viewer = self.item, viewer_of(self.person)
        holders = await self.holders(item)

        def projects(conn: Any) -> Any:
            return search.search(
                conn,
                viewer,
                search.Wanted(kind="project", environment=item.name),
                scope="all",
                limit=USERS_SHOWN,
            )

        page = await self.portal.db.run_read(projects)
        current = item.entry.version.digest if item.entry else ""
        places: list[Any] = []
        if item.entry and self.person.may("machines:manage") and image_places.known(self.portal):
            places = await image_places.carried(self.portal, image=item.entry.version.image)
        bench = await workbenches.of_environment(self.portal, self.person, item.name)
        await self.render_page(
            "environment.html",
            **frame,
            bench=bench,
            projects=page.items,
            more_projects=page.next is not None,
            holders=holders,
            behind=[one for one in holders if current and one.digest != current],
            tags={one.digest: one.tag for one in frame["detail"].versions},
            project_path=project_path,
            places=places,
            place_titles=image_places.TITLES,
            **await self._lacking(item, may=frame["detail"].may_change),
        )

    async def _lacking(self, item: Item, *, may: bool) -> dict[str, Any]:
        """What its page says of an image that was not made for nodes."""
        entry = item.entry
        if entry is None or not may or not is_stock(entry.version.told):
            return {"stock": False}
        why = adapting.refusal(entry.version) if adapting.offered(self.portal) else None
        return {
            "stock": True,
            "can_adapt": adapting.offered(self.portal) and why is None,
            "why_not": why.text(self.translate) if why else "",
            "adapting": await adapting.going(self.portal, entry),
            "proposed": adapting.proposed(entry, entry.version),
            "name_space": entries.full_name(self.person.name, "").rstrip("/"),
        }

    async def post(self, key: str) -> None:
        """Adapt the version that new runs get."""
        await self.enter(key, change=True)
        entry = self.item.entry
        assert entry is not None
        image = await adapting.begin(
            self.portal,
            self.person,
            entry,
            entry.version.number,
            self.get_body_argument("name", ""),
            address=self.address,
        )
        self.set_header("HX-Redirect", f"{self.portal.prefix}images/{image.id}")
        self.finish("")

    async def holders(self, item: Item) -> list[Holder]:
        """Open clusters: everybody's for whoever may change it or see them all, else one's own."""
        found = await self.portal.db.run_read(store.holders, item.name)
        everybody = self.person.may("clusters:read-all") or (
            item.entry is not None and entries.may_change(shelf.viewer(self.person), item.entry)
        )
        return [one for one in found if everybody or one.user == self.person.name]


class Documentation(OnePage):
    """The long documentation as a document of its own: people's text, in a sandbox."""

    async def get(self, key: str) -> None:
        await self.enter(key)
        text = self.item.entry.documentation if self.item.entry else ""
        body = Prose("about.md").render(text) if text else note(self.translate(mark("Nothing is said yet.")))
        mark_untrusted(self)
        self.set_header("Content-Security-Policy", POLICY)
        self.set_header("Content-Type", "text/html; charset=utf-8")
        theme = self.get_query_argument("theme", "light")
        self.finish(document(body, title=self.item.title, language=self.language, theme=theme))


class New(EnvironmentPage):
    """From the image at an address."""

    async def get(self) -> None:
        await self.render_page(
            "environment_new.html",
            **self.values(),
            keys=await registries.keys_of(self.portal, self.person),
            name_space="" if not self.person.name else entries.full_name(self.person.name, "").rstrip("/"),
        )


class Edit(OnePage):
    """What is said of it, how it starts, who finds it; new versions; retire and delete."""

    async def get(self, key: str) -> None:
        frame = await self.enter(key, change=True)
        rights = await self.portal.rights.get()
        shared = await self.portal.db.run_read(store.grantees, self.item.id)
        known = rights.groups if frame["manages"] else slugs_of(self.person.groups)
        await self.render_page(
            "environment_edit.html",
            **{**frame, "start": self.item.settings},
            shares=shared,
            groups=sorted(known),
            group_titles={slug: group.title for slug, group in rights.groups.items()},
            keys=await registries.keys_of(self.portal, self.person),
            # What the form has no field for: of what only administrators give, they have one.
            keep=self.item.settings.model_dump(
                mode="json",
                include={"applications", *(() if frame["manages"] else entries.GIVEN)},
                exclude_defaults=True,
            ),
        )


class Keys(EnvironmentPage):
    """Names and passwords of registries: kept, never shown."""

    async def get(self) -> None:
        await self.render_page(
            "environment_keys.html",
            **self.values(),
            keys=await registries.keys_of(self.portal, self.person),
        )


class Add(EnvironmentPage):
    """The second step of *Add to library*: a saved image of one's own, and who shall find it."""

    async def get(self) -> None:
        viewer = shelf.viewer(self.person)
        entries.need_keep(viewer, self.portal.settings, centre=False)

        def look(conn: Connection) -> Any:
            image = saved.get(conn, self.person.name, self.get_query_argument("saved", "")[:26])
            there = store.by_name(
                conn, entries.full_name(self.person.name, entries.slug_of(image.name) or "x")
            )
            return image, there, store.grantees(conn, there.id) if there else []

        image, there, shared = await self.portal.db.run_read(look)
        await self.render_fragment(
            "environment_add.html",
            **self.values(),
            image=image,
            there=there,
            people=[one.name for one in shared if one.kind == "person"],
            shared_groups=[one.name for one in shared if one.kind == "group"],
            groups=sorted(slugs_of(self.person.groups)),
        )


def routes() -> list[tuple[str, type[Any]]]:
    """Addresses of this module, relative to the portal's prefix."""
    one = r"/environments/([^/]+)"
    return [
        (r"/environments/?", List),
        (r"/environments/new", New),
        (r"/environments/keys", Keys),
        (r"/environments/add", Add),
        (one, Environment),
        (one + r"/documentation", Documentation),
        (one + r"/edit", Edit),
    ]


ROUTES = routes()
