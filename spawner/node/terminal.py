"""The terminal door of a node (SC-1): a page with one terminal, without JupyterLab.

The session is one of the node's own terminals, with a fixed name: it lives in the node, so a reload, a lost
connection or another browser comes back to it, and JupyterLab lists it too. Asking for the page makes it where
it is not there. The page is served by the node itself, behind its sign-in, so no token crosses origins.

Where the page's parts were not built, the door leads to JupyterLab with one terminal open: JupyterLab restores
a *workspace* from a file, and starts the terminals that it names.
"""

from __future__ import annotations

import html
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jupyter_server.base.handlers import JupyterHandler
from jupyter_server.utils import ensure_async
from tornado import web

from spawner.node.place import LANGUAGE, Place, node_name, node_prefix
from spawner.node.standing import language_of

WORKSPACE = "terminal"
#: Name of the session; one per node.
SESSION = "galilean"
STATIC = Path(__file__).parent / "static"
BUILT = ("vendor/xterm.js", "vendor/xterm.css", "vendor/addon-fit.js", "terminal.js", "terminal.css")
#: More nodes than this are not listed one by one.
LISTED_MOST = 256

_WORDS = {
    "en": {
        "terminal": "Terminal", "node": "Node", "copy": "Copy", "paste": "Paste", "theme": "Light or dark",
        "lost": "The connection is lost. The session goes on; trying again …", "now": "Try now",
        "ended": "The shell has ended.", "anew": "New shell",
        "sign_in": "You are signed out. The session goes on.", "sign_in_button": "Sign in",
        "close": "Got it",
    },
    "zh_CN": {
        "terminal": "终端", "node": "节点", "copy": "复制", "paste": "粘贴", "theme": "浅色或深色",
        "lost": "连接已断开，会话仍在运行，正在重新连接……", "now": "立即重试",
        "ended": "Shell 已结束。", "anew": "新建 Shell",
        "sign_in": "您已退出登录，会话仍在运行。", "sign_in_button": "登录",
        "close": "知道了",
    },
}  # fmt: skip
_PASTE_REFUSED = {
    "en": "The browser does not let this page read the clipboard. Press Ctrl+V (⌘V) in the terminal instead.",
    "zh_CN": "浏览器不允许本页读取剪贴板，请在终端中按 Ctrl+V（⌘V）粘贴。",
}


def built(folder: Path = STATIC) -> bool:
    """Whether all parts of the page are there."""
    return all((folder / name).is_file() for name in BUILT)


def page(place: Place, language: str) -> str:
    """The page of the terminal of a node, whole."""
    words = _WORDS.get(language, _WORDS["en"])
    base = place.node_prefix
    static = f"{base}galilean/static/"
    told = {
        "socket": f"{base}terminals/websocket/{SESSION}",
        "presence": f"{base}galilean/presence",
        "words": {**words, "paste": _PASTE_REFUSED.get(language, _PASTE_REFUSED["en"])},
    }
    # As data in a script element: nothing in it may end the element.
    data = json.dumps(told, ensure_ascii=False).replace("<", "\\u003c")
    title = f"{place.name} · {place.server}"
    nodes = ""
    if place.nodes > 1:
        ranks = [*range(min(place.nodes, LISTED_MOST))]
        options = "".join(
            f'<option value="{html.escape(node_prefix(place.prefix, rank))}galilean/terminal"'
            f"{' selected' if rank == place.rank else ''}>{node_name(rank)}</option>"
            for rank in [*ranks, *([place.rank] if place.rank >= LISTED_MOST else [])]
        )
        nodes = f'<label class="visually-hidden" for="node">{words["node"]}</label><select id="node">{options}</select>'
    return (
        f'<!doctype html><html lang="{language.replace("_", "-")}"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{html.escape(title)} · {words['terminal']}</title>"
        f'<link rel="stylesheet" href="{static}vendor/xterm.css"><link rel="stylesheet" href="{static}terminal.css">'
        f"</head><body><header><h1>{html.escape(place.server)}{'' if nodes else ' · ' + place.name}</h1>{nodes}"
        f'<span class="grow"></span><button id="copy" type="button">{words["copy"]}</button>'
        f'<button id="paste" type="button">{words["paste"]}</button>'
        f'<button id="theme" type="button" aria-label="{words["theme"]}" title="{words["theme"]}">◐</button></header>'
        '<div id="told" role="status" hidden><span></span><button type="button" hidden></button></div>'
        f'<main id="screen" aria-label="{words["terminal"]}"></main>'
        f'<script type="application/json" id="words">{data}</script>'
        f'<script src="{static}vendor/xterm.js"></script><script src="{static}vendor/addon-fit.js"></script>'
        f'<script type="module" src="{static}terminal.js"></script></body></html>'
    )


def workspace() -> dict[str, Any]:
    """The layout of JupyterLab with one terminal, as JupyterLab keeps it."""
    empty = {"collapsed": True, "visible": True, "widgets": []}
    return {
        "data": {
            "layout-restorer:data": {
                "main": {
                    "dock": {"type": "tab-area", "currentIndex": 0, "widgets": ["terminal:1"]},
                    "current": "terminal:1",
                },
                "down": {"size": 0, "widgets": []},
                "left": empty,
                "right": empty,
                "relativeSizes": [0, 1, 0],
                "top": {"simpleVisibility": True},
            },
            "terminal:1": {"data": {"name": "1"}},
        },
        "metadata": {"id": WORKSPACE},
    }


def opened_by_a_person(headers: Mapping[str, str]) -> bool:
    """Whether a browser goes to the page, or the page itself asks; not a picture's address on another page."""
    mode = headers.get("Sec-Fetch-Mode", "navigate")
    own = headers.get("Sec-Fetch-Site") == "same-origin" and headers.get("Sec-Fetch-Dest") == "empty"
    return mode == "navigate" or own


class TerminalHandler(JupyterHandler):
    """``galilean/terminal``: the page, with its session there."""

    auth_resource = "terminals"

    def initialize(self, place: Place) -> None:
        self.place = place

    @web.authenticated
    async def get(self) -> None:
        if not opened_by_a_person(self.request.headers):
            raise web.HTTPError(403, "A terminal is opened as a page.")
        manager = self.settings.get("terminal_manager")
        allowed = self.authorizer is None or await ensure_async(
            self.authorizer.is_authorized(self, self.current_user, "execute", self.auth_resource)
        )
        if manager is None or not allowed:
            raise web.HTTPError(403, "There are no terminals on this node.")
        if not built():
            self._by_jupyterlab()
            return
        if SESSION not in manager.terminals:
            manager.create(name=SESSION)
        morsel = self.request.cookies.get("galilean_language")
        language = language_of(
            morsel.value if morsel else "",
            self.request.headers.get("Accept-Language", ""),
            os.environ.get(LANGUAGE, ""),
        )
        self.set_header("Content-Type", "text/html; charset=utf-8")
        self.set_header("Cache-Control", "no-store")
        self.finish(page(self.place, language))

    def _by_jupyterlab(self) -> None:
        from jupyterlab.commands import get_workspaces_dir
        from jupyterlab_server.workspaces_handler import WorkspacesManager

        WorkspacesManager(get_workspaces_dir()).save(WORKSPACE, json.dumps(workspace()))
        self.redirect(f"{self.place.node_prefix}lab/workspaces/{WORKSPACE}")


def routes(base: str, place: Place) -> list[tuple[Any, ...]]:
    """Routes below the pattern of a node's prefix. The page's parts are the same for everybody, and public."""
    return [
        (f"{base}galilean/terminal", TerminalHandler, {"place": place}),
        (f"{base}galilean/static/(.*)", web.StaticFileHandler, {"path": str(STATIC)}),
    ]
