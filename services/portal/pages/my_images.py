"""Save image, and My images (CG-18, CG-19): the dialog as a page, one image with its progress, the list."""

from __future__ import annotations

from typing import Any

from tornado.web import RequestHandler

from extensions.imagebuilder import adapting, locks, python_saving, saved
from extensions.imagebuilder.entries import Actor
from extensions.imagebuilder.names import is_python
from extensions.imagebuilder.saved import SavedImage
from extensions.imagebuilder.saving import STEPS
from galilean.errors import UserError, mark
from galilean.web.handlers import PageHandler
from services.portal import building, image_uploads, saving, shelf
from services.portal.addresses import project_path
from services.portal.api import library
from services.portal.api.environments import told
from services.portal.pages import builds
from services.portal.pages.environments import words

SHOWN = 50
FILES_SHOWN = 10
NAMES_SHOWN = 40
TITLES = {
    "copying": mark("Paused for a moment and copied"),
    "writing": mark("Tokens and keys left out, looked through"),
    "base": mark("What it stands on is in the registry"),
    "pushing": mark("Written to the registry"),
    "placing": mark("Ready on this machine"),
}

#: Of one that was not made for nodes.
ADAPTED = {
    "base": mark("Fetched, compared with its digests and looked at"),
    "pushing": mark("What nodes need laid over it, written to the registry"),
    "placing": mark("Ready on this machine"),
}
#: Of an image that came in as an archive.
UPLOADED = {
    "checking": mark("Looked through and compared with its digests"),
    "pushing": mark("Written to the registry"),
    "placing": mark("Ready on this machine"),
}

#: Of a Python environment, which is saved by its lock file.
PYTHON = {
    "reading": mark("What you installed is read"),
    "locking": mark("Found in the package index, with digests"),
    "placing": mark("Made from its lock file on this machine"),
}


def course_of(image: SavedImage, *, python: bool = False) -> tuple[tuple[str, ...], dict[str, str]]:
    """The steps that an image goes through, by how it is made, and what they are called."""
    if python:
        return python_saving.STEPS, PYTHON
    if image.how == "built":
        return builds.STEPS, builds.TITLES
    if image.uploaded:
        return tuple(UPLOADED), UPLOADED
    if image.how == "adapted":
        return adapting.STEPS, ADAPTED
    return STEPS, TITLES


def steps_of(image: SavedImage, *, python: bool = False) -> list[dict[str, str]]:
    """The steps with their states: done, now, todo, failed."""
    steps, titles = course_of(image, python=python)
    at = steps.index(image.step) if image.step in steps else -1
    found: list[dict[str, str]] = []
    for number, key in enumerate(steps):
        if image.state == "ready" or number < at:
            state = "done"
        elif number == at:
            state = "now" if image.state == "saving" else "failed"
        else:
            state = "todo"
        found.append({"key": key, "title": titles[key], "state": state})
    return found


def packages_of(image: SavedImage) -> list[dict[str, Any]]:
    """Packages that an image has more than its parent, by the tool that brought them."""
    found: list[dict[str, Any]] = []
    added = (image.changes or {}).get("packages_added") or []
    for manager in ("pip", "conda", "apt"):
        names = [f"{one['name']} {one['version']}" for one in added if one.get("manager") == manager]
        if names:
            found.append({"manager": manager, "count": len(names), "names": names[:NAMES_SHOWN]})
    return found


def other_versions(image: SavedImage) -> list[str]:
    """Packages of which an image has another version than its parent."""
    changed = (image.changes or {}).get("packages_changed") or []
    return [f"{one['name']} {one['before']} → {one['version']}" for one in changed]


class Save(PageHandler):
    """What would be saved of a node, and under which name."""

    async def node(self, run_id: str, rank: str) -> saving.Node:
        return await saving.node_for(self.portal, self.person, run_id, int(rank))

    async def get(self, run_id: str, rank: str) -> None:
        node = await self.node(run_id, rank)
        if self.get_query_argument("look", ""):
            try:
                told, refusal = dict(await saving.look(self.portal, node)), ""
            except UserError as error:
                told, refusal = {}, error.text(self.translate)
            await self.render_fragment(
                "image_look.html",
                told=told,
                refusal=refusal,
                names_shown=NAMES_SHOWN,
                python=told.get("python"),
                refused=[
                    UserError(422, one["message"], **one["params"]).text(self.translate)
                    for one in (told.get("python") or {}).get("refused", ())
                ],
            )
            return
        if "name" in self.request.query_arguments:
            await self._say_of_name(self.get_query_argument("name", ""))
            return
        going = await self.portal.db.run_read(saving.saving_now, self.person.name, node.run.id, node.rank)
        await self.render_page(
            "image_save.html",
            node=node,
            going=going,
            project_url=self.portal.prefix
            + project_path(node.run.project_owner, node.run.project_slug).lstrip("/"),
            own=saving.name_space(self.person.name),
            python=shelf.has_pythons(self.portal),
        )

    async def _say_of_name(self, text: str) -> None:
        name, refusal = None, None
        if text.strip():
            try:
                name = await saving.check_name(self.portal, self.person, text)
            except UserError as error:
                refusal = error
        await self.render_fragment(
            "image_name.html",
            whole=saving.whole_name(self.person, name) if name else "",
            refusal=refusal.text(self.translate) if refusal else "",
        )

    async def post(self, run_id: str, rank: str) -> None:
        node = await self.node(run_id, rank)
        image = await saving.begin(
            self.portal,
            self.person,
            node,
            self.get_body_argument("name", ""),
            description=self.get_body_argument("description", "")[:500],
            address=self.address,
        )
        self.set_header("HX-Redirect", f"{self.portal.prefix}images/{image.id}")
        self.finish("")


class Images(PageHandler):
    """My images."""

    async def get(self) -> None:
        query = self.get_query_argument("q", "").strip()[:100]
        after = self.get_query_argument("after", "")[:26]
        rows = await self.portal.db.run_read(
            lambda conn: saved.list_saved(conn, self.person.name, query=query, limit=SHOWN, after=after)
        )
        used = await self.portal.db.run_read(saved.used_bytes, self.person.name)
        values = {
            "rows": rows[:SHOWN],
            "next": rows[SHOWN - 1].id if len(rows) > SHOWN else "",
            "query": query,
            "used": used,
            "most": self.portal.settings.images.registry.per_person,
            "can_save": saving.offered(self.portal),
            "can_upload": image_uploads.may_upload(self.portal, self.person),
            "can_build": building.offered(self.portal),
            "python": shelf.has_pythons(self.portal),
            "words": lambda: words(self.translate),
            "busy": any(row.state == "saving" for row in rows[:SHOWN]),
        }
        if self.is_fragment:
            await self.render_fragment("images_table.html", **values)
        else:
            await self.render_page("images.html", **values)


class Image(PageHandler):
    """One image: its progress, what it changed, its log."""

    async def found(self, image_id: str) -> SavedImage:
        return await self.portal.db.run_read(saved.get, self.person.name, image_id)

    async def show(self, image: SavedImage) -> None:
        refusal = image.error
        python = is_python(image.image) or (not image.image and shelf.has_pythons(self.portal))
        entry = await self.portal.db.run_read(saved.entry_of, image)
        values = {
            "image": image,
            "whole": f"{saving.name_space(self.person.name)}/{image.name}:{image.tag}",
            "steps": steps_of(image, python=python),
            "packages": packages_of(image),
            "other_versions": other_versions(image),
            "python": python,
            "changes": image.changes or {},
            "why": refusal.text(self.translate) if refusal else "",
            "told": [told(one, self.translate) for one in (image.changes or {}).get("told") or ()],
            "files_shown": FILES_SHOWN,
            "entry": entry,
            "entry_url": image.environment_id,
            "words": lambda: words(self.translate),
            "built": image.how == "built",
            "again": self._again(image),
            "project_url": self._project(image),
        }
        if self.is_fragment:
            await self.render_fragment("image_body.html", **values)
        else:
            await self.render_page("image.html", **values)

    def _project(self, image: SavedImage) -> str:
        owner, _, slug = (image.build or {}).get("project", "").rpartition("/")
        return self.portal.prefix + project_path(owner, slug).lstrip("/") if owner else ""

    def _again(self, image: SavedImage) -> str:
        """Where the same is built anew; empty where it is not."""
        if not building.offered(self.portal) or image.state == "saving":
            return ""
        if project := self._project(image):
            return f"{project}/build"
        ready = image.dockerfile and image.state == "ready"
        return f"{self.portal.prefix}images/{image.id}/build" if ready else ""

    async def get(self, image_id: str) -> None:
        image = await self.found(image_id)
        if self.get_query_argument("ask", "") == "delete":
            await self.render_fragment("image_delete.html", image=image)
            return
        await self.show(image)

    async def post(self, image_id: str) -> None:
        act, now = self.get_body_argument("act", ""), self.portal.clock()
        actor = Actor(name=self.person.name, address=self.address)
        if act == "cancel":
            image = await self.portal.db.run(
                lambda conn: saved.ask_cancel(conn, self.person.name, image_id, now=now)
            )
            self.toast(
                self.translate(
                    mark("The build is being cancelled. Nothing of it is kept.")
                    if image.how == "built"
                    else mark("Saving is being cancelled. Nothing of it is kept.")
                )
            )
            await self.show(image)
        elif act == "describe":
            text = self.get_body_argument("description", "")[:500]
            image = await self.portal.db.run(
                lambda conn: saved.describe(conn, image_id, text, actor=actor, now=now)
            )
            self.toast(self.translate(mark("Saved.")))
            await self.show(image)
        elif act == "withdraw":
            await library.withdraw(self.portal, self.person, image_id, address=self.address)
            image = await self.found(image_id)
            self.toast(self.translate(mark("Withdrawn. Clusters that are held go on.")))
            await self.show(image)
        elif act == "delete":
            await self.portal.db.run(lambda conn: saved.remove(conn, image_id, actor=actor, now=now))
            self.set_header("HX-Redirect", f"{self.portal.prefix}images")
            self.finish("")
        else:
            raise UserError(400, mark("This button is not known."))


class Dockerfile(PageHandler):
    """The recorded changes as a Dockerfile, to be kept."""

    async def get(self, image_id: str) -> None:
        image = await self.portal.db.run_read(saved.get, self.person.name, image_id)
        if not image.dockerfile:
            raise UserError(404, mark("Nothing was recorded of this image."))
        self.set_header("Content-Type", "text/plain; charset=utf-8")
        self.set_header("Content-Disposition", 'attachment; filename="Dockerfile"')
        self.finish(image.dockerfile)


class LockFile(PageHandler):
    """What a saved Python environment is, as a file that pip reads."""

    async def get(self, image_id: str) -> None:
        def look(conn: Any) -> str | None:
            return locks.text_of(conn, saved.get(conn, self.person.name, image_id).digest)

        text = await self.portal.db.run_read(look)
        if text is None:
            raise UserError(404, mark("There is no lock file of this."))
        self.set_header("Content-Type", "text/plain; charset=utf-8")
        self.set_header("Content-Disposition", 'attachment; filename="requirements.lock.txt"')
        self.finish(text)


def routes() -> list[tuple[str, type[RequestHandler]]]:
    """Addresses of this module, relative to the portal's prefix."""
    return [
        (r"/clusters/([0-9A-Z]{26})/nodes/(0|[1-9][0-9]{0,3})/save", Save),
        (r"/images", Images),
        (r"/images/([0-9A-Z]{26})", Image),
        (r"/images/([0-9A-Z]{26})/Dockerfile", Dockerfile),
        (r"/images/([0-9A-Z]{26})/lock", LockFile),
    ]
