"""A hub that is killed, or a release that comes, in every phase of a start and of a stop.

Phases are those of the row, not of a clock. Afterwards there is a whole cluster or nothing, the next start
works, and nobody was told *ready* without nodes.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator

import httpx
import pytest

from tests.product.product import Person, Product, wait_for
from tests.product.truth import BACK_SECONDS, TOLD_SECONDS, Fault, wait_phase, wait_reached


@contextlib.contextmanager
def beside(call: Callable[[], httpx.Response]) -> Iterator[list[int]]:
    """A call that is under way while the body runs; its status once it is over, nothing if it got none."""
    answered: list[int] = []

    def ask() -> None:
        with contextlib.suppress(httpx.HTTPError):
            answered.append(call().status_code)

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        yield answered
    finally:
        asking.join()


@pytest.mark.parametrize("phase", ["asked", "starting", "placed", "ready"])
def test_a_hub_killed_in_the_middle_of_a_start_leaves_nothing_half_done(
    product: Product, ada: Person, phase: str
):
    slug = ada.project("Half a start")
    with beside(lambda: ada.run(slug, project=slug, nodes=3)):
        wait_phase(product, ada, phase)
        old, fault = product.kill("hub"), Fault("hub killed in the middle of a start")
    product.wait_back("hub", old, seconds=BACK_SECONDS)
    product.wait_ready(BACK_SECONDS)
    product.wait_truth(TOLD_SECONDS)
    fault.note("told, and nothing half done")
    runs = product.runs(ada.name)
    assert len(runs) <= 1
    if runs and runs[0].word == "running":  # it was done before the hub died
        wait_reached(product, ada, slug, 3, fault)
        return
    wait_for(lambda: not ada.is_ready(slug), "the hub knows that it is not there", seconds=TOLD_SECONDS)
    assert not runs or not runs[0].is_open
    assert not [seen for seen in product.sightings() if seen.user == ada.name]
    assert not ada.clusters()
    wait_started(ada, slug)


def wait_started(person: Person, slug: str) -> None:
    """The next start works; the hub may still be tidying up after the last."""

    def asked() -> bool:
        answer = person.run(slug, project=slug, nodes=1)
        assert answer.status_code in (201, 202), answer.text
        return True

    wait_for(asked, "the next start is taken", seconds=TOLD_SECONDS, every=1)
    wait_for(lambda: person.is_ready(slug), "the next start works", seconds=TOLD_SECONDS)


@pytest.mark.parametrize(("closing", "later"), [(False, 0.0), (True, 0.0), (True, 0.1)])
def test_a_hub_killed_in_the_middle_of_a_stop_finishes_it(
    product: Product, ada: Person, closing: bool, later: float
):
    slug = ada.running("Half a stop", nodes=3)
    (run,) = product.runs(ada.name)
    with beside(lambda: ada.stop(slug)):
        if closing:
            wait_for(lambda: product.runs(ada.name)[0].word != "running", "the stop begins", every=0.002)
        time.sleep(later)
        old, fault = product.kill("hub"), Fault("hub killed in the middle of a stop")
    product.wait_back("hub", old, seconds=BACK_SECONDS)
    product.wait_ready(BACK_SECONDS)
    product.wait_truth(TOLD_SECONDS)
    (run,) = product.runs(ada.name)
    if run.is_open:  # the hub died before it heard of the stop
        assert not closing
        assert run.word == "running" and run.stop_asked_at is None
        wait_reached(product, ada, slug, 3, fault)
    else:
        fault.note("told, and nothing half done")
        assert not ada.clusters()
        assert not [seen for seen in product.sightings() if seen.user == ada.name]
        assert all(node.gone_at for node in product.intervals(run.id))


@pytest.mark.parametrize(
    ("phase", "later"),
    [
        ("asked", 0.0),
        ("starting", 0.0),
        ("starting", 0.1),
        ("placed", 0.0),
        ("placed", 0.15),
        ("ready", 0.0),
    ],
)
def test_delete_in_every_phase_of_a_start_ends_it_cleanly(
    product: Product, ada: Person, phase: str, later: float
):
    slug = ada.project("Changed my mind")
    with beside(lambda: ada.run(slug, project=slug, nodes=3)) as started:
        wait_phase(product, ada, phase)
        time.sleep(later)
        stopped = ada.stop(slug).status_code
        assert_never_ready_without_nodes(product, ada, slug)
    assert stopped in (202, 204, 404), stopped
    assert started[0] in (201, 202, 409), started

    def settled() -> bool:
        assert_never_ready_without_nodes(product, ada, slug)
        server = ada.servers().get(slug, {})
        assert not server.get("pending"), server
        return True

    wait_for(settled, "nothing is pending", seconds=TOLD_SECONDS)
    product.wait_truth(TOLD_SECONDS)
    runs = product.runs(ada.name)
    assert len(runs) <= 1
    if ada.is_ready(slug):  # the DELETE came before there was anything to delete
        assert phase == "asked"
    else:
        assert not [seen for seen in product.sightings() if seen.user == ada.name and seen.alive]
        assert not runs or not runs[0].is_open


def assert_never_ready_without_nodes(product: Product, person: Person, slug: str) -> None:
    """Whoever is told *ready* finds every node."""
    if person.is_ready(slug):
        living = [seen for seen in product.sightings() if seen.user == person.name and seen.alive]
        if len(living) != 3 and person.is_ready(slug):
            pytest.fail(f"told as ready with {len(living)} nodes of 3")
