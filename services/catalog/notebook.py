"""A notebook as HTML, with the outputs that were saved in it.

Our own small renderer instead of nbconvert: that needs 2.5 s and 280 kB of style sheet for a page, loads
scripts from elsewhere, and knows nothing of our themes and languages; this needs a tenth of a second.
HTML outputs are cleaned by bleach so that a tag left open cannot swallow what follows; that they can do no
harm is the work of the frame (:mod:`services.catalog.document`). Interactive outputs need scripts: their
picture is shown, or a sentence.
"""

from __future__ import annotations

import html
import json
import re
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

from bleach.css_sanitizer import CSSSanitizer
from bleach.sanitizer import Cleaner

from galilean.errors import UserError, mark
from services.catalog.code import highlight, lexer_for, terminal
from services.catalog.document import note, wide
from services.catalog.prose import Prose, data_address, leads_elsewhere

OUTPUT_CHARACTERS = 20_000
HTML_CHARACTERS = 400_000
DOCUMENT_CHARACTERS = 12 * 2**20
INTERACTIVE = mark("This output is interactive: run the project to see it.")
CUT = mark("The rest is not shown here: run the project to see it.")
LONG = mark("The output is long; only its beginning is shown.")

_PICTURES = ("image/png", "image/jpeg", "image/gif", "image/webp")
_BASE64 = re.compile(r"[A-Za-z0-9+/=\s]*", re.ASCII)
_DROPPED = re.compile(r"<(style|script|title|iframe|noscript|template)\b.*?(?:</\1\s*>|\Z)", re.I | re.S)
_TAGS = frozenset(
    [
        "a",
        "abbr",
        "b",
        "blockquote",
        "br",
        "caption",
        "code",
        "col",
        "colgroup",
        "dd",
        "del",
        "details",
        "div",
        "dl",
        "dt",
        "em",
        "figcaption",
        "figure",
        "h1",
        "h2",
        "h3",
        "h4",
        "h5",
        "h6",
        "hr",
        "i",
        "img",
        "ins",
        "kbd",
        "li",
        "mark",
        "ol",
        "p",
        "pre",
        "q",
        "s",
        "samp",
        "small",
        "span",
        "strong",
        "sub",
        "summary",
        "sup",
        "table",
        "tbody",
        "td",
        "tfoot",
        "th",
        "thead",
        "tr",
        "u",
        "ul",
        "var",
        "progress",
    ]
)


def _anchor(_tag: str, name: str, value: str) -> bool:
    return name == "href" and (leads_elsewhere(value) or value.startswith("#"))


def _image(_tag: str, name: str, value: str) -> bool:
    return name in ("alt", "width", "height") or (name == "src" and value.startswith("data:image/"))


_ATTRIBUTES: dict[str, Any] = {
    "*": ["style", "title", "dir", "lang", "align"],
    "a": _anchor,
    "img": _image,
    "td": ["colspan", "rowspan"],
    "th": ["colspan", "rowspan", "scope"],
    "col": ["span"],
    "progress": ["value", "max"],
    "details": ["open"],
}


def render_notebook(source: str, prose: Prose, translate: Callable[[str], str]) -> tuple[str, bool]:
    """HTML of a notebook's cells, and whether something was left out.

    Raises
    ------
    UserError
        400 when it is no notebook, or of a format before 4 (2014).
    """
    cells, language = _cells(source)
    lexer = lexer_for(language=language)
    pieces: list[str] = []
    size = 0
    for cell in cells:
        if size > DOCUMENT_CHARACTERS:
            pieces.append(note(translate(CUT)))
            return "".join(pieces), True
        text = _text(cell.get("source"))
        kind = cell.get("cell_type")
        if kind == "markdown":
            piece = f'<div class="cell text">{prose.render(text, _attachments(cell))}</div>'
        elif kind == "code":
            count = cell.get("execution_count")
            label = f'<div class="count">[{count}]</div>' if isinstance(count, int) else ""
            outputs = "".join(_output(output, prose, translate) for output in _dicts(cell.get("outputs")))
            code = highlight(text, lexer) if text else ""
            piece = f'<div class="cell">{label}{code}<div class="out">{outputs}</div></div>'
        else:
            piece = f'<div class="cell"><pre tabindex="0">{html.escape(text)}</pre></div>'
        size += len(piece)
        pieces.append(piece)
    return "".join(pieces), False


def _cells(source: str) -> tuple[list[dict[str, Any]], str]:
    try:
        notebook = json.loads(source)
    except (ValueError, RecursionError):
        notebook = None
    if not isinstance(notebook, dict) or not isinstance(notebook.get("nbformat"), int):
        raise UserError(400, mark("This is not a notebook, or it is damaged. Download it to look at it."))
    if notebook["nbformat"] < 4 or not isinstance(notebook.get("cells"), list):
        raise UserError(
            400, mark("This notebook has an old format. Open it in JupyterLab and save it to see it here.")
        )
    metadata = _dict(notebook.get("metadata"))
    info, kernel = _dict(metadata.get("language_info")), _dict(metadata.get("kernelspec"))
    language = info.get("name") or kernel.get("language")
    return _dicts(notebook["cells"]), language if isinstance(language, str) else "python"


def _output(output: dict[str, Any], prose: Prose, translate: Callable[[str], str]) -> str:
    kind = output.get("output_type")
    if kind == "stream":
        return _plain(_text(output.get("text")), translate)
    if kind == "error":
        traceback = "\n".join(line for line in _list(output.get("traceback")) if isinstance(line, str))
        return _plain(traceback or f"{output.get('ename')}: {output.get('evalue')}", translate, "error")
    if kind not in ("display_data", "execute_result"):
        return ""
    return _display(_dict(output.get("data")), prose, translate)


def _display(data: dict[str, Any], prose: Prose, translate: Callable[[str], str]) -> str:
    """The richest form of an output that can be shown without scripts."""
    rich = _text(data.get("text/html"))
    interactive = "<script" in rich.lower() or any(
        name.endswith(("+json", "javascript")) for name in data if isinstance(name, str)
    )
    if rich and not interactive and len(rich) <= HTML_CHARACTERS:
        return wide(clean_html(rich))
    picture = _picture(data)
    if picture:
        return picture
    if interactive:
        return note(translate(INTERACTIVE))
    markdown = _text(data.get("text/markdown"))
    if markdown:
        return prose.render(markdown)
    return _plain(_text(data.get("text/plain")) or _text(data.get("text/latex")), translate)


def _picture(data: dict[str, Any]) -> str:
    for kind in _PICTURES:
        content = _text(data.get(kind))
        if content and _BASE64.fullmatch(content):
            return f'<img alt="" src="data:{kind};base64,{"".join(content.split())}">'
    drawing = _text(data.get("image/svg+xml"))
    if drawing:
        return f'<img alt="" src="{data_address(drawing.encode("utf-8", "replace"), "image/svg+xml")}">'
    return ""


def _plain(text: str, translate: Callable[[str], str], kind: str = "") -> str:
    if not text:
        return ""
    tail = note(translate(LONG)) if len(text) > OUTPUT_CHARACTERS else ""
    name = f' class="{kind}"' if kind else ""
    return f'<pre tabindex="0"{name}>{terminal(text[:OUTPUT_CHARACTERS])}</pre>{tail}'


def clean_html(source: str) -> str:
    """HTML of an output with balanced tags, without scripts, style sheets, forms and frames."""
    return _cleaner().clean(_DROPPED.sub("", source))


@cache
def _cleaner() -> Cleaner:
    filters: list[Any] = [_InNewTab]
    return Cleaner(
        tags=_TAGS,
        attributes=_ATTRIBUTES,
        protocols=["http", "https", "mailto", "data"],
        css_sanitizer=CSSSanitizer(),
        strip=True,
        strip_comments=True,
        filters=filters,
    )


class _InNewTab:
    """A filter of html5lib: links open a tab of their own, as those of Markdown do."""

    def __init__(self, source: Any) -> None:
        self._source = source

    def __iter__(self) -> Iterator[Any]:
        for token in self._source:
            if token["type"] == "StartTag" and token["name"] == "a":
                token["data"][(None, "target")] = "_blank"
                token["data"][(None, "rel")] = "noopener noreferrer nofollow"
            yield token


def _attachments(cell: dict[str, Any]) -> dict[str, str]:
    found: dict[str, str] = {}
    for name, bundle in _dict(cell.get("attachments")).items():
        for kind in _PICTURES:
            content = _text(_dict(bundle).get(kind))
            if content and _BASE64.fullmatch(content):
                found[name] = f"data:{kind};base64,{''.join(content.split())}"
                break
    return found


def _text(value: Any) -> str:
    """A text that a notebook may keep as a list of lines."""
    if isinstance(value, list):
        return "".join(part for part in value if isinstance(part, str))
    return value if isinstance(value, str) else ""


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _dicts(value: Any) -> list[dict[str, Any]]:
    return [item for item in _list(value) if isinstance(item, dict)]
