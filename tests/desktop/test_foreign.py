"""A desktop that an image brings itself: signed in by us, its password in no page and no address (CG-39)."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import shutil
import socket
import stat
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.server import serve
from websockets.exceptions import ConnectionClosed

from extensions.desktop.desktops import Desktops
from extensions.desktop.foreign import Foreign, ForeignSession, answer_to
from extensions.desktop.session import NotUp
from spawner.node.listening import Ports, Who
from tests.desktop.conftest import TOKEN, node
from tests.desktop.test_page import colour, red
from tests.product.product import wait_for

PASSWORD = "geheim12"
LOG = logging.getLogger("test")
#: With which VNC servers hide passwords in their files.
FILE_KEY = bytes((23, 82, 107, 6, 35, 78, 88, 7)).decode("latin-1")
needs_vnc = pytest.mark.skipif(not shutil.which("Xtigervnc"), reason="no VNC server here")


def at_hand(port: int) -> tuple[Who, str]:
    """What stands for an image's server may be the test's own process."""
    return Who.PERSON, "127.0.0.1"


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


class Server:
    """A real VNC server with a password, as an image brings one."""

    def __init__(self, folder: Path, *options: str) -> None:
        self.port = free_port()
        file = folder / "passwd"
        file.write_bytes(answer_to(PASSWORD.encode(), FILE_KEY))
        file.chmod(0o600)
        read, write = os.pipe()
        self.process = subprocess.Popen(
            ["Xtigervnc", "-displayfd", str(write), "-rfbport", str(self.port), "-localhost", "-geometry", "640x480",
             "-PasswordFile", str(file), *(options or ("-SecurityTypes", "VncAuth")), "-ac", "-nolisten", "tcp"],
            pass_fds=[write], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        os.close(write)
        with open(read) as display:
            self.display = f":{display.readline().strip()}"
        assert self.display != ":", "the server started"

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(20)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    running = Server(tmp_path_factory.mktemp("vnc"))
    yield running
    running.stop()


async def size_seen(path: str) -> tuple[int, int]:
    """What a page sees: it is asked for nothing, and told how large the picture is."""
    reader, writer = await asyncio.open_unix_connection(path)
    try:
        assert await reader.readexactly(12) == b"RFB 003.008\n"
        writer.write(b"RFB 003.008\n")
        assert await reader.readexactly(2) == b"\1\1"  # one kind of sign-in: none
        writer.write(b"\1")
        assert await reader.readexactly(4) == b"\0\0\0\0"
        writer.write(b"\1")
        width, height = struct.unpack("!HH", await reader.readexactly(4))
        return width, height
    finally:
        writer.close()


@needs_vnc
async def test_the_page_is_led_to_the_images_server_without_its_password(server: Server) -> None:
    session = ForeignSession(Foreign(server.port, PASSWORD), log=LOG, look=at_hand)
    await session.ensure()
    assert session.status()["state"] == "running"
    assert await size_seen(session.socket) == (640, 480)
    assert await size_seen(session.socket) == (640, 480)  # a second tab
    folder = Path(session.socket).parent
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    await session.stop()
    assert not folder.exists()


@needs_vnc
@pytest.mark.parametrize("password", ["", "wrong", PASSWORD[::-1]])
async def test_a_wrong_password_is_told_and_lets_nobody_in(
    server: Server, password: str, caplog: pytest.LogCaptureFixture
) -> None:
    session = ForeignSession(Foreign(server.port, password), log=LOG, look=at_hand)
    with pytest.raises(NotUp) as refused:
        await session.ensure()
    assert refused.value.reason == "server" and session.status()["state"] == "down"
    assert "password" in refused.value.log[0]
    assert not password or password not in caplog.text + str(refused.value.log)


@needs_vnc
async def test_a_server_that_asks_for_nothing_and_one_that_wants_more(tmp_path: Path) -> None:
    open_, strange = Server(tmp_path, "-SecurityTypes", "None"), Server(tmp_path, "-SecurityTypes", "TLSVnc")
    try:
        session = ForeignSession(Foreign(open_.port, PASSWORD), log=LOG, look=at_hand)
        await session.ensure()
        assert await size_seen(session.socket) == (640, 480)
        await session.stop()
        with pytest.raises(NotUp):
            await ForeignSession(Foreign(strange.port, PASSWORD), log=LOG, look=at_hand).ensure()
    finally:
        open_.stop()
        strange.stop()


@needs_vnc
async def test_a_server_behind_novnc_is_reached_by_its_websocket(server: Server) -> None:
    asked: list[str] = []

    async def bridge(page: Any) -> None:
        asked.append(page.request.path)
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)

        async def back() -> None:
            while content := await reader.read(65536):
                await page.send(content)

        task = asyncio.create_task(back())
        try:
            async for message in page:
                writer.write(message)
        except ConnectionClosed:
            pass
        finally:
            task.cancel()
            writer.close()

    async with serve(bridge, "127.0.0.1", 0, subprotocols=["binary"]) as web:  # pyright: ignore[reportArgumentType]
        port = web.sockets[0].getsockname()[1]
        session = ForeignSession(Foreign(port, PASSWORD, "websockify"), log=LOG, look=at_hand)
        await session.ensure()
        assert await size_seen(session.socket) == (640, 480)
        await session.stop()
    assert set(asked) == {"/websockify"}  # and no password in it


@needs_vnc
async def test_a_server_that_went_away_is_waited_for_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("extensions.desktop.foreign.START_SECONDS", 1.0)
    first = Server(tmp_path)
    session = ForeignSession(Foreign(first.port, PASSWORD), log=LOG, look=at_hand)
    await session.ensure()
    first.stop()
    with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
        await size_seen(session.socket)
    assert session.status()["state"] == "new"
    with pytest.raises(NotUp):
        await session.ensure()


async def test_what_is_no_vnc_server_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    async def web(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    async with await asyncio.start_server(web, "127.0.0.1", 0) as other:
        session = ForeignSession(Foreign(other.sockets[0].getsockname()[1]), log=LOG, look=at_hand)
        with pytest.raises(NotUp) as refused:
            await session.ensure()
        assert "does not speak VNC" in refused.value.log[0]


@needs_vnc
async def test_the_desktop_of_another_node_is_never_shown(server: Server, tmp_path: Path) -> None:
    """Two people run one environment on one machine: the second's server found its port taken by the first's."""
    environ = {
        "HOME": str(tmp_path),
        "GALILEAN_VNC_PORT": str(server.port),
        "GALILEAN_VNC_PASSWORD": PASSWORD,
    }
    here = Desktops({**environ, "GALILEAN_CLUSTER_DIR": str(tmp_path), "GALILEAN_CLUSTER": "1" * 26}).get("")
    assert isinstance(here, ForeignSession)
    with pytest.raises(NotUp) as refused:
        await here.ensure()
    assert f"port {server.port} is no program of this node" in refused.value.log[0]
    in_a_container = Desktops(environ).get("")
    assert isinstance(in_a_container, ForeignSession)
    await in_a_container.ensure()
    assert await size_seen(in_a_container.socket) == (640, 480)
    await in_a_container.stop()


async def test_a_server_that_does_not_listen_yet_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("extensions.desktop.foreign.START_SECONDS", 0.0)
    session = ForeignSession(Foreign(free_port()), log=LOG, look=Ports({}).look)
    with pytest.raises(NotUp) as refused:
        await session.ensure()
    assert "does not answer" in refused.value.log[0]


def test_the_environment_says_whose_the_desktop_is(tmp_path: Path) -> None:
    environ = {"HOME": str(tmp_path)}
    assert Desktops(environ).foreign is None
    its_own = Desktops({**environ, "GALILEAN_VNC_PORT": "5901", "GALILEAN_VNC_PASSWORD": "x"})
    assert isinstance(its_own.get(""), ForeignSession) and its_own.sizes() == []
    for port in ("80", "x", "", "70000", "٥٩٠١"):
        assert Foreign.read({"GALILEAN_VNC_PORT": port}) is None


def test_eight_characters_of_a_password_count() -> None:
    assert answer_to(bytes(16), "password1") == answer_to(bytes(16), "password")
    assert answer_to(bytes(16), "password") != answer_to(bytes(16), "passwore")


@needs_vnc
@pytest.mark.browser
def test_a_persons_page_shows_it_and_carries_no_password(
    server: Server, tmp_path: Path, chromium: Any
) -> None:
    variables = {"GALILEAN_VNC_PORT": str(server.port), "GALILEAN_VNC_PASSWORD": PASSWORD}
    window = subprocess.Popen(
        ["xmessage", "-geometry", "640x480+0+0", "-bg", "#cc2244", "paper"],
        env={**os.environ, "DISPLAY": server.display},
    )
    with node(tmp_path, variables=variables) as made:
        page = chromium.new_context(viewport={"width": 1200, "height": 760}).new_page()
        seen: list[str] = []
        page.on("request", lambda request: seen.append(f"{request.url} {request.post_data or ''}"))
        page.on("websocket", lambda opened: seen.append(opened.url))
        answer = page.goto(f"{made.url}/desktop/?token={TOKEN}")
        assert answer is not None
        # It begins with 640 x 480 and takes the size of the window, as this server lets it.
        size = "(c => c && [c.width, c.height].join())(document.querySelector('.screen canvas'))"
        wait_for(
            lambda: page.evaluate(size) not in (None, "", "640,480"), "the picture has the window's size"
        )
        wait_for(lambda: red(colour(page)), "the window is in the picture", seconds=60)
        assert made.status()["state"] == "running"
        told = json.loads(page.get_attribute("body", "data-page"))
        assert told["restarts"] is False and told["folder"] == "work"
        assert (
            made.http.put("api/file", params={"path": told["folder"], "name": "a"}, content=b"1").status_code
            == 201
        )
        assert (made.home / "work/a").read_bytes() == b"1"
        page.get_by_role("button", name="More").click()
        page.locator("button.row", has_text="Reconnect").wait_for()
        assert page.locator("button.row", has_text="Restart desktop").count() == 0
        assert any("desktop/vnc" in one for one in seen)
        assert PASSWORD not in "".join(seen) + page.content() + answer.text() + made.log()
    window.kill()
    window.wait()
