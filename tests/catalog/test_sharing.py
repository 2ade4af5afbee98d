"""Shares, publishing, taking down, the bin, counts: in the database, on SQLite and PostgreSQL."""

from __future__ import annotations

from datetime import date, timedelta
from typing import Any

import pytest
from sqlalchemy import select, update

from galilean.db import Database
from galilean.tables import audit_log
from services.catalog import cards, counts, datasets, departed, lifecycle, shares, store
from services.catalog.access import Access, Kind, Viewer, access
from services.catalog.shares import table_of
from services.catalog.tables import cards as cards_table
from services.catalog.tables import counted, projects
from tests.catalog.people import (
    ADMIN,
    ALICE,
    BOB,
    CAROL,
    KINDS,
    NOW,
    a_project,
    a_thing,
    actor,
    refused,
    run_of,
    to,
)


def look(conn: Any, kind: Kind, item_id: str) -> Any:
    return (store if kind == "project" else datasets).by_id(conn, item_id, deleted=True)


def level(conn: Any, viewer: Viewer, kind: Kind, item_id: str) -> Access:
    return access(viewer, look(conn, kind, item_id), shares.of(conn, kind, item_id), kind=kind)


def card_of(conn: Any, kind: Kind, item_id: str) -> Any:
    return conn.execute(
        select(cards_table).where(cards_table.c.kind == kind, cards_table.c.item_id == item_id)
    ).one()


@pytest.mark.parametrize("kind", KINDS)
def test_a_share_gives_and_its_withdrawal_takes_at_once(catalogue: Database, kind: Kind) -> None:
    with catalogue.write() as conn:
        made = a_thing(conn, kind)
        assert level(conn, BOB, kind, made.id) is Access.NONE
        shares.give(conn, kind, made.id, to("physics", "read", "group"), actor=actor(), now=NOW)
        shares.give(conn, kind, made.id, to("carol"), actor=actor(), now=NOW)
        assert look(conn, kind, made.id).visibility == "shared"
        assert level(conn, BOB, kind, made.id) is Access.READ
        assert level(conn, Viewer(name="bob"), kind, made.id) is Access.NONE
        left = shares.withdraw(conn, kind, made.id, "group", "physics", actor=actor(), now=NOW)
        assert [share.grantee for share in left] == ["carol"]
        assert level(conn, BOB, kind, made.id) is Access.NONE
        assert shares.withdraw(conn, kind, made.id, "person", "carol", actor=actor(), now=NOW) == []
        assert shares.withdraw(conn, kind, made.id, "person", "carol", actor=actor(), now=NOW) == []
        assert look(conn, kind, made.id).visibility == "private"
        told = [row.action for row in conn.execute(select(audit_log).order_by(audit_log.c.id))]
        assert told == [f"{kind}.share.give"] * 2 + [f"{kind}.share.withdraw"] * 2


def test_a_share_is_changed_in_its_place_and_refused_where_it_cannot_be(catalogue: Database) -> None:
    with catalogue.write() as conn:
        made = a_project(conn)
        for word in ("read", "write", "write"):
            given = shares.give(conn, "project", made.id, to("bob", word), actor=actor(), now=NOW)
        assert [(share.grantee, share.access) for share in given] == [("bob", "write")]
        refused(400, lambda: shares.give(conn, "project", made.id, to("alice"), actor=actor(), now=NOW))
        refused(404, lambda: shares.give(conn, "project", "nothing", to("bob"), actor=actor(), now=NOW))
        store.delete(conn, made, now=NOW)
        refused(404, lambda: shares.give(conn, "project", made.id, to("carol"), actor=actor(), now=NOW))


def test_nobody_of_the_same_name_gets_what_was_shared_with_somebody_who_is_gone(catalogue: Database) -> None:
    with catalogue.write() as conn:
        made = a_project(conn)
        shares.give(conn, "project", made.id, to("bob"), actor=actor(), now=NOW)
        shares.give(conn, "project", made.id, to("bob", "read", "group"), actor=actor(), now=NOW)
        counts.favour(conn, "project", made.id, "bob", now=NOW)
        departed.delete_owned(conn, "bob", now=NOW)
        assert level(conn, Viewer(name="bob"), "project", made.id) is Access.NONE
        assert [share.grantee_kind for share in shares.of(conn, "project", made.id)] == ["group"]
        assert card_of(conn, "project", made.id).favourites == 0


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_published_everybody_sees_until_it_is_taken_down(catalogue: Database, kind: Kind) -> None:
    with catalogue.write() as conn:
        made = a_thing(conn, kind)
        assert card_of(conn, kind, made.id).shelf == cards.OTHER[kind]
        lifecycle.publish(conn, kind, made.id, actor=actor(), now=NOW)
        lifecycle.publish(conn, kind, made.id, actor=actor(), now=NOW + timedelta(days=1))
        found = look(conn, kind, made.id)
        assert (found.visibility, found.published_at) == ("public", NOW)
        assert card_of(conn, kind, made.id).shelf == cards.PUBLIC[kind]
        assert level(conn, BOB, kind, made.id) is Access.READ
        refused(
            400, lambda: lifecycle.take_down(conn, kind, made.id, reason=" ", actor=actor(ADMIN), now=NOW)
        )
        lifecycle.take_down(conn, kind, made.id, reason="Somebody's data", actor=actor(ADMIN), now=NOW)
        assert level(conn, BOB, kind, made.id) is Access.NONE
        assert level(conn, ALICE, kind, made.id) is Access.OWN
        assert card_of(conn, kind, made.id).shelf == cards.OTHER[kind]
        refused(403, lambda: lifecycle.publish(conn, kind, made.id, actor=actor(), now=NOW))
        lifecycle.put_back(conn, kind, made.id, actor=actor(ADMIN), now=NOW)
        assert level(conn, BOB, kind, made.id) is Access.READ


def test_a_project_goes_back_to_whom_it_was_shared_with_and_a_data_set_does_not(catalogue: Database) -> None:
    with catalogue.write() as conn:
        made, data = a_project(conn), a_thing(conn, "dataset")
        shares.give(conn, "project", made.id, to("bob", "run"), actor=actor(), now=NOW)
        for kind, item in (("project", made), ("dataset", data)):
            lifecycle.publish(conn, kind, item.id, actor=actor(), now=NOW)  # type: ignore[arg-type]
        assert level(conn, BOB, "project", made.id) is Access.RUN
        lifecycle.unpublish(conn, "project", made.id, actor=actor(), now=NOW)
        lifecycle.unpublish(conn, "project", made.id, actor=actor(), now=NOW)
        assert look(conn, "project", made.id).visibility == "shared"
        assert level(conn, CAROL, "project", made.id) is Access.NONE
        refused(
            409,
            lambda: lifecycle.unpublish(conn, "dataset", data.id, actor=actor(), now=NOW),
            "public-for-ever",
        )


def test_the_bin_keeps_things_for_thirty_days_and_then_only_their_names(catalogue: Database) -> None:
    with catalogue.write() as conn:
        first, second = a_project(conn), a_project(conn)
        store.delete(conn, first, now=NOW)
        store.delete(conn, second, now=NOW + timedelta(days=1))
        assert card_of(conn, "project", first.id).shelf == cards.NOWHERE
        end = lifecycle.kept_until(NOW)
        assert [row.id for row in lifecycle.in_bin(conn, "project", "alice", now=NOW)] == [
            second.id,
            first.id,
        ]
        assert lifecycle.to_purge(conn, now=end - timedelta(seconds=1)) == []
        assert [over.id for over in lifecycle.to_purge(conn, now=end)] == [first.id]
        lifecycle.purged(conn, "project", first.id, now=end)
        assert lifecycle.to_purge(conn, now=end) == []
        assert [row.id for row in lifecycle.in_bin(conn, "project", "alice", now=NOW)] == [second.id]
        refused(404, lambda: store.restore(conn, first.id, now=NOW))
        assert store.restore(conn, second.id, now=NOW).slug == "heat-flow-2"
        assert card_of(conn, "project", second.id).shelf == cards.OTHER["project"]
        lifecycle.purged(conn, "project", second.id, now=end)  # it lives: nothing happens
        assert conn.execute(select(projects.c.purged_at).where(projects.c.id == second.id)).scalar() is None


def test_looks_and_uses_count_once_per_person_and_day(catalogue: Database) -> None:
    day = date(2026, 3, 1)
    with catalogue.write() as conn:
        made = a_project(conn)

        def view(person: str, when: date = day, what: str = "view") -> bool:
            return counts.once(conn, "project", made.id, what=what, person=person, day=when)

        assert [view("bob"), view("bob"), view("carol"), view("bob", day + timedelta(days=1))] == [
            True,
            False,
            True,
            True,
        ]
        assert [view("bob", what="use"), view("bob", what="use")] == [True, False]
        card = card_of(conn, "project", made.id)
        assert (card.views, card.uses) == (3, 1)
        assert lifecycle.forget_counted(conn, day + timedelta(days=1)) == 3
        assert len(conn.execute(select(counted)).all()) == 1
        assert card_of(conn, "project", made.id).views == 3


def test_a_favourite_is_one_however_often_it_is_clicked(catalogue: Database) -> None:
    with catalogue.write() as conn:
        made = a_project(conn)
        like, unlike = counts.favour, counts.unfavour
        assert like(conn, "project", made.id, "bob", now=NOW)
        assert not like(conn, "project", made.id, "bob", now=NOW)
        assert like(conn, "project", made.id, "carol", now=NOW)
        assert card_of(conn, "project", made.id).favourites == 2
        assert counts.favourites_among(conn, "project", [made.id, "other"], "bob") == {made.id}
        assert unlike(conn, "project", made.id, "bob")
        assert not unlike(conn, "project", made.id, "bob")
        assert card_of(conn, "project", made.id).favourites == 1


def test_what_is_busy_is_not_begun_again_nor_while_it_runs(catalogue: Database) -> None:
    with catalogue.write() as conn:
        made, running = a_project(conn), a_project(conn)
        run_of(conn, running, "alice")
        refused(409, lambda: lifecycle.begin(conn, "project", running.id, "moving"), "busy")
        lifecycle.begin(conn, "project", made.id, "moving")
        refused(409, lambda: lifecycle.begin(conn, "project", made.id, "copying"), "busy")
        lifecycle.end(conn, "project", made.id)
        found = store.by_id(conn, made.id)
        assert found
        assert (found.busy, found.volume_id) == ("", "default")


def test_what_somebody_stores_is_added_up_with_the_bin_and_without_what_is_gone(catalogue: Database) -> None:
    with catalogue.write() as conn:
        one, two, three = a_project(conn), a_project(conn), a_thing(conn, "dataset")
        for kind, item in (("project", one), ("project", two), ("dataset", three)):
            lifecycle.measured(conn, kind, item.id, size_bytes=2**40, file_count=3, now=NOW)  # type: ignore[arg-type]
        a_project(conn)  # never counted
        store.delete(conn, two, now=NOW)
        assert lifecycle.used_bytes(conn, "alice") == 3 * 2**40
        lifecycle.purged(conn, "project", two.id, now=NOW)
        assert lifecycle.used_bytes(conn, "alice") == 2 * 2**40
        assert lifecycle.used_bytes(conn, "nobody") == 0


def test_what_is_being_copied_counts_as_what_it_will_be(catalogue: Database) -> None:
    with catalogue.write() as conn:
        origin, fork = a_project(conn), a_project(conn, "bob")
        lifecycle.measured(conn, "project", origin.id, size_bytes=5000, file_count=3, now=NOW)
        copying = update(projects).where(projects.c.id == fork.id)
        conn.execute(copying.values(forked_from=origin.id, busy="copying"))
        assert lifecycle.used_bytes(conn, "bob") == 5000
        assert lifecycle.used_bytes(conn, "bob", without=fork.id) == 0
        for so_far, kept in ((1000, 5000), (7000, 7000)):
            conn.execute(copying.values(size_bytes=so_far))
            assert lifecycle.used_bytes(conn, "bob") == kept
        conn.execute(copying.values(busy="", size_bytes=4000))
        assert lifecycle.used_bytes(conn, "bob") == 4000

        data, version = a_thing(conn, "dataset"), a_thing(conn, "dataset")
        lifecycle.measured(conn, "dataset", data.id, size_bytes=300, file_count=1, now=NOW)
        of_data = update(table_of("dataset")).where(table_of("dataset").c.id == version.id)
        conn.execute(of_data.values(version_of=data.id, busy="copying"))
        assert lifecycle.used_bytes(conn, "alice") == 5600


def test_cards_that_are_missing_or_old_are_made(catalogue: Database) -> None:
    with catalogue.write() as conn:
        ids = [a_project(conn).id for _ in range(3)] + [a_thing(conn, "dataset").id]
        assert cards.catch_up(conn) == 0
        conn.execute(cards_table.delete().where(cards_table.c.item_id == ids[0]))
        conn.execute(update(cards_table).where(cards_table.c.item_id != ids[1]).values(version=0, views=7))
        assert cards.catch_up(conn, most=2) == 2
        assert cards.catch_up(conn, most=2) == 1
        assert cards.catch_up(conn) == 0
        assert {card_of(conn, "project", item).text for item in ids[:3]} != set()
        assert card_of(conn, "dataset", ids[3]).views == 7
