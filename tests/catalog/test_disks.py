"""Disks: one writer or many readers, whoever asks when; counted as a whole; only one's own, by name, in one pool."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import select
from ulid import ULID

from extensions.quota.admission import Fixed, QuotaAdmission
from extensions.quota.limits import Limits
from galilean.amounts import GIB
from galilean.db import Database
from galilean.errors import UserError
from galilean.settings import Limits as SettingsLimits
from galilean.settings import Settings
from galilean.tables import audit_log
from services.catalog import departed, disk_places, disk_store, disks, lifecycle
from services.catalog.disk_store import Leases
from services.catalog.disks import Disk, Use, check_free, may_have
from services.catalog.resolver import CatalogResolver
from services.catalog.tables import disk_uses
from services.catalog.volumes import ensure_volumes
from spawner import records, steps
from spawner.collaborators import Person
from spawner.plan import ClusterPlan, DiskUsed, Mount
from spawner.request import ClusterRequest
from spawner.tables import clusters
from tests.catalog.people import NOW, a_project, actor
from tests.spawner.backends import plan_of

ALICE = Person(name="alice", groups=("galilean:student",), asked_by="alice")
MANY = Limits.from_settings(
    SettingsLimits.model_validate(
        {"clusters": 100, "nodes": 4, "cpu": 8, "memory": "8G", "total_cpu": 1000, "total_memory": "1000G"}
    )
)


def a_disk(db: Database, name: str = "data", *, owner: str = "alice", **more: Any) -> Disk:
    values: dict[str, Any] = {"size_gib": 2, "pool": "default", "kept": 0, "most": None, **more}
    with db.serialised("admission") as conn:
        return disk_store.create(
            conn, disk_id=str(ULID()), owner=owner, name=name, actor=actor(), now=NOW, **values
        )


def mount(disk: Disk, mode: str) -> Mount:
    return Mount(
        source=f"/d/{disk.id}",
        target=f"disks/{disk.name}",
        read_only=mode == "read",
        disk=DiskUsed(id=disk.id, name=disk.name),
    )


def plan(server: str, *mounts: Mount, **more: Any) -> ClusterPlan:
    made = plan_of(server=server, **more)
    return replace(made, user="alice", mounts=(*made.mounts, *mounts))


def admission(db: Database, **more: Any) -> QuotaAdmission:
    return QuotaAdmission(db, Fixed(MANY), leases=Leases(), **more)


async def start(quota: QuotaAdmission, server: str, *mounts: Mount) -> str:
    return (await quota.admit(ALICE, plan(server, *mounts), ClusterRequest(), ["n0"])).run_id


async def refused(quota: QuotaAdmission, server: str, *mounts: Mount) -> UserError:
    with pytest.raises(UserError) as caught:
        await start(quota, server, *mounts)
    return caught.value


async def end(db: Database, server: str) -> None:
    def close(conn: Any) -> None:
        run = steps.begin_stop(conn, "alice", server, reason="asked")
        assert run is not None
        steps.close(conn, run, ends={}, now=NOW)

    await db.run(close)


# --------------------------------------------------------------------------------------------------- rules


@given(st.lists(st.tuples(st.booleans(), st.booleans())))
def test_whoever_comes_and_goes_there_are_many_readers_or_one_writer(steps_taken: list[tuple[bool, bool]]):
    held: list[bool] = []
    for comes, writes in steps_taken:
        if comes and may_have(writes, held):
            held.append(writes)
        elif not comes and held:
            held.pop(0)
        assert sum(held) <= 1
        assert not any(held) or len(held) == 1


@given(st.booleans(), st.lists(st.booleans(), max_size=4))
def test_what_is_refused_names_a_run_that_is_in_the_way(writes: bool, held: list[bool]):
    uses = [
        Use(run_id=str(n), user="a", project=f"p{n}", writes=w, word="running") for n, w in enumerate(held)
    ]
    if may_have(writes, held):
        check_free("data", writes, uses)
        return
    with pytest.raises(UserError) as caught:
        check_free("data", writes, uses)
    named = next(use for use in uses if use.project == caught.value.params["project"])
    assert named.writes or writes
    assert (caught.value.status, caught.value.reason) == (409, "disk-held")


@pytest.mark.parametrize(
    "name", ["", "A", "-a", "a-", "a_b", "a/b", "..", "a b", "ä", "a\n", "a" * 41, "a.b", "‮a", "~", "\x00"]
)
def test_a_name_that_no_directory_should_have_is_refused(name: str):
    with pytest.raises(UserError) as caught:
        disks.check_name(name)
    assert caught.value.status == 400


@pytest.mark.parametrize("size", [0, -1, disks.SIZE_MOST_GIB + 1, 10**30])
def test_a_size_that_no_disk_has_is_refused(size: int):
    with pytest.raises(UserError):
        disks.check_size(size)


@pytest.mark.parametrize(
    "value",
    [
        [],
        "data",
        {"data": "both"},
        {"data": None},
        {"": "read"},
        {"x" * 65: "read"},
        {3: "read"},
        {"data": ["write"]},
        {f"d{n}": "read" for n in range(17)},
    ],
)
def test_a_request_for_disks_that_cannot_be_is_refused(value: Any):
    with pytest.raises(UserError) as caught:
        ClusterRequest.parse({"disks": value})
    assert caught.value.status == 400


def test_a_request_keeps_its_disks_through_the_row_and_no_project_brings_them():
    asked = ClusterRequest.parse({"disks": {"b": "write", "a": "read"}})
    assert asked.disks == (("a", "read"), ("b", "write"))
    assert ClusterRequest.from_dict(asked.as_dict()) == asked
    from services.catalog.store import request_of

    assert request_of(asked.as_dict()).disks == ()


# --------------------------------------------------------------------------------------------- in the database


async def test_readers_share_a_disk_and_a_writer_has_it_alone(db: Database):
    disk, quota = a_disk(db), admission(db)
    await start(quota, "one", mount(disk, "read"))
    await start(quota, "two", mount(disk, "read"))
    error = await refused(quota, "three", mount(disk, "write"))
    assert (error.status, error.reason) == (409, "disk-held")
    assert await db.run_read(records.count_open, user="alice") == 2
    await end(db, "one")
    await refused(quota, "three", mount(disk, "write"))
    await end(db, "two")
    await start(quota, "three", mount(disk, "write"))
    for mode in ("read", "write"):
        error = await refused(quota, "four", mount(disk, mode))
        assert "writes to the disk" in error.message
    await start(quota, "five")


async def test_of_starts_at_once_one_writes(db: Database):
    disk, quota = a_disk(db), admission(db)

    async def outcome(number: int) -> int:
        try:
            await start(quota, f"p{number}", mount(disk, "write"))
        except UserError as error:
            return error.status
        return 201

    assert sorted(await asyncio.gather(*(outcome(n) for n in range(8)))) == [201] + [409] * 7


async def test_of_starts_in_threads_of_their_own_one_writes_or_all_read(db: Database):
    disk, quota = a_disk(db), admission(db)
    barrier = threading.Barrier(8)

    def begin(number: int) -> str:
        mode = "write" if number % 2 else "read"
        barrier.wait(10)
        try:
            with db.serialised("admission") as conn:
                quota.admit_now(conn, ALICE, plan(f"p{number}", mount(disk, mode)), ClusterRequest(), ["n0"])
        except UserError:
            return ""
        return mode

    with ThreadPoolExecutor(8) as pool:
        got = sorted(filter(None, pool.map(begin, range(8))))
    assert got in (["write"], ["read"] * 4)


async def test_a_waiting_run_has_its_disks_until_it_is_cancelled(db: Database):
    class NoRoom:
        def fits(self, plan: Any, taken: Any) -> bool:
            return False

    disk, quota = a_disk(db), admission(db)
    crowded = admission(db, room=NoRoom())
    assert (await refused(crowded, "one", mount(disk, "write"))).reason == "queued"
    assert (await refused(quota, "two", mount(disk, "read"))).reason == "disk-held"
    # Asked for again with other disks, it has these alone.
    other = a_disk(db, "other")
    assert (await refused(crowded, "one", mount(other, "read"))).reason == "queued"
    with db.read() as conn:
        uses = disk_store.uses_of(conn, [disk.id, other.id])
    assert (uses[disk.id], [use.word for use in uses[other.id]]) == ([], ["waiting"])
    run = await db.run_read(records.open_run, "alice", "one")
    assert run is not None
    await db.run(records.cancel_waiting, run.id, reason="asked", asked_by="alice", now=NOW)
    await start(quota, "two", mount(other, "write"))


async def test_a_refused_start_leaves_no_use_behind(db: Database):
    disk, quota = a_disk(db), admission(db)
    await start(quota, "one", mount(disk, "write"))
    await refused(quota, "two", mount(disk, "read"), mount(a_disk(db, "b"), "write"))
    with db.read() as conn:
        assert conn.execute(select(disk_uses.c.disk_id)).scalars().all() == [disk.id]
        assert len(conn.execute(select(clusters.c.id)).all()) == 1


async def test_a_disk_is_deleted_only_while_nobody_has_it_and_no_start_finds_it_then(db: Database):
    disk, quota = a_disk(db), admission(db)
    await start(quota, "one", mount(disk, "read"))
    with pytest.raises(UserError) as caught, db.serialised("admission") as conn:
        disk_store.remove(conn, "alice", disk.id, actor=actor(), now=NOW)
    assert (caught.value.status, caught.value.reason) == (409, "disk-held")
    await end(db, "one")
    with db.serialised("admission") as conn:
        disk_store.remove(conn, "alice", disk.id, actor=actor(), now=NOW)
    assert (await refused(quota, "two", mount(disk, "read"))).status == 404
    assert a_disk(db, "data", size_gib=3).id != disk.id  # the name is free again


def test_a_disk_counts_as_a_whole_until_its_files_are_gone(db: Database):
    disk = a_disk(db, size_gib=3)
    with db.read() as conn:
        assert lifecycle.used_bytes(conn, "alice") == 3 * GIB
    with pytest.raises(UserError) as caught:
        a_disk(db, "more", size_gib=3, kept=3 * GIB, most=5 * GIB)
    assert (caught.value.status, caught.value.reason) == (507, "quota")
    a_disk(db, "fits", size_gib=2, kept=3 * GIB, most=5 * GIB)
    with db.write() as conn:
        disk_store.remove(conn, "alice", disk.id, actor=actor(), now=NOW)
        assert lifecycle.used_bytes(conn, "alice") == 5 * GIB
        assert disk_store.to_purge(conn) == [disk.id]
        disk_store.purged(conn, disk.id, now=NOW)
        assert lifecycle.used_bytes(conn, "alice") == 2 * GIB
        assert disk_store.to_purge(conn) == []


def test_it_grows_within_the_quota_and_never_shrinks(db: Database):
    disk = a_disk(db)

    def grow(size: int, most: int | None = None, owner: str = "alice") -> Disk:
        with db.write() as conn:
            return disk_store.grow(
                conn, owner, disk.id, size_gib=size, kept=2 * GIB, most=most, actor=actor(), now=NOW
            )

    assert grow(4, 4 * GIB).size_gib == 4
    for size, most, owner, status in (
        (3, None, "alice", 409),
        (9, 4 * GIB, "alice", 507),
        (9, None, "bob", 404),
        (0, None, "alice", 400),
    ):
        with pytest.raises(UserError) as caught:
            grow(size, most, owner)
        assert caught.value.status == status
    with db.read() as conn:
        assert disk_store.get(conn, "alice", disk.id).size_gib == 4
        actions = conn.execute(select(audit_log.c.action).order_by(audit_log.c.id)).scalars().all()
    assert actions == ["disk.create", "disk.grow"]


def test_a_name_is_one_persons_once(db: Database):
    a_disk(db)
    a_disk(db, owner="bob")
    with pytest.raises(UserError) as caught:
        a_disk(db, "data", size_gib=9)
    assert caught.value.status == 409


def test_lists_are_searched_and_paged(db: Database):
    for name in ("a1", "a2", "b1", "b2", "b3"):
        a_disk(db, name)
    a_disk(db, "b1", owner="bob")
    with db.read() as conn:
        first = disk_store.listed(conn, owner="alice", limit=2)
        rest = disk_store.listed(conn, owner="alice", after=first[-1].id)
        assert [disk.name for disk in (*first, *rest)] == ["a1", "a2", "b1", "b2", "b3"]
        assert [disk.name for disk in disk_store.listed(conn, owner="alice", text="B")] == ["b1", "b2", "b3"]
        assert disk_store.listed(conn, owner="alice", text="%") == []
        assert [disk.owner for disk in disk_store.listed(conn, text="b1")] == ["alice", "bob"]


def test_the_disks_of_somebody_who_goes_are_deleted_and_nobodys(db: Database):
    disk = a_disk(db)
    with db.write() as conn:
        departed.delete_owned(conn, "alice", now=NOW)
        assert disk_store.listed(conn) == []
        assert disk_store.to_purge(conn) == [disk.id]
    assert a_disk(db, "data", size_gib=7).owner == "alice"


# ---------------------------------------------------------------------------------------------- resolving


async def resolved(db: Database, settings: Settings, **options: Any) -> ClusterPlan:
    with db.write() as conn:
        ensure_volumes(conn, settings, NOW)
        project = a_project(conn)
    resolver = CatalogResolver(db, settings, lambda: NOW)
    try:
        person = replace(ALICE, name="alice")
        return await resolver.resolve(person, project.server("alice"), ClusterRequest.parse(options))
    finally:
        resolver.close()


async def test_a_run_has_the_disks_it_names_a_writer_on_the_head_alone(db: Database, settings: Settings):
    for name in ("a", "b"):
        disk = a_disk(db, name)
        disk_places.make(settings.disks_directory, disk.id, first=name == "a")
    found = await resolved(db, settings, disks={"a": "read", "b": "write"})
    read, written = found.disks
    assert (read.target, read.read_only, written.target, written.read_only) == (
        "disks/a",
        True,
        "disks/b",
        False,
    )
    assert [read.is_of(1), written.is_of(0), written.is_of(1)] == [True, True, False]
    assert not any(one.disk for one in found.mounts if one not in found.disks)


async def test_somebody_elses_disk_and_none_are_the_same(db: Database, settings: Settings):
    disk_places.make(settings.disks_directory, a_disk(db, "theirs", owner="bob").id, first=True)
    for name in ("theirs", "none", "../x"):
        with pytest.raises(UserError) as caught:
            await resolved(db, settings, disks={name: "read"})
        assert caught.value.status == 404


async def test_a_disk_whose_directory_is_away_costs_no_files(db: Database, settings: Settings):
    disk = a_disk(db)
    with pytest.raises(UserError) as caught:
        await resolved(db, settings, disks={"data": "write"})
    assert caught.value.status == 503
    assert not (settings.disks_directory / disk.id).exists()
    with pytest.raises(UserError):  # nor is it taken for deleted
        disk_places.remove(settings.disks_directory, disk.id)
    with pytest.raises(UserError):
        disk_places.make(settings.disks_directory, disk.id, first=False)


async def test_a_run_goes_to_the_pool_of_its_disks(db: Database, settings: Settings):
    pools = {"default": {}, "physics": {}, "closed": {"open_to": ["admin"]}}
    settings = Settings.model_validate({**settings.model_dump(), "pools": pools})
    for name, pool in (("a", "physics"), ("b", "default"), ("c", "closed")):
        disk = a_disk(db, name, pool=pool)
        disk_places.make(settings.disks_directory, disk.id, first=name == "a")
    assert (await resolved(db, settings, disks={"a": "read"})).pool == "physics"
    assert (await resolved(db, settings, disks={"a": "read"}, pool="physics")).pool == "physics"
    for disks_, pool, status in (
        ({"a": "read"}, "default", 409),
        ({"a": "read", "b": "read"}, None, 409),
        ({"c": "read"}, None, 403),
    ):
        with pytest.raises(UserError) as caught:
            await resolved(db, settings, disks=disks_, **({"pool": pool} if pool else {}))
        assert caught.value.status == status


def test_the_files_of_a_disk_are_deleted_without_following_links(settings: Settings, tmp_path: Any):
    place, outside = settings.disks_directory, tmp_path / "outside"
    outside.mkdir()
    (outside / "kept").write_text("kept")
    disk_places.make(place, "one", first=True)
    (place / "one/folder").mkdir()
    (place / "one/folder/file").write_bytes(b"x" * 1000)
    (place / "one/link").symlink_to(outside)
    assert disk_places.used_bytes(place, "one") == 1000
    disk_places.remove(place, "one")
    disk_places.remove(place, "one")
    assert not (place / "one").exists()
    assert (outside / "kept").read_text() == "kept"
