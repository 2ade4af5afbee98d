from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from galilean.db import Database
from galilean.errors import UserError
from galilean.settings import Settings
from services.release import store
from services.release.entries import EntryCleaner, removable
from services.release.finish import Finisher, pause_after, why_finish
from services.release.releaser import Releaser, look_at
from spawner import records
from spawner.inventory import Sighting
from tests.metering.rows import T0, add_node, add_run, at
from tests.release.worlds import Backend, Clocks, Hub


def held(db: Database, run_id: str = "R1", server: str = "heat", **more: Any) -> None:
    with db.write() as conn:
        add_run(conn, run_id, server=server, **more)
        add_node(conn, run_id, 0, T0)


def releaser(db: Database, hub: Hub, backend: Backend | None = None, **more: Any) -> Releaser:
    return Releaser(
        Settings(),
        db,
        hub,
        backend or Backend(),
        clock=hub.clocks.now,
        monotonic=hub.clocks.monotonic,
        **more,
    )


async def pass_(service: Releaser, clocks: Clocks, seconds: float) -> None:
    until = clocks.seconds + seconds
    while clocks.seconds < until:
        clocks.seconds += 5
        await service.tick()


# ------------------------------------------------------------------------------------- who is released when


async def test_a_cluster_that_was_left_goes_back_after_the_grace(db: Database) -> None:
    held(db)
    clocks = Clocks()
    hub = Hub(db, clocks)
    hub.has("alice", "heat")
    service = releaser(db, hub)
    with db.write() as conn:
        records.saw(conn, "alice", "heat", proxy_at=at(10), node_at=at(10))
    await pass_(service, clocks, 890)
    assert hub.run("R1").word == "running"
    await pass_(service, clocks, 10)
    run = hub.run("R1")
    assert (run.word, run.reason, run.stop_asked_by) == ("released", "left", "service:release")
    assert run.released_at is not None and run.released_at - at(15) < timedelta(seconds=10)


async def test_who_is_there_keeps_the_cluster(db: Database) -> None:
    held(db)
    clocks = Clocks()
    hub = Hub(db, clocks)
    hub.has("alice", "heat")
    service = releaser(db, hub)
    for _ in range(60):
        with db.write() as conn:
            records.saw(conn, "alice", "heat", proxy_at=clocks.now(), node_at=clocks.now())
        await pass_(service, clocks, 30)
    assert hub.run("R1").word == "running" and hub.stops == []


@pytest.mark.parametrize("witness", ["proxy_at", "node_at"])
async def test_one_witness_alone_keeps_nothing(db: Database, witness: str) -> None:
    held(db)
    clocks = Clocks()
    hub = Hub(db, clocks)
    hub.has("alice", "heat")
    service = releaser(db, hub)
    for _ in range(11):
        with db.write() as conn:
            records.saw(conn, "alice", "heat", **{witness: clocks.now()})
        await pass_(service, clocks, 30)
    assert (hub.run("R1").word, hub.run("R1").reason) == ("released", "left")


@pytest.mark.parametrize("policy", ["manual", "7d", "a word of a later version"])
async def test_other_policies_are_kept(db: Database, policy: str) -> None:
    held(db, release_policy=policy)
    clocks = Clocks()
    hub = Hub(db, clocks)
    hub.has("alice", "heat")
    await pass_(releaser(db, hub), clocks, 3600)
    assert hub.run("R1").word == "running"


async def test_two_hours_count_from_leaving_the_platform_not_the_page(db: Database) -> None:
    held(db, release_policy="2h")
    held(db, "R2", "other", release_policy="manual")
    clocks = Clocks()
    hub = Hub(db, clocks)
    hub.has("alice", "heat")
    hub.has("alice", "other")
    service = releaser(db, hub)
    with db.write() as conn:
        records.saw(conn, "alice", "heat", proxy_at=at(1), node_at=at(1))
        records.saw(conn, "alice", "other", proxy_at=at(60), node_at=at(60))
    clocks.seconds = 179 * 60 - 120
    await pass_(service, clocks, 120)
    assert hub.run("R1").word == "running"
    await pass_(service, clocks, 120)
    assert (hub.run("R1").word, hub.run("R2").word) == ("released", "running")


async def test_an_outage_of_the_hub_delays_a_release_and_makes_none(db: Database) -> None:
    held(db)
    held(db, "R2", "other")
    clocks = Clocks()
    hub = Hub(db, clocks)
    hub.has("alice", "heat")
    hub.has("alice", "other")
    service = releaser(db, hub)

    def somebody_at(server: str) -> None:
        with db.write() as conn:
            records.saw(conn, "alice", server, proxy_at=clocks.now(), node_at=clocks.now())

    somebody_at("heat")
    somebody_at("other")
    hub.away = True  # nobody samples the proxy for an hour
    await pass_(service, clocks, 3600)
    hub.away = False
    await pass_(service, clocks, 30)
    assert hub.run("R1").word == hub.run("R2").word == "running"
    somebody_at("other")  # was there all the time; the witnesses say so again
    await pass_(service, clocks, 120)
    assert (hub.run("R1").word, hub.run("R2").word) == ("released", "running")


async def test_while_the_portal_is_away_presence_is_not_believed(db: Database) -> None:
    held(db)
    clocks = Clocks()
    hub = Hub(db, clocks)
    hub.has("alice", "heat")
    answers = False

    async def portal() -> bool:
        return answers

    service = releaser(db, hub, witnesses=[portal])
    await pass_(service, clocks, 1200)
    assert hub.run("R1").word == "running"
    answers = True
    await pass_(service, clocks, 120)
    assert hub.run("R1").word == "released"


async def test_who_came_back_at_the_last_moment_is_not_released(db: Database) -> None:
    held(db)
    clocks = Clocks()
    hub = Hub(db, clocks)
    service = releaser(db, hub)
    clocks.seconds = 600
    with db.read() as conn:
        round_ = look_at(store.held(conn, grace_seconds=300), clocks.now())
    assert round_.due == ["R1"]
    with db.write() as conn:
        records.saw(conn, "alice", "heat", proxy_at=clocks.now(), node_at=clocks.now())
        assert service._carry_out(conn, round_, clocks.now()) == ([], [])
    assert hub.run("R1").stop_asked_at is None


# --------------------------------------------------------------------------------------------- carrying out


@pytest.mark.parametrize(
    ("values", "gone", "reason"),
    [
        pytest.param({}, False, None, id="running"),
        pytest.param({}, True, "node_lost", id="running, all nodes gone"),
        pytest.param({"stop_asked_at": T0}, False, "", id="asked"),
        pytest.param({"target": "released"}, False, "", id="on its way out"),
        pytest.param({"status": "stopping", "target": "released"}, True, "", id="half stopped"),
        pytest.param({"status": "queued", "stop_asked_at": T0}, False, None, id="a wait is the queue's"),
        pytest.param({"status": "starting", "reserved_at": at(3)}, False, None, id="starting"),
        pytest.param({"status": "starting", "reserved_at": T0}, False, "start_failed", id="starts for ever"),
        pytest.param({"status": "reserved", "reserved_at": T0}, False, "start_failed", id="never began"),
        pytest.param({"status": "released", "released_at": at(1)}, True, None, id="closed"),
    ],
)
def test_what_should_end(sqlite_db: Database, values: dict[str, Any], gone: bool, reason: str | None) -> None:
    with sqlite_db.write() as conn:
        add_run(conn, "R1", **values)
        add_node(conn, "R1", 0, T0, at(1) if gone else None)
        run, lives = records.get(conn, "R1"), records.intervals(conn, ["R1"])["R1"]
    assert run is not None
    found = why_finish(run, lives, at(6), start_limit_seconds=300)
    assert (None if found is None else found.reason) == reason


@pytest.mark.parametrize(("asked_ago", "patience"), [(0, 5.0), (2, 3.0), (600, 0.0), (-60, 5.0)])
def test_the_hub_gets_its_five_seconds_once_from_the_asking(
    sqlite_db: Database, asked_ago: int, patience: float
) -> None:
    with sqlite_db.write() as conn:
        add_run(conn, "R1", stop_asked_at=T0)
        run = records.get(conn, "R1")
    assert run is not None
    found = why_finish(run, [], T0 + timedelta(seconds=asked_ago), start_limit_seconds=300)
    assert found is not None and found.patience_seconds == patience


def test_tries_come_at_growing_pauses_of_a_minute_at_most() -> None:
    assert [pause_after(tries) for tries in (1, 2, 3, 4, 5, 100)] == [5, 10, 20, 40, 60, 60]


async def test_a_release_pressed_while_the_hub_was_down_is_carried_out_when_it_is_back(db: Database) -> None:
    held(db, release_policy="manual")
    clocks = Clocks()
    hub = Hub(db, clocks)
    hub.has("alice", "heat")
    service = releaser(db, hub)
    hub.away = True
    with db.write() as conn:
        records.ask_stop(conn, "R1", reason="asked", asked_by="alice", now=T0)
    await pass_(service, clocks, 600)
    assert hub.run("R1").word == "running" and hub.stops == []
    hub.away = False
    await pass_(service, clocks, 15)
    assert (hub.run("R1").word, hub.run("R1").reason) == ("released", "asked")


async def test_a_run_whose_nodes_all_died_while_nobody_looked_is_ended(db: Database) -> None:
    held(db, release_policy="manual")
    with db.write() as conn:
        records.mark_node_gone(conn, "R1", 0, 1, at=at(1), exit_reason="lost")
    clocks = Clocks()
    hub = Hub(db, clocks)
    hub.has("alice", "heat")
    service = releaser(db, hub)
    await pass_(service, clocks, 10)
    assert hub.stops == []  # the hub's own poll comes first
    await pass_(service, clocks, 20)
    assert (hub.run("R1").word, hub.run("R1").reason) == ("released", "node_lost")


async def test_a_hub_that_errs_is_asked_again_with_growing_pauses_until_the_row_is_closed(
    db: Database,
) -> None:
    class Errs(Hub):
        times = 4

        async def stop(self, user: str, server: str, *, remove: bool = False) -> int:
            if self.times:
                self.times -= 1
                self.stops.append((user, server, remove))
                raise UserError(500, "{text}", text="boom")
            return await super().stop(user, server, remove=remove)

    held(db, release_policy="manual", stop_asked_at=T0, stop_asked_by="service:release")
    clocks = Clocks()
    hub = Errs(db, clocks)
    hub.has("alice", "heat")
    service = releaser(db, hub)
    await pass_(service, clocks, 60)
    assert (len(hub.stops) == 4 and hub.run("R1").word == "releasing") or hub.run("R1").is_open
    await pass_(service, clocks, 60)
    assert hub.run("R1").word == "released"


async def test_one_hub_answer_that_hangs_does_not_hold_up_the_others(db: Database) -> None:
    class Hangs(Hub):
        async def stop(self, user: str, server: str, *, remove: bool = False) -> int:
            if server == "heat":
                await asyncio.Event().wait()
            return await super().stop(user, server, remove=remove)

    for run_id, server in (("R1", "heat"), ("R2", "other")):
        held(db, run_id, server, stop_asked_at=T0, stop_asked_by="service:release")
    clocks = Clocks()
    hub = Hangs(db, clocks)
    hub.has("alice", "heat")
    hub.has("alice", "other")
    service = releaser(db, hub)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(1):
            await service.tick()
    assert hub.run("R2").word == "released"


async def test_a_run_that_the_hub_does_not_know_is_closed_from_here_with_nothing_left(db: Database) -> None:
    held(db, stop_asked_at=T0, reason="asked", nodes=2)
    with db.write() as conn:
        add_node(conn, "R1", 1, T0, sighted_at=at(1))
    mine = Sighting(user="alice", server="heat", run="R1", rank=0)
    other = Sighting(user="bob", server="heat", run="R9", rank=0)
    backend, clocks = Backend([mine, other]), Clocks()
    hub = Hub(db, clocks)
    service = releaser(db, hub, backend)
    await pass_(service, clocks, 20)
    assert hub.run("R1").is_open  # not at the first word
    backend.broken = True
    await pass_(service, clocks, 60)
    assert hub.run("R1").is_open  # cannot look: nothing is closed
    backend.broken = False
    await pass_(service, clocks, 120)
    assert (hub.run("R1").word, hub.run("R1").reason) == ("released", "asked")
    assert backend.there == [other]
    with db.read() as conn:
        node_0, node_1 = records.intervals(conn, ["R1"])["R1"]
    assert node_0.gone_at == hub.run("R1").released_at  # lived until it was removed
    assert node_1.gone_at == at(1)  # last seen


async def test_nothing_is_sent_for_a_row_that_closed_meanwhile(db: Database) -> None:
    held(db, stop_asked_at=T0)
    clocks = Clocks()
    hub = Hub(db, clocks)
    hub.has("alice", "heat")
    run = hub.run("R1")
    hub.end("alice", "heat")
    held(db, "R2")  # the person's next run under the same name
    finisher = Finisher(db, hub, Backend(), clock=clocks.now, monotonic=clocks.monotonic)
    finish = why_finish(run, [], clocks.now(), start_limit_seconds=300)
    assert finish is not None
    for _ in range(20):
        clocks.seconds += 5
        await finisher.finish([finish])
    assert hub.stops == [] and hub.run("R2").word == "running"


# ----------------------------------------------------------------------------------------- stopped entries


def test_an_entry_goes_when_it_was_idle_twice_and_nothing_is_open_under_its_name() -> None:
    def server(name: str, *, stopped: bool = True, pending: str | None = None) -> dict[str, Any]:
        return {"name": name, "stopped": stopped, "pending": pending}

    servers = [
        server(""),
        server("refused"),
        server("new"),
        server("waits"),
        server("runs", stopped=False),
        server("starts", pending="spawn"),
    ]
    people = [{"name": "alice", "servers": {one["name"]: one for one in servers}}, {"name": "bob"}]
    before = {("alice", one["name"]) for one in servers if one["name"] != "new"}
    going, idle = removable(people, {("alice", "waits")}, before)
    assert going == {("alice", "refused")}
    assert idle == {("alice", "refused"), ("alice", "new")}


async def test_the_entry_of_a_refused_server_is_removed_and_a_waiting_ones_stays(db: Database) -> None:
    with db.write() as conn:
        add_run(conn, "R1", server="waits", status="queued")
    clocks = Clocks()
    hub = Hub(db, clocks)
    for name in ("refused", "waits"):
        hub.has("alice", name, stopped=True)
    service = releaser(db, hub)
    await pass_(service, clocks, 60)
    assert hub.stops == []
    await pass_(service, clocks, 120)
    assert hub.stops == [("alice", "refused", True)]
    assert set(hub.servers) == {("alice", "waits")}


async def test_an_entry_that_is_started_right_then_is_left_alone(db: Database) -> None:
    class StartsMeanwhile(Hub):
        async def request(self, method: str, path: str, **more: Any):
            if path.endswith("/servers/heat"):
                self.has("alice", "heat", stopped=False, pending="spawn")
            return await super().request(method, path, **more)

    hub = StartsMeanwhile(db, Clocks())
    hub.has("alice", "heat", stopped=True)
    cleaner = EntryCleaner(db, hub)
    assert [await cleaner.clean(), await cleaner.clean()] == [0, 0]
    assert hub.stops == []


async def test_entries_are_found_over_many_pages(db: Database) -> None:
    hub = Hub(db, Clocks())
    for number in range(201):
        hub.has(f"u{number:03}", "heat", stopped=True)
    cleaner = EntryCleaner(db, hub)
    assert [await cleaner.clean(), await cleaner.clean()] == [0, 201]
    assert hub.servers == {}
