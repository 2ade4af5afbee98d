"""Whole rounds of the service: warnings, when done, sign-out, idleness, extensions, budgets, faults of clocks."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import event, insert, select, update

from galilean import notices
from galilean.db import Database
from galilean.errors import UserError
from galilean.settings import Settings
from services.release import ask, releaser, store
from services.release.releaser import Releaser
from services.release.tables import presence
from services.release.terms import Terms
from spawner import records
from spawner.records import Run
from spawner.tables import cluster_nodes, clusters, node_use
from spawner.use import tell_busy
from tests.metering.rows import T0, add_node, add_run, at
from tests.release.worlds import Backend, Clocks, Hub


class World:
    """One cluster of alice's on given terms, a hub, and the service."""

    def __init__(self, db: Database, policy: str = "auto", **terms: Any) -> None:
        self.db, self.clocks = db, Clocks()
        self.hub = Hub(db, self.clocks)
        self.hub.has("alice", "heat")
        self.budget: dict[str, float] = {}
        kept = {**Terms(policy=policy, **terms).to_json(), "budgets": [1]}
        with db.write() as conn:
            add_run(conn, "R1", server="heat", release_policy=policy, release_terms=kept)
            add_node(conn, "R1", 0, T0)
        self.service = Releaser(
            Settings(), db, self.hub, Backend(), budgets=self._left,
            clock=self.clocks.now, monotonic=self.clocks.monotonic,
        )  # fmt: skip

    def _left(self, conn: Any, run_ids: Sequence[str], now: datetime) -> dict[str, float]:
        return {run: until - self.clocks.seconds for run, until in self.budget.items() if run in run_ids}

    @property
    def run(self) -> Run:
        return self.hub.run("R1")

    @property
    def told(self) -> list[tuple[str, str]]:
        with self.db.read() as conn:
            found = reversed(notices.list_for(conn, "alice"))
        return [(one.kind, one.text) for one in found]

    def kinds(self) -> list[str]:
        return [kind for kind, _ in self.told]

    def look(self) -> None:
        """Somebody has a page of the cluster open."""
        with self.db.write() as conn:
            now = self.clocks.now()
            records.saw(conn, "alice", "heat", proxy_at=now, node_at=now)

    def busy(self, *, processes: int = 0, kernels: int = 1) -> None:
        """A node says what runs."""
        with self.db.write() as conn:
            said = {"kernels": kernels, "processes": processes}
            tell_busy(conn, self.run, 0, said, self.clocks.now())

    def use(self, **values: Any) -> None:
        with self.db.write() as conn:
            done = conn.execute(update(node_use).where(node_use.c.cluster_id == "R1").values(values))
            if done.rowcount == 0:
                conn.execute(insert(node_use).values(cluster_id="R1", rank=0, **values))

    async def pass_(self, seconds: float, *, step: float = 10, each: Any = None) -> None:
        until = self.clocks.seconds + seconds
        while self.clocks.seconds < until:
            self.clocks.seconds += step
            if each is not None:
                each()
            await self.service.tick()


async def test_who_left_is_warned_in_time_and_once_and_again_after_coming_back(db: Database) -> None:
    world = World(db)
    await world.pass_(140)
    assert world.told == []
    await world.pass_(60)
    assert world.kinds() == ["warning"] and world.run.warned_at == at(2.5)
    assert world.run.release_at == at(5) and world.run.release_why == "left"
    world.look()
    await world.pass_(140)
    assert world.kinds() == ["warning"]
    await world.pass_(30)
    assert world.kinds() == ["warning", "warning"]
    await world.pass_(300)
    assert world.kinds() == ["warning", "warning", "released"]
    assert (world.run.word, world.run.reason) == ("released", "left")


async def test_very_many_are_warned_some_at_a_time_and_nobody_else_is_kept_from_writing(
    db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(releaser, "DUE_AT_ONCE", 2)
    monkeypatch.setattr(releaser, "BREATH_SECONDS", 0)
    world = World(db)
    with db.write() as conn:
        for number in range(2, 6):
            add_run(conn, f"R{number}", server=f"s{number}", release_policy="auto")
            add_node(conn, f"R{number}", 0, T0)
    await world.pass_(140)
    parts: list[int] = []
    carry_out = world.service._carry_out

    def each(conn: Any, part: releaser.Round, now: datetime) -> Any:
        parts.append(len(part.due))
        return carry_out(conn, part, now)

    monkeypatch.setattr(world.service, "_carry_out", each)
    await world.pass_(60)
    assert [due for due in parts if due] == [2, 2, 1]
    assert world.kinds() == ["warning"] * 5
    with db.read() as conn:
        assert {run.warned_at for run in records.all_open(conn)} == {at(2.5)}
    parts.clear()
    await world.pass_(120)
    assert [due for due in parts if due][:3] == [2, 2, 1]
    assert world.kinds().count("released") == 5


async def test_the_warning_says_that_something_still_runs_and_when_done_lets_it_end(db: Database) -> None:
    world = World(db)
    await world.pass_(200, each=world.busy)
    assert [kind for kind, text in world.told if "still runs" in text] == ["warning"]
    with db.write() as conn:
        assert ask.may_when_done(world.run, tells=True)
        ask.when_done(conn, world.run, now=world.clocks.now(), by="alice")
    assert world.run.release_terms["budgets"] == [1]  # type: ignore[index]  # what others keep there stays
    await world.pass_(1800, step=30, each=world.busy)
    assert world.run.word == "running"
    world.clocks.seconds += 1
    world.busy(kernels=0)
    await world.pass_(15)
    assert (world.run.word, world.run.reason) == ("released", "done")
    assert world.kinds()[-1] == "released" and "is done" in world.told[-1][1]


async def test_work_that_ended_between_two_words_of_its_node_was_done_and_not_left(db: Database) -> None:
    world = World(db, "auto-when-done", grace_seconds=75)
    world.look()
    await world.pass_(60)
    world.busy()
    await world.pass_(25)  # it ends ten seconds after the grace, and its node says so at once
    world.busy(kernels=0)
    await world.pass_(10)
    assert (world.run.word, world.run.reason) == ("released", "done")
    with db.read() as conn:
        busy = conn.execute(select(node_use.c.busy_at)).scalar_one()
    world.clocks.seconds += 60
    world.busy(kernels=0)  # nothing began since
    with db.read() as conn:
        assert conn.execute(select(node_use.c.busy_at)).scalar_one() == busy


async def test_a_node_that_says_nothing_for_long_runs_nothing(sqlite_db: Database) -> None:
    world = World(sqlite_db, "auto-when-done")
    await world.pass_(600, each=world.busy)
    assert world.run.word == "running"
    await world.pass_(115)
    assert world.run.reason == "done"


async def test_a_job_that_says_for_ever_that_it_is_busy_ends_with_the_hard_maximum(
    sqlite_db: Database,
) -> None:
    world = World(sqlite_db, "auto-when-done", most_seconds=3600)
    await world.pass_(3580, step=20, each=world.busy)
    assert world.run.word == "running" and world.kinds() == ["warning"]
    await world.pass_(40, each=world.busy)
    assert world.run.reason == "most"


async def test_signing_out_releases_at_once_also_with_a_page_left_open_and_signing_in_keeps(
    db: Database,
) -> None:
    world = World(db)
    await world.pass_(120, each=world.look)
    with db.write() as conn:
        store.signed_out(conn, "alice", world.clocks.now())
        assert store.seen_on_platform(conn, "alice", world.clocks.now() + timedelta(seconds=1))
    await world.pass_(30, each=world.look)
    assert world.run.word == "running"  # signed in again at once
    with db.write() as conn:
        store.signed_out(conn, "alice", world.clocks.now())
        # A page of the portal from before it says that it is still open.
        assert not store.seen_on_platform(conn, "alice", world.clocks.now(), since=at(1))
    await world.pass_(10, each=world.look)
    assert (world.run.stop_asked_at, world.run.reason) == (world.clocks.now(), "signed_out")


async def test_hours_count_from_leaving_the_portals_pages_too(sqlite_db: Database) -> None:
    world = World(sqlite_db, "2h")
    with sqlite_db.write() as conn:
        store.seen_on_platform(conn, "alice", at(100))
        store.seen_on_platform(conn, "alice", at(90))  # only forward
    world.clocks.seconds = 219 * 60 - 90
    await world.pass_(90)
    assert world.run.word == "running" and world.run.release_at == at(220)
    await world.pass_(65)
    assert world.run.reason == "left"


async def test_a_cluster_that_is_not_used_goes_back_and_a_batch_command_keeps_it(db: Database) -> None:
    world = World(db, "manual", idle_seconds=1800)

    def measured(**more: Any) -> None:
        world.use(measured_at=world.clocks.now(), **more)

    await world.pass_(1500, step=30, each=lambda: (measured(), world.busy(kernels=0, processes=1)))
    assert world.run.word == "running" and world.told == []
    await world.pass_(500, step=30, each=lambda: (measured(), world.busy(kernels=1)))
    assert world.run.word == "running" and world.kinds() == ["warning"]
    measured(used_at=world.clocks.now())
    await world.pass_(1000, step=40, each=measured)
    assert world.run.word == "running" and world.run.release_why == "idle"
    await world.pass_(900, step=40, each=measured)
    assert world.run.reason == "idle"


async def test_a_budget_that_runs_out_warns_and_releases(sqlite_db: Database) -> None:
    world = World(sqlite_db, "manual")
    world.budget["R1"] = 1800
    await world.pass_(1190)
    assert world.told == [] and world.run.release_why == "budget"
    await world.pass_(20)
    assert world.kinds() == ["warning"]
    await world.pass_(600)
    assert world.run.reason == "budget"


async def test_an_extension_holds_within_what_is_allowed_and_is_warned_of_again(sqlite_db: Database) -> None:
    world = World(sqlite_db, most_seconds=7200, extend_seconds=3600)
    await world.pass_(200)
    with sqlite_db.write() as conn:
        run = ask.extend(conn, world.run, now=world.clocks.now(), by="alice")
    assert run.extended_until == run.release_at == world.clocks.now() + timedelta(hours=1)
    await world.pass_(3300, step=20)
    assert (world.run.word, world.kinds()) == ("running", ["warning"])
    await world.pass_(400)
    assert world.run.reason == "left" and world.kinds() == ["warning", "warning", "released"]


@pytest.mark.parametrize(
    ("terms", "asked", "reason"),
    [
        ({"most_seconds": 3000, "extend_seconds": 9999}, {"seconds": 86400}, "most"),
        ({"extend_seconds": 3600}, {"until": at(600)}, "extend"),
        ({"extend_seconds": 99999}, {"seconds": 4000, "budget_seconds": 1800}, "budget"),
        ({"most_seconds": 600, "extend_seconds": 9999}, {}, "most"),
        ({}, {"by": "node"}, "absent"),
    ],
)
def test_no_extension_goes_past_what_is_allowed(
    sqlite_db: Database, terms: dict[str, Any], asked: dict[str, Any], reason: str
) -> None:
    world = World(sqlite_db, **terms)
    world.clocks.seconds = 580
    with pytest.raises(UserError) as refused, sqlite_db.write() as conn:
        ask.extend(conn, world.run, now=world.clocks.now(), **{"by": "alice", **asked})
    assert (refused.value.status, refused.value.reason) == (409, reason)
    assert world.run.extended_until is None


def test_what_never_ends_by_itself_cannot_be_extended_and_the_past_is_no_extension(
    sqlite_db: Database,
) -> None:
    world = World(sqlite_db, "manual")
    with pytest.raises(UserError) as refused, sqlite_db.write() as conn:
        ask.extend(conn, world.run, now=T0, by="alice")
    assert refused.value.reason == "never"
    with sqlite_db.write() as conn:
        conn.execute(update(clusters).values(release_terms=None, release_policy="2h"))
    for values in ({"until": at(-1)}, {"seconds": 0}, {"seconds": -5}, {"seconds": True}):
        with pytest.raises(UserError) as refused, sqlite_db.write() as conn:
            ask.extend(conn, world.run, now=T0, by="alice", **values)
        assert refused.value.status == 400


async def test_a_hub_that_is_down_across_the_release_time_delays_it_and_usage_is_true(
    sqlite_db: Database,
) -> None:
    world = World(sqlite_db, "manual", most_seconds=3600)
    await world.pass_(3500, step=20)
    world.hub.away = True
    await world.pass_(1200)
    assert world.run.word == "running" and world.run.stop_asked_at is None
    world.hub.away = False
    await world.pass_(120)
    run = world.run
    assert (run.word, run.reason) == ("released", "most")
    assert run.stop_asked_at is not None and run.stop_asked_at > at(78)  # held until then, and counted so
    assert run.released_at == run.stop_asked_at


async def test_clocks_that_jump_release_nobody_who_is_there(sqlite_db: Database) -> None:
    world = World(sqlite_db)
    await world.pass_(300, each=world.look)
    jump = timedelta(hours=3)
    real = world.clocks.now
    world.service.clock = lambda: real() + jump
    world.service.finisher.clock = world.service.clock
    await world.pass_(60)
    assert world.run.word == "running"  # old words of the witnesses do not count any more

    def look() -> None:
        with sqlite_db.write() as conn:
            records.saw(conn, "alice", "heat", proxy_at=real() + jump, node_at=real() + jump)

    await world.pass_(300, each=look)
    assert world.run.word == "running"
    jump = timedelta(hours=0)  # and back: seen in what is now the future
    await world.pass_(600)
    assert world.run.word == "running"


async def test_a_strangers_requests_move_nothing(sqlite_db: Database) -> None:
    """They pass the proxy and are refused by the node: one witness alone."""
    world = World(sqlite_db)

    def stranger() -> None:
        with sqlite_db.write() as conn:
            records.saw(conn, "alice", "heat", proxy_at=world.clocks.now())

    await world.pass_(320, each=stranger)
    assert world.run.reason == "left"


async def test_the_end_is_written_where_it_stands_and_roughly_while_it_moves(sqlite_db: Database) -> None:
    world = World(sqlite_db)
    writes = 0
    last = None

    def count() -> None:
        nonlocal writes, last
        world.look()
        writes += world.run.release_at != last
        last = world.run.release_at

    await world.pass_(600, each=count)
    assert 8 <= writes <= 12  # not with each of 120 looks
    await world.pass_(100)
    seen = world.run.node_seen_at
    assert seen is not None and world.run.release_at == seen + timedelta(seconds=300)


async def test_ended_clusters_leave_a_line_for_their_person_only(sqlite_db: Database) -> None:
    world = World(sqlite_db)
    await world.pass_(400)
    with sqlite_db.read() as conn:
        rows = conn.execute(select(clusters.c.reason)).scalars().all()
        assert notices.list_for(conn, "bob") == []
    assert rows == ["left"]


async def test_leaving_one_cluster_does_not_take_back_that_its_person_was_there(db: Database) -> None:
    world = World(db, "2h")
    world.hub.has("alice", "other")
    with db.write() as conn:
        add_run(conn, "R2", server="other", ready_at=at(60))
        add_node(conn, "R2", 0, at(60))
    world.clocks.seconds = 100 * 60.0

    def look() -> None:
        with db.write() as conn:
            now = world.clocks.now()
            records.saw(conn, "alice", "other", proxy_at=now, node_at=now)

    await world.pass_(60, each=look)  # presence is not even believed yet
    world.hub.end("alice", "other")
    world.clocks.seconds = 150 * 60.0
    await world.pass_(120)
    assert (world.run.word, world.told) == ("running", [])
    assert world.run.release_at is not None and at(220) <= world.run.release_at <= at(221)
    world.clocks.seconds = 209 * 60.0
    await world.pass_(300)
    assert world.kinds() == ["warning"]
    await world.pass_(600)
    assert world.run.reason == "left"


def test_a_page_left_open_on_a_cluster_is_no_sign_in(db: Database) -> None:
    def seen() -> datetime | None:
        with db.write() as conn:
            return conn.execute(
                select(presence.c.platform_seen_at).where(presence.c.user == "alice")
            ).scalar()

    def note(moment: datetime) -> None:
        with db.write() as conn:
            store.note_seen(conn, {"alice": moment})

    note(at(1))
    note(at(0))
    assert seen() == at(1), "only forward"
    with db.write() as conn:
        store.signed_out(conn, "alice", at(10))
    note(at(9))
    assert seen() == at(9)
    note(at(11))
    assert seen() == at(9), "not past the sign-out"
    with db.write() as conn:
        store.seen_on_platform(conn, "alice", at(12))
    note(at(13))
    assert seen() == at(13), "signed in again"


async def test_a_cluster_that_was_held_long_goes_on_alone_for_a_week_from_then_on(db: Database) -> None:
    world = World(db)
    world.clocks.seconds = 8 * 86400.0
    world.look()
    world.busy()
    with db.write() as conn:
        ask.when_done(conn, world.run, now=world.clocks.now(), by="alice")
    await world.pass_(600, step=30, each=world.busy)
    assert (world.run.word, world.run.release_why) == ("running", "most")
    assert world.run.release_at == at(15 * 24 * 60)


def test_who_cannot_tell_what_runs_cannot_go_on_alone(db: Database) -> None:
    world = World(db)
    world.use(measured_at=T0, used_at=T0)
    with db.write() as conn:
        assert ask.telling(conn, ["R1"]) == frozenset()
        with pytest.raises(UserError) as refused:
            ask.when_done(conn, world.run, now=world.clocks.now(), by="alice")
    assert (refused.value.status, refused.value.reason) == (409, "untold")
    assert not ask.may_when_done(world.run, tells=False)
    world.busy(kernels=0)
    with db.write() as conn:
        assert ask.telling(conn, ["R1", "R2"]) == {"R1"}
        assert ask.when_done(conn, world.run, now=world.clocks.now(), by="alice").release_policy != "auto"


async def test_a_cluster_is_idle_only_while_all_of_it_is_measured(db: Database) -> None:
    world = World(db, "manual", idle_seconds=1800)
    with db.write() as conn:
        add_node(conn, "R1", 1, T0)

    def measured() -> None:
        world.use(measured_at=world.clocks.now())

    await world.pass_(2400, step=60, each=measured)
    assert (world.run.word, world.run.release_why, world.told) == ("running", "", [])
    with db.write() as conn:  # the other one has gone: what is there is measured
        conn.execute(
            update(cluster_nodes).where(cluster_nodes.c.rank == 1).values(gone_at=world.clocks.now())
        )
    await world.pass_(60, step=60, each=measured)
    assert (world.run.release_why, world.kinds()) == ("idle", ["warning"])


async def test_budgets_are_added_up_each_minute_and_where_something_happens(sqlite_db: Database) -> None:
    world = World(sqlite_db, "manual")
    asked: list[list[str]] = []
    budgets = world.service.budgets
    assert budgets is not None

    def counted(conn: Any, run_ids: Sequence[str], now: datetime) -> Any:
        asked.append(list(run_ids))
        return budgets(conn, run_ids, now)

    world.service.budgets = counted
    world.budget["R1"] = 3600
    await world.pass_(900, step=5)
    assert 15 <= len(asked) <= 17, "not in each of 180 rounds"
    assert world.run.release_at == at(60)
    asked.clear()
    with sqlite_db.write() as conn:  # another one of the same person uses it up, too
        kept = {**Terms(policy="manual").to_json(), "budgets": [1]}
        add_run(conn, "R2", server="other", ready_at=at(15), release_terms=kept)
    world.budget = {"R1": 1000, "R2": 1000}
    await world.pass_(5, step=5)
    assert sorted(asked[0]) == ["R1", "R2"]
    await world.pass_(90, step=5)
    world.budget = {}  # in this moment an administrator gives more
    await world.pass_(10, step=5)
    assert world.run.word == "running" and world.run.release_at is None


async def test_old_notices_go_the_read_ones_first(db: Database) -> None:
    world = World(db, "manual")
    days = timedelta(days=1)
    with db.write() as conn:
        for user, age, read in (("a", 31, True), ("b", 31, False), ("c", 91, False), ("d", 29, True)):
            told = notices.tell(conn, user, now=T0 - age * days, kind="role", text="x")
            if read:
                notices.mark_read(conn, user, [told], T0 - age * days)
    await world.pass_(90)
    with db.read() as conn:
        assert [bool(notices.list_for(conn, user)) for user in "abcd"] == [False, True, False, True]


def test_what_is_to_be_mailed_is_found_by_its_index(sqlite_db: Database) -> None:
    with sqlite_db.read() as conn:
        plans: list[str] = []

        def explain(conn: Any, cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
            cursor.execute("EXPLAIN QUERY PLAN " + statement, parameters)
            plans.extend(str(row) for row in cursor.fetchall())

        event.listen(conn, "before_cursor_execute", explain)
        notices.to_mail(conn)
    assert any("ix_notices_to_mail" in plan for plan in plans), plans


async def test_a_cluster_whose_terms_cannot_be_read_holds_up_no_other(db: Database) -> None:
    world = World(db)
    world.hub.has("alice", "other")
    with db.write() as conn:
        broken = {**Terms(policy="auto").to_json(), "grace_seconds": "soon"}
        add_run(conn, "R0", server="other", release_terms=broken)
        add_node(conn, "R0", 0, T0)
    await world.pass_(400)
    assert (world.run.reason, world.hub.run("R0").word) == ("left", "running")
