"""Cards: what the gallery shows of projects and data sets, and the index by which they are found.

A card is made from its project or data set in the transaction of each change, and stands on one *shelf*: that
of what everybody sees, that of all else that lives, or none (the bin). A shelf's number is part of the index,
so that looking through what is public never meets what is private, and nobody's search grows slower by other
people's private things. What was counted of a thing stays on its card wherever that stands.

Cards answer searches only. Whether somebody may open a thing is asked of the thing itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any

from anyascii import anyascii
from sqlalchemy import Connection, delete, insert, select, update

from services.catalog import words
from services.catalog.access import Kind
from services.catalog.starters.spoken import other_words
from services.catalog.tables import card_words, cards, datasets, projects

#: Shelves by kind: what everybody sees, and all else that lives. 0 = none.
NOWHERE = 0
PUBLIC = {"project": 1, "dataset": 3}
OTHER = {"project": 2, "dataset": 4}
SUMMARY_MOST = 255
CATCH_UP_MOST = 500


@dataclass(frozen=True, kw_only=True)
class Card:
    """A project or data set as lists show it.

    Attributes
    ----------
    kind, item_id
        ``project`` or ``dataset``, and its id.
    number
        Of the card; breaks ties when sorting.
    summary
        The beginning of the description, or the short one.
    changed_at, new_at
        When its files or words changed; when it was published (made, if it was not).
    uses
        Forks of a project; projects that use a data set.
    """

    number: int
    kind: str
    item_id: str
    owner: str
    slug: str
    name: str
    summary: str
    visibility: str
    taken_down: bool
    cover: str
    field: str
    environment: str
    tags: tuple[str, ...]
    sort_name: str
    changed_at: datetime
    new_at: datetime
    views: int
    uses: int
    favourites: int


COLUMNS = [cards.c[field.name] for field in fields(Card)]


def card(row: Any) -> Card:
    """From a row of :data:`COLUMNS`."""
    values = dict(row._mapping)
    values["tags"] = tuple(values["tags"] or ())
    return Card(**values)


def sort_name(name: str) -> str:
    """By what names are sorted: Chinese by pinyin, all else as if it were written in Latin."""
    return anyascii(name).casefold()[:255]


def shelf_of(kind: str, row: Any) -> int:
    """Where the card of a row stands."""
    if row.deleted_at is not None or (kind == "dataset" and row.version_of):
        return NOWHERE  # a version is found where its data set is
    if row.deleted_at is not None or (kind == "project" and row.kind == "workbench"):
        return NOWHERE  # nobody sees it as a project
    shown = row.visibility == "public" and row.taken_down_at is None
    return (PUBLIC if shown else OTHER)[kind]


def put(conn: Connection, kind: Kind, item_id: str) -> None:
    """Make the card of a project or data set as it is now; called after each change of it."""
    table = projects if kind == "project" else datasets
    row = conn.execute(select(table).where(table.c.id == item_id)).one()
    _put(conn, kind, row)


def put_all(conn: Connection, kind: Kind, item_ids: Iterable[str]) -> None:
    """The same of several."""
    for item_id in item_ids:
        put(conn, kind, item_id)


def made_of(kind: Kind, row: Any) -> tuple[dict[str, Any], set[str]]:
    """Columns of the card of a project's or data set's row, and the words by which it is found."""
    environment = row.environment if kind == "project" else ""
    summary = row.description if kind == "project" else row.summary
    tags = list(row.tags or ())
    folded = words.fold(
        "\n".join((row.name, row.slug, row.owner, *other_words(row), *tags, summary, row.description))[
            : words.TEXT_MOST
        ]
    )
    made = {
        "shelf": shelf_of(kind, row),
        "version": words.VERSION,
        "taken_down": row.taken_down_at is not None,
        "owner": row.owner,
        "slug": row.slug,
        "name": row.name,
        "summary": " ".join(summary.split())[:SUMMARY_MOST],
        "visibility": row.visibility,
        "cover": row.cover,
        "field": row.field,
        "environment": environment,
        "tags": tags,
        "text": folded,
        "sort_name": sort_name(row.name),
        "changed_at": row.changed_at,
        "new_at": row.published_at or row.created_at,
    }
    clues = filters(field=row.field, environment=environment, author=row.owner, tags=tags)
    return made, words.words(folded) | {clue.word for clue in clues}


def _put(conn: Connection, kind: Kind, row: Any) -> None:
    made, found = made_of(kind, row)
    where = (cards.c.kind == kind, cards.c.item_id == row.id)
    indexed = ("shelf", "version", "owner", "field", "environment", "tags", "text")
    old = conn.execute(
        select(cards.c.number, *(cards.c[name] for name in indexed)).where(*where).with_for_update()
    ).first()
    if old is None:
        number = conn.execute(
            insert(cards).values(kind=kind, item_id=row.id, **made).returning(cards.c.number)
        ).scalar_one()
    else:
        number = old.number
        conn.execute(update(cards).where(cards.c.number == number).values(made))
        if all(getattr(old, name) == made[name] for name in indexed):
            return
        conn.execute(delete(card_words).where(card_words.c.card == number))
    if made["shelf"] == NOWHERE:
        return
    conn.execute(
        insert(card_words),
        [{"card": number, "word": word, "shelf": made["shelf"]} for word in sorted(found)],
    )


def filters(
    *, field: str = "", environment: str = "", author: str = "", tags: Sequence[str] = ()
) -> list[words.Clue]:
    """Words of the index that stand for what is filtered by; no word of a text has a colon."""
    said = [
        ("field", field),
        ("environment", environment),
        ("author", author),
        *(("tag", tag) for tag in tags),
    ]
    return [words.Clue(f"{name}:{value}"[:96]) for name, value in said if value]


def count(conn: Connection, kind: str, item_id: str, what: str, by: int) -> None:
    """Move one of a card's counts: ``views``, ``uses`` or ``favourites``."""
    column = cards.c[what]
    conn.execute(
        update(cards).where(cards.c.kind == kind, cards.c.item_id == item_id).values({what: column + by})
    )


def touch(conn: Connection, kind: str, item_id: str, now: datetime) -> None:
    """Note that files changed."""
    conn.execute(
        update(cards)
        .where(cards.c.kind == kind, cards.c.item_id == item_id, cards.c.changed_at < now)
        .values(changed_at=now)
    )


def catch_up(conn: Connection, *, most: int = CATCH_UP_MOST) -> int:
    """Make cards that are missing, or were made by older rules; how many. Call it until it says 0."""
    done = 0
    tables: dict[Kind, Any] = {"project": projects, "dataset": datasets}
    for kind, table in tables.items():
        rows = conn.execute(
            select(table)
            .outerjoin(cards, (cards.c.item_id == table.c.id) & (cards.c.kind == kind))
            .where((cards.c.number.is_(None)) | (cards.c.version != words.VERSION))
            .order_by(table.c.id)
            .limit(most - done)
        ).all()
        for row in rows:
            _put(conn, kind, row)
        done += len(rows)
        if done >= most:
            break
    return done
