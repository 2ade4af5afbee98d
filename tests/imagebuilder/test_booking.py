"""What a person's images take is booked before it is pushed: nobody gets more by beginning many at once."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from extensions.imagebuilder import saved
from extensions.imagebuilder.booking import Book, bases
from extensions.imagebuilder.container import Wanted
from extensions.imagebuilder.entries import Actor
from extensions.imagebuilder.names import ImageName
from extensions.imagebuilder.saving import Result, Task
from extensions.imagebuilder.service import Savers
from galilean.db import Database
from galilean.errors import UserError
from tests.imagebuilder.test_service import IMAGE, NOW, FakeSaver, begin, make_run, row

PLACE, OTHER = "bases/one", "bases/other"


class BookingSaver(FakeSaver):
    """Pushes 40 bytes when both that may go on at once have asked for them."""

    async def save(self, task: Task, wanted: Wanted, name: ImageName, *, history: bool = False) -> Result:
        task.begin("pushing")
        await task.books.room(40)
        await asyncio.sleep(0.2)
        return Result(IMAGE, 40, 1, "linux/amd64", {"packed_bytes": 40}, "")

    async def empty(self, place: str) -> None:
        raise AssertionError


async def test_images_that_are_begun_at_once_do_not_each_find_the_share_empty(
    db: Database, tmp_path: Path
) -> None:
    saver: Any = BookingSaver(tmp_path / "images")
    savers = Savers(db, saver, lambda: datetime.now(UTC), per_person_bytes=100)
    runs = [make_run(db, f"01HAAAAAAAAAAAAAAAAAAAAA{number:02d}", "ada") for number in range(5)]
    rows = [await db.run(begin, one, f"t{number}") for number, one in enumerate(runs)]
    make_run(db, "01HBBBBBBBBBBBBBBBBBBBBBBB", "bob")
    bobs = await db.run(begin, "01HBBBBBBBBBBBBBBBBBBBBBBB", "1", "bob")
    async with asyncio.timeout(60):
        while await db.run_read(saved.saving):
            await savers.tick()
            await asyncio.sleep(0.02)
    found = [await row(db, one) for one in rows]
    assert sorted(one.state for one in found) == ["failed"] * 3 + ["ready"] * 2
    why = next(one for one in found if one.state == "failed")
    assert "Delete images that you no longer need" in why.why
    assert (await row(db, bobs)).state == "ready"
    assert await db.run_read(saved.used_bytes, "ada") == 80
    await savers.close()


def book_of(db: Database, image: Any, most_bytes: int = 0) -> Book:
    return Book(db, image, most_bytes, asyncio.Lock(), set())


async def begun(db: Database, tag: str, environment: str) -> saved.SavedImage:
    return await db.run(
        lambda conn: saved.begin(
            conn, actor=Actor(name="ada"), name=ImageName("tools", tag), now=NOW, environment=environment
        )
    )


@pytest.mark.parametrize(
    ("environment", "used"), [("ada/large", 1030), ("jupyter", 30), ("bob/large", 30), ("", 30)]
)
async def test_what_lies_below_is_charged_once_to_who_brought_it(
    db: Database, environment: str, used: int
) -> None:
    for tag in ("1", "2", "3"):
        book = book_of(db, await begun(db, tag, environment))
        await book.base(PLACE)
        await book.room(10, 1000)
    assert await db.run_read(saved.used_bytes, "ada") == used
    assert await db.run_read(saved.used_bytes, "bob") == 0


async def test_what_is_booked_twice_counts_once_and_what_failed_not_at_all(db: Database) -> None:
    image = await begun(db, "1", "ada/large")
    book = book_of(db, image, 100)
    await book.base(PLACE)
    await book.room(10, 60)
    await book.room(40, 60)
    assert await db.run_read(saved.used_bytes, "ada") == 100
    with pytest.raises(UserError) as refused:
        await book.room(41, 60)
    assert (refused.value.status, refused.value.reason) == (507, "images-full")
    another = book_of(db, await begun(db, "2", "ada/large"), 100)
    await another.base(PLACE)
    with pytest.raises(UserError):
        await another.room(1, 60)
    await db.run(lambda conn: saved.fail(conn, image.id, error=None, now=NOW))
    await another.room(40, 60)
    assert await db.run_read(bases) == {PLACE}


async def test_places_are_needed_while_an_image_stands_on_them(db: Database) -> None:
    places: set[str] = set()
    for tag, place in (("1", PLACE), ("2", OTHER)):
        image = await begun(db, tag, "jupyter")
        book = Book(db, image, 0, asyncio.Lock(), places)
        await book.base(place)
        await book.room(1, 1)
        assert book.below == {"base": place}
    await db.run(lambda conn: saved.fail(conn, image.id, error=None, now=NOW))
    assert places == await db.run_read(bases) == {PLACE, OTHER}
    assert await db.run_read(lambda conn: bases(conn, needed=True)) == {PLACE}
