"""Markdown as safe HTML: a README, or the text of a notebook.

Raw HTML in it is shown as text. Pictures of the project are put into the document, within a budget;
pictures from elsewhere become links, because loading them would tell their owner who reads. Links lead to
``http(s)`` and ``mailto`` addresses, to places in the document, and to files of the project when the page
says where those are shown.
"""

from __future__ import annotations

import base64
import posixpath
from collections.abc import Callable
from typing import Any
from urllib.parse import quote, unquote

from markdown_it import MarkdownIt
from markdown_it.token import Token

from services.catalog.code import highlight, lexer_for
from services.files.paths import address

PICTURE_BYTES = 2 * 2**20
PICTURES_BYTES = 8 * 2**20
PICTURE_TYPES = {
    ".png": "image/png",
    ".jpg": "image/jpeg",
    ".jpeg": "image/jpeg",
    ".gif": "image/gif",
    ".webp": "image/webp",
    ".avif": "image/avif",
    ".bmp": "image/bmp",
    ".ico": "image/x-icon",
    ".svg": "image/svg+xml",
}

#: The bytes of a file of the project; ``None`` when it is not there or larger than the number given.
Load = Callable[[str, int], bytes | None]


def picture_type(path: str) -> str | None:
    """Media type of a picture by its name."""
    return PICTURE_TYPES.get(posixpath.splitext(path)[1].lower())


def data_address(content: bytes, media_type: str) -> str:
    """A picture as an address that holds it."""
    return f"data:{media_type};base64,{base64.b64encode(content).decode()}"


def leads_elsewhere(target: str) -> bool:
    """Whether an address is one of the few kinds that may be followed out of a document."""
    return target.lower().startswith(("http://", "https://", "mailto:"))


class Prose:
    """Renders the Markdown of one document.

    Parameters
    ----------
    path
        The document's path in the project; pictures and links are relative to its folder.
    load
        Gives the pictures; ``None`` = none are shown.
    link_base
        What a link to a file of the project begins with; the file's address follows, encoded as the value
        of a query. Empty = such links are shown as text.
    """

    def __init__(self, path: str, *, load: Load | None = None, link_base: str = "") -> None:
        self._folder = posixpath.dirname(path)
        self._load = load
        self._link_base = link_base
        self._budget = PICTURES_BYTES
        self._markdown = MarkdownIt("commonmark", {"html": False}).enable(["table", "strikethrough"])
        self._markdown.add_render_rule("fence", _fence)
        self._markdown.add_render_rule("code_block", _fence)
        self._markdown.add_render_rule("table_open", _table_open)
        self._markdown.add_render_rule("table_close", _table_close)

    def render(self, text: str, attachments: dict[str, str] | None = None) -> str:
        """HTML of a text; ``attachments`` are a notebook cell's pictures, already as data addresses."""
        environment: dict[str, Any] = {}
        tokens = self._markdown.parse(text, environment)
        for token in tokens:
            if token.children:
                token.children = self._inline(token.children, attachments or {})
        return self._markdown.renderer.render(tokens, self._markdown.options, environment)

    def _inline(self, tokens: list[Token], attachments: dict[str, str]) -> list[Token]:
        result: list[Token] = []
        kept: list[bool] = []
        for token in tokens:
            if token.type == "link_open":
                target = self._link(str(token.attrGet("href") or ""))
                kept.append(target is not None)
                if target is None:
                    continue
                token.attrSet("href", target)
                if not target.startswith("#"):
                    token.attrSet("target", "_blank")
                    token.attrSet("rel", "noopener noreferrer nofollow")
            elif token.type == "link_close":
                if kept and not kept.pop():
                    continue
            elif token.type == "image":
                result += self._image(token, attachments, inside_link=any(kept))
                continue
            result.append(token)
        return result

    def _link(self, target: str) -> str | None:
        if leads_elsewhere(target) or target.startswith("#"):
            return target
        path = self._below(target)
        if path is None or not self._link_base:
            return None
        return self._link_base + quote(address(path), safe="")

    def _image(self, token: Token, attachments: dict[str, str], *, inside_link: bool) -> list[Token]:
        source = str(token.attrGet("src") or "")
        if source.startswith("attachment:"):
            data = attachments.get(unquote(source.removeprefix("attachment:")))
        elif source.startswith("data:image/"):
            data = source
        else:
            data = self._picture(source)
        if data is not None:
            token.attrSet("src", data)
            return [token]
        label = Token("text", "", 0, content=token.content or source)
        if inside_link or not source.startswith(("http://", "https://")):
            return [label]
        opening = Token("link_open", "a", 1)
        opening.attrs = {"href": source, "target": "_blank", "rel": "noopener noreferrer nofollow"}
        return [opening, label, Token("link_close", "a", -1)]

    def _picture(self, source: str) -> str | None:
        path, kind = self._below(source), picture_type(source.partition("?")[0])
        if path is None or kind is None or self._load is None:
            return None
        content = self._load(path, min(PICTURE_BYTES, self._budget))
        if content is None:
            return None
        self._budget -= len(content)
        return data_address(content, kind)

    def _below(self, target: str) -> str | None:
        """The project's path that a relative address means; ``None`` when it means none."""
        target = target.partition("#")[0].partition("?")[0]
        if not target or target.startswith(("/", "\\")) or ":" in target.partition("/")[0]:
            return None
        path = posixpath.normpath(posixpath.join(self._folder, unquote(target)))
        return None if path.startswith(("..", "/")) or path == "." or "\0" in path else path


def _fence(_renderer: Any, tokens: list[Token], index: int, _options: Any, _environment: Any) -> str:
    token = tokens[index]
    language = token.info.strip().split(" ")[0] if token.info else ""
    return highlight(token.content, lexer_for(language=language) if language else None)


def _table_open(*_: Any) -> str:
    return '<div class="wide" tabindex="0"><table>'


def _table_close(*_: Any) -> str:
    return "</table></div>"
