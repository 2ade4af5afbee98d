"""What an object store may be called and where it may be; from keys of objects to paths of files. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal
from urllib.parse import urlsplit

from galilean.errors import UserError, mark
from galilean.reachable import Reachable
from services.files import paths

Addressing = Literal["auto", "path", "virtual"]
NAME_MOST, PREFIX_BYTES, KEY_BYTES = 80, 512, 1024
#: Keys of objects are looked at in pages of so many; so many copies at once are one piece of work.
PAGE_MOST, OBJECTS_MOST = 1000, 1_000_000
_BUCKET = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9_-]|\.(?!\.)){1,61}[A-Za-z0-9]", re.ASCII)
_REGION = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,62}[a-z0-9])?", re.ASCII)
_HOST = re.compile(r"[a-z0-9_](?:[a-z0-9._-]{0,251}[a-z0-9])?", re.ASCII)
_KEY_ID = re.compile(r"[\x21-\x7e]{1,255}", re.ASCII)
#: Stores that want the bucket in the name of the host.
_VIRTUAL = ("amazonaws.com", "amazonaws.com.cn", "aliyuncs.com", "myqcloud.com", "volces.com", "ksyuncs.com")
#: An entity tag that is the MD5 of the content.
_MD5 = re.compile(r"[0-9a-f]{32}", re.ASCII)


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a store is.

    Attributes
    ----------
    endpoint
        ``https://host`` or with a port.
    prefix
        Empty, or ends with a slash; nothing outside is seen.
    """

    endpoint: str
    bucket: str
    prefix: str = ""
    region: str = "us-east-1"
    addressing: Addressing = "auto"

    @property
    def virtual(self) -> bool:
        """Whether the bucket is part of the host's name."""
        if self.addressing != "auto":
            return self.addressing == "virtual"
        host = urlsplit(self.endpoint).hostname or ""
        return "." not in self.bucket and any(host == one or host.endswith(f".{one}") for one in _VIRTUAL)


@dataclass(frozen=True, kw_only=True)
class Key:
    """What a store is entered with. It has no readable form."""

    access_key_id: str
    secret: str

    def __repr__(self) -> str:
        return f"Key({self.access_key_id!r})"


def check_place(
    *, endpoint: str, bucket: str, prefix: str, region: str, addressing: Addressing, reachable: Reachable
) -> Place:
    """A place as it was typed.

    Raises
    ------
    UserError
        400 with the field that is wrong.
    """
    bucket, region = bucket.strip(), region.strip() or "us-east-1"
    if not _BUCKET.fullmatch(bucket):
        raise UserError(
            400,
            mark("“{bucket}” is no name of a bucket: 3 to 63 letters, digits, dots and hyphens."),
            bucket=bucket[:80],
        )
    if not _REGION.fullmatch(region):
        raise UserError(
            400, mark("“{region}” is no region, such as us-east-1 or cn-north-1."), region=region[:80]
        )
    return Place(
        endpoint=check_endpoint(endpoint, reachable),
        bucket=bucket,
        prefix=check_prefix(prefix),
        region=region,
        addressing=addressing,
    )


def check_endpoint(text: str, reachable: Reachable) -> str:
    """``https://host[:port]``; without TLS only what the centre lists by name.

    Raises
    ------
    UserError
        400.
    """
    text = text.strip()
    bad = UserError(
        400,
        mark("“{endpoint}” is no address of an object store, such as https://s3.example.edu."),
        endpoint=paths.shown(text),
    )
    try:
        parts = urlsplit(text if "://" in text else f"https://{text}")
        host, port = (parts.hostname or "").rstrip("."), parts.port
    except ValueError:
        raise bad from None
    if (
        parts.scheme not in ("http", "https")
        or parts.path.strip("/")
        or parts.query
        or parts.fragment
        or "@" in parts.netloc
        or port == 0
    ):
        raise bad
    v6 = ":" in host
    if not (re.fullmatch(r"[0-9a-f:.]{2,45}", host) if v6 else _HOST.fullmatch(host)) or ".." in host:
        raise bad
    number = port or (443 if parts.scheme == "https" else 80)
    if parts.scheme == "http" and not reachable.names(host, number):
        raise UserError(
            400,
            mark(
                "{host} is spoken to without TLS, so everybody on the way could read along. Write https://, or ask "
                "the administrators to list it (object_stores.reachable)."
            ),
            host=host[:255],
            reason="store-plain",
        )
    shown = f"[{host}]" if v6 else host
    usual = number == (443 if parts.scheme == "https" else 80)
    return f"{parts.scheme}://{shown}" + ("" if usual else f":{number}")


def check_prefix(text: str) -> str:
    """The beginning of all keys: empty, or text with a slash at its end.

    Raises
    ------
    UserError
        400.
    """
    text = text.strip().lstrip("/")
    if any(ord(char) < 32 or ord(char) == 127 or 0xD800 <= ord(char) < 0xE000 for char in text):
        raise UserError(400, mark("The prefix has characters that cannot be seen."))
    if text and not text.endswith("/"):
        text += "/"
    if len(text.encode()) > PREFIX_BYTES:
        raise UserError(400, mark("The prefix may have {most} bytes."), most=PREFIX_BYTES)
    return text


def check_below(text: str) -> str:
    """Part of a key below a store's prefix, as it was asked for; stores that are directories would follow ``..``.

    Raises
    ------
    UserError
        400.
    """
    if (
        len(text.encode("utf-8", "replace")) > KEY_BYTES
        or any(part in (".", "..") for part in text.split("/"))
        or any(ord(char) < 32 or 0xD800 <= ord(char) < 0xE000 for char in text)
        or text.startswith("/")
    ):
        raise UserError(
            400, mark("“{path}” cannot be asked of an object store here."), path=paths.shown(text)
        )
    return text


def check_name(text: str) -> str:
    """What a store is called.

    Raises
    ------
    UserError
        400.
    """
    name = " ".join(text.split())
    if not 0 < len(name) <= NAME_MOST or not name.isprintable():
        raise UserError(400, mark("Give the store a name of 1 to {most} characters."), most=NAME_MOST)
    return name


def check_key(access_key_id: str, secret: str) -> Key:
    """What a store is entered with.

    Raises
    ------
    UserError
        400.
    """
    access_key_id, secret = access_key_id.strip(), secret.strip()
    if not _KEY_ID.fullmatch(access_key_id) or not _KEY_ID.fullmatch(secret):
        raise UserError(
            400, mark("Access key id and secret key have 1 to 255 letters, digits and signs, without spaces.")
        )
    return Key(access_key_id=access_key_id, secret=secret)


def path_of(rest: str) -> str | None:
    """The path of a file for what follows the chosen prefix in an object's key; ``None`` = it can be none.

    Nothing is bent: ``..``, an empty part, a name that cannot be seen or is too long is no path, and the object is left out.
    """
    try:
        for part in paths.split(rest):
            paths.check_name(part)
    except UserError:
        return None
    return rest or None


def key_of(prefix: str, path: str) -> str | None:
    """The key for a file's path; ``None`` when its name is no text or it gets too long."""
    try:
        raw = (prefix + path).encode()
    except UnicodeEncodeError:
        return None
    if len(raw) > KEY_BYTES or any(ord(char) < 32 for char in path):
        return None
    return prefix + path


def md5_of(entity_tag: str, encryption: str = "") -> str | None:
    """The MD5 that an entity tag is; of parts, and where the store encrypts by keys of its own, it is none."""
    tag = entity_tag.strip('"').lower()
    return tag if _MD5.fullmatch(tag) and encryption in ("", "AES256") else None


def part_bytes(size_bytes: int, *, least: int, parts_most: int = 10_000) -> int:
    """How large parts are, in whole MB: as small as may be, never more than S3 counts."""
    needed = -(-size_bytes // parts_most)
    return max(least, -(-needed // (1 << 20)) << 20)
