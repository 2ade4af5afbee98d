"""Finding projects and data sets, on SQLite and PostgreSQL: what is found, in which order, and by whom."""

from __future__ import annotations

import random
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import Connection, event, update

from galilean.db import Database
from galilean.settings import Settings
from galilean.web.paging import Cursor
from services.catalog import counts, datasets, departed, lifecycle, search, shares, store
from services.catalog.access import Viewer
from services.catalog.cards import Card
from services.catalog.search import COMMON, SORTS, Scope, Wanted, choose
from services.catalog.tables import cards, projects
from services.catalog.volumes import ensure_volumes
from services.catalog.words import Clue
from tests.catalog.people import (
    ADMIN,
    ALICE,
    BOB,
    CAROL,
    NOW,
    a_dataset,
    a_project,
    actor,
    refused,
    to,
)

WORDS = ["heat", "flow", "Io", "热流", "模拟", "木星", "tidal", "mesh", "ヒート", "données", "naïve", "data"]


def names(conn: Connection, viewer: Viewer, scope: Scope = "all", **wanted: Any) -> list[str]:
    page = search.search(conn, viewer, Wanted(**{"kind": "project", **wanted}), scope=scope, limit=200)
    assert page.next is None
    return [card.name for card in page.items]


def everybody(conn: Connection) -> None:
    """Things of three people, some public, some shared, some taken down or deleted."""
    for number, (owner, name, visibility) in enumerate(
        [
            ("alice", "Alice public", "public"),
            ("alice", "Alice private", "private"),
            ("alice", "Alice shared with bob", "bob"),
            ("alice", "Alice shared with physics", "physics"),
            ("bob", "Bob public", "public"),
            ("bob", "Bob private", "private"),
            ("alice", "Alice taken down", "down"),
            ("alice", "Alice deleted", "deleted"),
        ]
    ):
        made = a_project(conn, owner, name, now=NOW + timedelta(seconds=number))
        if visibility in ("public", "down"):
            lifecycle.publish(conn, "project", made.id, actor=actor(), now=NOW)
        if visibility in ("bob", "down"):
            shares.give(conn, "project", made.id, to("bob"), actor=actor(), now=NOW)
        if visibility == "physics":
            shares.give(conn, "project", made.id, to("physics", "read", "group"), actor=actor(), now=NOW)
            shares.give(conn, "project", made.id, to("bob", "write"), actor=actor(), now=NOW)
        if visibility == "down":
            lifecycle.take_down(conn, "project", made.id, reason="x", actor=actor(ADMIN), now=NOW)
        if visibility == "deleted":
            store.delete(conn, made, now=NOW)


@pytest.mark.parametrize("text", ["", "bob", "public", "alice"])
def test_everybody_finds_what_they_may_see_once_and_nothing_else(catalogue: Database, text: str) -> None:
    public = {"Alice public", "Bob public"}
    shared = {"Alice shared with bob", "Alice shared with physics"}
    own = {"Alice public", "Alice private", *shared, "Alice taken down"}
    allowed: list[tuple[Viewer, Scope, set[str]]] = [
        (CAROL, "all", public),
        (CAROL, "public", public),
        (CAROL, "mine", set()),
        (CAROL, "shared", set()),
        (BOB, "all", public | shared | {"Bob private"}),
        (BOB, "shared", shared),
        (BOB, "mine", {"Bob public", "Bob private"}),
        (Viewer(name="dora", groups=frozenset({"physics"})), "shared", {"Alice shared with physics"}),
        (ALICE, "mine", own),
        (ALICE, "all", own | public),
        (ADMIN, "all", own | public | {"Bob private"}),
        (ADMIN, "everything", own | public | {"Bob private"}),
    ]
    with catalogue.write() as conn:
        everybody(conn)
        for viewer, scope, wanted in allowed:
            found = names(conn, viewer, scope, text=text)
            words = {name for name in wanted if text in name.lower() or (text == "bob" and "Bob" in name)}
            assert sorted(found) == sorted(words), (viewer.name, scope)
            counted = search.count(conn, viewer, Wanted(kind="project", text=text), scope=scope)
            assert counted == len(words)
        refused(403, lambda: names(conn, BOB, "everything"))
        assert names(conn, ADMIN, kind="dataset") == []


def test_a_withdrawn_share_and_what_is_no_longer_public_are_not_found_even_as_favourites(
    catalogue: Database,
) -> None:
    with catalogue.write() as conn:
        first, second = a_project(conn, name="First"), a_project(conn, name="Second")
        shares.give(conn, "project", first.id, to("bob"), actor=actor(), now=NOW)
        lifecycle.publish(conn, "project", second.id, actor=actor(), now=NOW)
        for item in (first, second):
            counts.favour(conn, "project", item.id, "bob", now=NOW)
        assert sorted(names(conn, BOB, "favourites")) == ["First", "Second"]
        shares.withdraw(conn, "project", first.id, "person", "bob", actor=actor(), now=NOW)
        lifecycle.unpublish(conn, "project", second.id, actor=actor(), now=NOW)
        assert names(conn, BOB, "favourites") == names(conn, BOB) == []
        assert sorted(names(conn, ALICE, text="first")) == ["First"]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("热流", ["地幔热流"]),
        ("幔热", ["地幔热流"]),
        ("热", ["地幔热流", "热力学"]),
        ("热学", []),
        ("ALICE 热力", ["热力学"]),
        ("io", ["Tidal heating of Io"]),
        ("heat tid", ["Tidal heating of Io"]),
        ("eating", []),
        ("novak", ["Novák"]),
        ("infra red", ["Tidal heating of Io"]),
        ("100%", []),
        ("%", []),
        ("_", []),
        ("a\0b", []),
        ("' OR 1=1 --", []),
    ],
)
def test_words_of_any_language_find(catalogue: Database, text: str, found: list[str]) -> None:
    with catalogue.write() as conn:
        for name in ("地幔热流", "热力学", "Novák"):
            a_project(conn, name=name)
        io = a_project(conn, name="Tidal heating of Io")
        conn.execute(update(projects).where(projects.c.id == io.id).values(tags=["infra red"]))
        store.update(conn, io, now=NOW)
        for scope in ("mine", "all"):
            assert sorted(names(conn, ALICE, scope, text=text)) == sorted(found)  # type: ignore[arg-type]


def test_filters_hold_exactly(catalogue: Database) -> None:
    with catalogue.write() as conn:
        made = [a_project(conn, owner, f"P{n}") for n, owner in enumerate(("alice", "bob", "alice"))]
        for project, values in zip(
            made,
            (
                {"field": "cae", "environment": "mpi", "tags": ["a", "ab"]},
                {"field": "caes", "environment": "mpi", "tags": ["ab"]},
                {"field": "cae", "environment": "torch", "tags": []},
            ),
            strict=True,
        ):
            conn.execute(update(projects).where(projects.c.id == project.id).values(values))
            store.update(conn, project, now=NOW)
            lifecycle.publish(conn, "project", project.id, actor=actor(), now=NOW)
        for wanted, found in (
            ({"field": "cae"}, ["P0", "P2"]),
            ({"environment": "mpi"}, ["P0", "P1"]),
            ({"tag": "a"}, ["P0"]),
            ({"tag": "ab"}, ["P0", "P1"]),
            ({"author": "bob"}, ["P1"]),
            ({"author": "bo"}, []),
            ({"field": "cae", "environment": "mpi", "tag": "ab", "author": "alice", "text": "p0"}, ["P0"]),
            ({"field": "a\0b"}, []),
            ({"tag": "\ud800"}, []),
        ):
            for viewer in (CAROL, ALICE, ADMIN):
                assert sorted(names(conn, viewer, **wanted)) == found, wanted  # type: ignore[arg-type]
        assert search.tags(conn, "project") == [("ab", 2), ("a", 1)]
        assert search.tags(conn, "project", begins="ab", most=1) == [("ab", 2)]
        assert search.tags(conn, "dataset") == []


def crowd(conn: Connection, rng: random.Random, count: int) -> None:
    for number in range(count):
        owner = rng.choice(["alice", "bob", "carol"])
        name = " ".join(rng.sample(WORDS, 3))
        made = a_project(conn, owner, name, now=NOW + timedelta(seconds=rng.randrange(9)))
        if rng.random() < 0.5:
            lifecycle.publish(conn, "project", made.id, actor=actor(), now=made.created_at)
        elif rng.random() < 0.5:
            other = rng.choice([name for name in ("bob", "dora") if name != owner])
            shares.give(conn, "project", made.id, to(other), actor=actor(), now=NOW)
        conn.execute(
            update(cards)
            .where(cards.c.item_id == made.id)
            .values(views=rng.randrange(4), uses=number, favourites=rng.randrange(2))
        )


def pages(conn: Connection, viewer: Viewer, wanted: Wanted, limit: int) -> list[Card]:
    found: list[Card] = []
    cursor = None
    while True:
        page = search.search(conn, viewer, wanted, limit=limit, cursor=cursor)
        assert len(page.items) <= limit
        found += page.items
        cursor = page.next
        if cursor is None:
            return found


def test_pages_join_to_the_whole_in_the_order_of_every_sort_whichever_way_is_taken(
    catalogue: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = random.Random(7)
    with catalogue.write() as conn:
        crowd(conn, rng, 40)
        for sort, (column, down, _) in SORTS.items():
            for viewer in (BOB, ADMIN):
                for text in ("", "io", "热流"):
                    wanted = Wanted(kind="project", sort=sort, text=text)  # type: ignore[arg-type]
                    ways: list[list[Card]] = []
                    for common, cost in ((0, 3.0), (COMMON, 0.0)):  # always walk; always look up
                        monkeypatch.setattr(search, "COMMON", common)
                        monkeypatch.setattr(search, "LOOK_UP_COST", cost)
                        ways.append(pages(conn, viewer, wanted, 7))
                    keys = [(getattr(card, column.name), card.number) for card in ways[0]]
                    assert keys == sorted(set(keys), reverse=down)
                    assert ways[0] == ways[1] == pages(conn, viewer, wanted, 200)
                    assert text == "" or ways[0]


def test_a_cursor_that_no_page_gave_is_refused(catalogue: Database) -> None:
    with catalogue.write() as conn:
        for sort in SORTS:
            for bad in (
                "x",
                Cursor.encode("other", "2026-01-01T00:00:00+00:00", 1),
                Cursor.encode(sort, None, 1),
                Cursor.encode(sort, "a\0b", 1),
                Cursor.encode(sort, "2026-01-01T00:00:00", 1),
                Cursor.encode(sort, 2**70, 1),
                Cursor.encode(sort, 1.5, 1),
                Cursor.encode(sort, "x", 2**70),
                Cursor.encode(sort, "x", "1"),
                Cursor.encode(sort, "x", -1),
            ):
                if sort == "name" and bad == Cursor.encode(sort, "2026-01-01T00:00:00", 1):
                    continue
                wanted = Wanted(kind="project", sort=sort)  # type: ignore[arg-type]
                refused(400, lambda wanted=wanted, bad=bad: search.search(conn, ALICE, wanted, cursor=bad))
        refused(400, lambda: search.search(conn, ALICE, Wanted(kind="project", sort="size")))  # type: ignore[arg-type]


def test_a_card_says_what_its_project_says_now(catalogue: Database) -> None:
    later = NOW + timedelta(hours=1)
    with catalogue.write() as conn:
        made, data = a_project(conn, description="One\ntwo"), a_dataset(conn, summary="Warm", tags=["ir"])
        store.update(conn, made, now=later, name="流体", environment="mpi")
        datasets.update(conn, data, now=later, description="更多 words")
        (card,) = search.search(conn, ALICE, Wanted(kind="project", text="流体")).items
        assert (card.name, card.summary, card.environment, card.changed_at) == (
            "流体",
            "One two",
            "mpi",
            later,
        )
        assert (card.slug, card.sort_name, card.item_id) == (made.slug, "liuti", made.id)
        assert names(conn, ALICE, text="heat") == ["流体"]  # its address keeps the word
        (card,) = search.search(conn, ALICE, Wanted(kind="dataset", text="更多 warm", tag="ir")).items
        assert (card.tags, card.summary) == (("ir",), "Warm")
        store.touch(conn, made.id, later + timedelta(hours=1))
        (card,) = search.search(conn, ALICE, Wanted(kind="project")).items
        assert card.changed_at == later + timedelta(hours=1)
        departed.delete_owned(conn, "alice", now=later)
        assert names(conn, ALICE) == names(conn, ADMIN) == []


def test_the_rarer_way_is_taken() -> None:
    rare, common = Clue("re"), Clue("co")
    assert choose([], 100_000, 50) is None
    assert choose([(rare, 0)], 100_000, 50) == rare
    assert choose([(rare, 20), (common, COMMON)], 100_000, 50) == rare
    assert choose([(common, COMMON)], 100_000, 50) is None
    assert choose([(common, 6000)], 100_000, 50) is None  # one in seventeen: 850 are walked past
    assert choose([(common, 6000), (rare, 3000)], 100_000, 50) == rare  # both together are rare


@pytest.mark.parametrize("scope", ["favourites", "shared", "mine"])
@pytest.mark.parametrize("viewer", [BOB, Viewer(name="dora", groups=frozenset({"physics"}))])
def test_what_is_ones_own_business_is_looked_up_and_nobody_elses_passed_by(
    sqlite_db: Database, settings: Settings, viewer: Viewer, scope: Scope
) -> None:
    """A database without statistics is told by the statement; with them PostgreSQL goes by how much there is."""
    asked: list[tuple[str, Any]] = []

    def hear(_conn: Any, _cursor: Any, statement: str, values: Any, *_more: Any) -> None:
        asked.append((statement, values))

    with sqlite_db.write() as conn:
        ensure_volumes(conn, settings, NOW)
        everybody(conn)
        event.listen(conn, "before_cursor_execute", hear)
        search.search(conn, viewer, Wanted(kind="project"), scope=scope)
        event.remove(conn, "before_cursor_execute", hear)
        assert asked
        for statement, values in asked:
            plan = [row[3] for row in conn.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", values)]
            assert not [step for step in plan if "SCAN" in step or step.endswith("shares_1 (kind=?)")], plan
