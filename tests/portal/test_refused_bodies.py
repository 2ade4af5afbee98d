"""A refusal whose request is still on its way: it reaches its sender, whole and in words."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import pytest

from galilean.web import streamed
from tests.portal.conftest import Sign, made
from tests.portal.live import LiveSite

FILES = "/services/portal/api/v1/projects"


class Wire:
    """A connection on which nothing is done behind one's back."""

    def __init__(self, site: LiveSite, token: str) -> None:
        self.raw = socket.create_connection(("127.0.0.1", site.port), timeout=120)
        self._token = token
        self._left = b""

    def send(self, method: str, path: str, *headers: str, body: bytes = b"") -> None:
        lines = [f"{method} {path} HTTP/1.1", "Host: x", f"Authorization: {self._token}", *headers, "", ""]
        self.raw.sendall("\r\n".join(line for line in lines if line != "Authorization: ").encode() + body)

    def answer(self) -> tuple[int, dict[str, object]]:
        """Status and body of one answer, read exactly to its end."""
        while b"\r\n\r\n" not in self._left:
            self._left += self._more()
        head, _, self._left = self._left.partition(b"\r\n\r\n")
        length = int(
            next(
                line.split(b":")[1]
                for line in head.split(b"\r\n")
                if line.lower().startswith(b"content-length")
            )
        )
        while len(self._left) < length:
            self._left += self._more()
        body, self._left = self._left[:length], self._left[length:]
        assert b"application/problem+json" in head or b"application/json" in head, head
        return int(head.split(b" ")[1]), json.loads(body)

    def _more(self) -> bytes:
        piece = self.raw.recv(65536)
        assert piece, "closed without an answer"
        return piece

    def is_closed(self) -> bool:
        try:
            return self.raw.recv(1) == b""
        except ConnectionError:
            return True


@contextmanager
def wire(site: LiveSite, token: str) -> Iterator[Wire]:
    made_one = Wire(site, token)
    try:
        yield made_one
    finally:
        made_one.raw.close()


def chunks(total: int, size: int = 50_000) -> Iterable[bytes]:
    for _ in range(total // size):
        yield f"{size:x}\r\n".encode() + b"x" * size + b"\r\n"
    yield b"0\r\n\r\n"


@pytest.mark.parametrize(
    ("token", "path", "status"),
    [
        ("alice", "/alice/nowhere/files/x", 404),
        ("alice", "/bob/heat-flow/files/x", 404),
        ("", "/alice/heat-flow/files/x", 401),
        ("alice", "/alice/heat-flow/files/..%2f..%2fx", 400),
        ("alice", "/alice/heat-flow/files/x?overwrite=maybe", 400),
    ],
)
def test_the_answer_comes_when_the_body_is_in_and_the_connection_is_good_for_more(
    sign: Sign, site: LiveSite, token: str, path: str, status: int
) -> None:
    alice = sign("alice")
    made(alice)
    with wire(site, alice.headers["Authorization"] if token else "") as line:
        line.send("PUT", FILES + path, "Content-Length: 3000000")
        for _ in range(3):
            line.raw.sendall(b"x" * 1_000_000)
        assert line.answer()[0] == status
        line.send("GET", f"{FILES}/alice/heat-flow")
        assert line.answer()[0] == (200 if token else 401)
    assert alice.get("/projects/alice/heat-flow/files").json()["items"] == []


@pytest.mark.parametrize("method", ["GET", "PUT", "POST", "PATCH", "DELETE"])
@pytest.mark.parametrize("length", ["0", ""])
def test_a_refusal_of_nothing_leaves_the_connection_as_it_says(
    sign: Sign, site: LiveSite, method: str, length: str
) -> None:
    """A proxy that is not told of the end of a connection sends its next request into the void."""
    alice = sign("alice")
    made(alice)
    with wire(site, alice.headers["Authorization"]) as line:
        for _ in range(3):
            line.send(
                method, f"{FILES}/alice/nowhere/files/x", *([f"Content-Length: {length}"] if length else [])
            )
            assert line.answer()[0] == 404
        line.send("GET", f"{FILES}/alice/heat-flow")
        assert line.answer()[0] == 200


def test_a_body_of_unknown_length_is_refused_when_it_is_in(sign: Sign, site: LiveSite) -> None:
    bob = sign("bob")
    made(bob)
    with wire(site, bob.headers["Authorization"]) as line:
        line.send("PUT", f"{FILES}/bob/heat-flow/files/x", "Transfer-Encoding: chunked")
        for piece in chunks(1_000_000):
            line.raw.sendall(piece)
        status, problem = line.answer()
        assert status == 411
        assert "how much" in str(problem["detail"])
        line.send("GET", f"{FILES}/bob/heat-flow")
        assert line.answer()[0] == 200
    assert bob.get("/projects/bob/heat-flow/files").json()["items"] == []


def test_small_json_that_is_not_small_is_refused_in_words(sign: Sign, site: LiveSite) -> None:
    alice = sign("alice")
    made(alice)
    assert alice.put("/projects/alice/heat-flow/files/x", content=b"1").status_code == 201
    huge = {"to": "y" * 300_000}
    answer = alice.patch("/projects/alice/heat-flow/files/x", json=huge)
    assert answer.status_code == 413
    assert "larger" in answer.json()["detail"]
    answer = alice.post("/projects", json={"name": "x" * 8_000_000})
    assert answer.status_code == 413
    assert answer.headers["Content-Type"] == "application/problem+json"
    answer = alice.post("/projects", json={"name": "x" * 8_000_000}, headers={"Accept-Language": "zh-CN"})
    assert answer.json()["detail"] == "请求内容超过了此处允许的大小。"


@pytest.mark.parametrize("sends", [True, False])
def test_who_asks_whether_to_send_is_told_no_and_nothing_else(
    sign: Sign, site: LiveSite, sends: bool
) -> None:
    alice = sign("alice")
    made(alice)
    with wire(site, alice.headers["Authorization"]) as line:
        line.send("PUT", f"{FILES}/alice/nowhere/files/x", "Content-Length: 10", "Expect: 100-continue")
        if sends:  # all the same, as a proxy does
            line.raw.sendall(b"x" * 10)
        assert line.answer()[0] == 404
        if sends:
            line.send("GET", f"{FILES}/alice/heat-flow")
            assert line.answer()[0] == 200


def test_what_goes_on_and_on_is_answered_and_then_cut_off(
    sign: Sign, site: LiveSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streamed, "DROPPED_BYTES", 1_000_000)
    monkeypatch.setattr(streamed, "LINGER_SECONDS", 0.3)
    with wire(site, "") as line:
        line.send("PUT", f"{FILES}/alice/heat-flow/files/x", "Content-Length: 90000000000")
        line.raw.sendall(b"x" * 2_000_000)
        assert line.answer()[0] == 401
        with pytest.raises(ConnectionError):
            while True:
                line.raw.sendall(b"x" * 1_000_000)


def test_who_neither_sends_nor_goes_away_is_answered_and_cut_off(
    sign: Sign, site: LiveSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streamed, "DROPPED_SECONDS", 0.1)
    monkeypatch.setattr(streamed, "LINGER_SECONDS", 0.1)
    with wire(site, "") as line:
        line.send("PUT", f"{FILES}/alice/heat-flow/files/x", "Content-Length: 10")
        assert line.answer()[0] == 401
        assert line.is_closed()


@pytest.mark.parametrize("length", ["99999999999999999999999999", "9" * 5000, "5, 6", "-1", "0x10", "１０"])
def test_a_length_that_is_no_number_does_no_harm(sign: Sign, site: LiveSite, length: str) -> None:
    alice = sign("alice")
    made(alice)
    for method, path in (("PUT", "/alice/heat-flow/files/x"), ("POST", "")):
        with wire(site, alice.headers["Authorization"]) as line:
            line.send(method, FILES + path, f"Content-Length: {length}")
            head = line.raw.recv(4096)
            assert head == b"" or head.split(b" ")[1] in (b"400", b"413"), head
    assert alice.get("/projects/alice/heat-flow").status_code == 200
