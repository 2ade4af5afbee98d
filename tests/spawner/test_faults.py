"""What goes wrong: cancelled starts, dead nodes, a backend that does not answer, hubs that die.

After each: no node without an open row, no open row without a node, and the hub says the truth.
"""

from __future__ import annotations

import asyncio

import pytest

from extensions.quota.room import HostRoom
from galilean.clock import utcnow
from spawner import records
from spawner.leftovers import finish_leftovers
from spawner.proxy import node_spec
from spawner.states import Status
from tests.spawner.backends import PlainResolver, World
from tests.spawner.conftest import Hub, HubFactory


async def nothing_left(hub: Hub, server: str = "heat") -> None:
    assert hub.world.of(server) == {}
    assert await hub.db.run_read(records.count_open) == 0
    model = await hub.model(server)
    assert model is None or (not model["ready"] and not model["pending"])


class SlowResolver(PlainResolver):
    def __init__(self, world: World) -> None:
        self.world = world

    async def resolve(self, *args):
        await self.world.pass_("resolve")
        return await super().resolve(*args)


@pytest.mark.parametrize("phase", ["resolve", "create", "answer"])
async def test_a_delete_in_any_phase_of_a_start_leaves_nothing(hub_of: HubFactory, world: World, phase: str):
    hub = await hub_of(resolver=SlowResolver(world))
    gate = world.hold(phase)
    start = asyncio.ensure_future(hub.post(options={"nodes": 2}))
    await world.at(phase)
    delete = asyncio.ensure_future(hub.delete())
    await asyncio.sleep(0.3)
    model = await hub.model()
    assert model is None or not model["ready"], "ready without nodes"
    gate.set()
    assert (await delete).status_code in (202, 204)
    await asyncio.wait({start})
    await nothing_left(hub)
    runs = await hub.db.run_read(records.list_runs, open_only=False)
    assert [(run.word, run.reason) for run in runs] in ([], [("released", "cancelled")])
    assert hub.app.proxy.table.keys() == {hub.app.hub.routespec}


async def test_a_delete_while_admission_writes_leaves_no_reserved_row(hub_of: HubFactory, world: World):
    hub = await hub_of()
    reached, gate = asyncio.Event(), asyncio.Event()
    admit = hub.app.users["ada"] and hub.app.config.VirtualCluster.collaborators.admission.admit

    async def slow(*args):
        admitted = await admit(*args)  # the row is there, its owner does not know yet
        reached.set()
        await gate.wait()
        return admitted

    hub.app.config.VirtualCluster.collaborators.admission.admit = slow
    start = asyncio.ensure_future(hub.post())
    await asyncio.wait_for(reached.wait(), 5)
    delete = asyncio.ensure_future(hub.delete())
    await asyncio.sleep(1.3)
    gate.set()
    assert (await delete).status_code in (202, 204)
    await asyncio.wait({start})
    await hub.closed()
    await nothing_left(hub)


async def test_releasing_twice_at_once_during_a_start_is_one_release(hub: Hub):
    gate = hub.world.hold("answer")
    start = asyncio.ensure_future(hub.post(options={"nodes": 2}))
    await hub.world.at("answer")
    first = asyncio.ensure_future(hub.delete())

    async def cancelled() -> bool:
        return not hub.spawner().pending

    await hub.until(
        cancelled, "cancelling the start"
    )  # before that the hub itself answers the second with 500
    second = asyncio.ensure_future(hub.request("DELETE", "/users/ada/servers/heat", {"remove": True}))
    answers = await asyncio.gather(first, second)
    assert {answer.status_code for answer in answers} <= {202, 204}
    gate.set()
    await asyncio.wait({start})
    await nothing_left(hub)
    assert hub.world.calls["remove"] == 1


async def test_a_run_right_after_a_cancelled_one_is_refused_or_runs_but_never_doubles(hub: Hub):
    gate = hub.world.hold("answer")
    start = asyncio.ensure_future(hub.post())
    await hub.world.at("answer")
    delete = asyncio.ensure_future(hub.delete())
    await asyncio.sleep(0.2)
    again = await hub.post()
    # Accepted, when for the hub the first is being started still: then it is the same.
    assert again.status_code in (202, 409)
    assert (await delete).status_code in (202, 204)
    gate.set()
    await asyncio.wait({start})
    await nothing_left(hub)
    assert (await hub.post()).status_code == 201


async def test_one_node_that_fails_takes_the_whole_start_with_it_and_says_why(hub: Hub):
    hub.world.broken_ranks = {1}
    answer = await hub.post(options={"nodes": 3})
    assert answer.status_code == 500
    assert answer.reason_phrase == "start_failed"
    assert answer.json()["message"] == "Node 1 ended before it answered (exited 1)."
    run = await hub.run()
    assert (run.word, run.reason) == ("failed", "start_failed")
    assert run.explanation == {
        "message": "Node {rank} ended before it answered ({why}).",
        "params": {"rank": 1, "why": "exited 1"},
    }
    assert all(node.ready_at is None for node in await hub.intervals(run))
    await nothing_left(hub)
    hub.world.broken_ranks = set()
    assert (await hub.post()).status_code == 201


async def test_nodes_that_find_no_place_in_time_send_the_run_back_into_the_line(hub_of: HubFactory):
    hub = await hub_of(gang_timeout=0.2)
    gate = hub.world.hold("create")
    answer = await hub.post(options={"nodes": 2})
    assert (answer.status_code, answer.reason_phrase) == (503, "queued")
    run = await hub.run()
    assert (run.word, run.reason) == ("waiting", "not_placed")
    assert hub.world.nodes == {}
    gate.set()
    assert (await hub.post(name="service:queue")).status_code == 201
    run = await hub.run()
    assert (run.word, run.nodes, run.attempt, run.reason) == ("running", 2, 2, "")
    nodes = await hub.intervals(run)
    assert [(node.rank, node.attempt, node.ready_at is None) for node in nodes] == [
        (0, 1, True),
        (0, 2, False),
        (1, 1, True),
        (1, 2, False),
    ]


async def test_nodes_that_do_not_answer_in_time_are_all_removed(hub_of: HubFactory):
    hub = await hub_of(start_timeout=3)
    hub.world.hold("answer")
    answer = await hub.post(options={"nodes": 2})
    assert answer.status_code == 500
    assert "0, 1" in answer.json()["message"]
    assert (await hub.run()).word == "failed"
    await nothing_left(hub)


async def test_what_kept_nodes_from_answering_is_told_when_their_time_is_over(hub_of: HubFactory):
    hub = await hub_of(start_timeout=3)
    hub.world.kept_by = dict.fromkeys((0, 1), "503 Service Unavailable")
    hub.world.hold("answer")
    answer = await hub.post(options={"nodes": 2})
    assert answer.status_code == 500
    assert answer.json()["message"].count("503 Service Unavailable") == 1
    assert (await hub.run()).word == "failed"
    await nothing_left(hub)


async def test_a_removal_that_fails_is_tried_again_until_it_is_done(hub: Hub):
    await hub.post(options={"nodes": 2})
    hub.world.remove_failures = 2
    assert (await hub.delete()).status_code in (202, 204)
    await hub.closed()
    await nothing_left(hub)
    assert hub.world.calls["remove"] == 3


async def test_an_unreachable_backend_delays_a_release_and_is_never_taken_for_gone(hub: Hub):
    await hub.post()
    spawner = hub.spawner()
    hub.world.unreachable = True
    assert await spawner.poll() is None
    delete = asyncio.ensure_future(hub.delete())

    async def stopping() -> bool:
        return (await hub.run()).status == "stopping"

    await hub.until(stopping, "the stop")
    run = await hub.run()
    assert (run.target, run.released_at) == ("released", None)
    hub.world.unreachable = False
    assert (await delete).status_code in (202, 204)
    await hub.closed()
    await nothing_left(hub)


async def test_a_database_that_cannot_be_read_is_not_an_end(hub: Hub, monkeypatch):
    await hub.post()
    spawner = hub.spawner()
    spawner._run = None

    async def broken(*args, **kwargs):
        raise OSError("gone for a moment")

    with monkeypatch.context() as patch:
        patch.setattr(spawner.collaborators.database, "run_read", broken)
        assert await spawner.poll() is None
    assert await spawner.poll() is None
    assert (await hub.run()).word == "running"


async def test_a_dead_node_releases_the_whole_and_says_why(hub: Hub):
    await hub.post(options={"nodes": 3})
    died = hub.world.kill("heat", 2)
    assert await hub.spawner().poll_and_notify() == 1
    run = await hub.run()
    assert (run.word, run.reason) == ("released", "node_lost")
    assert run.explanation is not None
    assert run.explanation["params"] == {"rank": 2, "why": "killed by signal 9"}
    nodes = await hub.intervals(run)
    assert nodes[2].gone_at == died
    assert nodes[2].exit_reason == "killed by signal 9"
    assert died < nodes[0].gone_at <= run.released_at
    await nothing_left(hub)
    assert hub.app.proxy.table.keys() == {hub.app.hub.routespec}


async def test_a_dead_worker_may_be_survived_a_dead_head_not(hub: Hub):
    await hub.post(options={"nodes": 3, "on_node_loss": "keep"})
    spec = hub.spawner().proxy_spec
    died = hub.world.kill("heat", 2)
    assert await hub.spawner().poll_and_notify() is None
    run = await hub.run()
    assert run.word == "running"
    assert [node.gone_at for node in await hub.intervals(run)] == [None, None, died]
    assert node_spec(spec, 2) not in hub.app.proxy.table, "its address may be another person's next"
    await hub.app.proxy.check_routes(hub.app.users, {})
    assert node_spec(spec, 2) not in hub.app.proxy.table
    assert node_spec(spec, 1) in hub.app.proxy.table
    hub.world.kill("heat", 0)
    assert await hub.spawner().poll_and_notify() == 1
    assert (await hub.run()).reason == "node_lost"
    assert (await hub.intervals(run))[2].gone_at == died
    await nothing_left(hub)


async def test_a_start_right_after_a_loss_is_not_stopped_in_place_of_what_was_lost(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
):
    """It comes while the hub, told of the loss, is still taking the routes away."""
    await hub.post()
    lost = await hub.run()
    del hub.world.nodes["ada", "heat", 0]
    goes, gate, spawner = asyncio.Event(), asyncio.Event(), hub.spawner()

    async def slowly(*_: object) -> None:
        goes.set()
        await gate.wait()

    with monkeypatch.context() as patch:
        patch.setattr(hub.app.proxy, "delete_user", slowly)
        assert await spawner.poll() is None  # the first look at nothing is not believed
        telling = asyncio.ensure_future(spawner.poll_and_notify())
        await asyncio.wait_for(goes.wait(), 15)
        asked = asyncio.ensure_future(hub.post())
        await asyncio.wait({asked}, timeout=0.5)  # time to come to where it waits, or to go wrong
        gate.set()
        await telling
        answer = await asked
    assert answer.status_code == 201, answer.text
    run = await hub.run()
    assert (run.word, run.id != lost.id) == ("running", True)
    assert hub.spawner().ready


async def test_a_node_that_is_not_seen_once_is_not_lost_yet(hub: Hub):
    await hub.post(options={"nodes": 2})
    spawner = hub.spawner()
    gone = hub.world.nodes.pop(("ada", "heat", 1))
    assert await spawner.poll() is None
    hub.world.nodes["ada", "heat", 1] = gone
    assert await spawner.poll() is None
    del hub.world.nodes["ada", "heat", 1]
    assert await spawner.poll() is None
    assert await spawner.poll() == 1


@pytest.mark.parametrize("goes_on", [False, True])
async def test_a_node_that_vanished_counts_until_the_hub_last_saw_it(hub: Hub, goes_on: bool):
    """Its end is not known, and the hub's own *now* is too late by two looks."""
    await hub.post(options={"nodes": 2, "on_node_loss": "keep" if goes_on else "release"})
    spawner = hub.spawner()
    ready = (await hub.run()).ready_at
    assert await spawner.poll() is None
    seen = utcnow()
    del hub.world.nodes["ada", "heat", 1]
    assert await spawner.poll() is None
    assert await spawner.poll() == (None if goes_on else 1)
    node = (await hub.intervals(await hub.run()))[1]
    assert ready < node.gone_at < seen
    assert (node.sighted_at, node.exit_reason) == (node.gone_at, "disappeared, counted until last seen")


async def test_a_hub_killed_between_removing_and_writing_bills_nobody_for_its_absence(
    hub_of: HubFactory, world: World
):
    first = await hub_of()
    await first.post(options={"nodes": 2})
    run = await first.run()
    seen = utcnow()
    await first.db.run(records.sight_nodes, [(run.id, 0, 1), (run.id, 1, 1)], seen)
    gate = world.hold("remove")
    asyncio.ensure_future(first.delete()).add_done_callback(lambda task: task.cancelled() or task.exception())
    await world.at("remove")
    world.nodes.clear()  # they are gone, and nobody could write it
    await first.die()
    gate.set()
    hub = await hub_of()
    run = await hub.closed()
    assert [node.gone_at for node in await hub.intervals(run)] == [seen, seen]
    await nothing_left(hub)


async def test_a_running_cluster_is_adopted_by_the_next_hub(hub_of: HubFactory):
    first = await hub_of()
    await first.post(options={"nodes": 3})
    before = await first.run()
    await first.die()
    hub = await hub_of()
    await hub.until(lambda: ready(hub), "adopting")
    assert (await hub.run()) == before
    assert len(hub.world.nodes) == 3
    assert hub.spawner().node_urls == dict.fromkeys(range(3), hub.world.url)
    assert await hub.spawner().poll() is None
    await hub.app.proxy.check_routes(hub.app.users, {})
    assert len(hub.app.proxy.table) == 4
    assert (await hub.delete()).status_code == 204
    await nothing_left(hub)


async def ready(hub: Hub) -> bool:
    model = await hub.model()
    return bool(model and model["ready"])


@pytest.mark.parametrize("goes_on", [False, True])
async def test_a_node_written_off_while_no_hub_ran_ends_its_cluster_unless_the_rest_may_go_on(
    hub_of: HubFactory, world: World, goes_on: bool
):
    """The metering writes the end of a node; that it is written does not mean that anybody acted on it."""
    first = await hub_of()
    await first.post(options={"nodes": 2, "on_node_loss": "keep" if goes_on else "release"})
    run = await first.run()
    await first.die()
    died = world.kill("heat", 1)
    await first.db.run(records.mark_node_gone, run.id, 1, 1, at=died, exit_reason="ended")
    hub = await hub_of()
    if goes_on:
        await hub.until(lambda: ready(hub), "adopting")
        assert await hub.spawner().poll() is None
        assert hub.spawner().node_urls.keys() == {0}
        assert (await hub.run()).word == "running"
    else:
        run = await hub.closed()
        assert (run.word, run.reason) == ("released", "node_lost")
        await hub.until(lambda: settled(hub), "settling")
        await nothing_left(hub)
    assert (await hub.intervals(run))[1].gone_at == died


async def test_a_start_that_a_dead_hub_left_is_finished_off_by_the_next(hub_of: HubFactory, world: World):
    first = await hub_of()
    gate = world.hold("answer")
    asyncio.ensure_future(first.post(options={"nodes": 2})).add_done_callback(
        lambda task: task.cancelled() or task.exception()
    )
    await world.at("answer")
    await first.die()
    gate.set()
    assert len(world.nodes) == 2
    hub = await hub_of()
    run = await hub.closed()
    assert (run.word, run.reason) == ("failed", "hub_lost")
    await hub.until(lambda: settled(hub), "settling")
    await nothing_left(hub)


async def settled(hub: Hub) -> bool:
    model = await hub.model()
    return model is None or not model["pending"]


async def test_a_stop_that_a_dead_hub_left_is_finished_by_the_next(hub_of: HubFactory, world: World):
    first = await hub_of()
    await first.post(options={"nodes": 2})
    gate = world.hold("remove")
    asyncio.ensure_future(first.delete()).add_done_callback(lambda task: task.cancelled() or task.exception())
    await world.at("remove")
    await first.die()
    gate.set()
    assert (await first.db.run_read(records.all_open))[0].status == Status.STOPPING
    hub = await hub_of()
    run = await hub.closed()
    assert (run.word, run.reason) == ("released", "asked")
    await hub.until(lambda: settled(hub), "settling")
    await nothing_left(hub)


async def test_a_stop_that_a_hub_told_to_go_forgot_is_finished_by_the_next(hub_of: HubFactory, world: World):
    """On its way down the hub writes the server out of its own database: nobody will ever poll it."""
    first = await hub_of()
    await first.post(options={"nodes": 2})
    gate = world.hold("remove")
    asyncio.ensure_future(first.delete()).add_done_callback(lambda task: task.cancelled() or task.exception())
    await world.at("remove")
    await first.die(politely=True)
    gate.set()
    hub = await hub_of()
    run = await hub.run()
    assert (run.word, len(world.nodes)) == ("releasing", 2)
    assert await finish_leftovers(hub.app, hub.db) == [run.id]
    run = await hub.run()
    assert (run.word, run.reason) == ("released", "asked")
    await nothing_left(hub)
    assert await finish_leftovers(hub.app, hub.db) == []


async def test_what_runs_or_waits_or_starts_is_no_leftover(hub_of: HubFactory, world: World):
    hub = await hub_of(room=HostRoom(cpu_millicores=2000, memory_bytes=2**40))
    await hub.post("one", {})
    gate = world.hold("answer")
    start = asyncio.ensure_future(hub.post("two", {}))
    await world.at("answer")
    assert (await hub.post("three", {})).status_code == 503
    assert await finish_leftovers(hub.app, hub.db) == []
    gate.set()
    assert (await start).status_code == 201
    assert [run.word for run in await hub.db.run_read(records.all_open)] == ["running", "running", "waiting"]


async def test_a_backend_that_is_away_when_the_hub_starts_loses_no_cluster(hub_of: HubFactory, world: World):
    first = await hub_of()
    await first.post(options={"nodes": 2})
    await first.die()
    world.unreachable = True
    hub = await hub_of()
    await hub.until(lambda: ready(hub), "adopting")
    assert hub.spawner().node_urls.keys() == {0, 1}
    world.unreachable = False
    assert await hub.spawner().poll() is None
    assert (await hub.run()).word == "running"


async def test_a_row_that_the_hub_knows_nothing_of_is_finished_off_by_the_next_run(hub: Hub):
    """The hub's database was lost, ours was not."""
    await hub.post(options={"nodes": 2})
    user = hub.app.users["ada"]
    spawner = user.spawners["heat"]
    spawner.stop_polling()
    user.spawners.pop("heat")
    hub.app.db.delete(spawner.orm_spawner)
    hub.app.db.commit()
    assert (await hub.post()).status_code == 409
    await nothing_left(hub)
    assert (await hub.post()).status_code == 201
