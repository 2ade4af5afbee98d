"""``galilean project``: out of one site into another, without anything that runs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from galilean.cli import build_app
from galilean.errors import UserError
from galilean.migrate import upgrade
from galilean.settings import Settings


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


def test_nothing_is_imported_without_a_yes(command, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    archive = str(tmp_path / "one.tar")
    command("here", "starters")
    assert command("here", "export", "Galilean/first-notebook", "--plain", "-o", archive).exit_code == 0
    refused = command("there", "import", archive)
    assert isinstance(refused.exception, UserError)
    assert "--yes" in str(refused.exception)


def test_what_is_not_there_is_said(command, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    assert "no project “ada/x”" in str(command("here", "export", "ada/x", "-o", "x").exception)
    assert "Say which" in str(command("here", "export", "-o", "x").exception)
    assert "cannot be read" in str(command("here", "import", "nothing.tar").exception)
