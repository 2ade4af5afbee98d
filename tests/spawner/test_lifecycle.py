"""A run's life in a real hub: start, refusals, stop; what can go wrong on the way is in test_faults."""

from __future__ import annotations

import asyncio

from spawner import records
from tests.spawner.conftest import Hub, HubFactory


async def test_a_start_makes_all_nodes_in_parallel_and_keeps_the_row_by(hub: Hub):
    answer = await hub.post(options={"nodes": 3, "cpu": 2, "memory": "2G"})
    assert answer.status_code == 201, answer.text
    run = await hub.run()
    assert (run.word, run.nodes, run.cpu_millicores, run.backend) == ("running", 3, 2000, "memory")
    assert run.asked_by == "ada"
    assert run.queued_at <= run.placed_at <= run.ready_at
    nodes = await hub.intervals(run)
    assert [node.rank for node in nodes] == [0, 1, 2]
    assert {node.ready_at for node in nodes} == {run.ready_at}
    assert all(node.url == hub.world.url and node.host == "here" for node in nodes)
    model = await hub.model()
    assert model is not None
    assert model["ready"]
    state = hub.spawner().get_state()
    assert state == {"run": run.id}


async def test_while_one_node_is_slow_the_row_says_who_answers_already(hub: Hub):
    hub.world.slow_ranks = {1}
    slow = hub.world.hold("slow")
    asked = asyncio.ensure_future(hub.post(options={"nodes": 2}))
    await hub.world.at("slow")

    async def one_answers() -> bool:
        return [node.url for node in await hub.intervals(await hub.run())] == [hub.world.url, ""]

    await hub.until(one_answers, "a word about node 0")
    run = await hub.run()
    assert run.word == "starting"
    assert not any(node.ready_at for node in await hub.intervals(run)), "nothing counts before all answer"
    slow.set()
    assert (await asked).status_code == 201
    assert {node.url for node in await hub.intervals(run)} == {hub.world.url}


async def test_a_stop_removes_all_nodes_and_closes_the_row_and_the_intervals(hub: Hub):
    await hub.post(options={"nodes": 2})
    assert (await hub.delete()).status_code == 204
    run = await hub.run()
    assert (run.word, run.reason) == ("released", "asked")
    assert not hub.world.nodes
    for node in await hub.intervals(run):
        assert run.ready_at < node.gone_at <= run.released_at, "it lived until it was removed"
        assert node.exit_reason == "released"
    assert hub.app.proxy.table.keys() == {hub.app.hub.routespec}


async def test_the_reason_that_was_asked_for_before_the_stop_stays(hub: Hub):
    await hub.post()
    run = await hub.run()
    await hub.db.run(records.ask_stop, run.id, reason="left", asked_by="service:release", now=run.ready_at)
    await hub.delete()
    run = await hub.run()
    assert (run.reason, run.stop_asked_by) == ("left", "service:release")


async def test_every_node_has_a_route_of_its_own(hub: Hub):
    await hub.post(options={"nodes": 3})
    spec = hub.spawner().proxy_spec
    routes = hub.app.proxy.table
    assert set(routes) == {hub.app.hub.routespec, spec, f"{spec}node-1/", f"{spec}node-2/"}
    assert routes[f"{spec}node-2/"]["data"]["node"] == 2
    assert routes[f"{spec}node-2/"]["target"] == hub.world.url


async def test_two_runs_of_one_project_at_once_make_one_cluster(hub: Hub):
    answers = await asyncio.gather(*(hub.post(options={"nodes": 2}) for _ in range(2)))
    assert {answer.status_code for answer in answers} <= {201, 202, 400}
    assert await hub.db.run_read(records.count_open) == 1
    assert hub.world.calls["create"] == 2


async def test_ten_runs_at_once_under_a_limit_of_two_are_exactly_two(hub_of: HubFactory):
    from galilean.settings import Limits

    hub = await hub_of(Limits.model_validate({"clusters": 2, "total_cpu": 100, "total_memory": "100G"}))
    answers = await asyncio.gather(*(hub.post(f"p{i}", {}) for i in range(10)))
    assert sorted(answer.status_code for answer in answers) == [201] * 2 + [429] * 8
    refused = next(answer for answer in answers if answer.status_code == 429)
    assert refused.reason_phrase == "quota"
    assert "hold 2" in refused.json()["message"]
    assert await hub.db.run_read(records.count_open) == 2
    assert len(hub.world.nodes) == 2


async def test_a_wrong_request_is_refused_in_words_and_leaves_nothing(hub: Hub):
    for options in (
        {"nodes": "two"},
        {"nodes": 0},
        {"cpu": -1},
        {"memory": 1e30},
        {"nodes": [1]},
        {"image": "evil"},
        {"environment": 7},
        {"colour": "red"},
    ):
        answer = await hub.post(options=options)
        assert answer.status_code == 400, options
        assert answer.reason_phrase == "invalid"
        assert "“" in answer.json()["message"]
    assert await hub.db.run_read(records.list_runs, open_only=False) == []
    model = await hub.model()
    assert model is None or (not model["ready"] and not model["pending"])
    answer = await hub.post(options={"project": "bob/heat"})
    assert answer.status_code == 404


async def test_a_refusal_speaks_the_language_of_whoever_asks(hub: Hub):
    answer = await hub.post(options={"nodes": 0}, **{"Accept-Language": "zh-CN,en;q=0.5"})
    assert answer.json()["message"] == "“nodes”应为 1 到 1024 之间的整数。"
    answer = await hub.post(options={"nodes": 0}, Cookie="galilean_language=en", **{"Accept-Language": "zh"})
    assert answer.json()["message"] == "“nodes” takes a whole number from 1 to 1024."


async def test_the_default_server_is_refused(hub: Hub):
    answer = await hub.request("POST", "/users/ada/server", {"user_options": {}})
    assert answer.status_code == 400
    assert "project" in answer.json()["message"]


async def test_without_a_body_it_is_the_defaults_not_the_last_options(hub: Hub):
    assert (await hub.post(options={"nodes": 0})).status_code == 400
    assert (await hub.post()).status_code == 201
    assert (await hub.run()).nodes == 1
    await hub.delete()
    assert (await hub.post(options={"nodes": 2})).status_code == 201
    await hub.delete()
    assert (await hub.post()).status_code == 201
    assert (await hub.run()).nodes == 1


async def test_a_start_on_behalf_passes_admission_and_is_told(hub: Hub):
    assert (await hub.post(name="boss")).status_code == 201
    run = await hub.run()
    assert (run.user, run.asked_by) == ("ada", "boss")


async def test_an_account_without_a_role_may_not_run(hub_of: HubFactory):
    hub = await hub_of(limits=None)
    answer = await hub.post(options={})
    assert answer.status_code == 403
    assert "waits for a role" in answer.json()["message"]


async def test_a_cluster_cannot_be_renamed(hub: Hub):
    await hub.post()
    await hub.delete()
    answer = await hub.request("PATCH", "/users/ada/servers/heat", {"name": "other"}, name="boss")
    assert answer.status_code == 400
    assert "renamed" in answer.text


async def test_progress_is_told_in_words_for_each_node(hub: Hub):
    gate = hub.world.hold("answer")
    start = asyncio.ensure_future(hub.post(options={"nodes": 2}))
    await hub.world.at("answer")
    told = []

    async def listen() -> None:
        async for event in hub.spawner().progress():
            told.append(event)

    listener = asyncio.ensure_future(listen())
    run = await hub.run()
    assert run.word == "starting"
    gate.set()
    assert (await start).status_code == 201
    await asyncio.wait_for(listener, 5)
    words = " ".join(event["message"] for event in told)
    assert "Node 1 has its place (2 of 2)." in words
    assert "Node 0 answers" in words
    assert [event["progress"] for event in told] == sorted(event["progress"] for event in told)


async def test_why_a_start_failed_is_told_once_its_removal_is_over_whatever_the_answer_to_a_request_was(
    hub: Hub,
):
    """What pages and tests may rely on: the hub answers 201 to whoever starts again what failed, at once and before
    anything is there, and while it removes what is left of a start it says that there is none."""
    hub.app.tornado_application.settings["slow_spawn_timeout"] = 0
    hub.world.broken_ranks = {0}
    for _ in range(2):
        gate = hub.world.hold("remove")
        assert (await hub.post()).status_code in (201, 202)
        await hub.world.at("remove")
        assert (await hub.request("GET", "/users/ada/servers/heat/progress")).status_code == 400
        gate.set()

        async def told() -> str:
            answer = await hub.request("GET", "/users/ada/servers/heat/progress")
            return answer.text if answer.status_code == 200 else ""

        assert "Node 0 ended before it answered (exited 1)" in await hub.until(told, "the reason")


async def test_what_has_a_place_is_in_the_row_before_it_answers(hub: Hub):
    gate = hub.world.hold("answer")
    start = asyncio.ensure_future(hub.post(options={"nodes": 2}))
    await hub.world.at("answer")

    async def placed() -> bool:
        return (await hub.run()).placed_at is not None

    await hub.until(placed)
    nodes = await hub.intervals(await hub.run())
    assert all(node.placed_at and node.ready_at is None for node in nodes)
    gate.set()
    await start


async def test_no_room_makes_it_wait_and_the_queue_service_starts_it_as_it_was_asked_for(hub_of: HubFactory):
    from extensions.quota.room import HostRoom

    hub = await hub_of(room=HostRoom(cpu_millicores=2000, memory_bytes=2**40))
    assert (await hub.post("first", {"cpu": 2})).status_code == 201
    answer = await hub.post("second", {"nodes": 2})
    assert (answer.status_code, answer.reason_phrase) == (503, "queued")
    assert (await hub.run("second")).word == "waiting"
    # Nobody younger overtakes, and the one who waits cannot be started before there is room.
    assert (await hub.post("third", {"cpu": 0.1})).status_code == 503
    assert (await hub.post("second", name="service:queue")).status_code == 503
    await hub.delete("first")
    assert (await hub.post("second", name="service:queue")).status_code == 201
    run = await hub.run("second")
    assert (run.word, run.nodes, run.asked_by) == ("running", 2, "ada")


async def test_removing_the_hubs_entry_of_a_waiting_run_leaves_it_in_line(hub_of: HubFactory):
    from extensions.quota.room import HostRoom

    hub = await hub_of(room=HostRoom(cpu_millicores=1000, memory_bytes=2**40))
    await hub.post("first", {})
    await hub.post("second", {})
    answer = await hub.request("DELETE", "/users/ada/servers/second", {"remove": True})
    assert answer.status_code == 204
    assert (await hub.run("second")).word == "waiting"
