"""Finding projects and data sets: by words of any language, filters and sorts, page by page.

What somebody may see is put together from few *sources* that do not overlap: what is public, what is their own,
what is shared with them. Each is one query that gives the first rows behind the cursor in the order asked for;
the page is their merge. The last two are small. The first may be a hundred thousand cards, and there the way is
chosen by what is rarer: a word that few cards have is looked up in the index and its cards are sorted; where all
words are common, cards are walked in the order of the sort until the page is full, which is soon. Either way
each row's folded text and columns decide.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from sqlalchemy import ColumnElement, Connection, Select, and_, exists, func, or_, select, tuple_

from galilean.errors import UserError, mark
from galilean.web.paging import PAGE_MOST, Cursor, Page
from services.catalog import words
from services.catalog.access import Kind, Viewer
from services.catalog.cards import COLUMNS, OTHER, PUBLIC, Card, card, filters
from services.catalog.tables import card_words, cards, favourites, shares
from services.catalog.words import Clue

Sort = Literal["recent", "new", "name", "views", "uses", "favourites"]
#: ``public``: the gallery. ``mine``: one's own. ``shared``: of others, shared with one. ``favourites``: of those that
#: one still may see. ``all``: whatever one may see. ``everything``: everybody's, for those who manage it.
Scope = Literal["public", "mine", "shared", "favourites", "all", "everything"]

#: Column, whether the largest comes first, and whether it is a time.
SORTS: dict[str, tuple[Any, bool, bool]] = {
    "recent": (cards.c.changed_at, True, True),
    "new": (cards.c.new_at, True, True),
    "name": (cards.c.sort_name, False, False),
    "views": (cards.c.views, True, False),
    "uses": (cards.c.uses, True, False),
    "favourites": (cards.c.favourites, True, False),
}
#: Up to here cards of a word are counted; a word that more have is common.
COMMON = 8000
#: A word that so few cards have is looked up whatever the others are.
RARE = 300
CLUES_MOST = 12
#: What looking up and sorting a card costs more than walking past one.
LOOK_UP_COST = 3.0
COUNT_MOST = 1000


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What is looked for.

    Attributes
    ----------
    kind
        Projects or data sets.
    text
        Words that must all be found in name, address, owner, tags or descriptions; empty = all.
    field, environment, tag, author
        Exactly these; empty = any.
    """

    kind: Kind
    text: str = ""
    field: str = ""
    environment: str = ""
    tag: str = ""
    author: str = ""
    sort: Sort = "recent"


def search(
    conn: Connection,
    viewer: Viewer,
    wanted: Wanted,
    *,
    scope: Scope = "all",
    limit: int = 50,
    cursor: str | None = None,
) -> Page[Card]:
    """A page of what is found; ``next`` of it goes on behind its last card.

    Raises
    ------
    UserError
        400 for an unknown sort or a cursor that no page of this sort gave; 403 for ``everything`` without the
        right to manage it.
    """
    if wanted.sort not in SORTS:
        raise UserError(400, mark("This is sorted by: {known}."), known=", ".join(SORTS))
    limit = max(1, min(limit, PAGE_MOST))
    column, down, _ = SORTS[wanted.sort]
    conditions = _conditions(conn, wanted)
    if conditions is None:
        return Page([], None)
    if cursor:
        conditions.append(_behind(wanted.sort, cursor))
    order = (column.desc(), cards.c.number.desc()) if down else (column, cards.c.number)
    found: list[list[Card]] = []
    for source, shelf in _sources(viewer, wanted.kind, scope):
        statement = select(*COLUMNS).where(*conditions).order_by(*order).limit(limit + 1)
        narrowed = _narrow(conn, statement, wanted, shelf, limit) if shelf else statement.where(source)
        found.append([card(row) for row in conn.execute(narrowed)])

    def key(one: Card) -> tuple[Any, int]:
        return getattr(one, column.name), one.number

    merged = list(heapq.merge(*found, key=key, reverse=down))[: limit + 1]
    if len(merged) <= limit:
        return Page(merged, None)
    value, number = key(merged[limit - 1])
    told = value.isoformat() if isinstance(value, datetime) else value
    return Page(merged[:limit], Cursor.encode(wanted.sort, told, number))


def count(conn: Connection, viewer: Viewer, wanted: Wanted, *, scope: Scope = "all") -> int:
    """How many are found, up to :data:`COUNT_MOST`; one more = more than that.

    Raises
    ------
    UserError
        As :func:`search`.
    """
    conditions = _conditions(conn, wanted)
    if conditions is None:
        return 0
    total = 0
    for source, shelf in _sources(viewer, wanted.kind, scope):
        statement = select(cards.c.number).where(*conditions).limit(COUNT_MOST + 1)
        narrowed = _narrow(conn, statement, wanted, shelf, COUNT_MOST) if shelf else statement.where(source)
        total += conn.execute(select(func.count()).select_from(narrowed.subquery())).scalar_one()
    return min(total, COUNT_MOST + 1)


# ------------------------------------------------------------------------------------------- who sees what


def _sources(viewer: Viewer, kind: Kind, scope: Scope) -> list[tuple[ColumnElement[bool], int]]:
    """Conditions of the sources, which do not overlap; with the shelf where a source is a whole one."""
    public, other = PUBLIC[kind], OTHER[kind]
    # Of few cards; by an expression, lest a database without statistics walks the whole shelf in its order.
    shelf = cards.c.shelf + 0
    on_public, on_other = shelf == public, shelf == other
    own, given = cards.c.owner == viewer.name, _shared_with(viewer, kind)
    if scope == "public":
        return [(on_public, public)]
    if scope == "mine":
        return [(and_(own, shelf.in_((public, other))), 0)]
    if scope == "shared":
        return [(and_(given, ~own, on_public), 0), (and_(given, ~own, on_other), 0)]
    if scope == "favourites":
        theirs = select(favourites.c.item_id).where(
            favourites.c.person == viewer.name, favourites.c.kind == kind
        )
        # With the kind, which shelves say already: cards are looked up by both.
        liked = and_(cards.c.kind == kind, cards.c.item_id.in_(theirs))
        if viewer.manages(kind):
            return [(and_(liked, shelf.in_((public, other))), 0)]
        return [(and_(liked, or_(on_public, and_(on_other, or_(own, given)))), 0)]
    if scope == "all" and not viewer.manages(kind):
        return [(on_public, public), (and_(own, on_other), 0), (and_(given, ~own, on_other), 0)]
    if scope in ("all", "everything") and viewer.manages(kind):
        return [(on_public, public), (on_other, other)]
    raise UserError(403, mark("You see your own things, what is public and what is shared with you."))


def _shared_with(viewer: Viewer, kind: Kind) -> ColumnElement[bool]:
    """Cards of what is shared with somebody; not of what was taken down."""
    theirs = and_(shares.c.grantee_kind == "person", shares.c.grantee == viewer.name)
    if viewer.groups:
        of_groups = and_(shares.c.grantee_kind == "group", shares.c.grantee.in_(sorted(viewer.groups)))
        theirs = or_(theirs, of_groups)
    # By an expression, lest a database without statistics goes through everybody's shares of a kind.
    given = select(shares.c.item_id).where(shares.c.kind + "" == kind, theirs)
    return and_(cards.c.kind == kind, cards.c.item_id.in_(given), ~cards.c.taken_down)


# -------------------------------------------------------------------------------------------- what is found


def _conditions(conn: Connection, wanted: Wanted) -> list[ColumnElement[bool]] | None:
    """What each card must have; ``None`` = nothing has it."""
    said = (wanted.text, wanted.field, wanted.environment, wanted.tag, wanted.author)
    if any("\0" in value or any("\ud800" <= char <= "\udfff" for char in value) for value in said):
        return None
    found = words.terms(wanted.text)
    if wanted.text.strip() and not found:
        return None  # nothing but marks: no word is found by them
    at = func.instr if conn.dialect.name == "sqlite" else func.strpos
    conditions: list[ColumnElement[bool]] = [at(cards.c.text, term.needle) > 0 for term in found]
    for column, value in (
        (cards.c.field, wanted.field),
        (cards.c.environment, wanted.environment),
        (cards.c.owner, wanted.author),
    ):
        if value:
            conditions.append(column == value)
    if wanted.tag:
        word = filters(tags=[wanted.tag])[0].word
        conditions.append(exists().where(card_words.c.card == cards.c.number, card_words.c.word == word))
    return conditions


def _clues(wanted: Wanted) -> list[Clue]:
    """Words that each card must have; those of filters first, for they are rare."""
    found = filters(
        field=wanted.field,
        environment=wanted.environment,
        author=wanted.author,
        tags=[wanted.tag] if wanted.tag else [],
    )
    found += (clue for term in words.terms(wanted.text) for clue in term.clues())
    return found[:CLUES_MOST]


def _has(clue: Clue) -> ColumnElement[bool]:
    if clue.begins:
        return and_(card_words.c.word >= clue.word, card_words.c.word < clue.end)
    return card_words.c.word == clue.word


def _narrow(conn: Connection, statement: Select[Any], wanted: Wanted, shelf: int, limit: int) -> Select[Any]:
    """The statement over a whole shelf: by the rarest word, or by walking in the order of the sort."""
    known: list[tuple[Clue, int]] = []
    for clue in _clues(wanted):
        known.append((clue, _count(conn, shelf, clue)))
        if known[-1][1] <= RARE:
            break
    rarest = choose(known, _about(conn), limit)
    if rarest is None:
        return statement.where(cards.c.shelf == shelf)
    found = (
        select(card_words.c.card)
        .where(card_words.c.shelf == shelf, _has(rarest))
        .distinct()
        .cte("found")
        .prefix_with("MATERIALIZED")
    )
    # Without the shelf, which the words have, no index of a sort is used: few rows are sorted faster.
    return statement.where(cards.c.number.in_(select(found.c.card)))


def choose(known: Sequence[tuple[Clue, int]], about: int, limit: int) -> Clue | None:
    """By which word to look up cards; ``None`` = walk past all of them until the page is full.

    Parameters
    ----------
    known
        Words that a card must have, and how many have each; from :data:`COMMON` on they were not counted.
    about
        How many cards there are at most.
    limit
        How many are wanted.
    """
    if not known:
        return None
    clue, fewest = min(known, key=lambda one: one[1])
    if fewest >= COMMON:
        return None
    share = 1.0
    for _, cards_of in known:
        share *= min(1.0, cards_of / max(about, 1))
    walked = min(float(about), (limit + 1) / share if share else float("inf"))
    return clue if fewest * LOOK_UP_COST <= walked else None


def _count(conn: Connection, shelf: int, clue: Clue) -> int:
    some = select(card_words.c.card).where(card_words.c.shelf == shelf, _has(clue)).limit(COMMON).subquery()
    return int(conn.execute(select(func.count()).select_from(some)).scalar_one())


def _about(conn: Connection) -> int:
    return int(conn.execute(select(func.max(cards.c.number))).scalar() or 0)


def _behind(sort: str, cursor: str) -> ColumnElement[bool]:
    column, down, is_time = SORTS[sort]
    kind, value, number = Cursor.decode(cursor, 3)
    good = kind == sort and isinstance(number, int) and not isinstance(number, bool) and 0 <= number < 2**62
    if good and is_time:
        try:
            value = datetime.fromisoformat(value) if isinstance(value, str) else None
        except ValueError:
            value = None
        good = value is not None and value.tzinfo is not None
    elif good and column is cards.c.sort_name:
        good = (
            isinstance(value, str) and "\0" not in value and not any("\ud800" <= c <= "\udfff" for c in value)
        )
    elif good:
        good = isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**31
    if not good:
        raise UserError(400, mark("This page of the list cannot be found. Begin at the first page."))
    position = tuple_(column, cards.c.number)
    here = (value, number)
    return position < here if down else position > here


# --------------------------------------------------------------------------------------------------- chips


def tags(conn: Connection, kind: Kind, *, begins: str = "", most: int = 50) -> list[tuple[str, int]]:
    """Tags of what is public, with how many have each; the most frequent first."""
    clue = Clue("tag:" + begins, begins=True)
    number = func.count()
    rows: Iterable[Any] = conn.execute(
        select(card_words.c.word, number)
        .where(card_words.c.shelf == PUBLIC[kind], _has(clue))
        .group_by(card_words.c.word)
        .order_by(number.desc(), card_words.c.word)
        .limit(most)
    )
    return [(row[0].removeprefix("tag:"), int(row[1])) for row in rows]
