"""What a node answers besides Jupyter: the bounce, ``node-0/``, and the websocket that says "I am here"."""

from __future__ import annotations

from typing import Any

from jupyter_server.auth.decorator import allow_unauthenticated, ws_authenticated
from jupyter_server.base.handlers import JupyterHandler
from jupyter_server.base.websocket import WebSocketMixin
from tornado import web
from tornado.websocket import WebSocketHandler

from spawner.node import api, ssh_door, terminal
from spawner.node.bounce import bounce_target, head_target
from spawner.node.place import Place


class BounceHandler(JupyterHandler):
    """``go/node-i/<path>?<query>``: asks for the sign-in, then leads to the node."""

    visitors_enter = True  # it only leads on

    def initialize(self, place: Place) -> None:
        self.place = place

    @web.authenticated
    def get(self) -> None:
        target = bounce_target(self.place.prefix, self.place.nodes, self.request.uri or "")
        if target is None:
            raise web.HTTPError(404, "This cluster has no such node.")
        self.redirect(target)


class HeadHandler(JupyterHandler):
    """``node-0/<path>``: the same below the cluster's own path. Tells nothing, so it asks nobody."""

    def initialize(self, place: Place) -> None:
        self.place = place

    @allow_unauthenticated
    def get(self) -> None:
        self.redirect(head_target(self.place.prefix, self.request.uri or ""))


class PresenceSocket(WebSocketMixin, WebSocketHandler, JupyterHandler):
    """``galilean/presence``: open as long as a page is, pinged every 30 s, closed when pings get no answer.

    Being open is all it does: the identity provider counts it. What a client sends is ignored.
    """

    async def pre_get(self) -> None:
        if self.current_user is None:
            raise web.HTTPError(403)

    @ws_authenticated
    async def get(self, *args: Any, **kwargs: Any) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        await self.pre_get()
        await super().get(*args, **kwargs)

    def on_message(self, message: str | bytes) -> None:
        del message

    def get_compression_options(self) -> None:
        return None


def handlers(place: Place) -> list[tuple[Any, ...]]:
    """Routes of the node; the bounce and ``node-0/`` are on the head only."""
    base = place.node_prefix
    pattern = _pattern(base)
    routes: list[tuple[Any, ...]] = [
        (f"{pattern}galilean/presence", PresenceSocket),
        *terminal.routes(pattern, place),
        *ssh_door.routes(pattern, place),
        *api.routes(pattern),
    ]
    if place.rank == 0:
        routes += [
            (f"{pattern}go/.*", BounceHandler, {"place": place}),
            (f"{pattern}node-0(?:/.*)?", HeadHandler, {"place": place}),
        ]
    return routes


def _pattern(prefix: str) -> str:
    """A pattern for any encoding of the prefix: as many segments as it has."""
    return "/" + "[^/]+/" * (prefix.count("/") - 1)
