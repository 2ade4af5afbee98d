"""Covers of projects and data sets: small images, taken apart and put together again before anybody sees them.

A cover is a PNG or JPEG of 280×157 or twice that; pages crop it in the browser, so that a photograph of 20 MB never
travels. What arrives is read part by part and written anew with nothing but the picture in it: of a PNG header,
palette, transparency and pixels (which are unpacked and packed again), of a JPEG its tables and scans. Comments, profiles,
places where a photograph was taken, and whatever else hides behind a picture's first bytes are gone. SVG is a
program, and never taken.

Images are kept by their content in our database: a fork shows the same one, a backup has them, and moving files
to another volume leaves them alone.
"""

from __future__ import annotations

import hashlib
import re
import struct
import zlib
from collections.abc import Sequence
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, Connection, delete, exists, insert, select, update
from sqlalchemy.exc import IntegrityError

from galilean.errors import UserError, mark
from services.catalog.tables import covers, datasets, projects

WIDTH, HEIGHT = 280, 157
SIZES = ((WIDTH, HEIGHT), (2 * WIDTH, 2 * HEIGHT))
MOST_BYTES = 1 << 20
#: An image that nothing shows is kept so long: it may have been uploaded for what is saved in a moment.
UNUSED_KEPT = timedelta(days=1)
NAME = re.compile(r"[0-9a-f]{32}\.(?:png|jpg)", re.ASCII)
TYPES = {"png": "image/png", "jpg": "image/jpeg"}

_PNG = b"\x89PNG\r\n\x1a\n"
_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
_JPEG_KEPT = frozenset({0xC0, 0xC1, 0xC2, 0xC4, 0xDB, 0xDD})


def clean(data: bytes) -> tuple[bytes, str]:
    """The same picture with nothing else in it, and the ending of its name.

    Raises
    ------
    UserError
        400 for what is no such picture, or of another size; 413 when it is too large.
    """
    if len(data) > MOST_BYTES:
        raise UserError(413, mark("The image is too large: at most {most} kB."), most=MOST_BYTES // 1024)
    try:
        if data.startswith(_PNG):
            return _png(data), "png"
        if data.startswith(b"\xff\xd8\xff"):
            return _jpeg(data), "jpg"
    except (struct.error, IndexError, zlib.error) as error:
        raise _no_picture() from error
    raise _no_picture()


def _no_picture() -> UserError:
    return UserError(400, mark("This is no PNG or JPEG image that can be read. Choose another."))


def _check_size(width: int, height: int) -> None:
    if (width, height) not in SIZES:
        raise UserError(
            400,
            mark(
                "A cover has {width} × {height} pixels, or twice that; this image has {has_width} × {has_height}."
            ),
            width=WIDTH,
            height=HEIGHT,
            has_width=width,
            has_height=height,
        )


def _png(data: bytes) -> bytes:
    at, header, palette, alpha, packed = len(_PNG), b"", b"", b"", []
    while at < len(data):
        length, kind = struct.unpack(">I4s", data[at : at + 8])
        body = data[at + 8 : at + 8 + length]
        (crc,) = struct.unpack(">I", data[at + 8 + length : at + 12 + length])
        if len(body) != length or zlib.crc32(kind + body) != crc:
            raise _no_picture()
        at += 12 + length
        if kind == b"IHDR":
            header = body
        elif kind == b"PLTE":
            palette = body
        elif kind == b"tRNS":
            alpha = body
        elif kind == b"IDAT":
            packed.append(body)
        elif kind == b"IEND":
            break
        elif kind in (b"acTL", b"fcTL", b"fdAT"):
            raise _no_picture()  # moving pictures
    width, height, depth, colour, method, filtered, interlaced = struct.unpack(">IIBBBBB", header)
    _check_size(width, height)
    if (
        colour not in _CHANNELS
        or depth not in (1, 2, 4, 8, 16)
        or (method, filtered, interlaced) != (0, 0, 0)
    ):
        raise _no_picture()
    row = 1 + (width * _CHANNELS[colour] * depth + 7) // 8
    unpacking = zlib.decompressobj()
    pixels = unpacking.decompress(b"".join(packed), row * height + 1)
    if len(pixels) != row * height or any(pixels[i] > 4 for i in range(0, len(pixels), row)):
        raise _no_picture()
    if (colour == 3) != bool(palette) and colour == 3:
        raise _no_picture()
    parts = [(b"IHDR", header)]
    if palette and len(palette) % 3 == 0 and len(palette) <= 768:
        parts.append((b"PLTE", palette))
    if alpha and len(alpha) <= 256:
        parts.append((b"tRNS", alpha))
    parts += [(b"IDAT", zlib.compress(pixels, 9)), (b"IEND", b"")]
    return _PNG + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in parts
    )


def _jpeg(data: bytes) -> bytes:
    out, at, sized = bytearray(b"\xff\xd8"), 2, False
    while True:
        if data[at] != 0xFF:
            raise _no_picture()
        kind = data[at + 1]
        at += 2
        if kind == 0xFF:  # fill
            at -= 1
            continue
        if kind == 0xD9:
            break
        (length,) = struct.unpack(">H", data[at : at + 2])
        body = data[at : at + length]
        if length < 2 or len(body) != length:
            raise _no_picture()
        at += length
        if kind in (0xC0, 0xC1, 0xC2):
            height, width = struct.unpack(">HH", body[3:7])
            _check_size(width, height)
            sized = True
        if kind in _JPEG_KEPT:
            out += b"\xff" + bytes([kind]) + body
        elif kind == 0xDA:
            if not sized:
                raise _no_picture()
            end = at
            while True:  # the scan: up to a mark that is neither a stuffed 0 nor a restart
                end = data.find(b"\xff", end)
                if end < 0 or end + 1 >= len(data):
                    raise _no_picture()
                if data[end + 1] == 0 or 0xD0 <= data[end + 1] <= 0xD7:
                    end += 2
                    continue
                break
            out += b"\xff\xda" + body + data[at:end]
            at = end
        elif not (0xE0 <= kind <= 0xEF or kind == 0xFE):
            raise _no_picture()
    if not sized:
        raise _no_picture()
    return bytes(out) + b"\xff\xd9"


# ------------------------------------------------------------------------------------------- in the database


def keep(conn: Connection, data: bytes, *, now: datetime) -> str:
    """Keep a picture that :func:`clean` made; the name under which it is fetched."""
    ending = "png" if data.startswith(_PNG) else "jpg"
    name = f"{hashlib.blake2s(data, digest_size=16).hexdigest()}.{ending}"
    done = conn.execute(update(covers).where(covers.c.name == name).values(used_at=now)).rowcount
    if not done:
        try:
            with conn.begin_nested():
                conn.execute(insert(covers).values(name=name, data=data, used_at=now))
        except IntegrityError:  # the same picture, a moment ago
            pass
    return name


def get(conn: Connection, name: str) -> bytes | None:
    """The picture of this name."""
    if not NAME.fullmatch(name):
        return None
    return conn.execute(select(covers.c.data).where(covers.c.name == name)).scalar()


def type_of(name: str) -> str:
    """Its media type."""
    return TYPES[name.rpartition(".")[2]]


def sweep(conn: Connection, *, now: datetime, also: Sequence[ColumnElement[bool]] = ()) -> int:
    """Forget pictures that nothing has shown for a day; how many. ``also`` tells where else one may be shown."""
    shown = [
        exists().where(table.c.cover == covers.c.name, table.c.purged_at.is_(None))
        for table in (projects, datasets)
    ]
    return conn.execute(
        delete(covers).where(covers.c.used_at < now - UNUSED_KEPT, *(~one for one in (*shown, *also)))
    ).rowcount
