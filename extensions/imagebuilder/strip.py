"""What of a container never goes into an image, taken out of its layer on the way.

A layer as a backend commits it holds what the container's root left behind: credentials at well-known places,
the machine's ssh keys, locks of processes that will not run, ``/run`` and ``/tmp``, mount points of volumes, the
platform's own per-run files. They are left out while the layer streams by; everything else keeps its bytes,
headers included, so that owners, attributes, sparse files and times are what they were.

One thing is not a matter of leaving out: a hard link whose target was stripped. If the target was a secret, the
link is the same secret under another name and goes, too. Otherwise (a file in ``/tmp`` linked to a kept one) the
first kept name becomes the file and later ones link to it. For that the data of stripped files that are no
secrets is kept in a temporary file on disk until the end; the most of it is ``spool_bytes``. In an
archive a link's target comes first; a target that is not in this layer is the parent's.

Whiteouts are kept wherever they are: they say that the parent's file is gone, which stays true.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import BinaryIO, Literal

from extensions.imagebuilder.places import holds_credentials, is_history, is_host_key, is_stale_lock
from extensions.imagebuilder.tarstream import (
    BLOCK,
    CHUNK_BYTES,
    DIRECTORY,
    HARD_LINK,
    LIMIT_BYTES,
    Entry,
    Source,
    broken,
    checksum,
    data,
    entries,
)

Why = Literal["secret", "history", "host key", "lock", "mounted", "volatile"]
#: Contents are left out, the directories stay.
VOLATILE = ("run", "var/run", "tmp", "var/tmp", "dev/shm", "proc", "sys", "dev")
WHITEOUT = ".wh."
SPOOL_BYTES = 16 << 30


@dataclass(frozen=True)
class Rules:
    """What is left out.

    Attributes
    ----------
    mounted
        Mount points in the container, such as ``/home/alice/work``; they stay as empty directories.
    own
        Paths of the platform's per-run files (keys, host files); with all below them, they count as secrets.
    history
        Whether what was typed in shells is left out.
    """

    mounted: frozenset[str] = frozenset()
    own: frozenset[str] = frozenset()
    history: bool = False

    @classmethod
    def of(cls, mounted: Iterable[str] = (), own: Iterable[str] = (), *, history: bool = False) -> Rules:
        """Rules of absolute paths as a backend tells them."""

        def bare(paths: Iterable[str]) -> frozenset[str]:
            return frozenset(path.strip("/") for path in paths) - {""}

        return cls(bare(mounted), bare(own), history)

    def why(self, path: str) -> Why | None:
        """Why a path is left out; ``None`` = it is kept."""
        above = _above(path)
        if path in self.own or not self.own.isdisjoint(above) or holds_credentials(path):
            return "secret"
        if self.history and is_history(path):
            return "history"
        if is_host_key(path):
            return "host key"
        if not self.mounted.isdisjoint(above):
            return "mounted"
        if any(path.startswith(place + "/") for place in VOLATILE):
            return "volatile"
        return "lock" if is_stale_lock(path) else None


def _above(path: str) -> list[str]:
    return [path[:at] for at, sign in enumerate(path) if sign == "/"]


@dataclass
class Stripped:
    """What was left out: how many entries for which reason, and bytes of data."""

    entries: Counter[str] = field(default_factory=Counter)
    data_bytes: int = 0


def pax_header(pairs: dict[bytes, bytes]) -> bytes:
    """An extended header that holds these records."""
    if not pairs:
        return b""
    body = b""
    for name, value in pairs.items():
        bare = len(name) + len(value) + 3
        length = bare + len(str(bare))
        length = bare + len(str(length))
        body += b"%d %s=%s\n" % (length, name, value)
    header = bytearray(BLOCK)
    header[:11] = b"PaxHeader/x"
    header[100:108], header[108:116], header[116:124] = b"0000644\0", b"0000000\0", b"0000000\0"
    header[136:148], header[156:157], header[257:265] = b"00000000000\0", b"x", b"ustar\x0000"
    set_size(header, len(body))
    return bytes(header) + body + bytes(-len(body) % BLOCK)


def set_size(header: bytearray, size: int) -> None:
    header[124:136] = b"%011o\0" % size if size < 8**11 else b"\x80" + size.to_bytes(11, "big")
    header[148:156] = b"%06o\0 " % checksum(bytes(header))


def _renamed(entry: Entry, like: Entry, link: str | None) -> bytes:
    """Headers of the entry as a file with the metadata of ``like``, or as a link to another name."""
    pairs = dict(entry.pax) if link else like.pax | entry.pax
    sparse = not link and like.kind == b"S"
    for name in (b"path", b"linkpath", b"size"):
        pairs.pop(name, None)
    path = entry.path.encode("utf-8", "surrogateescape")
    header = bytearray((entry if link else like).header)
    header[:100], header[157:257] = path[:100].ljust(100, b"\0"), bytes(100)
    if not sparse:
        header[345:500] = bytes(155) if header[257:263] == b"ustar\0" else header[345:500]
    if b"GNU.sparse.name" in pairs:
        pairs[b"GNU.sparse.name"] = path
    pairs[b"path"] = path
    if link:
        pairs = {k: v for k, v in pairs.items() if not k.startswith(b"GNU.sparse.")}
        pairs[b"linkpath"] = link.encode("utf-8", "surrogateescape")
        header[157:257] = pairs[b"linkpath"][:100].ljust(100, b"\0")
    set_size(header, 0 if link else like.size)
    return pax_header(pairs) + bytes(header)


@dataclass
class _Kept:
    """A stripped file's data, for the case that a kept name links to it."""

    entry: Entry
    begin: int
    name: str | None = None


def strip(
    layer: BinaryIO,
    rules: Rules,
    *,
    told: Stripped | None = None,
    limit_bytes: int = LIMIT_BYTES,
    spool_bytes: int = SPOOL_BYTES,
    spool: Callable[[], BinaryIO] = tempfile.TemporaryFile,  # type: ignore[assignment]
) -> Iterator[bytes]:
    """The layer without what the rules leave out, unpacked, in blocks.

    Parameters
    ----------
    layer
        Tar archive, packed by gzip or not, at its beginning.
    rules
        What is left out.
    told
        Is filled with what was left out.
    limit_bytes
        Most that is read, after unpacking.
    spool_bytes
        Most data of stripped files that is held on disk.
    spool
        Opens the temporary file.

    Raises
    ------
    UserError
        The layer cannot be read, or more would have to be set aside than ``spool_bytes``.
    """
    told = told if told is not None else Stripped()
    source = Source(layer, limit_bytes=limit_bytes)
    kept: dict[str, _Kept] = {}
    gone: set[str] = set()
    with spool() as held:
        end = 0
        for entry in entries(source):
            why = None if _stays(entry) else rules.why(entry.path)
            if entry.kind == HARD_LINK and why is None:
                if entry.link in gone:
                    why = "secret"
                elif entry.link in kept:
                    yield entry.shared
                    yield from _promoted(entry, kept[entry.link], held)
                    continue
                elif (
                    rules.why(entry.link) != "volatile"
                ):  # what the parent has there is no secret by its name
                    why = rules.why(entry.link)
            if why is None:
                yield entry.before
                yield entry.header
                yield from data(source, entry)
                yield bytes(entry.padding)
                continue
            yield entry.shared
            told.entries[why] += 1
            told.data_bytes += entry.size
            if why in ("secret", "history", "host key"):
                gone.add(entry.path)
            elif entry.kind == HARD_LINK:
                if entry.link in gone:
                    gone.add(entry.path)
                elif entry.link in kept:
                    kept[entry.path] = kept[entry.link]
            elif entry.is_file:
                if end + entry.size > spool_bytes:
                    raise broken("more in temporary places than can be set aside")
                kept[entry.path] = _Kept(entry, end)
                held.seek(end)
                for part in data(source, entry):
                    held.write(part)
                end += entry.size
    yield bytes(2 * BLOCK)


def _stays(entry: Entry) -> bool:
    name = entry.path.rpartition("/")[2]
    return (name.startswith(WHITEOUT) and entry.size == 0 and entry.is_file) or (
        entry.kind == DIRECTORY and entry.path in VOLATILE
    )


def _promoted(entry: Entry, file: _Kept, held: BinaryIO) -> Iterator[bytes]:
    if file.name is not None:
        yield _renamed(entry, file.entry, file.name)
        return
    file.name = entry.path
    yield _renamed(entry, file.entry, None)
    held.seek(file.begin)
    left = file.entry.size
    while left:
        part = held.read(min(left, CHUNK_BYTES))
        if not part:
            raise broken("set aside and not found again")
        left -= len(part)
        yield part
    yield bytes(file.entry.padding)
