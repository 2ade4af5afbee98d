"""What the client does with registries that are strict, strange or hostile: played by a function."""

from __future__ import annotations

import io
import logging
import os
import re
import traceback
from collections.abc import AsyncIterator, Callable
from contextlib import suppress

import httpx
import pytest

from extensions.imagebuilder.registry import manifests, trouble
from extensions.imagebuilder.registry.access import Challenge, Credentials, challenges
from extensions.imagebuilder.registry.client import TRIES, Registry
from extensions.imagebuilder.registry.manifests import Descriptor, digest_of
from galilean.errors import UserError

SECRET = "s3cret-of-ours"
TOKEN = "token-of-an-hour"
CHUNK = 100
BODY = os.urandom(1000)
BLOB = Descriptor(manifests.LAYERS[0], digest_of(BODY), len(BODY))
Answers = Callable[[httpx.Request], httpx.Response]


async def at_once(_: float) -> None:
    """Instead of a pause."""


class Played(httpx.AsyncBaseTransport):
    """Answers by a function; bodies still to be read, as from a wire."""

    def __init__(self, answers: Answers) -> None:
        self.answers = answers

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        await request.aread()
        answer = self.answers(request)
        with suppress(httpx.ResponseNotRead):
            return httpx.Response(
                answer.status_code, headers=answer.headers, stream=httpx.ByteStream(answer.content)
            )
        return answer


def client(answers: Answers, address: str = "https://registry.test", **more: object) -> Registry:
    return Registry(
        address,
        Credentials("ada", SECRET),
        transport=Played(answers),
        chunk_bytes=CHUNK,
        wait=at_once,
        **more,  # type: ignore[arg-type]
    )


class Strict:
    """A registry that follows the specification to the letter, also after a cut in the middle of a chunk."""

    def __init__(self) -> None:
        self.have = bytearray()
        self.blobs: dict[str, bytes] = {}
        self.uploads = 0
        self.cut_at: int | None = None
        self.lose_answer = False

    def __call__(self, request: httpx.Request) -> httpx.Response:
        path, body = request.url.path, request.read()
        here = {"location": "/v2/a/b/blobs/uploads/1?state=x%3D", "range": f"0-{len(self.have) - 1}"}
        if request.method == "HEAD":
            blob = self.blobs.get(path.rpartition("/")[2])
            return httpx.Response(404) if blob is None else httpx.Response(200, content=blob)
        if request.method == "POST":
            self.uploads += 1
            self.have.clear()
            return httpx.Response(202, headers={"location": here["location"]})
        assert str(request.url).startswith("https://registry.test/v2/a/b/blobs/uploads/1?state=x%3D")
        if request.method == "GET":
            return httpx.Response(204, headers=here)
        if request.method == "PATCH":
            first, last = map(int, request.headers["content-range"].split("-"))
            assert (first, last) == (len(self.have), len(self.have) + len(body) - 1)
            if self.cut_at is not None and last >= self.cut_at:
                self.have += body[: self.cut_at - first]
                self.cut_at = None
                raise httpx.WriteError("cut", request=request)
            self.have += body
            return httpx.Response(202, headers=here | {"range": f"0-{len(self.have) - 1}"})
        assert request.method == "PUT"
        self.blobs[request.url.params["digest"]] = bytes(self.have)
        if self.lose_answer:
            raise httpx.ReadError("cut", request=request)
        return httpx.Response(201)


async def push(registry: Registry) -> list[int]:
    seen: list[int] = []
    async with registry:
        await registry.push_blob("a/b", BLOB, io.BytesIO(BODY), progress=seen.append)
    return seen


async def test_after_a_cut_in_a_chunk_the_rest_is_sent_and_no_more() -> None:
    strict = Strict()
    strict.cut_at = 250
    seen = await push(client(strict))
    assert strict.blobs == {BLOB.digest: BODY}
    assert strict.uploads == 1
    assert seen == [0, 100, 200, 250, 350, 450, 550, 650, 750, 850, 950, 1000]


async def test_an_upload_whose_last_answer_was_lost_is_there() -> None:
    strict = Strict()
    strict.lose_answer = True

    def answers(request: httpx.Request) -> httpx.Response:
        if strict.blobs and request.method == "GET":
            return httpx.Response(404)
        return strict(request)

    await push(client(answers))
    assert strict.uploads == 1


async def test_a_registry_that_is_cut_again_and_again_is_away() -> None:
    begun = 0

    def answers(request: httpx.Request) -> httpx.Response:
        nonlocal begun
        if request.method == "HEAD":
            return httpx.Response(404)
        if request.method == "POST":
            begun += 1
            return httpx.Response(202, headers={"location": "/v2/a/b/blobs/uploads/1"})
        if request.method == "PATCH" and request.headers["content-range"].startswith("0-"):
            return httpx.Response(202, headers={"location": "/v2/a/b/blobs/uploads/1", "range": "0-99"})
        if request.method == "PATCH":
            raise httpx.ReadTimeout("slow", request=request)
        return httpx.Response(404)

    with pytest.raises(UserError) as caught:
        await push(client(answers))
    assert caught.value.reason == "registry-away"
    assert begun == TRIES


class Guarded:
    """Asks for a token; takes each for ``uses`` requests."""

    def __init__(
        self, inner: Answers, realm: str = "https://tokens.test/auth?x=1", uses: int = 10**6
    ) -> None:
        self.inner, self.realm, self.uses = inner, realm, uses
        self.left = 0
        self.issued: list[httpx.Request] = []
        self.seen: list[httpx.Request] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        if request.url.host == "tokens.test":
            self.issued.append(request)
            self.left = self.uses
            return httpx.Response(200, json={"token": f"{TOKEN}-{len(self.issued)}"})
        self.seen.append(request)
        if request.url.host == "registry.test":
            if request.headers.get("authorization") != f"Bearer {TOKEN}-{len(self.issued)}" or not self.left:
                offer = f'Bearer realm="{self.realm}",service="the registry",scope="ignored"'
                return httpx.Response(401, headers={"www-authenticate": offer})
            self.left -= 1
        return self.inner(request)


async def test_a_token_is_asked_for_what_is_done_and_again_when_it_ends() -> None:
    strict = Strict()
    guarded = Guarded(strict, uses=4)
    await push(client(guarded))
    assert strict.blobs == {BLOB.digest: BODY}
    assert len(guarded.issued) > 2
    assert guarded.issued[0].url.params.multi_items() == [
        ("x", "1"), ("scope", "repository:a/b:pull"), ("service", "the registry"),
    ]  # fmt: skip
    assert guarded.issued[-1].url.params["scope"] == "repository:a/b:pull,push"
    assert all(request.headers["authorization"].startswith("Basic ") for request in guarded.issued)
    assert all("Basic" not in request.headers.get("authorization", "") for request in guarded.seen)


@pytest.mark.parametrize(
    "realm", ["http://tokens.test/auth", "ftp://tokens.test/", "https://u:p@tokens.test/", "https://"]
)
async def test_a_password_goes_to_no_unsafe_place(realm: str) -> None:
    guarded = Guarded(Strict(), realm=realm)
    with pytest.raises(UserError):
        await push(client(guarded))
    assert guarded.issued == []


async def test_another_place_is_called_only_if_it_may_be() -> None:
    guarded = Guarded(Strict(), realm="https://tokens.test/inside")
    with pytest.raises(UserError):
        await push(client(guarded, may_call=lambda url: "inside" not in url))
    assert guarded.issued == []


async def test_a_redirected_blob_is_fetched_without_our_token() -> None:
    def answers(request: httpx.Request) -> httpx.Response:
        if request.url.host == "registry.test":
            return httpx.Response(307, headers={"location": "https://store.test/blob?signature=1"})
        return httpx.Response(200, content=BODY)

    guarded = Guarded(answers)
    file = io.BytesIO()
    async with client(guarded) as registry:
        await registry.pull_blob("a/b", BLOB, file)
    assert file.getvalue() == BODY
    assert [r.headers.get("authorization") for r in guarded.seen if r.url.host == "store.test"] == [None]


async def test_redirects_without_end_are_refused() -> None:
    async with client(lambda _: httpx.Response(307, headers={"location": "/again"})) as registry:
        with pytest.raises(UserError):
            await registry.blob_size("a/b", BLOB.digest)


async def test_neither_password_nor_token_is_in_an_exception_or_a_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)

    def answers(request: httpx.Request) -> httpx.Response:
        if request.method == "HEAD":
            return httpx.Response(404)
        return httpx.Response(403, json={"errors": [{"code": "DENIED", "message": f"not {SECRET} {TOKEN}"}]})

    def cut(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError(f"{SECRET}", request=request)

    credentials = Credentials("ada", SECRET)
    texts = [repr(credentials), str(credentials)]
    for one in (Guarded(answers), Guarded(cut)):
        with pytest.raises(UserError) as caught:
            await push(client(one))
        texts += traceback.format_exception(caught.value)
        texts.append(repr(caught.value.as_dict()))
        assert caught.value.__cause__ is None
    texts += [f"{record.getMessage()} {record.exc_text}" for record in caplog.records]
    assert "403 DENIED" in "".join(texts)
    basic = credentials.basic().removeprefix("Basic ")
    for secret in (SECRET, TOKEN, basic):
        assert secret not in "".join(texts)


@pytest.mark.parametrize(
    "address",
    ["https://ada:pw@registry.test", "registry.test", "ftp://registry.test", "https://registry.test/v2"],
)
def test_an_address_that_is_none_is_refused_without_repeating_it(address: str) -> None:
    with pytest.raises(ValueError, match="address") as caught:
        Registry(address)
    assert "pw" not in str(caught.value)


class Torn(httpx.AsyncByteStream):
    """An answer that breaks off."""

    def __init__(self, body: bytes) -> None:
        self.body = body

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield self.body
        raise httpx.RemoteProtocolError("peer closed connection")


async def test_a_download_that_was_cut_goes_on() -> None:
    asked: list[str] = []

    def answers(request: httpx.Request) -> httpx.Response:
        asked.append(request.headers.get("range", ""))
        first = int(re.sub(r"\D", "", asked[-1]) or 0)
        headers = {"content-range": f"bytes {first}-999/1000"} if first else {}
        if first < 600:
            return httpx.Response(
                206 if first else 200, headers=headers, stream=Torn(BODY[first : first + 300])
            )
        return httpx.Response(206, headers=headers, content=BODY[first:])

    file = io.BytesIO()
    async with client(answers) as registry:
        await registry.pull_blob("a/b", BLOB, file)
    assert file.getvalue() == BODY
    assert asked == ["", "bytes=300-", "bytes=600-"]


@pytest.mark.parametrize(
    "body", [BODY[:-1] + bytes([BODY[-1] ^ 1]), BODY + b"!", b"x" * 1000], ids=["a bit", "longer", "another"]
)
async def test_what_arrives_is_not_kept_when_it_is_not_what_was_asked_for(body: bytes) -> None:
    file = io.BytesIO()
    async with client(lambda _: httpx.Response(200, content=body)) as registry:
        with pytest.raises(UserError) as caught:
            await registry.pull_blob("a/b", BLOB, file)
    assert (caught.value.reason, file.getvalue()) == ("image-digest", b"")


async def test_a_download_that_always_ends_early_is_an_error() -> None:
    async with client(lambda _: httpx.Response(200, content=BODY[:10])) as registry:
        with pytest.raises(UserError) as caught:
            await registry.pull_blob("a/b", BLOB, io.BytesIO())
    assert caught.value.reason == "registry-away"


async def test_tags_are_listed_over_pages_and_a_list_without_end_is_refused() -> None:
    def pages(request: httpx.Request) -> httpx.Response:
        last = request.url.params.get("last", "")
        tags = {"": ["a", "b"], "b": ["c"]}[last]
        link = {"link": '</v2/a/b/tags/list?n=2&last=b>; rel="next"'} if not last else {}
        return httpx.Response(200, json={"name": "a/b", "tags": tags}, headers=link)

    async with client(pages) as registry:
        assert await registry.tags("a/b", page=2) == ["a", "b", "c"]

    endless = {"link": '</v2/a/b/tags/list?last=b>; rel="next"'}
    async with client(lambda _: httpx.Response(200, json={"tags": ["a"]}, headers=endless)) as registry:
        with pytest.raises(UserError):
            await registry.tags("a/b")


async def test_an_answer_without_end_is_not_read_to_its_end() -> None:
    body = b" " * (manifests.DOCUMENT_BYTES_AT_MOST + 1)
    async with client(lambda _: httpx.Response(200, content=body)) as registry:
        with pytest.raises(UserError) as caught:
            await registry.manifest("a/b", "v1")
    assert caught.value.reason == "registry-broken"


@pytest.mark.parametrize("name", ["A/b", "../v2", "a//b", "a/b?x", "a" * 256, "", "a/b\n", "-a"])
async def test_a_name_that_is_none_is_never_asked_for(name: str) -> None:
    def never(_: httpx.Request) -> httpx.Response:
        raise AssertionError("asked")

    async with client(never) as registry:
        with pytest.raises(ValueError):
            await registry.tags(name)
        with pytest.raises(ValueError):
            await registry.manifest("a/b", name + "/")


@pytest.mark.parametrize(
    ("status", "body", "reason"),
    [
        (507, b"", "registry-full"),
        (413, b"<html>", "registry-full"),
        (500, b'{"errors":[{"code":"UNKNOWN","detail":"write x: no space left on device"}]}', "registry-full"),
        (403, b'{"errors":[{"code":"DENIED","message":"adding 5 MiB will exceed the storage quota"}]}', "registry-full"),
        (403, b'{"errors":[{"code":"DENIED"}]}', "registry-refused"),
        (405, b'{"errors":[{"code":"UNSUPPORTED"}]}', "registry-refused"),
        (404, b"", "registry-missing"),
        (503, b"", "registry-away"),
        (500, b"[" * 100_000, "registry-broken"),
        (418, b'{"errors": [7]}', "registry-broken"),
    ],
)  # fmt: skip
def test_each_refusal_has_its_word(status: int, body: bytes, reason: str) -> None:
    assert trouble.refusal("registry.test", status, body).reason == reason


def test_challenges_are_read_as_they_are_written() -> None:
    header = 'Basic realm="a \\"b\\", c", Bearer realm="https://t/?a=b",service=reg,scope="x:y:pull,push"'
    assert challenges([header, "Negotiate"]) == [
        Challenge("basic", {"realm": 'a "b", c'}),
        Challenge("bearer", {"realm": "https://t/?a=b", "service": "reg", "scope": "x:y:pull,push"}),
        Challenge("negotiate", {}),
    ]
    assert challenges(['="', "", '"', "a" * 10_000_000])[:1] == [Challenge("a" * 4096, {})]
