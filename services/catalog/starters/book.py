"""Notebooks and other texts of the starter projects, written once for all languages.

A source is a text of cells. ``%% en`` and ``%% zh_CN`` begin a Markdown cell of one language, ``%% code`` a code
cell of all; within code and files ``«English|中文»`` gives each language its words.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from services.catalog.starter import notebook_of

_WORDS = re.compile(r"«([^«»|]*)\|([^«»|]*)»")
_CELL = re.compile(r"^%% (en|zh_CN|code)\n", re.MULTILINE)


def in_language(text: str, language: str) -> str:
    """A text with the words of a language; English for one we do not speak."""
    return _WORDS.sub(lambda found: found[2 if language == "zh_CN" else 1], text)


def cells_of(source: str, language: str) -> Iterator[tuple[str, str]]:
    """The cells of a language: ``markdown`` or ``code``, and what stands in them."""
    spoken = language if language == "zh_CN" else "en"
    _, *parts = _CELL.split(source)
    for kind, text in zip(parts[::2], parts[1::2], strict=True):
        if kind == "code":
            yield "code", in_language(text.strip(), language)
        elif kind == spoken:
            yield "markdown", text.strip()


def notebook(source: str, language: str, name: str) -> bytes:
    """The file of a notebook in a language; ``name`` makes its cells' ids."""
    made: dict[str, Any] = notebook_of(list(cells_of(source, language)), name)
    return json.dumps(made, ensure_ascii=False, indent=1).encode() + b"\n"
