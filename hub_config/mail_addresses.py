"""People's mail addresses, for a service that writes to them (``POST /hub/api/galilean/addresses``).

They were given at sign-up and stand in the hub's database, which nobody else reads. Whoever asks needs the
scope ``custom:galilean:addresses``, which only services have.
"""

from __future__ import annotations

from typing import Any

from jupyterhub.apihandlers.base import APIHandler
from tornado import web

from hub_config.roles import ADDRESSES_SCOPE

NAMES_MOST = 1000


class AddressesAPIHandler(APIHandler):
    """Names in, ``{name: address}`` out; who has given none is left out."""

    def post(self) -> None:
        # Not by needs_scope, which wants to know the scope before the configuration has made it.
        if ADDRESSES_SCOPE not in self.expanded_scopes:
            raise web.HTTPError(
                403, f"Action is not authorized with current scopes; requires {ADDRESSES_SCOPE}"
            )
        body: Any = self.get_json_body() or {}
        names = body.get("names")
        if not isinstance(names, list) or len(names) > NAMES_MOST:
            raise web.HTTPError(400, "names must be a list")
        look: Any = getattr(self.authenticator, "address_of", lambda name: "")
        found = {str(name): look(str(name)) for name in names}
        self.finish({name: address for name, address in found.items() if address})
