"""The component sheet: every part of the pages in every state, the reference for screenshots.

For administrators and developers; it shows nothing of anybody and offers nothing.
"""

from __future__ import annotations

from typing import Any

from galilean.web.handlers import PageHandler


class Components(PageHandler):
    """The sheet, in the theme of the page."""

    right = "clusters:read-all"

    async def get(self) -> None:
        await self.render_page("components.html")


def routes() -> list[tuple[str, type[Any]]]:
    """Addresses of this module, relative to the portal's prefix."""
    return [(r"/components", Components)]
