"""A restore puts everything in place or changes nothing, and never touches what lives."""

from __future__ import annotations

import hashlib
import io
import json
import random
import stat
import tarfile
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from sqlalchemy import select, text

from galilean import migrate
from galilean.db import Database
from galilean.errors import UserError
from galilean.tables import audit_log, leases
from hub_config import hub_database
from hub_config.backup.databases import Store
from hub_config.backup.half import NAME as HALF
from hub_config.backup.half import refuse_half_restored
from hub_config.secrets import load_secrets
from hub_config.supervisor import Lock
from tests.backup.conftest import NOW, Installation, Make


def refused(call: Callable[[], Any], status: int, says: str) -> UserError:
    with pytest.raises(UserError) as found:
        call()
    assert found.value.status == status, str(found.value)
    assert says in str(found.value), str(found.value)
    return found.value


def tried(call: Callable[[], Any]) -> UserError | None:
    try:
        call()
    except UserError as error:
        return error
    return None


def of(installation: Installation) -> tuple[list[str], list[str], dict[str, str]]:
    """Everything that a restore changes."""
    return installation.owners(), installation.people(), installation.secrets()


@pytest.fixture
def file(one: Installation, tmp_path: Path) -> Path:
    one.backup(tmp_path / "backup.tar.gz")
    return tmp_path / "backup.tar.gz"


def test_another_machine_becomes_what_the_first_one_was(one: Installation, file: Path, make: Make) -> None:
    other = make("other")
    done = other.restore(file)
    assert of(other) == of(one)
    assert done.aside is None
    assert not done.upgraded
    assert done.settings_kept  # the sites have different names
    state = other.settings.state
    assert not list(state.glob(".restore-*"))
    assert not (state / HALF).exists()
    for path in [state, state / "secrets"]:
        assert stat.S_IMODE(path.stat().st_mode) == 0o700
    for path in (state / "secrets").glob("token-*"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    refuse_half_restored(state)


def test_leases_of_processes_that_are_no_more_are_gone_and_the_audit_log_says_what_was_done(
    one: Installation, make: Make, tmp_path: Path
) -> None:
    one.lease("metering", NOW + timedelta(seconds=20))
    one.backup(tmp_path / "backup.tar.gz")
    other = make("other")
    other.restore(tmp_path / "backup.tar.gz")
    database = Database(other.settings.database_url)
    with database.read() as conn:
        assert not conn.execute(select(leases)).all()
        (entry,) = conn.execute(select(audit_log)).all()
    database.close()
    assert entry.action == "backup.restore"
    assert entry.after["made_at"] == NOW.isoformat()


def test_volumes_that_are_not_back_yet_are_told(one: Installation, file: Path, make: Make) -> None:
    other = make("other")
    (volume,) = other.restore(file).volumes
    assert (volume.there, volume.projects, volume.missing) == (False, 2, 2)
    path = other.settings.volume_path("default")
    path.parent.mkdir()
    one.settings.volume_path("default").rename(path)
    (volume,) = other.restore(file, replace=True).volumes
    assert (volume.there, volume.projects, volume.missing) == (True, 2, 0)
    next((path / "projects").iterdir()).rename(path / "lost")
    (volume,) = other.restore(file, replace=True, now=NOW + timedelta(hours=1)).volumes
    assert (volume.there, volume.missing) == (True, 1)


# ------------------------------------------------------------------------------------ what is there already


def test_an_installation_is_not_replaced_by_accident(one: Installation, file: Path, make: Make) -> None:
    other = make("other")
    other.fill("eva")
    before = of(other)
    error = refused(lambda: other.restore(file), 409, "--replace")
    assert "secrets" in str(error)
    assert of(other) == before


def test_what_is_replaced_is_kept_aside_and_can_be_taken_back(
    one: Installation, file: Path, make: Make
) -> None:
    other = make("other")
    other.fill("eva")
    before = of(other)
    other.backup(other.folder / "before.tar.gz")
    done = other.restore(file, replace=True)
    assert of(other) == of(one)
    assert done.aside is not None
    assert done.aside.parent == other.settings.state / "replaced"
    kept = {path.name for path in done.aside.iterdir()}
    kind = "pgdump" if other.settings.database.url else "sqlite"
    assert {f"galilean.{kind}", f"hub.{kind}", "secrets", "galilean.yaml"} <= kept
    assert (done.aside / "secrets" / "cookie").read_text() == before[2]["cookie"]
    again = other.restore(other.folder / "before.tar.gz", replace=True)
    assert again.aside not in (None, done.aside)  # a second one within the second
    assert of(other) == before


def test_a_database_that_is_damaged_can_be_replaced_and_is_kept_as_it_is(
    one: Installation, file: Path
) -> None:
    if one.settings.database.url:
        one.run("galilean", lambda conn: conn.execute(text("DROP TABLE cluster_nodes CASCADE")))
    else:
        (one.settings.state / "galilean.sqlite").write_bytes(b"not a database at all")
        (one.settings.state / "galilean.sqlite-wal").unlink(missing_ok=True)
    done = one.restore(file, replace=True)
    assert one.owners() == ["ada", "grace"]
    assert done.aside is not None
    if not one.settings.database.url:
        assert (done.aside / "galilean.sqlite").read_bytes() == b"not a database at all"


def test_tables_that_only_a_newer_version_has_go_with_what_is_replaced(one: Installation, file: Path) -> None:
    one.run("galilean", lambda conn: conn.execute(text("CREATE TABLE of_tomorrow (x INTEGER)")))
    one.restore(file, replace=True)
    with pytest.raises(Exception, match="of_tomorrow"):
        one.run("galilean", lambda conn: conn.execute(text("SELECT * FROM of_tomorrow")))


# --------------------------------------------------------------------------------------------- what lives


def test_nothing_is_restored_over_a_product_that_runs(one: Installation, file: Path) -> None:
    before = of(one)
    lock = Lock(one.settings.state)
    refused(lambda: one.restore(file, replace=True), 409, "runs already")
    lock.release()
    refused(
        lambda: one.restore(file, replace=True, alive=lambda settings: "http://127.0.0.1:8081"),
        409,
        "The hub runs (http://127.0.0.1:8081)",
    )
    one.lease("release", NOW + timedelta(seconds=20))
    error = refused(lambda: one.restore(file, replace=True), 409, "release")
    assert "half a minute" in str(error)
    assert of(one) == before
    one.restore(file, replace=True, now=NOW + timedelta(seconds=21))  # whoever had it is no more


def test_a_product_does_not_start_while_a_restore_goes_on(one: Installation, file: Path) -> None:
    def look(settings: Any) -> str:
        refused(lambda: Lock(one.settings.state), 409, "runs already")
        return ""

    one.restore(file, replace=True, alive=look)
    Lock(one.settings.state).release()


# ------------------------------------------------------------------------------------------------ versions


def test_a_backup_of_an_older_version_is_brought_to_this_one(one: Installation, make: Make) -> None:
    hub_back(one.settings.hub_database_url)
    before = hub_database.present(one.settings.hub_database_url)
    assert before != hub_database.newest()
    one.backup(one.folder / "old.tar.gz")
    other = make("other")
    done = other.restore(one.folder / "old.tar.gz")
    assert done.upgraded
    assert hub_database.present(other.settings.hub_database_url) == hub_database.newest()
    assert other.people() == ["ada", "grace"]
    assert hub_database.present(one.settings.hub_database_url) == before


def test_a_backup_of_our_first_tables_is_brought_to_those_of_today(make: Make) -> None:
    one = make("one")
    one.settings.state.mkdir(mode=0o700)
    database = Database(one.settings.database_url)
    with database.write() as conn:
        command.upgrade(migrate.alembic_config(conn), "0001")
    database.close()
    one.fill()
    set_revision(one, "galilean", "0001") if migrate.newest() == "0001" else None
    one.backup(one.folder / "old.tar.gz")
    other = make("other")
    other.restore(one.folder / "old.tar.gz")
    assert other.run("galilean", migrate.present) == migrate.newest()


@pytest.mark.parametrize("which", ["galilean", "hub"])
def test_a_backup_of_a_newer_version_is_refused_before_anything_is_touched(
    one: Installation, make: Make, which: str
) -> None:
    set_revision(one, which, "9999")
    one.backup(one.folder / "new.tar.gz")
    other = make("other")
    other.fill("eva")
    before = of(other)
    error = refused(lambda: other.restore(one.folder / "new.tar.gz", replace=True), 409, "newer Galilean")
    assert "9999" in str(error)
    assert of(other) == before
    assert not (other.settings.state / "replaced").exists()


def set_revision(installation: Installation, which: str, revision: str) -> None:
    installation.run(
        which, lambda conn: conn.execute(text(f"UPDATE alembic_version SET version_num = '{revision}'"))
    )


def hub_back(url: str) -> None:
    """The hub's tables as the JupyterHub before the last change of them had them."""
    import subprocess
    import sys
    import tempfile

    from jupyterhub.dbutil import write_alembic_ini

    with tempfile.TemporaryDirectory() as folder:
        write_alembic_ini(f"{folder}/alembic.ini", url)
        subprocess.run(
            [sys.executable, "-m", "alembic", "-c", f"{folder}/alembic.ini", "downgrade", "-1"],
            check=True,
            capture_output=True,
            timeout=60,
        )


def test_databases_of_another_kind_are_refused(one: Installation, file: Path, make: Make) -> None:
    other = make("other")
    manifest = json.loads(rewritten(file, lambda held: None)["manifest.json"])
    wrong = "sqlite" if manifest["databases"]["hub"]["kind"] == "postgresql" else "postgresql"
    manifest["databases"]["hub"]["kind"] = wrong
    refused(
        lambda: other.restore(pack(other.folder, {"manifest.json": json.dumps(manifest).encode()}, file)),
        409,
        "same kind",
    )


# --------------------------------------------------------------------------------------- files that are not


def rewritten(file: Path, change: Callable[[dict[str, bytes]], None]) -> dict[str, bytes]:
    with tarfile.open(file) as tar:
        held = {member.name: tar.extractfile(member).read() for member in tar}  # type: ignore[union-attr]
    change(held)
    return held


def pack(
    folder: Path, changed: dict[str, bytes], file: Path, extra: list[tarfile.TarInfo] | None = None
) -> Path:
    """A backup with members changed or added."""
    held = rewritten(file, lambda held: held.update(changed))
    made = folder / "packed.tar.gz"
    with tarfile.open(made, "w:gz") as tar:
        for name, content in held.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
        for member in extra or []:
            tar.addfile(member)
    return made


def test_a_file_that_was_cut_short_or_changed_is_refused_and_nothing_is_touched(
    one: Installation, file: Path
) -> None:
    before = of(one)
    whole = file.read_bytes()
    dice = random.Random(7)
    wrong = [whole[: len(whole) * part // 10] for part in range(10)]
    wrong += [whole[:-1], b"", b"PK\3\4 something else", b"\x1f\x8b" + bytes(200)]
    for _ in range(12):
        place = dice.randrange(40, len(whole) - 40)
        wrong.append(whole[:place] + bytes([whole[place] ^ 0x55]) + whole[place + 1 :])
    for number, content in enumerate(wrong):
        bad = one.folder / f"bad-{number}"
        bad.write_bytes(content)
        error = tried(lambda bad=bad: one.restore(bad, replace=True))
        if error is None:  # a byte of gzip's own that says nothing (the time, the end)
            assert number >= 14 or content == whole[:-1]
        else:
            assert error.status == 400, str(error)
            assert "damaged" in str(error)
        assert of(one) == before
        if number < 10:
            assert not (one.settings.state / "replaced").exists()
    assert not list(one.settings.state.glob(".restore-*"))


def manifest_with(file: Path, change: Callable[[dict[str, Any]], None]) -> bytes:
    said = json.loads(rewritten(file, lambda held: None)["manifest.json"])
    change(said)
    return json.dumps(said).encode()


@pytest.mark.parametrize(
    "name", ["../../evil", "/tmp/evil", "secrets/../../evil", "a/b/c/d/e", "secrets/.hidden", ""]
)
def test_a_file_that_would_write_elsewhere_is_refused(one: Installation, file: Path, name: str) -> None:
    content = b"mine"
    note = {"size_bytes": 4, "sha256": hashlib.sha256(content).hexdigest()}
    bad = pack(
        one.folder,
        {
            "manifest.json": manifest_with(file, lambda said: said["files"].update({name: note})),
            name: content,
        },
        file,
    )
    refused(lambda: one.restore(bad, replace=True), 400, "damaged")
    assert not list(one.folder.parent.rglob("evil"))


def test_members_that_are_no_files_or_that_nobody_announced_are_refused(
    one: Installation, file: Path
) -> None:
    link = tarfile.TarInfo("secrets/cookie2")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    refused(lambda: one.restore(pack(one.folder, {}, file, [link]), replace=True), 400, "damaged")
    more = tarfile.TarInfo("more")
    refused(lambda: one.restore(pack(one.folder, {}, file, [more]), replace=True), 400, "damaged")
    gone = manifest_with(file, lambda said: said["files"].pop("secrets/cookie"))
    refused(
        lambda: one.restore(pack(one.folder, {"manifest.json": gone}, file), replace=True), 400, "damaged"
    )


def test_a_format_of_tomorrow_is_refused_with_its_version(one: Installation, file: Path) -> None:
    tomorrow = manifest_with(file, lambda said: said.update(format=2, version="9.1"))
    refused(
        lambda: one.restore(pack(one.folder, {"manifest.json": tomorrow}, file), replace=True), 409, "9.1"
    )


# -------------------------------------------------------------------------------------- broken off half-way


@pytest.mark.parametrize("which", ["hub", "galilean"])
def test_a_restore_that_fails_half_way_takes_everything_back(
    one: Installation, file: Path, make: Make, monkeypatch: pytest.MonkeyPatch, which: str
) -> None:
    other = make("other")
    other.fill("eva")
    before = of(other)
    fail_at(monkeypatch, which)
    refused(lambda: other.restore(file, replace=True), 502, "it rains")
    monkeypatch.undo()
    assert of(other) == before
    refuse_half_restored(other.settings.state)
    empty = make("empty")
    fail_at(monkeypatch, which)
    refused(lambda: empty.restore(file), 502, "it rains")
    monkeypatch.undo()
    empty.restore(file)  # as if nothing had been tried
    assert of(empty) == of(one)


def fail_at(monkeypatch: pytest.MonkeyPatch, which: str) -> None:
    from hub_config.backup.postgresql import PostgreSQLStore
    from hub_config.backup.sqlite import SQLiteStore

    for kind in (PostgreSQLStore, SQLiteStore):
        load = kind.load

        def failing(self: Store, file: Path, told: Any, load: Any = load) -> None:
            if self.name == which and "replaced" not in file.parts:
                raise UserError(502, "it rains")
            load(self, file, told)

        monkeypatch.setattr(kind, "load", failing)


def test_a_restore_that_was_cut_off_is_noticed_and_cured_by_another(
    one: Installation, file: Path, tmp_path: Path
) -> None:
    (one.settings.state / HALF).write_text("power cut\n")
    refused(lambda: refuse_half_restored(one.settings.state), 409, "broken off")
    refused(lambda: one.backup(tmp_path / "b.tar.gz"), 409, "broken off")
    one.restore(file)  # without --replace: what is there is nobody's
    refuse_half_restored(one.settings.state)
    assert one.owners() == ["ada", "grace"]


# ---------------------------------------------------------------------------------------- what is elsewhere


def test_secrets_that_somebody_else_keeps_are_left_alone(
    one: Installation, file: Path, make: Make, tmp_path: Path
) -> None:
    other = make("other")
    given = tmp_path / "given"
    load_secrets(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "secrets").rename(given)
    before = {path.name: path.read_text() for path in given.iterdir()}
    other.environ["GALILEAN_SECRETS"] = str(given)
    assert other.restore(file).secrets_given
    assert {path.name: path.read_text() for path in given.iterdir()} == before
    assert not (other.settings.state / "secrets").exists()
    assert other.owners() == ["ada", "grace"]
    other.backup(tmp_path / "of-given.tar.gz")
    held = rewritten(tmp_path / "of-given.tar.gz", lambda held: None)
    assert held["secrets/cookie"].decode() == before["cookie"]


def test_where_there_are_no_settings_those_of_the_backup_are_taken(
    one: Installation, file: Path, make: Make
) -> None:
    if one.settings.database.url:
        return  # the next test
    other = make("other")
    text_of_one = Path(one.environ["GALILEAN_CONFIG"]).read_text()
    Path(other.environ["GALILEAN_CONFIG"]).unlink()
    assert not other.restore(file).settings_kept
    assert Path(other.environ["GALILEAN_CONFIG"]).read_text() == text_of_one


def test_settings_of_the_backup_that_mean_other_places_are_not_taken_silently(
    make: Make, tmp_path: Path
) -> None:
    one = make("one", state=str(tmp_path / "far"))
    one.fill("ada")
    one.backup(tmp_path / "b.tar.gz")
    other = make("other")
    Path(other.environ["GALILEAN_CONFIG"]).unlink()
    other.environ.pop("GALILEAN_STATE")
    refused(lambda: other.restore(tmp_path / "b.tar.gz"), 409, "settings/galilean.yaml")
