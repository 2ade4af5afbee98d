"""The pages of a node's applications: the form, how it stands, and the way to the program itself.

``galilean/apps/<name>`` is the door: it asks what the application needs to know, starts it, and leads on when it
answers. ``apps/<name>/…`` is the program, kept apart from what signs the person in as every user port is
(:mod:`spawner.node.ports`). A start is a POST with Jupyter's XSRF value; only the owner of the cluster starts or
reaches anything here.
"""

from __future__ import annotations

import asyncio
import html
import json
import os
from types import SimpleNamespace
from typing import Any
from urllib.parse import quote

from jupyter_server.auth.decorator import authorized
from jupyter_server.base.handlers import APIHandler, JupyterHandler
from jupyter_server.utils import url_path_join
from jupyter_server_proxy.handlers import LocalProxyHandler, ProxyHandler
from tornado import web

from galilean.application_rules import BadValue, Refused, said
from spawner.node.applications import Applications
from spawner.node.place import LANGUAGE
from spawner.node.ports import ICONS, PROGRAMS, Apart
from spawner.node.standing import language_of

SETTING = "galilean_applications"
NAME = r"([a-z0-9][a-z0-9-]{0,39})"

WORDS: dict[str, dict[str, str]] = {
    "en": {
        "start": "Start", "again": "Start again", "stop": "End it", "open": "Open", "starting": "It is starting …",
        "late": "It has not answered yet. What it printed last:", "running": "It is running.",
        "ended": "It has ended ({code}). What it printed last:", "failed": "That did not work. Try again in a moment.",
        "optional": "may stay empty", "yes": "Yes", "back": "Back to JupyterLab", "nothing": "It printed nothing.",
        "required": "This is needed.", "whole": "A whole number, please.", "number": "A number, please.",
        "least": "At least {limit}.", "most": "At most {limit}.", "options": "One of: {limit}.",
        "long": "At most {limit} characters.", "pattern": "This does not fit: {limit}",
        "path": "A path below work, without “..”.", "missing": "There is no “{limit}” in work.",
        "text": "One line of text, please.", "unknown": "There is no such field.",
    },
    "zh_CN": {
        "start": "启动", "again": "重新启动", "stop": "结束", "open": "打开", "starting": "正在启动……",
        "late": "程序尚未响应，最近的输出：", "running": "正在运行。",
        "ended": "程序已结束（{code}），最近的输出：", "failed": "操作未成功，请稍后再试。",
        "optional": "可留空", "yes": "是", "back": "返回 JupyterLab", "nothing": "没有任何输出。",
        "required": "此项必填。", "whole": "请填写整数。", "number": "请填写数字。",
        "least": "不能小于 {limit}。", "most": "不能大于 {limit}。", "options": "可选值：{limit}。",
        "long": "最多 {limit} 个字符。", "pattern": "不符合要求：{limit}",
        "path": "请填写 work 之下的路径，不能含“..”。", "missing": "work 中没有“{limit}”。",
        "text": "请填写一行文字。", "unknown": "没有这个字段。",
    },
}  # fmt: skip


def why(error: BadValue, language: str) -> str:
    """What is wrong with a value, in words."""
    words = WORDS.get(language, WORDS["en"])
    return words.get(error.why, words["text"]).format(limit=error.limit)


def field_html(name: str, field: dict[str, Any], language: str) -> str:
    """One field of the form."""
    words, kind = WORDS.get(language, WORDS["en"]), field.get("type", "text")
    key, default = f"f-{name}", field.get("default")
    title, helped = (
        html.escape(said(field["title"], language)),
        html.escape(said(field.get("help"), language)),
    )
    value = html.escape("" if default is None or isinstance(default, bool) else str(default), quote=True)
    told = f' aria-describedby="{key}-h {key}-e"'
    if kind == "switch":
        checked = " checked" if default is True else ""
        control = f'<label class="yes"><input type="checkbox" id="{key}" name="{name}"{checked}{told}> {words["yes"]}</label>'
    elif kind == "choice":
        options = [*([] if field.get("required") else [""]), *field.get("options", ())]
        inside = "".join(
            f'<option value="{html.escape(item, quote=True)}"{" selected" if item == str(default or "") else ""}>'
            f"{html.escape(item)}</option>"
            for item in options
        )
        control = f'<select id="{key}" name="{name}"{told}>{inside}</select>'
    else:
        number = kind in ("integer", "number")
        more = f' type="{"number" if number else "text"}"'
        if number:
            more += f' step="{"1" if kind == "integer" else "any"}"'
            more += "".join(
                f' {mark}="{field[limit]:g}"' for mark, limit in (("min", "least"), ("max", "most"))
                if field.get(limit) is not None
            )  # fmt: skip
        elif field.get("longest"):
            more += f' maxlength="{field["longest"]}"'
        if field.get("required"):
            more += " required"
        control = f'<input id="{key}" name="{name}" value="{value}" autocomplete="off"{more}{told}>'
    note = (
        ""
        if field.get("required") or kind in ("switch", "choice")
        else f' <span class="note">{words["optional"]}</span>'
    )
    return (
        f'<div class="row" data-field="{name}"><label for="{key}">{title}{note}</label>{control}'
        f'<p class="note" id="{key}-h">{helped}</p><p class="wrong" id="{key}-e" role="alert"></p></div>'
    )


def page(applications: Applications, name: str, language: str, *, node: str, xsrf: str) -> str:
    """The page of an application, whole."""
    one, words = applications.known[name], WORDS.get(language, WORDS["en"])
    base, static = applications.base, f"{applications.base}galilean/static/"
    fields: dict[str, Any] = one.get("fields", {})
    told = {
        "api": f"{base}galilean/api/apps/{name}",
        "presence": f"{base}galilean/presence",
        "xsrf": xsrf,
        "fields": {
            key: {"type": item.get("type", "text"), "when": item.get("when") or {}}
            for key, item in fields.items()
        },
        "words": words,
        "now": applications.told(name),
    }
    # As data in a script element: nothing in it may end the element.
    data = json.dumps(told, ensure_ascii=False).replace("<", "\\u003c")
    title, about = (
        html.escape(said(one["title"], language)),
        html.escape(said(one.get("description"), language)),
    )
    form = "".join(field_html(key, item, language) for key, item in fields.items())
    return (
        f'<!doctype html><html lang="{language.replace("_", "-")}"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{title} · {html.escape(node)}</title>"
        f'<link rel="stylesheet" href="{static}application.css"></head><body><main>'
        f'<p class="note">{html.escape(node)}</p><h1>{title}</h1>{f"<p>{about}</p>" if about else ""}'
        f'<div id="stands" role="status"></div><pre id="log" hidden tabindex="0"></pre>'
        f'<form id="form" novalidate>{form}<p class="buttons"><button class="primary" type="submit">{words["start"]}</button></p></form>'
        f'<p class="buttons" id="acts" hidden><a class="primary" id="open" href="{html.escape(base + applications.path(name), quote=True)}">'
        f'{words["open"]}</a><button type="button" id="stop">{words["stop"]}</button></p>'
        f'<p><a href="{base}lab">{words["back"]}</a></p></main>'
        f'<script type="application/json" id="told">{data}</script>'
        f'<script type="module" src="{static}application.js"></script></body></html>'
    )


class _Handler(JupyterHandler):
    auth_resource = "terminals"  # who may run a program at all

    @property
    def applications(self) -> Applications:
        found = self.settings.get(SETTING)
        if found is None:
            raise web.HTTPError(503, "The node is still starting.")
        return found

    @property
    def language(self) -> str:
        morsel = self.request.cookies.get("galilean_language")
        asked = self.request.headers.get("Accept-Language", "")
        return language_of(morsel.value if morsel else "", asked, os.environ.get(LANGUAGE, ""))

    def one(self, name: str) -> str:
        """The application of that name, for the owner of the cluster alone."""
        owner = os.environ.get("JUPYTERHUB_USER", "")
        if owner and self.current_user.username != owner:
            raise web.HTTPError(403, "Only its owner opens programs of a node.")
        if name not in self.applications.known:
            raise web.HTTPError(404, "This node has no such application.")
        return name


class DoorHandler(_Handler):
    """``galilean/apps/<name>``."""

    @web.authenticated
    @authorized(action="execute")
    def get(self, name: str) -> None:
        self.one(name)
        self.set_header("Content-Type", "text/html; charset=utf-8")
        self.set_header("Cache-Control", "no-store")
        self.set_header(
            "Content-Security-Policy",
            "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; form-action 'self'; "
            "frame-ancestors 'self'; base-uri 'none'",
        )
        node = f"{self.settings.get('galilean_node', '')}"
        self.finish(page(self.applications, name, self.language, node=node, xsrf=self.xsrf_token.decode()))


class StandsHandler(_Handler, APIHandler):
    """``galilean/api/apps/<name>``: how it stands (GET), start it (POST), end it (DELETE)."""

    @web.authenticated
    @authorized(action="execute")
    async def get(self, name: str) -> None:
        self.finish(json.dumps(self.applications.told(self.one(name))))

    @web.authenticated
    @authorized(action="execute")
    async def post(self, name: str) -> None:
        self.one(name)
        body = self.get_json_body() or {}
        given = body.get("values", {}) if isinstance(body, dict) else None
        if not isinstance(given, dict):
            raise web.HTTPError(400, "“values” is an object.")
        try:
            await asyncio.to_thread(self.applications.start, name, given)
        except Refused as refused:
            self.set_status(400)
            self.finish(
                json.dumps(
                    {"wrong": {key: why(error, self.language) for key, error in refused.wrong.items()}}
                )
            )
            return
        except OSError as error:
            raise web.HTTPError(507, f"It could not be started: {error.strerror}") from error
        self.set_status(202)
        self.finish(json.dumps(self.applications.told(name)))

    @web.authenticated
    @authorized(action="execute")
    async def delete(self, name: str) -> None:
        await asyncio.to_thread(self.applications.stop, self.one(name))
        self.finish(json.dumps(self.applications.told(name)))


class ProgramHandler(Apart, LocalProxyHandler):
    """``apps/<name>/<path>``: the program."""

    _name = ""

    def _get_context_path(self, host: str, port: str) -> str:
        return url_path_join(self.base_url, "apps", self._name)

    def _found(self, name: str) -> tuple[str, str]:
        applications: Applications | None = self.settings.get(SETTING)
        if applications is None or name not in applications.known:
            raise web.HTTPError(404)
        self._name = name
        self.absolute_url = bool(applications.known[name].get("absolute"))
        address = applications.address(name)
        return address, str(applications.running[name].port) if address else ""

    async def proxy(self, name: str, path: str) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        address, port = self._found(name)
        if not address:
            if self.request.method != "GET":
                raise web.HTTPError(503, "This application does not run.")
            self.redirect(url_path_join(self.base_url, "galilean/apps", quote(name)))
            return None
        return await ProxyHandler.proxy(self, address, port, path)

    async def open(self, name: str, path: str) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        try:
            address, port = self._found(name)
        except web.HTTPError:
            address, port = "", ""
        if not address:
            self.close(4404, "not running")
            return None
        return await self.proxy_open(address, port, path)


class SlashHandler(_Handler):
    """``apps/<name>``."""

    @web.authenticated
    def get(self, name: str) -> None:
        self.redirect(url_path_join(self.base_url, "apps", name) + "/")


def load(app: Any, applications: Applications, node: str) -> None:
    """Give a node its applications."""
    app.web_app.settings[SETTING], app.web_app.settings["galilean_node"] = applications, node
    base = "/" + "[^/]+/" * (applications.base.count("/") - 1)
    app.web_app.add_handlers(
        ".*",
        [
            (f"{base}galilean/apps/{NAME}", DoorHandler),
            (f"{base}galilean/api/apps/{NAME}", StandsHandler),
            (f"{base}apps/{NAME}", SlashHandler),
            (f"{base}apps/{NAME}(/.*)", ProgramHandler),
        ],
    )


def show_tiles(settings: dict[str, Any], applications: Applications, language: str) -> None:
    """Let JupyterLab's launcher show them, by what jupyter-server-proxy's part of it reads."""
    programs, icons = settings.get(PROGRAMS), settings.get(ICONS)
    if programs is None or icons is None:
        return
    picture = os.path.join(os.path.dirname(__file__), "static", "application.svg")
    for name, one in applications.known.items():
        icons[f"app-{name}"] = picture
        entry = SimpleNamespace(
            enabled=True, title=said(one["title"], language), path_info=f"galilean/apps/{name}",
            category="Notebook", icon_path=picture,
        )  # fmt: skip
        programs.append(SimpleNamespace(name=f"app-{name}", launcher_entry=entry, new_browser_tab=True))
