"""What a run of a project is given: its files, its data sets, and only what its person may have now."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import update

from galilean.db import Database
from galilean.errors import UserError
from galilean.settings import Settings
from services.catalog import lifecycle, links, shares, versions, volume_store
from services.catalog.datasets import Dataset
from services.catalog.placement import VolumeRow
from services.catalog.resolver import CatalogResolver, prepare_directory
from services.catalog.store import Project
from services.catalog.tables import project_datasets
from services.catalog.volumes import ensure_volumes, prepare_volume
from spawner import records, steps
from spawner.collaborators import Person
from spawner.plan import ClusterPlan
from spawner.request import ClusterRequest
from tests.catalog.people import ADMIN, ALICE, BOB, NOW, a_dataset, a_project, actor, to

HUB_ALICE = Person(name="alice", groups=("galilean:student",), asked_by="alice")
HUB_BOB = Person(name="bob", groups=("galilean:student", "galilean-group:physics"), asked_by="bob")
HUB_ROOT = Person(name="root", groups=("galilean:admin",), asked_by="root")


class World:
    """A project of alice's with a data set of bob's, and a resolver."""

    def __init__(self, db: Database, settings: Settings) -> None:
        self.db, self.settings = db, settings
        self.resolver = CatalogResolver(db, settings, lambda: NOW)
        with db.write() as conn:
            ensure_volumes(conn, settings, NOW)
            self.project: Project = a_project(conn)
            self.data: Dataset = a_dataset(conn, "bob", "Io NIMS")
            self.share("dataset", self.data.id, "alice", "read", conn)
            links.add(conn, ALICE, self.project, self.data.id, now=NOW)
        prepare_directory(settings, self.data)

    def share(self, kind: Any, item_id: str, who: str, access: str, conn: Any) -> None:
        owner = BOB if kind == "dataset" else ALICE
        shares.give(conn, kind, item_id, to(who, access), actor=actor(owner), now=NOW)

    async def run(self, person: Person = HUB_ALICE, **options: Any) -> ClusterPlan:
        server = self.project.server(person.name)
        return await self.resolver.resolve(
            person, server, ClusterRequest.parse({"project": "alice/heat-flow", **options})
        )


@pytest.fixture
def world(db: Database, settings: Settings) -> Iterator[World]:
    made = World(db, settings)
    yield made
    made.resolver.close()


def where(plan: ClusterPlan) -> dict[str, bool]:
    return {mount.target: mount.read_only for mount in plan.mounts}


async def test_a_run_has_the_projects_data_sets_read_only(world: World) -> None:
    plan = await world.run()
    assert where(plan) == {"work": False, "datasets/io-nims": True}
    assert plan.missing == ()
    assert plan.mounts[1].source == str(world.data.path(world.settings))


async def test_its_owner_writes_a_data_set_only_where_they_chose_to(world: World) -> None:
    with world.db.write() as conn:
        own = a_dataset(conn, "alice", "Mine")
        links.add(conn, ALICE, world.project, own.id, now=NOW, writable=True)
        world.share("project", world.project.id, "bob", "write", conn)
    prepare_directory(world.settings, own)
    assert where(await world.run())["datasets/mine"] is False
    with world.db.write() as conn:  # whoever else runs it may read the data set at most
        shares.give(conn, "dataset", own.id, to("bob"), actor=actor(), now=NOW)
    assert where(await world.run(HUB_BOB))["datasets/mine"] is True


async def test_a_withdrawn_share_is_missing_from_the_next_run_on_and_told(world: World) -> None:
    with world.db.write() as conn:
        shares.withdraw(conn, "dataset", world.data.id, "person", "alice", actor=actor(BOB), now=NOW)
    plan = await world.run()
    assert where(plan) == {"work": False}
    assert plan.missing == ("io-nims",)


async def test_a_data_set_whose_files_are_away_is_missing_and_the_run_starts(world: World) -> None:
    world.data.path(world.settings).rmdir()
    plan = await world.run()
    assert where(plan) == {"work": False}
    assert plan.missing == ("io-nims",)


async def test_a_shared_project_runs_as_the_share_says(world: World) -> None:
    with pytest.raises(UserError) as caught:
        await world.run(HUB_BOB)
    assert caught.value.status == 404
    for access, read_only in (("read", None), ("run", True), ("write", False)):
        with world.db.write() as conn:
            world.share("project", world.project.id, "bob", access, conn)
        if read_only is None:
            with pytest.raises(UserError) as caught:
                await world.run(HUB_BOB)
            assert (caught.value.status, caught.value.reason) == (403, "access")
        else:
            assert where(await world.run(HUB_BOB))["work"] is read_only


async def test_a_public_project_is_forked_not_run(world: World) -> None:
    with world.db.write() as conn:
        lifecycle.publish(conn, "project", world.project.id, actor=actor(), now=NOW)
    with pytest.raises(UserError) as caught:
        await world.run(HUB_BOB)
    assert (caught.value.status, caught.value.reason) == (403, "access")
    assert where(await world.run(HUB_ROOT)) == {"work": False, "datasets/io-nims": True}


async def test_nothing_starts_while_files_are_moved(world: World) -> None:
    with world.db.write() as conn:
        lifecycle.begin(conn, "project", world.project.id, "moving")
    with pytest.raises(UserError) as caught:
        await world.run()
    assert (caught.value.status, caught.value.reason) == (409, "busy")


@pytest.mark.parametrize("key", ["mounts", "datasets", "missing", "volumes"])
async def test_no_request_can_name_a_mount(world: World, key: str) -> None:
    with pytest.raises(UserError) as caught:
        await world.run(**{key: ["/etc"]})
    assert caught.value.status == 400


async def test_what_lies_on_a_claim_that_was_registered_online_carries_it(
    world: World, tmp_path: Any
) -> None:
    place = tmp_path / "big"
    prepare_volume(place, "big")
    with world.db.write() as conn:
        row = VolumeRow(id="big", kind="claim", path=str(place), claim="big-claim", holds="datasets")
        volume_store.register(conn, row, actor=actor(ADMIN), now=NOW)
        data = a_dataset(conn, "alice", "Large", volume_id="big")
        links.add(conn, ALICE, world.project, data.id, now=NOW)
    assert data.path(world.settings) == place / data.directory
    prepare_directory(world.settings, data)
    mount = next(m for m in (await world.run()).mounts if m.target == "datasets/large")
    assert (mount.claim, mount.root) == ("big-claim", str(place))
    assert (await world.run()).work.claim == ""


async def test_a_run_has_a_version_read_only_and_says_which(world: World) -> None:
    with world.db.write() as conn:
        own = a_dataset(conn, "alice", "Mine")
        asked = versions.begin(conn, own, volume_id=own.volume_id, actor=actor(ALICE), now=NOW)
        assert versions.arrived(conn, asked, files=1, size_bytes=1, now=NOW)
        links.add(conn, ALICE, world.project, own.id, now=NOW, writable=True)
        links.change(conn, ALICE, world.project, own.id, version=1)
        conn.execute(update(project_datasets).values(writable=True))  # whatever a row says
    prepare_directory(world.settings, asked)
    plan = await world.run()
    assert where(plan)["datasets/mine"] is True, "its owner neither"
    with world.db.write() as conn:
        steps.reserve(
            conn,
            run_id="01J0000000000000000000HEAT",
            plan=plan,
            request=ClusterRequest(),
            backend="process",
            asked_by="alice",
            now=NOW,
        )
        run = records.get(conn, "01J0000000000000000000HEAT")
    assert run is not None and run.datasets is not None
    assert {one["address"]: (one["version"], one["read_only"]) for one in run.datasets} == {
        "bob/io-nims": (0, True),
        "alice/mine-v1": (1, True),
    }


async def test_no_version_is_made_while_a_run_may_write(world: World) -> None:
    with world.db.write() as conn:
        own = a_dataset(conn, "alice", "Mine")
        links.add(conn, ALICE, world.project, own.id, now=NOW, writable=True)
    prepare_directory(world.settings, own)
    plan = await world.run()
    with world.db.write() as conn:
        quiet = versions.begin(conn, own, volume_id=own.volume_id, actor=actor(ALICE), now=NOW)
        steps.reserve(
            conn, run_id="01J0000000000000000000HEAT", plan=plan, request=ClusterRequest(), backend="process",
            asked_by="alice", now=NOW,
        )  # fmt: skip
        with pytest.raises(UserError, match="may write"):
            versions.begin(conn, own, volume_id=own.volume_id, actor=actor(ALICE), now=NOW)
        with pytest.raises(UserError, match="may write"):
            versions.arrived(conn, quiet, files=1, size_bytes=1, now=NOW)


async def test_no_version_is_made_while_a_run_writes_what_its_project_has_to_read_or_no_more(
    world: World,
) -> None:
    with world.db.write() as conn:
        own = a_dataset(conn, "alice", "Mine")
        links.add(conn, ALICE, world.project, own.id, now=NOW, writable=True)
    prepare_directory(world.settings, own)
    plan = await world.run()
    with world.db.write() as conn:
        quiet = versions.begin(conn, own, volume_id=own.volume_id, actor=actor(ALICE), now=NOW)
        steps.reserve(
            conn, run_id="01J0000000000000000000HEAT", plan=plan, request=ClusterRequest(), backend="process",
            asked_by="alice", now=NOW,
        )  # fmt: skip
        links.change(conn, ALICE, world.project, own.id, writable=False)
        with pytest.raises(UserError, match="may write"):
            versions.begin(conn, own, volume_id=own.volume_id, actor=actor(ALICE), now=NOW)
        links.remove(conn, ALICE, world.project, own.id)
        with pytest.raises(UserError, match="may write"):
            versions.arrived(conn, quiet, files=1, size_bytes=1, now=NOW)
