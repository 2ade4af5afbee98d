"""``galilean dataset`` and ``galilean volume``: the same rules as by page and API, without anything running."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner, Result

from galilean.clock import utcnow
from galilean.errors import UserError
from galilean.hubapi import HubAPI
from galilean.migrate import upgrade
from hub_config.storage_commands import register
from services.catalog.volumes import MARK
from services.machines import store
from services.machines.rules import Machine
from tests.portal.live import LiveSite
from tests.web.fake_hub import PORTAL_TOKEN


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


def test_a_claim_is_registered_by_command_only_when_every_machine_has_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place, looks = tmp_path / "campus", {"m2": {"problem": "absent", "why": ""}}
    place.mkdir()
    (tmp_path / "default").mkdir()
    state = tmp_path / "state"
    with LiveSite(
        state,
        f"""
backend: kubernetes
kubernetes: {{image: "node:1"}}
volumes: {{default: {{kind: claim, claim: projects, path: {tmp_path / "default"}}}}}
""",
    ) as site:
        machines = [
            Machine(name=name, cpu_millicores=4000, memory_bytes=2**33, cordoned=name == "m3")
            for name in ("m1", "m2", "m3")
        ]
        site.write(store.sync, machines, utcnow())
        looked = site.hub.looked
        site.hub.looks = looks
        api = site.portal.hub.api_url
        monkeypatch.setattr("hub_config.start.command_hub", lambda _settings: HubAPI(api, PORTAL_TOKEN))
        monkeypatch.setattr("hub_config.storage_commands.load_settings", lambda: site.settings)
        app = typer.Typer()
        register(app)

        def run(*words: str) -> Result:
            return CliRunner().invoke(app, list(words))

        refused = run("volume", "register", "campus", f"{place}/", "--claim", "campus")
        assert isinstance(refused.exception, UserError)
        assert "m2: it is not mounted there" in str(refused.exception)
        assert looked == [{"claim": "campus", "volume": "campus", "machines": ["m1", "m2"]}]
        site.hub.looks = None
        assert (
            getattr(
                run("volume", "register", "campus", str(place), "--claim", "campus").exception, "status", 0
            )
            == 503
        )
        assert [
            row["id"] for row in map(json.loads, run("volume", "list", "--json").stdout.splitlines())
        ] == ["default"]
        site.hub.looks = {}
        assert run("volume", "register", "campus", str(place), "--claim", "campus").exit_code == 0
        inside = run("volume", "register", "mine", str(state / "imports"), "--claim", "mine")
        assert "belongs to the product" in str(inside.exception)
        assert len(looked) == 3
