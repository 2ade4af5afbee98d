"""The node's identity provider: JupyterHub's own, which also counts presence and sends workers' logins away.

``get_user`` is the one place that sees every request of the server after authentication, websockets at
their opening too. It runs for each of them, hence these few lines and no more. The node's own token is
not a person: programs in the node hold it. Somebody who is neither the owner nor an administrator has come by a
share of the hub's, and gets as far as :mod:`spawner.node.visitors` says; such a visit is nobody's presence.
"""

from __future__ import annotations

import os
from typing import Any

from jupyterhub.singleuser.extension import JupyterHubIdentityProvider
from tornado import web
from tornado.websocket import WebSocketHandler

from spawner.node.bounce import login_path
from spawner.node.place import Place
from spawner.node.presence import Presence
from spawner.node.visitors import ADMIN_GROUP, SETTING, Visitors


class PresenceIdentity(JupyterHubIdentityProvider):
    """Authenticates by the hub; one login for all nodes of the cluster."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.place = Place.read(os.environ)
        self.owner = os.environ.get("JUPYTERHUB_USER", "")
        self.presence = Presence()

    async def get_user(self, handler: Any) -> Any:
        fresh = not hasattr(handler, "_jupyterhub_user")
        user = await super().get_user(handler)
        if fresh and user is not None and not await self._is_at_home(user):
            return await self._visitor(handler, user)
        if fresh and user is not None and self.hub_auth.get_token(handler) != self.hub_auth.api_token:
            self.presence.seen(handler if isinstance(handler, WebSocketHandler) else None)
        return user

    async def _is_at_home(self, user: Any) -> bool:
        """Whether the whole node is open to somebody: to its owner, services of the hub, administrators."""
        model: dict[str, Any] = user.hub_user
        if model.get("kind", "user") != "user" or not self.owner or user.username == self.owner:
            return True
        app: Any = self.parent
        visitors: Visitors | None = app.web_app.settings.get(SETTING)
        granted = await visitors.told(user.username) if visitors is not None else None
        if granted is not None:
            return granted.whole
        # Nobody answers: as the hub has it, minutes old.
        return ADMIN_GROUP in model.get("groups", ())

    async def _visitor(self, handler: Any, user: Any) -> Any:
        """The person, where the handler lets visitors in by itself; nobody elsewhere, and no way to sign in."""
        if getattr(handler, "visitors_enter", False):
            return user

        def refuse(*args: Any, **kwargs: Any) -> None:
            raise web.HTTPError(403, f"{user.username} is not allowed.")

        handler.redirect = refuse
        handler._jupyterhub_user = None
        return None

    def _patch_get_login_url(self, handler: Any) -> None:
        if self.place.rank == 0:
            super()._patch_get_login_url(handler)
            return
        original = handler.get_login_url

        def get_login_url() -> str:
            original()  # an API handler raises 403 here instead of leading a script to a login page
            return login_path(self.place.prefix, self.place.rank, handler.request.uri)

        handler.get_login_url = get_login_url
