"""``python -m services.release``: the release service."""

from __future__ import annotations

import httpx

from galilean.service import Context, Tick, run_service
from services.release.releaser import Releaser, Witness
from spawner.process.inventory import ProcessInventory

INTERVAL_SECONDS = 5.0


def portal_answers(url: str) -> Witness:
    """A witness: the portal, which takes the nodes' reports, answers anything at all at ``url``."""
    client = httpx.AsyncClient(timeout=5)

    async def answers() -> bool:
        try:
            return (await client.get(url)).status_code < 500
        except httpx.HTTPError:
            return False

    return answers


def build(context: Context) -> Tick:
    """The tick of this service. ``GALILEAN_PORTAL_URL``: where the portal listens; empty = not asked."""
    portal = context.environ.get("GALILEAN_PORTAL_URL", "")
    return Releaser(
        context.settings,
        context.db,
        context.hub,
        ProcessInventory(context.settings.state),
        witnesses=[portal_answers(portal)] if portal else [],
        clock=context.clock,
        registry=context.registry,
        details=context.details,
    ).tick


if __name__ == "__main__":
    run_service("release", build, interval_seconds=INTERVAL_SECONDS)
