"""A Jupyter server extension that speaks as a node of ours does, and says what the test tells it to say.

The extension of JupyterLab is tried against it in states that a real node reaches seldom or late. It runs in
a real Jupyter server with a real JupyterLab; the real node is tried in ``tests/product``.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any

from jupyter_server.auth.decorator import ws_authenticated
from jupyter_server.base.handlers import APIHandler, JupyterHandler
from jupyter_server.base.websocket import WebSocketMixin
from tornado import web
from tornado.websocket import WebSocketHandler


class Said:
    """What the node says, who listens, and what it was asked."""

    def __init__(self) -> None:
        self.status: dict[str, Any] | None = None
        self.answers: dict[str, Any] = {}
        self.asked: list[str] = []
        self.sockets: set[Live] = set()
        self.opened = 0
        self.answered = asyncio.Event()

    def tell(self, message: dict[str, Any]) -> None:
        for socket in list(self.sockets):
            socket.write_message(json.dumps(message))


class Status(APIHandler):
    said: Said

    def initialize(self, said: Said) -> None:
        self.said = said

    @web.authenticated
    def get(self) -> None:
        if self.said.status is None:
            raise web.HTTPError(404)
        self.finish(self.said.status)


class Ask(Status):
    @web.authenticated
    def post(self, what: str) -> None:
        self.said.asked.append(what)
        answer = self.said.answers.get(what, {})
        if "message" in answer:
            self.set_status(409)
            self.finish(answer)
            return
        if self.said.status:
            self.said.status.update(answer)
        self.finish(self.said.status if not what.endswith("-node") else {})


class Losses(Status):
    """When the test has said what would be lost; the page waits until then."""

    @web.authenticated
    async def get(self) -> None:
        self.said.asked.append(
            "losses" + (f" of {rank}" if (rank := self.get_query_argument("rank", "")) else "")
        )
        while "losses" not in self.said.answers:
            self.said.answered.clear()
            await self.said.answered.wait()
        answer = self.said.answers["losses"]
        if "message" in answer:
            self.set_status(503)
        self.finish(answer)


class Live(WebSocketMixin, WebSocketHandler, JupyterHandler):
    def initialize(self, said: Said) -> None:
        self.said = said

    @ws_authenticated
    async def get(self, *args: Any, **kwargs: Any) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        if self.said.status is None:
            raise web.HTTPError(404)
        await super().get(*args, **kwargs)

    def open(self, *args: Any, **kwargs: Any) -> None:
        self.said.sockets.add(self)
        self.said.opened += 1
        self.write_message(json.dumps({"type": "status", "status": self.said.status}))

    def on_close(self) -> None:
        self.said.sockets.discard(self)


class Control(JupyterHandler):
    """What the test says to the double: ``{"status": …, "tell": message, "answers": …, "close": true}``."""

    def initialize(self, said: Said) -> None:
        self.said = said

    def check_xsrf_cookie(self) -> None:
        pass

    @web.authenticated
    def post(self) -> None:
        body = json.loads(self.request.body)
        if "status" in body:
            self.said.status = body["status"]
            self.said.tell({"type": "status", "status": self.said.status})
        self.said.answers = body.get("answers", self.said.answers)
        self.said.answered.set()
        if "tell" in body:
            self.said.tell(body["tell"])
        if "close" in body:
            for socket in list(self.said.sockets):
                socket.close()
        self.finish({"asked": self.said.asked, "sockets": len(self.said.sockets), "opened": self.said.opened})
        self.said.asked = []


def _jupyter_server_extension_points() -> list[dict[str, str]]:
    return [{"module": "tests.jupyterlab.node_double"}]


def _load_jupyter_server_extension(app: Any) -> None:
    said = Said()
    base = app.web_app.settings["base_url"].rstrip("/")
    app.web_app.add_handlers(
        ".*$",
        [
            (f"{base}/galilean/api/status", Status, {"said": said}),
            (f"{base}/galilean/api/live", Live, {"said": said}),
            (f"{base}/galilean/api/(extend|when-done|release|restart-node|reset-node)", Ask, {"said": said}),
            (f"{base}/galilean/api/losses", Losses, {"said": said}),
            (f"{base}/double", Control, {"said": said}),
        ],
    )
