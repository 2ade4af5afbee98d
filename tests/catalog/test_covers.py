"""Covers: what comes out is the picture alone, whatever came in."""

from __future__ import annotations

import struct
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from galilean.errors import UserError
from services.catalog.covers import HEIGHT, MOST_BYTES, WIDTH, clean
from services.portal import drawn


def segment(kind: int, body: bytes) -> bytes:
    return b"\xff" + bytes([kind]) + struct.pack(">H", len(body) + 2) + body


def jpeg(width: int = WIDTH, height: int = HEIGHT, *, more: bytes = b"", after: bytes = b"") -> bytes:
    frame = segment(0xC0, struct.pack(">BHHB", 8, height, width, 1) + b"\x01\x11\x00")
    scan = segment(0xDA, b"\x01\x01\x00\x00\x3f\x00") + b"abc\xff\x00def\xff\xd0ghi"
    return b"\xff\xd8" + more + segment(0xDB, b"\x00" * 65) + frame + scan + b"\xff\xd9" + after


def part(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(*parts: bytes, width: int = WIDTH, height: int = HEIGHT, rows: int | None = None) -> bytes:
    pixels = zlib.compress((b"\0" + b"\1\2\3" * width) * (height if rows is None else rows))
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    whole = part(b"IHDR", header), *parts, part(b"IDAT", pixels), part(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(whole)


def test_what_hides_in_a_photograph_is_gone_and_cleaning_twice_changes_nothing() -> None:
    place = segment(0xE1, b"Exif\0\0GPS secret") + segment(0xFE, b"<script>")
    cleaned, ending = clean(jpeg(more=place, after=b"<?php secret ?>"))
    assert ending == "jpg"
    assert b"secret" not in cleaned
    assert b"script" not in cleaned
    assert b"abc\xff\x00def\xff\xd0ghi" in cleaned
    assert clean(cleaned) == (cleaned, "jpg")


class Counted(bytes):
    """Counts what is copied out of it."""

    copied = 0

    def __getitem__(self, key):
        found = super().__getitem__(key)
        if isinstance(key, slice):
            Counted.copied += len(found)
        return found


def test_a_scan_of_nothing_but_marks_is_read_once() -> None:
    whole = jpeg().replace(b"abc", b"\xff\x00" * 50_000)
    Counted.copied = 0
    assert clean(Counted(whole)) == (whole, "jpg")
    assert Counted.copied <= 2 * len(whole)
    with pytest.raises(UserError):
        clean(whole[:-2])


def test_of_a_png_the_pixels_stay() -> None:
    cleaned, ending = clean(png(part(b"tEXt", b"secret"), part(b"iCCP", b"secret")) + b"secret")
    assert ending == "png"
    assert b"secret" not in cleaned
    assert clean(cleaned) == (cleaned, "png")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"<svg/>",
        b"GIF89a",
        jpeg(281),
        jpeg(1, 1),
        jpeg()[:-40],
        b"\xff\xd8\xff",
        jpeg(more=segment(0xCF, b"x" * 20)),
        png(width=281),
        png(rows=HEIGHT - 1),
        png(rows=HEIGHT + 9000),
        png()[:-30],
        png().replace(b"IDAT", b"IDAX"),
        png(part(b"acTL", b"12345678")),
        b"\x89PNG\r\n\x1a\n" + part(b"IEND", b""),
        b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 2**31) + b"IHDR",
    ],
)
def test_what_is_no_such_picture_is_refused(data: bytes) -> None:
    with pytest.raises(UserError) as refused:
        clean(data)
    assert refused.value.status == 400


def test_too_much_is_refused_before_it_is_read() -> None:
    with pytest.raises(UserError) as refused:
        clean(b"\xff\xd8\xff" + b"\0" * MOST_BYTES)
    assert refused.value.status == 413


@given(st.binary(max_size=400), st.sampled_from([b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b""]))
def test_whatever_comes_is_a_picture_or_refused(data: bytes, begins: bytes) -> None:
    try:
        cleaned, _ = clean(begins + data)
    except UserError:
        return
    assert clean(cleaned)[0] == cleaned


@given(st.text(max_size=20), st.text(max_size=30))
def test_every_thing_has_a_drawn_cover(field: str, item_id: str) -> None:
    picture = drawn.draw(drawn.name_of(field, item_id))
    assert picture is not None
    assert picture.startswith("<svg")


@pytest.mark.parametrize("name", ["", "ai-12.svg", "ai-1.png", "../ai-1.svg", "evil-1.svg", "ai-.svg"])
def test_no_other_picture_is_drawn(name: str) -> None:
    assert drawn.draw(name) is None
