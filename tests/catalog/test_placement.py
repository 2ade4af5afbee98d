"""Volumes: which takes something new, when one may go; as rules and in the database."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import update

from galilean.db import Database
from services.catalog import lifecycle, links, store, volume_store
from services.catalog.placement import (
    KEPT_FREE_BYTES,
    VolumeRow,
    check_delete,
    check_drain,
    check_volume,
    place,
)
from services.catalog.tables import projects
from services.catalog.tables import volumes as table
from spawner.tables import clusters
from tests.catalog.people import ALICE, NOW, a_dataset, a_project, actor, refused, run_of, told

GIB = 1 << 30
FAST = VolumeRow(id="fast", kind="directory", path="/data/fast", free_bytes=10 * GIB, total_bytes=20 * GIB)
BIG = replace(FAST, id="big", path="/data/big", free_bytes=90 * GIB)

rows = st.lists(
    st.builds(
        VolumeRow,
        id=st.sampled_from("abcdef"),
        kind=st.just("directory"),
        path=st.just("/data"),
        holds=st.sampled_from(["both", "projects", "datasets"]),
        state=st.sampled_from(["open", "closed", "draining"]),
        free_bytes=st.one_of(st.none(), st.integers(0, 4 * GIB)),
        problem=st.sampled_from(["", "Input/output error"]),
    ),
    unique_by=lambda volume: volume.id,
)


@given(rows, st.sampled_from(["project", "dataset"]), st.integers(0, 4 * GIB))
def test_new_things_go_where_most_is_free_of_what_takes_them(
    volumes: list[VolumeRow], kind: str, size: int
) -> None:
    able = [v for v in volumes if v.takes(kind) and v.free_bytes is not None and not v.problem]
    most = max((v.free_bytes or 0 for v in able), default=0)
    if not able or (size and most < size + KEPT_FREE_BYTES):
        refused(507 if able else 503, lambda: place(volumes, kind, size_bytes=size))
        return
    chosen = place(volumes, kind, size_bytes=size)
    found = next(v for v in volumes if v.id == chosen)
    assert found in able
    assert found.free_bytes == most
    assert place(list(reversed(volumes)), kind, size_bytes=size) == chosen


@pytest.mark.parametrize(
    ("status", "bad"),
    [
        (400, {"id": "A"}),
        (400, {"id": "../x"}),
        (400, {"kind": "tape"}),
        (400, {"holds": "people"}),
        (400, {"path": "data"}),
        (400, {"path": "/data/../etc"}),
        (400, {"path": "/etc/galilean"}),
        (400, {"path": "/"}),
        (400, {"path": "/home"}),
        (400, {"claim": "x"}),
        (400, {"kind": "claim"}),
        (409, {"id": "fast"}),
        (409, {"path": "/data/fast"}),
        (409, {"path": "/data/fast/below"}),
        (409, {"path": "/data"}),
    ],
)
def test_a_volume_is_not_registered_with(status: int, bad: dict[str, str]) -> None:
    check_volume(BIG, [FAST])
    refused(status, lambda: check_volume(replace(BIG, **bad), [FAST]))  # type: ignore[arg-type]


def test_a_volume_is_drained_only_to_one_that_takes_everything() -> None:
    check_drain(FAST, BIG, size_bytes=5 * GIB)
    refused(409, lambda: check_drain(FAST, FAST, size_bytes=0))
    refused(409, lambda: check_drain(FAST, replace(BIG, state="closed"), size_bytes=0))
    refused(409, lambda: check_drain(FAST, replace(BIG, problem="away"), size_bytes=0))
    refused(409, lambda: check_drain(FAST, replace(BIG, holds="projects"), size_bytes=0))
    refused(507, lambda: check_drain(FAST, BIG, size_bytes=90 * GIB))


def test_a_volume_is_deleted_only_empty_never_the_last_nor_one_of_the_settings() -> None:
    check_delete(FAST, [BIG], items=0, configured=False)
    refused(409, lambda: check_delete(FAST, [BIG], items=1, configured=False))
    refused(409, lambda: check_delete(FAST, [], items=0, configured=False))
    refused(409, lambda: check_delete(FAST, [replace(BIG, holds="projects")], items=0, configured=False))
    refused(409, lambda: check_delete(FAST, [replace(BIG, state="draining")], items=0, configured=False))
    refused(409, lambda: check_delete(FAST, [BIG], items=0, configured=True))


def test_a_volume_is_registered_looked_at_drained_and_deleted(catalogue: Database) -> None:
    with catalogue.write() as conn:
        volume_store.register(conn, FAST, actor=actor(), now=NOW)
        refused(409, lambda: volume_store.register(conn, FAST, actor=actor(), now=NOW))
        volume_store.looked(conn, "fast", total_bytes=20 * GIB, free_bytes=9 * GIB, now=NOW)
        volume_store.looked(conn, "default", total_bytes=None, free_bytes=None, now=NOW, problem="away")
        assert place(volume_store.all_volumes(conn), "project") == "fast"
        project, data = a_project(conn), a_dataset(conn)
        gone = a_project(conn)
        links.add(conn, ALICE, project, data.id, now=NOW)
        store.delete(conn, gone, now=NOW)
        lifecycle.measured(conn, "project", project.id, size_bytes=GIB, file_count=1, now=NOW)
        held = volume_store.holdings(conn)["default"]
        assert (held.projects, held.datasets, held.binned, held.size_bytes) == (1, 1, 1, GIB)
        refused(409, lambda: volume_store.delete(conn, "default", configured=False, actor=actor(), now=NOW))
        volume_store.drain(conn, "default", "fast", actor=actor(), now=NOW)
        # What runs, and what is mounted there, waits; what is over for good needs no move.
        run_of(conn, project, "alice")
        assert [over.id for over in volume_store.next_to_move(conn, "default", most=9)] == [gone.id]
        conn.execute(update(projects).where(projects.c.id == gone.id).values(purged_at=NOW))
        assert volume_store.next_to_move(conn, "default", most=9) == []


def test_what_a_run_has_stays_where_it_is_though_its_project_has_another_now(catalogue: Database) -> None:
    with catalogue.write() as conn:
        volume_store.register(conn, FAST, actor=actor(), now=NOW)
        volume_store.looked(conn, "fast", total_bytes=20 * GIB, free_bytes=9 * GIB, now=NOW)
        project, data, other = a_project(conn), a_dataset(conn), a_dataset(conn, name="Other")
        run = run_of(conn, project, "alice", datasets=[told(data)])
        volume_store.drain(conn, "default", "fast", actor=actor(), now=NOW)
        assert [over.id for over in volume_store.next_to_move(conn, "default", most=9)] == [other.id]
        conn.execute(update(clusters).where(clusters.c.id == run).values(released_at=NOW))
        assert {over.id for over in volume_store.next_to_move(conn, "default", most=9)} == {
            project.id,
            data.id,
            other.id,
        }


def test_what_was_drained_lies_on_the_other_volume_and_the_first_can_go(catalogue: Database) -> None:
    with catalogue.write() as conn:
        volume_store.register(conn, FAST, actor=actor(), now=NOW)
        volume_store.looked(conn, "fast", total_bytes=20 * GIB, free_bytes=9 * GIB, now=NOW)
        items = [a_project(conn).id, a_dataset(conn).id, a_project(conn).id]
        over = store.by_id(conn, items[2])
        assert over
        store.delete(conn, over, now=NOW)
        lifecycle.purged(conn, "project", items[2], now=NOW)
        volume_store.drain(conn, "default", "fast", actor=actor(), now=NOW)
        moved = volume_store.next_to_move(conn, "default", most=9)
        assert [item.id for item in moved] == items[:2]
        for item in moved:
            lifecycle.begin(conn, item.kind, item.id, "moving")
            assert item.id not in [one.id for one in volume_store.next_to_move(conn, "default", most=9)]
            lifecycle.end(conn, item.kind, item.id, volume_id="fast")
        assert "default" not in volume_store.holdings(conn)
        volume_store.delete(conn, "default", configured=False, actor=actor(), now=NOW)
        assert [volume.id for volume in volume_store.all_volumes(conn)] == ["fast"]
        refused(409, lambda: volume_store.delete(conn, "fast", configured=False, actor=actor(), now=NOW))
        refused(409, lambda: volume_store.edit(conn, "fast", state="closed", actor=actor(), now=NOW))
        refused(409, lambda: volume_store.edit(conn, "fast", holds="projects", actor=actor(), now=NOW))
        refused(400, lambda: volume_store.edit(conn, "fast", state="draining", actor=actor(), now=NOW))
        refused(404, lambda: volume_store.edit(conn, "none", state="open", actor=actor(), now=NOW))
        assert conn.execute(table.select()).one().registered_by == "alice"
