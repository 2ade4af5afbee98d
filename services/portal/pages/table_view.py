"""What the address of a page with one table says: search, filters, order, and where the page begins.

So a view can be sent as a link, and goes back and forth with the browser's history.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self
from urllib.parse import urlencode

OFFSET_MOST = 100_000


@dataclass(frozen=True, kw_only=True)
class TableView:
    """What the address asks for; unknown values fall back to what shows more.

    A page's own class gives ``sort`` and ``descending`` the order that it begins with, and adds its filters.
    """

    text: str = ""
    pool: str = ""
    sort: str = ""
    descending: bool = False
    offset: int = 0

    #: Columns that can be sorted by, and those of them that hold words: these begin with a.
    sorts: ClassVar[tuple[str, ...]] = ()
    words_in: ClassVar[tuple[str, ...]] = ()

    @classmethod
    def parse(cls, query: dict[str, str]) -> Self:
        """A view from the query of an address."""
        order = query.get("sort", "")
        sort, descending = order.removeprefix("-"), order.startswith("-")
        if sort not in cls.sorts:
            sort, descending = cls.sort, cls.descending
        offset = query.get("from", "0")
        return cls(
            text=query.get("q", "").strip()[:100],
            pool=query.get("pool", "")[:64],
            sort=sort,
            descending=descending,
            offset=min(int(offset), OFFSET_MOST) if offset.isascii() and offset.isdigit() else 0,
            **cls.parse_filters(query),
        )

    @classmethod
    def parse_filters(cls, query: dict[str, str]) -> dict[str, str]:
        """The page's own fields from the query."""
        return {}

    def filters(self) -> dict[str, str]:
        """The page's own fields, as the query names them."""
        return {}

    def query(self, **changes: Any) -> str:
        """The query of this view with some things changed; defaults are left out. Goes back to the top."""
        view = replace(self, **{"offset": 0, **changes})
        first = (view.sort, view.descending) == (type(self).sort, type(self).descending)
        values = {
            "q": view.text,
            "pool": view.pool,
            **view.filters(),
            "sort": "" if first else ("-" if view.descending else "") + view.sort,
            "from": str(view.offset) if view.offset else "",
        }
        return urlencode({key: value for key, value in values.items() if value})

    def sorted_by(self, key: str) -> str:
        """The query after a click on a column's head."""
        descending = not self.descending if key == self.sort else key not in self.words_in
        return self.query(sort=key, descending=descending)
