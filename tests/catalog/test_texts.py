"""What the catalogue says to people, in both languages."""

from __future__ import annotations

import ast
import string
from pathlib import Path

import pytest

import services.catalog
from galilean.i18n import translations


def said() -> list[str]:
    """Every sentence that the room marks for translation."""
    found: set[str] = set()
    for file in Path(services.catalog.__path__[0]).glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "mark":
                found.add(ast.literal_eval(node.args[0]))
    return sorted(found)


@pytest.mark.parametrize("sentence", said())
def test_every_sentence_is_written_in_chinese_with_the_same_blanks(sentence: str) -> None:
    chinese = translations("zh_CN").gettext(sentence)
    assert chinese != sentence
    assert blanks(chinese) == blanks(sentence)


def blanks(text: str) -> set[str | None]:
    return {name for _, name, _, _ in string.Formatter().parse(text)} - {None}
