"""Workbenches: one for each person and environment, seen nowhere as a project, run with one node of its own environment."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from galilean.db import Database
from galilean.errors import UserError
from galilean.settings import Settings
from services.catalog import lifecycle, search, store, workbenches
from services.catalog.resolver import CatalogResolver
from services.catalog.store import WORKBENCH, Project
from services.catalog.volumes import ensure_volumes
from spawner.collaborators import Person
from spawner.request import ClusterRequest
from tests.catalog.people import ALICE, NOW, a_project, refused

ANN = Person(name="alice", groups=("galilean:student",), asked_by="alice")
BEN = Person(name="bob", groups=("galilean:student",), asked_by="bob")
ROOT = Person(name="root", groups=("galilean:admin",), asked_by="root")
CONTAINERS = {
    "backend": "docker",
    "docker": {"image": "site/jupyter:1"},
    "defaults": {"nodes": 2},
    "environments": {"jupyter": {"title": "JupyterLab"}, "desk": {"title": "Desk"}},
}


def begin(db: Database, owner: str = "alice", environment: str = "jupyter") -> tuple[Project, bool]:
    with db.write() as conn:
        return workbenches.make(
            conn,
            owner=owner,
            environment=environment,
            name=f"Workbench: {environment}",
            volume_id="default",
            now=NOW,
        )


def test_it_is_made_once_for_each_person_and_environment(catalogue: Database) -> None:
    first, new = begin(catalogue)
    assert new
    assert first.kind == WORKBENCH
    assert first.slug == "workbench-jupyter"
    again, new = begin(catalogue)
    assert (again.id, new) == (first.id, False)
    other, _ = begin(catalogue, environment="ada/paint")
    theirs, _ = begin(catalogue, owner="bob")
    assert len({first.id, other.id, theirs.id}) == 3
    assert other.slug == "workbench-paint"
    with catalogue.read() as conn:
        assert [one.id for one in store.workbenches_of(conn, "bob")] == [theirs.id]


def test_two_that_begin_it_at_once_get_the_same(catalogue: Database) -> None:
    found: list[Any] = []
    ready = threading.Barrier(4)

    def one() -> None:
        ready.wait()
        found.append(begin(catalogue))

    threads = [threading.Thread(target=one) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({project.id for project, _ in found}) == 1
    assert sum(new for _, new in found) == 1


def test_a_project_of_its_name_does_not_stand_in_its_way(catalogue: Database) -> None:
    with catalogue.write() as conn:
        there = a_project(conn, name="Workbench jupyter")
    assert there.slug == "workbench-jupyter"
    made, _ = begin(catalogue)
    assert made.slug == "workbench-jupyter-2"


def test_no_list_of_projects_and_no_search_shows_it(catalogue: Database) -> None:
    made, _ = begin(catalogue)
    with catalogue.write() as conn:
        mine = a_project(conn)
        items, _ = store.list_for(conn, "alice")
        assert [one.id for one in items] == [mine.id]
        assert store.count_for(conn, "alice") == 1
        found = search.search(conn, ALICE, search.Wanted(kind="project"), scope="all", limit=10)
        assert [one.item_id for one in found.items] == [mine.id]
        lifecycle.measured(conn, "project", made.id, size_bytes=700, file_count=2, now=NOW)
        assert lifecycle.used_bytes(conn, "alice") == 700


def test_somebody_elses_is_not_there(catalogue: Database) -> None:
    made, _ = begin(catalogue)
    with catalogue.write() as conn:
        project = a_project(conn)
        assert workbenches.get(conn, "alice", made.id).id == made.id
        for owner, key in (("bob", made.id), ("alice", project.id), ("alice", "0" * 26), ("alice", "\0")):
            refused(404, lambda owner=owner, key=key: workbenches.get(conn, owner, key))


def test_what_was_deleted_can_be_begun_anew_and_comes_back_only_alone(catalogue: Database) -> None:
    made, _ = begin(catalogue)
    with catalogue.write() as conn:
        store.delete(conn, made, now=NOW)
    again, new = begin(catalogue)
    assert new
    later = NOW + timedelta(days=1)
    with catalogue.write() as conn:
        refused(409, lambda: store.restore(conn, made.id, now=later))
        store.delete(conn, again, now=NOW)
        back = store.restore(conn, made.id, now=later)
    assert (back.id, back.kind) == (made.id, WORKBENCH)
    assert begin(catalogue)[0].id == made.id


# ---- its runs


@pytest.fixture
def site(sqlite_db: Database, tmp_path: Path) -> Iterator[Any]:
    made: list[CatalogResolver] = []

    def with_settings(**more: Any) -> Any:
        settings = Settings.model_validate({**CONTAINERS, "state": tmp_path, **more})
        with sqlite_db.write() as conn:
            ensure_volumes(conn, settings, NOW)
        bench, _ = begin(sqlite_db)
        resolver = CatalogResolver(sqlite_db, settings, lambda: NOW)
        made.append(resolver)

        async def resolve(person: Person = ANN, **options: Any) -> Any:
            asked = {"project": "alice/workbench-jupyter", **options}
            return await resolver.resolve(person, bench.slug, ClusterRequest.parse(asked))

        return resolve

    yield with_settings
    for one in made:
        one.close()


async def test_a_run_has_one_node_its_own_environment_and_its_work(site: Any, tmp_path: Path) -> None:
    plan = await site()(cpu=1, memory="1G")
    assert (plan.nodes, plan.environment.name, plan.server) == (1, "jupyter", "workbench-jupyter")
    assert [mount.target for mount in plan.mounts] == ["work"]
    assert plan.work.source.startswith(str(tmp_path))
    assert not plan.work.read_only
    assert not plan.environment.sudo


@pytest.mark.parametrize("more", [{"nodes": 2}, {"environment": "desk"}, {"environment": "none"}])
async def test_it_takes_neither_more_nodes_nor_another_environment(site: Any, more: dict[str, Any]) -> None:
    with pytest.raises(UserError) as caught:
        await site()(**more)
    assert caught.value.status == 400


@pytest.mark.parametrize("person", [BEN, ROOT])
async def test_nobody_else_runs_it_not_even_an_administrator(site: Any, person: Person) -> None:
    with pytest.raises(UserError) as caught:
        await site()(person)
    assert caught.value.status == 404


async def test_root_is_given_where_the_centre_says_so_and_in_workbenches_alone(
    site: Any, sqlite_db: Database
) -> None:
    resolve = site(workbench={"root": True})
    assert (await resolve()).environment.sudo
    with sqlite_db.write() as conn:
        a_project(conn, volume_id="default")
    settings = Settings.model_validate({**CONTAINERS, "state": "/nowhere", "workbench": {"root": True}})
    assert not settings.environments["jupyter"].sudo


async def test_where_they_are_switched_off_none_is_opened(site: Any) -> None:
    with pytest.raises(UserError) as caught:
        await site(workbench={"offered": False})()
    assert caught.value.status == 403


def test_on_the_process_backend_nobody_becomes_root() -> None:
    with pytest.raises(ValueError, match=r"workbench\.root: with backend process"):
        Settings.model_validate({"workbench": {"root": True}})
