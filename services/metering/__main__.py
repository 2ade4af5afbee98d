"""``python -m services.metering``: the metering service."""

from __future__ import annotations

from galilean.service import Context, Tick, run_service
from galilean.settings import Settings
from services.metering.reconcile import Reconciler
from services.metering.work import Metering
from spawner.backends import inventory_of, use_meter_of


def reconcile_seconds(settings: Settings) -> float:
    """How often the backend is looked at: a look at this machine's processes costs next to nothing."""
    return 5.0 if settings.backend == "process" else 60.0


def interval_seconds(settings: Settings) -> float:
    """How often there is a turn: what finished is taken up, and whatever is due is done."""
    return min(reconcile_seconds(settings), float(settings.use.interval_seconds))


def build(context: Context) -> Tick:
    """The tick of this service; it may list pods and nothing else."""
    reconciler = Reconciler(
        context.db,
        inventory_of(context.settings, leftovers=False),
        clock=context.clock,
        registry=context.registry,
        details=context.details,
    )
    return Metering(
        context.db,
        reconciler,
        zone=context.settings.site.zone,
        meter=use_meter_of(context.settings),
        reconcile_seconds=reconcile_seconds(context.settings),
        sample_seconds=float(context.settings.use.interval_seconds),
        clock=context.clock,
        registry=context.registry,
        details=context.details,
    ).tick


if __name__ == "__main__":
    run_service("metering", build, interval_seconds=interval_seconds)
