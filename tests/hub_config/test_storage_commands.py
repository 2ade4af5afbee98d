"""``galilean dataset`` and ``galilean volume``: the same rules as by page and API, without anything running."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner, Result

from galilean.errors import UserError
from galilean.migrate import upgrade
from hub_config.storage_commands import register
from services.catalog.volumes import MARK


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> object:
    state = tmp_path / "state"
    state.mkdir()
    upgrade(f"sqlite:///{state / 'galilean.sqlite'}")
    monkeypatch.setenv("GALILEAN_STATE", str(state))
    app = typer.Typer()
    register(app)

    def call(*words: str) -> Result:
        return CliRunner().invoke(app, list(words))

    return call


def test_a_volume_is_registered_used_and_forgotten(run, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    place = tmp_path / "big"
    assert isinstance(run("volume", "register", "big", str(place)).exception, UserError)  # not there
    place.mkdir()
    assert run("volume", "register", "big", str(place), "--holds", "datasets").exit_code == 0
    assert (place / MARK).read_text() == "big\n"
    rows = [json.loads(line) for line in run("volume", "list", "--json").stdout.splitlines()]
    assert [(row["id"], row["holds"], row["problem"]) for row in rows] == [
        ("big", "datasets", ""),
        ("default", "both", ""),
    ]
    assert isinstance(run("volume", "delete", "default").exception, UserError)
    assert run("volume", "delete", "big").exit_code == 0


def test_a_data_set_is_made_listed_and_found_on_the_disk(run) -> None:  # type: ignore[no-untyped-def]
    made = run("dataset", "create", "alice", "CMIP 6", "--summary", "Large")
    assert made.exit_code == 0, made.output
    address, directory = made.stdout.strip().split("\t")
    assert address == "alice/cmip-6"
    assert Path(directory).is_dir()
    assert run("dataset", "path", address).stdout.strip() == directory
    (row,) = [json.loads(line) for line in run("dataset", "list", "--json").stdout.splitlines()]
    assert (row["slug"], row["summary"], row["visibility"]) == ("cmip-6", "Large", "private")
    assert run("dataset", "list", "--owner", "bob").stdout == ""
