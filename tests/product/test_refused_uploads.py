"""A refused upload through the real proxy: the portal's own sentence, never the proxy's 503."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from tests.product.product import Person, Product, at_once

API = "/services/portal/api/v1"
SIZES = [2, 100_000, 5_000_000, 40_000_000]


def pieces(total: int) -> Iterator[bytes]:
    """A body of unknown length: httpx sends it in chunks."""
    left = total
    while left > 0:
        size = min(left, 500_000)
        yield b"x" * size
        left -= size


@pytest.fixture
def narrow(person: Callable[..., Person]) -> Person:
    """Somebody who may upload 1 MB at once."""
    return person("narrow")


def told(answer: httpx.Response, status: int) -> None:
    assert answer.status_code == status, (answer.status_code, answer.text[:300])
    assert answer.headers["Content-Type"].startswith("application/problem+json"), answer.headers
    assert answer.json()["status"] == status
    assert answer.json()["detail"]


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("size", SIZES)
def test_every_refusal_reaches_its_sender(
    product: Product, ada: Person, narrow: Person, size: int, chunked: bool
):
    mine, small = ada.project("Refused"), narrow.project("Refused")
    ada.portal("PUT", f"/projects/{ada.name}/{mine}/files/there", content=b"1").raise_for_status()

    def put(token: str, path: str, **more: Any) -> httpx.Response:
        body = pieces(size) if chunked else b"x" * size
        headers = {"Authorization": f"token {token}"} if token else {}
        return product.http.put(f"{API}/projects/{path}", content=body, headers=headers, **more)

    told(put(ada.token, f"{ada.name}/nowhere/files/x"), 404)
    told(put(ada.token, f"{narrow.name}/{small}/files/x"), 404)
    told(put("", f"{ada.name}/{mine}/files/x"), 401)
    told(put("nonsense", f"{ada.name}/{mine}/files/x"), 401)
    if chunked:  # how much comes must be said
        told(put(ada.token, f"{ada.name}/{mine}/files/good"), 411)
        return
    told(put(ada.token, f"{ada.name}/{mine}/files/there", params={"overwrite": "false"}), 409)
    told(put(ada.token, f"{ada.name}/{mine}/files/there/below"), 400)
    answer = put(narrow.token, f"{narrow.name}/{small}/files/x")
    if size > 2**20:
        told(answer, 413)
    else:
        assert answer.status_code == 201, answer.text
    assert put(ada.token, f"{ada.name}/{mine}/files/good").status_code == 201


def test_many_refusals_at_once_reach_their_senders(product: Product, ada: Person, narrow: Person):
    slug = narrow.project("Many")
    bodies = itertools.cycle([b"x" * size for size in SIZES])

    def one(body: bytes, path: str, status: int) -> Callable[[], None]:
        def call() -> None:
            with httpx.Client(base_url=product.url, timeout=120) as client:
                headers = {"Authorization": f"token {narrow.token}"}
                told(client.put(f"{API}/projects/{path}", content=body, headers=headers), status)

        return call

    calls: list[Callable[[], None]] = []
    for _ in range(24):
        body = next(bodies)
        calls.append(one(body, f"{narrow.name}/nowhere/files/x", 404))
        if len(body) > 2**20:
            calls.append(one(body, f"{narrow.name}/{slug}/files/x", 413))
    at_once(*calls)


def test_other_large_bodies_are_refused_in_words(product: Product, ada: Person):
    slug = ada.project("Large")
    ada.portal("PUT", f"/projects/{ada.name}/{slug}/files/x", content=b"1").raise_for_status()
    for _ in range(5):
        told(ada.portal("POST", "/projects", json={"name": "x" * 8_000_000}), 413)
        told(ada.portal("PATCH", f"/projects/{ada.name}/{slug}/files/x", json={"to": "y" * 200_000}), 413)
        told(ada.portal("POST", f"/projects/{ada.name}/{slug}/clusters", json={"pool": "y" * 9_000_000}), 413)


@pytest.mark.parametrize("chunked", [False, True])
def test_the_answer_reaches_who_sends_far_more_than_is_waited_for(
    product: Product, narrow: Person, chunked: bool
):
    slug = narrow.project("Far too large")
    total = 200_000_000

    def once() -> None:
        with httpx.Client(base_url=product.url, timeout=120) as client:
            answer = client.put(
                f"{API}/projects/{narrow.name}/{slug}/files/x",
                content=pieces(total),
                headers={"Authorization": f"token {narrow.token}"}
                | ({} if chunked else {"Content-Length": str(total)}),
            )
            told(answer, 411 if chunked else 413)

    for _ in range(5):
        once()
    at_once(*[once] * 4)
