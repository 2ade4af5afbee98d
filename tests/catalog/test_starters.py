"""The starter projects: on a new site once, whole, and run from the first cell to the last."""

from __future__ import annotations

import ast
import shutil
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from sqlalchemy import select, update

from galilean.db import Database
from galilean.settings import Settings
from services.catalog import datasets, links, search, store
from services.catalog.access import Viewer, access, may_fork
from services.catalog.search import Wanted
from services.catalog.starters import OWNER
from services.catalog.starters.data import leaves_csv, weather_csv
from services.catalog.starters.install import begin
from services.catalog.starters.shelf import DATA, LANGUAGES, STARTERS, Starter, said
from services.catalog.starters.spoken import spoken
from services.catalog.tables import projects
from tests.catalog.people import NOW

MOST_BYTES = 40_000


async def install(database: Database, settings: Settings, *, anyway: bool = False) -> list[str]:
    return await begin(database, settings, lambda: NOW, anyway=anyway)


def slugs(database: Database) -> set[str]:
    with database.read() as conn:
        return {project.slug for project in store.list_for(conn, OWNER)[0]}


async def test_a_new_site_gets_six_public_projects_with_their_data(db: Database, settings: Settings) -> None:
    assert len(await install(db, settings)) == 6
    anybody = Viewer(name="alice")
    with db.read() as conn:
        for starter in STARTERS:
            project = store.get(conn, OWNER, starter.slug)
            assert project is not None
            assert may_fork(anybody, access(anybody, project), project)
            files = project.path(settings)
            assert {path.name for path in files.iterdir()} == set(starter.files("en"))
            found = links.mounts_of_run(conn, settings, anybody, project)
            assert [mount.target for mount in found.mounts] == [f"datasets/{slug}" for slug in starter.data]
            assert all(mount.read_only for mount in found.mounts)
        for data in DATA:
            there = datasets.get(conn, OWNER, data.slug)
            assert there is not None
            assert there.visibility == "public"
            assert (there.path(settings) / f"{data.slug}.csv").read_bytes() == data.files()[
                f"{data.slug}.csv"
            ]
        newest, _ = store.list_for(conn, OWNER)
    assert newest[0].slug == "first-notebook"
    assert sum(len(content) for one in STARTERS for content in one.files("en").values()) < 6 * MOST_BYTES


async def test_what_an_administrator_deleted_does_not_come_back(db: Database, settings: Settings) -> None:
    await install(db, settings)
    with db.write() as conn:
        conn.execute(update(projects).values(deleted_at=NOW))
    assert await install(db, settings) == []
    assert slugs(db) == set()
    assert len(await install(db, settings, anyway=True)) == 6


async def test_a_site_with_projects_is_not_new(db: Database, settings: Settings, catalogue: Database) -> None:
    with db.write() as conn:
        store.create(conn, owner="alice", name="Mine", volume_id=next(iter(settings.volumes)), now=NOW)
    assert await install(db, settings) == []
    with db.write() as conn:
        conn.execute(update(projects).values(deleted_at=NOW))
    assert await install(db, settings) == []


async def test_a_site_may_begin_without(db: Database, tmp_path: Path) -> None:
    assert await install(db, Settings(state=tmp_path, site={"starters": False})) == []  # type: ignore[arg-type]
    assert slugs(db) == set()


async def test_a_failure_leaves_nothing_and_the_next_start_tries_again(
    db: Database, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: Starter, language: str) -> dict[str, bytes]:
        raise OSError("no space")

    with monkeypatch.context() as patch:
        patch.setattr(Starter, "files", full)
        with pytest.raises(OSError, match="no space"):
            await install(db, settings)
    with db.read() as conn:
        assert conn.execute(select(projects)).first() is None
    assert len(await install(db, settings)) == 6


async def test_a_chinese_site_speaks_chinese_and_has_the_english_notebooks_too(
    db: Database, tmp_path: Path
) -> None:
    site = Settings(state=tmp_path, site={"language": "zh_CN"})  # type: ignore[arg-type]
    await install(db, site)
    with db.read() as conn:
        project = store.get(conn, OWNER, "heat-over-two-nodes")
    assert project is not None
    assert project.name == "两个节点上的热传导"
    names = {path.name for path in project.path(site).iterdir()}
    assert {"heat.ipynb", "heat.en.ipynb"} <= names
    assert "热量" in (project.path(site) / "heat.ipynb").read_text()


def test_the_data_is_the_same_each_time() -> None:
    assert weather_csv() == weather_csv()
    assert weather_csv().count(b"\n") == 366
    assert leaves_csv().count(b"\n") == 181
    # Of every machine and Python: what was once written must be written again.
    assert weather_csv().splitlines()[1].startswith(b"2025-01-01,")


@pytest.mark.parametrize("starter", STARTERS, ids=lambda one: one.slug)
@pytest.mark.parametrize("language", LANGUAGES)
def test_no_words_of_the_other_language_are_left(starter: Starter, language: str) -> None:
    for name, content in starter.files(language).items():
        text = content.decode()
        assert "«" not in text, name
        if name.endswith(".ipynb"):
            notebook = nbformat.reads(text, as_version=4)
            nbformat.validate(notebook)
            kinds = [cell.cell_type for cell in notebook.cells]
            assert kinds[0] == "markdown"
            assert "code" in kinds
        if name.endswith(".py"):
            ast.parse(text)
    assert said(starter.name, "en") != said(starter.name, "zh_CN")


@pytest.mark.process
@pytest.mark.parametrize("starter", STARTERS, ids=lambda one: one.slug)
def test_it_runs_from_the_first_cell_to_the_last(
    starter: Starter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With Chinese texts, in a project's folder with the data sets where a node has them."""
    work = tmp_path / "work"
    for folder, files in (
        (work, starter.files("zh_CN")),
        *((tmp_path / "datasets" / data.slug, data.files()) for data in DATA if data.slug in starter.data),
    ):
        folder.mkdir(parents=True)
        for name, content in files.items():
            (folder / name).write_bytes(content)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("GALILEAN_NODES", "1")
    monkeypatch.setenv("GALILEAN_RANK", "0")
    notebook = nbformat.read(work / f"{starter.source}.ipynb", as_version=4)
    NotebookClient(notebook, timeout=60, resources={"metadata": {"path": str(work)}}).execute()
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(cell.execution_count for cell in cells)
    assert not [out for cell in cells for out in cell.outputs if out.output_type == "error"]


@pytest.mark.process
def test_half_of_the_rod_is_computed_by_the_second_node(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``ssh`` is a script that notes for which node it was asked, and runs the command here."""
    heat = next(one for one in STARTERS if one.source == "heat")
    for name, content in heat.files("en").items():
        (tmp_path / name).write_bytes(content)
    ssh = tmp_path / "bin" / "ssh"
    ssh.parent.mkdir()
    ssh.write_text(f'#!/bin/sh\necho "$1" >> {tmp_path}/asked\nshift\nexec "$@"\n')
    ssh.chmod(0o755)
    monkeypatch.setenv("PATH", str(ssh.parent), prepend=":")
    monkeypatch.setenv("GALILEAN_NODES", "2")
    monkeypatch.setenv("GALILEAN_RANK", "0")
    assert shutil.which("ssh") == str(ssh)
    notebook = nbformat.read(tmp_path / "heat.ipynb", as_version=4)
    NotebookClient(notebook, timeout=60, resources={"metadata": {"path": str(tmp_path)}}).execute()
    assert (tmp_path / "asked").read_text().split() == ["node-1"]


def test_a_missing_data_set_is_said_in_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for starter in STARTERS:
        if not starter.data:
            continue
        notebook = nbformat.reads(starter.files("en")[f"{starter.source}.ipynb"].decode(), as_version=4)
        code = next(
            cell.source for cell in notebook.cells if "datasets" in cell.source and cell.cell_type == "code"
        )
        with pytest.raises(FileNotFoundError, match="settings"):
            exec(code, {"Path": Path})


async def test_starters_are_found_and_said_in_every_language(db: Database, settings: Settings) -> None:
    await install(db, settings)
    with db.write() as conn:
        renamed = store.get(conn, OWNER, "heat-over-two-nodes")
        assert renamed is not None
        store.update(conn, renamed, now=NOW, name="Our heat")
        store.create(
            conn, owner="alice", slug="first-notebook", name="First notebook", volume_id="default", now=NOW
        )
    viewer = Viewer(name="alice")
    with db.read() as conn:
        found = search.search(conn, viewer, Wanted(kind="project", text="笔记本")).items
        assert "first-notebook" in {card.slug for card in found if card.owner == OWNER}
        assert search.search(conn, viewer, Wanted(kind="dataset", text="气象")).items[0].slug == "weather"
        cards = {
            card.slug: card
            for card in search.search(conn, viewer, Wanted(kind="project"), scope="public").items
        }
        own = store.get(conn, "alice", "first-notebook")
        data = datasets.get(conn, OWNER, "weather")
    first = spoken(cards["first-notebook"], "zh_CN")
    assert (first.name, first.summary[:4]) == ("第一个笔记本", "用五分钟")
    assert spoken(cards["first-notebook"], "en") == cards["first-notebook"]
    assert spoken(cards["heat-over-two-nodes"], "zh_CN").name == "Our heat", "what somebody wrote stays"
    assert spoken(own, "zh_CN") == own, "other people's projects are never reworded"
    assert spoken(data, "zh_CN").name == "气象站的一年"
