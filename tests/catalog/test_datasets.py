"""Data sets in the database, on SQLite and PostgreSQL."""

from __future__ import annotations

import importlib
from datetime import timedelta

import pytest
from sqlalchemy import delete, insert, select, text, update
from sqlalchemy.exc import DBAPIError, IntegrityError

from galilean.db import Database
from galilean.migrate import upgrade
from services.catalog import datasets, lifecycle, links, public_for_ever, shares
from services.catalog.tables import datasets as table
from services.catalog.tables import volumes
from spawner.tables import clusters
from tests.catalog.people import (
    ALICE,
    BOB,
    NOW,
    a_dataset,
    a_project,
    actor,
    refused,
    run_of,
    to,
    told,
)

STEPS_BACK = [
    update(table).values(visibility="private"),
    update(table).values(visibility="shared"),
    update(table).values(id="another"),
    delete(table),
]


@pytest.mark.parametrize("step", STEPS_BACK, ids=["private", "shared", "id", "delete"])
def test_the_database_itself_keeps_a_public_data_set_public(catalogue: Database, step: object) -> None:
    with catalogue.write() as conn:
        made = a_dataset(conn)
        conn.execute(update(table).values(visibility="shared"))
        conn.execute(update(table).values(visibility="private"))  # until it is public, both ways
        lifecycle.publish(conn, "dataset", made.id, actor=actor(), now=NOW)
    with pytest.raises(DBAPIError, match="stays public"), catalogue.write() as conn:
        conn.execute(step)  # type: ignore[call-overload]
    with catalogue.write() as conn:
        conn.execute(update(table).values(visibility="public", name="Still mine to name"))
        found = datasets.by_id(conn, made.id)
        assert found
        assert (found.visibility, found.name) == ("public", "Still mine to name")


def test_a_public_data_set_is_not_replaced_by_one_of_the_same_id(catalogue: Database) -> None:
    with catalogue.write() as conn:
        made = a_dataset(conn)
        lifecycle.publish(conn, "dataset", made.id, actor=actor(), now=NOW)
        row = dict(conn.execute(select(table)).one()._mapping) | {"visibility": "private"}
    with pytest.raises(DBAPIError), catalogue.write() as conn:
        again = insert(table).prefix_with("OR REPLACE", dialect="sqlite").values(row)
        conn.execute(again)
    with catalogue.read() as conn:
        assert conn.execute(select(table.c.visibility)).scalar_one() == "public"


def test_a_database_that_was_migrated_refuses_it_too(database_url: str) -> None:
    upgrade(database_url)
    database = Database(database_url)
    with database.write() as conn:
        conn.execute(insert(volumes).values(id="default", kind="directory", path="/v", created_at=NOW))
        made = a_dataset(conn)
        lifecycle.publish(conn, "dataset", made.id, actor=actor(), now=NOW)
    with pytest.raises(DBAPIError, match="stays public"), database.write() as conn:
        conn.execute(text("UPDATE datasets SET visibility = 'private'"))
    database.close()


def test_the_migration_and_the_tables_make_the_same_triggers() -> None:
    name = "galilean.migrations.versions.0006_projects_and_data_sets_to_share"
    said = importlib.import_module(name).PUBLIC_FOR_EVER
    assert said == {dialect: public_for_ever.statements(dialect) for dialect in ("sqlite", "postgresql")}


def test_a_word_that_is_no_visibility_is_refused_by_the_database(catalogue: Database) -> None:
    with pytest.raises(IntegrityError), catalogue.write() as conn:
        a_dataset(conn)
        conn.execute(update(table).values(visibility="secret"))


def test_a_data_set_keeps_what_it_was_made_with(catalogue: Database) -> None:
    with catalogue.write() as conn:
        made = a_dataset(
            conn,
            name=" 木卫一 温度 ",
            mount="Io.v2",
            summary="two\nlines",
            description="# Long\r\ntext",
            tags=["Infra Red", "infra  red", "木星"],
        )
        second = a_dataset(conn, name="木卫一 温度")
        assert second.slug == made.slug + "-2" == second.mount
        assert a_dataset(conn, "bob", name="木卫一 温度").slug == made.slug
        assert datasets.get(conn, "alice", made.slug) == made == datasets.by_id(conn, made.id)
    assert (made.name, made.mount, made.summary) == ("木卫一 温度", "Io.v2", "two lines")
    assert made.description == "# Long\ntext"
    assert made.tags == ("infra red", "木星")
    assert (made.visibility, made.directory) == ("private", f"datasets/{made.id}")


def test_what_cannot_be_is_refused_and_nothing_is_made(catalogue: Database) -> None:
    with catalogue.write() as conn:
        a_dataset(conn, slug="mine")
        refused(409, lambda: a_dataset(conn, slug="mine"))
        for bad in (
            {"slug": "node-1"},
            {"slug": "api"},
            {"mount": "../etc"},
            {"mount": ".ssh"},
            {"name": ""},
            {"summary": "x" * 201},
            {"description": "\0"},
            {"tags": [f"t{n}" for n in range(11)]},
            {"tags": ["x" * 41]},
            {"tags": ["a\u202eb"]},
        ):
            refused(400, lambda bad=bad: a_dataset(conn, **bad))
        assert len(conn.execute(select(table)).all()) == 1
        assert datasets.get(conn, "alice", "a\0b") is None
        assert datasets.by_id(conn, "\ud800") is None


def test_a_change_leaves_out_what_is_not_said_and_projects_keep_their_directory(catalogue: Database) -> None:
    with catalogue.write() as conn:
        made, project = a_dataset(conn, summary="s"), a_project(conn)
        links.add(conn, ALICE, project, made.id, now=NOW)
        new = datasets.update(conn, made, now=NOW + timedelta(hours=1), mount="other", tags=["x"])
        assert (new.name, new.summary, new.mount, new.tags) == (made.name, "s", "other", ("x",))
        assert new.changed_at == NOW + timedelta(hours=1)
        assert [link.mount for link in links.links_of(conn, project.id)] == [made.mount]
        refused(400, lambda: datasets.update(conn, made, now=NOW, mount="a/b"))


def test_a_data_set_that_others_use_is_not_deleted(catalogue: Database) -> None:
    with catalogue.write() as conn:
        made = a_dataset(conn)
        lifecycle.publish(conn, "dataset", made.id, actor=actor(), now=NOW)
        own, other = a_project(conn), a_project(conn, "bob")
        links.add(conn, ALICE, own, made.id, now=NOW)
        links.add(conn, BOB, other, made.id, now=NOW)
        assert datasets.uses(conn, made.id) == datasets.Uses(own=1, others=1, running=0)
        assert "1 projects" in str(refused(409, lambda: datasets.delete(conn, made, now=NOW)))
        links.remove(conn, BOB, other, made.id)
        run_of(conn, own, "alice")
        assert "1 running" in str(refused(409, lambda: datasets.delete(conn, made, now=NOW)))


def test_a_data_set_that_a_run_has_is_not_deleted_though_its_project_has_it_no_more(
    catalogue: Database,
) -> None:
    with catalogue.write() as conn:
        made, project = a_dataset(conn), a_project(conn)
        links.add(conn, ALICE, project, made.id, now=NOW)
        run_of(conn, project, "alice", datasets=[told(made)])
        assert datasets.uses(conn, made.id).running == 1, "counted once"
        links.remove(conn, ALICE, project, made.id)
        assert datasets.uses(conn, made.id) == datasets.Uses(own=0, others=0, running=1)
        refused(409, lambda: datasets.delete(conn, made, now=NOW))
        conn.execute(update(clusters).values(released_at=NOW))
        datasets.delete(conn, made, now=NOW)


def test_who_may_no_longer_read_a_data_set_keeps_nobody_from_deleting_it(catalogue: Database) -> None:
    with catalogue.write() as conn:
        made, other = a_dataset(conn), a_project(conn, "bob")
        shares.give(conn, "dataset", made.id, to("bob"), actor=actor(), now=NOW)
        links.add(conn, BOB, other, made.id, now=NOW)
        refused(409, lambda: datasets.delete(conn, made, now=NOW))
        shares.withdraw(conn, "dataset", made.id, "person", "bob", actor=actor(), now=NOW)
        shares.give(conn, "dataset", made.id, to("physics", "read", "group"), actor=actor(), now=NOW)
        refused(409, lambda: datasets.delete(conn, made, now=NOW))  # who is in it, only the hub knows
        shares.withdraw(conn, "dataset", made.id, "group", "physics", actor=actor(), now=NOW)
        assert datasets.delete(conn, made, now=NOW) == datasets.Uses(own=0, others=0, running=0)


def test_a_deleted_data_set_is_in_the_bin_and_comes_back_with_its_projects(catalogue: Database) -> None:
    with catalogue.write() as conn:
        made, own = a_dataset(conn), a_project(conn)
        links.add(conn, ALICE, own, made.id, now=NOW)
        assert datasets.delete(conn, made, now=NOW).own == 1
        refused(404, lambda: datasets.delete(conn, made, now=NOW))
        assert datasets.get(conn, "alice", made.slug) is None
        taken = a_dataset(conn)
        assert taken.slug == made.slug
        late = NOW + timedelta(days=lifecycle.BIN_DAYS)
        assert [row.id for row in lifecycle.in_bin(conn, "dataset", "alice", now=NOW)] == [made.id]
        refused(404, lambda: datasets.restore(conn, made.id, now=late))
        back = datasets.restore(conn, made.id, now=late - timedelta(seconds=1))
        assert back.slug == made.slug + "-2"
        assert [link.id for link in links.links_of(conn, own.id)] == [made.id]
        refused(404, lambda: datasets.restore(conn, made.id, now=NOW))
