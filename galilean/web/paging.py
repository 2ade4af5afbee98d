"""Lists by cursor: ``{"items": […], "next": cursor or null}`` (design §8).

A cursor is opaque to its holder: the sort key of the last item shown. It survives rows that come and go
while somebody pages, which page numbers do not.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from galilean.errors import UserError, mark

T = TypeVar("T")

PAGE_SIZE = 50
PAGE_MOST = 200


class Cursor:
    """Cursors as text: URL-safe, made of plain JSON values."""

    @staticmethod
    def encode(*key: Any) -> str:
        """A cursor from a sort key (strings, numbers, None)."""
        raw = json.dumps(key, separators=(",", ":"), ensure_ascii=False).encode()
        return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()

    @staticmethod
    def decode(text: str, length: int) -> tuple[Any, ...]:
        """The sort key of a cursor.

        Raises
        ------
        UserError
            400 when it is not one of ours.
        """
        try:
            raw = base64.urlsafe_b64decode(text.encode("ascii") + b"=" * (-len(text) % 4))
            key = json.loads(raw)
        except (ValueError, binascii.Error, UnicodeError):
            key = None
        if (
            not isinstance(key, list)
            or len(key) != length
            or not all(part is None or isinstance(part, str | int | float) for part in key)
        ):
            raise UserError(400, mark("This page of the list cannot be found. Begin at the first page."))
        return tuple(key)


@dataclass(frozen=True)
class Page(Generic[T]):
    """One page of a list and where the next begins (``None`` = it was the last)."""

    items: Sequence[T]
    next: str | None = None


def cut(rows: Sequence[T], limit: int, key: Callable[[T], tuple[Any, ...]]) -> Page[T]:
    """A page from ``limit + 1`` rows: the one too many only tells that there are more."""
    if len(rows) <= limit:
        return Page(rows, None)
    shown = rows[:limit]
    return Page(shown, Cursor.encode(*key(shown[-1])))
