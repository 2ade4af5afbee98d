"""By which words something is found: the same on both databases, in any language.

The databases' own text searches find no word of two Chinese characters, and each folds letters in its own way.
So text is folded here (width, case, accents of Latin and Greek) and cut into runs. In scripts that put no
space between words (Chinese, Japanese, Thai, …; Korean, which joins words to their endings) each two
neighbouring characters are a word: a *bigram*. Elsewhere the words are those that spaces and marks make, and
the beginning of one finds it.

The index only narrows down: whether something is found is decided by its folded text, which holds every term
(:func:`holds`). So a term of three Chinese characters finds them in this order, not three pairs anywhere.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass

#: Moves when the rules here do, so that cards are made anew (:func:`services.catalog.cards.catch_up`).
VERSION = 1

TEXT_MOST = 1500
WORD_MOST = 32
TERMS_MOST = 8
QUERY_MOST = 200
LAST = "\U0010ffff"

#: Scripts without spaces between words, by the first word of a character's Unicode name.
_DENSE = frozenset(
    (
        "CJK",
        "HIRAGANA",
        "KATAKANA",
        "HANGUL",
        "BOPOMOFO",
        "YI",
        "THAI",
        "LAO",
        "KHMER",
        "MYANMAR",
        "TIBETAN",
        "IDEOGRAPHIC",
    )
)
_ACCENTED = ("LATIN", "GREEK")


@dataclass(frozen=True)
class Clue:
    """A word of the index, or with ``begins`` all words that begin so."""

    word: str
    begins: bool = False

    @property
    def end(self) -> str:
        """What comes after all words that begin so, by code point."""
        return self.word + LAST


@dataclass(frozen=True)
class Term:
    """One thing that must be found: a run of the query.

    Attributes
    ----------
    text
        Folded.
    dense
        Whether it is of a script without spaces: then it may stand anywhere, else a word begins with it.
    """

    text: str
    dense: bool

    @property
    def needle(self) -> str:
        """What the folded text holds when it has the term."""
        return self.text if self.dense else " " + self.text

    def clues(self) -> list[Clue]:
        """What to look up in the index: a card that has the term has a word of each."""
        if self.dense and len(self.text) > 1:
            return [Clue(pair) for pair in dict.fromkeys(_pairs(self.text))]
        return [Clue(self.text[:WORD_MOST], begins=True)]


def fold(text: str) -> str:
    """Text as it is searched: runs of letters and digits of one kind with a space before and after each."""
    return " " + "".join(f"{run} " for run, _ in _runs(text))


def words(folded: str) -> set[str]:
    """Words of the index of a text that was folded."""
    found: set[str] = set()
    for run in folded.split():
        if _is_dense(run[0]):
            found.update(_pairs(run))
            found.add(run[-1])  # of the last character no bigram begins
        else:
            found.add(run[:WORD_MOST])
    return found


def terms(query: str) -> list[Term]:
    """What somebody looks for; at most :data:`TERMS_MOST`, none for a query without a letter or digit."""
    found = dict.fromkeys(Term(run, dense) for run, dense in _runs(query[:QUERY_MOST]))
    return list(found)[:TERMS_MOST]


def holds(folded: str, wanted: Iterable[Term]) -> bool:
    """Whether a folded text has every term: what the databases ask of each row, too."""
    return all(term.needle in folded for term in wanted)


def _runs(text: str) -> list[tuple[str, bool]]:
    runs: list[tuple[str, bool]] = []
    run: list[str] = []
    dense_run = False
    for char in _plain(text):
        if not _counts(char):
            if run:
                runs.append(("".join(run), dense_run))
                run = []
            continue
        # A mark that combines belongs to what it stands on.
        dense = _is_dense(char) if not run or unicodedata.category(char)[0] != "M" else dense_run
        if run and dense != dense_run:
            runs.append(("".join(run), dense_run))
            run = []
        dense_run = dense
        run.append(char)
    if run:
        runs.append(("".join(run), dense_run))
    return runs


def _plain(text: str) -> str:
    """One width, one case, Latin and Greek without accents. Folding twice changes nothing."""
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    return unicodedata.normalize("NFC", "".join(map(_without_accent, folded))).casefold()


def _without_accent(char: str) -> str:
    if char < "\x80":
        return char
    parts = unicodedata.normalize("NFD", char)
    if len(parts) > 1 and unicodedata.name(parts[0], "").startswith(_ACCENTED):
        return parts[0]
    return char


def _counts(char: str) -> bool:
    # No mark at the beginning of a line (nothing it stands on), no half of a pair, nothing unassigned.
    return unicodedata.category(char)[0] in "LNM"


def _is_dense(char: str) -> bool:
    return char >= "\u0e00" and unicodedata.name(char, "").split(" ", 1)[0] in _DENSE


def _pairs(run: str) -> list[str]:
    return [run[at : at + 2] for at in range(len(run) - 1)]
