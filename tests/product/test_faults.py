"""kill −9 of any part while clusters run: the truth is told, and usage counts to the last moment.

After each fault: no process without a row, no open row without its processes, the part is back within
seconds, the end of every interval is the moment at which the node died.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable
from datetime import UTC, datetime

import httpx
import pytest

from spawner.records import Run
from tests.product.product import Person, Product, alive, processes_of, wait_for
from tests.product.truth import (
    BACK_SECONDS,
    TOLD_SECONDS,
    Fault,
    wait_gone,
    wait_reached,
    wait_running,
)

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


def assert_all_count(product: Product, run: Run) -> None:
    assert all(node.gone_at is None for node in product.intervals(run.id))


@pytest.mark.parametrize("rank", [0, 1])
def test_a_killed_node_releases_the_whole_with_the_reason(product: Product, ada: Person, rank: int):
    slug = ada.running("Node dies", nodes=2)
    run = last_run(product, ada)
    other = product.node_pid(ada.name, slug, 1 - rank)
    died = kill(product.node_pid(ada.name, slug, rank))
    wait_gone(product, ada, slug, run.id, Fault(f"node-{rank} killed"))
    run = last_run(product, ada)
    assert run.word == "released" and "node" in run.reason, run.reason
    assert not alive(other)
    assert_counts_until(product, run, {rank: died})
    (told,) = ada.clusters("all")
    assert told["status"] == "released"


@pytest.mark.parametrize("rank", [0, 1])
def test_with_keep_the_rest_goes_on_and_the_dead_node_stops_counting(
    product: Product, ada: Person, rank: int
):
    slug = ada.running("Node dies alone", nodes=2, on_node_loss="keep")
    run = last_run(product, ada)
    died = kill(product.node_pid(ada.name, slug, rank))
    fault = Fault(f"node-{rank} killed, the rest may go on")
    wait_for(
        lambda: next(n for n in product.intervals(run.id) if n.rank == rank).gone_at is not None,
        "the dead node stops counting",
        seconds=TOLD_SECONDS,
    )
    product.wait_truth(TOLD_SECONDS)
    assert_counts_until(product, run, {rank: died})
    if rank == 0:  # nothing goes on without its head
        wait_gone(product, ada, slug, run.id, fault)
        return
    told = ada.portal("GET", f"/clusters/{run.id}").raise_for_status().json()
    assert [node["state"] for node in told["node_list"]] == ["ready", "gone"]
    fault.note("told")
    assert ada.is_ready(slug) and ada.node(slug, 0).status_code == 200
    assert next(n for n in product.intervals(run.id) if n.rank == 0).gone_at is None


def test_a_killed_proxy_comes_back_with_all_routes(product: Product, ada: Person):
    slug = ada.running("Proxy dies", nodes=2)
    run = last_run(product, ada)
    old, fault = product.kill("proxy"), Fault("proxy killed")
    product.wait_back("proxy", old, seconds=BACK_SECONDS)
    wait_running(ada, run.id, fault)
    wait_reached(product, ada, slug, 2, fault)
    assert_all_count(product, run)


def test_a_killed_hub_comes_back_while_clusters_run_on(product: Product, ada: Person):
    slug = ada.running("Hub dies", nodes=2)
    run = last_run(product, ada)
    pids = [product.node_pid(ada.name, slug, rank) for rank in (0, 1)]
    wait_running(ada, run.id, Fault("nothing killed"))
    old, fault = product.kill("hub"), Fault("hub killed")
    wait_running(ada, run.id, fault)
    product.wait_back("hub", old, seconds=BACK_SECONDS)
    wait_reached(product, ada, slug, 2, fault)
    assert all(alive(pid) for pid in pids)
    assert_all_count(product, run)


def test_a_node_that_dies_while_the_hub_is_away_is_found_when_it_is_back(product: Product, ada: Person):
    slug = ada.running("Both die", nodes=2)
    run = last_run(product, ada)
    pid = product.node_pid(ada.name, slug, 1)
    old, fault = product.kill("hub"), Fault("hub and node-1 killed")
    died = kill(pid)
    product.wait_back("hub", old, seconds=BACK_SECONDS)
    wait_gone(product, ada, slug, run.id, fault)
    run = last_run(product, ada)
    assert run.word == "released" and "node" in run.reason, run.reason
    assert_counts_until(product, run, {1: died})


@pytest.mark.parametrize("service", SERVICES)
def test_a_killed_service_is_back_within_seconds(product: Product, ada: Person, service: str):
    slug = ada.running("Service dies")
    run = last_run(product, ada)
    old, fault = product.kill(service), Fault(f"{service} killed")
    product.wait_back(service, old, seconds=BACK_SECONDS)
    wait_running(ada, run.id, fault)
    wait_reached(product, ada, slug, 1, fault)


def test_a_killed_zygote_takes_no_node_along_and_starts_go_on(product: Product, ada: Person):
    slug = ada.running("Zygote dies", nodes=2)
    run = last_run(product, ada)
    old = product.kill("zygote")
    again = ada.project("Meanwhile")
    assert ada.run(again, project=again).status_code in (201, 202)
    wait_for(lambda: ada.is_ready(again), "a cluster starts without it", seconds=60)
    product.wait_back("zygote", old, seconds=BACK_SECONDS)
    assert ada.node(slug, 1).status_code == 200
    assert_all_count(product, run)
    product.wait_truth(TOLD_SECONDS)


def test_a_cluster_whose_release_was_asked_while_the_hub_was_down_is_released(product: Product, ada: Person):
    slug = ada.running("Asked in the dark", nodes=2)
    (cluster,) = ada.clusters()
    old, fault = product.kill("hub"), Fault("hub killed, release asked meanwhile")
    _quietly(lambda: ada.portal("DELETE", f"/clusters/{cluster['id']}"))
    product.wait_back("hub", old, seconds=BACK_SECONDS)
    product.wait_ready(BACK_SECONDS)
    run = last_run(product, ada)
    assert run.stop_asked_at is not None, "the portal writes it down while the hub is away"
    wait_gone(product, ada, slug, cluster["id"], fault)


def test_a_killed_supervisor_takes_its_parts_along_and_the_next_finds_the_clusters(
    product: Product, ada: Person
):
    slug = ada.running("Supervisor dies", nodes=2)
    run = last_run(product, ada)
    nodes = [product.node_pid(ada.name, slug, rank) for rank in (0, 1)]
    parts = [life["pid"] for life in product.status()["parts"].values() if life["pid"]]
    assert product.process is not None
    product.process.kill()
    product.process.wait()
    wait_for(lambda: not any(alive(pid) for pid in parts), "no part outlives the supervisor", seconds=15)
    assert all(alive(pid) for pid in nodes), "nodes outlive it"
    fault = Fault("supervisor killed, from its next start")
    product.start()
    wait_running(ada, run.id, fault)
    wait_reached(product, ada, slug, 2, fault)
    assert nodes == [product.node_pid(ada.name, slug, rank) for rank in (0, 1)]
    assert_all_count(product, run)


def test_sigterm_leaves_clusters_and_who_dies_meanwhile_counts_to_the_end(
    product: Product, ada: Person, grace: Person
):
    stays, dies = ada.running("Stays", nodes=2), grace.running("Dies alone", nodes=2)
    kept, lost = last_run(product, ada), last_run(product, grace)
    nodes = {product.node_pid(ada.name, stays, rank) for rank in (0, 1)}
    doomed = product.node_pid(grace.name, dies, 1)
    assert product.end(signal.SIGTERM) == 0
    assert nodes <= set(processes_of(product.state))
    died = kill(doomed)
    fault = Fault("a node killed while nothing ran, from the next start")
    product.start()
    wait_gone(product, grace, dies, lost.id, fault)
    assert_counts_until(product, last_run(product, grace), {1: died})
    wait_reached(product, ada, stays, 2, Fault("stopped by SIGTERM, once it answers again"))
    assert nodes == {product.node_pid(ada.name, stays, rank) for rank in (0, 1)}
    assert_all_count(product, kept)


def _quietly(call: Callable[[], object]) -> None:
    """A call whose answer does not matter: the hub dies under it."""
    with contextlib.suppress(httpx.HTTPError):
        call()
