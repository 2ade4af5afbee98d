"""Workbenches: the list of one's own, one of them, its Run drawer (CG-16, CG-17).

The drawer is that of projects (:mod:`services.portal.pages.run`): a workbench asks for a size and a release policy, and for
nothing else, for it has one node and one environment. Beginning one goes by a form of the environment's page.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from tornado.web import RequestHandler

from galilean.errors import mark
from galilean.settings import EnvironmentSettings
from galilean.web.handlers import PageHandler
from services.catalog.access import Access
from services.catalog.lifecycle import BIN_DAYS
from services.catalog.store import WORKBENCH
from services.portal import building, saving, workbenches
from services.portal.pages import run
from services.portal.pages.project_frame import ProjectPage, said
from services.portal.pages.run_choice import Choice
from services.portal.pages.run_form import RunForm
from services.portal.workbenches import Bench


def words_of(handler: PageHandler) -> dict[str, Any]:
    """What both pages say of what is allowed here."""
    portal = handler.portal
    return {
        "root": workbenches.root_inside(portal),
        "backend": portal.settings.backend,
        "can_save": saving.offered(portal),
        "can_build": building.offered(portal),
        "bin_days": BIN_DAYS,
        "said": said,
    }


class Workbenches(PageHandler):
    """The person's own, with what is open of them."""

    async def get(self) -> None:
        rows = await workbenches.list_for(self.portal, self.person)
        await self.render_page("workbenches.html", rows=rows, **words_of(self))

    async def post(self) -> None:
        """Begin one, or go on with it: its page opens with the drawer."""
        made, _ = await workbenches.make(
            self.portal, self.person, self.get_body_argument("environment", ""), translate=self.translate
        )
        self.set_header("HX-Redirect", f"{self.portal.prefix}workbenches/{made.id}?run=1")
        self.finish("")


class OfOne(ProjectPage):
    """Base of the pages of one workbench."""

    least = Access.OWN
    kind = WORKBENCH
    tab = "workbench"
    bench: Bench

    async def begin(self, *where: str) -> dict[str, Any]:
        """It, if it is the visitor's own, and what the frame shows."""
        (workbench_id,) = where
        found = await workbenches.reach(self.portal, self.person, workbench_id)
        self.bench = await workbenches.bench_of(self.portal, self.person, found)
        return await self.enter(found.owner, found.slug)


class Workbench(OfOne):
    """What it is for, what is allowed in it, its work, what may be done."""

    async def get(self, workbench_id: str) -> None:
        frame = await self.begin(workbench_id)
        if self.get_query_argument("ask", "") == "delete":
            await self.render_fragment("workbench_delete.html", **{**frame, **words_of(self)})
            return
        opened = frame["open_run"]
        save = saving.address(self.portal, opened, 0) if opened is not None else None
        await self.render_page(
            "workbench.html", **{**frame, **words_of(self), "bench": self.bench, "save_url": save}
        )

    async def post(self, workbench_id: str) -> None:
        """Delete it; the dialog came before."""
        project = await workbenches.reach(self.portal, self.person, workbench_id)
        await workbenches.delete(self.portal, self.person, project, address=self.address)
        self.toast(self.translate(mark("The workbench is in the bin.")))
        self.set_header("HX-Redirect", f"{self.portal.prefix}workbenches")
        self.finish("")


class OfRun(OfOne, run.RunPage):
    """The drawer's parts, for one node of the one environment."""

    least = Access.OWN

    async def environments(self) -> dict[str, EnvironmentSettings]:
        name = self.project.environment
        there = await super().environments()
        return {name: there[name]} if name in there else {}

    def wish(self, found: run.Scene, environments: Any) -> Choice:
        return replace(super().wish(found, environments), nodes=1, environment=self.project.environment)

    async def form(self, found: run.Scene) -> RunForm | None:
        form = await super().form(found)
        return None if form is None else replace(form, nodes_most=1, nodes_reason=None)


class Drawer(OfRun, run.Drawer):
    """Its inside."""


class Sum(OfRun, run.Sum):
    """What a choice comes to."""


class Events(OfRun, run.Events):
    """The drawer while something moves."""


def routes() -> list[tuple[str, type[RequestHandler]]]:
    """Addresses of this module, relative to the portal's prefix."""
    one = r"/workbenches/([0-9A-Z]{26})"
    return [
        (r"/workbenches", Workbenches),
        (one, Workbench),
        (one + r"/run", Drawer),
        (one + r"/run/sum", Sum),
        (one + r"/run/events", Events),
    ]


ROUTES = routes()
