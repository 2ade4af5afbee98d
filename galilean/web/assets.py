"""Static files: addressed by their content, so that a browser keeps them for a year and never a stale one.

Three sources, one address space: our own (``galilean/web/static``), what npm brought
(``static/vendor``, made by ``npm run build``), and the hub's Bootstrap (``hub/…``), served by the portal
too, so that a page of ours needs no other origin.
"""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from markupsafe import Markup
from tornado.web import HTTPError, StaticFileHandler

STATIC = Path(__file__).parent / "static"
ICONS = STATIC / "vendor" / "icons"
LOOK_AGAIN_SECONDS = 5.0
_NAME = re.compile(r"[a-z0-9-]+")


class Assets:
    """Addresses and places of static files.

    Parameters
    ----------
    roots
        Prefix of the name → directory; the longest prefix that fits wins, ``""`` is our own.
    monotonic
        Seconds that never go back: a file is looked at again after a few.
    """

    def __init__(self, roots: dict[str, Path], monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self.roots = dict(sorted(roots.items(), key=lambda item: -len(item[0])))
        self._hashes: dict[str, tuple[float, int, str]] = {}
        self._icons: dict[str, str] = {}

    def add(self, prefix: str, root: Path) -> None:
        """Files of a room: ``prefix`` of the name → its directory."""
        self.roots = dict(sorted({**self.roots, prefix: root}.items(), key=lambda item: -len(item[0])))

    def find(self, name: str) -> Path | None:
        """The file behind a name, ``None`` when there is none (or when it points outside its root)."""
        for prefix, root in self.roots.items():
            if name.startswith(prefix):
                path = (root / name[len(prefix) :]).resolve()
                if path.is_relative_to(root.resolve()) and path.is_file():
                    return path
        return None

    def hash(self, name: str) -> str:
        """Ten characters that change with the content; empty for an unknown file."""
        now = self._monotonic()
        known = self._hashes.get(name)
        if known is None or now - known[0] > LOOK_AGAIN_SECONDS:
            path = self.find(name)
            if path is None:
                return ""
            stamp = path.stat().st_mtime_ns
            if known is None or known[1] != stamp:
                known = (now, stamp, hashlib.blake2b(path.read_bytes(), digest_size=5).hexdigest())
            known = (now, *known[1:])
            self._hashes[name] = known
        return known[2]

    def url(self, prefix: str, name: str) -> str:
        """``<prefix>theme.css?v=0123456789``."""
        value = self.hash(name)
        return f"{prefix}{name}?v={value}" if value else f"{prefix}{name}"

    def icon(self, name: str, label: str = "") -> Markup:
        """An icon as inline SVG: hidden from screen readers unless it has a label."""
        if name not in self._icons:
            path = ICONS / f"{name}.svg"
            if not _NAME.fullmatch(name) or not path.is_file():
                raise LookupError(
                    f"no icon {name!r}: add it to scripts/build_assets.mjs and run npm run build"
                )
            inner = re.sub(r"^.*?<svg[^>]*>|</svg>\s*$", "", path.read_text(), flags=re.DOTALL).strip()
            self._icons[name] = inner
        words = (
            Markup('role="img" aria-label="{}"').format(label)
            if label
            else Markup('aria-hidden="true" focusable="false"')
        )
        return Markup('<svg class="icon" viewBox="0 0 16 16" fill="currentColor" {}>{}</svg>').format(
            words,
            Markup(self._icons[name]),  # noqa: S704 - a file of ours, found by a checked name
        )


class AssetHandler(StaticFileHandler):
    """Serves :class:`Assets`: a year and immutable when the address carries the right hash, else checked."""

    def initialize(self, assets: Assets) -> None:  # type: ignore[override]
        self.assets = assets
        super().initialize(path=str(STATIC))

    @classmethod
    def get_absolute_path(cls, root: str, path: str) -> str:
        return path

    async def get(self, path: str, include_body: bool = True) -> None:
        self.wanted = path
        await super().get(path, include_body)

    def validate_absolute_path(self, root: str, absolute_path: str) -> str | None:
        found = self.assets.find(absolute_path.lstrip("/"))
        if found is None:
            raise HTTPError(404)
        return str(found)

    def set_extra_headers(self, path: str) -> None:
        asked = self.get_query_argument("v", "")
        if asked and asked == self.assets.hash(self.wanted):
            self.set_header("Cache-Control", "public, max-age=31536000, immutable")
        else:
            self.set_header("Cache-Control", "no-cache")
        self.set_header("X-Content-Type-Options", "nosniff")
        # The hub's pages fetch these from another origin when the portal has one of its own.
        self.set_header("Access-Control-Allow-Origin", "*")

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        self.set_header("Content-Type", "text/plain; charset=utf-8")
        self.finish(f"{status_code}")
