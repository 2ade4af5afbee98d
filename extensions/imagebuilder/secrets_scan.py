"""Is there a secret in this layer? Asked before the push; one that is told of is never pushed.

Two questions, because each misses what the other sees. *By value*: the run's own tokens and keys are known, so
every byte of the archive (names and attributes of files, too) is searched for them, as they are and as base64,
hexadecimal or UTF-16, also where they are broken into lines. *By place and shape*: other people's credentials are not
known, but programs keep them in well-known files, and keys look like keys.

By value at speed: searching for some sixty needles one after another would be slow, so the stream is looked at
eight bytes at a time, at distances so short that every needle must hold one such word whole, and whether any of
them is a word of a needle is one question to a set. Only a hit is compared. The cost does not grow with the number
of secrets; the shortest one decides the distance. Blanks and ends of lines are taken out first, of stream and needles:
a needle in two lines has no part that is long enough to be met at this distance, and half of it would be three times
the work.

What is promised: memory is two blocks, whatever the layer; a value is found wherever blocks are cut. What is
not: a secret inside a compressed or encrypted file, or cut in two by the hole of a sparse file, is not seen; shapes
are looked for in files up to ``SHAPE_MOST_BYTES``; in installed software only private keys, told as a doubt
(``sure`` is false), because packages bring keys for their tests.
"""

from __future__ import annotations

import base64
import re
from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass
from typing import BinaryIO, Literal

from extensions.imagebuilder.places import holds_credentials, is_history
from extensions.imagebuilder.tarstream import LIMIT_BYTES, LIMIT_ENTRIES, Source, data, entries
from galilean.errors import UserError, mark

WORD = 8
#: A shorter value would be found by chance, or not at all.
SHORTEST_BYTES = 16
SHAPE_MOST_BYTES = 256 << 10
#: More findings than a person reads; the layer is refused at the first.
MOST_FINDINGS = 200
#: What may stand between the parts of a value that is broken into lines.
_SPACE = b"\r\n\t \\"


#: Shapes, what each is, and in front of those that begin alike a word without which none of them is there: it is found
#: much faster than they are. As a pattern that begins with a letter it jumps from one such letter to the next, which
#: takes half of the time of ``in``, and half of that again where several words begin with the same.
_KEY = (
    re.compile(rb"PRIVATE KEY"),
    (
        (
            "private key",
            re.compile(rb"-----BEGIN (?:[A-Z0-9]+ ){0,3}PRIVATE KEY(?: BLOCK)?-----\s*[A-Za-z0-9+/=:]"),
        ),
    ),
)
_SHAPES = (
    _KEY,
    (
        re.compile(rb"A(?:KIA|Iza)"),
        (
            ("cloud key", re.compile(rb"\bAKIA[0-9A-Z]{16}\b")),
            ("cloud key", re.compile(rb"\bAIza[0-9A-Za-z_-]{35}(?![0-9A-Za-z_-])")),
        ),
    ),
    (
        re.compile(rb"g(?:hp_|ithub_pat_|lpat-)"),
        (
            ("access token", re.compile(rb"\bghp_[0-9A-Za-z]{36,}")),
            ("access token", re.compile(rb"\bgithub_pat_[0-9A-Za-z_]{60,}")),
            ("access token", re.compile(rb"\bglpat-[0-9A-Za-z_-]{20,}")),
        ),
    ),
    (re.compile(rb"hf_"), (("access token", re.compile(rb"\bhf_[0-9A-Za-z]{34,}")),)),
    (
        re.compile(rb"://"),
        (
            (
                "password in an address",
                re.compile(rb"https?://[^\s/:@\"'<>{}$]{1,64}:[^\s/:@\"'<>{}$]{8,128}@[a-z0-9]"),
            ),
        ),
    ),
)
_SOFTWARE = re.compile(
    r"^(?:usr|lib|lib64|bin|sbin|var/lib|opt/conda/pkgs)/|(?:^|/)(?:site-packages|dist-packages|node_modules|conda-meta|doc|docs|tests?)/"
)


@dataclass(frozen=True)
class Finding:
    """One secret, never with its value.

    Attributes
    ----------
    path
        File in the layer, relative to the root.
    kind
        By which question it was found.
    what
        Name of the known secret and how it is written, or the kind of place or shape; English, technical.
    sure
        False where installed software often holds the like.
    """

    path: str
    kind: Literal["value", "place", "history", "shape"]
    what: str
    sure: bool = True


def forms(value: bytes) -> dict[str, list[bytes]]:
    """Ways in which a value may be written; of base64 what does not depend on its neighbours."""
    coded: list[bytes] = []
    for lead in range(3):
        text = base64.b64encode(bytes(lead) + value)
        first = -(-lead * 8 // 6)
        last = (lead + len(value)) * 8 // 6
        coded += [text[first:last], text[first:last].translate(bytes.maketrans(b"+/", b"-_"))]
    text = value.decode("latin-1")
    return {
        "": [value],
        "base64": list(dict.fromkeys(coded)),
        "hexadecimal": [value.hex().encode(), value.hex().upper().encode()],
        "UTF-16": [text.encode("utf-16-le"), text.encode("utf-16-be")],
    }


class ValueSearch:
    """Known values in a stream of blocks.

    Parameters
    ----------
    secrets
        Name → value. The name is told, the value never.

    Raises
    ------
    ValueError
        A value is shorter than ``SHORTEST_BYTES``.
    """

    def __init__(self, secrets: Mapping[str, bytes]) -> None:
        self._words: dict[int, list[tuple[str, bytes]]] = {}
        shortest, longest = 1 << 20, WORD
        for name, value in secrets.items():
            if len(value) < SHORTEST_BYTES:
                raise ValueError(f"the secret {name} is too short to be searched for")
            for form, needles in forms(value).items():
                told = f"{name} ({form})" if form else name
                for needle in (_joined(needle) for needle in needles):
                    shortest, longest = min(shortest, len(needle)), max(longest, len(needle))
                    for at in range(len(needle) - WORD + 1):
                        word = memoryview(needle[at : at + WORD]).cast("Q")[0]
                        self._words.setdefault(word, []).append((told, needle))
        self._step = max(1, (shortest - WORD + 1) // WORD)
        self._set = frozenset(self._words)
        #: Room for a needle broken into lines of 64 with four signs between.
        self._reach = longest + longest // 8 + 64
        self._tail = b""
        self._offset = 0
        #: (offset in the stream, what) of every hit.
        self.hits: list[tuple[int, str]] = []

    def feed(self, block: bytes) -> None:
        """Look at the next bytes of the stream."""
        if not self._set:
            return
        buffer = self._tail + block
        joined = _joined(buffer)
        whole = len(joined) - len(joined) % WORD
        words = memoryview(joined)[:whole].cast("Q")[:: self._step]
        if not self._set.isdisjoint(words):
            self._compare(buffer, joined, words)
        # A needle that ends in the next block is whole in the next buffer, its lines included.
        keep = min(len(buffer), 2 * self._reach)
        self._offset += len(buffer) - keep
        self._tail = buffer[len(buffer) - keep :]

    def _compare(self, buffer: bytes, joined: bytes, words: memoryview) -> None:
        for index, word in enumerate(words):
            if word not in self._set or len(self.hits) >= MOST_FINDINGS:
                continue
            at = index * self._step * WORD
            around = joined[max(0, at - self._reach) : at + self._reach]
            for told in dict.fromkeys(told for told, needle in self._words[word] if needle in around):
                hit = (self._offset + _before_joining(buffer, at), told)
                if hit not in self.hits:
                    self.hits.append(hit)


def _joined(text: bytes) -> bytes:
    return text.translate(None, _SPACE)


def _before_joining(buffer: bytes, at: int) -> int:
    """Where the byte was that is at ``at`` when blanks are gone."""
    return bisect_right(range(len(buffer)), at, key=lambda end: len(_joined(buffer[:end]))) - 1


class _Names:
    """Which entry an offset belongs to, for the entries around the block that is looked at."""

    def __init__(self) -> None:
        self._begins: list[int] = []
        self._paths: list[str] = []

    def add(self, offset: int, path: str) -> None:
        self._begins.append(offset)
        self._paths.append(path)

    def forget_before(self, offset: int) -> None:
        keep = max(0, bisect_right(self._begins, offset) - 1)
        del self._begins[:keep], self._paths[:keep]

    def at(self, offset: int) -> str:
        found = bisect_right(self._begins, offset) - 1
        return self._paths[found] if found >= 0 else ""


def scan(
    layer: BinaryIO,
    secrets: Mapping[str, bytes],
    *,
    history: bool = False,
    limit_bytes: int = LIMIT_BYTES,
    limit_entries: int = LIMIT_ENTRIES,
) -> list[Finding]:
    """Look through a layer.

    Parameters
    ----------
    layer
        Tar archive, packed by gzip or not, at its beginning.
    secrets
        The run's own: name → value.
    history
        Whether what was typed in shells counts as a secret.
    limit_bytes, limit_entries
        Most that is read, after unpacking.

    Returns
    -------
    list of Finding
        In the order of the archive, each once; empty = nothing was found.

    Raises
    ------
    UserError
        The layer cannot be read or unpacks to more than ``limit_bytes``.
    """
    search = ValueSearch(secrets)
    source = Source(layer, limit_bytes=limit_bytes, watch=search.feed)
    names = _Names()
    found: dict[Finding, None] = {}
    told = 0

    def tell(*findings: Finding) -> None:
        for finding in findings:
            if len(found) < MOST_FINDINGS:
                found[finding] = None

    def settle(until: int) -> None:
        nonlocal told
        waiting = [hit for hit in search.hits[told:] if hit[0] < until]
        tell(*(Finding(names.at(offset), "value", what) for offset, what in waiting))
        if len(waiting) == len(search.hits) - told:
            told = len(search.hits)
            names.forget_before(until - (4 << 20))

    for entry in entries(source, limit_entries=limit_entries):
        names.add(entry.offset, entry.path)
        settle(entry.offset)
        if entry.is_file and entry.size:
            if holds_credentials(entry.path):
                tell(Finding(entry.path, "place", "credentials"))
            elif history and is_history(entry.path):
                tell(Finding(entry.path, "history", "history"))
            if entry.size <= SHAPE_MOST_BYTES:
                content = b"".join(data(source, entry))
                sure = not _SOFTWARE.search(entry.path)
                for word, shapes in _SHAPES if sure else (_KEY,):
                    if word.search(content):
                        for what, shape in shapes:
                            if shape.search(content):
                                tell(Finding(entry.path, "shape", what, sure))
    for _ in source.rest():
        pass
    settle(1 << 80)
    return list(found)


def require_clean(findings: list[Finding]) -> None:
    """Refuse a layer in which a secret is for sure.

    Raises
    ------
    UserError
        422 with the first file's name and how many there are.
    """
    sure = [finding for finding in findings if finding.sure]
    if sure:
        raise UserError(
            422,
            mark(
                "The image was not saved: there is a secret in {path} ({what}). Delete the file, then save "
                "again. Files with secrets in all: {count}."
            ),
            reason="secret",
            path="/" + sure[0].path.encode("utf-8", "backslashreplace").decode(),
            what=sure[0].what,
            count=len({finding.path for finding in sure}),
        )
