"""``python -m services.machines``: the machines service.

Besides the loop it has two addresses for the portal: ``POST /join`` answers the command with which a machine
joins, ``POST /contents`` what is on a machine. Every process of the service answers it, whoever has the lease. Whoever asks proves to be the portal
with the portal's own token, which the hub names.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from galilean.errors import UserError, mark
from galilean.portal_asks import PortalAsks
from galilean.service import Context, Tick, run_service
from services.machines.contents import PAGE_SIZE, HasContents, said
from services.machines.keeper import Keeper, add_machine
from services.machines.notify import MailPost
from services.machines.the_settings import pools_in, world_in

INTERVAL_SECONDS = 5.0


class Join(PortalAsks):
    """Makes tickets for the portal."""

    unanswered = mark("The machines' side does not answer just now. Try again in a moment.")

    async def answer(self, body: Any) -> Mapping[str, Any]:
        return await add_machine(
            self.context.db,
            self.context.parts["world"],
            name=str(body["name"]),
            pool=str(body["pool"]),
            asked_by=str(body["asked_by"]),
            minutes=self.context.settings.machines.token_minutes,
            clock=self.context.clock,
        )


class Look(PortalAsks):
    """Tells what is on a machine."""

    unanswered = mark("The machines' side does not answer just now. Try again in a moment.")

    async def answer(self, body: Any) -> Mapping[str, Any]:
        world = self.context.parts["world"]
        if not isinstance(world, HasContents):
            raise UserError(501, mark("Only machines of a Kubernetes can be looked into."), reason="not-here")
        return said(
            await world.contents(str(body["name"])),
            world.namespaces,
            text=str(body.get("q", "")),
            namespace=str(body.get("namespace", "")),
            offset=max(0, int(body.get("from", 0))),
            limit=min(max(1, int(body.get("limit", PAGE_SIZE))), 500),
        )


def build(context: Context) -> Tick:
    """The tick of this service."""
    context.parts["world"] = world = world_in(context.settings, context.clock)
    return Keeper(
        context.db,
        world,
        pools_in(context.settings),
        post=MailPost(context.settings, context.hub),
        clock=context.clock,
        registry=context.registry,
        details=context.details,
    ).tick


def routes(context: Context) -> list[Any]:
    """Addresses of this service besides ``/health`` and ``/metrics``."""
    return [(r"/join", Join, {"context": context}), (r"/contents", Look, {"context": context})]


if __name__ == "__main__":
    run_service("machines", build, interval_seconds=INTERVAL_SECONDS, routes=routes)
