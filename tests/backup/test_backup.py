"""A backup holds what it says, as of one moment, and is whole or not there."""

from __future__ import annotations

import io
import json
import os
import sqlite3
import stat
import subprocess
import sys
import tarfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from galilean.errors import UserError
from galilean.terminal import Progress
from hub_config.backup import contents
from hub_config.backup.archive import write_whole
from hub_config.backup.databases import Store, store_of
from hub_config.backup.postgresql import PostgreSQLStore, hide_unknown_settings
from hub_config.secrets import WaitingAccount, leave_account
from services.catalog import store as catalogue
from tests.backup.conftest import NOW, Installation, Make


def members(file: Path) -> dict[str, bytes]:
    with tarfile.open(file) as tar:
        return {member.name: tar.extractfile(member).read() for member in tar if member.isreg()}  # type: ignore[union-attr]


def manifest(file: Path) -> dict[str, Any]:
    return json.loads(members(file)["manifest.json"])


def test_it_holds_databases_secrets_and_settings_and_says_what_it_does_not_hold(
    one: Installation, tmp_path: Path
) -> None:
    leave_account(one.settings.state, WaitingAccount(name="eva", password_hash="$2b$…", role="student"))
    (one.folder / "jupyterhub_config.d").mkdir()
    (one.folder / "jupyterhub_config.d" / "10-more.py").write_text("c.JupyterHub.debug_db = False\n")
    (one.settings.volume_path("default") / "projects" / "thesis.txt").write_text("years of work")
    made = one.backup(tmp_path / "backup.tar.gz")
    held = members(tmp_path / "backup.tar.gz")
    assert made.size_bytes == (tmp_path / "backup.tar.gz").stat().st_size
    assert {"manifest.json", "secrets/cookie", "secrets/token-portal", "settings/galilean.yaml"} <= set(held)
    assert "settings/jupyterhub_config.d/10-more.py" in held
    assert [name for name in held if name.startswith("secrets/accounts/")]
    assert b"years of work" not in b"".join(held.values())
    said = manifest(tmp_path / "backup.tar.gz")
    assert "Not in this file: what lies on the volumes" in said["not_included"]
    (volume,) = said["volumes"]
    assert volume["path"] == str(one.settings.volume_path("default"))
    assert volume["projects"] == 2
    assert volume["used_bytes"] > 0
    assert said["site"] == "Centre one"
    assert said["open_runs"] == 0


def test_only_its_owner_may_read_it_and_nothing_is_left_beside_it(one: Installation, tmp_path: Path) -> None:
    folder = tmp_path / "backups"
    folder.mkdir()
    old = os.umask(0)
    try:
        one.backup(folder / "backup.tar.gz")
        one.backup(folder / "backup.tar.gz")  # the newer takes the place of the older
    finally:
        os.umask(old)
    assert [path.name for path in folder.iterdir()] == ["backup.tar.gz"]
    assert stat.S_IMODE((folder / "backup.tar.gz").stat().st_mode) == 0o600


def test_a_disk_that_fills_up_leaves_the_earlier_backup_and_nothing_else(tmp_path: Path) -> None:
    target = tmp_path / "backup.tar.gz"
    target.write_bytes(b"yesterday's")

    def fill_up(stream: Any) -> None:
        stream.write(b"x" * 10_000)
        raise OSError(28, "No space left on device")

    with pytest.raises(UserError) as refused:
        write_whole(target, fill_up)
    assert refused.value.status == 507
    assert "No space left" in str(refused.value)
    assert target.read_bytes() == b"yesterday's"
    assert [path.name for path in tmp_path.iterdir()] == ["backup.tar.gz"]


def test_each_database_is_copied_at_one_moment_while_people_write(one: Installation, make: Make) -> None:
    """A writer makes rows in pairs; a copy that has half of a pair is a copy of two moments."""
    one.run("galilean", lambda conn: conn.execute(text("CREATE TABLE pairs (filling TEXT)")))
    stop, failures = threading.Event(), []

    def write() -> None:
        while not stop.is_set():
            try:
                one.run("galilean", add_pair)
            except Exception as error:
                failures.append(error)
                return

    def add_pair(conn: Any) -> None:
        for _ in range(2):
            conn.execute(text("INSERT INTO pairs VALUES (:filling)"), {"filling": "x" * 3000})

    for _ in range(200):
        one.run("galilean", add_pair)
    writer = threading.Thread(target=write)
    writer.start()
    try:
        for number in range(4):
            one.backup(one.folder / f"backup-{number}.tar.gz")
    finally:
        stop.set()
        writer.join()
    assert not failures
    for number in range(4):
        other = make(f"copy-{number}")
        other.restore(one.folder / f"backup-{number}.tar.gz")
        count = other.run(
            "galilean", lambda conn: conn.execute(text("SELECT count(*) FROM pairs")).scalar_one()
        )
        assert count >= 400
        assert count % 2 == 0


def test_nobody_of_whom_our_database_speaks_is_unknown_to_the_hubs(
    one: Installation, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody signs up and makes a project just when the first database stands still."""

    def meanwhile() -> None:
        one.sign_up("eva")
        one.run(
            "galilean",
            lambda conn: catalogue.create(conn, owner="eva", name="Mine", volume_id="default", now=NOW),
        )

    def watched(name: str, url: str) -> Store:
        store = store_of(name, url)
        held = store.moment

        @contextmanager
        def moment() -> Iterator[Any]:
            with held() as standing:
                if not done:
                    done.append(name)
                    meanwhile()
                yield standing

        monkeypatch.setattr(store, "moment", moment)
        return store

    done: list[str] = []
    monkeypatch.setattr("hub_config.backup.make.store_of", watched)
    one.backup(one.folder / "b.tar.gz")
    other = make("other")
    other.restore(one.folder / "b.tar.gz")
    assert set(other.owners()) <= set(other.people())
    assert set(one.owners()) == {"ada", "eva", "grace"}


def test_an_installation_that_was_never_started_has_no_backup(make: Make, tmp_path: Path) -> None:
    new = make("new")
    new.settings.state.mkdir()
    with pytest.raises(UserError) as refused:
        new.backup(tmp_path / "backup.tar.gz")
    assert "never started" in str(refused.value)
    assert not (tmp_path / "backup.tar.gz").exists()


def test_a_directory_in_the_place_of_the_file_is_said_plainly(one: Installation, tmp_path: Path) -> None:
    with pytest.raises(UserError) as refused:
        one.backup(tmp_path)
    assert "is a directory" in str(refused.value)
    with pytest.raises(UserError) as refused:
        one.backup(tmp_path / "nowhere" / "backup.tar.gz")
    assert "cannot be written" in str(refused.value)


def test_a_stream_gets_the_same_as_a_file(one: Installation, make: Make, tmp_path: Path) -> None:
    out = io.BytesIO()
    made = one.backup(out=out)
    assert made.size_bytes == len(out.getvalue())
    (tmp_path / "streamed").write_bytes(out.getvalue())
    other = make("other")
    other.restore(tmp_path / "streamed")
    assert other.owners() == ["ada", "grace"]


def test_a_damaged_sqlite_database_is_told_and_not_copied(one: Installation, tmp_path: Path) -> None:
    if one.settings.database.url:
        pytest.xfail("a server looks after its own files")
    file = one.settings.state / "galilean.sqlite"
    with sqlite3.connect(file) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    whole = bytearray(file.read_bytes())
    whole[4096 * 3 : 4096 * 5] = os.urandom(4096 * 2)
    file.write_bytes(whole)
    with pytest.raises(UserError) as refused:
        one.backup(tmp_path / "backup.tar.gz")
    assert "damaged" in str(refused.value)
    assert list(tmp_path.glob("*.tar.gz")) == []


def test_a_program_of_postgresql_that_is_missing_is_named(
    one: Installation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    if not one.settings.database.url:
        one.backup(tmp_path / "backup.tar.gz")  # SQLite needs none
        return
    with pytest.raises(UserError) as refused:
        one.backup(tmp_path / "backup.tar.gz")
    assert "pg_dump is not installed" in str(refused.value)
    assert "postgresql-client" in str(refused.value)
    assert list(tmp_path.iterdir()) == [one.folder]


def test_a_password_of_a_database_is_not_where_others_can_read_it() -> None:
    store = store_of("hub", "postgresql://galilean:s3cret@db.example.edu:5433/hub?sslmode=require")
    assert isinstance(store, PostgreSQLStore)
    assert "s3cret" in store.conninfo()
    shown = store.conninfo(password=False)
    assert "s3cret" not in shown
    assert "sslmode=require" in shown
    assert "port=5433" in shown


def test_a_script_of_a_newer_program_is_made_fit_for_an_older_server(tmp_path: Path) -> None:
    script = tmp_path / "load.sql"
    script.write_text("SET lock_timeout = 0;\nSET transaction_timeout = 0;\nCREATE TABLE t (v TEXT);\n")
    hide_unknown_settings(script)
    assert script.read_text().splitlines()[0] == "SET lock_timeout = 0;"
    assert script.read_text().splitlines()[1].startswith("--")
    assert script.read_text().splitlines()[2] == "CREATE TABLE t (v TEXT);"


def test_a_network_disk_that_does_not_answer_does_not_hold_a_backup_up() -> None:
    for_ever = threading.Event()
    assert contents.patiently(for_ever.wait, seconds=0.05) is None
    for_ever.set()


def test_progress_is_told_after_a_second_and_then_now_and_then() -> None:
    said: list[dict[str, Any]] = []
    clock = iter([0.0, 0.5, 1.0, 3.0, 6.0, 20.0])
    progress = Progress(
        lambda message, **params: said.append({"message": message, **params}),
        "{done} of {total}",
        clock=lambda: next(clock),
    )
    for done in range(5):
        progress.at(done * 2**20, 4 * 2**20)
    assert [line["done"].replace("\u00a0", " ") for line in said] == ["1.0 MB", "3.0 MB", "4.0 MB"]


def test_the_command_leads_into_a_file_and_out_of_one(one: Installation, make: Make, tmp_path: Path) -> None:
    galilean = str(Path(sys.executable).parent / "galilean")
    env = {**os.environ, **one.environ}
    made = subprocess.run([galilean, "backup", "-"], env=env, capture_output=True, timeout=120, check=True)
    assert b"Not in this file" in made.stderr
    other = make("other")
    env = {**os.environ, **other.environ}
    done = subprocess.run(
        [galilean, "restore", "-"], env=env, input=made.stdout, capture_output=True, timeout=120, check=True
    )
    assert "Restored" in done.stdout.decode()
    assert other.owners() == ["ada", "grace"]
    again = subprocess.run(
        [galilean, "restore", "-"], env=env, input=made.stdout, capture_output=True, timeout=120, check=False
    )
    assert again.returncode == 1
    assert "--replace" in again.stderr.decode()
    assert "Traceback" not in again.stderr.decode()
