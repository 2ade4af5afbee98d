"""Somebody's computer, from which they come into nodes by ssh as the account page says; and what they do there.

The real client with a home, a key and lines of its own (:class:`Computer`); :func:`tell` is what people and their
editors do, the same whatever runs the nodes.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from galilean import ssh_proxy
from tests.process.hub import BUSY, eventually

#: A server of the editor's own: tells where it listens, and answers with its node's rank.
SERVER = """
import os, socketserver
class Answer(socketserver.StreamRequestHandler):
    def handle(self):
        for line in self.rfile:
            self.wfile.write(os.environ["GALILEAN_RANK"].encode() + b" " + line)
server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Answer)
print(server.server_address[1], flush=True)
server.serve_forever()
"""


class Computer:
    """A home with a key, a token, and the lines that the account page gives.

    Parameters
    ----------
    home
        An empty directory of its own.
    address
        Of the nodes of the person whose clusters these are: ``http://host/user/ada/``.
    token
        One of the person's.
    account
        Who they are in nodes.
    """

    def __init__(self, home: Path, address: str, token: str, account: str) -> None:
        self.home, self.folder = home, home / ".ssh"
        self.folder.mkdir(parents=True, mode=0o700)
        self.key()
        self.environment = {**os.environ, "HOME": str(home), "GALILEAN_SSH_TOKEN": token}
        (self.folder / "config").write_text(
            "Host *.galilean\n"
            f"  User {account}\n"
            f"  ProxyCommand {sys.executable} {ssh_proxy.__file__} connect {address} %r@%h\n"
            f"  UserKnownHostsFile {self.folder}/galilean_hosts/%h\n"
            f"  IdentityFile {self.folder}/id\n"
            "  IdentitiesOnly yes\n"
            "  StrictHostKeyChecking yes\n"
            "  BatchMode yes\n"
        )

    def key(self, kind: str = "ed25519") -> str:
        for file in (self.folder / "id", self.folder / "id.pub"):
            file.unlink(missing_ok=True)
        subprocess.run(
            ["ssh-keygen", "-q", "-t", kind, "-N", "", "-C", "a laptop", "-f", str(self.folder / "id")],
            check=True,
        )
        return self.public

    @property
    def public(self) -> str:
        return (self.folder / "id.pub").read_text()

    def do(self, *command: str, **more: Any) -> subprocess.CompletedProcess[str]:
        program, *rest = command
        given = ["-F", str(self.folder / "config")] if program in ("ssh", "scp", "sftp") else []
        return subprocess.run(
            [program, *given, *rest],
            env=self.environment, capture_output=True, text=True, timeout=60 * BUSY, cwd=self.home, **more,
        )  # fmt: skip

    def open(self, *command: str, **more: Any) -> subprocess.Popen[str]:
        return subprocess.Popen(
            ["ssh", "-F", str(self.folder / "config"), *command],
            env=self.environment, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            **more,
        )  # fmt: skip


def tell(computer: Computer, server: str) -> None:
    """What is done on two nodes of a running cluster: commands, files, a tree, and what editors do."""
    first, second = f"{server}.galilean", f"node-1.{server}.galilean"
    for rank, host in enumerate((first, second)):
        said = computer.do("ssh", host, "echo $GALILEAN_RANK $PWD; cat; exit 7", input="told\n")
        assert said.returncode == 7, said.stderr
        number, work, told = said.stdout.split()
        assert number == str(rank) and work.endswith("/work") and told == "told"

    content = os.urandom(3_000_000)
    (computer.home / "there").write_bytes(content)
    for way in ([], ["-O"]):  # by sftp, and as it was before
        sent = computer.do("scp", *way, "there", f"{first}:sent")
        assert sent.returncode == 0, sent.stderr
        back = computer.do("scp", *way, f"{second}:sent", "back")
        assert back.returncode == 0, back.stderr
        assert (computer.home / "back").read_bytes() == content

    tree = computer.home / "tree"
    (tree / "deep").mkdir(parents=True)
    (tree / "deep" / "a").write_text("a")
    for changed in (True, False):
        done = computer.do(
            "rsync", "-ai", "-e", f"ssh -F {computer.folder}/config", "tree/", f"{first}:copied/"
        )
        assert done.returncode == 0, done.stderr
        assert ("deep/a" in done.stdout) is changed
    assert computer.do("ssh", second, "cat copied/deep/a").stdout == "a"
    edit(computer, second)


def edit(computer: Computer, host: str, rank: int = 1) -> None:
    """What VS Code does: one long session whose shell reads a script, a server that the session starts, and lines to it.

    It reaches the server by a dynamic forward or a forwarded port, as it is set; while the first session is open it
    opens others.
    """
    with _free_port() as port:
        local = port
    session = computer.open("-T", "-D", str(local), host, "bash")
    assert session.stdin is not None
    assert session.stdout is not None
    try:
        script = "command -v bash tar uname mkdir >/dev/null && uname -s && cat > server.py <<'END'\n%s\nEND\npython3 -u server.py\n"
        session.stdin.write(script % SERVER)
        session.stdin.flush()
        assert session.stdout.readline() == "Linux\n"
        port = int(session.stdout.readline())
        with _socks(local, "127.0.0.1", port) as line:
            _asks(line, rank)
            _asks(line, rank)
            with _forwarded(computer, host, f"127.0.0.1:{port}") as (forwarded, other):
                _asks(forwarded, rank)
                _asks(line, rank)  # the first is there still
                assert other.poll() is None
        assert session.poll() is None
    finally:
        session.kill()
        session.communicate()


@contextmanager
def _forwarded(
    computer: Computer, host: str, target: str
) -> Iterator[tuple[socket.socket, subprocess.Popen[str]]]:
    """A line to a server of the node through a path of this computer."""
    here = computer.home / "forward.sock"
    here.unlink(missing_ok=True)
    session = computer.open(
        "-o", "ExitOnForwardFailure=yes", "-L", f"{here}:{target}", host, "echo there; cat"
    )
    assert session.stdout is not None
    try:
        assert session.stdout.readline(), session.communicate()[1]
        eventually(here.exists, 20, "the path is there")
        with socket.socket(socket.AF_UNIX) as line:
            line.settimeout(60 * BUSY)
            line.connect(str(here))
            yield line, session
    finally:
        session.kill()
        session.communicate()


def _asks(line: socket.socket, rank: int) -> None:
    line.sendall(b"hello\n")
    assert line.recv(100) == f"{rank} hello\n".encode()


@contextmanager
def _free_port() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def _socks(proxy: int, host: str, port: int) -> socket.socket:
    """A line through a SOCKS 5 proxy, as editors ask for one."""
    line = socket.create_connection(("127.0.0.1", proxy), 60 * BUSY)
    line.sendall(b"\x05\x01\x00")
    assert line.recv(2) == b"\x05\x00"
    name = host.encode()
    line.sendall(b"\x05\x01\x00\x03" + bytes([len(name)]) + name + port.to_bytes(2, "big"))
    answer = line.recv(10)
    assert answer[1] == 0, answer
    return line
