"""A PDF as pages, by PDF.js in a frame of opaque origin (CG-13, SC-2).

A browser's own viewer does not open inside a sandbox, and outside of one a file of somebody else's would be a document
of the portal's origin. So the frame gets a small page of ours with PDF.js, a sandbox with scripts and nothing else: no
origin, no network, no forms, no other windows. The page around it (``services/portal/static/pdf.js``) hands the bytes in,
fetched with the visitor's own rights. Whatever a PDF does to its reader's code, it can read nothing and tell nobody.
Scripts inside a PDF are not run at all, and its links lead nowhere.
"""

from __future__ import annotations

import html
import json
from collections.abc import Callable

from galilean.errors import mark
from services.catalog.document import THEMES
from services.files.paths import shown
from services.files.root import Root

#: What is handed to a frame at most, all of it in the browser's memory.
MOST_BYTES = 100 * 2**20
#: Where its parts are among the assets.
PARTS = "portal/pdf"
_MAGIC_WITHIN = 1024

_WORDS = {
    "where": mark("Page {page} of {pages}"),
    "of": mark("Page {page}"),
    "page": mark("This page cannot be shown."),
    "password": mark("This PDF has a password. Download it to open it."),
    "broken": mark("This PDF cannot be shown. Download it to open it."),
}
_BUTTONS = (
    ("back", "↑", mark("Page before")),
    ("on", "↓", mark("Next page")),
    ("out", "−", mark("Smaller")),
    ("in", "+", mark("Larger")),
    ("fit", "↔", mark("As wide as here")),
)

_STYLE = """
:root{--bg:#e9ecf0;--bar:#fff;--line:#e4e7ec;--text:#12161d;--text2:#454e5c;--accent:#2c43b8;color-scheme:light}
:root[data-theme=dark]{--bg:#0f1216;--bar:#15191f;--line:#272d37;--text:#e9ecf1;--text2:#b4bcc8;--accent:#a3b3ff;color-scheme:dark}
@media(prefers-color-scheme:dark){:root[data-theme=auto]{--bg:#0f1216;--bar:#15191f;--line:#272d37;--text:#e9ecf1;--text2:#b4bcc8;--accent:#a3b3ff;color-scheme:dark}}
*{box-sizing:border-box}html,body{height:100%;margin:0}
body{display:flex;flex-direction:column;background:var(--bg);color:var(--text);font:13px/20px system-ui,"Noto Sans","Noto Sans CJK SC",sans-serif}
.bar{display:flex;gap:4px;align-items:center;padding:4px 8px;background:var(--bar);border-bottom:1px solid var(--line)}.bar[hidden]{display:none}
.bar span{color:var(--text2);padding:0 8px;margin-right:auto;font-variant-numeric:tabular-nums}
.bar button{width:28px;height:28px;border:1px solid transparent;border-radius:8px;background:none;color:var(--text);font:16px/1 inherit;cursor:pointer}
.bar button:hover{border-color:var(--line)}.bar button:disabled{opacity:.4;cursor:default}:focus-visible{outline:2px solid var(--accent);outline-offset:1px}
.pages{flex:1;min-height:0;overflow:auto;padding:12px;position:relative}
.page{position:relative;margin:0 auto 12px;background:#fff;color:#12161d;box-shadow:0 1px 3px rgb(0 0 0/.25);overflow:hidden}
.page canvas{display:block;width:100%;height:100%}
.text-layer{position:absolute;inset:0;overflow:clip;line-height:1;text-align:initial;transform-origin:0 0;forced-color-adjust:none;--min-font-size:1;--text-scale-factor:calc(var(--total-scale-factor)*var(--min-font-size));--min-font-size-inv:calc(1/var(--min-font-size))}
.text-layer :is(span,br){color:transparent;position:absolute;white-space:pre;cursor:text;transform-origin:0 0}
.text-layer>:not(.markedContent),.text-layer .markedContent span:not(.markedContent){--font-height:0;font-size:calc(var(--text-scale-factor)*var(--font-height));--scale-x:1;--rotate:0deg;transform:rotate(var(--rotate)) scaleX(var(--scale-x)) scale(var(--min-font-size-inv))}
.text-layer .markedContent{display:contents}.text-layer ::selection{background:rgb(44 67 184/.3)}
.said{padding:16px 20px;margin:0;color:var(--text2)}
""".strip().replace("\n", "")


def policy(nonce: str) -> str:
    """The Content-Security-Policy of the frame."""
    return "; ".join(
        (
            "sandbox allow-scripts",
            "default-src 'none'",
            # Decoders of pictures are WebAssembly of ours.
            f"script-src 'nonce-{nonce}' 'wasm-unsafe-eval'",
            "worker-src blob:",
            "style-src 'unsafe-inline'",
            "img-src data: blob:",
            "font-src data: blob:",
            "form-action 'none'",
            "base-uri 'none'",
            "frame-ancestors 'self'",
        )
    )


def is_pdf(files: Root, path: str) -> bool:
    """Whether a file is called a PDF, is one by its beginning, and is not too large to be handed over. Blocks.

    Raises
    ------
    UserError
        404, 400, 403 as for any file.
    """
    if not path.lower().endswith(".pdf"):
        return False
    with files.open(path) as file:
        return file.entry.size_bytes <= MOST_BYTES and b"%PDF-" in file.read(_MAGIC_WITHIN)


def page(
    path: str, *, script: str, nonce: str, language: str, theme: str, translate: Callable[[str], str]
) -> bytes:
    """The document of the frame; ``script`` is the address of the viewer."""
    theme = theme if theme in THEMES else "light"
    words = json.dumps({key: translate(text) for key, text in _WORDS.items()}).replace("<", "\\u003c")
    buttons = "".join(
        f'<button type="button" data-{key} aria-label="{html.escape(translate(text))}" '
        f'title="{html.escape(translate(text))}">{sign}</button>'
        for key, sign, text in _BUTTONS
    )
    return (
        f'<!doctype html><html lang="{html.escape(language.replace("_", "-"))}" data-theme="{theme}"><head>'
        '<meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>{html.escape(shown(path))}</title><style>{_STYLE}</style>"
        f'<script type="application/json" data-words nonce="{nonce}">{words}</script></head><body>'
        f'<div class="bar" role="toolbar" data-tools hidden><span data-where aria-live="polite"></span>{buttons}</div>'
        f'<p class="said" role="status" data-said>{html.escape(translate(mark("Opening …")))}</p>'
        '<div class="pages" tabindex="0" data-pages></div>'
        f'<script src="{html.escape(script)}" nonce="{nonce}"></script></body></html>'
    ).encode("utf-8", "replace")
