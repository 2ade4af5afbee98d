"""Any registry of the OCI distribution specification 1.1: push in chunks, mount, pull, list and delete.

Own code, for the libraries there are do not fit: `oras` and `python-dxf` block, and neither goes on with an
upload after a cut; Docker's own push needs a daemon. What is promised:

- A blob is sent once: one that is there, or that another repository of the registry has, is not sent again.
- After a cut the registry is asked how far it came, and the rest is sent. Some (distribution 2.8) drop an
  upload that was cut in the middle of a chunk: it begins anew. A cut is forgiven while the upload gets further.
- What arrives is what was asked for: sizes and digests are checked, an answer that ends early is an error.
- Whoever gives up (an error, a cancelled task) takes the upload back, so that nothing half-sent stays.
- Credentials go to the registry and to the place it names for tokens, never to where blobs are redirected,
  never from https to http; they are in no exception and no line of a log. Other places than the registry are
  asked for by ``may_call`` first: a registry that a person named could point into the campus network.
"""

from __future__ import annotations

import asyncio
import hashlib
import io
import json
import logging
import re
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any, BinaryIO, Literal, TypeVar

import httpx

from extensions.imagebuilder.registry import manifests, trouble
from extensions.imagebuilder.registry.access import Credentials, challenges, scope
from extensions.imagebuilder.registry.manifests import Descriptor, ImageConfig, Index, Manifest, Platform

log = logging.getLogger(__name__)
T = TypeVar("T")
Progress = Callable[[int], None]

CHUNK_BYTES = 8 * 1024**2
CHUNK_BYTES_AT_MOST = 64 * 1024**2
#: Tries without getting any further, and the pauses between them.
TRIES = 5
PAUSE_SECONDS = 0.5
#: For one small question, and for the end of an upload: the registry reads all of it again.
ANSWER_SECONDS = 60
FINISH_SECONDS = 600
CONNECT_SECONDS = 10
REDIRECTS_AT_MOST = 5
TAGS_AT_MOST = 10_000

_REPOSITORY = re.compile(r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
_RANGE = re.compile(r"(?:bytes=)?0-([0-9]{1,18})")
_NEXT = re.compile(r'<([^<>]{1,2000})>\s*;\s*rel="?next"?')


class _Cut(Exception):
    """The connection or the registry went away: another try may help."""


class _Lost(Exception):
    """The registry no longer knows the upload."""


@dataclass(frozen=True)
class Answer:
    """A small answer, read to its end."""

    status: int
    headers: httpx.Headers
    body: bytes
    url: httpx.URL


class Registry:
    """A client of one registry; close it at the end.

    Parameters
    ----------
    address
        ``https://registry.example.edu`` or ``http://127.0.0.1:5000``; no path, no credentials within.
    credentials
        None: as nobody.
    may_call
        Whether an address outside the registry (tokens, redirected blobs) may be called.
    tls
        Trust of a centre's own; None: the machine's.
    wait
        Sleeps between tries; handed in for tests.
    """

    def __init__(
        self,
        address: str,
        credentials: Credentials | None = None,
        *,
        may_call: Callable[[str], bool] = lambda _: True,
        tls: ssl.SSLContext | None = None,
        chunk_bytes: int = CHUNK_BYTES,
        transport: httpx.AsyncBaseTransport | None = None,
        wait: Callable[[float], Awaitable[Any]] = asyncio.sleep,
    ) -> None:
        base = httpx.URL(address)
        if (
            base.scheme not in ("http", "https")
            or not base.host
            or base.userinfo
            or base.path != "/"
            or base.query
        ):
            raise ValueError("a registry's address is http(s)://host[:port], without path and credentials")
        self._base = base
        self.name = base.netloc.decode()
        self._credentials = credentials
        self._may_call = may_call
        self._chunk_bytes = chunk_bytes
        self._wait = wait
        self._signed: dict[tuple[str, ...], str] = {}
        self._http = httpx.AsyncClient(
            transport=transport,
            verify=tls if tls is not None else True,
            timeout=httpx.Timeout(ANSWER_SECONDS, connect=CONNECT_SECONDS),
            trust_env=False,  # neither a proxy nor a .netrc of the account that runs us
            follow_redirects=False,
        )

    async def close(self) -> None:
        await self._http.aclose()

    async def __aenter__(self) -> Registry:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    # Questions

    async def ping(self) -> None:
        """Whether it is there and lets us in; raises UserError if not."""
        answer = await self._asked("GET", self._url("/v2/"), ())
        if answer.status != 200:
            raise self._refusal(answer)

    async def blob_size(self, repository: str, digest: str) -> int | None:
        """Bytes of a blob that the repository has, None if it has not."""
        url = self._url(f"/v2/{_repository(repository)}/blobs/{_digest(digest)}")
        answer = await self._asked("HEAD", url, (scope(repository, "pull"),), redirects=True)
        if answer.status == 404:
            return None
        length = answer.headers.get("content-length", "")
        if answer.status != 200:
            raise self._refusal(answer)
        if not re.fullmatch(r"[0-9]{1,18}", length):
            raise trouble.broken(self.name)
        return int(length)

    async def tags(self, repository: str, *, page: int = 100) -> list[str]:
        """All tags of a repository, page by page; none for one that is not there."""
        url: httpx.URL | None = self._url(f"/v2/{_repository(repository)}/tags/list?n={page}")
        found: dict[str, None] = {}
        while url is not None:
            answer = await self._asked("GET", url, (scope(repository, "pull"),))
            if answer.status == 404 and not found:
                return []
            if answer.status != 200:
                raise self._refusal(answer)
            data = self._json(answer)
            names = data.get("tags") or []
            if not isinstance(names, list) or not all(
                isinstance(n, str) and _TAG.fullmatch(n) for n in names
            ):
                raise trouble.broken(self.name)
            before = len(found)
            found |= dict.fromkeys(names)
            link = _NEXT.search(answer.headers.get("link", "")[:4096])
            url = self._joined(answer.url, link[1]) if link else None
            # A list that does not grow would never end.
            if url is not None and (
                len(found) == before or len(found) > TAGS_AT_MOST or not self._is_ours(url)
            ):
                raise trouble.broken(self.name)
        return list(found)

    async def manifest(self, repository: str, reference: str) -> tuple[bytes, Manifest | Index]:
        """A manifest or index by tag or digest, as bytes and as read.

        Raises
        ------
        UserError
            404 ``registry-missing``; 422 when it is not what its digest says, or no image of ours.
        """
        headers = {"Accept": ", ".join((*manifests.MANIFESTS, *manifests.INDEXES))}
        answer = await self._asked(
            "GET", self._manifest_url(repository, reference), (scope(repository, "pull"),), headers=headers
        )
        if answer.status != 200:
            raise self._refusal(answer)
        digest = reference if manifests.is_digest(reference) else ""
        kind = answer.headers.get("content-type", "")
        return answer.body, manifests.read_manifest(answer.body, kind, digest=digest)

    async def image(self, repository: str, reference: str, machine: Platform) -> tuple[Manifest, ImageConfig]:
        """The image that runs on a machine of this platform: its manifest and config, checked."""
        _, found = await self.manifest(repository, reference)
        if isinstance(found, Index):
            _, found = await self.manifest(repository, manifests.choose(found, machine).digest)
        if isinstance(found, Index):
            raise trouble.broken(self.name)
        if found.config.size_bytes > manifests.DOCUMENT_BYTES_AT_MOST:
            raise trouble.broken(self.name)
        body = io.BytesIO()
        await self.pull_blob(repository, found.config, body)
        return found, manifests.read_config(body.getvalue(), found, machine)

    # Changes

    async def put_manifest(self, repository: str, reference: str, body: bytes, media_type: str) -> str:
        """Name an image; its blobs must be there. Returns its digest."""
        answer = await self._asked(
            "PUT",
            self._manifest_url(repository, reference),
            (scope(repository, "pull", "push"),),
            headers={"Content-Type": media_type},
            body=body,
        )
        if answer.status != 201:
            raise self._refusal(answer)
        digest = manifests.digest_of(body)
        if answer.headers.get("docker-content-digest", digest) != digest:
            raise trouble.broken(self.name)
        return digest

    async def delete_manifest(self, repository: str, digest: str) -> bool:
        """Delete an image and all its tags; its blobs go with the registry's garbage collection.

        Returns
        -------
        bool
            False when there was none.
        """
        url = self._manifest_url(repository, _digest(digest))
        answer = await self._asked("DELETE", url, (scope(repository, "pull", "delete"),))
        if answer.status == 404:
            return False
        if answer.status not in (200, 202, 204):
            raise self._refusal(answer)
        return True

    async def push_blob(
        self,
        repository: str,
        blob: Descriptor,
        file: BinaryIO,
        *,
        mount_from: str = "",
        progress: Progress = lambda _: None,
    ) -> Literal["present", "mounted", "sent"]:
        """Bring a blob into a repository.

        Parameters
        ----------
        repository
            Where to.
        blob
            Its digest and size; the kind does not matter.
        file
            Its bytes from the beginning; read again from where the registry stopped, so it must seek.
        mount_from
            A repository of the same registry that may have it.
        progress
            Called with the bytes that the registry has; goes back when an upload begins anew.
        """
        if await self.blob_size(repository, blob.digest) is not None:
            progress(blob.size_bytes)
            return "present"
        upload = _Upload(self, repository, blob, file, mount_from, progress)
        try:
            return await upload.run()
        except BaseException:
            await upload.abandon()
            raise

    async def pull_blob(
        self,
        repository: str,
        blob: Descriptor,
        file: BinaryIO,
        *,
        progress: Progress = lambda _: None,
    ) -> None:
        """Write a blob into an empty file; after a cut only the rest is asked for.

        Raises
        ------
        UserError
            422 when it is not what its digest says; then the file is emptied.
        """
        url = self._url(f"/v2/{_repository(repository)}/blobs/{_digest(blob.digest)}")
        done, failures = 0, 0
        hashed = hashlib.sha256()
        while True:
            best = done
            try:
                headers = {"Range": f"bytes={done}-"} if done else {}
                async with self._opened(
                    "GET", url, (scope(repository, "pull"),), headers, redirects=True
                ) as response:
                    if response.status_code in trouble.FOR_NOW:
                        raise _Cut
                    begins = response.headers.get("content-range", "").startswith(f"bytes {done}-")
                    if response.status_code == 200 or (response.status_code == 206 and not begins):
                        done, hashed = 0, hashlib.sha256()
                        await asyncio.to_thread(_empty, file)
                    if response.status_code not in (200, 206) or (response.status_code == 206 and not begins):
                        raise self._refusal(await self._read(response))
                    async for piece in response.aiter_raw():  # with a size, a cut would lose what is gathered
                        done += len(piece)
                        if done > blob.size_bytes:
                            break
                        hashed.update(piece)
                        await asyncio.to_thread(file.write, piece)
                        progress(done)
                if done < blob.size_bytes:
                    raise _Cut
                break
            except _Cut:
                failures = 1 if done > best else failures + 1
                await self._pause(failures)
        if done != blob.size_bytes or f"sha256:{hashed.hexdigest()}" != blob.digest:
            await asyncio.to_thread(_empty, file)
            raise manifests.lie()

    # The wire

    def _url(self, path: str) -> httpx.URL:
        return self._base.join(path)

    def _manifest_url(self, repository: str, reference: str) -> httpx.URL:
        if not manifests.is_digest(reference) and not _TAG.fullmatch(reference):
            raise ValueError("neither a tag nor a digest")
        return self._url(f"/v2/{_repository(repository)}/manifests/{reference}")

    def _is_ours(self, url: httpx.URL) -> bool:
        def origin(one: httpx.URL) -> tuple[str, str, int]:
            return one.scheme, one.host, one.port or {"http": 80, "https": 443}.get(one.scheme, 0)

        return origin(url) == origin(self._base)

    def _joined(self, base: httpx.URL, address: str) -> httpx.URL:
        """An address that the registry named, if it may be called."""
        try:
            url = base.join(address)
        except (httpx.InvalidURL, ValueError):
            raise trouble.broken(self.name) from None
        if self._is_ours(url):
            return url
        safe = url.scheme == "https" or (url.scheme == "http" and self._base.scheme == "http")
        if not safe or not url.host or url.userinfo or not self._may_call(str(url)):
            raise trouble.broken(self.name)
        return url

    def _refusal(self, answer: Answer) -> Exception:
        log.warning("registry %s: %s %s", self.name, answer.status, " ".join(trouble.codes(answer.body)[:3]))
        return trouble.refusal(self.name, answer.status, answer.body)

    def _json(self, answer: Answer) -> dict[str, Any]:
        try:
            data = json.loads(answer.body)
        except (ValueError, RecursionError):
            data = None
        if not isinstance(data, dict):
            raise trouble.broken(self.name)
        return data

    async def _pause(self, failures: int) -> None:
        """Before another try; raises when there were enough."""
        if failures >= TRIES:
            raise trouble.away(self.name)
        await self._wait(PAUSE_SECONDS * 2 ** (failures - 1))

    async def _asked(self, method: str, url: httpx.URL, scopes: tuple[str, ...], **more: Any) -> Answer:
        """One small question that may be asked again."""
        failures = 0
        while True:
            try:
                return await self._call(method, url, scopes, **more)
            except _Cut:
                failures += 1
            await self._pause(failures)

    async def _call(
        self,
        method: str,
        url: httpx.URL,
        scopes: tuple[str, ...],
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
        redirects: bool = False,
        limit_seconds: float = ANSWER_SECONDS,
    ) -> Answer:
        try:
            async with asyncio.timeout(limit_seconds):
                async with self._opened(
                    method, url, scopes, headers or {}, body, redirects=redirects
                ) as response:
                    answer = await self._read(response)
        except TimeoutError:
            raise _Cut from None
        if answer.status in trouble.FOR_NOW:
            raise _Cut
        return answer

    async def _read(self, response: httpx.Response) -> Answer:
        body = bytearray()
        async for piece in response.aiter_raw():
            body += piece
            if len(body) > manifests.DOCUMENT_BYTES_AT_MOST:
                raise trouble.broken(self.name)
        return Answer(response.status_code, response.headers, bytes(body), response.url)

    @asynccontextmanager
    async def _opened(
        self,
        method: str,
        url: httpx.URL,
        scopes: tuple[str, ...],
        headers: Mapping[str, str],
        body: bytes = b"",
        *,
        redirects: bool = False,
    ) -> AsyncIterator[httpx.Response]:
        """An answer whose body is still to come; signs in when asked to, once."""
        asked = False
        hops = 0
        try:
            while True:
                own = {"Accept-Encoding": "identity", **headers}
                if self._is_ours(url) and scopes in self._signed:
                    own["Authorization"] = self._signed[scopes]
                request = self._http.build_request(method, url, headers=own, content=body or None)
                if method in ("POST", "PUT", "PATCH") and not body:
                    request.headers["Content-Length"] = "0"
                response = await self._http.send(request, stream=True)
                try:
                    if response.status_code == 401 and self._is_ours(url) and not asked:
                        asked = True
                        offers = response.headers.get_list("www-authenticate")
                        await response.aclose()
                        if await self._sign_in(offers, scopes):
                            continue
                        raise trouble.refusal(self.name, 401, b"")
                    if redirects and response.status_code in (301, 302, 303, 307, 308):
                        hops += 1
                        if hops > REDIRECTS_AT_MOST:
                            raise trouble.broken(self.name)
                        url = self._joined(url, response.headers.get("location", ""))
                        continue
                    yield response
                    return
                finally:
                    await response.aclose()
        except httpx.TransportError as error:
            log.info("registry %s: %s", self.name, type(error).__name__)
            raise _Cut from None  # what httpx raises carries the request with it

    async def _sign_in(self, offers: list[str], scopes: tuple[str, ...]) -> bool:
        for offer in challenges(offers):
            if offer.scheme == "bearer" and "realm" in offer.parameters:
                realm = self._joined(self._base, offer.parameters["realm"])
                service = offer.parameters.get("service")
                query = [("scope", one) for one in scopes] + ([("service", service)] if service else [])
                headers = {"Accept-Encoding": "identity"}
                if self._credentials:
                    headers["Authorization"] = self._credentials.basic()
                url = realm.copy_with(params=[*realm.params.multi_items(), *query])
                async with self._http.stream("GET", url, headers=headers) as response:
                    answer = await self._read(response)
                if answer.status in trouble.FOR_NOW:
                    raise _Cut
                if answer.status != 200:
                    raise self._refusal(answer)
                data = self._json(answer)
                token = data.get("token") or data.get("access_token")
                if not isinstance(token, str) or not re.fullmatch(r"[\x21-\x7e]{1,16384}", token):
                    raise trouble.broken(self.name)
                self._signed[scopes] = f"Bearer {token}"
                return True
            if offer.scheme == "basic" and self._credentials:
                tried = self._signed.get(scopes)
                self._signed[scopes] = self._credentials.basic()
                return tried != self._signed[scopes]
        return False


class _Upload:
    """One blob on its way into a repository."""

    def __init__(
        self,
        registry: Registry,
        repository: str,
        blob: Descriptor,
        file: BinaryIO,
        mount_from: str,
        progress: Progress,
    ) -> None:
        self.registry = registry
        self.repository = _repository(repository)
        self.blob = blob
        self.file = file
        self.mount_from = mount_from and _repository(mount_from)
        self.progress = progress
        self.scopes: tuple[str, ...] = (scope(repository, "pull", "push"),)
        self.place: httpx.URL | None = None
        self.sent = 0
        self.chunk_bytes = registry._chunk_bytes

    async def run(self) -> Literal["present", "mounted", "sent"]:
        best, failures, cut = 0, 0, False
        while True:
            try:
                if cut and self.place is not None:
                    await self._ask()
                if self.place is None:
                    if cut and await self._arrived():
                        return "sent"
                    if await self._start():
                        self.progress(self.blob.size_bytes)
                        return "mounted"
                    self.progress(0)
                cut = False
                while self.sent < self.blob.size_bytes:
                    await self._send()
                    self.progress(self.sent)
                    if self.sent > best:
                        best, failures = self.sent, 0
                await self._finish()
                return "sent"
            except _Cut:
                cut = True
            except _Lost:
                cut, self.place = True, None
            failures += 1
            await self.registry._pause(failures)

    async def abandon(self) -> None:
        """Tell the registry to forget it; what cannot be told goes with the registry's own purge."""
        place, self.place = self.place, None
        if place is None:
            return

        async def give_up() -> None:
            with suppress(Exception):
                await self.registry._call("DELETE", place, self.scopes, limit_seconds=5)

        await asyncio.shield(asyncio.create_task(give_up()))

    async def _arrived(self) -> bool:
        return await self.registry.blob_size(self.repository, self.blob.digest) == self.blob.size_bytes

    async def _start(self) -> bool:
        """Begin; True when another repository's blob was taken instead."""
        path, scopes = f"/v2/{self.repository}/blobs/uploads/", self.scopes
        if self.mount_from:
            path += f"?mount={_digest(self.blob.digest)}&from={self.mount_from}"
            scopes = (*scopes, scope(self.mount_from, "pull"))
        answer = await self.registry._call("POST", self.registry._url(path), scopes)
        if answer.status == 201 and self.mount_from:
            return True
        if answer.status != 202:
            raise self.registry._refusal(answer)
        self._moved(answer)
        self.sent = 0
        least = answer.headers.get("oci-chunk-min-length", "")
        if re.fullmatch(r"[0-9]{1,12}", least):
            self.chunk_bytes = min(max(self.chunk_bytes, int(least)), CHUNK_BYTES_AT_MOST)
        return False

    async def _ask(self) -> None:
        """How far the registry came; begins anew when it does not say so clearly."""
        assert self.place is not None
        answer = await self.registry._call("GET", self.place, self.scopes)
        told = _RANGE.fullmatch(answer.headers.get("range", ""))
        have = int(told[1]) + 1 if told else 0
        # "0-0" is one byte, and what some registries say of none.
        if answer.status != 204 or not 1 < have <= self.blob.size_bytes:
            await self.abandon()
            return
        self.sent = have
        if answer.headers.get("location"):
            self._moved(answer)
        self.progress(have)

    async def _send(self) -> None:
        assert self.place is not None
        end = min(self.sent + self.chunk_bytes, self.blob.size_bytes)
        chunk = await asyncio.to_thread(_piece, self.file, self.sent, end - self.sent)
        if len(chunk) != end - self.sent:
            raise trouble.changed()
        headers = {"Content-Type": "application/octet-stream", "Content-Range": f"{self.sent}-{end - 1}"}
        answer = await self.registry._call("PATCH", self.place, self.scopes, headers=headers, body=chunk)
        if answer.status in (404, 416):
            raise _Lost if answer.status == 404 else _Cut
        if answer.status != 202:
            raise self.registry._refusal(answer)
        self._moved(answer)
        told = _RANGE.fullmatch(answer.headers.get("range", f"0-{end - 1}"))
        have = int(told[1]) + 1 if told else 0
        if not self.sent < have <= end:
            raise _Cut
        self.sent = have

    async def _finish(self) -> None:
        assert self.place is not None
        address = str(self.place)
        address += ("&" if "?" in address else "?") + f"digest={_digest(self.blob.digest)}"
        answer = await self.registry._call(
            "PUT", httpx.URL(address), self.scopes, limit_seconds=FINISH_SECONDS
        )
        if answer.status == 404:
            raise _Lost
        if "DIGEST_INVALID" in trouble.codes(answer.body):
            raise trouble.changed()
        if answer.status != 201:
            raise self.registry._refusal(answer)
        self.place = None

    def _moved(self, answer: Answer) -> None:
        location = answer.headers.get("location", "")
        if not location:
            raise trouble.broken(self.registry.name)
        self.place = self.registry._joined(answer.url, location)


def _piece(file: BinaryIO, place: int, size: int) -> bytes:
    file.seek(place)
    return file.read(size)


def _empty(file: BinaryIO) -> None:
    file.seek(0)
    file.truncate()


def _repository(name: str) -> str:
    if len(name) > 255 or not _REPOSITORY.fullmatch(name):
        raise ValueError("not the name of a repository")
    return name


def _digest(text: str) -> str:
    if not manifests.is_digest(text):
        raise ValueError("not a SHA-256 digest")
    return text
