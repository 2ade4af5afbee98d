"""A bucket as copies need it: pages of keys, an object read from a place on, a file written as an object.

botocore speaks to it (signatures, answers, repeating what a cut line broke), :mod:`.wire` sends. What a store says is
turned into sentences here; nothing of what it says is believed beyond that. All methods block.
"""

from __future__ import annotations

import functools
import logging
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import botocore.session
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from urllib3.exceptions import HTTPError

from galilean.errors import UserError, mark
from galilean.reachable import Reachable
from services.files.paths import shown
from services.files.root import OpenFile
from services.object_stores import rules
from services.object_stores.rules import Key, Place
from services.object_stores.wire import Forbidden, Wire

PIECE_BYTES = 256 << 10
#: Files up to here go in one request; larger ones in parts of at least so much.
ONE_REQUEST_BYTES = PART_BYTES = 32 << 20
ATTEMPTS = 4
_GONE = frozenset({"404", "NoSuchKey", "NotFound"})
_KEY = frozenset({"InvalidAccessKeyId", "SignatureDoesNotMatch", "InvalidToken", "ExpiredToken", "401"})

# At “debug” it tells requests with their signatures.
logging.getLogger("botocore").setLevel(logging.INFO)


#: One session, because it keeps what it read of S3; it makes one client at a time.
_MAKING = threading.Lock()


@functools.cache
def _session() -> Any:
    session = botocore.session.Session()
    for name in ("config_file", "credentials_file"):  # nothing of this machine's account
        session.set_config_variable(name, os.devnull)
    return session


class Cut(Exception):
    """The line broke while an object came in; it can be gone on with."""


class Changed(Exception):
    """The object is not any more what it was when it was listed."""


@dataclass(frozen=True, kw_only=True)
class Found:
    """An object, or what keys have in common up to the next slash.

    Attributes
    ----------
    key
        As the store has it.
    """

    key: str
    folder: bool = False
    size_bytes: int = 0
    changed_at: datetime | None = None
    entity_tag: str = ""


@dataclass(frozen=True, kw_only=True)
class Page:
    """Some keys; ``next`` is where the store goes on."""

    found: list[Found]
    next: str | None


class Bucket:
    """One bucket of one store, for a while; close it.

    Parameters
    ----------
    place, key
        Where it is, and what it is entered with.
    reachable, ca_file
        Of the settings.
    wire
        How requests leave; handed in for tests.
    """

    def __init__(
        self,
        place: Place,
        key: Key,
        *,
        reachable: Reachable,
        ca_file: str = "",
        wire: Wire | None = None,
    ) -> None:
        self.place = place
        self._wire = wire or Wire(reachable, ca_file=ca_file)
        with _MAKING:
            self._client: Any = _session().create_client(
                "s3",
                region_name=place.region,
                endpoint_url=place.endpoint,
                aws_access_key_id=key.access_key_id,
                aws_secret_access_key=key.secret,
                config=Config(
                    signature_version="s3v4",
                    retries={"mode": "standard", "max_attempts": ATTEMPTS},
                    # What is sent is compared by the store with its SHA-256, which older stores know, too.
                    request_checksum_calculation="when_required",
                    response_checksum_validation="when_required",
                    s3={
                        "addressing_style": "virtual" if place.virtual else "path",
                        "payload_signing_enabled": True,
                    },
                ),
            )
        self._client.meta.events.register_first("before-send.s3", self._wire.send)

    def close(self) -> None:
        """Let go of the connections."""
        self._client.close()
        self._wire.close()

    def __enter__(self) -> Bucket:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def page(
        self, prefix: str = "", *, folders: bool = True, limit: int = 200, cursor: str | None = None
    ) -> Page:
        """A page of what begins with ``prefix``, which stands below the store's own.

        Raises
        ------
        UserError
            As :meth:`_told`.
        """
        more = {"Delimiter": "/"} if folders else {}
        if cursor:
            more["ContinuationToken"] = cursor
        with self._told():
            answer = self._client.list_objects_v2(
                Bucket=self.place.bucket, Prefix=self.place.prefix + prefix, MaxKeys=limit, **more
            )
        found = [Found(key=one["Prefix"], folder=True) for one in answer.get("CommonPrefixes", ())]
        for one in answer.get("Contents", ()):
            found.append(
                Found(
                    key=one["Key"],
                    size_bytes=max(0, int(one.get("Size", 0))),
                    changed_at=_moment(one.get("LastModified")),
                    entity_tag=str(one.get("ETag", "")),
                )
            )
        following = answer.get("NextContinuationToken") if answer.get("IsTruncated") else None
        # A store that answers with keys outside of what was asked is not followed there.
        found = [one for one in found if one.key.startswith(self.place.prefix + prefix)]
        return Page(found=sorted(found, key=lambda one: (not one.folder, one.key)), next=following)

    def objects(self, prefix: str) -> Iterator[Found]:
        """All objects whose keys begin so, page by page."""
        cursor, seen = None, set[str]()
        while True:
            page = self.page(prefix, folders=False, limit=rules.PAGE_MOST, cursor=cursor)
            yield from page.found
            cursor = page.next
            if cursor is None or cursor in seen:  # a store that goes in circles ends here
                return
            seen = {cursor}

    def look(self, key: str) -> Found | None:
        """One object; ``None`` when there is none. ``key`` is the whole one."""
        try:
            with self._told(missing=False):
                one = self._client.head_object(Bucket=self.place.bucket, Key=key)
        except ClientError as error:
            if _code(error) in _GONE:
                return None
            raise
        return Found(
            key=key,
            size_bytes=max(0, int(one.get("ContentLength", 0))),
            changed_at=_moment(one.get("LastModified")),
            entity_tag=str(one.get("ETag", "")),
        )

    @contextmanager
    def read(self, found: Found, offset_bytes: int = 0) -> Iterator[tuple[Iterator[bytes], str]]:
        """The bytes of an object from a place on, and how the store encrypts it.

        Raises
        ------
        Cut
            When the line breaks; from the iterator, too.
        Changed
            When it is another object by now.
        """
        more: dict[str, Any] = {"IfMatch": found.entity_tag} if found.entity_tag else {}
        if offset_bytes:
            more["Range"] = f"bytes={offset_bytes}-"
        try:
            with self._told(missing=False):
                answer = self._client.get_object(Bucket=self.place.bucket, Key=found.key, **more)
        except ClientError as error:
            if _code(error) in (*_GONE, "PreconditionFailed", "412", "InvalidRange", "416"):
                raise Changed from None
            raise
        body = answer["Body"]
        whole = answer["ResponseMetadata"]["HTTPStatusCode"] == 200
        try:
            yield (
                _pieces(body, skip_bytes=offset_bytes if whole else 0),
                str(answer.get("ServerSideEncryption", "")),
            )
        finally:
            body.close()

    def write(
        self,
        file: OpenFile,
        key: str,
        *,
        step: Callable[[int], None],
        keep_upload: Callable[[tuple[str, str] | None], None] = lambda upload: None,
        part_bytes: int = PART_BYTES,
        one_request_bytes: int = ONE_REQUEST_BYTES,
    ) -> None:
        """Write a file as an object: all of it, or nothing.

        Parameters
        ----------
        file
            Its size is what it was when it was opened.
        key
            The whole key.
        step
            Called with how many bytes are there more; what it raises ends the copy.
        keep_upload
            Is told of a multipart upload that is open at the store (key and its id), and when there is none any more.
        part_bytes, one_request_bytes
            How large parts are at least, and up to where there are none.
        """
        size = file.entry.size_bytes
        if size <= one_request_bytes:
            with self._told():
                self._client.put_object(
                    Bucket=self.place.bucket, Key=key, Body=_Part(file, 0, size, step), ContentLength=size
                )
            return
        each = rules.part_bytes(size, least=part_bytes)
        with self._told():
            made = self._client.create_multipart_upload(Bucket=self.place.bucket, Key=key)
        upload = str(made["UploadId"])
        keep_upload((key, upload))
        try:
            parts: list[dict[str, Any]] = []
            for number, begin in enumerate(range(0, size, each), start=1):
                step(0)
                length = min(each, size - begin)
                with self._told():
                    answer = self._client.upload_part(
                        Bucket=self.place.bucket,
                        Key=key,
                        UploadId=upload,
                        PartNumber=number,
                        Body=_Part(file, begin, length, step),
                        ContentLength=length,
                    )
                parts.append({"ETag": answer["ETag"], "PartNumber": number})
            if was_changed(file):  # its parts would be of two times
                raise file_changed(file.entry.path)
            with self._told():
                self._client.complete_multipart_upload(
                    Bucket=self.place.bucket, Key=key, UploadId=upload, MultipartUpload={"Parts": parts}
                )
        except BaseException:
            with suppress(Exception):
                self.abort(key, upload)
                keep_upload(None)
            raise
        keep_upload(None)

    def abort(self, key: str, upload: str) -> None:
        """Take away the parts of an upload that was not ended; none is fine."""
        try:
            with self._told(missing=False):
                self._client.abort_multipart_upload(Bucket=self.place.bucket, Key=key, UploadId=upload)
        except ClientError as error:
            if _code(error) not in (*_GONE, "NoSuchUpload"):
                raise

    @contextmanager
    def _told(self, *, missing: bool = True) -> Iterator[None]:
        """Turn what a store or the line says into words; ``missing`` = also that something is not there.

        Raises
        ------
        UserError
            403 for an address or a key that is refused, 404 without such a bucket, 502 for what the store says, 503 when it
            does not answer.
        """
        try:
            yield
        except Forbidden as error:
            raise forbidden(error.host) from None
        except ClientError as error:
            code = _code(error)
            if not missing and (
                code in _GONE or code in ("PreconditionFailed", "412", "InvalidRange", "416")
            ):
                raise
            if not missing and code == "NoSuchUpload":
                raise
            raise self._answer(code, error) from None
        except (BotoCoreError, HTTPError) as error:
            # urllib3 holds what it was sent; no cause is kept, so no log tells it.
            raise self._away(type(error).__name__) from None

    def _answer(self, code: str, error: ClientError) -> UserError:
        where = {"bucket": self.place.bucket, "endpoint": self.place.endpoint}
        if code in _KEY:
            return UserError(
                403,
                mark(
                    "{endpoint} does not know this access key, or the secret key is wrong. Enter them again."
                ),
                reason="store-key",
                **where,
            )
        if code in ("AccessDenied", "403", "AllAccessDisabled", "AccountProblem"):
            return UserError(
                403,
                mark(
                    "{endpoint} does not let this key do that in the bucket “{bucket}”. Ask whoever gave it to you."
                ),
                reason="store-denied",
                **where,
            )
        if code in ("NoSuchBucket", *_GONE):
            return UserError(
                404, mark("There is no bucket “{bucket}” at {endpoint}."), reason="store-bucket", **where
            )
        if code in (
            "PermanentRedirect",
            "AuthorizationHeaderMalformed",
            "301",
            "307",
            "IllegalLocationConstraint",
        ):
            region = str(error.response.get("Error", {}).get("Region", ""))[:64]
            return UserError(
                409,
                mark("The bucket “{bucket}” is in another region ({region}). Change the store's region."),
                reason="store-region",
                region=region if region.isprintable() and region else "?",
                **where,
            )
        status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0) or 0)
        if status >= 500 or code in ("SlowDown", "RequestTimeout", "Throttling"):
            return self._away(code)
        return UserError(
            502,
            mark("{endpoint} refused: {code}. Nothing of this object was copied."),
            reason="store-refused",
            code="".join(char for char in code if char.isalnum() or char in ".-_")[:64] or str(status),
            **where,
        )

    def _away(self, what: str) -> UserError:
        return UserError(
            503,
            mark("{endpoint} does not answer as an object store ({what}). Try again in a few minutes."),
            reason="store-away",
            endpoint=self.place.endpoint,
            what=what[:64],
        )


def forbidden(host: str) -> UserError:
    """The words for an address that may not be asked."""
    return UserError(
        403,
        mark(
            "{host} is not on the public internet, and files may come from there only if the administrators list it "
            "(object_stores.reachable)."
        ),
        reason="store-private",
        host=host[:255],
    )


class _Part:
    """A piece of a file as what is sent: read for its checksum and, from the start, for the way."""

    def __init__(self, file: OpenFile, begin: int, length: int, step: Callable[[int], None]) -> None:
        self._file, self._begin, self._length, self._step = file, begin, length, step
        self._at = self._counted = 0

    def __len__(self) -> int:
        return self._length

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = 0) -> int:
        self._at = max(0, offset + {0: 0, 1: self._at, 2: self._length}[whence])
        return self._at

    def read(self, size: int = -1) -> bytes:
        left = max(0, self._length - self._at)
        size = left if size is None or size < 0 else min(size, left)
        self._file.seek(self._begin + self._at)
        data = self._file.read(size)
        if len(data) < size:
            raise file_changed(self._file.entry.path)
        self._at += len(data)
        # Counted once, however often it is read.
        more = max(0, self._at - self._counted)
        self._counted += more
        self._step(more)
        return data


def was_changed(file: OpenFile) -> bool:
    """Whether a file is not any more what it was when it was opened."""
    status = os.fstat(file.stream.fileno())
    return (status.st_size, int(status.st_mtime)) != (
        file.entry.size_bytes,
        int(file.entry.changed_at.timestamp()),
    )


def file_changed(path: str) -> UserError:
    """What is said of a file that was written to while it was copied."""
    return UserError(
        409,
        mark("“{path}” was changed while it was copied, so it was left out. Copy it again."),
        path=shown(path),
        reason="changed",
    )


def _pieces(body: Any, *, skip_bytes: int) -> Iterator[bytes]:
    try:
        while piece := body.read(PIECE_BYTES):
            if skip_bytes >= len(piece):
                skip_bytes -= len(piece)
                continue
            if skip_bytes:
                piece, skip_bytes = piece[skip_bytes:], 0
            yield piece
    except (BotoCoreError, HTTPError, OSError) as error:
        raise Cut(type(error).__name__) from None


def _code(error: ClientError) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))


def _moment(value: Any) -> datetime | None:
    return value.astimezone(UTC) if isinstance(value, datetime) and value.tzinfo else None
