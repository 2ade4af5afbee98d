"""A person's program on a port of a node, opened by somebody whom they name and by nobody else, whatever runs the nodes.

By API and by token, where everybody has a host of their own (:mod:`tests.product.split`); the same in a browser is in
``test_subdomains.py``.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from tests.product.code import in_node
from tests.product.product import BUSY, Person, wait_for
from tests.product.split import host_of

#: What it listens with: a page, a websocket that repeats, an answer that never ends.
PROGRAM = """
import asyncio, tornado.web, tornado.websocket
class Echo(tornado.websocket.WebSocketHandler):
    def on_message(self, message):
        self.write_message(message)
class Endless(tornado.web.RequestHandler):
    async def get(self):
        while True:
            self.write("x")
            await self.flush()
            await asyncio.sleep(0.1)
class Page(tornado.web.RequestHandler):
    def get(self):
        self.write("<h1>Wiki of Ada</h1>" + str("ookie" in self.request.headers.get("Cookie", "")))
async def main():
    app = tornado.web.Application([("/ws", Echo), ("/endless", Endless), ("/.*", Page)])
    server = app.listen(0, "127.0.0.1")
    print(list(server._sockets.values())[0].getsockname()[1], flush=True)
    await asyncio.Event().wait()
asyncio.run(main())
"""
CUT_OFF = 4403


def line(person: Person, host: str = "127.0.0.1") -> socket.socket:
    """A line to the proxy, which listens at ``host``."""
    return socket.create_connection((host, person.product.port))


def begin(owner: Person, server: str, rank: int, host: str = "127.0.0.1") -> int:
    """Start the program on a node; its port."""
    source = (
        "import subprocess, sys\n"
        f"told = subprocess.Popen([sys.executable, '-c', {PROGRAM!r}], stdout=subprocess.PIPE, text=True, start_new_session=True)\n"
        "print(told.stdout.readline())"
    )
    own = host_of(owner.name, owner.product.port)
    return int(in_node(owner, server, source, rank, origin=own, sock=line(owner, host)))


def tell(owner: Person, guest: Person, stranger: Person, server: str, host: str = "127.0.0.1") -> None:
    """Share a port of node-1 with the guest, and take it back while they are connected."""
    port = begin(owner, server, 1, host)
    (run,) = (one["id"] for one in owner.clusters() if one["server"] == server)
    ports, place = f"/clusters/{run}/ports", f"/user/{owner.name}/{server}/node-1/proxy/{port}/"
    people = f"{ports}/{port}/people"
    assert owner.portal("POST", ports, json={"port": port}).status_code == 200

    @contextmanager
    def talk(person: Person) -> Iterator[ClientConnection]:
        address = f"{host_of(owner.name, owner.product.port)}{place}ws".replace("http", "ws", 1)
        headers = {"Authorization": f"token {person.token}"}
        with connect(
            address, additional_headers=headers, sock=line(person, host), open_timeout=60 * BUSY
        ) as opened:
            opened.send("hello")
            assert opened.recv(timeout=60 * BUSY) == "hello"
            yield opened

    def refused(person: Person, path: str, *codes: Any) -> None:
        answer = person.api("GET", path)
        assert answer.status_code in (codes or (403, 404)), (person.name, path, answer.status_code)

    refused(stranger, place)  # what a node was told of a token it knows for minutes, so the guest comes later
    assert owner.portal("POST", people, json={"person": guest.name}).status_code == 200
    wait_for(lambda: guest.api("GET", place).status_code == 200, "the guest opens it", seconds=60)
    assert "Wiki of Ada" in guest.api("GET", place).text
    assert guest.portal("GET", "/shared-ports").json()["items"][0]["port"] == port
    for between in ("", "node-1/"):
        for path in ("lab", "api/contents", "galilean/terminal", "galilean/ssh", f"proxy/{port + 1}/"):
            refused(guest, f"/user/{owner.name}/{server}/{between}{path}")
    refused(stranger, place)
    with pytest.raises(InvalidStatus), talk(stranger):
        pass
    with talk(guest) as theirs, talk(owner) as own:
        assert owner.portal("DELETE", f"{people}/{guest.name}").status_code == 204
        with pytest.raises(ConnectionClosed) as closed:
            theirs.recv(timeout=60 * BUSY)
        assert closed.value.rcvd is not None and closed.value.rcvd.code == CUT_OFF
        own.send("still")
        assert own.recv(timeout=60 * BUSY) == "still"
    refused(guest, place)
    assert not guest.portal("GET", "/shared-ports").json()["items"]
