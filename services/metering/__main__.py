"""``python -m services.metering``: the metering service."""

from __future__ import annotations

from galilean.service import Context, Tick, run_service
from galilean.settings import Settings
from services.metering.reconcile import Reconciler
from spawner.backends import inventory_of


def interval_seconds(settings: Settings) -> float:
    """How often the backend is looked at: a look at this machine's processes costs next to nothing."""
    return 5.0 if settings.backend == "process" else 60.0


def build(context: Context) -> Tick:
    """The tick of this service; it may list pods and nothing else."""
    return Reconciler(
        context.db,
        inventory_of(context.settings, leftovers=False),
        clock=context.clock,
        registry=context.registry,
        details=context.details,
    ).tick


if __name__ == "__main__":
    run_service("metering", build, interval_seconds=interval_seconds)
