"""What the headers of the tus protocol say: pure."""

from __future__ import annotations

import base64
import binascii
import hashlib
from dataclasses import dataclass
from typing import Any

from galilean.errors import UserError, mark
from services.files.placing import Taken

#: Not ``md5`` and the like: they are no proof against anybody.
ALGORITHMS = ("sha256", "sha512", "sha1", "crc32")
METADATA_BYTES = 8 << 10


@dataclass(frozen=True, kw_only=True)
class Checksum:
    """What the bytes of one request must add up to."""

    algorithm: str
    digest: bytes


def parse_metadata(text: str) -> dict[str, str]:
    """``Upload-Metadata`` as a dictionary.

    Raises
    ------
    UserError
        400 when it is not of the protocol's form.
    """
    wrong = UserError(400, mark("“Upload-Metadata” cannot be read."))
    found: dict[str, str] = {}
    if len(text) > METADATA_BYTES:
        raise wrong
    for pair in filter(None, (part.strip() for part in text.split(","))):
        key, _, value = pair.partition(" ")
        try:
            data = base64.b64decode(value.strip().encode("ascii"), validate=True).decode()
        except (ValueError, UnicodeError, binascii.Error):
            raise wrong from None
        if not key.isascii() or key in found:
            raise wrong
        found[key] = data
    return found


def parse_checksum(text: str) -> Checksum | None:
    """``Upload-Checksum``; ``None`` when there is none.

    Raises
    ------
    UserError
        400 for an algorithm that is not ours, or what is no base64.
    """
    if not text:
        return None
    algorithm, _, value = text.partition(" ")
    if algorithm not in ALGORITHMS:
        raise UserError(
            400, mark("Checksums are taken by {known}."), known=", ".join(ALGORITHMS), reason="checksum"
        )
    try:
        return Checksum(algorithm=algorithm, digest=base64.b64decode(value.strip(), validate=True))
    except (ValueError, binascii.Error):
        raise UserError(400, mark("“Upload-Checksum” cannot be read.")) from None


def parse_bytes(name: str, text: str) -> int:
    """A header with a number of bytes.

    Raises
    ------
    UserError
        400 when it is none.
    """
    if not text.isascii() or not text.isdigit() or len(text) > 18:
        raise UserError(400, mark("“{header}” takes a whole number of bytes."), header=name)
    return int(text)


def wished_path(metadata: dict[str, str], folder: str = "") -> str:
    """Where an upload is to be: ``relativePath`` (of a folder that was dropped), else ``filename``.

    Raises
    ------
    UserError
        400 when neither is given.
    """
    name = metadata.get("relativePath") or metadata.get("filename") or metadata.get("name") or ""
    if name in ("", "null"):
        raise UserError(400, mark("Give it a name."))
    return f"{folder.strip('/')}/{name}" if folder.strip("/") else name


def wished_taken(metadata: dict[str, str]) -> Taken:
    """What is to happen when the name is taken (``ifTaken``), by default it is refused.

    Raises
    ------
    UserError
        400 for another word.
    """
    word = metadata.get("ifTaken", "refuse")
    if word == "refuse":
        return "refuse"
    if word == "replace":
        return "replace"
    if word == "keep":
        return "keep"
    raise UserError(
        400, mark("“{header}” takes one of: {known}."), header="ifTaken", known="refuse, replace, keep"
    )


class _Crc32:
    """CRC-32 with the face of a hash, its bytes in network order."""

    def __init__(self) -> None:
        self._sum = 0

    def update(self, data: bytes) -> None:
        self._sum = binascii.crc32(data, self._sum)

    def digest(self) -> bytes:
        return self._sum.to_bytes(4, "big")


def hasher(algorithm: str) -> Any:
    """Something with ``update`` and ``digest``."""
    return _Crc32() if algorithm == "crc32" else hashlib.new(algorithm)
