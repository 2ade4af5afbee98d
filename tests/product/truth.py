"""What a person is told about a cluster, by every way there is, and how long after a fault it is true.

A figure is counted from the fault itself. It is printed at the end of the run (``docs/benchmarks.md`` has
the ones of a quiet machine) and does not decide a test: on a machine that does ten other things the same
code is slower. What decides is a bound three times as generous.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field

from tests.product.product import Person, Product, wait_for

#: What we aim at, and what fails a test.
AIM_SECONDS, TOLD_SECONDS = 15, 60
BACK_SECONDS = 60


@dataclass
class Figures:
    """Seconds after a fault, by what was waited for."""

    seconds: dict[str, list[float]] = field(default_factory=dict)

    def note(self, what: str, seconds: float) -> None:
        self.seconds.setdefault(what, []).append(seconds)

    def lines(self) -> Iterator[str]:
        """A table for people."""
        for what, found in sorted(self.seconds.items()):
            late = f"   later than {AIM_SECONDS} s" if max(found) > AIM_SECONDS else ""
            yield f"{what:<64} {len(found):>2} x   at most {max(found):5.1f} s{late}"


FIGURES = Figures()


@dataclass
class Fault:
    """A fault that happens now: :meth:`note` says how long ago it was."""

    name: str
    at: float = field(default_factory=time.monotonic)

    def note(self, what: str) -> None:
        FIGURES.note(f"{self.name}: {what}", time.monotonic() - self.at)


def shown_at_home(person: Person, run_id: str) -> bool:
    """Whether the home page shows this run as one that is held or on its way."""
    page = person.api("GET", "/services/portal/", headers={"Accept": "text/html"})
    page.raise_for_status()
    assert "Projects" in page.text
    return f"{run_id}-release" in page.text


def portal_says(person: Person, run_id: str) -> str:
    """The word of a run in the portal's API; empty when it is not among the open ones."""
    return next((item["status"] for item in person.clusters() if item["id"] == run_id), "")


def wait_gone(product: Product, person: Person, server: str, run_id: str, fault: Fault) -> None:
    """Until hub, API and home page say that it is gone, and it is."""

    def gone() -> bool:
        told = (person.is_ready(server), portal_says(person, run_id), shown_at_home(person, run_id))
        assert told == (False, "", False), told
        return True

    wait_for(gone, f"{server} is told as gone", seconds=TOLD_SECONDS)
    product.wait_truth(TOLD_SECONDS)
    fault.note("told as gone, and gone")


def wait_running(person: Person, run_id: str, fault: Fault) -> None:
    """Until API and home page tell of a cluster that runs on; the hub need not be there for it."""

    def runs() -> bool:
        told = (portal_says(person, run_id), shown_at_home(person, run_id))
        assert told == ("running", True), told
        return True

    wait_for(runs, "the portal tells of the cluster", seconds=TOLD_SECONDS)
    fault.note("portal and home page tell the truth")


def wait_reached(product: Product, person: Person, server: str, nodes: int, fault: Fault) -> None:
    """Until the hub knows the cluster as ready, every node answers, and all is as the rows say."""
    wait_for(lambda: person.is_ready(server), f"{server} is known to the hub", seconds=TOLD_SECONDS)
    for rank in range(nodes):
        wait_for(
            lambda rank=rank: person.node(server, rank).status_code == 200,
            f"node-{rank} answers",
            seconds=TOLD_SECONDS,
        )
    product.wait_truth(TOLD_SECONDS)
    fault.note("hub, every node and the rows again")


PHASES = ("asked", "starting", "placed", "ready")


def wait_phase(product: Product, person: Person, phase: str, seconds: float = 120) -> None:
    """Until a start has come as far as a phase, or farther; ``asked`` = the request is on its way.

    By what is in the row, not by the clock: on a slow machine each phase takes longer, and none is missed.
    """
    wanted = PHASES.index(phase)
    end = time.monotonic() + seconds
    while wanted and time.monotonic() < end:
        for run in product.runs(person.name)[:1]:
            far = (run.status != "queued") + bool(run.placed_at) + bool(run.ready_at)
            if far >= wanted or not run.is_open:
                return
        time.sleep(0.002)
    time.sleep(0.01)
