"""The node's own API: what JupyterLab's toolbar shows and does (SC-17, CG-20).

``galilean/api/status`` tells how the cluster stands, the websocket ``galilean/api/live`` tells it again
whenever it changes. That the websocket is open is also what keeps a hidden tab present (design §6): it lies on
the node's own route, and the identity provider counts it. Actions are POSTs of a signed-in person with Jupyter's
XSRF value. What goes to the portal goes with the node's token (:mod:`spawner.node.standing`).
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from jupyter_server.auth.decorator import authorized, ws_authenticated
from jupyter_server.base.handlers import APIHandler, JupyterHandler
from jupyter_server.base.websocket import WebSocketMixin
from tornado import web
from tornado.websocket import WebSocketClosedError, WebSocketHandler

from spawner.node.place import LANGUAGE
from spawner.node.standing import Refused, Standing, language_of

COOKIE = "galilean_language"
#: How often what the node itself knows is looked at while a page is open.
LOOK_SECONDS = 5.0
#: These move with every look, and are no news by themselves.
RESTLESS = ("now", "held_seconds", "asked_at")


@dataclass
class NodeParts:
    """What the handlers work with; made when the server runs.

    Attributes
    ----------
    standing
        How the cluster stands.
    look
        Brings up to date what the node itself knows.
    """

    standing: Standing
    look: Callable[[], Awaitable[Any]]
    live: Live = field(init=False)

    def __post_init__(self) -> None:
        self.live = Live(self.standing, self.look)


class Live:
    """Tells all open pages what changed."""

    def __init__(self, standing: Standing, look: Callable[[], Awaitable[Any]]) -> None:
        self._standing = standing
        self._look = look
        self._pages: dict[LiveSocket, Any] = {}
        self._task: asyncio.Task[None] | None = None

    def join(self, page: LiveSocket) -> None:
        self._pages[page] = None
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run())

    def leave(self, page: LiveSocket) -> None:
        self._pages.pop(page, None)

    async def _run(self) -> None:
        """Ask and tell as long as somebody listens."""
        loop = asyncio.get_running_loop()
        asked: dict[str, float] = {}
        while self._pages:
            for language in {page.language_key for page in self._pages}:
                pause = self._standing.pause_seconds(language)
                if loop.time() - asked.get(language, float("-inf")) >= pause - 0.5:
                    asked[language] = loop.time()
                    await self._standing.ask(language)
                    self.tell(always=True)
            await self._look()
            self.tell()
            await asyncio.sleep(LOOK_SECONDS)

    def tell(self, *, always: bool = False) -> None:
        """Tell each page how things stand: what is new to it, or anyway."""
        for page, last in list(self._pages.items()):
            status = self._standing.status(page.language_key)
            news = {name: value for name, value in status.items() if name not in RESTLESS}
            if news == last and not always:
                continue
            self._pages[page] = news
            page.say({"type": "status", "status": status})
            ended = status.get("ended")
            if ended and not (last and last.get("ended")):
                page.say({"type": "released", **ended})

    def restarting(self) -> None:
        """The last word before the server restarts."""
        for page in list(self._pages):
            page.say({"type": "restarting"})


class _Language:
    request: Any

    @property
    def language_key(self) -> str:
        """``en`` or ``zh_CN``."""
        import os

        morsel = self.request.cookies.get(COOKIE)
        return language_of(
            morsel.value if morsel else "",
            self.request.headers.get("Accept-Language", ""),
            os.environ.get(LANGUAGE, ""),
        )


class _Handler(_Language, APIHandler):
    auth_resource = "server"

    @property
    def parts(self) -> NodeParts:
        parts = self.settings.get("galilean_parts")
        if parts is None:
            raise web.HTTPError(503, "The node is still starting.")
        return parts

    def write_status(self) -> None:
        self.finish(json.dumps(self.parts.standing.status(self.language_key)))

    def refuse(self, error: Refused) -> None:
        self.set_status(error.status)
        self.finish(json.dumps({"status": error.status, "reason": error.reason, "message": error.message}))


class StatusHandler(_Handler):
    """``galilean/api/status``."""

    @web.authenticated
    @authorized
    async def get(self) -> None:
        await self.parts.standing.ask(self.language_key)
        await self.parts.look()
        self.write_status()


class ActionHandler(_Handler):
    """``galilean/api/extend``, ``when-done``, ``release``."""

    @web.authenticated
    @authorized
    async def post(self, what: str) -> None:
        body = self.get_json_body() or {}
        more: dict[str, Any] = {}
        if what == "extend" and isinstance(body, dict):
            if isinstance(body.get("until"), str):
                more["until"] = body["until"]
            elif body.get("seconds") is not None:
                more["seconds"] = body["seconds"]
        try:
            await self.parts.standing.change(what, self.language_key, **more)
        except Refused as error:
            self.refuse(error)
            return
        self.parts.live.tell()
        if what == "release":
            self.set_status(202)
        self.write_status()


class RenewHandler(_Handler):
    """``galilean/api/(restart|reset)-node``, body ``{"rank": n}``, else this one: the node is made anew.

    The portal is asked, and the hub does it: this process may be the one that ends by it.
    """

    @web.authenticated
    @authorized
    async def post(self, how: str) -> None:
        parts = self.parts
        body = self.get_json_body() or {}
        own = parts.standing.rank
        rank = body.get("rank", own) if isinstance(body, dict) else own
        if isinstance(rank, bool) or not isinstance(rank, int) or not 0 <= rank <= 4096:
            raise web.HTTPError(400, "There is no such node.")
        try:
            await parts.standing.change(how, self.language_key, node=rank)
        except Refused as error:
            self.refuse(error)
            return
        self.set_status(202)
        self.write_status()
        if rank == own:
            parts.live.restarting()
        parts.live.tell()


class LossesHandler(_Handler):
    """``galilean/api/losses``, ``?rank=n`` for one node: what a release or a reset would lose outside “work”."""

    @web.authenticated
    @authorized
    async def get(self) -> None:
        rank = self.get_query_argument("rank", "")
        if rank and not (rank.isascii() and rank.isdigit() and len(rank) <= 4):
            raise web.HTTPError(400, "There is no such node.")
        try:
            found = await self.parts.standing.losses(self.language_key, int(rank) if rank else None)
        except Refused as error:
            self.refuse(error)
            return
        self.finish(json.dumps(found))


class LiveSocket(_Language, WebSocketMixin, WebSocketHandler, JupyterHandler):
    """``galilean/api/live``: pinged, so that one whose other side is gone is closed. What it is sent is ignored."""

    auth_resource = "server"

    @ws_authenticated
    async def get(self, *args: Any, **kwargs: Any) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        if self.current_user is None:
            raise web.HTTPError(403)
        await super().get(*args, **kwargs)

    def open(self, *args: Any, **kwargs: Any) -> None:
        super().open(*args, **kwargs)
        parts: NodeParts | None = self.settings.get("galilean_parts")
        if parts is None:
            self.close(1013)
            return
        self.say({"type": "status", "status": parts.standing.status(self.language_key)})
        parts.live.join(self)

    def on_close(self) -> None:
        parts: NodeParts | None = self.settings.get("galilean_parts")
        if parts is not None:
            parts.live.leave(self)
        super().on_close()

    def on_message(self, message: str | bytes) -> None:
        del message

    def get_compression_options(self) -> None:
        return None

    def say(self, said: dict[str, Any]) -> None:
        """Send, if the page is still there."""
        try:
            future = self.write_message(json.dumps(said))
        except WebSocketClosedError:
            return
        future.add_done_callback(_forget)


def _forget(future: asyncio.Future[None]) -> None:
    if not future.cancelled() and future.exception() is not None:
        logging.getLogger(__name__).debug("a page went while it was told: %s", future.exception())


def routes(base: str) -> list[tuple[Any, ...]]:
    """Routes below the pattern of a node's prefix."""
    return [
        (f"{base}galilean/api/status", StatusHandler),
        (f"{base}galilean/api/live", LiveSocket),
        (f"{base}galilean/api/losses", LossesHandler),
        (f"{base}galilean/api/(extend|when-done|release)", ActionHandler),
        (f"{base}galilean/api/(restart|reset)-node", RenewHandler),
    ]
