"""English and Chinese (SC-20): catalogues are read from their ``.po`` sources, no build step.

Each room keeps a file of its own under ``locale/<language>/``; all of a language are merged when it is
first used. English is the message id itself.
"""

from __future__ import annotations

import gettext
import io
from functools import cache
from pathlib import Path

from babel.messages.catalog import Catalog
from babel.messages.mofile import write_mo
from babel.messages.pofile import read_po

LANGUAGES = {"en": "English", "zh_CN": "中文"}
LOCALE = Path(__file__).parent / "locale"


@cache
def translations(language: str) -> gettext.NullTranslations:
    """The translations of a language; English (or an unknown one) answers the message id."""
    files = sorted((LOCALE / language).glob("*.po")) if language in LANGUAGES else []
    if not files:
        return gettext.NullTranslations()
    merged = Catalog(locale=language)
    for file in files:
        with file.open("rb") as stream:
            for message in read_po(stream, locale=language):
                if message.id and message.string and not message.fuzzy:
                    merged[message.id] = message
    buffer = io.BytesIO()
    write_mo(buffer, merged)
    buffer.seek(0)
    return gettext.GNUTranslations(buffer)


def choose_language(chosen: str | None, accept_language: str, default: str = "en") -> str:
    """The language to speak: what the person chose, else what the browser asks for, else the site's.

    Parameters
    ----------
    chosen
        Value of the ``galilean_language`` cookie; anything unknown is ignored.
    accept_language
        The request header.
    default
        The site's language.
    """
    if chosen in LANGUAGES:
        return chosen
    wishes: list[tuple[float, int, str]] = []
    for position, part in enumerate(accept_language.split(",")[:20]):
        tag, _, quality = part.strip().partition(";q=")
        try:
            weight = float(quality) if quality else 1.0
        except ValueError:
            continue
        if weight > 0:
            wishes.append((-weight, position, tag.lower()))
    for _, _, tag in sorted(wishes):
        if tag.startswith("zh"):
            return "zh_CN"
        if tag.startswith("en"):
            return "en"
    return default
