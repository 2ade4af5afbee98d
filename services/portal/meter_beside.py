"""The live meter on the hub's own pages, which are not the portal's: tokens, the hub's panel, messages (BX-4).

The hub does nothing for it, and is no slower: the page asks the portal, by a stream that carries the meter as it is
to be shown, at once and whenever something changes. It looks and changes nothing, and leads to the portal, where
things are extended and released: a page of another origin has no token for that.

The hub's page has the portal's cookie, but not its XSRF token, and with hosts of their own another origin. So this
one address is open to the hub's origin and to our own, and to nobody else: a page of somebody's node, which the
browser counts as the same site, is refused like anybody without a token.
"""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import urlsplit

from galilean.web.handlers import PageHandler
from galilean.web.jinja import portal_public_url
from services.portal.events import Stream
from services.portal.frame import meter_values
from services.portal.held import mine_of, read_mine

EVENT = "clusters"


class MeterBeside(Stream, PageHandler):
    """``/meter-beside``: server-sent events whose data is the meter's HTML as JSON."""

    def set_default_headers(self) -> None:
        super().set_default_headers()
        if self.portal.hub_host:
            self.set_header("Vary", "Origin")
        if self._from_hub():
            self.set_header("Access-Control-Allow-Origin", self.request.headers["Origin"])
            self.set_header("Access-Control-Allow-Credentials", "true")

    def _from_hub(self) -> bool:
        """Whether a page of the hub asks, from an origin of its own."""
        origin = self.request.headers.get("Origin", "")
        return bool(self.portal.hub_host) and urlsplit(origin)[:2] == urlsplit(self.portal.hub_host)[:2]

    def check_xsrf_cookie(self) -> None:
        if self._from_hub() or self.request.headers.get("Sec-Fetch-Site") == "same-origin":
            return
        super().check_xsrf_cookie()

    @property
    def is_fragment(self) -> bool:
        """Whoever has not signed in to the portal is told so, not sent through the hub."""
        return True

    async def told(self, name: str) -> str:
        portal = self.portal
        mine = mine_of(portal, await portal.db.run_read(read_mine, portal, self.person.name))
        values = {
            **self.base_namespace(),
            **await meter_values(self, mine),
            "home": portal_public_url(portal.settings),
        }
        return json.dumps(portal.jinja.get_template("meter_beside.html").render(values).strip())

    async def get(self) -> None:
        await self.stream(frozenset({EVENT}), first=(EVENT,))


def routes() -> list[tuple[str, type[Any]]]:
    """Addresses of this module, relative to the portal's prefix."""
    return [(r"/meter-beside", MeterBeside)]
