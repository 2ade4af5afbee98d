"""Visitors of a node: into what is shared with them, nowhere else, and out when it is no more (AP-11)."""

from __future__ import annotations

import asyncio
import contextlib
import http.server
import json
import logging
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from tornado import web
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from spawner.node.handlers import BounceHandler, PresenceSocket
from spawner.node.identity import PresenceIdentity
from spawner.node.place import Place
from spawner.node.ports import PortHandler
from spawner.node.visitors import NOTHING, SETTING, Granted, Visitors, portal_asks, say_guarded
from tests.process.hub import eventually
from tests.process.jupyter import TOKEN, Jupyter

PLACE = Place(
    run="0" * 26, server="heat", nodes=2, rank=1, prefix="/user/ada/heat/", portal_url="http://portal"
)


class Portal:
    """Says what people may; or nothing."""

    def __init__(self, **granted: Granted) -> None:
        self.granted, self.asked = granted, 0
        self.away = False

    async def __call__(self, name: str) -> Granted:
        self.asked += 1
        if self.away:
            raise ConnectionError("away")
        return self.granted.get(name, NOTHING)


class Time:
    now = 0.0

    def __call__(self) -> float:
        return self.now


class Request:
    cut = False

    def cut_off(self) -> None:
        self.cut = True


EVE = Granted(ports=frozenset({8050}))


def visitors(portal: Portal, time: Time) -> Visitors:
    async def never(seconds: float) -> None:
        await asyncio.Event().wait()

    return Visitors(portal, log=logging.getLogger("test"), now=time, pause=never)


async def test_what_somebody_may_is_asked_once_for_all_and_again_soon() -> None:
    portal, time = Portal(eve=EVE), Time()
    made = visitors(portal, time)
    assert await asyncio.gather(*(made.may("eve") for _ in range(20))) == [EVE] * 20
    assert portal.asked == 1
    time.now = 1.9
    assert await made.may("eve") == EVE and portal.asked == 1
    portal.granted.clear()
    time.now = 2.1
    assert await made.may("eve") == NOTHING


async def test_nobody_comes_in_while_nobody_answers() -> None:
    portal = Portal(eve=EVE)
    portal.away = True
    assert await visitors(portal, Time()).may("eve") == NOTHING


async def test_who_lost_the_port_is_cut_off_and_nobody_else() -> None:
    portal, time = Portal(eve=EVE, bob=EVE), Time()
    made = visitors(portal, time)
    eve, bob, ended = Request(), Request(), Request()
    for request, name in ((eve, "eve"), (bob, "bob"), (ended, "eve")):
        await made.may(name)
        made.enter(request, name, 8050)
    made.leave(ended)
    await made.look()
    assert not eve.cut and made.inside == 2
    portal.granted["eve"] = Granted(ports=frozenset({9000}))
    await made.look()
    assert eve.cut and not bob.cut and not ended.cut and made.inside == 1


async def test_a_portal_that_is_away_cuts_nobody_off_for_half_a_minute() -> None:
    portal, time = Portal(eve=EVE), Time()
    made, request = visitors(portal, time), Request()
    await made.may("eve")
    made.enter(request, "eve", 8050)
    portal.away = True
    time.now = 29
    await made.look()
    assert not request.cut
    time.now = 31
    await made.look()
    assert request.cut


async def test_the_portal_is_asked_as_the_node_and_a_strange_answer_gives_nothing() -> None:
    said: list[Any] = []
    answer: tuple[int, Any] = (200, {"whole": False, "ports": [8050]})

    async def fetch(method: str, path: str, body: Any, language: str) -> tuple[int, Any]:
        said.append((method, path, body))
        return answer

    ask = portal_asks(fetch, PLACE)
    assert await ask("eve") == EVE
    assert said == [
        ("POST", "/api/v1/node/visitors", {"server": "heat", "run": "0" * 26, "rank": 1, "name": "eve"})
    ]
    answer = (409, {})
    assert await ask("eve") == NOTHING
    for other in ((503, None), (200, None), (403, {})):
        answer = other
        with pytest.raises(ConnectionError):
            await ask("eve")


async def test_a_node_says_that_it_looks_until_it_is_heard() -> None:
    answers: list[Any] = [ConnectionError("away"), 503, 403, 204]
    said: list[Any] = []

    async def fetch(method: str, path: str, body: Any, language: str) -> tuple[int, Any]:
        said.append((path, body["rank"]))
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer, None

    async def pause(seconds: float) -> None:
        assert seconds > 0

    await say_guarded(fetch, PLACE, pause=pause)
    assert said == [("/api/v1/node/guards", 1)] * 4


def identity(owner: str, made: Visitors | None) -> PresenceIdentity:
    one = PresenceIdentity.__new__(PresenceIdentity)
    one.owner = owner  # type: ignore[misc]
    settings = {} if made is None else {SETTING: made}
    one.parent = None
    object.__setattr__(
        one, "_trait_values", {"parent": SimpleNamespace(web_app=SimpleNamespace(settings=settings))}
    )
    return one


def person(name: str, *groups: str, kind: str = "user") -> Any:
    return SimpleNamespace(username=name, hub_user={"name": name, "kind": kind, "groups": list(groups)})


@pytest.mark.parametrize(
    ("who", "whole"),
    [
        (person("ada"), True),
        (person("root", "galilean:admin"), True),
        (person("ops"), True),  # an administrator by a group: the portal says so
        (person("kim", "galilean:admin"), False),  # no longer one: groups here are minutes old
        (person("a-service", kind="service"), True),
        (person("eve"), False),
        (person("eve", "admin", "galilean:student"), False),
        (person("zoe"), False),
    ],
)
async def test_the_whole_node_is_its_owners_and_administrators(who: Any, whole: bool) -> None:
    made = visitors(Portal(eve=EVE, ops=Granted(whole=True), root=Granted(whole=True)), Time())
    assert await identity("ada", made)._is_at_home(who) is whole


async def test_administrators_come_in_by_their_group_while_the_portal_is_away() -> None:
    portal = Portal(eve=EVE)
    portal.away = True
    one = identity("ada", visitors(portal, Time()))
    assert await one._is_at_home(person("root", "galilean:admin"))
    assert not await one._is_at_home(person("eve"))


async def test_a_node_that_cannot_ask_yet_lets_no_visitor_in() -> None:
    assert not await identity("ada", None)._is_at_home(person("eve"))


async def test_a_visitor_is_nobody_at_every_handler_that_does_not_ask_for_visitors() -> None:
    one = identity("ada", None)
    let_in = {PortHandler, BounceHandler}
    for kind in (PortHandler, BounceHandler, PresenceSocket):
        handler = SimpleNamespace(visitors_enter=getattr(kind, "visitors_enter", False))
        found = await one._visitor(handler, person("eve"))
        assert (found is not None) is (kind in let_in), kind
        if found is None:
            assert handler._jupyterhub_user is None
            with pytest.raises(
                web.HTTPError
            ) as caught:  # and is not led to a sign-in that would change nothing
                handler.redirect("/hub/login")
            assert caught.value.status_code == 403


def test_no_other_handler_lets_visitors_in() -> None:
    """Whoever adds a handler that does must think of it here."""
    from extensions.desktop import handlers as desktop
    from spawner.node import api, application_pages, ports, ssh_door, terminal

    found = {
        item.__name__
        for module in (api, application_pages, ports, ssh_door, terminal, desktop)
        for item in vars(module).values()
        if isinstance(item, type) and getattr(item, "visitors_enter", False)
    }
    assert found == {"PortHandler"}


# ------------------------------------------------------------------------------------------ a real node

#: Repeats what a websocket says, has an answer that never ends, and a file that is larger than what lines hold.
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
class File(tornado.web.RequestHandler):
    def get(self):
        self.write(b"x" * 2**26)
async def main():
    server = tornado.web.Application([("/ws", Echo), ("/endless", Endless), ("/file", File)]).listen(0, "127.0.0.1")
    print(list(server._sockets.values())[0].getsockname()[1], flush=True)
    await asyncio.Event().wait()
asyncio.run(main())
"""


class PortalOfOne(http.server.ThreadingHTTPServer):
    """Answers every node that everybody may open these ports."""

    daemon_threads = True
    ports: tuple[int, ...] = ()

    class Answer(http.server.BaseHTTPRequestHandler):
        server: PortalOfOne

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            ports = self.server.ports if self.path.endswith("/visitors") else ()
            said = json.dumps({"whole": False, "ports": ports, "applications": {}}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(said)))
            self.end_headers()
            self.wfile.write(said)

        do_GET = do_POST

        def log_message(self, *args: Any) -> None: ...


@pytest.mark.process
def test_a_visitor_is_cut_off_in_the_middle_of_a_websocket_and_of_an_answer(tmp_path: Path) -> None:
    portal = PortalOfOne(("127.0.0.1", 0), PortalOfOne.Answer)
    threading.Thread(target=portal.serve_forever, daemon=True).start()
    node = Jupyter(
        tmp_path, portal=f"http://127.0.0.1:{portal.server_port}", more={"JUPYTERHUB_USER": "somebody-else"}
    )
    program = subprocess.Popen([sys.executable, "-c", PROGRAM], stdout=subprocess.PIPE, text=True)
    try:
        assert program.stdout is not None
        port = int(program.stdout.readline())
        assert node.client.get(f"proxy/{port}/endless").status_code == 403
        portal.ports = (port,)
        address = f"{node.url.replace('http', 'ws', 1)}proxy/{port}/ws?token={TOKEN}"
        stream = {"Accept": "text/event-stream"}
        eventually(lambda: _greets(address), 30, "the port is open")
        eventually(lambda: node.client.get(f"proxy/{port}/none").status_code == 404, 30, "for her, too")
        with connect(address, open_timeout=60) as socket:
            socket.send("hello")
            assert socket.recv(timeout=60) == "hello"
            with (
                node.client.stream("GET", f"proxy/{port}/file", timeout=60) as file,
                node.client.stream("GET", f"proxy/{port}/endless", headers=stream, timeout=60) as answer,
            ):
                pieces, rest = answer.iter_raw(), file.iter_raw()
                assert next(pieces) and next(rest)
                portal.ports = ()
                with contextlib.suppress(httpx.TransportError):
                    for _ in pieces:  # it never ends by itself
                        pass
                eventually(lambda: node.log.read_text().count("was cut off") == 3, 20, "all are cut off")
                with pytest.raises(httpx.TransportError):  # the program has said all of it long ago
                    for _ in rest:
                        pass
            with pytest.raises(ConnectionClosed) as closed:
                while True:
                    socket.recv(timeout=60)
            assert closed.value.rcvd is not None and closed.value.rcvd.code == 4403
        assert node.client.get(f"proxy/{port}/endless").status_code == 403
    finally:
        program.kill()
        program.wait()
        node.stop()
        portal.shutdown()
        portal.server_close()


def _greets(address: str) -> bool:
    try:
        with connect(address, open_timeout=60) as socket:
            socket.send("hello")
            return socket.recv(timeout=60) == "hello"
    except InvalidStatus:
        return False
