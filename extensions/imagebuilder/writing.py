"""From the changes of a container to the bytes of a layer: one pass, on disk, in bounded memory.

Read, whiteouts set, stripped, looked through for secrets, hashed, packed and hashed again, in that order, so that
what is looked through is what is pushed. The looking pulls the bytes; packing goes on beside it in threads, as
members of one gzip file that unpackers read as one. What takes long can be given up between two blocks.
"""

from __future__ import annotations

import hashlib
import io
import tempfile
import zlib
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import BinaryIO

from extensions.imagebuilder.secrets_scan import Finding, scan
from extensions.imagebuilder.strip import Rules, Stripped, strip
from extensions.imagebuilder.upper import layer_of

MEMBER_BYTES = 4 << 20
#: Level 1: pushing on a fast network waits for the packing, not the other way round.
LEVEL = 1
THREADS = 2


@dataclass
class Written:
    """A layer on disk.

    Attributes
    ----------
    diff_id
        Digest of the unpacked layer, as an image's config names it.
    digest, size_bytes
        Of the packed one, as a registry keeps it.
    unpacked_bytes
        Of the layer.
    findings
        Secrets that are in it.
    stripped
        What was left out.
    """

    diff_id: str
    digest: str
    size_bytes: int
    unpacked_bytes: int
    findings: list[Finding] = field(default_factory=list)
    stripped: Stripped = field(default_factory=Stripped)


class Packer:
    """Packs blocks into a file as gzip, in threads, keeping their order."""

    def __init__(self, out: BinaryIO, threads: ThreadPoolExecutor) -> None:
        self._out, self._threads = out, threads
        self._held: list[bytes] = []
        self._length = 0
        self._under_way: deque[Future[bytes]] = deque()
        self._hash = hashlib.sha256()
        self.size_bytes = 0

    def feed(self, block: bytes) -> None:
        self._held.append(block)
        self._length += len(block)
        if self._length >= MEMBER_BYTES:
            self._send()

    def close(self) -> str:
        """Write what is left; the digest of the file."""
        if self._held or not (self._under_way or self.size_bytes):
            self._send()
        while self._under_way:
            self._take()
        return f"sha256:{self._hash.hexdigest()}"

    def _send(self) -> None:
        block, self._held, self._length = b"".join(self._held), [], 0
        self._under_way.append(self._threads.submit(_member, block))
        while len(self._under_way) > 2 * THREADS:
            self._take()

    def _take(self) -> None:
        packed = self._under_way.popleft().result()
        self._hash.update(packed)
        self._out.write(packed)
        self.size_bytes += len(packed)


def _member(block: bytes) -> bytes:
    packer = zlib.compressobj(LEVEL, zlib.DEFLATED, 31)
    return packer.compress(block) + packer.flush()


class Pulled(io.RawIOBase):
    """An iterator of blocks as a file that is only read; each block is shown to ``watch`` once."""

    def __init__(self, blocks: Iterator[bytes], watch: Callable[[bytes], None] = lambda _: None) -> None:
        self._blocks, self._watch = blocks, watch
        self._held = b""

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        """Up to so many bytes; small blocks (headers) are joined."""
        parts = [self._held] if self._held else []
        length = len(self._held)
        while size < 0 or length < size:
            block = next(self._blocks, None)
            if block is None:
                break
            if block:
                self._watch(block)
                parts.append(block)
                length += len(block)
        joined = b"".join(parts)
        if size < 0:
            self._held = b""
            return joined
        self._held = joined[size:]
        return joined[:size]


def write_layer(
    upper: BinaryIO,
    out: BinaryIO,
    *,
    folder: Path,
    deleted: set[str],
    rules: Rules,
    secrets: Mapping[str, bytes],
    progress: Callable[[int], None] = lambda _: None,
) -> Written:
    """Write the layer of a container's changes.

    Parameters
    ----------
    upper
        Archive of the changes, at its beginning.
    out
        An empty file.
    folder
        For what is set aside meanwhile (:func:`~extensions.imagebuilder.strip.strip`): on a disk, not in memory.
    deleted
        Paths that Docker calls deleted.
    rules
        What is left out.
    secrets
        The run's own: name → value; none may be in the layer.
    progress
        Called with the bytes of the unpacked layer so far; what it raises ends the writing.

    Raises
    ------
    UserError
        The archive cannot be read.
    """
    told = Stripped()
    hashed = hashlib.sha256()
    length = 0
    with ThreadPoolExecutor(THREADS, thread_name_prefix="galilean-pack") as threads:
        packer = Packer(out, threads)

        def watch(block: bytes) -> None:
            nonlocal length
            hashed.update(block)
            packer.feed(block)
            length += len(block)

        whole = Pulled(layer_of(upper, deleted))
        spool = partial(tempfile.TemporaryFile, dir=folder)
        joined = _joined(strip(whole, rules, told=told, spool=spool))  # type: ignore[arg-type]

        def blocks() -> Iterator[bytes]:
            for block in joined:
                progress(length)
                yield block

        findings = scan(Pulled(blocks(), watch), secrets)  # type: ignore[arg-type]
        digest = packer.close()
    return Written(f"sha256:{hashed.hexdigest()}", digest, packer.size_bytes, length, findings, told)


def _joined(blocks: Iterator[bytes], least: int = 1 << 20) -> Iterator[bytes]:
    """The same bytes in blocks of about a megabyte: hashing many small ones costs more than the bytes do."""
    held: list[bytes] = []
    length = 0
    for block in blocks:
        held.append(block)
        length += len(block)
        if length >= least:
            yield b"".join(held)
            held, length = [], 0
    if held:
        yield b"".join(held)
