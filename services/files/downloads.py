"""Files and folders on their way to a browser.

All that is sent here was written by somebody: it goes as an attachment of opaque origin that no browser guesses
about, so that HTML in it never runs as a page of ours. Ranges go on where a download broke off, as long as the
file is the same. When the client goes, reading ends.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from email.utils import format_datetime
from urllib.parse import quote

from tornado.iostream import StreamClosedError

from galilean.web.csp import mark_untrusted
from galilean.web.handlers import BaseHandler
from services.files import ranges
from services.files.packing import Form, pack
from services.files.root import OpenFile, Root

PIECE_BYTES = 1 << 20
_TYPES: dict[Form, str] = {"zip": "application/zip", "tar": "application/x-tar", "tar.gz": "application/gzip"}


def attachment(name: str) -> str:
    """A ``Content-Disposition`` that survives any name (RFC 6266)."""
    plain = "".join(
        char if char.isascii() and char.isprintable() and char not in '"\\%/' else "_" for char in name
    )
    shown = name.encode("utf-8", "replace").decode()
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(shown, safe='')}"


async def send_file(handler: BaseHandler, opened: OpenFile) -> None:
    """Answer GET or HEAD with a file, or the part of it that was asked for; closes it.

    200, 206, 304 or 416. What is cut short while it is sent ends the connection, so that the client knows.
    """
    headers = handler.request.headers
    with opened:
        size, changed_at = opened.entry.size_bytes, opened.entry.changed_at
        mark_untrusted(handler)
        handler.set_header("Content-Type", "application/octet-stream")
        handler.set_header("Content-Disposition", attachment(opened.entry.name))
        handler.set_header("Accept-Ranges", "bytes")
        handler.set_header("ETag", opened.etag)
        handler.set_header("Last-Modified", format_datetime(changed_at.replace(microsecond=0), usegmt=True))
        if ranges.has(
            headers.get("If-None-Match"), headers.get("If-Modified-Since"), opened.etag, changed_at
        ):
            handler.set_status(304)
            return
        first, length = 0, size
        if handler.request.method == "GET" and ranges.unchanged(
            headers.get("If-Range"), opened.etag, changed_at
        ):
            try:
                span = ranges.asked(headers.get("Range"), size)
            except ranges.Unsatisfiable:
                handler.set_status(416)
                handler.set_header("Content-Range", f"bytes */{size}")
                return
            if span is not None:
                first, length = span.first, span.length_bytes
                handler.set_status(206)
                handler.set_header("Content-Range", f"bytes {first}-{first + length - 1}/{size}")
        handler.set_header("Content-Length", str(length))
        if handler.request.method == "HEAD":
            return
        if first:
            await handler.in_files(opened.seek, first)
        left = length
        while left > 0:
            piece = await handler.in_files(opened.read, min(PIECE_BYTES, left))
            if not piece:
                break  # it was cut short meanwhile; the length tells the client
            left -= len(piece)
            try:
                handler.write(piece)
                await handler.flush()
            except StreamClosedError:
                return


async def send_packed(handler: BaseHandler, root: Root, chosen: Iterable[str], form: Form, name: str) -> None:
    """Answer GET with an archive of some things of a tree, made while it is sent.

    Parameters
    ----------
    handler
        Of the request.
    root
        The tree.
    chosen
        Paths in it.
    form
        Of the archive.
    name
        Of the archive, without its ending.
    """
    pieces = pack(root, list(chosen), form)
    try:
        piece = await handler.in_files(next, pieces, b"")  # what is not there is said before anything is sent
        mark_untrusted(handler)
        handler.set_header("Content-Type", _TYPES[form])
        handler.set_header("Content-Disposition", attachment(f"{name}.{form}"))
        while piece:
            try:
                handler.write(piece)
                await handler.flush()
            except StreamClosedError:
                return
            piece = await handler.in_files(next, pieces, b"")
    finally:
        await handler.in_files(_close, pieces)


def _close(pieces: Iterator[bytes]) -> None:
    pieces.close()  # type: ignore[attr-defined]
