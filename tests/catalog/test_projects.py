"""Row and directory together."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from galilean.db import Database
from galilean.errors import UserError
from galilean.settings import Settings
from services.catalog import placing, store, volumes
from services.catalog.collection import Datasets
from services.catalog.projects import Projects
from services.catalog.shares import Actor
from services.catalog.starter import NAME

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(state=tmp_path)


@pytest.fixture
async def projects(db: Database, settings: Settings) -> AsyncIterator[Projects]:
    made = Projects(db, settings, lambda: NOW)
    yield made
    made.close()


async def test_a_new_project_has_its_directory_and_a_first_notebook(
    projects: Projects, settings: Settings
) -> None:
    project = await projects.create("alice", "热流", starter=True, language="zh_CN")
    files = await projects.files(project)
    listing = await projects.run_on("default", files.list)
    assert [entry.path for entry in listing.entries] == [NAME]
    assert "欢迎" in (project.path(settings) / NAME).read_text()
    shown = await projects.preview(project, NAME, language="zh_CN")
    assert "欢迎" in shown.body.decode()
    empty = await projects.create("alice", "热流")
    assert empty.slug == "re-liu-2"
    assert (await projects.run_on("default", (await projects.files(empty)).list)).entries == []


async def test_an_environment_that_does_not_exist_is_refused_and_nothing_is_made(
    projects: Projects, db: Database, settings: Settings
) -> None:
    with pytest.raises(UserError):
        await projects.create("alice", "x", environment="nothing")
    assert await db.run_read(store.count_for, "alice") == 0


async def test_new_projects_go_to_the_volume_with_most_space(
    db: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = Settings.model_validate({"state": tmp_path, "volumes": {"a": {}, "b": {}}})
    free = {"a": 1, "b": 2}
    monkeypatch.setattr(
        placing, "look", lambda path, name: placing.Seen(total_bytes=9, free_bytes=free[name])
    )
    made = Projects(db, settings, lambda: NOW)
    project = await made.create("alice", "x")
    assert project.volume_id == "b"
    assert project.path(settings).is_dir()
    made.close()


async def test_deleting_moves_the_files_to_the_bin_and_restoring_brings_them_back(
    projects: Projects, settings: Settings
) -> None:
    project = await projects.create("alice", "x")
    (project.path(settings) / "data").write_text("precious")
    await projects.delete(project)
    assert not project.path(settings).exists()
    again = await projects.create("alice", "x")
    assert again.slug == "x"
    assert list(again.path(settings).iterdir()) == []
    back = await projects.restore(project.id)
    assert back.slug == "x-2"
    assert (back.path(settings) / "data").read_text() == "precious"


async def test_nothing_comes_back_without_its_files_while_the_volume_is_away(
    projects: Projects, db: Database, settings: Settings
) -> None:
    datasets = Datasets(db, settings, projects, lambda: NOW)
    project, data = await projects.create("alice", "x"), await datasets.create("alice", "y")
    for one in (project, data):
        (one.path(settings) / "data").write_text("precious")
    await projects.delete(project)
    await datasets.delete(data, actor=Actor(name="alice"))
    mark, away = settings.volume_path("default") / volumes.MARK, settings.volume_path("default") / "away"
    mark.rename(away)
    with pytest.raises(UserError, match="not there just now"):
        await projects.restore(project.id)
    with pytest.raises(UserError, match="not there just now"):
        await datasets.restore(data.id)
    away.rename(mark)
    assert ((await projects.restore(project.id)).path(settings) / "data").read_text() == "precious"
    assert ((await datasets.restore(data.id)).path(settings) / "data").read_text() == "precious"


async def test_deleting_a_project_whose_directory_is_gone_works(
    projects: Projects, settings: Settings
) -> None:
    project = await projects.create("alice", "x")
    project.path(settings).rmdir()
    await projects.delete(project)
    with pytest.raises(UserError):
        await projects.delete(project)


async def test_ten_creations_at_once_get_ten_directories(projects: Projects, settings: Settings) -> None:
    made = await asyncio.gather(*(projects.create("alice", "x") for _ in range(10)))
    assert len({project.slug for project in made}) == 10
    assert len({project.path(settings) for project in made}) == 10
    assert all(project.path(settings).is_dir() for project in made)


async def test_touching_notes_the_time(projects: Projects, db: Database) -> None:
    project = await projects.create("alice", "x")
    projects._clock = lambda: datetime(2026, 3, 2, tzinfo=UTC)
    await projects.touch(project)
    found = await db.run_read(store.by_id, project.id)
    assert found is not None
    assert found.changed_at == datetime(2026, 3, 2, tzinfo=UTC)
