"""Which part of a file a request asks for (RFC 9110, 14.2): pure.

One range is answered; of several the whole is sent, which the standard allows and no honest client minds: a
multipart answer would let one small request ask for a file many times over.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

_ONE = re.compile(r"bytes\s*=\s*(\d{0,18})\s*-\s*(\d{0,18})\s*")


@dataclass(frozen=True)
class Span:
    """``length_bytes`` from ``first`` on."""

    first: int
    length_bytes: int


class Unsatisfiable(Exception):
    """Nothing of what is asked for is there: 416."""


def asked(header: str | None, size_bytes: int) -> Span | None:
    """The part that ``Range`` asks for; ``None`` = the whole.

    Raises
    ------
    Unsatisfiable
        When it begins after the end.
    """
    found = _ONE.fullmatch(header.strip()) if header else None
    if found is None or not (found[1] or found[2]):
        return None
    if not found[1]:
        length = min(int(found[2]), size_bytes)
        if length == 0:
            raise Unsatisfiable
        return Span(size_bytes - length, length)
    first = int(found[1])
    last = min(int(found[2]), size_bytes - 1) if found[2] else size_bytes - 1
    if found[2] and int(found[2]) < first:
        return None  # no range at all, so it is as if there were none
    if first >= size_bytes:
        raise Unsatisfiable
    return Span(first, last - first + 1)


def unchanged(if_range: str | None, etag: str, changed_at: datetime) -> bool:
    """Whether a part still fits to what the client has; if not, it gets the whole."""
    if if_range is None:
        return True
    if if_range.startswith(('"', "W/")):
        return if_range == etag and not etag.startswith("W/")
    return _date(if_range) == changed_at.replace(microsecond=0)


def has(if_none_match: str | None, if_modified_since: str | None, etag: str, changed_at: datetime) -> bool:
    """Whether the client has what it asks for (304)."""
    if if_none_match is not None:
        tags = {tag.strip().removeprefix("W/") for tag in if_none_match.split(",")}
        return "*" in tags or etag.removeprefix("W/") in tags
    since = _date(if_modified_since or "")
    return since is not None and changed_at.replace(microsecond=0) <= since


def _date(text: str) -> datetime | None:
    try:
        found = parsedate_to_datetime(text)
    except (TypeError, ValueError):
        return None
    return found if found.tzinfo else found.replace(tzinfo=UTC)
