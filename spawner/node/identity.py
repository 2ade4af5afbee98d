"""The node's identity provider: JupyterHub's own, which also counts presence and sends workers' logins away.

``get_user`` is the one place that sees every request of the server after authentication, websockets at
their opening too. It runs for each of them, hence these few lines and no more. The node's own token is
not a person: programs in the node hold it.
"""

from __future__ import annotations

import os
from typing import Any

from jupyterhub.singleuser.extension import JupyterHubIdentityProvider
from tornado.websocket import WebSocketHandler

from spawner.node.bounce import login_path
from spawner.node.place import Place
from spawner.node.presence import Presence


class PresenceIdentity(JupyterHubIdentityProvider):
    """Authenticates by the hub; one login for all nodes of the cluster."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.place = Place.read(os.environ)
        self.presence = Presence()

    async def get_user(self, handler: Any) -> Any:
        fresh = not hasattr(handler, "_jupyterhub_user")
        user = await super().get_user(handler)
        if fresh and user is not None and self.hub_auth.get_token(handler) != self.hub_auth.api_token:
            self.presence.seen(handler if isinstance(handler, WebSocketHandler) else None)
        return user

    def _patch_get_login_url(self, handler: Any) -> None:
        if self.place.rank == 0:
            super()._patch_get_login_url(handler)
            return
        original = handler.get_login_url

        def get_login_url() -> str:
            original()  # an API handler raises 403 here instead of leading a script to a login page
            return login_path(self.place.prefix, self.place.rank, handler.request.uri)

        handler.get_login_url = get_login_url
