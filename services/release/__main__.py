"""``python -m services.release``: the release service."""

from __future__ import annotations

import importlib

import httpx

from galilean.service import Beside, Context, Tick, run_service
from galilean.settings import Settings
from services.release.post import Post
from services.release.releaser import Budgets, Releaser, Witness
from spawner.backends import inventory_of
from spawner.inventory import Inventory, Sighting

INTERVAL_SECONDS = 5.0
BUDGETS = "services.portal.budgets:budgets"


def portal_answers(url: str) -> Witness:
    """A witness: the portal, which takes the nodes' reports, answers anything at all at ``url``."""
    client = httpx.AsyncClient(timeout=5, trust_env=False)

    async def answers() -> bool:
        try:
            return (await client.get(url)).status_code < 500
        except httpx.HTTPError:
            return False

    return answers


class LeftToTheSweeper:
    """What this service may look at where it has no rights at the backend: nothing.

    A row that it closes then counts until its nodes were last seen; what still exists of it has no open row
    from then on, and the hub's sweeper removes it.
    """

    async def inventory(self) -> list[Sighting]:
        """Nothing."""
        return []

    async def remove(self, sighting: Sighting) -> None:
        """Never called: nothing is sighted."""


def sighted_by(settings: Settings) -> Inventory:
    """The inventory for the rare row that the hub knows nothing of (:mod:`services.release.finish`)."""
    return inventory_of(settings) if settings.backend == "process" else LeftToTheSweeper()


def budgets_of(settings: Settings, name: str) -> Budgets:
    """Who knows how long budgets last: ``module:function`` of a floor above, which knows limits and usage."""
    module, _, function = name.partition(":")
    return getattr(importlib.import_module(module), function)(settings)


def build(context: Context) -> Tick:
    """The tick of this service.

    ``GALILEAN_PORTAL_URL``: where the portal listens; empty = not asked. ``GALILEAN_BUDGETS``: who knows how
    long budgets last.
    """
    portal = context.environ.get("GALILEAN_PORTAL_URL", "")
    post = Post(context.settings, context.db, context.hub, clock=context.clock, details=context.details)
    context.beside.append(Beside(name="mail", work=post.tick, interval_seconds=INTERVAL_SECONDS))
    return Releaser(
        context.settings,
        context.db,
        context.hub,
        sighted_by(context.settings),
        witnesses=[portal_answers(portal)] if portal else [],
        budgets=budgets_of(context.settings, context.environ.get("GALILEAN_BUDGETS") or BUDGETS),
        clock=context.clock,
        registry=context.registry,
        details=context.details,
    ).tick


if __name__ == "__main__":
    run_service("release", build, interval_seconds=INTERVAL_SECONDS)
