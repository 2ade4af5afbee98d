"""Program text and terminal output as HTML: coloured where that is cheap, escaped always."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable

from pygments.lexer import Lexer
from pygments.lexers import get_lexer_by_name, get_lexer_for_filename
from pygments.token import Token, _TokenType
from pygments.util import ClassNotFound

HIGHLIGHT_CHARACTERS = 200_000
_CLASSES: tuple[tuple[_TokenType, str], ...] = (
    (Token.Comment, "c"),
    (Token.Keyword, "k"),
    (Token.Operator.Word, "k"),
    (Token.Literal.String, "s"),
    (Token.Literal.Number, "m"),
    (Token.Name.Function, "b"),
    (Token.Name.Class, "b"),
    (Token.Name.Tag, "k"),
    (Token.Generic.Heading, "b"),
)
_ESCAPE = re.compile(r"\x1b\[([0-9;]*)m")
_OTHER_ESCAPES = re.compile(r"\x1b(?:\[[0-9;?]*[ -/]*[@-ln-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-Z\\-_])")


def lexer_for(*, name: str = "", language: str = "") -> Lexer | None:
    """What colours a file of this name, or a block of this language; ``None`` = nothing does."""
    try:
        if language:
            return get_lexer_by_name(language, stripnl=False)
        return get_lexer_for_filename(name, stripnl=False)
    except ClassNotFound:
        return None


def highlight(source: str, lexer: Lexer | None) -> str:
    """A box of program text. What is very long stays plain."""
    if lexer is None or len(source) > HIGHLIGHT_CHARACTERS:
        return f'<pre tabindex="0">{html.escape(source)}</pre>'
    return f'<pre tabindex="0">{"".join(_spans(lexer.get_tokens(source)))}</pre>'


def _spans(tokens: Iterable[tuple[_TokenType, str]]) -> Iterable[str]:
    for kind, text in tokens:
        name = next((name for token, name in _CLASSES if kind in token), None)
        escaped = html.escape(text)
        yield f'<span class="{name}">{escaped}</span>' if name else escaped


def terminal(text: str) -> str:
    """Terminal output as HTML: colours kept, other escapes dropped, a progress bar shows its last state."""
    lines = (line.rstrip("\r").rpartition("\r")[2] for line in text.split("\n"))
    text = _OTHER_ESCAPES.sub("", "\n".join(lines))
    pieces: list[str] = []
    opened = False
    position = 0
    for found in _ESCAPE.finditer(text):
        pieces.append(html.escape(text[position : found.start()]))
        position = found.end()
        if opened:
            pieces.append("</span>")
        name = _colour(found[1])
        opened = bool(name)
        if name:
            pieces.append(f'<span class="{name}">')
    pieces.append(html.escape(text[position:]))
    if opened:
        pieces.append("</span>")
    return "".join(pieces)


def _colour(codes: str) -> str:
    """The class of an escape's last colour; empty for none."""
    name = ""
    for code in codes.split(";"):
        if code in ("", "0", "39"):
            name = ""
        elif code == "1":
            name = name or "b"
        elif len(code) == 2 and code[0] in "39" and code[1] in "123456":
            name = f"a{code[1]}"
    return name
