"""Who may open a port of one's own running cluster: a dialog; and on the home page what others let one open."""

from __future__ import annotations

from typing import Any

from galilean.web.handlers import PageHandler
from services.portal import port_shares
from services.portal.api.clusters import cluster_for
from spawner.shared_ports import shared_of


class People(PageHandler):
    """The dialog; a POST adds somebody and answers with its inside again."""

    async def get(self, run_id: str, port: str) -> None:
        await self.show(run_id, int(port), "port_people.html")

    async def post(self, run_id: str, port: str) -> None:
        run = await cluster_for(self.portal, self.person, run_id)
        await port_shares.share(self, run, int(port), self.get_body_argument("person", "").strip()[:255])
        await self.show(run_id, int(port), "port_people_body.html")

    async def show(self, run_id: str, port: int, template: str) -> None:
        run = await cluster_for(self.portal, self.person, run_id)
        port_shares.check_mine(self.portal, self.person, run)
        await self.render_fragment(
            template,
            run=run,
            port=port,
            people=shared_of(run).get(port, ()),
            links=[(f"node-{rank}", url) for rank, url in enumerate(self._links(run, port))],
            url=f"{self.portal.prefix}clusters/{run.id}/ports/{port}/people",
        )

    def _links(self, run: Any, port: int) -> tuple[str, ...]:
        return port_shares.urls_of(self.portal, run, port)[:8]


class Withdraw(People):
    """Takes the port away from somebody."""

    async def post(self, run_id: str, port: str) -> None:
        run = await cluster_for(self.portal, self.person, run_id)
        await port_shares.withdraw(self, run, int(port), self.get_body_argument("person", "")[:255])
        await self.show(run_id, int(port), "port_people_body.html")


class SharedWithMe(PageHandler):
    """The list of the home page again."""

    async def get(self) -> None:
        found = await port_shares.shared_with(self.portal, self.person.name)
        await self.render_fragment("home_shared_list.html", shared_ports=found)


def routes() -> list[tuple[str, type[Any]]]:
    """Addresses of this module, relative to the portal's prefix."""
    one = r"/clusters/([0-9A-Z]{26})/ports/([0-9]{1,5})/people"
    return [(one, People), (one + "/withdraw", Withdraw), (r"/home/shared", SharedWithMe)]


ROUTES = routes()
