#!/usr/bin/env python3
"""ssh into a node of Galilean through its web address: a ProxyCommand for OpenSSH.

One file, Python 3.8 or newer, nothing to install; macOS, Linux and Windows. It speaks the websocket of the node
and hands on what ssh says; the account page of the portal gives the lines for ``~/.ssh/config``:

    Host *.galilean
      User jovyan
      ProxyCommand python3 ~/.ssh/galilean-ssh.py connect https://hub.example.edu/user/ada/ %r@%h
      UserKnownHostsFile ~/.ssh/galilean_hosts/%h
      StrictHostKeyChecking yes

``heat.galilean`` is node-0 of the cluster ``heat``, ``node-1.heat.galilean`` the next. The token is kept in
``~/.ssh/galilean-token``, readable by its owner alone (``galilean-ssh.py token`` asks for it), or in the
variable GALILEAN_SSH_TOKEN. It is sent in a header, never in an address, and to the host of the given address alone.
The key of the node comes with the same answer, and is what ssh then believes.
"""

import argparse
import base64
import getpass
import hashlib
import os
import re
import socket
import ssl
import struct
import sys
import threading
from urllib.parse import quote, urlsplit

SUFFIX = ".galilean"
FOLDER = os.path.join(os.path.expanduser("~"), ".ssh")
TOKEN = os.path.join(FOLDER, "galilean-token")
HOSTS = os.path.join(FOLDER, "galilean_hosts")
MAGIC = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
NAME = re.compile(r"(?:(node-(?:0|[1-9][0-9]{0,4}))\.)?([a-z][a-z0-9-]{0,63})\Z")
KEY = re.compile(r"[a-z0-9@.-]{1,60} [A-Za-z0-9+/=]{20,2000}\Z")
HEAD_MOST, FRAME_MOST, PIECE = 64 * 1024, 16 * 2**20, 32 * 1024
LOCAL = ("localhost", "127.0.0.1", "::1")


class Trouble(Exception):
    """Something that the person is to know."""


def path_of(host):
    """``heat.galilean`` or ``node-1.heat.galilean`` -> ``heat/galilean/ssh``, ``heat/node-1/galilean/ssh``."""
    name = host[: -len(SUFFIX)] if host.endswith(SUFFIX) else host
    found = NAME.match(name)
    if not found:
        raise Trouble(f"{host} is no name of a node: write cluster{SUFFIX} or node-1.cluster{SUFFIX}")
    node = "" if found.group(1) in (None, "node-0") else found.group(1) + "/"
    return "{}/{}galilean/ssh".format(quote(found.group(2), safe=""), node)


def read_token():
    """The token of the variable or the file."""
    token = os.environ.get("GALILEAN_SSH_TOKEN", "").strip()
    if not token:
        try:
            with open(TOKEN, encoding="ascii") as file:
                token = file.read().strip()
        except OSError:
            raise Trouble(
                "There is no token yet. Make one on the account page, then: galilean-ssh.py token"
            ) from None
    if not re.match(r"[!-~]{8,512}\Z", token):
        raise Trouble(f"{TOKEN} holds no token.")
    return token


def write_private(path, text):
    """Write a file that only its owner reads, whole or not at all."""
    os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
    beside = f"{path}.{os.getpid()}"
    with os.fdopen(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(text)
    os.replace(beside, path)


class Socket:
    """A websocket of bytes."""

    def __init__(self, address, token, ca_file=None):
        parts = urlsplit(address)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise Trouble(f"{address} is no address")
        if parts.scheme == "http" and parts.hostname not in LOCAL:
            sys.stderr.write(f"galilean-ssh: {parts.hostname} is not encrypted; the token could be read.\n")
        port = parts.port or (443 if parts.scheme == "https" else 80)
        try:
            self.line = connect(parts.hostname, port)
            if parts.scheme == "https":
                context = ssl.create_default_context(cafile=ca_file)
                self.line = context.wrap_socket(self.line, server_hostname=parts.hostname)
        except OSError as error:
            raise Trouble(f"{parts.hostname}:{port} does not answer: {error}") from None
        self.line.settimeout(60)
        self.sending = threading.Lock()
        self.rest = b""
        self.headers = self.shake(parts, token)
        self.line.settimeout(None)
        self.line.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def shake(self, parts, token):
        """Become a websocket; the headers of the answer."""
        key = base64.b64encode(os.urandom(16))
        lines = [
            f"GET {parts.path} HTTP/1.1",
            f"Host: {parts.netloc}",
            "Upgrade: websocket",
            "Connection: Upgrade",
            "Sec-WebSocket-Version: 13",
            f"Sec-WebSocket-Key: {key.decode()}",
            f"Authorization: token {token}",
            "User-Agent: galilean-ssh",
        ]
        self.line.sendall(("\r\n".join(lines) + "\r\n\r\n").encode("ascii"))
        head = b""
        while b"\r\n\r\n" not in head:
            piece = self.line.recv(4096)
            if not piece or len(head) > HEAD_MOST:
                raise Trouble("The hub ended the connection.")
            head += piece
        head, _, self.rest = head.partition(b"\r\n\r\n")
        first, *others = head.decode("latin-1").split("\r\n")
        headers = {}
        for line in others:
            name, _, value = line.partition(":")
            headers[name.strip().lower()] = value.strip()
        words = first.split(" ", 2)
        code = int(words[1]) if len(words) > 1 and words[1].isdigit() else 0
        if code != 101:
            raise Trouble(refusal(code, words[2] if len(words) > 2 else "", headers.get("location", "")))
        expected = base64.b64encode(hashlib.sha1(key + MAGIC).digest()).decode()  # noqa: S324 - the protocol says so
        if headers.get("sec-websocket-accept") != expected:
            raise Trouble("What answers there is no Galilean.")
        return headers

    def send(self, content, kind=2):
        """Send one frame, masked as a client must."""
        mask = os.urandom(4)
        size = len(content)
        if size < 126:
            head = struct.pack("!BB", 0x80 | kind, 0x80 | size)
        elif size < 65536:
            head = struct.pack("!BBH", 0x80 | kind, 0x80 | 126, size)
        else:
            head = struct.pack("!BBQ", 0x80 | kind, 0x80 | 127, size)
        long = mask * (size // 4 + 1)
        masked = int.from_bytes(content, "little") ^ int.from_bytes(long[:size], "little")
        with self.sending:
            self.line.sendall(head + mask + masked.to_bytes(size, "little"))

    def exactly(self, size):
        """So many bytes; fewer at the end of the line."""
        while len(self.rest) < size:
            try:
                piece = self.line.recv(max(PIECE, size - len(self.rest)))
            except OSError:
                return b""
            if not piece:
                return b""
            self.rest += piece
        found, self.rest = self.rest[:size], self.rest[size:]
        return found

    def receive(self):
        """The next bytes; empty at the end."""
        while True:
            head = self.exactly(2)
            if not head:
                return b""
            kind, size = head[0] & 15, head[1] & 127
            if size == 126:
                size = struct.unpack("!H", self.exactly(2) or b"\0\0")[0]
            elif size == 127:
                size = struct.unpack("!Q", self.exactly(8) or b"\0" * 8)[0]
            if size > FRAME_MOST:
                return b""
            content = self.exactly(size) if size else b""
            if kind == 8 or (size and not content):
                return b""
            if kind == 9:
                self.send(content, 10)
            elif kind in (0, 2) and content:
                return content

    def close(self):
        """Say that this is the end."""
        try:
            self.send(struct.pack("!H", 1000), 8)
        except OSError:
            pass


def connect(host, port):
    """A line to a host, through the HTTP proxy that the environment names for https, if it names one."""
    proxy = os.environ.get("https_proxy") or os.environ.get("HTTPS_PROXY") or ""
    without = os.environ.get("no_proxy", os.environ.get("NO_PROXY", "")).split(",")
    names = [name.strip().lstrip(".") for name in without if name.strip()]
    if not proxy or host in LOCAL or any(host == name or host.endswith("." + name) for name in names):
        return socket.create_connection((host, port), 30)
    parts = urlsplit(proxy)
    line = socket.create_connection((parts.hostname, parts.port or 80), 30)
    line.sendall(f"CONNECT {host}:{port} HTTP/1.1\r\nHost: {host}:{port}\r\n\r\n".encode())
    head = b""
    while b"\r\n\r\n" not in head:
        piece = line.recv(1)
        if not piece or len(head) > HEAD_MOST:
            raise OSError(f"the proxy {parts.hostname} ended the connection")
        head += piece
    if b" 200" not in head.split(b"\r\n", 1)[0]:
        raise OSError(
            "the proxy {} says {}".format(parts.hostname, head.split(b"\r\n", 1)[0].decode("latin-1"))
        )
    return line


def refusal(code, reason, location):
    """What an answer means that is no websocket."""
    if code in (401, 403) and "owner" in reason:
        return reason
    if code in (401, 403) or (code in (301, 302, 303) and "login" in location):
        return "The hub does not take the token for this cluster. Make a new one on the account page, then: galilean-ssh.py token"
    if code in (301, 302, 303, 404, 424, 503) and "portal" not in reason:
        return "This cluster, or this node, does not run. Start it in the portal."
    return f"The node answers {code} {reason}"


def run(address, target, ca_file=None):
    """Join ssh, which is at standard input and output, with the node."""
    account, _, host = target.rpartition("@")
    node = Socket(address.rstrip("/") + "/" + path_of(host), read_token(), ca_file)
    key = node.headers.get("galilean-host-key", "")
    if not KEY.match(key):
        raise Trouble("The node does not say which key it has.")
    write_private(os.path.join(HOSTS, host), f"{host} {key}\n")
    there = node.headers.get("galilean-account", "")
    if account and re.match(r"[A-Za-z0-9._-]{1,32}\Z", there) and there != account:
        sys.stderr.write(f"galilean-ssh: the account of this node is {there}: use {there}@{host}\n")
    if os.name == "nt":
        import msvcrt

        for stream in (sys.stdin, sys.stdout):
            msvcrt.setmode(stream.fileno(), os.O_BINARY)
    threading.Thread(target=feed, args=(node,), daemon=True).start()
    out = sys.stdout.buffer
    while True:
        content = node.receive()
        if not content:
            break
        try:
            out.write(content)
            out.flush()
        except OSError:
            break
    node.close()
    os._exit(0)  # the other thread waits for standard input


def feed(node):
    """What ssh says goes to the node."""
    try:
        while True:
            content = os.read(sys.stdin.fileno(), PIECE)
            if not content:
                break
            node.send(content)
    except OSError:
        pass
    node.close()


def keep_token():
    """Ask for the token and keep it."""
    token = (getpass.getpass("Token: ") if sys.stdin.isatty() else sys.stdin.readline()).strip()
    if not re.match(r"[!-~]{8,512}\Z", token):
        raise Trouble("That is no token.")
    write_private(TOKEN, token + "\n")
    sys.stderr.write(f"Kept in {TOKEN}\n")


def main(arguments=None):
    """The command."""
    parser = argparse.ArgumentParser(prog="galilean-ssh.py", description="ssh into a node of Galilean")
    what = parser.add_subparsers(dest="what", required=True)
    joined = what.add_parser("connect", help="a ProxyCommand: join standard input and output with a node")
    joined.add_argument("address", help="https://hub.example.edu/user/ada/, as the account page says it")
    joined.add_argument("target", help="account@cluster.galilean (%%r@%%h)")
    joined.add_argument("--ca-file", help="certificate of an authority of the centre's own")
    what.add_parser("token", help="keep the token that the account page gave")
    given = parser.parse_args(arguments)
    try:
        if given.what == "token":
            keep_token()
        else:
            run(given.address, given.target, given.ca_file)
    except Trouble as trouble:
        sys.stderr.write(f"galilean-ssh: {trouble}\n")
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
