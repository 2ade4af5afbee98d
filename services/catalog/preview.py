"""What a file of a project looks like, as one safe document (CG-9).

README and Markdown, notebooks, program text, tables and pictures are rendered; of anything else its size is
told. Serve :attr:`Preview.body` with :data:`services.catalog.document.POLICY` and nothing else of ours in
it. Rendering foreign text can take long, so pages ask :class:`services.catalog.previewer.Previewer`, which
does this in a process of its own with limits.
"""

from __future__ import annotations

import codecs
import html
from collections.abc import Callable
from dataclasses import dataclass

from galilean.amounts import format_bytes
from galilean.errors import UserError, mark
from galilean.i18n import translations
from services.catalog.document import POLICY, document, note
from services.catalog.prose import Load, Prose, data_address, picture_type
from services.catalog.table_body import TABLE_BEGINS, table_body
from services.files.paths import shown
from services.files.root import Entry, Root

TEXT_BYTES = 512 * 1024
NOTEBOOK_BYTES = 20 * 2**20
PICTURE_SHOWN_BYTES = 5 * 2**20
TABLE_BYTES = 8 * 2**20
TABLES = (".csv", ".tsv")
MARKDOWN = (".md", ".markdown")
FIRST = ("readme.md", "readme.markdown", "readme.txt", "readme")

Translate = Callable[[str], str]


@dataclass(frozen=True, kw_only=True)
class Preview:
    """A rendered file.

    Attributes
    ----------
    body
        A complete HTML document, UTF-8.
    policy
        The Content-Security-Policy that it must be served with.
    truncated
        Whether something of the file was left out.
    """

    body: bytes
    truncated: bool = False
    content_type: str = "text/html; charset=utf-8"
    policy: str = POLICY


def first_to_show(entries: list[Entry]) -> Entry | None:
    """What a project shows before anything is picked: the README, else the first notebook."""
    files = {entry.path.rpartition("/")[2].lower(): entry for entry in entries if entry.kind == "file"}
    for name in FIRST:
        if name in files:
            return files[name]
    return next((entry for name, entry in files.items() if name.endswith(".ipynb")), None)


def preview(
    files: Root,
    path: str,
    *,
    language: str = "en",
    theme: str = "light",
    link_base: str = "",
    as_text: bool = False,
) -> Preview:
    """Render a file, in this thread and without a limit of time.

    ``link_base`` is what links to other files of the project begin with (see :class:`Prose`); ``as_text`` shows a
    table as it is written.

    Raises
    ------
    UserError
        404 when it is not there, 400 for what is no regular file, 403 without the right to read it. What
        cannot be rendered gives a document that says so.
    """
    translate = translations(language).gettext
    with files.open(path) as file:
        size = file.entry.size_bytes
        try:
            body, truncated = _render(files, path, size, file.read, translate, link_base, as_text)
        except UserError as error:
            body, truncated = note(error.text(translate)), True
    return Preview(
        body=document(
            body, title=shown(path), language=language, theme=theme, flush=body.startswith(TABLE_BEGINS)
        ),
        truncated=truncated,
    )


def sentence(error: UserError, path: str, *, language: str, theme: str) -> Preview:
    """A document that says why a file is not shown."""
    translate = translations(language).gettext
    return Preview(
        body=document(note(error.text(translate)), title=shown(path), language=language, theme=theme),
        truncated=True,
    )


def _render(
    files: Root,
    path: str,
    size_bytes: int,
    read: Callable[[int], bytes],
    translate: Translate,
    link_base: str,
    as_text: bool,
) -> tuple[str, bool]:
    name = path.rpartition("/")[2].lower()
    kind = picture_type(name)
    prose = Prose(path, load=_loader(files), link_base=link_base)
    if kind is not None:
        if size_bytes > PICTURE_SHOWN_BYTES:
            raise _too_large(size_bytes, PICTURE_SHOWN_BYTES)
        data = data_address(read(PICTURE_SHOWN_BYTES), kind)
        return f'<div class="picture"><img alt="{html.escape(shown(path))}" src="{data}"></div>', False
    if name.endswith(".ipynb"):
        from services.catalog.notebook import render_notebook

        if size_bytes > NOTEBOOK_BYTES:
            raise _too_large(size_bytes, NOTEBOOK_BYTES)
        return render_notebook(decode(read(NOTEBOOK_BYTES)), prose, translate)
    raw = read(TEXT_BYTES)
    if b"\0" in raw[:8192] and raw[:2] not in (b"\xff\xfe", b"\xfe\xff"):
        raise UserError(
            400,
            mark("This file is not text, and {size} large. Download it to open it."),
            size=format_bytes(size_bytes),
        )
    if not raw:
        return note(translate(mark("The file is empty."))), False
    if name.endswith(TABLES) and not as_text:
        raw += read(TABLE_BYTES - len(raw))
        text = decode(raw, cut=size_bytes > len(raw))
        body = table_body(text, len(raw), size_bytes, translate, tabs=name.endswith(".tsv"))
        if body is not None:
            return body, size_bytes > len(raw)
        raw = raw[:TEXT_BYTES]
    truncated = size_bytes > len(raw)
    text = decode(raw, cut=truncated)
    if name.endswith(MARKDOWN):
        body = prose.render(text)
    else:
        from services.catalog.code import highlight, lexer_for

        body = highlight(text, lexer_for(name=name))
    if truncated:
        body += note(
            translate(mark("The file has {size}; only its beginning is shown.")).format(
                size=format_bytes(size_bytes)
            )
        )
    return body, truncated


def _too_large(size_bytes: int, most_bytes: int) -> UserError:
    return UserError(
        413,
        mark("The file has {size}; up to {most} are shown here. Download it to open it."),
        size=format_bytes(size_bytes),
        most=format_bytes(most_bytes),
    )


def _loader(files: Root) -> Load:
    def load(path: str, most_bytes: int) -> bytes | None:
        try:
            with files.open(path) as file:
                return file.read() if file.entry.size_bytes <= most_bytes else None
        except UserError:
            return None

    return load


def decode(raw: bytes, *, cut: bool = False) -> str:
    """Text of a file: UTF-8, else UTF-16 with its mark, else the Chinese encodings, else Latin-1.

    With ``cut``, a character that is not whole at the end is dropped.
    """
    if raw[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return raw.decode("utf-16", "replace")
    for encoding in ("utf-8-sig", "gb18030"):
        try:
            return codecs.getincrementaldecoder(encoding)().decode(raw, final=not cut)
        except UnicodeDecodeError:
            continue
    return raw.decode("latin-1")
