"""``galilean project``: out of one site into another, without anything that runs."""

from __future__ import annotations

import json
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import func, select
from typer.testing import CliRunner, Result

from extensions.quota import store
from extensions.quota.measures import Measure
from extensions.quota.store import Actor
from galilean.cli import build_app
from galilean.db import Database
from galilean.errors import UserError
from galilean.migrate import upgrade
from galilean.rights import GROUP_PREFIX, ROLE_PREFIX
from galilean.settings import Settings
from hub_config import project_commands
from hub_config.seeding import seed
from services.catalog import datasets, shares, tables
from services.catalog.access import Share
from services.catalog.archives import fitting
from services.catalog.volumes import ensure_volumes
from services.files.unpacking import Limits

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):  # type: ignore[no-untyped-def]
    """``command("here", "project", "list")``: on the site of a name."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("GALILEAN_CONFIG", raising=False)

    def run(site: str, *words: str) -> Result:
        state = tmp_path / site
        if not state.exists():
            state.mkdir()
            upgrade(Settings(state=state).database_url)
        monkeypatch.setenv("GALILEAN_STATE", str(state))
        return CliRunner().invoke(build_app(), ["project", *words])

    return run


def test_projects_go_from_site_to_site(command, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    assert "6 starter" in command("here", "starters").output
    listed = command("here", "list", "--json").output.splitlines()
    assert {json.loads(line)["owner"] for line in listed} == {"Galilean"}
    archive = str(tmp_path / "all.galilean.tar.gz")
    assert command("here", "export", "--all", "-o", archive).exit_code == 0
    assert oct(Path(archive).stat().st_mode & 0o777) == "0o600"
    dry = command("there", "import", archive, "--owner", "ada", "--dry-run")
    assert "Galilean/first-notebook → ada/first-notebook" in dry.output
    assert command("there", "list").output == ""
    done = command("there", "import", archive, "--owner", "ada", "--publish", "--yes")
    assert "6 projects were imported" in done.output
    assert len(command("there", "list", "--owner", "ada").output.splitlines()) == 6
    again = command("there", "import", archive, "--owner", "ada", "--conflict", "skip", "--yes")
    assert "0 projects" in again.output
    replaced = command("there", "import", archive, "--owner", "ada", "--conflict", "replace", "--yes")
    assert "6 projects" in replaced.output
    assert len(command("there", "list").output.splitlines()) == 6


def test_what_an_owner_may_keep_and_what_is_shared_with_their_groups_holds_by_command(  # type: ignore[no-untyped-def]
    command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    groups = {name: frozenset({ROLE_PREFIX + "student", GROUP_PREFIX + "course"}) for name in ("ada", "bob")}

    async def accounts(_settings: Settings) -> dict[str, frozenset[str]]:
        return groups

    monkeypatch.setattr(project_commands, "_accounts", accounts)
    command("here", "starters")
    with (
        closing(Database(Settings(state=tmp_path / "here").database_url)) as database,
        database.read() as conn,
    ):
        linked = list(conn.execute(select(tables.datasets.c.slug)).scalars())
    archive = str(tmp_path / "all.tar")
    assert command("here", "export", "--all", "--plain", "-o", archive).exit_code == 0
    command("there", "list")
    boss = Actor(name="boss", roles=("admin",))
    with closing(Database(Settings(state=tmp_path / "there").database_url)) as database:
        with database.write() as conn:
            seed(conn, Settings(), NOW)
            store.give(conn, "ada", [(Measure("kept"), 100)], reason="a test", actor=boss, now=NOW)
            ensure_volumes(conn, Settings(state=tmp_path / "there"), NOW)
            for slug in linked:
                made = datasets.create(
                    conn, owner="Galilean", name=slug, slug=slug, volume_id="default", now=NOW
                )
                share = Share(grantee_kind="group", grantee="course", access="read")
                shares.give(conn, "dataset", made.id, share, actor=shares.Actor(name="Galilean"), now=NOW)
    refused = command("there", "import", archive, "--owner", "ada", "--yes")
    assert (refused.exit_code, "There is room for 100" in refused.output) == (1, True), refused.output
    assert command("there", "list", "--owner", "ada").output == ""
    assert "6 projects were imported" in command("there", "import", archive, "--owner", "bob", "--yes").output
    with closing(Database(Settings(state=tmp_path / "there").database_url)) as database:
        with database.read() as conn:
            assert conn.execute(select(func.count()).select_from(tables.project_datasets)).scalar_one()


def test_nothing_is_imported_without_a_yes(command, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    archive = str(tmp_path / "one.tar")
    command("here", "starters")
    assert command("here", "export", "Galilean/first-notebook", "--plain", "-o", archive).exit_code == 0
    refused = command("there", "import", archive)
    assert isinstance(refused.exception, UserError)
    assert "--yes" in str(refused.exception)


def test_what_no_import_would_take_is_not_exported(  # type: ignore[no-untyped-def]
    command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fitting, "Limits", lambda: Limits(entries=1))
    command("here", "starters")
    refused = command("here", "export", "--all", "-o", str(tmp_path / "all.tar"))
    assert isinstance(refused.exception, UserError)
    assert refused.exception.status == 413
    assert not list(tmp_path.glob("all.tar*"))


def test_what_is_not_there_is_said(command, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    assert "no project “ada/x”" in str(command("here", "export", "ada/x", "-o", "x").exception)
    assert "Say which" in str(command("here", "export", "-o", "x").exception)
    assert "cannot be read" in str(command("here", "import", "nothing.tar").exception)
