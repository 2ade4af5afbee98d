"""User ports of a node, ``proxy/<port>/``, behind the sign-in of whoever may open the node (AP-11).

Built on jupyter-server-proxy's handlers, whose extension itself is kept from loading
(:mod:`spawner.node.arguments`): it answers ``/proxy/<host>:<port>`` as well, reaches whatever listens on the
machine, and hands on the hub's cookies and tokens. Here

* there is no host in an address: a port is decimal digits, and is reached at a numeric loopback address;
* a port counts only when the person's own program listens there (:mod:`spawner.node.listening`): never the
  node's own pages or ssh, nor, where the loopback is the machine's, the hub or other people's nodes;
* others than the owner open what is shared with them by name, and are cut off when it is no more
  (:mod:`spawner.node.visitors`);
* the hub's cookies, ``Authorization`` and tokens in addresses stay behind, and an answer can neither set the
  hub's cookies nor widen a service worker's reach.

Programs that an environment registers with jupyter-server-proxy (VS Code, RStudio, TensorBoard) are served
in the same manner, under their own names.
"""

from __future__ import annotations

import html
import os
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl, urlencode

from jupyter_server_proxy.config import ServerProxy, get_entrypoint_server_processes, make_handlers
from jupyter_server_proxy.handlers import AddSlashHandler, LocalProxyHandler, ProxyHandler
from tornado import httputil, web

from spawner.node.listening import Ports, Who
from spawner.node.standing import language_of
from spawner.node.visitors import SETTING as VISITORS
from spawner.node.visitors import Visitors

#: Cookies of the hub, of Jupyter and ours; never handed on, never set by a program of the person's.
_COOKIES = ("jupyterhub", "service-", "_xsrf", "galilean", "username-", "__host-jupyter", "__secure-jupyter")
_REQUEST = ("Authorization", "X-XSRFToken", "X-Csrftoken-Jupyter")
_ANSWER = ("service-worker-allowed", "clear-site-data", "strict-transport-security")
_LOOPBACK = ["127.0.0.1", "[::1]"]
#: Settings of the server: what JupyterLab's launcher shows besides its own, and pictures for that by name.
PROGRAMS, ICONS = "galilean_programs", "galilean_program_icons"

_SAID = {
    "en": {
        Who.NOBODY: "Nothing answers on port {port} of this node yet. Start the program, then look again.",
        Who.NODE: "Port {port} is the node's own and no door.",
        Who.OTHER: "Port {port} is not one of this node's programs.",
        "again": "Look again",
    },
    "zh_CN": {
        Who.NOBODY: "本节点的端口 {port} 上还没有程序响应。请先启动程序，再重新查看。",
        Who.NODE: "端口 {port} 由节点自身使用，不能打开。",
        Who.OTHER: "端口 {port} 不属于本节点上的程序。",
        "again": "重新查看",
    },
}


def ours(name: str) -> bool:
    """Whether a cookie of this name is the hub's, Jupyter's or ours.

    One without a name counts, too: browsers send ``=jupyterhub-…`` back as if that were its name.
    """
    plain = name.strip().lower()
    return not plain or plain.startswith(_COOKIES)


def without_our_cookies(header: str) -> str:
    """A ``Cookie`` header with only what the person's program set."""
    kept = (part.strip() for part in header.split(";") if not ours(part.partition("=")[0]))
    return "; ".join(part for part in kept if part)


def without_token(query: str) -> str:
    """A query without the token that signed the request in."""
    pairs = parse_qsl(query, keep_blank_values=True)
    if all(key != "token" for key, _ in pairs):
        return query
    return urlencode([(key, value) for key, value in pairs if key != "token"])


def from_another_site(method: str, headers: Mapping[str, str]) -> bool:
    """Whether a page of another site would change something, by what browsers say of a request.

    The program gets nothing by which it could tell strangers from its person, so it is told here.
    """
    site = headers.get("Sec-Fetch-Site", "same-origin")
    return method not in ("GET", "HEAD", "OPTIONS") and site not in ("same-origin", "none")


class Apart(ProxyHandler):
    """Keeps what signs a person in away from the program, and the program's answers from what signs in."""

    async def prepare(self) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        await super().prepare()
        owner = os.environ.get("JUPYTERHUB_USER", "")
        if self._finished or self.current_user is None:  # led to the sign-in
            return
        if (
            owner
            and self.current_user.username != owner
            and not await self.welcome(self.current_user.username)
        ):
            raise web.HTTPError(403, "Only its owner opens programs of a node.")
        if not self.token_authenticated and from_another_site(
            self.request.method or "", self.request.headers
        ):
            raise web.HTTPError(403, "A page of another site asked for this.")

    async def welcome(self, name: str) -> bool:
        """Whether somebody who is not the owner gets in."""
        del name
        return False

    def proxy_request_headers(self) -> httputil.HTTPHeaders:
        headers: httputil.HTTPHeaders = super().proxy_request_headers()
        for name in _REQUEST:
            headers.pop(name, None)
        if self.token_authenticated and "Referer" in headers:  # of a page that was opened with its token
            headers["Referer"] = headers["Referer"].partition("?")[0]
        cookies = without_our_cookies("; ".join(headers.get_list("Cookie")))
        headers.pop("Cookie", None)
        if cookies:
            headers["Cookie"] = cookies
        return headers

    def get_client_uri(self, protocol: str, host: str, port: int, proxied_path: str) -> str:
        whole: str = super().get_client_uri(protocol, host, port, proxied_path)
        if not self.token_authenticated:
            return whole
        path, mark, query = whole.partition("?")
        left = without_token(query)
        return f"{path}?{left}" if mark and left else path

    def _allowed(self, name: str, value: Any) -> bool:
        if name.lower() in _ANSWER:
            return False
        if name.lower() != "set-cookie":
            return True
        own = (
            getattr(self, "_new_cookie", None) or {}
        )  # set by the node itself, such as the id behind its forms
        return any(morsel.OutputString(None) == value for morsel in own.values()) or not ours(
            str(value).partition("=")[0]
        )

    def set_header(self, name: str, value: Any) -> None:
        if self._allowed(name, value):
            super().set_header(name, value)

    def add_header(self, name: str, value: Any) -> None:
        if self._allowed(name, value):
            super().add_header(name, value)


class PortHandler(Apart, LocalProxyHandler):
    """``proxy/<port>/<path>``."""

    visitors_enter = True

    def __init__(self, *args: Any, ports: Ports, **kwargs: Any) -> None:
        self._ports = ports
        super().__init__(*args, host_allowlist=_LOOPBACK, **kwargs)

    async def welcome(self, name: str) -> bool:
        visitors: Visitors | None = self.settings.get(VISITORS)
        port = int(self.path_args[0])
        if visitors is None or port not in (await visitors.may(name)).ports:
            return False
        visitors.enter(self, name, port)
        return True

    def cut_off(self) -> None:
        """End it, wherever it is: a websocket is told, anything else breaks off."""
        if self.ws_connection is not None:
            program = getattr(self, "ws", None)
            if program is not None:  # at once: the browser has some seconds to agree to the end
                program.close()
            self.close(4403, "no longer shared")
            return
        stream = getattr(self.request.connection, "stream", None)
        if stream is not None:
            stream.close()

    def _ended(self) -> None:
        visitors: Visitors | None = self.settings.get(VISITORS)
        if visitors is not None:
            visitors.leave(self)

    def on_finish(self) -> None:
        if self.get_status() != 101:  # a websocket has only begun
            stream = getattr(self.request.connection, "stream", None)
            if stream is None or stream.closed():
                self._ended()
            else:  # all of it is said, and a long answer still flows
                stream.write(b"").add_done_callback(lambda sent: (sent.exception(), self._ended()))
        super().on_finish()

    def on_close(self) -> None:
        self._ended()
        super().on_close()

    def on_connection_close(self) -> None:
        self._ended()
        super().on_connection_close()

    def _get_context_path(self, host: str, port: str) -> str:
        return super()._get_context_path("localhost", port)

    def _address(self, port: str) -> str:
        who, address = self._ports.look(int(port))
        if who is not Who.PERSON:
            self._refuse(who, int(port))
        return address

    def _refuse(self, who: Who, port: int) -> None:
        status = {Who.NOBODY: 502, Who.NODE: 403}.get(who, 403)
        raise _NotThere(status, who, port)

    async def proxy(self, port: str, proxied_path: str) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        return await ProxyHandler.proxy(self, self._address(port), port, proxied_path)

    async def open(self, port: str, proxied_path: str) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        try:
            address = self._address(port)
        except _NotThere as refusal:
            self.close(4404, refusal.who.value)
            return None
        return await self.proxy_open(address, port, proxied_path)

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        error = (kwargs.get("exc_info") or (None, None))[1]
        if not isinstance(error, _NotThere):
            super().write_error(status_code, **kwargs)
            return
        morsel = self.request.cookies.get("galilean_language")
        language = language_of(
            morsel.value if morsel else "", self.request.headers.get("Accept-Language", ""), ""
        )
        words = _SAID.get(language, _SAID["en"])
        text = html.escape(words[error.who].format(port=error.port))
        again = f'<p><a href="">{words["again"]}</a></p>' if error.who is Who.NOBODY else ""
        self.set_header("Content-Type", "text/html; charset=utf-8")
        self.set_header("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'")
        self.finish(
            f'<!doctype html><html lang="{language.replace("_", "-")}"><meta charset="utf-8">'
            '<meta name="viewport" content="width=device-width"><meta name="color-scheme" content="light dark">'
            f"<title>{error.port}</title>"
            f'<body style="font:16px/1.5 system-ui,sans-serif;max-width:36rem;margin:15vh auto;padding:0 1rem">'
            f"<p>{text}</p>{again}"
        )


class _NotThere(web.HTTPError):
    def __init__(self, status: int, who: Who, port: int) -> None:
        super().__init__(status)
        self.who, self.port = who, port


def _apart(handler: type[Any]) -> type[Any]:
    """The handler of a registered program, kept apart in the same manner."""
    return type(handler.__name__, (Apart, handler), {})


def load(app: Any, ports: Ports) -> None:
    """Give a node its user ports, and the programs that its environment registers."""
    from jupyter_server.utils import url_path_join
    from jupyter_server_proxy.api import IconHandler, ServersInfoHandler

    base = app.web_app.settings["base_url"]
    config = ServerProxy(parent=app)
    processes = [*config.servers.values(), *get_entrypoint_server_processes()]
    named = [
        (pattern, handler if handler is AddSlashHandler else _apart(handler), *more)
        for pattern, handler, *more in make_handlers(base, processes)
    ]
    icons = {
        item.name: item.launcher_entry.icon_path
        for item in processes
        if item.launcher_entry.enabled and item.launcher_entry.icon_path
    }
    # Others of the node put their doors beside them: see extensions.desktop.
    app.web_app.settings[PROGRAMS], app.web_app.settings[ICONS] = processes, icons
    said = {"ports": ports, "rewrite_response": config.non_service_rewrite_response}
    app.web_app.add_handlers(
        ".*",
        [
            *named,
            (url_path_join(base, r"proxy/([0-9]{1,5})(/.*|)"), PortHandler, {**said, "absolute_url": False}),
            (
                url_path_join(base, r"proxy/absolute/([0-9]{1,5})(/.*|)"),
                PortHandler,
                {**said, "absolute_url": True},
            ),
            (
                url_path_join(base, "server-proxy/servers-info"),
                ServersInfoHandler,
                {"server_processes": processes},
            ),
            (url_path_join(base, "server-proxy/icon/(.*)"), IconHandler, {"icons": icons}),
        ],
    )
