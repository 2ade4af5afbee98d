"""The search of everything: a page of its own, and for the box in the top bar its inside alone."""

from __future__ import annotations

from itertools import groupby
from typing import Any

from galilean.web.handlers import PageHandler
from services.portal.api.finding import EACH, GROUPS, find_all
from services.portal.pages.project_frame import said

ON_PAGE = 20


class Search(PageHandler):
    """What is found; nothing is asked of a query without a letter."""

    async def get(self) -> None:
        text = self.get_query_argument("q", "").strip()[:200]
        found = await find_all(self.portal, self.person, text, each=EACH if self.is_fragment else ON_PAGE)
        values: dict[str, Any] = {
            "text": text,
            "groups": [(name, list(items)) for name, items in groupby(found, key=lambda one: one.group)],
            "titles": GROUPS,
            "said": said,
            "in_panel": self.is_fragment,
        }
        if self.is_fragment:
            await self.render_fragment("found.html", **values)
        else:
            await self.render_page("search.html", **values)


def routes() -> list[tuple[str, type[Any]]]:
    """Addresses of this module, relative to the portal's prefix."""
    return [(r"/search", Search)]


ROUTES = routes()
