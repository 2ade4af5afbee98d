"""What the desktop answers over HTTP: its page, its picture, and the few things its toolbar asks for.

All of it asks for the node's own sign-in, and for its owner: JupyterHub lets others into a server whom it was shared
with, but a desktop is one person's screen and keyboard. Changes carry Jupyter's XSRF value; the picture's
websocket refuses pages of other origins.
"""

from __future__ import annotations

import asyncio
import atexit
import json
import os
from collections.abc import Awaitable, Callable
from html import escape
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from jupyter_server.base.handlers import APIHandler, JupyterHandler
from jupyter_server_proxy.rawsocket import RawSocketHandler, RawSocketProtocol
from tornado import web
from tornado.websocket import WebSocketClosedError

from extensions.desktop import choices, files, notes
from extensions.desktop.desktops import Desktops
from extensions.desktop.foreign import ForeignSession
from extensions.desktop.home import folder_for_files
from extensions.desktop.session import NotUp, Session
from spawner.node.place import LANGUAGE, RANK, node_name
from spawner.node.plain_files import plain
from spawner.node.standing import language_of

HERE = Path(__file__).parent
STATIC = HERE / "static"
#: Settings of the server that :mod:`spawner.node.ports` keeps; not imported, for it may be missing.
PROGRAMS, ICONS = "galilean_programs", "galilean_program_icons"
COOKIE = "galilean_language"
OWNER = "JUPYTERHUB_USER"
#: So much may wait for a slow browser before the X server is not read any further.
MOST_WAITING_BYTES = 4 * 2**20
CHUNK_BYTES = 2**18
#: Close codes of the picture's websocket that the page understands.
DOWN, NOT_YOURS = 4001, 4003

POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data: blob:",
        "connect-src 'self'",
        "font-src 'self'",
        "form-action 'none'",
        "base-uri 'none'",
        "frame-ancestors 'self'",
    )
)


class _Owned:
    """For the node's owner only."""

    current_user: Any
    request: Any
    settings: dict[str, Any]
    get_query_argument: Any

    def owned(self) -> bool:
        owner = os.environ.get(OWNER, "")
        return bool(self.current_user) and (not owner or self.current_user.username == owner)

    def must_be_owner(self) -> None:
        if not self.owned():
            raise web.HTTPError(403, "This desktop is somebody else's.")

    @property
    def desktops(self) -> Desktops:
        return self.settings["galilean_desktops"]

    @property
    def session(self) -> Session | ForeignSession:
        session = self.desktops.get(self.get_query_argument("app", ""), self.language)
        if session is None:
            raise web.HTTPError(404, "This environment has no such application.")
        return session

    @property
    def language(self) -> str:
        """``en`` or ``zh_CN``."""
        morsel = self.request.cookies.get(COOKIE)
        accepted = self.request.headers.get("Accept-Language", "")
        return language_of(morsel.value if morsel else "", accepted, os.environ.get(LANGUAGE, ""))


class PageHandler(_Owned, JupyterHandler):
    """``desktop/``: the page; the desktop is started meanwhile."""

    @web.authenticated
    async def get(self) -> None:
        self.must_be_owner()
        session = self.session
        starting = asyncio.create_task(_quietly(session.ensure()))
        self.settings["galilean_desktop_starts"].add(starting)
        starting.add_done_callback(self.settings["galilean_desktop_starts"].discard)
        base = self.base_url
        application = session.application
        data = {
            "base": base,
            "xsrf": self.xsrf_token.decode(),
            "language": self.language,
            "node": node_name(int(os.environ.get(RANK) or 0)),
            "app": application.name if application else "",
            "title": application.title if application else "",
            "applications": [
                {"name": one.name, "title": one.title} for one in self.desktops.choices.applications.values()
            ],
            "sizes": self.desktops.sizes(),
            "folder": files.relative(
                self.desktops.home, folder_for_files(self.desktops.home, ours=session.restarts)
            ),
            "restarts": session.restarts,
        }
        static = f"{base}desktop/static/{self.settings['galilean_desktop_static']}/"
        self.set_header("Content-Security-Policy", POLICY)
        self.set_header("Cache-Control", "no-store")
        self.set_header("Referrer-Policy", "same-origin")
        self.set_header("X-Content-Type-Options", "nosniff")
        self.finish(page(static, data, html_language="zh-CN" if self.language == "zh_CN" else "en"))


def page(static: str, data: dict[str, Any], *, html_language: str) -> str:
    """The page's HTML: a frame that its script fills."""
    word = "桌面" if html_language.startswith("zh") else "Desktop"
    title = f"{data['title'] or word} – {data['node']}"
    return f"""<!doctype html>
<html lang="{html_language}">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)}</title>
<script src="{static}theme.js"></script>
<link rel="stylesheet" href="{static}page.css">
<script type="module" src="{static}page.js"></script>
</head>
<body data-page="{escape(json.dumps(data), quote=True)}">
<header class="bar"></header>
<main class="screen" id="screen" aria-label="{escape(title)}"></main>
<noscript>JavaScript</noscript>
</body>
</html>
"""


async def _quietly(start: Awaitable[None]) -> None:
    try:
        await start
    except NotUp:
        pass  # the page asks how it stands


class Picture(RawSocketProtocol):
    """From the X server to the browser, no faster than the browser takes it."""

    transport: asyncio.Transport | None = None
    waiting_bytes = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # pyright: ignore[reportAttributeAccessIssue]

    def data_received(self, data: bytes) -> None:
        try:
            sent = self.handler.write_message(data, binary=True)
        except WebSocketClosedError:
            if self.transport is not None:
                self.transport.abort()
            return
        self.waiting_bytes += len(data)
        if self.waiting_bytes > MOST_WAITING_BYTES and self.transport is not None:
            self.transport.pause_reading()
        sent.add_done_callback(lambda future: self._sent(future, len(data)))

    def _sent(self, future: asyncio.Future[None], size: int) -> None:
        self.waiting_bytes -= size
        transport, failed = self.transport, future.cancelled() or future.exception() is not None
        if transport is None or failed or transport.is_closing():
            return
        if self.waiting_bytes <= MOST_WAITING_BYTES // 2:
            transport.resume_reading()


class PictureSocket(_Owned, RawSocketHandler):
    """``desktop/vnc``: the VNC server's socket, as a websocket of the node."""

    name = "desktop"
    #: Pictures change by themselves; whether somebody is there, the node counts otherwise.
    update_last_activity = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.update_last_activity = False

    async def prepare(self, *args: Any, **kwargs: Any) -> None:
        await super().prepare(*args, **kwargs)
        if self.request.headers.get("Upgrade", "").lower() != "websocket":
            raise web.HTTPError(405, "This address is a websocket.")
        self.must_be_owner()

    async def open(self, *args: Any) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        session = self.session
        if session.state == "down":
            self.close(DOWN, session.status()["reason"])
            return
        try:
            await session.ensure()
            self.ws_transp, self.ws_proto = await asyncio.get_running_loop().create_unix_connection(
                lambda: Picture(self), session.socket
            )
        except (NotUp, OSError) as error:
            self.close(DOWN, error.reason if isinstance(error, NotUp) else "server")

    def get_compression_options(self) -> None:
        return None  # VNC's own encodings are compressed already

    def on_message(self, message: str | bytes) -> None:
        if hasattr(self, "ws_transp"):
            super().on_message(message)


class _API(_Owned, APIHandler):
    auth_resource = "server"

    async def prepare(self) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        ready = super().prepare()
        if ready is not None:
            await ready
        if not self.owned():
            raise web.HTTPError(403)

    def refuse(self, status: int, reason: str) -> None:
        self.set_status(status)
        self.finish(json.dumps({"status": status, "reason": reason}))

    def body(self) -> dict[str, Any]:
        said = self.get_json_body()
        return said if isinstance(said, dict) else {}


class StatusHandler(_API):
    """``desktop/api/status``: how the desktop stands."""

    @web.authenticated
    async def get(self) -> None:
        self.finish(json.dumps(self.session.status()))


class StartHandler(_API):
    """``desktop/api/start``, ``restart``: answers when it is up, or with why not."""

    @web.authenticated
    async def post(self, what: str) -> None:
        session = self.session
        try:
            await (session.ensure() if what == "start" else session.restart())
        except NotUp:
            self.set_status(503)
        self.finish(json.dumps(session.status()))


class SizeHandler(_API):
    """``desktop/api/size``: a size that does not follow the window."""

    @web.authenticated
    async def post(self) -> None:
        size = choices.geometry(str(self.body().get("size", "")))
        if size is None:
            self.refuse(400, "size")
        elif self.session.state != "running":
            self.refuse(409, "down")
        else:
            code, said = await self.session.run("xrandr", "--fb", f"{size[0]}x{size[1]}")
            if code:
                self.log.warning("The desktop did not take the size %s: %s", size, said.strip()[-400:])
                self.refuse(409, "size")
            else:
                self.finish("{}")


class NotesHandler(_API):
    """``desktop/api/notes``."""

    @web.authenticated
    async def get(self) -> None:
        try:
            text, known = await asyncio.to_thread(notes.read, self.desktops.home)
        except (OSError, ValueError):
            self.refuse(409, "unreadable")
            return
        self.finish(json.dumps({"text": text, "known": known}))

    @web.authenticated
    async def put(self) -> None:
        body = self.body()
        try:
            known = await asyncio.to_thread(
                notes.write, self.desktops.home, str(body.get("text", "")), str(body.get("known", ""))
            )
        except notes.Changed:
            self.refuse(409, "changed")
        except ValueError:
            self.refuse(413, "long")
        except OSError as error:
            self.refuse(507, _why(error))
        else:
            self.finish(json.dumps({"known": known}))


class FilesHandler(_API):
    """``desktop/api/files``: a folder."""

    @web.authenticated
    async def get(self) -> None:
        home = self.desktops.home
        path = self.get_query_argument("path", "")
        try:
            said = await asyncio.to_thread(files.listing, home, path)
        except files.NotThere:
            self.refuse(404, "path")
            return
        self.finish(json.dumps(said))


@web.stream_request_body
class FileHandler(_API):
    """``desktop/api/file``: one file, taken or given, in pieces and of any size."""

    _arriving: files.Arriving | None = None
    _failed: tuple[int, str] | None = None

    async def prepare(self) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        await super().prepare()
        if self.request.method != "PUT":
            return
        self.request.connection.set_max_body_size(files.MOST_BYTES)  # pyright: ignore
        folder, name = self.get_query_argument("path", ""), self.get_query_argument("name", "")
        await self._try(lambda: self._begin(folder, name))

    def _begin(self, folder: str, name: str) -> None:
        self._arriving = files.Arriving(self.desktops.home, folder, name)

    async def _try(self, act: Callable[[], Any]) -> Any:
        if self._failed is not None:
            return None
        try:
            return await asyncio.to_thread(act)
        except files.NotThere:
            self._failed = (404, "path")
        except OSError as error:
            self._failed = (507, _why(error))
        return None

    async def data_received(self, chunk: bytes) -> None:
        arriving = self._arriving
        if arriving is not None:
            await self._try(lambda: arriving.write(chunk))

    @web.authenticated
    async def put(self) -> None:
        arriving = self._arriving
        name = await self._try(arriving.finish) if arriving is not None else None
        if self._failed is not None:
            self._forget()
            self.refuse(*self._failed)
            return
        self._arriving = None
        self.set_status(201)
        self.finish(json.dumps({"name": name, "bytes": arriving.bytes if arriving else 0}))

    def _forget(self) -> None:
        if self._arriving is not None:
            self._arriving.give_up()
            self._arriving = None

    def on_connection_close(self) -> None:
        super().on_connection_close()
        self._forget()

    @web.authenticated
    async def get(self) -> None:
        try:
            path = files.inside(self.desktops.home, self.get_query_argument("path", ""))
            file = await asyncio.to_thread(open, path, "rb", opener=plain)
        except (files.NotThere, OSError):
            raise web.HTTPError(404) from None
        with file:
            self.set_header("Content-Type", "application/octet-stream")
            self.set_header("X-Content-Type-Options", "nosniff")
            self.set_header("Content-Security-Policy", "sandbox; default-src 'none'")
            self.set_attachment_header(path.name)
            self.set_header("Content-Length", str(os.fstat(file.fileno()).st_size))
            while chunk := await asyncio.to_thread(file.read, CHUNK_BYTES):
                self.write(chunk)
                await self.flush()
        await self.finish()


def _why(error: OSError) -> str:
    import errno

    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    return "full" if full else "read-only" if error.errno in (errno.EROFS, errno.EACCES) else "disk"


class StaticHandler(web.StaticFileHandler):
    """Script, style and notices; their folder is named by what is in them."""

    def set_extra_headers(self, path: str) -> None:
        self.set_header("Cache-Control", "public, max-age=31536000, immutable")
        self.set_header("X-Content-Type-Options", "nosniff")


class SlashHandler(JupyterHandler):
    """``desktop`` without a slash."""

    @web.authenticated
    def get(self) -> None:
        query = self.request.query
        self.redirect(self.request.path + "/" + (f"?{query}" if query else ""))


def load(app: Any) -> None:
    """Put the desktop into a Jupyter server."""
    rank = os.environ.get(RANK, "")
    settings = app.web_app.settings
    settings["galilean_desktops"] = Desktops(title=node_name(int(rank)) if rank else "", log=app.log)
    atexit.register(settings["galilean_desktops"].end)
    settings["galilean_desktop_starts"] = set()
    show_tiles(settings, settings["galilean_desktops"], os.environ.get(LANGUAGE, ""))
    settings["galilean_desktop_static"] = built()
    base = (
        "/" + "[^/]+/" * (settings["base_url"].strip("/").count("/") + 1)
        if settings["base_url"] != "/"
        else "/"
    )
    app.web_app.add_handlers(
        ".*$",
        [
            (f"{base}desktop", SlashHandler),
            (f"{base}desktop/", PageHandler),
            (f"{base}desktop/vnc", PictureSocket),
            (f"{base}desktop/api/status", StatusHandler),
            (f"{base}desktop/api/(start|restart)", StartHandler),
            (f"{base}desktop/api/size", SizeHandler),
            (f"{base}desktop/api/notes", NotesHandler),
            (f"{base}desktop/api/files", FilesHandler),
            (f"{base}desktop/api/file", FileHandler),
            (f"{base}desktop/static/(.*)", StaticHandler, {"path": str(STATIC)}),
        ],
    )


def show_tiles(settings: dict[str, Any], desktops: Desktops, language: str) -> None:
    """Let JupyterLab's launcher show the desktop and its applications, by what jupyter-server-proxy's part of it reads."""
    programs, icons = settings.get(PROGRAMS), settings.get(ICONS)
    if programs is None or icons is None:  # a server without user ports
        return
    whole = "桌面" if language.startswith("zh") else "Desktop"
    tiles = [("desktop", whole, "desktop/")]
    for one in desktops.choices.applications.values():
        tiles.append((f"desktop-{one.name}", one.title, f"desktop/?app={one.name}"))
    for name, title, path in tiles:
        icons[name] = str(HERE / "desktop.svg")
        entry = SimpleNamespace(
            enabled=True, title=title, path_info=path, category="Notebook", icon_path=icons[name]
        )
        programs.append(SimpleNamespace(name=name, launcher_entry=entry, new_browser_tab=True))


def built() -> str:
    """Name of the folder that ``scripts/build_desktop.mjs`` made."""
    try:
        return next(entry.name for entry in sorted(STATIC.iterdir()) if (entry / "page.js").is_file())
    except (OSError, StopIteration):
        return "missing"
