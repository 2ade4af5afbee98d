"""The gallery and the search with 100 000 projects, 20 000 data sets and 10 000 people, on SQLite and PostgreSQL.

A third of everything is public, some of the rest is shared with a person or a group; each person has up to a
hundred favourites, whether or not they may still see them. Names and descriptions are
of English and Chinese words whose frequencies fall as in texts: few that every tenth has, many that hardly any
has. What is measured is what the pages ask, through the functions that they call, each time of another person.
There is no plain side.
"""

from __future__ import annotations

import random
import tempfile
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from sqlalchemy import insert, text

import spawner.tables  # noqa: F401 - registers the tables
from benchmarks.harness import Figure, Report, percentile, timed
from galilean.db import Database, metadata
from services.catalog import cards as made_by
from services.catalog.access import Kind, Viewer
from services.catalog.search import Wanted, count, search, tags
from services.catalog.tables import cards, favourites, shares
from tests.postgres import PostgresServer

PROJECTS, DATASETS, PEOPLE, GROUPS = 100_000, 20_000, 10_000, 300
NOW = datetime(2026, 3, 2, 9, tzinfo=UTC)
MOST_MS, TURNS = 50.0, 40

FIELDS = ("ai", "robotics", "chemistry", "life", "academic", "aerospace", "industry", "petroleum", "cae")
ENVIRONMENTS = ("jupyter", "torch", "mpi", "desktop", "r", "chem")
SYLLABLES = ("ta", "re", "mi", "no", "lu", "ke", "sa", "ve", "di", "po", "ran", "tor", "hel", "cas", "min")
HAN = "数据热流模拟木星地震学习网络图像分子动力蛋白质量子计算天气海洋材料结构航空石油机器人视觉语言模型训练入门实验课程分析"


class Language:
    """Words of which the n-th is as frequent as 1/n, in English and Chinese."""

    def __init__(self, rng: random.Random, size: int = 8000) -> None:
        self._rng = rng
        self.latin = list(
            dict.fromkeys("".join(rng.choices(SYLLABLES, k=rng.randrange(2, 5))) for _ in range(2 * size))
        )[:size]
        self.han = list(dict.fromkeys("".join(rng.choices(HAN, k=2)) for _ in range(2 * size)))[:size]
        weights = [1 / (rank + 8) for rank in range(size)]
        self._sums: list[float] = []
        total = 0.0
        for weight in weights:
            total += weight
            self._sums.append(total)

    def say(self, count: int, *, han: bool) -> str:
        words = self.han if han else self.latin
        chosen = self._rng.choices(words, cum_weights=self._sums[: len(words)], k=count)
        return ("" if han else " ").join(chosen)

    def word(self, first: int, last: int, *, han: bool) -> str:
        """A word that is among these in frequency."""
        words = self.han if han else self.latin
        return words[self._rng.randrange(first, min(last, len(words)))]


def things(rng: random.Random, language: Language) -> Iterator[tuple[Kind, Any]]:
    """Rows of projects and data sets, as far as cards are made of them."""
    for number in range(PROJECTS + DATASETS):
        kind: Kind = "project" if number < PROJECTS else "dataset"
        han = rng.random() < 0.5
        changed = NOW - timedelta(seconds=rng.randrange(3 * 365 * 86400))
        visibility = rng.choices(("public", "shared", "private"), weights=(3, 2, 5))[0]
        yield (
            kind,
            SimpleNamespace(
                id=f"{'P' if kind == 'project' else 'D'}{number:025}",
                owner=f"user{int(PEOPLE * rng.random() ** 2)}",
                slug=f"thing-{number}",
                name=language.say(rng.randrange(2, 5), han=han).capitalize(),
                summary=language.say(rng.randrange(4, 10), han=han),
                description=language.say(rng.randrange(5, 40), han=han),
                visibility=visibility,
                cover="",
                field=rng.choice(FIELDS),
                environment=rng.choice(ENVIRONMENTS),
                tags=rng.sample([f"tag{int(500 * rng.random() ** 2)}" for _ in range(3)], rng.randrange(3)),
                changed_at=changed,
                created_at=changed - timedelta(days=3),
                published_at=changed if visibility == "public" else None,
                deleted_at=None,
                taken_down_at=None,
            ),
        )


def _liked(rng: random.Random, people: range) -> Iterator[dict[str, Any]]:
    for person in people:
        for number in rng.sample(range(PROJECTS + DATASETS), int(100 * rng.random() ** 2)):
            kind = "project" if number < PROJECTS else "dataset"
            item = f"{'P' if kind == 'project' else 'D'}{number:025}"
            yield {"person": f"user{person}", "kind": kind, "item_id": item, "at": NOW}


def fill(db: Database) -> None:
    """The cards and words, as the product makes them of rows, by the fastest way into each database."""
    rng = random.Random(6)
    language = Language(rng)
    batch: list[dict[str, Any]] = []
    words: list[tuple[int, str, int]] = []
    given: list[dict[str, Any]] = []

    def flush() -> None:
        with db.write() as conn:
            conn.execute(insert(cards), batch)
            driver: Any = conn.connection.driver_connection
            if db.is_sqlite:
                driver.executemany("INSERT INTO card_words (card, word, shelf) VALUES (?, ?, ?)", words)
            else:
                with driver.cursor().copy("COPY card_words (card, word, shelf) FROM STDIN") as copy:
                    for row in words:
                        copy.write_row(row)
            if given:
                conn.execute(insert(shares), given)
        batch.clear()
        words.clear()
        given.clear()

    for number, (kind, row) in enumerate(things(rng, language), 1):
        made, found = made_by.made_of(kind, row)
        crowd = int(1 / (rng.random() + 1e-4))
        batch.append(
            {
                **made,
                "number": number,
                "kind": kind,
                "item_id": row.id,
                "views": crowd * rng.randrange(20),
                "uses": crowd // 3,
                "favourites": crowd // 2,
            }
        )
        words += ((number, word, made["shelf"]) for word in found)
        if row.visibility == "shared":
            group = rng.random() < 0.3
            given.append(
                {
                    "kind": kind,
                    "item_id": row.id,
                    "grantee_kind": "group" if group else "person",
                    "grantee": f"group{rng.randrange(GROUPS)}" if group else f"user{rng.randrange(PEOPLE)}",
                    "access": "read",
                    "given_by": row.owner,
                    "given_at": NOW,
                }
            )
        if number % 5000 == 0:
            flush()
    if batch:
        flush()
    with db.write() as conn:
        for start in range(0, PEOPLE, 500):
            conn.execute(insert(favourites), list(_liked(rng, range(start, start + 500))))
    if (
        not db.is_sqlite
    ):  # what PostgreSQL does by itself; nobody gives SQLite statistics, so it has none here
        with db.engine.connect() as conn:
            conn.execution_options(isolation_level="AUTOCOMMIT").execute(text("VACUUM ANALYZE"))


def asks(language: Language, rng: random.Random) -> dict[str, Callable[[Any], Any]]:
    """What pages ask, each time of somebody else."""

    def somebody() -> Viewer:
        groups = frozenset(f"group{rng.randrange(GROUPS)}" for _ in range(3))
        return Viewer(name=f"user{rng.randrange(PEOPLE)}", groups=groups)

    def kind() -> Kind:
        return "project" if rng.random() < 0.7 else "dataset"

    def page(scope: str = "public", **wanted: Any) -> Callable[[Any], Any]:
        def ask(conn: Any) -> Any:
            said = {name: value() if callable(value) else value for name, value in wanted.items()}
            return search(conn, somebody(), Wanted(kind=kind(), **said), scope=scope)  # type: ignore[arg-type]

        return ask

    def deep(conn: Any) -> Any:
        viewer, wanted = somebody(), Wanted(kind=kind(), sort=rng.choice(("recent", "name", "views")))
        first = search(conn, viewer, wanted, scope="all")
        return search(conn, viewer, wanted, scope="all", cursor=first.next)

    def counted(conn: Any) -> Any:
        viewer, wanted = somebody(), Wanted(kind=kind(), text=language.word(0, 800, han=rng.random() < 0.5))
        return search(conn, viewer, wanted, scope="public", limit=24), count(
            conn, viewer, wanted, scope="public"
        )

    def everything(conn: Any) -> Any:
        viewer, said = somebody(), language.word(0, 8000, han=rng.random() < 0.5)
        kinds: tuple[Kind, ...] = ("project", "dataset")
        return [search(conn, viewer, Wanted(kind=one, text=said), scope="all", limit=5) for one in kinds]

    def word(first: int, last: int, **more: Any) -> Callable[[], str]:
        return lambda: language.word(first, last, han=more.get("han", rng.random() < 0.5))

    sorts = lambda: rng.choice(("recent", "new", "name", "views", "uses", "favourites"))  # noqa: E731
    field = lambda: rng.choice(FIELDS)  # noqa: E731
    tag = lambda: f"tag{int(500 * rng.random() ** 2)}"  # noqa: E731
    author = lambda: f"user{int(PEOPLE * rng.random() ** 2)}"  # noqa: E731
    return {
        "the gallery, any sort": page(sort=sorts),
        "two pages of all that one may see": deep,
        "by field": page(field=field, sort=sorts),
        "by tag": page(tag=tag, sort=sorts),
        "by author": page(author=author, sort=sorts),
        "by field, environment and tag": page(
            field=field, environment=lambda: rng.choice(ENVIRONMENTS), tag=tag, sort=sorts
        ),
        "a word that many have": page(text=word(0, 40), sort=sorts),
        "a word that some have": page(text=word(40, 800), sort=sorts),
        "a word that few have": page(text=word(800, 8000), sort=sorts),
        "a Chinese word of two characters": page(text=word(0, 8000, han=True)),
        "one Chinese character": page(text=lambda: rng.choice(HAN), sort=sorts),
        "as it is typed: two to four letters": page(
            "all", text=lambda: language.word(0, 8000, han=False)[: rng.randrange(2, 5)]
        ),
        "two words that many have": page(
            text=lambda: language.word(0, 60, han=False) + " " + language.word(0, 60, han=False), sort=sorts
        ),
        "a word and a field": page(text=word(0, 800), field=field, sort=sorts),
        "words that nobody has": page("all", text="xylophone qqq 龘龘"),
        "all that one may see": page("all", sort=sorts),
        "all that one may see, by a word": page("all", text=word(0, 800), sort=sorts),
        "one's own, by a word": page("mine", text=word(0, 800)),
        "shared with one": page("shared", sort=sorts),
        "one's favourites": page("favourites"),
        "how many there are of a word": lambda conn: count(
            conn, somebody(), Wanted(kind=kind(), text=language.word(0, 800, han=False)), scope="public"
        ),
        "the gallery by a word, with how many there are": counted,
        "one box for everything": everything,
        "the tags": lambda conn: tags(conn, kind(), begins=f"tag{rng.randrange(10)}", most=20),
    }


def measure(report: Report, name: str, db: Database) -> None:
    language = Language(random.Random(6))  # the words that the cards were made of
    rng = random.Random(8)
    everything: list[float] = []
    for what, ask in asks(language, rng).items():
        taken: list[float] = []
        for turn in range(TURNS + 5):
            with db.read() as conn:
                conn.execute(text("SELECT 1"))
                took = 1000 * timed(lambda: ask(conn))  # noqa: B023
            if turn >= 5:  # statements are built and connections made by then
                taken.append(took)
        everything += taken
        report.add(_figure(f"{name}: {what}", taken))
    report.add(_figure(f"{name}: all of these together", everything))


def _figure(name: str, taken: list[float]) -> Figure:
    p95 = percentile(taken, 0.95)
    return Figure(
        name=f"gallery of {PROJECTS + DATASETS:,} things, {name}",
        ours=taken,
        unit="ms",
        bound=f"p95 ≤ {MOST_MS:g} ms",
        met=p95 <= MOST_MS,
        note=f"p95 {p95:.1f} ms",
    )


def both(report: Report, name: str, db: Database) -> None:
    metadata.create_all(db.engine)
    took = timed(lambda: fill(db))
    with db.read() as conn:
        words = conn.execute(text("SELECT count(*) FROM card_words")).scalar_one()
    print(f"{name}: {words:,} words of cards, made in {took:.0f} s", flush=True)
    measure(report, name, db)
    db.close()


def run(report: Report, directory: Path, _count: int) -> None:
    """Both databases, one after the other."""
    both(report, "SQLite", Database(f"sqlite:///{directory / 'gallery'}.sqlite"))
    with tempfile.TemporaryDirectory(prefix="galilean-bench-postgres-") as place:
        server = PostgresServer(Path(place))
        server.start()
        try:
            both(report, "PostgreSQL", Database(server.create_database("gallery")))
        finally:
            server.stop()
