"""``python -m services.queue``: the queue service."""

from __future__ import annotations

from galilean.service import Context, Tick, run_service
from services.queue.starter import Starter

INTERVAL_SECONDS = 2.0


def build(context: Context) -> Tick:
    """The tick of this service."""
    return Starter(
        context.db, context.hub, clock=context.clock, registry=context.registry, details=context.details
    ).tick


if __name__ == "__main__":
    run_service("queue", build, interval_seconds=INTERVAL_SECONDS)
