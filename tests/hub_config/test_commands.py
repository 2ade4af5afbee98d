"""The galilean command: what it says, and how it ends."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from datetime import datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select, update
from typer.testing import CliRunner

import hub_config.start
from galilean import notices
from galilean.cli import build_app
from galilean.clock import utcnow
from galilean.db import Database
from galilean.errors import UserError
from galilean.migrate import newest, upgrade
from galilean.settings import Settings
from galilean.tables import audit_log
from hub_config.doctor import examine
from hub_config.secrets import waiting_accounts
from hub_config.start import check_public_port, prepare_state
from spawner import records, steps
from spawner.request import ClusterRequest
from spawner.tables import cluster_nodes, clusters, node_use
from tests.hub_config.conftest import SiteFactory
from tests.spawner.backends import plan_of


def galilean(*args: str, text: str = "") -> Any:
    return CliRunner().invoke(build_app(), args, input=text)


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("GALILEAN_CONFIG", "PORT", "BACKEND"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GALILEAN_STATE", str(tmp_path / "state"))
    return tmp_path


def test_good_settings_are_said_to_be_good(here: Path) -> None:
    (here / "galilean.yaml").write_text("site: {name: Io}\n")
    assert "good" in galilean("config", "check").stdout


def test_wrong_settings_end_with_1_and_name_the_line(here: Path) -> None:
    (here / "galilean.yaml").write_text("site:\n  name: Io\n  timezone: Moon/Base\nnonsense: 1\n")
    done = subprocess.run(
        [str(Path(sys.executable).parent / "galilean"), "config", "check"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert "galilean.yaml:3" in done.stderr
    assert "galilean.yaml:4" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_schema_is_json(here: Path) -> None:
    schema = json.loads(galilean("config", "schema").stdout)
    assert "site" in schema["properties"]


def test_the_database_is_upgraded_and_then_left_alone(here: Path) -> None:
    assert "now" in galilean("db", "upgrade").stdout
    assert "already" in galilean("db", "upgrade").stdout
    assert upgrade(f"sqlite:///{here / 'state' / 'galilean.sqlite'}") == (newest(), newest())


def test_an_account_waits_for_the_next_start_while_nothing_runs(here: Path) -> None:
    done = galilean("user", "add", "Eva", "--role", "student", "--password-stdin", text="winter is coming\n")
    assert done.exit_code == 0
    assert "when Galilean starts" in done.stdout
    ((_, account),) = waiting_accounts(here / "state")
    assert (account.name, account.role) == ("eva", "student")
    assert account.password_hash.startswith("$2")


@pytest.mark.parametrize(
    ("args", "text", "says"),
    [
        (("eva", "--role", "emperor"), "winter is coming\n", "no role"),
        (("eva", "--role", "student"), "\n", "password"),
        (("eva", "--role", "student"), "x" * 73 + "\n", "72"),
        (("e/va", "--role", "student"), "winter is coming\n", "user name"),
    ],
)
def test_what_cannot_be_an_account_is_refused(args: tuple[str, ...], text: str, says: str) -> None:
    done = galilean("user", "add", *args, "--password-stdin", text=text)
    assert isinstance(done.exception, UserError)
    assert says in str(done.exception)


def test_commands_that_need_a_running_product_say_so_and_make_nothing(here: Path) -> None:
    for args in (("token", "eva"), ("clusters", "list"), ("clusters", "release", "01X"), ("sweep",)):
        done = galilean(*args)
        assert isinstance(done.exception, UserError), args
        assert "make up" in str(done.exception)
    assert galilean("status").exit_code == 1
    assert not (here / "state" / "galilean.sqlite").exists()


def test_nothing_held_and_nothing_to_sweep_is_said(here: Path) -> None:
    galilean("db", "upgrade")
    assert "Nothing is held" in galilean("clusters", "list").stdout
    assert json.loads(galilean("clusters", "list", "--json").stdout) == []
    done = galilean("sweep", "--json")
    assert done.exit_code == 0
    assert json.loads(done.stdout)["orphans"] == []


def test_the_doctor_says_what_shared_origins_cost_and_how_to_get_what_is_missing(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    findings = {finding.what: finding for finding in examine(Settings(state=here / "state"), {})}
    assert findings["Origins"].level == "note"
    assert "subdomain_host" in findings["Origins"].cure
    assert findings["Isolation"].level == "note"
    assert findings["Python"].level == "good"
    monkeypatch.setenv("PATH", "/nowhere")
    findings = {finding.what: finding for finding in examine(Settings(state=here / "state"), {})}
    assert findings["Node.js"].level == "note"
    assert "Node.js 20" in findings["Node.js"].cure


def test_the_doctor_finds_a_taken_port(here: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        settings = Settings.model_validate({"web": {"port": port}, "state": str(here / "state")})
        findings = {finding.what: finding for finding in examine(settings, {})}
        assert findings["Address"].level == "bad"
        with pytest.raises(UserError) as refused:
            check_public_port(settings, patience_seconds=0)
        assert str(port) in str(refused.value)
        assert f"PORT={port + 1}" in str(refused.value)


def test_a_state_directory_that_cannot_be_made_is_said_plainly(here: Path) -> None:
    (here / "file").write_text("")
    with pytest.raises(UserError) as refused:
        prepare_state(here / "file" / "state")
    assert "GALILEAN_STATE" in str(refused.value)


def test_a_full_disk_is_said_plainly(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hub_config.start.LEAST_FREE_BYTES", 2**62)
    with pytest.raises(UserError) as refused:
        prepare_state(here / "state")
    assert refused.value.status == 507
    assert oct((here / "state").stat().st_mode & 0o777) == "0o700"


async def test_accounts_and_tokens_are_made_at_once_while_the_hub_runs(
    site_of: SiteFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    import asyncio

    site = await site_of()
    monkeypatch.setenv("GALILEAN_STATE", str(site.settings.state))
    Database(site.settings.database_url).close()

    async def command(*args: str, text: str = "") -> Any:
        return await asyncio.to_thread(lambda: galilean(*args, text=text))

    done = await command(
        "user", "add", "eva", "--role", "student", "--password-stdin", text="winter is coming\n"
    )
    assert "has an account now" in done.stdout, done.exception
    assert (await site.command.user("eva"))["groups"] == ["galilean:student"]
    token = (await command("token", "eva")).stdout.strip()
    assert (await site.api(token).user("eva"))["name"] == "eva"
    again = await command(
        "user", "add", "eva", "--role", "student", "--password-stdin", text="another word\n"
    )
    assert isinstance(again.exception, UserError)
    assert again.exception.status == 409
    done = await command(
        "user", "add", "eva", "--role", "teacher", "--password-stdin", "--update", text="another word\n"
    )
    assert done.exit_code == 0
    assert set((await site.command.user("eva"))["groups"]) == {"galilean:student", "galilean:teacher"}
    await site.command.request("POST", "/users/tom")  # known to the hub, without a password
    done = await command(
        "user", "add", "tom", "--role", "student", "--password-stdin", text="winter is coming\n"
    )
    assert done.exit_code == 0, done.exception
    nobody = await command("token", "nobody")
    assert isinstance(nobody.exception, UserError)
    assert "nobody" in str(nobody.exception)


class HubThatStops:
    """A hub that releases what it is asked to, but for those that it does not know."""

    def __init__(self, database: Database, unknown: str = "") -> None:
        self.database, self.unknown = database, unknown
        self.asked: list[str] = []

    async def stop(self, user: str, server: str) -> None:
        self.asked.append(server)
        if server == self.unknown:
            raise UserError(404, "It does not know the server.")
        with self.database.write() as conn:
            stopping = steps.begin_stop(conn, user, server, reason="asked")
            assert stopping is not None
            assert steps.close(conn, stopping, ends={}, now=utcnow())

    async def close(self) -> None:
        pass


@pytest.fixture
def three_held(here: Path) -> Iterator[Database]:
    """Three people hold a cluster each."""
    galilean("db", "upgrade")
    database = Database(f"sqlite:///{here / 'state' / 'galilean.sqlite'}", threads=2)
    for number, user in enumerate(("ada", "bob", "eva")):
        with database.write() as conn:
            steps.reserve(
                conn,
                run_id=f"01K{number:023}",
                plan=plan_of(user, user),
                request=ClusterRequest.parse({"project": user, "nodes": 1}),
                backend="process",
                asked_by=user,
                now=utcnow(),
            )
    yield database
    database.close()


def test_every_cluster_is_released_as_before_the_product_is_taken_away(
    three_held: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub = HubThatStops(three_held)
    monkeypatch.setattr("hub_config.start.command_hub", lambda settings: hub)
    done = galilean("clusters", "release", "--all")
    assert done.exit_code == 0, done.output
    assert "3 to release" in done.stdout
    assert "Nothing is held" in done.stdout
    assert sorted(hub.asked) == ["ada", "bob", "eva"]
    with three_held.read() as conn:
        assert records.all_open(conn) == []


def test_what_the_hub_does_not_release_in_time_is_told_and_stays_asked_for(
    three_held: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hub_config.start.command_hub", lambda _: HubThatStops(three_held, "bob"))
    # Three rounds by a clock of its own: how long a round takes is the machine's business.
    ticks = count(0.0, hub_config.start.RELEASE_SECONDS / 2.5)
    monkeypatch.setattr("hub_config.start.monotonic", lambda: next(ticks))
    done = galilean("clusters", "release", "--all")
    assert done.exit_code == 1
    assert "1 are left, their release is asked for" in done.stdout
    with three_held.read() as conn:
        (left,) = records.all_open(conn)
    assert left.user == "bob"
    assert left.stop_asked_at is not None


def test_whoever_loses_a_cluster_by_the_command_line_is_told_why(
    three_held: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hub_config.start.command_hub", lambda _: HubThatStops(three_held))
    done = galilean("clusters", "release", f"01K{1:023}", "--reason", "The machine room\ngets too warm")
    assert done.exit_code == 0, done.output
    with three_held.read() as conn:
        run = records.get(conn, f"01K{1:023}")
        (told,) = notices.list_for(conn, "bob")
        assert notices.list_for(conn, "ada") == []
        (line,) = conn.execute(select(audit_log).where(audit_log.c.action == "cluster.release")).all()
    assert run is not None
    assert not run.is_open
    assert run.reason == "admin"
    assert told.params["why"] == "The machine room gets too warm"
    assert (line.subject, line.reason) == ("bob/bob", "The machine room gets too warm")


def test_the_list_tells_what_is_used_and_when_it_goes_back(three_held: Database) -> None:
    now = utcnow()
    with three_held.write() as conn:
        run = records.get(conn, f"01K{1:023}")
        assert run is not None
        held = {
            "status": "running",
            "ready_at": now - timedelta(hours=2),
            "release_at": now,
            "release_why": "left",
        }
        conn.execute(update(clusters).where(clusters.c.id == run.id).values(held))
        conn.execute(cluster_nodes.insert().values(cluster_id=run.id, rank=0, name="n", ready_at=now))
        conn.execute(
            node_use.insert().values(
                cluster_id=run.id, rank=0, attempt=1, measured_at=now, used_at=now - timedelta(hours=1),
                cpu_permille=run.cpu_millicores // 2,
            )
        )  # fmt: skip
    (one,) = [
        row for row in json.loads(galilean("clusters", "list", "--json").stdout) if row["user"] == "bob"
    ]
    assert (one["cpu_now_percent"], one["gpu_now_percent"], one["release_why"]) == (50.0, None, "left")
    assert datetime.fromisoformat(one["idle_since"]) == now - timedelta(hours=1)
    text = galilean("clusters", "list").stdout
    assert "CPU 50%, GPU -, idle since" in text
    assert text.count("goes back") == 1, "of those that run"


@pytest.mark.parametrize("words", [(), ("01K", "--all"), ("--all", "--reason", "x")])
def test_one_cluster_or_all_of_them_are_named(words: tuple[str, ...]) -> None:
    done = galilean("clusters", "release", *words)
    assert done.exit_code == 2
