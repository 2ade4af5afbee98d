"""Projects in the database, on SQLite and PostgreSQL."""

from __future__ import annotations

import errno
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Connection, insert, update

from galilean.db import Database
from galilean.errors import UserError
from galilean.names import is_slug
from galilean.settings import Settings
from galilean.web.paging import Cursor
from services.catalog import departed, store, tables, volume_store, volumes
from services.catalog.shares import Actor
from services.catalog.store import Project
from services.catalog.volumes import ensure_volumes
from spawner.tables import clusters

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(state=tmp_path)


@pytest.fixture
def catalogue(db: Database, settings: Settings) -> Database:
    with db.write() as conn:
        ensure_volumes(conn, settings, NOW)
    return db


def make(conn: Connection, owner: str = "alice", name: str = "Heat flow", **more: Any) -> Project:
    return store.create(conn, owner=owner, name=name, volume_id="default", **{"now": NOW, **more})


def refused(status: int, act: Any) -> UserError:
    with pytest.raises(UserError) as caught:
        act()
    assert caught.value.status == status
    assert "{" not in caught.value.text()
    return caught.value


def run_of(conn: Connection, project: Project, **more: Any) -> None:
    values = {
        "id": f"run{more.get('queued_at', NOW).timestamp():.6f}"[:26],
        "user": project.owner,
        "server": project.slug,
        "project_id": project.id,
        "project_owner": project.owner,
        "project_slug": project.slug,
        "project_name": project.name,
        "environment": "jupyter",
        "backend": "process",
        "nodes": 1,
        "cpu_millicores": 1000,
        "memory_bytes": 2**30,
        "release_policy": "auto",
        "request": {},
        "status": "running",
        "asked_by": project.owner,
        "queued_at": NOW,
        **more,
    }
    conn.execute(insert(clusters).values(values))


def test_a_project_keeps_what_it_was_made_with(catalogue: Database) -> None:
    with catalogue.write() as conn:
        made = make(
            conn,
            name="  热  流 ",
            description="two\r\nlines",
            environment="jupyter",
            default_request={"nodes": 2},
        )
    with catalogue.read() as conn:
        found = store.get(conn, "alice", "re-liu")
        assert found == made == store.by_id(conn, made.id)
    assert made.name == "热 流"
    assert made.description == "two\nlines"
    assert made.default_request == {"nodes": 2}
    assert made.created_at == made.changed_at == NOW
    assert made.directory == f"projects/{made.id}"


def test_a_slug_that_is_taken_is_numbered(catalogue: Database) -> None:
    with catalogue.write() as conn:
        slugs = [make(conn).slug for _ in range(12)]
        assert slugs[:3] == ["heat-flow", "heat-flow-2", "heat-flow-3"]
        assert len(set(slugs)) == 12
        assert make(conn, owner="bob").slug == "heat-flow"
        long = [make(conn, name="x" * 60).slug for _ in range(11)]
        assert len(set(long)) == 11
        assert all(map(is_slug, long))


def test_a_slug_that_was_asked_for_and_is_taken_is_refused(catalogue: Database) -> None:
    with catalogue.write() as conn:
        make(conn, slug="mine")
        refused(409, lambda: make(conn, slug="mine"))
        for slug in ("node-1", "node-0", "go", "api", "a--b", "-a", "1a", "A", "ä", "x" * 31, "a/b", "../x"):
            refused(400, lambda slug=slug: make(conn, slug=slug))
        assert [item.slug for item in store.list_for(conn, "alice")[0]] == ["mine"]


@pytest.mark.parametrize("name", ["node-1", "go", "lab", "🙂", "123", "-", "a" * 100, "ترحيب", "Node 12"])
def test_any_name_gives_an_address_that_can_be_one(catalogue: Database, name: str) -> None:
    with catalogue.write() as conn:
        assert is_slug(make(conn, name=name).slug)


@pytest.mark.parametrize("name", ["", "  ", "x" * 101, "a\x00b", "a\u202eb", "\ud800", "a\x1b[31m"])
def test_a_name_that_cannot_be_one_is_refused(catalogue: Database, name: str) -> None:
    with catalogue.write() as conn:
        refused(400, lambda: make(conn, name=name))


def test_a_description_that_is_too_long_or_not_text_is_refused(catalogue: Database) -> None:
    with catalogue.write() as conn:
        refused(400, lambda: make(conn, description="x" * 2001))
        refused(400, lambda: make(conn, description="\x00"))


@given(st.text(max_size=120))
def test_a_clean_name_is_clean(name: str) -> None:
    try:
        cleaned = store.clean_name(name)
    except UserError:
        return
    assert store.clean_name(cleaned) == cleaned
    assert 0 < len(cleaned) <= 100
    cleaned.encode()


def test_two_creations_at_once_get_two_addresses(catalogue: Database) -> None:
    count = 8
    together = threading.Barrier(count)

    def one(_: int) -> str:
        together.wait()
        with catalogue.write() as conn:
            return make(conn).slug

    with ThreadPoolExecutor(count) as pool:
        slugs = list(pool.map(one, range(count)))
    assert len(set(slugs)) == count


def test_a_creation_that_comes_second_takes_the_next_number(
    catalogue: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    with catalogue.write() as conn:
        make(conn)
    monkeypatch.setattr(store, "slugs_like", lambda *_: set())  # as if the other was not seen yet
    with catalogue.write() as conn:
        assert make(conn).slug == "heat-flow-2"
        refused(409, lambda: make(conn, slug="heat-flow"))
        assert make(conn, name="after").slug == "after"  # the transaction is still good


def test_the_alias_of_a_project_leads_back_to_it(catalogue: Database) -> None:
    with catalogue.write() as conn:
        own, other = make(conn), make(conn, owner="bob")
        make(conn, owner="carol")
        long = make(conn, owner="bob", name="x" * 30)
    with catalogue.read() as conn:
        assert store.by_alias(conn, "alice", "heat-flow") == own
        assert store.by_alias(conn, "alice", other.server("alice")) == other
        assert store.by_alias(conn, "alice", long.server("alice")) == long
        assert store.by_alias(conn, "bob", other.server("alice")) is None
        for server in ("", "heat", "heat-flow-000000", "heat-flow-", "-000000", "%-000000", "_eat-flow"):
            assert store.by_alias(conn, "alice", server) is None


def test_ones_own_project_wins_over_an_alias_of_the_same_name(catalogue: Database) -> None:
    with catalogue.write() as conn:
        other = make(conn, owner="bob")
        own = make(conn, slug=other.server("alice"))
        assert store.by_alias(conn, "alice", own.slug) == own


def test_a_deleted_project_is_nowhere_and_its_slug_is_free(catalogue: Database) -> None:
    with catalogue.write() as conn:
        project = make(conn)
        store.delete(conn, project, now=NOW)
        assert store.get(conn, "alice", "heat-flow") is None
        assert store.by_id(conn, project.id) is None
        assert store.by_alias(conn, "alice", "heat-flow") is None
        assert store.list_for(conn, "alice")[0] == []
        assert store.count_for(conn, "alice") == 0
        kept = store.by_id(conn, project.id, deleted=True)
        assert kept is not None
        assert kept.deleted_at == NOW
        again = make(conn)
        assert again.slug == "heat-flow"
        assert again.directory != project.directory
        refused(404, lambda: store.delete(conn, project, now=NOW))
        refused(404, lambda: store.update(conn, project, now=NOW, name="x"))


def test_a_project_that_runs_is_not_deleted(catalogue: Database) -> None:
    with catalogue.write() as conn:
        project = make(conn)
        run_of(conn, project, user="admin")
        refused(409, lambda: store.delete(conn, project, now=NOW))
        conn.execute(update(clusters).values(released_at=NOW))
        store.delete(conn, project, now=NOW)


def test_a_deleted_project_can_be_taken_back(catalogue: Database) -> None:
    with catalogue.write() as conn:
        project = make(conn)
        refused(404, lambda: store.restore(conn, project.id, now=NOW))
        store.delete(conn, project, now=NOW)
        other = make(conn)
        back = store.restore(conn, project.id, now=NOW)
        assert (other.slug, back.slug) == ("heat-flow", "heat-flow-2")
        assert back.directory == project.directory
        assert store.get(conn, "alice", "heat-flow-2") == back
        refused(404, lambda: store.restore(conn, "no such", now=NOW))


def test_whoever_gets_a_deleted_persons_name_finds_nothing(catalogue: Database) -> None:
    with catalogue.write() as conn:
        old = make(conn)
        others = make(conn, owner="bob")
        assert [gone.id for gone in departed.delete_owned(conn, "alice", now=NOW)] == [old.id]
        assert store.list_for(conn, "alice")[0] == []
        new = make(conn)
        assert new.slug == old.slug
        assert new.directory != old.directory
        assert store.get(conn, "bob", "heat-flow") == others


def test_changing_what_is_given_leaves_the_rest_and_the_address(catalogue: Database) -> None:
    later = NOW + timedelta(hours=1)
    with catalogue.write() as conn:
        project = make(conn, description="old", environment="a", default_request={"nodes": 3})
        changed = store.update(conn, project, now=later, name="Cold flow")
        assert (changed.name, changed.slug, changed.description) == ("Cold flow", "heat-flow", "old")
        assert (changed.environment, changed.default_request, changed.changed_at) == (
            "a",
            {"nodes": 3},
            later,
        )
        assert store.list_for(conn, "alice", query="cold")[0] == [changed]
        changed = store.update(conn, project, now=later, environment="", default_request={}, description="")
        assert (changed.environment, changed.default_request, changed.description) == ("", None, "")
        refused(400, lambda: store.update(conn, project, now=later, name=" "))


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("", {"热流方程", "Ölfilm", "ΣΊΣΥΦΟΣ", "a%b_c\\d", "Heat"}),
        ("热流", {"热流方程"}),
        ("流方", {"热流方程"}),
        ("re-liu", {"热流方程"}),
        ("ÖLFILM", {"Ölfilm"}),
        ("ölfilm", {"Ölfilm"}),
        ("σίσυφος", {"ΣΊΣΥΦΟΣ"}),
        ("HEAT", {"Heat"}),
        ("Ｈｅａｔ", {"Heat"}),
        ("words heat", {"Heat"}),
        ("heat missing", set()),
        ("%", {"a%b_c\\d"}),
        ("_", {"a%b_c\\d"}),
        ("\\", {"a%b_c\\d"}),
        ("'; DROP TABLE projects", set()),
    ],
)
def test_search_finds_words_in_any_script_and_case(catalogue: Database, query: str, found: set[str]) -> None:
    with catalogue.write() as conn:
        for name in ("热流方程", "Ölfilm", "ΣΊΣΥΦΟΣ", "a%b_c\\d"):
            make(conn, name=name)
        make(conn, name="Heat", description="Some WORDS")
        make(conn, owner="bob", name="热流 HEAT ölfilm")
        assert {item.name for item in store.list_for(conn, "alice", query=query)[0]} == found


@pytest.mark.parametrize("sort", ["recent", "name", "created"])
def test_pages_show_every_project_once_in_order(catalogue: Database, sort: store.Sort) -> None:
    with catalogue.write() as conn:
        for number in range(23):
            at = NOW + timedelta(seconds=number // 3)
            make(conn, name=f"P {number % 7} 热", now=at)
        make(conn, owner="bob")
        seen: list[Project] = []
        cursor = None
        while True:
            page, cursor = store.list_for(conn, "alice", sort=sort, limit=5, cursor=cursor)
            seen += page
            if cursor is None:
                break
        assert len(seen) == len({item.id for item in seen}) == 23
        whole, last = store.list_for(conn, "alice", sort=sort, limit=100)
        assert last is None
        assert whole == seen
        if sort == "name":
            assert [item.name for item in seen] == sorted(item.name for item in seen)
        else:
            assert [item.created_at for item in seen] == sorted(
                (item.created_at for item in seen), reverse=True
            )
        assert len(store.list_for(conn, None)[0]) == 24


def test_chinese_names_are_sorted_by_their_sound(catalogue: Database) -> None:
    with catalogue.write() as conn:
        for name in ("张量", "Beta", "安全", "alpha"):
            make(conn, name=name)
        assert [item.name for item in store.list_for(conn, "alice", sort="name")[0]] == [
            "alpha",
            "安全",
            "Beta",
            "张量",
        ]


@pytest.mark.parametrize(
    "cursor", ["x", "!", "W10", "WyJuYW1lIiwieCJd", "WyJyZWNlbnQiLCIyMDI2IiwieCJd", "é", "A" * 5000]
)
def test_a_cursor_that_no_page_gave_is_refused(catalogue: Database, cursor: str) -> None:
    with catalogue.read() as conn:
        refused(400, lambda: store.list_for(conn, "alice", cursor=cursor))


def test_a_cursor_of_another_order_is_refused(catalogue: Database) -> None:
    with catalogue.write() as conn:
        for _ in range(3):
            make(conn)
        _, cursor = store.list_for(conn, "alice", limit=1)
        refused(400, lambda: store.list_for(conn, "alice", sort="name", cursor=cursor))
        refused(400, lambda: store.list_for(conn, "alice", sort="x"))  # type: ignore[arg-type]


def test_touching_a_project_brings_it_to_the_front_and_never_back(catalogue: Database) -> None:
    with catalogue.write() as conn:
        first = make(conn, name="first")
        make(conn, name="second", now=NOW + timedelta(seconds=1))
        store.touch(conn, first.id, NOW + timedelta(seconds=2))
        store.touch(conn, first.id, NOW)
        assert [item.name for item in store.list_for(conn, "alice")[0]] == ["first", "second"]


def test_the_last_request_is_that_of_the_persons_newest_run(catalogue: Database) -> None:
    with catalogue.write() as conn:
        project = make(conn)
        assert store.last_request(conn, project.id, "alice") is None
        for number, request in enumerate([{"nodes": 1}, {"nodes": 4, "ports": [8080], "from_the_future": 1}]):
            at = NOW + timedelta(minutes=number)
            run_of(conn, project, request=request, queued_at=at, released_at=at, status="released")
        run_of(conn, project, user="admin", request={"nodes": 9}, queued_at=NOW + timedelta(hours=1))
        found = store.last_request(conn, project.id, "alice")
        assert found is not None
        assert (found.nodes, found.ports, found.cpu_millicores) == (4, (8080,), None)


def test_a_volume_is_registered_once_and_marked(db: Database, settings: Settings) -> None:
    for _ in range(2):
        with db.write() as conn:
            ensure_volumes(conn, settings, NOW)
    path = settings.volume_path("default")
    assert sorted(item.name for item in path.iterdir()) == [
        ".galilean-volume", "bin", "datasets", "projects",
    ]  # fmt: skip
    volumes.check_mounted(path, "default")


def test_a_claim_of_the_settings_is_in_its_row_so_that_it_can_be_closed(db: Database, tmp_path: Path) -> None:
    claim = {"kind": "claim", "claim": "projects", "path": str(tmp_path / "projects")}
    settings = Settings(state=tmp_path, volumes={"default": claim, "other": {}})  # type: ignore[arg-type]
    with db.write() as conn:
        ensure_volumes(conn, settings, NOW)
        conn.execute(update(tables.volumes).values(claim=""))  # as versions before wrote it
        ensure_volumes(conn, settings, NOW)
        closed = volume_store.edit(
            conn, "default", actor=Actor(name="root", address=""), now=NOW, state="closed"
        )
    assert (closed.claim, closed.state) == ("projects", "closed")


def test_a_volume_whose_server_is_gone_is_not_worked_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(self: Path, **_: Any) -> None:
        raise OSError(errno.ENOTCONN, "Transport endpoint is not connected", str(self))

    monkeypatch.setattr(Path, "stat", gone)
    refused(503, lambda: volumes.check_mounted(tmp_path, "default"))


def test_a_volume_without_its_mark_is_not_worked_on(db: Database, settings: Settings) -> None:
    with db.write() as conn:
        ensure_volumes(conn, settings, NOW)
    (settings.volume_path("default") / volumes.MARK).unlink()
    with db.write() as conn:
        ensure_volumes(conn, settings, NOW)  # known already: not marked anew
    refused(503, lambda: volumes.check_mounted(settings.volume_path("default"), "default"))


def test_a_volume_that_cannot_be_made_is_told(db: Database, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    settings = Settings.model_validate(
        {"state": tmp_path, "volumes": {"big": {"path": str(tmp_path / "file/below")}}}
    )
    with db.write() as conn:
        assert "big" in refused(503, lambda: ensure_volumes(conn, settings, NOW)).text()


def test_a_project_of_a_volume_that_is_not_set_up_any_more_is_told(
    catalogue: Database, tmp_path: Path
) -> None:
    with catalogue.write() as conn:
        project = make(conn)
    other = Settings.model_validate({"state": tmp_path, "volumes": {"big": {}}})
    refused(503, lambda: project.path(other))


@pytest.mark.parametrize("text", ["a\0b", "\ud800"], ids=ascii)
def test_text_that_no_database_takes_finds_nothing(catalogue: Database, text: str) -> None:
    with catalogue.write() as conn:
        project = make(conn)
        assert store.get(conn, "alice", text) is None
        assert store.get(conn, text, "heat-flow") is None
        assert store.by_id(conn, text) is None
        assert store.by_alias(conn, "alice", f"{text}-000000") is None
        refused(404, lambda: store.restore(conn, text, now=NOW))
        refused(400, lambda: store.list_for(conn, "alice", query=text))
        cursor = Cursor.encode("name", "a\0b", project.id)
        refused(400, lambda: store.list_for(conn, "alice", sort="name", cursor=cursor))
