"""A real X server: who may reach it, what ends it, and what is told when it does not come up."""

from __future__ import annotations

import asyncio
import os
import pwd
import shutil
import socket
import stat
import subprocess
from pathlib import Path

import httpx
import pytest
import websockets
from websockets.typing import Origin

from extensions.desktop.choices import Choices, applications
from extensions.desktop.session import NotUp, Session
from extensions.desktop.short_place import remove_abandoned
from tests.desktop.conftest import TOKEN, Node, node, processes_of
from tests.product.product import wait_for

pytestmark = pytest.mark.process


def session(tmp_path: Path, command: str = "exec openbox", **more) -> Session:
    home = tmp_path / "home"
    (home / "work").mkdir(parents=True, exist_ok=True)
    environ = {"HOME": str(home), "PATH": os.environ["PATH"]}
    # Longer than the address of a unix socket may be.
    folder = tmp_path / ("long" * 30) / "desktop"
    return Session(folder, Choices(command=command), environ=environ, **more)


def listening(pid: int) -> int:
    """How many TCP sockets of a process listen."""
    found = subprocess.run(["ss", "-ltnpH"], capture_output=True, text=True, check=True).stdout
    return found.count(f"pid={pid},")


async def test_vnc_is_on_a_socket_of_this_account_alone_and_no_port_listens(tmp_path: Path) -> None:
    made = session(tmp_path)
    await made.ensure()
    try:
        folder = os.stat(made.folder)
        assert stat.S_IMODE(folder.st_mode) == 0o700
        assert stat.S_IMODE(os.stat(made.socket).st_mode) == 0o600
        with socket.socket(socket.AF_UNIX) as raw:
            raw.connect(made.socket)
            assert raw.recv(12).startswith(b"RFB 003.")
        assert made._server is not None
        assert listening(made._server.pid) == 0
    finally:
        await made.stop()


@pytest.mark.skipif(os.geteuid() != 0, reason="becomes another account")
async def test_another_account_reaches_neither_vnc_nor_the_screen(tmp_path: Path) -> None:
    made = session(tmp_path)
    await made.ensure()
    try:
        path = made.folder / "vnc"
        for folder in [path.parent, *path.parents]:
            if folder != path.parent and folder.is_relative_to(tmp_path):
                folder.chmod(0o755)
        nobody = pwd.getpwnam("nobody")

        def become() -> None:
            os.setgid(nobody.pw_gid)
            os.setuid(nobody.pw_uid)

        reach = "import os,sys; fd=os.open(sys.argv[1],os.O_RDONLY); os.stat('vnc',dir_fd=fd)"
        tried = subprocess.run(  # noqa: ASYNC221
            [shutil.which("python3", path="/usr/bin") or "python3", "-c", reach, str(path.parent)],
            preexec_fn=become, cwd="/", capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert "PermissionError" in tried.stderr
        screen = subprocess.run(  # noqa: ASYNC221
            ["xmessage", "-timeout", "1", "hello"],
            env={"PATH": os.environ["PATH"], "DISPLAY": f":{made._display}"},
            preexec_fn=become, cwd="/", capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert screen.returncode != 0
        assert "uthorization" in screen.stderr
    finally:
        await made.stop()


async def test_those_who_come_together_get_one_desktop(tmp_path: Path) -> None:
    made = session(tmp_path)
    await asyncio.gather(*(made.ensure() for _ in range(5)))
    try:
        home = tmp_path / "home"
        assert sum(name.startswith(("Xtigervnc", "Xvnc")) for name in processes_of(home)) == 1
    finally:
        await made.stop()


async def test_a_stop_ends_programs_that_ignore_it_and_those_that_hid(tmp_path: Path) -> None:
    stubborn = (
        "trap '' TERM; (setsid bash -c \"trap '' TERM; sleep 1000\" &) ; openbox & while :; do sleep 1; done"
    )
    made = session(tmp_path, stubborn)
    await made.ensure()
    wait_for(lambda: processes_of(tmp_path / "home").count("sleep") >= 1, "the hidden one runs")
    await made.stop()
    assert processes_of(tmp_path / "home") == []
    assert made.status()["reason"] == "ended"


async def test_sockets_of_its_programs_go_with_a_desktop(tmp_path: Path) -> None:
    said = tmp_path / "said"
    write = f"echo $XDG_RUNTIME_DIR > {said}; echo $DBUS_SESSION_BUS_ADDRESS >> {said}; exec openbox"
    made = session(tmp_path, write)
    await made.ensure()
    wait_for(lambda: said.read_text().count("\n") == 2, "the session runs")
    runtime, address = said.read_text().splitlines()
    assert os.stat(runtime).st_mode & 0o777 == 0o700
    assert address.startswith(f"unix:path={runtime}/dbus-"), address
    await made.stop()
    assert not os.path.exists(runtime)  # noqa: ASYNC240


async def test_the_late_end_of_a_desktop_leaves_the_next_one_of_its_folder_alone(tmp_path: Path) -> None:
    made, next_one = session(tmp_path), session(tmp_path)
    await made.ensure()
    await next_one.ensure()
    home = tmp_path / "home"
    wait_for(lambda: processes_of(home).count("openbox"), "its window manager runs")
    before = next_one._programs()["XDG_RUNTIME_DIR"]
    await made.stop()
    assert next_one.state == "running"
    assert os.path.exists(before)  # noqa: ASYNC240
    code, said = await next_one.run("xset", "q")
    assert code == 0, said
    await next_one.stop()
    assert not os.path.exists(before)  # noqa: ASYNC240


async def test_programs_that_hang_keep_nobody_from_a_restart(tmp_path: Path) -> None:
    hang = "sleep 1000 & hung=$!; until grep -q sleep /proc/$hung/comm; do :; done; kill -STOP $hung"  # not before it is one
    made = session(tmp_path, f"openbox & {hang}; wait")
    await made.ensure()
    home = tmp_path / "home"
    wait_for(lambda: {"openbox", "sleep"} <= {*processes_of(home)}, "its programs run")
    assert made._server is not None
    old = made._server.pid
    await made.restart()
    assert made.state == "running"
    assert made._server.pid != old
    await made.stop()
    assert processes_of(home) == []


@pytest.mark.timeout(300)
async def test_twenty_desktops_start_at_once_and_each_has_a_screen_of_its_own(tmp_path: Path) -> None:
    made = [session(tmp_path / str(number)) for number in range(20)]
    try:
        await asyncio.gather(*(one.ensure() for one in made))
        assert [one.state for one in made] == ["running"] * 20
        assert len({one._display for one in made}) == 20
    finally:
        await asyncio.gather(*(one.stop() for one in made))
    assert not [name for number in range(20) for name in processes_of(tmp_path / str(number) / "home")]


async def test_a_session_that_ends_at_once_is_told_with_its_last_lines(tmp_path: Path) -> None:
    made = session(tmp_path, "echo one; echo the display driver is missing >&2; exit 7")
    await made.ensure()
    await until_down(made)
    said = made.status()
    assert said["reason"] == "session"
    # Its bus writes there, too, and may be as late with a complaint of its own.
    assert "the display driver is missing" in said["log"][-3:]
    assert processes_of(tmp_path / "home") == []


async def until_down(made: Session) -> None:
    for _ in range(400):
        if made.state == "down":
            return
        await asyncio.sleep(0.05)
    raise AssertionError(f"still {made.state}")


async def test_a_killed_x_server_takes_its_programs_along_and_comes_up_again(tmp_path: Path) -> None:
    made = session(tmp_path)
    await made.ensure()
    assert made._server is not None
    made._server.kill()
    await until_down(made)
    assert made.status()["reason"] in ("server", "crashed")
    assert processes_of(tmp_path / "home") == []
    await made.ensure()
    assert made.state == "running"
    await made.stop()


async def test_an_x_server_that_does_not_come_up_is_told(tmp_path: Path) -> None:
    fake = tmp_path / "Xvnc"
    fake.write_text("#!/bin/sh\necho 'no space for the frame buffer' >&2\nexit 1\n")
    fake.chmod(0o755)
    made = session(tmp_path, which=lambda name: str(fake) if name == "Xtigervnc" else None)
    with pytest.raises(NotUp) as failed:
        await made.ensure()
    assert failed.value.reason == "server"
    assert failed.value.log == ["no space for the frame buffer"]


async def test_what_is_not_installed_is_named(tmp_path: Path) -> None:
    made = session(tmp_path, "", which=lambda name: None)
    with pytest.raises(NotUp) as failed:
        await made.ensure()
    assert failed.value.reason == "missing"
    assert "tigervnc-standalone-server" in failed.value.log


async def test_a_full_or_closed_home_is_told(tmp_path: Path) -> None:
    made = session(tmp_path)
    (tmp_path / "home/.config").write_text("in the way")
    with pytest.raises(NotUp) as failed:
        await made.ensure()
    assert failed.value.reason == "disk"


async def test_an_application_is_the_session(tmp_path: Path) -> None:
    home = tmp_path / "home"
    (home / "work").mkdir(parents=True)
    one = applications('{"wait": "sleep 0.5"}')["wait"]
    made = Session(tmp_path / "d", Choices(), one, environ={"HOME": str(home), "PATH": os.environ["PATH"]})
    await made.ensure()
    await until_down(made)
    assert made.status()["reason"] == "ended"


# ---- behind the node's sign-in


def test_nobody_gets_anything_without_the_nodes_sign_in(desktop: Node) -> None:
    for path in ("", "api/status", "api/files", "api/notes", "api/file?path=work", "vnc"):
        answer = httpx.get(f"{desktop.url}/desktop/{path}", follow_redirects=False)
        assert answer.status_code in (302, 403, 405), path
        assert "data-page" not in answer.text
    for path in ("api/start", "api/restart", "api/size"):
        assert httpx.post(f"{desktop.url}/desktop/{path}", json={}).status_code == 403


async def test_the_websocket_refuses_strangers_and_pages_of_other_sites(desktop: Node) -> None:
    address = desktop.url.replace("http", "ws") + "/desktop/vnc"
    for origin in (None, Origin("http://evil.example")):
        with pytest.raises(websockets.InvalidStatus) as refused:
            await websockets.connect(address, origin=origin)
        assert refused.value.response.status_code == 403
    cookies = httpx.get(  # noqa: ASYNC210
        f"{desktop.url}/desktop/?token={TOKEN}", follow_redirects=False
    ).cookies
    signed = {"Cookie": "; ".join(f"{name}={value}" for name, value in cookies.items())}
    with pytest.raises(websockets.InvalidStatus):
        await websockets.connect(address, origin=Origin("http://evil.example"), additional_headers=signed)
    async with websockets.connect(address, origin=Origin(desktop.url), additional_headers=signed) as mine:
        first = await mine.recv()
        assert isinstance(first, bytes)
        assert first.startswith(b"RFB 003.")


def test_the_desktop_belongs_to_the_nodes_owner(tmp_path: Path) -> None:
    with node(tmp_path, variables={"JUPYTERHUB_USER": "ada"}) as hers:
        # The token signs in as somebody without her name, as a server shared with others would.
        assert hers.http.get("").status_code == 403
        assert hers.http.get("api/files").status_code == 403
        assert processes_of(hers.home).count("Xtigervnc") == 0


def test_an_application_that_is_not_there_is_not_found(desktop: Node) -> None:
    assert desktop.http.get("", params={"app": "../../bin/sh"}).status_code == 404
    assert desktop.http.post("api/start", params={"app": "nope"}, json={}).status_code == 404


def test_a_change_needs_the_value_that_other_sites_do_not_know(desktop: Node) -> None:
    with httpx.Client(base_url=f"{desktop.url}/desktop/") as browser:
        browser.get("", params={"token": TOKEN})
        assert browser.get("api/status").status_code == 200
        for method, path in (
            ("POST", "api/restart"),
            ("PUT", "api/notes"),
            ("PUT", "api/file?path=work&name=x"),
        ):
            assert browser.request(method, path, content=b"{}").status_code == 403
        assert not (desktop.home / "work/x").exists()


def test_a_file_goes_up_and_comes_down_whole(desktop: Node) -> None:
    content = os.urandom(3_000_000)
    sent = desktop.http.put("api/file", params={"path": "work", "name": "数据.bin"}, content=content)
    assert (sent.status_code, sent.json()) == (201, {"name": "数据.bin", "bytes": len(content)})
    came = desktop.http.get("api/file", params={"path": "work/数据.bin"})
    assert came.content == content
    assert came.headers["Content-Disposition"].startswith("attachment")
    assert "sandbox" in came.headers["Content-Security-Policy"]


def test_a_file_to_nowhere_is_refused(desktop: Node) -> None:
    for query in (
        {"path": "../..", "name": "x"},
        {"path": "work", "name": ".."},
        {"path": "none", "name": "x"},
    ):
        assert desktop.http.put("api/file", params=query, content=b"1").status_code == 404
    assert desktop.http.get("api/file", params={"path": "../../etc/passwd"}).status_code == 404


def test_a_pipe_is_no_download(desktop: Node) -> None:
    os.mkfifo(desktop.home / "work/pipe")
    assert desktop.http.get("api/file", params={"path": "work/pipe"}).status_code == 404


def test_a_note_that_changed_meanwhile_is_kept(desktop: Node) -> None:
    known = desktop.http.get("api/notes").json()["known"]
    assert desktop.http.put("api/notes", json={"text": "one", "known": known}).status_code == 200
    late = desktop.http.put("api/notes", json={"text": "two", "known": known})
    assert (late.status_code, late.json()["reason"]) == (409, "changed")
    assert (desktop.home / "work/notes.md").read_text() == "one"


def test_nothing_of_a_desktop_outlives_a_server_that_ends(tmp_path: Path) -> None:
    with node(
        tmp_path, variables={"GALILEAN_DESKTOP_COMMAND": "(setsid sleep 1000 &); exec openbox"}
    ) as made:
        assert made.start().status_code == 200
        wait_for(lambda: "sleep" in processes_of(made.home), "the hidden one runs")
    assert processes_of(made.home) == []


def test_a_desktop_ends_with_its_node(tmp_path: Path) -> None:
    with node(tmp_path, variables={"GALILEAN_DESKTOP_COMMAND": "openbox & sleep 1000"}) as made:
        assert made.start().status_code == 200
        home = made.home
        made.process.kill()
        made.process.wait(20)
        wait_for(
            lambda: not {"openbox", "Xtigervnc"} & {*processes_of(home)},
            "the screen and its windows are gone",
        )
        remove_abandoned()  # as the next desktop does, which nobody starts here
    for pid in Path("/proc").iterdir():
        if pid.name.isdigit():
            try:
                if f"HOME={home}".encode() in (pid / "environ").read_bytes():
                    os.kill(int(pid.name), 9)
            except OSError:
                continue
