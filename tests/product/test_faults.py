"""kill −9 of any part at any moment: the truth is told within 15 s, and usage counts to the last moment.

After each fault: no process without a row, no open row without its processes, the part is back within
seconds, the end of every interval is the moment at which the node died.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime

import httpx
import pytest
from sqlalchemy import update

from spawner.records import Run
from spawner.tables import clusters
from tests.product.product import Person, Product, alive, at_once, processes_of, wait_for

TOLD_SECONDS = 15
BACK_SECONDS = 45  # not a figure: how long a part may take on a machine that does ten other things
SERVICES = ("portal", "metering", "release", "queue")


def kill(pid: int) -> datetime:
    """kill −9; when that was."""
    os.kill(pid, signal.SIGKILL)
    return datetime.now(UTC)


def last_run(product: Product, person: Person) -> Run:
    return product.runs(person.name)[0]


def assert_counts_until(product: Product, run: Run, ended: dict[int, datetime]) -> None:
    """Each interval ends at most a second from the moment named, or says that it ends with the last sighting."""
    nodes = {node.rank: node for node in product.intervals(run.id)}
    for rank, moment in ended.items():
        gone = nodes[rank].gone_at
        assert gone is not None, f"node-{rank} counts still"
        off = (gone - moment).total_seconds()
        told = "sight" in nodes[rank].exit_reason or "seen" in nodes[rank].exit_reason
        assert abs(off) <= 1 or (told and -61 <= off <= 1), (
            f"node-{rank} counts until {off:+.1f} s from its end ({nodes[rank].exit_reason!r})"
        )


def wait_down(product: Product, person: Person, server: str) -> float:
    """Until hub and portal both say that the cluster is gone; how long that took."""
    begin = time.monotonic()

    def gone() -> bool:
        return not person.is_ready(server) and not [c for c in person.clusters() if c["server"] == server]

    wait_for(gone, f"{server} is told as gone", seconds=TOLD_SECONDS)
    product.wait_truth(TOLD_SECONDS)
    return time.monotonic() - begin


@pytest.mark.parametrize("rank", [0, 1])
def test_a_killed_node_releases_the_whole_with_the_reason(product: Product, ada: Person, rank: int):
    slug = ada.running("Node dies", nodes=2)
    other = product.node_pid(ada.name, slug, 1 - rank)
    died = kill(product.node_pid(ada.name, slug, rank))
    wait_down(product, ada, slug)
    run = last_run(product, ada)
    assert run.word == "released" and "node" in run.reason, run.reason
    assert not alive(other)
    assert_counts_until(product, run, {rank: died})


@pytest.mark.parametrize("rank", [0, 1])
def test_with_keep_the_rest_goes_on_and_the_dead_node_stops_counting(
    product: Product, ada: Person, rank: int
):
    slug = ada.running("Node dies alone", nodes=2, on_node_loss="keep")
    died = kill(product.node_pid(ada.name, slug, rank))
    run = last_run(product, ada)
    wait_for(
        lambda: next(n for n in product.intervals(run.id) if n.rank == rank).gone_at is not None,
        "the dead node stops counting",
        seconds=TOLD_SECONDS,
    )
    product.wait_truth(TOLD_SECONDS)
    assert_counts_until(product, run, {rank: died})
    if rank == 1:
        assert ada.is_ready(slug) and ada.node(slug, 0).status_code == 200
        assert next(n for n in product.intervals(run.id) if n.rank == 0).gone_at is None


def test_a_killed_proxy_comes_back_with_all_routes(product: Product, ada: Person):
    slug = ada.running("Proxy dies", nodes=2)
    product.wait_back("proxy", product.kill("proxy"), seconds=BACK_SECONDS)
    for rank in (0, 1):
        wait_for(
            lambda rank=rank: ada.node(slug, rank).status_code == 200,
            f"node-{rank} answers",
            seconds=TOLD_SECONDS,
        )
    assert ada.clusters()[0]["status"] == "running"
    product.wait_truth(TOLD_SECONDS)
    assert all(node.gone_at is None for node in product.intervals(last_run(product, ada).id))


def test_a_killed_hub_comes_back_while_clusters_run_on(product: Product, ada: Person):
    slug = ada.running("Hub dies", nodes=2)
    pids = [product.node_pid(ada.name, slug, rank) for rank in (0, 1)]
    product.wait_back("hub", product.kill("hub"), seconds=BACK_SECONDS)
    product.wait_ready(BACK_SECONDS)
    wait_for(lambda: ada.is_ready(slug), "the cluster is known again", seconds=TOLD_SECONDS)
    assert all(alive(pid) for pid in pids)
    for rank in (0, 1):
        wait_for(
            lambda rank=rank: ada.node(slug, rank).status_code == 200,
            f"node-{rank} answers",
            seconds=TOLD_SECONDS,
        )
    product.wait_truth(TOLD_SECONDS)
    (run,) = product.runs(ada.name)
    assert all(node.gone_at is None for node in product.intervals(run.id))


@pytest.mark.parametrize("delay", [0.02, 0.1, 0.25, 0.5, 1.0])
def test_a_hub_killed_in_the_middle_of_a_start_leaves_nothing_half_done(
    product: Product, ada: Person, delay: float
):
    slug = ada.project("Half a start")
    asking = threading.Thread(target=lambda: _quietly(lambda: ada.run(slug, project=slug, nodes=3)))
    asking.start()
    time.sleep(delay)
    old = product.kill("hub")
    asking.join()
    product.wait_back("hub", old, seconds=BACK_SECONDS)
    product.wait_ready(BACK_SECONDS)
    product.wait_truth(TOLD_SECONDS)
    runs = product.runs(ada.name)
    assert len(runs) <= 1
    if ada.is_ready(slug):  # it was done before the hub died
        assert runs[0].word == "running"
    else:
        assert not runs or not runs[0].is_open
        assert not [seen for seen in product.sightings() if seen.user == ada.name]
        assert ada.run(slug, project=slug, nodes=1).status_code in (201, 202)
        wait_for(lambda: ada.is_ready(slug), "the next start works", seconds=60)


@pytest.mark.parametrize("delay", [0.0, 0.05, 0.2, 0.5])
def test_a_hub_killed_in_the_middle_of_a_stop_finishes_it(product: Product, ada: Person, delay: float):
    slug = ada.running("Half a stop", nodes=3)
    asking = threading.Thread(target=lambda: _quietly(lambda: ada.stop(slug)))
    asking.start()
    time.sleep(delay)
    old = product.kill("hub")
    asking.join()
    product.wait_back("hub", old, seconds=BACK_SECONDS)
    product.wait_ready(BACK_SECONDS)
    product.wait_truth(TOLD_SECONDS)
    (run,) = product.runs(ada.name)
    if run.is_open:  # the hub died before it heard of the stop
        assert run.word == "running" and run.stop_asked_at is None
    else:
        assert not [seen for seen in product.sightings() if seen.user == ada.name]
        assert all(node.gone_at for node in product.intervals(run.id))


@pytest.mark.parametrize("service", SERVICES)
def test_a_killed_service_is_back_within_seconds(product: Product, ada: Person, service: str):
    slug = ada.running("Service dies")
    product.wait_back(service, product.kill(service), seconds=BACK_SECONDS)
    product.wait_ready(BACK_SECONDS)
    assert ada.is_ready(slug) and ada.node(slug).status_code == 200
    product.wait_truth(TOLD_SECONDS)


def test_a_cluster_whose_release_was_asked_while_the_hub_was_down_is_released(product: Product, ada: Person):
    slug = ada.running("Asked in the dark", nodes=2)
    (cluster,) = ada.clusters()
    old = product.kill("hub")
    _quietly(lambda: ada.portal("DELETE", f"/clusters/{cluster['id']}"))
    product.wait_back("hub", old, seconds=BACK_SECONDS)
    product.wait_ready(BACK_SECONDS)
    run = last_run(product, ada)
    if run.stop_asked_at is None and run.is_open:
        ada.stop(slug)
    wait_down(product, ada, slug)


def test_a_killed_supervisor_takes_its_parts_along_and_the_next_finds_the_clusters(
    product: Product, ada: Person
):
    slug = ada.running("Supervisor dies", nodes=2)
    nodes = [product.node_pid(ada.name, slug, rank) for rank in (0, 1)]
    parts = [life["pid"] for life in product.status()["parts"].values() if life["pid"]]
    assert product.process is not None
    product.process.kill()
    product.process.wait()
    wait_for(lambda: not any(alive(pid) for pid in parts), "no part outlives the supervisor", seconds=5)
    assert all(alive(pid) for pid in nodes), "nodes outlive it"
    product.start()
    wait_for(lambda: ada.is_ready(slug), "the cluster is known again", seconds=TOLD_SECONDS)
    assert all(alive(pid) for pid in nodes)
    wait_for(lambda: ada.node(slug, 1).status_code == 200, "node-1 answers", seconds=TOLD_SECONDS)
    product.wait_truth(TOLD_SECONDS)
    assert all(node.gone_at is None for node in product.intervals(last_run(product, ada).id))


def test_a_node_that_dies_while_everything_is_down_counts_to_its_end(product: Product, ada: Person):
    slug = ada.running("Dies alone", nodes=2)
    pid = product.node_pid(ada.name, slug, 1)
    product.end(signal.SIGTERM)
    died = kill(pid)
    product.start()
    wait_down(product, ada, slug)
    assert_counts_until(product, last_run(product, ada), {1: died})


def test_sigterm_leaves_clusters_for_the_next_start(product: Product, ada: Person):
    slug = ada.running("Stays", nodes=2)
    nodes = {product.node_pid(ada.name, slug, rank) for rank in (0, 1)}
    assert product.end(signal.SIGTERM) == 0
    left = set(processes_of(product.state))
    assert nodes <= left
    product.start()
    wait_for(lambda: ada.is_ready(slug), "the cluster is known again", seconds=TOLD_SECONDS)
    product.wait_truth(TOLD_SECONDS)
    assert nodes == {product.node_pid(ada.name, slug, rank) for rank in (0, 1)}


@pytest.mark.parametrize("delay", [0.0, 0.02, 0.05, 0.1, 0.2, 0.35, 0.5, 0.8, 1.2])
def test_delete_in_every_phase_of_a_start_ends_it_cleanly(product: Product, ada: Person, delay: float):
    slug = ada.project("Changed my mind")

    def later() -> int:
        time.sleep(delay)
        return ada.stop(slug).status_code

    started, stopped = at_once(lambda: ada.run(slug, project=slug, nodes=3).status_code, later)
    assert stopped in (202, 204, 404), stopped
    # 500 is the hub's own word to whoever still waits for a start that was cancelled under it.
    assert started in (201, 202, 400, 409, 500), started

    def settled() -> bool:
        server = ada.servers().get(slug, {})
        assert not server.get("pending"), server
        return True

    wait_for(settled, "nothing is pending", seconds=TOLD_SECONDS)
    product.wait_truth(TOLD_SECONDS)
    runs = product.runs(ada.name)
    assert len(runs) <= 1
    living = [seen for seen in product.sightings() if seen.user == ada.name and seen.alive]
    if ada.is_ready(slug):  # DELETE came before there was anything to delete
        assert stopped == 404 or delay == 0.0
        assert len(living) == 3
    else:
        assert not living
        assert not runs or not runs[0].is_open


def test_a_taken_port_is_said_plainly(product: Product, tmp_path_factory: pytest.TempPathFactory):
    other = Product(tmp_path_factory.mktemp("taken"))
    other.port = product.port
    other.launch()
    assert other.process is not None
    try:
        assert other.process.wait(30) != 0
        assert str(product.port) in other.said() and "Traceback" not in other.said()
    finally:
        other.close()


def test_a_locked_database_is_said_plainly_and_heals(product: Product, ada: Person):
    slug = ada.project("Locked out")
    with product.db.write():
        answer = ada.run(slug, project=slug)
    assert answer.status_code == 503, answer.text
    assert "busy" in answer.json()["message"]
    assert not ada.clusters()
    product.wait_truth(TOLD_SECONDS)
    assert ada.run(slug, project=slug).status_code in (201, 202)
    wait_for(lambda: ada.is_ready(slug), "the next start works", seconds=60)


def test_orphans_are_found_and_removed_by_the_sweeper(product: Product, ada: Person):
    slug = ada.running("Orphan", nodes=2)
    pids = [product.node_pid(ada.name, slug, rank) for rank in (0, 1)]
    with product.db.write() as conn:  # what no code of ours does: the row is closed under a living cluster
        conn.execute(
            update(clusters)
            .where(clusters.c.user == ada.name)
            .values(status="released", target="released", released_at=datetime.now(UTC))
        )
    # What is younger than a minute is no orphan yet: its row may be on its way.
    wait_for(
        lambda: slug in product.command("sweep", "--json", code=None),
        "the orphans are told",
        seconds=75,
        every=5,
    )
    assert all(alive(pid) for pid in pids), "a dry run removes nothing"
    product.command("sweep", "--remove")
    wait_for(lambda: not any(alive(pid) for pid in pids), "the orphans are gone", seconds=TOLD_SECONDS)


def _quietly(call: Callable[[], object]) -> None:
    """A call whose answer does not matter: the hub dies under it."""
    with contextlib.suppress(httpx.HTTPError):
        call()
