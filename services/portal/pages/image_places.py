"""Administration → Machines → Images: which image of the catalogue is on which machine, and *Redistribute* (CG-34)."""

from __future__ import annotations

from typing import Any

from tornado.web import RequestHandler

from galilean.errors import mark
from services.portal import image_places
from services.portal.pages.machines import MachinePage


class Images(MachinePage):
    """The page; for htmx the table alone."""

    async def values(self) -> dict[str, Any]:
        machine = self.get_query_argument("machine", "")[:255]
        rows = (
            await image_places.carried(self.portal, machine=machine)
            if image_places.known(self.portal)
            else []
        )
        return {
            "known": image_places.known(self.portal),
            "rows": rows,
            "machine": machine,
            "root": self.root,
            "here": f"{self.portal.prefix}admin/machine-images",
            "titles": image_places.TITLES,
            "why": lambda one: one.spot.error.text(self.translate) if one.spot.error else "",
            "missing": sum(one.spot.state in ("absent", "failed") and not one.spot.private for one in rows),
            "busy": any(one.spot.state == "pulling" or one.spot.asked_at for one in rows),
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
        count = await image_places.redistribute(
            self.portal,
            self.person,
            image=self.get_body_argument("image", "")[:512],
            machine=self.get_query_argument("machine", "")[:255],
            address=self.address,
        )
        text = mark("To be fetched: {count}") if count else mark("Nothing is missing that can be fetched.")
        self.toast(self.translate(text).format(count=count))
        await self.show()


def routes() -> list[tuple[str, type[RequestHandler]]]:
    """Addresses of this module, relative to the portal's prefix."""
    return [(r"/admin/machine-images", Images)]
