"""ssh from outside into real nodes, by the real client through the real proxy: who comes in, how far, and who is cut off."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import httpx
import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from galilean import ssh_proxy
from services.people.ssh_keys import parse
from spawner.node import ssh_door
from spawner.node.ssh_door import Allowed, fingerprint_of, options
from tests.process.hub import BUSY, Hub, eventually
from tests.product import ssh
from tests.product.ssh import Computer

pytestmark = [
    pytest.mark.process,
    pytest.mark.skipif(not shutil.which("ssh") or not shutil.which("ssh-keygen"), reason="no OpenSSH here"),
]


class Keys(ThreadingHTTPServer):
    """A portal that tells nodes whom to let in."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answers)
        self.keys: list[str] = []
        self.forward, self.away = "localhost", False
        self.asked: list[dict[str, Any]] = []
        self.url = f"http://127.0.0.1:{self.server_port}/services/portal"
        Thread(target=self.serve_forever, daemon=True).start()


class _Answers(BaseHTTPRequestHandler):
    server: Any

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        said = b""
        status = 204
        if self.path.endswith("/node/ssh-keys"):
            self.server.asked.append(body)
            found = [parse(line) for line in self.server.keys]
            keys = [{"fingerprint": key.fingerprint, "public": key.public} for key in found]
            said = json.dumps({"keys": keys, "forward": self.server.forward}).encode()
            status = 503 if self.server.away else 200
        self.send_response(status)
        self.send_header("Content-Length", str(len(said)))
        self.end_headers()
        self.wfile.write(said)

    def do_GET(self) -> None:
        self.send_response(404)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *args: Any) -> None:
        pass


def person(home: Path, hub: Hub, name: str, *, into: str = "") -> Computer:
    account = subprocess.check_output(["id", "-un"], text=True).strip()
    return Computer(home, f"{hub.url}/user/{into or name}/", hub.token(name), account)


@pytest.fixture(scope="module")
def keys() -> Iterator[Keys]:
    server = Keys()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory, zygote: Any, keys: Keys) -> Iterator[Hub]:
    running = Hub(tmp_path_factory.mktemp("hub") / "state", zygote=zygote.path, portal=keys.url)
    for name in ("ada", "bob"):
        running.user(name)
    running.run("ada", "heat", nodes=2)
    yield running
    for server in ("heat", "short"):
        if running.ready("ada", server):
            running.release("ada", server)
    running.stop()


@pytest.fixture
def ada(tmp_path: Path, hub: Hub, keys: Keys) -> Computer:
    made = person(tmp_path / "ada", hub, "ada")
    keys.keys, keys.forward, keys.away, keys.asked = [made.public], "localhost", False, []
    return made


def test_a_command_runs_in_the_node_that_is_named(ada: Computer) -> None:
    first = ada.do("ssh", "heat.galilean", "echo $GALILEAN_RANK $PWD; cat; exit 7", input="told\n")
    assert (first.returncode, first.stderr) == (7, "")
    rank, work, told = first.stdout.split()
    assert rank == "0" and work.endswith("/work") and told == "told"
    assert ada.do("ssh", "node-1.heat.galilean", "echo $GALILEAN_RANK").stdout == "1\n"
    assert ada.do("ssh", "heat.galilean", "env").stdout.count("JUPYTERHUB_API_TOKEN") == 0


def test_which_key_it_was_is_told_to_the_portal(ada: Computer, keys: Keys) -> None:
    assert ada.do("ssh", "heat.galilean", "true").returncode == 0
    used = parse(ada.public).fingerprint
    eventually(lambda: any(asked["used"] == [used] for asked in keys.asked))
    assert {asked["server"] for asked in keys.asked} == {"heat"}


@pytest.mark.parametrize("kind", ["rsa", "ecdsa"])
def test_keys_of_other_kinds_open_it_too(ada: Computer, keys: Keys, kind: str) -> None:
    keys.keys = [ada.key(kind)]
    assert ada.do("ssh", "heat.galilean", "true").returncode == 0


@pytest.mark.skipif(not shutil.which("rsync"), reason="rsync is not installed")
def test_files_trees_and_editors_come_in_as_to_any_machine(ada: Computer) -> None:
    """scp, rsync, and what VS Code Remote does: long sessions, and lines to a server of its own in the node."""
    ssh.tell(ada, "heat")


@pytest.mark.parametrize(
    "host", ["169.254.169.254", "metadata.example.test", "10.0.0.1", "0.0.0.0", "2130706433"]
)
def test_nothing_beyond_the_node_is_reached_through_it(ada: Computer, host: str) -> None:
    done = ada.do("ssh", "-W", f"{host}:80", "heat.galilean")
    assert done.returncode != 0 and "administratively prohibited" in done.stderr


def test_nothing_is_forwarded_where_the_centre_says_so(ada: Computer, keys: Keys) -> None:
    keys.forward = "no"
    done = ada.do("ssh", "-W", "localhost:22", "heat.galilean")
    assert done.returncode != 0 and "prohibited" in done.stderr


@pytest.mark.parametrize(("forward", "answers"), [("localhost", False), ("anywhere", True)])
def test_a_socket_of_a_node_is_reached_by_its_path_where_forwarding_goes_anywhere(
    tmp_path: Path, ada: Computer, keys: Keys, forward: str, answers: bool
) -> None:
    """sshd's list of permitted targets has no paths: where there is one, none is taken, and a port is what remains."""
    keys.forward = forward
    there, here = tmp_path / "there.sock", tmp_path / "here.sock"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(there))
        server.listen()
        server.settimeout(30 * BUSY)
        opened = ada.open("-L", f"{here}:{there}", "heat.galilean", "echo in; cat")
        try:
            assert opened.stdout is not None and opened.stdout.readline() == "in\n"
            eventually(here.exists, 20, "the path is there")
            with socket.socket(socket.AF_UNIX) as line:
                line.settimeout(30 * BUSY)
                line.connect(str(here))
                if answers:
                    connection, _ = server.accept()
                    with connection:
                        connection.sendall(b"from the node")
                        assert line.recv(100) == b"from the node"
                else:
                    assert line.recv(100) == b""
        finally:
            opened.kill()
            said = opened.communicate()[1]
    assert ("open failed" in said) is not answers, said


def test_no_port_of_the_machine_is_opened_through_a_node(ada: Computer) -> None:
    with _free() as port:
        pass
    done = ada.do(
        "ssh", "-o", "ExitOnForwardFailure=yes", "-R", f"{port}:localhost:1", "heat.galilean", "true"
    )
    assert done.returncode != 0 and "forwarding failed" in done.stderr


def test_another_persons_node_is_nobody_elses(tmp_path: Path, hub: Hub, ada: Computer, keys: Keys) -> None:
    """Even if the portal let the key in by mistake: the hub does not let the token in."""
    bob = person(tmp_path / "bob", hub, "bob", into="ada")
    keys.keys = [bob.public]
    done = bob.do("ssh", "heat.galilean", "true")
    assert done.returncode == 255 and "does not take the token" in done.stderr
    assert not keys.asked


def test_a_key_that_is_not_hers_opens_nothing(ada: Computer, keys: Keys) -> None:
    keys.keys = []
    assert "Permission denied (publickey)" in ada.do("ssh", "heat.galilean", "true").stderr
    keys.keys = [ada.public]
    ada.key()
    assert "Permission denied (publickey)" in ada.do("ssh", "heat.galilean", "true").stderr


def test_nobody_comes_in_while_nobody_can_say_which_keys_hold(ada: Computer, keys: Keys) -> None:
    keys.away = True
    assert ada.do("ssh", "heat.galilean", "true").returncode == 255


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("cold.galilean", "does not run"),
        ("node-7.heat.galilean", "does not run"),
        ("node-01.heat.galilean", "no name of a node"),
        ("node-1.node-1.heat.galilean", "no name of a node"),
        ("HEAT.galilean", ""),
    ],
)
def test_what_is_no_running_node_is_said_to_be_so(ada: Computer, name: str, said: str) -> None:
    done = ada.do("ssh", name, "echo in")
    if said:
        assert done.returncode == 255 and said in done.stderr
    else:  # ssh itself writes names small
        assert done.stdout == "in\n"


def test_a_token_in_an_address_or_a_cookie_is_not_taken(hub: Hub, ada: Computer) -> None:
    token = ada.environment["GALILEAN_SSH_TOKEN"]
    address = hub.url.replace("http", "ws", 1) + "/user/ada/heat/galilean/ssh"
    for more in (f"?token={token}", ""):
        with pytest.raises(InvalidStatus) as refused:
            connect(address + more)
        assert refused.value.response.status_code in (302, 403)
    both = {"Authorization": f"token {token}"}
    with pytest.raises(InvalidStatus) as refused:
        connect(f"{address}?token={token}", additional_headers=both)
    assert refused.value.response.status_code == 403
    browser = hub.browser("ada")
    assert browser.get("/user/ada/heat/galilean/terminal").status_code == 200
    assert browser.get("/user/ada/heat/galilean/ssh").status_code == 403


def test_a_page_of_another_site_does_not_get_a_line(hub: Hub, ada: Computer) -> None:
    headers = {
        "Authorization": f"token {ada.environment['GALILEAN_SSH_TOKEN']}",
        "Origin": "https://evil.test",
    }
    with pytest.raises(InvalidStatus) as refused:
        connect(hub.url.replace("http", "ws", 1) + "/user/ada/heat/galilean/ssh", additional_headers=headers)
    assert refused.value.response.status_code == 403


@pytest.mark.parametrize("what", ["key", "token"])
def test_who_is_connected_is_cut_off_with_the_key_or_the_token(
    tmp_path: Path, hub: Hub, ada: Computer, keys: Keys, what: str
) -> None:
    opened = ada.open("heat.galilean", "echo in; exec sleep 600")
    assert opened.stdout is not None and opened.stdout.readline() == "in\n"
    if what == "key":
        keys.keys = []
    else:
        mine = httpx.Client(headers={"Authorization": f"token {ada.environment['GALILEAN_SSH_TOKEN']}"})
        for token in hub.api.get("/users/ada/tokens").json()["api_tokens"]:
            if token["note"] == "test":
                hub.api.delete(f"/users/ada/tokens/{token['id']}")
        mine.close()
    eventually(lambda: opened.poll() is not None, 40, "the connection ended")
    opened.communicate()


def test_a_connection_stays_while_the_portal_is_away(ada: Computer, keys: Keys) -> None:
    opened = ada.open("heat.galilean", "echo in; read line; echo got $line")
    assert opened.stdout is not None and opened.stdin is not None and opened.stdout.readline() == "in\n"
    keys.away = True
    before = len(keys.asked)
    eventually(lambda: len(keys.asked) > before, 40, "the node asked while the portal was away")
    opened.stdin.write("word\n")
    opened.stdin.flush()
    assert opened.stdout.readline() == "got word\n"
    opened.communicate()


def test_the_end_of_a_run_ends_what_came_in(hub: Hub, ada: Computer) -> None:
    hub.run("ada", "short")
    opened = ada.open("short.galilean", "echo in; exec sleep 600")
    assert opened.stdout is not None and opened.stdout.readline() == "in\n"
    hub.release("ada", "short")
    eventually(lambda: opened.poll() is not None, 30, "the connection ended")
    opened.communicate()
    assert "does not run" in ada.do("ssh", "short.galilean", "true").stderr


def test_the_token_is_kept_for_its_owner_alone(tmp_path: Path) -> None:
    environment = {**os.environ, "HOME": str(tmp_path)}
    command = [sys.executable, ssh_proxy.__file__, "token"]
    done = subprocess.run(
        command, input="0123456789abcdef\n", text=True, env=environment, capture_output=True
    )
    kept = tmp_path / ".ssh" / "galilean-token"
    assert done.returncode == 0 and kept.read_text() == "0123456789abcdef\n"
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    assert "0123456789abcdef" not in done.stdout + done.stderr
    bad = subprocess.run(command, input="two words\n", text=True, env=environment, capture_output=True)
    assert bad.returncode == 1 and kept.read_text() == "0123456789abcdef\n"


def test_two_connections_at_once_write_the_keys_each_as_a_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys, replace = tmp_path / "person-0", os.replace

    def meanwhile(source: Any, target: Any) -> None:
        monkeypatch.setattr(os, "replace", replace)
        ssh_door._write(keys, "second\n")
        assert keys.read_text() == "second\n"
        replace(source, target)

    monkeypatch.setattr(os, "replace", meanwhile)
    ssh_door._write(keys, "first\n")
    assert keys.read_text() == "first\n" and stat.S_IMODE(keys.stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == [keys]


def test_a_line_with_options_never_reaches_sshd() -> None:
    said = {"keys": [
        {"fingerprint": "SHA256:a", "public": 'command="id" ssh-ed25519 AAAA'},
        {"fingerprint": "SHA256:b", "public": "ssh-ed25519 AAAA\nssh-ed25519 BBBB"},
        {"fingerprint": "SHA256:c", "public": "ssh-ed25519 AAAA"},
    ]}  # fmt: skip
    assert dict(Allowed.read(said).keys) == {"SHA256:c": "ssh-ed25519 AAAA"}


def test_only_sshds_own_word_tells_of_a_key() -> None:
    good = "SHA256:" + "a" * 43
    assert (
        fingerprint_of(
            f"Accepted publickey for ada from UNKNOWN port 65535 ssh2: ED25519 {good}\r\n".encode()
        )
        == good
    )
    for line in (f"Failed publickey for ada ssh2: ED25519 {good}", f"x Accepted publickey for {good}", good):
        assert fingerprint_of(line.encode()) == ""


def test_a_word_that_nobody_knows_forwards_nothing() -> None:
    assert "AllowTcpForwarding=no" in options(Allowed({}, "everywhere"), Path("/keys"))


@contextlib.contextmanager
def _free() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]
