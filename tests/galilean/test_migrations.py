"""The migrations and the tables say the same, on both databases."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import insert, inspect, text

from galilean.clock import utcnow
from galilean.db import Database, metadata
from galilean.errors import UserError
from galilean.migrate import newest, present, upgrade
from galilean.tables import leases

ROOT = Path(__file__).resolve().parents[2]


def all_tables() -> list[str]:
    spec = importlib.util.spec_from_file_location("new_migration", ROOT / "scripts" / "new_migration.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.import_all_tables()


def test_a_migrated_database_has_exactly_the_tables_that_the_rooms_describe(database_url: str) -> None:
    modules = all_tables()
    assert {"galilean.tables", "spawner.tables", "services.catalog.tables"} <= set(modules)
    upgrade(database_url)
    database = Database(database_url)
    with database.read() as conn:
        differences: list[Any] = compare_metadata(
            MigrationContext.configure(conn, opts={"compare_type": True, "compare_server_default": False}),
            metadata,
        )
        assert not differences
        # What the comparison does not see: the conditions of partial indexes.
        for table in metadata.sorted_tables:
            conditions = {
                index["name"]: str(index["dialect_options"][key])
                for index in inspect(conn).get_indexes(table.name)
                for key in (index.get("dialect_options") or {})
                if key.endswith("_where")
            }
            wanted = {
                str(index.name)
                for index in table.indexes
                if index.dialect_options[conn.dialect.name]["where"] is not None
            }
            assert set(conditions) == wanted, table.name
        if not database.is_sqlite:  # how full pages are made
            found = conn.execute(
                text(
                    "SELECT relname, reloptions FROM pg_class WHERE relkind = 'r' AND reloptions IS NOT NULL"
                )
            )
            assert {row.relname: row.reloptions for row in found} == {
                table.name: [f"{name}={value}" for name, value in options.items()]
                for table in metadata.sorted_tables
                if (options := table.dialect_options["postgresql"]["with"])
            }
    database.close()


def test_upgrading_twice_changes_nothing_and_keeps_what_is_there(database_url: str) -> None:
    assert upgrade(database_url) == ("", newest())
    database = Database(database_url)
    with database.write() as conn:
        conn.execute(insert(leases).values(name="x", holder="me", expires_at=utcnow()))
    database.close()
    assert upgrade(database_url) == (newest(), newest())
    database = Database(database_url)
    with database.read() as conn:
        assert conn.execute(leases.select()).one().holder == "me"
        assert present(conn) == newest()
    database.close()


def test_two_processes_that_upgrade_at_once_both_come_through(database_url: str) -> None:
    program = f"from galilean.migrate import upgrade; print(upgrade({database_url!r})[1])"
    both = [
        subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) for _ in range(2)
    ]
    assert [process.communicate(timeout=240)[0].strip() for process in both] == [newest(), newest()]


def test_a_database_of_a_newer_version_is_left_alone_and_told(database_url: str) -> None:
    upgrade(database_url)
    database = Database(database_url)
    with database.write() as conn:
        conn.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    database.close()
    with pytest.raises(UserError) as refused:
        upgrade(database_url)
    assert refused.value.status == 409
    assert "9999" in str(refused.value)
