"""People's mail addresses, for a service that writes to them (``POST /hub/api/galilean/addresses``).

The one that counts is the one that was given last, on a page or with an account, else at sign-up; the latter
stands in the hub's database, which nobody else reads. Whoever asks needs the scope ``custom:galilean:addresses``, which only services have.
"""

from __future__ import annotations

from typing import Any

from jupyterhub.apihandlers.base import APIHandler
from tornado import web

from hub_config.roles import ADDRESSES_SCOPE
from services.people import store

NAMES_MOST = 1000


class AddressesAPIHandler(APIHandler):
    """Names in, ``{name: address}`` out; who has given none is left out."""

    def initialize(self, wiring: Any) -> None:
        self.wiring = wiring

    async def post(self) -> None:
        # Not by needs_scope, which wants to know the scope before the configuration has made it.
        if ADDRESSES_SCOPE not in self.expanded_scopes:
            raise web.HTTPError(
                403, f"Action is not authorized with current scopes; requires {ADDRESSES_SCOPE}"
            )
        body: Any = self.get_json_body() or {}
        names = body.get("names") if isinstance(body, dict) else None
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise web.HTTPError(400, "names must be a list")
        if len(names) > NAMES_MOST:
            raise web.HTTPError(400, f"at most {NAMES_MOST} names at once")
        look: Any = getattr(self.authenticator, "address_of", lambda name: "")
        ours = await self.wiring.database.run_read(store.mails, names)
        found = {name: ours.get(name) or look(name) for name in names}
        self.finish({name: address for name, address in found.items() if address})
