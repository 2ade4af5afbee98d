"""Every text for people has its Chinese (SC-20): said in code or template, translated in a room's ``.po``.

Fails on a text without translation, a fuzzy or an empty one, on placeholders that differ between the two.
``--unused`` adds translations of what nobody says any more.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterator
from pathlib import Path

from babel.messages.extract import extract_from_dir
from babel.messages.pofile import read_po

ROOT = Path(__file__).resolve().parent.parent
ROOMS = ("galilean", "spawner", "extensions", "services", "hub_config")
KEYWORDS = dict.fromkeys(("_", "gettext", "mark", "translate", "self.translate", "N_")) | {"ngettext": (1, 2)}
METHODS = [("**/templates/**.html", "jinja2.ext:babel_extract"), ("**.py", "python")]
IGNORED = ("static/vendor", "node_modules", "__pycache__", "migrations/versions")
PLACEHOLDER = re.compile(r"(?<!\{)\{[a-z_]*(?:[:!][^{}]*)?\}(?!\})|%\([a-z_]+\)[sd]")


def said(room: Path) -> Iterator[tuple[str, str]]:
    """(message id, ``file:line``) of every text in a room."""
    found = extract_from_dir(
        str(room),
        METHODS,
        {},
        keywords=KEYWORDS,
        directory_filter=lambda path: not any(i in path for i in IGNORED),
    )
    for filename, line, message, _comments, _context in found:
        if message:
            singular = message[0] if isinstance(message, tuple) else message
            yield singular, f"{(room / filename).relative_to(ROOT)}:{line}"


def said_in_scripts(folder: Path) -> Iterator[tuple[str, str]]:
    """Texts that JavaScript asks for by ``_("…")``."""
    call = re.compile(r"""(?<![\w.])_\(\s*(["'])((?:\\.|(?!\1).)*)\1""")
    for path in folder.rglob("*.js"):
        if any(part in str(path) for part in IGNORED):
            continue
        for number, text in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            for match in call.finditer(text):
                yield (
                    match[2].encode().decode("unicode_escape") if "\\" in match[2] else match[2],
                    (f"{path.relative_to(ROOT)}:{number}"),
                )


def translated(language: str) -> tuple[dict[str, list[str]], list[str]]:
    """Message id → translations of a language, and what is wrong inside the files themselves."""
    texts: dict[str, list[str]] = {}
    problems: list[str] = []
    for path in sorted((ROOT / "galilean" / "locale" / language).glob("*.po")):
        with path.open("rb") as stream:
            catalog = read_po(stream, locale=language, abort_invalid=True)
        for message in catalog:
            if not message.id:
                continue
            where = f"{path.relative_to(ROOT)}:{message.lineno}"
            singular = message.id[0] if isinstance(message.id, tuple) else message.id
            strings = list(message.string) if isinstance(message.string, tuple | list) else [message.string]
            if message.fuzzy:
                problems.append(f"{where}: fuzzy: {singular!r}")
            if not all(strings):
                problems.append(f"{where}: not translated: {singular!r}")
                continue
            texts[singular] = strings
            ids = list(message.id) if isinstance(message.id, tuple) else [message.id]
            wanted = set().union(*(PLACEHOLDER.findall(text) for text in ids))
            for text in strings:
                if not set(PLACEHOLDER.findall(text)) <= wanted or (
                    len(ids) == 1 and set(PLACEHOLDER.findall(text)) != wanted
                ):
                    problems.append(f"{where}: placeholders differ: {singular!r} and {text!r}")
    return texts, problems


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--language", default="zh_CN")
    parser.add_argument("--unused", action="store_true", help="list translations that no text asks for")
    arguments = parser.parse_args()
    places: dict[str, str] = {}
    for room in ROOMS:
        for message, place in [*said(ROOT / room), *said_in_scripts(ROOT / room)]:
            places.setdefault(message, place)
    texts, problems = translated(arguments.language)
    problems += [
        f"{place}: no translation: {message!r}" for message, place in places.items() if message not in texts
    ]
    if arguments.unused:
        problems += [f"translated, but said nowhere: {text!r}" for text in texts if text not in places]
    for problem in sorted(problems):
        print(problem)
    print(f"{len(places)} texts, {len(texts)} translations, {len(problems)} problems")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
