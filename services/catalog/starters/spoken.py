"""The starters in the reader's language, though a site keeps one row of each.

A name or text that an administrator wrote anew stays as it is: only words that are still the product's own are said in
another language. They are found by the words of every language, too (:func:`other_words`). A fork begins with the words
that its maker read, and is a project like any other from then on.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from typing import Any, TypeVar

from services.catalog.starters import OWNER
from services.catalog.starters.shelf import DATA, LANGUAGES, STARTERS, said

Thing = TypeVar("Thing")
TEXTS = ("name", "summary", "description")


@cache
def _sources() -> dict[str, dict[str, str]]:
    """Slug → name of a text → the text in all languages; a project's summary is its description."""
    found: dict[str, dict[str, str]] = {
        one.slug: {"name": one.name, "summary": one.description, "description": one.description}
        for one in STARTERS
    }
    return found | {
        one.slug: {"name": one.name, "summary": one.summary, "description": one.description} for one in DATA
    }


def _ours(item: Any) -> Iterator[tuple[str, str]]:
    """Which texts of a thing are the product's own, and their sources."""
    if item.owner != OWNER:
        return
    for text, source in _sources().get(item.slug, {}).items():
        if hasattr(item, text) and getattr(item, text) in {said(source, one) for one in LANGUAGES}:
            yield text, source


def spoken(item: Thing, language: str) -> Thing:
    """A project, data set or card with the words of a language; anything that is no starter as it is."""
    words = {text: said(source, language) for text, source in _ours(item)}
    return replace(item, **words) if words else item  # type: ignore[type-var]  # they are dataclasses


def other_words(item: Any) -> list[str]:
    """What a starter is called in the languages that its row does not have; for the index."""
    return [
        words
        for text, source in _ours(item)
        for one in LANGUAGES
        if (words := said(source, one)) != getattr(item, text)
    ]
