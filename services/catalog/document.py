"""One HTML document for what somebody else wrote, complete in itself.

It is served with :data:`POLICY` and shown in a sandboxed frame: an opaque origin, no scripts, no network,
images only inside the document. So it can read nothing of the visitor, tell nobody that it was opened, and
move nobody elsewhere; a link opens a new tab, when pressed.
"""

from __future__ import annotations

import html

#: Content-Security-Policy of a preview. Without ``allow-scripts`` a browser ignores refresh headers too.
POLICY = "; ".join(
    (
        "sandbox allow-popups allow-popups-to-escape-sandbox",
        "default-src 'none'",
        "style-src 'unsafe-inline'",
        "img-src data:",
        "form-action 'none'",
        "base-uri 'none'",
        "frame-ancestors 'self'",
    )
)

THEMES = ("light", "dark", "auto")

_DARK = (
    "--bg:#15191f;--inset:#1c2129;--line:#272d37;--text:#e9ecf1;--text2:#b4bcc8;--text3:#929cab;"
    "--link:#a3b3ff;--ok:#5fd09a;--warn:#e8b455;--bad:#ff8f87;--bad-soft:#341816;color-scheme:dark"
)

_STYLE = (
    ":root{--bg:#fff;--inset:#f1f3f6;--line:#e4e7ec;--text:#12161d;--text2:#454e5c;--text3:#5f6878;"
    "--link:#2c43b8;--ok:#146c43;--warn:#835200;--bad:#b3261e;--bad-soft:#fcebea;color-scheme:light}"
    f":root[data-theme=dark]{{{_DARK}}}"
    f"@media(prefers-color-scheme:dark){{:root[data-theme=auto]{{{_DARK}}}}}"
    """
*{box-sizing:border-box}
body{margin:0;background:var(--bg);color:var(--text);
font:15px/24px -apple-system,BlinkMacSystemFont,"Segoe UI",Inter,Roboto,system-ui,"Noto Sans","Helvetica Neue",Arial,"PingFang SC","Microsoft YaHei","Noto Sans CJK SC",sans-serif;
font-variant-numeric:tabular-nums;overflow-wrap:break-word}
main{max-width:860px;margin:0 auto;padding:16px 20px}
h1{font-size:26px;line-height:32px}h2{font-size:20px;line-height:28px}h3,h4,h5,h6{font-size:17px;line-height:24px}
h1,h2,h3,h4,h5,h6{font-weight:640;margin:24px 0 8px}main>:first-child,.text>:first-child{margin-top:0}
p,ul,ol,pre,table,blockquote{margin:0 0 12px}a{color:var(--link)}
img,svg{max-width:100%;height:auto}blockquote{border-left:3px solid var(--line);padding-left:12px;color:var(--text2)}
hr{border:0;border-top:1px solid var(--line)}
code,pre{font:13px/20px ui-monospace,"SF Mono",Menlo,Consolas,"Noto Sans Mono CJK SC",monospace}
code{background:var(--inset);border-radius:6px;padding:1px 4px}
pre{background:var(--inset);border-radius:8px;padding:10px 12px;overflow-x:auto;tab-size:4}pre code{padding:0}
:focus-visible{outline:2px solid var(--link);outline-offset:2px}
.wide{overflow-x:auto;margin-bottom:12px}table{border-collapse:collapse;font-size:13px;line-height:20px}
th,td{border-bottom:1px solid var(--line);padding:4px 10px;text-align:left}th{color:var(--text2);font-weight:600}
main.flush{max-width:none;padding:0}
.tbar{display:flex;flex-wrap:wrap;gap:4px 16px;align-items:center;justify-content:space-between;padding:10px 16px;font-size:13px;line-height:20px;color:var(--text2);border-bottom:1px solid var(--line)}
.astable{margin:0}.astable table{width:100%;margin:0}.astable td,.astable th{padding:6px 16px;border-right:1px solid var(--line);white-space:nowrap;vertical-align:top}
.astable td:last-child,.astable th:last-child{border-right:0}.astable td{overflow:hidden;text-overflow:ellipsis;max-width:280px}
.astable .r{text-align:right;font-variant-numeric:tabular-nums}.astable th{font-weight:400;color:var(--text3);font-size:12px;line-height:18px}
.astable th b{display:block;color:var(--text);font-size:13px}.astable th span{display:block;max-width:220px;overflow:hidden;text-overflow:ellipsis}
.astable th .bars{display:flex;align-items:flex-end;gap:1px;width:96px;height:22px;margin:4px 0 2px}.astable .r .bars{margin-left:auto}.bars i{flex:1;background:var(--link);opacity:.65}
.astable .none{color:var(--text3)}.tview~.note{padding:10px 16px;margin:0}
.note{color:var(--text2);font-size:13px;line-height:20px}.picture{text-align:center}
.cell{margin:0 0 16px}.cell .count{color:var(--text3);font-size:12px;line-height:16px;margin-bottom:2px}
.out pre{background:none;padding:0 12px;white-space:pre-wrap}.out pre.error{background:var(--bad-soft);padding:10px 12px}
.k{color:var(--link);font-weight:600}.s{color:var(--ok)}.m{color:var(--warn)}.c{color:var(--text3)}.b{font-weight:600}
.a1{color:var(--bad)}.a2{color:var(--ok)}.a3{color:var(--warn)}.a4,.a5,.a6{color:var(--link)}
""".strip().replace("\n", "")
)


def document(
    body: str, *, title: str, language: str = "en", theme: str = "light", flush: bool = False
) -> bytes:
    """A complete document around a body that is safe to stand in one.

    Unknown themes become ``light``. ``flush`` is for what has its own margins, such as a table as wide as the frame.
    """
    theme = theme if theme in THEMES else "light"
    return (
        f'<!doctype html><html lang="{html.escape(language.replace("_", "-"))}" data-theme="{theme}">'
        '<head><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>{html.escape(title)}</title><style>{_STYLE}</style></head>"
        f"<body><main{' class=flush' if flush else ''}>{body}</main></body></html>"
    ).encode("utf-8", "replace")


def note(text: str) -> str:
    """A quiet sentence of ours."""
    return f'<p class="note">{html.escape(text)}</p>'


def wide(inner: str) -> str:
    """Something that may be wider than the page."""
    return f'<div class="wide" tabindex="0">{inner}</div>'
