"""One node made anew while the others go on, in a real hub with a backend in memory."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta

import httpx
import pytest

from galilean.clock import utcnow
from galilean.errors import UserError
from spawner import attempts, records, renewal
from spawner.records import NodeInterval, Run, present
from spawner.renewing import attend_all
from spawner.sweeper import Sweeper
from tests.spawner.conftest import Hub, HubFactory


async def ask(hub: Hub, rank: int, how: str = "restart", *, attend: bool = True) -> NodeInterval:
    run = await hub.run()
    row = await hub.db.run(lambda conn: attempts.ask(conn, run.id, rank, how, by="ada", now=utcnow()))
    if attend:
        await attend_all(hub.app, hub.db)
    return row


async def settled(hub: Hub) -> list[NodeInterval]:
    """All intervals once nothing is under way."""

    async def look() -> bool:
        return not hub.spawner().renewals.ranks

    await hub.until(look, "the end of the renewal")
    return await hub.intervals(await hub.run())


def of(nodes: list[NodeInterval], rank: int) -> list[NodeInterval]:
    return [node for node in nodes if node.rank == rank]


@pytest.mark.parametrize("how", ["restart", "reset"])
async def test_a_node_is_made_anew_as_a_new_attempt_and_the_others_are_not_touched(hub: Hub, how: str):
    await hub.post(options={"nodes": 3})
    others = {rank: node for rank, node in hub.world.of("heat").items() if rank != 1}
    await ask(hub, 1, how)
    nodes = await settled(hub)
    assert [node.attempt for node in of(nodes, 1)] == [1, 2]
    old, new = of(nodes, 1)
    assert (old.exit_reason, new.asked_as, new.asked_by) == (
        {"restart": "restarted", "reset": "reset"}[how],
        how,
        "ada",
    )
    assert new.ready_at == old.gone_at, "what is held is counted without a gap and not twice"
    assert (new.host, new.url) == ("there", hub.world.url)
    assert hub.world.of("heat")[1].how == how
    assert all(hub.world.of("heat")[rank] is node for rank, node in others.items())
    assert all(node.gone_at is None and node.attempt == 1 for rank in (0, 2) for node in of(nodes, rank))
    assert (await hub.run()).word == "running"
    assert await hub.spawner().poll() is None


async def test_usage_over_a_restart_is_as_if_nothing_had_been(hub: Hub):
    await hub.post(options={"nodes": 2})
    await ask(hub, 1)
    await settled(hub)
    await hub.delete()
    run = await hub.run()
    nodes = await hub.intervals(run)
    assert run.ready_at is not None

    def seconds(since: datetime | None, until: datetime | None) -> float:
        assert since is not None
        assert until is not None
        return (until - since).total_seconds()

    counted = sum(seconds(node.ready_at, node.gone_at) for node in nodes)
    held = sum(seconds(run.ready_at, of(nodes, rank)[-1].gone_at) for rank in (0, 1))
    assert counted == pytest.approx(held)
    assert len(of(nodes, 1)) == 2


async def test_node_0_comes_back_at_the_same_address_and_the_hub_never_lost_the_server(hub: Hub):
    await hub.post(options={"nodes": 2})
    gate = hub.world.hold("answer again")
    await ask(hub, 0)
    await hub.world.at("answer again")
    for _ in range(3):
        assert await hub.spawner().poll() is None, "away on purpose is not lost"
    model = await hub.model()
    assert model is not None
    assert model["ready"]
    hub.world.moved_url = hub.world.url.replace("127.0.0.1", "localhost")
    gate.set()
    await settled(hub)
    spec = hub.spawner().proxy_spec

    async def follows() -> bool:
        return hub.app.proxy.table[spec]["target"] == hub.world.moved_url

    await hub.until(follows, "the route")
    assert await hub.spawner().poll() is None
    assert (await hub.spawner().get_url()).startswith(hub.world.moved_url)
    assert await hub.delete()
    assert not hub.world.nodes


async def test_the_route_of_a_worker_follows_to_its_new_address(hub: Hub):
    await hub.post(options={"nodes": 2})
    hub.world.moved_url = hub.world.url.replace("127.0.0.1", "localhost")
    await ask(hub, 1)
    await settled(hub)
    spec = f"{hub.spawner().proxy_spec}node-1/"

    async def follows() -> bool:
        return hub.app.proxy.table[spec]["target"] == hub.world.moved_url

    await hub.until(follows, "the route")


async def test_while_a_worker_is_away_nobody_is_led_to_where_it_was(hub: Hub):
    await hub.post(options={"nodes": 3})
    proxy, spec = hub.app.proxy, hub.spawner().proxy_spec
    gate = hub.world.hold("end")
    await ask(hub, 1)
    await hub.world.at("end")
    assert f"{spec}node-1/" not in proxy.table, "its address may be another person's once it has ended"
    await proxy.check_routes(hub.app.users, hub.app._service_map)
    assert f"{spec}node-1/" not in proxy.table
    assert {spec, f"{spec}node-2/"} <= set(proxy.table)
    gate.set()
    await settled(hub)
    assert proxy.table[f"{spec}node-1/"]["target"] == hub.world.url


async def test_a_proxy_that_is_away_keeps_no_node_from_being_made_anew(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
):
    async def away(*args: object) -> None:
        raise TimeoutError("the proxy does not answer")

    await hub.post(options={"nodes": 2})
    with monkeypatch.context() as patch:
        patch.setattr(hub.app.proxy, "delete_route", away)
        await ask(hub, 1)
        nodes = await settled(hub)
    assert of(nodes, 1)[-1].ready_at


async def test_who_asks_twice_at_once_gets_one_new_node_and_one_refusal(hub: Hub):
    await hub.post(options={"nodes": 2})
    answers = await asyncio.gather(*(ask(hub, 1) for _ in range(3)), return_exceptions=True)
    refused = [answer for answer in answers if isinstance(answer, UserError)]
    assert [(answer.status, answer.reason) for answer in refused] == [(409, "under_way")] * 2
    await settled(hub)
    assert hub.world.calls["again"] == 1
    await ask(hub, 1)  # and once more when it is back
    nodes = await settled(hub)
    assert [node.attempt for node in of(nodes, 1)] == [1, 2, 3]
    assert of(nodes, 1)[1].gone_at == of(nodes, 1)[2].ready_at


async def test_it_is_not_asked_of_a_cluster_that_does_not_run_nor_of_a_node_that_is_not_there(hub: Hub):
    await hub.post(options={"nodes": 2})
    with pytest.raises(UserError) as none:
        await ask(hub, 2)
    assert none.value.status == 404
    with pytest.raises(UserError) as how:
        await ask(hub, 1, "melt")
    assert how.value.status == 400
    run = await hub.run()
    await hub.db.run(records.ask_stop, run.id, reason="user", asked_by="ada", now=utcnow())
    with pytest.raises(UserError) as late:
        await ask(hub, 1)
    assert (late.value.status, late.value.reason) == (409, "not_running")


async def test_a_release_in_the_middle_of_a_restart_leaves_nothing(hub: Hub):
    await hub.post(options={"nodes": 2})
    hub.world.hold("answer again")
    await ask(hub, 1)
    await hub.world.at("answer again")
    assert (await hub.delete()).status_code == 204
    assert not hub.world.nodes
    run = await hub.run()
    assert run.word == "released"
    nodes = await hub.intervals(run)
    assert all(node.gone_at for node in nodes)
    never = of(nodes, 1)[1]
    assert never.ready_at is None, "what never answered costs nothing"


async def test_a_node_that_does_not_come_back_is_told_with_the_reason_and_offered_again(hub: Hub):
    await hub.post(options={"nodes": 3})  # whatever on_node_loss says: somebody chose this
    hub.world.broken_ranks = {1}
    await ask(hub, 1)
    nodes = await settled(hub)
    lost = of(nodes, 1)[-1]
    assert lost.gone_at
    assert lost.ready_at is None
    assert lost.exit_reason == "did not come back"
    assert lost.explanation == {
        "message": "Node {rank} ended before it answered ({why}).",
        "params": {"rank": 1, "why": "exited 1"},
    }
    assert sorted(hub.world.of("heat")) == [0, 2], "nothing half-made stays"
    for _ in range(3):
        assert await hub.spawner().poll() is None, "the others go on"
    hub.world.broken_ranks = set()
    await ask(hub, 1)
    nodes = await settled(hub)
    back = of(nodes, 1)[-1]
    assert back.gone_at is None
    assert back.ready_at == back.asked_at, "nothing counts for the time without it"
    assert sorted(hub.world.of("heat")) == [0, 1, 2]


async def test_without_its_image_a_node_is_left_as_it_is_and_says_why(hub: Hub):
    await hub.post(options={"nodes": 2})
    before = hub.world.of("heat")[1]
    hub.world.imageless_ranks = {1}
    await ask(hub, 1, "reset")
    nodes = await settled(hub)
    assert hub.world.of("heat")[1] is before
    (same,) = of(nodes, 1)
    assert same.gone_at is None
    assert same.explanation is not None
    assert same.explanation["message"] == "The image of node {rank} is not there any more."
    hub.world.imageless_ranks = set()
    await ask(hub, 1, "reset")
    assert of(await settled(hub), 1)[0].explanation is None, "the next time it is said no more"


async def test_a_backend_that_is_away_leaves_the_node_as_it_is(hub: Hub):
    await hub.post()
    hub.world.unreachable = True
    await ask(hub, 0)
    (same,) = await settled(hub)
    assert same.explanation is not None
    hub.world.unreachable = False
    assert await hub.spawner().poll() is None


@pytest.mark.parametrize("step", ["check", "end", "again", "answer again"])
@pytest.mark.parametrize("rank", [0, 1])
async def test_a_hub_that_is_killed_in_the_middle_is_followed_by_one_that_brings_the_node_back(
    hub_of: HubFactory, step: str, rank: int
):
    hub = await hub_of()
    await hub.post(options={"nodes": 2})
    hub.world.hold(step)
    await ask(hub, rank)
    await hub.world.at(step)
    await hub.die()
    hub.world.gates.pop(step).set()
    second = await hub_of()

    async def back() -> bool:
        await attend_all(second.app, second.db)
        nodes = of(await second.intervals(await second.run()), rank)
        return nodes[-1].attempt == 2 and nodes[-1].ready_at is not None

    await second.until(back, "the node")
    assert sorted(second.world.of("heat")) == [0, 1], "never two of a rank, nothing left over"
    assert (await second.run()).word == "running"
    assert await second.spawner().poll() is None
    sightings = await second.world.inventory()
    assert len(sightings) == 2
    report = await Sweeper(second.db, second.world, young=timedelta(0)).sweep()
    assert report.clean


@pytest.mark.parametrize("step", ["again", "answer again"])
async def test_what_a_hub_before_had_ended_is_not_called_left_as_it_is_nor_tried_for_ever(
    hub_of: HubFactory, step: str
):
    hub = await hub_of()
    await hub.post(options={"nodes": 2})
    hub.world.hold(step)
    await ask(hub, 1, "reset")
    await hub.world.at(step)
    await hub.die()
    hub.world.gates.pop(step).set()
    hub.world.imageless_ranks, hub.world.broken_ranks = {1}, {1}
    second = await hub_of()

    async def over() -> bool:
        await attend_all(second.app, second.db)
        return of(await second.intervals(await second.run()), 1)[-1].gone_at is not None

    await second.until(over, "the end of the attempt")
    old, new = of(await second.intervals(await second.run()), 1)
    assert old.gone_at and old.explanation is None
    assert new.exit_reason == "did not come back"
    assert not await second.db.run_read(attempts.asked)
    assert (await second.run()).word == "running" and sorted(second.world.of("heat")) == [0]


async def test_a_hub_that_comes_back_to_a_node_0_that_does_not_releases_the_cluster_in_words(
    hub_of: HubFactory,
):
    hub = await hub_of()
    await hub.post(options={"nodes": 2})
    hub.world.hold("again")
    await ask(hub, 0)
    await hub.world.at("again")
    await hub.die()
    hub.world.gates.pop("again").set()
    hub.world.broken_ranks = {0}
    second = await hub_of()
    run = await second.closed()
    assert run.reason == "node_lost"
    assert run.explanation is not None
    assert "node 0" in run.explanation["message"]
    assert not second.world.nodes


async def test_a_node_that_dies_by_itself_meanwhile_is_judged_as_ever(hub: Hub):
    await hub.post(options={"nodes": 3, "on_node_loss": "keep"})
    hub.world.hold("answer again")
    await ask(hub, 1)
    await hub.world.at("answer again")
    hub.world.kill("heat", 2)
    assert await hub.spawner().poll() is None
    hub.world.gates["answer again"].set()
    nodes = await settled(hub)
    assert of(nodes, 2)[-1].gone_at
    assert of(nodes, 1)[-1].ready_at
    assert sorted(node.rank for node in present(nodes) if node.gone_at is None) == [0, 1]
    await ask(hub, 2)  # who was lost may be had again
    nodes = await settled(hub)
    assert of(nodes, 2)[-1].ready_at == of(nodes, 2)[-1].asked_at


async def test_the_sweeper_takes_no_cluster_for_a_ghost_whose_only_node_is_being_made(hub: Hub):
    await hub.post()
    sweeper = Sweeper(hub.db, hub.world, young=timedelta(0))
    gate = hub.world.hold("again")
    await ask(hub, 0)
    await hub.world.at("again")
    for _ in range(3):
        assert (await sweeper.sweep(remove=True)).clean
    gate.set()
    await settled(hub)
    assert (await hub.run()).word == "running"


async def test_a_new_node_answers_at_its_own_route(hub: Hub):
    await hub.post(options={"nodes": 2})
    await ask(hub, 1)
    nodes = await settled(hub)
    async with httpx.AsyncClient() as client:
        assert (await client.get(present(nodes)[1].url)).status_code == 200


def test_a_pod_is_reset_and_not_restarted_and_says_so() -> None:
    run = Run(
        id="R", user="ada", server="heat", project_id="P", project_owner="ada", project_slug="heat",
        project_name="Heat", environment="jupyter", backend="kubernetes", nodes=1, cpu_millicores=1000,
        memory_bytes=1, release_policy="auto", request={}, status="running", asked_by="ada", queued_at=utcnow(),
    )  # fmt: skip
    refused = renewal.refusal(run, [], 0, "restart")
    assert refused is not None
    assert refused.reason == "not_offered"
    assert renewal.refusal(run, [], 0, "reset") is None


def test_every_backend_says_what_is_lost() -> None:
    for backend in ("process", "docker", "kubernetes"):
        assert renewal.offered(backend)
        assert all(loss.goes for loss in renewal.LOSES[backend].values())
