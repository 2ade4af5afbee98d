"""A layer read once, front to back, in bounded memory, with the bytes of every header kept.

A layer is a tar archive of some gigabytes that whoever was root in a container wrote: it is read as hostile.
Three decisions look at it (what secrets are in it, what changed, what must not stay in it), and the last must
give back what it keeps byte by byte; ``tarfile`` parses a header into an object and writes it anew, which
loses that. So this reader knows just enough of the format: ustar, GNU long names and sparse files, PAX records.

What is promised: no more is held than one block of data and one header, however large a file or a name is told
to be; more bytes than ``limit_bytes`` after unpacking end the reading (a bomb), and so do more than
``limit_entries`` entries; a name that climbs out of the root, a size below zero, a wrong checksum and an archive
that breaks off are refused. Names are bytes with no promised encoding: they are decoded with ``surrogateescape``,
so that every name survives.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import BinaryIO

from galilean.errors import UserError, mark

BLOCK = 512
CHUNK_BYTES = 1 << 20
#: Long names and PAX records together, per entry; attributes and access lists fit many times.
HEADER_MOST_BYTES = 1 << 20
LIMIT_BYTES = 64 << 30
LIMIT_ENTRIES = 5_000_000

HARD_LINK, SYMLINK, DIRECTORY = b"1", b"2", b"5"
#: Kinds whose data is a file's content: regular (new, old), contiguous, GNU sparse.
FILES = frozenset((b"0", b"\0", b"7", b"S"))
_NO_DATA = frozenset((HARD_LINK, SYMLINK, b"3", b"4", DIRECTORY, b"6"))


def broken(what: str) -> UserError:
    """The refusal of an archive that cannot be read; ``what`` is a technical word, not translated."""
    return UserError(
        422, mark("This layer cannot be read as a tar archive: {what}."), reason="layer", what=what
    )


def zstd() -> UserError:
    """The refusal of a layer whose packing is not read here, and what to do."""
    return UserError(
        422,
        mark(
            "The image has layers packed by zstd; only gzip is read here. Copy it with gzip layers, by "
            "“skopeo copy --dest-compress-format gzip --dest-force-compress-format” or by docker buildx with "
            "“compression=gzip,force-compression=true”, then try again."
        ),
        reason="layer-zstd",
    )


def need_readable(media_types: Iterable[str]) -> None:
    """Refuse an image by what its manifest says of its layers, before any of them is fetched or read.

    Raises
    ------
    UserError
        422.
    """
    if any(one.endswith("+zstd") for one in media_types):
        raise zstd()


class Source:
    """Bytes of a layer in order, unpacked where they are packed by gzip.

    Parameters
    ----------
    stream
        Opened at the layer's beginning; only ``read`` is used.
    limit_bytes
        More than this after unpacking is refused.
    watch
        Is given each block of unpacked bytes once, in order: every byte of the archive, names included.
    """

    def __init__(
        self,
        stream: BinaryIO,
        *,
        limit_bytes: int = LIMIT_BYTES,
        watch: Callable[[bytes], None] | None = None,
    ) -> None:
        self._stream = stream
        self._limit = limit_bytes
        self._watch = watch
        self._held = b""
        self._at = 0
        self._begun = False
        self._packed: bytes = b""
        self._unpacker: zlib._Decompress | None = None
        self._seen = 0
        self.offset = 0

    def _begin(self) -> bytes:
        self._begun = True
        first = self._stream.read(CHUNK_BYTES)
        while 0 < len(first) < 4 and (more := self._stream.read(CHUNK_BYTES)):
            first += more
        if first[:4] == b"\x28\xb5\x2f\xfd":
            raise zstd()
        if first[:2] == b"\x1f\x8b":
            self._unpacker, self._packed = zlib.decompressobj(31), first
            return self._unpack()
        return first

    def _unpack(self) -> bytes:
        assert self._unpacker is not None
        while True:
            if self._unpacker.eof:  # several members one after another are one file
                rest = self._unpacker.unused_data or self._stream.read(CHUNK_BYTES)
                if not rest.strip(b"\0"):
                    return b""
                self._unpacker, self._packed = zlib.decompressobj(31), rest
            if not self._packed:
                self._packed = self._stream.read(CHUNK_BYTES)
                if not self._packed:
                    raise broken("gzip ends early")
            try:
                out = self._unpacker.decompress(self._packed, CHUNK_BYTES)
            except zlib.error as error:
                raise broken("gzip") from error
            self._packed = self._unpacker.unconsumed_tail
            if out:
                return out

    def _next(self) -> bytes:
        if not self._begun:
            block = self._begin()
        else:
            block = self._unpack() if self._unpacker else self._stream.read(CHUNK_BYTES)
        self._seen += len(block)
        if self._seen > self._limit:
            raise UserError(
                413,
                mark("This layer unpacks to more than {limit} bytes, which is the most that is taken."),
                reason="layer-size",
                limit=self._limit,
            )
        if block and self._watch:
            self._watch(block)
        return block

    def some(self, most: int) -> bytes:
        """Between 1 and ``most`` bytes; empty at the end."""
        if self._at >= len(self._held):
            self._held, self._at = self._next(), 0
        part = self._held[self._at : self._at + most]
        self._at += len(part)
        self.offset += len(part)
        return part

    def exactly(self, count: int) -> bytes:
        """``count`` bytes, or a refusal."""
        if self._at + count <= len(self._held):
            return self.some(count)
        parts: list[bytes] = []
        while count:
            part = self.some(count)
            if not part:
                raise broken("ends early")
            parts.append(part)
            count -= len(part)
        return b"".join(parts)

    def skip(self, count: int) -> None:
        """Go past ``count`` bytes without holding them."""
        while count:
            here = min(count, len(self._held) - self._at)
            if here:
                self._at += here
                self.offset += here
            elif self.some(1):
                here = 1
            else:
                raise broken("ends early")
            count -= here

    def rest(self) -> Iterator[bytes]:
        """What follows the last entry, to the end."""
        while part := self.some(CHUNK_BYTES):
            yield part


@dataclass(slots=True)
class Entry:
    """One name of a layer.

    Attributes
    ----------
    path, link
        Relative to the root, in normal form (``""`` is the root itself); ``link`` is the target of a hard link
        in the same form, of a symbolic link as written.
    kind
        The type flag.
    size
        Bytes of data that follow in the archive, without padding (of a sparse file: what is stored).
    offset
        Of the first byte of its headers, in the unpacked layer.
    before, header
        The very bytes: extended headers in front, the header itself (with a sparse file's map).
    pax
        PAX records that hold for it.
    shared
        The part of ``before`` that holds for all entries from here on (global PAX records).
    """

    path: str
    link: str
    kind: bytes
    size: int
    offset: int
    before: bytes
    header: bytes
    pax: dict[bytes, bytes]
    shared: bytes = b""

    @property
    def padding(self) -> int:
        return -self.size % BLOCK

    @property
    def is_file(self) -> bool:
        return self.kind in FILES


def normal(name: bytes) -> str:
    """A name of the archive relative to the root, without ``.``, ``..``, doubled and outer slashes."""
    text = name.decode("utf-8", "surrogateescape")
    if "\0" in text:
        raise broken("a name with a zero byte")
    if "//" not in text and "./" not in text and not text.endswith("."):
        return text.strip("/")
    parts: list[str] = []
    for part in text.split("/"):
        if part == "..":
            if not parts:
                raise broken("a name that climbs out of the root")
            parts.pop()
        elif part not in ("", "."):
            parts.append(part)
    return "/".join(parts)


def number(field: bytes) -> int:
    """A numeric field: octal text, or GNU's big-endian form."""
    if field[0] & 0x80:
        if field[0] & 0x40:
            raise broken("a number below zero")
        return int.from_bytes(bytes([field[0] & 0x3F]) + field[1:], "big")
    text = field.strip(b" \0")
    try:
        value = int(text or b"0", 8)
    except ValueError as error:
        raise broken("a number") from error
    if value < 0 or b"_" in text:
        raise broken("a number")
    return value


def checksum(header: bytes) -> int:
    """Sum over a header's 512 bytes, its own field read as spaces."""
    return sum(header[:148]) + sum(header[156:BLOCK]) + 256


def records(data: bytes) -> dict[bytes, bytes]:
    """PAX records; values may hold anything, names no ``=``."""
    found: dict[bytes, bytes] = {}
    at = 0
    while at < len(data) and data[at]:
        space = data.find(b" ", at, at + 20)
        digits = data[at:space]
        if space < 0 or not digits.isdigit():
            raise broken("a PAX record")
        end = at + int(digits)
        name, equals, value = data[space + 1 : end - 1].partition(b"=")
        if end > len(data) or data[end - 1 : end] != b"\n" or not equals:
            raise broken("a PAX record")
        found[name] = value
        at = end
    return found


def text_of(field: bytes) -> bytes:
    """A text field up to its zero byte."""
    return field.partition(b"\0")[0]


def entries(source: Source, *, limit_entries: int = LIMIT_ENTRIES) -> Iterator[Entry]:
    """Every entry in order; its data is read by :func:`data`, or passed over when the next one is asked for.

    What follows the end mark is left in ``source``.
    """
    count = 0
    shared: dict[bytes, bytes] = {}
    while True:
        begin = source.offset
        before, everybody, long_name, long_link, own = b"", b"", None, None, {}
        while True:
            header = source.exactly(BLOCK)
            if not header.strip(b"\0"):
                return
            if number(header[148:156]) != checksum(header):
                raise broken("a checksum")
            kind, size = header[156:157], number(header[124:136])
            if kind not in (b"L", b"K", b"x", b"g"):
                break
            if size + len(before) > HEADER_MOST_BYTES:
                raise broken("a header of more than a megabyte")
            body = source.exactly(size + -size % BLOCK)
            before += header + body
            if kind == b"L":
                long_name = text_of(body[:size])
            elif kind == b"K":
                long_link = text_of(body[:size])
            elif kind == b"x":
                own = records(body[:size])
            else:
                everybody += header + body
                shared |= records(body[:size])
                if sum(len(name) + len(value) for name, value in shared.items()) > HEADER_MOST_BYTES:
                    raise broken("a header of more than a megabyte")
        count += 1
        if count > limit_entries:
            raise broken("too many entries")
        pax = shared | own if shared else own
        yield from _entry(source, begin, (before, everybody), header, pax, long_name, long_link)


def _entry(
    source: Source,
    begin: int,
    before: tuple[bytes, bytes],
    header: bytes,
    pax: dict[bytes, bytes],
    long_name: bytes | None,
    long_link: bytes | None,
) -> Iterator[Entry]:
    kind = header[156:157]
    name = text_of(header[:100])
    if header[257:263] == b"ustar\0" and header[345:346] != b"\0":
        name = text_of(header[345:500]) + b"/" + name
    name = pax.get(b"GNU.sparse.name") or pax.get(b"path") or long_name or name
    link = pax.get(b"linkpath") or long_link or text_of(header[157:257])
    size = number(header[124:136])
    if b"size" in pax:
        if not pax[b"size"].isdigit():
            raise broken("a number")
        size = int(pax[b"size"][:20])
    if kind in _NO_DATA:
        size = 0
    if kind == b"S" and header[482:483] not in (b"\0", b"0"):
        while True:
            more = source.exactly(BLOCK)
            header += more
            if len(header) > HEADER_MOST_BYTES:
                raise broken("a header of more than a megabyte")
            if more[504:505] in (b"\0", b"0"):
                break
    entry = Entry(
        normal(name),
        normal(link) if kind == HARD_LINK else link.decode("utf-8", "surrogateescape"),
        kind,
        size,
        begin,
        before[0],
        header,
        pax,
        before[1],
    )
    end = source.offset + size + entry.padding
    yield entry
    source.skip(end - source.offset)


def data(source: Source, entry: Entry) -> Iterator[bytes]:
    """The data of the entry that :func:`entries` gave last, in blocks."""
    left = entry.size
    while left:
        part = source.some(left)
        if not part:
            raise broken("ends early")
        left -= len(part)
        yield part
