"""The part of a dialog that tells what a release or a reset would lose; asked for when the dialog is open already."""

from __future__ import annotations

from typing import Any

from galilean.web.handlers import PageHandler
from services.portal import losses
from services.portal.api.clusters import cluster_for


class Losses(PageHandler):
    """Of a whole cluster, or of the node ``rank``."""

    #: Waits for the nodes: no measure of how quickly pages answer.
    long = True

    async def get(self, run_id: str) -> None:
        run = await cluster_for(self.portal, self.person, run_id)
        found = await losses.of_run(
            self.portal, run, losses.rank_of(run, self.get_query_argument("rank", ""))
        )
        parts, nothing = losses.parts_of(self.portal, run, found, own=run.user == self.person.name)
        await self.render_fragment(
            "losses.html", parts=parts, nothing=nothing, said=lambda words: words.text(self.translate)
        )


def routes() -> list[tuple[str, type[Any]]]:
    """Addresses of this module, relative to the portal's prefix."""
    return [(r"/clusters/([0-9A-Z]{26})/losses", Losses)]
