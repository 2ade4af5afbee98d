"""The second step of a restart or a reset of one node: what is lost and what stays, then the asking."""

from __future__ import annotations

from typing import Any

from galilean.errors import mark
from galilean.web.handlers import PageHandler
from services.portal import losses
from services.portal.api.clusters import cluster_for
from services.portal.api.renewals import check_owner, renew_node
from spawner import records, renewal


class Renew(PageHandler):
    """A dialog, and what it asks for."""

    async def get(self, run_id: str, rank: str, how: str) -> None:
        run = await cluster_for(self.portal, self.person, run_id)
        check_owner(self.person, run)
        nodes = (await self.portal.db.run_read(records.intervals, [run.id]))[run.id]
        refused = renewal.refusal(run, nodes, int(rank), how)
        if refused is not None:
            raise refused
        loss = renewal.LOSES[run.backend][how]
        await self.render_fragment(
            "renew_dialog.html",
            run=run,
            rank=int(rank),
            node=f"node-{int(rank)}",
            how=how,
            losses=losses.address(self.portal, run, int(rank)) if how == renewal.RESET else "",
            url=f"{self.portal.prefix}clusters/{run.id}/nodes/{int(rank)}/{how}",
            loss={
                "goes": [self.translate(line) for line in loss.goes],
                "stays": self.translate(loss.stays) if loss.stays else "",
            },
        )

    async def post(self, run_id: str, rank: str, how: str) -> None:
        run = await cluster_for(self.portal, self.person, run_id)
        await renew_node(self.portal, self.person, run, int(rank), how)
        text = self.translate(mark("{node} is being made anew; the others go on.")).format(
            node=f"node-{int(rank)}"
        )
        self.answer_events(
            {"galilean:toast": {"text": text}, "galilean:node-asked": {}, "galilean:clusters": {}}
        )


def routes() -> list[tuple[str, type[Any]]]:
    """Addresses of this module, relative to the portal's prefix."""
    return [(r"/clusters/([0-9A-Z]{26})/nodes/(0|[1-9][0-9]{0,3})/(restart|reset)", Renew)]


ROUTES = routes()
