"""Build an image: from a project's files, or anew from what was recorded of a saved image; the same words as a save."""

from __future__ import annotations

from typing import Any

from tornado.web import RequestHandler

from extensions.imagebuilder import saved
from extensions.imagebuilder.building import STEPS as STEPS
from galilean.errors import UserError, mark
from galilean.web.handlers import PageHandler
from services.portal import building, saving
from services.portal.addresses import project_path
from services.portal.building import Found

TITLES = {
    "building": mark("Built step by step"),
    "looking": mark("Looked through for tokens and keys"),
    "pushing": mark("Written to the registry"),
    "placing": mark("Ready on this machine"),
}


class BuildPage(PageHandler):
    """What both have: the name as it is typed."""

    async def say_of_name(self) -> None:
        name, refusal = None, ""
        if text := self.get_query_argument("name", "").strip():
            try:
                name = await saving.check_name(self.portal, self.person, text)
            except UserError as error:
                refusal = error.text(self.translate)
        await self.render_fragment(
            "image_name.html", whole=saving.whole_name(self.person, name) if name else "", refusal=refusal
        )

    def values(self) -> dict[str, Any]:
        limits = self.portal.settings.images.builds
        return {"own": saving.name_space(self.person.name), "limits": limits, "found": None, "image": None}

    def went(self, image: saved.SavedImage) -> None:
        self.set_header("HX-Redirect", f"{self.portal.prefix}images/{image.id}")
        self.finish("")


class OfProject(BuildPage):
    """From a project's files."""

    async def get(self, owner: str, slug: str) -> None:
        ident = f"{owner}/{slug}"
        if self.get_query_argument("offer", ""):
            there = building.offered(self.portal) and self.person.has_role
            found = await building.find(self.portal, self.person, ident) if there else None
            address = self.portal.prefix + project_path(owner, slug).lstrip("/") + "/build"
            await self.render_fragment("build_offer.html", there=found is not None, address=address)
            return
        if "name" in self.request.query_arguments:
            building.need(self.portal, self.person)
            await self.say_of_name()
            return
        found = await building.need_found(self.portal, self.person, ident)
        if self.get_query_argument("look", ""):
            await self._look(found)
            return
        item, known = found.desk.item, await building.environments(self.portal, self.person)
        await self.render_page(
            "build.html",
            **{
                **self.values(),
                "found": found,
                "project": item,
                "back": found.desk.page,
                "back_title": item.name,
                "action": f"{found.desk.page}/build",
                "environments": {name: one.title for name, one in known.items()},
                "environment": building.default_environment(self.portal, found, known),
            },
        )

    async def _look(self, found: Found) -> None:
        dockerfile, refusal = "", ""
        try:
            environment = self.get_query_argument("environment", "")[:128]
            dockerfile = (await building.chosen_of(self.portal, self.person, found, environment)).dockerfile
        except UserError as error:
            refusal = error.text(self.translate)
        await self.render_fragment(
            "build_look.html", dockerfile=dockerfile, refusal=refusal, recipe=found.recipe
        )

    async def post(self, owner: str, slug: str) -> None:
        found = await building.need_found(self.portal, self.person, f"{owner}/{slug}")
        self.went(
            await building.begin(
                self.portal,
                self.person,
                found,
                self.get_body_argument("name", ""),
                environment=self.get_body_argument("environment", "")[:128],
                description=self.get_body_argument("description", "")[:500],
                address=self.address,
            )
        )


class OfImage(BuildPage):
    """Anew, from what was recorded of a saved image."""

    async def get(self, image_id: str) -> None:
        building.need(self.portal, self.person)
        image = await self.portal.db.run_read(saved.get, self.person.name, image_id)
        building.require_recorded(image)
        if "name" in self.request.query_arguments:
            await self.say_of_name()
            return
        if self.get_query_argument("look", ""):
            refusal = ""
            try:
                await building.choose(self.portal, self.person, image.dockerfile, image.environment)
            except UserError as error:
                refusal = error.text(self.translate)
            await self.render_fragment(
                "build_look.html", dockerfile=image.dockerfile, refusal=refusal, recipe=None
            )
            return
        address = f"{self.portal.prefix}images/{image.id}"
        await self.render_page(
            "build.html",
            **{
                **self.values(),
                "image": image,
                "back": address,
                "back_title": f"{image.name}:{image.tag}",
                "action": f"{address}/build",
            },
        )

    async def post(self, image_id: str) -> None:
        image = await self.portal.db.run_read(saved.get, self.person.name, image_id)
        self.went(
            await building.begin_from(
                self.portal,
                self.person,
                image,
                self.get_body_argument("name", ""),
                description=self.get_body_argument("description", "")[:500],
                address=self.address,
            )
        )


def routes() -> list[tuple[str, type[RequestHandler]]]:
    """Addresses of this module, relative to the portal's prefix."""
    return [
        (r"/projects/([^/]+)/([^/]+)/build", OfProject),
        (r"/images/([0-9A-Z]{26})/build", OfImage),
    ]
