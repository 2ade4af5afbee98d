"""Looking at volumes: what is seen is noted, and a disk that hangs or is away costs the others nothing."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from galilean.db import Database
from galilean.errors import UserError
from galilean.settings import Settings
from services.catalog import placing, volume_store
from services.catalog.placing import Looker, Seen
from services.catalog.volumes import MARK
from tests.catalog.people import NOW


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings.model_validate({"state": tmp_path, "volumes": {"here": {}, "there": {}}})


@pytest.fixture
def looker(db: Database, settings: Settings) -> Iterator[Looker]:
    made = Looker(db, settings, lambda: NOW, seconds=0.05)
    yield made
    made.close()


async def test_what_is_seen_is_noted(db: Database, looker: Looker, settings: Settings) -> None:
    await looker.look()
    (settings.volume_path("there") / MARK).unlink()
    rows = {row.id: row for row in await looker.look()}
    with db.read() as conn:
        assert {row.id: row for row in volume_store.all_volumes(conn)} == rows
    assert rows["here"].free_bytes
    assert (rows["here"].problem, rows["there"].free_bytes) == ("", None)
    assert rows["there"].problem
    assert await looker.place("project") == "here"


async def test_something_new_goes_where_most_is_free(looker: Looker, monkeypatch: pytest.MonkeyPatch) -> None:
    free = {"here": 10 << 30, "there": 30 << 30}
    monkeypatch.setattr(placing, "look", lambda path, name: Seen(total_bytes=40 << 30, free_bytes=free[name]))
    assert await looker.place("dataset", size_bytes=20 << 30) == "there"
    with pytest.raises(UserError) as caught:
        await looker.place("dataset", size_bytes=35 << 30)
    assert caught.value.status == 507


async def test_a_disk_that_hangs_is_asked_once_and_named(
    looker: Looker, monkeypatch: pytest.MonkeyPatch
) -> None:
    hangs, asked = threading.Event(), []

    def look(path: Path, name: str) -> Seen:
        asked.append(name)
        if name == "there":
            hangs.wait(60)
        return Seen(total_bytes=1, free_bytes=1)

    monkeypatch.setattr(placing, "look", look)
    try:
        for _ in range(3):
            rows = {row.id: row for row in await looker.look()}
            assert (rows["here"].problem, rows["there"].problem) == ("", "does not answer")
        assert asked.count("there") == 1
    finally:
        hangs.set()
