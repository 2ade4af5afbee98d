"""The product's words, from one file: what pages tell on hover and the help's page of words says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import yaml
from markupsafe import Markup

FILE = Path(__file__).with_name("glossary.yaml")


@dataclass(frozen=True, kw_only=True)
class Word:
    """A word in one language; ``page`` is where more stands in the help."""

    word: str
    text: str
    page: str


@cache
def words(language: str) -> Mapping[str, Word]:
    """All words by their key, in a language; English for one we do not speak."""
    kept = yaml.safe_load(FILE.read_text(encoding="utf-8"))
    found: dict[str, Word] = {}
    for key, one in kept.items():
        word, text = one.get(language) or one["en"]
        found[key] = Word(word=word, text=text, page=one["page"])
    return found


def term(key: str, shown: str, language: str) -> Markup:
    """A word on a page, with what it means one hover, press or focus away.

    Raises
    ------
    KeyError
        For a word that is not in the file: found by the first look at the page.
    """
    word = words(language)[key]
    return Markup(
        '<span class="term" tabindex="0">{}<span class="term-text" role="tooltip">{}</span></span>'
    ).format(shown, word.text)


def page(language: str) -> str:
    """The page of words as Markdown."""
    title = "产品用语" if language == "zh_CN" else "Words"
    lead = (
        "页面上带虚线的词语，指针停在上面就会显示这里的说明。"
        if language == "zh_CN"
        else "What pages mean by their words. On a page, rest the pointer on a word with dots below it."
    )
    lines = [f"# {title}", "", lead, ""]
    for one in sorted(words(language).values(), key=lambda word: word.word):
        lines += [f"**{one.word}** – {one.text} {{doc}}`→ </{one.page}>`", ""]
    return "\n".join(lines) + "\n"
