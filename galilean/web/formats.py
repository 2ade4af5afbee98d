"""How amounts and times look: pure functions, used as template filters and by the API's texts.

Durations ``00:41:12``; sizes with one decimal and a no-break space; numbers grouped; times relative, with
the exact one on hover in the visitor's zone (the browser fills it in, see ``static/js/times.js``).
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any

from markupsafe import Markup

from galilean.amounts import GIB, format_bytes, plain_number
from galilean.names import departed_name

NBSP = "\u00a0"


def duration(seconds: float | None) -> str:
    """``00:41:12``; hours grow beyond two digits."""
    whole = max(0, int(seconds or 0))
    return f"{whole // 3600:02d}:{whole // 60 % 60:02d}:{whole % 60:02d}"


def size(size_bytes: int | None) -> str:
    """``41.3 GB``."""
    return format_bytes(int(size_bytes or 0))


def gigabytes(size_bytes: int) -> str:
    """``8`` or ``0.5``: GB without the unit and without a decimal that says nothing."""
    return plain_number(round(size_bytes / GIB, 1))


def cores(millicores: int) -> str:
    """``2`` or ``0.5``: CPUs from milli-cores."""
    return plain_number(millicores / 1000)


def number(value: float, decimals: int = 0) -> str:
    """Grouped by thousands with a narrow no-break space, which both languages read alike."""
    return f"{value:,.{decimals}f}".replace(",", "\u202f")


def iso(moment: datetime) -> str:
    """UTC, to the second, as HTML's ``datetime`` wants it."""
    return f"{moment.astimezone(UTC).replace(tzinfo=None).isoformat(timespec='seconds')}Z"


def when(moment: datetime | None, style: str = "relative") -> Markup:
    """A ``<time>`` whose text the browser writes in the visitor's zone and language.

    Parameters
    ----------
    moment
        Aware time; ``None`` gives nothing.
    style
        ``relative`` ("3 min ago", exact on hover), ``clock`` (``18:00``), ``date`` or ``exact``.
    """
    if moment is None:
        return Markup("")
    at = iso(moment)
    text = f"{at[:10]} {at[11:16]} UTC"
    # Put together as it is, for tables have hundreds of them: there is nothing in it to escape.
    return Markup(f'<time datetime="{at}" data-style="{style}" title="{text}">{text}</time>')  # noqa: S704


def ticking(since: datetime | None, now: datetime) -> Markup:
    """Time held since a moment, going on by itself: ``<time data-since=…>00:41:12</time>``."""
    if since is None:
        return Markup('<span class="held-time">00:00:00</span>')
    text = duration((now - since).total_seconds())
    moment = f'data-since="{since.timestamp()}" datetime="{iso(since)}"'
    return Markup(f'<time class="held-time" {moment}>{text}</time>')  # noqa: S704 - as above


def growing(amount: float, per_second: float, now: datetime) -> Markup:
    """An amount that goes on by itself, such as core hours of what is held: ``<span data-per-second=…>0.42</span>``."""
    moment = f'data-amount="{amount:.6f}" data-per-second="{per_second:.9f}" data-at="{now.timestamp()}"'
    return Markup(f'<span class="growing" {moment}>{amount:.2f}</span>')  # noqa: S704 - numbers


_HUES = ("indigo", "blue", "teal", "green", "amber", "rose", "violet", "slate")


def hue(name: str) -> str:
    """A colour class of a person's initials: always the same for one name."""
    return _HUES[sum(name.encode()) % len(_HUES)]


def initials(name: str) -> str:
    """One or two letters for an avatar: ``maria.berg`` gives ``MB``, ``alice`` gives ``AL``, ``李伟`` gives ``李``."""
    parts = [part for part in re.split(r"[\s._@-]+", name) if part]
    if not parts:
        return "?"
    if ord(parts[0][0]) > 0x2E80:
        return parts[0][0]
    if len(parts) > 1:
        return (parts[0][0] + parts[1][0]).upper()
    return parts[0][:2].upper()


FILTERS: dict[str, Any] = {
    "duration": duration,
    "size": size,
    "gigabytes": gigabytes,
    "cores": cores,
    "number": number,
    "iso": iso,
    "when": when,
    "hue": hue,
    "initials": initials,
    "departed": departed_name,
}
