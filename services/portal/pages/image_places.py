"""Administration → Machines → Images: which image of the catalogue is on which machine, and *Redistribute* (CG-34, CG-38)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tornado.web import RequestHandler

from galilean.errors import UserError, mark
from services.portal import image_places
from services.portal.machines import PAGE_SIZE
from services.portal.pages.machines import MachinePage
from services.portal.pages.table_view import TableView


@dataclass(frozen=True, kw_only=True)
class View(TableView):
    """Images by title, on one machine or on all."""

    state: str = ""
    machine: str = ""

    @classmethod
    def parse_filters(cls, query: dict[str, str]) -> dict[str, str]:
        state = query.get("state", "")
        return {
            "state": state if state in image_places.TITLES else "",
            "machine": query.get("machine", "")[:255],
        }

    def filters(self) -> dict[str, str]:
        return {"state": self.state, "machine": self.machine}


class Images(MachinePage):
    """The page; for htmx the table alone."""

    async def values(self) -> dict[str, Any]:
        view = View.parse({key: self.get_query_argument(key) for key in self.request.query_arguments})
        there = image_places.known(self.portal)
        every = await image_places.carried(self.portal, machine=view.machine) if there else []
        fitting = [one for one in every if image_places.fits(one, view.text, view.state)]
        return {
            "known": there,
            "view": view,
            "every": len(every),
            "shown_count": len(fitting),
            "rows": fitting[view.offset : view.offset + PAGE_SIZE],
            "page_size": PAGE_SIZE,
            "root": self.root,
            "here": f"{self.portal.prefix}admin/machine-images",
            "titles": image_places.TITLES,
            "why": lambda one: one.error.text(self.translate) if one.error else "",
            "counts": {state: sum(one.spot.state == state for one in every) for state in image_places.TITLES},
            "missing": sum(one.missing for one in every),
            "busy": any(one.spot.state == "pulling" or one.spot.asked_at for one in every),
        }

    async def get(self) -> None:
        await self.show()

    async def show(self) -> None:
        values = await self.values()
        if self.is_fragment and not self.request.headers.get("HX-History-Restore-Request"):
            await self.render_fragment("admin_machine_images_table.html", **values)
        else:
            await self.render_page("admin_machine_images.html", **values)

    async def post(self) -> None:
        image = self.get_body_argument("image", "")[:512]
        wanted = self.get_body_argument("beforehand", "")
        if wanted and image:
            await image_places.beforehand(
                self.portal, self.person, image=image, wanted=wanted == "yes", address=self.address
            )
            text = self.translate(
                mark("It is brought to every machine.")
                if wanted == "yes"
                else mark("It comes with its first run. What is there stays.")
            )
        else:
            count = await image_places.redistribute(
                self.portal,
                self.person,
                image=image,
                machine=self.get_query_argument("machine", "")[:255],
                address=self.address,
            )
            text = self.translate(
                mark("To be fetched: {count}") if count else mark("Nothing is missing that can be fetched.")
            ).format(count=count)
        self.toast(text)
        await self.show()


class Log(MachinePage):
    """What happened to one image, on all machines or on one."""

    async def get(self) -> None:
        image = self.get_query_argument("image", "")[:512]
        machine = self.get_query_argument("machine", "")[:255]
        found = await image_places.carried(self.portal, image=image)
        if not found:
            raise UserError(404, mark("No machine is known to need this image."))
        await self.render_page(
            "admin_machine_images_log.html",
            one=found[0],
            machine=machine,
            lines=await image_places.events(self.portal, image=image, machine=machine),
            root=self.root,
            here=f"{self.portal.prefix}admin/machine-images",
            titles=image_places.EVENTS,
            why=lambda one: one.error.text(self.translate) if one.error else "",
        )


def routes() -> list[tuple[str, type[RequestHandler]]]:
    """Addresses of this module, relative to the portal's prefix."""
    return [(r"/admin/machine-images", Images), (r"/admin/machine-images/log", Log)]
