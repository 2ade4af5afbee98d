"""Asking a node whether it answers: one request that waits in the queue of a port that is bound already."""

from __future__ import annotations

import asyncio
import socket

import pytest

from spawner.kubernetes import answers
from spawner.kubernetes.answers import Answers, answered


async def serve(listener: socket.socket, status: str) -> tuple[asyncio.Server, list[str]]:
    seen: list[str] = []

    async def one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append((await reader.readline()).decode())
        writer.write(f"HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode())
        await writer.drain()
        writer.close()

    return await asyncio.start_server(one, sock=listener), seen


async def test_a_request_waits_for_the_server_and_is_the_only_one() -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    url = f"http://127.0.0.1:{listener.getsockname()[1]}/user/a%20b/s/api"
    asking = asyncio.create_task(answered(url))
    await asyncio.sleep(0.05)
    assert not asking.done()
    server, seen = await serve(listener, "200 OK")
    async with server:
        assert await asking is True
    assert seen == ["GET /user/a%20b/s/api HTTP/1.1\r\n"]


@pytest.mark.parametrize("status", ["503 Busy", None])
async def test_whoever_cannot_be_reached_is_left_alone_after_a_while(
    monkeypatch: pytest.MonkeyPatch, status: str | None
) -> None:
    monkeypatch.setattr(answers, "PAUSES_SECONDS", (0.001, 0.001, 0.001))
    listener = socket.create_server(("127.0.0.1", 0))
    url = f"http://127.0.0.1:{listener.getsockname()[1]}/api"
    if status is None:
        listener.close()
        assert await answered(url) is False
        return
    server, seen = await serve(listener, status)
    async with server:
        assert await answered(url) is False
    assert len(seen) == 3


async def test_a_node_is_asked_once_and_an_error_is_no_answer() -> None:
    asked: list[str] = []
    told = asyncio.Event()

    async def fails(url: str) -> bool:
        asked.append(url)
        raise RuntimeError

    one = Answers(fails, told.set)
    one.want(0, "a")
    one.want(0, "b")
    await told.wait()
    assert asked == ["a"]
    assert 0 not in one
    assert 1 not in one
    one.close()
