"""What administrators decided as a file: out and in again is the same, and what is wrong is said with its line."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from sqlalchemy import select
from typer.testing import CliRunner

import services.catalog.tables
import services.people.tables
import services.release.tables  # noqa: F401 - registers the tables
from extensions.quota import store
from extensions.quota.limits import Limits
from extensions.quota.measures import Measure
from extensions.quota.policy import limits_of
from galilean import centre
from galilean.cli import build_app
from galilean.db import Database
from galilean.migrate import upgrade
from galilean.settings import Settings, SettingsError, parse_settings
from galilean.tables import audit_log
from hub_config import decided
from hub_config.seeding import seed, seed_database

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
FRIDAY = NOW + timedelta(days=5)
SETTINGS = parse_settings(
    "site: {timezone: Europe/Berlin}\npools: {default: {}, college: {}}\ngpu_models: {a100: {resource: nvidia.com/gpu}}"
)


@pytest.fixture
def site(db: Database) -> Database:
    with db.write() as conn:
        seed(conn, SETTINGS, NOW)
        by: dict[str, Any] = {"actor": store.COMMAND, "now": NOW}
        store.set_limits(
            conn,
            [
                ("student", Measure("core_hours", period="week"), 20_500),
                ("student", Measure("total_gpu", gpu_model="a100"), 1),
                ("student", Measure("storage"), None),
                ("teacher", Measure("role_cpu", pool="college"), 1500),
            ],
            **by,
        )
        store.give(conn, "lena", [(Measure("gpu"), 1)], reason="Thesis", expires_at=FRIDAY, **by)
        store.give(conn, "lena", [(Measure("memory"), None)], reason="多线程", **by)
    return db


def applied(db: Database, text: str) -> list[decided.Change]:
    with db.write() as conn:
        return decided.apply(
            conn, decided.File(text, "roles.yaml"), SETTINGS, actor=store.COMMAND, now=NOW, reason="by file"
        )


def exported(db: Database) -> str:
    with db.read() as conn:
        return decided.export(conn, NOW)


def limits(db: Database, user: str, *roles: str) -> Limits:
    with db.read() as conn:
        found = limits_of(conn, user, roles, NOW)
    assert found is not None
    return found


def test_what_was_written_changes_nothing_when_it_is_applied(site: Database) -> None:
    text = exported(site)
    with site.read() as conn:
        version = centre.version(conn)
    assert applied(site, text) == []
    assert exported(site) == text
    with site.read() as conn:
        assert centre.version(conn) == version


def test_what_one_site_wrote_makes_another_the_same(site: Database, tmp_path: Path) -> None:
    text = exported(site)
    url = f"sqlite:///{tmp_path / 'other.sqlite'}"
    upgrade(url)
    other = Database(url)
    try:
        with other.write() as conn:
            seed(conn, SETTINGS, NOW)
        assert len(applied(other, text)) == 6
        assert exported(other) == text
    finally:
        other.close()


def test_a_section_is_complete_and_what_is_not_named_stays(site: Database) -> None:
    changes = applied(
        site,
        """
quota: {combine: strictest}
roles:
  student:
    limits: {nodes: 4, memory: 8 GB, gpu: no limit}
  assistant: {title: Teaching assistant, rights: ["usage:read-all"], release: {default: 2h}}
groups:
  physics: {title: Physics, roles: [teacher]}
exceptions: []
""",
    )
    paths = {change.path: (change.before, change.after) for change in changes}
    assert paths["quota.combine"] == ("generous", "strictest")
    assert paths["roles.student.limits.nodes"] == (2, 4)
    assert paths["roles.student.limits.core_hours/week"] == (20.5, None)
    assert paths["roles.assistant.rights"] == (None, ["usage:read-all"])
    assert paths["roles.assistant.release.default"] == (None, "2h")
    assert paths["groups.physics.roles"] == (None, ["teacher"])
    assert paths["exceptions.lena.gpu"][1] is None
    assert not any(path.startswith("roles.teacher") for path in paths)
    of_lena = limits(site, "lena", "student")
    assert (of_lena.amount("nodes"), of_lena.amount("gpu")) == (4, None)
    assert of_lena.amount("clusters") == 1, "what nobody says any more is the product's own small amount"
    with site.read() as conn:
        ended, count = store.exceptions(conn, user="lena")
        lines = conn.execute(select(audit_log.c.action, audit_log.c.actor, audit_log.c.reason)).all()
    assert count == 2
    assert all(one.ended_by == "command" for one in ended)
    assert ("exception.end", "command", "by file") in {tuple(line) for line in lines}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("roles:\n  student:\n    limit: {}\n", "roles.yaml:3: roles.student.limit: there is no such key"),
        ("quotas: {}\n", "roles.yaml:1: quotas: there is no such key"),
        ("roles:\n  student:\n    limits:\n      nodes: -1\n", "roles.yaml:4: roles.student.limits.nodes: "),
        ("roles:\n  student:\n    limits:\n      nodes: 1.5\n", "whole number"),
        ("roles:\n  student:\n    limits:\n      nodes: ''\n", "nothing is said"),
        ("roles:\n  student:\n    limits:\n      nodes: 10000000000000\n", "at most"),
        ("roles:\n  student:\n    limits:\n      core_hours: 3\n", "core_hours/week"),
        ("roles:\n  student:\n    limits:\n      cpu@nowhere: 3\n", "“nowhere”"),
        ("roles:\n  student:\n    limits:\n      gpu(h100): 3\n", "“h100”"),
        ("roles:\n  student:\n    rights: ['fly']\n", "roles.yaml:3: roles.student.rights: "),
        ("roles:\n  admin:\n    rights: []\n", "has every right"),
        ("roles:\n  Über: {}\n", "roles.yaml:2: "),
        ("roles:\n  student:\n    release: {offered: [soon]}\n", "roles.yaml:3: roles.student.release: "),
        ("quota:\n  combine: any\n", "roles.yaml:2: quota.combine: "),
        ("calendar:\n  terms: [{name: x}]\n", "calendar"),
        ("exceptions:\n  - {person: a, measure: gpu, amount: 1}\n", "roles.yaml:2: exceptions.0.reason: "),
        ("exceptions:\n  - {person: a, measure: gpu, amount: 1, reason: ' '}\n", "has a reason"),
        ("exceptions:\n  - {person: a, measure: role_gpu, amount: 1, reason: x}\n", "whole role"),
        ("groups:\n  g: {roles: [emperor]}\n", "“emperor”"),
        ("roles: {}\nroles: {}\n", "stands already"),
        ("roles: [\n", "not YAML"),
        ("- 1\n", "set of sections"),
    ],
)
def test_what_is_wrong_is_said_with_its_line_and_nothing_changes(
    sqlite_db: Database, text: str, told: str
) -> None:
    with sqlite_db.write() as conn:
        seed(conn, SETTINGS, NOW)
    before = exported(sqlite_db)
    with pytest.raises(SettingsError) as refused:
        applied(sqlite_db, text)
    assert told in str(refused.value)
    assert exported(sqlite_db) == before


def test_an_exception_whose_time_has_come_is_left_out_of_the_file(site: Database) -> None:
    with site.read() as conn:
        later = yaml.safe_load(decided.export(conn, FRIDAY))
    assert [one["measure"] for one in later["exceptions"]] == ["memory"]


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setenv("GALILEAN_STATE", str(tmp_path))
    monkeypatch.setenv("LC_ALL", "C")
    monkeypatch.delenv("GALILEAN_CONFIG", raising=False)
    monkeypatch.chdir(tmp_path)
    settings = parse_settings("", environ={"GALILEAN_STATE": str(tmp_path)})
    upgrade(settings.database_url)
    seed_database(settings)
    return settings


def command(*words: str, stdin: str = "") -> tuple[int, str]:
    done = CliRunner().invoke(build_app(), words, input=stdin, catch_exceptions=True)
    return done.exit_code, done.output + str(done.exception or "")


def test_upgrading_the_database_begins_it_with_the_settings_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LC_ALL", "C")
    monkeypatch.setenv("GALILEAN_STATE", str(tmp_path))
    monkeypatch.setenv("GALILEAN_CONFIG", str(tmp_path / "galilean.yaml"))
    file = tmp_path / "galilean.yaml"
    file.write_text("roles: {admin: {}, pupil: {limits: {nodes: 7}}}\n")
    code, told = command("db", "upgrade")
    assert (code, "begins with the roles" in told) == (0, True)
    text = command("export")[1]
    assert yaml.safe_load(text)["roles"]["pupil"]["limits"]["nodes"] == 7
    file.write_text("roles: {admin: {}, pupil: {limits: {nodes: 9}}}\n")
    code, told = command("db", "upgrade")
    assert (code, "begins with" in told) == (0, False)
    assert command("export")[1] == text


def test_the_commands_show_the_difference_first(state: Settings, tmp_path: Path) -> None:
    code, text = command("export")
    assert code == 0
    file = tmp_path / "roles.yaml"
    file.write_text(text.replace("      nodes: 2\n", "      nodes: 3\n"))
    code, told = command("apply", "-f", str(file), "--dry-run")
    assert (code, "roles.student.limits.nodes: 2 → 3" in told) == (0, True)
    assert command("export")[1] == text
    code, told = command("apply", "-f", str(file))
    assert code == 1
    assert "--yes" in told
    assert command("export")[1] == text
    assert command("apply", "-f", str(file), "--yes", "--reason", "new term")[0] == 0
    assert command("export")[1] == file.read_text()
    assert "Everything is as the file says" in command("apply", "-f", str(file))[1]


def test_a_file_of_the_wrong_kind_is_refused_in_words(state: Settings, tmp_path: Path) -> None:
    file = tmp_path / "x.yaml"
    file.write_bytes(b"\xff\xfe")
    assert "not UTF-8" in command("apply", "-f", str(file))[1]
    assert "cannot be read" in command("apply", "-f", str(tmp_path / "none"))[1]
